//! Bloom embeddings: the mean of k hashed rows of one table. m·d parameters.

use super::sum::{Sum, plan};
use super::*;
use crate::hash::HashFamily;

pub(super) struct Bloom;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    hashes: usize,
    signed: bool,
    hash: Option<HashFamily>,
}

impl Default for Knob {
    fn default() -> Self {
        Self { hashes: 4, signed: false, hash: None }
    }
}

impl Scheme for Bloom {
    fn name(&self) -> &'static str {
        "bloom"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "the mean of k hashed rows",
            long: "Each id has k rows of one table and their mean as its embedding. Two ids are equal only if all k rows are, but every row is shared by k times as many ids.",
            paper: "Serra and Karatzoglou 2017; unweighted hash embeddings in CCE's repository",
            equation: "E_i = (1/k) * sum_j U[h_j(i)]",
            stores: "U [m x dim]",
            collisions: "two ids are equal with probability about k!/m^k, and share some row with about k^2/m",
            knobs: &[
                ("hashes", "k, rows an id (default 4)"),
                ("signed", "add rows with random signs (default false)"),
                ("hash", "mix64 (default) | poly31"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn trains_low(&self) -> bool {
        true
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { hashes, signed, hash } = super::knobs(knobs)?;
        if hashes == 0 {
            return Err(PlanError::Knob("`hashes` must be positive".into()));
        }
        let scale = 1.0 / hashes as f32;
        plan(self.name(), t, limit, hash, Sum { hashes, signed, scale })
    }
}
