//! Optimizers. Every one steps a [`Param`] on the summed gradient of its touched rows.
//!
//! Formulas and defaults are PyTorch's. `touch` is part of a reproduction: with `all`, the moments
//! of every row decay in every step (`torch.optim.Adam` on a dense gradient); with `touched`, only
//! rows that got a gradient move (`SparseAdam`).

use crate::gather::with_width;
use crate::linalg::{axpy, dot, vectorised};
use crate::param::{Grad, IdSet, Param};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod config;
mod low;

pub use config::{LrSchedule, Optimizer};
use config::{beta2, hundredth, point_nine, small, tiny, zero};

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// w -= lr g.
    Sgd,
    /// v = momentum v + g; w -= lr v.
    Momentum,
    /// s += g²; w -= lr g / (√s + eps).
    Adagrad,
    /// Adagrad with one accumulator a row: the mean of its squared gradient.
    RowAdagrad,
    /// Adam with bias correction.
    Adam,
    /// Adam with decoupled weight decay.
    AdamW,
}

/// Which rows of an embedding a step updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Touch {
    /// Every row: moments decay everywhere, weight decay reaches everything.
    All,
    /// Only rows with a gradient.
    #[default]
    Touched,
}

/// An update rule with all its constants, which steps [`Param`]s. What its kind does not use is
/// not read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optim {
    /// The update rule.
    pub kind: Kind,
    /// Learning rate.
    pub lr: f32,
    /// Rows of an embedding that a step updates.
    pub touch: Touch,
    /// Decay of the velocity.
    pub momentum: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Decoupled for adamw, else added to the gradient.
    pub weight_decay: f32,
}

/// What `embc list optimizers` prints: name and update rule.
pub const DOCS: &[(&str, &str)] = &[
    ("sgd", "w -= lr g; keys lr, weight_decay, touch"),
    ("momentum", "v = momentum v + g; w -= lr v; keys lr, momentum, weight_decay, touch"),
    ("adagrad", "s += g²; w -= lr g / (√s + eps); keys lr, eps"),
    ("rowadagrad", "s += mean over the row of g²; w -= lr g / (√s + eps); keys lr, eps"),
    ("adam", "Adam with bias correction; keys lr, beta1, beta2, eps, weight_decay, touch"),
    ("adamw", "Adam with decoupled weight decay; keys as adam's"),
];

/// The constants of one step.
struct Step {
    optim: Optim,
    eps: f32,
    /// lr √(1 − β₂ᵗ) / (1 − β₁ᵗ): both bias corrections of Adam, so that `eps` is in terms of the
    /// second moment as it is kept, and one division does for both.
    rate: f32,
}

impl Optim {
    /// A rule with PyTorch's defaults.
    pub fn new(kind: Kind, lr: f32, touch: Touch) -> Self {
        let adagrad = matches!(kind, Kind::Adagrad | Kind::RowAdagrad);
        let eps = if adagrad { tiny() } else { small() };
        let weight_decay = if kind == Kind::AdamW { hundredth() } else { zero() };
        let (momentum, beta1) = (point_nine(), point_nine());
        Self { kind, lr, touch, momentum, beta1, beta2: beta2(), eps, weight_decay }
    }

    /// Floats of state per parameter (one per row for `rowadagrad`).
    pub fn moments(&self) -> usize {
        match self.kind {
            Kind::Sgd => 0,
            Kind::Momentum | Kind::Adagrad | Kind::RowAdagrad => 1,
            Kind::Adam | Kind::AdamW => 2,
        }
    }

    /// True where untouched rows move too, so that the gradient is best kept dense.
    fn moves_all(&self) -> bool {
        let decays = self.weight_decay > 0.0;
        let moves = matches!(self.kind, Kind::Momentum | Kind::Adam | Kind::AdamW);
        self.touch == Touch::All && (moves || self.kind == Kind::Sgd && decays)
    }

