//! One trial: plan, build, train, score, record.

use crate::checkpoint::{Claim, Keeper};
use crate::config::Experiment;
use crate::memory::{Memory, Need};
use crate::plan::Trial;
use crate::progress::Progress;
use crate::provenance::{host, peak_rss, program, reset_peak_rss};
use crate::record::{self, Record, Status, TableCensus};
use crate::scores::{Scores, ScoresTo};
use crate::spec::DataSpec;
use crate::stopping;
use anyhow::{Result, bail};
use embc_core::batch::{Data, Examples};
use embc_core::budget::{Budget, Rules};
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec, Unknown};
use embc_core::metric::Metric;
use embc_core::model;
use embc_core::net::Net;
use embc_core::optim::{Kind, Touch};
use embc_core::rng::Rng;
use embc_core::scheme::{self, PlanError};
use embc_core::task::Task;
use embc_core::train::{self, Settings, Stop};
use embc_data::registry::Entry;
use embc_data::view::View;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

/// Parameters of the uncompressed tables, and of the model on top of them.
#[derive(Clone, Copy)]
struct FullSize {
    tables: u64,
    model: u64,
}

mod check;

use check::check;

/// What trials of one experiment share.
pub struct Bench<'a> {
    pub experiment: &'a Experiment,
    pub data: &'a View,
    /// The data set's full name.
    title: &'a str,
    /// Train although the estimate exceeds the memory.
    pub overcommit: bool,
    full: FullSize,
    task: Task,
    /// The data as trials' identities have it.
    pub spec: DataSpec,
    /// Where the scores of the test rows go.
    pub scores: Option<ScoresTo>,
    /// Several trials: each has a file of its own.
    pub several: bool,
    /// Logits an example, and items of a sampled softmax.
    outputs: usize,
    samples: usize,
}

/// How a trial ended, and the trained network if it did well.
pub enum Ended {
    /// It has a record: ok, infeasible or error.
    Recorded(Box<Record>, Option<Box<Net>>),
    /// The user stopped it.
    Cancelled,
}

impl<'a> Bench<'a> {
    /// Checks that the data fits the model, and sizes the uncompressed layer.
    pub fn new(
        experiment: &'a Experiment,
        entry: &'a Entry,
        data: &'a View,
        overcommit: bool,
    ) -> Result<Self> {
        let e = experiment;
        let task = check(e, data)?;
        let kind = model::find(&e.model.kind).expect("checked with the config");
        let inputs = kind.inputs(data.shape()).map_err(|what| e.error("model.kind", what))?;
        let spec = LayerSpec {
            dim: e.embedding.dim,
            sharing: e.embedding.sharing,
            rules: Rules::default(),
        };
        let full = scheme::find("full").expect("registered");
        let plan = LayerPlan::new(
            full,
            &Default::default(),
            data.shape(),
            &inputs,
            spec,
            Budget::Unlimited,
        )?;
        let mut rng = Rng::stream(0, "size");
        let mut model = kind
            .build(data.shape(), &plan.widths(), &e.model.knobs, &mut rng)
            .map_err(|what| wrong_knob(e, "model", &e.model.kind, "model", &what))?;
        let by_class = e.examples()? == Examples::Rows;
        if by_class && data.shape().classes > 2 && model.outputs() == 1 {
            bail!(e.error(
                "model.kind",
                format!(
                    "model {} has one output, but {} has {} classes",
                    e.model.kind,
                    e.dataset,
                    data.shape().classes
                )
            ));
        }
        let mut params = 0;
        model.params(&mut |param| params += param.value().len() as u64);
        let full = FullSize { tables: plan.full_params(), model: params };
        let (title, outputs, samples) = (&entry.title, model.outputs(), model.samples());
        let (spec, scores, several) = (DataSpec::of(data), None, false);
        let bench = Self {
            experiment,
            data,
            title,
            overcommit,
            full,
            task,
            spec,
            scores,
            several,
            outputs,
            samples,
        };
        for trial in crate::plan::trials(e)? {
            if let Err(PlanError::Knob(mut what)) = bench.plan(&trial) {
                // What every [[scheme]] takes beside its knobs.
                if what.starts_with("unknown field") {
                    what += ", `dim`, `sharing`, `init`, `label`, `quantize`";
                }
                let at = e.path_of(trial.scheme.label());
                return Err(wrong_knob(e, &at, trial.scheme.label(), "scheme", &what));
            }
        }
        Ok(bench)
    }

