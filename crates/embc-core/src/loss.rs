//! Losses on logits: the mean over the batch, and its gradient.

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

/// −ln softmax(logits)[class] of one example.
pub fn cross_entropy(logits: &[f32], class: usize) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - top).exp()).sum();
    sum.ln() - f64::from(logits[class] - top)
}

impl Loss {
    /// The mean loss of logits [B × outputs]; writes its gradient into `dout`.
    pub fn forward(self, logits: &[f32], labels: &[f32], dout: &mut [f32]) -> f64 {
        let scale = 1.0 / labels.len() as f32;
        let outputs = logits.len() / labels.len();
        let mut sum = 0.0;
        let examples = logits.chunks_exact(outputs).zip(dout.chunks_exact_mut(outputs)).zip(labels);
        for ((logits, dout), &label) in examples {
            match self {
                Loss::Bce => {
                    sum += bce(logits[0], label);
                    dout[0] = (sigmoid(logits[0]) - label) * scale;
                }
                Loss::Softmax => {
                    let class = label as usize;
                    sum += cross_entropy(logits, class);
                    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let total: f32 = logits.iter().map(|x| (x - top).exp()).sum();
                    for (i, (d, x)) in dout.iter_mut().zip(logits).enumerate() {
                        let target = if i == class { 1.0 } else { 0.0 };
                        *d = ((x - top).exp() / total - target) * scale;
                    }
                }
            }
        }
        sum / labels.len() as f64
    }
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
    fn extreme_logits_stay_finite() {
        assert!((0.0..1e-80).contains(&bce(-200.0, 0.0)));
        assert_eq!(bce(200.0, 0.0), 200.0);
        assert_eq!(sigmoid(-200.0), 0.0);
        assert_eq!(cross_entropy(&[1e30, 0.0], 0), 0.0);
    }
}
