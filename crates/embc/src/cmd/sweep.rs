//! `embc sweep`: all trials of experiments that are not recorded yet, then their tables.

use super::Outcome;
use crate::checkpoint::Claim;
use crate::cli::{Global, Sweep};
use crate::config::Experiment;
use crate::engine::{Engine, Options, State};
use crate::memory::Need;
use crate::plan::Trial;
use crate::record::{Book, Results, Status};
use crate::report;
use crate::run::Bench;
use crate::table::bytes;
use anyhow::{Result, bail};
use embc_data::registry::Registry;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

pub fn run(args: &Sweep, global: &Global) -> Result<Outcome> {
    if args.threads == Some(0) || args.jobs == Some(0) {
        bail!("--threads 0, --jobs 0: at least one thread and one job are needed");
    }
    let registry = super::registry(global)?;
    // All configs are read before the first trial runs, so that a typo costs no night.
    let load = |path: &std::path::PathBuf| -> Result<Experiment> {
        let mut experiment = Experiment::load(path, &args.sets)?;
        experiment.resolve(&registry);
        Ok(experiment)
    };
    let experiments: Vec<Experiment> = args.config.iter().map(load).collect::<Result<_>>()?;
    for experiment in &experiments {
        super::entry(&registry, &experiment.dataset)?;
        report::check_reference(experiment)?;
    }
    let mut outcome = Outcome::Fine;
    for experiment in &experiments {
        let went = sweep(experiment, &registry, args, global)?;
        if went == Outcome::Interrupted || went == Outcome::Failed && args.fail_fast {
            return Ok(went);
        }
        if went == Outcome::Failed {
            outcome = went;
        }
    }
    Ok(outcome)
}

/// Runs an experiment view by view, and prints its tables.
fn sweep(
    experiment: &Experiment,
    registry: &Registry,
    args: &Sweep,
    global: &Global,
) -> Result<Outcome> {
    let mut outcome = Outcome::Fine;
    let entry = super::entry(registry, &experiment.dataset)?;
    let views = experiment.by_view();
    // One for all views: what is recorded while it is open is not run again.
    let mut book = Book::open(Results::open(&global.results, &experiment.name)?)?;
    let seconds = seconds(&book);
    for (i, part) in views.iter().enumerate() {
        let data = super::open(entry, part, global)?;
        let mut bench = Bench::new(part, entry, &data, global.overcommit)?;
        bench.scores = super::scores(args.scores.as_deref(), part, entry, &data, global)?;
        bench.several = true;
        if views.len() > 1 && !global.quiet && !args.list {
            let (name, seed) = (&experiment.name, part.train.seeds[0]);
            eprintln!("{name}: split {} of {}, of seed {seed}", i + 1, views.len());
        }
        let options = Options {
            results: &global.results,
            filter: args.filter.as_ref(),
            rerun: args.rerun,
            retry_failed: args.retry_failed,
            fail_fast: args.fail_fast,
            jobs: args.jobs,
            threads: args.threads,
            checkpoint_every: *args.keep.checkpoint_every,
            quiet: global.quiet,
        };
        let engine = Engine::new(&bench, book, options);
        if args.list {
            super::print(&list(&bench, &engine.trials()?, &seconds, global))?;
            book = engine.into_book();
            continue;
        }
        let went;
        (book, went) = engine.run()?;
        if went == Outcome::Interrupted {
            let again = "run the same command again to go on";
            eprintln!("interrupted: finished trials are in {}; {again}", global.results.display());
            return Ok(went);
        }
        if went == Outcome::Failed {
            outcome = went;
            if args.fail_fast {
                return Ok(outcome);
            }
        }
    }
    if !args.list {
        super::print(&report::markdown(experiment, &book.into_records())?)?;
    }
    Ok(outcome)
}

/// What trials took before, by label; under no label all of them, for a scheme that has none.
fn seconds(book: &Book) -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for record in book.records().filter(|record| record.status == Status::Ok) {
        for label in [record.label.clone(), String::new()] {
            all.entry(label).or_default().push(record.wall_s);
        }
    }
    let mean = |times: Vec<f64>| times.iter().sum::<f64>() / times.len() as f64;
    all.into_iter().map(|(label, times)| (label, mean(times))).collect()
}

/// A line a trial: id, state, memory, the time that it took or will take, name.
fn list(
    bench: &Bench<'_>,
    trials: &[(Trial, State)],
    seconds: &BTreeMap<String, f64>,
    global: &Global,
) -> String {
    // A cell's seeds need the same.
    let mut needs: BTreeMap<String, Option<Need>> = BTreeMap::new();
    let mut text = String::new();
    for (trial, state) in trials {
        let id = bench.id(trial);
        let need = needs.entry(trial.cell_name()).or_insert_with(|| bench.need(trial));
        let memory = need.map_or("–".into(), |need| bytes(need.total()));
        let time = seconds.get(trial.scheme.label()).or(seconds.get(""));
        let time = time.map_or("–".into(), |s| {
            humantime::format_duration(Duration::from_secs(s.ceil() as u64)).to_string()
        });
        let state = match state {
            State::ToDo => Claim::stands(&global.results, &id),
            State::Done => "done",
            State::Pruned => "pruned",
            State::Failed => "failed",
        };
        let name = format!("{}: {}", bench.experiment.name, trial.name());
        let _ = writeln!(text, "{id}  {state:<11}  {memory:>10}  {time:>8}  {name}");
    }
    text
}
