//! Directions that rows share, times a weight of each row's own: the form of MEmCom, with clusters in
//! place of a hash, and of model2vec's quantised vocabulary.

use super::{Form, Method, Plan, Shape, Values, sample_rows};
use crate::measure::normalise;
use crate::table::block;
use anyhow::{Result, bail};
use embc_core::graph::Graph;
use embc_core::graph::device::program::Node;
use embc_core::kmeans::{Lloyd, Start, assign, kmeans};
use embc_core::linalg::dot;
use embc_core::packed::Packed;
use embc_core::quantize::{Codes, Fit, Storage};

pub(super) struct Clusters;

/// Most directions: finding each row's takes as many products.
const MOST: u32 = 13;
/// Weights that share a range.
const GROUP: usize = 64;

impl Method for Clusters {
    fn name(&self) -> &'static str {
        "clusters"
    }
    fn doc(&self) -> &'static str {
        "clusters of directions at 8 bits, times a weight a row: MEmCom's form"
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        let Shape { rows, dim, .. } = *shape;
        let bytes = move |bits: u32| {
            Packed::bytes(rows as u64, 1 << bits)
                + Storage::Int8.bytes(rows as u64, GROUP)
                + Values::bytes(1 << bits, dim, Storage::Int8)
        };
        let fits = |bits: &u32| bytes(*bits) <= budget && 2 << bits <= rows.min(sample_rows(dim));
        let plan = |bits: u32| Plan {
            method: self.name(),
            sizes: format!("{} directions x a weight, int8", 1 << bits),
            bytes: bytes(bits),
            build: Box::new(move |of| {
                let form: Box<dyn Form> = Box::new(Weighted::fit(of, 1 << bits)?);
                Ok(form)
            }),
        };
        (4..=MOST).rev().find(fits).map(plan).into_iter().collect()
    }
}

struct Weighted {
    directions: Values,
    pointers: Packed,
    weights: Codes,
    rows: usize,
}

impl Weighted {
    fn fit(of: &super::Fitting<'_>, k: usize) -> Result<Self> {
        let (rows, dim) = (of.table.rows, of.table.dim);
        let points = directions(&of.sample, dim);
        let (start, iterations, cancel) = (Start::Random, 15, Some(of.cancel));
        let lloyd = Lloyd { start, iterations, cancel };
        let weights = of.weights().map(|w| w.iter().map(|&w| w.max(1) as f32).collect());
        let weights: Option<Vec<f32>> = weights;
        let found = kmeans(&points, dim, k, weights.as_deref(), lloyd, &mut of.rng.clone());
        let directions_of = Values::of(&found, dim, Storage::Int8);
        let found = directions_of.decoded();
        let mut pointers = Packed::zeros(rows as u64, k as u64);
        let mut weights = Codes::zeros(Storage::Int8, rows as u64, GROUP);
        let mut nearest = vec![0; block(dim).min(rows)];
        of.table.each(|first, block| {
            if of.cancel.is_set() {
                bail!("interrupted");
            }
            let nearest = &mut nearest[..block.len() / dim];
            assign(&directions(block, dim), dim, &found, nearest);
            let weight = |(row, &c): (&[f32], &u32)| {
                // What is left is least where the rest is orthogonal to the direction.
                let of = &found[c as usize * dim..][..dim];
                dot(row, of) / dot(of, of).max(f32::MIN_POSITIVE)
            };
            let some: Vec<f32> = block.chunks_exact(dim).zip(&*nearest).map(weight).collect();
            weights.write(first, &some, Fit::Whole);
            (first..).zip(&*nearest).for_each(|(at, &c)| pointers.set(at, c));
            Ok(())
        })?;
        Ok(Self { directions: directions_of, pointers, weights, rows })
    }
}

/// Rows of length 1; zeros stay.
fn directions(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut rows = rows.to_vec();
    normalise(&mut rows, dim);
    rows
}

impl Form for Weighted {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        let shape = (self.rows as u64, 1);
        let cluster = g.unpack(ids, &format!("{at}clusters"), &self.pointers, shape);
        let direction = self.directions.gather(g, cluster, &format!("{at}directions"));
        let weight = g.decode(ids, &format!("{at}weights"), &self.weights, 1);
        g.mul(direction, weight)
    }
}