    /// Allocates the state of `param` and picks its gradient's storage; forgets what was there.
    pub fn attach(&self, param: &mut Param) {
        param.steps = 0;
        let width = param.width();
        if let Some(low) = &mut param.low {
            let rows = low.codes.len() as usize / width;
            low.state = if self.kind == Kind::Sgd { Vec::new() } else { vec![0; rows] };
            return;
        }
        let cached = param.value.len() < CACHED || width == 1 || width > ZEROS.len();
        if self.moves_all() && cached {
            param.make_dense();
        }
        let rows = param.value.len() / param.width();
        let by_row = self.kind == Kind::RowAdagrad && !param.always_dense;
        let len = if by_row { rows } else { param.value.len() };
        param.moments = vec![vec![0.0; len]; self.moments()];
    }

    /// One step on `param`, then forgets its gradient.
    pub fn step(&self, param: &mut Param) {
        param.steps += 1;
        let t = param.steps.min(i32::MAX as u64) as i32;
        let adam = matches!(self.kind, Kind::Adam | Kind::AdamW);
        let mut eps = self.eps;
        let root = (1.0 - f64::from(self.beta2).powi(t)).sqrt();
        let rate = (f64::from(self.lr) * root / (1.0 - f64::from(self.beta1).powi(t))) as f32;
        if adam && (self.touch == Touch::All || param.always_dense) {
            // Adam adds eps after the second moment's bias is corrected, SparseAdam before it.
            eps *= root as f32;
        }
        let step = Step { optim: *self, eps, rate };
        let by_row = self.kind == Kind::RowAdagrad && !param.always_dense;
        let width = param.width();
        let steps = param.steps;
        let Param { value, grad, moments, low, .. } = param;
        match grad {
            Grad::Rows { touched, values, .. } if let Some(low) = low => {
                low::step(&step, width, low, steps, (touched.ids(), values));
                touched.clear();
            }
            Grad::Dense(grad) => {
                // Elementwise, so any division among threads gives the same bits.
                const CHUNK: usize = 1 << 14;
                let update =
                    |value: &mut [f32], grad: &mut [f32], first: &mut [f32], second: &mut [f32]| {
                        vectorised(
                            #[inline(always)]
                            || step.apply_and_clear(value, grad, first, second),
                        );
                    };
                if value.len() <= 2 * CHUNK {
                    // Handing small work to threads costs more than it brings.
                    let mut moments = moments.iter_mut().map(|m| &mut m[..]);
                    let first = moments.next().unwrap_or_default();
                    return update(value, grad, first, moments.next().unwrap_or_default());
                }
                let both = value.par_chunks_mut(CHUNK).zip(grad.par_chunks_mut(CHUNK));
                match &mut moments[..] {
                    [m, v] => both
                        .zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)))
                        .for_each(|((value, grad), (m, v))| update(value, grad, m, v)),
                    [m] => both
                        .zip(m.par_chunks_mut(CHUNK))
                        .for_each(|((value, grad), m)| update(value, grad, m, &mut [])),
                    _ => both.for_each(|(value, grad)| update(value, grad, &mut [], &mut [])),
                }
            }
            Grad::Rows { touched, values, .. } if self.moves_all() => {
                with_width!(width, everywhere(&step, width, value, moments, touched, values));
                touched.clear();
            }
            Grad::Rows { touched, values, .. } => {
                let mut moments = moments.iter_mut().map(|m| &mut m[..]);
                let first = moments.next().unwrap_or_default();
                let second = moments.next().unwrap_or_default();
                let rows = touched.ids().iter().zip(values.chunks_exact(width));
                vectorised(
                    #[inline(always)]
                    || {
                        for (&row, grad) in rows {
                            let at = row as usize * width;
                            let value = &mut value[at..at + width];
                            if by_row {
                                let mean = dot(grad, grad) / width as f32;
                                let sum = &mut first[row as usize];
                                *sum += mean;
                                axpy(-self.lr / (sum.sqrt() + eps), grad, value);
                                continue;
                            }
                            let first = first.get_mut(at..at + width).unwrap_or_default();
                            let second = second.get_mut(at..at + width).unwrap_or_default();
                            step.apply(value, grad, first, second);
                        }
                    },
                );
                touched.clear();
            }
            Grad::Cells { touched, values, .. } => {
                let mut moments = moments.iter_mut().map(|m| &mut m[..]);
                let first = moments.next().unwrap_or_default();
                let second = moments.next().unwrap_or_default();
                for &row in &*touched {
                    let row = row as usize..row as usize + 1;
                    let grad = &values[row.clone()];
                    let first = first.get_mut(row.clone()).unwrap_or_default();
                    let second = second.get_mut(row.clone()).unwrap_or_default();
                    step.apply(&mut value[row], grad, first, second);
                }
                param.zero_grad();
            }
        }
    }
}

