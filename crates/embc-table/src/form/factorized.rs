//! The truncated singular value decomposition: narrow rows times shared directions, the first so many
//! of the products of columns, weighted by counts where they are known.

use super::{Fitting, Form, Method, Plan, Shape, Values, WIDE, fit, largest};
use anyhow::{Result, bail};
use embc_core::books::covariance;
use embc_core::graph::Graph;
use embc_core::graph::device::program::Node;
use embc_core::linalg::{Op, eigen, gemm};
use embc_core::quantize::{Codes, Storage, group};

pub(super) struct Factorized;

impl Method for Factorized {
    fn name(&self) -> &'static str {
        "factorized"
    }
    fn doc(&self) -> &'static str {
        "narrow rows at 16, 8 or 4 bits times shared directions (SVD)"
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        let Shape { rows, dim, .. } = *shape;
        let plan = |storage: Storage| {
            let bytes = move |rank: usize| {
                Values::bytes(rows, rank, storage) + Values::bytes(rank, dim, Storage::Fp16)
            };
            let rank = largest(dim, budget, bytes)?;
            let build = move |of: &Fitting<'_>| {
                let form: Box<dyn Form> = Box::new(Factors::fit(of, rank, storage)?);
                Ok(form)
            };
            Some(Plan {
                method: self.name(),
                sizes: format!("rank {rank} of {dim}, {}", storage.name()),
                bytes: bytes(rank),
                build: Box::new(build),
            })
        };
        if dim > WIDE {
            return Vec::new();
        }
        // Of full rank, fewer bits a value leave room for nothing.
        let plans: Vec<Plan> =
            [Storage::Fp16, Storage::Int8, Storage::Int4].into_iter().filter_map(plan).collect();
        let full = |plan: &Plan| plan.sizes.starts_with(&format!("rank {dim} "));
        let most = plans.iter().position(full).map_or(plans.len(), |at| at + 1);
        plans.into_iter().take(most).rev().take(2).collect()
    }
}

struct Factors {
    rows: Codes,
    rank: usize,
    directions: Values,
}

impl Factors {
    fn fit(of: &Fitting<'_>, rank: usize, storage: Storage) -> Result<Self> {
        let (n, dim) = (of.table.rows, of.table.dim);
        let mut products = vec![0f64; dim * dim];
        of.table.each(|first, block| {
            if of.cancel.is_set() {
                bail!("interrupted");
            }
            let of_block = match &of.table.counts[..] {
                [] => covariance(block, dim, false),
                counts => covariance(&weighted(block, dim, &counts[first..]), dim, false),
            };
            products.iter_mut().zip(&of_block).for_each(|(sum, x)| *sum += f64::from(*x));
            Ok(())
        })?;
        // Of a size that single precision holds.
        let most = products.iter().copied().fold(1e-30, f64::max);
        let products: Vec<f32> = products.iter().map(|x| (x / most) as f32).collect();
        let (_, mut axes) = eigen(dim, &products);
        axes.truncate(rank * dim);
        let directions = Values::of(&axes, dim, Storage::Fp16);
        let mut rows = Codes::zeros(storage, (n * rank) as u64, group(rank));
        let mut narrow = Vec::new();
        of.table.each(|first, block| {
            let some = block.len() / dim;
            narrow.resize(some * rank, 0.0);
            gemm(some, rank, dim, block, Op::N, &axes, Op::T, 0.0, &mut narrow);
            rows.write(first * rank, &narrow, fit(storage));
            Ok(())
        })?;
        Ok(Self { rows, rank, directions })
    }
}

/// Rows times the square root of their weight.
fn weighted(block: &[f32], dim: usize, counts: &[u32]) -> Vec<f32> {
    let row = |(row, &count): (&[f32], &u32)| {
        let weight = (count.max(1) as f32).sqrt();
        row.iter().map(|x| weight * x).collect::<Vec<f32>>()
    };
    block.chunks_exact(dim).zip(counts).flat_map(row).collect()
}

impl Form for Factors {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        let narrow = g.decode(ids, &format!("{at}rows"), &self.rows, self.rank);
        g.transform_coded(narrow, &format!("{at}directions"), &self.directions.codes)
    }
}
