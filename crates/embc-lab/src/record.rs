//! What a trial leaves: one JSON object, for `report` and for anyone.

use crate::spec::TrialSpec;
use embc_core::census::Census;
use embc_core::metric::Metric;
use embc_core::train::Outcome;
use embc_data::view::ViewSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::mem::take;

/// The version of this format; from 3 on, what is long lies apart once records are folded.
pub const VERSION: u32 = 3;

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

fn alone() -> usize {
    1
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has its metrics.
    Ok,
    /// It failed, as `error` says.
    Error,
    /// Its budget is out of the scheme's reach, as `error` says.
    Infeasible,
    /// Its cell had lost before its turn, as `error` says.
    Pruned,
}

/// The machine of a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// The processor's name.
    pub cpu: String,
    /// Its logical cores.
    pub cores: usize,
    /// Its operating system.
    pub os: String,
}

/// The program of a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Program {
    /// The release.
    pub version: String,
    /// The git revision that it was built from.
    pub revision: String,
    /// Whether its sources differed from that.
    pub dirty: bool,
}

/// A training that a trial went on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ParentOf {
    /// Its id as a trial, without what follows training.
    pub trial: String,
    /// Seconds that it took.
    pub wall_s: f64,
}

/// The collisions of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TableCensus {
    /// Its name.
    pub table: String,
    /// Who shares what in it.
    #[serde(flatten)]
    pub census: Census,
}

/// What is long in a record: most of its bytes, which lie beside folded records, compressed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Details {
    v: u32,
    trial: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sizes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    collisions: Vec<TableCensus>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    without_groups: BTreeMap<String, Vec<f64>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    curve: Vec<BTreeMap<String, f64>>,
}

/// A finished trial.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Version of this format: 3; embc reads 1 and 2 too.
    pub v: u32,
    /// The trial's id: a hash of its spec and of the versions of what computed it.
    pub trial: String,
    /// The experiment whose file it is in.
    pub experiment: String,
    /// How it ended.
    pub status: Status,
    /// Why it has no metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The data set's name in the registry.
    pub dataset: String,
    /// The data set's full name, so that a report needs no registry.
    pub dataset_title: String,
    /// Hash of the content of its files and of how they are read.
    pub data_hash: String,
    /// The model's kind.
    pub model: String,
    /// The scheme's kind.
    pub scheme: String,
    /// The scheme's name in tables.
    pub label: String,
    /// The scheme's knobs, with defaults.
    pub knobs: Value,
    /// The budget's axis and value; {} without one.
    pub budget: Value,
    /// What the data has that examples have not, or not whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
    /// Ids of each table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vocab: Vec<u64>,
    /// The sizes that the scheme chose, for each table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<String>,
    /// Who shares what in each table of the final embedding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collisions: Vec<TableCensus>,
    /// Parameters of the uncompressed tables over `params`.
    pub compression_params: f64,
    /// Bytes of the uncompressed tables over `param_bytes + index_bytes`.
    pub compression_bytes: f64,
    /// Trained parameters of the embedding.
    pub params: u64,
    /// Bytes of these as they are stored.
    pub param_bytes: u64,
    /// Bytes of its pointers, codes and slots.
    pub index_bytes: u64,
    /// Bytes of parameters and optimizer state while training.
    pub train_bytes: u64,
    /// Trained parameters of the model on top.
    pub model_params: u64,
    /// Hash of all weights, pointers and codes, bit for bit.
    pub weights_hash: String,
    /// The trial's seed.
    pub seed: u64,
    /// Epochs trained.
    pub epochs: u32,
    /// The epoch that validation picked, from 1.
    pub best_epoch: u32,
    /// "valid/auc", "test/logloss" and so on, at the picked epoch.
    pub metrics: BTreeMap<String, f64>,
    /// Test metrics without each of 50 groups of the test rows, the same ones in every trial of a
    /// view: the error that comes with the choice of test rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub without_groups: BTreeMap<String, Vec<f64>>,
    /// Validation by validation: step, epoch, training loss, validation metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<BTreeMap<String, f64>>,
    /// Training examples a second, evaluation and the first step left out.
    pub train_examples_per_s: f64,
    /// Seconds that building the tables took, an allocation that reads the data included.
    #[serde(default)]
    pub build_s: f64,
    /// Seconds from the first initial value to the last test score; without its parent's.
    pub wall_s: f64,
    /// The training that it went on from, where another trial had done it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentOf>,
    /// Most bytes that the process held; 0 where trials ran side by side.
    pub peak_rss_bytes: u64,
    /// Threads of the trial.
    pub threads: usize,
    /// Trials that ran side by side: the times of each are longer than alone.
    #[serde(default = "alone")]
    pub jobs: usize,
    /// All that decided its numbers; none in records of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<TrialSpec>,
    /// Versions of what computed it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, u32>,
    /// Metrics that were asked for, also those that are not defined here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluated: Vec<Metric>,
    /// Share of the test lookups that are of ids without a training row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_lookups: f64,
    /// Where the trial's seed drew its split: rows of valid and of test for each training row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawn: Option<[f64; 2]>,
    /// What version 1 has instead of `spec`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub config: Value,
    /// The program.
    pub embc: Program,
    /// The machine.
    pub host: Host,
    /// When it started, RFC 3339.
    pub started: String,
    /// When it ended, RFC 3339.
    pub finished: String,
}

