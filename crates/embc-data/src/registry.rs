//! `datasets.toml`: what data sets there are, where their files lie, how they are split.

use crate::error::{At, Error, Result};
use crate::split::SplitRule;
use crate::synth::Synth;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod own;

pub use own::{Columns, Decimal, Encoding, Multi, OnError, Quote, Side, Weights};

/// Formats of tables of one's own, which `columns` describes.
pub const OWN: &[&str] = &["csv", "parquet", "arrow", "jsonl", "libsvm", "libffm"];

/// The project's own registry, compiled in.
const BUILT_IN: &str = include_str!("../datasets.toml");

/// A downloadable archive.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Where it is.
    pub url: String,
    /// Its size.
    pub bytes: Option<u64>,
    /// Its SHA-256, in hex.
    pub sha256: Option<String>,
}

/// A raw file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    /// Relative to the data dir or to the registry's folder: a file, a folder of parts, or a pattern
    /// such as `clicks/*.parquet`.
    pub path: PathBuf,
    /// Its size.
    pub bytes: Option<u64>,
    /// Its SHA-256, in hex.
    pub sha256: Option<String>,
}

/// A data set of a registry.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its full name.
    pub title: String,
    /// The raw format: `csv`, `parquet`, `arrow`, `jsonl`, `libsvm` or `libffm`, which `columns`
    /// describes, `synth`, which `synth` describes, or a public data set's own, such as `criteo`.
    pub format: String,
    /// Who may use it.
    #[serde(default)]
    pub licence: String,
    /// Where it comes from.
    #[serde(default)]
    pub homepage: String,
    /// What to mind.
    #[serde(default)]
    pub note: String,
    /// What `fetch` downloads and unpacks.
    pub archive: Option<Archive>,
    /// The raw files.
    #[serde(default)]
    pub files: BTreeMap<String, RawFile>,
    /// The default split.
    pub split: Option<SplitRule>,
    /// Further splits, by a name that `[data] split` may give.
    #[serde(default)]
    pub splits: BTreeMap<String, SplitRule>,
    /// Columns of a table of one's own: `format = "csv"`, `"parquet"`, `"arrow"`, `"jsonl"`,
    /// `"libsvm"` or `"libffm"`.
    pub columns: Option<Columns>,
    /// Tables of attributes of users or items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub side: Vec<Side>,
    /// What `format = "synth"` generates.
    pub synth: Option<Synth>,
    /// The key in the registry.
    #[serde(skip)]
    pub name: String,
    /// The folder of the registry file.
    #[serde(skip)]
    pub folder: PathBuf,
}

impl Entry {
    /// Where a raw file is: in the data dir, else beside the registry. An error says how to get it.
    pub fn locate(&self, file: &RawFile, data_dir: &Path) -> Result<PathBuf> {
        let places = [data_dir.join(&file.path), self.folder.join(&file.path)];
        if let Some(found) = places.iter().find(|path| path.exists() || matches_any(path)) {
            return Ok(found.clone());
        }
        let how = match &self.archive {
            Some(_) => format!("run `embc data fetch {}`", self.name),
            None if self.homepage.is_empty() => "put it there".into(),
            None => format!("download it from {} and put it there", self.homepage),
        };
        Err(Error::file(&places[0], format!("data set {} is not here; {how}", self.name)))
    }

    /// The files of rows that a raw file stands for, each with its path as the registry would name
    /// it: itself, the parts in a folder, or what fits a pattern, in the order of their numbers.
    pub fn parts(&self, file: &RawFile, data_dir: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
        let found = self.locate(file, data_dir)?;
        if found.is_file() {
            return Ok(vec![(file.path.clone(), found)]);
        }
        if file.sha256.is_some() || file.bytes.is_some() {
            return Err(Error::file(&found, "bytes and sha256 are of one file: remove them"));
        }
        let mut parts = Vec::new();
        if found.is_dir() {
            add_parts(&found, &mut parts)?;
        } else {
            let matched = pattern(&found).into_iter().flatten().flatten();
            matched.filter(|path| path.is_file()).for_each(|path| parts.push(path));
        }
        if parts.is_empty() {
            return Err(Error::file(&found, "is a folder without a file"));
        }
        // What Spark writes for a part without rows.
        let one = parts.len() == 1;
        parts.retain(|path| one || path.metadata().is_ok_and(|file| file.len() > 0));
        parts.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
        // Named as the registry would, from the last folder that is no pattern.
        let plain = |path: &&Path| !path.to_string_lossy().contains(['*', '?', '[']);
        let of_file: Vec<&Path> = file.path.ancestors().collect();
        let mut bases = found.ancestors().zip(of_file);
        let (base, of_file) = bases.find(|(base, _)| plain(base)).unwrap_or((&found, &file.path));
        let named = |path: PathBuf| match path.strip_prefix(base) {
            Ok(inside) => (of_file.join(inside), path),
            Err(_) => (path.clone(), path),
        };
        Ok(parts.into_iter().map(named).collect())
    }

