//! The `[[compare]]` sections: differences between schemes, in words and in tables.

use super::budget_text;
use crate::table::markdown as md_table;
use embc_lab::config::{Compare, Experiment};
use embc_lab::difference::Difference;
use embc_lab::grid::{Grid, sign_of};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What the comparisons come to, a line each, once all seeds are in.
pub fn words(experiment: &Experiment, grid: &Grid<'_>, key: &str) -> String {
    let (seeds, sign) = (experiment.train.seeds.len(), sign_of(key));
    let line = |compare: &Compare| {
        let all = compare.pairs.iter().map(|pair| Difference::of(grid, pair, key));
        let mean = mean(compare, &all.collect::<Vec<_>>()).filter(|m| m.by_seed.len() >= seeds)?;
        let average = if compare.pairs.len() > 1 { ", on average" } else { "" };
        let said = match (compare.claim, mean.winner(sign)) {
            (Some(claim), _) => {
                format!(". More than {claim} is claimed: {}", mean.verdict(claim, sign))
            }
            (None, Some(true)) => ", better beyond chance".into(),
            (None, Some(false)) => ", worse beyond chance".into(),
            (None, None) => ", may be chance".into(),
        };
        Some(format!("- {}{average}: {key} {}{said}.\n", compare.title, mean.text()))
    };
    match experiment.compare.iter().filter_map(line).collect::<String>() {
        lines if lines.is_empty() => lines,
        lines => format!("\n{lines}"),
    }
}

/// The mean over budgets of all pairs, once they have values; none over unlike pairs, where it
/// would mean nothing.
pub fn mean(compare: &Compare, all: &[Option<Difference>]) -> Option<Difference> {
    let budgets = compare.pairs.iter().map(|pair| format!("{:?}", pair.budget));
    let differ = budgets.collect::<BTreeSet<_>>().len() == compare.pairs.len();
    let whole: Option<Vec<Difference>> = all.iter().cloned().collect();
    whole.filter(|_| differ).and_then(|all| Difference::mean_of(&all))
}

/// The `[[compare]]` sections, and the values themselves with the same intervals.
pub fn section(
    experiment: &Experiment,
    grid: &Grid<'_>,
    key: &str,
    axis: Option<&str>,
    header: &[String],
) -> String {
    if experiment.compare.is_empty() {
        return String::new();
    }
    let text = |compare: &Compare| one(experiment, grid, key, axis, compare);
    let differences: String = experiment.compare.iter().map(text).collect();
    values(experiment, grid, key, header) + &differences
}

/// The table's metric, and log loss beside it.
fn keys_of(key: &str) -> Vec<String> {
    let mut keys = vec![key.to_string()];
    if let Some((split, metric)) = key.split_once('/')
        && metric != "logloss"
    {
        keys.push(format!("{split}/logloss"));
    }
    keys
}

/// Each cell's metrics with intervals: wider than those of differences, whose seeds and rows are
/// paired.
fn values(experiment: &Experiment, grid: &Grid<'_>, key: &str, header: &[String]) -> String {
    let seeds = experiment.train.seeds.len();
    let keys = keys_of(key);
    let none = [String::new()];
    let budgets = if grid.budgets.is_empty() { &none[..] } else { &grid.budgets };
    let mut covers = None;
    let mut row = |scheme: &String| {
        let mut row = vec![scheme.clone()];
        for budget in budgets {
            let of =
                |key: &String| Difference::above(&grid.cell(scheme, budget)?.records, None, key);
            let all: Vec<Difference> = keys.iter().filter_map(of).collect();
            let text = |d: &Difference| match d.half() {
                Some(half) => format!("{:.4} ± {half:.4}", d.mean()),
                None => format!("{:.4}", d.mean()),
            };
            row.push(match all.first() {
                None => grid.missing(scheme, budget).into(),
                Some(first) => {
                    covers = covers.or(Some(first.covers()));
                    let text = all.iter().map(text).collect::<Vec<_>>().join(", ");
                    text + &some_of(seeds, first)
                }
            });
        }
        row
    };
    let rows: Vec<Vec<String>> = grid.schemes.iter().map(&mut row).collect();
    let Some(covers) = covers else { return String::new() };
    format!(
        "\n**{}** with 95 % intervals over {covers}:\n\n{}",
        keys.join(", "),
        md_table(header, &rows)
    )
}

/// " [2 of 5 seeds]" where some are missing.
fn some_of(seeds: usize, difference: &Difference) -> String {
    match difference.by_seed.len() {
        n if n < seeds => format!(" [{n} of {seeds} seeds]"),
        _ => String::new(),
    }
}

fn one(
    experiment: &Experiment,
    grid: &Grid<'_>,
    key: &str,
    axis: Option<&str>,
    compare: &Compare,
) -> String {
    let seeds = experiment.train.seeds.len();
    let keys = keys_of(key);
    let all: Vec<Vec<Option<Difference>>> = keys
        .iter()
        .map(|key| compare.pairs.iter().map(|pair| Difference::of(grid, pair, key)).collect())
        .collect();
    let show = |difference: Option<&Difference>| match difference {
        None => "…".into(),
        Some(d) => d.text() + &some_of(seeds, d),
    };
    let mut rows = Vec::new();
    for (i, pair) in compare.pairs.iter().enumerate() {
        let at = match (pair.budget, axis) {
            (Some(budget), Some(axis)) => format!(" at {}", budget_text(axis, &budget.to_string())),
            _ => String::new(),
        };
        let mut row = vec![format!("{} − {}{at}", pair.scheme, pair.with)];
        row.extend(all.iter().map(|differences| show(differences[i].as_ref())));
        rows.push(row);
    }
    let means: Vec<Option<Difference>> = all.iter().map(|all| mean(compare, all)).collect();
    if compare.pairs.len() > 1 && means.iter().any(Option::is_some) {
        let mut row = vec!["**mean**".to_string()];
        row.extend(means.iter().map(|mean| show(mean.as_ref())));
        rows.push(row);
    }
    let mut text = format!("\n**{}**", compare.title);
    let any = all[0].iter().flatten().next();
    let covers = any.map_or("seeds", Difference::covers);
    let by_chance = match compare.pairs.len() {
        0..5 => "",
        _ => " One in twenty differences of nothing lies outside its interval.",
    };
    let _ = writeln!(
        text,
        ". Differences with 95 % intervals, paired by seed and test row, over {covers}.{by_chance}\n"
    );
    let header: Vec<String> = std::iter::once("difference".to_string()).chain(keys).collect();
    text + &md_table(&header, &rows)
}
