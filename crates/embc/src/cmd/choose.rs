//! `embc choose`: from data and a budget to what to use, with evidence, and the model.

mod forms;
mod place;

use super::{Outcome, write};
use crate::INTERRUPT;
use crate::cli::{Choose as Args, Global, Way};
use crate::progress::Terminal;
use crate::report::{self, choice as words};
use anyhow::{Context, Result, bail};
use embc_core::cancel::Cancel;
use embc_data::registry::Registry;
use embc_lab::bench::Bench;
use embc_lab::choice::{Allowed, Asked, Choice, choices, name_of};
use embc_lab::config::{self, Experiment};
use embc_lab::desk::{Again, Desk};
use embc_lab::executor::Threads;
use embc_lab::memory::Memory;
use embc_lab::plan;
use embc_lab::race;
use embc_lab::record::{Record, Status};
use embc_lab::sweep::Sweep;
use embc_lab::units::bytes;
use embc_lab::watch::Audience;
use forms::Forms;
use place::Place;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the speed of training is measured, before it is said how long all takes.
const MEASURED: Duration = Duration::from_secs(1);
/// Shares of the full table that are tried where no budget is given.
const LADDER: [u64; 4] = [8, 16, 64, 256];
/// Shares of a budget that are tried for the smallest form within it.
const SMALLER: [u64; 3] = [2, 4, 8];
/// The answer's file.
const ANSWER: &str = "answer.md";

pub fn run(args: &Args, global: &Global) -> Result<Outcome> {
    if args.jobs == Some(0) {
        bail!("--jobs 0: at least one is needed");
    }
    let base = base(&args.data, global)?;
    let registry = super::registry(global, std::slice::from_ref(&base.path))?;
    let entry = super::entry(&registry, &base.dataset)?;
    let data = super::open_for(entry, &base, global)?;
    let bench = Bench::new(entry, &data, global.overcommit);
    let terminal = Terminal::new(global.quiet);
    if base.data.splits_by_seed() {
        bail!(base.error("data.split", "a choice is by intervals of one split, but each seed draws its own here: give the split a seed"));
    }
    let question = question(args, &base, &bench, &registry, &terminal)?;
    if args.list {
        let (e, forms) = (&question.e, &question.forms);
        super::print(&format!("{}\n{}\n", forms.table(e)?, effort(e, &bench, args.jobs)?))?;
        return Ok(Outcome::Fine);
    }
    let folder = args.output.clone().unwrap_or_else(|| name_of(&base.path).into());
    let e = question.settle(&folder, &base, &registry)?;
    // A seed that failed would count as lost: it is tried once more.
    let again = Again { done: false, failed: true };
    let desk = Desk::open(&global.results, &e.place(), again)?.lasting(*args.keep.lease);
    if desk.book().records().next().is_none() {
        terminal.say(&effort(&e, &bench, args.jobs)?);
    }
    let went = train(&e, &bench, &desk, args, &terminal)?;
    if went == Outcome::Interrupted {
        eprintln!("interrupted: run the same command again to go on");
        return Ok(went);
    }
    terminal.clear();
    let records = desk.into_records();
    let (mut all, over) = match e.sweep.race {
        true => choices(&e, &records)?,
        false => (words::answers(&e, &records)?, true),
    };
    if all.is_empty() && !over {
        bail!("the time was over before anything was trained: give it more --time");
    }
    if let Some(within) = args.within {
        all = smallest_within(all, &e, within)?;
    }
    if all.is_empty() {
        bail!("nothing could be trained: `embc report {}` says why", e.path.display());
    }
    let place =
        Place { folder: &folder, base: &base, e: &e, text: &question.text, several: all.len() > 1 };
    let answer = answer(&all, over, args.within, &records);
    write(&folder.join("page.html"), &report::html::alone(&e, &records)?)?;
    write(&folder.join(ANSWER), &answer)?;
    super::print(&answer)?;
    for choice in &all {
        if place.keep(choice, (entry, &data), args, global, &terminal)?.is_none() {
            eprintln!("interrupted: run the same command again for the model");
            return Ok(Outcome::Interrupted);
        }
    }
    terminal.say(&format!("\n{}", place.leads_to(&all)));
    Ok(Outcome::Fine)
}

/// What is asked, as an experiment.
struct Question {
    e: Experiment,
    text: String,
    forms: Forms,
}