    /// The split called `name`, or the default one.
    pub fn split_rule(&self, name: Option<&str>) -> Result<SplitRule> {
        match name {
            Some(name) => self.splits.get(name).cloned().ok_or_else(|| {
                let known: Vec<&str> = self.splits.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                Error::Data(format!("data set {} has no split {name:?}; it names {known}", self.name))
            }),
            None => self.split.clone().ok_or_else(|| {
                Error::Data(format!(
                    "data set {} names no split; set one with [data] split = {{ rule = \"random\", valid = 0.1, test = 0.1 }}",
                    self.name
                ))
            }),
        }
    }

    /// Names of the columns that its splits read.
    pub fn split_columns(&self) -> Vec<String> {
        let mut names: Vec<String> = (self.split.iter().chain(self.splits.values()))
            .filter_map(|rule| rule.column().map(String::from))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

fn pattern(path: &Path) -> Option<glob::Paths> {
    let text = path.to_str().filter(|text| text.contains(['*', '?', '[']))?;
    glob::glob(text).ok()
}

fn matches_any(path: &Path) -> bool {
    pattern(path).is_some_and(|mut paths| paths.next().is_some())
}

/// The files in a folder and those below, but for hidden ones and what Spark leaves, `_SUCCESS`.
fn add_parts(folder: &Path, parts: &mut Vec<PathBuf>) -> Result<()> {
    for file in std::fs::read_dir(folder).at(folder)? {
        let path = file.at(folder)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match () {
            () if name.starts_with(['.', '_']) => {}
            () if path.is_dir() => add_parts(&path, parts)?,
            () => parts.push(path),
        }
    }
    Ok(())
}

/// A key that sorts names as people do: day_2 before day_10.
pub(crate) fn natural(name: &str) -> Vec<(String, u128, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, after) = rest.split_at(digits);
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(end);
        // Equal numbers such as 1 and 01 in the order of their text.
        parts.push((text.to_string(), number.parse().unwrap_or(u128::MAX), number.to_string()));
        rest = after;
    }
    parts
}

/// All registries together.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
}

impl Registry {
    /// The built-in registry and `files`, in order; a later one wins.
    pub fn load(files: &[PathBuf]) -> Result<Self> {
        let mut registry = Self::default();
        registry.add(BUILT_IN, Path::new("datasets.toml"))?;
        for file in files {
            let text = std::fs::read_to_string(file).at(file)?;
            registry.add(&text, file)?;
        }
        Ok(registry)
    }

    fn add(&mut self, text: &str, file: &Path) -> Result<()> {
        let parsed: BTreeMap<String, Entry> = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            Error::line(file, line as u64, error.message())
        })?;
        for (name, mut entry) in parsed {
            if entry.files.is_empty() && entry.synth.is_none() {
                let what = format!("data set {name} needs [files], or synth = {{ … }}");
                return Err(Error::file(file, what));
            }
            let unread = [
                ("columns", entry.columns.is_some(), OWN),
                ("synth", entry.synth.is_some(), &["synth"][..]),
            ];
            for (key, given, formats) in unread {
                if given && !formats.contains(&&entry.format[..]) {
                    let what = format!(
                        "data set {name}: {key} is read with format = {}, and this one is {:?}",
                        formats.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(" or "),
                        entry.format
                    );
                    return Err(Error::file(file, what));
                }
            }
            let side = entry.side.iter().find(|side| !OWN[..4].contains(&&side.format[..]));
            if let Some(side) = side {
                let what = format!(
                    "data set {name}: side.format = {:?} is none of {}",
                    side.format,
                    OWN[..4].join(", ")
                );
                return Err(Error::file(file, what));
            }
            if entry.synth.is_some() && !entry.files.is_empty() {
                let what =
                    format!("data set {name}: synth generates its rows, and reads no [files]");
                return Err(Error::file(file, what));
            }
            let mut splits = entry.split.iter().chain(entry.splits.values());
            if splits.any(|split| split.clone().open_seed().is_some()) {
                let what = format!(
                    "data set {name}: a random split needs a seed, which makes it the same for all; one without belongs to [data] of an experiment"
                );
                return Err(Error::file(file, what));
            }
            entry.name = name.clone();
            entry.folder = file.parent().unwrap_or(Path::new("")).into();
            self.entries.insert(name, entry);
        }
        Ok(())
    }

    /// All data sets, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The data set called `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_sort_as_people_count() {
        let mut names = ["day_10", "day_2", "day_1", "a", "day_02", "b2c10", "b2c9"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["a", "b2c9", "b2c10", "day_1", "day_02", "day_2", "day_10"]);
    }
}
