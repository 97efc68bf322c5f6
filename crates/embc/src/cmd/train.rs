//! `embc train`: one trial, its metrics, and if wanted its weights.

use super::{Outcome, one};
use crate::INTERRUPT;
use crate::cli::{Global, Train};
use crate::progress::Terminal;
use anyhow::{Context, Result, bail};
use embc_lab::artefact;
use embc_lab::bench::Bench;
use embc_lab::config::Experiment;
use embc_lab::desk::{Again, Answer, Desk};
use embc_lab::plan::trials;
use embc_lab::record::Status;
use embc_lab::watch::Audience;

pub fn run(args: &Train, global: &Global) -> Result<Outcome> {
    super::set_threads(args.threads)?;
    let mut experiment = Experiment::load(&args.config, &args.sets)?;
    experiment.train.seeds = vec![args.seed.unwrap_or(experiment.train.seeds[0])];
    let registry = super::registry(global, std::slice::from_ref(&args.config))?;
    let entry = super::entry(&registry, &experiment.dataset)?;
    let data = super::open_for(entry, &experiment, global)?;
    let mut bench = Bench::new(entry, &data, global.overcommit);
    bench.check(&experiment)?;
    bench.scores = super::scores(args.scores.as_deref(), &experiment, entry, &data, global)?;
    if let Some(folder) = &args.out {
        // Before the training, not after it.
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    let again = Again { done: true, failed: true };
    let desk = Desk::open(&global.results, &experiment.place(), again)?.lasting(*args.keep.lease);
    let trial = trials(&experiment)?.into_iter().next().expect("a scheme and a seed");
    let order = bench.order(&trial, &experiment);
    let terminal = Terminal::new(global.quiet);
    if let Some(need) = bench.need(&order.spec) {
        terminal.say(&format!("embc: {need}"));
    }
    let Answer::Run(claim, metrics) = desk.ask_once(&order, false, &INTERRUPT)? else {
        bail!("another process trains this trial; wait for it, or choose another --results");
    };
    let every = *args.keep.checkpoint_every;
    let Some((record, net)) = one(&bench, &order, &metrics, *claim, (&desk, every), &terminal)?
    else {
        return Ok(Outcome::Interrupted);
    };
    desk.tidy(false)?;
    if let (Some(folder), Some(mut net)) = (&args.out, net) {
        artefact::save(folder, &mut net, &record, (entry, &global.data_dir), &data)?;
    }
    match record.status {
        Status::Ok => {
            let lines = record.metrics.iter().map(|(name, value)| format!("{name} {value:.6}\n"));
            super::print(&lines.collect::<String>())?;
            Ok(Outcome::Fine)
        }
        Status::Error => {
            // With -q too: an error is never silent.
            if global.quiet {
                eprintln!("error: {}", record.error.unwrap_or_default());
            }
            Ok(Outcome::Failed)
        }
        _ => Err(anyhow::anyhow!("{}", record.error.unwrap_or_default())),
    }
}
