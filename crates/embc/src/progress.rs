//! What running trials say on stderr: on a terminal lines that are rewritten, with who is ahead at each
//! budget; plain lines elsewhere.

mod frontier;

use crate::interrupted;
use embc_core::batch::Split;
use embc_core::train::{Observer, Settings, Validation};
use embc_data::ingest;
use embc_lab::record::Record;
use embc_lab::watch::{Audience, Watcher};
use frontier::Frontier;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Where there is no terminal, at most one line in this time.
const BETWEEN_LINES: Duration = Duration::from_secs(2);

/// All trials on stderr: a last line on a terminal.
pub struct Terminal {
    quiet: bool,
    terminal: bool,
    /// The lines of all trials that run at once.
    lines: MultiProgress,
    round: Mutex<Round>,
    /// Who is ahead, and the lines that say so.
    frontier: Mutex<(Frontier, Vec<ProgressBar>)>,
    /// It was said that trials of another process are waited for.
    waits: AtomicBool,
}

/// Trials that run side by side until all are done.
struct Round {
    all: usize,
    jobs: usize,
    started: usize,
    ended: usize,
    failed: usize,
    since: Instant,
    bar: ProgressBar,
}

impl Round {
    /// A trial has ended: failures, and the time that is left if the rest takes what was taken.
    fn end(&mut self, failed: bool) -> String {
        self.ended += 1;
        self.failed += usize::from(failed);
        self.bar.inc(1);
        let mut text = match self.failed {
            0 => String::new(),
            n => format!(", {n} failed"),
        };
        // The first round of jobs says too little: its trials may be the short ones.
        if self.ended >= self.jobs && self.ended < self.all {
            let each = self.since.elapsed().as_secs_f64() / self.ended as f64;
            let left = Duration::from_secs((each * (self.all - self.ended) as f64) as u64);
            text += &format!(", {} left", humantime::format_duration(left));
        }
        self.bar.set_message(text.clone());
        text
    }
}

impl Terminal {
    /// Says nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let (all, jobs, started, ended, failed) = Default::default();
        let (since, bar) = (Instant::now(), ProgressBar::hidden());
        let round = Mutex::new(Round { all, jobs, started, ended, failed, since, bar });
        let (lines, terminal) = (MultiProgress::new(), std::io::stderr().is_terminal());
        let (frontier, waits) = (Mutex::default(), AtomicBool::new(false));
        Self { quiet, terminal, lines, round, frontier, waits }
    }

    /// Takes the lines away: what follows is for good.
    pub fn clear(&self) {
        self.in_round().bar.finish_and_clear();
        let frontier = self.frontier.lock().expect("no panic while it is held");
        frontier.1.iter().for_each(ProgressBar::finish_and_clear);
    }

    fn in_round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().expect("no panic while it is held")
    }
}

impl Audience for Terminal {
    fn say(&self, line: &str) {
        if !self.quiet {
            self.lines.suspend(|| eprintln!("{line}"));
        }
    }

    fn round(&self, all: usize, jobs: usize) {
        let bar = match self.quiet || all == 1 || !self.terminal {
            true => ProgressBar::hidden(),
            false => {
                let style = "{pos} of {len} trials done, {elapsed} passed{msg}";
                let style = ProgressStyle::with_template(style).expect("a valid template");
                self.lines.add(ProgressBar::new(all as u64).with_style(style))
            }
        };
        bar.enable_steady_tick(Duration::from_secs(1));
        let (started, ended, failed) = Default::default();
        *self.in_round() = Round { all, jobs, started, ended, failed, since: Instant::now(), bar };
    }

    fn waits(&self, trials: usize) {
        if !self.waits.swap(true, Ordering::Relaxed) {
            self.say(&format!("waiting for {trials} trials that another process runs"));
        }
    }

    fn passed(&self) {
        self.in_round().end(false);
    }

    fn recorded(&self, record: &Record) {
        if self.quiet || !self.terminal {
            return;
        }
        let mut frontier = self.frontier.lock().expect("no panic while it is held");
        let (values, bars) = &mut *frontier;
        values.add(record);
        for (i, line) in values.lines().into_iter().enumerate() {
            if i == bars.len() {
                let style = ProgressStyle::with_template("{wide_msg}").expect("a valid template");
                bars.push(self.lines.add(ProgressBar::new(0)).with_style(style));
            }
            bars[i].set_message(line);
        }
    }

    fn watcher(&self) -> Box<dyn Watcher + '_> {
        Box::new(Progress::new(self))
    }
}

/// The progress of one trial after the other.
struct Progress<'a> {
    of: &'a Terminal,
    /// "3/27": which trial of how many.
    place: String,
    name: String,
    bar: ProgressBar,
    epochs: u32,
    /// Examples of this run, those before it, and the most that there will be.
    examples: u64,
    done: u64,
    all: u64,
    training: Duration,
    since: Instant,
    /// Smoothed training loss.
    loss: f64,
    /// When the last plain line was printed.
    said: Instant,
    select: String,
}

impl<'a> Progress<'a> {
    fn new(of: &'a Terminal) -> Self {
        Self {
            of,
            place: "embc:".into(),
            name: String::new(),
            bar: ProgressBar::hidden(),
            epochs: 0,
            examples: 0,
            done: 0,
            all: 0,
            training: Duration::ZERO,
            since: Instant::now(),
            loss: 0.0,
            said: Instant::now(),
            select: String::new(),
        }
    }

