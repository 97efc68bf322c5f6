//! Experiments: one TOML file each, checked as a whole before anything runs.

use crate::axis::{BudgetConfig, BudgetPoint};
use crate::{overrides, suggest};
use anyhow::{Result, anyhow, bail};
use embc_core::batch::Examples;
use embc_core::hash::HashFamily;
use embc_core::init::Init;
use embc_core::layer::{Pooling, Sharing, Unknown};
use embc_core::metric::Metric;
use embc_core::optim::{LrSchedule, Optimizer};
use embc_core::scheme::Knobs;
use embc_core::task::{LabelKind, Task};
use embc_data::view::{Resolved, ViewSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod file;
mod quantize;
mod scheme;
mod shown;
mod source;
mod sweep;
mod unread;

pub use file::{all, find, place, read, theory};
pub use quantize::Quantize;
pub use scheme::SchemeConfig;
pub use shown::{Compare, Expect, Pair, ReferenceConfig, TableConfig, TableSplit};
pub use source::Source;
pub use sweep::SweepConfig;

/// The network between the embeddings and the loss; every other key is a knob of its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelConfig {
    /// Which model: `embc list models` says what there is, and their knobs.
    pub kind: String,
    /// Its own keys.
    #[serde(flatten)]
    pub knobs: Knobs,
}

/// What all schemes share, and a `[[scheme]]` may override.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingConfig {
    /// Width of the uncompressed embedding.
    pub dim: usize,
    /// Which fields share memory.
    #[serde(default)]
    pub sharing: Sharing,
    /// How a table starts.
    #[serde(default)]
    pub init: Init,
    /// Which family maps an id to a row, in all schemes that hash; by default the scheme's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashFamily>,
    /// How the rows of a field with several ids become one.
    #[serde(default)]
    pub pooling: Pooling,
    /// Tables with fewer ids stay uncompressed.
    #[serde(default)]
    pub full_below: u32,
    /// What stands for ids without a training row, in all schemes alike.
    #[serde(default)]
    pub unknown: Unknown,
}

/// When training stops before its last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Validations without a better one.
    pub patience: u32,
    /// Epochs before which nothing stops: some models learn nothing new for a while at first, and
    /// compressed ones for longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
}

/// How each trial is trained.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The update rule and its settings.
    pub optimizer: Optimizer,
    /// How the learning rate moves over the steps; without it, it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_schedule: Option<LrSchedule>,
    /// Examples a step.
    pub batch: usize,
    /// Most passes over the training rows.
    pub epochs: u32,
    /// The metric of the validation rows that picks the epoch whose weights are tested: `embc list
    /// metrics`. By default auc; of classes accuracy, of rankings ndcg@10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Metric>,
    /// Stop when validation no longer gets better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Steps between validations; by default one at the end of each epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_every: Option<u64>,
    /// Most steps: a part of an epoch, to try things on large data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Metrics beside the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// A trial of each scheme and budget for each, which draws initial values, order, dropout and
    /// negatives; [1] without it.
    #[serde(default = "one_seed", skip_serializing)]
    pub seeds: Vec<u64>,
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

/// An experiment: schemes by budgets by seeds, trained alike on one data set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The config that says all that this one does not: a file beside it, or a name.
    #[serde(default)]
    pub base: Option<String>,
    /// The heading of its report.
    pub title: String,
    /// What it is after, for the report.
    #[serde(default)]
    pub paper: String,
    /// Its data: `embc list datasets`.
    pub dataset: String,
    /// What a reader of the report has to know.
    #[serde(default)]
    pub notes: String,
    /// Which part of the data is used, and how.
    #[serde(default)]
    pub data: ViewSpec,
    /// The network between the embeddings and the loss; every other key is a knob of its kind.
    pub model: ModelConfig,
    /// What all schemes share.
    pub embedding: EmbeddingConfig,
    /// How each trial is trained.
    pub train: TrainConfig,
    /// How large the compressed embeddings are: exactly one of compression, params, bytes, rows and
    /// cap, a list of values. Without it each scheme has its own full size.
    pub budget: Option<BudgetConfig>,
    /// A way to compress, trained at each budget; every other key is a knob of its kind.
    pub scheme: Vec<SchemeConfig>,
    /// How many seeds a cell of the table gets, by what its first ones show.
    #[serde(default)]
    pub sweep: SweepConfig,
    /// How `embc report` lays the experiment out.
    #[serde(default)]
    pub table: TableConfig,
    /// Values of a paper or another program, shown beside ours.
    pub reference: Option<ReferenceConfig>,
    /// Pairs of schemes whose difference is of interest, shown with intervals.
    #[serde(default)]
    pub compare: Vec<Compare>,
    /// A bound that `embc report --check` enforces.
    #[serde(default)]
    pub expect: Vec<Expect>,
    /// True with `--set`, which may take schemes away that other keys name.
    #[serde(skip)]
    overridden: bool,
    /// What `[data]` comes to for each seed, by the registry; none where that does not know the data.
    #[serde(skip)]
    pub views: Option<BTreeMap<u64, Resolved>>,
    /// The file's stem, which names everything.
    #[serde(skip)]
    pub name: String,
    /// The file.
    #[serde(skip)]
    pub path: PathBuf,
    #[serde(skip)]
    source: Source,
}

