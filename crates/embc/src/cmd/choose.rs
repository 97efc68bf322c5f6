//! `embc choose`: from data and a budget to what to use, with evidence, and the model.

use super::{Outcome, one, write};
use crate::INTERRUPT;
use crate::cli::{Choose as Args, Global, Way};
use crate::progress::Terminal;
use crate::report::{self, choice as words};
use anyhow::{Context, Result, bail};
use embc_core::cancel::Cancel;
use embc_core::graph::HashAs;
use embc_data::registry::{Entry, Registry};
use embc_data::view::View;
use embc_lab::artefact::{self, Model};
use embc_lab::bench::Bench;
use embc_lab::choice::{Allowed, Asked, Choice, choices, name_of};
use embc_lab::config::{self, Experiment};
use embc_lab::desk::{Again, Answer, Desk};
use embc_lab::executor::Threads;
use embc_lab::export::{self, Stated};
use embc_lab::memory::Memory;
use embc_lab::plan::{self, Trial};
use embc_lab::race;
use embc_lab::record::Record;
use embc_lab::sweep::Sweep;
use embc_lab::units::bytes;
use embc_lab::watch::Audience;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the speed of training is measured, before it is said how long all takes.
const MEASURED: Duration = Duration::from_secs(1);
/// Shares of the full table that are tried where no budget is given.
const LADDER: [u64; 4] = [8, 16, 64, 256];

pub fn run(args: &Args, global: &Global) -> Result<Outcome> {
    let base = base(&args.data, global)?;
    let registry = super::registry(global, std::slice::from_ref(&base.path))?;
    let entry = super::entry(&registry, &base.dataset)?;
    let data = super::open_for(entry, &base, global)?;
    let bench = Bench::new(entry, &data, global.overcommit);
    let terminal = Terminal::new(global.quiet);
    let folder = args.output.clone().unwrap_or_else(|| name_of(&base.path).into());
    let budgets = budgets(args, &base, &bench)?;
    let allowed = allowed(args, &base, &bench, &terminal)?;
    let asked = Asked { base: &base, budgets: &budgets, metric: args.metric, allowed };
    let text = asked.config()?;
    let path = folder.join(name_of(&base.path)).with_extension("toml");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("{}: cannot be made", folder.display()))?;
    write(&path, &text)?;
    let e = experiment(&path, &registry)?;
    bench.check(&e)?;
    if args.list {
        super::print(&format!("{}\n{}\n", tried(&e), effort(&e, &bench)?))?;
        return Ok(Outcome::Fine);
    }
    let desk = Desk::open(&global.results, &e.name, Again::default())?.lasting(*args.keep.lease);
    if desk.book().records().next().is_none() {
        terminal.say(&effort(&e, &bench)?);
    }
    let went = train(&e, &bench, &desk, args, &terminal)?;
    if went == Outcome::Interrupted {
        eprintln!("interrupted: run the same command again to go on");
        return Ok(went);
    }
    terminal.clear();
    let records = desk.into_records();
    let (mut all, over) = choices(&e, &records)?;
    if let Some(within) = args.within {
        all = smallest_within(all, &e, within)?;
    }
    if all.is_empty() {
        bail!(
            "nothing fits, or nothing could be trained: `embc report {}` says why",
            path.display()
        );
    }
    let place = Place { folder: &folder, e: &e, text: &text, several: all.len() > 1 };
    let answer = answer(&all, over);
    for choice in &all {
        if place.keep(choice, (entry, &data), args, global, &terminal)?.is_none() {
            return Ok(Outcome::Interrupted);
        }
    }
    write(&folder.join("answer.md"), &answer)?;
    write(&folder.join("page.html"), &report::html::alone(&e, &records)?)?;
    super::print(&answer)?;
    eprintln!("\n{}", place.leads_to(&all));
    Ok(Outcome::Fine)
}

