//! Unified Embedding: all fields read rows of the same few tables, several each, side by side (feature
//! multiplexing). With `sharing = "global"`, where ids of fields are told apart by their offsets; one
//! number says how large all memory is. t·m·(d/c) parameters.

use super::*;
use crate::hash::HashFamily;

pub(super) struct Unified;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    columns: usize,
    tables: usize,
    hash: Option<HashFamily>,
}

impl Default for Knob {
    fn default() -> Self {
        Self { columns: 4, tables: 1, hash: None }
    }
}

impl Scheme for Unified {
    fn name(&self) -> &'static str {
        "unified"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "hashed pieces of all fields out of the same table",
            long: "As ce, but columns take rows of t tables in turn: with one, all columns share all memory. Made for sharing = \"global\", where all fields do; the model learns to tell apart what a row says for each.",
            paper: "Unified Embedding (feature multiplexing): Coleman et al., NeurIPS 2023, arXiv 2305.12102",
            equation: "E_i = ++_j T_(j mod t)[h_j(i)]",
            stores: "T [t x m x dim/c]",
            collisions: "two ids are equal with probability 1/m^c, and share some row of a column with 1 - (1 - 1/m)^c; columns share rows too",
            knobs: &[
                ("columns", "c, which divides dim (default 4)"),
                ("tables", "t, at most c (default 1)"),
                ("hash", "mix64 (default) | poly31"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { columns, tables, hash } = super::knobs(knobs)?;
        if !(1..=columns.max(1)).contains(&tables) {
            return Err(PlanError::Knob(format!(
                "unified: `tables` = {tables} lies between 1 and columns = {columns}"
            )));
        }
        ce::plan(self.name(), t, limit, hash, (columns, tables))
    }
}
