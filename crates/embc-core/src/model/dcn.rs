//! DCN v2: cross layers beside a deep body, on all features side by side (Wang et al.,
//! arXiv 2008.13535). x_{l+1} = x_0 ⊙ (x_l W_l + b_l) + x_l.

use super::*;
use crate::nn::{BODY_KNOBS, Body, BodyKnobs, Joined, Linear};

pub(super) struct Dcn;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    cross: usize,
    hidden: Vec<usize>,
    dropout: f32,
    batch_norm: bool,
}

impl Default for Knob {
    fn default() -> Self {
        Self { cross: 3, hidden: vec![512, 256], dropout: 0.0, batch_norm: false }
    }
}

impl ModelKind for Dcn {
    fn name(&self) -> &'static str {
        "dcn"
    }
    fn doc(&self) -> ModelDoc {
        ModelDoc {
            short: "cross layers of full rank beside ReLU layers, on all features side by side",
            paper: "DCN v2, Wang et al., arXiv 2008.13535",
            needs: "labels; dense or categorical fields",
            knobs: &[
                ("cross", "cross layers (default 3)"),
                ("hidden", "widths of the ReLU layers beside them (default [512, 256])"),
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
        let Knob { cross, hidden, dropout, batch_norm } =
            crate::scheme::knobs(knobs).map_err(|error| error.to_string())?;
        let inputs = shape.dense + widths.iter().sum::<usize>();
        if inputs == 0 {
            return Err("there is no feature to learn from".into());
        }
        let body = Body::new(inputs, &BodyKnobs { hidden, dropout, batch_norm }.check()?, rng);
        let layer = |l: usize| Linear::new(&format!("cross{l}"), inputs, inputs, rng);
        let cross: Vec<Linear> = (0..cross).map(layer).collect();
        let buffers = || vec![Vec::new(); cross.len()];
        Ok(Box::new(Network {
            x: buffers(),
            u: buffers(),
            grads: Default::default(),
            of_cross: Linear::new("of_cross", inputs, 1, rng),
            of_body: Linear::new("of_body", body.width(), 1, rng),
            logits: Vec::new(),
            dbody: Vec::new(),
            joined: Joined::default(),
            cross,
            body,
        }))
    }
}

struct Network {
    cross: Vec<Linear>,
    body: Body,
    /// Logits of the last cross layer and of the body, which are summed.
    of_cross: Linear,
    of_body: Linear,
    /// x_0 [B × inputs].
    joined: Joined,
    /// x_1, x_2, … and x_l W_l + b_l, each [B × inputs].
    x: Vec<Vec<f32>>,
    u: Vec<Vec<f32>>,
    /// Gradients of x_{l+1}, of the layer's product and of its input [B × inputs].
    grads: [Vec<f32>; 3],
    /// The body's logits [B].
    logits: Vec<f32>,
    /// Gradient of the body's output.
    dbody: Vec<f32>,
}

impl Model for Network {
    fn forward(&mut self, x: &Features<'_>, mode: Mode, out: &mut [f32]) {
        self.joined.fill(x);
        let first = &self.joined.values[..];
        for (l, layer) in self.cross.iter().enumerate() {
            let (done, rest) = self.x.split_at_mut(l);
            let (before, next, u) =
                (done.last().map_or(first, |x| x), &mut rest[0], &mut self.u[l]);
            next.resize(first.len(), 0.0);
            u.resize(first.len(), 0.0);
            layer.forward(x.batch, before, u, false);
            for (i, next) in next.iter_mut().enumerate() {
                *next = first[i] * u[i] + before[i];
            }
        }
        self.of_cross.forward(x.batch, self.x.last().map_or(first, |x| x), out, false);
        self.body.forward(x.batch, first, mode, x.key);
        self.logits.resize(x.batch, 0.0);
        self.of_body.forward(x.batch, self.body.output(), &mut self.logits, false);
        out.iter_mut().zip(&self.logits).for_each(|(out, logit)| *out += logit);
    }

    fn graph<'a>(&'a self, g: &mut Graph<'a>) -> Node {
        let features = g.features();
        let first = g.concat(features);
        let last = self.cross.iter().fold(first, |before, layer| {
            let u = layer.graph(g, before, false);
            let product = g.mul(first, u);
            g.add(product, before)
        });
        let of_cross = self.of_cross.graph(g, last, false);
        let body = self.body.graph(g, first);
        let of_body = self.of_body.graph(g, body, false);
        g.add(of_cross, of_body)
    }
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        let Self { cross, body, of_cross, of_body, joined, x: xs, u, grads, dbody, .. } = self;
        let (first, dfirst) = joined.grads();
        dbody.resize(x.batch * body.width(), 0.0);
        of_body.backward(x.batch, body.output(), dout, Some(dbody), false);
        body.backward(x.batch, first, dbody, x.key, dfirst);
        let [dnext, du, dbefore] = grads;
        dnext.resize(first.len(), 0.0);
        du.resize(first.len(), 0.0);
        dbefore.resize(first.len(), 0.0);
        let last = xs.last().map_or(first, |x| x);
        of_cross.backward(x.batch, last, dout, Some(dnext), false);
        for (l, layer) in cross.iter_mut().enumerate().rev() {
            let u = &u[l];
            for i in 0..first.len() {
                du[i] = dnext[i] * first[i];
                dfirst[i] += dnext[i] * u[i];
            }
            let before = if l > 0 { &xs[l - 1] } else { first };
            layer.backward(x.batch, before, du, Some(dbefore), false);
            dnext.iter_mut().zip(&*dbefore).for_each(|(next, before)| *next += before);
        }
        dfirst.iter_mut().zip(&*dnext).for_each(|(first, next)| *first += next);
        joined.split(x.batch, drows);
    }

    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.cross.iter_mut().for_each(|layer| layer.params(visit));
        self.body.params(visit);
        self.of_cross.params(visit);
        self.of_body.params(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.params(&mut |param| param.state(visit));
        self.body.statistics(visit);
    }
}
