//! From raw text to a cache, in bounded memory. The text is read on one thread, in blocks of columns
//! that others encode; then ids become ranks, and the columns are joined.

use crate::block::Block;
use crate::cache::{ColumnMeta, Meta, Source, VERSION};
use crate::columns::{ColumnWriter, Rows, Tally, finish};
use crate::error::{At, Error, Result};
use crate::input::{Digested, Hashing, Input, hex};
use crate::raw::side::Attributes;
use crate::raw::{self, Field, Format, Role, Takes};
use crate::registry::{Columns, Entry, RawFile};
use crate::synth::Synth;
use crate::vocab::Allowance;
use rayon::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::UNIX_EPOCH;

mod join;

use join::write_rows;

/// Memory for file buffers and record batches; the rest is for vocabularies.
const BUFFERS: u64 = 64 << 20;

/// The least memory that an ingest takes.
pub(crate) const LEAST: u64 = 2 * BUFFERS;

/// How far an ingest is; the callback may stop it.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What is being done.
    pub phase: &'static str,
    /// Done so far.
    pub done: u64,
    /// All there is to do.
    pub total: u64,
}

/// Hears how far a long piece of work is, and may stop it with [`Error::Cancelled`].
pub type Watch<'a> = &'a mut dyn FnMut(Progress) -> Result<()>;

/// The raw files that hold rows, in order: train, valid, test first, then by name. A leave-one-out
/// test (`loo_…`) is not rows.
pub fn row_files(entry: &Entry) -> Vec<(&String, &RawFile)> {
    let place = |name: &str| ["train", "valid", "test"].iter().position(|n| *n == name);
    let mut files: Vec<_> =
        entry.files.iter().filter(|(name, _)| !name.starts_with("loo_")).collect();
    files.sort_by_key(|(name, _)| {
        (place(name).unwrap_or(usize::MAX), crate::registry::natural(name))
    });
    files
}

/// A file of rows.
pub struct RowFile<'a> {
    /// Its name in `[files]`, and what that says of it.
    pub name: &'a String,
    /// The same.
    pub file: &'a RawFile,
    /// Its path as the registry would name it.
    pub named: String,
    /// Where it is.
    pub path: PathBuf,
}

/// All files of rows, in order, those of folders and patterns too.
pub fn row_parts<'a>(entry: &'a Entry, data_dir: &Path) -> Result<Vec<RowFile<'a>>> {
    let mut all = Vec::new();
    for (name, file) in row_files(entry) {
        let parts = entry.parts(file, data_dir)?.into_iter();
        let part = |(named, path): (PathBuf, PathBuf)| RowFile {
            name,
            file,
            named: named.display().to_string(),
            path,
        };
        all.extend(parts.map(part));
    }
    Ok(all)
}

/// What a cache of an entry is of: which files, read how, into which columns.
pub fn definition(entry: &Entry, fields: &[Field]) -> String {
    let synth = entry.synth.as_ref().map(Synth::identity);
    let files = row_files(entry);
    let files: Vec<_> =
        files.iter().map(|(name, f)| (*name, f.path.display().to_string())).collect();
    // Who users and items are is no part of what is read.
    let columns = entry.columns.clone().map(|c| Columns { user: None, item: None, ..c });
    let roles: Vec<_> = fields.iter().map(|field| (&field.name, field.role.name())).collect();
    let mut text = json!([entry.format, columns, synth, files, roles]).to_string();
    if !entry.side.is_empty() {
        text += &json!(entry.side).to_string();
    }
    hex(&Sha256::digest(text.as_bytes()))[..16].into()
}

/// Size and time of modification of a file.
pub fn stamp(path: &Path) -> Result<(u64, u64)> {
    let meta = std::fs::metadata(path).at(path)?;
    let modified = meta.modified().at(path)?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((meta.len(), modified.as_nanos() as u64))
}

/// Refuses a file whose size or digest is not the registry's.
pub fn verify(path: &Path, expected: &RawFile, got: &Digested) -> Result<()> {
    match &expected.sha256 {
        Some(sha256) if !sha256.eq_ignore_ascii_case(&got.sha256) => {
            let what = format!(
                "sha256 is {}, the registry says {sha256}; get the file again, or correct the registry if the file is right",
                got.sha256
            );
            Err(Error::file(path, what))
        }
        _ => Ok(()),
    }
}

