//! From raw text to a cache, in bounded memory: one pass over the text, then column after column.

use crate::cache::{self, ArrowWriter, CHUNK, ColumnMeta, Meta, Source, VERSION, Values};
use crate::error::{At, Error, Result};
use crate::input::{Digested, Hashing, Input, hex};
use crate::raw::{self, Field, Format, Role, Row};
use crate::registry::{Entry, RawFile};
use crate::vocab::{self, ValueWriter};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
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
    files.sort_by_key(|(name, _)| (place(name).unwrap_or(usize::MAX), name.as_str()));
    files
}

/// What identifies the columns of an entry.
pub fn definition(entry: &Entry, fields: &[Field]) -> String {
    let text = format!("{} {fields:?} {:?}", entry.format, entry.synth);
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
    if memory < 2 * BUFFERS {
        let what = format!("--memory must be at least {} MiB", (2 * BUFFERS) >> 20);
        return Err(Error::Data(what));
    }
    let format = raw::find(&entry.format)?;
    let fields = format.fields(entry)?;
    let mut columns = Columns::create(&fields, folder)?;
    let (sources, facts) = read_all(entry, format, data_dir, &mut columns, watch)?;
    let (rows, label_sum) = (columns.rows, columns.label_sum);
    if rows == 0 {
        let path = sources.first().map_or(folder.into(), |(path, _)| path.clone());
        return Err(Error::file(&path, "holds no rows"));
    }
    let sources: Vec<Source> = sources.into_iter().map(|(_, source)| source).collect();
    let share = (memory - BUFFERS) / rayon::current_num_threads() as u64;
    watch(Progress { phase: "encoding", done: 0, total: 1 })?;
    let (numbers, coded) = columns.finish(folder, share)?;
    watch(Progress { phase: "writing", done: 0, total: rows })?;
    write_rows(&fields, folder, rows, &numbers, &coded, watch)?;
    let definition = definition(entry, &fields);
    let mut content = Sha256::new();
    content.update(format!("{VERSION} {definition}"));
    sources.iter().for_each(|source| content.update(format!(" {}", source.sha256)));
    let of = |i: usize, field: &Field| {
        let (distinct, repeated) = coded.get(&i).map_or((0, 0), |c| (c.distinct, c.repeated));
        ColumnMeta { name: field.name.clone(), distinct, repeated }
    };
    let mut files = BTreeMap::new();
    for file in std::fs::read_dir(folder).at(folder)? {
        let file = file.at(folder)?;
        let name = file.file_name().to_string_lossy().into_owned();
        if name.ends_with(".arrow") {
            File::open(file.path()).and_then(|f| f.sync_all()).at(&file.path())?;
            files.insert(name, file.metadata().at(&file.path())?.len());
        } else {
            std::fs::remove_file(file.path()).at(&file.path())?;
        }
    }
    let meta = Meta {
        version: VERSION,
        definition,
        sources,
        data_hash: hex(&content.finalize())[..16].into(),
        rows,
        label_mean: label_sum / rows as f64,
        columns: fields.iter().enumerate().map(|(i, field)| of(i, field)).collect(),
        files,
        facts,
    };
    let path = folder.join("meta.json");
    let mut file = File::create(&path).at(&path)?;
    let text = serde_json::to_string_pretty(&meta).expect("plain data");
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at(&path)?;
    Ok(meta)
}

type Read_ = (Vec<(PathBuf, Source)>, BTreeMap<String, f64>);

