//! The range of a group of values: its least value and its step, each a bfloat16.

use half::bf16;

/// Narrower ranges that are tried.
const NARROWER: usize = 24;

/// Least value and step of a group, two bfloat16 in a word.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub least: f32,
    pub step: f32,
}

impl Range {
    /// The range of `values` in `levels` steps; NaN where a value is not finite, so that it is not
    /// hidden.
    pub fn of(values: &[f32], levels: f32) -> Self {
        if values.iter().any(|x| !x.is_finite()) {
            return Self { least: f32::NAN, step: f32::NAN };
        }
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let least = -up(-least);
        Self { least, step: up((most - least) / levels) }
    }

    /// The range of least squared error among that of all values and narrower ones.
    pub fn best(values: &[f32], levels: f32) -> Self {
        let whole = Self::of(values, levels);
        let (middle, span) = (whole.least + 0.5 * levels * whole.step, levels * whole.step);
        let narrower = (1..NARROWER).map(|i| {
            let span = span * (1.0 - i as f32 / NARROWER as f32);
            let least = -up(-(middle - 0.5 * span));
            Self { least, step: up(span / levels) }
        });
        let mut best = (whole.lost(values, levels), whole);
        for range in narrower {
            let lost = range.lost(values, levels);
            if lost < best.0 {
                best = (lost, range);
            } else if lost > 2.0 * best.0 {
                break;
            }
        }
        best.1
    }

    /// A range a quarter wider than that of `values`.
    pub fn around(values: &[f32], levels: f32) -> Self {
        let tight = Self::of(values, levels);
        let slack = 0.125 * levels * tight.step;
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let least = -up(slack - tight.least);
        Self { least, step: up((most + slack - least) / levels) }
    }

    /// True where `values` lie in it, and fill half of it.
    pub fn suits(self, values: &[f32], levels: f32) -> bool {
        let most = self.least + levels * self.step;
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for &x in values {
            if !(x >= self.least && x <= most) {
                return false;
            }
            (low, high) = (low.min(x), high.max(x));
        }
        high - low >= 0.5 * (most - self.least)
    }

    /// The sum of squared errors.
    pub fn lost(self, values: &[f32], levels: f32) -> f32 {
        let square = |x: &f32| (self.decode(self.encode(*x, levels)) - x).powi(2);
        values.iter().map(square).sum()
    }

    pub fn pack(self) -> u32 {
        let half = |x: f32| u32::from(bf16::from_f32(x).to_bits());
        half(self.least) << 16 | half(self.step)
    }

    pub fn unpack(word: u32) -> Self {
        let half = |bits: u32| bf16::from_bits(bits as u16).to_f32();
        Self { least: half(word >> 16), step: half(word) }
    }

    pub fn encode(self, x: f32, levels: f32) -> u32 {
        // Without a step all values are the least one.
        if self.step > 0.0 { ((x - self.least) / self.step).round().min(levels) as u32 } else { 0 }
    }

    pub fn decode(self, code: u32) -> f32 {
        self.least + code as f32 * self.step
    }
}

/// The least bfloat16 that is not below `x`.
fn up(x: f32) -> f32 {
    let near = bf16::from_f32(x);
    if near.to_f32() >= x {
        return near.to_f32();
    }
    // The next one: towards zero for negative numbers.
    let bits = near.to_bits();
    bf16::from_bits(if x < 0.0 { bits - 1 } else { bits + 1 }).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_is_the_next_bfloat16() {
        for x in [0.0, 1.0, 1.0001, -1.0001, 0.3, -0.3, 1e-30, -1e-30, 3e-39, 7e7, -7e7] {
            let above = up(x);
            assert!(above >= x && above - x <= x.abs() / 128.0 + 1e-40, "{x} {above}");
            assert_eq!(up(above), above);
        }
    }
}
