//! `embc train`: one trial, its metrics, and if wanted its weights.

use super::Outcome;
use crate::cli::{Global, Train};
use crate::config::Experiment;
use crate::memory::Memory;
use crate::plan::trials;
use crate::progress::Progress;
use crate::record::{Record, Results, Status};
use crate::run::{Bench, Ended};
use anyhow::{Context, Result};
use embc_core::batch::Data;
use embc_core::net::Net;
use embc_core::state::{HasState, TensorMut, is_optimizer};
use embc_data::registry::Entry;
use embc_data::view::View;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

pub fn run(args: &Train, global: &Global) -> Result<Outcome> {
    super::set_threads(args.threads)?;
    let mut experiment = Experiment::load(&args.config, &args.sets)?;
    experiment.train.seeds = vec![args.seed.unwrap_or(experiment.train.seeds[0])];
    let registry = super::registry(global)?;
    let entry = super::entry(&registry, &experiment.dataset)?;
    let data = super::open(entry, &experiment, global)?;
    let bench = Bench::new(&experiment, entry, &data, global.overcommit)?;
    if let Some(folder) = &args.out {
        // Before the training, not after it.
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
    }
    let results = Results::open(&global.results, &experiment.name)?;
    let trial = trials(&experiment)?.into_iter().next().expect("a scheme and a seed");
    let mut progress = Progress::new(global.quiet, Default::default(), Default::default());
    progress.name(&trial.name());
    if let Some(need) = bench.need(&trial) {
        progress.say(&format!("embc: {need}"));
    }
    let Ended::Recorded(record, net) = bench.run(&trial, &Memory::new(), &mut progress) else {
        eprintln!("interrupted: nothing was recorded");
        return Ok(Outcome::Interrupted);
    };
    progress.end(&super::sweep::summary(&record, &experiment));
    results.append(&record)?;
    if let (Some(folder), Some(mut net)) = (&args.out, net) {
        save(folder, &mut net, &record, entry, &data, global)?;
    }
    match record.status {
        Status::Ok => {
            let lines = record.metrics.iter().map(|(name, value)| format!("{name} {value:.6}\n"));
            super::print(&lines.collect::<String>())?;
            Ok(Outcome::Fine)
        }
        Status::Error => Ok(Outcome::Failed),
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
    let mut tensors: BTreeMap<String, (Dtype, usize, Vec<u8>)> = BTreeMap::new();
    net.state(&mut |name, tensor| {
        if is_optimizer(name) {
            return;
        }
        let stored = match tensor {
            TensorMut::F32(x) => {
                (Dtype::F32, x.len(), x.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            TensorMut::U32(x) => {
                (Dtype::U32, x.len(), x.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            TensorMut::U64(x) => {
                (Dtype::U64, x.len(), x.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
        };
        tensors.insert(name.into(), stored);
    });
    let views: Vec<(&String, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, (dtype, len, bytes))| Ok((name, TensorView::new(*dtype, vec![*len], bytes)?)))
        .collect::<Result<_>>()?;
    write(folder, "weights.safetensors", &safetensors::serialize(views, None)?)?;
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
