//! A narrower table: k < d floats an id. v·k parameters; the next layer shrinks with it.

use super::full::table_plan;
use super::*;

pub(super) struct ReduceDim;

impl Scheme for ReduceDim {
    fn name(&self) -> &'static str {
        "reduce_dim"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "a narrower table",
            long: "Every id keeps a row of its own, with fewer components; all tables get the same width k, the largest that the whole budget allows, and the model's next layer shrinks with it. Reaches compressions up to dim, in coarse steps.",
            paper: "baseline of MEmCom, arXiv 2203.10135",
            equation: "E_i = T[i], k wide",
            stores: "T [vocab x k]",
            collisions: "none",
            knobs: &[],
        }
    }
    fn spans_tables(&self) -> bool {
        true
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let plans = self.plan(std::slice::from_ref(t), &[limit], knobs)?;
        Ok(plans.into_iter().next().expect("one plan a table"))
    }
    fn plan(
        &self,
        tables: &[TableSpec],
        limits: &[Limit],
        knobs: &Knobs,
    ) -> Result<Vec<Plan>, PlanError> {
        no_knobs(knobs)?;
        let ids: u64 = tables.iter().map(|t| u64::from(t.vocab)).sum();
        let total = limits.iter().copied().reduce(Limit::plus).unwrap_or(Limit::None);
        let most = tables.iter().map(|t| t.dim).max().unwrap_or(1) as u64;
        let width = total.largest(most, |k| Footprint::floats(ids * k)).ok_or_else(|| {
            PlanError::Infeasible(format!(
                "reduce_dim cannot fit {ids} ids in {total}: one component each takes {ids} parameters, a compression of {most}"
            ))
        })?;
        let plan = |t: &TableSpec| {
            let plan = table_plan(t.vocab.into(), (width as usize).min(t.dim));
            let larger = if width < most { u64::from(t.vocab) * (width + 1) } else { u64::MAX };
            Plan { larger, ..plan }
        };
        Ok(tables.iter().map(plan).collect())
    }
}
