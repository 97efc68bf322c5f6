//! Which trials an experiment wants, given what is recorded: all of its grid, fewer where a cell has
//! lost already (`[sweep] prune`, or by rounds: `race`), more where an interval is still wide (`[sweep] until_ci`).
//!
//! A function of records alone, decided after whole rounds of seeds, so that neither `--jobs` nor an
//! interruption changes it.

use crate::config::Experiment;
use crate::estimate::Estimate;
use crate::grid;
use crate::plan::{self, Trial};
use crate::race;
use crate::record::{Record, Status};
use anyhow::Result;
use std::collections::BTreeMap;

/// Seeds that a cell has before it can lose.
const BEFORE_PRUNING: usize = 3;
/// Seeds that a cell has before its interval can be narrow.
const LEAST_SEEDS: usize = 3;

/// A trial that an experiment wants.
pub struct Wanted {
    /// The trial.
    pub trial: Trial,
    /// Why it need not run.
    pub pruned: Option<String>,
}

/// A scheme at a budget.
type CellKey = (String, Option<String>);

fn cell(trial: &Trial) -> CellKey {
    (trial.scheme.label().into(), trial.point.as_ref().map(|point| point.value.to_string()))
}

/// The seeds that a cell may get beyond the listed ones.
fn more_seeds(e: &Experiment) -> impl Iterator<Item = u64> {
    let listed = &e.train.seeds;
    let confirming = race::confirming(e);
    let most = e.sweep.until_ci.map_or(0, |_| e.sweep.max_seeds as usize);
    let first = 1 + listed.iter().max().expect("checked with the config");
    confirming.chain((first..).take(most.saturating_sub(listed.len())))
}

/// All trials of the grid, and those with further seeds that have a record.
pub fn recorded<'a>(
    experiment: &Experiment,
    find: &dyn Fn(&Trial) -> Option<&'a Record>,
) -> Result<Vec<Trial>> {
    let mut all = plan::trials(experiment)?;
    if experiment.sweep.race {
        // What it gave up is no gap.
        all.retain(|trial| find(trial).is_some());
    }
    for seed in more_seeds(experiment) {
        let round = plan::round(experiment, seed)?.into_iter();
        all.extend(round.filter(|trial| find(trial).is_some()));
    }
    Ok(all)
}

/// All trials that pass a filter and are wanted by now, with those done. `find` gives a trial's
/// record; without `may_prune` nothing is pruned.
pub fn wanted<'a>(
    experiment: &Experiment,
    may_prune: bool,
    passes: &dyn Fn(&Trial) -> bool,
    find: &dyn Fn(&Trial) -> Option<&'a Record>,
) -> Result<Vec<Wanted>> {
    let e = experiment;
    if e.sweep.race {
        let trials = race::race(e, passes, find)?.wanted.into_iter();
        return Ok(trials.map(|trial| Wanted { trial, pruned: None }).collect());
    }
    let round = |seed| -> Result<Vec<Trial>> {
        Ok(plan::round(e, seed)?.into_iter().filter(|trial| passes(trial)).collect())
    };
    let mut all = Vec::new();
    let mut lost: BTreeMap<CellKey, String> = BTreeMap::new();
    for (i, &seed) in e.train.seeds.iter().enumerate() {
        if may_prune && e.sweep.prune && i >= BEFORE_PRUNING {
            if !all.iter().all(|wanted: &Wanted| finished(wanted, find)) {
                return Ok(all);
            }
            prune(e, &all, find, &mut lost);
        }
        all.extend(round(seed)?.into_iter().map(|trial| {
            let pruned = lost.get(&cell(&trial)).cloned();
            Wanted { trial, pruned }
        }));
    }
    let Some(width) = e.sweep.until_ci else { return Ok(all) };
    for seed in more_seeds(e) {
        if !all.iter().all(|wanted| finished(wanted, find)) {
            break;
        }
        if may_prune && e.sweep.prune {
            prune(e, &all, find, &mut lost);
        }
        let records: Vec<&Record> = all.iter().filter_map(|wanted| find(&wanted.trial)).collect();
        let key = grid::metric_key(e, &records);
        let mut values: BTreeMap<CellKey, Vec<f64>> = BTreeMap::new();
        for wanted in &all {
            let record = find(&wanted.trial).filter(|record| record.status == Status::Ok);
            let value = record.and_then(|record| record.metrics.get(&key));
            values.entry(cell(&wanted.trial)).or_default().extend(value);
        }
        let is_wide = |trial: &Trial| {
            let estimate = values.get(&cell(trial)).and_then(|values| Estimate::of(values));
            // Two values may lie close by chance.
            estimate.is_some_and(|e| e.n < LEAST_SEEDS || e.half.is_none_or(|half| half > width))
        };
        let more = round(seed)?.into_iter();
        let more: Vec<Trial> =
            more.filter(|t| is_wide(t) && !lost.contains_key(&cell(t))).collect();
        if more.is_empty() {
            break;
        }
        all.extend(more.into_iter().map(|trial| Wanted { trial, pruned: None }));
    }
    Ok(all)
}

