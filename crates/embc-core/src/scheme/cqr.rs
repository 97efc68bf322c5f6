//! CQR: CCE's first version. One clustering, with all of the budget in its centroids, and no helper
//! afterwards (arXiv 2210.05974, v1). 2·k·d parameters, and pointers.

use super::cce::{KNOBS, Knob, plan};
use super::*;

pub(super) struct Cqr;

impl Scheme for Cqr {
    fn name(&self) -> &'static str {
        "cqr"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "one clustering during training, then all of the budget in its centroids",
            long: "Trains as CCE until its one clustering, which finds twice as many centroids; from then on pointers alone pick the pieces.",
            paper: "Clustering the Sketch, arXiv 2210.05974 v1",
            equation: "E_i = ++_j M_j[p_j(i)] after the clustering",
            stores: "M [c x 2k x dim/c], pointers [c x vocab] of log2(2k) bits",
            collisions: "ids that fall into the same cluster in every column are equal",
            knobs: KNOBS,
        }
    }
    fn defaults(&self) -> Knobs {
        let mut knobs = defaults::<Knob>();
        knobs.insert("clusterings".into(), 1.into());
        knobs.insert("every".into(), 0.5.into());
        knobs
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let mut all = self.defaults();
        all.extend(knobs.clone());
        let knob: Knob = super::knobs(&all)?;
        if knob.clusterings != 1 {
            return Err(PlanError::Knob(
                "cqr has one clustering; use cce for more `clusterings`".into(),
            ));
        }
        plan(self.name(), t, limit, knob, true)
    }
}
