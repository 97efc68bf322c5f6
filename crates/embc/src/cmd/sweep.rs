//! `embc sweep`: all trials of experiments that are not recorded yet, then their tables.

mod list;
mod start;

use super::Outcome;
use crate::INTERRUPT;
use crate::cli::{Global, Sweep as Args};
use crate::progress::Terminal;
use crate::report;
use anyhow::{Result, bail};
use embc_data::registry::Registry;
use embc_lab::bench::Bench;
use embc_lab::config::Experiment;
use embc_lab::desk::{Again, Desk};
use embc_lab::executor::Threads;
use embc_lab::memory::Memory;
use embc_lab::record::Record;
use embc_lab::sweep::{Filter, Sweep};
use embc_lab::watch::Audience;

pub fn run(args: &Args, global: &Global) -> Result<Outcome> {
    if args.threads == Some(0) || args.jobs == Some(0) {
        bail!("--threads 0, --jobs 0: at least one thread and one job are needed");
    }
    let registry = super::registry(global, &args.config)?;
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
    if let Some(on) = &args.on {
        return start::start(on, &experiments, &registry, args, global);
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
    args: &Args,
    global: &Global,
) -> Result<Outcome> {
    let mut outcome = Outcome::Fine;
    let entry = super::entry(registry, &experiment.dataset)?;
    let views = experiment.by_view();
    // One for all views: what is recorded while it is open is not run again.
    let again = Again { done: args.rerun, failed: args.retry_failed };
    let desk = Desk::open(&global.results, &experiment.place(), again)?.lasting(*args.keep.lease);
    let seconds = list::seconds(&desk.book());
    let terminal = Terminal::new(global.quiet);
    let passes = |name: &str| args.filter.as_ref().is_some_and(|filter| filter.is_match(name));
    let filter = args.filter.as_ref().map(|_| &passes as Filter<'_>);
    for (i, part) in views.iter().enumerate() {
        let data = super::open_for(entry, part, global)?;
        let mut bench = Bench::new(entry, &data, global.overcommit);
        bench.check(part)?;
        bench.scores = super::scores(args.scores.as_deref(), part, entry, &data, global)?;
        bench.several = true;
        let sweep = Sweep { experiment: part, bench: &bench, desk: &desk, filter };
        if args.list {
            super::print(&list::list(&sweep, &seconds, args.json.format)?)?;
            continue;
        }
        if views.len() > 1 {
            let (name, seed) = (&experiment.name, part.train.seeds[0]);
            terminal.say(&format!("{name}: split {} of {}, of seed {seed}", i + 1, views.len()));
        }
        if args.watch {
            match list::watch(&sweep, &terminal)? {
                Outcome::Interrupted => return Ok(Outcome::Interrupted),
                Outcome::Failed => outcome = Outcome::Failed,
                Outcome::Fine => {}
            }
            continue;
        }
        let memory = Memory::free_now();
        let threads = Threads {
            jobs: args.jobs,
            threads: args.threads,
            checkpoint_every: *args.keep.checkpoint_every,
            fail_fast: args.fail_fast,
            ..Threads::new(&bench, &memory, &terminal, INTERRUPT.part())
        };
        match sweep.run(&threads, &memory, &terminal, &INTERRUPT)? {
            Outcome::Interrupted => {
                let again = "run the same command again to go on";
                let results = global.results.display();
                eprintln!("interrupted: finished trials are in {results}; {again}");
                return Ok(Outcome::Interrupted);
            }
            Outcome::Failed if args.fail_fast => return Ok(Outcome::Failed),
            Outcome::Failed => outcome = Outcome::Failed,
            Outcome::Fine => {}
        }
    }
    if !args.list {
        terminal.clear();
        let records = desk.into_records();
        super::print(&report::markdown(experiment, &records)?)?;
        conclude(experiment, &records, &terminal, global)?;
    }
    Ok(outcome)
}

/// Says what the tables come to, and leaves the page.
fn conclude(
    experiment: &Experiment,
    records: &[Record],
    terminal: &Terminal,
    global: &Global,
) -> Result<()> {
    for choice in report::choice::answers(experiment, records)? {
        terminal.say(&report::choice::headline(&choice).replace("**", ""));
    }
    let page = global.results.join(experiment.place() + ".html");
    match super::write(&page, &report::html::alone(experiment, records)?) {
        Ok(()) => terminal.say(&format!("{} shows all of it", page.display())),
        // The records are what counts.
        Err(error) => tracing::warn!("no page: {error:#}"),
    }
    Ok(())
}
