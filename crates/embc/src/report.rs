//! Tables from records: mean ± deviation over seeds, memory, references, expectations.

use crate::table::markdown as md_table;
use anyhow::Result;
use embc_core::layer::Unknown;
use embc_lab::config::{Experiment, TableSplit};
use embc_lab::grid::{Grid, Summary, metric_key};
use embc_lab::record::{Host, Record, Status};
use embc_lab::units::{bytes, count};
use std::collections::BTreeSet;
use std::fmt::Write;

pub mod choice;
pub mod claims;
mod collisions;
pub mod compare;
pub mod compress;
mod crossing;
mod expect;
pub mod export;
pub mod html;
mod loss;
mod reference;
mod tuning;

pub use collisions::collisions;

/// The name of the budget's axis.
pub fn axis_of(experiment: &Experiment) -> Result<Option<&'static str>> {
    Ok(experiment.points()?.first().map(|point| point.axis))
}

/// An error where the experiment's reference file cannot be read.
pub fn check_reference(experiment: &Experiment) -> Result<()> {
    reference::read(experiment).map(drop)
}

/// The Markdown of an experiment: the answers, then what they are from.
pub fn markdown(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let answers = choice::answers(experiment, records)?;
    let answers = answers.iter().map(|choice| format!("- {}\n", choice::headline(choice)));
    let answers: String = answers.collect();
    let gap = if answers.is_empty() { "" } else { "\n" };
    Ok(format!("## {}\n\n{answers}{gap}{}", experiment.title, body(experiment, records)?))
}

/// What comes after the title and the answers.
fn body(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let grid = Grid::new(experiment, records)?;
    let key = metric_key(experiment, &grid.records);
    let axis = axis_of(experiment)?;
    let title = grid.records.first().map_or(&experiment.dataset, |r| &r.dataset_title);
    let mut text = String::new();
    let references = reference::read(experiment)?;
    writeln!(
        text,
        "Data: {}. Model: {}. Epoch picked by validation {}.",
        title,
        experiment.model.kind,
        experiment.select()
    )?;
    if !experiment.paper.is_empty() {
        writeln!(text, "Paper: {}.", experiment.paper)?;
    }
    if !experiment.notes.is_empty() {
        writeln!(text, "\n{}", experiment.notes.trim())?;
    }
    if let Some(record) = grid.records.first().filter(|r| !r.left_out.is_empty()) {
        let what = record.left_out.iter().map(|(what, n)| format!("{} {what}", count(*n)));
        writeln!(text, "\nOf the data: {}.", what.collect::<Vec<_>>().join("; "))?;
    }
    if let Some(record) = grid.records.first().filter(|r| r.unknown_lookups > 0.0) {
        writeln!(
            text,
            "\n{:.1} % of the test lookups are of ids without a training row: {}.",
            100.0 * record.unknown_lookups,
            match experiment.embedding.unknown {
                Unknown::Zero => "zeros stand for them in all schemes",
                Unknown::Mean =>
                    "the mean of the field's trained rows stands for them in all schemes",
                Unknown::Trained => "a trained row stands for them in all schemes",
                Unknown::Row =>
                    "each scheme has a row of its own for them, which in some is trained",
            }
        )?;
    }
    text += &compare::words(experiment, &grid, &key);
    let budgets = if grid.budgets.is_empty() { vec![String::new()] } else { grid.budgets.clone() };
    let mut header = vec!["scheme".to_string()];
    header.extend(budgets.iter().map(|b| match axis {
        Some(axis @ ("compression" | "bytes")) => budget_text(axis, b),
        Some(axis) => format!("{axis} {b}"),
        None => key.clone(),
    }));
    let (losses, values) =
        references.iter().cloned().partition::<Vec<_>, _>(|r| r.metric == RELATIVE_LOSS);
    let losses = loss::section(experiment, &grid, &key, axis, &header, &losses)?;
    if !losses.is_empty() {
        write!(text, "\n{losses}")?;
    }
    text += &values_table(experiment, &grid, &key, &budgets, &header)?;
    if experiment.table.split == Some(TableSplit::Both) {
        let test = key.replacen("valid/", "test/", 1);
        text += &values_table(experiment, &grid, &test, &budgets, &header)?;
    }
    writeln!(
        text,
        "\nMemory of the embedding{}: trained parameters, bytes with pointers and codes, compression of its parameters and of the whole model's.\n",
        if experiment.data.splits_by_seed() { ", by the first seed's split" } else { "" }
    )?;
    let model = |r: &Record| (r.params + r.model_params) as f64;
    let whole = grid.records.iter().find(|r| r.scheme == "full" && r.params > 0).map(|r| model(r));
    let memory = |scheme: &String| {
        let mut row = vec![scheme.clone()];
        row.extend(budgets.iter().map(|budget| {
            let record = grid
                .cell(scheme, budget)
                .and_then(|c| c.records.iter().find(|r| r.status == Status::Ok));
            record.map_or("–".into(), |r| {
                let whole = whole.map_or(String::new(), |all| format!(", {:.1}x", all / model(r)));
                format!(
                    "{}, {}, {:.1}x{whole}",
                    count(r.params),
                    bytes(r.param_bytes + r.index_bytes),
                    r.compression_params
                )
            })
        }));
        row
    };
    text += &md_table(&header, &grid.schemes.iter().map(memory).collect::<Vec<_>>());
    text += &compare::section(experiment, &grid, &key, axis, &header);
    text += &crossing::section(experiment, &grid, &key, axis, &references);
    if experiment.table.times {
        text += &times(&grid)?;
    }
    text += &reference::section(experiment, &grid, values);
    text += &expect::section(experiment, &grid)?;
    let (tuning, tried) = tuning::section(experiment, &grid, records)?;
    text += &tuning;
    let others = grid.others - tried;
    let ok = grid.records.iter().filter(|r| r.status != Status::Pruned).count();
    let missing = grid.cells.values().map(|c| c.seeds).sum::<usize>() - ok;
    let took: f64 = grid.records.iter().map(|r| r.wall_s / r.jobs as f64).sum();
    write!(text, "\n{ok} trials")?;
    if experiment.table.loss.is_some() {
        write!(text, ", {:.1} minutes in all on {} cores", took / 60.0, cores(&grid))?;
    }
    if missing > 0 {
        write!(text, ", {missing} still to run")?;
    }
    if others > 0 {
        write!(text, "; {others} records of other settings or data are left out")?;
    }
    text.push_str(&format!(".{}\n\n", provenance(&grid)));
    Ok(text)
}

