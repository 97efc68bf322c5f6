//! The text of a config: where it lies, and what it says.

use crate::lines::line_at;
use crate::suggest;
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};

/// The file of `--config`: a path as it is, else under `configs/`.
pub fn find(name: &Path) -> Result<PathBuf> {
    let places = [
        name.to_path_buf(),
        name.with_extension("toml"),
        Path::new("configs").join(name),
        Path::new("configs").join(name).with_extension("toml"),
    ];
    if let Some(found) = places.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let known = std::fs::read_dir("configs").into_iter().flatten().flatten();
    let known: Vec<String> = known
        .filter_map(|file| file.path().file_stem().map(|s| s.to_string_lossy().into_owned()))
        .collect();
    let wanted = name.file_stem().unwrap_or_default().to_string_lossy();
    let hint = suggest::nearest(&wanted, known.iter().map(String::as_str));
    bail!("{}: no such config, here or under configs/{hint}", name.display())
}

/// The path and text of a config.
pub fn read(name: &Path) -> Result<(PathBuf, String)> {
    let path = find(name)?;
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok((path, text))
}

/// A config's text as what it describes; errors name the line.
pub fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        anyhow!("{}:{line}: {}", path.display(), suggest::key(error.message()))
    })
}

/// Which command of `embc theory` a config is for, if any.
pub fn theory(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    table.get("theory")?.as_str().map(String::from)
}
