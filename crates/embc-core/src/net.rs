//! The trained network: embedding layer, model, and one step of both.

use crate::batch::{Batch, Data, Split, Task};
use crate::layer::Layer;
use crate::loss::Loss;
use crate::metric::{Metric, Pointwise, Ranking};
use crate::model::{Features, Mode, Model};
use crate::optim::Optim;
use crate::param::Param;
use crate::state::{HasState, State, TensorMut, prefix};
use std::ops::ControlFlow;

/// Examples a batch in evaluation.
const EVAL_BATCH: usize = 4096;

/// The embedding layer, the model and the buffers between them.
pub struct Net {
    /// The tables.
    pub layer: Layer,
    /// The model on top.
    pub model: Box<dyn Model>,
    logits: Vec<f32>,
    dlogits: Vec<f32>,
    drows: Vec<Vec<f32>>,
}

impl Net {
    /// Joins a layer and a model, and gives every parameter its optimizer state.
    pub fn new(layer: Layer, model: Box<dyn Model>, optim: &Optim) -> Self {
        let drows = vec![Vec::new(); layer.rows().len()];
        let mut net = Self { layer, model, logits: Vec::new(), dlogits: Vec::new(), drows };
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

    /// The logits of a batch [B × outputs].
    pub fn score(&mut self, batch: &Batch, mode: Mode) -> &[f32] {
        self.logits.resize(batch.size * self.model.outputs(), 0.0);
        let rows = self.layer.forward(batch);
        let x = Features { batch: batch.size, dense: &batch.dense, rows };
        self.model.forward(&x, mode, &mut self.logits);
        &self.logits
    }

    /// One step: forward, loss, backward, update. Returns the batch's mean loss; where that is not
    /// finite, nothing is updated.
    pub fn step(&mut self, batch: &Batch, loss: Loss, optim: &Optim) -> f64 {
        self.score(batch, Mode::Train);
        self.dlogits.resize(self.logits.len(), 0.0);
        let value = loss.forward(&self.logits, &batch.labels, &mut self.dlogits);
        if value.is_finite() {
            self.gradients(batch);
            self.layer.step(optim);
            self.model.params(&mut |param| optim.step(param));
        }
        value
    }

    /// Gradients of all parameters for `self.dlogits`.
    fn gradients(&mut self, batch: &Batch) {
        let rows = self.layer.rows();
        for (drows, rows) in self.drows.iter_mut().zip(rows) {
            drows.resize(rows.len(), 0.0);
        }
        let x = Features { batch: batch.size, dense: &batch.dense, rows };
        self.model.backward(&x, &self.dlogits, &mut self.drows);
        self.layer.backward(batch, &self.drows);
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
            if found.is_none() && param.value().iter().any(|x| !x.is_finite()) {
                found = Some(param.name().to_string());
            }
        });
        found
    }

    /// Metrics of a split; `None` where a score is not finite.
    pub fn evaluate(
        &mut self,
        data: &dyn Data,
        split: Split,
        metrics: &[Metric],
    ) -> Option<Vec<(Metric, f64)>> {
        let (mut pointwise, mut finite) = (Pointwise::default(), true);
        let mut ranking = Ranking::new(metrics.iter().copied());
        for task in [Task::Pointwise, Task::Ranking] {
            let wanted = metrics.iter().any(|m| m.is_ranking() == (task == Task::Ranking));
            if !wanted || !data.has(split, task) {
                continue;
            }
            data.eval(split, task, EVAL_BATCH, &mut |batch| {
                let scores = self.score(batch, Mode::Eval);
                if scores.iter().any(|x| !x.is_finite()) {
                    finite = false;
                    return ControlFlow::Break(());
                }
                match task {
                    Task::Pointwise => pointwise.add(scores, &batch.labels),
                    Task::Ranking => ranking.add(scores, &batch.labels, &batch.groups),
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
        let values = metrics.iter().map(value).filter(|(_, value)| !value.is_nan()).collect();
        finite.then_some(values)
    }
}

impl HasState for Net {
    fn state(&mut self, visit: State<'_>) {
        self.layer.state(visit);
        self.model.state(&mut prefix("model", visit));
    }
}
