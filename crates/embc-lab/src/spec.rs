//! A trial as a value: all that decides its numbers, and nothing else.
//!
//! What is at its default is left out of the canonical form, so that a new key changes no old id; a
//! change of what a component computes is told by its version.

use crate::axis::BudgetPoint;
use crate::config::{EarlyStop, EmbeddingConfig, Experiment, ModelConfig, Quantize, SchemeConfig};
use embc_core::batch::Examples;
use embc_core::budget::{Allocation, Of};
use embc_core::hash::HashFamily;
use embc_core::init::Init;
use embc_core::layer::{Pooling, Sharing, Unknown};
use embc_core::metric::Metric;
use embc_core::model;
use embc_core::optim::{Kind, LrSchedule, Optimizer};
use embc_core::quantize::Storage;
use embc_core::scheme::{self, Knobs};
use embc_core::task::{LabelKind, Task};
use embc_data::view::{Resolved, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

fn is_default<T: Default + PartialEq>(x: &T) -> bool {
    *x == T::default()
}

/// The data of a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// Identifies the content of the files, and how they are read.
    pub content: String,
    /// What the registry's entry and `[data]` came to.
    pub view: Resolved,
}

impl DataSpec {
    /// The data of an opened view.
    pub fn of(view: &View) -> Self {
        Self { content: view.data_hash().into(), view: view.resolved().clone() }
    }
}

/// The embedding of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingSpec {
    /// Width of the uncompressed embedding.
    pub dim: usize,
    /// Which fields share memory.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sharing: Sharing,
    /// How a table starts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: Init,
    /// Which family maps an id to a row; by default the scheme's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashFamily>,
    /// How ids of a bag become one row.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pooling: Pooling,
    /// Tables with fewer ids stay uncompressed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub full_below: u32,
    /// What stands for ids without a training row.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unknown: Unknown,
}

/// A scheme at a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemeSpec {
    /// Which scheme.
    pub kind: String,
    /// Its knobs that are not at their defaults.
    #[serde(default, skip_serializing_if = "Knobs::is_empty")]
    pub knobs: Knobs,
    /// How its parameters are stored after training.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quantize: Storage,
    /// They already train so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub low: bool,
    /// The budget's axis and value; none for a scheme's own full size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<(String, serde_json::Number)>,
    /// What a compression is a ratio of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub of: Of,
    /// How the budget is divided among tables.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allocation: Allocation,
    /// Width of the table that compressions are against, where it is not the embedding's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_dim: Option<usize>,
}

/// How a trial is trained, beside its update rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Examples a step.
    pub batch: usize,
    /// Most passes over the training rows.
    pub epochs: u32,
    /// The validation metric that picks the epoch.
    pub select: Metric,
    /// When training stops before its last epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Steps between validations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_every: Option<u64>,
    /// Most steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// How the learning rate moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_schedule: Option<LrSchedule>,
}

/// All that decides a trial's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrialSpec {
    /// What it learns.
    pub task: Task,
    /// On which rows.
    pub data: DataSpec,
    /// The network.
    pub model: ModelConfig,
    /// What all schemes share.
    pub embedding: EmbeddingSpec,
    /// How tables are compressed.
    pub scheme: SchemeSpec,
    /// The update rule.
    pub optimizer: Optimizer,
    /// How long, and which epoch counts.
    pub schedule: Schedule,
    /// Draws initial values, order, dropout and negatives.
    pub seed: u64,
}

impl SchemeSpec {
    /// All knobs, defaults too.
    pub fn all_knobs(&self) -> Knobs {
        let mut knobs = scheme::find(&self.kind).map(|s| s.defaults()).unwrap_or_default();
        knobs.extend(self.knobs.clone());
        knobs
    }
}

