//! Opening a data set: its cache if that is current, else an ingest into a new one.

use crate::cache::{Cache, Meta, Source, read_meta};
use crate::error::{At, Error, Result};
use crate::ingest::{self, Progress, Watch, stamp};
use crate::input::digest;
use crate::lease::Lease;
use crate::raw::side::source_name;
use crate::raw::{self, Role};
use crate::registry::Entry;
use crate::view::{View, ViewSpec};
use embc_core::batch::{Data, Examples};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The memory that an ingest may take unless told: 2 GiB.
pub const DEFAULT_MEMORY: u64 = 2 << 30;

/// A temporary folder of an ingest that has not been touched for this long was left by a crash.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Where the cache of a data set lies.
pub fn cache_folder(entry: &Entry, data_dir: &Path) -> PathBuf {
    data_dir.join("cache").join(&entry.name)
}

/// Why a cache cannot be used, or `None` if it can. A file that was only touched gets its new time.
fn outdated(entry: &Entry, data_dir: &Path, folder: &Path, mut meta: Meta) -> Result<Outdated> {
    let fields = raw::fields(entry)?;
    if meta.definition != ingest::definition(entry, &fields) {
        return Ok(Err(Some("its files or columns are others now".into())));
    }
    let mut touched = false;
    for (name, file) in ingest::row_files(entry) {
        // Without the raw file the cache stands for itself.
        let Ok(parts) = entry.parts(file, data_dir) else { continue };
        let of_it = |source: &&mut Source| source.name == *name;
        let mut sources: Vec<&mut Source> = meta.sources.iter_mut().filter(of_it).collect();
        let listed = |path: &Path, source: &Source| *path == *source.path;
        if let Some((added, _)) = parts.iter().find(|(p, _)| !sources.iter().any(|s| listed(p, s)))
        {
            return Ok(Err(Some(format!("{} is new", added.display()))));
        }
        if let Some(gone) = sources.iter().find(|s| !parts.iter().any(|(p, _)| listed(p, s))) {
            return Ok(Err(Some(format!("{} is gone", gone.path))));
        }
        for ((_, path), source) in parts.iter().zip(&mut sources) {
            let sha256 = &source.sha256;
            if file.sha256.as_ref().is_some_and(|known| !known.eq_ignore_ascii_case(sha256)) {
                return Ok(Err(Some(format!(
                    "the registry expects another {}",
                    file.path.display()
                ))));
            }
            match is_same(path, source)? {
                true => touched |= source.touch(path)?,
                false => return Ok(Err(Some(format!("{} has changed", path.display())))),
            }
        }
    }
    for (i, side) in entry.side.iter().enumerate() {
        let Ok(path) = entry.locate(&side.file, data_dir) else { continue };
        let of_it = |source: &&mut Source| source.name == source_name(i);
        let Some(source) = meta.sources.iter_mut().find(of_it) else { continue };
        match is_same(&path, source)? {
            true => touched |= source.touch(&path)?,
            false => return Ok(Err(Some(format!("{} has changed", path.display())))),
        }
    }
    if touched {
        let path = folder.join("meta.json");
        let text = serde_json::to_string_pretty(&meta).expect("plain data");
        // Where it cannot be kept, the file is read again next time.
        let _ = crate::atomic::write(&path, |file| file.write_all(text.as_bytes()).at(&path));
    }
    Ok(Ok(meta))
}

/// True where a file is what a cache was made of, whatever its time.
fn is_same(path: &Path, source: &Source) -> Result<bool> {
    let (bytes, modified) = stamp(path)?;
    let same = || Ok(digest(path, &mut |_| Ok(()))?.sha256 == source.sha256);
    Ok(bytes == source.bytes && (modified == source.modified || same()?))
}

impl Source {
    /// Takes the time of its file; true where that is another one.
    fn touch(&mut self, path: &Path) -> Result<bool> {
        let (_, modified) = stamp(path)?;
        Ok(std::mem::replace(&mut self.modified, modified) != modified)
    }
}