    /// The id of a trial on this data.
    pub fn id(&self, trial: &Trial) -> String {
        trial.id(&self.spec, self.data.label_kind())
    }

    fn plan(&self, trial: &Trial) -> Result<LayerPlan, PlanError> {
        let e = self.experiment;
        let kind = model::find(&e.model.kind).expect("checked");
        let inputs = kind.inputs(self.data.shape()).expect("checked");
        let budget = e.budget.as_ref();
        let rules = Rules {
            allocation: budget.map(|b| b.allocation).unwrap_or_default(),
            of: budget.map(|b| b.of).unwrap_or_default(),
            model_params: self.full.model,
            full_below: e.embedding.full_below,
            storage: trial.scheme.quantize.unwrap_or_default(),
        };
        let dim = trial.scheme.dim.unwrap_or(e.embedding.dim);
        let sharing = trial.scheme.sharing.unwrap_or(e.embedding.sharing);
        let scheme = scheme::find(&trial.scheme.kind).expect("checked");
        // A ratio is against the experiment's full tables, also where a scheme has its own dim.
        let budget = match trial.budget() {
            Budget::Compression(ratio) if dim != e.embedding.dim => {
                Budget::Compression(ratio * dim as f64 / e.embedding.dim as f64)
            }
            other => other,
        };
        let spec = LayerSpec { dim, sharing, rules };
        LayerPlan::new(scheme, &trial.knobs, self.data.shape(), &inputs, spec, budget)
    }

    /// What the trial will need, unless it cannot be planned.
    pub fn need(&self, trial: &Trial) -> Option<Need> {
        self.plan(trial).ok().map(|plan| self.need_of(&plan))
    }

    fn need_of(&self, plan: &LayerPlan) -> Need {
        let train = &self.experiment.train;
        let optim = &train.optimizer.rule();
        let dense = optim.touch == Touch::All
            && matches!(optim.kind, Kind::Adam | Kind::AdamW | Kind::Momentum);
        let (tables, model) = (plan.footprint().train_bytes, 4 * self.full.model);
        let moments = optim.moments() as u64;
        let gradients = plan.plans.iter().map(|plan| 4 * plan.footprint.params);
        let gradients: u64 = if dense { gradients.sum() } else { 0 };
        let ids: u64 = plan.tables.iter().map(|t| u64::from(t.vocab)).sum();
        let width: usize = plan.widths().iter().sum();
        // Looked up, pooled, joined, and the gradients of each; some loads of ids on their way.
        let floats = 6 * width + self.data.shape().dense;
        let outputs = match self.samples {
            0 => self.outputs,
            samples => samples + self.data.ids_per_example() as usize,
        };
        let ids_each = self.data.ids_per_example().max(plan.widths().len() as f64) as u64;
        let loads = 4 * 3 * (ids_each + self.data.shape().dense as u64 + 1);
        let order = match presented(self.experiment) {
            Examples::Rows => 4 * self.data.rows(0) as u64,
            _ => 8 * self.data.shape().train_rows,
        };
        Need {
            parameters: tables + model,
            optimizer: moments * (tables + model) + gradients + model,
            // Where training goes on after a validation.
            best: if train.epochs > 1 || train.validate_every.is_some() {
                tables + model
            } else {
                0
            },
            // Slots of ids and of rows in training, or prints of rows in the census after it.
            // And a clustering's new pointers beside the old ones.
            index: 16 * ids + plan.footprint().index_bytes,
            batch: (4 * train.batch * (floats + outputs)) as u64
                + loads * train.batch.max(1 << 13) as u64
                + 4 * (self.outputs << 12).min(1 << 23) as u64,
            // The shuffled rows of an epoch, or a score and label of each that is evaluated.
            rows: order.max(8 * self.data.rows(1).max(self.data.rows(2)) as u64),
            cache: self.data.cache_bytes(),
        }
    }

    /// The record of a trial without numbers, and why.
    pub fn ended(&self, trial: &Trial, status: Status, why: String) -> Record {
        Record { status, error: Some(why), ..self.blank(trial, SystemTime::now()) }
    }