/// Which programs trained on which data; what is stale beside the rest is marked.
fn provenance(grid: &Grid<'_>) -> String {
    let mut programs: BTreeSet<String> = BTreeSet::new();
    for record in &grid.records {
        let dirty = if record.embc.dirty { " with changes" } else { "" };
        programs.insert(format!("{} {}{dirty}", record.embc.version, record.embc.revision));
    }
    let Some(newest) = grid.records.iter().max_by_key(|r| &r.started) else {
        return String::new();
    };
    let programs = programs.into_iter().collect::<Vec<_>>().join(", ");
    let mut text = format!(" Trained by embc {programs} on data {}.", newest.data_hash);
    let stale = grid.records.iter().filter(|r| r.data_hash != newest.data_hash).count();
    if stale > 0 {
        text += &format!(
            " **Stale:** {stale} trials were trained on other data, which has changed since; run `embc sweep` again."
        );
    }
    text
}

/// The values of a metric: a scheme a line, a budget a column.
fn values_table(
    experiment: &Experiment,
    grid: &Grid<'_>,
    key: &str,
    budgets: &[String],
    header: &[String],
) -> Result<String> {
    let baseline = experiment.table.relative_to.as_deref();
    let spread = match experiment.train.seeds.len() {
        n if experiment.sweep.until_ci.is_some() => format!(
            "mean ± standard deviation over {n} to {} seeds, more until half the 95 % interval was at most {} ({})",
            experiment.sweep.max_seeds,
            experiment.sweep.until_ci.unwrap_or_default(),
            experiment.seeds_vary()
        ),
        _ if experiment.sweep.race => format!(
            "mean ± standard deviation over as many seeds as stand in square brackets: who could no longer win got no more ({})",
            experiment.seeds_vary()
        ),
        1 => "one seed".into(),
        n => format!("mean ± standard deviation over {n} seeds ({})", experiment.seeds_vary()),
    };
    let mut text = String::new();
    writeln!(
        text,
        "\n**{key}**, {spread}{}:\n",
        match baseline {
            Some(baseline) => format!("; in brackets the change against {baseline}"),
            None => String::new(),
        }
    )?;
    let (rows, mut notes) = values_rows(experiment, grid, key, budgets);
    text += &md_table(header, &rows);
    notes.sort();
    notes.dedup();
    if !notes.is_empty() {
        text.push('\n');
        notes.iter().for_each(|note| text.push_str(&format!("- {note}\n")));
    }
    Ok(text)
}

/// The rows of that table, and what has to be said about its cells.
fn values_rows(
    experiment: &Experiment,
    grid: &Grid<'_>,
    key: &str,
    budgets: &[String],
) -> (Vec<Vec<String>>, Vec<String>) {
    let baseline = experiment.table.relative_to.as_deref();
    // Of the seeds that a cell has: some may have got more than others.
    let base = |scheme: &str, budget: &str| {
        let ours = grid.by_seed(scheme, budget, key);
        let theirs = grid.by_seed(baseline?, budget, key);
        let shared = theirs.into_iter().filter(|(seed, _)| ours.contains_key(seed));
        Summary::of(&shared.map(|(_, value)| value).collect::<Vec<_>>())
    };
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    for scheme in &grid.schemes {
        let mut row = vec![scheme.clone()];
        for budget in budgets {
            let base = base(scheme, budget);
            row.push(cell_text(grid, scheme, budget, key, base, baseline, &mut notes));
        }
        rows.push(row);
    }
    (rows, notes)
}