impl Record {
    /// Takes its details out, which no version before 3 reads.
    pub fn take_details(&mut self) -> Details {
        self.v = VERSION;
        let (v, trial) = (VERSION, self.trial.clone());
        let (sizes, collisions) = (take(&mut self.sizes), take(&mut self.collisions));
        let (without_groups, curve) = (take(&mut self.without_groups), take(&mut self.curve));
        Details { v, trial, sizes, collisions, without_groups, curve }
    }

    /// With its details, which it may have already; none where it lacks them.
    pub fn whole(mut self, details: Option<Details>) -> Option<Self> {
        if let Some(details) = details.filter(|_| self.curve.is_empty()) {
            let Details { sizes, collisions, without_groups, curve, .. } = details;
            (self.sizes, self.collisions) = (sizes, collisions);
            (self.without_groups, self.curve) = (without_groups, curve);
        }
        (!self.lacks_details()).then_some(self)
    }

    /// Whether it lacks its details: who has metrics was validated.
    pub fn lacks_details(&self) -> bool {
        self.status == Status::Ok && self.curve.is_empty()
    }

    /// Where the trial's seed drew its split: rows that the metric `key` is of, for each training
    /// row.
    pub fn drawn_per_train(&self, key: &str) -> Option<f64> {
        if self.spec.is_some() {
            return self
                .drawn
                .map(|[valid, test]| if key.starts_with("valid/") { valid } else { test });
        }
        let data: ViewSpec = serde_json::from_value(self.config["data"].clone()).ok()?;
        let split = &self.config["data"]["split"];
        let share = |part: &str| split[part].as_f64().unwrap_or_default();
        let train = 1.0 - share("valid") - share("test");
        data.splits_by_seed().then(|| share(key.split('/').next().unwrap_or_default()) / train)
    }

    /// Whether its budget holds the uncompressed table, which it then is, whatever its scheme.
    pub fn is_uncompressed(&self) -> bool {
        let planned = self.scheme != "full" && self.budget.get("rows").is_none();
        planned && self.compression_params == 1.0 && self.index_bytes == 0
    }

    /// Seconds from the first initial value to the last test score, its parent's included.
    pub fn whole_s(&self) -> f64 {
        self.wall_s + self.parent.as_ref().map_or(0.0, |parent| parent.wall_s)
    }

    /// What decided its numbers, the seed and what a seed draws aside: equal for the seeds of a cell.
    pub fn settings(&self) -> Value {
        match &self.spec {
            Some(spec) => {
                let mut spec = spec.clone();
                spec.seed = 0;
                if self.drawn.is_some() {
                    spec.data.view.split = None;
                }
                json!([spec.canonical(), self.versions])
            }
            None => {
                let mut config = self.config.clone();
                config["seed"] = 0.into();
                config
            }
        }
    }

    /// What decided its numbers, for people.
    pub fn shown(&self) -> Value {
        self.spec.as_ref().map_or(self.config.clone(), |spec| spec.canonical())
    }

    /// Which rows it was trained and tested on; what a seed draws aside.
    pub fn rows(&self) -> String {
        match &self.spec {
            Some(spec) => {
                let mut data = spec.data.clone();
                if self.drawn.is_some() {
                    data.view.split = None;
                }
                json!(data).to_string()
            }
            None => format!("{} {}", self.data_hash, self.config["data"]),
        }
    }

