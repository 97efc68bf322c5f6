//! From a budget over all tables to a limit for each of them.
//!
//! By default one cap for all tables, found by bisection: tables that fit under it stay full, as in
//! the CCE paper. `allocation = "proportional"` gives each table its share of the budget instead.

use crate::quantize::{self, Storage};
use crate::scheme::{Footprint, Knobs, Limit, Plan, PlanError, Precision, Scheme, TableSpec, find};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point of the budget axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// The scheme's own full size.
    Unlimited,
    /// Times fewer trained parameters than `full` at the experiment's dim.
    Compression(f64),
    /// Trained parameters of all tables.
    Params(u64),
    /// Bytes of all tables, pointers and codes included.
    Bytes(u64),
    /// Every table gets exactly rows × dim parameters, even beyond its full size.
    Rows(u64),
    /// Parameters of the largest table; smaller tables stay full.
    Cap(u64),
}

/// How a budget is divided among tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Allocation {
    /// One cap for all; tables below it stay full.
    #[default]
    Cap,
    /// Each table in proportion to its full size.
    Proportional,
}

/// What a compression is a ratio of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// The embedding tables.
    #[default]
    Input,
    /// All parameters of the model.
    Model,
}

/// The rules of an experiment for dividing a budget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// One cap, or shares.
    pub allocation: Allocation,
    /// Input tables, or the whole model.
    pub of: Of,
    /// Parameters outside the tables, for [`Of::Model`].
    pub model_params: u64,
    /// Tables with fewer ids stay full.
    pub full_below: u32,
    /// How parameters are stored after training: what a budget of bytes counts.
    pub storage: Storage,
}

impl Rules {
    fn stored(self, t: &TableSpec) -> Precision {
        Precision { storage: self.storage, group: quantize::group(t.dim) }
    }
}

/// The part of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Full,
    Within(Limit),
}

/// Plans all tables within a budget.
pub fn plan(
    scheme: &dyn Scheme,
    tables: &[TableSpec],
    budget: Budget,
    rules: Rules,
    knobs: &Knobs,
) -> Result<Vec<Plan>, PlanError> {
    let shares = divide(tables, budget, rules, scheme.spans_tables())?;
    let (mut compressed, mut limits) = (Vec::new(), Vec::new());
    for (table, share) in tables.iter().zip(&shares) {
        if let Share::Within(limit) = share {
            compressed.push(table.clone());
            limits.push(*limit);
        }
    }
    // Also with no table left, so that wrong knobs never pass.
    let mut planned = match compressed.is_empty() {
        true => scheme.plan(tables, &vec![Limit::None; tables.len()], knobs).map(|_| Vec::new())?,
        false => scheme.plan(&compressed, &limits, knobs)?,
    }
    .into_iter();
    let full = find("full").expect("registered");
    tables
        .iter()
        .zip(&shares)
        .map(|(table, share)| {
            let mut plan = match share {
                Share::Full => full.plan_table(table, Limit::None, &Knobs::new())?,
                Share::Within(_) => planned.next().expect("one plan a table"),
            };
            plan.footprint = plan.footprint.stored(rules.stored(table));
            Ok(plan)
        })
        .collect()
}

/// The memory of all plans together.
pub fn footprint(plans: &[Plan]) -> Footprint {
    plans.iter().map(|plan| plan.footprint).fold(Footprint::default(), Footprint::plus)
}