/// Builds the cache of `entry` in `folder`, which must be empty. `memory` bounds the vocabularies.
pub fn build(
    entry: &Entry,
    data_dir: &Path,
    folder: &Path,
    memory: u64,
    watch: Watch<'_>,
) -> Result<Meta> {
    let format = raw::find(&entry.format)?;
    let (own, fields) = (format.fields(entry)?, raw::fields(entry)?);
    let build = Build { name: &entry.name, fields: &fields, folder, memory };
    let budget = build.budget()?;
    let (mut sides, mut beside) = (Vec::new(), Vec::new());
    for (i, side) in entry.side.iter().enumerate() {
        let (table, source) = Attributes::read((i, side), entry, &own, data_dir, &budget)?;
        sides.push(table);
        beside.push(source);
    }
    // Set aside before vocabularies take what there is.
    let reading = if format.in_pieces() { budget.left() / 3 } else { 0 };
    budget.take(reading);
    let meta = build.run(&budget, reading, (&own, sides), watch, &mut |rows, watch| {
        let (mut sources, facts) = read_all(entry, format, data_dir, rows, watch)?;
        sources.append(&mut beside);
        Ok((sources, facts))
    })?;
    build.finish(Meta { definition: definition(entry, &fields), ..meta })
}

/// A cache that is built.
pub(crate) struct Build<'a> {
    pub name: &'a str,
    pub fields: &'a [Field],
    /// Where to, an empty folder.
    pub folder: &'a Path,
    /// Bytes that vocabularies and buffers may take.
    pub memory: u64,
}

impl Build<'_> {
    /// What vocabularies may take.
    pub fn budget(&self) -> Result<Allowance> {
        if self.memory < LEAST {
            let what = format!("--memory must be at least {} MiB", LEAST >> 20);
            return Err(Error::Data(what));
        }
        Ok(Allowance::new(self.memory - BUFFERS))
    }

    /// Encodes and joins all rows that `read` hands on: of the fields that the files hold, and what
    /// the tables beside them add.
    pub fn run(
        &self,
        budget: &Allowance,
        reading: u64,
        (own, sides): (&[Field], Vec<Attributes>),
        watch: Watch<'_>,
        read: &mut dyn FnMut(&mut Rows, Watch<'_>) -> Result<Read_>,
    ) -> Result<Meta> {
        let Self { fields, folder, .. } = self;
        let create = |(i, field)| ColumnWriter::create(i, field, folder);
        let mut columns =
            fields.iter().enumerate().map(create).collect::<Result<Vec<ColumnWriter>>>()?;
        columns.push(ColumnWriter::files(folder)?);
        // Files are read here, and their columns are encoded on other threads.
        let (send, filled) = sync_channel::<Block>(1);
        let mut rows = Rows::new(own, sides, send, reading);
        let (sources, facts, tally) = std::thread::scope(|scope| {
            let encode = || {
                for block in filled {
                    let parts = columns.par_iter_mut().zip(&block.columns).with_max_len(1);
                    parts.try_for_each(|(column, part)| column.take(part, budget))?;
                }
                Ok::<(), Error>(())
            };
            let encoding = scope.spawn(encode);
            let read = read(&mut rows, watch);
            let read = read.and_then(|(sources, facts)| Ok((sources, facts, rows.finish(own)?)));
            // Where encoding failed, its error says why nothing more could be sent.
            encoding.join().expect("columns do not panic")?;
            read
        })?;
        self.check(&sources, &tally)?;
        let share = (self.memory - BUFFERS) / rayon::current_num_threads() as u64;
        watch(Progress { phase: "encoding", done: 0, total: 1 })?;
        let (numbers, coded) = finish(columns, folder, share)?;
        watch(Progress { phase: "writing", done: 0, total: tally.rows })?;
        let files = sources.len() as u32;
        let data_hash = write_rows(fields, folder, (tally.rows, files), &numbers, &coded, watch)?;
        let measured = fields.iter().enumerate().filter(|(_, field)| field.role == Role::Time);
        let scale = measured.map(|(i, _)| numbers[&i].1.scale()).next().transpose()?.unwrap_or(1);
        let of = |(i, field): (usize, &Field)| {
            let counts = coded.get(&i).map_or((0, 0), |(c, _)| (c.distinct, c.repeated));
            ColumnMeta { name: field.name.clone(), distinct: counts.0, repeated: counts.1 }
        };
        Ok(Meta {
            version: VERSION,
            definition: String::new(),
            data_hash,
            sources: sources.into_iter().map(|(_, source)| source).collect(),
            time_scale: scale,
            dates: tally.dates,
            rows: tally.rows,
            label_mean: tally.label_sum / tally.rows as f64,
            columns: fields.iter().enumerate().map(of).collect(),
            files: BTreeMap::new(),
            facts,
            notes: self.notes(own, tally),
        })
    }

    /// Refuses a data set without rows, and says what was left out.
    fn check(&self, sources: &[(PathBuf, Source)], tally: &Tally) -> Result<()> {
        let skipped = tally.skipped.as_ref();
        if tally.rows == 0 {
            let path = sources.first().map_or(self.folder, |(path, _)| path);
            let why = skipped.map_or(String::new(), |(n, why)| {
                format!(": on_error = \"skip\" left out all {n}, the first for {why}")
            });
            return Err(Error::file(path, format!("holds no rows{why}")));
        }
        if let Some((n, why)) = skipped {
            tracing::warn!("{}: {n} rows are left out; the first: {why}", self.name);
        }
        for (what, n) in &tally.unmatched {
            tracing::warn!("{}: {n} {what}; its columns are missing there", self.name);
        }
        Ok(())
    }

    fn notes(&self, own: &[Field], tally: Tally) -> BTreeMap<String, u64> {
        let notes = tally.notes.into_iter().map(|((i, note), n)| (note.text(&own[i].name), n));
        let skipped = tally.skipped.into_iter();
        let skipped = skipped.map(|(n, why)| (format!("rows left out, the first for {why}"), n));
        notes.chain(skipped).chain(tally.unmatched).collect()
    }

    /// Syncs the files, removes what was for building, and writes what the cache is.
    pub fn finish(&self, mut meta: Meta) -> Result<Meta> {
        let folder = self.folder;
        for file in std::fs::read_dir(folder).at(folder)? {
            let file = file.at(folder)?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name.ends_with(".arrow") {
                File::open(file.path()).and_then(|f| f.sync_all()).at(&file.path())?;
                meta.files.insert(name, file.metadata().at(&file.path())?.len());
            } else {
                std::fs::remove_file(file.path()).at(&file.path())?;
            }
        }
        let path = folder.join("meta.json");
        let mut file = File::create(&path).at(&path)?;
        let text = serde_json::to_string_pretty(&meta).expect("plain data");
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at(&path)?;
        Ok(meta)
    }
}

