//! Experiments: one TOML file each, checked as a whole before anything runs.

use crate::suggest;
use anyhow::{Context, Result, anyhow, bail};
use embc_core::budget::{Allocation, Budget, Of};
use embc_core::hash::HashFamily;
use embc_core::init::Init;
use embc_core::layer::{Pooling, Sharing};
use embc_core::metric::Metric;
use embc_core::optim::Optim;
use embc_core::scheme::Knobs;
use embc_data::view::ViewSpec;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// `[model]`: a kind and its knobs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelConfig {
    pub kind: String,
    #[serde(flatten)]
    pub knobs: Knobs,
}

/// `[embedding]`: what all schemes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingConfig {
    pub dim: usize,
    #[serde(default)]
    pub sharing: Sharing,
    #[serde(default)]
    pub init: Init,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<HashFamily>,
    #[serde(default)]
    pub pooling: Pooling,
    #[serde(default)]
    pub full_below: u32,
}

/// `[train] early_stop`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    pub patience: u32,
}

/// `[train]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    pub optimizer: Optim,
    pub batch: usize,
    pub epochs: u32,
    pub select: Metric,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_every: Option<u64>,
    /// Metrics beside the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    #[serde(default = "one_seed", skip_serializing)]
    pub seeds: Vec<u64>,
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

/// A number of bytes: 1048576, "1MiB", "1.5 GB".
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Bytes(pub u64);

impl TryFrom<serde_json::Value> for Bytes {
    type Error = String;
    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        match &value {
            serde_json::Value::String(text) => text.parse(),
            other => other.as_u64().map(Bytes).ok_or_else(|| format!("{other} is not a size")),
        }
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
        let scale = match text[digits.len()..].trim() {
            "" | "B" => 1.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            unit => return Err(format!("unknown unit {unit:?} in {text:?}; use kB, MB, GB, KiB, MiB or GiB")),
        };
        match digits.parse::<f64>() {
            Ok(n) if n >= 0.0 && n.is_finite() => Ok(Bytes((n * scale) as u64)),
            _ => Err(format!("{text:?} is not a size such as 50MiB")),
        }
    }
}

/// `[budget]`: exactly one axis.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    pub compression: Option<Vec<f64>>,
    pub params: Option<Vec<u64>>,
    pub bytes: Option<Vec<Bytes>>,
    pub rows: Option<Vec<u64>>,
    pub cap: Option<Vec<u64>>,
    #[serde(default)]
    pub of: Of,
    #[serde(default)]
    pub allocation: Allocation,
}

/// A value of the budget axis as it stands in records and tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub axis: &'static str,
    pub value: serde_json::Number,
    pub budget: Budget,
}

impl BudgetConfig {
    /// The axis and its values.
    pub fn points(&self) -> Result<Vec<Point>> {
        let (c, given) = (self, |some: bool, name| some.then_some(name));
        let axes: Vec<&'static str> = [
            given(c.compression.is_some(), "compression"),
            given(c.params.is_some(), "params"),
            given(c.bytes.is_some(), "bytes"),
            given(c.rows.is_some(), "rows"),
            given(c.cap.is_some(), "cap"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [axis] = axes[..] else {
            bail!("[budget] needs exactly one of compression, params, bytes, rows, cap; it has {}", axes.len());
        };
        let whole = |values: &Option<Vec<u64>>, budget: fn(u64) -> Budget| {
            let point = |&n: &u64| Point { axis, value: n.into(), budget: budget(n) };
            values.iter().flatten().map(point).collect::<Vec<_>>()
        };
        let bytes = c.bytes.as_ref().map(|bytes| bytes.iter().map(|b| b.0).collect());
        let mut points = [
            whole(&c.params, Budget::Params),
            whole(&bytes, Budget::Bytes),
            whole(&c.rows, Budget::Rows),
            whole(&c.cap, Budget::Cap),
        ]
        .concat();
        for &ratio in c.compression.iter().flatten() {
            if !(ratio >= 1.0 && ratio.is_finite()) {
                bail!("[budget] compression = {ratio} must be at least 1");
            }
            let whole = ratio.fract() == 0.0 && ratio < 1e15;
            let value = match whole {
                true => (ratio as u64).into(),
                false => serde_json::Number::from_f64(ratio).expect("finite"),
            };
            points.push(Point { axis, value, budget: Budget::Compression(ratio) });
        }
        if points.is_empty() || points.iter().any(|p| p.value.as_f64() == Some(0.0)) {
            bail!("[budget] {axis} needs values above 0");
        }
        Ok(points)
    }
}

/// A `[[scheme]]`: a kind, overrides of `[embedding]`, and its knobs.
#[derive(Clone, Debug, Deserialize)]
pub struct SchemeConfig {
    pub kind: String,
    pub label: Option<String>,
    pub dim: Option<usize>,
    pub sharing: Option<Sharing>,
    pub init: Option<Init>,
    #[serde(flatten)]
    pub knobs: Knobs,
}

impl SchemeConfig {
    /// The name in tables.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.kind)
    }
}

