//! The training loop: epochs, validation, selection, early stop, and the test split read once.

use crate::batch::{Batch, Data, Order, Split};
use crate::cancel::Cancel;
use crate::loss::Loss;
use crate::metric::{Metric, Values};
use crate::model::Model;
use crate::net::{Net, Scored};
use crate::optim::{LrSchedule, Optim};
use crate::quantize::Storage;
use crate::scheme::{Clock, Origin};
use crate::state::{self, HasState, Saved, State, Tensors, What, restore, save};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// The version of training and of metrics: raise it when the same settings mean other numbers.
pub const VERSION: u32 = 2;

/// The version of training in stages after it.
pub const FINETUNE_VERSION: u32 = 2;

/// Examples whose gradients say what errors in a table cost.
const MEASURED: usize = 1 << 17;

/// The settings of a training run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Update rule of all parameters.
    pub optimizer: Optim,
    /// How the learning rate moves; by default it stays.
    pub lr_schedule: Option<LrSchedule>,
    /// Train the row of unknown ids ([`Order::train_unknown`]).
    pub train_unknown: bool,
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
    /// Ends the run at its next step, inside an evaluation or a clustering too.
    pub cancel: Cancel,
}

/// A point of the learning curve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Validation {
    /// Epoch, from 1.
    pub epoch: u32,
    /// Steps done.
    pub step: u64,
    /// Mean training loss since the last point; none where only a post-training stage ran.
    pub train_loss: Option<f64>,
    /// Validation metrics.
    pub valid: Vec<(Metric, f64)>,
}

/// Where a run stands, beside its tensors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u32,
    /// Batches done of the current epoch.
    pub batches: u64,
    /// A clustering after the last step was cut off, when so many tables had acted.
    pub clustering: Option<usize>,
    /// Sum of the training losses since the last point, and of how many examples.
    pub loss: f64,
    /// Examples since the last point.
    pub examples: usize,
    /// The learning curve.
    pub curve: Vec<Validation>,
    /// Index of its best point.
    pub best: Option<usize>,
}

/// A run cut short, from which another goes on to the same bits.
pub struct Checkpoint {
    /// Where it stood.
    pub at: Position,
    /// Everything of the net; of one that is trained, the weights.
    pub net: Box<dyn Tensors + Send>,
    /// The best point's weights, where the net's are others.
    pub best: Option<Saved>,
    /// It was handed to [`Observer::trained`]: only stages and the test are to come.
    pub trained: bool,
}

/// What a run leaves behind, beside the weights of the selected epoch.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One point per validation.
    pub curve: Vec<Validation>,
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
    /// After every step, with its number, epoch from 1, loss and examples.
    fn step(&mut self, step: u64, epoch: u32, loss: f64, examples: usize);
    /// Before an evaluation, and after it (`done`).
    fn evaluating(&mut self, _split: Split, _done: bool) {}
    /// After a post-training stage, which is no training; `epochs` are to come.
    fn stage(&mut self, _epochs: u32) {}
    /// After every validation.
    fn validated(&mut self, _at: &Validation) {}
    /// Whether to keep a checkpoint now: after a step, or at the end of an epoch.
    fn wants_checkpoint(&mut self, _epoch_ends: bool) -> bool {
        false
    }
    /// Whether [`Observer::scores`] is to see the test split.
    fn wants_scores(&self) -> bool {
        false
    }
    /// The scores of a batch of the test split: [B], or [B × outputs] of classes and of queries
    /// over items.
    fn scores(&mut self, _batch: &Batch, _scores: &[f32]) {}
    /// Training is over, and the net has the selected weights: what stages and the test go on from.
    fn trained(&mut self, _at: &Position, _net: &mut Net) {}
    /// A checkpoint to keep: it was wanted, or the run is cancelled.
    fn checkpoint(&mut self, _at: &Position, _net: &mut Net, _best: Option<&Saved>) {}
}

