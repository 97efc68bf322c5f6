//! From an experiment to its trials: schemes × budgets × seeds, each a value with an id.

use crate::axis::BudgetPoint;
use crate::config::{Experiment, SchemeConfig};
use crate::spec::{DataSpec, TrialSpec};
use embc_core::budget::Budget;
use embc_core::scheme::{Knobs, find};
use embc_core::task::LabelKind;
use serde_json::{Value, json};

/// One training run of an experiment.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The scheme as configured.
    pub scheme: SchemeConfig,
    /// The scheme's knobs, with defaults.
    pub knobs: Knobs,
    /// The budget point; `None` for `full` and without a `[budget]`.
    pub point: Option<BudgetPoint>,
    /// The seed.
    pub seed: u64,
    /// All that decides its numbers, but for the data.
    pub spec: TrialSpec,
}

impl Trial {
    /// The trial's id on data.
    pub fn id(&self, data: &DataSpec, label: LabelKind) -> String {
        self.spec.on(data, label).id()
    }

    /// "memcom, compression 16, seed 1": for people, and for `--filter`.
    pub fn name(&self) -> String {
        format!("{}, seed {}", self.cell_name(), self.seed)
    }

    /// "memcom, compression 16": what it shares with other seeds.
    pub fn cell_name(&self) -> String {
        match &self.point {
            Some(point) => format!("{}, {} {}", self.scheme.label(), point.axis, point.value),
            None => self.scheme.label().into(),
        }
    }

    /// The budget to plan with.
    pub fn budget(&self) -> Budget {
        self.point.as_ref().map_or(Budget::Unlimited, |point| point.budget)
    }

    /// The budget as records have it: {"compression": 16}, or {}.
    pub fn budget_json(&self) -> Value {
        self.point.as_ref().map_or(json!({}), |point| json!({ point.axis: point.value }))
    }
}

/// All trials of an experiment, in the order in which they run: every scheme and budget with the
/// first seed, then with the next.
pub fn trials(experiment: &Experiment) -> anyhow::Result<Vec<Trial>> {
    let rounds = experiment.train.seeds.iter().map(|&seed| round(experiment, seed));
    Ok(rounds.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The trials of one seed: every scheme and budget.
pub fn round(experiment: &Experiment, seed: u64) -> anyhow::Result<Vec<Trial>> {
    let points = experiment.points()?;
    let mut trials = Vec::new();
    for scheme in &experiment.scheme {
        if scheme.kind == "full" || points.is_empty() {
            trials.push(trial(experiment, scheme, None, seed));
            continue;
        }
        let of = |point: &BudgetPoint| trial(experiment, scheme, Some(point.clone()), seed);
        trials.extend(points.iter().map(of));
    }
    Ok(trials)
}

/// The uncompressed table's trial, whether an experiment has one or not.
pub fn full(e: &Experiment, seed: u64) -> Trial {
    let (kind, knobs) = ("full".to_string(), Knobs::new());
    let (label, dim, sharing, init, allocation, quantize) = Default::default();
    let full = SchemeConfig { kind, label, dim, sharing, init, allocation, quantize, knobs };
    trial(e, &full, None, seed)
}

fn trial(e: &Experiment, scheme: &SchemeConfig, point: Option<BudgetPoint>, seed: u64) -> Trial {
    let mut knobs = find(&scheme.kind).map(|s| s.defaults()).unwrap_or_default();
    knobs.extend(scheme.knobs.clone());
    let spec = TrialSpec::new(e, scheme, point.as_ref(), seed);
    Trial { scheme: scheme.clone(), knobs, point, seed, spec }
}
