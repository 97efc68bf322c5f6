//! Vocabularies in bounded memory.
//!
//! A coded column lies in a file of values. It is read once to give every distinct value a
//! provisional id and a count; ids are then ranked by count (descending), then by value, and a
//! second stream replaces one by the other. Where the distinct values do not fit into memory, they
//! are divided by hash: each part reads the column again, and the parts' sorted runs are merged.

use crate::error::{At, Error, Result};
use embc_core::hash::mix64;
use hashbrown::HashTable;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// An id that no part has given yet.
const NOT_YET: u32 = u32::MAX;

/// A stable hash of a value: the parts on disk depend on it.
fn hash(value: &[u8]) -> u64 {
    value.chunks(8).fold(mix64(value.len() as u64 + 1), |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix64(hash ^ u64::from_le_bytes(word))
    })
}

/// Distinct values, their counts, and their ids in order of appearance.
#[derive(Default)]
struct Dictionary {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    counts: Vec<u32>,
    table: HashTable<u32>,
}

impl Dictionary {
    fn value(&self, id: u32) -> &[u8] {
        let start = (id as usize).checked_sub(1).map_or(0, |previous| self.ends[previous]);
        &self.bytes[start..self.ends[id as usize]]
    }

    fn count(&mut self, value: &[u8], hash_of: u64) -> u32 {
        let found = self.table.find(hash_of, |&id| self.value(id) == value).copied();
        let id = found.unwrap_or_else(|| {
            let id = self.ends.len() as u32;
            self.bytes.extend_from_slice(value);
            self.ends.push(self.bytes.len());
            self.counts.push(0);
            let (bytes, ends) = (&self.bytes, &self.ends);
            let rehash = |&id: &u32| {
                let start = (id as usize).checked_sub(1).map_or(0, |previous| ends[previous]);
                hash(&bytes[start..ends[id as usize]])
            };
            self.table.insert_unique(hash_of, id, rehash);
            id
        });
        self.counts[id as usize] = self.counts[id as usize].saturating_add(1);
        id
    }

    /// Bytes that this and its ranking take, with room for one more doubling of each buffer.
    fn memory(&self) -> usize {
        let ranking = 2 * 4 * self.ends.len();
        let held = self.bytes.capacity() + 8 * self.ends.capacity() + 4 * self.counts.capacity();
        3 * held + 2 * 6 * self.table.capacity() + ranking
    }

    /// Ids by count (descending), then by value.
    fn ranked(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.ends.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| {
            let count = |id: u32| Reverse(self.counts[id as usize]);
            (count(a), self.value(a)).cmp(&(count(b), self.value(b)))
        });
        order
    }
}

/// Writes the values of a column while the text is read.
pub struct ValueWriter {
    path: PathBuf,
    file: BufWriter<File>,
    values: u64,
}

impl ValueWriter {
    /// A new column file.
    pub fn create(path: PathBuf) -> Result<Self> {
        let file = BufWriter::with_capacity(1 << 16, File::create(&path).at(&path)?);
        Ok(Self { path, file, values: 0 })
    }

    /// Adds a value.
    pub fn push(&mut self, value: &[u8]) -> Result<()> {
        self.values += 1;
        write_value(&mut self.file, value).at(&self.path)
    }

    /// Ends the column.
    pub fn finish(mut self) -> Result<Values> {
        self.file.flush().at(&self.path)?;
        Ok(Values { path: self.path, len: self.values })
    }
}

/// A column of values on disk.
pub struct Values {
    path: PathBuf,
    /// Number of values.
    pub len: u64,
}

fn write_value(file: &mut impl Write, value: &[u8]) -> std::io::Result<()> {
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

fn writer(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(1 << 16, File::create(path).at(path)?))
}

/// A column of ids on disk, four bytes each.
pub struct Coded {
    /// The file of ids.
    pub ids: PathBuf,
    /// Number of distinct values.
    pub distinct: u32,
    /// Number of values that occur at least twice.
    pub repeated: u32,
}

/// Takes values in the order of their ids, with their counts.
pub type VocabSink<'a> = &'a mut dyn FnMut(&[u8], u32) -> Result<()>;

/// Gives every value of a column its rank, within `memory` bytes. Leaves a file of ids and removes
/// that of values.
pub fn encode(column: &Values, memory: u64, vocab: VocabSink<'_>) -> Result<Coded> {
    let mut parts = 1;
    loop {
        if let Some(coded) = encode_in(column, parts, memory, vocab)? {
            std::fs::remove_file(&column.path).at(&column.path)?;
            return Ok(coded);
        }
        parts *= 4;
        if parts > 1 << 16 {
            let what = format!("the values do not fit into --memory {memory} bytes; raise it");
            return Err(Error::file(&column.path, what));
        }
    }
}

