//! Tensors as they lie in the file: floats, codes with ranges, or packed integers. Rows are decoded
//! where they are read; a table is never decoded as a whole.

use crate::bytes::{Field, Read, record};
use crate::{Error, wrong};

/// How a tensor's values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// 32-bit floats.
    Float,
    /// IEEE half precision.
    Half,
    /// Codes of 8, 4 or 2 bits; `group` of them share a least value and a step, each a bfloat16.
    Levels {
        /// Of a code.
        bits: u8,
        /// Codes that share a range.
        group: u32,
    },
    /// Integers of up to 32 bits in words of 64; none straddles two words.
    Packed {
        /// Of an integer.
        bits: u8,
    },
}

/// A tensor [rows × width].
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// For people.
    pub name: String,
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub width: u32,
    /// How values are stored.
    pub stored: Stored,
    /// Place of the first value in its blob, which tensors may share.
    pub first: u64,
    /// The blob of the values.
    pub values: u32,
    /// The blob of the ranges, where there are any.
    pub ranges: Option<u32>,
}

impl Field for Stored {
    fn put(&self, out: &mut Vec<u8>) {
        let (code, bits, group) = match *self {
            Stored::Float => (0, 32, 0),
            Stored::Half => (1, 16, 0),
            Stored::Levels { bits, group } => (2, bits, group),
            Stored::Packed { bits } => (3, bits, 0),
        };
        out.extend([code, bits]);
        group.put(out);
    }
    fn get(from: &mut Read<'_>) -> Result<Self, Error> {
        match (u8::get(from)?, u8::get(from)?, u32::get(from)?) {
            (0, 32, 0) => Ok(Stored::Float),
            (1, 16, 0) => Ok(Stored::Half),
            (2, bits @ (2 | 4 | 8), group @ 1..) => Ok(Stored::Levels { bits, group }),
            (3, bits @ 1..=32, 0) => Ok(Stored::Packed { bits }),
            _ => wrong("values of an unknown kind"),
        }
    }
}

record!(Tensor { name, rows, width, stored, first, values, ranges });

impl Tensor {
    /// True for floats, however they are stored.
    pub fn is_float(&self) -> bool {
        !matches!(self.stored, Stored::Packed { .. })
    }

    /// True for one row of plain floats of such a width.
    pub fn is_row(&self, width: u32) -> bool {
        self.stored == Stored::Float && self.rows == 1 && self.width == width
    }

    /// Checks that all its values lie in its blobs, of so many bytes.
    pub fn check(&self, blob: impl Fn(u32) -> Option<u64>) -> Result<(), Error> {
        let needed = || {
            let end = self.rows.checked_mul(self.width.into())?.checked_add(self.first)?;
            let (values, ranges) = match self.stored {
                Stored::Float => (end.checked_mul(4)?, 0),
                Stored::Half => (end.checked_mul(2)?, 0),
                Stored::Levels { bits, group } => {
                    let ranges = end.div_ceil(group.into()).checked_mul(4)?;
                    (end.checked_mul(bits.into())?.div_ceil(8), ranges)
                }
                Stored::Packed { bits } => (end.div_ceil(64 / u64::from(bits)).checked_mul(8)?, 0),
            };
            let ranged = self.ranges.map_or(Some(0), &blob)?;
            Some(values <= blob(self.values)? && ranges <= ranged)
        };
        match needed() {
            Some(true) if self.width > 0 => Ok(()),
            _ => wrong(format!("tensor {} lies outside its file", self.name)),
        }
    }
}

/// A tensor and its bytes.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What it is.
    pub tensor: &'a Tensor,
    /// Its blob of values.
    pub values: &'a [u8],
    /// Its blob of ranges.
    pub ranges: &'a [u8],
}

