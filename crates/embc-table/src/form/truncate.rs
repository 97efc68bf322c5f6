//! The rows that are read most, and one for all others: their mean.

use super::scalar::Scaled;
use super::{Fitting, Form, Method, Plan, Shape, largest};
use anyhow::Result;
use embc_core::graph::Graph;
use embc_core::graph::device::program::{Int, Node};
use embc_core::quantize::{Storage, group};

pub(super) struct TruncateRare;

impl Method for TruncateRare {
    fn name(&self) -> &'static str {
        "truncate_rare"
    }
    fn doc(&self) -> &'static str {
        "the first rows at 16, 8 or 4 bits; all later ones read the mean of theirs"
    }
    fn needs_ranks(&self) -> bool {
        true
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        let Shape { rows, dim, .. } = *shape;
        let plan = |storage: Storage| {
            let bytes = move |kept: usize| storage.bytes(((kept + 1) * dim) as u64, group(dim));
            let kept = largest(rows - 1, budget, bytes)?;
            let build = move |of: &Fitting<'_>| {
                let rest = mean(of, kept)?;
                let rows = Scaled::of(of, kept, Some(&rest), storage, group(dim))?;
                let form: Box<dyn Form> = Box::new(Truncated { rows, kept: kept as u32 });
                Ok(form)
            };
            Some(Plan {
                method: self.name(),
                sizes: format!("{kept} rows, {}", storage.name()),
                bytes: bytes(kept),
                build: Box::new(build),
            })
        };
        if !shape.ranked || rows < 2 {
            return Vec::new();
        }
        let storages = [Storage::Int4, Storage::Int8, Storage::Fp16];
        storages.into_iter().filter_map(plan).collect()
    }
}

/// The mean of all rows from the `first`th on.
fn mean(of: &Fitting<'_>, first: usize) -> Result<Vec<f32>> {
    let dim = of.table.dim;
    let mut sums = vec![0f64; dim];
    of.table.each(|start, block| {
        let skip = first.saturating_sub(start).min(block.len() / dim);
        for row in block[skip * dim..].chunks_exact(dim) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        Ok(())
    })?;
    let n = (of.table.rows - first) as f64;
    Ok(sums.iter().map(|sum| (sum / n) as f32).collect())
}

struct Truncated {
    rows: Scaled,
    kept: u32,
}

impl Form for Truncated {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        let row = g.int(ids, Int::Min, self.kept);
        self.rows.graph(g, row, at)
    }
}
