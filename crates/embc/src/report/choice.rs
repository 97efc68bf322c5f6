//! A choice in words: what to use within some bytes, what it loses, how sure that is, and what would
//! change it.

use super::axis_of;
use embc_core::budget::Allocation;
use embc_core::scheme;
use embc_lab::axis::BudgetPoint;
use embc_lab::choice::{self, By, Choice, Pick};
use embc_lab::config::Experiment;
use embc_lab::difference::Difference;
use embc_lab::estimate::Estimate;
use embc_lab::grid::{Grid, sign_of};
use embc_lab::record::Record;
use embc_lab::units::bytes;

/// Mean of a metric of records.
pub fn mean(records: &[&Record], key: &str) -> Option<f64> {
    let values: Option<Vec<f64>> = records.iter().map(|r| r.metrics.get(key).copied()).collect();
    Estimate::of(&values?).map(|estimate| estimate.mean)
}

/// Those records of `all` whose seeds others have, too.
fn of_seeds<'a>(all: &[&'a Record], others: &[&Record]) -> Vec<&'a Record> {
    all.iter().copied().filter(|r| others.iter().any(|other| other.seed == r.seed)).collect()
}

/// "0.4 ± 0.1 % worse": what records lose against those of the full table; and of how many seeds, by
/// which interval.
pub fn loss(full: &[&Record], ours: &[&Record], key: &str) -> Option<(String, String)> {
    let loss = Difference::between(full, ours, key)?;
    let base = mean(&of_seeds(full, ours), key).unwrap_or(f64::NAN).abs();
    // One digit, or two where there is not one. Against nothing there is no loss in per cent.
    let small = loss.half().unwrap_or(loss.mean().abs()) < 1e-3 * base;
    let show = |x: f64| match (base > 0.0, small) {
        (true, true) => format!("{:.2}", 100.0 * x / base),
        (true, false) => format!("{:.1}", 100.0 * x / base),
        (false, _) => format!("{x:.4}"),
    };
    let unit = if base > 0.0 { " %" } else { "" };
    let half = loss.half().map_or(String::new(), |half| format!(" ± {}", show(half)));
    let lost = sign_of(key) * loss.mean();
    let word = if lost < 0.0 { "better" } else { "worse" };
    let by = match loss.by_seed.len() {
        1 => format!("one seed, 95 % interval over {}", loss.covers()),
        n => format!("{n} seeds, 95 % interval over {}", loss.covers()),
    };
    Some((format!("{}{half}{unit} {word}", show(lost.abs())), by))
}

/// "with columns = 8": the knobs that are not at their defaults, as a config has them.
pub fn knobs(record: &Record) -> String {
    let knobs = record.knobs.as_object().into_iter().flatten();
    let defaults = scheme::find(&record.scheme).map(|scheme| scheme.defaults());
    let is_default =
        |key: &String, value| defaults.as_ref().and_then(|d| d.get(key)) == Some(value);
    // A label may say it already: "pq 8 columns".
    let said = |key: &String| record.label.split(' ').any(|word| word == key);
    let chosen = knobs.filter(|(key, value)| !is_default(key, value) && !said(key));
    let mut text: Vec<String> = chosen.map(|(key, value)| format!("{key} = {value}")).collect();
    // A budget of one table is not divided.
    let asked = record.spec.as_ref().map(|spec| spec.scheme.allocation);
    let asked = asked.filter(|&asked| asked != Allocation::default() && record.vocab.len() > 1);
    text.extend(asked.map(|asked| format!("allocation = {}", serde_json::json!(asked))));
    if text.is_empty() { String::new() } else { format!(" with {}", text.join(", ")) }
}

/// The metric that an answer is about: of the test rows, where there are any.
pub fn key_of(choice: &Choice<'_>) -> String {
    let test = format!("test/{}", choice.metric);
    match choice.first.records.iter().all(|record| record.metrics.contains_key(&test)) {
        true => test,
        false => format!("valid/{}", choice.metric),
    }
}

