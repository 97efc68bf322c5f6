//! The settings that were tried with `full`: what was chosen, and by which numbers.

use crate::table::markdown as md_table;
use anyhow::Result;
use embc_lab::config::Experiment;
use embc_lab::grid::Grid;
use embc_lab::record::{Record, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// All leaves of a config, by their path.
fn leaves(value: &Value, path: &str, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            leaves(value, &path, into);
        }),
        leaf => {
            into.insert(path.into(), leaf.clone());
        }
    }
}

/// Which rows judge: by other ones nothing can be chosen.
fn held_out(record: &Record) -> Value {
    match &record.spec {
        Some(spec) => json!([spec.data.content, spec.data.view.split]),
        None => json!([record.data_hash, record.config["data"]["split"]]),
    }
}

/// What `config` has otherwise than `chosen`: keys with their values.
fn difference(config: &Value, chosen: &Value) -> String {
    let [mut ours, mut theirs] = [BTreeMap::new(), BTreeMap::new()];
    leaves(config, "", &mut ours);
    leaves(chosen, "", &mut theirs);
    // Follows from the others.
    ours.remove("full_dim");
    let differs = ours.iter().filter(|(path, value)| theirs.get(*path) != Some(value));
    let removed = theirs.keys().filter(|path| *path != "full_dim" && !ours.contains_key(*path));
    let differs = differs.map(|(path, value)| format!("{path} = {value}"));
    let removed = removed.map(|path| format!("no {path}"));
    differs.chain(removed).collect::<Vec<_>>().join(", ")
}

/// The section, and the number of records outside the grid that it lists; nothing where nothing
/// else was tried.
pub fn section(
    experiment: &Experiment,
    grid: &Grid<'_>,
    records: &[Record],
) -> Result<(String, usize)> {
    let full = |record: &&&Record| record.scheme == "full" && record.status == Status::Ok;
    let Some(chosen) = grid.records.iter().find(full) else {
        return Ok((String::new(), 0));
    };
    let key = format!("valid/{}", experiment.select());
    let mut tried: Vec<(String, &Record)> = records
        .iter()
        .filter(|r| full(&r) && r.seed == chosen.seed && r.metrics.contains_key(&key))
        .filter(|r| held_out(r) == held_out(chosen))
        // Other full tables of the experiment are results, not tries.
        .filter(|r| r.trial == chosen.trial || grid.records.iter().all(|g| g.trial != r.trial))
        .map(|record| (difference(&record.shown(), &chosen.shown()), record))
        .collect();
    if tried.len() < 2 {
        return Ok((String::new(), 0));
    }
    let sign = embc_lab::grid::sign_of(&key);
    tried.sort_by(|a, b| (sign * b.1.metrics[&key]).total_cmp(&(sign * a.1.metrics[&key])));
    let row = |(what, record): &(String, &Record)| {
        vec![
            if what.is_empty() { "**as above**".into() } else { what.clone() },
            format!("{:.4}", record.metrics[&key]),
            record.best_epoch.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = tried.iter().map(row).collect();
    let mut text = String::new();
    writeln!(
        text,
        "\nSettings tried with `full`, seed {}, to choose by validation:\n",
        chosen.seed
    )?;
    text += &md_table(&["changed", &key, "best epoch"].map(String::from), &rows);
    let others = tried.iter().filter(|(what, _)| !what.is_empty()).count();
    Ok((text, others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let chosen = json!({"train": {"lr": 0.1, "epochs": 3}, "full_dim": 8});
        let other = json!({"train": {"lr": 0.2, "epochs": 3}, "full_dim": 4, "seed": 2});
        assert_eq!(difference(&other, &chosen), "seed = 2, train.lr = 0.2");
        assert_eq!(difference(&chosen, &other), "train.lr = 0.1, no seed");
        assert_eq!(difference(&chosen, &chosen), "");
    }
}
