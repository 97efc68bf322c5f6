//! A choice: which form of which scheme to use within some bytes, as an experiment that races them,
//! and what its records answer.

use crate::config::Experiment;
use crate::grid::{Cell, Grid, Summary};
use crate::query::Query;
use crate::race::{Race, Runner, confirming, race};
use crate::record::{Record, Status};
use anyhow::{Context, Result};
use embc_core::metric::Metric;
use embc_core::quantize::Storage;
use embc_core::scheme::{self, Knobs, Limit, PlanError, TableSpec};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toml::{Table, Value};

/// Seeds that pick, and seeds that confirm.
const SEEDS: [u32; 2] = [4, 5];
/// Epochs of training on through signs at most; as a rule half of those before.
const THROUGH: u32 = 10;
/// Seeds of everything.
const SEEDS_OF_ALL: u32 = 3;

/// Trained compressed, in the order in which a race names them. 4 bits a value come first: at equal
/// bytes more values, though narrower, were better in 97 of 108 pairs (results/choose.csv).
const TRAINED: &[&str] = &[
    "hash",
    "hash_embedding",
    "qr",
    "memcom",
    "factorized",
    "reduce_dim",
    "truncate_rare",
    "mixed_dim",
    "ce",
    "cce",
    "robe",
];

/// What may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// What is trained compressed: in training it needs less memory than the full table.
    pub trained: bool,
    /// What follows from a trained full table: narrower storage, and codes.
    pub post: bool,
    /// Every scheme that there is, dominated and slow ones too, and all seeds of all: no race.
    pub everything: bool,
}

/// What a choice is between.
pub struct Asked<'a> {
    /// The experiment whose data, model and training it takes.
    pub base: &'a Experiment,
    /// Bytes of the embedding, pointers and codes included.
    pub budgets: &'a [u64],
    /// What to be good at; the base's metric by default.
    pub metric: Option<Metric>,
    /// What may be tried.
    pub allowed: Allowed,
    /// Labels of forms that are nothing of their own here.
    pub without: BTreeSet<String>,
}