impl TrialSpec {
    /// The trial of a scheme, budget and seed of an experiment. Its data is still to be filled in.
    pub fn new(
        e: &Experiment,
        scheme: &SchemeConfig,
        point: Option<&BudgetPoint>,
        seed: u64,
    ) -> Self {
        let EmbeddingConfig { hash, pooling, full_below, unknown, .. } = e.embedding;
        let dim = scheme.dim.unwrap_or(e.embedding.dim);
        let (of, allocation) = e.budget.as_ref().map(|b| (b.of, b.allocation)).unwrap_or_default();
        let train = &e.train;
        Self {
            task: Task::of(LabelKind::Binary, e.examples().unwrap_or(Examples::Rows)),
            data: DataSpec::default(),
            model: e.model.clone(),
            embedding: EmbeddingSpec {
                dim,
                sharing: scheme.sharing.unwrap_or(e.embedding.sharing),
                init: scheme.init.unwrap_or(e.embedding.init),
                hash,
                pooling,
                full_below,
                unknown,
            },
            scheme: SchemeSpec {
                kind: scheme.kind.clone(),
                knobs: scheme.knobs.clone(),
                quantize: scheme.quantize.map(Quantize::storage).unwrap_or_default(),
                low: scheme.quantize.is_some_and(Quantize::trains),
                budget: point.map(|point| (point.axis.into(), point.value.clone())),
                of: if point.is_some() { of } else { Of::default() },
                allocation: allocation_of(
                    scheme,
                    point.map(|_| scheme.allocation.unwrap_or(allocation)),
                ),
                full_dim: Some(e.embedding.dim).filter(|&full| full != dim),
            },
            optimizer: train.optimizer,
            schedule: Schedule {
                batch: train.batch,
                epochs: train.epochs,
                select: e.select(),
                early_stop: train.early_stop,
                validate_every: train.validate_every,
                max_steps: train.max_steps,
                lr_schedule: train.lr_schedule,
            },
            seed,
        }
    }

    /// Width of the uncompressed tables that its budget is against.
    pub fn full_dim(&self) -> usize {
        self.scheme.full_dim.unwrap_or(self.embedding.dim)
    }

    /// The same trial on data that is known.
    pub fn on(&self, data: &DataSpec, label: LabelKind) -> Self {
        let ranks = self.task == Task::Ranking;
        let examples = if ranks { Examples::Users } else { Examples::Rows };
        Self { data: data.clone(), task: Task::of(label, examples), ..self.clone() }
    }

    /// The trial that it is until training ends, without what follows: narrower storage, and codes of
    /// a trained table. Itself where nothing does.
    pub fn parent(&self) -> Self {
        let mut parent = self.clone();
        let scheme = &mut parent.scheme;
        if let Some(kind) = scheme::find(&scheme.kind).and_then(|scheme| scheme.parent()) {
            let full_dim = scheme.full_dim;
            let (quantize, of, allocation, low) = Default::default();
            let (kind, knobs, budget) = (kind.into(), Knobs::new(), None);
            *scheme = SchemeSpec { kind, knobs, quantize, low, budget, of, allocation, full_dim };
        } else if !scheme.low && scheme.budget.as_ref().is_none_or(|(axis, _)| axis != "bytes") {
            // In bytes, narrower values are more values, which train otherwise.
            scheme.quantize = Storage::Fp32;
        }
        parent
    }

    /// The canonical form: defaults left out, numbers as short as they read, keys sorted.
    pub fn canonical(&self) -> Value {
        let mut spec = self.clone();
        let model_defaults =
            model::find(&self.model.kind).map(|m| m.defaults()).unwrap_or_default();
        spec.model.knobs = minimal(&self.model.knobs, &model_defaults);
        let defaults = scheme::find(&self.scheme.kind).map(|s| s.defaults()).unwrap_or_default();
        spec.scheme.knobs = minimal(&self.scheme.knobs, &defaults);
        shorten(json!(spec))
    }

