//! Files that hold tables: the registry of their formats.

use crate::table::Table;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::Path;

mod bytes;
mod fasttext;
mod gguf;
mod model2vec;
mod npy;
mod parquet;
mod safetensors;
mod spill;
mod text;
mod torch;
mod word2vec;

/// All formats, in the order in which they are asked. A new one is a file and a line here.
pub static FORMATS: &[&dyn Format] = &[
    &model2vec::Model2vec,
    &npy::Npy,
    &parquet::Parquet,
    &gguf::Gguf,
    &fasttext::FastText,
    &torch::Torch,
    &safetensors::Safetensors,
    &word2vec::Word2vec,
    &text::Text,
];

/// What holds a table.
pub trait Format: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What is read, in a line.
    fn doc(&self) -> &'static str;
    /// True where a file, which begins with `head`, is of this format.
    fn is(&self, path: &Path, head: &[u8]) -> bool;
    /// Opens it. `tensor` names one of several tables; an error says which there are.
    fn open(&self, path: &Path, tensor: Option<&str>) -> Result<Table>;
    /// True where one file may hold several tables.
    fn has_names(&self) -> bool {
        false
    }
}

/// Opens a table, whatever its format.
pub fn open(path: &Path, tensor: Option<&str>) -> Result<Table> {
    let at = || path.display().to_string();
    let mut head = Vec::new();
    if path.is_file() {
        File::open(path).with_context(at)?.take(1 << 16).read_to_end(&mut head).with_context(at)?;
        if head.is_empty() {
            bail!("{}: the file is empty", path.display());
        }
    } else if !path.exists() {
        bail!("{}: there is no such file", path.display());
    }
    let Some(format) = FORMATS.iter().find(|format| format.is(path, &head)) else {
        let names: Vec<&str> = FORMATS.iter().map(|format| format.name()).collect();
        bail!("{}: no table that embc knows; it reads {}", path.display(), names.join(", "));
    };
    if tensor.is_some() && !format.has_names() {
        bail!("{}: --tensor is of files with several; {} holds one", path.display(), format.name());
    }
    format.open(path, tensor).with_context(at)
}

/// The one of several tensors that is meant: as named, else one of `usual`, else the only one.
fn pick<'a, T>(
    all: &'a [(String, T)],
    named: Option<&str>,
    usual: impl Fn(&str) -> bool,
) -> Result<&'a (String, T)> {
    let list = || {
        let mut names: Vec<&str> = all.iter().map(|(name, _)| &name[..]).take(20).collect();
        if all.len() > names.len() {
            names.push("…");
        }
        names.join(", ")
    };
    if let Some(named) = named {
        let found = all.iter().find(|(name, _)| name == named);
        return found.with_context(|| format!("no table {named}; it holds {}", list()));
    }
    let mut found = all.iter().filter(|(name, _)| usual(name));
    match (found.next(), found.next(), all) {
        (Some(one), None, _) => Ok(one),
        (None, _, [one]) => Ok(one),
        (None, _, []) => bail!("it holds no table of floats"),
        _ => bail!("which table? Name one with --tensor: {}", list()),
    }
}