/// Trains `net`, as it was built, from the start or from a checkpoint; leaves it with the weights
/// of the selected epoch, runs post-training stages on them, and scores the test split once.
pub fn run(
    net: &mut Net,
    data: &dyn Data,
    settings: &Settings,
    from: Option<Checkpoint>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Stop> {
    // On a thread of the pool, which hands out work much faster than one that only waits for it.
    rayon::scope(|_| trial(net, data, settings, from, observer))
}

fn trial(
    net: &mut Net,
    data: &dyn Data,
    settings: &Settings,
    from: Option<Checkpoint>,
    observer: &mut dyn Observer,
) -> Result<Outcome, Stop> {
    let (mut at, mut best, mut trained) = (Position::default(), None, false);
    if let Some(from) = from {
        let what = if from.trained { What::Weights } else { What::Everything };
        state::restore(net, &*from.net, what).expect("saved from such a net");
        (at, best, trained) = (from.at, from.best, from.trained);
    }
    let steps_per_epoch = data.shape().train_rows.div_ceil(settings.batch as u64);
    let (s, most) = (settings, settings.max_steps);
    let all_steps = steps_per_epoch.saturating_mul(s.epochs.into());
    let all_steps = most.map_or(all_steps, |most| most.min(all_steps));
    let rates = s.lr_schedule.map(|schedule| (schedule, 0, all_steps));
    let training = true;
    let mut run = Run { net, data, s, observer, steps_per_epoch, most, rates, at, best, training };
    if !trained {
        run.epochs(settings.epochs)?;
        run.take_best();
        run.observer.trained(&run.at, run.net);
    }
    // What follows starts anew from here.
    run.training = false;
    let mut changed = false;
    if run.net.layer.wants_curvature() {
        run.measure()?;
    }
    // A stage may leave another: what trains on through its codes becomes codes.
    loop {
        let finished = run.net.layer.finish(Origin::Data(data), &settings.cancel);
        run.heed()?;
        let Some(epochs) = finished else { break };
        run.observer.stage(epochs);
        changed = epochs == 0;
        if epochs > 0 {
            run.finetune(epochs)?;
        }
    }
    if settings.storage != Storage::Fp32 {
        run.net.layer.quantize(settings.storage);
        changed = true;
    }
    // What is not finite from here on is so with the weights of that epoch.
    run.at.epoch = run.selected().map_or(0, |point| point.epoch - 1);
    let valid = match run.selected() {
        Some(point) if !changed => point.valid.clone(),
        _ => run.evaluate(Split::Valid)?.all,
    };
    let test = run.evaluate(Split::Test)?;
    Ok(Outcome { curve: run.at.curve, best: run.at.best.unwrap_or(0), valid, test })
}

/// A run in progress.
struct Run<'a> {
    net: &'a mut Net,
    data: &'a dyn Data,
    s: &'a Settings,
    observer: &'a mut dyn Observer,
    steps_per_epoch: u64,
    /// Most steps.
    most: Option<u64>,
    /// How the learning rate moves, after which step, over how many.
    rates: Option<(LrSchedule, u64, u64)>,
    at: Position,
    /// The best point's weights, where training went on after it.
    best: Option<Saved>,
    /// No stage has followed yet: checkpoints are kept, and patience counts.
    training: bool,
}

/// A model without its embedding layer.
struct OfModel<'a>(&'a mut dyn Model);

impl HasState for OfModel<'_> {
    fn state(&mut self, visit: State<'_>) {
        self.0.state(visit);
    }
}

