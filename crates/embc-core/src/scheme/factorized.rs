//! A low-rank table: a narrow row an id times a shared projection. (v + d)·k parameters.

use super::*;
use crate::linalg::{Op, gemm};

pub(super) struct Factorized;

impl Scheme for Factorized {
    fn name(&self) -> &'static str {
        "factorized"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "a narrow row times a shared projection",
            long: "A table of rank k. Every id keeps a row of its own, k wide; the embedding's width, and so the rest of the model, stay as they are. Compression reaches about dim, in coarse steps.",
            paper: "ALBERT, arXiv 1909.11942; baseline of MEmCom, `ldim` in CCE's repository",
            equation: "E_i = A[i] P",
            stores: "A [vocab x k], P [k x dim]",
            collisions: "none are equal; all rows lie in a space of k dimensions",
            knobs: &[],
        }
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        no_knobs(knobs)?;
        let (vocab, dim) = (u64::from(t.vocab), t.dim);
        let footprint = move |k: u64| Footprint::floats((vocab + dim as u64) * k);
        let rank = limit.largest(dim as u64, footprint).ok_or_else(|| {
            PlanError::Infeasible(format!(
                "factorized cannot fit table {} in {limit}: rank 1 takes {} parameters, a compression of {:.1}",
                t.name,
                footprint(1).params,
                t.full_params() as f64 / footprint(1).params as f64,
            ))
        })?;
        Ok(plan_of_rank(t, rank as usize))
    }
}

/// The plan of a factorized table of rank `rank`.
pub(super) fn plan_of_rank(t: &TableSpec, rank: usize) -> Plan {
    let (vocab, dim) = (t.vocab as usize, t.dim);
    let params = |rank: usize| (vocab + dim) as u64 * rank as u64;
    Plan {
        out_dim: dim,
        footprint: Footprint::floats(params(rank)),
        larger: if rank < dim { params(rank + 1) } else { u64::MAX },
        sizes: format!("{vocab} rows x {rank}, projected to {dim}"),
        build: Box::new(move |cx| {
            // The projection keeps the variance of the narrow rows.
            let deviation = cx.init.deviation(vocab as u64, dim);
            let table = cx.init.draw(vocab * rank, deviation, &mut cx.rng);
            let projection = cx.init.draw(rank * dim, 1.0 / (rank as f32).sqrt(), &mut cx.rng);
            Box::new(Projected {
                dim,
                table: Param::rows("table", rank, table),
                projection: Param::dense("projection", projection).matrix(dim),
            })
        }),
    }
}

struct Projected {
    dim: usize,
    table: Param,
    projection: Param,
}

impl Embedding for Projected {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let (n, rank) = (ids.len(), self.table.width());
        // Buffer 0 keeps the narrow rows [U × k] for the scatter, buffer 1 is its gradient.
        tape.buffers.resize(2, Vec::new());
        let rows = &mut tape.buffers[0];
        rows.resize(n * rank, 0.0);
        self.table.copy_rows(ids, rows);
        gemm(n, self.dim, rank, rows, Op::N, self.projection.value(), Op::N, 0.0, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let (n, rank) = (ids.len(), self.table.width());
        let [rows, drows] = &mut tape.buffers[..] else { unreachable!("a gather came before") };
        gemm(rank, self.dim, n, rows, Op::T, grad, Op::N, 1.0, self.projection.dense_grad());
        drows.resize(n * rank, 0.0);
        gemm(n, rank, self.dim, grad, Op::N, self.projection.value(), Op::T, 0.0, drows);
        self.table.add_rows(ids, drows);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let rows = g.gather(ids, &self.table, self.table.width());
        g.product(rows, &self.projection, self.dim)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
        visit(&mut self.projection);
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats((self.table.value().len() + self.projection.value().len()) as u64)
    }
}