/// What a cache holds; or why it cannot be used, without a reason where there is none.
type Outdated = std::result::Result<Meta, Option<String>>;

/// Makes sure that a current cache exists and returns its folder and contents' description.
pub fn ingest(
    entry: &Entry,
    data_dir: &Path,
    memory: u64,
    watch: Watch<'_>,
) -> Result<(PathBuf, Meta)> {
    let folder = cache_folder(entry, data_dir);
    if let Ok(meta) = current(entry, data_dir, &folder)? {
        return Ok((folder, meta));
    }
    let parent = folder.parent().expect("a folder in the data dir");
    std::fs::create_dir_all(parent).at(parent)?;
    let lock = lock(&parent.join(format!(".lock-{}", entry.name)), watch)?;
    // Another process may have built it while this one waited.
    match current(entry, data_dir, &folder)? {
        Ok(meta) => return Ok((folder, meta)),
        Err(Some(why)) => tracing::warn!("building the cache of {} anew: {why}", entry.name),
        Err(None) => {}
    }
    let prefix = format!(".building-{}-", entry.name);
    remove_stale(parent, &prefix);
    let temporary = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).at(parent)?;
    let meta = ingest::build(entry, data_dir, temporary.path(), memory, watch)?;
    if !lock.is_mine() {
        let what = "another embc has taken over building it; run the same command again";
        return Err(Error::file(&folder, what));
    }
    let before = read_meta(&folder).ok();
    put_in(&folder, &temporary.keep(), &prefix)?;
    for change in before.iter().flat_map(|before| changes(before, &meta)) {
        tracing::warn!("{}: {change}", entry.name);
    }
    Ok((folder, meta))
}

/// What is other in a cache than in the one before, in words.
fn changes(before: &Meta, after: &Meta) -> Vec<String> {
    let mut all = Vec::new();
    let mut changed = |what: &str, from: u64, to: u64| {
        if from != to {
            all.push(format!("{what}: {from} before, {to} now"));
        }
    };
    changed("files", before.sources.len() as u64, after.sources.len() as u64);
    changed("rows", before.rows, after.rows);
    for column in &after.columns {
        if let Some(old) = before.columns.iter().find(|old| old.name == column.name) {
            let what = format!("distinct values of {}", column.name);
            changed(&what, old.distinct.into(), column.distinct.into());
        }
    }
    let missing = |of: &Meta, from: &Meta| {
        let known = |name: &String| of.columns.iter().any(|column| column.name == *name);
        let names = from.columns.iter().map(|column| column.name.clone());
        names.filter(|name| !known(name)).collect::<Vec<_>>().join(", ")
    };
    for (what, names) in [("new", missing(before, after)), ("gone", missing(after, before))] {
        if !names.is_empty() {
            all.push(format!("columns that are {what}: {names}"));
        }
    }
    if all.is_empty() && before.data_hash == after.data_hash {
        all.push("the values are the same as before".into());
    }
    all
}

/// Puts a cache that is built in its place.
fn put_in(folder: &Path, built: &Path, prefix: &str) -> Result<()> {
    let parent = folder.parent().expect("a folder in the data dir");
    if folder.exists() {
        let old = tempfile::Builder::new().prefix(prefix).tempdir_in(parent).at(parent)?;
        std::fs::rename(folder, old.path().join("old")).at(folder)?;
    }
    std::fs::rename(built, folder).at(folder)?;
    crate::atomic::sync_folder(parent)
}

/// Puts a cache of `entry` that is built elsewhere in its place.
pub(crate) fn put(entry: &Entry, data_dir: &Path, built: &Path) -> Result<()> {
    let folder = cache_folder(entry, data_dir);
    let parent = folder.parent().expect("a folder in the data dir");
    let _lock = lock(&parent.join(format!(".lock-{}", entry.name)), &mut |_| Ok(()))?;
    put_in(&folder, built, &format!(".building-{}-", entry.name))
}

