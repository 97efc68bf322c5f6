//! `embc data`: list, describe, download, ingest and generate data sets.

use super::Outcome;
use crate::cli::{Data, Global, TextOrJson};
use crate::progress::DataProgress;
use crate::table::text_table;
use anyhow::Result;
use embc_data::dataset::{self, DEFAULT_MEMORY, Info, SampleInfo};
use embc_data::fetch::{Fetched, fetch};
use embc_data::registry::Entry;
use embc_data::synth::Synth;
use embc_lab::units::{bytes, count};
use std::fmt::Write;

pub fn run(command: &Data, global: &Global) -> Result<Outcome> {
    let registry = super::registry(global, &[])?;
    match command {
        Data::List { json } => super::list::datasets(global, json.format)?,
        Data::Info { name, json } => {
            let entry = super::entry(&registry, name)?;
            let mut progress = DataProgress::new(name, global.quiet);
            let info = dataset::info(entry, &global.data_dir, DEFAULT_MEMORY, &mut |at| {
                progress.watch(at)
            })?;
            drop(progress);
            super::print(&match json.format {
                TextOrJson::Json => serde_json::to_string_pretty(&info)? + "\n",
                TextOrJson::Text => describe(entry, &info),
            })?;
        }
        Data::Fetch { name } => {
            let entry = super::entry(&registry, name)?;
            let mut progress = DataProgress::new(name, global.quiet);
            let fetched = fetch(entry, &global.data_dir, &mut |at| progress.watch(at))?;
            drop(progress);
            match fetched {
                Fetched::Present => {
                    eprintln!("{name}: all files are here and as the registry says")
                }
                Fetched::Downloaded { archive, recorded } => {
                    eprintln!(
                        "{name}: {} downloaded, sha256 {}",
                        bytes(archive.bytes),
                        archive.sha256
                    );
                    if let Some(path) = recorded {
                        eprintln!(
                            "{name}: the registry knows no checksum; this one is recorded in {}",
                            path.display()
                        );
                    }
                }
            }
        }
        Data::Ingest { name, memory } => {
            let entry = super::entry(&registry, name)?;
            let mut progress = DataProgress::new(name, global.quiet);
            let (folder, meta) =
                dataset::ingest(entry, &global.data_dir, memory.0, &mut |at| progress.watch(at))?;
            drop(progress);
            eprintln!(
                "{name}: {} rows in {}, data hash {}",
                count(meta.rows),
                folder.display(),
                meta.data_hash
            );
        }
        Data::Synth { kind, rows, output, vocab, seed } => {
            let synth = Synth::new(kind, *rows, *vocab, *seed)?;
            let name = format!("synth-{kind}-{rows}");
            let mut progress = DataProgress::new(&name, global.quiet);
            let facts = synth.write(&name, output, &mut |at| progress.watch(at))?;
            drop(progress);
            for (fact, value) in facts {
                eprintln!("{name}: {fact} {value:.4}");
            }
            let registry = output.join("datasets.toml");
            eprintln!("{name}: use it with --datasets {} --set dataset={name}", registry.display());
        }
    }
    Ok(Outcome::Fine)
}

fn describe(entry: &Entry, info: &Info) -> String {
    let mut text = format!("{}: {}\n", info.name, info.title);
    let distinct: u64 = info.fields.iter().map(|f| u64::from(f.distinct)).sum();
    let repeated: u64 = info.fields.iter().map(|f| u64::from(f.repeated)).sum();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<10} {value}");
        }
    };
    line("format", info.format.clone());
    line("licence", entry.licence.clone());
    line("homepage", entry.homepage.clone());
    line("note", entry.note.clone());
    line("rows", count(info.rows));
    line("label rate", info.label_rate.map_or(String::new(), |rate| format!("{rate:.4}")));
    line("ratings", info.mean_rating.map_or(String::new(), |mean| format!("mean {mean:.4}")));
    line("dense", info.dense.to_string());
    let s = info.splits;
    line(
        "split",
        format!(
            "{} train, {} valid, {} test",
            count(s.train as u64),
            count(s.valid as u64),
            count(s.test as u64)
        ),
    );
    if info.short_users > 0 {
        line(
            "",
            format!(
                "{} users are too short to hold out from and train only",
                count(info.short_users)
            ),
        );
    }
    line(
        "distinct",
        format!(
            "{} values over {} fields, {} of them at least twice",
            count(distinct),
            info.fields.len(),
            count(repeated)
        ),
    );
    let SampleInfo { rows, values, lookups } = info.sample;
    line(
        "sample",
        format!(
            "of {} training rows: {:.1} % of their values, {:.1} % of lookups (expected; what LMA has minhashes of)",
            count(rows),
            100.0 * values,
            100.0 * lookups
        ),
    );
    for (name, values) in &info.tags {
        let shown =
            values.iter().take(24).map(|(value, n)| format!("{value} {}", count((*n).into())));
        line(name, shown.collect::<Vec<_>>().join(", "));
    }
    line("data hash", info.data_hash.clone());
    for (fact, value) in &info.facts {
        line(fact, format!("{value:.4}"));
    }
    for (what, n) in &info.notes {
        line("read as", format!("{} {what}", count(*n)));
    }
    let rows = info
        .fields
        .iter()
        .map(|f| vec![f.name.clone(), count(f.distinct.into()), count(f.repeated.into())]);
    text + "\n" + &text_table(&["field", "distinct", "at least twice"], rows)
}
