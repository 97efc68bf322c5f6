//! Optimizers and learning-rate schedules as configs name them: one variant a kind, each with the keys
//! that it reads.

use super::{Kind, Optim, Touch};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An optimizer as a config has it: `[train] optimizer = { kind = "adam", lr = 1e-3 }`. A kind has
/// the keys that it reads, and no others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Optimizer {
    /// w -= lr g.
    Sgd {
        /// Learning rate.
        lr: f32,
        /// Adds weight_decay · w to the gradient.
        #[serde(default, skip_serializing_if = "is_zero")]
        weight_decay: f32,
        /// Rows of an embedding that weight decay reaches.
        #[serde(default, skip_serializing_if = "is_default")]
        touch: Touch,
    },
    /// v = momentum v + g; w -= lr v.
    Momentum {
        /// Learning rate.
        lr: f32,
        /// Decay of the velocity, 0.9 by default.
        #[serde(default = "point_nine", skip_serializing_if = "is_point_nine")]
        momentum: f32,
        /// Adds weight_decay · w to the gradient.
        #[serde(default, skip_serializing_if = "is_zero")]
        weight_decay: f32,
        /// Rows of an embedding that a step updates.
        #[serde(default, skip_serializing_if = "is_default")]
        touch: Touch,
    },
    /// s += g²; w -= lr g / (√s + eps).
    Adagrad {
        /// Learning rate.
        lr: f32,
        /// Added to the denominator, 1e-10 by default.
        #[serde(default = "tiny", skip_serializing_if = "is_tiny")]
        eps: f32,
    },
    /// Adagrad with one accumulator a row: the mean of its squared gradient.
    RowAdagrad {
        /// Learning rate.
        lr: f32,
        /// Added to the denominator, 1e-10 by default.
        #[serde(default = "tiny", skip_serializing_if = "is_tiny")]
        eps: f32,
    },
    /// Adam with bias correction.
    Adam {
        /// Learning rate.
        lr: f32,
        /// Decay of the first moment, 0.9 by default.
        #[serde(default = "point_nine", skip_serializing_if = "is_point_nine")]
        beta1: f32,
        /// Decay of the second moment, 0.999 by default.
        #[serde(default = "beta2", skip_serializing_if = "is_beta2")]
        beta2: f32,
        /// Added to the denominator, 1e-8 by default.
        #[serde(default = "small", skip_serializing_if = "is_small")]
        eps: f32,
        /// Adds weight_decay · w to the gradient.
        #[serde(default, skip_serializing_if = "is_zero")]
        weight_decay: f32,
        /// Rows of an embedding that a step updates.
        #[serde(default, skip_serializing_if = "is_default")]
        touch: Touch,
    },
    /// Adam with decoupled weight decay.
    AdamW {
        /// Learning rate.
        lr: f32,
        /// Decay of the first moment, 0.9 by default.
        #[serde(default = "point_nine", skip_serializing_if = "is_point_nine")]
        beta1: f32,
        /// Decay of the second moment, 0.999 by default.
        #[serde(default = "beta2", skip_serializing_if = "is_beta2")]
        beta2: f32,
        /// Added to the denominator, 1e-8 by default.
        #[serde(default = "small", skip_serializing_if = "is_small")]
        eps: f32,
        /// Share of w that a step takes away, times lr; 0.01 by default.
        #[serde(default = "hundredth", skip_serializing_if = "is_hundredth")]
        weight_decay: f32,
        /// Rows of an embedding that a step updates.
        #[serde(default, skip_serializing_if = "is_default")]
        touch: Touch,
    },
}

/// PyTorch's defaults, and whether a value is one.
macro_rules! defaults {
    ($($name:ident $is:ident $value:literal)*) => { $(
        pub(super) fn $name() -> f32 {
            $value
        }
        fn $is(x: &f32) -> bool {
            *x == $value
        }
    )* };
}
defaults! {
    zero is_zero 0.0
    point_nine is_point_nine 0.9
    beta2 is_beta2 0.999
    hundredth is_hundredth 0.01
    tiny is_tiny 1e-10
    small is_small 1e-8
}

fn is_default<T: Default + PartialEq>(x: &T) -> bool {
    *x == T::default()
}

