//! Minhashes and the cells that they pick (LMA, arXiv 2103.06124): two values share a component's
//! cell with probability J^p + (1 − J^p)/m, J the Jaccard similarity of the rows that hold them.
//!
//! `mix64` is ours and follows that law; the other families are those of published code, defects
//! included, for side-by-side runs.

use crate::hash::mix64;

/// How rows are permuted for a minhash, and minhashes mapped to cells.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// 64-bit mixing throughout.
    #[default]
    Mix64,
    /// Cubic polynomials of the row in wrapping arithmetic, modulo the sample; cells by a linear
    /// form of the minhashes, the same for every component. Frequent values collide at random.
    PaperPoly,
    /// Cubic polynomials modulo a prime, and everything modulo the sample at last: no more cells
    /// are ever used than the sample has rows.
    PaperUniversal,
    /// Mixing minhashes, but cells linear in signature and component, so that two values share
    /// either no cell by chance or about all of them.
    Linear,
}

/// The published families' modulus for coefficients: the millionth prime.
const PRIME: u64 = 15_485_863;
/// The modulus of linear cells.
const LINEAR_PRIME: u64 = 2_038_074_743;

/// Where the components of a value live: a function of its parameters alone.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// How minhashes are made and mapped.
    pub family: Family,
    /// Components of a value.
    pub dim: usize,
    /// Minhashes a component.
    pub power: usize,
    /// What the functions are drawn from.
    pub key: u64,
    /// Cells of the memory, m.
    pub cells: u64,
    /// Rows sampled, the range of the published families' minhashes.
    pub range: u64,
}

/// The probability that two values share a component: J^p + (1 − J^p)/m (LMA, Theorem 1).
pub fn law(jaccard: f64, power: usize, cells: u64) -> f64 {
    let together = jaccard.powi(power as i32);
    together + (1.0 - together) / cells as f64
}

impl Places {
    /// The cell of each component of a value that `rows` hold, [dim].
    pub fn seen(&self, rows: &[u32]) -> Vec<u32> {
        (0..self.dim).map(|i| self.cell(i, rows)).collect()
    }

    /// The cell of component `i` of a value that the sample does not hold.
    #[inline]
    pub fn unseen(&self, id: u32, i: usize) -> u32 {
        let of_id = mix64(u64::from(id) ^ self.key);
        match self.family {
            Family::Mix64 => self.scale(mix64(of_id ^ i as u64)),
            Family::Linear => self.linear(id.into(), i),
            // A row id at random, two beyond the sample included, as published.
            _ => self.cell(i, &[((u128::from(of_id) * u128::from(self.range + 2)) >> 64) as u32]),
        }
    }

    /// The cell that the minhashes of `rows` pick for component `i`.
    fn cell(&self, i: usize, rows: &[u32]) -> u32 {
        let minhashes = (0..self.power).map(|k| self.minhash(i * self.power + k, rows));
        match self.family {
            Family::Mix64 | Family::Linear => {
                let signature = minhashes.fold(self.key, |folded, m| mix64(folded ^ m));
                match self.family {
                    // The component takes part, so that two values that share one do not share
                    // the next.
                    Family::Mix64 => self.scale(mix64(signature ^ i as u64)),
                    _ => self.linear(signature % LINEAR_PRIME, i),
                }
            }
            Family::PaperPoly => {
                let sum: u64 = (0..).zip(minhashes).map(|(k, m)| (1 + self.outer(k)) * m).sum();
                (sum % self.cells) as u32
            }
            Family::PaperUniversal => {
                let sum: u64 = (0..).zip(minhashes).map(|(k, m)| (1 + self.outer(k)) * m).sum();
                ((sum + self.outer(self.power as u64)) % PRIME % self.range % self.cells) as u32
            }
        }
    }

    /// The least image of `rows` under the `j`th permutation.
    fn minhash(&self, j: usize, rows: &[u32]) -> u64 {
        let seed = mix64(self.key ^ (j as u64 + 1));
        let c = [1, 2, 3, 4].map(|n| mix64(seed ^ n) % PRIME);
        let x = |row: u32| u64::from(row) + 1;
        let image = |row: &u32| match self.family {
            Family::Mix64 | Family::Linear => mix64(u64::from(*row) ^ seed),
            Family::PaperPoly => {
                let x = x(*row);
                let cubic = [x, x * x, x.wrapping_mul(x * x)];
                let sum = c
                    .iter()
                    .zip(cubic)
                    .fold(0, |sum: u64, (c, x)| sum.wrapping_add(c.wrapping_mul(x)));
                (sum as i64).rem_euclid(self.range as i64) as u64
            }
            Family::PaperUniversal => {
                let x = x(*row) % PRIME;
                // Horner's rule, below 2⁴⁸ throughout.
                let cubic = ((c[2] * x + c[1]) % PRIME * x + c[0]) % PRIME * x + c[3];
                cubic % PRIME % self.range
            }
        };
        rows.iter().map(image).min().unwrap_or(0)
    }

    /// Coefficient `k` of the published linear forms, below the prime.
    fn outer(&self, k: u64) -> u64 {
        mix64(!self.key ^ k) % (PRIME - 1)
    }

