//! Vocabularies in bounded memory.
//!
//! While the text is read, a column's values get provisional ids and counts from a dictionary. Once
//! the dictionaries of all columns have taken the memory there is, they learn nothing new: values
//! that they do not know go to a file. That is divided by hash afterwards: each part reads it again
//! with a dictionary of its own, and the sorted runs of all dictionaries are merged. Ids are ranks
//! by count (descending), then by value, whatever the memory; a second stream puts them in.

use crate::error::{At, Error, Result};
use embc_core::hash::mix64;
use hashbrown::HashTable;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
    table: HashTable<Slot>,
}

/// A value in the table. Short ones are known by their hash and length alone: [`hash`] maps values
/// of one length below nine bytes to different numbers.
#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    id: u32,
    length: u32,
    count: u32,
}

fn value_of<'a>(bytes: &'a [u8], ends: &[usize], id: u32) -> &'a [u8] {
    let start = (id as usize).checked_sub(1).map_or(0, |previous| ends[previous]);
    &bytes[start..ends[id as usize]]
}

impl Dictionary {
    fn value(&self, id: u32) -> &[u8] {
        value_of(&self.bytes, &self.ends, id)
    }

    /// The id of a value, which is counted so often.
    fn count(&mut self, value: &[u8], hash: u64, count: u32) -> Option<u32> {
        let (bytes, ends) = (&self.bytes, &self.ends);
        let same = |known: &Slot| {
            known.hash == hash
                && known.length as usize == value.len()
                && (value.len() <= 8 || value_of(bytes, ends, known.id) == value)
        };
        let known = self.table.find_mut(hash, same)?;
        known.count = known.count.saturating_add(count);
        Some(known.id)
    }

    /// Adds a value that is not known, and occurs so often.
    fn add(&mut self, value: &[u8], hash: u64, count: u32) -> u32 {
        let id = self.ends.len() as u32;
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
        let known = Slot { hash, id, length: value.len() as u32, count };
        self.table.insert_unique(hash, known, |known| known.hash);
        id
    }

    /// Bytes that this and its ranking take, with room for one more doubling of each buffer.
    fn memory(&self) -> usize {
        let ranking = (16 + 3 * 4) * self.ends.len();
        let held = self.bytes.capacity() + 8 * self.ends.capacity();
        3 * held + 3 * 29 * self.table.capacity() + ranking
    }

    /// Ids by count (descending), then by value; and the counts by id.
    fn ranked(&self) -> (Vec<u32>, Vec<u32>) {
        let mut counts = vec![0; self.ends.len()];
        self.table.iter().for_each(|known| counts[known.id as usize] = known.count);
        // Most values differ in their first bytes, which the sort then has at hand.
        let key = |id: u32| (Reverse(counts[id as usize]), first_bytes(self.value(id)), id);
        let mut order: Vec<_> = (0..self.ends.len() as u32).map(key).collect();
        order.sort_unstable_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| self.value(a.2).cmp(self.value(b.2)))
        });
        let order = order.into_iter().map(|(_, _, id)| id).collect();
        (order, counts)
    }
}

/// The first eight bytes, as a number that sorts as they do.
fn first_bytes(value: &[u8]) -> u64 {
    let mut word = [0; 8];
    let length = value.len().min(8);
    word[..length].copy_from_slice(&value[..length]);
    u64::from_be_bytes(word)
}

/// Memory that the dictionaries of all columns may take.
pub struct Allowance(AtomicU64);

impl Allowance {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// True where so many bytes were left, and are taken.
    pub fn take(&self, bytes: u64) -> bool {
        let left = |left: u64| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }
}

/// A column while the text is read: ids of the values that its dictionary knows, and a file of the
/// others.
pub struct Encoder {
    path: PathBuf,
    ids: BufWriter<File>,
    len: u64,
    dictionary: Dictionary,
    /// Bytes taken of the budget.
    taken: u64,
    rest: Option<(BufWriter<File>, u64)>,
}

impl Encoder {
    /// A new column, whose files begin with `path` but for the extension.
    pub fn create(path: PathBuf) -> Result<Self> {
        let ids = writer(&path.with_extension("ids0"))?;
        Ok(Self { path, ids, len: 0, dictionary: Dictionary::default(), taken: 0, rest: None })
    }

