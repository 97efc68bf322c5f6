//! A low-rank table: a narrow row an id times a shared projection. (v + d)·k parameters; narrow rows
//! may be those of another scheme, whose memory then buys d/k times as much of each column.

use super::*;
use crate::linalg::{Op, gemm};

pub(super) struct Factorized;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Knob {
    rank: Option<usize>,
    narrow: String,
    #[serde(flatten)]
    of_narrow: Knobs,
}

impl Default for Knob {
    fn default() -> Self {
        Self { rank: None, narrow: "full".into(), of_narrow: Knobs::new() }
    }
}

impl Scheme for Factorized {
    fn name(&self) -> &'static str {
        "factorized"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "a narrow row times a shared projection",
            long: "A table of rank k. Every id keeps a row of its own, k wide; the embedding's width, and so the rest of the model, stay as they are. Compression reaches about dim, in coarse steps. Beyond it, narrow rows may be those of another scheme, such as cce, whose knobs then stand beside these.",
            paper: "ALBERT, arXiv 1909.11942; baseline of MEmCom, `ldim` in CCE's repository; other narrow rows are ours",
            equation: "E_i = A[i] P",
            stores: "A [vocab x k], P [k x dim]",
            collisions: "none are equal; all rows lie in a space of k dimensions; with other narrow rows, theirs",
            knobs: &[
                ("rank", "k (default: the largest that fits; 8 with other narrow rows)"),
                (
                    "narrow",
                    "the scheme of the narrow rows: full (default), hash, signed_hash, double_hash, bloom, hash_embedding, qr, memcom, ce, cce, cqr, hashednet, robe, tt, dhe",
                ),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { rank, narrow, of_narrow } = super::knobs(knobs)?;
        if rank.is_some_and(|rank| !(1..=t.dim).contains(&rank)) {
            return Err(PlanError::Knob(format!(
                "factorized: `rank` lies between 1 and {}",
                t.dim
            )));
        }
        if narrow != "full" {
            return plan_of_narrow(t, limit, rank.unwrap_or(8).min(t.dim), &narrow, &of_narrow);
        }
        no_knobs(&of_narrow)?;
        let (vocab, dim) = (u64::from(t.vocab), t.dim);
        let footprint = move |k: u64| Footprint::floats((vocab + dim as u64) * k);
        let least = rank.unwrap_or(1);
        let largest = limit.largest(rank.unwrap_or(dim) as u64, footprint);
        let fits = largest.filter(|&k| k >= least as u64).ok_or_else(|| {
            PlanError::Infeasible(format!(
                "factorized cannot fit table {} in {limit}: rank {least} takes {} parameters, a compression of {:.1}",
                t.name,
                footprint(least as u64).params,
                t.full_params() as f64 / footprint(least as u64).params as f64,
            ))
        })?;
        let plan = plan_of_rank(t, fits as usize);
        // One rank has one size.
        Ok(Plan { larger: rank.map_or(plan.larger, |_| u64::MAX), ..plan })
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
            let table = full::Table(Param::rows("table", rank, table));
            let projection = cx.init.draw(rank * dim, 1.0 / (rank as f32).sqrt(), &mut cx.rng);
            Box::new(Projected::new(rank, Box::new(table), projection))
        }),
    }
}

/// The plan of narrow rows of another scheme, within what the projection leaves.
fn plan_of_narrow(
    t: &TableSpec,
    limit: Limit,
    rank: usize,
    narrow: &str,
    knobs: &Knobs,
) -> Result<Plan, PlanError> {
    let scheme = find(narrow).filter(|_| hot::TAILS.contains(&narrow) && narrow != "factorized");
    let scheme = scheme.ok_or_else(|| {
        let known = hot::TAILS.iter().filter(|&&name| name != "factorized");
        let known: Vec<&str> = known.copied().collect();
        let known = known.join(", ");
        PlanError::Knob(format!("factorized: narrow = {narrow:?} is none of full, {known}"))
    })?;
    let (vocab, dim) = (u64::from(t.vocab), t.dim);
    let projection = Footprint::floats((rank * dim) as u64);
    let infeasible = |why: String| PlanError::Infeasible(format!("factorized, narrow rows: {why}"));
    let left = hot::less(limit, projection).ok_or_else(|| {
        infeasible(format!("the projection alone takes {} parameters", projection.params))
    })?;
    let spec = TableSpec { dim: rank, ..t.clone() };
    let inner = scheme.plan_table(&spec, left, knobs).map_err(|error| match error {
        PlanError::Infeasible(why) => infeasible(why),
        PlanError::Knob(what) => PlanError::Knob(format!("factorized, narrow rows: {what}")),
    })?;
    Ok(Plan {
        out_dim: dim,
        footprint: projection.plus(inner.footprint),
        larger: projection.params.saturating_add(inner.larger),
        sizes: format!("{}, projected to {dim}", inner.sizes),
        build: Box::new(move |cx| {
            // As wide as the full table's rows, whose variance they keep.
            let scale = cx.init.deviation(vocab, dim) / cx.init.deviation(vocab, rank);
            let deviation = scale / (rank as f32).sqrt();
            let projection = cx.init.draw(rank * dim, deviation, &mut cx.rng);
            Box::new(Projected::new(rank, (inner.build)(cx), projection))
        }),
    })
}

struct Projected {
    rank: usize,
    narrow: Box<dyn Embedding>,
    /// [k × d].
    projection: Param,
}

impl Projected {
    fn new(rank: usize, narrow: Box<dyn Embedding>, projection: Vec<f32>) -> Self {
        let dim = projection.len() / rank;
        Self { rank, narrow, projection: Param::dense("projection", projection).matrix(dim) }
    }

    fn dim(&self) -> usize {
        self.projection.value().len() / self.rank
    }
}

impl Embedding for Projected {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let (n, rank) = (ids.len(), self.rank);
        // Buffer 0 keeps the narrow rows [U × k] for the scatter, buffer 1 is its gradient.
        tape.buffers.resize(2, Vec::new());
        let Tape { buffers, inner, .. } = tape;
        let rows = &mut buffers[0];
        rows.resize(n * rank, 0.0);
        self.narrow.gather(ids, rows, inner.get_or_insert_default());
        gemm(n, self.dim(), rank, rows, Op::N, self.projection.value(), Op::N, 0.0, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let (n, rank, dim) = (ids.len(), self.rank, self.dim());
        let Tape { buffers, inner, .. } = tape;
        let ([rows, drows], Some(inner)) = (&mut buffers[..], inner) else {
            unreachable!("a gather came before")
        };
        gemm(rank, dim, n, rows, Op::T, grad, Op::N, 1.0, self.projection.dense_grad());
        drows.resize(n * rank, 0.0);
        gemm(n, rank, dim, grad, Op::N, self.projection.value(), Op::T, 0.0, drows);
        self.narrow.scatter(ids, drows, inner);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let rows = self.narrow.graph(g, ids);
        g.product(rows, &self.projection, self.dim())
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.narrow.params(visit);
        visit(&mut self.projection);
    }
    fn state(&mut self, visit: State<'_>) {
        self.narrow.state(visit);
        self.projection.state(visit);
    }
    fn after_step(&mut self, at: Clock, cancel: &Cancel, rng: Rng) -> ControlFlow<()> {
        self.narrow.after_step(at, cancel, rng)
    }
    fn figures(&self) -> Vec<(&'static str, f64)> {
        self.narrow.figures()
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.projection.value().len() as u64).plus(self.narrow.footprint())
    }
}
