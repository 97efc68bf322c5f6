//! `embc recommend`: what to use within so many bytes, by recorded trials, in one sentence each.

use super::Outcome;
use crate::cli::{Global, Recommend};
use crate::report::choice::{evidence, headline};
use anyhow::{Result, bail};
use embc_core::metric::Metric;
use embc_lab::choice::{By, Choice, Pick, best, choices, within};
use embc_lab::config::Experiment;
use embc_lab::grid::Grid;
use embc_lab::record::Record;
use embc_lab::store::{Book, Results};
use embc_lab::units::bytes;

pub fn run(args: &Recommend, global: &Global) -> Result<Outcome> {
    let named = match args.experiments.is_empty() {
        true => super::report::recorded(global)?,
        false => args.experiments.clone(),
    };
    let mut text = String::new();
    for name in &named {
        let mut experiment = Experiment::load(name, &[])?;
        experiment.resolve(&super::registry(global, &args.experiments)?);
        let results = Results::open(&global.results, &experiment.place())?;
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

fn in_words(choice: &Choice<'_>) -> String {
    [&[headline(choice)][..], &evidence(choice)].concat().join(" ").replace("**", "")
}

/// A sentence with its evidence; none where no trial has the metric.
fn advise(
    experiment: &Experiment,
    records: &[Record],
    metric: Metric,
    budget: u64,
) -> Result<Option<String>> {
    if experiment.sweep.race {
        if metric != experiment.metric() {
            bail!(
                "{}: a race by {}, which knows no other metric: `embc choose --metric {metric}` runs one",
                experiment.name,
                experiment.metric()
            );
        }
        // Of what was raced within fewer bytes, the most.
        let all = choices(experiment, records)?.0.into_iter();
        let choice =
            all.filter(|choice| choice.budget <= budget).max_by_key(|choice| choice.budget);
        return Ok(choice.map(|choice| in_words(&choice)));
    }
    let grid = Grid::new(experiment, records)?;
    let fits = |pick: &Pick<'_>| pick.bytes <= budget;
    if let Some(choice) = best(&grid, metric, within(budget), By::Metric, &fits) {
        return Ok(Some(in_words(&choice)));
    }
    let smallest = best(&grid, metric, String::new(), By::Bytes, &|_| true);
    Ok(smallest.map(|Choice { first, .. }| {
        format!(
            "nothing recorded fits {}; the smallest is {}, {}: sweep more compression",
            bytes(budget),
            first.runner.label,
            bytes(first.bytes)
        )
    }))
}
