//! All features side by side, through a body, to a logit or one per class. With a document's tokens
//! as the only field it is MEmCom's classification network (arXiv 2203.10135; layer widths are
//! ours, the paper's are not published).

use super::*;
use crate::nn::{BODY_KNOBS, Body, BodyKnobs, Joined, Linear};

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
    Ok(Box::new(Network { body, output, joined: Joined::default(), dbody: Vec::new() }))
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
    fn label(&self) -> LabelKind {
        LabelKind::Class
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
    joined: Joined,
    /// Gradient of the body's output [B × width].
    dbody: Vec<f32>,
}

impl Model for Network {
    fn outputs(&self) -> usize {
        self.output.outputs
    }
    fn forward(&mut self, x: &Features<'_>, mode: Mode, out: &mut [f32]) {
        self.joined.fill(x);
        self.body.forward(x.batch, &self.joined.values, mode, x.key);
        self.output.forward(x.batch, self.body.output(), out, false);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>) -> Node {
        let features = g.features();
        let x = g.concat(features);
        let x = self.body.graph(g, x);
        self.output.graph(g, x, false)
    }
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        let Self { body, output, joined, dbody } = self;
        let (first, dfirst) = joined.grads();
        dbody.resize(x.batch * body.width(), 0.0);
        output.backward(x.batch, body.output(), dout, Some(dbody), false);
        body.backward(x.batch, first, dbody, x.key, dfirst);
        joined.split(x.batch, drows);
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
