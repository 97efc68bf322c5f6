//! One trial on its data: plan, build, train, score, record.

use crate::blueprint::{self, Full};
use crate::checkpoint::{Claim, Keeper};
use crate::memory::Memory;
use crate::order::Order;
use crate::parent::Parent;
use crate::plan::Trial;
use crate::provenance::{host, peak_rss, program, reset_peak_rss};
use crate::record::{self, Record, Status, TableCensus};
use crate::scores::{Scores, ScoresTo};
use crate::spec::{DataSpec, TrialSpec};
use crate::units::bytes;
use crate::watch::Watcher;
use anyhow::Result;
use embc_core::batch::{Data, Examples};
use embc_core::cancel::Cancel;
use embc_core::layer::{LayerPlan, Unknown};
use embc_core::metric::Metric;
use embc_core::model;
use embc_core::net::Net;
use embc_core::scheme::Origin;
use embc_core::train::{self, Outcome, Settings, Stop};
use embc_data::registry::Entry;
use embc_data::view::View;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

mod check;
mod size;
mod speed;

pub use size::Planned;

/// What trials on the same data share.
pub struct Bench<'a> {
    /// The data.
    pub data: &'a View,
    /// The data set's full name.
    title: &'a str,
    /// Train although the estimate exceeds the memory.
    pub overcommit: bool,
    /// The data as trials' identities have it.
    pub spec: DataSpec,
    /// Where the scores of the test rows go.
    pub scores: Option<ScoresTo>,
    /// Several trials: each has a file of its own.
    pub several: bool,
    /// Uncompressed sizes, by what decides them.
    full: Mutex<BTreeMap<String, Full>>,
}

/// How a trial ended, and the trained network if it did well.
pub enum Ended {
    /// It has a record: ok, infeasible or error.
    Recorded(Box<Record>, Option<Box<Net>>),
    /// It was cancelled.
    Cancelled,
}

/// How a trial is run, beside what decides its numbers.
pub struct Running<'a> {
    /// Who has which part of the memory.
    pub memory: &'a Memory,
    /// The right to run it, and where its checkpoints go.
    pub claim: &'a Claim,
    /// What it shares its training with others by.
    pub parent: Option<&'a Parent>,
    /// Between checkpoints inside an epoch.
    pub every: Duration,
    /// Ends it, with a checkpoint.
    pub cancel: &'a Cancel,
}

impl<'a> Bench<'a> {
    /// For trials on the data of a view.
    pub fn new(entry: &'a Entry, data: &'a View, overcommit: bool) -> Self {
        let (spec, full) = (DataSpec::of(data), Mutex::default());
        Self { data, title: &entry.title, overcommit, spec, scores: None, several: false, full }
    }

    /// The id of a trial on this data.
    pub fn id(&self, trial: &Trial) -> String {
        trial.id(&self.spec, self.data.label_kind())
    }

    /// A trial as an order on this data.
    pub fn order(&self, trial: &Trial, experiment: &crate::config::Experiment) -> Order {
        Order {
            dataset: experiment.dataset.clone(),
            experiment: experiment.place(),
            label: Some(trial.scheme.label().into()),
            metrics: experiment.metrics(),
            splits_by_seed: experiment.data.splits_by_seed(),
            spec: trial.spec.on(&self.spec, self.data.label_kind()),
        }
    }

    /// The record of a trial without numbers, and why.
    pub fn ended(&self, order: &Order, status: Status, why: String) -> Record {
        Record { status, error: Some(why), ..self.blank(order, SystemTime::now()) }
    }

