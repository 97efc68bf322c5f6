//! The `[[expect]]` bounds: ours beside them, and whether they hold.

use super::{axis_of, budget_text};
use crate::table::markdown as md_table;
use anyhow::{Result, bail};
use embc_lab::config::{Expect, Experiment, TableSplit};
use embc_lab::grid::{Grid, Summary, sign_of};

/// A bound, and the value that it is about.
struct Judged<'a> {
    expect: &'a Expect,
    key: String,
    budget: String,
    ours: Option<Summary>,
    /// How it is broken.
    broken: Option<String>,
}

fn judge<'a>(experiment: &'a Experiment, grid: &Grid<'_>) -> Result<Vec<Judged<'a>>> {
    let judge = |expect: &'a Expect| {
        let split = if expect.split == TableSplit::Valid { "valid" } else { "test" };
        let key = format!("{split}/{}", expect.metric);
        let budget = expect.budget.map_or(String::new(), |b| b.to_string());
        let summary = |scheme: &str| grid.cell(scheme, &budget)?.summary(&key);
        let ours = summary(&expect.scheme);
        let base = experiment.table.relative_to.as_deref().and_then(summary);
        let broken = match ours {
            None => Some("has no result".into()),
            Some(ours) => outside(expect, ours.mean, base.map(|base| base.mean))?,
        };
        Ok(Judged { expect, key, budget, ours, broken })
    };
    experiment.expect.iter().map(judge).collect()
}

/// How a bound is broken, if it is.
fn outside(expect: &Expect, ours: f64, base: Option<f64>) -> Result<Option<String>> {
    let outside = |bound: Option<f64>, wrong: &dyn Fn(f64) -> bool, word: &str| {
        bound.filter(|&b| wrong(b)).map(|b| format!("is {ours:.4}, {word} {b}"))
    };
    let tolerance = expect.tolerance.unwrap_or(0.0);
    let relative = match (expect.relative_loss_max, base) {
        (None, _) => None,
        (Some(_), None) => {
            bail!("[[expect]] relative_loss_max needs [table] relative_to and its results")
        }
        (Some(_), Some(0.0)) => Some("has no loss in per cent: the baseline is 0".into()),
        (Some(most), Some(base)) => {
            let sign = sign_of(&expect.metric.to_string());
            let loss = 100.0 * sign * (base - ours) / base.abs();
            (loss > most).then(|| format!("loses {loss:.2} %, more than {most} %"))
        }
    };
    Ok(outside(expect.min, &|b| ours < b, "below")
        .or(outside(expect.max, &|b| ours > b, "above"))
        .or(outside(
            expect.value,
            &|b| (ours - b).abs() > tolerance,
            &format!("not within {tolerance} of"),
        ))
        .or(relative))
}

/// The bounds that do not hold, in words.
pub fn broken(experiment: &Experiment, grid: &Grid<'_>) -> Result<Vec<String>> {
    let words = |judged: Judged<'_>| {
        let Judged { expect, key, budget, broken, .. } = judged;
        let source = match expect.source.is_empty() {
            true => String::new(),
            false => format!(" (bound from: {})", expect.source),
        };
        let what = broken?;
        Some(format!("{}: {} {budget} {key} {what}{source}", experiment.name, expect.scheme))
    };
    Ok(judge(experiment, grid)?.into_iter().filter_map(words).collect())
}

/// All bounds beside our values.
pub fn section(experiment: &Experiment, grid: &Grid<'_>) -> Result<String> {
    let axis = axis_of(experiment)?;
    let row = |judged: Judged<'_>| {
        let Judged { expect, key, budget, ours, broken } = judged;
        let of = |bound: Option<f64>, word: &str| bound.map(|b| format!("{word} {b}"));
        let tolerance = expect.tolerance.map_or(String::new(), |t| format!(" ± {t}"));
        let bounds = [
            of(expect.min, "at least"),
            of(expect.max, "at most"),
            of(expect.value, "about").map(|value| value + &tolerance),
            expect.relative_loss_max.map(|most| format!("a loss of at most {most} %")),
        ];
        let at = axis.filter(|_| !budget.is_empty()).map(|axis| budget_text(axis, &budget));
        vec![
            format!("{} {}", expect.scheme, at.unwrap_or_default()).trim_end().into(),
            key,
            ours.map_or("…".into(), Summary::text),
            bounds.into_iter().flatten().collect::<Vec<_>>().join(", "),
            if broken.is_none() { "holds".into() } else { "**broken**".into() },
            expect.source.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = judge(experiment, grid)?.into_iter().map(row).collect();
    if rows.is_empty() {
        return Ok(String::new());
    }
    let header = ["", "metric", "ours", "expected", "", "because"].map(String::from);
    Ok(format!("\nWhat is expected of it (`embc report --check`):\n\n{}", md_table(&header, &rows)))
}