impl Experiment {
    /// Reads and checks a config with the overrides of `--set`.
    pub fn load(name: &Path, sets: &[String]) -> Result<Self> {
        let source = Source::read(name)?;
        let (path, mut table) = (source.path().to_path_buf(), source.parse::<toml::Table>()?);
        if let Some(kind) = table.get("theory").and_then(toml::Value::as_str) {
            bail!("{}: a study of `embc theory {kind}`, not an experiment", path.display());
        }
        let mut experiment: Self = source.parse()?;
        if !sets.is_empty() {
            for set in sets {
                overrides::apply(&mut table, set)?;
            }
            experiment = table.try_into().map_err(|error: toml::de::Error| {
                anyhow!("--set {}: {}", sets.join(" --set "), suggest::key(error.message()))
            })?;
        }
        experiment.overridden = !sets.is_empty();
        experiment.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        experiment.path = path;
        experiment.source = source;
        for scheme in &mut experiment.scheme {
            if let (None, Some(storage)) = (&scheme.label, scheme.quantize) {
                scheme.label = Some(format!("{} {}", scheme.kind, storage.label()));
            }
        }
        experiment.check()?;
        Ok(experiment)
    }

    /// Where its records are, below the folder of results.
    pub fn place(&self) -> String {
        file::place(&self.path)
    }

    /// What its file says, and its base.
    pub fn table(&self) -> toml::Table {
        self.source.parse().expect("parsed before")
    }

    /// An error about a key such as "scheme.2.dim", with its line.
    pub fn error(&self, key: &str, what: impl std::fmt::Display) -> anyhow::Error {
        self.source.error(key, what)
    }

    /// The file that a path in a key is relative to.
    pub fn file_of(&self, key: &str) -> &Path {
        self.source.file_of(key)
    }

    /// The path of the `[[scheme]]` with a label.
    pub fn path_of(&self, label: &str) -> String {
        let at = self.scheme.iter().position(|scheme| scheme.label() == label);
        at.map_or("scheme".into(), |i| format!("scheme.{i}"))
    }

