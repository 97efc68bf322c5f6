//! Signed feature hashing: the hashing trick with a random sign. m·d parameters.

use super::sum::{Sum, plan};
use super::*;
use crate::hash::HashFamily;

pub(super) struct SignedHash;

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    hash: Option<HashFamily>,
}

impl Scheme for SignedHash {
    fn name(&self) -> &'static str {
        "signed_hash"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "the hashing trick with a random sign",
            long: "Ids share rows as in `hash`, but each adds its row with a sign of its own, so that two colliding ids are opposite as often as equal.",
            paper: "Weinberger et al. 2009; baseline of MEmCom",
            equation: "E_i = s(i) * U[h(i)], s in {-1, +1}",
            stores: "U [m x dim]",
            collisions: "two ids have equal rows with probability 1/(2m), opposite ones as often",
            knobs: &[("hash", "mix64 (default) | mod | poly31")],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn trains_low(&self) -> bool {
        true
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { hash } = super::knobs(knobs)?;
        plan(self.name(), t, limit, hash, Sum { hashes: 1, signed: true, scale: 1.0 })
    }
}
