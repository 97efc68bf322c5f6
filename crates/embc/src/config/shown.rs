//! The parts of a config that say how results are shown and judged: no trial depends on them.

use embc_core::metric::Metric;
use serde::Deserialize;
use std::path::PathBuf;

/// `[table]`: how `report` lays the experiment out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableConfig {
    pub rows: Option<String>,
    pub columns: Option<String>,
    pub metric: Option<Metric>,
    pub split: Option<TableSplit>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableSplit {
    Valid,
    Test,
    /// A table of each.
    Both,
}

/// `[reference]`: values of a paper or another program.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceConfig {
    pub file: PathBuf,
    #[serde(default)]
    pub title: String,
    /// How far below the reference ours may lie by chance or by a detail; further than this and
    /// than two standard errors of the difference, `report --check` fails.
    pub tolerance: Option<f64>,
}

/// `[[compare]]`: pairs of schemes whose difference is of interest.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    pub title: String,
    pub pairs: Vec<Pair>,
    /// By how much the first is said to be better, on average over the pairs.
    pub claim: Option<f64>,
}

/// A scheme, and another to take from it, at a budget where they have one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    pub scheme: String,
    pub with: String,
    pub budget: Option<f64>,
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
