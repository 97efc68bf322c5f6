//! `embc export`: a trained model for elsewhere, checked and with every byte said.

use super::Outcome;
use crate::cli::{Export as Args, Global, HashAs, Part};
use crate::table::text_table;
use anyhow::{Context, Result, bail};
use embc_core::graph;
use embc_lab::artefact::Model;
use embc_lab::export::{self, Asked, Exported, Stated};
use embc_lab::units::{bytes, count};
use std::path::Path;

pub fn run(args: &Args, global: &Global) -> Result<Outcome> {
    let format = export::find(&args.format).expect("clap knows the formats");
    let arrays = ["npy", "safetensors"].contains(&format.name());
    if args.without_vocabulary && format.name() != "packed" {
        bail!(
            "--without-vocabulary is of --format packed: {} holds no values of ids",
            format.name()
        );
    }
    if arrays && args.hash_as == HashAs::Remap {
        bail!("--hash-as is of programs: {} holds the rows of all ids, and no hash", format.name());
    }
    let model = Model::load(&args.model)?;
    model.sample()?;
    let record = model.record()?;
    let asked = Asked {
        embedding: args.part == Part::Embedding,
        hash_as: match args.hash_as {
            HashAs::Graph => graph::HashAs::Graph,
            HashAs::Remap => graph::HashAs::Remap,
        },
        vocabulary: !args.without_vocabulary && args.format == "packed",
    };
    let stated = Stated::new(&model, asked)?;
    let folder = args.output.clone().unwrap_or_else(|| args.model.join(format.name()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("{}: cannot be made", folder.display()))?;
    let exported = format.write(&stated, &folder)?;
    let parts = if exported.checked.is_some() { stated.parts(&record) } else { Vec::new() };
    super::print(&sizes(&parts, &exported, &folder)?)?;
    if let Some(checked) = exported.checked.filter(|_| !global.quiet) {
        let rows = count(checked.rows as u64);
        eprintln!(
            "checked on {rows} test rows: off by at most {:.0e} of 1 + a value's size",
            checked.worst
        );
    }
    Ok(Outcome::Fine)
}

/// Each part and each file, in bytes.
fn sizes(parts: &[export::Part], exported: &Exported, folder: &Path) -> Result<String> {
    let part = |part: &export::Part| {
        let promised = part.promised.map_or("-".into(), |bytes| bytes.to_string());
        vec![part.what.clone(), part.bytes.to_string(), promised]
    };
    let mut rows: Vec<Vec<String>> = parts.iter().map(part).collect();
    let mut all = 0;
    for name in &exported.files {
        let path = folder.join(name);
        let size = path.metadata().with_context(|| path.display().to_string())?.len();
        rows.push(vec![path.display().to_string(), size.to_string(), String::new()]);
        all += size;
    }
    if !parts.is_empty() {
        let of_parts: u64 = parts.iter().map(|part| part.bytes).sum();
        let rest = all.saturating_sub(of_parts);
        let what = "names, programs, alignment".to_string();
        rows.insert(parts.len(), vec![what, rest.to_string(), "-".into()]);
    }
    rows.push(vec!["all files".into(), all.to_string(), bytes(all)]);
    Ok(text_table(&["part", "bytes", "as recorded"], rows.into_iter()))
}