/// Streams all raw files, or the generator, into the columns.
fn read_all(
    entry: &Entry,
    format: &dyn Format,
    data_dir: &Path,
    columns: &mut Columns,
    watch: Watch<'_>,
) -> Result<Read_> {
    if let Some(synth) = &entry.synth {
        let facts = synth.generate(&mut |row| columns.push(row, 0), watch)?;
        let sha256 = hex(&Sha256::digest(format!("{synth:?}")));
        let source = Source { name: "synth".into(), bytes: 0, modified: 0, sha256 };
        return Ok((vec![(PathBuf::from(&entry.name), source)], facts));
    }
    let located: Vec<(&String, &RawFile, PathBuf)> = row_files(entry)
        .into_iter()
        .map(|(name, file)| Ok((name, file, entry.locate(file, data_dir)?)))
        .collect::<Result<_>>()?;
    let mut total = 0;
    for (_, file, path) in &located {
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
    for (index, (name, file, path)) in located.into_iter().enumerate() {
        let (bytes, modified) = stamp(&path)?;
        if bytes == 0 {
            return Err(Error::file(&path, "the file is empty; get it again"));
        }
        let mut progress = |done| watch(Progress { phase: "reading", done: before + done, total });
        let mut hashing = Hashing::open(&path, &mut progress)?;
        let read = format.read(entry, Input::new(&path, &mut hashing)?, &mut |row| {
            columns.push(row, index as u8)
        });
        let digested = match read {
            Ok(()) => hashing.finish(&path)?,
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            // A damaged file is better told by its digest than by the line it breaks on.
            Err(error) => {
                let known = file.sha256.is_some();
                drop(hashing);
                if known {
                    verify(&path, file, &crate::input::digest(&path, &mut |_| Ok(()))?)?;
                }
                return Err(error);
            }
        };
        verify(&path, file, &digested)?;
        before += bytes;
        let source = Source { name: name.clone(), bytes, modified, sha256: digested.sha256 };
        sources.push((path, source));
    }
    Ok((sources, BTreeMap::new()))
}

/// A column of fixed-width numbers on disk.
struct Numbers {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Numbers {
    fn create(path: PathBuf) -> Result<Self> {
        let file = BufWriter::with_capacity(1 << 16, File::create(&path).at(&path)?);
        Ok(Self { path, file })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).at(&self.path)
    }
}

/// All columns while the text is read.
struct Columns {
    fields: Vec<Field>,
    /// Numbers of a field, or values a row of a multi-valued one; and the file of each row, last.
    numbers: BTreeMap<usize, Numbers>,
    values: BTreeMap<usize, ValueWriter>,
    rows: u64,
    label_sum: f64,
}

impl Columns {
    fn create(fields: &[Field], folder: &Path) -> Result<Self> {
        let (mut numbers, mut values) = (BTreeMap::new(), BTreeMap::new());
        for (i, field) in fields.iter().enumerate() {
            if field.role.is_coded() {
                values.insert(i, ValueWriter::create(folder.join(format!("{i}.values")))?);
            }
            if !field.role.is_coded() || matches!(field.role, Role::Multi(_)) {
                numbers.insert(i, Numbers::create(folder.join(format!("{i}.numbers")))?);
            }
        }
        numbers.insert(fields.len(), Numbers::create(folder.join("file.numbers"))?);
        Ok(Self { fields: fields.to_vec(), numbers, values, rows: 0, label_sum: 0.0 })
    }

    fn push(&mut self, row: &Row, file: u8) -> Result<()> {
        if self.rows == u64::from(u32::MAX) {
            return Err(Error::Data("more than 2^32 rows in one data set".into()));
        }
        self.rows += 1;
        self.label_sum += f64::from(row.label);
        let mut dense = row.dense.iter();
        let mut column = 0;
        for (i, field) in self.fields.iter().enumerate() {
            let mut number = |bytes: &[u8]| self.numbers.get_mut(&i).expect("made").push(bytes);
            match field.role {
                Role::Label | Role::Rating => number(&row.label.to_le_bytes())?,
                Role::Time => number(&row.time.to_le_bytes())?,
                Role::Dense => {
                    number(&dense.next().copied().unwrap_or(f32::NAN).to_le_bytes())?;
                }
                _ => {
                    let writer = self.values.get_mut(&i).expect("made");
                    let mut length = 0u32;
                    for value in row.values(column) {
                        writer.push(value)?;
                        length += 1;
                    }
                    column += 1;
                    if matches!(field.role, Role::Multi(_)) {
                        number(&length.to_le_bytes())?;
                    }
                }
            }
        }
        self.numbers.get_mut(&self.fields.len()).expect("made").push(&[file])
    }

    /// Ends the text pass and encodes all coded columns, within `memory` bytes a thread.
    fn finish(self, folder: &Path, memory: u64) -> Result<Encoded> {
        let mut numbers = BTreeMap::new();
        for (i, mut column) in self.numbers {
            column.file.flush().at(&column.path)?;
            numbers.insert(i, column.path);
        }
        let columns: Vec<_> = self.values.into_iter().collect();
        let encode = |(i, writer): (usize, ValueWriter)| {
            let path = folder.join(cache::vocab_name(i));
            let mut vocab = VocabWriter::new(&path);
            let coded = vocab::encode(&writer.finish()?, memory, &mut |v, n| vocab.push(v, n))?;
            vocab.finish()?;
            Ok((i, coded))
        };
        let coded = columns.into_par_iter().with_max_len(1).map(encode).collect::<Result<_>>()?;
        Ok((numbers, coded))
    }
}

type Encoded = (BTreeMap<usize, PathBuf>, BTreeMap<usize, vocab::Coded>);

/// Writes a vocabulary: value and count, in the order of ids.
struct VocabWriter<'a> {
    writer: ArrowWriter<'a>,
    values: Vec<String>,
    counts: Vec<u32>,
}

