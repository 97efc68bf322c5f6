//! DeepFM: first-order weights, a factorization machine and a deep body on the same embeddings
//! (Guo et al., arXiv 1703.04247).
//!
//! A value's first-order weight is the first component of its embedding, and the factors are the
//! others, so that one compressed table holds both: `dim = 17` is DeepFM with 16 factors. Logit =
//! Σ_f w_f + Σ_{f<g} ⟨v_f, v_g⟩ + a · dense + body, where the body sees all features.

use super::*;
use crate::nn::{BODY_KNOBS, Body, BodyKnobs, Joined, Linear};

pub(super) struct DeepFm;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    hidden: Vec<usize>,
    dropout: f32,
    batch_norm: bool,
}

impl Default for Knob {
    fn default() -> Self {
        Self { hidden: vec![400, 400, 400], dropout: 0.0, batch_norm: false }
    }
}

impl ModelKind for DeepFm {
    fn name(&self) -> &'static str {
        "deepfm"
    }
    fn doc(&self) -> ModelDoc {
        ModelDoc {
            short: "first-order weights, pairwise products of factors, and ReLU layers on one embedding",
            paper: "Guo et al., arXiv 1703.04247",
            needs: "labels; categorical fields; dense features are optional",
            knobs: &[
                ("hidden", "widths of the ReLU layers (default [400, 400, 400])"),
                BODY_KNOBS[1],
                BODY_KNOBS[2],
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        crate::scheme::defaults::<Knob>()
    }
    fn build(
        &self,
        shape: &Shape,
        widths: &[usize],
        knobs: &Knobs,
        rng: &mut Rng,
    ) -> Result<Box<dyn Model>, String> {
        let Knob { hidden, dropout, batch_norm } =
            crate::scheme::knobs(knobs).map_err(|error| error.to_string())?;
        let width = *widths.first().ok_or("model deepfm needs a categorical field")?;
        if width < 2 || widths.iter().any(|&other| other != width) {
            return Err("model deepfm needs embeddings of one width of at least 2: a weight and its factors".into());
        }
        let inputs = shape.dense + widths.len() * width;
        let body = Body::new(inputs, &BodyKnobs { hidden, dropout, batch_norm }.check()?, rng);
        Ok(Box::new(Network {
            width,
            dense: (shape.dense > 0).then(|| Linear::new("dense", shape.dense, 1, rng)),
            output: Linear::new("output", body.width(), 1, rng),
            body,
            joined: Joined::default(),
            sums: Vec::new(),
            logits: Vec::new(),
            dbody: Vec::new(),
        }))
    }
}

struct Network {
    width: usize,
    /// First-order weights of dense features.
    dense: Option<Linear>,
    body: Body,
    output: Linear,
    joined: Joined,
    /// Sums of rows over fields [B × width].
    sums: Vec<f32>,
    /// Logits of one part [B].
    logits: Vec<f32>,
    /// Gradient of the body's output.
    dbody: Vec<f32>,
}

impl Model for Network {
    fn forward(&mut self, x: &Features<'_>, mode: Mode, out: &mut [f32]) {
        let width = self.width;
        self.joined.fill(x);
        self.body.forward(x.batch, &self.joined.values, mode, x.key);
        self.output.forward(x.batch, self.body.output(), out, false);
        if let Some(dense) = &self.dense {
            self.logits.resize(x.batch, 0.0);
            dense.forward(x.batch, x.dense, &mut self.logits, false);
            out.iter_mut().zip(&self.logits).for_each(|(out, logit)| *out += logit);
        }
        self.sums.clear();
        self.sums.resize(x.batch * width, 0.0);
        for rows in x.rows {
            self.sums.iter_mut().zip(rows).for_each(|(sum, v)| *sum += v);
            // Half of what a field's product with itself adds to the squared sum.
            for (out, row) in out.iter_mut().zip(rows.chunks_exact(width)) {
                *out -= 0.5 * row[1..].iter().map(|v| v * v).sum::<f32>();
            }
        }
        for (out, sums) in out.iter_mut().zip(self.sums.chunks_exact(width)) {
            *out += sums[0] + 0.5 * sums[1..].iter().map(|sum| sum * sum).sum::<f32>();
        }
    }

    fn graph<'a>(&'a self, g: &mut Graph<'a>) -> Node {
        let features = g.features();
        let joined = g.concat(features.clone());
        let body = self.body.graph(g, joined);
        let mut logit = self.output.graph(g, body, false);
        let (rows, dense) = features.split_at(features.len() - usize::from(self.dense.is_some()));
        if let Some(of_dense) = &self.dense {
            let of_dense = of_dense.graph(g, dense[0], false);
            logit = g.add(logit, of_dense);
        }
        let half_of_squares = |x: Node, sign: f32, g: &mut Graph<'a>| {
            let x = g.op(Op::Slice { x, from: 1, width: self.width as u32 - 1 });
            let squares = g.mul(x, x);
            let sum = g.op(Op::Sum { x: squares });
            g.scale(sum, sign * 0.5)
        };
        let sums = g.sum(rows.iter().copied());
        for &row in rows {
            let own = half_of_squares(row, -1.0, g);
            logit = g.add(logit, own);
        }
        let first_order = g.op(Op::Slice { x: sums, from: 0, width: 1 });
        let together = half_of_squares(sums, 1.0, g);
        let pairs = g.add(first_order, together);
        g.add(logit, pairs)
    }
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        let Self { width, dense, body, output, joined, sums, dbody, .. } = self;
        let (first, dfirst) = joined.grads();
        dbody.resize(x.batch * body.width(), 0.0);
        output.backward(x.batch, body.output(), dout, Some(dbody), false);
        body.backward(x.batch, first, dbody, x.key, dfirst);
        joined.split(x.batch, drows);
        if let Some(dense) = dense {
            dense.backward(x.batch, x.dense, dout, None, false);
        }
        for (drows, rows) in drows.iter_mut().zip(x.rows) {
            let parts = drows.chunks_exact_mut(*width).zip(rows.chunks_exact(*width));
            for ((drow, row), (d, sums)) in parts.zip(dout.iter().zip(sums.chunks_exact(*width))) {
                drow[0] += d;
                for c in 1..*width {
                    drow[c] += d * (sums[c] - row[c]);
                }
            }
        }
    }

    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.dense.iter_mut().for_each(|dense| dense.params(visit));
        self.body.params(visit);
        self.output.params(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.params(&mut |param| param.state(visit));
        self.body.statistics(visit);
    }
}