/// What the trials took, a line each.
fn times(grid: &Grid<'_>) -> Result<String> {
    let ok: Vec<&&Record> = grid.records.iter().filter(|r| r.status == Status::Ok).collect();
    let Some(first) = ok.first() else { return Ok(String::new()) };
    let Host { cpu, cores, .. } = &first.host;
    let mut text = String::new();
    writeln!(
        text,
        "\nWhat training took ({cpu}, {cores} cores): seconds until the first step, minutes from the first initial value to the last test score, training examples a second, the most memory held at once.\n"
    )?;
    let header =
        ["scheme", "seed", "threads", "built in s", "minutes", "examples/s", "peak memory"];
    let row = |record: &&&Record| {
        vec![
            record.label.clone(),
            record.seed.to_string(),
            record.threads.to_string(),
            format!("{:.1}", record.build_s),
            format!("{:.1}", record.whole_s() / 60.0),
            count(record.train_examples_per_s as u64),
            match record.peak_rss_bytes {
                0 => "–".into(),
                peak => bytes(peak),
            },
        ]
    };
    let rows: Vec<Vec<String>> = ok.iter().map(row).collect();
    text += &md_table(&header.map(String::from), &rows);
    Ok(text)
}

fn cell_text(
    grid: &Grid<'_>,
    scheme: &str,
    budget: &str,
    key: &str,
    base: Option<Summary>,
    baseline: Option<&str>,
    notes: &mut Vec<String>,
) -> String {
    let Some(cell) = grid.cell(scheme, budget) else { return String::new() };
    let failed = cell.records.iter().find(|r| r.status != Status::Ok);
    if let Some(failed) = failed {
        notes.push(format!("{scheme} {budget}: {}", failed.error.as_deref().unwrap_or("failed")));
    }
    let short = |r: &&&Record| r.clusterings().is_some_and(|(done, planned)| done < planned);
    if let Some((done, planned)) = cell.records.iter().find(short).and_then(|r| r.clusterings()) {
        notes.push(format!(
            "{scheme} {budget}: {done} of {planned} clusterings before the picked epoch"
        ));
    }
    let undone = cell.records.iter().filter(|r| r.is_undone()).count();
    if undone > 0 {
        notes.push(format!(
            "{scheme} {budget}: training on after the stage only lost, and was undone, in {undone} of {} seeds",
            cell.records.len()
        ));
    }
    let undefined = cell.records.iter().flat_map(|r| r.undefined()).collect::<BTreeSet<_>>();
    if !undefined.is_empty() {
        let undefined = undefined.into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("not defined on these test rows: {undefined}"));
    }
    let Some(summary) = cell.summary(key) else { return grid.missing(scheme, budget).into() };
    if cell.records.iter().any(|record| record.is_uncompressed()) {
        notes.push(format!(
            "{scheme} {budget}: the uncompressed table fits the budget, and was trained"
        ));
    }
    let mut text = summary.text();
    if let Some(base) = base.filter(|_| baseline != Some(scheme)) {
        // Against nothing there is no change in per cent.
        if base.mean != 0.0 {
            let change = 100.0 * (summary.mean - base.mean) / base.mean.abs();
            let _ = write!(text, " ({change:+.1} %)");
        }
    }
    if summary.n < cell.seeds {
        let _ = write!(text, " [{} of {} seeds]", summary.n, cell.seeds);
    } else if grid.races {
        let _ = write!(text, " [{}]", summary.n);
    }
    text
}

/// A budget's value for people.
pub fn budget_text(axis: &str, value: &str) -> String {
    match axis {
        "compression" => format!("{value}x"),
        "bytes" => bytes(value.parse().unwrap_or(0)),
        _ => value.to_string(),
    }
}

/// Cores of the machine that trained.
fn cores(grid: &Grid<'_>) -> usize {
    grid.records.first().map_or(1, |record| record.host.cores)
}

/// The metric of references that are losses against a baseline.
const RELATIVE_LOSS: &str = "relative loss %";

/// The experiment's plot as SVG, where it has one.
pub fn svg(experiment: &Experiment, records: &[Record]) -> Result<Option<String>> {
    let grid = Grid::new(experiment, records)?;
    let key = metric_key(experiment, &grid.records);
    let axis = axis_of(experiment)?;
    loss::svg(experiment, &grid, &key, axis)
}

/// The `[[expect]]` bounds and reference values that ours do not meet, in words.
pub fn check(experiment: &Experiment, records: &[Record]) -> Result<Vec<String>> {
    let grid = Grid::new(experiment, records)?;
    let mut failed = expect::broken(experiment, &grid)?;
    failed.extend(reference::below(experiment, &grid)?);
    Ok(failed)
}
