//! The text of a config: where it lies.

use crate::suggest;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// `configs/quickstart.toml`: what `embc --help` begins with runs anywhere.
const QUICKSTART: &str = include_str!("quickstart.toml");

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
    // One that was moved into a folder is found by the path that it had.
    let moved = name.parent() == Some(Path::new("configs"));
    let bare = if moved { Path::new(last) } else { name };
    let within = |folder: &PathBuf| folder.join(bare);
    let files = |path: PathBuf| [path.clone(), toml(path)].into_iter().find(|path| path.is_file());
    if let Some(found) = files(name.to_path_buf()).or_else(|| files(within(&folders[0]))) {
        return Ok(found);
    }
    let mut found = folders[1..].iter().filter_map(|folder| files(within(folder)));
    match (found.next(), found.next(), choice.is_file()) {
        (Some(one), Some(other), _) => bail!(
            "{}: {} or {}? name the folder, too",
            name.display(),
            one.display(),
            other.display()
        ),
        (Some(found), None, _) => return Ok(found),
        (None, _, true) => return Ok(choice),
        (None, _, false) => {}
    }
    let known = all();
    let known = known.iter().filter_map(|path| path.file_stem()?.to_str());
    let wanted = Path::new(last).file_stem().unwrap_or_default().to_string_lossy();
    let hint = suggest::nearest(&wanted, known);
    bail!("{}: no such config, here or under configs/{hint}", name.display())
}

/// All configs under `configs`, in order.
pub fn all() -> Vec<PathBuf> {
    let files = folders().into_iter().flat_map(std::fs::read_dir).flatten().flatten();
    let mut all: Vec<PathBuf> = files.map(|file| file.path()).collect();
    all.retain(|path| path.extension().is_some_and(|kind| kind == "toml"));
    all.sort();
    all
}

/// Where the records of a config are, below the folder of results: its name, in a folder FOLDER if it
/// is in `configs/FOLDER`.
pub fn place(config: &Path) -> String {
    let path = std::path::absolute(config).unwrap_or_else(|_| config.into());
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut folders = path.ancestors().skip(1).map(|path| path.file_name()?.to_str());
    match (folders.next().flatten(), folders.next().flatten()) {
        (Some(folder), Some("configs")) => format!("{folder}/{name}"),
        _ => name.into_owned(),
    }
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

/// Which command of `embc theory` a config is for, if any.
pub fn theory(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    table.get("theory")?.as_str().map(String::from)
}
