//! What a running trial says on stderr: a rewriting line on a terminal, plain lines elsewhere.

use crate::interrupted;
use embc_core::batch::Split;
use embc_core::train::{Observer, Point, Settings};
use embc_data::ingest;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Where there is no terminal, at most one line in this time.
const BETWEEN_LINES: Duration = Duration::from_secs(2);

/// The progress of all trials of a round: a last line on a terminal.
pub struct Total {
    /// The lines of all trials that run at once.
    pub lines: MultiProgress,
    pub all: usize,
    started: AtomicUsize,
    ended: AtomicUsize,
    failed: AtomicUsize,
    since: Instant,
    bar: ProgressBar,
    /// It was said that trials of another process are waited for.
    waits: AtomicBool,
    quiet: bool,
}

impl Total {
    /// Of so many trials.
    pub fn new(all: usize, quiet: bool) -> Self {
        let lines = MultiProgress::new();
        let bar = match quiet || all == 1 || !std::io::stderr().is_terminal() {
            true => ProgressBar::hidden(),
            false => {
                let style = "{pos} of {len} trials done, {elapsed} passed{msg}";
                let style = ProgressStyle::with_template(style).expect("a valid template");
                lines.add(ProgressBar::new(all as u64).with_style(style))
            }
        };
        bar.enable_steady_tick(Duration::from_secs(1));
        let (started, ended, failed) = Default::default();
        let (since, waits) = (Instant::now(), AtomicBool::new(false));
        Self { lines, all, started, ended, failed, since, bar, waits, quiet }
    }

    /// A trial starts; which it is, from 1.
    pub fn start(&self) -> usize {
        1 + self.started.fetch_add(1, Ordering::Relaxed)
    }

    /// A trial has ended.
    pub fn ended(&self, failed: bool) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(usize::from(failed), Ordering::Relaxed);
        self.bar.inc(1);
    }

    /// Failures, and the time that is left if the rest takes what was taken.
    pub fn left(&self, jobs: usize) -> String {
        let ended = self.ended.load(Ordering::Relaxed);
        let mut text = match self.failed.load(Ordering::Relaxed) {
            0 => String::new(),
            n => format!(", {n} failed"),
        };
        // The first round of jobs says too little: its trials may be the short ones.
        if ended >= jobs && ended < self.all {
            let each = self.since.elapsed().as_secs_f64() / ended as f64;
            let left = Duration::from_secs((each * (self.all - ended) as f64) as u64);
            text += &format!(", {} left", humantime::format_duration(left));
        }
        self.bar.set_message(text.clone());
        text
    }

    /// Only trials of other processes are left: said once.
    pub fn waits(&self, trials: usize) {
        if !self.waits.swap(true, Ordering::Relaxed) && !self.quiet {
            let what = format!("waiting for {trials} trials that another process runs");
            self.lines.suspend(|| eprintln!("{what}"));
        }
    }
}

/// The progress of a trial.
pub struct Progress {
    quiet: bool,
    terminal: bool,
    /// "3/27": which trial of how many.
    place: String,
    name: String,
    /// The lines of all trials that run at once.
    lines: MultiProgress,
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

impl Progress {
    /// Progress on stderr, or none, on a line among `lines`.
    pub fn new(quiet: bool, lines: MultiProgress) -> Self {
        Self {
            lines,
            quiet,
            terminal: std::io::stderr().is_terminal(),
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

    /// Announces the `number`th trial of `total`.
    pub fn place(&mut self, number: usize, total: usize) {
        self.place = format!("[{number}/{total}]");
    }

    /// A trial starts to train on so many examples at most, of which some are done already.
    pub fn begin(&mut self, name: &str, done: u64, examples: u64, settings: &Settings) {
        self.name = name.into();
        self.epochs = settings.epochs;
        self.select = format!("{}", settings.select);
        (self.examples, self.training, self.since, self.loss) =
            (0, Duration::ZERO, Instant::now(), 0.0);
        self.said = Instant::now();
        self.bar = self.bar(examples);
        (self.done, self.all) = (done, examples);
        if done > 0 {
            self.say(&format!("{} {}: goes on from its checkpoint", self.place, self.name));
        }
        self.bar.set_prefix(format!("{} {}", self.place, self.name));
    }

    fn bar(&self, total: u64) -> ProgressBar {
        if self.quiet || !self.terminal {
            return ProgressBar::hidden();
        }
        let style = "{prefix} {wide_bar} {msg}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a valid template");
        // Above the line of all trials.
        self.lines.insert(0, ProgressBar::new(total).with_style(style))
    }

    /// Says a line, above those that are rewritten.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            self.lines.suspend(|| eprintln!("{line}"));
        }
    }

    /// Ends the trial's line; `left` is of the whole.
    pub fn end(&mut self, result: &str, left: &str) {
        self.bar.finish_and_clear();
        let left = if self.terminal { "" } else { left };
        self.say(&format!("{} {}: {result}{left}", self.place, self.name));
    }

    /// Names a trial that never trained.
    pub fn name(&mut self, name: &str) {
        self.name = name.into();
    }

    /// Training examples a second, evaluation left out.
    pub fn examples_per_second(&self) -> f64 {
        self.examples as f64 / self.training.as_secs_f64().max(1e-9)
    }
}

impl Observer for Progress {
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

    fn point(&mut self, point: &Point) {
        if self.quiet || self.terminal || self.said.elapsed() < BETWEEN_LINES {
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