fn divide(
    tables: &[TableSpec],
    budget: Budget,
    rules: Rules,
    spans: bool,
) -> Result<Vec<Share>, PlanError> {
    let kept = |t: &TableSpec| !spans && t.vocab < rules.full_below;
    let full: u64 = tables.iter().map(TableSpec::full_params).sum();
    let each = |limit: &dyn Fn(&TableSpec) -> Share| {
        let share = |t| if kept(t) { Share::Full } else { limit(t) };
        Ok(tables.iter().map(share).collect())
    };
    // In parameters, or in bytes as stored.
    let (total, in_bytes) = match budget {
        Budget::Unlimited => return each(&|_| Share::Within(Limit::None)),
        Budget::Rows(rows) => {
            let too_many = tables.iter().find(|t| rows.checked_mul(t.dim as u64).is_none());
            if let Some(t) = too_many.or(tables.first().filter(|_| rows > u32::MAX.into())) {
                return Err(PlanError::Knob(format!(
                    "a budget of rows = {rows} is more than the 2^32 that table {} could have",
                    t.name
                )));
            }
            return each(&|t| Share::Within(Limit::Params(rows * t.dim as u64)));
        }
        Budget::Cap(cap) if spans => (tables.iter().map(|t| t.full_params().min(cap)).sum(), false),
        Budget::Cap(cap) => {
            return each(&|t| match t.full_params() <= cap {
                true => Share::Full,
                false => Share::Within(Limit::Params(cap)),
            });
        }
        Budget::Compression(ratio) => {
            let outside = if rules.of == Of::Model { rules.model_params } else { 0 };
            let total = ((full + outside) as f64 / ratio) as u64;
            let total = total.checked_sub(outside).filter(|&n| n > 0).ok_or_else(|| {
                if outside == 0 {
                    let why = format!("compression {ratio} leaves not one of {full} parameters");
                    return PlanError::Infeasible(why);
                }
                PlanError::Infeasible(format!(
                    "compression {ratio} of the whole model leaves nothing for the tables: {outside} parameters lie outside them, so the ratio stays below {:.2}",
                    (full + outside) as f64 / outside as f64
                ))
            })?;
            (total, false)
        }
        Budget::Params(params) => (params, false),
        Budget::Bytes(bytes) => (bytes, true),
    };
    let size = |t: &TableSpec| match in_bytes {
        true => Footprint::floats(t.full_params()).stored(rules.stored(t)).bytes(),
        false => t.full_params(),
    };
    let limit = |t: &TableSpec, most: u64| match in_bytes {
        true => Limit::Bytes(most, rules.stored(t)),
        false => Limit::Params(most),
    };
    let keep: u64 = tables.iter().filter(|t| kept(t)).map(size).sum();
    let rest: u64 = tables.iter().filter(|t| !kept(t)).map(size).sum();
    let left = total.checked_sub(keep).ok_or_else(|| {
        PlanError::Infeasible(format!(
            "tables below full_below = {} take {keep} of a budget of {total}; lower full_below or raise the budget",
            rules.full_below
        ))
    })?;
    if spans || rules.allocation == Allocation::Proportional {
        let part = |t: &TableSpec| u128::from(left) * u128::from(size(t)) / u128::from(rest.max(1));
        return each(&|t| Share::Within(limit(t, part(t) as u64)));
    }
    let used =
        |cap: u64| -> u64 { tables.iter().filter(|t| !kept(t)).map(|t| size(t).min(cap)).sum() };
    let (mut cap, mut exceeds) = (0, rest.max(left).saturating_add(1));
    while exceeds - cap > 1 {
        let middle = cap + (exceeds - cap) / 2;
        if used(middle) <= left {
            cap = middle;
        } else {
            exceeds = middle;
        }
    }
    each(&|t| match size(t) <= cap {
        true => Share::Full,
        false => Share::Within(limit(t, cap)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(vocabs: &[u32]) -> Vec<TableSpec> {
        let spec = |&vocab| TableSpec {
            name: format!("v{vocab}"),
            vocab,
            dim: 10,
            counts: vec![1; vocab as usize].into(),
        };
        vocabs.iter().map(spec).collect()
    }

    #[track_caller]
    fn check(budget: Budget, rules: Rules, expect: &str) {
        let shares = divide(&tables(&[10, 100, 1000, 890]), budget, rules, false);
        let text = shares.map(|shares| {
            let text = shares.iter().map(|share| match share {
                Share::Full => "full".to_string(),
                Share::Within(limit) => limit.to_string().replace(" parameters", ""),
            });
            text.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(text.unwrap_or_else(|e| e.to_string()), expect);
    }

    #[test]
    fn the_cap_keeps_small_tables_full_and_uses_the_whole_budget() {
        // 20,000 / 4 = 5,000 = 100 + 1,000 + 1,950 + 1,950.
        check(Budget::Compression(4.0), Rules::default(), "full full 1950 1950");
        check(Budget::Params(3100), Rules::default(), "full full 1000 1000");
        check(Budget::Compression(1.0), Rules::default(), "full full full full");
        check(Budget::Bytes(20_000), Rules::default(), "full full 7800 bytes 7800 bytes");
        check(Budget::Cap(900), Rules::default(), "full 900 900 900");
        check(Budget::Rows(50), Rules::default(), "500 500 500 500");
    }

    #[test]
    fn shares_and_kept_tables() {
        let proportional = Rules { allocation: Allocation::Proportional, ..Rules::default() };
        check(Budget::Compression(4.0), proportional, "25 250 2500 2225");
        let kept = Rules { full_below: 101, ..Rules::default() };
        check(Budget::Params(1500), kept, "full full 200 200");
        check(
            Budget::Params(1000),
            kept,
            "tables below full_below = 101 take 1100 of a budget of 1000; lower full_below or raise the budget",
        );
        let model = Rules { of: Of::Model, model_params: 2000, ..Rules::default() };
        check(Budget::Compression(4.0), model, "full full 1200 1200");
        check(
            Budget::Compression(11.0),
            model,
            "compression 11 of the whole model leaves nothing for the tables: 2000 parameters lie outside them, so the ratio stays below 11.00",
        );
    }

    #[test]
    fn reduce_dim_pools_the_budget_and_names_its_bound() {
        let scheme = find("reduce_dim").unwrap();
        let tables = tables(&[10, 100, 1000, 890]);
        let budget = |c| {
            plan(scheme, &tables, Budget::Compression(c), Rules::default(), &Knobs::new())
                .map(|plans| plans[0].out_dim)
        };
        assert_eq!(budget(4.0), Ok(2));
        assert_eq!(budget(10.0), Ok(1));
        assert!(budget(11.0).unwrap_err().to_string().contains("a compression of 10"));
    }
}
