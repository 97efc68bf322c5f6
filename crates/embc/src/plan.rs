//! From an experiment to its trials: schemes × budgets × seeds, each with an id.

use crate::axis::Point;
use crate::config::{Experiment, SchemeConfig};
use embc_core::budget::Budget;
use embc_core::scheme::{Knobs, find};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Part of every trial's id: raise it when the same config means other numbers.
const VERSION: u32 = 1;

/// One training run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The scheme as configured.
    pub scheme: SchemeConfig,
    /// The scheme's knobs, with defaults.
    pub knobs: Knobs,
    /// The budget point; `None` for `full` and without a `[budget]`.
    pub point: Option<Point>,
    /// The seed.
    pub seed: u64,
    /// Everything that decides the numbers but the data, fully resolved.
    pub config: Value,
}

impl Trial {
    /// The trial's id: a hash of its config and the data's.
    pub fn id(&self, data_hash: &str) -> String {
        // serde_json keeps keys sorted, so equal configs are equal text.
        let text = format!("{VERSION} {data_hash} {}", self.config);
        embc_data::hex(&Sha256::digest(text.as_bytes()))[..16].into()
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
        let of = |point: &Point| trial(experiment, scheme, Some(point.clone()), seed);
        trials.extend(points.iter().map(of));
    }
    Ok(trials)
}

fn trial(e: &Experiment, scheme: &SchemeConfig, point: Option<Point>, seed: u64) -> Trial {
    let mut knobs = find(&scheme.kind).map(|s| s.defaults()).unwrap_or_default();
    knobs.extend(scheme.knobs.clone());
    let mut model = embc_core::model::find(&e.model.kind).map(|m| m.defaults()).unwrap_or_default();
    model.extend(e.model.knobs.clone());
    model.insert("kind".into(), e.model.kind.clone().into());
    let mut embedding = e.embedding.clone();
    embedding.dim = scheme.dim.unwrap_or(embedding.dim);
    embedding.sharing = scheme.sharing.unwrap_or(embedding.sharing);
    embedding.init = scheme.init.unwrap_or(embedding.init);
    let (of, allocation) = e.budget.as_ref().map(|b| (b.of, b.allocation)).unwrap_or_default();
    let budget = point.as_ref().map_or(
        json!({}),
        |point| json!({ point.axis: point.value, "of": of, "allocation": allocation }),
    );
    let mut config = json!({
        "dataset": e.dataset,
        "data": e.data,
        "model": model,
        "embedding": embedding,
        "train": e.train,
        "metrics": e.metrics(),
        "budget": budget,
        "scheme": { "kind": scheme.kind, "knobs": knobs },
        "full_dim": e.embedding.dim,
        "seed": seed,
    });
    if let Some(storage) = scheme.quantize {
        config["scheme"]["quantize"] = json!(storage);
    }
    Trial { scheme: scheme.clone(), knobs, point, seed, config: shorten(config) }
}

/// Writes 32-bit floats as short as they read: 0.001 instead of 0.0010000000474974513.
fn shorten(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_f64() => {
            let wide = n.as_f64().expect("a float");
            let narrow = wide as f32;
            let short: f64 = match f64::from(narrow) == wide {
                true => narrow.to_string().parse().expect("a float's text"),
                false => wide,
            };
            serde_json::Number::from_f64(short).map_or(Value::Null, Value::Number)
        }
        Value::Array(items) => items.into_iter().map(shorten).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, shorten(v))).collect(),
        other => other,
    }
}
