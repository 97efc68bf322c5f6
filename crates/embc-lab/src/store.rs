//! Records on disk: one JSON object a line in `results/<experiment>.jsonl`, appended locked and synced.

use crate::record::{Record, VERSION};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The one key that all versions of records have.
#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The records of one experiment on disk.
pub struct Results {
    path: PathBuf,
}

impl Results {
    /// `results/<experiment>.jsonl`; the folder is made if need be.
    pub fn open(folder: &Path, experiment: &str) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("{}: cannot be made; choose another folder with --results", folder.display())
        })?;
        Ok(Self { path: folder.join(format!("{experiment}.jsonl")) })
    }

    /// All records, oldest first. A torn last line is dropped with a warning; any other damage is
    /// an error that names the line.
    pub fn read(&self) -> Result<Vec<Record>> {
        let (records, place) = self.read_from(Place::default())?;
        if place.torn {
            tracing::warn!(
                "{}:{}: the last line is torn and was dropped",
                self.path.display(),
                place.lines + 1
            );
        }
        Ok(records)
    }

    /// The records after a place, and the place after them.
    pub fn read_from(&self, mut place: Place) -> Result<(Vec<Record>, Place)> {
        let mut text = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(place.offset))?;
            file.read_to_end(&mut text)
        });
        match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Vec::new(), place));
            }
            read => read.with_context(|| self.path.display().to_string())?,
        };
        let mut records = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            place.torn = !line.ends_with(b"\n");
            if place.torn {
                break;
            }
            let at = format!("{}:{}", self.path.display(), place.lines + 1);
            let version: Version = serde_json::from_slice(line)
                .with_context(|| format!("{at}: not a record; remove the line"))?;
            match version.v {
                1 | VERSION => records.push(
                    serde_json::from_slice(line)
                        .with_context(|| format!("{at}: not a record; remove the line"))?,
                ),
                other => {
                    tracing::warn!(
                        "{at}: a record of format version {other} was skipped; this embc reads versions 1 and {VERSION}"
                    );
                }
            }
            place.offset += line.len() as u64;
            place.lines += 1;
        }
        Ok((records, place))
    }

    /// Appends a record: locked, synced, and after cutting off a torn tail.
    pub fn append(&self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&self.path)?;
            file.lock()?;
            let end = whole_lines(&mut file)?;
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            file.write_all(line.as_bytes())?;
            file.sync_all()
        };
        write().with_context(|| {
            format!(
                "{}: the record cannot be written; choose another folder with --results",
                self.path.display()
            )
        })
    }
}

/// How far a file of records was read.
#[derive(Clone, Copy, Default)]
pub struct Place {
    offset: u64,
    lines: usize,
    /// What follows is no whole line.
    torn: bool,
}

/// The records of an experiment, those that other processes add included.
pub struct Book {
    results: Results,
    place: Place,
    /// The newest record of each trial.
    records: BTreeMap<String, Record>,
    /// Trials recorded since it was opened.
    fresh: BTreeSet<String>,
}

impl Book {
    /// Reads all that is there.
    pub fn open(results: Results) -> Result<Self> {
        results.read()?;
        let (fresh, records, place) = Default::default();
        let mut book = Self { results, place, records, fresh };
        book.refresh()?;
        book.fresh.clear();
        Ok(book)
    }

    /// Reads what was added.
    pub fn refresh(&mut self) -> Result<()> {
        let (records, place) = self.results.read_from(self.place)?;
        self.place = place;
        self.fresh.extend(records.iter().map(|record| record.trial.clone()));
        self.records.extend(records.into_iter().map(|record| (record.trial.clone(), record)));
        Ok(())
    }

    /// Adds a record.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        self.results.append(record)?;
        self.refresh()
    }

    /// The newest record of each trial in the other experiments of the folder. A file that cannot be
    /// read is that experiment's trouble.
    pub fn elsewhere(&self, experiment: &str) -> BTreeMap<String, Record> {
        let folder = self.results.path.parent().unwrap_or(Path::new("."));
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.path()).collect();
        paths.sort();
        let other = |path: &&PathBuf| {
            path.extension().is_some_and(|e| e == "jsonl")
                && path.file_stem().is_some_and(|stem| stem != experiment)
        };
        let mut all: BTreeMap<String, Record> = BTreeMap::new();
        for path in paths.iter().filter(other) {
            let results = Results { path: path.clone() };
            let records = results.read_from(Place::default()).map_or(Vec::new(), |(r, _)| r);
            all.extend(
                records.into_iter().filter(|r| r.spec.is_some()).map(|r| (r.trial.clone(), r)),
            );
        }
        all
    }

    /// A trial's record.
    pub fn get(&self, trial: &str) -> Option<&Record> {
        self.records.get(trial)
    }

    /// Whether it was recorded since this was opened.
    pub fn is_fresh(&self, trial: &str) -> bool {
        self.fresh.contains(trial)
    }

    /// The newest record of each trial.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The same, to keep.
    pub fn into_records(self) -> Vec<Record> {
        self.records.into_values().collect()
    }
}

/// The length of a file up to its last newline.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut byte = [0];
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            break;
        }
        end -= 1;
    }
    Ok(end)
}
