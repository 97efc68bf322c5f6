//! Optimised product quantisation after training: a rotation first, so that pieces are of equal weight
//! and depend less on each other. c codebooks of k rows, d/c wide: k·d parameters, codes, and d² values
//! of the rotation.

use super::ce::check_columns;
use super::*;
use crate::books::{Kind, Lloyd, Recipe};
use crate::kmeans::Start;

pub(super) struct OptimisedProduct;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    columns: usize,
    iterations: usize,
    samples: usize,
    start: Start,
    rotations: usize,
    finetune: u32,
}

impl Default for Knob {
    fn default() -> Self {
        Self {
            columns: 4,
            iterations: 50,
            samples: 256,
            start: Start::Random,
            rotations: 12,
            finetune: 0,
        }
    }
}

impl Scheme for OptimisedProduct {
    fn name(&self) -> &'static str {
        "opq"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "product quantisation of a trained full table, rotated first",
            long: "As pq, of rows that an orthogonal matrix has turned. It begins at the principal axes, spread over the pieces, and is then found in turn with the codebooks. Worth its bytes where columns of the table are correlated.",
            paper: "Ge et al. 2013, IEEE TPAMI 36(4)",
            equation: "E_i = (++_j B_j[code_j(i)]) R^T",
            stores: "B [c x k x dim/c], codes [vocab x c] of log2(k) bits, R [dim x dim]",
            collisions: "ids that fall into the same cluster in every column are equal",
            knobs: &[
                ("columns", "c, which divides dim (default 4)"),
                ("iterations", "of k-means (default 50)"),
                ("samples", "ids a centroid that k-means sees; all are coded (default 256)"),
                ("start", "random (default) | plusplus: k-means' first centroids"),
                ("rotations", "rounds of rotation and codebooks in turn (default 12)"),
                (
                    "finetune",
                    "epochs to train codebooks and model on, codes and rotation fixed, while the learning rate falls to 0 (default 0)",
                ),
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
        let Knob { columns, iterations, samples, start, rotations, finetune } =
            super::knobs(knobs)?;
        check_columns(self.name(), t.dim, columns)?;
        let lloyd = Lloyd { samples: samples.max(1), start, iterations };
        let recipe =
            Recipe { kind: Kind::Rotated { iterations: rotations }, books: columns, k: 0, lloyd };
        super::coded::plan(self.name(), t, limit, recipe, finetune)
    }
}