impl Asked<'_> {
    /// The experiment as a config's text.
    pub fn config(&self) -> Result<String> {
        let mut base = self.base.table();
        let mut take = |key: &str| base.remove(key);
        let mut table = Table::new();
        let metric = self.metric.unwrap_or(self.base.metric()).to_string();
        table.insert("title".into(), format!("{}: a choice", self.base.title).into());
        table.insert("dataset".into(), self.base.dataset.clone().into());
        for key in ["data", "model", "embedding", "train"] {
            table.extend(take(key).map(|value| (key.to_string(), value)));
        }
        let train = table["train"].as_table_mut().context("[train] is a table")?;
        let seeds = if self.allowed.everything { SEEDS_OF_ALL } else { SEEDS[0] };
        let seeds = (1..=seeds).map(|seed| Value::from(i64::from(seed)));
        train.insert("seeds".into(), Value::Array(seeds.collect()));
        train.insert("select".into(), metric.clone().into());
        let budgets = self.budgets.iter().map(|&bytes| Value::from(bytes as i64));
        let budgets = Value::Array(budgets.collect());
        table.insert("budget".into(), Table::from_iter([("bytes".into(), budgets)]).into());
        if !self.allowed.everything {
            let confirm = Value::from(i64::from(SEEDS[1]));
            let race = [("race".into(), true.into()), ("confirm".into(), confirm)];
            table.insert("sweep".into(), Table::from_iter(race).into());
        }
        let mut shown = Table::from_iter([("metric".into(), metric.into())]);
        if self.allowed.post {
            shown.insert("relative_to".into(), "full".into());
        }
        table.insert("table".into(), shown.into());
        let schemes =
            self.schemes().into_iter().filter(|form| !self.without.contains(&label(form)));
        let schemes: Vec<Value> = schemes.map(Value::from).collect();
        table.insert("scheme".into(), schemes.into());
        Ok(toml::to_string(&table)?)
    }

    /// All forms, those of one kind with the first one first.
    fn schemes(&self) -> Vec<Table> {
        let (dim, mut all) = (self.base.embedding.dim, Vec::new());
        let mut add = |kind: &str, variant: Option<Variant>, storage: Storage| {
            let mut knobs = Knobs::new();
            knobs.extend(variant.map(|(_, key, value)| (key.to_string(), value.into())));
            if kind == "memcom" {
                knobs.insert("v_init".into(), "sign".into());
            }
            if fits(kind, &knobs, dim) {
                all.push(table_of(kind, knobs, variant.map(|of| of.0), storage));
            }
        };
        if self.allowed.post {
            use Storage::{Fp16, Fp32, Int2, Int4, Int8};
            [Fp32, Fp16, Int8, Int4, Int2].into_iter().for_each(|width| add("full", None, width));
            let columns = |name, columns| Some((name, "columns", columns));
            let codes = [
                ("pq", None),
                ("pq", columns("8 columns", 8)),
                ("pq", columns("16 columns", 16)),
                ("opq", None),
                ("rq", None),
            ];
            for (kind, variant) in codes {
                [Fp32, Int8].into_iter().for_each(|width| add(kind, variant, width));
            }
            add("binary", None, Int4);
            // Where training is cut off by steps, more of it is another question.
            let train = &self.base.train;
            let epochs = train.epochs.div_ceil(2).min(THROUGH);
            if train.max_steps.is_none() {
                add("binary", Some(("trained through", "finetune", epochs)), Int4);
            }
        }
        if self.allowed.trained {
            let rest = scheme::SCHEMES.iter().filter(|s| {
                let known = s.name() == "full" || TRAINED.contains(&s.name());
                self.allowed.everything && !known && s.parent().is_none()
            });
            for kind in TRAINED.iter().copied().chain(rest.map(|s| s.name())) {
                [Storage::Int4, Storage::Int8].into_iter().for_each(|width| add(kind, None, width));
            }
        }
        all
    }
}

/// Whether a scheme takes such knobs at this width.
fn fits(kind: &str, knobs: &Knobs, dim: usize) -> bool {
    let table = TableSpec { name: kind.into(), vocab: 1000, dim, counts: vec![1; 1000].into() };
    let scheme = scheme::find(kind).expect("registered");
    let plan = scheme.plan(&[table], &[Limit::Params(1000 * dim as u64)], knobs);
    !matches!(plan, Err(PlanError::Knob(_)))
}

/// What a form has besides its kind and storage: its name, and a knob.
type Variant = (&'static str, &'static str, u32);

fn table_of(kind: &str, knobs: Knobs, variant: Option<&str>, storage: Storage) -> Table {
    let mut table = Table::from_iter([("kind".into(), kind.into())]);
    let narrow = storage != Storage::Fp32;
    if let Some(variant) = variant {
        let narrow = if narrow { format!(" {}", storage.name()) } else { String::new() };
        table.insert("label".into(), format!("{kind} {variant}{narrow}").into());
    }
    // What is decided after training is measured: bytes go where errors cost most.
    if scheme::find(kind).is_some_and(scheme::Scheme::decides_late) {
        table.insert("allocation".into(), "optimal".into());
    }
    if narrow {
        table.insert("quantize".into(), storage.name().into());
    }
    let value = |value: serde_json::Value| Value::try_from(value).expect("numbers and names");
    table.extend(knobs.into_iter().map(|(key, knob)| (key, value(knob))));
    table
}

/// What a form is called in tables.
fn label(form: &Table) -> String {
    let text = |key: &str| form.get(key).and_then(Value::as_str);
    let by_storage = text("quantize").map(|storage| format!(" {storage}")).unwrap_or_default();
    let kind = text("kind").unwrap_or_default();
    text("label").map_or(format!("{kind}{by_storage}"), String::from)
}

