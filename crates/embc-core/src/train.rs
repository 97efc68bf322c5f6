//! The training loop: epochs, validation, selection, early stop, and the test split read once.

use crate::batch::{Data, Order, Split};
use crate::layer::Layer;
use crate::loss::Loss;
use crate::metric::Metric;
use crate::net::Net;
use crate::optim::Optim;
use crate::scheme::Clock;
use crate::state::{self, Saved, What};
use std::ops::ControlFlow;

/// The settings of a training run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Update rule of all parameters.
    pub optimizer: Optim,
    /// What is minimised.
    pub loss: Loss,
    /// Examples a step.
    pub batch: usize,
    /// Most epochs.
    pub epochs: u32,
    /// Metrics to evaluate.
    pub metrics: Vec<Metric>,
    /// The validation metric that picks the epoch.
    pub select: Metric,
    /// Stop after this many validations without a better one.
    pub patience: Option<u32>,
    /// Validate every so many batches besides the ends of epochs.
    pub validate_every: Option<u64>,
    /// The trial's seed.
    pub seed: u64,
}

/// A point of the learning curve.
#[derive(Clone, Debug)]
pub struct Point {
    /// Epoch, from 1.
    pub epoch: u32,
    /// Steps done.
    pub step: u64,
    /// Mean training loss since the last point.
    pub train_loss: f64,
    /// Validation metrics.
    pub valid: Vec<(Metric, f64)>,
}

/// What a run leaves behind, beside the weights of the selected epoch.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One point per validation.
    pub curve: Vec<Point>,
    /// Index of the selected point.
    pub best: usize,
    /// Validation metrics of the final weights.
    pub valid: Vec<(Metric, f64)>,
    /// Test metrics of the final weights.
    pub test: Vec<(Metric, f64)>,
}

/// Why a run ended early.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Stop {
    /// The observer asked for it.
    #[error("cancelled")]
    Cancelled,
    /// A number is NaN or infinite.
    #[error(
        "{what} is not finite at step {step} of epoch {epoch}, first seen in {tensor}; lower the learning rate"
    )]
    NotFinite {
        /// The loss, or the scores of a split.
        what: String,
        /// The first tensor that holds such a number.
        tensor: String,
        /// Steps done.
        step: u64,
        /// Epoch, from 1.
        epoch: u32,
    },
}

/// Watches a run.
pub trait Observer {
    /// After every step, with its number, epoch from 1, loss and examples; may cancel.
    fn step(&mut self, step: u64, epoch: u32, loss: f64, examples: usize) -> ControlFlow<()>;
    /// Before an evaluation, and after it (`done`).
    fn evaluating(&mut self, _split: Split, _done: bool) {}
    /// After every validation.
    fn point(&mut self, _point: &Point) {}
}

