//! Records on disk: each a file `results/EXPERIMENT.d/TRIAL.json`, and many folded into
//! `results/EXPERIMENT.jsonl`, a line each, sorted by trial. What is long in these, curves above all,
//! then lies in `results/EXPERIMENT.details.jsonl.gz`.
//!
//! A record is written aside, synced and renamed, so that any number of machines may do it at once; two
//! of one trial are the same numbers, and the later one stays. Who reads looks at the files first and
//! at the JSONL after them: what is folded in between is found there.

use crate::record::{Details, Record, VERSION};
use anyhow::{Context, Result};
use embc_core::cancel::Cancel;
use embc_data::lease::Lease;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Name of the lease of who folds.
const FOLD: &str = ".fold";
/// Names of files on their way out begin so.
const ASIDE: &str = ".folded-";

/// What all versions of records have.
#[derive(Deserialize)]
struct Head {
    v: u32,
    #[serde(default)]
    trial: String,
}

fn read_head(line: &[u8]) -> serde_json::Result<Head> {
    serde_json::from_slice(line)
}

impl Head {
    fn is_known(&self) -> bool {
        (1..=VERSION).contains(&self.v)
    }
}

/// The records of one experiment on disk.
pub struct Results {
    root: PathBuf,
    folded: PathBuf,
    details: PathBuf,
    files: PathBuf,
}

/// Tells a file from one that was written later.
type Stamp = (u64, SystemTime);

/// What a file holds; none where there is no such file.
fn bytes_of(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => Ok(Some(read.with_context(|| path.display().to_string())?)),
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = path.metadata().ok()?;
    Some((file.len(), file.modified().ok()?))
}

/// The experiments that have records in a folder, or in a folder in it: FOLDER/NAME.
pub fn experiments(folder: &Path) -> std::io::Result<Vec<String>> {
    let files = |folder: &Path| -> std::io::Result<Vec<PathBuf>> {
        Ok(std::fs::read_dir(folder)?.flatten().map(|file| file.path()).collect())
    };
    let mut all = files(folder)?;
    let hidden = |path: &Path| path.file_name().is_some_and(|n| n.as_encoded_bytes()[0] == b'.');
    let folders = all.iter().filter(|p| p.is_dir() && p.extension().is_none() && !hidden(p));
    let within: Vec<PathBuf> = folders.filter_map(|path| files(path).ok()).flatten().collect();
    all.extend(within);
    let name = |path: PathBuf| {
        let kind = path.extension()?.to_str()?;
        let is_one = matches!((kind, path.is_dir()), ("jsonl", false) | ("d", true));
        let place = path.strip_prefix(folder).ok()?.with_extension("");
        let parts: Option<Vec<&str>> = place.iter().map(|part| part.to_str()).collect();
        is_one.then(|| parts.map(|parts| parts.join("/")))?
    };
    Ok(all.into_iter().filter_map(name).collect::<BTreeSet<_>>().into_iter().collect())
}

