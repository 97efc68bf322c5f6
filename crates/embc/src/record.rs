//! Records: one JSON object a line in `results/<experiment>.jsonl`.

use crate::spec::TrialSpec;
use anyhow::{Context, Result};
use embc_core::census::Census;
use embc_core::metric::Metric;
use embc_core::train::Outcome;
use embc_data::view::ViewSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The version of this format.
pub const VERSION: u32 = 2;

/// The one key that all versions have.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

fn alone() -> usize {
    1
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Error,
    Infeasible,
    Pruned,
}

/// The machine of a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub cpu: String,
    pub cores: usize,
    pub os: String,
}

/// The program of a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Program {
    pub version: String,
    pub revision: String,
    pub dirty: bool,
}

/// The collisions of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableCensus {
    pub table: String,
    #[serde(flatten)]
    pub census: Census,
}

/// A finished trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub v: u32,
    pub trial: String,
    pub experiment: String,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub dataset: String,
    /// The data set's full name, so that a report needs no registry.
    pub dataset_title: String,
    pub data_hash: String,
    pub model: String,
    pub scheme: String,
    pub label: String,
    pub knobs: Value,
    pub budget: Value,
    /// What the data has that examples have not, or not whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, u64>,
    /// Ids of each table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vocab: Vec<u64>,
    /// The sizes that the scheme chose, for each table.
    #[serde(default)]
    pub sizes: Vec<String>,
    /// Who shares what in each table of the final embedding.
    #[serde(default)]
    pub collisions: Vec<TableCensus>,
    pub compression_params: f64,
    pub compression_bytes: f64,
    pub params: u64,
    pub param_bytes: u64,
    pub index_bytes: u64,
    pub train_bytes: u64,
    pub model_params: u64,
    pub weights_hash: String,
    pub seed: u64,
    pub epochs: u32,
    pub best_epoch: u32,
    pub metrics: BTreeMap<String, f64>,
    /// Test metrics without each of 50 groups of the test rows, the same ones in every trial of a
    /// view: the error that comes with the choice of test rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub without_groups: BTreeMap<String, Vec<f64>>,
    pub curve: Vec<BTreeMap<String, f64>>,
    pub train_examples_per_s: f64,
    /// What building the tables took, an allocation that reads the data included.
    #[serde(default)]
    pub build_s: f64,
    pub wall_s: f64,
    pub peak_rss_bytes: u64,
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
    pub embc: Program,
    pub host: Host,
    pub started: String,
    pub finished: String,
}

impl Record {
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
                    crate::table::count(self.params),
                    self.best_epoch,
                    self.epochs,
                    self.wall_s
                );
                if let Some((done, planned)) = self.clusterings().filter(|(done, all)| done < all) {
                    text += &format!("; {done} of {planned} clusterings before the picked epoch");
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

/// The records of one experiment on disk.
pub struct Results {
    path: PathBuf,
}

impl Results {
    /// `results/<experiment>.jsonl`; the folder is made if need be.
    pub fn open(folder: &Path, experiment: &str) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("{}: cannot be made; choose another folder with --results", folder.display())
        })?;
        Ok(Self { path: folder.join(format!("{experiment}.jsonl")) })
    }

    /// All records, oldest first. A torn last line is dropped with a warning; any other damage is
    /// an error that names the line.
    pub fn read(&self) -> Result<Vec<Record>> {
        let (records, place) = self.read_from(Place::default())?;
        if place.torn {
            tracing::warn!(
                "{}:{}: the last line is torn and was dropped",
                self.path.display(),
                place.lines + 1
            );
        }
        Ok(records)
    }

    /// The records after a place, and the place after them.
    pub fn read_from(&self, mut place: Place) -> Result<(Vec<Record>, Place)> {
        let mut text = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(place.offset))?;
            file.read_to_end(&mut text)
        });
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Vec::new(), place));
            }
            read => read.with_context(|| self.path.display().to_string())?,
        };
        let mut records = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            place.torn = !line.ends_with(b"\n");
            if place.torn {
                break;
            }
            let at = format!("{}:{}", self.path.display(), place.lines + 1);
            let version: Version = serde_json::from_slice(line)
                .with_context(|| format!("{at}: not a record; remove the line"))?;
            match version.v {
                1 | VERSION => records.push(
                    serde_json::from_slice(line)
                        .with_context(|| format!("{at}: not a record; remove the line"))?,
                ),
                other => {
                    tracing::warn!(
                        "{at}: a record of format version {other} was skipped; this embc reads versions 1 and {VERSION}"
                    );
                }
            }
            place.offset += line.len() as u64;
            place.lines += 1;
        }
        Ok((records, place))
    }

    /// Appends a record: locked, synced, and after cutting off a torn tail.
    pub fn append(&self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&self.path)?;
            file.lock()?;
            let end = whole_lines(&mut file)?;
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            file.write_all(line.as_bytes())?;
            file.sync_all()
        };
        write().with_context(|| {
            format!(
                "{}: the record cannot be written; choose another folder with --results",
                self.path.display()
            )
        })
    }
}

/// How far a file of records was read.
#[derive(Clone, Copy, Default)]
pub struct Place {
    offset: u64,
    lines: usize,
    /// What follows is no whole line.
    torn: bool,
}

/// The records of an experiment, those that other processes add included.
pub struct Book {
    results: Results,
    place: Place,
    /// The newest record of each trial.
    records: BTreeMap<String, Record>,
    /// Trials recorded since it was opened.
    fresh: BTreeSet<String>,
}

impl Book {
    pub fn open(results: Results) -> Result<Self> {
        results.read()?;
        let (fresh, records, place) = Default::default();
        let mut book = Self { results, place, records, fresh };
        book.refresh()?;
        book.fresh.clear();
        Ok(book)
    }

    /// Reads what was added.
    pub fn refresh(&mut self) -> Result<()> {
        let (records, place) = self.results.read_from(self.place)?;
        self.place = place;
        self.fresh.extend(records.iter().map(|record| record.trial.clone()));
        self.records.extend(records.into_iter().map(|record| (record.trial.clone(), record)));
        Ok(())
    }

    /// Adds a record.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        self.results.append(record)?;
        self.refresh()
    }

    /// The newest record of each trial in the other experiments of the folder. A file that cannot be
    /// read is that experiment's trouble.
    pub fn elsewhere(&self, experiment: &str) -> BTreeMap<String, Record> {
        let folder = self.results.path.parent().unwrap_or(Path::new("."));
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.path()).collect();
        paths.sort();
        let other = |path: &&PathBuf| {
            path.extension().is_some_and(|e| e == "jsonl")
                && path.file_stem().is_some_and(|stem| stem != experiment)
        };
        let mut all: BTreeMap<String, Record> = BTreeMap::new();
        for path in paths.iter().filter(other) {
            let results = Results { path: path.clone() };
            let records = results.read_from(Place::default()).map_or(Vec::new(), |(r, _)| r);
            all.extend(
                records.into_iter().filter(|r| r.spec.is_some()).map(|r| (r.trial.clone(), r)),
            );
        }
        all
    }

    pub fn get(&self, trial: &str) -> Option<&Record> {
        self.records.get(trial)
    }

    pub fn is_fresh(&self, trial: &str) -> bool {
        self.fresh.contains(trial)
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub fn into_records(self) -> Vec<Record> {
        self.records.into_values().collect()
    }
}

/// The length of a file up to its last newline.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut byte = [0];
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            break;
        }
        end -= 1;
    }
    Ok(end)
}