    fn check(&self) -> Result<()> {
        let positive = |key: &str, n: u64| match n {
            0 => {
                let name = key.rsplit('.').next().unwrap_or(key);
                Err(self.error(key, format!("{name} must be positive")))
            }
            _ => Ok(()),
        };
        positive("embedding.dim", self.embedding.dim as u64)?;
        positive("train.batch", self.train.batch as u64)?;
        positive("train.epochs", self.train.epochs.into())?;
        positive("train.seeds", self.train.seeds.len() as u64)?;
        positive("train.validate_every", self.train.validate_every.unwrap_or(1))?;
        positive("train.max_steps", self.train.max_steps.unwrap_or(1))?;
        if self.sweep.until_ci.is_some_and(|width| width.is_nan() || width <= 0.0) {
            return Err(self.error("sweep.until_ci", "until_ci must be positive"));
        }
        if self.sweep.race && self.budget.as_ref().is_none_or(|budget| budget.bytes.is_none()) {
            return Err(self.error("sweep.race", "a race is run within bytes: add [budget] bytes"));
        }
        if self.sweep.race && self.select() == Metric::Calibration {
            return Err(self.error("train.select", "a race needs a metric of which more or less is better, and of calibration neither is"));
        }
        let takes_one_split = self.sweep.prune
            || self.sweep.race
            || self.sweep.until_ci.is_some()
            || self.table.loss.is_some()
            || self.reference.is_some();
        if self.data.splits_by_seed() && takes_one_split {
            return Err(self.error(
                "data.split",
                "[sweep], [table] loss and [reference] judge by intervals of one split, but each seed draws its own here: leave them out, or give the split a seed",
            ));
        }
        if let Some(stop) = self.train.early_stop {
            positive("train.early_stop", stop.patience.into())?;
        }
        let mut seeds = std::collections::BTreeSet::new();
        if let Some(seed) = self.train.seeds.iter().find(|&&seed| !seeds.insert(seed)) {
            return Err(self.error(
                "train.seeds",
                format!("seed {seed} appears twice: its trials would count as two"),
            ));
        }
        self.train.optimizer.validate().map_err(|what| self.error("train.optimizer", what))?;
        self.embedding.init.validate().map_err(|what| self.error("embedding.init", what))?;
        if let Some(schedule) = self.train.lr_schedule {
            schedule.validate().map_err(|what| self.error("train.lr_schedule", what))?;
        }
        self.check_unread()?;
        if self.scheme.is_empty() {
            bail!("{}: no [[scheme]]; add one, such as kind = \"full\"", self.path.display());
        }
        let mut labels = std::collections::BTreeSet::new();
        for (i, scheme) in self.scheme.iter().enumerate() {
            let at = |key: &str| format!("scheme.{i}.{key}");
            let known = embc_core::scheme::SCHEMES.iter().map(|s| s.name());
            if embc_core::scheme::find(&scheme.kind).is_none() {
                let hint = suggest::nearest(&scheme.kind, known.clone());
                let known: Vec<&str> = known.collect();
                let what = format!(
                    "unknown scheme {:?}{hint}; there are {}",
                    scheme.kind,
                    known.join(", ")
                );
                return Err(self.error(&at("kind"), what));
            }
            if !scheme.label().starts_with(&scheme.kind) {
                let what =
                    format!("label {:?} must start with its kind, {}", scheme.label(), scheme.kind);
                return Err(self.error(&at("label"), what));
            }
            if !labels.insert(scheme.label()) {
                let what = format!("two schemes are called {:?}; give one a label", scheme.label());
                return Err(self.error(&at("label"), what));
            }
            if let Some(low) = scheme.quantize.filter(|quantize| quantize.trains()) {
                crate::spec::low_fits(low.storage(), self.train.optimizer)
                    .map_err(|what| self.error(&at("quantize"), what))?;
            }
            if let Some(init) = scheme.init {
                init.validate().map_err(|what| self.error(&at("init"), what))?;
            }
            positive(&at("dim"), scheme.dim.unwrap_or(1) as u64)?;
        }
        if embc_core::model::find(&self.model.kind).is_none() {
            let known = embc_core::model::MODELS.iter().map(|m| m.name());
            let hint = suggest::nearest(&self.model.kind, known.clone());
            let known: Vec<&str> = known.collect();
            let what = format!(
                "unknown model {:?}{hint}; there are {}",
                self.model.kind,
                known.join(", ")
            );
            return Err(self.error("model.kind", what));
        }
        let names_scheme = |name: &str| self.overridden || labels.contains(name);
        for (i, expect) in self.expect.iter().enumerate() {
            if expect.split == TableSplit::Both {
                return Err(self.error(
                    &format!("expect.{i}.split"),
                    "[[expect]] split is \"valid\" or \"test\"",
                ));
            }
            if !names_scheme(&expect.scheme) {
                let what = format!(
                    "[[expect]] names scheme {:?}, which is not in this experiment",
                    expect.scheme
                );
                return Err(self.error(&format!("expect.{i}.scheme"), what));
            }
        }
        if let Some(reference) = &self.reference {
            reference
                .validate(names_scheme)
                .map_err(|(key, what)| self.error(&format!("reference.{key}"), what))?;
        }
        let pairs = self.compare.iter().flat_map(|compare| &compare.pairs);
        let mut compared = pairs.flat_map(|pair| [&pair.scheme, &pair.with]);
        if let Some(name) = compared.find(|name| !names_scheme(name)) {
            let what =
                format!("[[compare]] names scheme {name:?}, which is not in this experiment");
            return Err(self.error("compare", what));
        }
        if let Some(label) = self.table.relative_to.as_deref().filter(|label| !names_scheme(label))
        {
            let what =
                format!("relative_to names scheme {label:?}, which is not in this experiment");
            return Err(self.error("table.relative_to", what));
        }
        match (self.table.rows.as_deref(), self.table.columns.as_deref()) {
            (None | Some("scheme"), _) => {}
            (Some(rows), _) => {
                return Err(
                    self.error("table.rows", format!("[table] rows = {rows:?} must be \"scheme\""))
                );
            }
        }
        let mut kinds = self.scheme.iter().map(|scheme| &scheme.kind);
        if let Some(kind) = &self.table.loss {
            if !self.overridden && !kinds.any(|known| known == kind) {
                let what = format!("loss names the kind {kind:?}, which no [[scheme]] has");
                return Err(self.error("table.loss", what));
            }
            if self.budget.is_none() {
                return Err(self.error("table.loss", "loss is shown by budget: add a [budget]"));
            }
            if self.table.relative_to.is_none() {
                return Err(
                    self.error("table.loss", "loss needs relative_to, what it is relative to")
                );
            }
        }
        if self.table.crossing {
            let full =
                |label: &str| self.scheme.iter().any(|s| s.label() == label && s.kind == "full");
            let sizes = self.budget.as_ref().is_none_or(|budget| budget.compression.is_none());
            let what = match self.table.relative_to.as_deref() {
                None => Some("crossing needs relative_to, whose value curves are to meet"),
                Some(label) if !self.overridden && !full(label) => {
                    Some("crossing needs a relative_to of kind full, which has no budget")
                }
                _ => (!sizes).then_some("crossing needs a budget of sizes, not of compression"),
            };
            if let Some(what) = what {
                return Err(self.error("table.crossing", what));
            }
        }
        let points = self.points().map_err(|error| self.error("budget", error))?;
        for (i, point) in points.iter().enumerate() {
            if points[..i].iter().any(|other| other.budget == point.budget) {
                let what = format!("{} = {} appears twice", point.axis, point.value);
                return Err(self.error(&format!("budget.{}", point.axis), what));
            }
        }
        if let (Some(columns), Some(point)) = (&self.table.columns, points.first())
            && columns != point.axis
        {
            let what =
                format!("[table] columns = {columns:?} is not the budget's axis, {}", point.axis);
            return Err(self.error("table.columns", what));
        }
        Ok(())
    }