/// Parameters that caches hold together with their moments: a dense gradient is the fastest there.
const CACHED: usize = 1 << 21;

/// The gradient of a row without one.
static ZEROS: [f32; 1024] = [0.0; 1024];

/// Steps every row, with the gradients [touched × width] of those that have one: for large tables
/// cheaper than a dense gradient, which would have to be read and cleared.
fn everywhere<const WIDTH: usize>(
    step: &Step,
    width: usize,
    value: &mut [f32],
    moments: &mut [Vec<f32>],
    touched: &IdSet,
    grads: &[f32],
) {
    let width = if WIDTH == 0 { width } else { WIDTH };
    let rows = ((1 << 14) / width).max(1);
    let chunk = rows * width;
    let update = |i: usize, value: &mut [f32], first: &mut [f32], second: &mut [f32]| {
        vectorised(
            #[inline(always)]
            || {
                for row in 0..value.len() / width {
                    let grad = match touched.find((i * rows + row) as u32) {
                        Some(slot) => &grads[slot * width..][..width],
                        None => &ZEROS[..width],
                    };
                    let at = row * width;
                    let second = second.get_mut(at..at + width).unwrap_or_default();
                    let first = first.get_mut(at..at + width).unwrap_or_default();
                    step.apply(&mut value[at..][..width], grad, first, second);
                }
            },
        );
    };
    let values = value.par_chunks_mut(chunk).enumerate();
    match moments {
        [m, v] => values
            .zip(m.par_chunks_mut(chunk).zip(v.par_chunks_mut(chunk)))
            .for_each(|((i, value), (m, v))| update(i, value, m, v)),
        [m] => values
            .zip(m.par_chunks_mut(chunk))
            .for_each(|((i, value), m)| update(i, value, m, &mut [])),
        _ => values.for_each(|(i, value)| update(i, value, &mut [], &mut [])),
    }
}

impl Step {
    /// As `apply`, and clears `grad` while it lies in the nearest cache.
    #[inline(always)]
    fn apply_and_clear(
        &self,
        value: &mut [f32],
        grad: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
    ) {
        const PIECE: usize = 1 << 10;
        for (i, (value, grad)) in value.chunks_mut(PIECE).zip(grad.chunks_mut(PIECE)).enumerate() {
            let of = i * PIECE..i * PIECE + value.len();
            let first = first.get_mut(of.clone()).unwrap_or_default();
            self.apply(value, grad, first, second.get_mut(of).unwrap_or_default());
            grad.fill(0.0);
        }
    }

