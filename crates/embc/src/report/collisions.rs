//! Who shares what: the census of every cell.

use super::budget_text;
use crate::table::markdown as md_table;
use anyhow::Result;
use embc_core::census::{Census, Load};
use embc_lab::config::Experiment;
use embc_lab::grid::{Grid, Summary};
use embc_lab::record::{Record, Status, TableCensus};

/// Who shares what, for each scheme and budget: the mean over seeds.
pub fn collisions(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let grid = Grid::new(experiment, records)?;
    let axis = experiment.points()?.first().map_or("budget", |p| p.axis);
    let mut rows = Vec::new();
    // In the order of the experiment.
    let mut cells: Vec<_> = grid.cells.iter().collect();
    cells.sort_by_key(|((scheme, budget), _)| {
        let budget = grid.budgets.iter().position(|b| Some(b) == budget.as_ref());
        (grid.schemes.iter().position(|s| s == scheme), budget)
    });
    for ((scheme, budget), cell) in cells {
        let ok = cell.records.iter().filter(|r| r.status == Status::Ok);
        let seeds: Vec<_> = ok.map(|r| &r.collisions).filter(|c| !c.is_empty()).collect();
        if seeds.is_empty() {
            continue;
        }
        let mean = |of: &dyn Fn(&[TableCensus]) -> Option<f64>, digits: usize| {
            let values: Vec<f64> = seeds.iter().filter_map(|tables| of(tables)).collect();
            Summary::of(&values).map_or("–".into(), |s| format!("{:.digits$}", s.mean))
        };
        let share = |part: fn(&Census) -> u64, of: fn(&Census) -> u64| {
            move |tables: &[TableCensus]| {
                let sum = |f: fn(&Census) -> u64| tables.iter().map(|t| f(&t.census)).sum::<u64>();
                Some(100.0 * sum(part) as f64 / sum(of).max(1) as f64)
            }
        };
        // The parameter of the largest table whose rows serve most ids.
        let shared = |tables: &[TableCensus]| -> Option<Load> {
            let largest = tables.iter().max_by_key(|t| t.census.ids)?;
            largest.census.loads.iter().max_by(|a, b| a.mean.total_cmp(&b.mean)).cloned()
        };
        let load =
            |of: fn(&Load) -> f64| move |tables: &[TableCensus]| shared(tables).as_ref().map(of);
        let even = |l: &Load| 100.0 * l.entropy / (l.rows.max(2) as f64).log2();
        let error = |tables: &[TableCensus]| {
            let of = |t: &TableCensus| t.census.figures.get("quantisation_error").copied();
            let errors: Vec<f64> = tables.iter().filter_map(of).collect();
            Summary::of(&errors).map(|s| 100.0 * s.mean)
        };
        let entropy = |name: &'static str| {
            move |tables: &[TableCensus]| {
                let of = |t: &TableCensus| t.census.figures.get(name).copied();
                tables.iter().filter_map(of).reduce(f64::min).map(|least| 100.0 * least)
            }
        };
        let mates = |tables: &[TableCensus]| {
            let largest = &tables.iter().max_by_key(|t| t.census.ids)?.census;
            (largest.bucket_pairs > 0).then_some(100.0 * largest.bucket_equal)
        };
        let untrained = |tables: &[TableCensus]| {
            let ids: u64 = tables.iter().map(|t| t.census.ids).sum();
            let of: Option<u64> = tables.iter().map(|t| t.census.untrained_ids).sum();
            Some(100.0 * of? as f64 / ids as f64)
        };
        rows.push(vec![
            scheme.clone(),
            budget.as_deref().map_or(String::new(), |b| budget_text(axis, b)),
            mean(&share(|c| c.unique_ids, |c| c.ids), 1),
            mean(&share(|c| c.unique_lookups, |c| c.lookups), 1),
            shared(seeds[0]).map_or("–".into(), |l| l.param),
            mean(&load(|l| l.mean), 1),
            mean(&load(|l| l.max as f64), 0),
            mean(&load(even), 1),
            mean(&error, 1),
            mean(&entropy("entropy"), 1),
            mean(&entropy("pair_entropy"), 1),
            mean(&mates, 1),
            mean(&untrained, 1),
        ]);
    }
    let header = [
        "scheme",
        axis,
        "own row: ids %",
        "lookups %",
        "most shared",
        "ids a row",
        "busiest",
        "evenness %",
        "k-means error %",
        "pointers' entropy %",
        "in pairs %",
        "equal mates %",
        "untrained ids %",
    ];
    Ok(format!(
        "Collisions. Own row: ids whose embedding equals no other id's, and the share of training lookups that go to them. Then the parameter whose rows serve most ids, in the table with most ids: how many ids read a row of it (a column's piece, a cell), on average and at the busiest one, and how evenly they spread (entropy, 100 % is even). K-means error: the share of the pieces' squared length that centroids lose. Pointers' entropy: of learned pointers, the least of a column and of a pair of columns, over the most it can be; near 100 % they are as random as hashes, and far below, tables have collapsed. Equal mates: of the pairs of ids that read one row of the most shared wide parameter (where each id reads just one), those whose embeddings are closer than 1e-5. Untrained ids: those of no training row, so that no gradient reached a weight that is theirs alone.\n\n{}\n",
        md_table(&header.map(String::from), &rows)
    ))
}
