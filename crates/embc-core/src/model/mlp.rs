//! All features side by side, through a body, to a logit or one per class. With a document's tokens
//! as the only field it is MEmCom's classification network (arXiv 2203.10135; layer widths are
//! ours, the paper's are not published).

use super::*;
use crate::nn::{BODY_KNOBS, Body, BodyKnobs, Linear};

pub(super) struct Mlp;
pub(super) struct Classifier;

fn build(
    shape: &Shape,
    widths: &[usize],
    knobs: &Knobs,
    rng: &mut Rng,
) -> Result<Box<dyn Model>, String> {
    let inputs = shape.dense + widths.iter().sum::<usize>();
    if inputs == 0 {
        return Err("there is no feature to learn from".into());
    }
    let body = Body::new(inputs, &BodyKnobs::read(knobs)?, rng);
    let outputs = if shape.classes > 2 { shape.classes } else { 1 };
    let output = Linear::new("output", body.width(), outputs, rng);
    Ok(Box::new(Network {
        body,
        output,
        joined: Vec::new(),
        djoined: Vec::new(),
        dbody: Vec::new(),
    }))
}

impl ModelKind for Mlp {
    fn name(&self) -> &'static str {
        "mlp"
    }
    fn doc(&self) -> ModelDoc {
        ModelDoc {
            short: "all features side by side, ReLU layers, a logit (or one per class)",
            paper: "the deep part of Wide & Deep, arXiv 1606.07792",
            needs: "labels; dense or categorical fields",
            knobs: &BODY_KNOBS,
        }
    }
    fn defaults(&self) -> Knobs {
        crate::scheme::defaults::<BodyKnobs>()
    }
    fn build(
        &self,
        shape: &Shape,
        widths: &[usize],
        knobs: &Knobs,
        rng: &mut Rng,
    ) -> Result<Box<dyn Model>, String> {
        build(shape, widths, knobs, rng)
    }
}

impl ModelKind for Classifier {
    fn name(&self) -> &'static str {
        "classifier"
    }
    fn doc(&self) -> ModelDoc {
        ModelDoc {
            short: "pooled tokens, ReLU layers, softmax over classes",
            paper: "the classification network of MEmCom, arXiv 2203.10135",
            needs: "a label of several classes",
            knobs: &BODY_KNOBS,
        }
    }
    fn defaults(&self) -> Knobs {
        crate::scheme::defaults::<BodyKnobs>()
    }
    fn metrics(&self) -> &'static [&'static str] {
        &["logloss", "accuracy", "macro-f1"]
    }
    fn inputs(&self, shape: &Shape) -> Result<Vec<Input>, String> {
        if shape.classes <= 2 {
            return Err(
                "model classifier needs a label of several classes; use kind = \"mlp\"".into()
            );
        }
        Mlp.inputs(shape)
    }
    fn build(
        &self,
        shape: &Shape,
        widths: &[usize],
        knobs: &Knobs,
        rng: &mut Rng,
    ) -> Result<Box<dyn Model>, String> {
        build(shape, widths, knobs, rng)
    }
}

struct Network {
    body: Body,
    output: Linear,
    /// All features [B × inputs], and their gradient.
    joined: Vec<f32>,
    djoined: Vec<f32>,
    /// Gradient of the body's output [B × width].
    dbody: Vec<f32>,
}

impl Model for Network {
    fn outputs(&self) -> usize {
        self.output.outputs
    }
    fn forward(&mut self, x: &Features<'_>, mode: Mode, out: &mut [f32]) {
        let parts = x.rows.iter().map(|rows| &rows[..]).chain([x.dense]);
        let width: usize = parts.clone().map(|part| part.len() / x.batch).sum();
        self.joined.resize(x.batch * width, 0.0);
        let mut first = 0;
        for part in parts.filter(|part| !part.is_empty()) {
            let own = part.len() / x.batch;
            for (joined, part) in self.joined.chunks_exact_mut(width).zip(part.chunks_exact(own)) {
                joined[first..first + own].copy_from_slice(part);
            }
            first += own;
        }
        self.body.forward(x.batch, &self.joined, mode, x.key);
        self.output.forward(x.batch, self.body.output(), out, false);
    }
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        let Self { body, output, joined, djoined, dbody } = self;
        dbody.resize(x.batch * body.width(), 0.0);
        djoined.resize(joined.len(), 0.0);
        output.backward(x.batch, body.output(), dout, Some(dbody), false);
        body.backward(x.batch, joined, dbody, x.key, djoined);
        let (width, mut first) = (joined.len() / x.batch, 0);
        for drows in drows {
            let own = drows.len() / x.batch;
            for (drow, joined) in drows.chunks_exact_mut(own).zip(djoined.chunks_exact(width)) {
                drow.copy_from_slice(&joined[first..first + own]);
            }
            first += own;
        }
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.body.params(visit);
        self.output.params(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.params(&mut |param| param.state(visit));
        self.body.statistics(visit);
    }
}
