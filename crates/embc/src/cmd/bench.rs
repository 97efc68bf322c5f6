//! `embc bench`: what models cost where they run, each measured in processes of its own.

use super::Outcome;
use crate::cli::{Bench as Args, PageCache, TextOrJson};
use crate::table::text_table;
use anyhow::{Context, Result, bail};
use embc_core::graph::HashAs;
use embc_lab::artefact::Model;
use embc_lab::device::{self, Measured, State};
use embc_lab::export::{self, Asked, Stated, packed};
use embc_lab::provenance::{host, program};
use embc_lab::sample::Sample;
use embc_lab::units::bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a process that measures prints.
#[derive(Serialize, Deserialize)]
struct One {
    input: String,
    state: State,
    drift: f64,
    auc: Option<[f64; 2]>,
}

pub fn run(args: &Args) -> Result<Outcome> {
    if let Some(file) = &args.measure {
        let one = measure(file, &args.models[0], args.state == PageCache::Cold)?;
        super::print(&(serde_json::to_string(&one)? + "\n"))?;
        return Ok(Outcome::Fine);
    }
    let mut all = Vec::new();
    for folder in &args.models {
        all.push((folder, bench(folder)?));
    }
    super::print(&match args.json.format {
        TextOrJson::Text => table(&all),
        TextOrJson::Json => {
            let line =
                |(folder, it): &(&PathBuf, Measured)| json!({"model": folder, "measured": it});
            all.iter().map(|it| line(it).to_string() + "\n").collect()
        }
    })?;
    Ok(Outcome::Fine)
}

/// In a process of its own: one file in one state.
fn measure(file: &Path, sample: &Path, cold: bool) -> Result<One> {
    let sample = Sample::open(sample)?;
    let (state, mut reader) = device::measure(file, &sample, cold)?;
    let (drift, auc) = device::quality(&mut reader, &sample)?;
    Ok(One { input: device::looked_up(&reader), state, drift, auc })
}

/// Packs a model beside itself, and measures it cold and warm.
fn bench(folder: &Path) -> Result<Measured> {
    let model = Model::load(folder)?;
    let asked = Asked { embedding: false, hash_as: HashAs::Graph, vocabulary: false };
    let scratch = tempfile::tempdir_in(folder)
        .with_context(|| format!("{}: cannot be written to", folder.display()))?;
    let format = export::find("packed").expect("registered");
    format.write(&Stated::new(&model, asked)?, scratch.path())?;
    let trial = model.spec.id();
    let (file, sample) = (scratch.path().join(packed::FILE), model.sample_path());
    drop(model);
    let one = |state: &str| -> Result<One> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench").arg(&sample).arg("--measure").arg(&file).args(["--state", state]);
        let done = command.output()?;
        if !done.status.success() {
            bail!("{}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(serde_json::from_slice(&done.stdout)?)
    };
    let size = file.metadata()?.len();
    let (cold, warm) = (one("cold")?, one("warm")?);
    let One { input, state, drift, auc } = warm;
    let (cold, warm) = (cold.state, state);
    Ok(Measured { trial, host: host(), embc: program(), file: size, input, cold, warm, drift, auc })
}

/// A row a model.
fn table(all: &[(&PathBuf, Measured)]) -> String {
    let header = [
        "model",
        "file",
        "open ms",
        "own memory",
        "file in memory",
        "faults cold",
        "id us p50",
        "p99",
        "cold p99",
        "100 ids us",
        "score us p50",
        "p99",
        "ns/id at 4096",
        "drift",
        "AUC",
    ];
    let row = |(folder, it): &(&PathBuf, Measured)| {
        let of = |usage: Option<u64>| usage.map_or("-".into(), bytes);
        let us = |x: f64| format!("{x:.2}");
        let score = |p: fn(&device::Latency) -> f64| {
            it.warm.score.as_ref().map_or("-".into(), |s| us(p(s)))
        };
        let faults =
            it.cold.usage.map_or("-".into(), |u| format!("{}+{}", u.minor_faults, u.major_faults));
        vec![
            folder.display().to_string(),
            bytes(it.file),
            format!("{:.2}", it.cold.open_ms),
            of(it.warm.usage.map(|usage| usage.anonymous)),
            of(it.warm.usage.map(|usage| usage.file)),
            faults,
            us(it.warm.id.p50),
            us(it.warm.id.p99),
            us(it.cold.id.p99),
            us(it.warm.session.p50),
            score(|s| s.p50),
            score(|s| s.p99),
            format!("{:.0}", it.warm.ns_per_id),
            format!("{:.0e}", it.drift),
            it.auc.map_or("-".into(), |[_, auc]| format!("{auc:.4}")),
        ]
    };
    text_table(&header, all.iter().map(row))
}
