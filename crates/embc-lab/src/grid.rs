//! Records as an experiment's table has them: a cell for each scheme at each budget.

use crate::config::{Experiment, TableSplit};
use crate::plan::Trial;
use crate::query::Query;
use crate::record::{Record, Status};
use crate::schedule::recorded;
use anyhow::Result;
use embc_core::metric::Metric;
use std::collections::{BTreeMap, BTreeSet};

/// Mean, deviation and number of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The standard deviation; none of one value.
    pub deviation: Option<f64>,
    /// How many values.
    pub n: usize,
}

impl Summary {
    /// Of values; none of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        let deviation = (n > 1).then(|| (squares / (n as f64 - 1.0)).sqrt());
        (n > 0).then_some(Self { mean, deviation, n })
    }

    /// For people: "0.7500 ± 0.0010".
    pub fn text(self) -> String {
        match self.deviation {
            Some(deviation) => format!("{:.4} ± {deviation:.4}", self.mean),
            None => format!("{:.4}", self.mean),
        }
    }
}

/// The records of one scheme at one budget.
pub struct Cell<'a> {
    /// Its records, one a seed.
    pub records: Vec<&'a Record>,
    /// How many it should have.
    pub seeds: usize,
}

impl Cell<'_> {
    /// A metric of the seeds that did well.
    pub fn values(&self, key: &str) -> Vec<f64> {
        let ok = self.records.iter().filter(|r| r.status == Status::Ok);
        ok.filter_map(|r| r.metrics.get(key).copied()).collect()
    }

    /// Their summary.
    pub fn summary(&self, key: &str) -> Option<Summary> {
        Summary::of(&self.values(key))
    }
}

/// All cells of an experiment: (scheme, budget value), with a scheme's only trial at `None`.
pub struct Grid<'a> {
    /// Labels, as the config lists them.
    pub schemes: Vec<String>,
    /// Values of the budget's axis.
    pub budgets: Vec<String>,
    /// By label and budget.
    pub cells: BTreeMap<(String, Option<String>), Cell<'a>>,
    /// Records of configs other than today's.
    pub others: usize,
    /// All that the cells hold.
    pub records: Vec<&'a Record>,
    /// Whether cells have as many seeds as they were worth.
    pub races: bool,
}

impl<'a> Grid<'a> {
    /// What records an experiment has, as it is now.
    pub fn new(experiment: &Experiment, records: &'a [Record]) -> Result<Self> {
        let query = Query::new(experiment, records);
        let find = |trial: &Trial| query.find(experiment, trial);
        let trials = recorded(experiment, &find)?;
        let budgets = experiment.points()?.iter().map(|p| p.value.to_string()).collect();
        let schemes = experiment.scheme.iter().map(|s| s.label().to_string()).collect();
        let mut cells: BTreeMap<_, Cell<'a>> = BTreeMap::new();
        let mut used = Vec::new();
        for trial in &trials {
            let key = (
                trial.scheme.label().to_string(),
                trial.point.as_ref().map(|p| p.value.to_string()),
            );
            let cell = cells.entry(key).or_insert(Cell { records: Vec::new(), seeds: 0 });
            let found = find(trial);
            let pruned = |r: &Record| r.status == Status::Pruned && experiment.sweep.prune;
            cell.seeds += usize::from(!found.is_some_and(pruned));
            cell.records.extend(found);
            used.extend(found);
        }
        // Seeds of a cell that other versions of a component trained cannot be averaged.
        for cell in cells.values_mut() {
            let newest = cell.records.iter().max_by_key(|r| &r.started).map(|r| r.versions.clone());
            cell.records.retain(|record| Some(&record.versions) == newest.as_ref());
        }
        let kept = |record: &&Record| {
            cells.values().any(|cell| cell.records.iter().any(|r| std::ptr::eq(*r, *record)))
        };
        used.retain(kept);
        let of_today: BTreeSet<&str> = used.iter().map(|r: &&Record| &r.trial[..]).collect();
        let others = records.iter().filter(|r| !of_today.contains(&r.trial[..])).count();
        let races = experiment.sweep.race;
        Ok(Self { schemes, budgets, cells, others, records: used, races })
    }

    /// A metric of a cell by seed.
    pub fn by_seed(&self, scheme: &str, budget: &str, key: &str) -> BTreeMap<u64, f64> {
        let records = self.cell(scheme, budget).into_iter().flat_map(|cell| &cell.records);
        let ok = records.filter(|r| r.status == Status::Ok);
        ok.filter_map(|r| Some((r.seed, *r.metrics.get(key)?))).collect()
    }

    /// What a cell without a value shows.
    pub fn missing(&self, scheme: &str, budget: &str) -> &'static str {
        let records = self.cell(scheme, budget).into_iter().flat_map(|cell| &cell.records);
        match records.map(|r| r.status).find(|status| *status != Status::Ok) {
            Some(Status::Infeasible) => "infeasible",
            Some(_) => "failed",
            None => "…",
        }
    }

    /// The cell of a label at a budget; a scheme's only one at any.
    pub fn cell(&self, scheme: &str, budget: &str) -> Option<&Cell<'a>> {
        let at = |budget: Option<String>| self.cells.get(&(scheme.to_string(), budget));
        at(Some(budget.into())).or_else(|| at(None))
    }
}

/// The metric's key in records: the table's split, else test where there is one.
pub fn metric_key(experiment: &Experiment, records: &[&Record]) -> String {
    let metric = experiment.metric();
    let test = format!("test/{metric}");
    let has_test = records.iter().any(|r| r.metrics.contains_key(&test));
    match experiment.table.split {
        Some(TableSplit::Valid | TableSplit::Both) => format!("valid/{metric}"),
        Some(TableSplit::Test) => test,
        None if has_test => test,
        None => format!("valid/{metric}"),
    }
}

/// −1 for metrics of which less is better.
pub fn sign_of(key: &str) -> f64 {
    let metric = key.rsplit_once("valid/").or(key.rsplit_once("test/")).map_or(key, |(_, m)| m);
    let metric: Option<Metric> = metric.parse().ok();
    if metric.is_some_and(|m| !m.higher_is_better()) { -1.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[0.5]).unwrap().text(), "0.5000");
        assert_eq!(Summary::of(&[1.0, 2.0, 3.0]).unwrap().text(), "2.0000 ± 1.0000");
    }
}
