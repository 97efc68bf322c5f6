//! Rows become columns: blocks of them while the text is read, and files in the end.

use crate::block::{Block, BlockColumn, Part};
use crate::cache::{self, ArrowWriter, CHUNK, Values};
use crate::error::{At, Error, Result};
use crate::raw::side::Attributes;
use crate::raw::{Field, Note, Role, Row, Takes};
use crate::vocab::{self, Allowance, Encoder, Finished};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

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

/// Rows of a block: columns change threads together.
const BLOCK: u64 = 1 << 14;
/// Bytes of a block with large values.
const BLOCK_BYTES: usize = 1 << 24;

/// Rows on their way into columns.
pub struct Rows {
    roles: Vec<Role>,
    send: SyncSender<Block>,
    /// Bytes for what files have in one piece.
    reading: u64,
    block: Vec<BlockColumn>,
    held: u64,
    bytes: usize,
    /// The file that is read.
    pub file: u16,
    /// Tables of attributes that each row gets its values of, and rows without any.
    sides: Vec<(Attributes, u64)>,
    tally: Tally,
}

/// What is known of rows once they are read.
#[derive(Default)]
pub struct Tally {
    /// All rows.
    pub rows: u64,
    /// Some of their times are dates.
    pub dates: bool,
    /// The sum of their labels.
    pub label_sum: f64,
    /// How often something was done to values of each field.
    pub notes: BTreeMap<(usize, Note), u64>,
    /// Rows that were left out, and why the first was.
    pub skipped: Option<(u64, String)>,
    /// Rows that no table of attributes knows, by table.
    pub unmatched: Vec<(String, u64)>,
}

impl Rows {
    /// No rows yet, of the fields that the files hold; full blocks are sent.
    pub fn new(
        fields: &[Field],
        sides: Vec<Attributes>,
        send: SyncSender<Block>,
        reading: u64,
    ) -> Self {
        let roles: Vec<Role> = fields.iter().map(|field| field.role).collect();
        let block = vec![BlockColumn::default(); roles.len() + 1];
        Self {
            roles,
            send,
            reading,
            block,
            held: 0,
            bytes: 0,
            file: 0,
            sides: sides.into_iter().map(|side| (side, 0)).collect(),
            tally: Tally::default(),
        }
    }

    /// After the last row.
    pub fn finish(mut self, fields: &[Field]) -> Result<Tally> {
        self.flush()?;
        let missing = self.sides.iter().filter(|(_, missing)| *missing > 0);
        self.tally.unmatched = missing.map(|(side, n)| (side.missing(fields), *n)).collect();
        Ok(self.tally)
    }

    /// Hands what is held to the columns.
    fn flush(&mut self) -> Result<()> {
        let block = vec![BlockColumn::default(); self.block.len()];
        let rows = std::mem::take(&mut self.held) as usize;
        self.bytes = 0;
        let mut columns = std::mem::replace(&mut self.block, block);
        let files = columns.pop().expect("the files");
        self.send(rows, columns, files)
    }

    /// Hands columns on, with what the tables of attributes add to them.
    fn send(
        &mut self,
        rows: usize,
        mut columns: Vec<BlockColumn>,
        files: BlockColumn,
    ) -> Result<()> {
        for (side, missing) in &mut self.sides {
            let (more, without) = side.join(rows, &columns);
            columns.extend(more);
            *missing += without;
        }
        columns.push(files);
        self.send.send(Block { columns }).map_err(|_| Error::Cancelled)
    }

    fn count(&mut self, rows: usize) -> Result<()> {
        self.tally.rows += rows as u64;
        if self.tally.rows > u64::from(u32::MAX) {
            return Err(Error::Data("more than 2^32 rows in one data set".into()));
        }
        Ok(())
    }
}

