//! Users' items in order, for models that read a history: each item once, where it first occurs.

use crate::cache::Cache;
use crate::split::{DROPPED, TEST, TRAIN, VALID};
use embc_core::batch::Split;
use embc_core::param::IdSet;

/// The items of every user of a data set, by the user's id in the cache.
#[derive(Default)]
pub(crate) struct Histories {
    /// All items in time order, ties in file order, and the part of each.
    all: Lists,
    parts: Vec<u8>,
    /// Those of training that the vocabulary knows.
    train: Lists,
    /// Ids from here on are not known.
    known: u32,
    /// Rows of an item that the user already had.
    pub repeats: Vec<u32>,
    /// Items left out because the user had them before, though not as positives.
    pub left_out: u64,
    /// Where each item comes first in training, or else anywhere; none where it does not occur.
    first: Vec<u32>,
}

/// A list of items for each user.
#[derive(Default)]
struct Lists {
    /// Where each user's items begin, [users + 1].
    offsets: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    fn range(&self, user: u32) -> std::ops::Range<usize> {
        self.offsets[user as usize] as usize..self.offsets[user as usize + 1] as usize
    }
}

/// The items that a query is about, and those that the user is known to have.
pub(crate) struct Held {
    /// In time order.
    pub known: Vec<u32>,
    /// Those to find.
    pub targets: Vec<u32>,
}

impl Histories {
    /// From the columns of users and items and the rows that count. Items have their cache ids
    /// until [`Histories::rename`].
    pub fn new(
        cache: &Cache,
        [user, item]: [usize; 2],
        part: &[u8],
        positive: impl Fn(u32) -> bool,
    ) -> Self {
        let (users, items) = (&cache.coded[&user].ids, &cache.coded[&item].ids);
        let time = |row: u32| cache.time.as_ref().map_or(0, |time| time.time(row.into()));
        let counts = |row: &u32| part[*row as usize] != DROPPED && positive(*row);
        let mut rows: Vec<u32> = (0..part.len() as u32).filter(counts).collect();
        rows.sort_by_key(|&row| (users.id(row.into()), time(row)));
        let count = cache.meta.columns[user].distinct as usize;
        let (mut all, mut parts) =
            (Lists { offsets: vec![0; count + 1], ..Lists::default() }, Vec::new());
        let distinct = cache.meta.columns[item].distinct as usize;
        let (mut seen, mut repeats) = (IdSet::with_universe(distinct), Vec::new());
        let mut firsts = [vec![u32::MAX; distinct], vec![u32::MAX; distinct]];
        for rows in rows.chunk_by(|&a, &b| users.id(a.into()) == users.id(b.into())) {
            seen.clear();
            for &row in rows {
                let item = items.id(row.into());
                if !seen.insert(item).1 {
                    repeats.push(row);
                    continue;
                }
                all.items.push(item);
                parts.push(part[row as usize]);
                let held_out = usize::from(part[row as usize] != TRAIN);
                let first = &mut firsts[held_out][item as usize];
                *first = row.min(*first);
            }
            all.offsets[users.id(rows[0].into()) as usize + 1] = seen.ids().len() as u32;
        }
        for user in 0..count {
            all.offsets[user + 1] += all.offsets[user];
        }
        let [trains, held_out] = firsts;
        let first = |(train, other): (u32, u32)| if train == u32::MAX { other } else { train };
        let first = trains.into_iter().zip(held_out).map(first).collect();
        Self { all, parts, repeats, first, ..Self::default() }
    }

    /// How often training sees each of `items` items: in lists of more than one, since a lone item
    /// has nothing to predict it from; and those that occur, in the order in which they do first.
    pub fn counts(&self) -> (Vec<u32>, Vec<u32>) {
        let mut counts = vec![0; self.first.len()];
        for user in 0..self.users() {
            let range = self.all.range(user);
            let train = |&at: &usize| self.parts[at] == TRAIN;
            let several = range.clone().filter(train).count() > 1;
            for at in range {
                let item = self.all.items[at] as usize;
                counts[item] += u32::from(several && self.parts[at] == TRAIN);
            }
        }
        let first = |&item: &u32| self.first[item as usize];
        let mut order: Vec<u32> = (0..self.first.len() as u32).collect();
        order.retain(|item| first(item) != u32::MAX);
        order.sort_by_key(first);
        (counts, order)
    }

    /// Gives items the ids of a view, of which the first `known` are not the OOV id.
    pub fn rename(&mut self, remap: &[u32], known: u32) {
        self.all.items.iter_mut().for_each(|item| *item = remap[*item as usize]);
        (self.known, self.train) = (known, Lists { offsets: vec![0], items: Vec::new() });
        for user in 0..self.users() {
            let of = self.all.range(user).filter(|&at| self.parts[at] == TRAIN);
            self.train.items.extend(of.map(|at| self.all.items[at]).filter(|&item| item < known));
            self.train.offsets.push(self.train.items.len() as u32);
        }
    }

    /// Leaves out what a user had before, though not as a positive: an item rated low.
    pub fn leave_out(&mut self, had: impl Fn(Split, u32, u32) -> bool) {
        for user in 0..self.users() {
            for at in self.all.range(user) {
                let split = match self.parts[at] {
                    VALID => Split::Valid,
                    TEST => Split::Test,
                    _ => continue,
                };
                let item = self.all.items[at];
                if item < self.known && had(split, user, item) {
                    self.parts[at] = DROPPED;
                    self.left_out += 1;
                }
            }
        }
    }

    /// Ids below this are known items.
    pub fn known(&self) -> u32 {
        self.known
    }

    /// Number of users.
    pub fn users(&self) -> u32 {
        self.all.offsets.len() as u32 - 1
    }

    /// The known training items of a user, in time order.
    pub fn train(&self, user: u32) -> &[u32] {
        &self.train.items[self.train.range(user)]
    }

    /// The targets of a user in `split`; unknown ones have the OOV id.
    pub fn targets(&self, user: u32, split: Split) -> impl Iterator<Item = u32> {
        let wanted = part_of(split);
        self.all
            .range(user)
            .filter(move |&at| self.parts[at] == wanted)
            .map(|at| self.all.items[at])
    }

    /// What a query of `split` asks of a user.
    pub fn held(&self, user: u32, split: Split) -> Held {
        let wanted = part_of(split);
        let before = self.all.range(user).filter(|&at| self.parts[at] < wanted);
        let known = before.map(|at| self.all.items[at]).filter(|&item| item < self.known);
        Held { known: known.collect(), targets: self.targets(user, split).collect() }
    }
}

fn part_of(split: Split) -> u8 {
    match split {
        Split::Valid => VALID,
        Split::Test => TEST,
    }
}
