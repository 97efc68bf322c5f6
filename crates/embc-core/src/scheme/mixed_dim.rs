//! Mixed dimensions: the larger a table's vocabulary, the narrower its rows, projected to one width
//! (arXiv 1909.11810). Σ (v_t + d)·d_t parameters with d_t = λ·v_t^-α; λ is solved for the budget.

use super::factorized::plan_of_rank;
use super::full::table_plan;
use super::*;

pub(super) struct MixedDim;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    alpha: f64,
}

impl Default for Knob {
    fn default() -> Self {
        Self { alpha: 0.3 }
    }
}

impl Scheme for MixedDim {
    fn name(&self) -> &'static str {
        "mixed_dim"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "narrower rows for larger vocabularies",
            long: "Ids of large vocabularies are rare, so their tables get narrower rows, with a projection up to dim. All tables share one budget; with a single table this is `factorized`.",
            paper: "Ginart et al., arXiv 1909.11810",
            equation: "E_i = A_t[i] P_t, A_t as wide as lambda * vocab_t^-alpha",
            stores: "A_t [vocab_t x d_t], P_t [d_t x dim] where d_t < dim",
            collisions: "none are equal; the rows of a table lie in a space of d_t dimensions",
            knobs: &[("alpha", "how fast widths fall with the vocabulary: 0 to 1 (default 0.3)")],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
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
        let Knob { alpha } = super::knobs(knobs)?;
        if !(0.0..=1.0).contains(&alpha) {
            return Err(PlanError::Knob(format!("`alpha` = {alpha} must lie in [0, 1]")));
        }
        let total = limits.iter().copied().reduce(Limit::plus).unwrap_or(Limit::None);
        let smallest = tables.iter().map(|t| t.vocab).min().unwrap_or(1).max(1);
        // Widths for λ in steps of 1/1024 of a component of the smallest table.
        let width = |t: &TableSpec, step: u64| {
            let share = (f64::from(t.vocab) / f64::from(smallest)).powf(-alpha);
            ((step as f64 / 1024.0 * share) as usize).clamp(1, t.dim)
        };
        let of = |t: &TableSpec, width: usize| match width == t.dim {
            true => table_plan(t.vocab.into(), t.dim),
            false => plan_of_rank(t, width),
        };
        // Projections are counted at every width, so that the size grows with λ.
        let cost = |step: u64| {
            let params =
                |t: &TableSpec| (u64::from(t.vocab) + t.dim as u64) * width(t, step) as u64;
            Footprint::floats(tables.iter().map(params).sum())
        };
        let dim = tables.iter().map(|t| t.dim).max().unwrap_or(1) as u64;
        let most = 1024 * dim * (u32::MAX as f64).powf(alpha).ceil() as u64;
        let step = total.largest(most, cost).ok_or_else(|| {
            PlanError::Infeasible(format!(
                "mixed_dim cannot fit {} tables in {total}: one component for each id takes {} parameters",
                tables.len(),
                cost(1).params,
            ))
        })?;
        Ok(tables.iter().map(|t| of(t, width(t, step))).collect())
    }
}