    /// Refuses values that cannot be meant.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("embedding.dim", self.embedding.dim as u64),
            ("schedule.batch", self.schedule.batch as u64),
            ("schedule.epochs", self.schedule.epochs.into()),
            ("schedule.validate_every", self.schedule.validate_every.unwrap_or(1)),
            ("schedule.max_steps", self.schedule.max_steps.unwrap_or(1)),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, n)| *n == 0) {
            return Err(format!("{key} must be positive"));
        }
        if self.scheme.low {
            low_fits(self.scheme.quantize, self.optimizer)?;
        }
        self.optimizer.validate()?;
        self.embedding.init.validate()?;
        self.schedule.lr_schedule.map_or(Ok(()), |schedule| schedule.validate())
    }

    /// The canonical form but for the data, and what follows from it: what an experiment's config
    /// alone decides.
    pub fn without_data(&self) -> Value {
        let mut value = self.canonical();
        let map = value.as_object_mut().expect("a struct");
        map.remove("data");
        map.remove("task");
        value
    }

    /// Versions of the components that take part.
    pub fn versions(&self) -> BTreeMap<String, u32> {
        let scheme = scheme::find(&self.scheme.kind).map_or(0, |s| s.version());
        let model = model::find(&self.model.kind).map_or(0, |m| m.version());
        let parts = [
            ("scheme", scheme),
            ("model", model),
            ("loader", embc_data::LOADER_VERSION),
            ("trainer", embc_core::train::VERSION),
        ];
        let knobs = &self.scheme.knobs;
        // A scheme within another, from its second version on.
        let tail = knobs.get("tail").or(knobs.get("narrow")).and_then(|tail| tail.as_str());
        let tail = tail.and_then(scheme::find).map(|tail| ("tail", tail.version()));
        let finetune = self.finetunes().then_some(("finetune", embc_core::train::FINETUNE_VERSION));
        let all = parts.into_iter().chain(tail.filter(|tail| tail.1 > 1)).chain(finetune);
        all.map(|(name, version)| (name.to_string(), version)).collect()
    }

    /// Whether it trains on after a stage.
    pub fn finetunes(&self) -> bool {
        let epochs = self.scheme.knobs.get("finetune").and_then(|epochs| epochs.as_u64());
        epochs.unwrap_or(0) > 0
    }

    /// The id: a hash of the canonical form and of the versions of all that takes part.
    pub fn id(&self) -> String {
        self.id_at(&self.versions())
    }

    /// The id under other versions.
    fn id_at(&self, versions: &BTreeMap<String, u32>) -> String {
        // serde_json keeps keys sorted, so equal specs are equal text.
        let text = json!([self.canonical(), versions]).to_string();
        embc_data::hex(&Sha256::digest(text.as_bytes()))[..16].into()
    }
}

/// Refuses rows that would train in a storage or by a rule that they cannot.
pub fn low_fits(storage: Storage, optimizer: Optimizer) -> Result<(), String> {
    if !matches!(storage, Storage::Int8 | Storage::Int4) {
        return Err("quantize = { train = true } takes 8 or 4 bits: of two, rounding widens a row's range without end".into());
    }
    match optimizer.rule().kind {
        Kind::Momentum => {
            Err("quantize = { train = true } keeps no velocity: not with momentum".into())
        }
        _ => Ok(()),
    }
}

/// The allocation that a scheme's tables get: one that divides its budget itself knows no other.
fn allocation_of(scheme: &SchemeConfig, asked: Option<Allocation>) -> Allocation {
    let spans = scheme::find(&scheme.kind).is_some_and(|scheme| scheme.spans_tables());
    let asked = asked.filter(|&asked| !(spans && asked == Allocation::Optimal));
    asked.unwrap_or_default()
}