impl Takes for Rows {
    fn row(&mut self, row: &Row) -> Result<()> {
        self.count(1)?;
        self.tally.label_sum += row.label;
        self.tally.dates |= row.dated;
        for &note in &row.notes {
            *self.tally.notes.entry(note).or_default() += 1;
        }
        let mut dense = row.dense.iter();
        let mut column = 0;
        for (&role, part) in self.roles.iter().zip(&mut self.block) {
            let number = match role {
                Role::Dense | Role::Weight => dense.next().copied().unwrap_or(f64::NAN),
                _ => f64::NAN,
            };
            part.push(role, row, number, column);
            column += usize::from(role.is_coded());
        }
        self.bytes += row.text.len() + 8 * self.roles.len();
        self.block.last_mut().expect("the files").numbers.extend(self.file.to_le_bytes());
        self.held += 1;
        if self.held == BLOCK || self.bytes > BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn part(&mut self, part: Part) -> Result<()> {
        if self.held > 0 {
            self.flush()?;
        }
        self.count(part.rows)?;
        self.tally.dates |= part.dated;
        for (note, n) in part.notes {
            *self.tally.notes.entry(note).or_default() += n;
        }
        let is_label = |role: &Role| matches!(role, Role::Label | Role::Rating);
        self.tally.label_sum += match self.roles.iter().position(is_label) {
            Some(label) => {
                let (numbers, _) = part.columns[label].numbers.as_chunks::<8>();
                numbers.iter().map(|number| f64::from_le_bytes(*number)).sum()
            }
            None => part.rows as f64,
        };
        let files = BlockColumn::of_numbers(self.file.to_le_bytes().repeat(part.rows));
        self.send(part.rows, part.columns, files)
    }

    fn skip(&mut self, why: &Error, rows: u64) -> Result<()> {
        self.tally.skipped.get_or_insert_with(|| (0, why.to_string())).0 += rows;
        Ok(())
    }

    fn room(&self) -> u64 {
        self.reading
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.reading {
            return Err(Error::Data(format!(
                "the file has {} MiB in one piece, for which --memory is too small: raise it, or write the file in smaller row groups",
                bytes >> 20
            )));
        }
        Ok(())
    }
}

/// How much room the numbers of a column need to lose nothing.
#[derive(Clone, Copy, Default)]
pub struct Measured {
    /// A number is not the same in single precision.
    pub wide: bool,
    /// A time has a fraction.
    pub fractions: bool,
    /// The largest time, without its sign.
    pub largest: u64,
}

impl Measured {
    fn take(&mut self, role: Option<Role>, bytes: &[u8]) {
        match role {
            Some(Role::Label | Role::Rating | Role::Weight | Role::Dense) => {
                let (numbers, _) = bytes.as_chunks::<8>();
                self.wide |= numbers.iter().any(|bytes| {
                    let x = f64::from_le_bytes(*bytes);
                    f64::from(x as f32) != x && !x.is_nan()
                });
            }
            Some(Role::Time) => {
                let (times, _) = bytes.as_chunks::<12>();
                for (whole, fraction) in times.iter().map(moment) {
                    self.fractions |= fraction > 0;
                    self.largest = self.largest.max(whole.unsigned_abs());
                }
            }
            _ => {}
        }
    }

    /// Units of the times in the cache for one of the file's: fine enough for their fractions.
    pub fn scale(self) -> Result<i64> {
        let fits =
            |scale: &i64| self.largest.checked_mul(*scale as u64).is_some_and(|n| n < 1 << 62);
        let scales: &[i64] = if self.fractions { &[1_000_000_000, 1_000_000] } else { &[1] };
        scales
            .iter()
            .copied()
            .find(fits)
            .ok_or_else(|| Error::Data(format!("a time of {} is out of range", self.largest)))
    }
}

/// A time as it lies on disk until the columns are joined.
pub fn moment(bytes: &[u8; 12]) -> (i64, u32) {
    let (whole, fraction) = bytes.split_at(8);
    let whole = i64::from_le_bytes(whole.try_into().expect("eight bytes"));
    (whole, u32::from_le_bytes(fraction.try_into().expect("four bytes")))
}

/// A column while the text is read.
pub struct ColumnWriter {
    role: Option<Role>,
    measured: Measured,
    numbers: Option<Numbers>,
    values: Option<Encoder>,
}

impl ColumnWriter {
    /// Which file each row came from.
    pub fn files(folder: &Path) -> Result<Self> {
        let numbers = Numbers::create(folder.join("file.numbers"))?;
        let (role, measured) = (None, Measured::default());
        Ok(Self { role, measured, numbers: Some(numbers), values: None })
    }

