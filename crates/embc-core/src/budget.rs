//! From a budget over all tables to a limit for each of them.
//!
//! By default one cap for all tables, found by bisection: tables that fit under it stay full, as in
//! the CCE paper. `allocation = "proportional"` gives each table its share of the budget instead,
//! `"optimal"` what it is worth: before training by the training rows of ids, or after it by what each
//! form of each table would lose.

use crate::quantize::{self, Storage};
use crate::scheme::{
    Footprint, Knobs, Limit, Plan, PlanError, Precision, SCHEMES, Scheme, TableSpec, find,
};
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
    /// By what it buys: measured on the trained net where a scheme decides after training, else the
    /// ids with the most training rows first, of all tables.
    Optimal,
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
    /// They already train so, each row with a range of its own.
    pub low: bool,
}

impl Rules {
    fn stored(self, t: &TableSpec) -> Precision {
        match (self.low, t.dim) {
            // A range would be as large as the one value that it is of.
            (true, 1) => Precision { storage: Storage::Fp32, group: 1 },
            (true, dim) => Precision { storage: self.storage, group: dim },
            (false, dim) => Precision { storage: self.storage, group: quantize::group(dim) },
        }
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
    if rules.low && !scheme.trains_low() {
        let able = SCHEMES.iter().filter(|s| s.trains_low()).map(|s| s.name());
        return Err(PlanError::Knob(format!(
            "quantize = {{ train = true }} is of {}; {} keeps what no row of codes holds",
            able.collect::<Vec<_>>().join(", "),
            scheme.name()
        )));
    }
    let late = shared(scheme, budget, rules)?;
    if let Some(bytes) = late {
        return plan_late(scheme, tables, bytes, rules, knobs);
    }
    let shares = divide(tables, budget, rules, scheme.spans_tables())?;
    let (mut compressed, mut limits) = (Vec::new(), Vec::new());
    for (table, share) in tables.iter().zip(&shares) {
        if let Share::Within(limit) = share {
            compressed.push(table.clone());
            limits.push(*limit);
        }
    }
    let each = rules.allocation == Allocation::Optimal && !scheme.spans_tables();
    // Also with no table left, so that wrong knobs never pass.
    let mut planned = match compressed.is_empty() {
        true => scheme.plan(tables, &vec![Limit::None; tables.len()], knobs).map(|_| Vec::new())?,
        false if each => {
            let plan = |(t, &limit): (&TableSpec, &Limit)| plan_or_hash(scheme, t, limit, knobs);
            compressed.iter().zip(&limits).map(plan).collect::<Result<_, _>>()?
        }
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
            if rules.low {
                plan.footprint.train_bytes = plan.footprint.bytes();
            }
            Ok(plan)
        })
        .collect()
}

/// The bytes that tables share, where their scheme decides after training what each becomes.
pub fn shared(scheme: &dyn Scheme, budget: Budget, rules: Rules) -> Result<Option<u64>, PlanError> {
    match budget {
        _ if rules.allocation != Allocation::Optimal || !scheme.decides_late() => Ok(None),
        Budget::Unlimited => Ok(None),
        Budget::Bytes(bytes) => Ok(Some(bytes)),
        _ => Err(PlanError::Knob(format!(
            "allocation = \"optimal\" divides bytes among tables of {}: give the budget in `bytes`",
            scheme.name()
        ))),
    }
}

/// Plans of tables each of which may take all bytes; what they take is said by full size, and known
/// after training. A table may always become one row.
fn plan_late(
    scheme: &dyn Scheme,
    tables: &[TableSpec],
    bytes: u64,
    rules: Rules,
    knobs: &Knobs,
) -> Result<Vec<Plan>, PlanError> {
    let (kept, open): (Vec<_>, Vec<_>) = tables.iter().partition(|t| t.vocab < rules.full_below);
    let stored = |t: &TableSpec, params| Footprint::floats(params).stored(rules.stored(t)).bytes();
    let of_kept: u64 = kept.iter().map(|t| stored(t, t.full_params())).sum();
    let of_rows: u64 = open.iter().map(|t| stored(t, t.dim as u64)).sum();
    let Some(left) = bytes.checked_sub(of_kept).filter(|&left| of_rows <= left) else {
        return Err(PlanError::Infeasible(format!(
            "{} cannot fit {} tables in {bytes} bytes: one row of each takes {of_rows}, those below full_below = {} ids {of_kept}",
            scheme.name(),
            open.len(),
            rules.full_below
        )));
    };
    let all: u128 = open.iter().map(|t| u128::from(t.full_params())).sum();
    let of_all: u64 = open.iter().map(|t| stored(t, t.full_params())).sum();
    let at_most = left.min(of_all);
    let full = find("full").expect("registered");
    let plan = |t: &TableSpec| {
        // Nothing is to be decided where all tables fit as they are.
        if t.vocab < rules.full_below || of_all <= left {
            let plan = full.plan_table(t, Limit::None, &Knobs::new())?;
            return Ok(Plan { footprint: plan.footprint.stored(rules.stored(t)), ..plan });
        }
        let plan = plan_within(scheme, t, left, rules.stored(t), knobs)?;
        let share = u128::from(at_most) * u128::from(t.full_params()) / all.max(1);
        let footprint = Footprint { param_bytes: 0, index_bytes: share as u64, ..plan.footprint };
        Ok(Plan { footprint, sizes: "decided after training".into(), ..plan })
    };
    tables.iter().map(plan).collect()
}

