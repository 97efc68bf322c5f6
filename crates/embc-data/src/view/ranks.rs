//! View ids of a column: ranks by training count, then by first training row; the OOV id is last.
//!
//! Counting reads every row of every column, which is most of what a trial on a large data set waits
//! for. There the ranks are kept beside the cache, under what they are a function of: the data, the part
//! of each row and the rules of the vocabulary.

use super::{Resolved, VocabRule, bag};
use crate::atomic;
use crate::cache::{ArrowWriter, Cache, Coded, Values, open_mapped};
use crate::error::{Error, Result};
use crate::split::{DROPPED, TRAIN};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The version of kept ranks.
const VERSION: u32 = 1;

/// Below so many lookups, counting takes no longer than a tenth of a second.
const MANY: usize = 1 << 24;

/// Views of a data set whose ranks are kept: the newest.
const KEPT: usize = 4;

/// Counts below this are sorted by counting them: nearly all of a large vocabulary.
const SELDOM: usize = 1 << 16;

/// The ids of a column, as a view ranks them.
#[derive(Debug, PartialEq)]
pub(crate) struct Ranks {
    /// View id of each cache id.
    pub remap: Vec<u32>,
    /// View ids that stand for one value: all but the OOV id.
    pub known: u32,
    /// Training rows of each view id; of the OOV id only where a value may become it.
    pub counts: Vec<u32>,
}

impl Ranks {
    /// By the training count of each cache id. Of equal counts the one that comes first in `order`: of
    /// training, not by cache ids, which rank by all rows: test rows must not decide who keeps a row
    /// of its own. Ids that do not occur are not in it.
    pub fn new(order: &[u32], counts: &[u32], spec: &Resolved) -> Self {
        let least = match spec.vocab {
            VocabRule::Train => spec.min_count.max(1),
            VocabRule::All => spec.min_count,
        };
        let mut sorted = by_count(order, counts);
        sorted.truncate(sorted.partition_point(|&id| counts[id as usize] >= least));
        let known = sorted.len() as u32;
        let mut remap = vec![known; counts.len()];
        (0..).zip(&sorted).for_each(|(rank, &id)| remap[id as usize] = rank);
        let mut ranked: Vec<u32> = sorted.iter().map(|&id| counts[id as usize]).collect();
        if has_unknown(spec) {
            let sum = |counts: &[u32]| counts.iter().map(|&n| u64::from(n)).sum::<u64>();
            ranked.push((sum(counts) - sum(&ranked)).min(u32::MAX.into()) as u32);
        }
        Self { remap, known, counts: ranked }
    }

    fn of(cache: &Cache, column: usize, part: &[u8], spec: &Resolved) -> Self {
        let distinct = cache.meta.columns[column].distinct as usize;
        let (order, counts) = count(&cache.coded[&column], distinct, part, spec);
        Self::new(&order, &counts, spec)
    }

    /// A row for each cache id, and one more that is of the OOV id.
    fn write(&self, path: &Path) -> Result<()> {
        let rows = self.remap.len() + 1;
        let mut counts = self.counts.clone();
        counts.resize(rows, 0);
        let remap = [&self.remap[..], &[self.known]].concat();
        let ids = |ids| Values::Ids { ids, distinct: u32::MAX };
        atomic::write(path, |file| {
            let mut writer = ArrowWriter::new(file.path());
            writer.write(&[("remap", ids(&remap)), ("count", ids(&counts))])?;
            writer.finish()
        })
    }

    fn read(path: &Path, distinct: u32, spec: &Resolved) -> Result<Self> {
        let frame = open_mapped(path)?;
        let [mut remap, mut counts] = [frame.ids("remap")?, frame.ids("count")?];
        let whole = remap.len() == distinct as usize + 1;
        let known = remap.pop().filter(|&known| whole && known <= distinct);
        let Some(known) = known.filter(|known| remap.iter().all(|id| id <= known)) else {
            return Err(Error::file(path, "not the ranks of this column"));
        };
        counts.truncate(known as usize + usize::from(has_unknown(spec)));
        Ok(Self { remap, known, counts })
    }
}