/// Trains `net`, leaves it with the weights of the selected epoch, and scores the test split once.
/// `finish` runs post-training stages on the selected weights and says whether it changed any.
pub fn run(
    net: &mut Net,
    data: &dyn Data,
    settings: &Settings,
    finish: &mut dyn FnMut(&mut Layer) -> bool,
    observer: &mut dyn Observer,
) -> Result<Outcome, Stop> {
    let s = settings;
    let steps_per_epoch = data.shape().train_rows.div_ceil(s.batch as u64);
    let mut curve: Vec<Point> = Vec::new();
    let mut best: Option<(usize, Option<Saved>)> = None;
    let mut step = 0;
    let mut stop = None;
    'epochs: for epoch in 0..s.epochs {
        let (mut sum, mut examples) = (0.0, 0);
        let order = Order { seed: s.seed, epoch, batch: s.batch, skip: 0 };
        data.train(order, &mut |batch| {
            let loss = net.step(batch, s.loss, &s.optimizer);
            step += 1;
            if !loss.is_finite() {
                let tensor = net.culprit().unwrap_or_else(|| "the logits".into());
                let what = "the training loss".into();
                stop = Some(Stop::NotFinite { what, tensor, step, epoch: epoch + 1 });
                return ControlFlow::Break(());
            }
            net.layer.after_step(Clock { step, epoch, steps_per_epoch });
            sum += loss * batch.size as f64;
            examples += batch.size;
            if observer.step(step, epoch + 1, loss, batch.size).is_break() {
                stop = Some(Stop::Cancelled);
                return ControlFlow::Break(());
            }
            let inside = s.validate_every.is_some_and(|every| step % every == 0);
            if inside && step % steps_per_epoch != 0 {
                let train_loss = sum / examples as f64;
                (sum, examples) = (0.0, 0);
                match validate(net, data, s, (epoch, step, train_loss), observer) {
                    Ok(point) => judge(net, s, point, &mut curve, &mut best),
                    Err(error) => stop = Some(error),
                }
            }
            match stop.is_some() || out_of_patience(s, &curve, &best) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        if let Some(stop) = stop {
            return Err(stop);
        }
        if out_of_patience(s, &curve, &best) {
            break 'epochs;
        }
        let train_loss = sum / examples.max(1) as f64;
        let point = validate(net, data, s, (epoch, step, train_loss), observer)?;
        judge(net, s, point, &mut curve, &mut best);
        if out_of_patience(s, &curve, &best) {
            break 'epochs;
        }
    }
    let (best, saved) = best.unwrap_or_default();
    if let Some(saved) = saved {
        state::restore(net, &saved, What::Weights).expect("saved from this net");
    }
    let mut valid = curve.get(best).map_or_else(Vec::new, |point| point.valid.clone());
    let epoch = curve.get(best).map_or(0, |point| point.epoch - 1);
    if finish(&mut net.layer) {
        valid = evaluate(net, data, Split::Valid, s, (epoch, step), observer)?;
    }
    let test = evaluate(net, data, Split::Test, s, (epoch, step), observer)?;
    Ok(Outcome { curve, best, valid, test })
}

/// Evaluates a split and turns a score that is not finite into the error that names it.
fn evaluate(
    net: &mut Net,
    data: &dyn Data,
    split: Split,
    s: &Settings,
    (epoch, step): (u32, u64),
    observer: &mut dyn Observer,
) -> Result<Vec<(Metric, f64)>, Stop> {
    observer.evaluating(split, false);
    let values = net.evaluate(data, split, &s.metrics);
    observer.evaluating(split, true);
    values.ok_or_else(|| Stop::NotFinite {
        what: format!("a {} score", split.name()),
        tensor: net.culprit().unwrap_or_else(|| "the logits".into()),
        step,
        epoch: epoch + 1,
    })
}

fn validate(
    net: &mut Net,
    data: &dyn Data,
    s: &Settings,
    (epoch, step, train_loss): (u32, u64, f64),
    observer: &mut dyn Observer,
) -> Result<Point, Stop> {
    let valid = evaluate(net, data, Split::Valid, s, (epoch, step), observer)?;
    let point = Point { epoch: epoch + 1, step, train_loss, valid };
    observer.point(&point);
    Ok(point)
}

/// Keeps the weights of a point that beats all before it. Without a validation value the latest
/// point wins.
fn judge(
    net: &mut Net,
    s: &Settings,
    point: Point,
    curve: &mut Vec<Point>,
    best: &mut Option<(usize, Option<Saved>)>,
) {
    let value = |point: &Point| point.valid.iter().find(|(m, _)| *m == s.select).map(|v| v.1);
    let old = best.as_ref().and_then(|(i, _)| value(&curve[*i]));
    let better = match (value(&point), old) {
        (Some(new), Some(old)) => s.select.better(new, old),
        (new, old) => new.is_some() || old.is_none(),
    };
    if better {
        let last = point.epoch == s.epochs && s.validate_every.is_none();
        let weights = (!last).then(|| state::save(net, What::Weights));
        *best = Some((curve.len(), weights));
    }
    curve.push(point);
}

fn out_of_patience(s: &Settings, curve: &[Point], best: &Option<(usize, Option<Saved>)>) -> bool {
    let since = best.as_ref().map_or(0, |(i, _)| curve.len().saturating_sub(1 + i));
    s.patience.is_some_and(|patience| since as u32 >= patience.max(1))
}
