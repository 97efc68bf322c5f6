//! `embc sweep`: all trials of experiments that are not recorded yet, then their tables.

use super::Outcome;
use crate::cli::{Global, Sweep};
use crate::config::Experiment;
use crate::plan::{Trial, trials};
use crate::progress::Progress;
use crate::record::{Record, Results, Status};
use crate::run::{Bench, Ended};
use crate::{interrupted, report};
use anyhow::Result;
use std::collections::BTreeMap;

pub fn run(args: &Sweep, global: &Global) -> Result<Outcome> {
    super::set_threads(args.threads)?;
    let registry = super::registry(global)?;
    // All configs are read before the first trial runs, so that a typo costs no night.
    let load = |path: &std::path::PathBuf| Experiment::load(path, &args.sets);
    let experiments: Vec<Experiment> = args.config.iter().map(load).collect::<Result<_>>()?;
    for experiment in &experiments {
        super::entry(&registry, &experiment.dataset)?;
    }
    let mut outcome = Outcome::Fine;
    for experiment in &experiments {
        let entry = super::entry(&registry, &experiment.dataset)?;
        let data = super::open(entry, experiment.data.clone(), global)?;
        let bench = Bench::new(experiment, entry, &data, global.overcommit)?;
        let results = Results::open(&global.results, &experiment.name)?;
        let mut records = latest(results.read()?);
        let wanted = |trial: &Trial| args.filter.as_ref().is_none_or(|f| f.is_match(&trial.name()));
        let all: Vec<Trial> = trials(experiment)?.into_iter().filter(wanted).collect();
        let is_done = |trial: &Trial| {
            let record = records.get(&trial.id(data.data_hash()));
            record.is_some_and(|r| matches!(r.status, Status::Ok | Status::Infeasible))
        };
        if args.list {
            let line = |trial: &Trial| {
                let state = if is_done(trial) { "done" } else { "to do" };
                format!(
                    "{}  {:<5}  {}: {}\n",
                    trial.id(data.data_hash()),
                    state,
                    experiment.name,
                    trial.name()
                )
            };
            super::print(&all.iter().map(line).collect::<String>())?;
            continue;
        }
        let todo: Vec<&Trial> = all.iter().filter(|t| args.rerun || !is_done(t)).collect();
        if todo.len() < all.len() && !global.quiet {
            eprintln!(
                "{}: {} of {} trials are done already",
                experiment.name,
                all.len() - todo.len(),
                all.len()
            );
        }
        let mut progress = Progress::new(global.quiet);
        for (i, trial) in todo.iter().enumerate() {
            progress.place(i + 1, todo.len());
            progress.name(&trial.name());
            if interrupted() {
                outcome = Outcome::Interrupted;
                break;
            }
            let Ended::Recorded(record, _) = bench.run(trial, &mut progress) else {
                outcome = Outcome::Interrupted;
                break;
            };
            progress.end(&summary(&record, experiment));
            if record.status == Status::Error {
                outcome = Outcome::Failed;
            }
            results.append(&record)?;
            records.insert(record.trial.clone(), *record);
        }
        if outcome == Outcome::Interrupted {
            let again = "run the same command again to go on";
            eprintln!("interrupted: finished trials are in {}; {again}", global.results.display());
            return Ok(outcome);
        }
        let records: Vec<Record> = records.into_values().collect();
        super::print(&report::markdown(experiment, &records)?)?;
    }
    Ok(outcome)
}

/// The newest record of each trial.
pub fn latest(records: Vec<Record>) -> BTreeMap<String, Record> {
    records.into_iter().map(|record| (record.trial.clone(), record)).collect()
}

/// A trial's end in one line.
pub fn summary(record: &Record, experiment: &Experiment) -> String {
    let metric = experiment.metric();
    let value = |split: &str| {
        let value = record.metrics.get(&format!("{split}/{metric}"));
        value.map(|value| format!("{split}/{metric} {value:.4}"))
    };
    match record.status {
        Status::Ok => {
            let metrics: Vec<String> = ["valid", "test"].iter().filter_map(|s| value(s)).collect();
            format!(
                "{}, {} parameters, best epoch {} of {}, {:.1} s",
                metrics.join(", "),
                crate::table::count(record.params),
                record.best_epoch,
                record.epochs,
                record.wall_s
            )
        }
        status => {
            let status = if status == Status::Infeasible { "infeasible" } else { "failed" };
            format!("{status}: {}", record.error.as_deref().unwrap_or(""))
        }
    }
}
