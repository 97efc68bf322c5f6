//! One file per command; what they share is here.

use crate::cli::Global;
use crate::interrupted;
use crate::progress::{DataProgress, Terminal};
use anyhow::{Result, anyhow};
use embc_core::batch::Examples;
use embc_core::metric::Metric;
use embc_core::net::Net;
use embc_data::registry::{Entry, Registry};
use embc_data::view::{View, ViewSpec};
use embc_lab::bench::{Bench, Ended, Running};
use embc_lab::checkpoint::Claim;
use embc_lab::config::Experiment;
use embc_lab::desk::Desk;
use embc_lab::memory::Memory;
use embc_lab::order::Order;
use embc_lab::record::Record;
use embc_lab::scores::ScoresTo;
use embc_lab::suggest;
use embc_lab::watch::Audience;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub mod bench;
pub mod choose;
pub mod compare;
pub mod completions;
pub mod compress;
pub mod data;
pub mod decompress;
pub mod export;
pub mod init;
pub mod list;
pub mod predict;
pub mod recommend;
pub mod report;
pub mod sweep;
pub mod theory;
pub mod train;
pub mod trial;

pub use embc_lab::sweep::Outcome;

/// The exit code: 0 ok, 1 a trial or check failed, 2 wrong input, 130 interrupted.
pub fn exit(result: Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(error) if interrupted() => {
            eprintln!("interrupted: {error:#}");
            ExitCode::from(130)
        }
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints data to stdout; a reader that has gone away is no error.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes a text file whole or not at all.
pub fn write(path: &Path, text: &str) -> Result<()> {
    Ok(embc_data::atomic::write(path, |file| {
        file.write_all(text.as_bytes()).map_err(|error| embc_data::Error::io(path, &error))
    })?)
}

/// All registries: the built-in one, those called NAME.data.toml here and beside these configs, and
/// those of --datasets.
pub fn registry(global: &Global, configs: &[PathBuf]) -> Result<Registry> {
    let mut files = Vec::new();
    let beside = configs.iter().filter_map(|config| config.parent());
    for folder in [Path::new("")].into_iter().chain(beside) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let found = found.map(|file| file.path());
        let mut found: Vec<PathBuf> =
            found.filter(|path| path.to_string_lossy().ends_with(".data.toml")).collect();
        found.sort();
        files.extend(found);
    }
    files.extend(global.datasets.iter().cloned());
    Ok(Registry::load(&files)?)
}

/// A data set by name.
pub fn entry<'a>(registry: &'a Registry, name: &str) -> Result<&'a Entry> {
    registry.get(name).ok_or_else(|| {
        let hint = suggest::nearest(name, registry.entries().map(|e| e.name.as_str()));
        anyhow!("unknown data set {name:?}{hint}; see `embc data list`, or add a registry with --datasets")
    })
}

/// Opens a data set as an experiment and its model see it, ingesting it if need be.
pub fn open_for(entry: &Entry, experiment: &Experiment, global: &Global) -> Result<View> {
    // All seeds have the same view; else there is one.
    let spec = experiment.data.of_seed(experiment.train.seeds[0]);
    open(entry, spec, experiment.examples()?, global)
}

/// Opens a view of a data set, ingesting it if need be.
pub fn open(entry: &Entry, spec: ViewSpec, by: Examples, global: &Global) -> Result<View> {
    let mut progress = DataProgress::new(&entry.name, global.quiet);
    let memory = embc_data::dataset::DEFAULT_MEMORY;
    let view = embc_data::dataset::open(entry, &global.data_dir, memory, spec, by, &mut |at| {
        progress.watch(at)
    })?;
    for (what, n) in &view.left_out {
        tracing::info!("{}: {} {what}", entry.name, embc_lab::units::count(*n));
    }
    if view.unknown_lookups > 0.0 {
        let share = 100.0 * view.unknown_lookups;
        tracing::info!(
            "{}: {share:.1} % of the test lookups are of ids without a training row",
            entry.name
        );
    }
    if view.short_users > 0 {
        tracing::info!(
            "{}: {} users are too short to hold out from and train only",
            entry.name,
            view.short_users
        );
    }
    Ok(view)
}

/// Where the scores of an experiment's trials go, if they are wanted.
pub fn scores(
    path: Option<&Path>,
    experiment: &Experiment,
    entry: &Entry,
    data: &View,
    global: &Global,
) -> Result<Option<ScoresTo>> {
    let Some(path) = path else { return Ok(None) };
    if path.extension().is_some_and(|extension| extension != "csv") {
        return Err(anyhow!(
            "--scores {}: scores are written as CSV; call it .csv",
            path.display()
        ));
    }
    let examples = experiment.examples()?;
    ScoresTo::new(path, entry, &global.data_dir, data, examples).map(Some)
}

/// Runs one trial and keeps its record; none once interrupted.
pub fn one(
    bench: &Bench<'_>,
    order: &Order,
    metrics: &[Metric],
    claim: Claim,
    (desk, every): (&Desk, Duration),
    terminal: &Terminal,
) -> Result<Option<(Record, Option<Box<Net>>)>> {
    let memory = Memory::free_now();
    let running =
        Running { memory: &memory, claim: &claim, parent: None, every, cancel: claim.cancel() };
    let mut watcher = terminal.watcher();
    let taken_over = || anyhow!("{}: another process has taken this trial over", order.name());
    watcher.next(&order.name());
    let Ended::Recorded(record, net) = bench.run(order, metrics, &running, &mut *watcher) else {
        if claim.is_lost() {
            return Err(taken_over());
        }
        eprintln!("interrupted: run the same command again to go on");
        return Ok(None);
    };
    if !desk.keep(&record, claim)? {
        return Err(taken_over());
    }
    watcher.end(&record.summary(&order.spec.schedule.select), net.is_none());
    Ok(Some((*record, net)))
}

/// Sets the number of threads.
pub fn set_threads(threads: Option<usize>) -> Result<()> {
    match threads {
        Some(0) => Err(anyhow!("--threads 0: at least one thread is needed")),
        Some(n @ 1025..) => {
            Err(anyhow!("--threads {n}: at most 1024, and no more than cores help"))
        }
        Some(n) => Ok(rayon::ThreadPoolBuilder::new().num_threads(n).build_global()?),
        None => Ok(()),
    }
}
