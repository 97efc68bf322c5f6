//! The text of a config: where it lies, and what it says.

use crate::lines::line_at;
use crate::suggest;
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};

/// What `embc --help` begins with runs anywhere.
const QUICKSTART: &str = include_str!("../../../../configs/quickstart.toml");

/// The file of `--config`: a path as it is, else under `configs/`, or in the folder of a choice.
pub fn find(name: &Path) -> Result<PathBuf> {
    let toml = |path: PathBuf| {
        let mut path = path.into_os_string();
        path.push(".toml");
        PathBuf::from(path)
    };
    let configs = Path::new("configs").join(name);
    let places = [
        name.to_path_buf(),
        toml(name.to_path_buf()),
        configs.clone(),
        toml(configs),
        toml(name.join(name.file_name().unwrap_or_default())),
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
    if name == Path::new("quickstart") && find(name).is_err() {
        return Ok((name.with_extension("toml"), QUICKSTART.into()));
    }
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