    fn bar(&self, total: u64) -> ProgressBar {
        if self.of.quiet || !self.of.terminal {
            return ProgressBar::hidden();
        }
        let style = "{prefix} {wide_bar} {msg}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a valid template");
        // Above the line of all trials.
        self.of.lines.insert(0, ProgressBar::new(total).with_style(style))
    }

    /// Training examples a second, evaluation left out.
    fn examples_per_second(&self) -> f64 {
        self.examples as f64 / self.training.as_secs_f64().max(1e-9)
    }
}

impl Watcher for Progress<'_> {
    fn next(&mut self, name: &str) {
        self.name = name.into();
        let mut round = self.of.in_round();
        round.started += 1;
        if round.all > 1 {
            self.place = format!("[{}/{}]", round.started, round.all);
        }
    }

    fn begin(&mut self, done: u64, examples: u64, settings: &Settings) {
        self.epochs = settings.epochs;
        self.select = format!("{}", settings.select);
        (self.examples, self.training, self.since, self.loss) =
            (0, Duration::ZERO, Instant::now(), 0.0);
        self.said = Instant::now();
        self.bar = self.bar(examples);
        (self.done, self.all) = (done, examples);
        if done > 0 {
            self.of.say(&format!("{} {}: goes on from its checkpoint", self.place, self.name));
        }
        self.bar.set_prefix(format!("{} {}", self.place, self.name));
    }

    fn say(&mut self, line: &str) {
        self.of.say(line);
    }

    fn end(&mut self, line: &str, failed: bool) {
        self.bar.finish_and_clear();
        let left = self.of.in_round().end(failed);
        let left = if self.of.terminal { "" } else { &left };
        self.of.say(&format!("{} {}: {line}{left}", self.place, self.name));
    }
}

impl Observer for Progress<'_> {
    fn step(&mut self, step: u64, epoch: u32, loss: f64, examples: usize) {
        let first = self.examples == 0;
        self.examples += examples as u64;
        self.loss = if first { loss } else { 0.99 * self.loss + 0.01 * loss };
        if step.is_multiple_of(32) {
            let seconds = (self.training + self.since.elapsed()).as_secs_f64();
            let speed = self.examples as f64 / seconds.max(1e-9) / 1e3;
            let epochs = self.epochs;
            let message = format!("epoch {epoch}/{epochs}, loss {:.4}, {speed:.0} k/s", self.loss);
            self.bar.set_message(message);
            self.bar.set_position(self.done + self.examples);
        }
    }

    fn evaluating(&mut self, _: Split, done: bool) {
        match done {
            false => self.training += self.since.elapsed(),
            true => self.since = Instant::now(),
        }
    }

    fn stage(&mut self, epochs: u32) {
        self.since = Instant::now();
        self.all += self.all / u64::from(self.epochs) * u64::from(epochs);
        self.epochs += epochs;
    }

    fn validated(&mut self, point: &Validation) {
        if self.of.quiet || self.of.terminal || self.said.elapsed() < BETWEEN_LINES {
            return;
        }
        self.said = Instant::now();
        let select = point.valid.iter().find(|(m, _)| m.to_string() == self.select);
        let valid = select.map_or(String::new(), |(m, v)| format!(", valid/{m} {v:.4}"));
        let loss = point.train_loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
        let speed = self.examples_per_second();
        let left = self.all.saturating_sub(self.done + self.examples) as f64;
        let left = Duration::from_secs((left / speed.max(1.0)) as u64);
        eprintln!(
            "{} {}: epoch {}/{}{loss}{valid}, {:.0} k examples/s, {} left",
            self.place,
            self.name,
            point.epoch,
            self.epochs,
            speed / 1e3,
            humantime::format_duration(left),
        );
    }
}

/// Progress of reading, generating and downloading data.
pub struct DataProgress {
    bar: ProgressBar,
    phase: &'static str,
    quiet: bool,
    name: String,
}

impl DataProgress {
    /// Progress for the data set `name`.
    pub fn new(name: &str, quiet: bool) -> Self {
        Self { bar: ProgressBar::hidden(), phase: "", quiet, name: name.into() }
    }

    /// The callback for `embc-data`.
    pub fn watch(&mut self, at: ingest::Progress) -> embc_data::Result<()> {
        if interrupted() {
            self.bar.finish_and_clear();
            return Err(embc_data::Error::Cancelled);
        }
        if at.phase != self.phase && !self.quiet {
            self.phase = at.phase;
            self.bar.finish_and_clear();
            if std::io::stderr().is_terminal() {
                let counted = ["generating", "writing"].contains(&at.phase);
                let style = match counted {
                    true => "{prefix} {wide_bar} {percent}%, {eta} left",
                    false => {
                        "{prefix} {wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left"
                    }
                };
                let style = ProgressStyle::with_template(style).expect("a valid template");
                self.bar = ProgressBar::new(at.total).with_style(style);
                self.bar.set_prefix(format!("{}: {}", self.name, at.phase));
            } else {
                eprintln!("{}: {}", self.name, at.phase);
            }
        }
        self.bar.set_position(at.done);
        Ok(())
    }
}

impl Drop for DataProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
