//! Models: the registry, and what a model must do. A model knows no scheme.

use crate::batch::{Bag, Examples, Shape};
use crate::graph::Graph;
use crate::param::Param;
use crate::rng::Rng;
use crate::scheme::Knobs;
use crate::state::State;
use crate::task::LabelKind;
use embc_device::program::{Node, Op};
use serde::Serialize;

mod dcn;
mod deepfm;
mod dlrm;
mod gmf;
mod mlp;
mod pointwise;
mod ranknet;

/// What models with a history are judged by.
const RANKING: &[&str] = &[
    "ndcg",
    "ndcg@10",
    "ndcg@20",
    "ndcg@100",
    "ndcg@20/head",
    "ndcg@20/torso",
    "ndcg@20/tail",
    "hr@10",
    "recall@20",
    "mrr",
];

/// All models, in the order of `embc list models`. A new model is one file and one line here.
pub static MODELS: &[&dyn ModelKind] = &[
    &gmf::Gmf,
    &dlrm::Dlrm,
    &deepfm::DeepFm,
    &dcn::Dcn,
    &mlp::Mlp,
    &mlp::Classifier,
    &pointwise::Pointwise,
    &ranknet::RankNet,
];

/// The model called `name`.
pub fn find(name: &str) -> Option<&'static dyn ModelKind> {
    MODELS.iter().copied().find(|model| model.name() == name)
}

/// What `embc list models` says about a model.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ModelDoc {
    /// One line.
    pub short: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// The data it needs.
    pub needs: &'static str,
    /// Name and meaning of each knob.
    pub knobs: &'static [(&'static str, &'static str)],
}

/// A model input: which data field, through which of the model's tables, how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Index of the data field.
    pub field: usize,
    /// Inputs of equal number share a table.
    pub table: usize,
    /// A width of its own instead of the experiment's dim.
    pub width: Option<usize>,
}

/// A registry entry.
pub trait ModelKind: Sync {
    /// The `kind` of `[model]`.
    fn name(&self) -> &'static str;
    /// What `embc list models` says.
    fn doc(&self) -> ModelDoc;
    /// Part of its trials' ids: raise it when the same knobs mean other numbers.
    fn version(&self) -> u32 {
        1
    }
    /// All knobs with their defaults.
    fn defaults(&self) -> Knobs {
        Knobs::new()
    }
    /// How the model wants its examples. An error names the knob.
    fn examples(&self, _knobs: &Knobs) -> Result<Examples, String> {
        Ok(Examples::Rows)
    }
    /// What it can learn of rows by themselves.
    fn label(&self) -> LabelKind {
        LabelKind::Binary
    }
    /// Names of the metrics that trials always evaluate.
    fn metrics(&self) -> &'static [&'static str] {
        &["auc", "logloss", "accuracy"]
    }
    /// The inputs for data of this shape; by default a table for each field. An error says what
    /// the model needs.
    fn inputs(&self, shape: &Shape) -> Result<Vec<Input>, String> {
        let input = |field| Input { field, table: field, width: None };
        Ok((0..shape.fields.len()).map(input).collect())
    }
    /// Builds the model for inputs of the given widths. An error names the knob.
    fn build(
        &self,
        shape: &Shape,
        widths: &[usize],
        knobs: &Knobs,
        rng: &mut Rng,
    ) -> Result<Box<dyn Model>, String>;
}

/// Training or evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Keeps what backward needs; dropout is on.
    Train,
    /// Scores only.
    Eval,
}

/// What a model sees of a batch of B examples.
#[derive(Clone, Copy)]
pub struct Features<'a> {
    /// B.
    pub batch: usize,
    /// Dense features [B × dense].
    pub dense: &'a [f32],
    /// Pooled rows of each input [B × width].
    pub rows: &'a [Vec<f32>],
    /// Keys all that is drawn at random for this batch.
    pub key: u64,
    /// The items that a step of a sampled softmax is about.
    pub sample: Option<Sample<'a>>,
}

/// The items of a step of a sampled softmax.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// Drawn for all examples.
    pub drawn: &'a [u32],
    /// Each example's own.
    pub targets: &'a Bag,
}

/// A model with its weights.
pub trait Model: Send {
    /// Logits per example.
    fn outputs(&self) -> usize {
        1
    }
    /// Items to draw for each training step of a sampled softmax; 0 for none. With them, the step's
    /// logits are [B × drawn], and then one for each of the batch's targets.
    fn samples(&self) -> usize {
        0
    }
    /// Writes logits [B × outputs].
    fn forward(&mut self, x: &Features<'_>, mode: Mode, out: &mut [f32]);
    /// From the logits' gradient: writes that of each input's rows [B × width] and adds to the
    /// model's own. `x` is that of the last forward pass in training mode.
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]);
    /// States the logits of an evaluation, which are those of `forward`.
    fn graph<'a>(&'a self, g: &mut Graph<'a>) -> Node;
    /// Visits all parameters in a fixed order.
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param));
    /// Visits everything a checkpoint needs.
    fn state(&mut self, visit: State<'_>) {
        self.params(&mut |param| param.state(visit));
    }
}