    /// Runs a trial to its record, or from its last checkpoint on. A panic becomes an error record.
    pub fn run(
        &self,
        order: &Order,
        metrics: &[Metric],
        running: &Running<'_>,
        watcher: &mut dyn Watcher,
    ) -> Ended {
        let run = || self.attempt(order, metrics, running, watcher);
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let record = self.ended(order, Status::Error, said(&*panic));
            Ended::Recorded(Box::new(record), None)
        })
    }

    fn attempt(
        &self,
        order: &Order,
        metrics: &[Metric],
        running: &Running<'_>,
        watcher: &mut dyn Watcher,
    ) -> Ended {
        let (spec, mut record) = (&order.spec, self.blank(order, SystemTime::now()));
        let plan = match self.plan(spec) {
            Ok(plan) => plan,
            Err(error) => {
                (record.status, record.error) = (Status::Infeasible, Some(error.to_string()));
                return Ended::Recorded(Box::new(record), None);
            }
        };
        self.planned(&mut record, spec, &plan);
        let need = self.need_of(spec, &plan);
        let _taken = match running.memory.take(need.total(), self.overcommit) {
            Ok(taken) => taken,
            Err(free) => {
                let free = bytes(free);
                return failed(
                    record,
                    format!(
                        "the trial {need}; {free} are free: compress more, or pass --overcommit"
                    ),
                );
            }
        };
        if running.cancel.is_set() {
            // While it waited for memory.
            return Ended::Cancelled;
        }
        let clock = Instant::now();
        reset_peak_rss();
        let mut net =
            match blueprint::build(self.data.shape(), spec, &plan, Origin::Data(self.data)) {
                Ok(net) => net,
                Err(what) => return failed(record, what),
            };
        record.build_s = clock.elapsed().as_secs_f64();
        net.params(&mut |param| record.train_bytes += param.train_bytes());
        net.model.params(&mut |param| record.model_params += param.value().len() as u64);
        let settings = self.settings(spec, metrics, running.cancel);
        record.evaluated = metrics.to_vec();
        let (mut keeper, from) = Keeper::new(running, metrics, watcher);
        keeper.checkpoints_of(record.train_bytes);
        let id = self.several.then_some(&record.trial[..]);
        keeper.scores = self.scores.as_ref().map(|to| to.open(id));
        let left = keeper.trained.map_or(self.most_examples(&settings), |_| 0);
        let done = from.as_ref().map_or(0, |from| from.at.step * settings.batch as u64);
        keeper.watcher.begin(done.min(left), left, &settings);
        let result = train::run(&mut net, self.data as &dyn Data, &settings, from, &mut keeper);
        record.train_examples_per_s = keeper.examples_per_second();
        record.parent = running.parent.zip(keeper.trained).map(|(parent, took)| record::ParentOf {
            trial: parent.id().into(),
            wall_s: took.seconds,
        });
        record.wall_s = record.build_s + keeper.seconds();
        record.peak_rss_bytes = peak_rss();
        record.finished = now(SystemTime::now());
        let scores = keeper.scores.take();
        match result {
            Err(Stop::Cancelled) => Ended::Cancelled,
            Err(stop) => failed(record, stop.to_string()),
            Ok(outcome) => match picked(&outcome, spec.schedule.select)
                .and_then(|()| scores.map_or(Ok(()), Scores::finish).map_err(|e| format!("{e:#}")))
            {
                Err(why) => failed(record, why),
                Ok(()) => {
                    record.fill(&outcome);
                    self.built(&mut record, spec, &plan, &mut net);
                    Ended::Recorded(Box::new(record), Some(Box::new(net)))
                }
            },
        }
    }

    fn settings(&self, spec: &TrialSpec, metrics: &[Metric], cancel: &Cancel) -> Settings {
        let train = &spec.schedule;
        Settings {
            optimizer: spec.optimizer.rule(),
            lr_schedule: train.lr_schedule,
            train_unknown: spec.embedding.unknown == Unknown::Trained,
            loss: spec.task.loss(presented(spec)),
            batch: train.batch,
            epochs: train.epochs,
            metrics: metrics.to_vec(),
            select: train.select,
            patience: train.early_stop.map(|stop| stop.patience),
            patient_until: train.early_stop.and_then(|stop| stop.after).unwrap_or(0),
            validate_every: train.validate_every,
            max_steps: train.max_steps,
            storage: spec.scheme.quantize,
            seed: spec.seed,
            cancel: cancel.clone(),
        }
    }

    /// Training examples, unless it stops early.
    fn most_examples(&self, settings: &Settings) -> u64 {
        let rows = self.data.shape().train_rows * u64::from(settings.epochs);
        let batch = settings.batch as u64;
        settings.max_steps.map_or(rows, |steps| rows.min(steps.saturating_mul(batch)))
    }

    /// Records what was planned.
    fn planned(&self, record: &mut Record, spec: &TrialSpec, plan: &LayerPlan) {
        let footprint = plan.footprint();
        let sizes = plan.tables.iter().zip(&plan.plans);
        record.sizes = sizes.map(|(t, p)| format!("{}: {}", t.name, p.sizes)).collect();
        record.params = footprint.params;
        record.param_bytes = footprint.param_bytes;
        record.index_bytes = footprint.index_bytes;
        record.vocab = plan.tables.iter().map(|t| u64::from(t.vocab)).collect();
        let full = self.full(spec).expect("planned against it").tables as f64;
        record.compression_params = full / footprint.params as f64;
        record.compression_bytes = 4.0 * full / footprint.bytes() as f64;
    }

    /// Records what was built, where the plan could only bound it.
    fn built(&self, record: &mut Record, spec: &TrialSpec, plan: &LayerPlan, net: &mut Net) {
        let footprint = net.layer.footprint();
        let full = self.full(spec).expect("planned against it").tables as f64;
        for ((said, table), sizes) in
            record.sizes.iter_mut().zip(&plan.tables).zip(net.layer.sizes())
        {
            *said = sizes.map_or_else(|| said.clone(), |sizes| format!("{}: {sizes}", table.name));
        }
        record.params = footprint.params;
        record.param_bytes = footprint.param_bytes;
        record.index_bytes = footprint.index_bytes;
        record.compression_params = full / footprint.params as f64;
        record.compression_bytes = 4.0 * full / footprint.bytes() as f64;
        record.weights_hash = crate::tensors::weights_hash(net);
        let census = net.layer.census(&plan.tables).into_iter().zip(&plan.tables);
        record.collisions = census
            .map(|(census, table)| TableCensus { table: table.name.clone(), census })
            .collect();
    }

    /// Where the seed draws the split: rows of valid and of test for each training row.
    fn drawn(&self) -> [f64; 2] {
        let split = serde_json::json!(self.spec.view.split);
        let share = |part: &str| split[part].as_f64().unwrap_or_default();
        let train = 1.0 - share("valid") - share("test");
        [share("valid") / train, share("test") / train]
    }

    /// What examples and rankings have not, or not whole.
    fn left_out(&self, metrics: &[Metric]) -> BTreeMap<String, u64> {
        let mut all = self.data.left_out.clone();
        if metrics.iter().any(|metric| metric.is_ranking()) {
            all.extend(self.data.left_out_of_rankings());
        }
        all
    }

    fn blank(&self, order: &Order, started: SystemTime) -> Record {
        let spec = &order.spec;
        let started = now(started);
        Record {
            v: record::VERSION,
            trial: order.id(),
            experiment: order.experiment.clone(),
            status: Status::Ok,
            error: None,
            dataset: order.dataset.clone(),
            dataset_title: self.title.into(),
            data_hash: self.data.data_hash().into(),
            model: spec.model.kind.clone(),
            scheme: spec.scheme.kind.clone(),
            label: order.label().into(),
            knobs: order.knobs().into(),
            budget: order.budget(),
            left_out: self.left_out(&order.metrics()),
            vocab: Vec::new(),
            sizes: Vec::new(),
            collisions: Vec::new(),
            compression_params: 0.0,
            compression_bytes: 0.0,
            params: 0,
            param_bytes: 0,
            index_bytes: 0,
            train_bytes: 0,
            model_params: 0,
            weights_hash: String::new(),
            seed: spec.seed,
            epochs: 0,
            best_epoch: 0,
            metrics: BTreeMap::new(),
            without_groups: BTreeMap::new(),
            curve: Vec::new(),
            train_examples_per_s: 0.0,
            build_s: 0.0,
            wall_s: 0.0,
            parent: None,
            peak_rss_bytes: 0,
            threads: rayon::current_num_threads(),
            jobs: 1,
            versions: spec.versions(),
            spec: Some(spec.clone()),
            evaluated: Vec::new(),
            unknown_lookups: self.data.unknown_lookups,
            drawn: order.splits_by_seed.then(|| self.drawn()),
            config: serde_json::Value::Null,
            embc: program(),
            host: host(),
            finished: started.clone(),
            started,
        }
    }
}

fn now(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn failed(mut record: Record, why: String) -> Ended {
    (record.status, record.error) = (Status::Error, Some(why));
    Ended::Recorded(Box::new(record), None)
}

/// Whether an epoch could be picked.
fn picked(outcome: &Outcome, select: Metric) -> Result<(), String> {
    if outcome.valid.iter().any(|(metric, _)| *metric == select) {
        return Ok(());
    }
    let why = match select.is_ranking() {
        true => {
            "no validation query has an item to find among those it is about; choose another metric, split or valid_queries"
        }
        false => {
            "the validation rows have one class only; choose another split or select = \"logloss\""
        }
    };
    Err(format!("valid/{select} is not defined, so no epoch can be picked: {why}"))
}

/// How the model of a checked trial wants its examples.
fn presented(spec: &TrialSpec) -> Examples {
    let model = model::find(&spec.model.kind).expect("checked");
    model.examples(&spec.model.knobs).expect("checked")
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    format!("panicked, which is a bug: {}", text.unwrap_or_else(|| "without a word".into()))
}
