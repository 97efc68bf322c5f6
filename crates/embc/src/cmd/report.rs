//! `embc report`: tables from recorded trials.

use super::Outcome;
use crate::cli::{Format, Global, Report};
use crate::report;
use anyhow::{Context, Result, bail};
use embc_lab::config::Experiment;
use embc_lab::record::Record;
use embc_lab::store::{Book, Results};
use std::path::{Path, PathBuf};

pub fn run(args: &Report, global: &Global) -> Result<Outcome> {
    if let Some(path) = &args.claims {
        let text = claims(path, global)?;
        match &args.output {
            Some(path) => super::write(path, &text)?,
            None => super::print(&text)?,
        }
        return Ok(Outcome::Fine);
    }
    let named = match args.experiments.is_empty() {
        true => recorded(global)?,
        false => args.experiments.clone(),
    };
    let (mut text, mut failed, mut titles) = (String::new(), Vec::new(), Vec::new());
    for name in &named {
        // A file of records stands for its experiment, with the folder that it lies in.
        let is_records = name.extension().is_some_and(|e| e == "jsonl");
        let stem = name.file_stem().filter(|_| is_records).map(Path::new);
        // Of equal names that in the folder called as the file's is.
        let within = name.parent().and_then(Path::file_name).zip(stem);
        let within = within.map(|(folder, stem)| Path::new(folder).join(stem));
        let within = within.filter(|config| embc_lab::config::find(config).is_ok());
        let config = within.as_deref().or(stem).unwrap_or(name);
        let mut experiment = Experiment::load(config, &[])?;
        experiment.resolve(&super::registry(global, &args.experiments)?);
        let (folder, place) = match (stem, name.parent()) {
            (Some(stem), Some(folder)) => (folder, stem.to_string_lossy().into_owned()),
            _ => (global.results.as_path(), experiment.place()),
        };
        let results = Results::open(folder, &place)?;
        let records: Vec<Record> = Book::open(results)?.into_records();
        if records.is_empty() {
            bail!(
                "{} has no results yet; run `embc sweep --config {}`",
                experiment.name,
                experiment.name
            );
        }
        match args.format {
            Format::Md => text.push_str(&report::markdown(&experiment, &records)?),
            Format::Csv => {
                text.push_str(&report::export::csv(&experiment, &records, text.is_empty())?);
            }
            Format::Json => text.push_str(&report::export::json(&experiment, &records)?),
            Format::Html => {
                titles.push((experiment.name.clone(), experiment.title.clone()));
                text.push_str(&report::html::section(&experiment, &records)?);
            }
            Format::Latex => text.push_str(&report::export::latex(&experiment, &records)?),
            Format::Svg => {
                let svg = report::svg(&experiment, &records)?;
                let why = || format!("{}: no plot; [table] loss asks for one", experiment.name);
                text.push_str(&svg.with_context(why)?);
            }
        }
        if args.collisions {
            text.push_str(&report::collisions(&experiment, &records)?);
        }
        if args.check {
            failed.extend(report::check(&experiment, &records)?);
            let rendered = folder.join(place + ".md");
            // The same numbers of another build are not stale.
            let numbers = |text: &str| text.split(" Trained by embc ").next().map(String::from);
            let is = std::fs::read_to_string(&rendered).ok();
            let to = report::markdown(&experiment, &records)?;
            if is.is_some_and(|is| numbers(&is) != numbers(&to)) {
                failed.push(format!(
                    "{} is stale; render it again: embc report {} --output {0}",
                    rendered.display(),
                    experiment.name
                ));
            }
        }
    }
    if args.format == Format::Html {
        text = report::html::page(&titles, &text);
    }
    match &args.output {
        Some(path) => super::write(path, &text)?,
        None => super::print(&text)?,
    }
    failed.iter().for_each(|line| eprintln!("check failed: {line}"));
    Ok(if failed.is_empty() { Outcome::Fine } else { Outcome::Failed })
}

/// What all records say of a file of claims.
fn claims(path: &Path, global: &Global) -> Result<String> {
    let claims = report::claims::Claims::load(path)?;
    let mut recorded = report::claims::Recorded::default();
    for (name, is_study) in claims.experiments() {
        if is_study {
            let place = embc_lab::config::place(&embc_lab::config::find(Path::new(name))?);
            let path = global.results.join(format!("{place}.csv"));
            let why = || format!("{}: the values of a study", path.display());
            let mut reader = csv::Reader::from_path(&path).with_context(why)?;
            let values = reader.deserialize().collect::<Result<_, _>>().with_context(why)?;
            recorded.studies.insert(name.clone(), (place, values));
            continue;
        }
        if recorded.experiments.contains_key(name) {
            continue;
        }
        let mut experiment = Experiment::load(Path::new(name), &[])?;
        experiment.resolve(&super::registry(global, &[])?);
        let records = Book::open(Results::at(&global.results, &experiment.place()))?.into_records();
        if !records.is_empty() {
            recorded.experiments.insert(name.clone(), (experiment, records));
        }
    }
    claims.markdown(&recorded)
}

/// Experiments that have a file of results and a config.
pub fn recorded(global: &Global) -> Result<Vec<PathBuf>> {
    let folder = &global.results;
    let names = embc_lab::store::experiments(folder).with_context(|| {
        format!("{}: no results here; run `embc sweep` first", folder.display())
    })?;
    // Records that lie elsewhere than those of their config are of before it was moved.
    let is_here = |place: &String| {
        let Ok(path) = embc_lab::config::find(Path::new(place)) else { return false };
        let to = Experiment::load(&path, &[]).map_or_else(|_| place.clone(), |e| e.place());
        if to != *place {
            let (from, to) = (folder.join(place), folder.join(&to));
            tracing::warn!(
                "{}.*: left out; its config's place is {}",
                from.display(),
                to.display()
            );
        }
        to == *place
    };
    let names: Vec<PathBuf> = names.into_iter().filter(is_here).map(PathBuf::from).collect();
    if names.is_empty() {
        bail!("{}: no results here; run `embc sweep` first", folder.display());
    }
    Ok(names)
}