/// `[table]`: how `report` lays the experiment out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    pub rows: Option<String>,
    pub columns: Option<String>,
    pub metric: Option<Metric>,
    pub split: Option<TableSplit>,
    pub relative_to: Option<String>,
}

/// Which split a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableSplit {
    Valid,
    Test,
}

/// `[reference]`: values of a paper or another program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceConfig {
    pub file: PathBuf,
    #[serde(default)]
    pub title: String,
}

/// `[[expect]]`: a bound that `report --check` enforces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub scheme: String,
    pub metric: Metric,
    #[serde(default = "test_split")]
    pub split: TableSplit,
    /// The budget's value; without it the scheme's only one.
    pub budget: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub value: Option<f64>,
    pub tolerance: Option<f64>,
    pub relative_loss_max: Option<f64>,
    #[serde(default)]
    pub source: String,
}

fn test_split() -> TableSplit {
    TableSplit::Test
}

/// A config file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub title: String,
    #[serde(default)]
    pub paper: String,
    pub dataset: String,
    #[serde(default)]
    pub notes: String,
    #[serde(default)]
    pub data: ViewSpec,
    pub model: ModelConfig,
    pub embedding: EmbeddingConfig,
    pub train: TrainConfig,
    pub budget: Option<BudgetConfig>,
    pub scheme: Vec<SchemeConfig>,
    #[serde(default)]
    pub table: TableConfig,
    pub reference: Option<ReferenceConfig>,
    #[serde(default)]
    pub expect: Vec<Expect>,
    /// The file's stem, which names everything.
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub path: PathBuf,
    #[serde(skip)]
    text: String,
}

/// The file of `--config`: a path as it is, else under `configs/`.
pub fn find(name: &Path) -> Result<PathBuf> {
    let places = [
        name.to_path_buf(),
        name.with_extension("toml"),
        Path::new("configs").join(name),
        Path::new("configs").join(name).with_extension("toml"),
    ];
    if let Some(found) = places.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let known = std::fs::read_dir("configs").into_iter().flatten().flatten();
    let known: Vec<String> = known
        .filter_map(|file| file.path().file_stem().map(|s| s.to_string_lossy().into_owned()))
        .collect();
    let wanted = name.file_stem().unwrap_or_default().to_string_lossy();
    let hint = suggest::nearest(&wanted, known.iter().map(String::as_str));
    bail!("{}: no such config, here or under configs/{hint}", name.display())
}