/// Whether values may become the OOV id.
fn has_unknown(spec: &Resolved) -> bool {
    spec.vocab == VocabRule::Train || spec.min_count > 0
}

/// The ranks of `columns`, kept in the cache's `folder` where that saves time. `part` is of each row.
pub(crate) fn ranks(
    cache: &Cache,
    folder: &Path,
    columns: &[usize],
    part: &[u8],
    spec: &Resolved,
) -> Vec<Ranks> {
    let lookups =
        |column: &usize| cache.coded[column].offsets.last().map_or(part.len(), |&n| n as usize);
    match columns.iter().map(lookups).sum::<usize>() < MANY {
        true => columns.par_iter().map(|&column| Ranks::of(cache, column, part, spec)).collect(),
        false => kept(cache, &folder.join("ranks"), columns, part, spec),
    }
}

fn kept(cache: &Cache, all: &Path, columns: &[usize], part: &[u8], spec: &Resolved) -> Vec<Ranks> {
    let own = all.join(key(cache, part, spec));
    // Not with their parents: another process may be putting a new cache in the place of this one.
    for folder in [all, &own] {
        let _ = std::fs::create_dir(folder);
    }
    let _ = File::open(&own).and_then(|folder| folder.set_modified(SystemTime::now()));
    let get = |&column: &usize| {
        let path = own.join(format!("{column}.arrow"));
        let distinct = cache.meta.columns[column].distinct;
        Ranks::read(&path, distinct, spec).unwrap_or_else(|_| {
            let ranks = Ranks::of(cache, column, part, spec);
            if own.is_dir() {
                // Where they cannot be kept, they are counted again next time.
                let _ = ranks.write(&path);
            }
            ranks
        })
    };
    let ranks = columns.par_iter().map(get).collect();
    forget_old(all, &own);
    ranks
}

/// Of all that ranks are a function of.
fn key(cache: &Cache, part: &[u8], spec: &Resolved) -> String {
    let versions = (VERSION, crate::loader::VERSION);
    let rules = (&cache.meta.data_hash, spec.vocab, spec.min_count, spec.history);
    let rules = serde_json::to_string(&(versions, rules)).expect("plain data");
    let hash = Sha256::new().chain_update(rules).chain_update(part).finalize();
    crate::hex(&hash)[..16].into()
}

/// Keeps the newest folders of `all`, and `own`.
fn forget_old(all: &Path, own: &Path) {
    let folders = std::fs::read_dir(all).into_iter().flatten().flatten().map(|f| f.path());
    let time = |path: &PathBuf| path.metadata().and_then(|folder| folder.modified()).ok();
    let mut others: Vec<PathBuf> = folders.filter(|path| path != own).collect();
    others.sort_by_key(|path| Reverse(time(path)));
    others.iter().skip(KEPT - 1).for_each(|path| drop(std::fs::remove_dir_all(path)));
}

/// The ids that occur, in the order of their first training row, then those without one by their first
/// row; and the training rows of each id. An id that is twice in a row counts once.
fn count(coded: &Coded, distinct: usize, part: &[u8], spec: &Resolved) -> (Vec<u32>, Vec<u32>) {
    let rows = |wanted: fn(u8) -> bool| {
        (0u32..).zip(part).filter(move |(_, part)| wanted(**part)).map(|(row, _)| row)
    };
    let (trains, held_out) = (rows(|p| p == TRAIN), rows(|p| p != TRAIN && p != DROPPED));
    let mut counts = vec![0u32; distinct];
    // No branch that memory decides: many reads are in flight at once.
    let (mut order, mut len) = (vec![0u32; distinct + 1], 0);
    let mut see = |id: u32, add: fn(u32) -> u32| {
        let n = &mut counts[id as usize];
        order[len] = id;
        len += usize::from(*n == 0);
        *n = add(*n);
    };
    // What is not of training is marked while it is looked for.
    const MARK: u32 = u32::MAX;
    let mark = |n| if n == 0 { MARK } else { n };
    if coded.offsets.is_empty() {
        coded.ids.ids(trains.map(u64::from), |id| see(id, |n| n + 1));
        coded.ids.ids(held_out.map(u64::from), |id| see(id, mark));
    } else {
        let mut ids = Vec::new();
        let mut each = |row: u32, add: fn(u32) -> u32| {
            ids.clear();
            coded.ids.ids(bag(coded, row, spec.history), |id| ids.push(id));
            // Of a row, by cache ids.
            ids.sort_unstable();
            ids.dedup();
            ids.iter().for_each(|&id| see(id, add));
        };
        trains.for_each(|row| each(row, |n| n + 1));
        held_out.for_each(|row| each(row, mark));
    }
    order.truncate(len);
    counts.iter_mut().for_each(|n| *n = if *n == MARK { 0 } else { *n });
    (order, counts)
}