/// The contents of a cache that is whole and up to date, or why there is none; no reason where
/// there is no cache at all.
fn current(entry: &Entry, data_dir: &Path, folder: &Path) -> Result<Outdated> {
    if !folder.exists() {
        return Ok(Err(None));
    }
    Ok(match read_meta(folder) {
        Ok(meta) => outdated(entry, data_dir, folder, meta)?,
        Err(error) => Err(Some(error.to_string())),
    })
}

/// Waits until no other process builds this cache.
fn lock(path: &Path, watch: Watch<'_>) -> Result<Lease> {
    Lease::wait(path, &mut || {
        watch(Progress { phase: "waiting for another embc to build it", done: 0, total: 1 })
    })
}

fn remove_stale(parent: &Path, prefix: &str) {
    for file in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let stale = || Some(file.metadata().ok()?.modified().ok()?.elapsed().ok()? > STALE);
        if file.file_name().to_string_lossy().starts_with(prefix) && stale() == Some(true) {
            let _ = std::fs::remove_dir_all(file.path());
        }
    }
}

/// Opens a data set as an experiment and its model see it, ingesting it if need be.
pub fn open(
    entry: &Entry,
    data_dir: &Path,
    memory: u64,
    spec: ViewSpec,
    examples: Examples,
    watch: Watch<'_>,
) -> Result<View> {
    let (folder, _) = ingest(entry, data_dir, memory, watch)?;
    let fields = raw::fields(entry)?;
    View::new(Cache::open(&folder, fields)?, entry, &folder, data_dir, spec, examples)
}

/// A field's line in `embc data info`.
#[derive(Clone, Debug, Serialize)]
pub struct FieldInfo {
    /// Its name.
    pub name: String,
    /// Distinct values; a missing one counts as a value.
    pub distinct: u32,
    /// Values that occur at least twice.
    pub repeated: u32,
}

/// What `embc data info` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The key in the registry.
    pub name: String,
    /// Its full name.
    pub title: String,
    /// The raw format.
    pub format: String,
    /// Rows of all parts.
    pub rows: u64,
    /// Share of positives, sampled negatives counted; none for ratings and classes.
    pub label_rate: Option<f64>,
    /// Mean rating, where the label is one.
    pub mean_rating: Option<f64>,
    /// Number of dense features.
    pub dense: usize,
    /// Categorical and multi-valued fields.
    pub fields: Vec<FieldInfo>,
    /// Rows of each value of the columns of classes and splits.
    pub tags: BTreeMap<String, Vec<(String, u32)>>,
    /// Rows of each part of the default split.
    pub splits: Splits,
    /// Users with too few rows to hold one out, who train only.
    pub short_users: u64,
    /// Identifies the content.
    pub data_hash: String,
    /// What a generator knows about its data.
    pub facts: BTreeMap<String, f64>,
    /// What was done to values so that they could be read, and how often.
    pub notes: BTreeMap<String, u64>,
    /// What a sample of training rows knows.
    pub sample: SampleInfo,
}

/// What a uniform sample of training rows holds, in expectation: what LMA has minhashes of.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SampleInfo {
    /// Sampled rows: at most LMA's 125,000.
    pub rows: u64,
    /// Share of the values of training rows that are in a sampled one.
    pub values: f64,
    /// Share of training lookups that are of such values.
    pub lookups: f64,
}

impl SampleInfo {
    fn new(view: &View) -> Self {
        let all = view.rows(0) as u64;
        let rows = all.min(125_000);
        let share = rows as f64 / all.max(1) as f64;
        let (mut values, mut seen, mut lookups, mut of_seen) = (0.0, 0.0, 0.0, 0.0);
        let counts = view.shape().fields.iter().flat_map(|field| field.counts.iter());
        for &count in counts.filter(|count| **count > 0) {
            let count = f64::from(count);
            let sampled = 1.0 - (1.0 - share).powf(count);
            values += 1.0;
            seen += sampled;
            lookups += count;
            of_seen += sampled * count;
        }
        Self {
            rows,
            values: seen / f64::max(values, 1.0),
            lookups: of_seen / f64::max(lookups, 1.0),
        }
    }
}