/// A form with its records.
#[derive(Clone, Debug)]
pub struct Pick<'a> {
    /// Which one.
    pub runner: Runner,
    /// What its seeds left, those alone that confirm where all compared have these.
    pub records: Vec<&'a Record>,
    /// Bytes of the embedding, pointers and codes included.
    pub bytes: u64,
    /// The validation metric of the seeds that picked.
    pub valid: BTreeMap<u64, f64>,
}

impl Pick<'_> {
    /// Mean validation metrics of this and of another over the seeds that both have.
    pub fn beside(&self, other: &Self) -> Option<(f64, f64)> {
        let shared = self.valid.iter().filter_map(|(seed, x)| Some((*x, *other.valid.get(seed)?)));
        let (ours, theirs): (Vec<f64>, Vec<f64>) = shared.unzip();
        Some((Summary::of(&ours)?.mean, Summary::of(&theirs)?.mean))
    }

    /// Whether it is better than another on validation, over the seeds that both have.
    fn beats(&self, other: &Self, metric: Metric) -> bool {
        self.beside(other).is_some_and(|(ours, theirs)| metric.better(ours, theirs))
    }
}

/// What is best within a budget.
pub struct Choice<'a> {
    /// "Within 64 KiB".
    pub within: String,
    /// The budget's value: bytes, of a race.
    pub budget: u64,
    /// What it is good at.
    pub metric: Metric,
    /// The winner.
    pub first: Pick<'a>,
    /// The next best.
    pub next: Option<Pick<'a>>,
    /// The uncompressed table, where it was trained.
    pub full: Option<Pick<'a>>,
    /// What is better on validation and does not fit: the smallest.
    pub beyond: Option<Pick<'a>>,
    /// Whether records are of seeds that nothing was picked by.
    pub fresh: bool,
    /// Who else may still win: the race was cut off, or its seeds are at their end.
    pub open: Vec<String>,
    /// How many forms have a value.
    pub tried: usize,
}

/// What an experiment's records answer, a choice a budget; none of a budget that nothing fits. And
/// whether nothing more is wanted.
pub fn choices<'a>(e: &Experiment, records: &'a [Record]) -> Result<(Vec<Choice<'a>>, bool)> {
    let query = Query::new(e, records);
    let find = |trial: &crate::plan::Trial| query.find(e, trial);
    let Race { wanted, standings, over } = race(e, &|_| true, &find)?;
    let key = format!("valid/{}", e.select());
    let picking: BTreeSet<u64> = e.train.seeds.iter().copied().collect();
    let pick = |runner: &Runner| {
        let of = wanted.iter().filter(|trial| Runner::of(trial) == *runner);
        let ok = of.filter_map(&find).filter(|record| record.status == Status::Ok);
        let records: Vec<&Record> = ok.collect();
        let first = records.first()?;
        let values = records.iter().filter(|record| picking.contains(&record.seed));
        let valid = values.filter_map(|r| Some((r.seed, *r.metrics.get(&key)?))).collect();
        let bytes = first.param_bytes + first.index_bytes;
        Some(Pick { runner: runner.clone(), bytes, valid, records })
    };
    let full = pick(&Runner { label: "full".into(), budget: None });
    let sizes: BTreeSet<Runner> = wanted.iter().map(Runner::of).collect();
    let of_one_size = sizes.iter().filter(|runner| runner.budget.is_none()).filter_map(&pick);
    let of_one_size: Vec<Pick<'a>> = of_one_size.collect();
    let mut all = Vec::new();
    for standing in standings {
        let mut ranked = standing.ranked.iter().filter_map(&pick);
        let Some(first) = ranked.next() else { continue };
        let next = ranked.next();
        let better = |p: &&Pick<'_>| p.bytes > standing.budget && p.beats(&first, e.select());
        let beyond = of_one_size.iter().filter(better).min_by_key(|p| p.bytes).cloned();
        let alive = standing.ranked[..standing.alive].iter().skip(1);
        let mut choice = Choice {
            within: within(standing.budget),
            budget: standing.budget,
            metric: e.metric(),
            tried: standing.ranked.len(),
            open: alive.map(|runner| runner.label.clone()).collect(),
            fresh: false,
            full: full.clone(),
            first,
            next,
            beyond,
        };
        choice.freshen(&confirming(e).collect());
        all.push(choice);
    }
    Ok((all, over))
}