fn question(
    args: &Args,
    base: &Experiment,
    bench: &Bench<'_>,
    registry: &Registry,
    terminal: &Terminal,
) -> Result<Question> {
    let budgets = budgets(args, base, bench)?;
    let allowed = allowed(args, base, bench, terminal)?;
    // Written aside: what a folder holds is settled once it is known that there is an answer.
    let aside = tempfile::tempdir()?;
    let path = aside.path().join(format!("{}.toml", name_of(&base.path)));
    let (metric, without) = (args.metric, BTreeSet::new());
    let mut asked = Asked { base, budgets: &budgets, metric, allowed, without };
    write(&path, &asked.config()?)?;
    let mut forms = Forms::new(&experiment(&path, registry)?, bench, &budgets)?;
    let held = forms.held();
    if args.within.is_some() && !held.is_empty() && held.len() < budgets.len() {
        // The smallest shares may hold nothing.
        asked.budgets = &held;
        write(&path, &asked.config()?)?;
        forms = Forms::new(&experiment(&path, registry)?, bench, &held)?;
    }
    forms.check()?;
    asked.without = forms.idle();
    let text = asked.config()?;
    write(&path, &text)?;
    let e = experiment(&path, registry)?;
    bench.check(&e)?;
    Ok(Question { e, text, forms })
}

impl Question {
    /// Writes the experiment to where its answer will lie, unless another answer lies there.
    fn settle(&self, folder: &Path, base: &Experiment, registry: &Registry) -> Result<Experiment> {
        let path = folder.join(format!("{}.toml", name_of(&base.path)));
        let before = std::fs::read_to_string(&path).ok();
        if folder.join(ANSWER).exists() && before.as_ref() != Some(&self.text) {
            bail!(
                "{} holds the answer to another question: choose another --output, or remove it (trials are kept in the results, and not trained again)",
                folder.display()
            );
        }
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
        write(&path, &self.text)?;
        experiment(&path, registry)
    }
}

/// The experiment that DATA is, or is about.
fn base(data: &Path, global: &Global) -> Result<Experiment> {
    let name = data.to_string_lossy();
    if let Some(name) = name.strip_suffix(".data.toml") {
        bail!("{} says how data is read; the experiment beside it is {name}.toml", data.display());
    }
    if data.exists() && data.is_file() && data.extension().is_none_or(|e| e != "toml") {
        bail!(
            "{0} is data: run `embc init {0}` first, and then choose what that names",
            data.display()
        );
    }
    let error = match Experiment::load(data, &[]) {
        Ok(found) => return Ok(found),
        Err(error) if config::find(data).is_ok() => return Err(error),
        Err(error) => error,
    };
    // Not a config's name: perhaps a data set's, which the first config on it stands for.
    if super::registry(global, &[])?.get(&name).is_none() {
        return Err(error.context("DATA is what `embc init` wrote, an experiment, or a data set"));
    }
    let files = |folder: &str| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> =
        files(".").chain(files("configs")).map(|file| file.path()).collect();
    all.sort();
    let is_about = |e: &Experiment| e.dataset == name;
    let mut found = all.iter().filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let found = found.find_map(|path| Experiment::load(path, &[]).ok().filter(is_about));
    let found = found.with_context(|| {
        format!("no config, here or under configs/, is about the data set {name}: which model, and how it is trained, is for one to say")
    })?;
    eprintln!("embc: {name} as in {}", found.path.display());
    Ok(found)
}

fn experiment(path: &Path, registry: &Registry) -> Result<Experiment> {
    let mut e = Experiment::load(path, &[])?;
    e.resolve(registry);
    Ok(e)
}

/// The budgets that were asked for, or shares of the full table; with `--within` also shares of these,
/// among which the smallest is looked for.
fn budgets(args: &Args, base: &Experiment, bench: &Bench<'_>) -> Result<Vec<u64>> {
    let mut budgets: Vec<u64> = args.budget_bytes.iter().map(|bytes| bytes.0).collect();
    if let (Some(_), Some(&most)) = (args.within, budgets.iter().max()) {
        budgets.extend(SMALLER.iter().map(|share| most / share));
    }
    if budgets.is_empty() {
        let trial = plan::trials(base)?.swap_remove(0);
        let full = bench.full_bytes(&trial.spec)?;
        budgets = LADDER.iter().map(|share| (full / share).max(64)).collect();
    }
    if let Some(at) = budgets.iter().position(|&budget| budget == 0) {
        bail!(
            "--budget-bytes {}: nothing fits no bytes",
            args.budget_bytes.get(at).map_or(0, |b| b.0)
        );
    }
    let mut seen = BTreeSet::new();
    budgets.retain(|budget| seen.insert(*budget));
    Ok(budgets)
}

