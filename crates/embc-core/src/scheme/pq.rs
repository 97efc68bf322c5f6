//! Product quantisation after training: the pieces of a trained full table become centroids.
//! c codebooks of k rows, d/c wide: k·d parameters, and codes.

use super::ce::check_columns;
use super::*;
use crate::books::{Kind, Lloyd, Recipe};
use crate::kmeans::Start;

pub(super) struct ProductQuantisation;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    columns: usize,
    iterations: usize,
    samples: usize,
    start: Start,
    finetune: u32,
}

impl Default for Knob {
    fn default() -> Self {
        Self { columns: 4, iterations: 50, samples: 256, start: Start::Random, finetune: 0 }
    }
}

impl Scheme for ProductQuantisation {
    fn name(&self) -> &'static str {
        "pq"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "product quantisation of a trained full table",
            long: "Trains the full table, then replaces each of c pieces of a row by the nearest of k centroids. The memory is that of codebooks and codes only after training: while it trains, it takes as much as `full`.",
            paper: "Jegou et al. 2011; baseline of CCE, arXiv 2210.05974",
            equation: "E_i = ++_j B_j[code_j(i)]",
            stores: "B [c x k x dim/c], codes [vocab x c] of log2(k) bits",
            collisions: "ids that fall into the same cluster in every column are equal",
            knobs: &[
                ("columns", "c, which divides dim (default 4)"),
                ("iterations", "of k-means (default 50)"),
                ("samples", "ids a centroid that k-means sees; all are coded (default 256)"),
                ("start", "random (default) | plusplus: k-means' first centroids"),
                ("finetune", super::coded::FINETUNE),
            ],
        }
    }
    fn parent(&self) -> Option<&'static str> {
        Some("full")
    }
    fn decides_late(&self) -> bool {
        true
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { columns, iterations, samples, start, finetune } = super::knobs(knobs)?;
        check_columns(self.name(), t.dim, columns)?;
        let lloyd = Lloyd { samples: samples.max(1), start, iterations };
        let recipe = Recipe { kind: Kind::Product, books: columns, k: 0, lloyd };
        super::coded::plan(self.name(), t, limit, recipe, finetune)
    }
}
