//! `embc list experiments`: every config, how much of it has been trained, and what it found.

use crate::cli::{Global, TextOrJson};
use crate::report::choice;
use crate::table::text_table;
use anyhow::{Result, bail};
use embc_lab::config::{self, Experiment};
use embc_lab::grid::Grid;
use embc_lab::record::Record;
use embc_lab::store::{Book, Results};
use serde::Serialize;
use std::path::Path;

/// A line of the list.
#[derive(Default, Serialize)]
struct Line {
    name: String,
    /// `FOLDER/NAME`: of its config below `configs`, of its records and report below the results.
    place: String,
    title: String,
    /// None of a study, which `embc theory` computes.
    dataset: Option<String>,
    /// How many trials there are to be, and how many have a record.
    trials: usize,
    recorded: usize,
    seeds: usize,
    /// What they took of a whole machine.
    minutes: f64,
    /// What is best at each budget: "4x: qr, 0.8 ± 1.0 % worse".
    found: Vec<String>,
}

/// All experiments and studies under `configs`.
pub fn experiments(global: &Global, format: TextOrJson) -> Result<String> {
    let configs = config::all();
    if configs.is_empty() {
        bail!("no configs/ here: run this where your experiments are, or begin one with embc init");
    }
    let lines: Vec<Line> = configs.iter().map(|path| line(path, global)).collect::<Result<_>>()?;
    if format == TextOrJson::Json {
        return super::pretty(&serde_json::to_value(lines)?);
    }
    let row = |line: Line| {
        let (state, minutes) = (line.state(), line.minutes);
        let minutes = if minutes > 0.0 { format!("{minutes:.1}") } else { String::new() };
        vec![line.place, state, minutes, line.dataset.unwrap_or_default(), line.title]
    };
    Ok(text_table(
        &["experiment", "trials", "minutes", "data set", "title"],
        lines.into_iter().map(row),
    ))
}

impl Line {
    fn state(&self) -> String {
        match (self.recorded, self.trials) {
            (_, 0) => "computed by embc theory".into(),
            (0, _) => "never run".into(),
            (n, all) if n < all => format!("{n} of {all}"),
            (n, _) => n.to_string(),
        }
    }
}

fn line(path: &Path, global: &Global) -> Result<Line> {
    let (_, text) = config::read(path)?;
    if config::theory(&text).is_some() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let table: toml::Table = config::Source::of(path, &text).parse()?;
        let title = table.get("title").and_then(toml::Value::as_str).unwrap_or(&name).to_string();
        let place = config::place(path);
        return Ok(Line { name, place, title, ..Line::default() });
    }
    let mut experiment = Experiment::load(path, &[])?;
    experiment.resolve(&super::super::registry(global, &[])?);
    let place = experiment.place();
    let records = Book::open(Results::at(&global.results, &place))?.into_records();
    let grid = Grid::new(&experiment, &records)?;
    Ok(Line {
        trials: grid.cells.values().map(|cell| cell.seeds).sum(),
        recorded: grid.records.len(),
        found: found(&experiment, &records)?,
        name: experiment.name.clone(),
        place,
        title: experiment.title.clone(),
        dataset: Some(experiment.dataset.clone()),
        seeds: experiment.train.seeds.len(),
        minutes: grid.records.iter().map(|record| record.wall_s / record.jobs as f64 / 60.0).sum(),
    })
}

/// What is best at each budget, and what it loses.
fn found(experiment: &Experiment, records: &[Record]) -> Result<Vec<String>> {
    let say = |choice: &embc_lab::choice::Choice<'_>| {
        let other = choice.full.as_ref().filter(|full| full.runner != choice.first.runner);
        let key = choice::key_of(choice);
        let lost = other.and_then(|full| choice::loss(&full.records, &choice.first.records, &key));
        let lost = lost.map_or(String::new(), |(lost, _)| format!(", {lost}"));
        format!("{}: {}{lost}", choice.within, choice.first.runner.label)
    };
    Ok(choice::answers(experiment, records)?.iter().map(say).collect())
}
