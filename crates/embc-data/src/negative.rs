//! What users had, and the one sampler of what they had not: negatives in training, candidates in
//! evaluation, of all models. Without replacement, and where fewer are left than asked for, all.

use crate::cache::Cache;
use embc_core::rng::Rng;

/// The items of every user over some parts of the data, by their numbers in the cache.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    offsets: Vec<u32>,
    items: Vec<u32>,
}

impl Seen {
    /// From (user, item) pairs, of `users` users.
    pub fn new(users: u32, mut pairs: Vec<(u32, u32)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        let mut offsets = vec![0; users as usize + 1];
        pairs.iter().for_each(|&(user, _)| offsets[user as usize + 1] += 1);
        for i in 1..offsets.len() {
            offsets[i] += offsets[i - 1];
        }
        Self { offsets, items: pairs.into_iter().map(|(_, item)| item).collect() }
    }

    /// The items of `user`, ascending.
    pub fn items(&self, user: u32) -> &[u32] {
        let [start, end] = [0, 1].map(|i| self.offsets[user as usize + i] as usize);
        &self.items[start..end]
    }
}

/// What is known when items are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upto {
    /// The training rows.
    Train,
    /// Validation too.
    Valid,
    /// All rows.
    Test,
}

/// What users had, part after part, and the items of a view.
#[derive(Debug, Default)]
pub(crate) struct Had {
    seen: [Seen; 3],
    /// The item in the cache of each known item of the view.
    item: Vec<u32>,
    /// The item of the view of each in the cache; unknown ones lie beyond `item`.
    remap: Vec<u32>,
}

impl Had {
    /// From the columns of users and items. `counts` says of a row whether the user had its item.
    pub fn new(
        cache: &Cache,
        [user, item]: [usize; 2],
        part: &[u8],
        remap: &[u32],
        known: u32,
        counts: impl Fn(u32) -> bool,
    ) -> Self {
        let (users, items) = (&cache.coded[&user].ids, &cache.coded[&item].ids);
        let distinct = cache.meta.columns[user].distinct;
        let upto = |most: u8| {
            let rows = (0..part.len() as u32).filter(|&row| part[row as usize] <= most);
            let pair = |row: u32| (users.id(row.into()), items.id(row.into()));
            Seen::new(distinct, rows.filter(|&row| counts(row)).map(pair).collect())
        };
        let mut back = vec![0; known as usize];
        for (cached, &view) in remap.iter().enumerate().filter(|(_, view)| **view < known) {
            back[view as usize] = cached as u32;
        }
        Self { seen: [0, 1, 2].map(upto), item: back, remap: remap.to_vec() }
    }

    /// Known items of the view.
    pub fn known(&self) -> u32 {
        self.item.len() as u32
    }

    /// True where a user had an item, known or not, by their numbers in the cache.
    pub fn holds(&self, upto: Upto, user: u32, item: u32) -> bool {
        self.seen[upto as usize].items(user).binary_search(&item).is_ok()
    }

    /// True where a user had a known item of the view.
    pub fn has(&self, upto: Upto, user: u32, item: u32) -> bool {
        self.holds(upto, user, self.item[item as usize])
    }

    /// The known items that a user had, ascending by their ids in the view.
    pub fn items(&self, upto: Upto, user: u32) -> Vec<u32> {
        let seen = self.seen[upto as usize].items(user).iter();
        let mut items: Vec<u32> = seen.map(|&item| self.remap[item as usize]).collect();
        items.retain(|&item| item < self.known());
        items.sort_unstable();
        items
    }

    /// The known items that a user has not had, ascending.
    pub fn unseen(&self, upto: Upto, user: u32) -> impl Iterator<Item = u32> {
        (0..self.known()).filter(move |&item| !self.has(upto, user, item))
    }

    /// How many those are.
    pub fn free(&self, upto: Upto, user: u32) -> u32 {
        let seen = self.seen[upto as usize].items(user).iter();
        let known = seen.filter(|&&item| self.remap[item as usize] < self.known()).count();
        self.known() - known as u32
    }

    /// `n` different items that a user has not had, in random order; all where there are no more.
    pub fn draw(&self, upto: Upto, user: u32, n: u32, rng: &mut Rng, out: &mut Vec<u32>) {
        out.clear();
        let free = self.free(upto, user);
        // Where most draws would fail: all of them, and a part at random.
        if u64::from(n) + u64::from(self.known() - free) > u64::from(self.known() / 2) || n > 256 {
            out.extend(self.unseen(upto, user));
            let n = n.min(free) as usize;
            for i in 0..n {
                let at = i + rng.below((out.len() - i) as u64) as usize;
                out.swap(i, at);
            }
            out.truncate(n);
            return;
        }
        while out.len() < n as usize {
            let item = rng.below(self.known().into()) as u32;
            if !self.has(upto, user, item) && !out.contains(&item) {
                out.push(item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn had(items: u32, pairs: Vec<(u32, u32)>) -> Had {
        let seen = [0, 1, 2].map(|_| Seen::new(3, pairs.clone()));
        let all: Vec<u32> = (0..items).collect();
        Had { seen, item: all.clone(), remap: all }
    }

    #[test]
    fn draws_are_unseen_different_and_uniform() {
        let had = had(9, vec![(1, 4), (1, 2), (2, 0), (1, 4)]);
        assert_eq!(had.items(Upto::Train, 1), [2, 4]);
        for n in [1, 2, 5, 7, 99] {
            let mut counts = [0u32; 9];
            let (mut rng, mut drawn) = (Rng::stream(1, "negative"), Vec::new());
            for _ in 0..7000 {
                had.draw(Upto::Train, 1, n, &mut rng, &mut drawn);
                assert_eq!(drawn.len() as u32, n.min(7));
                drawn.iter().for_each(|&item| counts[item as usize] += 1);
                drawn.sort();
                drawn.dedup();
                assert_eq!(drawn.len() as u32, n.min(7), "each once");
            }
            assert_eq!((counts[2], counts[4]), (0, 0));
            let expect = 1000 * n.min(7);
            let close = |count: &&u32| count.abs_diff(expect) < expect / 8;
            assert_eq!(counts.iter().filter(close).count(), 7, "{n}: {counts:?}");
        }
    }

    #[test]
    fn nothing_is_drawn_where_all_is_had() {
        let had = had(10, (0..10).map(|item| (0, item)).collect());
        let (mut rng, mut drawn) = (Rng::stream(1, "negative"), vec![3]);
        had.draw(Upto::Test, 0, 4, &mut rng, &mut drawn);
        assert!(drawn.is_empty());
        had.draw(Upto::Test, 1, 2000, &mut rng, &mut drawn);
        assert_eq!(drawn.len(), 10);
    }
}
