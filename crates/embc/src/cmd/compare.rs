//! `embc compare`: two schemes of an experiment, or two files of results, seed by seed.

use super::Outcome;
use crate::cli::{Compare, Global};
use crate::report::{axis_of, budget_text};
use crate::table::markdown;
use anyhow::{Result, anyhow, bail};
use embc_lab::config::{self, Experiment};
use embc_lab::difference::Difference;
use embc_lab::grid::{Grid, metric_key, sign_of};
use embc_lab::record::Record;
use embc_lab::store::{Book, Results};
use embc_lab::suggest;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A cell of each side, and its name.
type Sides<'a> = (String, Vec<&'a Record>, Vec<&'a Record>);

pub fn run(args: &Compare, global: &Global) -> Result<Outcome> {
    let text = match &args.experiment {
        Some(name) => schemes(args, name, global)?,
        None => files(args, global)?,
    };
    super::print(&text)?;
    Ok(Outcome::Fine)
}

/// Two schemes at each budget.
fn schemes(args: &Compare, name: &Path, global: &Global) -> Result<String> {
    let mut experiment = Experiment::load(name, &[])?;
    experiment.resolve(&super::registry(global, &[])?);
    let records = Book::open(Results::open(&global.results, &experiment.place())?)?.into_records();
    let grid = Grid::new(&experiment, &records)?;
    for scheme in [&args.a, &args.b] {
        if !grid.schemes.contains(scheme) {
            let hint = suggest::nearest(scheme, grid.schemes.iter().map(String::as_str));
            bail!(
                "{}: no scheme {scheme:?}{hint}; there are {}",
                experiment.name,
                grid.schemes.join(", ")
            );
        }
    }
    let key = key(args, || metric_key(&experiment, &grid.records));
    let axis = axis_of(&experiment)?;
    let none = [String::new()];
    let budgets = if grid.budgets.is_empty() { &none[..] } else { &grid.budgets };
    let sides = |budget: &String| -> Option<Sides<'_>> {
        let name = axis.map_or("all".into(), |axis| budget_text(axis, budget));
        let cell = |scheme: &str| grid.cell(scheme, budget).map(|cell| cell.records.clone());
        Some((name, cell(&args.a)?, cell(&args.b)?))
    };
    let cells: Vec<Sides<'_>> = budgets.iter().filter_map(sides).collect();
    table(
        &format!("{}: {} − {}", experiment.name, args.a, args.b),
        axis.unwrap_or("at"),
        &key,
        &cells,
    )
}

/// Two files of results: the cells that both have.
fn files(args: &Compare, global: &Global) -> Result<String> {
    let [ours, theirs] = [&args.a, &args.b].map(|name| {
        let path = Path::new(name);
        let (folder, place) = match path.extension().is_some_and(|e| e == "jsonl") {
            true => {
                let stem = path.file_stem().unwrap_or_default();
                (path.parent().unwrap_or(Path::new("")), stem.to_string_lossy().into_owned())
            }
            false => {
                let place = config::find(path).map(|config| config::place(&config));
                (global.results.as_path(), place.unwrap_or_else(|_| name.clone()))
            }
        };
        let results = Results::at(folder, &place);
        if !results.exist() {
            bail!("{name}: no file of results; to compare two schemes, say in which experiment: --in NAME");
        }
        Ok(Book::open(results)?.into_records())
    });
    let (ours, theirs) = (ours?, theirs?);
    let (first, mut second) = (cells(&ours), cells(&theirs));
    let both: Vec<Sides<'_>> = first
        .into_iter()
        .filter_map(|(name, ours)| Some((name.clone(), ours, second.remove(&name)?)))
        .collect();
    if both.is_empty() {
        bail!("{} and {} share no scheme at the same budget", args.a, args.b);
    }
    let all = both.iter().flat_map(|(_, ours, theirs)| ours.iter().chain(theirs));
    let data = all.map(|record| record.rows());
    if data.collect::<BTreeSet<_>>().len() > 1 {
        bail!(
            "{} and {} were trained on different data, or by another [data]: their values cannot be compared",
            args.a,
            args.b
        );
    }
    let select = ours[0].select();
    let key = key(args, || format!("test/{select}"));
    table(&format!("{} − {}", args.a, args.b), "cell", &key, &both)
}

/// The records of each cell: those with the settings of its newest, the newest of each seed.
fn cells(records: &[Record]) -> BTreeMap<String, Vec<&Record>> {
    let mut cells: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let budget = record.budget.as_object().into_iter().flatten();
        let budget: String = budget.map(|(axis, value)| format!(", {axis} {value}")).collect();
        cells.entry(record.label.clone() + &budget).or_default().push(record);
    }
    for records in cells.values_mut() {
        records.sort_by(|a, b| b.started.cmp(&a.started));
        let newest = records[0].settings();
        let mut seeds = BTreeSet::new();
        records.retain(|record| record.settings() == newest && seeds.insert(record.seed));
    }
    cells
}

fn key(args: &Compare, default: impl FnOnce() -> String) -> String {
    match &args.metric {
        Some(metric) if metric.contains('/') && metric.starts_with(['t', 'v']) => metric.clone(),
        Some(metric) => format!("test/{metric}"),
        None => default(),
    }
}

fn table(title: &str, axis: &str, key: &str, cells: &[Sides<'_>]) -> Result<String> {
    let sign = sign_of(key);
    let mut rows = Vec::new();
    let mut covers = None;
    for (name, ours, theirs) in cells {
        let bytes = |records: &[&Record]| {
            let ok = records.iter().find(|r| r.params > 0);
            ok.map_or("–".into(), |r| embc_lab::units::bytes(r.param_bytes + r.index_bytes))
        };
        let mut row = vec![name.clone()];
        match Difference::between(ours, theirs, key) {
            None => row.extend(["–".to_string(), "0".into(), "nothing to compare".into()]),
            Some(difference) => {
                let same = difference.by_seed.values().all(|x| *x == 0.0);
                let verdict = match (difference.winner(sign), difference.half()) {
                    (None, None) if same => "the same in every seed",
                    (Some(true), _) => "the first is better",
                    (Some(false), _) => "the second is better",
                    (None, Some(_)) => "may be chance",
                    (None, None) if difference.by_seed.len() > 1 => "undecided: all seeds alike",
                    (None, None) => "one seed cannot tell",
                };
                row.push(difference.text());
                row.push(difference.by_seed.len().to_string());
                row.push(verdict.into());
                covers = Some(difference.covers());
            }
        }
        row.extend([bytes(ours), bytes(theirs)]);
        rows.push(row);
    }
    let covers =
        covers.ok_or_else(|| anyhow!("{title}: no seed has {key} on both sides; see --metric"))?;
    let header = [axis, key, "seeds", "verdict", "bytes of the first", "of the second"];
    Ok(format!(
        "{title}\n\n{}\n95 % intervals, paired by seed, over {covers}. One in twenty differences of nothing lies outside.\n",
        markdown(&header.map(String::from), &rows)
    ))
}
