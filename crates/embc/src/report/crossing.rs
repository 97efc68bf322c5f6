//! Where compression costs nothing: the smallest table that is as good as the full one.
//!
//! The rule with which the CCE paper makes its Table 1 out of its figures: the mean curve, linear in
//! the logarithm of the budget between its points, meets the full table's value.

use super::reference::Reference;
use crate::table::markdown as md_table;
use embc_lab::config::Experiment;
use embc_lab::grid::{Grid, sign_of};
use embc_lab::units::count;
use std::fmt::Write;

/// Where a curve meets a level.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crossing {
    At(f64),
    /// The smallest budget is as good already.
    Below(f64),
    Never,
}

impl Crossing {
    /// Of points (budget, value), at a level to reach; `sign` is −1 where less is better.
    fn of(mut points: Vec<(f64, f64)>, level: f64, sign: f64) -> Self {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let short = |y: f64| sign * (level - y);
        match points.iter().position(|p| short(p.1) <= 0.0) {
            None => Self::Never,
            Some(0) => Self::Below(points[0].0),
            Some(at) => {
                let [(x0, y0), (x1, y1)] = [points[at - 1], points[at]];
                let share = short(y0) / (short(y0) - short(y1));
                Self::At((x0.ln() + share * (x1.ln() - x0.ln())).exp())
            }
        }
    }

    fn text(self, show: impl Fn(f64) -> String) -> String {
        match self {
            Self::At(x) => show(x),
            Self::Below(x) => format!("below {}", show(x)),
            Self::Never => "does not reach it".into(),
        }
    }
}

/// All ids' rows over the rows that are left where no table has more parameters than `cap`: the
/// first measure of the CCE paper's appendix.
fn compression(cap: f64, dim: usize, vocab: &[u64]) -> f64 {
    let rows = |n: u64| (n as f64).min(cap / dim as f64);
    vocab.iter().sum::<u64>() as f64 / vocab.iter().map(|n| rows(*n)).sum::<f64>()
}

/// A scheme's values of a reference, with their budgets.
fn values(references: &[Reference], scheme: &str, metric: &str) -> Vec<(Option<f64>, f64)> {
    let is = |r: &&Reference| r.scheme == scheme && r.metric == metric;
    references.iter().filter(is).map(|r| (r.budget, r.value)).collect()
}

/// The section; nothing unless `[table] crossing` asks for it.
pub fn section(
    experiment: &Experiment,
    grid: &Grid<'_>,
    key: &str,
    axis: Option<&str>,
    references: &[Reference],
) -> String {
    let (true, Some(axis), Some(baseline)) =
        (experiment.table.crossing, axis, experiment.table.relative_to.as_deref())
    else {
        return String::new();
    };
    let sign = sign_of(key);
    let full = grid.records.iter().find(|r| r.label == baseline && !r.vocab.is_empty());
    let vocab = full.map_or(&[][..], |record| &record.vocab);
    let show = |x: f64| match (axis, vocab) {
        ("cap", [_, ..]) => {
            let times = compression(x, experiment.embedding.dim, vocab);
            format!("{} ({}x)", count(x.round() as u64), count(times.round() as u64))
        }
        _ => count(x.round() as u64),
    };
    // A cell's mean, if all its seeds have a value.
    let mean = |scheme: &str, budget: &str| {
        let cell = grid.cell(scheme, budget)?;
        cell.summary(key).filter(|s| s.n == cell.seeds).map(|s| s.mean)
    };
    let ours = |scheme: &str| {
        let level = mean(baseline, "")?;
        let point = |b: &String| Some((b.parse::<f64>().ok()?, mean(scheme, b)?));
        let points: Vec<_> = grid.budgets.iter().filter_map(point).collect();
        let missing = |b: &&String| mean(scheme, b).is_none();
        if grid.budgets.iter().any(|b| missing(&b) && grid.missing(scheme, b) != "infeasible") {
            return Some("…".into());
        }
        let found = (!points.is_empty()).then(|| Crossing::of(points, level, sign))?;
        let smaller = |x: f64, b: &&String| b.parse::<f64>().is_ok_and(|b| b < x);
        Some(match found {
            Crossing::Below(x) if grid.budgets.iter().filter(missing).any(|b| smaller(x, &b)) => {
                format!("{}, the smallest that is feasible", show(x))
            }
            found => found.text(show),
        })
    };
    let paper = |scheme: &str| {
        let level = values(references, baseline, key).first()?.1;
        let points = values(references, scheme, key).into_iter();
        let points: Vec<_> = points.filter_map(|(budget, y)| Some((budget?, y))).collect();
        (!points.is_empty()).then(|| Crossing::of(points, level, sign).text(show))
    };
    let is_full =
        |label: &str| experiment.scheme.iter().any(|s| s.label() == label && s.kind == "full");
    let schemes = grid.schemes.iter().filter(|scheme| !is_full(scheme));
    let row = |scheme: &String| {
        let text = |text: Option<String>| text.unwrap_or("–".into());
        vec![scheme.clone(), text(ours(scheme)), text(paper(scheme))]
    };
    let mut rows: Vec<Vec<String>> = schemes.map(row).collect();
    let mut header =
        vec!["scheme".to_string(), format!("{axis} that suffices"), "reference".into()];
    if rows.iter().all(|row| row[2] == "–") {
        header.pop();
        rows.iter_mut().for_each(|row| row.truncate(2));
    }
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\nThe smallest {axis} at which the mean over seeds is as good as {baseline}'s, between the budgets linear in their logarithm{}:\n",
        if axis == "cap" && !vocab.is_empty() {
            "; in brackets all ids over all rows that are left"
        } else {
            ""
        }
    );
    text + &md_table(&header, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of each column of Criteo-Kaggle.
    const KAGGLE: [u64; 26] = [
        1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27,
        14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
    ];

    /// Table 1 of the paper out of the values of its Figures 4a and 4b.
    #[test]
    fn the_papers_table_out_of_its_figures() {
        for (file, scheme, expect) in [
            ("cce_criteo_kaggle", "cce", Some(8446)),
            ("cce_criteo_kaggle", "hash", Some(4573)),
            ("cce_criteo_kaggle", "ce", Some(3771)),
            ("cce_criteo_kaggle", "dhe", Some(1298)),
            ("cce_criteo_kaggle", "pq", None),
            ("cce_criteo_kaggle_1epoch", "cce", Some(212)),
            ("cce_criteo_kaggle_1epoch", "hash", None),
        ] {
            let path = format!("../../configs/cce/reference/{file}.csv");
            let references: Vec<Reference> =
                csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect();
            let of = |scheme: &str| values(&references, scheme, "test/logloss");
            let level = of("full")[0].1;
            let points = of(scheme).into_iter().map(|(budget, y)| (budget.unwrap(), y)).collect();
            let found = match Crossing::of(points, level, -1.0) {
                Crossing::At(cap) => Some(compression(cap, 16, &KAGGLE).round() as u64),
                Crossing::Below(_) => Some(0),
                Crossing::Never => None,
            };
            assert_eq!(found, expect, "{file} {scheme}");
        }
    }

    #[test]
    fn crossings() {
        let of = |points: &[(f64, f64)], level| Crossing::of(points.to_vec(), level, 1.0);
        assert_eq!(of(&[(100.0, 3.0), (1.0, 1.0)], 2.0), Crossing::At(10.0_f64.ln().exp()));
        assert_eq!(of(&[(1.0, 1.0), (100.0, 3.0)], 0.5), Crossing::Below(1.0));
        assert_eq!(of(&[(1.0, 1.0), (100.0, 3.0)], 4.0), Crossing::Never);
    }
}
