//! Generalised matrix factorisation as the CCE reference has it: logit = ⟨u, v⟩, no bias, no MLP.

use super::*;
use crate::linalg::{dot, scale, vectorised};

pub(super) struct Gmf;

impl ModelKind for Gmf {
    fn name(&self) -> &'static str {
        "gmf"
    }
    fn doc(&self) -> ModelDoc {
        ModelDoc {
            short: "inner product of a user's and an item's embedding",
            paper: "He et al. 2017; the small model of CCE, arXiv 2210.05974",
            needs: "exactly two categorical fields",
            knobs: &[],
        }
    }
    fn inputs(&self, shape: &Shape) -> Result<Vec<Input>, String> {
        if shape.fields.len() != 2 {
            return Err(format!(
                "model gmf needs exactly two categorical fields, this data set has {}; use kind = \"dlrm\"",
                shape.fields.len()
            ));
        }
        Ok((0..2).map(|field| Input { field, table: field, width: None }).collect())
    }
    fn build(
        &self,
        _: &Shape,
        widths: &[usize],
        knobs: &Knobs,
        _: &mut Rng,
    ) -> Result<Box<dyn Model>, String> {
        if let Some(key) = knobs.keys().next() {
            return Err(format!("unknown field `{key}`, model gmf has no knobs"));
        }
        Ok(Box::new(Product { width: widths[0] }))
    }
}

struct Product {
    width: usize,
}

impl Model for Product {
    fn forward(&mut self, x: &Features<'_>, _: Mode, out: &mut [f32]) {
        let rows = x.rows[0].chunks_exact(self.width).zip(x.rows[1].chunks_exact(self.width));
        vectorised(
            #[inline(always)]
            || out.iter_mut().zip(rows).for_each(|(out, (u, v))| *out = dot(u, v)),
        );
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>) -> Node {
        let (a, b) = (g.pooled(0), g.pooled(1));
        let x = g.mul(a, b);
        g.op(Op::Sum { x })
    }
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        for (drow, other) in drows.iter_mut().zip([1, 0]) {
            let rows =
                drow.chunks_exact_mut(self.width).zip(x.rows[other].chunks_exact(self.width));
            vectorised(
                #[inline(always)]
                || rows.zip(dout).for_each(|((drow, row), &grad)| scale(grad, row, drow)),
            );
        }
    }
    fn params(&mut self, _: &mut dyn FnMut(&mut Param)) {}
}