impl View<'_> {
    /// Decodes row `row` into `out` [width]; none where there is no such row.
    #[inline]
    pub fn floats(&self, row: u32, out: &mut [f32]) -> Option<()> {
        let at = self.start(row)?;
        match self.tensor.stored {
            Stored::Float => {
                let values = self.bytes(row)?.iter();
                out.iter_mut().zip(values).for_each(|(x, bytes)| *x = f32::from_le_bytes(*bytes));
            }
            Stored::Half => {
                let bytes = self.values.get(2 * at..2 * (at + out.len()))?;
                let values = bytes.as_chunks().0.iter();
                out.iter_mut().zip(values).for_each(|(x, b)| *x = half(u16::from_le_bytes(*b)));
            }
            Stored::Levels { bits: 8, group } => self.levels::<8>(at, group, out)?,
            Stored::Levels { bits: 4, group } => self.levels::<4>(at, group, out)?,
            Stored::Levels { group, .. } => self.levels::<2>(at, group, out)?,
            Stored::Packed { .. } => return None,
        }
        Some(())
    }

    /// The bytes of all plain floats, row after row.
    pub fn all(&self) -> Option<&[[u8; 4]]> {
        let (first, values) = (self.tensor.first as usize, self.tensor.rows as usize);
        let values = values * self.tensor.width as usize;
        Some(self.values.get(4 * first..4 * (first + values))?.as_chunks().0)
    }

    /// The bytes of row `row` of plain floats.
    #[inline]
    pub fn bytes(&self, row: u32) -> Option<&[[u8; 4]]> {
        let (at, width) = (self.start(row)?, self.tensor.width as usize);
        Some(self.values.get(4 * at..4 * (at + width))?.as_chunks().0)
    }

    /// The place of a row's first value.
    #[inline]
    fn start(&self, row: u32) -> Option<usize> {
        let inside = u64::from(row) < self.tensor.rows;
        let at = || u64::from(row) * u64::from(self.tensor.width) + self.tensor.first;
        inside.then(|| at() as usize)
    }

    /// Codes from the `at`th on, group by group.
    #[inline]
    fn levels<const BITS: usize>(&self, at: usize, group: u32, out: &mut [f32]) -> Option<()> {
        let (group, per_byte) = (group as usize, 8 / BITS);
        // Groups are mostly powers of two, and a division takes longer than a short row.
        let (mut range, inside) = match group.is_power_of_two() {
            true => (at >> group.trailing_zeros(), at & (group - 1)),
            false => (at / group, at % group),
        };
        let mut left = group - inside;
        let (mut at, mut out) = (at, out);
        while !out.is_empty() {
            let (now, rest) = out.split_at_mut(left.min(out.len()));
            let (least, step) = self.range(range)?;
            let value = |code: u8| least + f32::from(code) * step;
            let codes = self.values.get(at / per_byte..(at + now.len()).div_ceil(per_byte))?;
            if BITS == 8 {
                now.iter_mut().zip(codes).for_each(|(x, &code)| *x = value(code));
            } else {
                let first = at % per_byte;
                for (i, x) in (first..).zip(now.iter_mut()) {
                    let code = codes[i / per_byte] >> (i % per_byte * BITS);
                    *x = value(code & ((1 << BITS) - 1));
                }
            }
            at += now.len();
            (range, left, out) = (range + 1, group, rest);
        }
        Some(())
    }

    /// The least value and the step of a group.
    #[inline]
    fn range(&self, group: usize) -> Option<(f32, f32)> {
        let bytes = self.ranges.get(4 * group..4 * group + 4)?;
        let word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        Some((f32::from_bits(word & 0xFFFF_0000), f32::from_bits(word << 16)))
    }

    /// Row `row` of packed integers into `out` [width]; none where there is no such row.
    #[inline]
    pub fn ints(&self, row: u32, out: &mut [u32]) -> Option<()> {
        let Stored::Packed { bits } = self.tensor.stored else { return None };
        let (at, bits) = (self.start(row)?, usize::from(bits));
        let per_word = 64 / bits;
        let (mut word, mut place) = (at / per_word, at % per_word);
        for x in out {
            let bytes = self.values.get(8 * word..8 * word + 8)?;
            let bytes = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            *x = (bytes >> (place * bits) & (u64::MAX >> (64 - bits))) as u32;
            place += 1;
            if place == per_word {
                (word, place) = (word + 1, 0);
            }
        }
        Some(())
    }
}

/// IEEE half precision to single, exactly.
#[inline]
fn half(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let rest = u32::from(bits & 0x7FFF);
    let size = match rest {
        // Infinity and NaN keep their payload.
        0x7C00.. => 0x7F80_0000 | (rest & 0x3FF) << 13,
        0x400.. => (rest << 13) + (112 << 23),
        // Multiples of 2⁻²⁴.
        _ => (rest as f32 * f32::from_bits(103 << 23)).to_bits(),
    };
    f32::from_bits(sign | size)
}

#[cfg(test)]
mod tests {
    #[test]
    fn halves_are_exact() {
        for (bits, value) in [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x0001, 2f32.powi(-24)),
            (0x03FF, 1023.0 * 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x7BFF, 65504.0),
            (0x8000, -0.0),
            (0xFC00, f32::NEG_INFINITY),
        ] {
            assert_eq!(super::half(bits).to_bits(), f32::to_bits(value), "{bits:x}");
        }
        assert!(super::half(0x7E00).is_nan());
    }
}