impl Experiment {
    /// Reads and checks a config with the overrides of `--set`.
    pub fn load(name: &Path, sets: &[String]) -> Result<Self> {
        let path = find(name)?;
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        let parsed: Result<Self, toml::de::Error> = toml::from_str(&text);
        let mut experiment = parsed.map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            anyhow!("{}:{line}: {}", path.display(), suggest::key(error.message()))
        })?;
        if !sets.is_empty() {
            let mut table: toml::Table = text.parse().expect("parsed above");
            for set in sets {
                override_key(&mut table, set)?;
            }
            experiment = table
                .try_into()
                .map_err(|error: toml::de::Error| anyhow!("--set {}: {}", sets.join(" --set "), suggest::key(error.message())))?;
        }
        experiment.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        experiment.path = path;
        experiment.text = text;
        experiment.check()?;
        Ok(experiment)
    }

    /// An error about `key`, with its line.
    pub fn error(&self, key: &str, what: impl std::fmt::Display) -> anyhow::Error {
        let is = |line: &&str| {
            let line = line.trim_start();
            line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
                || line.contains(&format!("\"{key}\""))
        };
        let line = self.text.lines().position(|line| is(&line)).map_or(1, |at| at + 1);
        anyhow!("{}:{line}: {what}", self.path.display())
    }

    fn check(&self) -> Result<()> {
        let positive = |key: &str, n: u64| match n {
            0 => Err(self.error(key, format!("{key} must be positive"))),
            _ => Ok(()),
        };
        positive("dim", self.embedding.dim as u64)?;
        positive("batch", self.train.batch as u64)?;
        positive("epochs", self.train.epochs.into())?;
        positive("seeds", self.train.seeds.len() as u64)?;
        positive("validate_every", self.train.validate_every.unwrap_or(1))?;
        if let Some(stop) = self.train.early_stop {
            positive("early_stop", stop.patience.into())?;
        }
        self.train.optimizer.validate().map_err(|what| self.error("optimizer", what))?;
        self.embedding.init.validate().map_err(|what| self.error("init", what))?;
        if self.scheme.is_empty() {
            bail!("{}: no [[scheme]]; add one, such as kind = \"full\"", self.path.display());
        }
        let mut labels = std::collections::BTreeSet::new();
        for scheme in &self.scheme {
            let known = embc_core::scheme::SCHEMES.iter().map(|s| s.name());
            if embc_core::scheme::find(&scheme.kind).is_none() {
                let hint = suggest::nearest(&scheme.kind, known.clone());
                let known: Vec<&str> = known.collect();
                let what = format!("unknown scheme {:?}{hint}; there are {}", scheme.kind, known.join(", "));
                return Err(self.error(&scheme.kind, what));
            }
            if !scheme.label().starts_with(&scheme.kind) {
                let what = format!("label {:?} must start with its kind, {}", scheme.label(), scheme.kind);
                return Err(self.error(scheme.label(), what));
            }
            if !labels.insert(scheme.label()) {
                let what = format!("two schemes are called {:?}; give one a label", scheme.label());
                return Err(self.error(scheme.label(), what));
            }
            if let Some(init) = scheme.init {
                init.validate().map_err(|what| self.error("init", what))?;
            }
            positive("dim", scheme.dim.unwrap_or(1) as u64)?;
        }
        if embc_core::model::find(&self.model.kind).is_none() {
            let known = embc_core::model::MODELS.iter().map(|m| m.name());
            let hint = suggest::nearest(&self.model.kind, known.clone());
            let known: Vec<&str> = known.collect();
            let what = format!("unknown model {:?}{hint}; there are {}", self.model.kind, known.join(", "));
            return Err(self.error(&self.model.kind, what));
        }
        let names_scheme = |name: &str| labels.contains(name);
        for expect in &self.expect {
            if !names_scheme(&expect.scheme) {
                let what = format!("[[expect]] names scheme {:?}, which is not in this experiment", expect.scheme);
                return Err(self.error(&expect.scheme, what));
            }
        }
        if let Some(label) = self.table.relative_to.as_deref().filter(|label| !names_scheme(label)) {
            let what = format!("relative_to names scheme {label:?}, which is not in this experiment");
            return Err(self.error("relative_to", what));
        }
        match (self.table.rows.as_deref(), self.table.columns.as_deref()) {
            (None | Some("scheme"), _) => {}
            (Some(rows), _) => {
                return Err(self.error("rows", format!("[table] rows = {rows:?} must be \"scheme\"")));
            }
        }
        let points = self.points().map_err(|error| self.error("[budget]", error))?;
        if let (Some(columns), Some(point)) = (&self.table.columns, points.first())
            && columns != point.axis
        {
            let what = format!("[table] columns = {columns:?} is not the budget's axis, {}", point.axis);
            return Err(self.error("columns", what));
        }
        Ok(())
    }

    /// The points of the budget axis; none without a `[budget]`.
    pub fn points(&self) -> Result<Vec<Point>> {
        self.budget.as_ref().map_or(Ok(Vec::new()), BudgetConfig::points)
    }

    /// The metric that tables show.
    pub fn metric(&self) -> Metric {
        self.table.metric.unwrap_or(self.train.select)
    }

    /// All metrics that trials evaluate.
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = vec![Metric::Auc, Metric::LogLoss, Metric::Accuracy];
        metrics.extend([self.train.select, self.metric()]);
        metrics.extend(&self.train.metrics);
        metrics.extend(self.expect.iter().map(|e| e.metric));
        metrics.sort();
        metrics.dedup();
        metrics
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text[..offset.min(text.len())].matches('\n').count()
}