/// The answer's first sentence: what to use, and what it loses.
pub fn headline(choice: &Choice<'_>) -> String {
    let Choice { first, full, .. } = choice;
    let key = key_of(choice);
    let value = mean(&first.records, &key).unwrap_or(f64::NAN);
    let knobs = first.records.first().map_or(String::new(), |record| knobs(record));
    let mut text = format!(
        "{}, use **{}**{knobs}: {key} {value:.4} in {}",
        choice.within,
        first.runner.label,
        bytes(first.bytes)
    );
    let other = full.as_ref().filter(|full| full.runner != first.runner);
    if let Some((full, (lost, _))) =
        other.and_then(|full| Some((full, loss(&full.records, &first.records, &key)?)))
    {
        text += &format!(
            ", {lost} than the full table's {:.4}, and {:.1}x smaller than its {}",
            mean(&of_seeds(&full.records, &first.records), &key).unwrap_or(f64::NAN),
            full.bytes as f64 / first.bytes as f64,
            bytes(full.bytes)
        );
    }
    text + "."
}

/// Whether a winner that loses at most so many per cent on validation does so on the test rows.
pub fn holds(choice: &Choice<'_>, within: f64) -> String {
    let (key, full) = (key_of(choice), choice.full.as_ref());
    let of = full.and_then(|full| {
        let loss = Difference::between(&full.records, &choice.first.records, &key)?;
        let base = mean(&of_seeds(&full.records, &choice.first.records), &key)?.abs();
        let per_cent = |x: f64| 100.0 * x / base;
        Some((sign_of(&key) * per_cent(loss.mean()), loss.half().map(per_cent)))
    });
    match of {
        Some((lost, Some(half))) if lost + half <= within => {
            format!("It holds: the whole interval is within {within} %.")
        }
        Some((lost, Some(half))) if lost - half > within => format!(
            "**It does not hold** on these rows: the whole interval is beyond {within} %. A larger --budget-bytes, or more validation rows to pick by."
        ),
        Some((lost, _)) if lost <= within => format!(
            "It holds by the mean, and the interval reaches beyond {within} %: these rows and seeds cannot tell."
        ),
        _ => format!(
            "It does not hold by the mean, and the interval reaches below {within} %: these rows and seeds cannot tell."
        ),
    }
}

/// The evidence, a sentence each: seeds, the next best, what was tried, and what would change it.
pub fn evidence(choice: &Choice<'_>) -> Vec<String> {
    let Choice { first, next, full, .. } = choice;
    let key = key_of(choice);
    let mut all = Vec::new();
    let other = full.as_ref().filter(|full| full.runner != first.runner);
    let by = other.and_then(|full| loss(&full.records, &first.records, &key)).map(|of| of.1);
    all.push(match (choice.fresh, by) {
        (true, Some(by)) => format!("Measured on seeds that nothing was picked by ({by})."),
        (true, None) => {
            format!("Measured on {} seeds that nothing was picked by.", first.records.len())
        }
        (false, by) => format!(
            "By the seeds that picked it, which flatters a winner{}: fresh seeds would confirm it.",
            by.map_or(String::new(), |by| format!(" ({by})"))
        ),
    });
    if let Some(next) = next {
        let gap = Difference::between(&first.records, &next.records, &key);
        let verdict = match gap.as_ref().and_then(|gap| gap.winner(sign_of(&key))) {
            Some(true) => "which the answer is better than, beyond chance",
            Some(false) => {
                "which is better on the test rows, though validation preferred the answer: too few validation rows to tell"
            }
            None => "between the two the difference may be chance",
        };
        all.push(format!(
            "Next: **{}**, {:.4} in {}; {verdict}{}.",
            next.runner.label,
            mean(&next.records, &key).unwrap_or(f64::NAN),
            bytes(next.bytes),
            gap.map_or(String::new(), |gap| format!(" ({})", gap.text()))
        ));
    }
    if choice.tried > 1 {
        all.push(format!("{} forms fit and were tried.", choice.tried));
    }
    if !choice.open.is_empty() {
        all.push(format!(
            "By validation alone these may be as good: {}. More seeds or validation rows would tell.",
            choice.open.join(", ")
        ));
    }
    if let Some(beyond) = &choice.beyond {
        all.push(format!(
            "A larger budget could change it: from {} on, {} is better on validation.",
            bytes(beyond.bytes),
            beyond.runner.label
        ));
    }
    all
}