fn finished<'a>(wanted: &Wanted, find: &dyn Fn(&Trial) -> Option<&'a Record>) -> bool {
    let done = |record: &Record| record.status != Status::Pruned;
    wanted.pruned.is_some() || find(&wanted.trial).is_some_and(done)
}

/// Adds to `lost` every cell whose validation metric is below that of the best cell at its budget,
/// by the paired 99 % t-interval over seeds: with 95 %, many schemes looked at after each round
/// would lose by chance.
fn prune<'a>(
    e: &Experiment,
    all: &[Wanted],
    find: &dyn Fn(&Trial) -> Option<&'a Record>,
    lost: &mut BTreeMap<CellKey, String>,
) {
    let key = format!("valid/{}", e.select());
    let mut by_seed: BTreeMap<CellKey, BTreeMap<u64, f64>> = BTreeMap::new();
    for wanted in all.iter().filter(|wanted| wanted.trial.point.is_some()) {
        let record = find(&wanted.trial).filter(|record| record.status == Status::Ok);
        if let Some(value) = record.and_then(|record| record.metrics.get(&key)) {
            by_seed.entry(cell(&wanted.trial)).or_default().insert(wanted.trial.seed, *value);
        }
    }
    let budgets: std::collections::BTreeSet<_> = by_seed.keys().map(|c| c.1.clone()).collect();
    for budget in budgets {
        let alive = |c: &&CellKey| c.1 == budget && !lost.contains_key(*c);
        let mean = |values: &BTreeMap<u64, f64>| values.values().sum::<f64>() / values.len() as f64;
        let cells: Vec<CellKey> = by_seed.keys().filter(alive).cloned().collect();
        let better = |a: f64, b: f64| e.select().better(a, b);
        let best = cells
            .iter()
            .reduce(|a, b| if better(mean(&by_seed[b]), mean(&by_seed[a])) { b } else { a });
        let Some(best) = best.cloned() else { continue };
        for other in cells.iter().filter(|other| **other != best) {
            let (ours, theirs) = (&by_seed[other], &by_seed[&best]);
            let pairs = ours.iter().filter_map(|(seed, x)| Some(x - theirs.get(seed)?));
            let differences: Vec<f64> = pairs.collect();
            let estimate = Estimate::at(0.99, &differences).filter(|e| e.n >= BEFORE_PRUNING);
            let Some(Estimate { mean, half: Some(half), n }) = estimate else { continue };
            if mean.abs() > half && better(0.0, mean) {
                let why = format!(
                    "after {n} seeds its {key} is {mean:+.4} ± {half:.4} from that of {} (99 % interval, paired by seed)",
                    best.0
                );
                lost.insert(other.clone(), why);
            }
        }
    }
}
