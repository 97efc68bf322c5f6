//! Values beyond the memory that dictionaries may take: divided by hash, counted in parts, merged.

use super::{Coded, Dictionary, NOT_YET, VocabSink, hash};
use crate::error::{At, Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// A column with values that its dictionary did not know.
pub struct Rest {
    pub(super) path: PathBuf,
    /// All values, and those left over.
    pub(super) len: u64,
    pub(super) rest: u64,
    /// The vocabulary of the others, its size, and how many of them occur at least twice.
    pub(super) run: Run,
    pub(super) distinct: u32,
    pub(super) repeated: u32,
}

impl Rest {
    /// Gives every value its rank, within `memory` bytes.
    pub fn encode(mut self, memory: u64, vocab: VocabSink<'_>) -> Result<Coded> {
        let values = self.path.with_extension("values");
        for parts in (0..=8).map(|power| 4u64.pow(power)) {
            let Some((ids, mut runs, distinct, repeated)) = self.in_parts(parts, memory)? else {
                continue;
            };
            runs.insert(0, self.run);
            let rank = merge(runs, distinct, vocab)?;
            let coded = Coded {
                ids: put_in(&self.path, self.len, &rank, &ids)?,
                rank: None,
                distinct,
                repeated: self.repeated + repeated,
            };
            for path in [&values, &ids] {
                std::fs::remove_file(path).at(path)?;
            }
            return Ok(coded);
        }
        let what = format!("the values do not fit into --memory {memory} bytes; raise it");
        Err(Error::file(&values, what))
    }

    /// One attempt with the values divided into `parts`: provisional ids of all, runs of the parts,
    /// distinct values of the whole column, and those of the parts that occur at least twice.
    /// `None` where a part exceeds the memory.
    fn in_parts(&mut self, parts: u64, memory: u64) -> Result<Option<InParts>> {
        let file = |suffix: &str| self.path.with_extension(suffix);
        let path = file("values");
        let (mut from, mut to) = (file("rest0"), file("rest1"));
        let (mut base, mut repeated) = (self.distinct, 0);
        let (mut runs, mut value) = (Vec::new(), Vec::new());
        for part in 0..parts {
            let mut dictionary = Dictionary::default();
            let mut values = reader(&path)?;
            let mut before = if part > 0 { Some(reader(&from)?) } else { None };
            let mut after = writer(&to)?;
            for _ in 0..self.rest {
                read_value(&mut values, &mut value).at(&path)?;
                let known = match &mut before {
                    Some(before) => read_u32(before).at(&from)?,
                    None => NOT_YET,
                };
                let hash = hash(&value);
                // Bits that the table does not use choose the part.
                let id = match (known, (hash >> 32) % parts == part) {
                    (NOT_YET, true) => {
                        let id = dictionary.count(&value, hash, 1);
                        base + id.unwrap_or_else(|| dictionary.add(&value, hash, 1))
                    }
                    (known, _) => known,
                };
                after.write_all(&id.to_le_bytes()).at(&to)?;
                if dictionary.memory() as u64 > memory {
                    return Ok(None);
                }
            }
            after.flush().at(&to)?;
            drop((before, after));
            std::mem::swap(&mut from, &mut to);
            let (order, counts) = dictionary.ranked();
            repeated += counts.iter().filter(|&&n| n > 1).count() as u32;
            let path = file(&format!("run{part}"));
            runs.push(Run::write(&path, &dictionary, &order, &counts, base)?);
            let distinct = dictionary.ends.len() as u32;
            base = base.checked_add(distinct).filter(|&n| n < NOT_YET).ok_or_else(|| {
                Error::file(&path, "more than 2^32 distinct values in one column")
            })?;
        }
        if parts > 1 {
            std::fs::remove_file(&to).at(&to)?;
        }
        Ok(Some((from, runs, base, repeated)))
    }
}

type InParts = (PathBuf, Vec<Run>, u32, u32);

/// Replaces provisional ids by ranks, those that a dictionary did not know by the next of `rest`.
/// Leaves a file of ids and removes that of provisional ones.
fn put_in(path: &Path, len: u64, rank: &[u32], rest: &Path) -> Result<PathBuf> {
    let (provisional, ranked) = (path.with_extension("ids0"), path.with_extension("ids"));
    let (mut ids, mut out) = (reader(&provisional)?, writer(&ranked)?);
    let mut others = reader(rest)?;
    let mut buffer = vec![0; 1 << 16];
    let mut left = 4 * len as usize;
    while left > 0 {
        let part = left.min(buffer.len());
        let buffer = &mut buffer[..part];
        ids.read_exact(buffer).at(&provisional)?;
        for word in buffer.as_chunks_mut::<4>().0 {
            let id = match u32::from_le_bytes(*word) {
                NOT_YET => read_u32(&mut others).at(rest)?,
                id => id,
            };
            *word = rank[id as usize].to_le_bytes();
        }
        out.write_all(buffer).at(&ranked)?;
        left -= part;
    }
    out.flush().at(&ranked)?;
    std::fs::remove_file(&provisional).at(&provisional)?;
    Ok(ranked)
}

pub(super) fn write_value(file: &mut impl Write, value: &[u8]) -> std::io::Result<()> {
    match u8::try_from(value.len()) {
        Ok(length @ 0..=254) => file.write_all(&[length])?,
        _ => {
            file.write_all(&[255])?;
            file.write_all(&(value.len() as u32).to_le_bytes())?;
        }
    }
    file.write_all(value)
}

fn read_value(file: &mut impl Read, value: &mut Vec<u8>) -> std::io::Result<()> {
    let mut length = [0];
    file.read_exact(&mut length)?;
    let length = if length[0] == 255 { read_u32(file)? as usize } else { length[0].into() };
    value.resize(length, 0);
    file.read_exact(value)
}

fn read_u32(file: &mut impl Read) -> std::io::Result<u32> {
    let mut word = [0; 4];
    file.read_exact(&mut word)?;
    Ok(u32::from_le_bytes(word))
}

fn reader(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::with_capacity(1 << 16, File::open(path).at(path)?))
}

