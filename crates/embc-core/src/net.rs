//! The trained network: embedding layer, model, and one step of both.

use crate::batch::{Batch, Data, Protocol, Shape, Split};
use crate::cancel::Cancel;
use crate::graph::{Graph, HashAs};
use crate::layer::Layer;
use crate::linalg::all_finite;
use crate::loss::{Loss, MISS, Sampled};
use crate::metric::{Bucket, Metric, Ranking, RowMetrics, Values};
use crate::model::{Features, Mode, Model, Sample};
use crate::optim::Optim;
use crate::param::{IdSet, Param};
use crate::rng::Rng;
use crate::state::{HasState, State, TensorMut, prefix};
use std::ops::ControlFlow;

/// Most examples a batch in evaluation.
const EVAL_BATCH: usize = 4096;
/// Most logits of such a batch.
const EVAL_LOGITS: usize = 1 << 23;

/// Sees a batch of an evaluation with its scores.
pub type Scored<'a> = &'a mut dyn FnMut(&Batch, &[f32]);

/// The embedding layer, the model and the buffers between them.
pub struct Net {
    /// The tables.
    pub layer: Layer,
    /// The model on top.
    pub model: Box<dyn Model>,
    /// Logits, and after the loss their gradient.
    logits: Vec<f32>,
    drows: Vec<Vec<f32>>,
    /// Items drawn for a sampled softmax, and which of them each target is.
    drawn: IdSet,
    hits: Vec<u32>,
}

impl Net {
    /// Joins a layer and a model, and gives every parameter its optimizer state.
    pub fn new(layer: Layer, model: Box<dyn Model>, optim: &Optim) -> Self {
        let drows = vec![Vec::new(); layer.rows().len()];
        let drawn = IdSet::with_universe(if model.samples() > 0 { model.outputs() } else { 0 });
        let mut net = Self { layer, model, logits: Vec::new(), drows, drawn, hits: Vec::new() };
        net.attach(optim);
        net
    }

    /// Starts the optimizer anew.
    pub(crate) fn attach(&mut self, optim: &Optim) {
        self.params(&mut |param| optim.attach(param));
    }