    /// The experiment by views of its data: one a seed where seeds draw the split.
    pub fn by_view(&self) -> Vec<Self> {
        let of_seed = |&seed: &u64| {
            let mut part = self.clone();
            part.train.seeds = vec![seed];
            part
        };
        match self.data.splits_by_seed() {
            true => self.train.seeds.iter().map(of_seed).collect(),
            false => vec![self.clone()],
        }
    }

    /// What differs between seeds, for tables.
    pub fn seeds_vary(&self) -> &'static str {
        match self.data.splits_by_seed() {
            true => "initialisation, order, and the split, which each seed draws",
            false => "initialisation and order; the data and its split are fixed",
        }
    }

    /// The points of the budget axis; none without a `[budget]`.
    pub fn points(&self) -> Result<Vec<BudgetPoint>> {
        self.budget.as_ref().map_or(Ok(Vec::new()), BudgetConfig::points)
    }

    /// The metric that picks the epoch.
    pub fn select(&self) -> Metric {
        let label =
            embc_core::model::find(&self.model.kind).map_or(LabelKind::Binary, |m| m.label());
        let task = Task::of(label, self.examples().unwrap_or_default());
        self.train.select.unwrap_or(task.select())
    }

    /// The metric that tables show.
    pub fn metric(&self) -> Metric {
        self.table.metric.unwrap_or(self.select())
    }

    /// How the model wants its examples.
    pub fn examples(&self) -> Result<Examples> {
        let model = embc_core::model::find(&self.model.kind).expect("checked");
        model.examples(&self.model.knobs).map_err(|what| {
            let key = what.split('`').nth(1).unwrap_or("kind");
            self.error(
                &format!("model.{key}"),
                format!("model {}: {}", self.model.kind, suggest::key(&what)),
            )
        })
    }

    /// All metrics that trials evaluate.
    pub fn metrics(&self) -> Vec<Metric> {
        let usual = embc_core::model::find(&self.model.kind).map_or(&[][..], |m| m.metrics());
        let usual = usual.iter().map(|name| name.parse().expect("a metric's name"));
        let mut metrics: Vec<Metric> = usual.collect();
        metrics.extend([self.select(), self.metric()]);
        metrics.extend(&self.train.metrics);
        metrics.extend(self.expect.iter().map(|e| e.metric));
        metrics.sort();
        metrics.dedup();
        metrics
    }
}