    /// Updates `value` from `grad`; `first` and `second` are the moments, empty where unused.
    #[inline(always)]
    fn apply(&self, value: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32]) {
        let o = &self.optim;
        // PyTorch's weight_decay, of all kinds but AdamW: 0 leaves the gradient's bits as they are.
        let decay = if o.kind == Kind::AdamW { 0.0 } else { o.weight_decay };
        match o.kind {
            Kind::Sgd if decay == 0.0 => axpy(-o.lr, grad, value),
            Kind::Sgd => {
                for (w, g) in value.iter_mut().zip(grad) {
                    *w -= o.lr * (g + decay * *w);
                }
            }
            Kind::Momentum => {
                for ((w, g), v) in value.iter_mut().zip(grad).zip(first) {
                    *v = o.momentum * *v + (g + decay * *w);
                    *w -= o.lr * *v;
                }
            }
            Kind::Adagrad | Kind::RowAdagrad => {
                for ((w, g), s) in value.iter_mut().zip(grad).zip(first) {
                    *s += g * g;
                    *w -= o.lr * g / (s.sqrt() + self.eps);
                }
            }
            Kind::Adam | Kind::AdamW => {
                let keep = if o.kind == Kind::AdamW { 1.0 - o.lr * o.weight_decay } else { 1.0 };
                for (((w, g), m), v) in value.iter_mut().zip(grad).zip(first).zip(second) {
                    let g = g + decay * *w;
                    *m = o.beta1 * *m + (1.0 - o.beta1) * g;
                    *v = o.beta2 * *v + (1.0 - o.beta2) * g * g;
                    *w = *w * keep - self.rate * (*m / (v.sqrt() + self.eps));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps with gradient 1, then 3, on a weight of 1 (PyTorch's values).
    #[track_caller]
    fn check(kind: Kind, expect: [f32; 2]) {
        let optim = Optim::new(kind, 0.1, Touch::Touched);
        let mut param = Param::rows("w", 1, vec![1.0, 1.0]);
        optim.attach(&mut param);
        for (grad, expect) in [1.0, 3.0].into_iter().zip(expect) {
            param.add(1, &[grad]);
            optim.step(&mut param);
            assert!((param.value()[1] - expect).abs() < 1e-6, "{kind:?}: {:?}", param.value());
        }
        assert_eq!(param.value()[0], 1.0, "an untouched row stays");
    }

    #[test]
    fn worked_numbers() {
        check(Kind::Sgd, [0.9, 0.6]);
        check(Kind::Momentum, [0.9, 0.51]);
        check(Kind::Adagrad, [0.9, 0.9 - 0.3 / 10f32.sqrt()]);
        check(Kind::RowAdagrad, [0.9, 0.9 - 0.3 / 10f32.sqrt()]);
        // m = 0.39, v = 0.009999; bias-corrected 2.0526, 5.0020: a step of 0.1 · 0.91778.
        check(Kind::Adam, [0.9, 0.808_222]);
        check(Kind::AdamW, [0.899, 0.806_323]);
    }

    /// Where tables are large, gradients are kept of touched rows only; the numbers are the same.
    #[test]
    fn large_tables_step_as_with_a_dense_gradient() {
        for kind in [Kind::Momentum, Kind::Adam, Kind::AdamW] {
            for width in [2, 3] {
                let run = |dense: bool| {
                    let optim = Optim::new(kind, 0.1, Touch::All);
                    let mut param = Param::rows("w", width, vec![1.0; CACHED / 6 * 6 + 6]);
                    optim.attach(&mut param);
                    assert!(matches!(param.grad, Grad::Rows { .. }), "too large for a dense one");
                    if dense {
                        param.make_dense();
                    }
                    for step in 0..3 {
                        for row in [7, 100_000, 7, 300_000 + step] {
                            param.add(row, &[0.5, -2.0, 1.0][..width]);
                        }
                        optim.step(&mut param);
                    }
                    param.value().to_vec()
                };
                assert!(run(false) == run(true), "{kind:?}");
            }
        }
    }

    #[test]
    fn touch_all_moves_rows_without_gradient_and_parallel_chunks_equal_one() {
        let run = |threads| {
            let optim = Optim::new(Kind::Adam, 0.1, Touch::All);
            let mut param = Param::rows("w", 2, vec![1.0; 100_000]);
            optim.attach(&mut param);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            param.add(49_999, &[1.0, 1.0]);
            pool.install(|| optim.step(&mut param));
            pool.install(|| optim.step(&mut param));
            param.value().to_vec()
        };
        let values = run(1);
        assert!(values[99_999] < 0.9, "momentum goes on without a gradient");
        assert_eq!(values, run(7));
    }
}
