//! The part of a config that says which cells get which seeds.

use schemars::JsonSchema;
use serde::Deserialize;

/// How many seeds a cell of the table gets, by what its first ones show.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SweepConfig {
    /// No more seeds for a cell that has lost to another at its budget beyond chance.
    pub prune: bool,
    /// More seeds until half the width of the metric's 95 % interval is at most this.
    pub until_ci: Option<f64>,
    /// Most seeds of a cell.
    pub max_seeds: u32,
    /// Seeds by rounds: only who may still win within its bytes gets the next one; of a kind of scheme
    /// the form that is named first runs first, the others only if it stands well.
    pub race: bool,
    /// Seeds beyond all these for each budget's winner, the next and full, once they are known: their
    /// test metric is of seeds that nothing was picked by.
    pub confirm: u32,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self { prune: false, until_ci: None, max_seeds: 20, race: false, confirm: 0 }
    }
}