/// Ids by falling count, those of one count in the order given.
fn by_count(order: &[u32], counts: &[u32]) -> Vec<u32> {
    let count = |id: u32| counts[id as usize] as usize;
    let (seldom, mut sorted): (Vec<u32>, Vec<u32>) =
        order.iter().partition(|id| count(**id) < SELDOM);
    sorted.sort_by_key(|&id| Reverse(count(id)));
    let mut places = vec![0; SELDOM];
    seldom.iter().for_each(|&id| places[count(id)] += 1);
    let mut end = sorted.len();
    for place in places.iter_mut().rev() {
        end += std::mem::replace(place, end);
    }
    sorted.resize(order.len(), 0);
    for id in seldom {
        let place = &mut places[count(id)];
        sorted[*place] = id;
        *place += 1;
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Mapped;
    use embc_core::rng::Rng;
    use polars_buffer::Buffer;

    /// As the definition has it.
    fn by_definition(bags: &[Vec<u32>], distinct: u32, part: &[u8], spec: &Resolved) -> Ranks {
        let most = spec.history.map_or(usize::MAX, |most| most as usize);
        let rows = |id: u32, wanted: fn(u8) -> bool| {
            let all = (0u32..).zip(bags).zip(part).filter(move |(_, part)| wanted(**part));
            let with = all.filter(move |((_, bag), _)| bag.iter().take(most).any(|&x| x == id));
            with.map(|((row, _), _)| row).collect::<Vec<_>>()
        };
        let mut all: Vec<(Reverse<u32>, u32, u32)> = Vec::new();
        for id in 0..distinct {
            let (trains, any) = (rows(id, |p| p == TRAIN), rows(id, |p| p != DROPPED));
            if let Some(first) = trains.first().or(any.first()) {
                all.push((Reverse(trains.len() as u32), *first, id));
            }
        }
        all.sort();
        let total: u32 = all.iter().map(|(n, ..)| n.0).sum();
        let least = spec.min_count.max(u32::from(spec.vocab == VocabRule::Train));
        all.retain(|(n, ..)| n.0 >= least);
        let known = all.len() as u32;
        let rank = |id| all.iter().position(|x| x.2 == id).map_or(known, |rank| rank as u32);
        let mut counts: Vec<u32> = all.iter().map(|(n, ..)| n.0).collect();
        if spec.vocab == VocabRule::Train || spec.min_count > 0 {
            counts.push(total - counts.iter().sum::<u32>());
        }
        Ranks { remap: (0..distinct).map(rank).collect(), known, counts }
    }

    #[test]
    fn ranks_are_those_of_the_definition_and_can_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        for seed in 0..200 {
            let mut rng = Rng::stream(seed, "ranks");
            let mut below = |n: u64| rng.below(n) as u32;
            let (several, rows, distinct) = (seed % 2 == 1, below(60), 1 + below(20));
            let mut bag = || -> Vec<u32> {
                let ids = if several { below(4) } else { 1 };
                (0..ids).map(|_| below(distinct.into())).collect()
            };
            let bags: Vec<Vec<u32>> = (0..rows).map(|_| bag()).collect();
            let part: Vec<u8> =
                bags.iter().map(|_| [TRAIN, 1, 2, DROPPED][below(4) as usize]).collect();
            let spec = Resolved {
                vocab: [VocabRule::Train, VocabRule::All][below(2) as usize],
                min_count: below(3),
                history: Some(1 + below(4)).filter(|_| seed % 3 == 0),
                ..Resolved::default()
            };
            let ends = bags.iter().scan(0, |end, bag| {
                *end += bag.len() as u64;
                Some(*end)
            });
            let offsets = if several { [0].into_iter().chain(ends).collect() } else { Vec::new() };
            let coded = Coded { ids: Mapped::U32(vec![Buffer::from(bags.concat())]), offsets };
            let (order, counts) = count(&coded, distinct as usize, &part, &spec);
            let ranks = Ranks::new(&order, &counts, &spec);
            assert_eq!(
                ranks,
                by_definition(&bags, distinct, &part, &spec),
                "seed {seed}: {spec:?}"
            );
            let path = folder.path().join("ranks.arrow");
            ranks.write(&path).unwrap();
            assert_eq!(Ranks::read(&path, distinct, &spec).unwrap(), ranks);
            assert!(Ranks::read(&path, distinct + 1, &spec).is_err(), "of another column");
        }
    }

    #[test]
    fn frequent_ids_are_sorted_too() {
        let often = SELDOM as u32;
        let counts = [3, often, often + 5, 0, often - 1, often, 3];
        assert_eq!(by_count(&[6, 5, 4, 3, 2, 1, 0], &counts), [2, 5, 1, 4, 6, 0, 3]);
    }

    /// A cache of one column of ids.
    fn cache(ids: Vec<u32>, hash: &str) -> Cache {
        let meta = serde_json::json!({
            "version": 0, "definition": "", "dates": false, "sources": [], "data_hash": hash,
            "time_scale": 1, "notes": {}, "rows": ids.len(), "label_mean": 0.0, "files": {},
            "columns": [{ "name": "it", "distinct": 5, "repeated": 0 }],
        });
        let coded = Coded { ids: Mapped::U32(vec![Buffer::from(ids)]), offsets: Vec::new() };
        Cache {
            meta: serde_json::from_value(meta).unwrap(),
            fields: Vec::new(),
            label: None,
            weight: None,
            time: None,
            dense: Vec::new(),
            coded: [(0, coded)].into(),
            file: Mapped::U8(Vec::new()),
        }
    }

    #[test]
    fn ranks_are_kept_under_what_they_are_of() {
        let folder = tempfile::tempdir().unwrap();
        let all = folder.path().join("ranks");
        let spec = Resolved::default();
        let (one, part) = (cache(vec![4, 2, 2, 0, 1, 4, 4], "one"), [0, 0, 0, 0, 1, 1, 2]);
        let ranks = || kept(&one, &all, &[0], &part, &spec);
        let first = ranks();
        assert_eq!(first[0].remap, [2, 3, 0, 3, 1]);
        let path = all.join(key(&one, &part, &spec)).join("0.arrow");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(ranks(), first);
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(ranks(), first, "counted anew");
        assert_eq!(std::fs::read(&path).unwrap(), whole, "and kept again");
        let keys = [
            key(&one, &part, &spec),
            key(&cache(vec![4, 2, 2, 0, 1, 4, 4], "two"), &part, &spec),
            key(&one, &[0, 0, 0, 0, 1, 1, 1], &spec),
            key(&one, &part, &Resolved { min_count: 2, ..Resolved::default() }),
            key(&one, &part, &Resolved { history: Some(2), ..Resolved::default() }),
            key(&one, &part, &Resolved { vocab: VocabRule::All, ..Resolved::default() }),
        ];
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
    }

    #[test]
    fn the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = |n: u64| folder.path().join(n.to_string());
        for n in 0..6 {
            std::fs::create_dir(path(n)).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(n);
            std::fs::File::open(path(n)).unwrap().set_modified(time).unwrap();
        }
        forget_old(folder.path(), &path(1));
        let left: Vec<u64> = (0..6).filter(|&n| path(n).exists()).collect();
        assert_eq!(left, [1, 3, 4, 5]);
    }
}
