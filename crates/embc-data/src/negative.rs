//! Implicit feedback: which pairs are known, and sampled items that are not.

use embc_core::rng::Rng;

/// The items of every user, sorted, over some parts of the data.
#[derive(Debug, Default)]
pub struct Seen {
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

    /// An item below `vocab` that `user` has not seen; where there is none, any item.
    pub fn unseen(&self, user: u32, vocab: u32, rng: &mut Rng) -> u32 {
        let seen = self.items(user);
        let draw = rng.below(vocab.into()) as u32;
        let mut item = draw;
        for _ in 0..32 {
            if seen.binary_search(&item).is_err() {
                return item;
            }
            item = rng.below(vocab.into()) as u32;
        }
        // Nearly everything is seen: walk on from the first draw.
        let next = (0..vocab).map(|i| ((u64::from(draw) + u64::from(i)) % u64::from(vocab)) as u32);
        next.into_iter().find(|item| seen.binary_search(item).is_err()).unwrap_or(draw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negatives_are_unseen_and_uniform() {
        let seen = Seen::new(3, vec![(1, 4), (1, 2), (2, 0), (1, 4)]);
        assert!(seen.items(0).is_empty());
        assert_eq!(seen.items(1), [2, 4]);
        let mut counts = [0; 5];
        let mut rng = Rng::stream(1, "negative");
        (0..3000).for_each(|_| counts[seen.unseen(1, 5, &mut rng) as usize] += 1);
        assert_eq!((counts[2], counts[4]), (0, 0));
        assert!([0, 1, 3].iter().all(|&i| (900..1100).contains(&counts[i])), "{counts:?}");
    }

    #[test]
    fn the_one_unseen_item_is_found_among_many() {
        let seen = Seen::new(1, (0..1000).filter(|&i| i != 700).map(|i| (0, i)).collect());
        let mut rng = Rng::stream(1, "negative");
        assert!((0..20).all(|_| seen.unseen(0, 1000, &mut rng) == 700));
        let all = Seen::new(1, (0..10).map(|i| (0, i)).collect());
        assert!(all.unseen(0, 10, &mut rng) < 10);
    }
}