impl<'a> VocabWriter<'a> {
    fn new(path: &'a Path) -> Self {
        Self { writer: ArrowWriter::new(path), values: Vec::new(), counts: Vec::new() }
    }

    fn push(&mut self, value: &[u8], count: u32) -> Result<()> {
        self.values.push(String::from_utf8_lossy(value).into_owned());
        self.counts.push(count);
        if self.values.len() == CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let counts = Values::Ids { ids: &self.counts, distinct: u32::MAX };
        self.writer.write(&[("value", Values::Text(&self.values)), ("count", counts)])?;
        self.values.clear();
        self.counts.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if !self.values.is_empty() {
            self.flush()?;
        }
        self.writer.finish()
    }
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

/// Joins the columns into `data.arrow` and the flat ids of multi-valued ones.
fn write_rows(
    fields: &[Field],
    folder: &Path,
    rows: u64,
    numbers: &BTreeMap<usize, PathBuf>,
    coded: &BTreeMap<usize, vocab::Coded>,
    watch: Watch<'_>,
) -> Result<()> {
    let data = folder.join("data.arrow");
    let mut writer = ArrowWriter::new(&data);
    let names: Vec<String> = (0..fields.len()).map(|i| i.to_string()).collect();
    let mut streams = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let flat = matches!(field.role, Role::Multi(_));
        let path = if field.role.is_coded() && !flat { &coded[&i].ids } else { &numbers[&i] };
        streams.push(Stream::open(path)?);
        if flat {
            write_flat(folder, i, &coded[&i])?;
        }
    }
    let mut file = Stream::open(&numbers[&fields.len()])?;
    enum Chunk {
        F32(Vec<f32>),
        I64(Vec<i64>),
        Ids(Vec<u32>, u32),
    }
    for first in (0..rows).step_by(CHUNK) {
        watch(Progress { phase: "writing", done: first, total: rows })?;
        let n = (rows - first).min(CHUNK as u64) as usize;
        let mut chunks = Vec::new();
        for (i, (field, stream)) in fields.iter().zip(&mut streams).enumerate() {
            chunks.push(match field.role {
                Role::Label | Role::Rating | Role::Dense => {
                    Chunk::F32(stream.next(n, f32::from_le_bytes)?)
                }
                Role::Time => Chunk::I64(stream.next(n, i64::from_le_bytes)?),
                Role::Multi(_) => Chunk::Ids(stream.next(n, u32::from_le_bytes)?, u32::MAX),
                _ => Chunk::Ids(stream.next(n, u32::from_le_bytes)?, coded[&i].distinct),
            });
        }
        let files: Vec<u32> = file.next(n, u8::from_le_bytes)?.into_iter().map(u32::from).collect();
        let mut columns: Vec<(&str, Values<'_>)> = names
            .iter()
            .zip(&chunks)
            .map(|(name, chunk)| {
                let values = match chunk {
                    Chunk::F32(x) => Values::F32(x),
                    Chunk::I64(x) => Values::I64(x),
                    Chunk::Ids(ids, distinct) => Values::Ids { ids, distinct: *distinct },
                };
                (name.as_str(), values)
            })
            .collect();
        columns.push(("file", Values::Ids { ids: &files, distinct: 1 }));
        writer.write(&columns)?;
    }
    writer.finish()
}

fn write_flat(folder: &Path, column: usize, coded: &vocab::Coded) -> Result<()> {
    let path = folder.join(cache::flat_name(column));
    let mut writer = ArrowWriter::new(&path);
    let mut left = std::fs::metadata(&coded.ids).at(&coded.ids)?.len() as usize / 4;
    let mut stream = Stream::open(&coded.ids)?;
    while left > 0 {
        let n = left.min(CHUNK);
        let ids = stream.next(n, u32::from_le_bytes)?;
        writer.write(&[("id", Values::Ids { ids: &ids, distinct: coded.distinct })])?;
        left -= n;
    }
    writer.finish()
}