    /// Adds values. All are hashed first, so that many look-ups are in flight at once.
    pub fn push<'v>(
        &mut self,
        values: impl ExactSizeIterator<Item = &'v [u8]> + Clone,
        budget: &Allowance,
    ) -> Result<()> {
        self.len += values.len() as u64;
        let hashes: Vec<u64> = values.clone().map(hash).collect();
        let mut ids = Vec::with_capacity(4 * hashes.len());
        for (value, &hash) in values.zip(&hashes) {
            let id = match self.dictionary.count(value, hash, 1) {
                Some(id) => id,
                None => self.learn(value, hash, 1, budget).map_or_else(
                    || self.left_over(value).map(|()| NOT_YET),
                    Ok,
                )?,
            };
            ids.extend(id.to_le_bytes());
        }
        self.ids.write_all(&ids).at(&self.path)
    }

    /// Adds a value a row, by their numbers among `values`: each is looked up once.
    pub fn push_coded<'v>(
        &mut self,
        values: impl ExactSizeIterator<Item = &'v [u8]> + Clone,
        codes: &[u32],
        budget: &Allowance,
    ) -> Result<()> {
        self.len += codes.len() as u64;
        let mut counts = vec![0; values.len()];
        codes.iter().for_each(|&code| counts[code as usize] += 1);
        let id = |(value, &count): (&'v [u8], &u32)| {
            let hash = hash(value);
            let known = if count > 0 { self.dictionary.count(value, hash, count) } else { None };
            match known {
                Some(id) => id,
                None if count > 0 => self.learn(value, hash, count, budget).unwrap_or(NOT_YET),
                None => NOT_YET,
            }
        };
        let ids: Vec<u32> = values.clone().zip(&counts).map(id).collect();
        let values: Vec<&[u8]> = match self.rest.is_some() {
            true => values.collect(),
            false => Vec::new(),
        };
        let mut bytes = Vec::with_capacity(4 * codes.len());
        for &code in codes {
            let id = ids[code as usize];
            if id == NOT_YET {
                self.left_over(values[code as usize])?;
            }
            bytes.extend(id.to_le_bytes());
        }
        self.ids.write_all(&bytes).at(&self.path)
    }

    /// The id of a new value that occurs so often, if the dictionary may learn it.
    fn learn(&mut self, value: &[u8], hash: u64, count: u32, budget: &Allowance) -> Option<u32> {
        self.may_grow(budget).then(|| self.dictionary.add(value, hash, count))
    }

    /// Writes a value that the dictionary does not know to a file.
    fn left_over(&mut self, value: &[u8]) -> Result<()> {
        let path = self.path.with_extension("values");
        if self.rest.is_none() {
            self.rest = Some((writer(&path)?, 0));
        }
        let (file, len) = self.rest.as_mut().expect("just made");
        *len += 1;
        write_value(file, value).at(&path)
    }

    /// True while the dictionary has memory, of which it takes a little at a time. Once refused it
    /// learns nothing more, so that every value is counted in one place.
    fn may_grow(&mut self, budget: &Allowance) -> bool {
        const STEP: u64 = 1 << 16;
        if self.rest.is_some() {
            return false;
        }
        let more = (self.dictionary.memory() as u64).saturating_sub(self.taken);
        if more == 0 || budget.take(more + STEP) {
            self.taken += if more == 0 { 0 } else { more + STEP };
            return true;
        }
        false
    }

    /// Ends the reading of the text. Unless values are left over, gives the vocabulary to `vocab`.
    pub fn finish(mut self, vocab: VocabSink<'_>) -> Result<Finished> {
        let ids = self.path.with_extension("ids0");
        self.ids.flush().at(&ids)?;
        let path = self.path;
        let dictionary = self.dictionary;
        let distinct = dictionary.ends.len() as u32;
        let (order, counts) = dictionary.ranked();
        let repeated = counts.iter().filter(|&&n| n > 1).count() as u32;
        let Some((mut file, len)) = self.rest else {
            let mut rank = vec![0; distinct as usize];
            for (position, &id) in order.iter().enumerate() {
                rank[id as usize] = position as u32;
                vocab(dictionary.value(id), counts[id as usize])?;
            }
            return Ok(Finished::Whole(Coded { ids, rank: Some(rank), distinct, repeated }));
        };
        file.flush().at(&path.with_extension("values"))?;
        let run = Run::write(&path.with_extension("run"), &dictionary, &order, &counts, 0)?;
        Ok(Finished::Rest(Rest { path, len: self.len, rest: len, run, distinct, repeated }))
    }
}