    /// The metric that picked its epoch.
    pub fn select(&self) -> String {
        match &self.spec {
            Some(spec) => spec.schedule.select.to_string(),
            None => self.config["train"]["select"].as_str().unwrap_or("auc").into(),
        }
    }

    /// Whether it has all metrics that are asked for, as far as they are defined.
    pub fn has_evaluated(&self, metrics: &[Metric]) -> bool {
        self.status != Status::Ok || metrics.iter().all(|metric| self.evaluated.contains(metric))
    }

    /// Metrics of the test split that were asked for and are not defined.
    pub fn undefined(&self) -> Vec<String> {
        let test = self.metrics.keys().any(|key| key.starts_with("test/"));
        let missing = |metric: &&Metric| !self.metrics.contains_key(&format!("test/{metric}"));
        let all = self.evaluated.iter().filter(|_| test && self.status == Status::Ok);
        all.filter(missing).map(|metric| metric.to_string()).collect()
    }

    /// Clusterings of its tables before the picked epoch, and planned ones, where it clusters.
    pub fn clusterings(&self) -> Option<(u64, u64)> {
        let figure = |name: &str| {
            let of = |table: &TableCensus| table.census.figures.get(name).copied();
            self.collisions.iter().filter_map(of).reduce(f64::min)
        };
        Some((figure("clusterings")? as u64, figure("clusterings_planned")? as u64))
    }

    /// Whether training on after a stage only lost, so that the weights are those of before it.
    pub fn is_undone(&self) -> bool {
        let epochs = self.knobs.get("finetune").and_then(Value::as_u64).unwrap_or(0);
        let ok = self.status == Status::Ok && epochs > 0;
        ok && u64::from(self.best_epoch) + epochs <= u64::from(self.epochs)
    }

    /// Takes over what training left.
    pub fn fill(&mut self, outcome: &Outcome) {
        let named = |split: &str, values: &[(Metric, f64)]| -> BTreeMap<String, f64> {
            values.iter().map(|(metric, value)| (format!("{split}/{metric}"), *value)).collect()
        };
        self.metrics = named("valid", &outcome.valid);
        self.metrics.extend(named("test", &outcome.test.all));
        // Six digits, as curves have.
        let six = |x: &f64| format!("{x:.5e}").parse().unwrap_or(*x);
        for (metric, values) in &outcome.test.without_groups {
            let values = values.iter().map(six).collect();
            self.without_groups.insert(format!("test/{metric}"), values);
        }
        for point in &outcome.curve {
            let mut entry = named("valid", &point.valid);
            entry.extend(point.train_loss.map(|loss| ("train/loss".into(), loss)));
            // Curves are most of a file of results, and are only looked at.
            entry.values_mut().for_each(|x| *x = format!("{x:.5e}").parse().unwrap_or(*x));
            entry.insert("epoch".into(), point.epoch.into());
            entry.insert("step".into(), point.step as f64);
            self.curve.push(entry);
        }
        self.epochs = outcome.curve.last().map_or(0, |point| point.epoch);
        self.best_epoch = outcome.curve.get(outcome.best).map_or(0, |point| point.epoch);
    }

    /// The trial's end in one line.
    pub fn summary(&self, metric: &Metric) -> String {
        let value = |split: &str| {
            let value = self.metrics.get(&format!("{split}/{metric}"));
            value.map(|value| format!("{split}/{metric} {value:.4}"))
        };
        let status = match self.status {
            Status::Ok => {
                let metrics = ["valid", "test"].iter().filter_map(|s| value(s));
                let mut text = format!(
                    "{}, {} parameters, best epoch {} of {}, {:.1} s",
                    metrics.collect::<Vec<_>>().join(", "),
                    crate::units::count(self.params),
                    self.best_epoch,
                    self.epochs,
                    self.wall_s
                );
                if self.parent.is_some() {
                    text += " after a training that it shares";
                }
                if let Some((done, planned)) = self.clusterings().filter(|(done, all)| done < all) {
                    text += &format!("; {done} of {planned} clusterings before the picked epoch");
                }
                if self.is_undone() {
                    text += "; training on after the stage only lost, and was undone";
                }
                if !self.undefined().is_empty() {
                    text += &format!(
                        "; not defined on these test rows: {}",
                        self.undefined().join(", ")
                    );
                }
                return text;
            }
            Status::Infeasible => "infeasible",
            Status::Pruned => "pruned",
            Status::Error => "failed",
        };
        format!("{status}: {}", self.error.as_deref().unwrap_or(""))
    }
}