    /// The `i`th column, of a field, with its files in `folder`.
    pub fn create(i: usize, field: &Field, folder: &Path) -> Result<Self> {
        let (mut numbers, mut values) = (None, None);
        if field.role.is_coded() {
            values = Some(Encoder::create(folder.join(i.to_string()))?);
        }
        if !field.role.is_coded() || matches!(field.role, Role::Multi(_)) {
            numbers = Some(Numbers::create(folder.join(format!("{i}.numbers")))?);
        }
        Ok(Self { role: Some(field.role), measured: Measured::default(), numbers, values })
    }

    /// Adds the values of a block.
    pub fn take(&mut self, part: &BlockColumn, budget: &Allowance) -> Result<()> {
        if let Some(numbers) = &mut self.numbers {
            numbers.push(&part.numbers)?;
            self.measured.take(self.role, &part.numbers);
        }
        if let Some(values) = &mut self.values {
            match &part.codes {
                Some(codes) => values.push_coded(part.values(), codes, budget)?,
                None => values.push(part.values(), budget)?,
            }
        }
        Ok(())
    }
}

/// Ends the text pass; gives the values that dictionaries did not know their ids, within `memory`
/// bytes a thread.
pub fn finish(columns: Vec<ColumnWriter>, folder: &Path, memory: u64) -> Result<Encoded> {
    let (mut numbers, mut values) = (BTreeMap::new(), Vec::new());
    for (i, column) in columns.into_iter().enumerate() {
        let measured = column.measured;
        if let Some(mut column) = column.numbers {
            column.file.flush().at(&column.path)?;
            numbers.insert(i, (column.path, measured));
        }
        values.extend(column.values.map(|encoder| (i, encoder)));
    }
    let vocab = |i: usize| folder.join(cache::vocab_name(i));
    let end = |(i, encoder): (usize, Encoder)| {
        let path = vocab(i);
        let mut vocab = VocabWriter::new(&path);
        let finished = encoder.finish(&mut |v, n| vocab.push(v, n))?;
        let digest = match finished {
            Finished::Whole(_) => vocab.finish()?,
            Finished::Rest(_) => Vec::new(),
        };
        Ok((i, finished, digest))
    };
    let finished = values.into_par_iter().with_max_len(1).map(end).collect::<Result<Vec<_>>>()?;
    let encode = |(i, finished, digest): (usize, Finished, Vec<u8>)| {
        let rest = match finished {
            Finished::Whole(coded) => return Ok((i, (coded, digest))),
            Finished::Rest(rest) => rest,
        };
        let path = vocab(i);
        let mut vocab = VocabWriter::new(&path);
        let coded = rest.encode(memory, &mut |v, n| vocab.push(v, n))?;
        let digest = vocab.finish()?;
        Ok((i, (coded, digest)))
    };
    let coded = finished.into_par_iter().with_max_len(1).map(encode).collect::<Result<_>>()?;
    Ok((numbers, coded))
}

/// Files of numbers, and coded columns with the digests of their vocabularies, by field.
pub type Encoded = (BTreeMap<usize, (PathBuf, Measured)>, BTreeMap<usize, (vocab::Coded, Vec<u8>)>);

/// Writes a vocabulary: value and count, in the order of ids.
struct VocabWriter<'a> {
    writer: ArrowWriter<'a>,
    values: Vec<String>,
    counts: Vec<u32>,
    sha256: Sha256,
}

impl<'a> VocabWriter<'a> {
    fn new(path: &'a Path) -> Self {
        let (writer, sha256) = (ArrowWriter::new(path), Sha256::new());
        Self { writer, values: Vec::new(), counts: Vec::new(), sha256 }
    }

    fn push(&mut self, value: &[u8], count: u32) -> Result<()> {
        self.sha256.update((value.len() as u64).to_le_bytes());
        self.sha256.update(value);
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

    /// The SHA-256 of all values in their order.
    fn finish(mut self) -> Result<Vec<u8>> {
        if !self.values.is_empty() {
            self.flush()?;
        }
        self.writer.finish()?;
        Ok(self.sha256.finalize().to_vec())
    }
}
