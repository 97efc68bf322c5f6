//! A trial to be run anywhere: what decides its numbers, where its data is found, and what its record
//! is called.

use crate::spec::TrialSpec;
use anyhow::{Context, Result};
use embc_core::batch::Examples;
use embc_core::metric::Metric;
use embc_core::model;
use embc_core::scheme::{self, Knobs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// An order: what `embc sweep --list --format json` prints and `embc trial` runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The data's name in a registry; its content must be that of the spec.
    pub dataset: String,
    /// The experiment whose record it becomes.
    #[serde(default = "alone")]
    pub experiment: String,
    /// The scheme's name in tables; its kind by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Metrics beside the model's usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Each seed of the experiment draws a split of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub splits_by_seed: bool,
    /// All that decides its numbers.
    pub spec: TrialSpec,
}

fn alone() -> String {
    "trial".into()
}

impl Order {
    /// Reads one; an error says where it is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        serde_json::from_str(&text).map_err(|error| {
            let (line, what) = (error.line(), error.to_string());
            let what = what.split(" at line ").next().unwrap_or_default();
            anyhow::anyhow!("{}:{line}: {}", path.display(), crate::suggest::key(what))
        })
    }

    /// The trial's id.
    pub fn id(&self) -> String {
        self.spec.id()
    }

    /// The scheme's name in tables.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.spec.scheme.kind)
    }

    /// "memcom, compression 16": what it shares with other seeds.
    pub fn cell_name(&self) -> String {
        match &self.spec.scheme.budget {
            Some((axis, value)) => format!("{}, {axis} {value}", self.label()),
            None => self.label().into(),
        }
    }

    /// "memcom, compression 16, seed 1".
    pub fn name(&self) -> String {
        format!("{}, seed {}", self.cell_name(), self.spec.seed)
    }

    /// All metrics to evaluate: the model's usual ones, the one that picks the epoch, its own.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = usual(&self.spec.model.kind);
        metrics.push(self.spec.schedule.select);
        metrics.extend(&self.metrics);
        metrics.sort();
        metrics.dedup();
        metrics
    }

    /// The scheme's knobs, with defaults.
    pub fn knobs(&self) -> Knobs {
        self.spec.scheme.all_knobs()
    }

    /// The budget as records have it: {"compression": 16}, or {}.
    pub(crate) fn budget(&self) -> Value {
        let budget = self.spec.scheme.budget.as_ref();
        budget.map_or(json!({}), |(axis, value)| json!({ axis: value }))
    }

    /// How its model wants examples.
    pub fn examples(&self) -> Result<Examples> {
        let kind = &self.spec.model.kind;
        let model = model::find(kind).with_context(|| format!("unknown model {kind:?}"))?;
        model.examples(&self.spec.model.knobs).map_err(anyhow::Error::msg)
    }

    /// Refuses what no component is called, and values that cannot be meant.
    pub fn check(&self) -> Result<()> {
        known(&self.spec)?;
        self.examples()?;
        self.spec.check().map_err(anyhow::Error::msg)
    }
}

/// Refuses a scheme or a model that there is not.
pub(crate) fn known(spec: &TrialSpec) -> Result<()> {
    let (scheme, model) = (&spec.scheme.kind, &spec.model.kind);
    scheme::find(scheme).with_context(|| format!("unknown scheme {scheme:?}"))?;
    model::find(model).map(drop).with_context(|| format!("unknown model {model:?}"))
}

/// The metrics of a model that are evaluated unasked.
pub fn usual(kind: &str) -> Vec<Metric> {
    let names = model::find(kind).map_or(&[][..], |model| model.metrics());
    names.iter().map(|name| name.parse().expect("a metric's name")).collect()
}
