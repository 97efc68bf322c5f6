//! MEmCom's pointwise ranking network: history → compressed embedding → pool → body → softmax over
//! all items (arXiv 2203.10135; layer widths are ours, the paper's are not published).

use super::*;
use crate::nn::{BODY_KNOBS, Body, BodyKnobs, ItemSoftmax};

pub(super) struct Pointwise;

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Presented {
    #[default]
    User,
    Event,
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    examples: Presented,
    samples: usize,
    hidden: Vec<usize>,
    dropout: f32,
    batch_norm: bool,
}

impl Knob {
    fn read(knobs: &Knobs) -> Result<Self, String> {
        crate::scheme::knobs(knobs).map_err(|error| error.to_string())
    }
}

impl ModelKind for Pointwise {
    fn name(&self) -> &'static str {
        "pointwise"
    }
    fn doc(&self) -> ModelDoc {
        ModelDoc {
            short: "pooled history, ReLU layers, softmax over all items",
            paper: "the ranking network of MEmCom, arXiv 2203.10135",
            needs: "users and items",
            knobs: &[
                (
                    "examples",
                    "\"user\": a random half of a user's items is the history, the rest are targets, anew each epoch; \"event\": each item, after those before it (default \"user\")",
                ),
                (
                    "samples",
                    "items drawn for a sampled softmax in training; 0 is the exact one (default 0)",
                ),
                BODY_KNOBS[0],
                BODY_KNOBS[1],
                BODY_KNOBS[2],
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        crate::scheme::defaults::<Knob>()
    }
    fn metrics(&self) -> &'static [&'static str] {
        RANKING
    }
    fn examples(&self, knobs: &Knobs) -> Result<Examples, String> {
        Ok(match Knob::read(knobs)?.examples {
            Presented::User => Examples::Users,
            Presented::Event => Examples::Events,
        })
    }
    fn build(
        &self,
        shape: &Shape,
        widths: &[usize],
        knobs: &Knobs,
        rng: &mut Rng,
    ) -> Result<Box<dyn Model>, String> {
        let Knob { samples, hidden, dropout, batch_norm, .. } = Knob::read(knobs)?;
        let body = BodyKnobs { hidden, dropout, batch_norm }.check()?;
        let body = Body::new(widths[0], &body, rng);
        let items = shape.classes;
        if samples > items / 2 {
            return Err(format!(
                "model.samples = {samples}, of {items} items: leave it out for the exact softmax"
            ));
        }
        let output = ItemSoftmax::new(body.width(), items, samples > 0, rng);
        Ok(Box::new(Network { body, output, samples, dbody: Vec::new() }))
    }
}

struct Network {
    body: Body,
    output: ItemSoftmax,
    samples: usize,
    /// Gradient of the body's output [B × width].
    dbody: Vec<f32>,
}

impl Model for Network {
    fn outputs(&self) -> usize {
        self.output.items()
    }
    fn samples(&self) -> usize {
        self.samples
    }
    fn forward(&mut self, x: &Features<'_>, mode: Mode, out: &mut [f32]) {
        self.body.forward(x.batch, &x.rows[0], mode, x.key);
        self.output.forward(x.batch, self.body.output(), x.sample, out);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>) -> Node {
        let history = g.pooled(0);
        let x = self.body.graph(g, history);
        self.output.graph(g, x)
    }
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        let Self { body, output, dbody, .. } = self;
        dbody.resize(x.batch * body.width(), 0.0);
        output.backward(x.batch, body.output(), x.sample, dout, dbody);
        body.backward(x.batch, &x.rows[0], dbody, x.key, &mut drows[0]);
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