impl Run<'_> {
    /// Trains until so many epochs are done, or patience or steps are at their end.
    fn epochs(&mut self, last: u32) -> Result<(), Stop> {
        while self.at.epoch < last && (self.at.batches > 0 || !self.at_its_end()) {
            self.batches().inspect_err(|stop| self.keep_if(*stop == Stop::Cancelled))?;
            // Not where the epoch's last step was validated already.
            if self.at.examples > 0 && !self.out_of_patience() {
                self.validate(self.at.epoch + 1 == last || self.out_of_steps())
                    .inspect_err(|stop| self.keep_if(*stop == Stop::Cancelled))?;
            }
            self.at.epoch += 1;
            self.at.batches = 0;
            let wanted = self.observer.wants_checkpoint(true);
            self.keep_if(wanted);
        }
        Ok(())
    }

    /// Trains on after a stage; as it is now competes with what training makes of it.
    fn finetune(&mut self, epochs: u32) -> Result<(), Stop> {
        self.net.attach(&self.s.optimizer);
        let epoch = self.selected().map_or(0, |point| point.epoch);
        let point = self.point(epoch, None)?;
        (self.at.best, self.best) = (None, None);
        self.judge(point, false);
        // The rate falls to 0, since what is read of codes jumps as long as steps are large.
        let steps = self.steps_per_epoch.saturating_mul(epochs.into());
        (self.most, self.rates) = (None, Some((LrSchedule::LINEAR, self.at.step, steps)));
        self.epochs(self.at.epoch.saturating_add(epochs))?;
        self.take_best();
        Ok(())
    }

    /// Trains on the rest of an epoch's batches.
    fn batches(&mut self) -> Result<(), Stop> {
        let mut end = Ok(());
        if self.at.batches > 0 {
            // Where a checkpoint was kept.
            self.after_step()?;
            if self.at_its_end() {
                return Ok(());
            }
        }
        let (data, s, epoch, skip) = (self.data, self.s, self.at.epoch, self.at.batches);
        data.train(
            Order { seed: s.seed, epoch, batch: s.batch, skip, train_unknown: s.train_unknown },
            &mut |batch| {
                end = self.step(batch);
                match end.is_err() || self.at_its_end() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            },
        );
        end
    }

    fn step(&mut self, batch: &Batch) -> Result<(), Stop> {
        let mut optim = self.s.optimizer;
        if let Some((schedule, first, all)) = self.rates {
            let factor = schedule.factor(self.at.step - first, all);
            optim.lr = (f64::from(optim.lr) * factor) as f32;
        }
        let loss = self.net.step(batch, self.s.loss, &optim);
        self.at.step += 1;
        self.at.batches += 1;
        self.at.clustering = Some(0);
        if !loss.is_finite() {
            return Err(self.not_finite("the training loss".into()));
        }
        self.at.loss += loss * batch.size as f64;
        self.at.examples += batch.size;
        self.observer.step(self.at.step, self.at.epoch + 1, loss, batch.size);
        self.after_step()
    }

    /// Sees how much errors in each table cost, on rows of the first epoch.
    fn measure(&mut self) -> Result<(), Stop> {
        let (s, net) = (self.s, &mut *self.net);
        let (epoch, skip, mut seen) = (0, 0, 0);
        let order =
            Order { seed: s.seed, epoch, batch: s.batch, skip, train_unknown: s.train_unknown };
        // Running statistics of a batch norm move with every batch that is seen.
        let before = save(&mut OfModel(&mut *net.model), What::Weights);
        self.data.train(order, &mut |batch| {
            net.measure(batch, s.loss);
            seen += batch.size;
            match seen >= MEASURED || s.cancel.is_set() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        restore(&mut OfModel(&mut *net.model), &before, What::Weights).expect("its own state");
        self.heed()
    }

    /// What is due between two steps.
    fn after_step(&mut self) -> Result<(), Stop> {
        let (s, step, epoch) = (self.s, self.at.step, self.at.epoch);
        if let Some(mut done) = self.at.clustering {
            let clock = Clock { step, epoch, steps_per_epoch: self.steps_per_epoch };
            let cut = self.net.layer.after_step(clock, &mut done, &s.cancel).is_break();
            self.at.clustering = cut.then_some(done);
        }
        self.heed()?;
        if self.at.examples > 0 && s.validate_every.is_some_and(|every| step.is_multiple_of(every))
        {
            self.validate(false)?;
        }
        let wanted = self.observer.wants_checkpoint(false);
        self.keep_if(wanted);
        Ok(())
    }

    /// An error once the run is cancelled.
    fn heed(&self) -> Result<(), Stop> {
        if self.s.cancel.is_set() { Err(Stop::Cancelled) } else { Ok(()) }
    }

    fn keep_if(&mut self, wanted: bool) {
        if wanted && self.training {
            self.observer.checkpoint(&self.at, self.net, self.best.as_ref());
        }
    }

    /// The best point so far.
    fn selected(&self) -> Option<&Validation> {
        self.at.best.and_then(|best| self.at.curve.get(best))
    }

    /// Puts the best weights back.
    fn take_best(&mut self) {
        if let Some(saved) = self.best.take() {
            state::restore(self.net, &saved, What::Weights).expect("saved from this net");
        }
    }

    fn not_finite(&mut self, what: String) -> Stop {
        let tensor = self.net.culprit().unwrap_or_else(|| "the logits".into());
        Stop::NotFinite { what, tensor, step: self.at.step, epoch: self.at.epoch + 1 }
    }

    /// Evaluates a split and turns a score that is not finite into the error that names it.
    fn evaluate(&mut self, split: Split) -> Result<Values, Stop> {
        self.observer.evaluating(split, false);
        let s = self.s;
        let Self { net, observer, .. } = self;
        let wanted = split == Split::Test && observer.wants_scores();
        let mut see = |batch: &Batch, scores: &[f32]| observer.scores(batch, scores);
        let see = wanted.then_some(&mut see as Scored<'_>);
        let values = net.evaluate(self.data, split, &s.metrics, &s.cancel, see);
        self.observer.evaluating(split, true);
        self.heed()?;
        values.ok_or_else(|| self.not_finite(format!("a {} score", split.name())))
    }

    /// Validates within an epoch or at its end; `last` where training ends with it.
    fn validate(&mut self, last: bool) -> Result<(), Stop> {
        let loss = self.at.loss / self.at.examples as f64;
        let point = self.point(self.at.epoch + 1, Some(loss))?;
        (self.at.loss, self.at.examples) = (0.0, 0);
        self.judge(point, last);
        Ok(())
    }

    /// The point of the curve after (a part of) `epoch`, counted from 1.
    fn point(&mut self, epoch: u32, train_loss: Option<f64>) -> Result<Validation, Stop> {
        let valid = self.evaluate(Split::Valid)?.all;
        let point = Validation { epoch, step: self.at.step, train_loss, valid };
        self.observer.validated(&point);
        Ok(point)
    }

    /// Keeps the weights of a point that beats all before it, without a copy if it is the last.
    /// Without a validation value the latest point wins.
    fn judge(&mut self, point: Validation, last: bool) {
        let select = self.s.select;
        let value =
            |point: &Validation| point.valid.iter().find(|(m, _)| *m == select).map(|v| v.1);
        let old = self.selected().and_then(value);
        let better = match (value(&point), old) {
            (Some(new), Some(old)) => select.better(new, old),
            (new, old) => new.is_some() || old.is_none(),
        };
        if better {
            self.best = (!last).then(|| state::save(self.net, What::Weights));
            self.at.best = Some(self.at.curve.len());
        }
        self.at.curve.push(point);
    }

    /// True where training ends though epochs are left.
    fn at_its_end(&self) -> bool {
        self.out_of_patience() || self.out_of_steps()
    }

    fn out_of_steps(&self) -> bool {
        self.most.is_some_and(|most| self.at.step >= most)
    }

    fn out_of_patience(&self) -> bool {
        // A rate that falls brings most at its end.
        if !self.training {
            return false;
        }
        let since = self.at.best.map_or(0, |best| 1 + best);
        let counts = |point: &&Validation| point.epoch > self.s.patient_until;
        let since = self.at.curve[since..].iter().filter(counts).count();
        self.s.patience.is_some_and(|patience| since as u32 >= patience.max(1))
    }
}