pub(crate) type Read_ = (Vec<(PathBuf, Source)>, BTreeMap<String, f64>);

/// Streams all raw files, or the generator, into the columns.
pub(crate) fn read_all(
    entry: &Entry,
    format: &dyn Format,
    data_dir: &Path,
    rows: &mut Rows,
    watch: Watch<'_>,
) -> Result<Read_> {
    if let Some(synth) = &entry.synth {
        let facts = synth.generate(&mut |row| rows.row(row), watch)?;
        let sha256 = hex(&Sha256::digest(synth.identity()));
        let (name, path) = ("synth".into(), String::new());
        let source = Source { name, path, bytes: 0, modified: 0, sha256 };
        return Ok((vec![(PathBuf::from(&entry.name), source)], facts));
    }
    let files = row_parts(entry, data_dir)?;
    if files.len() > usize::from(u16::MAX) {
        let (name, n) = (&entry.name, files.len());
        return Err(Error::Data(format!(
            "data set {name} has {n} files of rows; embc reads 65,535"
        )));
    }
    let mut total = 0;
    for RowFile { file, path, .. } in &files {
        let (bytes, _) = stamp(path)?;
        if let Some(expected) = file.bytes
            && expected != bytes
        {
            let what = format!("{bytes} bytes, the registry says {expected}; get the file again");
            return Err(Error::file(path, what));
        }
        total += bytes;
    }
    let (mut sources, mut before) = (Vec::new(), 0);
    for (index, RowFile { name, named, file, path }) in files.into_iter().enumerate() {
        let mut progress = |done| watch(Progress { phase: "reading", done: before + done, total });
        rows.file = index as u16;
        let read = &mut |input: Input<'_>| format.read(entry, input, rows);
        let source = read_file((name, &named), (file, &path), &mut progress, read)?;
        before += source.bytes;
        sources.push((path, source));
    }
    Ok((sources, BTreeMap::new()))
}

/// Reads one file, called so here and there, and says what it was.
pub(crate) fn read_file(
    (name, named): (&str, &str),
    (file, path): (&RawFile, &Path),
    progress: &mut dyn FnMut(u64) -> Result<()>,
    read: &mut dyn FnMut(Input<'_>) -> Result<()>,
) -> Result<Source> {
    let (bytes, modified) = stamp(path)?;
    if bytes == 0 {
        return Err(Error::file(path, "the file is empty; get it again"));
    }
    let mut hashing = Hashing::open(path, progress)?;
    let digested = match read(Input::new(path, &mut hashing)) {
        Ok(()) => hashing.finish(path)?,
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        // A damaged file is better told by its digest than by the line it breaks on.
        Err(error) => {
            drop(hashing);
            if file.sha256.is_some() {
                verify(path, file, &crate::input::digest(path, &mut |_| Ok(()))?)?;
            }
            return Err(error);
        }
    };
    verify(path, file, &digested)?;
    if stamp(path)? != (bytes, modified) {
        return Err(Error::file(path, "changed while it was read; run it again"));
    }
    let (name, named) = (name.into(), named.into());
    Ok(Source { name, path: named, bytes, modified, sha256: digested.sha256 })
}