/// Rows of each part.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Splits {
    pub train: usize,
    pub valid: usize,
    pub test: usize,
}

/// Describes a data set, ingesting it if need be.
pub fn info(entry: &Entry, data_dir: &Path, memory: u64, watch: Watch<'_>) -> Result<Info> {
    let (folder, meta) = ingest(entry, data_dir, memory, watch)?;
    let fields = raw::fields(entry)?;
    let infos = fields.iter().zip(&meta.columns).filter(|(f, _)| f.role.is_feature());
    let infos = infos.map(|(_, c)| FieldInfo {
        name: c.name.clone(),
        distinct: c.distinct,
        repeated: c.repeated,
    });
    let infos = infos.collect();
    let dense = fields.iter().filter(|f| f.role == Role::Dense).count();
    let is = |role: Role| fields.iter().any(|f| f.role == role);
    let (rating, class) = (is(Role::Rating), is(Role::Class));
    let mut tags = BTreeMap::new();
    for (i, field) in fields.iter().enumerate() {
        if matches!(field.role, Role::Tag | Role::Class) {
            let values: &mut Vec<(String, u32)> = tags.entry(field.name.clone()).or_default();
            Cache::vocabulary(&folder, i, &mut |value, count| values.push((value.into(), count)))?;
        }
    }
    let negatives = entry.columns.as_ref().map_or(0, |c| c.negatives);
    let cache = Cache::open(&folder, fields)?;
    // Without negatives: what they need is for an experiment to say.
    let spec = ViewSpec { negatives: Some(0), ..ViewSpec::default() };
    let view = View::new(cache, entry, &folder, data_dir, spec, Examples::Rows)?;
    if view.rows(1) == 0 {
        tracing::warn!("the split of {} leaves no validation rows", entry.name);
    }
    Ok(Info {
        name: entry.name.clone(),
        title: entry.title.clone(),
        format: entry.format.clone(),
        rows: meta.rows,
        label_rate: (!rating && !class).then_some(meta.label_mean / f64::from(1 + negatives)),
        mean_rating: rating.then_some(meta.label_mean),
        tags,
        dense,
        fields: infos,
        splits: Splits { train: view.rows(0), valid: view.rows(1), test: view.rows(2) },
        short_users: view.short_users,
        data_hash: meta.data_hash,
        facts: meta.facts,
        notes: meta.notes,
        sample: SampleInfo::new(&view),
    })
}

/// All values of a column of ids, in the order of their numbers in the cache.
pub fn values(entry: &Entry, data_dir: &Path, column: usize) -> Result<Vec<String>> {
    let mut values = Vec::new();
    let folder = cache_folder(entry, data_dir);
    Cache::vocabulary(&folder, column, &mut |value, _| values.push(value.to_string()))?;
    Ok(values)
}

/// The vocabulary of a view's field: the value of each id, `None` for the OOV id.
pub fn vocabulary(
    entry: &Entry,
    data_dir: &Path,
    view: &View,
    field: usize,
) -> Result<Vec<Option<String>>> {
    let (column, remap) = view.remap(field);
    let shape = &view.shape().fields[field];
    let mut values = vec![None; shape.vocab as usize];
    let known = view.known(field);
    let mut next = 0;
    Cache::vocabulary(&cache_folder(entry, data_dir), column, &mut |value, _| {
        let id = remap[next];
        next += 1;
        if id < known {
            values[id as usize] = Some(value.to_string());
        }
    })?;
    match next == remap.len() {
        true => Ok(values),
        false => Err(Error::Data(format!("the vocabulary of {} is not whole", shape.name))),
    }
}