/// The knobs that are not at their defaults.
fn minimal(knobs: &Knobs, defaults: &Knobs) -> Knobs {
    // Numbers count by value: 2 and 2.0 are one.
    let same = |a: &Value, b: Option<&Value>| match (a.as_f64(), b.and_then(Value::as_f64)) {
        (Some(a), Some(b)) => a == b,
        _ => Some(a) == b,
    };
    let kept = knobs.iter().filter(|(key, value)| !same(value, defaults.get(*key)));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Writes 32-bit floats as short as they read: 0.001 instead of 0.0010000000474974513.
pub fn shorten(value: Value) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: &str) -> TrialSpec {
        let text = "title = \"t\"\ndataset = \"d\"\n[model]\nkind = \"mlp\"\n[embedding]\ndim = 8\n[train]\noptimizer = { kind = \"adam\", lr = 0.01 }\nbatch = 4\nepochs = 2\nselect = \"auc\"\n[budget]\ncompression = [2]\n[[scheme]]\nkind = \"cce\"\n";
        let mut table: toml::Table = text.parse().unwrap();
        for set in change.split('\n').filter(|set| !set.is_empty()) {
            crate::overrides::apply(&mut table, set).unwrap();
        }
        let experiment: Experiment = table.try_into().unwrap();
        let points = experiment.points().unwrap();
        TrialSpec::new(&experiment, &experiment.scheme[0], points.first(), 1)
    }

    /// Every field: what changes the id, and what does not, and why.
    #[test]
    fn what_decides_numbers_changes_the_id_and_nothing_else_does() {
        let base = spec("").id();
        for change in [
            "embedding.dim=4",
            "embedding.sharing=global",
            "embedding.init={ normal = 0.1 }",
            "embedding.hash=mod",
            "embedding.pooling=sum",
            "embedding.full_below=3",
            "embedding.unknown=row",
            "model.kind=dcn",
            "model.hidden=[3]",
            "train.optimizer={ kind = \"adam\", lr = 0.02 }",
            "train.optimizer={ kind = \"adamw\", lr = 0.01 }",
            "train.optimizer={ kind = \"adam\", lr = 0.01, weight_decay = 0.1 }",
            "train.optimizer={ kind = \"adam\", lr = 0.01, touch = \"all\" }",
            "train.lr_schedule={ kind = \"cosine\" }",
            "train.batch=5",
            "train.epochs=3",
            "train.select=logloss",
            "train.early_stop={ patience = 1 }",
            "train.validate_every=7",
            "train.max_steps=7",
            "budget.compression=[3]",
            "budget.rows=[3]",
            "budget.of=model",
            "budget.allocation=proportional",
            "scheme.allocation=proportional",
            "scheme.kind=memcom",
            "scheme.columns=2",
            "scheme.dim=4",
            "scheme.quantize=int8",
        ] {
            assert_ne!(spec(change).id(), base, "{change}");
        }
        for (change, why) in [
            ("title=other", "words"),
            ("paper=other", "words"),
            ("notes=other", "words"),
            ("dataset=other", "a name: the content counts"),
            ("table.relative_to=cce", "how results are shown"),
            ("train.metrics=[\"gauc\"]", "read from the same net"),
            ("train.seeds=[1, 2]", "other trials"),
            ("sweep.prune=true", "which trials there are"),
            ("scheme.label=cce again", "a name"),
            ("scheme.columns=4", "the default, written out"),
            ("embedding.unknown=mean", "the default, written out"),
            (
                "train.optimizer={ kind = \"adam\", lr = 0.01, beta1 = 0.9, touch = \"touched\" }",
                "defaults, written out",
            ),
            ("budget.compression=[2.0]", "the same number"),
        ] {
            assert_eq!(spec(change).id(), base, "{change}: {why}");
        }
        let other = TrialSpec { seed: 2, ..spec("") };
        assert_ne!(other.id(), base);
    }

    /// Of data, every field of the resolved view and the content.
    #[test]
    fn data_changes_the_id() {
        let with = |view: Value, content: &str| {
            let view = serde_json::from_value(view).unwrap();
            let data = DataSpec { content: content.into(), view };
            spec("").on(&data, LabelKind::Binary).id()
        };
        let base = with(json!({}), "a");
        assert_ne!(with(json!({}), "b"), base);
        for view in [
            json!({"columns": [["click", "label"]]}),
            json!({"pair": ["u", "i"]}),
            json!({"split": {"rule": "tail", "valid": 0.1, "test": 0.1}}),
            json!({"min_count": 2}),
            json!({"vocab": "all"}),
            json!({"label": {"positive_min": 4}}),
            json!({"negatives": 4}),
            json!({"candidates": 99}),
            json!({"given": "abc"}),
            json!({"valid_queries": 0.5}),
            json!({"context": ["hour"]}),
            json!({"had": "positives"}),
            json!({"dense": "log1p"}),
            json!({"shuffle": "none"}),
            json!({"history": 5}),
        ] {
            assert_ne!(with(view.clone(), "a"), base, "{view}");
        }
        let ratings = spec("").on(&DataSpec::default(), LabelKind::Rating);
        assert_ne!(ratings.id(), spec("").on(&DataSpec::default(), LabelKind::Binary).id());
        // A scheme's own allocation is in the place of the experiment's.
        let own = spec("budget.allocation=proportional\nscheme.allocation=cap");
        assert_eq!(own.id(), spec("").id());
        let tuned = |epochs: u32| spec(&format!("scheme.kind=pq\nscheme.finetune={epochs}"));
        assert_eq!(tuned(0).id(), spec("scheme.kind=pq").id());
        assert_eq!(tuned(1).parent().id(), tuned(0).parent().id());
    }

    #[test]
    fn another_version_of_a_component_is_another_trial() {
        let spec = spec("scheme.kind=pq\nscheme.finetune=1");
        for part in ["scheme", "model", "loader", "trainer", "finetune"] {
            let mut versions = spec.versions();
            *versions.get_mut(part).unwrap() += 1;
            assert_ne!(spec.id_at(&versions), spec.id(), "{part}");
        }
    }
}
