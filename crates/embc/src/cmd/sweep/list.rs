//! The trials of experiments: what is done, who runs what where, and what it takes.

use crate::INTERRUPT;
use crate::cli::TextOrJson;
use crate::cmd::Outcome;
use crate::progress::Terminal;
use anyhow::Result;
use embc_data::lease::Holder;
use embc_lab::checkpoint::{Claim, Stands};
use embc_lab::desk::State;
use embc_lab::memory::Need;
use embc_lab::plan::Trial;
use embc_lab::record::Status;
use embc_lab::store::Book;
use embc_lab::sweep::Sweep;
use embc_lab::units::bytes;
use embc_lab::watch::Audience;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// How long `--watch` waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What trials took before, by label; under no label all of them, for a scheme that has none.
pub fn seconds(book: &Book) -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for record in book.records().filter(|record| record.status == Status::Ok) {
        for label in [record.label.clone(), String::new()] {
            all.entry(label).or_default().push(record.wall_s);
        }
    }
    let mean = |times: Vec<f64>| times.iter().sum::<f64>() / times.len() as f64;
    all.into_iter().map(|(label, times)| (label, mean(times))).collect()
}

/// A line a trial: id, state, memory, the time that it took or will take, name; or its order.
pub fn list(
    sweep: &Sweep<'_>,
    seconds: &BTreeMap<String, f64>,
    format: TextOrJson,
) -> Result<String> {
    // A cell's seeds need the same.
    let mut needs: BTreeMap<String, Option<Need>> = BTreeMap::new();
    let mut text = String::new();
    for (trial, state) in sweep.trials()? {
        let order = sweep.bench.order(&trial, sweep.experiment);
        if format == TextOrJson::Json {
            text += &(serde_json::to_string(&order)? + "\n");
            continue;
        }
        let need = || sweep.bench.need(&order.spec);
        let need = needs.entry(order.cell_name()).or_insert_with(need);
        let memory = need.map_or("–".into(), |need| bytes(need.total()));
        text += &line(sweep, &trial, state, &memory, seconds);
    }
    Ok(text)
}

fn line(
    sweep: &Sweep<'_>,
    trial: &Trial,
    state: State,
    memory: &str,
    seconds: &BTreeMap<String, f64>,
) -> String {
    let id = sweep.bench.id(trial);
    let time = seconds.get(trial.scheme.label()).or(seconds.get(""));
    let time = time.map_or("–".into(), |s| rounded(Duration::from_secs_f64(s.ceil())));
    let (state, whereabouts) = match state {
        State::ToDo => stands(sweep.desk.results(), &id),
        State::Done => ("done", String::new()),
        State::Pruned => ("pruned", String::new()),
        State::Failed => ("failed", String::new()),
    };
    let name = format!("{}: {}", sweep.experiment.name, trial.name());
    format!("{id}  {state:<11}  {memory:>10}  {time:>8}  {name}{whereabouts}\n")
}

fn who(holder: &Holder) -> String {
    let job = holder.job.as_ref().map_or(String::new(), |job| format!(", job {job}"));
    format!("{}, process {}{job}", holder.host, holder.pid)
}

fn rounded(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// Who runs a trial where and for how long, and who has lost it.
fn stands(results: &Path, trial: &str) -> (&'static str, String) {
    let (stands, lost) = Claim::stands(results, trial);
    let (state, mut whereabouts) = match stands {
        Stands::ToDo => ("to do", String::new()),
        Stands::Interrupted => ("interrupted", String::new()),
        Stands::Running(holder, held) => {
            ("running", format!("; on {} for {}", who(&holder), rounded(held)))
        }
    };
    for holder in &lost {
        whereabouts += &format!("; lost by {}", who(holder));
    }
    (state, whereabouts)
}

/// Says how a sweep goes that others run, until nothing is left to do.
pub fn watch(sweep: &Sweep<'_>, terminal: &Terminal) -> Result<Outcome> {
    let mut said = BTreeSet::new();
    while !INTERRUPT.is_set() {
        sweep.desk.refresh()?;
        let (lines, left) = news(sweep)?;
        for line in lines {
            if said.insert(line.clone()) {
                terminal.say(&line);
            }
        }
        if left == 0 {
            let failed = sweep.trials()?.iter().any(|(_, state)| *state == State::Failed);
            return Ok(if failed { Outcome::Failed } else { Outcome::Fine });
        }
        for _ in (0..20).take_while(|_| !INTERRUPT.is_set()) {
            std::thread::sleep(LOOK_AGAIN / 20);
        }
    }
    Ok(Outcome::Interrupted)
}

/// Who runs what, who has lost what, and how far it is; and how many trials are left.
fn news(sweep: &Sweep<'_>) -> Result<(Vec<String>, usize)> {
    let (trials, known) = (sweep.trials()?, Claim::known(sweep.desk.results()));
    let all = trials.len();
    let mut lines = Vec::new();
    let (mut left, mut running) = (0, 0);
    for (trial, _) in trials.iter().filter(|(_, state)| *state == State::ToDo) {
        left += 1;
        let id = sweep.bench.id(trial);
        if !known.contains(&id) {
            continue;
        }
        let (stands, lost) = Claim::stands(sweep.desk.results(), &id);
        let name = trial.name();
        lines.extend(lost.iter().map(|holder| format!("{name}: lost by {}", who(holder))));
        if let Stands::Running(holder, _) = stands {
            running += 1;
            lines.push(format!("{name}: on {}", who(&holder)));
        }
    }
    let mut line = format!(
        "{}: {} of {all} trials are done, {running} running",
        sweep.experiment.name,
        all - left
    );
    if let (Some(each), 1..) = (seconds(&sweep.desk.book()).get(""), running) {
        let left = Duration::from_secs_f64(each * left as f64 / f64::from(running));
        line += &format!(", about {} left", rounded(left));
    }
    lines.push(line);
    Ok((lines, left))
}