/// What cells are ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The validation metric; then fewer bytes.
    Metric,
    /// Fewer bytes.
    Bytes,
}

/// The first of the cells that pass; none where none does. What does not pass may be `beyond`.
pub fn best<'a>(
    grid: &Grid<'a>,
    metric: Metric,
    within: String,
    by: By,
    passes: &dyn Fn(&Pick<'_>) -> bool,
) -> Option<Choice<'a>> {
    let key = format!("valid/{metric}");
    let pick = |((label, budget), cell): (&(String, Option<String>), &Cell<'a>)| {
        let ok = cell.records.iter().copied().filter(|record| record.status == Status::Ok);
        let records: Vec<&Record> = ok.collect();
        let first = records.first().filter(|_| records.len() >= cell.seeds)?;
        let bytes = first.param_bytes + first.index_bytes;
        let valid: BTreeMap<u64, f64> =
            records.iter().filter_map(|r| Some((r.seed, *r.metrics.get(&key)?))).collect();
        let mean = Summary::of(&valid.values().copied().collect::<Vec<_>>());
        let mean = mean.filter(|mean| mean.n == records.len())?.mean;
        let runner = Runner { label: label.clone(), budget: budget.clone() };
        Some((mean, Pick { runner, bytes, valid, records }))
    };
    let itself = |(_, pick): &(f64, Pick<'_>)| !pick.records[0].is_uncompressed();
    let all: Vec<(f64, Pick<'a>)> = grid.cells.iter().filter_map(pick).filter(itself).collect();
    let full = all.iter().map(|(_, pick)| pick).find(|pick| pick.runner.label == "full");
    let (mut fit, rest): (Vec<_>, Vec<_>) = all.iter().partition(|(_, pick)| passes(pick));
    fit.sort_by(|(x, a), (y, b)| match (metric.better(*x, *y), metric.better(*y, *x)) {
        (true, _) if by == By::Metric => Ordering::Less,
        (_, true) if by == By::Metric => Ordering::Greater,
        _ => a.bytes.cmp(&b.bytes),
    });
    let first: Pick<'a> = fit.first()?.1.clone();
    let better = |p: &&Pick<'_>| p.beats(&first, metric);
    let beyond = rest.iter().map(|(_, pick)| pick).filter(better).min_by_key(|p| p.bytes).cloned();
    let next = fit.get(1).map(|(_, pick)| pick.clone());
    let (budget, fresh, open, tried) = (0, false, Vec::new(), fit.len());
    let full = full.cloned();
    Some(Choice { within, budget, metric, first, next, full, beyond, fresh, open, tried })
}

/// "Within 64.00 KiB".
pub fn within(budget: u64) -> String {
    format!("Within {}", crate::units::bytes(budget))
}

impl Choice<'_> {
    /// Keeps the records of seeds that confirm alone, where all that are compared have some.
    fn freshen(&mut self, fresh: &BTreeSet<u64>) {
        let mut picks: Vec<&mut Pick<'_>> = vec![&mut self.first];
        picks.extend(self.next.as_mut());
        picks.extend(self.full.as_mut());
        let is_fresh = |record: &&Record| fresh.contains(&record.seed);
        self.fresh = picks.iter().all(|pick| pick.records.iter().any(is_fresh));
        for pick in picks {
            pick.records.retain(|record| is_fresh(record) == self.fresh);
        }
    }
}

/// The name that the choice of a base has: that of its config and of its records.
pub fn name_of(base: &Path) -> String {
    format!("{}-choice", base.file_stem().unwrap_or_default().to_string_lossy())
}
