//! HashedNets: every component is a hashed cell of one flat array (Chen et al. 2015).
//! Any number of parameters.

use super::*;

pub(super) struct HashedNet;

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    signed: bool,
}

impl Scheme for HashedNet {
    fn name(&self) -> &'static str {
        "hashednet"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "every component is a hashed cell of one array",
            long: "Component j of id i is one cell of a flat array, by a hash of both. Sharing is spread so thin that no two ids have much in common, at the cost of dim scattered reads an id. With sharing = \"global\" one array serves all fields.",
            paper: "Chen et al., arXiv 1504.04788; the random-sharing baseline of LMA",
            equation: "E_i[j] = (s(i, j)) * M[h(i, j)]",
            stores: "M [any number of cells]",
            collisions: "two ids share a component with probability 1/m, independently: all of them with m^-dim",
            knobs: &[("signed", "multiply each component by a random sign (default false)")],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { signed } = super::knobs(knobs)?;
        // ROBE with blocks of one cell.
        robe::plan(self.name(), t, limit, 1, signed)
    }
}
