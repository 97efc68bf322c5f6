//! Losses on logits: the mean over the batch, and its gradient.

use crate::linalg::vectorised;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A training loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Binary cross-entropy; one logit an example, labels 0 or 1.
    Bce,
    /// Cross-entropy over classes; `outputs` logits an example, the label is the class.
    Softmax,
}

/// σ(x), stable at both ends.
pub fn sigmoid(x: f32) -> f32 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// −ln σ(±x) of one example: ln(1 + eˣ) − label·x, stable.
pub fn bce(logit: f32, label: f32) -> f64 {
    let x = f64::from(logit);
    x.max(0.0) - f64::from(label) * x + (-x.abs()).exp().ln_1p()
}

/// Logits whose exponentials are summed in single precision: sums of more go on in double.
const BLOCK: usize = 256;
/// Exponentials from which on threads pay.
const PARALLEL_WORK: usize = 1 << 16;
/// Most parts of a batch.
const PARTS: usize = 8;

/// eˣ to two units in the last place, for x in [−87, 88], to which it is clamped. A loop of it
/// vectorises, unlike one of [`f32::exp`].
#[inline(always)]
fn exp(x: f32) -> f32 {
    // eˣ = 2ⁿ eʳ with |r| ≤ ln 2 / 2 (Cody and Waite), and a polynomial for eʳ (Cephes). Adding
    // 1.5 · 2²³ rounds to an integer, which then lies in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    (p * r * r + r + 1.0) * f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23)
}

/// The largest logit.
#[inline(always)]
fn top(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for logits in logits.chunks(16) {
        for (lane, &x) in lanes.iter_mut().zip(logits) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Writes e^(x − top) of a block; returns the sum.
#[inline(always)]
fn exps(logits: &[f32], top: f32, out: &mut [f32]) -> f64 {
    let mut lanes = [0.0f32; 16];
    for (logits, out) in logits.chunks(16).zip(out.chunks_mut(16)) {
        for ((lane, &x), out) in lanes.iter_mut().zip(logits).zip(out) {
            *out = exp(x - top);
            *lane += *out;
        }
    }
    f64::from(lanes.iter().sum::<f32>())
}

/// −ln softmax(logits)[class] of one example.
pub fn cross_entropy(logits: &[f32], class: usize) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let (top, mut out) = (top(logits), [0.0; BLOCK]);
            let blocks = logits.chunks(BLOCK);
            let sum: f64 = blocks.map(|x| exps(x, top, &mut out[..x.len()])).sum();
            sum.ln() - f64::from(logits[class] - top)
        },
    )
}

impl Loss {
    /// The mean loss of logits [B × outputs]; writes its gradient into `dout`.
    pub fn forward(self, logits: &[f32], labels: &[f32], dout: &mut [f32]) -> f64 {
        let scale = 1.0 / labels.len() as f32;
        let outputs = logits.len() / labels.len();
        let sum = match self {
            Loss::Bce => {
                let mut sum = 0.0;
                for ((&logit, dout), &label) in logits.iter().zip(dout).zip(labels) {
                    sum += bce(logit, label);
                    *dout = (sigmoid(logit) - label) * scale;
                }
                sum
            }
            Loss::Softmax => {
                let of = |((logits, dout), labels): ((&[f32], &mut [f32]), &[f32])| {
                    let examples = logits.chunks_exact(outputs).zip(dout.chunks_exact_mut(outputs));
                    let loss = |((logits, dout), &label): ((&[f32], &mut [f32]), &f32)| {
                        softmax(logits, label as usize, scale, dout)
                    };
                    examples.zip(labels).map(loss).sum::<f64>()
                };
                if logits.len() < PARALLEL_WORK {
                    of(((logits, dout), labels))
                } else {
                    // As many parts for any number of threads, summed in order.
                    let (part, mut sums) = (labels.len().div_ceil(PARTS), [0.0; PARTS]);
                    let logits = logits.par_chunks(part * outputs);
                    let examples = logits.zip(dout.par_chunks_mut(part * outputs));
                    let parts = examples.zip(labels.par_chunks(part)).zip(&mut sums);
                    parts.for_each(|(part, sum)| *sum = of(part));
                    sums.iter().sum()
                }
            }
        };
        sum / labels.len() as f64
    }
}

