//! The training loop: epochs, validation, selection, early stop, and the test split read once.

use crate::batch::{Data, Order, Split};
use crate::loss::Loss;
use crate::metric::{Metric, Values};
use crate::net::Net;
use crate::optim::Optim;
use crate::quantize::Storage;
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
    /// Epochs before which validations do not count against patience.
    pub patient_until: u32,
    /// Validate every so many batches besides the ends of epochs.
    pub validate_every: Option<u64>,
    /// Most steps, for runs of less than an epoch.
    pub max_steps: Option<u64>,
    /// How parameters of the tables are stored at the end.
    pub storage: Storage,
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
    /// Mean training loss since the last point; none where only a post-training stage ran.
    pub train_loss: Option<f64>,
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
    pub test: Values,
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

/// Watches a run, from a thread of the pool.
pub trait Observer: Send {
    /// After every step, with its number, epoch from 1, loss and examples; may cancel.
    fn step(&mut self, step: u64, epoch: u32, loss: f64, examples: usize) -> ControlFlow<()>;
    /// Before an evaluation, and after it (`done`).
    fn evaluating(&mut self, _split: Split, _done: bool) {}
    /// After a post-training stage, which is no training; `epochs` are to come.
    fn stage(&mut self, _epochs: u32) {}
    /// After every validation.
    fn point(&mut self, _point: &Point) {}
}

