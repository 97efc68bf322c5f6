//! Pointers and codes, packed at the fewest bits that hold them.

use crate::state::TensorMut;

/// Integers below a bound, packed into 64-bit words; none straddles two words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    bits: u32,
    /// ⌈2⁶⁴ / integers a word⌉: a multiplication instead of a division finds the word.
    inverse: u64,
    words: Vec<u64>,
}

/// Bits that hold all integers below `bound`.
fn bits(bound: u64) -> u32 {
    (64 - bound.saturating_sub(1).leading_zeros()).max(1)
}

impl Packed {
    /// Bytes of `len` integers below `bound`.
    pub fn bytes(len: u64, bound: u64) -> u64 {
        8 * len.div_ceil(u64::from(64 / bits(bound)))
    }

    /// `len` zeros, with room for integers below `bound`.
    pub fn zeros(len: u64, bound: u64) -> Self {
        let bits = bits(bound);
        assert!(bits <= 32 && len < 1 << 48, "two integers a word, and exact division");
        let inverse = u64::MAX / u64::from(64 / bits) + 1;
        Self { bits, inverse, words: vec![0; (Self::bytes(len, bound) / 8) as usize] }
    }

    /// True if it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    #[inline]
    fn place(&self, at: usize) -> (usize, u32, u64) {
        // Exact below 2⁴⁸: the inverse is off by less than 1.
        let word = ((at as u128 * u128::from(self.inverse)) >> 64) as usize;
        let shift =
            (at as u32).wrapping_sub((word as u32).wrapping_mul(64 / self.bits)) * self.bits;
        (word, shift, u64::MAX >> (64 - self.bits))
    }

    /// The integer at `at`.
    #[inline]
    pub fn get(&self, at: usize) -> u32 {
        let (word, shift, mask) = self.place(at);
        (self.words[word] >> shift & mask) as u32
    }

    /// Replaces the integer at `at`.
    #[inline]
    pub fn set(&mut self, at: usize, value: u32) {
        let (word, shift, mask) = self.place(at);
        self.words[word] = self.words[word] & !(mask << shift) | u64::from(value) << shift;
    }

    /// Bits of an integer.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The words.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words, for checkpoints.
    pub fn tensor(&mut self) -> TensorMut<'_> {
        TensorMut::u64(&mut self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip_at_every_width() {
        for bound in [1u64, 2, 3, 16, 17, 1000, 1 << 16, 1 << 31, 1 << 32] {
            let value = |i: u64| (crate::hash::mix64(i) % bound) as u32;
            let mut packed = Packed::zeros(200, bound);
            (0..200).for_each(|i| packed.set(i, value(i as u64)));
            (0..200).rev().for_each(|i| packed.set(i, value(i as u64 + 7)));
            assert!((0..200).all(|i| packed.get(i) == value(i as u64 + 7)), "{bound}");
        }
        // The word of a place far out, at every number of integers a word.
        for bits in 1..=32 {
            let packed = Packed::zeros(1, 1 << bits);
            let per_word = (64 / bits) as usize;
            for at in [(1 << 48) - 1, (1 << 40) / per_word * per_word, (1 << 40) * 63 - 1] {
                let (word, shift, _) = packed.place(at);
                let expect = (at / per_word, (at % per_word) as u32 * bits as u32);
                assert_eq!((word, shift), expect, "{bits} bits at {at}");
            }
        }
        assert_eq!(Packed::bytes(200, 16), 8 * 13);
        assert_eq!(Packed::bytes(64, 2), 8);
    }
}
