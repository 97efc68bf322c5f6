//! `embc train`: one trial, its metrics, and if wanted its weights.

use super::Outcome;
use crate::checkpoint::Claim;
use crate::cli::{Global, Train};
use crate::config::Experiment;
use crate::memory::Memory;
use crate::plan::trials;
use crate::progress::Progress;
use crate::provenance::program;
use crate::record::{Record, Results, Status};
use crate::run::{Bench, Ended};
use crate::tensors;
use anyhow::{Context, Result, bail};
use embc_core::batch::Data;
use embc_core::net::Net;
use embc_core::state::{HasState, is_optimizer};
use embc_data::registry::Entry;
use embc_data::view::View;
use std::io::Write;
use std::path::Path;

pub fn run(args: &Train, global: &Global) -> Result<Outcome> {
    super::set_threads(args.threads)?;
    let mut experiment = Experiment::load(&args.config, &args.sets)?;
    experiment.train.seeds = vec![args.seed.unwrap_or(experiment.train.seeds[0])];
    let registry = super::registry(global)?;
    let entry = super::entry(&registry, &experiment.dataset)?;
    let data = super::open(entry, &experiment, global)?;
    let mut bench = Bench::new(&experiment, entry, &data, global.overcommit)?;
    bench.scores = super::scores(args.scores.as_deref(), &experiment, entry, &data, global)?;
    if let Some(folder) = &args.out {
        // Before the training, not after it.
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    let results = Results::open(&global.results, &experiment.name)?;
    let trial = trials(&experiment)?.into_iter().next().expect("a scheme and a seed");
    let mut progress = Progress::new(global.quiet, Default::default());
    progress.name(&trial.name());
    if let Some(need) = bench.need(&trial) {
        progress.say(&format!("embc: {need}"));
    }
    let Some(claim) = Claim::take(&global.results, &bench.id(&trial), program())? else {
        bail!("another process trains this trial; wait for it, or choose another --results");
    };
    let (memory, every) = (Memory::new(), *args.keep.checkpoint_every);
    let ended = bench.run(&trial, &experiment.metrics(), &memory, &claim, every, &mut progress);
    let Ended::Recorded(record, net) = ended else {
        eprintln!("interrupted: run the same command again to go on");
        return Ok(Outcome::Interrupted);
    };
    progress.end(&record.summary(&experiment.metric()), "");
    results.append(&record)?;
    claim.done();
    if let (Some(folder), Some(mut net)) = (&args.out, net) {
        save(folder, &mut net, &record, entry, &data, global)?;
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

/// Writes `weights.safetensors`, `vocab-FIELD.txt` (one JSON string a line, null for the OOV id)
/// and `trial.json`, each whole or not at all.
fn save(
    folder: &Path,
    net: &mut Net,
    record: &Record,
    entry: &Entry,
    data: &View,
    global: &Global,
) -> Result<()> {
    tensors::write(&folder.join("weights.safetensors"), None, &mut |visit| {
        net.state(&mut |name, tensor| {
            if !is_optimizer(name) {
                visit(name, tensors::slice(&tensor));
            }
        });
    })?;
    write(folder, "trial.json", serde_json::to_string_pretty(record)?.as_bytes())?;
    for (field, shape) in data.shape().fields.iter().enumerate() {
        let mut text = String::new();
        for value in embc_data::dataset::vocabulary(entry, &global.data_dir, data, field)? {
            text.push_str(&serde_json::to_string(&value)?);
            text.push('\n');
        }
        write(folder, &format!("vocab-{}.txt", shape.name), text.as_bytes())?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    Ok(embc_data::atomic::write(&path, |file| {
        file.write_all(bytes).map_err(|error| embc_data::Error::io(&path, &error))
    })?)
}