pub(super) fn writer(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(1 << 16, File::create(path).at(path)?))
}

/// A sorted part of a vocabulary on disk.
pub(super) struct Run {
    path: PathBuf,
    file: BufReader<File>,
    left: u32,
}

/// Count (descending), value, provisional id.
type Counted = (Reverse<u32>, Vec<u8>, u32);

impl Run {
    /// Writes a dictionary in `order`; its ids follow those below `base`.
    pub(super) fn write(
        path: &Path,
        dictionary: &Dictionary,
        order: &[u32],
        counts: &[u32],
        base: u32,
    ) -> Result<Self> {
        let mut run = writer(path)?;
        for &id in order {
            let mut write = || {
                run.write_all(&counts[id as usize].to_le_bytes())?;
                run.write_all(&(base + id).to_le_bytes())?;
                write_value(&mut run, dictionary.value(id))
            };
            write().at(path)?;
        }
        run.flush().at(path)?;
        Ok(Self { file: reader(path)?, path: path.into(), left: order.len() as u32 })
    }

    fn next(&mut self) -> Result<Option<Counted>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut read = || {
            let (count, id) = (read_u32(&mut self.file)?, read_u32(&mut self.file)?);
            let mut value = Vec::new();
            read_value(&mut self.file, &mut value)?;
            Ok((Reverse(count), value, id))
        };
        read().map(Some).at(&self.path)
    }
}

/// Merges sorted runs; returns the rank of each provisional id.
fn merge(mut runs: Vec<Run>, distinct: u32, vocab: VocabSink<'_>) -> Result<Vec<u32>> {
    let mut heap = BinaryHeap::new();
    for (i, run) in runs.iter_mut().enumerate() {
        heap.extend(run.next()?.map(|entry| Reverse((entry, i))));
    }
    let mut rank = vec![0; distinct as usize];
    let mut position = 0;
    while let Some(Reverse(((Reverse(count), value, id), i))) = heap.pop() {
        rank[id as usize] = position;
        position += 1;
        vocab(&value, count)?;
        heap.extend(runs[i].next()?.map(|entry| Reverse((entry, i))));
    }
    for run in &runs {
        std::fs::remove_file(&run.path).at(&run.path)?;
    }
    Ok(rank)
}
