//! `embc decompress`: a compressed table as it was, or for elsewhere.

use super::Outcome;
use crate::cli::Decompress as Args;
use crate::table::text_table;
use anyhow::{Context, Result, bail};
use embc_table::output::{self, To};
use embc_table::packed::Packed;
use std::path::Path;

pub fn run(args: &Args) -> Result<Outcome> {
    let format = output::find(&args.format).expect("clap knows the formats");
    if args.like.is_some() && format.name != "model2vec" {
        bail!("--like is of --format model2vec: {} needs no tokenizer", format.name);
    }
    let file = if args.file.is_dir() { args.file.join("model.embc") } else { args.file.clone() };
    let packed = Packed::open(&file)?;
    let beside = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = args.output.as_deref().unwrap_or(beside);
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: cannot be made", folder.display()))?;
    for name in ["rows.npy", "rows.safetensors"] {
        let path = folder.join(name);
        if name.contains(format.name) && path.exists() {
            bail!("{}: is there already; choose another folder with --output", path.display());
        }
    }
    let to = To { from: &file, packed: &packed, folder, like: args.like.as_ref() };
    super::print(&files(&(format.write)(&to)?, folder)?)?;
    Ok(Outcome::Fine)
}

/// Files that were written, and their bytes.
pub fn files(names: &[String], folder: &Path) -> Result<String> {
    let row = |name: &String| {
        let path = folder.join(name);
        let size = path.metadata().with_context(|| path.display().to_string())?.len();
        Ok(vec![path.display().to_string(), size.to_string()])
    };
    let rows: Vec<Vec<String>> = names.iter().map(row).collect::<Result<_>>()?;
    Ok(text_table(&["file", "bytes"], rows.into_iter()))
}
