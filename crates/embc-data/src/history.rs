//! Users' items in order, for models that read a history: each item once, where it first occurs.

use crate::cache::Cache;
use crate::split::{DROPPED, TEST, TRAIN, VALID};
use embc_core::batch::Split;
use embc_core::param::IdSet;

/// The items of every user of a data set, by the user's id in the cache.
#[derive(Default)]
pub(crate) struct Histories {
    /// Where each user's items begin, [users + 1].
    offsets: Vec<u32>,
    /// View ids in time order, ties in file order; unknown items have the OOV id.
    items: Vec<u32>,
    /// The part of each.
    parts: Vec<u8>,
    /// View ids from here on are not known.
    known: u32,
    /// Rows of an item that the user already had.
    pub repeated: u64,
}

/// The items that a query is about, and those that the user is known to have.
pub(crate) struct Held {
    /// In time order.
    pub known: Vec<u32>,
    /// Those to find.
    pub targets: Vec<u32>,
}

impl Histories {
    /// From the columns of users and items, the view ids of items, and the rows that count.
    pub fn new(
        cache: &Cache,
        [user, item]: [usize; 2],
        remap: &[u32],
        known: u32,
        part: &[u8],
        positive: impl Fn(u32) -> bool,
    ) -> Self {
        let (users, items) = (&cache.coded[&user].ids, &cache.coded[&item].ids);
        let time = |row: u32| cache.time.as_ref().map_or(0, |time| time.time(row.into()));
        let counts = |row: &u32| part[*row as usize] != DROPPED && positive(*row);
        let mut rows: Vec<u32> = (0..part.len() as u32).filter(counts).collect();
        rows.sort_by_key(|&row| (users.id(row.into()), time(row)));
        let all = cache.meta.columns[user].distinct as usize;
        let mut lists = Self { offsets: vec![0; all + 1], known, ..Self::default() };
        let mut seen = IdSet::with_universe(remap.len());
        for rows in rows.chunk_by(|&a, &b| users.id(a.into()) == users.id(b.into())) {
            seen.clear();
            for &row in rows {
                let item = items.id(row.into());
                if seen.insert(item).1 {
                    lists.items.push(remap[item as usize]);
                    lists.parts.push(part[row as usize]);
                }
            }
            let user = users.id(rows[0].into()) as usize;
            lists.offsets[user + 1] = seen.ids().len() as u32;
        }
        for user in 0..all {
            lists.offsets[user + 1] += lists.offsets[user];
        }
        lists.repeated = (rows.len() - lists.items.len()) as u64;
        lists
    }

    /// Ids below this are known items.
    pub fn known(&self) -> u32 {
        self.known
    }

    /// Number of users.
    pub fn users(&self) -> u32 {
        self.offsets.len() as u32 - 1
    }

    /// Items of a user with their parts, in time order.
    fn of(&self, user: u32) -> impl DoubleEndedIterator<Item = (u32, u8)> {
        let [start, end] = [0, 1].map(|i| self.offsets[user as usize + i] as usize);
        self.items[start..end].iter().copied().zip(self.parts[start..end].iter().copied())
    }

    /// The known training items of a user, in time order.
    pub fn train(&self, user: u32) -> impl DoubleEndedIterator<Item = u32> {
        let known = self.known;
        self.of(user)
            .filter(move |&(item, part)| part == TRAIN && item < known)
            .map(|(item, _)| item)
    }

    /// What a query of `split` asks of a user.
    pub fn held(&self, user: u32, split: Split) -> Held {
        let wanted = if split == Split::Valid { VALID } else { TEST };
        let known = self.of(user).filter(|&(item, part)| part < wanted && item < self.known);
        let targets = self.of(user).filter(|&(_, part)| part == wanted);
        Held { known: known.map(|k| k.0).collect(), targets: targets.map(|t| t.0).collect() }
    }

    /// All pairs of a user and a known item, of any part.
    pub fn pairs(&self) -> Vec<(u32, u32)> {
        let users = 0..self.users();
        let pairs = users.flat_map(|user| self.of(user).map(move |(item, _)| (user, item)));
        pairs.filter(|&(_, item)| item < self.known).collect()
    }
}