/// Trains `net`, leaves it with the weights of the selected epoch, runs post-training stages on
/// them, and scores the test split once.
pub fn run(
    net: &mut Net,
    data: &dyn Data,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Outcome, Stop> {
    // On a thread of the pool, which hands out work much faster than one that only waits for it.
    rayon::scope(|_| trial(net, data, settings, observer))
}

fn trial(
    net: &mut Net,
    data: &dyn Data,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Outcome, Stop> {
    let steps_per_epoch = data.shape().train_rows.div_ceil(settings.batch as u64);
    let (most, curve, best) = (settings.max_steps, Vec::new(), None);
    let mut run = Run {
        net,
        data,
        s: settings,
        observer,
        steps_per_epoch,
        step: 0,
        epoch: 0,
        most,
        curve,
        best,
    };
    run.epochs(settings.epochs)?;
    run.take_best();
    let mut changed = false;
    if let Some(finetune) = run.net.layer.finish(Some(data)) {
        run.observer.stage(finetune);
        changed = true;
        if finetune > 0 {
            run.net.attach(&settings.optimizer);
            // As it is now competes with what training makes of it.
            let epoch = run.selected().map_or(0, |point| point.epoch);
            let point = run.validate(epoch, None)?;
            run.best = None;
            run.judge(point, false);
            run.most = None;
            run.epochs(finetune)?;
            run.take_best();
            changed = false;
        }
    }
    if settings.storage != Storage::Fp32 {
        run.net.layer.quantize(settings.storage);
        changed = true;
    }
    let best = run.best.as_ref().map_or(0, |(best, _)| *best);
    // What is not finite from here on is so with the weights of that epoch.
    run.epoch = run.selected().map_or(0, |point| point.epoch - 1);
    let valid = match run.selected() {
        Some(point) if !changed => point.valid.clone(),
        _ => run.evaluate(Split::Valid)?.all,
    };
    let test = run.evaluate(Split::Test)?;
    Ok(Outcome { curve: run.curve, best, valid, test })
}

/// A run in progress.
struct Run<'a> {
    net: &'a mut Net,
    data: &'a dyn Data,
    s: &'a Settings,
    observer: &'a mut dyn Observer,
    steps_per_epoch: u64,
    /// Steps done.
    step: u64,
    /// The current epoch, or after its end the next.
    epoch: u32,
    /// Most steps.
    most: Option<u64>,
    curve: Vec<Point>,
    /// Index of the best point, and its weights where training may go on.
    best: Option<(usize, Option<Saved>)>,
}

impl Run<'_> {
    /// Trains for `epochs` more epochs, or until patience ends.
    fn epochs(&mut self, epochs: u32) -> Result<(), Stop> {
        let last = self.epoch + epochs;
        while self.epoch < last && !self.out_of_steps() {
            let (data, s, epoch) = (self.data, self.s, self.epoch);
            let (mut sum, mut examples, mut stop) = (0.0, 0, None);
            let order = Order { seed: s.seed, epoch, batch: s.batch, skip: 0 };
            data.train(order, &mut |batch| {
                let mut step = || {
                    let loss = self.net.step(batch, s.loss, &s.optimizer);
                    self.step += 1;
                    if !loss.is_finite() {
                        return Err(self.not_finite("the training loss".into()));
                    }
                    let (step, steps_per_epoch) = (self.step, self.steps_per_epoch);
                    self.net.layer.after_step(Clock { step, epoch, steps_per_epoch });
                    sum += loss * batch.size as f64;
                    examples += batch.size;
                    if self.observer.step(step, epoch + 1, loss, batch.size).is_break() {
                        return Err(Stop::Cancelled);
                    }
                    if s.validate_every.is_some_and(|every| step.is_multiple_of(every)) {
                        let point = self.validate(epoch + 1, Some(sum / examples as f64))?;
                        (sum, examples) = (0.0, 0);
                        self.judge(point, false);
                    }
                    Ok(())
                };
                stop = step().err();
                match stop.is_some() || self.out_of_patience() || self.out_of_steps() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            if let Some(stop) = stop {
                return Err(stop);
            }
            self.epoch += 1;
            // Not where the epoch's last step was validated already.
            if examples > 0 && !self.out_of_patience() {
                let point = self.validate(self.epoch, Some(sum / examples as f64))?;
                self.judge(point, self.epoch == last || self.out_of_steps());
            }
            if self.out_of_patience() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The best point so far.
    fn selected(&self) -> Option<&Point> {
        self.best.as_ref().and_then(|(best, _)| self.curve.get(*best))
    }

    /// Puts the best weights back.
    fn take_best(&mut self) {
        if let Some((_, weights)) = &mut self.best
            && let Some(saved) = weights.take()
        {
            state::restore(self.net, &saved, What::Weights).expect("saved from this net");
        }
    }

    fn not_finite(&mut self, what: String) -> Stop {
        let tensor = self.net.culprit().unwrap_or_else(|| "the logits".into());
        Stop::NotFinite { what, tensor, step: self.step, epoch: self.epoch + 1 }
    }

    /// Evaluates a split and turns a score that is not finite into the error that names it.
    fn evaluate(&mut self, split: Split) -> Result<Values, Stop> {
        self.observer.evaluating(split, false);
        let values = self.net.evaluate(self.data, split, &self.s.metrics);
        self.observer.evaluating(split, true);
        values.ok_or_else(|| self.not_finite(format!("a {} score", split.name())))
    }

    /// Validates after (a part of) `epoch`, counted from 1.
    fn validate(&mut self, epoch: u32, train_loss: Option<f64>) -> Result<Point, Stop> {
        let valid = self.evaluate(Split::Valid)?.all;
        let point = Point { epoch, step: self.step, train_loss, valid };
        self.observer.point(&point);
        Ok(point)
    }

    /// Keeps the weights of a point that beats all before it, without a copy if it is the last.
    /// Without a validation value the latest point wins.
    fn judge(&mut self, point: Point, last: bool) {
        let select = self.s.select;
        let value = |point: &Point| point.valid.iter().find(|(m, _)| *m == select).map(|v| v.1);
        let old = self.best.as_ref().and_then(|(i, _)| value(&self.curve[*i]));
        let better = match (value(&point), old) {
            (Some(new), Some(old)) => select.better(new, old),
            (new, old) => new.is_some() || old.is_none(),
        };
        if better {
            let weights = (!last).then(|| state::save(self.net, What::Weights));
            self.best = Some((self.curve.len(), weights));
        }
        self.curve.push(point);
    }

    fn out_of_steps(&self) -> bool {
        self.most.is_some_and(|most| self.step >= most)
    }

    fn out_of_patience(&self) -> bool {
        let since = self.best.as_ref().map_or(0, |(i, _)| 1 + i).min(self.curve.len());
        let counts = |point: &&Point| point.epoch > self.s.patient_until;
        let since = self.curve[since..].iter().filter(counts).count();
        self.s.patience.is_some_and(|patience| since as u32 >= patience.max(1))
    }
}