    fn scale(&self, hash: u64) -> u32 {
        ((u128::from(hash) * u128::from(self.cells)) >> 64) as u32
    }

    /// ((a·x + b·i + c) mod P) mod cells.
    fn linear(&self, x: u64, i: usize) -> u32 {
        let [a, b, c] = [1, 2, 3].map(|n| mix64(self.key ^ n) % LINEAR_PRIME);
        let sum = u128::from(a) * u128::from(x) + u128::from(b) * i as u128 + u128::from(c);
        (sum % u128::from(LINEAR_PRIME) % u128::from(self.cells)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// Two sets of `size` rows of Jaccard similarity near `wanted`, and the one they really have.
    fn sets(size: u32, wanted: f64) -> (Vec<u32>, Vec<u32>, f64) {
        let common = (f64::from(size) * 2.0 * wanted / (1.0 + wanted)).round() as u32;
        let a: Vec<u32> = (0..size).collect();
        let b: Vec<u32> = (size - common..2 * size - common).collect();
        let jaccard = f64::from(common) / f64::from(2 * size - common);
        (a, b, jaccard)
    }

    fn places(family: Family, dim: usize, power: usize, cells: u64, key: u64) -> Places {
        Places { family, dim, power, key: mix64(key + 1), cells, range: 125_000 }
    }

    /// Components of equal place, over `keys` draws of the functions.
    fn shared(family: Family, a: &[u32], b: &[u32], dim: usize, power: usize, keys: u64) -> usize {
        let equal = |key| {
            let places = places(family, dim, power, 1 << 24, key);
            places.seen(a).iter().zip(places.seen(b)).filter(|(a, b)| **a == *b).count()
        };
        (0..keys).map(equal).sum()
    }

    /// The share of equal slots follows J^p + (1 − J^p)/m within three standard errors.
    #[track_caller]
    fn check(size: u32, wanted: f64, power: usize) {
        let (a, b, jaccard) = sets(size, wanted);
        let (dim, keys) = (64, 40);
        let n = (dim as u64 * keys) as f64;
        let expect = law(jaccard, power, 1 << 24);
        let slack = 3.0 * (expect * (1.0 - expect) / n).sqrt() + 1.0 / n;
        let share = shared(Family::Mix64, &a, &b, dim, power, keys) as f64 / n;
        assert!((share - expect).abs() <= slack, "J {jaccard} p {power}: {share}, not {expect}");
    }

    #[test]
    fn collisions_follow_the_jaccard_similarity() {
        for power in [1, 2, 4] {
            for wanted in [0.0, 0.1, 0.3, 0.5, 0.8, 1.0] {
                for size in [1, 10, 1000] {
                    check(size, wanted, power);
                }
            }
        }
    }

    #[test]
    fn large_disjoint_sets_share_with_the_published_polynomials_only() {
        // Sets drawn from the sample, as frequent values are.
        let mut sample: Vec<u32> = (0..125_000).collect();
        Rng::stream(1, "sample").shuffle(&mut sample);
        let (a, b) = (&sample[..60_000], &sample[60_000..120_000]);
        let share = |family| shared(family, a, b, 256, 2, 4) as f64 / 1024.0;
        assert!(share(Family::Mix64) < 0.001);
        let poly = share(Family::PaperPoly);
        assert!((0.25..0.35).contains(&poly), "{poly}");
        let universal = share(Family::PaperUniversal);
        assert!((0.03..0.1).contains(&universal), "{universal}");
    }

    #[test]
    fn the_published_universal_hash_uses_no_more_cells_than_the_sample_has_rows() {
        let used = |family| {
            let places = places(family, 16, 2, 33_762_577, 1);
            let mut used = vec![false; 33_762_577];
            for id in 0..300_000 {
                (0..16).for_each(|i| used[places.unseen(id, i) as usize] = true);
            }
            used.iter().filter(|used| **used).count()
        };
        assert!(used(Family::PaperUniversal) <= 125_000);
        // 4.8 M places; the published fake rows repeat.
        assert!(used(Family::PaperPoly) > 1_500_000);
        assert!(used(Family::Mix64) > 4_400_000);
    }

    #[test]
    fn collisions_of_a_linear_hash_come_in_clumps() {
        // Of 20 M random pairs: the mean of equal components, where any is equal.
        let clump = |family| {
            let places = places(family, 16, 2, 500_000, 7);
            let mut rng = Rng::stream(2, "pairs");
            let (mut pairs, mut components) = (0, 0);
            for _ in 0..20_000_000 {
                let (a, b) = (rng.bits() as u32, rng.bits() as u32);
                let equal = |i: &usize| places.unseen(a, *i) == places.unseen(b, *i);
                let equal = (0..16).filter(equal).count();
                pairs += usize::from(equal > 0);
                components += equal;
            }
            // 640 are expected.
            assert!((400..900).contains(&components), "{components}");
            components as f64 / pairs as f64
        };
        let linear = clump(Family::Linear);
        assert!((7.0..=11.0).contains(&linear), "{linear}");
        assert!(clump(Family::Mix64) < 1.01);
    }
}
