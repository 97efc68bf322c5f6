//! Named, counter-based random streams.
//!
//! Every consumer of randomness opens its own stream from the trial's seed and a name, so a new
//! consumer never shifts the numbers of an old one, and any value can be had from (seed, name,
//! counter) alone, whatever thread asks. The generator is SplitMix64 over a counter.

use crate::hash::mix64;
use rand::rand_core::{Infallible, TryRng, utils};

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A random stream: a key and a counter. Implements [`rand::Rng`].
#[derive(Clone, Debug)]
pub struct Rng {
    key: u64,
    counter: u64,
}

impl Rng {
    /// The stream `name` of `seed`, at its start.
    pub fn stream(seed: u64, name: &str) -> Self {
        let key = name.bytes().fold(mix64(seed ^ GOLDEN), |key, byte| mix64(key ^ u64::from(byte)));
        Self { key, counter: 0 }
    }

    /// A stream of its own for `index`: an example, a row, an epoch.
    pub fn fork(&self, index: u64) -> Self {
        let key = mix64(self.key ^ mix64(index.wrapping_add(GOLDEN)));
        Self { key, counter: 0 }
    }

    /// The next 64 uniform bits.
    pub fn bits(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        self.draw(self.counter)
    }

    /// The bits of the `n`th call of [`Rng::bits`] from the stream's start, counted from 0.
    #[inline(always)]
    pub fn at(&self, n: u64) -> u64 {
        self.draw(n.wrapping_add(1))
    }

    #[inline(always)]
    fn draw(&self, counter: u64) -> u64 {
        mix64(self.key.wrapping_add(counter.wrapping_mul(GOLDEN)))
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [-bound, bound), 24 bits.
    pub fn symmetric(&mut self, bound: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 * (1.0 / (1u32 << 24) as f32);
        (2.0 * unit - 1.0) * bound
    }

    /// Uniform in 0..n (Lemire's multiply-shift with rejection). `n` must be positive.
    pub fn below(&mut self, n: u64) -> u64 {
        loop {
            let wide = u128::from(self.bits()) * u128::from(n);
            if wide as u64 >= n.wrapping_neg() % n {
                return (wide >> 64) as u64;
            }
        }
    }

    /// A standard normal value (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

impl TryRng for Rng {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.bits() >> 32) as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.bits())
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        utils::fill_bytes_via_next_word(dst, || self.try_next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_independent_of_each_other_and_of_order() {
        let draw = |name| Rng::stream(7, name).bits();
        assert_eq!(draw("a"), draw("a"));
        assert_ne!(draw("a"), draw("b"));
        let root = Rng::stream(7, "a");
        assert_eq!(root.fork(3).bits(), root.fork(3).bits());
        assert_ne!(root.fork(3).bits(), root.fork(4).bits());
        let (mut rng, whole) = (root.clone(), root);
        (0..5).for_each(|n| assert_eq!(rng.bits(), whole.at(n)));
    }

    #[test]
    fn moments() {
        let mut rng = Rng::stream(1, "moments");
        let n = 100_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = rng.normal();
            sum += x;
            squares += x * x;
        }
        assert!((sum / n as f64).abs() < 0.01);
        assert!((squares / n as f64 - 1.0).abs() < 0.02);
        let mean = (0..n).map(|_| rng.below(10)).sum::<u64>() as f64 / n as f64;
        assert!((mean - 4.5).abs() < 0.05);
        assert!((0..n).map(|_| rng.symmetric(0.5)).all(|x| (-0.5..0.5).contains(&x)));
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..1000).collect();
        Rng::stream(1, "s").shuffle(&mut items);
        assert_ne!(items[..10], (0..10).collect::<Vec<_>>()[..]);
        items.sort_unstable();
        assert!(items.iter().enumerate().all(|(i, &x)| i as u32 == x));
    }
}