/// What may be tried here: without a full table that fits into memory, nothing follows from one.
fn allowed(
    args: &Args,
    base: &Experiment,
    bench: &Bench<'_>,
    terminal: &Terminal,
) -> Result<Allowed> {
    let (trained, mut post) = (args.allow.contains(&Way::Trained), args.allow.contains(&Way::Post));
    if post {
        let full = plan::full(base, base.train.seeds[0]);
        let spec = bench.order(&full, base).spec;
        let need = bench.need(&spec).map_or(0, |need| need.total());
        // Not what is free now: else what is tried would differ from run to run.
        let memory = embc_lab::machine::memory();
        if need > memory && !bench.overcommit {
            post = false;
            let (need, memory) = (bytes(need), bytes(memory));
            let what = format!("the full table would take {need} in training, of {memory} here");
            if !trained {
                bail!("{what}: nothing can be made of it; --allow trained, or --overcommit");
            }
            terminal.say(&format!("embc: {what}: what follows from it is left out"));
        }
    }
    if args.within.is_some() && !post {
        bail!("--within is against the full table, which is not trained here: give --budget-bytes");
    }
    Ok(Allowed { trained, post, everything: args.everything })
}

/// How much there is to train at most, and how long that takes by the speed of training here.
fn effort(e: &Experiment, bench: &Bench<'_>, jobs: Option<usize>) -> Result<String> {
    let trainings = race::at_most(e)?;
    let trial = plan::trials(e)?.swap_remove(0);
    let order = bench.order(&trial, e);
    let speed = bench.examples_per_second(&order.spec, MEASURED, &INTERRUPT);
    let mut text = format!("{}: about {trainings} trainings at most", e.name);
    if let Some(speed) = speed {
        let each = bench.examples(&order.spec) as f64 / speed;
        let cores = jobs.unwrap_or(embc_lab::machine::cores()).min(trainings).max(1);
        let all = Duration::from_secs_f64((each * trainings as f64 / cores as f64).ceil());
        text += &format!(
            " of {each:.1} s on one core, {} on {cores}; less where training stops early, and once the winner is clear",
            humantime::format_duration(all)
        );
    }
    Ok(text)
}

/// Runs the race, until it is over or the time is.
fn train(
    e: &Experiment,
    bench: &Bench<'_>,
    desk: &Desk,
    args: &Args,
    terminal: &Terminal,
) -> Result<Outcome> {
    let stop = INTERRUPT.part();
    if let Some(time) = args.time {
        alarm(*time, stop.clone());
    }
    let memory = Memory::free_now();
    let threads = Threads {
        jobs: args.jobs,
        checkpoint_every: *args.keep.checkpoint_every,
        ..Threads::new(bench, &memory, terminal, stop.clone())
    };
    let sweep = Sweep { experiment: e, bench, desk, filter: None };
    // A form that fails is no answer, and the others go on.
    let went = sweep.run(&threads, &memory, terminal, &stop)?;
    if went == Outcome::Interrupted && !INTERRUPT.is_set() {
        terminal.say("the time is over: an answer by what is known; run it again to go on");
        return Ok(Outcome::Fine);
    }
    Ok(went)
}

/// Sets a wish to stop after a while.
fn alarm(time: Duration, stop: Cancel) {
    std::thread::spawn(move || {
        std::thread::sleep(time);
        stop.set();
    });
}

/// Of the choices, the one of fewest bytes that loses at most so many per cent on validation.
fn smallest_within<'a>(
    all: Vec<Choice<'a>>,
    e: &Experiment,
    within: f64,
) -> Result<Vec<Choice<'a>>> {
    let loses = |choice: &Choice<'_>| -> Option<f64> {
        let (ours, full) = choice.first.beside(choice.full.as_ref()?)?;
        let sign = if e.select().higher_is_better() { 1.0 } else { -1.0 };
        Some(100.0 * sign * (full - ours) / full.abs())
    };
    let Some(least) = all.iter().filter_map(loses).reduce(f64::min) else {
        bail!("--within is against the full table, which was not trained: give --budget-bytes");
    };
    let found = all.into_iter().filter(|choice| loses(choice).is_some_and(|lost| lost <= within));
    let Some(mut choice) = found.min_by_key(|choice| choice.first.bytes) else {
        bail!(
            "nothing that was tried loses at most {within} % on validation: the least is {least:.2} %; try a larger --budget-bytes"
        );
    };
    choice.within = format!("To lose at most {within} %");
    Ok(vec![choice])
}

/// The answer as Markdown: a sentence a budget, with its evidence.
fn answer(all: &[Choice<'_>], over: bool, within: Option<f64>, records: &[Record]) -> String {
    let mut text = String::new();
    let failed: Vec<&Record> = records.iter().filter(|r| r.status == Status::Error).collect();
    for choice in all {
        text += &format!("{}\n\n", words::headline(choice));
        if let Some(within) = within {
            text += &format!("- {}\n", words::holds(choice, within));
        }
        for line in words::evidence(choice) {
            text += &format!("- {line}\n");
        }
        if let Some(first) = failed.first() {
            let why = first.error.as_deref().unwrap_or_default();
            text += &format!("- {} trials failed; {}: {why}\n", failed.len(), first.label);
        }
        if !over {
            text += "- The race is not over: more time would make it surer.\n";
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}
