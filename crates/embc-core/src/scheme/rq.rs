//! Residual quantisation after training: each codebook holds centroids of what the ones before it left
//! of a trained full table. s codebooks of k rows, d wide: s·k·d parameters, and codes.

use super::*;
use crate::books::{Kind, Lloyd, Recipe};
use crate::kmeans::Start;

pub(super) struct ResidualQuantisation;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    stages: usize,
    iterations: usize,
    samples: usize,
    start: Start,
    beam: usize,
    rounds: usize,
    finetune: u32,
}

impl Default for Knob {
    fn default() -> Self {
        Self {
            stages: 4,
            iterations: 50,
            samples: 256,
            start: Start::Random,
            beam: 8,
            rounds: 3,
            finetune: 0,
        }
    }
}

impl Scheme for ResidualQuantisation {
    fn name(&self) -> &'static str {
        "rq"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "residual quantisation of a trained full table",
            long: "Trains the full table, then replaces each row by a sum of s centroids: of rows, of what the first ones leave, and so on. Codes are found with a beam, then codes and codebooks in turn. At equal codes it loses less than pq; its codebooks are s times as large, so it pays where vocabularies are.",
            paper: "Chen et al. 2010, Sensors 10(12); codebooks after Babenko and Lempitsky 2014 (additive quantisation)",
            equation: "E_i = sum_j B_j[code_j(i)]",
            stores: "B [s x k x dim], codes [vocab x s] of log2(k) bits",
            collisions: "ids of the same codes are equal",
            knobs: &[
                ("stages", "s, codebooks (default 4)"),
                ("iterations", "of k-means (default 50)"),
                ("samples", "ids a centroid that k-means sees; all are coded (default 256)"),
                ("start", "random (default) | plusplus: k-means' first centroids"),
                ("beam", "partial sums that are followed for each row (default 8)"),
                ("rounds", "of codes and codebooks in turn (default 3)"),
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
        let Knob { stages, iterations, samples, start, beam, rounds, finetune } =
            super::knobs(knobs)?;
        let fine = (1..=64).contains(&stages) && (1..=64).contains(&beam);
        if !fine {
            return Err(PlanError::Knob(format!(
                "rq: stages = {stages}, beam = {beam}: both are 1 to 64"
            )));
        }
        let lloyd = Lloyd { samples: samples.max(1), start, iterations };
        let kind = Kind::Residual { beam, rounds };
        let recipe = Recipe { kind, books: stages, k: 0, lloyd };
        super::coded::plan(self.name(), t, limit, recipe, finetune)
    }
}