/// The plan within so many bytes, or the fewest doublings of them that the scheme's smallest form needs.
fn plan_within(
    scheme: &dyn Scheme,
    table: &TableSpec,
    bytes: u64,
    stored: Precision,
    knobs: &Knobs,
) -> Result<Plan, PlanError> {
    match scheme.plan_table(table, Limit::Bytes(bytes, stored), knobs) {
        Err(PlanError::Infeasible(_)) if bytes < 1 << 60 => {
            plan_within(scheme, table, 2 * bytes.max(1), stored, knobs)
        }
        plan => plan,
    }
}

/// The plan of a table, of hashed rows where the scheme has no form as small: a table that cannot fit
/// is no reason to give up all.
fn plan_or_hash(
    scheme: &dyn Scheme,
    table: &TableSpec,
    limit: Limit,
    knobs: &Knobs,
) -> Result<Plan, PlanError> {
    match scheme.plan_table(table, limit, knobs) {
        Err(PlanError::Infeasible(_)) => {
            let hash = find("hash").expect("registered");
            let plan = hash.plan_table(table, limit, &Knobs::new())?;
            let sizes = format!("{}, hashed: too small for {}", plan.sizes, scheme.name());
            Ok(Plan { sizes, ..plan })
        }
        plan => plan,
    }
}

/// How many rows each table may have at full width, of so many in all: ids with the most training rows
/// first, whatever their table, and one row at least. Of ids with equally many rows each table gets the
/// same part.
fn rows_by_mass(tables: &[&TableSpec], rows: u64) -> Option<Vec<u64>> {
    let left = rows.checked_sub(tables.len() as u64)?;
    // The first row of a table is there anyway.
    let above = |t: &TableSpec, least: u32| {
        let ids = t.counts.iter().filter(|&&count| count >= least).count() as u64;
        ids.saturating_sub(1)
    };
    let used = |least: u32| tables.iter().map(|t| above(t, least)).sum::<u64>();
    let (mut fits, mut exceeds) = (u32::MAX, 0);
    if used(0) <= left {
        return Some(tables.iter().map(|t| 1 + above(t, 0)).collect());
    }
    while fits - exceeds > 1 {
        let middle = exceeds + (fits - exceeds) / 2;
        if used(middle) <= left { fits = middle } else { exceeds = middle }
    }
    let (rest, next) = (left - used(fits), used(exceeds) - used(fits));
    let part = |t: &TableSpec| {
        let more = u128::from(above(t, exceeds) - above(t, fits));
        1 + above(t, fits) + (more * u128::from(rest) / u128::from(next.max(1))) as u64
    };
    Some(tables.iter().map(|t| part(t)).collect())
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
    if rules.allocation == Allocation::Optimal && !spans {
        let open: Vec<&TableSpec> = tables.iter().filter(|t| !kept(t)).collect();
        let unit = if in_bytes { "bytes" } else { "parameters" };
        let of_row = |t: &TableSpec| size(&TableSpec { vocab: 1, ..t.clone() });
        let widest = open.iter().map(|t| of_row(t)).max().unwrap_or(1).max(1);
        let rows = rows_by_mass(&open, left / widest).ok_or_else(|| {
            PlanError::Infeasible(format!(
                "one row of {widest} {unit} for each of {} tables is more than the {left} {unit} of the budget",
                open.len()
            ))
        })?;
        let mut rows = rows.into_iter();
        let share = |t: &TableSpec| match kept(t) {
            true => Share::Full,
            false => match rows.next().expect("one a table") {
                all if all >= u64::from(t.vocab) => Share::Full,
                some => Share::Within(limit(t, some * of_row(t))),
            },
        };
        return Ok(tables.iter().map(share).collect());
    }
    if !spans && rest <= left {
        return each(&|_| Share::Full);
    }
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
    fn the_most_frequent_ids_of_all_tables_come_first() {
        let table = |counts: &[u32]| TableSpec {
            name: "t".into(),
            vocab: counts.len() as u32,
            dim: 10,
            counts: counts.into(),
        };
        let tables = [table(&[100, 1]), table(&[90, 80, 8, 7]), table(&[5, 4, 3, 2, 1, 1])];
        let all: Vec<&TableSpec> = tables.iter().collect();
        let rows = |n| rows_by_mass(&all, n);
        assert_eq!(rows(2), None);
        assert_eq!(rows(3), Some(vec![1, 1, 1]));
        assert_eq!(rows(4), Some(vec![1, 2, 1]));
        assert_eq!(rows(7), Some(vec![1, 4, 2]));
        assert_eq!(rows(12), Some(vec![2, 4, 6]));
        let rules = Rules { allocation: Allocation::Optimal, ..Rules::default() };
        let ce = find("factorized").unwrap();
        let plans = plan(ce, &tables, Budget::Params(60), rules, &Knobs::new()).unwrap();
        assert!(footprint(&plans).params <= 60);
        assert!(plans[2].sizes.contains("too small for factorized"), "{}", plans[2].sizes);
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
