//! The parts of a config that say how results are shown and judged: no trial depends on them.

use embc_core::metric::Metric;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `[table]`: how `report` lays the experiment out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    /// "scheme", what it is by default.
    pub rows: Option<String>,
    /// The budget's axis, what it is by default.
    pub columns: Option<String>,
    /// The metric it shows; by default the one that picks the epoch.
    pub metric: Option<Metric>,
    /// The rows it shows it of; by default those that test, where there are any.
    pub split: Option<TableSplit>,
    /// A scheme's label, such as "full": show by how many per cent each value differs from its.
    pub relative_to: Option<String>,
    /// Show what training took: differs from run to run, and so is left out by default.
    pub times: bool,
    /// Show where each scheme's curve meets that of `relative_to`.
    pub crossing: bool,
    /// A kind of scheme: show how much each loses against `relative_to`, whether this kind loses
    /// least, and a plot.
    pub loss: Option<String>,
}

/// Which split a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TableSplit {
    /// The rows that pick the epoch.
    Valid,
    /// The rows that are read once, at the picked epoch.
    Test,
    /// A table of each.
    Both,
}

/// `[reference]`: values of a paper or another program.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceConfig {
    /// CSV beside the config: scheme, budget, metric, value, error (its standard error, or empty).
    pub file: PathBuf,
    /// Whose values they are, for the report.
    #[serde(default)]
    pub title: String,
    /// How far below the reference ours may lie by chance or by a detail; further than this and
    /// than two standard errors of the difference, `report --check` fails.
    pub tolerance: Option<f64>,
    /// Where its rows are another draw than ours: the deviation of a value over draws, which each
    /// side has of its own.
    #[serde(default)]
    pub draw: f64,
    /// Why a scheme's values are others than the reference's, by its label: said in the report, and
    /// not held against it by `report --check`.
    #[serde(default)]
    pub differs: BTreeMap<String, String>,
}

impl ReferenceConfig {
    /// Refuses what cannot be meant; the error is the key and what is wrong with it.
    pub fn validate(&self, is_scheme: impl Fn(&str) -> bool) -> Result<(), (&str, String)> {
        if !(self.draw >= 0.0 && self.draw.is_finite()) {
            return Err(("draw", "[reference] draw must not be negative".into()));
        }
        self.differs.keys().find(|name| !is_scheme(name)).map_or(Ok(()), |name| {
            let what = "[reference] differs names scheme";
            Err((name, format!("{what} {name:?}, which is not in this experiment")))
        })
    }
}

/// `[[compare]]`: pairs of schemes whose difference is of interest.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// What the comparison is to show.
    pub title: String,
    /// The schemes, two by two.
    pub pairs: Vec<Pair>,
    /// By how much the first is said to be better, on average over the pairs.
    pub claim: Option<f64>,
}

/// A scheme, and another to take from it, at a budget where they have one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// A scheme's label.
    pub scheme: String,
    /// The label of the scheme to take from it.
    pub with: String,
    /// The budget's value; left out for schemes without one.
    pub budget: Option<f64>,
}

/// `[[expect]]`: a bound that `report --check` enforces.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// A scheme's label.
    pub scheme: String,
    /// Which metric's mean over seeds is bounded.
    pub metric: Metric,
    /// Of which rows.
    #[serde(default = "test_split")]
    pub split: TableSplit,
    /// The budget's value; without it the scheme's only one.
    pub budget: Option<f64>,
    /// At least this.
    pub min: Option<f64>,
    /// At most this.
    pub max: Option<f64>,
    /// This, give or take `tolerance`.
    pub value: Option<f64>,
    /// How far from `value` it may lie; 0 by default.
    pub tolerance: Option<f64>,
    /// Most loss in % against `[table] relative_to`.
    pub relative_loss_max: Option<f64>,
    /// Why this is expected, for the report.
    #[serde(default)]
    pub source: String,
}

fn test_split() -> TableSplit {
    TableSplit::Test
}