/// One attempt with the values divided into `parts`; `None` where a part exceeds the memory.
fn encode_in(
    column: &Values,
    parts: u64,
    memory: u64,
    vocab: VocabSink<'_>,
) -> Result<Option<Coded>> {
    let file = |suffix: &str| column.path.with_extension(suffix);
    let (mut from, mut to) = (file("ids0"), file("ids1"));
    let mut base: u32 = 0;
    let mut runs = Vec::new();
    let mut coded = Coded { ids: file("ids"), distinct: 0, repeated: 0 };
    let mut rank: Vec<u32> = Vec::new();
    let mut value = Vec::new();
    for part in 0..parts {
        let mut dictionary = Dictionary::default();
        let mut values = reader(&column.path)?;
        let mut before = if part > 0 { Some(reader(&from)?) } else { None };
        let mut after = writer(&to)?;
        for _ in 0..column.len {
            read_value(&mut values, &mut value).at(&column.path)?;
            let known = match &mut before {
                Some(before) => read_u32(before).at(&from)?,
                None => NOT_YET,
            };
            let hash_of = hash(&value);
            // The low bits choose the part; the table uses others.
            let id = match (known, (hash_of >> 32) % parts == part) {
                (NOT_YET, true) => base + dictionary.count(&value, hash_of),
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
        let distinct = dictionary.ends.len() as u32;
        coded.repeated += dictionary.counts.iter().filter(|&&n| n > 1).count() as u32;
        base = base.checked_add(distinct).filter(|&n| n < NOT_YET).ok_or_else(|| {
            Error::file(&column.path, "more than 2^32 distinct values in one column")
        })?;
        let order = dictionary.ranked();
        if parts == 1 {
            rank = vec![0; distinct as usize];
            for (position, &id) in order.iter().enumerate() {
                rank[id as usize] = position as u32;
                vocab(dictionary.value(id), dictionary.counts[id as usize])?;
            }
        } else {
            let path = file(&format!("run{part}"));
            let mut run = writer(&path)?;
            for &id in &order {
                let write = |run: &mut BufWriter<File>| {
                    run.write_all(&dictionary.counts[id as usize].to_le_bytes())?;
                    run.write_all(&(base - distinct + id).to_le_bytes())?;
                    write_value(run, dictionary.value(id))
                };
                write(&mut run).at(&path)?;
            }
            run.flush().at(&path)?;
            runs.push(Run { file: reader(&path)?, path, left: distinct });
        }
    }
    coded.distinct = base;
    if parts > 1 {
        rank = merge(runs, base, vocab)?;
    }
    let (mut ids, mut out) = (reader(&from)?, writer(&coded.ids)?);
    for _ in 0..column.len {
        let id = read_u32(&mut ids).at(&from)?;
        out.write_all(&rank[id as usize].to_le_bytes()).at(&coded.ids)?;
    }
    out.flush().at(&coded.ids)?;
    for path in [&from, &to] {
        if path.exists() {
            std::fs::remove_file(path).at(path)?;
        }
    }
    Ok(Some(coded))
}

/// A sorted part of a vocabulary on disk.
struct Run {
    path: PathBuf,
    file: BufReader<File>,
    left: u32,
}

/// Count (descending), value, provisional id.
type Entry = (Reverse<u32>, Vec<u8>, u32);

impl Run {
    fn next(&mut self) -> Result<Option<Entry>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use embc_core::rng::Rng;

    type Vocab = Vec<(Vec<u8>, u32)>;

    fn encode_all(values: &[Vec<u8>], parts: u64, memory: u64) -> Option<(Vocab, Vec<u32>)> {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = ValueWriter::create(folder.path().join("c")).unwrap();
        values.iter().for_each(|value| writer.push(value).unwrap());
        let column = writer.finish().unwrap();
        let mut vocab = Vec::new();
        let sink = &mut |value: &[u8], count: u32| {
            vocab.push((value.to_vec(), count));
            Ok(())
        };
        let coded = match parts {
            0 => Some(encode(&column, memory, sink).unwrap()),
            _ => encode_in(&column, parts, memory, sink).unwrap(),
        }?;
        let bytes = std::fs::read(&coded.ids).unwrap();
        let ids = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()));
        assert_eq!(coded.distinct as usize, vocab.len());
        assert_eq!(coded.repeated as usize, vocab.iter().filter(|v| v.1 > 1).count());
        Some((vocab, ids.collect()))
    }

    #[test]
    fn ids_are_ranks_by_count_then_value() {
        let values: Vec<Vec<u8>> = ["b", "c", "", "c", "a", "c", "b"].map(|v| v.into()).to_vec();
        let (vocab, ids) = encode_all(&values, 1, 1 << 20).unwrap();
        let expect: Vocab =
            [("c", 3), ("b", 2), ("", 1), ("a", 1)].map(|(v, n)| (v.into(), n)).to_vec();
        assert_eq!(vocab, expect);
        assert_eq!(ids, [1, 0, 2, 0, 3, 0, 1]);
    }

    #[test]
    fn parts_change_nothing_but_the_memory() {
        let mut rng = Rng::stream(1, "values");
        let values: Vec<Vec<u8>> = (0..30_000)
            .map(|_| format!("{:x}", rng.below(1 + rng.clone().below(20_000))).into_bytes())
            .chain([vec![b'x'; 300]])
            .collect();
        let whole = encode_all(&values, 1, 1 << 30).unwrap();
        assert_eq!(encode_all(&values, 7, 1 << 30).unwrap(), whole);
        // So little memory that one part cannot do; `encode` finds the number of parts itself.
        assert!(encode_all(&values, 1, 200_000).is_none());
        assert_eq!(encode_all(&values, 0, 200_000).unwrap(), whole);
    }
}