impl Results {
    /// Those of an experiment, NAME or FOLDER/NAME, in a folder, which is made if need be.
    pub fn open(folder: &Path, experiment: &str) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("{}: cannot be made; choose another folder with --results", folder.display())
        })?;
        Ok(Self::at(folder, experiment))
    }

    /// The same where the folder may be missing.
    pub fn at(folder: &Path, experiment: &str) -> Self {
        let path = |kind: &str| folder.join(format!("{experiment}.{kind}"));
        let root = folder.into();
        Self { root, folded: path("jsonl"), details: path("details.jsonl.gz"), files: path("d") }
    }

    /// Whether there are any.
    pub fn exist(&self) -> bool {
        self.folded.is_file() || self.files.is_dir()
    }

    fn file(&self, trial: &str) -> PathBuf {
        self.files.join(format!("{trial}.json"))
    }

    /// The trials that have a file.
    fn trials(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(&self.files).into_iter().flatten().flatten();
        let trial = |name: std::ffi::OsString| {
            name.to_str()?.strip_suffix(".json").filter(|t| !t.starts_with('.')).map(String::from)
        };
        files.filter_map(|file| trial(file.file_name())).collect()
    }

    /// Writes a record: aside, synced, renamed.
    pub fn publish(&self, record: &Record) -> Result<()> {
        let (path, line) = (self.file(&record.trial), serde_json::to_string(record)? + "\n");
        let write = || {
            embc_data::atomic::write(&path, |file| {
                file.write_all(line.as_bytes()).map_err(|e| embc_data::Error::io(&path, &e))
            })
        };
        let what = "the record cannot be written; choose another folder with --results";
        // Who folds takes the empty folder away, and what it takes for left behind.
        write().or_else(|_| write()).or_else(|_| write()).context(what)
    }

    /// The whole lines of the JSONL, each with its number. A torn last one is dropped with a warning.
    fn lines(&self) -> Result<Vec<(usize, Vec<u8>)>> {
        let text = bytes_of(&self.folded)?.unwrap_or_default();
        let mut lines: Vec<Vec<u8>> =
            text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if lines.pop_if(|line| !line.ends_with(b"\n")).is_some() {
            let (path, line) = (self.folded.display(), lines.len() + 1);
            tracing::warn!("{path}:{line}: the last line is torn and was dropped");
        }
        Ok((1..).zip(lines).collect())
    }

    /// The details of folded records by trial, a line each.
    fn details(&self) -> Result<BTreeMap<String, String>> {
        let Some(bytes) = bytes_of(&self.details)? else { return Ok(BTreeMap::new()) };
        let lines = BufReader::new(MultiGzDecoder::new(&bytes[..])).lines();
        let read = |line: std::io::Result<String>| -> Result<_> {
            let line = line?;
            Ok((read_head(line.as_bytes())?.trial, line))
        };
        let wrong = || format!("{}: damaged; take it from a backup", self.details.display());
        lines.map(read).collect::<Result<_>>().with_context(wrong)
    }

    /// Those of a line.
    fn parsed(&self, line: Option<&String>) -> Result<Option<Details>> {
        let wrong = || format!("{}: damaged; take it from a backup", self.details.display());
        line.map(|line| serde_json::from_str(line)).transpose().with_context(wrong)
    }

    /// Writes details beside those that are there, as long as it is this process that folds.
    fn add_details(&self, new: BTreeMap<String, String>, lease: &Lease) -> Result<()> {
        let io = |error: std::io::Error| embc_data::Error::io(&self.details, &error);
        let mut all = self.details()?;
        all.extend(new);
        Ok(embc_data::atomic::write(&self.details, |file| {
            let mut gz = GzEncoder::new(file, Compression::best());
            for line in all.values() {
                writeln!(gz, "{line}").map_err(io)?;
            }
            gz.finish().map_err(io)?;
            self.still_mine(lease)
        })?)
    }

    /// Refuses to publish what another process has folded by now.
    fn still_mine(&self, lease: &Lease) -> embc_data::Result<()> {
        let lost = || embc_data::Error::file(&self.folded, "another process folds it by now");
        if lease.is_mine() { Ok(()) } else { Err(lost()) }
    }

    /// Folds files of records into the JSONL; how many. None where another process does, which is heard
    /// of at least once a term.
    pub fn fold(&self, term: Duration) -> Result<Option<usize>> {
        if !self.files.is_dir() {
            return Ok(Some(0));
        }
        let (path, none) = (self.files.join(FOLD), Cancel::default());
        let mut lease = Lease::take(&path, term, &none)?;
        if lease.is_none() && Lease::is_deserted(&path, &none)? && self.files.is_dir() {
            lease = Lease::take(&path, term, &none)?;
        }
        let Some(lease) = lease else { return Ok(None) };
        self.sweep_up(term);
        let left = [&self.folded, &self.details].map(|path| embc_data::atomic::left_of(path));
        left.iter().flatten().for_each(|path| drop(std::fs::remove_file(path)));
        let (mut new, mut details, kept) = (BTreeMap::new(), BTreeMap::new(), self.details()?);
        for trial in self.trials() {
            let Some(line) = bytes_of(&self.file(&trial))? else { continue };
            // What is torn stays: its trial runs again. So does what a later embc wrote.
            if read_head(&line).is_ok_and(|head| head.is_known() && head.trial == trial)
                && let Ok(mut record) = serde_json::from_slice::<Record>(&line)
                && (!record.lacks_details() || kept.contains_key(&trial))
            {
                if !record.lacks_details() {
                    let line = serde_json::to_string(&record.take_details())?;
                    details.insert(trial.clone(), line);
                }
                new.insert(trial, (line, serde_json::to_string(&record)?));
            }
        }
        if !new.is_empty() {
            // Before the records that need them.
            self.add_details(details, &lease)?;
            let text = self.merged(&new)?;
            embc_data::atomic::write(&self.folded, |file| {
                file.write_all(&text).map_err(|e| embc_data::Error::io(&self.folded, &e))?;
                self.still_mine(&lease)
            })?;
            for (trial, (line, _)) in new.iter().take_while(|_| lease.is_mine()) {
                self.remove(trial, line)?;
            }
        }
        drop(lease);
        // Where it is empty.
        let _ = std::fs::remove_dir(&self.files);
        Ok(Some(new.len()))
    }

    /// Puts back what was on its way out when its process was killed, and removes what others were
    /// writing when they were, a term ago.
    fn sweep_up(&self, term: Duration) {
        let time = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
        let now = time(&self.files.join(FOLD));
        for file in std::fs::read_dir(&self.files).into_iter().flatten().flatten() {
            let (path, name) = (file.path(), file.file_name().to_string_lossy().into_owned());
            let age = || now?.duration_since(time(&path)?).ok();
            if let Some(trial) = name.strip_prefix(ASIDE) {
                if !self.file(trial).exists() {
                    let _ = std::fs::rename(&path, self.file(trial));
                }
                let _ = std::fs::remove_file(&path);
            } else if name != FOLD && name.starts_with('.') && age().is_some_and(|age| age > term) {
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// The JSONL with new records in place of those of the same trials; lines of other versions stay.
    fn merged(&self, new: &BTreeMap<String, (Vec<u8>, String)>) -> Result<Vec<u8>> {
        let (mut text, mut all) = (Vec::new(), BTreeMap::new());
        for (number, line) in self.lines()? {
            let head = read_head(&line).with_context(|| {
                format!("{}:{number}: not a record; remove the line", self.folded.display())
            })?;
            match head.is_known() {
                true => drop(all.insert(head.trial, line)),
                false => text.extend(line),
            }
        }
        let new = new.iter().map(|(trial, (_, line))| (trial.clone(), line.clone().into_bytes()));
        all.extend(new);
        for line in all.values() {
            text.extend(line.trim_ascii_end());
            text.push(b'\n');
        }
        Ok(text)
    }

    /// Removes a file that is folded, unless it was written again meanwhile.
    fn remove(&self, trial: &str, line: &[u8]) -> Result<()> {
        let (path, aside) = (self.file(trial), self.files.join(format!("{ASIDE}{trial}")));
        std::fs::rename(&path, &aside).with_context(|| path.display().to_string())?;
        // Unless there is a third by now.
        if bytes_of(&aside)?.is_some_and(|now| now != line) && !path.exists() {
            return std::fs::rename(&aside, &path).with_context(|| path.display().to_string());
        }
        let _ = std::fs::remove_file(&aside);
        Ok(())
    }
}

/// The records of an experiment, those that other processes add included.
pub struct Book {
    results: Results,
    /// The newest record of each trial, and a hash of when it was made.
    records: BTreeMap<String, (u64, Record)>,
    /// The files that were read, and whether each is a record; and the JSONL as it was.
    files: BTreeMap<String, (Stamp, bool)>,
    folded: Option<Stamp>,
    /// Trials recorded since it was opened.
    fresh: BTreeSet<String>,
}

impl Book {
    /// Reads all that is there.
    pub fn open(results: Results) -> Result<Self> {
        let (records, files, fresh) = Default::default();
        let mut book = Self { results, records, files, folded: None, fresh };
        book.refresh()?;
        book.fresh.clear();
        Ok(book)
    }

    /// Reads what was added.
    pub fn refresh(&mut self) -> Result<()> {
        let trials = self.results.trials();
        self.files.retain(|trial, _| trials.contains(trial));
        for trial in &trials {
            self.refresh_file(trial)?;
        }
        self.refresh_folded()
    }

    /// Reads what was added of one trial.
    pub fn refresh_one(&mut self, trial: &str) -> Result<()> {
        self.refresh_file(trial)?;
        self.refresh_folded()
    }

    fn refresh_file(&mut self, trial: &str) -> Result<()> {
        let path = self.results.file(trial);
        let Some(stamp) = stamp(&path) else {
            if self.files.remove(trial).is_some() {
                // It is folded.
                self.folded = None;
            }
            return Ok(());
        };
        if self.files.get(trial).is_some_and(|(known, _)| *known == stamp) {
            return Ok(());
        }
        let Some(line) = bytes_of(&path)? else { return Ok(()) };
        let at = path.display().to_string();
        let read = || -> Option<Record> {
            let record: Record = serde_json::from_slice(&line).ok()?;
            match record.lacks_details() {
                false => Some(record),
                true => {
                    let details = self.results.details().ok()?;
                    record.whole(self.results.parsed(details.get(trial)).ok()?)
                }
            }
        };
        let record = match read_head(&line) {
            Ok(head) if !head.is_known() => {
                skipped(&at, head.v);
                None
            }
            _ => read().or_else(|| {
                // The machine went down before it was whole.
                tracing::warn!("{at}: not a whole record; its trial runs again");
                None
            }),
        };
        self.files.insert(trial.into(), (stamp, record.is_some()));
        if let Some(record) = record {
            self.add(record);
        }
        Ok(())
    }

    fn refresh_folded(&mut self) -> Result<()> {
        let stamp = stamp(&self.results.folded);
        if stamp == self.folded {
            return Ok(());
        }
        let path = self.results.folded.display().to_string();
        // Who folds writes details first.
        let lines = self.results.lines()?;
        let (mut newest, details) = (BTreeMap::new(), self.results.details()?);
        for (number, line) in lines {
            let at = format!("{path}:{number}");
            let wrong = || format!("{at}: not a record; remove the line");
            let head = read_head(&line).with_context(wrong)?;
            match head.is_known() {
                true => {
                    let record: Record = serde_json::from_slice(&line).with_context(wrong)?;
                    newest.insert(head.trial, (at, record));
                }
                false => skipped(&at, head.v),
            }
        }
        for (trial, (at, record)) in newest {
            let file = self.results.details.display();
            let record = record
                .whole(self.results.parsed(details.get(&trial))?)
                .with_context(|| format!("{at}: its curve is not there; copy {file} along"))?;
            if self.files.get(&trial).is_none_or(|(_, is_record)| !is_record) {
                self.add(record);
            }
        }
        self.folded = stamp;
        Ok(())
    }

    fn add(&mut self, record: Record) {
        // The same before and after it is folded.
        let mut hash = DefaultHasher::new();
        (&record.started, &record.finished, &record.evaluated.len()).hash(&mut hash);
        let hash = hash.finish();
        if self.records.get(&record.trial).is_none_or(|(known, _)| *known != hash) {
            self.fresh.insert(record.trial.clone());
            self.records.insert(record.trial.clone(), (hash, record));
        }
    }

    /// Adds a record.
    pub fn publish(&mut self, record: &Record) -> Result<()> {
        self.results.publish(record)?;
        self.refresh_one(&record.trial)
    }

    /// Folds files into the JSONL, unless another process does.
    pub fn fold(&self, term: Duration) -> Result<Option<usize>> {
        self.results.fold(term)
    }

    /// The newest record of each trial in the other experiments of the folder. What cannot be read is
    /// that experiment's trouble.
    pub fn elsewhere(&self, experiment: &str) -> BTreeMap<String, Record> {
        let folder = &self.results.root;
        let names = experiments(folder).unwrap_or_default().into_iter();
        let books = names
            .filter(|name| name != experiment)
            .filter_map(|name| Self::open(Results::at(folder, &name)).ok());
        let records = books.flat_map(Self::into_records).filter(|record| record.spec.is_some());
        records.map(|record| (record.trial.clone(), record)).collect()
    }

    /// A trial's record.
    pub fn get(&self, trial: &str) -> Option<&Record> {
        self.records.get(trial).map(|(_, record)| record)
    }

    /// Whether it was recorded since this was opened.
    pub fn is_fresh(&self, trial: &str) -> bool {
        self.fresh.contains(trial)
    }

    /// The newest record of each trial.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(|(_, record)| record)
    }

    /// The same, to keep.
    pub fn into_records(self) -> Vec<Record> {
        self.records.into_values().map(|(_, record)| record).collect()
    }
}

fn skipped(at: &str, version: u32) {
    tracing::warn!(
        "{at}: a record of format version {version} was skipped; this embc reads versions 1 to {VERSION}"
    );
}
