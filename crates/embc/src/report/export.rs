//! The numbers behind the tables, for other programs and for papers: CSV, JSON, LaTeX.

use super::{axis_of, budget_text, values_rows};
use anyhow::Result;
use embc_lab::config::Experiment;
use embc_lab::grid::{Grid, Summary, metric_key};
use embc_lab::record::{Record, Status};
use serde::Serialize;

/// A metric of a cell, over its seeds.
#[derive(Serialize)]
struct Row {
    experiment: String,
    data_hash: String,
    model: String,
    scheme: String,
    label: String,
    axis: String,
    budget: Option<f64>,
    metric: String,
    mean: f64,
    /// Standard deviation over seeds.
    deviation: Option<f64>,
    seeds: usize,
    params: u64,
    bytes: u64,
    compression_params: f64,
    compression_bytes: f64,
}

fn rows(experiment: &Experiment, grid: &Grid<'_>) -> Result<Vec<Row>> {
    let axis = experiment.points()?.first().map_or("", |point| point.axis);
    let budgets = || grid.budgets.iter().map(Some).chain([None]);
    let cells = grid.schemes.iter().flat_map(|scheme| budgets().map(move |b| (scheme, b)));
    let mut rows = Vec::new();
    for (scheme, budget) in cells {
        let Some(cell) = grid.cells.get(&(scheme.clone(), budget.cloned())) else { continue };
        let Some(first) = cell.records.iter().find(|r| r.status == Status::Ok) else { continue };
        for metric in first.metrics.keys() {
            let Some(Summary { mean, deviation, n }) = cell.summary(metric) else { continue };
            rows.push(Row {
                experiment: experiment.name.clone(),
                data_hash: first.data_hash.clone(),
                model: first.model.clone(),
                scheme: first.scheme.clone(),
                label: scheme.clone(),
                axis: axis.into(),
                budget: budget.and_then(|b| b.parse().ok()),
                metric: metric.clone(),
                mean,
                deviation,
                seeds: n,
                params: first.params,
                bytes: first.param_bytes + first.index_bytes,
                compression_params: first.compression_params,
                compression_bytes: first.compression_bytes,
            });
        }
    }
    Ok(rows)
}

/// A line for each metric of each cell. `header` is for the first of several experiments.
pub fn csv(experiment: &Experiment, records: &[Record], header: bool) -> Result<String> {
    let grid = Grid::new(experiment, records)?;
    let mut csv = csv::WriterBuilder::new().has_headers(header).from_writer(Vec::new());
    rows(experiment, &grid)?.iter().try_for_each(|row| csv.serialize(row))?;
    Ok(String::from_utf8(csv.into_inner()?)?)
}

/// The same as JSON, an object a line.
pub fn json(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let grid = Grid::new(experiment, records)?;
    let rows = rows(experiment, &grid)?;
    rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n")).collect()
}

/// The table of values for a paper, with the rules of the package booktabs.
pub fn latex(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let grid = Grid::new(experiment, records)?;
    let key = metric_key(experiment, &grid.records);
    let axis = axis_of(experiment)?;
    let budgets = if grid.budgets.is_empty() { vec![String::new()] } else { grid.budgets.clone() };
    let column = |budget: &String| match axis {
        Some(axis @ ("compression" | "bytes")) => budget_text(axis, budget),
        Some(axis) => format!("{axis} {budget}"),
        None => key.clone(),
    };
    let mut lines = vec![
        format!(
            "% {}: {key}, mean ± standard deviation over seeds; needs \\usepackage{{booktabs}}",
            experiment.name
        ),
        format!("\\begin{{tabular}}{{l{}}}", "r".repeat(budgets.len())),
        "\\toprule".into(),
    ];
    let line = |cells: &[String]| {
        cells.iter().map(|cell| escaped(cell)).collect::<Vec<_>>().join(" & ") + " \\\\"
    };
    let header: Vec<String> =
        std::iter::once("scheme".to_string()).chain(budgets.iter().map(column)).collect();
    lines.push(line(&header));
    lines.push("\\midrule".into());
    let (values, _) = values_rows(experiment, &grid, &key, &budgets);
    lines.extend(values.iter().map(|row| line(row)));
    lines.extend(["\\bottomrule".into(), "\\end{tabular}".into(), String::new()]);
    Ok(lines.join("\n"))
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '±' => out.push_str("$\\pm$"),
            '−' => out.push_str("$-$"),
            '…' => out.push_str("\\dots"),
            '–' => out.push_str("--"),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latex_is_escaped() {
        assert_eq!(escaped("hash_embedding & 5 %"), "hash\\_embedding \\& 5 \\%");
        assert_eq!(
            escaped("0.5 ± 0.1, a\\b^2"),
            "0.5 $\\pm$ 0.1, a\\textbackslash{}b\\textasciicircum{}2"
        );
    }
}