/// Applies `a.b=value` to a parsed config. `scheme.kind` picks schemes, other `scheme.` keys are set
/// on all of them.
fn override_key(table: &mut toml::Table, set: &str) -> Result<()> {
    let (path, text) = set
        .split_once('=')
        .ok_or_else(|| anyhow!("--set {set}: write it as key=value, such as train.epochs=2"))?;
    let value: toml::Value = format!("v = {text}")
        .parse::<toml::Table>()
        .map_or_else(|_| toml::Value::String(text.into()), |mut t| t.remove("v").expect("just set"));
    let keys: Vec<&str> = path.trim().split('.').collect();
    if keys[0] == "scheme" && keys.len() == 2 {
        let Some(toml::Value::Array(schemes)) = table.get_mut("scheme") else {
            bail!("--set {set}: the config has no [[scheme]]");
        };
        if keys[1] == "kind" {
            let is = |scheme: &toml::Value| scheme.get("kind") == Some(&value) || scheme.get("label") == Some(&value);
            match schemes.iter().any(is) {
                true => schemes.retain(is),
                false => *schemes = vec![toml::Table::from_iter([("kind".into(), value)]).into()],
            }
        } else {
            for scheme in schemes.iter_mut().filter_map(|s| s.as_table_mut()) {
                scheme.insert(keys[1].into(), value.clone());
            }
        }
        return Ok(());
    }
    let (last, folders) = keys.split_last().expect("split gives one");
    let mut at = table;
    for key in folders {
        let entry = at.entry(*key).or_insert_with(|| toml::Table::new().into());
        at = entry.as_table_mut().ok_or_else(|| anyhow!("--set {set}: {key} is not a table"))?;
    }
    let axes = ["compression", "params", "bytes", "rows", "cap"];
    if folders == ["budget"] && axes.contains(last) {
        axes.iter().for_each(|axis| drop(at.remove(*axis)));
    }
    at.insert((*last).into(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("12", 12), ("1kB", 1000), ("50MiB", 50 << 20), ("1.5 GiB", 3 << 29)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes);
        }
        for text in ["", "MiB", "-1MB", "5 parsecs"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[track_caller]
    fn check(set: &str, expect: &str) {
        let text = "[train]\nepochs = 1\n[budget]\nrows = [4]\n[[scheme]]\nkind = \"full\"\n[[scheme]]\nkind = \"qr\"\n";
        let mut table: toml::Table = text.parse().unwrap();
        let result = override_key(&mut table, set).map(|()| toml::to_string(&table).unwrap());
        let flat = result.map_or_else(|e| e.to_string(), |t| t.replace("\n\n", "\n").replace('\n', " "));
        assert!(flat.contains(expect), "{flat}");
    }

    #[test]
    fn overrides() {
        check("train.epochs=2", "epochs = 2");
        check("title=some words", "title = \"some words\"");
        check("budget.compression=[16]", "[budget] compression = [16] [[scheme]]");
        check("scheme.kind=qr", "[[scheme]] kind = \"qr\" [train]");
        check("scheme.kind=memcom", "[[scheme]] kind = \"memcom\" [train]");
        check("scheme.dim=8", "dim = 8 kind = \"qr\"");
        check("train", "write it as key=value");
    }
}