    /// Runs a trial to its record, or from its last checkpoint on; keeps one `every` so often. A
    /// panic becomes an error record.
    pub fn run(
        &self,
        trial: &Trial,
        metrics: &[Metric],
        memory: &Memory,
        claim: &Claim,
        every: Duration,
        progress: &mut Progress,
    ) -> Ended {
        let run = || self.attempt(trial, metrics, memory, claim, every, progress);
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let record = self.ended(trial, Status::Error, said(&*panic));
            Ended::Recorded(Box::new(record), None)
        })
    }

    fn attempt(
        &self,
        trial: &Trial,
        metrics: &[Metric],
        memory: &Memory,
        claim: &Claim,
        every: Duration,
        progress: &mut Progress,
    ) -> Ended {
        let (e, started) = (self.experiment, SystemTime::now());
        let mut record = self.blank(trial, started);
        let plan = match self.plan(trial) {
            Ok(plan) => plan,
            Err(error) => {
                record.status = Status::Infeasible;
                record.error = Some(error.to_string());
                return Ended::Recorded(Box::new(record), None);
            }
        };
        let footprint = plan.footprint();
        record.sizes = plan
            .tables
            .iter()
            .zip(&plan.plans)
            .map(|(t, p)| format!("{}: {}", t.name, p.sizes))
            .collect();
        record.params = footprint.params;
        record.param_bytes = footprint.param_bytes;
        record.index_bytes = footprint.index_bytes;
        record.vocab = plan.tables.iter().map(|t| u64::from(t.vocab)).collect();
        record.compression_params = self.full.tables as f64 / footprint.params as f64;
        record.compression_bytes = 4.0 * self.full.tables as f64 / footprint.bytes() as f64;
        let need = self.need_of(&plan);
        let _taken = match memory.take(need.total(), self.overcommit) {
            Ok(taken) => taken,
            Err(free) => {
                record.status = Status::Error;
                record.error = Some(format!(
                    "the trial {need}; {} are free: compress more, or pass --overcommit",
                    crate::table::bytes(free)
                ));
                return Ended::Recorded(Box::new(record), None);
            }
        };
        if stopping().is_set() {
            // While it waited for memory.
            return Ended::Cancelled;
        }
        let clock = Instant::now();
        reset_peak_rss();
        let rules = LayerRules {
            init: trial.scheme.init.unwrap_or(e.embedding.init),
            hash: e.embedding.hash,
            pooling: e.embedding.pooling,
            unknown: e.embedding.unknown,
        };
        let layer = Layer::build(&plan, rules, trial.seed, Some(self.data));
        record.build_s = clock.elapsed().as_secs_f64();
        let kind = model::find(&e.model.kind).expect("checked");
        let mut rng = Rng::stream(trial.seed, "init/model");
        let model = match kind.build(self.data.shape(), &plan.widths(), &e.model.knobs, &mut rng) {
            Ok(model) => model,
            Err(what) => {
                record.status = Status::Error;
                record.error = Some(what);
                return Ended::Recorded(Box::new(record), None);
            }
        };
        let optimizer = e.train.optimizer.rule();
        let mut net = Net::new(layer, model, &optimizer);
        net.params(&mut |param| record.train_bytes += param.train_bytes());
        net.model.params(&mut |param| record.model_params += param.value().len() as u64);
        let settings = Settings {
            optimizer,
            lr_schedule: e.train.lr_schedule,
            train_unknown: e.embedding.unknown == Unknown::Trained,
            loss: self.task.loss(presented(e)),
            batch: e.train.batch,
            epochs: e.train.epochs,
            metrics: metrics.to_vec(),
            select: e.train.select,
            patience: e.train.early_stop.map(|stop| stop.patience),
            patient_until: e.train.early_stop.and_then(|stop| stop.after).unwrap_or(0),
            validate_every: e.train.validate_every,
            max_steps: e.train.max_steps,
            storage: trial.scheme.quantize.unwrap_or_default(),
            seed: trial.seed,
            cancel: stopping().clone(),
        };
        let rows = self.data.shape().train_rows * u64::from(settings.epochs);
        let most = settings
            .max_steps
            .map_or(rows, |steps| rows.min(steps.saturating_mul(settings.batch as u64)));
        let (mut keeper, from) = Keeper::new(claim, every, progress);
        record.evaluated = metrics.to_vec();
        let id = self.several.then_some(&record.trial[..]);
        keeper.scores = self.scores.as_ref().map(|to| to.open(id));
        let done = from.as_ref().map_or(0, |from| from.at.step * settings.batch as u64);
        keeper.progress.begin(&trial.name(), done, most, &settings);
        let data = self.data as &dyn Data;
        let result = train::run(&mut net, data, &settings, from, &mut keeper);
        record.train_examples_per_s = keeper.progress.examples_per_second();
        record.wall_s = record.build_s + keeper.seconds();
        record.peak_rss_bytes = peak_rss();
        record.finished = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        match result {
            Err(Stop::Cancelled) => Ended::Cancelled,
            Err(stop) => {
                record.status = Status::Error;
                record.error = Some(stop.to_string());
                Ended::Recorded(Box::new(record), None)
            }
            Ok(outcome) if outcome.valid.iter().all(|(metric, _)| *metric != e.train.select) => {
                record.status = Status::Error;
                let why = match e.train.select.is_ranking() {
                    true => {
                        "no validation query has an item to find among those it is about; choose another metric, split or valid_queries"
                    }
                    false => {
                        "the validation rows have one class only; choose another split or select = \"logloss\""
                    }
                };
                record.error = Some(format!(
                    "valid/{} is not defined, so no epoch can be picked: {why}",
                    e.train.select
                ));
                Ended::Recorded(Box::new(record), None)
            }
            Ok(outcome) => {
                if let Some(Err(error)) = keeper.scores.take().map(Scores::finish) {
                    let record = self.ended(trial, Status::Error, format!("{error:#}"));
                    return Ended::Recorded(Box::new(record), None);
                }
                record.fill(&outcome);
                // As built, where the plan could only bound it.
                let footprint = net.layer.footprint();
                record.param_bytes = footprint.param_bytes;
                record.index_bytes = footprint.index_bytes;
                record.compression_bytes = 4.0 * self.full.tables as f64 / footprint.bytes() as f64;
                record.weights_hash = crate::tensors::weights_hash(&mut net);
                let census = net.layer.census(&plan.tables).into_iter().zip(&plan.tables);
                record.collisions = census
                    .map(|(census, table)| TableCensus { table: table.name.clone(), census })
                    .collect();
                Ended::Recorded(Box::new(record), Some(Box::new(net)))
            }
        }
    }

    /// Where the seed draws the split: rows of valid and of test for each training row.
    fn drawn(&self) -> [f64; 2] {
        let split = serde_json::json!(self.spec.view.split);
        let share = |part: &str| split[part].as_f64().unwrap_or_default();
        let train = 1.0 - share("valid") - share("test");
        [share("valid") / train, share("test") / train]
    }

    /// What examples and rankings have not, or not whole.
    fn left_out(&self) -> BTreeMap<String, u64> {
        let mut all = self.data.left_out.clone();
        if self.experiment.metrics().iter().any(|metric| metric.is_ranking()) {
            all.extend(self.data.left_out_of_rankings());
        }
        all
    }

    fn blank(&self, trial: &Trial, started: SystemTime) -> Record {
        let e = self.experiment;
        let started = humantime::format_rfc3339_seconds(started).to_string();
        Record {
            v: record::VERSION,
            trial: self.id(trial),
            experiment: e.name.clone(),
            status: Status::Ok,
            error: None,
            dataset: e.dataset.clone(),
            dataset_title: self.title.into(),
            data_hash: self.data.data_hash().into(),
            model: e.model.kind.clone(),
            scheme: trial.scheme.kind.clone(),
            label: trial.scheme.label().into(),
            knobs: trial.knobs.clone().into(),
            budget: trial.budget_json(),
            left_out: self.left_out(),
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
            seed: trial.seed,
            epochs: 0,
            best_epoch: 0,
            metrics: BTreeMap::new(),
            without_groups: BTreeMap::new(),
            curve: Vec::new(),
            train_examples_per_s: 0.0,
            build_s: 0.0,
            wall_s: 0.0,
            peak_rss_bytes: 0,
            threads: rayon::current_num_threads(),
            jobs: 1,
            versions: trial.spec.versions(),
            spec: Some(trial.spec.on(&self.spec, self.data.label_kind())),
            evaluated: Vec::new(),
            unknown_lookups: self.data.unknown_lookups,
            drawn: e.data.splits_by_seed().then(|| self.drawn()),
            config: serde_json::Value::Null,
            embc: program(),
            host: host(),
            finished: started.clone(),
            started,
        }
    }
}

/// How the model of a checked experiment wants its examples.
fn presented(experiment: &Experiment) -> Examples {
    experiment.examples().expect("checked")
}

/// An error about a knob of the table at `path`, at its line if the message quotes it.
fn wrong_knob(e: &Experiment, path: &str, kind: &str, what: &str, message: &str) -> anyhow::Error {
    let key = message.split('`').nth(1).unwrap_or("kind");
    e.error(&format!("{path}.{key}"), format!("{what} {kind}: {}", crate::suggest::key(message)))
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    format!("panicked, which is a bug: {}", text.unwrap_or_else(|| "without a word".into()))
}
