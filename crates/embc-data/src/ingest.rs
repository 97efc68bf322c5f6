//! From raw text to a cache, in bounded memory. The text is read on one thread, in blocks of columns
//! that others encode; then ids become ranks, and the columns are joined.

use crate::block::Block;
use crate::cache::{self, ArrowWriter, CHUNK, ColumnMeta, Meta, Source, VERSION, Values};
use crate::columns::{ColumnWriter, Measured, Rows, Tally, finish, moment};
use crate::error::{At, Error, Result};
use crate::input::{Digested, Hashing, Input, hex};
use crate::raw::side::Attributes;
use crate::raw::{self, Field, Format, Role, Takes};
use crate::registry::{Entry, RawFile};
use crate::synth::Synth;
use crate::vocab::{self, Allowance};
use rayon::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::UNIX_EPOCH;

/// Memory for file buffers and record batches; the rest is for vocabularies.
const BUFFERS: u64 = 64 << 20;

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
    let files: Vec<_> = row_files(entry).iter().map(|(name, file)| (*name, &file.path)).collect();
    let roles: Vec<_> = fields.iter().map(|field| (&field.name, field.role.name())).collect();
    let mut text = json!([entry.format, entry.columns, synth, files, roles]).to_string();
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
    for side in &entry.side {
        let (table, source) = Attributes::read(side, entry, &own, data_dir, &budget)?;
        sides.push(table);
        beside.push(source);
    }
    let meta = build.run(&budget, (&own, sides), watch, &mut |rows, watch| {
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
        if self.memory < 2 * BUFFERS {
            let what = format!("--memory must be at least {} MiB", (2 * BUFFERS) >> 20);
            return Err(Error::Data(what));
        }
        Ok(Allowance::new(self.memory - BUFFERS))
    }

    /// Encodes and joins all rows that `read` hands on: of the fields that the files hold, and what
    /// the tables beside them add.
    pub fn run(
        &self,
        budget: &Allowance,
        (own, sides): (&[Field], Vec<Attributes>),
        watch: Watch<'_>,
        read: &mut dyn FnMut(&mut Rows<'_>, Watch<'_>) -> Result<Read_>,
    ) -> Result<Meta> {
        let Self { fields, folder, .. } = self;
        let create = |(i, field)| ColumnWriter::create(i, field, folder);
        let mut columns =
            fields.iter().enumerate().map(create).collect::<Result<Vec<ColumnWriter>>>()?;
        columns.push(ColumnWriter::files(folder)?);
        // Files are read here, and their columns are encoded on other threads.
        let (send, filled) = sync_channel::<Block>(1);
        let mut rows = Rows::new(own, sides, send, budget);
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
fn read_all(
    entry: &Entry,
    format: &dyn Format,
    data_dir: &Path,
    rows: &mut Rows<'_>,
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

/// A stream of numbers of `N` bytes.
struct Stream {
    path: PathBuf,
    file: BufReader<File>,
    buffer: Vec<u8>,
}

impl Stream {
    fn open(path: &Path) -> Result<Self> {
        let file = BufReader::with_capacity(1 << 16, File::open(path).at(path)?);
        Ok(Self { path: path.into(), file, buffer: Vec::new() })
    }

    fn next<const N: usize, T>(&mut self, n: usize, parse: fn([u8; N]) -> T) -> Result<Vec<T>> {
        self.buffer.resize(n * N, 0);
        self.file.read_exact(&mut self.buffer).at(&self.path)?;
        let (words, _) = self.buffer.as_chunks::<N>();
        Ok(words.iter().map(|word| parse(*word)).collect())
    }
}

/// Joins the columns into `data.arrow` and the flat ids of multi-valued ones. Returns the SHA-256 of
/// all values, by column: what identifies the content of a data set, whatever file it came in.
fn write_rows(
    fields: &[Field],
    folder: &Path,
    (rows, files): (u64, u32),
    numbers: &BTreeMap<usize, (PathBuf, Measured)>,
    coded: &BTreeMap<usize, (vocab::Coded, Vec<u8>)>,
    watch: Watch<'_>,
) -> Result<String> {
    let data = folder.join("data.arrow");
    let mut writer = ArrowWriter::new(&data);
    let names = (0..fields.len()).map(|i| i.to_string()).chain(["file".into()]);
    let names: Vec<String> = names.collect();
    let (mut streams, mut sums) = (Vec::new(), Vec::new());
    for (i, field) in fields.iter().enumerate() {
        let mut sum = Sha256::new();
        sum.update(coded.get(&i).map_or(&[][..], |(_, values)| values));
        sum.update(numbers.get(&i).map_or(Ok(1), |(_, m)| m.scale())?.to_le_bytes());
        let flat = matches!(field.role, Role::Multi(_));
        let path = if field.role.is_coded() && !flat { &coded[&i].0.ids } else { &numbers[&i].0 };
        streams.push(Stream::open(path)?);
        if flat {
            write_flat(folder, i, &coded[&i].0, &mut sum)?;
        }
        sums.push(sum);
    }
    let mut file = Stream::open(&numbers[&fields.len()].0)?;
    let mut read = |first: u64| {
        let n = rows.saturating_sub(first).min(CHUNK as u64) as usize;
        let read = |(i, (field, stream)): (usize, (&Field, &mut Stream))| {
            Ok(match field.role {
                Role::Label | Role::Rating | Role::Weight | Role::Dense => {
                    let wide = stream.next(n, f64::from_le_bytes)?;
                    match numbers[&i].1.wide {
                        true => Chunk::F64(wide),
                        false => Chunk::F32(wide.into_iter().map(|x| x as f32).collect()),
                    }
                }
                Role::Time => {
                    let scale = numbers[&i].1.scale()?;
                    let times = stream.next(n, |bytes| moment(&bytes))?.into_iter();
                    let fine =
                        |(whole, part)| whole * scale + i64::from(part) * scale / 1_000_000_000;
                    Chunk::I64(times.map(fine).collect())
                }
                Role::Multi(_) => Chunk::Ids(stream.next(n, u32::from_le_bytes)?, u32::MAX),
                _ => {
                    let (coded, _) = &coded[&i];
                    let mut ids = stream.next(n, u32::from_le_bytes)?;
                    coded.to_ranks(&mut ids);
                    Chunk::Ids(ids, coded.distinct)
                }
            })
        };
        let chunks = fields.par_iter().zip(&mut streams).enumerate().map(read);
        let mut chunks = chunks.collect::<Result<Vec<Chunk>>>()?;
        let of_file = file.next(n, u16::from_le_bytes)?.into_iter().map(u32::from);
        chunks.push(Chunk::Ids(of_file.collect(), files));
        Ok(chunks)
    };
    let mut write = |chunks: &[Chunk]| {
        sums.par_iter_mut().zip(chunks).for_each(|(sum, chunk)| chunk.add_to(sum));
        let values = chunks.iter().map(|chunk| match chunk {
            Chunk::F32(x) => Values::F32(x),
            Chunk::F64(x) => Values::F64(x),
            Chunk::I64(x) => Values::I64(x),
            Chunk::Ids(ids, distinct) => Values::Ids { ids, distinct: *distinct },
        });
        let columns: Vec<(&str, Values<'_>)> =
            names.iter().map(String::as_str).zip(values).collect();
        writer.write(&columns)
    };
    // The next rows are read while these are written.
    let mut chunks = read(0)?;
    for first in (0..rows).step_by(CHUNK) {
        watch(Progress { phase: "writing", done: first, total: rows })?;
        let (written, next) = rayon::join(|| write(&chunks), || read(first + CHUNK as u64));
        written?;
        chunks = next?;
    }
    writer.finish()?;
    let mut all = Sha256::new();
    sums.into_iter().for_each(|sum| all.update(sum.finalize()));
    Ok(hex(&all.finalize())[..16].into())
}

/// Values of a column.
enum Chunk {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    Ids(Vec<u32>, u32),
}

impl Chunk {
    /// Adds the values to a digest, numbers as of double precision.
    fn add_to(&self, sum: &mut Sha256) {
        let bytes: Vec<u8> = match self {
            Chunk::F32(x) => x.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
            Chunk::F64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Chunk::I64(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Chunk::Ids(x, _) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        sum.update(&bytes);
    }
}

fn write_flat(folder: &Path, column: usize, coded: &vocab::Coded, sum: &mut Sha256) -> Result<()> {
    let path = folder.join(cache::flat_name(column));
    let mut writer = ArrowWriter::new(&path);
    let mut left = std::fs::metadata(&coded.ids).at(&coded.ids)?.len() as usize / 4;
    let mut stream = Stream::open(&coded.ids)?;
    while left > 0 {
        let n = left.min(CHUNK);
        let mut ids = stream.next(n, u32::from_le_bytes)?;
        coded.to_ranks(&mut ids);
        Chunk::Ids(ids.clone(), 0).add_to(sum);
        writer.write(&[("id", Values::Ids { ids: &ids, distinct: coded.distinct })])?;
        left -= n;
    }
    writer.finish()
}
