//! Losses on logits: the mean over the batch, and its gradient.

use crate::batch::{Bag, Batch};
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
    /// Cross-entropy over items, the mean over all targets of the batch: the likelihood of a
    /// multinomial (Liang et al. 2018).
    Multinomial,
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
pub(crate) fn exp(x: f32) -> f32 {
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

/// Turns a block into e^(x − top); returns the sum.
#[inline(always)]
fn exps(logits: &mut [f32], top: f32) -> f64 {
    let mut lanes = [0.0f32; 16];
    for logits in logits.chunks_mut(16) {
        for (lane, x) in lanes.iter_mut().zip(logits) {
            *x = exp(*x - top);
            *lane += *x;
        }
    }
    f64::from(lanes.iter().sum::<f32>())
}

/// −ln softmax(logits)[class] of one example, in double precision: for metrics.
pub fn cross_entropy(logits: &[f32], class: usize) -> f64 {
    let top = f64::from(top(logits));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - top).exp()).sum();
    sum.ln() - (f64::from(logits[class]) - top)
}

/// A sampled softmax: the same items, drawn uniformly, stand for all that are not an example's
/// targets. Its logits are [B × drawn], then one for each of the batch's targets.
#[derive(Clone, Copy)]
pub struct Sampled<'a> {
    /// Items drawn.
    pub drawn: usize,
    /// All items.
    pub vocab: usize,
    /// Which of the drawn items each target is; [`MISS`] where it is none.
    pub hits: &'a [u32],
}

/// A target that was not drawn.
pub const MISS: u32 = u32::MAX;

impl Loss {
    /// The mean loss of logits [B × outputs], or those of a sampled softmax, which become its
    /// gradient. An example's weight multiplies its loss; the mean is over examples all the same.
    pub fn forward(self, logits: &mut [f32], batch: &Batch, sampled: Option<Sampled<'_>>) -> f64 {
        let count = match self {
            Loss::Multinomial => batch.targets.ids.len().max(1),
            _ => batch.size,
        };
        let (scale, outputs) = (1.0 / count as f32, logits.len() / batch.size);
        let weight = |i: usize| batch.weights.get(i).copied().unwrap_or(1.0);
        let sum = match self {
            Loss::Bce => {
                let mut sum = 0.0;
                for (i, (logit, &label)) in logits.iter_mut().zip(&batch.labels).enumerate() {
                    sum += f64::from(weight(i)) * bce(*logit, label);
                    *logit = (sigmoid(*logit) - label) * (weight(i) * scale);
                }
                sum
            }
            Loss::Softmax => each(logits, outputs, |i, logits| {
                let class = [batch.labels[i] as u32];
                f64::from(weight(i)) * softmax(logits, &class, weight(i) * scale)
            }),
            Loss::Multinomial => match sampled {
                None => each(logits, outputs, |i, logits| {
                    softmax(logits, &batch.targets.ids[batch.targets.range(i)], scale)
                }),
                Some(sampled) => all_sampled(logits, &batch.targets, sampled, scale),
            },
        };
        sum / count as f64
    }
}

/// The sum of `loss(i, logits)` over examples.
fn each(logits: &mut [f32], outputs: usize, loss: impl Fn(usize, &mut [f32]) -> f64 + Sync) -> f64 {
    let examples = logits.len() / outputs;
    let of = |first: usize, logits: &mut [f32]| {
        let examples = logits.chunks_exact_mut(outputs).enumerate();
        examples.map(|(i, logits)| loss(first + i, logits)).sum::<f64>()
    };
    if logits.len() < PARALLEL_WORK {
        return of(0, logits);
    }
    // As many parts for any number of threads, summed in order.
    let (part, mut sums) = (examples.div_ceil(PARTS), [0.0; PARTS]);
    let parts = logits.par_chunks_mut(part * outputs).zip(&mut sums).enumerate();
    parts.for_each(|(p, (logits, sum))| *sum = of(p * part, logits));
    sums.iter().sum()
}

/// The cross-entropy of an example's targets, summed; logits become the gradient times `scale`.
fn softmax(logits: &mut [f32], targets: &[u32], scale: f32) -> f64 {
    if targets.is_empty() {
        logits.fill(0.0);
        return 0.0;
    }
    vectorised(
        #[inline(always)]
        || {
            let top = top(logits);
            let wanted: f64 = targets.iter().map(|&t| f64::from(logits[t as usize] - top)).sum();
            // A loop: what an adapter's closure calls would be compiled for the oldest machine.
            let mut total = 0.0;
            for block in logits.chunks_mut(BLOCK) {
                total += exps(block, top);
            }
            let n = targets.len() as f64;
            let share = (n * f64::from(scale) / total) as f32;
            logits.iter_mut().for_each(|d| *d *= share);
            targets.iter().for_each(|&t| logits[t as usize] -= scale);
            n * total.ln() - wanted
        },
    )
}

/// [`sampled_softmax`] of all examples.
fn all_sampled(logits: &mut [f32], targets: &Bag, sampled: Sampled<'_>, scale: f32) -> f64 {
    let (drawn, examples) = (sampled.drawn, targets.offsets.len() - 1);
    let (head, mut own) = logits.split_at_mut(examples * drawn);
    let part = examples.div_ceil(PARTS);
    let mut owns: [&mut [f32]; PARTS] = Default::default();
    let mut sums = [0.0; PARTS];
    for (p, piece) in owns.iter_mut().enumerate() {
        let [first, end] = [p, p + 1].map(|p| targets.offsets[(p * part).min(examples)]);
        (*piece, own) = own.split_at_mut((end - first) as usize);
    }
    let parts = head.par_chunks_mut(part * drawn).zip(&mut owns).zip(&mut sums).enumerate();
    parts.for_each(|(p, ((head, own), sum))| {
        let mut own = &mut own[..];
        for (i, head) in head.chunks_exact_mut(drawn).enumerate() {
            let range = targets.range(p * part + i);
            let (mine, rest) = std::mem::take(&mut own).split_at_mut(range.len());
            *sum += sampled_softmax(head, mine, &sampled.hits[range], sampled.vocab, scale);
            own = rest;
        }
    });
    sums.iter().sum()
}