/// A column whose text has been read.
pub enum Finished {
    /// Its ids are ranks.
    Whole(Coded),
    /// Values are left that no dictionary knows.
    Rest(Rest),
}

/// A column with values that its dictionary did not know.
pub struct Rest {
    path: PathBuf,
    /// All values, and those left over.
    len: u64,
    rest: u64,
    /// The vocabulary of the others, its size, and how many of them occur at least twice.
    run: Run,
    distinct: u32,
    repeated: u32,
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
    /// The rank of each of these; none where they are ranks.
    rank: Option<Vec<u32>>,
    /// Number of distinct values.
    pub distinct: u32,
    /// Number of values that occur at least twice.
    pub repeated: u32,
}

impl Coded {
    /// Makes ranks of ids as they lie in the file.
    pub fn to_ranks(&self, ids: &mut [u32]) {
        if let Some(rank) = &self.rank {
            ids.iter_mut().for_each(|id| *id = rank[*id as usize]);
        }
    }
}

/// Takes values in the order of their ids, with their counts.
pub type VocabSink<'a> = &'a mut dyn FnMut(&[u8], u32) -> Result<()>;

/// A sorted part of a vocabulary on disk.
struct Run {
    path: PathBuf,
    file: BufReader<File>,
    left: u32,
}

/// Count (descending), value, provisional id.
type Counted = (Reverse<u32>, Vec<u8>, u32);

impl Run {
    /// Writes a dictionary in `order`; its ids follow those below `base`.
    fn write(
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

#[cfg(test)]
mod tests {
    use super::*;
    use embc_core::rng::Rng;

    type Vocab = Vec<(Vec<u8>, u32)>;

    /// Vocabulary and ids, with so many bytes for the text pass and for what it leaves over.
    fn encode_all(values: &[Vec<u8>], budget: u64, memory: u64) -> (Vocab, Vec<u32>) {
        let folder = tempfile::tempdir().unwrap();
        let mut encoder = Encoder::create(folder.path().join("c")).unwrap();
        let budget = Allowance::new(budget);
        encoder.push(values.iter().map(|value| &value[..]), &budget).unwrap();
        let mut vocab = Vec::new();
        let sink = &mut |value: &[u8], count: u32| {
            vocab.push((value.to_vec(), count));
            Ok(())
        };
        let coded = match encoder.finish(sink).unwrap() {
            Finished::Whole(coded) => coded,
            Finished::Rest(rest) => rest.encode(memory, sink).unwrap(),
        };
        let bytes = std::fs::read(&coded.ids).unwrap();
        let ids = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()));
        let mut ids: Vec<u32> = ids.collect();
        coded.to_ranks(&mut ids);
        assert_eq!(coded.distinct as usize, vocab.len());
        assert_eq!(coded.repeated as usize, vocab.iter().filter(|v| v.1 > 1).count());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the ids are left");
        (vocab, ids)
    }

    #[test]
    fn ids_are_ranks_by_count_then_value() {
        let values: Vec<Vec<u8>> = ["b", "c", "", "c", "a", "c", "b"].map(|v| v.into()).to_vec();
        let (vocab, ids) = encode_all(&values, 1 << 20, 1 << 20);
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
        let whole = encode_all(&values, 1 << 30, 0);
        // A dictionary of a part of the values, of none; and so little memory for the others that
        // they must be divided.
        assert_eq!(encode_all(&values, 500_000, 1 << 30), whole);
        assert_eq!(encode_all(&values, 0, 1 << 30), whole);
        assert_eq!(encode_all(&values, 500_000, 200_000), whole);
        assert_eq!(encode_all(&values, 0, 200_000), whole);
    }
}