/// A choice for each budget of an experiment, in its config's order: of a race what it answers, of a
/// grid the best of each column; where columns hold forms of other bytes, one choice for all.
pub fn answers<'a>(e: &Experiment, records: &'a [Record]) -> anyhow::Result<Vec<Choice<'a>>> {
    if e.sweep.race {
        return Ok(choice::choices(e, records)?.0);
    }
    let grid = Grid::new(e, records)?;
    let full = grid.records.iter().find(|record| record.label == "full" && record.params > 0);
    let (full, full_bytes) = full.map_or((u64::MAX, u64::MAX), |record| {
        (record.params, record.param_bytes + record.index_bytes)
    });
    let points = e.points()?;
    if points.iter().any(|point| !["bytes", "compression"].contains(&point.axis)) {
        // Forms of one such budget differ in bytes.
        return Ok(smallest(e, &grid).into_iter().collect());
    }
    let of = |point: &BudgetPoint| {
        let value = point.value.to_string();
        let text = super::budget_text(point.axis, &value);
        let (within, least) = match (point.axis, point.value.as_f64()) {
            ("bytes", Some(bytes)) => (choice::within(bytes as u64), bytes),
            (_, ratio) => (format!("At {text}"), full as f64 / ratio.unwrap_or(1.0)),
        };
        let passes = |pick: &Pick<'_>| match (&pick.runner.budget, point.axis) {
            // A form may have fewer parameters, and with its pointers more bytes than the full table.
            (Some(budget), _) => *budget == value && pick.bytes <= full_bytes,
            // Of one size: where that is no larger.
            (None, "bytes") => pick.bytes as f64 <= least,
            (None, _) => pick.records[0].params as f64 <= least,
        };
        let mut choice = choice::best(&grid, e.metric(), within, By::Metric, &passes)?;
        choice.budget = point.value.as_u64().unwrap_or_default();
        // Another column's is no news here.
        choice.beyond = choice.beyond.filter(|pick| pick.runner.budget.is_none());
        Some(choice)
    };
    Ok(points.iter().filter_map(of).collect())
}

/// What loses little of the full table's, in the fewest bytes.
fn smallest<'a>(e: &Experiment, grid: &Grid<'a>) -> Option<Choice<'a>> {
    const LITTLE: f64 = 1.0;
    let (metric, within) = (e.metric(), format!("To lose at most {LITTLE} % on validation"));
    let full =
        choice::best(grid, metric, String::new(), By::Metric, &|pick| pick.runner.label == "full")?;
    let fits = |pick: &Pick<'_>| {
        pick.beside(&full.first).is_some_and(|(ours, full)| {
            let lost = if metric.higher_is_better() { full - ours } else { ours - full };
            lost <= LITTLE / 100.0 * full.abs()
        })
    };
    let mut choice = choice::best(grid, metric, within, By::Bytes, &fits)?;
    (choice.beyond, choice.next) = (None, None);
    Some(choice)
}

/// The config of the winner alone, to train it again; the seeds are those of its records.
pub fn config(e: &Experiment, choice: &Choice<'_>, text: &str) -> anyhow::Result<String> {
    let mut table: toml::Table = text.parse()?;
    let runner = &choice.first.runner;
    for key in ["sweep", "table", "budget"] {
        table.remove(key);
    }
    if let (Some(budget), Some(axis)) = (&runner.budget, axis_of(e)?) {
        let value = vec![toml::Value::from(budget.parse::<i64>()?)];
        table.insert("budget".into(), toml::Table::from_iter([(axis.into(), value.into())]).into());
    }
    let at = e.scheme.iter().position(|scheme| scheme.label() == runner.label);
    let schemes = table["scheme"].as_array().cloned().unwrap_or_default();
    let scheme = schemes[at.expect("one of its schemes")].clone();
    table.insert("scheme".into(), vec![scheme].into());
    let seeds: Vec<toml::Value> =
        choice.first.records.iter().map(|record| (record.seed as i64).into()).collect();
    table["train"].as_table_mut().expect("a table").insert("seeds".into(), seeds.into());
    Ok(toml::to_string(&table)?)
}
