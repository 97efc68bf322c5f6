//! `embc sweep`: all trials of experiments that are not recorded yet, then their tables.

use super::Outcome;
use crate::cli::{Global, Sweep};
use crate::config::Experiment;
use crate::memory::{Memory, Need};
use crate::plan::{Trial, trials};
use crate::progress::Progress;
use crate::record::{Record, Results, Status};
use crate::run::{Bench, Ended};
use crate::{interrupted, report};
use anyhow::{Result, bail};
use indicatif::MultiProgress;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub fn run(args: &Sweep, global: &Global) -> Result<Outcome> {
    if args.threads == Some(0) || args.jobs == Some(0) {
        bail!("--threads 0, --jobs 0: at least one thread and one job are needed");
    }
    let registry = super::registry(global)?;
    // All configs are read before the first trial runs, so that a typo costs no night.
    let load = |path: &std::path::PathBuf| Experiment::load(path, &args.sets);
    let experiments: Vec<Experiment> = args.config.iter().map(load).collect::<Result<_>>()?;
    for experiment in &experiments {
        super::entry(&registry, &experiment.dataset)?;
    }
    let mut outcome = Outcome::Fine;
    for experiment in &experiments {
        // Before any training, not after it.
        crate::report::check_reference(experiment)?;
        let entry = super::entry(&registry, &experiment.dataset)?;
        let data = super::open(entry, experiment, global)?;
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
        let memory = Memory::new();
        let needs = todo.iter().filter_map(|trial| bench.need(trial));
        let largest = needs.max_by_key(Need::total);
        if let Some(need) = largest.filter(|_| !global.quiet) {
            eprintln!("{}: the largest trial {need}", experiment.name);
        }
        // So many that they need not wait for each other's memory.
        let fit = memory.free() / largest.map_or(1, |need| need.total().max(1));
        let (jobs, threads) = jobs_and_threads(args, todo.len().min(fit as usize));
        let mut keep = |ended: Ended| {
            let Ended::Recorded(record, _) = ended else {
                outcome = Outcome::Interrupted;
                return Ok(());
            };
            if record.status == Status::Error && outcome == Outcome::Fine {
                outcome = Outcome::Failed;
            }
            results.append(&record)?;
            records.insert(record.trial.clone(), *record);
            anyhow::Ok(())
        };
        let (next, lines) = (AtomicUsize::new(0), MultiProgress::new());
        let stop = Arc::new(AtomicBool::new(false));
        let work = |pool: &rayon::ThreadPool, keep: &mut dyn FnMut(Ended) -> bool| {
            let mut progress = Progress::new(global.quiet, lines.clone(), stop.clone());
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(trial) = todo.get(i) else { return };
                if interrupted() {
                    keep(Ended::Cancelled);
                    return;
                }
                progress.place(i + 1, todo.len());
                progress.name(&trial.name());
                let mut ended = pool.install(|| bench.run(trial, &memory, &mut progress));
                if let Ended::Recorded(record, net) = &mut ended {
                    *net = None;
                    record.jobs = jobs;
                    if jobs > 1 {
                        // The process's peak is that of all its trials.
                        record.peak_rss_bytes = 0;
                    }
                    progress.end(&summary(record, experiment));
                }
                if !keep(ended) {
                    return;
                }
            }
        };
        let (send, ended) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                let (send, work) = (send.clone(), &work);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
                scope.spawn(move || work(&pool, &mut |ended| send.send(ended).is_ok()));
            }
            drop(send);
            let kept = ended.iter().try_for_each(&mut keep);
            // Where a record cannot be kept, the other trials would be lost too.
            stop.store(kept.is_err(), Ordering::Relaxed);
            drop(ended);
            kept
        })?;
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

/// Trials at once, and the threads of each. Many trials on one thread each make the most of a
/// machine; one alone gets all of it.
fn jobs_and_threads(args: &Sweep, trials: usize) -> (usize, usize) {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let jobs = args.jobs.unwrap_or(cores / args.threads.unwrap_or(1)).clamp(1, trials.max(1));
    (jobs, args.threads.unwrap_or((cores / jobs).max(1)))
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
