//! The text of a config: where it lies, and what it says.

use crate::lines::line_at;
use crate::suggest;
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};

/// What `embc --help` begins with runs anywhere.
const QUICKSTART: &str = include_str!("../../../../configs/quickstart.toml");

/// The file of `--config`: a path as it is, else under `configs/` or a folder in it, or in the folder of
/// a choice.
pub fn find(name: &Path) -> Result<PathBuf> {
    let toml = |path: PathBuf| {
        let mut path = path.into_os_string();
        path.push(".toml");
        PathBuf::from(path)
    };
    let last = name.file_name().unwrap_or_default();
    let choice = toml(name.join(last));
    let folders = folders();
    // A config that was moved into a folder is found by the path that it had.
    let within =
        folders.iter().flat_map(|folder| [name, Path::new(last)].map(|name| folder.join(name)));
    let places = std::iter::once(name.to_path_buf()).chain(within);
    let mut places = places.flat_map(|path| [path.clone(), toml(path)]).chain([choice]);
    if let Some(found) = places.find(|path| path.is_file()) {
        return Ok(found);
    }
    let files = folders.iter().flat_map(std::fs::read_dir).flatten().flatten();
    let known: Vec<String> = files
        .filter_map(|file| file.path().file_stem().map(|s| s.to_string_lossy().into_owned()))
        .collect();
    let wanted = Path::new(last).file_stem().unwrap_or_default().to_string_lossy();
    let hint = suggest::nearest(&wanted, known.iter().map(String::as_str));
    bail!("{}: no such config, here or under configs/{hint}", name.display())
}

/// `configs` and the folders in it.
fn folders() -> Vec<PathBuf> {
    let configs = PathBuf::from("configs");
    let files = std::fs::read_dir(&configs).into_iter().flatten().flatten();
    let mut within: Vec<PathBuf> =
        files.map(|file| file.path()).filter(|path| path.is_dir()).collect();
    within.sort();
    [vec![configs], within].concat()
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
