//! Double hashing: two hashed rows, summed or side by side (arXiv 2007.14523). m·d parameters.

use super::*;

pub(super) struct DoubleHash;

#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum Combine {
    /// Two rows of one table.
    #[default]
    Sum,
    /// Half rows of two tables.
    Concat,
}

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    combine: Combine,
}

impl Scheme for DoubleHash {
    fn name(&self) -> &'static str {
        "double_hash"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "two hashed rows, summed or side by side",
            long: "Two ids are equal only if both of their hashes agree, which for m rows happens to one pair in m^2.",
            paper: "Zhang et al., arXiv 2007.14523; baseline of MEmCom",
            equation: "E_i = U[h1(i)] + U[h2(i)], or A[h1(i)] ++ B[h2(i)]",
            stores: "U [m x dim], or A and B [m x dim/2]",
            collisions: "two ids are equal with probability 2/m^2 (sum, in either order) or 1/m^2 (concat)",
            knobs: &[("combine", "sum (default) | concat")],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { combine } = super::knobs(knobs)?;
        match combine {
            Combine::Sum => {
                let sum = sum::Sum { hashes: 2, signed: false, scale: 1.0 };
                sum::plan(self.name(), t, limit, None, sum)
            }
            Combine::Concat => ce::plan(self.name(), t, limit, None, (2, 2)),
        }
    }
}