    /// Visits all parameters in a fixed order.
    pub fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.layer.params(visit);
        self.model.params(visit);
    }

    /// States what it computes: the lookups of all inputs that a score reads, and with `scores` the
    /// model. In an evaluation [`Layer::prepare_unknown`] came before.
    pub fn graph(&self, shape: &Shape, hash_as: HashAs, scores: bool) -> Graph<'_> {
        let mut graph = Graph::new(hash_as);
        graph.model(&self.layer.widths(), shape.dense, |g| self.model.graph(g));
        let read = graph.read();
        if !scores {
            graph = Graph::new(hash_as);
        }
        self.layer.graph(&mut graph, shape);
        graph.inputs.truncate(read);
        graph
    }

    /// The logits of a batch [B × outputs], unless the step is one of a sampled softmax.
    pub fn score(&mut self, batch: &Batch, mode: Mode) -> &mut [f32] {
        let Self { layer, model, logits, drawn, .. } = self;
        let rows = layer.forward(batch, mode);
        let x = features(batch, rows, mode, drawn);
        let outputs = x.sample.map_or(batch.size * model.outputs(), |sample| {
            batch.size * sample.drawn.len() + sample.targets.ids.len()
        });
        logits.resize(outputs, 0.0);
        model.forward(&x, mode, logits);
        logits
    }

    /// One step: forward, loss, backward, update. Returns the batch's mean loss; where that is not
    /// finite, nothing is updated.
    pub fn step(&mut self, batch: &Batch, loss: Loss, optim: &Optim) -> f64 {
        let value = self.loss(batch, loss);
        if value.is_finite() {
            self.gradients(batch);
            self.layer.step(batch, &self.drows, optim);
            self.model.params(&mut |param| optim.step(param));
        }
        value
    }

    /// Adds a batch to what the layer knows of the loss's curvature. Parameters stay as they are; the
    /// running statistics of a model move.
    pub(crate) fn measure(&mut self, batch: &Batch, loss: Loss) {
        self.loss(batch, loss);
        self.gradients(batch);
        self.layer.measure(batch, &self.drows);
        self.model.params(&mut Param::zero_grad);
    }

    /// The batch's mean loss, and the logits' gradients in their place.
    fn loss(&mut self, batch: &Batch, loss: Loss) -> f64 {
        self.draw(batch);
        self.score(batch, Mode::Train);
        let (drawn, vocab, hits) = (self.drawn.ids().len(), self.model.outputs(), &self.hits);
        let sampled = (drawn > 0).then_some(Sampled { drawn, vocab, hits });
        loss.forward(&mut self.logits, batch, sampled)
    }

    /// Draws the items of a sampled softmax, a function of the batch's key alone.
    fn draw(&mut self, batch: &Batch) {
        let Self { model, drawn, hits, .. } = self;
        drawn.clear();
        let mut rng = Rng::stream(batch.key, "softmax");
        while drawn.ids().len() < model.samples() {
            drawn.insert(rng.below(model.outputs() as u64) as u32);
        }
        hits.clear();
        if model.samples() > 0 {
            let hit = |&item: &u32| drawn.find(item).map_or(MISS, |at| at as u32);
            hits.extend(batch.targets.ids.iter().map(hit));
        }
    }

    /// Gradients of the model's parameters and of rows for those of the logits.
    fn gradients(&mut self, batch: &Batch) {
        let Self { layer, model, logits, drows, drawn, .. } = self;
        let rows = layer.rows();
        for (drows, rows) in drows.iter_mut().zip(rows) {
            drows.resize(rows.len(), 0.0);
        }
        model.backward(&features(batch, rows, Mode::Train, drawn), logits, drows);
    }

    /// The first tensor that holds NaN or infinity.
    pub(crate) fn culprit(&mut self) -> Option<String> {
        let mut found = None;
        self.state(&mut |name, tensor| {
            if let TensorMut::F32(x) = tensor
                && found.is_none()
                && x.iter().any(|x| !x.is_finite())
            {
                found = Some(name.to_string());
            }
        });
        // Quantised parameters are no tensors of the state.
        self.params(&mut |param| {
            if found.is_none() && !param.is_finite() {
                found = Some(param.name().to_string());
            }
        });
        found
    }

    /// Metrics of a split; `None` where a score is not finite, and once cancelled.
    pub fn evaluate(
        &mut self,
        data: &dyn Data,
        split: Split,
        metrics: &[Metric],
        cancel: &Cancel,
        mut scored: Option<Scored<'_>>,
    ) -> Option<Values> {
        self.layer.prepare_unknown();
        let (mut pointwise, mut finite) = (RowMetrics::default(), true);
        let mut ranking = Ranking::new(metrics.iter().copied(), data.shape().items);
        let thirds = metrics.iter().any(|m| matches!(m, Metric::Auc(b) if *b != Bucket::All));
        let size = (EVAL_LOGITS / self.model.outputs()).clamp(1, EVAL_BATCH);
        for protocol in [Protocol::Rows, Protocol::Ranking] {
            let of = |metric: &&Metric| metric.is_ranking() == (protocol == Protocol::Ranking);
            let wanted = metrics.iter().any(|metric| of(&metric));
            if !wanted || !data.has(split, protocol) {
                continue;
            }
            data.eval(split, protocol, size, &mut |batch| {
                let scores = self.score(batch, Mode::Eval);
                if !all_finite(scores) || cancel.is_set() {
                    finite = false;
                    return ControlFlow::Break(());
                }
                if let Some(scored) = &mut scored {
                    scored(batch, scores);
                }
                match protocol {
                    Protocol::Rows => {
                        pointwise.add(scores, &batch.labels);
                        pointwise.add_users(&batch.users);
                        if thirds {
                            pointwise.add_frequency(frequencies(batch, data.shape()));
                        }
                    }
                    Protocol::Ranking if batch.groups.is_empty() => {
                        ranking.add_queries(scores, batch)
                    }
                    Protocol::Ranking => ranking.add(scores, batch),
                }
                ControlFlow::Continue(())
            });
        }
        let ranked = ranking.values();
        let value = |&metric: &Metric| {
            let of_ranking = ranked.iter().find(|(m, _)| *m == metric);
            (metric, of_ranking.map_or_else(|| pointwise.value(metric), |(_, value)| *value))
        };
        // A metric without examples of its kind, such as AUC of one class, is left out.
        let all = metrics.iter().map(value).filter(|(_, value)| !value.is_nan()).collect();
        let without_groups = match split {
            Split::Test if finite => pointwise.without_groups(),
            _ => Vec::new(),
        };
        finite.then_some(Values { all, without_groups })
    }
}

/// How frequent the values of each example are in training: the mean over them of ln(1 + count).
fn frequencies(batch: &Batch, shape: &Shape) -> impl Iterator<Item = f32> {
    (0..batch.size).map(move |i| {
        let (mut sum, mut values) = (0.0, 0);
        for (bag, field) in batch.fields.iter().zip(&shape.fields) {
            for &id in &bag.ids[bag.range(i)] {
                sum += f64::from(field.counts.get(id as usize).copied().unwrap_or(0)).ln_1p();
                values += 1;
            }
        }
        (sum / f64::from(values.max(1))) as f32
    })
}

/// What the model sees of a batch.
fn features<'a>(
    batch: &'a Batch,
    rows: &'a [Vec<f32>],
    mode: Mode,
    drawn: &'a IdSet,
) -> Features<'a> {
    let drawn = drawn.ids();
    let sampled = mode == Mode::Train && !drawn.is_empty();
    let sample = sampled.then_some(Sample { drawn, targets: &batch.targets });
    Features { batch: batch.size, dense: &batch.dense, rows, key: batch.key, sample }
}

impl HasState for Net {
    fn state(&mut self, visit: State<'_>) {
        self.layer.state(visit);
        self.model.state(&mut prefix("model", visit));
    }
}
