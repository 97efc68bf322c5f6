//! `embc recommend`: what to use within so many bytes, by recorded trials, in one sentence each.

use super::Outcome;
use crate::cli::{Global, Recommend};
use crate::report::choice::{knobs, loss, mean};
use anyhow::{Result, bail};
use embc_core::metric::Metric;
use embc_lab::config::Experiment;
use embc_lab::difference::Difference;
use embc_lab::grid::{Grid, sign_of};
use embc_lab::record::{Record, Status};
use embc_lab::store::{Book, Results};
use embc_lab::units::{bytes, count};

pub fn run(args: &Recommend, global: &Global) -> Result<Outcome> {
    let named = match args.experiments.is_empty() {
        true => super::report::recorded(global)?,
        false => args.experiments.clone(),
    };
    let mut text = String::new();
    for name in &named {
        let mut experiment = Experiment::load(name, &[])?;
        experiment.resolve(&super::registry(global, &args.experiments)?);
        let results = Results::open(&global.results, &experiment.name)?;
        let records = Book::open(results)?.into_records();
        let metric = args.metric.unwrap_or(experiment.metric());
        if let Some(advice) = advise(&experiment, &records, metric, args.budget_bytes.0)? {
            text += &format!("{}: {advice}\n", experiment.name);
        }
    }
    if text.is_empty() {
        let metric = args.metric.map_or("the metric".into(), |metric| metric.to_string());
        bail!("no recorded trial has {metric}; see `embc report`, or run `embc sweep` first");
    }
    super::print(&text)?;
    Ok(Outcome::Fine)
}

/// A scheme at a budget whose seeds are all there.
struct Candidate<'a> {
    name: String,
    records: Vec<&'a Record>,
    bytes: u64,
    /// Mean of the validation metric, which picks: the test split is for what is then said.
    valid: f64,
}

fn advise(
    experiment: &Experiment,
    records: &[Record],
    metric: Metric,
    budget: u64,
) -> Result<Option<String>> {
    let grid = Grid::new(experiment, records)?;
    let (valid, test) = (format!("valid/{metric}"), format!("test/{metric}"));
    let axis = crate::report::axis_of(experiment)?;
    let mut all = Vec::new();
    for ((scheme, at), cell) in &grid.cells {
        let ok: Vec<&Record> =
            cell.records.iter().copied().filter(|r| r.status == Status::Ok).collect();
        let Some(valid) = mean(&ok, &valid).filter(|_| ok.len() >= cell.seeds) else {
            continue;
        };
        let name = match (at, axis) {
            (Some(at), Some(axis)) => format!("{scheme} ({axis} {at})"),
            _ => scheme.clone(),
        };
        let bytes = ok[0].param_bytes + ok[0].index_bytes;
        all.push(Candidate { name, records: ok, bytes, valid });
    }
    let Some(smallest) = all.iter().min_by_key(|c| c.bytes) else { return Ok(None) };
    let better = |a: &&Candidate<'_>, b: &&Candidate<'_>| {
        let order = a.valid.total_cmp(&b.valid);
        if metric.higher_is_better() { order } else { order.reverse() }
    };
    let mut fit: Vec<&Candidate<'_>> = all.iter().filter(|c| c.bytes <= budget).collect();
    fit.sort_by(|a, b| better(b, a).then(a.bytes.cmp(&b.bytes)));
    let Some(best) = fit.first() else {
        return Ok(Some(format!(
            "nothing recorded fits {}; the smallest is {}, {}: sweep more compression",
            bytes(budget),
            smallest.name,
            bytes(smallest.bytes)
        )));
    };
    let first = best.records[0];
    let key = if first.metrics.contains_key(&test) { &test } else { &valid };
    let value = mean(&best.records, key).unwrap_or(best.valid);
    let mut text = format!(
        "use {}{}: {} of {} for the embedding ({} parameters), {key} {value:.4}",
        best.name,
        knobs(first),
        bytes(best.bytes),
        bytes(budget),
        count(first.params)
    );
    let full = all.iter().find(|c| c.records[0].scheme == "full");
    if let Some(full) = full.filter(|full| full.name != best.name) {
        if let Some((lost, by)) = loss(&full.records, &best.records, key) {
            text += &format!(
                ", {lost} than the full table's ({}, {:.0} times as much; {by})",
                bytes(full.bytes),
                full.bytes as f64 / best.bytes as f64,
            );
        }
    }
    if let Some(next) = fit.get(1)
        && let Some(gap) = Difference::between(&best.records, &next.records, key)
    {
        let verdict = match gap.winner(sign_of(key)) {
            Some(true) => "better beyond chance than the next",
            Some(false) => "picked on validation, though on test worse than the next",
            None => "no better beyond chance than the next",
        };
        text += &format!("; {verdict}, {} ({})", next.name, bytes(next.bytes));
    }
    Ok(Some(text + "."))
}
