//! Workers elsewhere, on a folder that they share.

use crate::cli::{Global, Sweep as Args};
use crate::cmd::Outcome;
use anyhow::{Result, anyhow, bail};
use embc_data::registry::Registry;
use embc_lab::bench::Bench;
use embc_lab::config::Experiment;
use embc_lab::workers::{self, Job};

/// Starts workers elsewhere, once it is sure that they can begin: caches are built, configs fit them.
pub fn start(
    on: &str,
    experiments: &[Experiment],
    registry: &Registry,
    args: &Args,
    global: &Global,
) -> Result<Outcome> {
    if args.workers == 0 {
        bail!("--workers 0: at least one worker is needed");
    }
    let starter = workers::find(on).expect("clap knows them");
    let names: Vec<&str> = experiments.iter().map(|experiment| &experiment.name[..]).collect();
    let job = Job {
        name: names.join("-"),
        workers: args.workers,
        line: worker()?,
        folder: std::env::current_dir()?,
        logs: std::path::absolute(global.results.join(".jobs"))?,
        extra: args.extra.clone(),
    };
    let text = starter.text(&job)?;
    if args.dry_run {
        crate::cmd::print(&text)?;
        return Ok(Outcome::Fine);
    }
    for experiment in experiments {
        let entry = crate::cmd::entry(registry, &experiment.dataset)?;
        for part in &experiment.by_view() {
            let data = crate::cmd::open_for(entry, part, global)?;
            Bench::new(entry, &data, global.overcommit).check(part)?;
        }
    }
    match starter.start(&job)? {
        None => crate::cmd::print(&text)?,
        Some(said) => {
            crate::cmd::print(&(said + "\n"))?;
            eprintln!("the same command with --watch in place of --on says who runs what where");
        }
    }
    Ok(Outcome::Fine)
}

/// This command as a worker's: without what says where workers run.
fn worker() -> Result<Vec<String>> {
    let text = |word: std::ffi::OsString| {
        word.into_string().map_err(|word| anyhow!("{}: not a text", word.display()))
    };
    let mut line = vec![text(std::env::current_exe()?.into_os_string())?];
    let mut words = std::env::args_os().skip(1).map(text);
    while let Some(word) = words.next().transpose()? {
        match word.split_once('=').map_or(&word[..], |(name, _)| name) {
            "--" => break,
            "--dry-run" => {}
            "--on" | "--workers" if word.contains('=') => {}
            "--on" | "--workers" => drop(words.next()),
            _ => line.push(word),
        }
    }
    // What the environment says here is not known there.
    for (option, variable) in [("--datasets", "EMBC_DATASETS"), ("--data-dir", "EMBC_DATA_DIR")] {
        let is_said = |word: &String| word == option || word.starts_with(&format!("{option}="));
        if let Some(value) = std::env::var_os(variable).filter(|_| !line.iter().any(is_said)) {
            line.extend([option.into(), text(value)?]);
        }
    }
    Ok(line)
}