/// [`softmax`] of the logits of an example's `own` targets, and of drawn items that stand for all
/// others; `hits` are targets among these.
fn sampled_softmax(
    head: &mut [f32],
    own: &mut [f32],
    hits: &[u32],
    vocab: usize,
    scale: f32,
) -> f64 {
    if own.is_empty() {
        head.fill(0.0);
        return 0.0;
    }
    let hits = hits.iter().filter(|&&hit| hit != MISS);
    hits.clone().for_each(|&hit| head[hit as usize] = f32::NEG_INFINITY);
    vectorised(
        #[inline(always)]
        || {
            // Each drawn item counts as many: a term of the exponent.
            let others = (head.len() - hits.clone().count()).max(1);
            let weight = ((vocab - own.len()) as f32 / others as f32).ln();
            let top = top(own).max(top(head) + weight);
            let wanted: f64 = own.iter().map(|&x| f64::from(x - top)).sum();
            let mut total = exps(own, top);
            for block in head.chunks_mut(BLOCK) {
                total += exps(block, top - weight);
            }
            let n = own.len() as f64;
            let share = (n * f64::from(scale) / total) as f32;
            head.iter_mut().for_each(|d| *d *= share);
            hits.for_each(|&hit| head[hit as usize] = 0.0);
            own.iter_mut().for_each(|d| *d = *d * share - scale);
            n * total.ln() - wanted
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(labels: &[f32]) -> Batch {
        Batch { size: labels.len(), labels: labels.to_vec(), ..Batch::default() }
    }

    fn targeted(targets: &[&[u32]]) -> Batch {
        let ends = targets.iter().scan(0, |end, t| {
            *end += t.len() as u32;
            Some(*end)
        });
        let targets = Bag { ids: targets.concat(), offsets: [0].into_iter().chain(ends).collect() };
        Batch { size: targets.offsets.len() - 1, targets, ..Batch::default() }
    }

    /// The gradient against central differences.
    #[track_caller]
    fn check(loss: Loss, logits: &[f32], batch: &Batch, sampled: Option<Sampled<'_>>, expect: f64) {
        let mut dout = logits.to_vec();
        let value = loss.forward(&mut dout, batch, sampled);
        assert!((value - expect).abs() < 1e-6, "{value}");
        for i in 0..logits.len() {
            let at = |delta: f32| {
                let mut moved = logits.to_vec();
                moved[i] += delta;
                loss.forward(&mut moved, batch, sampled)
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - f64::from(dout[i])).abs() < 1e-4, "{i}: {slope} {dout:?}");
        }
    }

    #[test]
    fn worked_numbers() {
        let bce = (2f64.ln() + (1.0 + 2f64.exp()).ln()) / 2.0;
        check(Loss::Bce, &[0.0, 2.0], &labelled(&[1.0, 0.0]), None, bce);
        let three = (1.0 + 1f64.exp() + 2f64.exp()).ln();
        check(Loss::Softmax, &[0.0, 1.0, 2.0], &labelled(&[1.0]), None, three - 1.0);
        // An example's weight multiplies its loss.
        let weighted = Batch { weights: vec![3.0, 0.5], ..labelled(&[1.0, 0.0]) };
        let bce = (3.0 * 2f64.ln() + 0.5 * (1.0 + 2f64.exp()).ln()) / 2.0;
        check(Loss::Bce, &[0.0, 2.0], &weighted, None, bce);
        let softmax = (3.0 * (1.0 + 1f64.exp()).ln() - 3.0 + 0.5 * 2f64.ln()) / 2.0;
        check(Loss::Softmax, &[0.0, 1.0, 5.0, 5.0], &weighted, None, softmax);
        let two = [0.0, 1.0, 2.0, 0.0, 0.0, 0.0];
        let expect = (three - 1.0 + 3f64.ln()) / 2.0;
        check(Loss::Softmax, &two, &labelled(&[1.0, 2.0]), None, expect);
        // The mean of all targets; an example without any counts nothing.
        let batch = targeted(&[&[1, 2], &[]]);
        check(Loss::Multinomial, &two, &batch, None, three - 1.5);
    }

    /// Two of ten items drawn: one is the target itself, so the other stands for nine.
    #[test]
    fn sampled_softmax_worked_numbers() {
        let batch = targeted(&[&[4], &[], &[3, 5]]);
        let hits = [1, MISS, MISS];
        let sampled = Some(Sampled { drawn: 2, vocab: 10, hits: &hits });
        let logits = [0.5, 9.0, 1.0, 2.0, -0.25, 0.5, 1.5, 0.0, 2.0];
        let first = (9.0 * 0.5f64.exp() + 1.5f64.exp()).ln() - 1.5;
        let own = 1.0 + 2f64.exp();
        let third = (4.0 * ((-0.25f64).exp() + 0.5f64.exp()) + own).ln() - 1.0;
        check(Loss::Multinomial, &logits, &batch, sampled, (first + 2.0 * third) / 3.0);
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
        let batch = labelled(&labels);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut dout = logits.clone();
            let loss = pool.install(|| Loss::Softmax.forward(&mut dout, &batch, None));
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