impl Optimizer {
    /// The rule with all its constants.
    pub fn rule(self) -> Optim {
        let optim = |kind, lr, touch| Optim::new(kind, lr, touch);
        match self {
            Optimizer::Sgd { lr, weight_decay, touch } => {
                Optim { weight_decay, ..optim(Kind::Sgd, lr, touch) }
            }
            Optimizer::Momentum { lr, momentum, weight_decay, touch } => {
                Optim { momentum, weight_decay, ..optim(Kind::Momentum, lr, touch) }
            }
            Optimizer::Adagrad { lr, eps } => {
                Optim { eps, ..optim(Kind::Adagrad, lr, Touch::Touched) }
            }
            Optimizer::RowAdagrad { lr, eps } => {
                Optim { eps, ..optim(Kind::RowAdagrad, lr, Touch::Touched) }
            }
            Optimizer::Adam { lr, beta1, beta2, eps, weight_decay, touch } => {
                Optim { beta1, beta2, eps, weight_decay, ..optim(Kind::Adam, lr, touch) }
            }
            Optimizer::AdamW { lr, beta1, beta2, eps, weight_decay, touch } => {
                Optim { beta1, beta2, eps, weight_decay, ..optim(Kind::AdamW, lr, touch) }
            }
        }
    }

    /// Checks the ranges of all settings; the error names the key.
    pub fn validate(self) -> Result<(), String> {
        let rule = self.rule();
        let unit = |name: &str, x: f32| match (0.0..1.0).contains(&x) {
            true => Ok(()),
            false => Err(format!("optimizer.{name} = {x} must lie in [0, 1)")),
        };
        if !(rule.lr > 0.0 && rule.lr.is_finite()) {
            return Err(format!("optimizer.lr = {} must be positive", rule.lr));
        }
        if !(rule.weight_decay >= 0.0 && rule.eps >= 0.0) {
            return Err("optimizer.weight_decay and eps must not be negative".into());
        }
        if rule.kind == Kind::Sgd && rule.touch == Touch::All && rule.weight_decay == 0.0 {
            return Err("optimizer.touch is read by sgd with weight_decay alone: without it, rows without a gradient stay".into());
        }
        unit("momentum", rule.momentum)?;
        unit("beta1", rule.beta1)?;
        unit("beta2", rule.beta2)
    }
}

/// How the learning rate moves over the steps of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum LrSchedule {
    /// It stays, after a warm-up.
    Constant {
        /// Steps over which it rises from 0.
        #[serde(default, skip_serializing_if = "is_default")]
        warmup: u64,
    },
    /// It falls in a straight line (torch's LinearLR from 1).
    Linear {
        /// Steps over which it rises from 0.
        #[serde(default, skip_serializing_if = "is_default")]
        warmup: u64,
        /// What is left of it at the end, as a share.
        #[serde(default, skip_serializing_if = "is_zero_f64")]
        end: f64,
    },
    /// It falls along half a cosine (torch's CosineAnnealingLR).
    Cosine {
        /// Steps over which it rises from 0.
        #[serde(default, skip_serializing_if = "is_default")]
        warmup: u64,
        /// What is left of it at the end, as a share.
        #[serde(default, skip_serializing_if = "is_zero_f64")]
        end: f64,
    },
}

fn is_zero_f64(x: &f64) -> bool {
    *x == 0.0
}

impl LrSchedule {
    /// To 0 in a straight line.
    pub const LINEAR: Self = Self::Linear { warmup: 0, end: 0.0 };

    /// What the learning rate is multiplied by in step `step`, counted from 0, of `all`.
    pub fn factor(self, step: u64, all: u64) -> f64 {
        let (LrSchedule::Constant { warmup }
        | LrSchedule::Linear { warmup, .. }
        | LrSchedule::Cosine { warmup, .. }) = self;
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / all.saturating_sub(warmup).max(1) as f64;
        match self {
            LrSchedule::Constant { .. } => 1.0,
            LrSchedule::Linear { end, .. } => 1.0 + (end - 1.0) * done.min(1.0),
            LrSchedule::Cosine { end, .. } => {
                let cosine = (std::f64::consts::PI * done.min(1.0)).cos();
                end + (1.0 - end) * (1.0 + cosine) / 2.0
            }
        }
    }

    /// Checks the ranges of all settings; the error names the key.
    pub fn validate(self) -> Result<(), String> {
        match self {
            LrSchedule::Constant { warmup: 0 } => {
                Err("lr_schedule constant without warmup does nothing; remove it".into())
            }
            LrSchedule::Linear { end, .. } | LrSchedule::Cosine { end, .. }
                if !(0.0..=1.0).contains(&end) =>
            {
                Err(format!("lr_schedule.end = {end} is a share of the learning rate, from 0 to 1"))
            }
            _ => Ok(()),
        }
    }
}