/// The cross-entropy of one example, and its gradient times `scale`.
fn softmax(logits: &[f32], class: usize, scale: f32, dout: &mut [f32]) -> f64 {
    vectorised(
        #[inline(always)]
        || {
            let top = top(logits);
            let blocks = logits.chunks(BLOCK).zip(dout.chunks_mut(BLOCK));
            let total: f64 = blocks.map(|(logits, out)| exps(logits, top, out)).sum();
            let share = (f64::from(scale) / total) as f32;
            dout.iter_mut().for_each(|d| *d *= share);
            dout[class] -= scale;
            total.ln() - f64::from(logits[class] - top)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gradient against central differences.
    #[track_caller]
    fn check(loss: Loss, logits: &[f32], labels: &[f32], expect: f64) {
        let mut dout = vec![0.0; logits.len()];
        let value = loss.forward(logits, labels, &mut dout);
        assert!((value - expect).abs() < 1e-6, "{value}");
        for i in 0..logits.len() {
            let at = |delta: f32| {
                let mut moved = logits.to_vec();
                moved[i] += delta;
                loss.forward(&moved, labels, &mut vec![0.0; logits.len()])
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - f64::from(dout[i])).abs() < 1e-4, "{i}: {slope} {dout:?}");
        }
    }

    #[test]
    fn worked_numbers() {
        check(Loss::Bce, &[0.0, 2.0], &[1.0, 0.0], (2f64.ln() + (1.0 + 2f64.exp()).ln()) / 2.0);
        let three = (1.0 + 1f64.exp() + 2f64.exp()).ln();
        check(Loss::Softmax, &[0.0, 1.0, 2.0], &[1.0], three - 1.0);
        check(
            Loss::Softmax,
            &[0.0, 1.0, 2.0, 0.0, 0.0, 0.0],
            &[1.0, 2.0],
            (three - 1.0 + 3f64.ln()) / 2.0,
        );
    }

    #[test]
    fn exponentials_are_as_good_as_single_precision() {
        for i in -87_000..=88_000 {
            let x = i as f32 / 1000.0;
            let (exact, ours) = (f64::from(x).exp(), f64::from(exp(x)));
            assert!((ours / exact - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "{x}: {ours}");
        }
        assert!(exp(f32::NAN).is_nan() && exp(f32::NEG_INFINITY) < 1e-37);
    }

    /// Twenty thousand classes, on one thread and on several, against double precision.
    #[test]
    fn softmax_over_many_classes() {
        let (examples, classes) = (12, 20_001);
        let mut rng = crate::rng::Rng::stream(1, "softmax");
        let logits: Vec<f32> = (0..examples * classes).map(|_| rng.symmetric(12.0)).collect();
        let labels: Vec<f32> = (0..examples).map(|i| (i * 1000) as f32).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut dout = vec![0.0; logits.len()];
            let loss = pool.install(|| Loss::Softmax.forward(&logits, &labels, &mut dout));
            (loss, dout)
        };
        let (loss, dout) = run(1);
        assert!(run(2) == (loss, dout.clone()) && run(7) == (loss, dout.clone()));
        let mut expect = 0.0;
        for (i, logits) in logits.chunks(classes).enumerate() {
            let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
            let class = labels[i] as usize;
            expect += (total.ln() - f64::from(logits[class])) / examples as f64;
            for (c, &x) in logits.iter().enumerate() {
                let target = f64::from(u8::from(c == class));
                let grad = (f64::from(x).exp() / total - target) / examples as f64;
                assert!(
                    (f64::from(dout[i * classes + c]) - grad).abs() < 1e-6 * grad.abs() + 1e-12
                );
            }
        }
        assert!((loss - expect).abs() < 1e-6 * expect);
    }

    #[test]
    fn extreme_logits_stay_finite() {
        assert!((0.0..1e-80).contains(&bce(-200.0, 0.0)));
        assert_eq!(bce(200.0, 0.0), 200.0);
        assert_eq!(sigmoid(-200.0), 0.0);
        assert_eq!(cross_entropy(&[1e30, 0.0], 0), 0.0);
    }
}
