//! Hash families that map ids to rows.
//!
//! `mix64` is the default. `mod` is the MEmCom paper's `i mod m` on ids in frequency order, where
//! the m most frequent ids never share a row. `poly31` is the CCE reference's family, kept for
//! side-by-side runs: it has no additive term, so id 0 always lands in row 0.

use crate::linalg::vectorised;
use crate::rng::Rng;
use crate::state::{State, TensorMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use embc_device::{mix64, scaled};

/// The hash of a block of an id's embedding.
#[inline(always)]
pub fn of_block(id: u32, key: u64, block: usize) -> u64 {
    mix64(mix64(u64::from(id) ^ key) ^ block as u64)
}

/// Which family maps an id to a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HashFamily {
    /// A keyed 64-bit mixer, then a multiply-shift to the range.
    #[default]
    Mix64,
    /// `id mod rows`, on ids in frequency order.
    Mod,
    /// `(c · id mod 2³¹−1) mod rows`, c uniform in [1, 2³⁰).
    Poly31,
}

/// One hash function, drawn from a family.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    family: HashFamily,
    key: u64,
    rows: u64,
}

impl Hash {
    /// Draws a function to `0..rows`; `rows` must be positive.
    pub fn draw(family: HashFamily, rows: u32, rng: &mut Rng) -> Self {
        let key = match family {
            HashFamily::Mix64 => rng.bits(),
            HashFamily::Mod => 0,
            HashFamily::Poly31 => 1 + rng.below((1 << 30) - 1),
        };
        Self { family, key, rows: u64::from(rows) }
    }

    /// The family, its key and the rows.
    pub fn parts(&self) -> (HashFamily, u64, u64) {
        (self.family, self.key, self.rows)
    }

    /// Walks the key, so that saved weights say which rows they are looked up in.
    pub fn state(&mut self, name: &str, visit: State<'_>) {
        visit(name, TensorMut::u64(std::slice::from_mut(&mut self.key)));
    }

    /// Replaces `rows` by the rows of `ids`.
    pub fn rows(&self, ids: &[u32], rows: &mut Vec<u32>) {
        rows.resize(ids.len(), 0);
        // One loop a family, which the compiler can unroll.
        match self.family {
            HashFamily::Mix64 => vectorised(
                #[inline(always)]
                || rows.iter_mut().zip(ids).for_each(|(row, &id)| *row = self.mixed(id)),
            ),
            _ => rows.iter_mut().zip(ids).for_each(|(row, &id)| *row = self.row(id)),
        }
    }

    #[inline(always)]
    fn mixed(&self, id: u32) -> u32 {
        scaled(mix64(u64::from(id) ^ self.key), self.rows)
    }

    /// The row of `id`.
    #[inline]
    pub fn row(&self, id: u32) -> u32 {
        match self.family {
            HashFamily::Mix64 => self.mixed(id),
            HashFamily::Mod => (u64::from(id) % self.rows) as u32,
            HashFamily::Poly31 => (self.key * u64::from(id) % 0x7FFF_FFFF % self.rows) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn load(family: HashFamily) -> Vec<u32> {
        let hash = Hash::draw(family, 10, &mut Rng::stream(1, "hash"));
        let mut load = vec![0; 10];
        (0..10_000).for_each(|id| load[hash.row(id) as usize] += 1);
        load
    }

    #[test]
    fn scaled_is_the_high_half_of_the_product() {
        for i in 0..1000u64 {
            for size in [1, 7, 1 << 20, u64::from(u32::MAX), 1 << 32] {
                let hash = mix64(i);
                let high = (u128::from(hash) * u128::from(size)) >> 64;
                assert_eq!(u128::from(scaled(hash, size)), high);
            }
        }
        assert_eq!(scaled(u64::MAX, 1 << 32), u32::MAX);
    }

    #[test]
    fn every_family_fills_its_range_evenly() {
        assert!(load(HashFamily::Mod).iter().all(|&n| n == 1000));
        // Binomial(10,000, 0.1) has deviation 30; poly31 is more even than random.
        assert!(load(HashFamily::Mix64).iter().all(|&n| n.abs_diff(1000) < 150));
        assert!(load(HashFamily::Poly31).iter().all(|&n| n.abs_diff(1000) < 150));
    }

    #[test]
    fn poly31_sends_id_0_to_row_0_as_the_reference_does() {
        let mut rng = Rng::stream(1, "poly");
        assert!((0..100).all(|_| Hash::draw(HashFamily::Poly31, 97, &mut rng).row(0) == 0));
    }

    #[test]
    fn poly31_worked_number() {
        let hash = Hash { family: HashFamily::Poly31, key: 1 << 29, rows: 1000 };
        // 12 · 2²⁹ = 3 · 2³¹ = 3 modulo 2³¹−1.
        assert_eq!(hash.row(12), 3);
    }
}
