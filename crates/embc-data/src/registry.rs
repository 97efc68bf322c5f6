//! `datasets.toml`: what data sets there are, where their files lie, how they are split.

use crate::error::{At, Error, Result};
use crate::split::SplitRule;
use crate::synth::Synth;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Formats of tables of one's own, which `columns` describes.
pub const OWN: &[&str] = &["csv", "parquet", "arrow", "jsonl", "libsvm", "libffm"];

/// The project's own registry, compiled in.
const BUILT_IN: &str = include_str!("../../../datasets.toml");

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

/// A multi-valued column of a user's CSV file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Multi {
    /// The column's name.
    pub name: String,
    /// The character between values; spaces around it are no part of them. Lists as JSON or Python
    /// write them are read whatever it is.
    pub separator: String,
    /// What to do with values such as Comedy:0.93.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// A value that only fills rows up, and is left out; "" for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<String>,
}

/// What to do with the weights of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Leave them out.
    Drop,
    /// Take them as a part of the value.
    Keep,
}

/// How fields are quoted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quote {
    /// By double quotes.
    #[default]
    Double,
    /// Not at all: a quote is a letter like others.
    None,
}

/// How letters are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// As nearly all files have them.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// A byte each: ISO 8859-1, of Western Europe.
    #[serde(rename = "latin-1")]
    Latin1,
}

/// What stands before the fraction of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decimal {
    /// As in 3.14.
    #[default]
    #[serde(rename = ".")]
    Point,
    /// As in 3,14.
    #[serde(rename = ",")]
    Comma,
}

/// What becomes of a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It is an error, with its line.
    #[default]
    Fail,
    /// It is left out, and counted.
    Skip,
}

/// The columns of a user's own file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// `,` unless told: one character, or one twice, as in `::`.
    #[serde(default = "comma")]
    pub delimiter: String,
    /// Whether the first line names the columns; without it they are called `0`, `1`, …
    #[serde(default = "yes")]
    pub header: bool,
    /// Whether fields may be quoted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quote: Quote,
    /// What stands before a quote inside a quoted field, such as a backslash; by default another
    /// quote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escape: Option<char>,
    /// How letters are written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoding: Encoding,
    /// What stands before the fraction of a number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub decimal: Decimal,
    /// What becomes of a row that cannot be read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_error: OnError,
    /// The label's column, of 0 and 1, true and false, yes and no, or `"all-positive"`.
    pub label: String,
    /// True where the label is the name of a class.
    #[serde(default, skip_serializing_if = "is_default")]
    pub classes: bool,
    /// True where the label is a rating, which `[data] label` turns into 0 or 1.
    #[serde(default)]
    pub rating: bool,
    /// The column that says how much a row counts in training; metrics count all rows alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// The column to sort by in time: integers, decimal numbers, or dates such as 2024-01-31 12:30.
    pub time: Option<String>,
    /// Columns of numbers; empty means missing.
    #[serde(default)]
    pub dense: Vec<String>,
    /// Columns of one id.
    #[serde(default)]
    pub categorical: Vec<String>,
    /// Columns of several ids.
    #[serde(default)]
    pub multi: Vec<Multi>,
    /// Sampled negatives a positive.
    #[serde(default)]
    pub negatives: u32,
    /// Every column as text, just as it is written: what `embc init` looks at.
    #[serde(skip)]
    pub as_written: bool,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            delimiter: comma(),
            header: true,
            quote: Quote::default(),
            escape: None,
            encoding: Encoding::default(),
            decimal: Decimal::default(),
            on_error: OnError::default(),
            label: String::new(),
            classes: false,
            rating: false,
            weight: None,
            time: None,
            dense: Vec::new(),
            categorical: Vec::new(),
            multi: Vec::new(),
            negatives: 0,
            as_written: false,
        }
    }
}

/// A table of attributes beside the rows, such as items with their genres: each row gets those that
/// its key names, and they go with their user or item everywhere.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The column of the rows that holds its keys.
    pub of: String,
    /// This table's column of keys; called like that of the rows by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The table.
    pub file: RawFile,
    /// Its raw format, one of those that `columns` describes; `csv` unless told.
    #[serde(default = "csv")]
    pub format: String,
    /// `,` unless told: one character, or one twice, as in `::`.
    #[serde(default = "comma")]
    pub delimiter: String,
    /// Whether the first line names the columns; without it they are called `0`, `1`, … here, and
    /// `movies.1` everywhere else, after the file.
    #[serde(default = "yes")]
    pub header: bool,
    /// Whether fields may be quoted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quote: Quote,
    /// How letters are written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoding: Encoding,
    /// Columns of numbers; empty means missing.
    #[serde(default)]
    pub dense: Vec<String>,
    /// Columns of one id.
    #[serde(default)]
    pub categorical: Vec<String>,
    /// Columns of several ids.
    #[serde(default)]
    pub multi: Vec<Multi>,
}

fn is_default<T: Default + PartialEq>(x: &T) -> bool {
    *x == T::default()
}
fn comma() -> String {
    ",".into()
}
fn csv() -> String {
    "csv".into()
}
fn yes() -> bool {
    true
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
        parts.sort_by_cached_key(|path| natural(&path.to_string_lossy()));
        let named = |path: PathBuf| {
            let inside =
                [data_dir, &self.folder].into_iter().find_map(|base| path.strip_prefix(base).ok());
            (inside.unwrap_or(&path).to_path_buf(), path)
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