/// The experiment that DATA is, or is about.
fn base(data: &Path, global: &Global) -> Result<Experiment> {
    let error = match config::find(data) {
        Ok(found) => return Experiment::load(&found, &[]),
        Err(error) => error,
    };
    // Not a config's name: perhaps a data set's, which the first config on it stands for.
    let name = data.to_string_lossy();
    if super::registry(global, &[])?.get(&name).is_none() {
        return Err(error);
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

/// The budgets that were asked for, or shares of the full table.
fn budgets(args: &Args, base: &Experiment, bench: &Bench<'_>) -> Result<Vec<u64>> {
    let mut budgets: Vec<u64> = args.budget_bytes.iter().map(|bytes| bytes.0).collect();
    if budgets.is_empty() {
        let trial = plan::trials(base)?.swap_remove(0);
        let full = bench.full_bytes(&trial.spec)?;
        budgets = LADDER.iter().map(|share| (full / share).max(64)).collect();
    }
    budgets.sort_by(|a, b| b.cmp(a));
    budgets.dedup();
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
        let free = Memory::free_now().free();
        if need > free && !bench.overcommit {
            post = false;
            let (need, free) = (bytes(need), bytes(free));
            let what = format!("the full table would take {need} in training and {free} are free");
            if !trained {
                bail!("{what}: nothing can be made of it; --allow trained, or --overcommit");
            }
            terminal.say(&format!("embc: {what}: what follows from it is left out"));
        }
    }
    Ok(Allowed { trained, post, everything: args.everything })
}

/// What it will try, a line each budget and kind.
fn tried(e: &Experiment) -> String {
    let labels: Vec<&str> = e.scheme.iter().map(|scheme| scheme.label()).collect();
    format!("{}: {} forms: {}", e.name, labels.len(), labels.join(", "))
}

/// How much there is to train at most, and how long that takes by the speed of training here.
fn effort(e: &Experiment, bench: &Bench<'_>) -> Result<String> {
    let trainings = race::at_most(e)?;
    let trial = plan::trials(e)?.swap_remove(0);
    let order = bench.order(&trial, e);
    let speed = bench.examples_per_second(&order.spec, MEASURED, &INTERRUPT);
    let mut text = format!("{}: at most {trainings} trainings", e.name);
    if let Some(speed) = speed {
        let each = bench.examples(&order.spec) as f64 / speed;
        let cores = embc_lab::machine::cores().min(trainings).max(1);
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
    let ends = Instant::now() + time;
    std::thread::spawn(move || {
        std::thread::sleep(ends.saturating_duration_since(Instant::now()));
        stop.set();
    });
}

/// Of choices by falling budget, the last whose winner loses at most so many per cent on validation.
fn smallest_within<'a>(
    all: Vec<Choice<'a>>,
    e: &Experiment,
    within: f64,
) -> Result<Vec<Choice<'a>>> {
    let loses = |choice: &Choice<'_>| -> Option<f64> {
        let full = choice.full.as_ref()?.valid;
        let sign = if e.select().higher_is_better() { 1.0 } else { -1.0 };
        Some(100.0 * sign * (full - choice.first.valid) / full.abs())
    };
    let Some(least) = all.iter().filter_map(loses).reduce(f64::min) else {
        bail!("--within is against the full table, which was not trained: give --budget-bytes");
    };
    let found = all.into_iter().filter(|choice| loses(choice).is_some_and(|lost| lost <= within));
    let found = found.min_by_key(|choice| choice.first.bytes);
    match found {
        Some(choice) => Ok(vec![choice]),
        None => bail!(
            "nothing that was tried loses at most {within} % on validation: the least is {least:.2} %; try a larger --budget-bytes"
        ),
    }
}

/// The answer as Markdown: a sentence a budget, with its evidence.
fn answer(all: &[Choice<'_>], over: bool) -> String {
    let mut text = String::new();
    for choice in all {
        text += &format!("{}\n\n", words::headline(choice));
        for line in words::evidence(choice) {
            text += &format!("- {line}\n");
        }
        if !over {
            text += "- The race is not over: more time would make it surer.\n";
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// Where a choice is kept.
struct Place<'a> {
    folder: &'a Path,
    e: &'a Experiment,
    text: &'a str,
    several: bool,
}

impl Place<'_> {
    /// "model", or with its budget where there are several.
    fn name(&self, what: &str, choice: &Choice<'_>) -> PathBuf {
        match self.several {
            true => self.folder.join(format!("{what}-{}", choice.first.bytes)),
            false => self.folder.join(what),
        }
    }

    /// Trains the winner once more and keeps it, with its export and config; none once interrupted.
    fn keep(
        &self,
        choice: &Choice<'_>,
        (entry, data): (&Entry, &View),
        args: &Args,
        global: &Global,
        terminal: &Terminal,
    ) -> Result<Option<()>> {
        let mut path = self.name("winner", choice).into_os_string();
        path.push(".toml");
        write(Path::new(&path), &words::config(self.e, choice, self.text)?)?;
        let record = choice.first.records[0];
        let model = self.name("model", choice);
        let is_there = |model: &Model| model.record().is_ok_and(|r| r.trial == record.trial);
        if !Model::load(&model).is_ok_and(|model| is_there(&model)) {
            terminal.say(&format!("{}: trained once more, to be kept", choice.first.runner.label));
            terminal.round(1, 1);
            let again = Again { done: true, failed: true };
            let desk = Desk::open(&global.results, &self.e.name, again)?.lasting(*args.keep.lease);
            let bench = Bench::new(entry, data, global.overcommit);
            let trial = self.trial(record, &bench)?;
            let order = bench.order(&trial, self.e);
            let Answer::Run(claim, metrics) = desk.ask_once(&order, false, &INTERRUPT)? else {
                bail!("another process trains {}; wait for it", order.name());
            };
            let every = *args.keep.checkpoint_every;
            let kept = one(&bench, &order, &metrics, *claim, (&desk, every), terminal)?;
            let Some((record, net)) = kept else { return Ok(None) };
            let mut net = net.context("it has been trained before")?;
            artefact::save(&model, &mut net, &record, (entry, &global.data_dir), data)?;
            desk.tidy(true)?;
        }
        let loaded = Model::load(&model)?;
        let asked = export::Asked { embedding: false, hash_as: HashAs::Graph, vocabulary: true };
        let format = export::find("packed").expect("registered");
        let export = model.join("packed");
        std::fs::create_dir_all(&export).with_context(|| export.display().to_string())?;
        format.write(&Stated::new(&loaded, asked)?, &export)?;
        Ok(Some(()))
    }

    /// The trial that a record is of.
    fn trial(&self, record: &Record, bench: &Bench<'_>) -> Result<Trial> {
        let trials = plan::round(self.e, record.seed)?.into_iter();
        let mut trials = trials.filter(|trial| bench.id(trial) == record.trial);
        trials.next().context("a record of this experiment")
    }

    fn leads_to(&self, all: &[Choice<'_>]) -> String {
        let mut text = String::new();
        for choice in all {
            let model = self.name("model", choice);
            text += &format!(
                "{0} is the model ({1}); next: embc predict {0} FILE, or embc export {0} --format onnx\n",
                model.display(),
                choice.first.runner.label
            );
        }
        let page = self.folder.join("page.html");
        text + &format!("{} shows all that was tried", page.display())
    }
}
