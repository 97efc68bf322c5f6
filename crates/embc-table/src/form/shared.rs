//! A table whose rows already are vectors times weights, as model2vec writes it: the same at the bits
//! that it needs. Vectors stay to the bit, weights to half precision.

use super::{Fitting, Form, Method, Plan, Shape};
use anyhow::{Context, Result};
use embc_core::graph::Graph;
use embc_core::graph::device::program::Node;
use embc_core::packed::Packed;
use embc_core::quantize::{Codes, Fit, Storage};
use half::f16;
use std::collections::BTreeSet;

pub(super) struct Shared;

impl Method for Shared {
    fn name(&self) -> &'static str {
        "as_it_is"
    }
    fn doc(&self) -> &'static str {
        "of a table that shares vectors already: pointers and weights at the bits that they need"
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        let Some([vectors, weights]) = shape.shared else { return Vec::new() };
        let (rows, values) = (shape.rows as u64, (vectors * shape.dim) as u64);
        let of_weights = match weights {
            0 => 0,
            n => Packed::bytes(rows, n as u64) + Storage::Fp16.bytes(n as u64, 1),
        };
        let bytes = Storage::Int8.bytes(values, values as usize)
            + Packed::bytes(rows, vectors as u64)
            + of_weights;
        let plan = Plan {
            method: self.name(),
            sizes: format!("{vectors} vectors, int8, {weights} different weights, fp16"),
            bytes,
            build: Box::new(move |of| {
                let form: Box<dyn Form> = Box::new(Vectors::fit(of)?);
                Ok(form)
            }),
        };
        Some(plan).filter(|plan| plan.bytes <= budget).into_iter().collect()
    }
}

/// Different weights in half precision, the least first.
pub fn weights(all: &[f32]) -> Vec<f32> {
    let bits: BTreeSet<u16> = all.iter().map(|x| f16::from_f32(*x).to_bits()).collect();
    let mut all: Vec<f32> = bits.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect();
    all.sort_by(f32::total_cmp);
    all
}

struct Vectors {
    vectors: Codes,
    dim: usize,
    mapping: Packed,
    weights: Option<(Codes, Packed)>,
    rows: u64,
}

impl Vectors {
    fn fit(of: &Fitting<'_>) -> Result<Self> {
        let parts = of.table.parts.as_ref().context("a table that shares vectors")?;
        let dim = of.table.dim;
        let values: Vec<f32> = parts.vectors.iter().map(|x| f32::from(*x)).collect();
        // One range, of all that a byte may be, so that steps are of 1.
        let n = values.len();
        let mut vectors = Codes::zeros(Storage::Int8, n as u64, n);
        vectors.write_as(&values, -128.0, 1.0);
        let rows = parts.mapping.len() as u64;
        let mut mapping = Packed::zeros(rows, (n / dim) as u64);
        parts.mapping.iter().enumerate().for_each(|(at, &of)| mapping.set(at, of));
        let weights = (!parts.weights.is_empty()).then(|| {
            let different = weights(&parts.weights);
            let mut values = Codes::zeros(Storage::Fp16, different.len() as u64, 1);
            values.write(0, &different, Fit::Whole);
            let mut which = Packed::zeros(rows, different.len() as u64);
            for (at, x) in parts.weights.iter().enumerate() {
                let x = f16::from_f32(*x).to_f32();
                which.set(at, different.partition_point(|y| y.total_cmp(&x).is_lt()) as u32);
            }
            (values, which)
        });
        Ok(Self { vectors, dim, mapping, weights, rows })
    }
}

impl Form for Vectors {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        let vector = g.unpack(ids, &format!("{at}mapping"), &self.mapping, (self.rows, 1));
        let row = g.decode(vector, &format!("{at}vectors"), &self.vectors, self.dim);
        let Some((values, which)) = &self.weights else { return row };
        let which = g.unpack(ids, &format!("{at}weight"), which, (self.rows, 1));
        let weight = g.decode(which, &format!("{at}weights"), values, 1);
        g.mul(row, weight)
    }
}
