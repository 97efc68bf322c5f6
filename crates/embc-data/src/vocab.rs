//! Vocabularies in bounded memory.
//!
//! While the text is read, a column's values get provisional ids and counts from a dictionary. Once
//! the dictionaries of all columns have taken the memory there is, they learn nothing new: values
//! that they do not know go to a file. That is divided by hash afterwards: each part reads it again
//! with a dictionary of its own, and the sorted runs of all dictionaries are merged. Ids are ranks
//! by count (descending), then by value, whatever the memory; a second stream puts them in.

use crate::error::{At, Result};
use embc_core::hash::mix64;
use hashbrown::HashTable;
use std::cmp::Reverse;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

mod rest;

pub use rest::Rest;
use rest::{Run, write_value, writer};

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

/// Bytes of a place in the table, and of what ranks a value.
const SLOT: usize = 29;
const RANKING: usize = 28;

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

    /// Bytes that this and its ranking take.
    fn memory(&self) -> usize {
        self.bytes.capacity() + 8 * self.ends.capacity() + (SLOT + RANKING) * self.table.capacity()
    }

    /// Bytes that it takes with one more value of such a length, and those of what is copied while
    /// the table grows for it.
    fn with_one_more(&self, length: usize) -> (u64, u64) {
        let doubled = |len: usize, capacity: usize| if len > capacity { capacity } else { 0 };
        let text = doubled(self.bytes.len() + length, self.bytes.capacity()).max(length);
        let ends = 8 * doubled(self.ends.len() + 1, self.ends.capacity());
        let table = doubled(self.table.len() + 1, self.table.capacity());
        let more = text + ends + (SLOT + RANKING) * table;
        ((self.memory() + more) as u64, (SLOT * table) as u64)
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

    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Gives bytes back.
    pub fn give(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
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
    /// The dictionary was refused memory, and learns nothing more.
    closed: bool,
}

impl Encoder {
    /// A new column, whose files begin with `path` but for the extension.
    pub fn create(path: PathBuf) -> Result<Self> {
        let ids = writer(&path.with_extension("ids0"))?;
        Ok(Self {
            path,
            ids,
            len: 0,
            dictionary: Dictionary::default(),
            taken: 0,
            rest: None,
            closed: false,
        })
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
                None => self
                    .learn(value, hash, 1, budget)
                    .map_or_else(|| self.left_over(value).map(|()| NOT_YET), Ok)?,
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
        let values: Vec<&[u8]> = match self.closed {
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
        self.may_grow(value, budget).then(|| self.dictionary.add(value, hash, count))
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

    /// True while the dictionary has memory for such a value more. Once refused it learns nothing
    /// more, so that every value is counted in one place.
    fn may_grow(&mut self, value: &[u8], budget: &Allowance) -> bool {
        if self.closed {
            return false;
        }
        let (needs, copied) = self.dictionary.with_one_more(value.len());
        let more = needs.saturating_sub(self.taken);
        if more + copied == 0 {
            return true;
        }
        let granted = budget.take(more + copied);
        if granted {
            self.taken += more;
            self.dictionary.table.reserve(1, |known| known.hash);
            budget.give(copied);
        }
        self.closed = !granted;
        granted
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

#[cfg(test)]
mod tests {
    use super::*;
    use embc_core::rng::Rng;

    type Vocab = Vec<(Vec<u8>, u32)>;

    /// Vocabulary and ids, with so many bytes for the text pass and for what it leaves over; from
    /// values as they are, and half of them from values by number, of which some are equal.
    fn encode_all(values: &[Vec<u8>], budget: u64, memory: u64) -> (Vocab, Vec<u32>) {
        let plain = encode(values, budget, memory, false);
        assert_eq!(encode(values, budget, memory, true), plain, "by number");
        plain
    }

    fn encode(values: &[Vec<u8>], budget: u64, memory: u64, coded: bool) -> (Vocab, Vec<u32>) {
        let folder = tempfile::tempdir().unwrap();
        let mut encoder = Encoder::create(folder.path().join("c")).unwrap();
        let budget = Allowance::new(budget);
        let (first, second) = values.split_at(if coded { values.len() / 2 } else { 0 });
        let all = || first.iter().chain(first).map(|value| &value[..]).collect::<Vec<&[u8]>>();
        for (part, codes) in first.chunks(1000).enumerate().map(|(i, part)| (i, part.len())) {
            let start = 1000 * part;
            let code =
                |i: usize| (start + i + if i.is_multiple_of(2) { first.len() } else { 0 }) as u32;
            let codes: Vec<u32> = (0..codes).map(code).collect();
            encoder.push_coded(all().into_iter(), &codes, &budget).unwrap();
        }
        encoder.push(second.iter().map(|value| &value[..]), &budget).unwrap();
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
