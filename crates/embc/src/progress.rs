//! What a running trial says on stderr: a rewriting line on a terminal, plain lines elsewhere.

use crate::interrupted;
use embc_core::batch::Split;
use embc_core::train::{Observer, Point, Settings};
use embc_data::ingest;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where there is no terminal, at most one line in this time.
const BETWEEN_LINES: Duration = Duration::from_secs(2);

/// The progress of a trial.
pub struct Progress {
    quiet: bool,
    terminal: bool,
    /// "3/27": which trial of how many.
    place: String,
    name: String,
    /// The lines of all trials that run at once.
    lines: MultiProgress,
    /// Set where trials should end though nobody pressed Ctrl-C.
    stop: Arc<AtomicBool>,
    bar: ProgressBar,
    epochs: u32,
    examples: u64,
    training: Duration,
    since: Instant,
    /// Smoothed training loss.
    loss: f64,
    /// When the last plain line was printed.
    said: Instant,
    select: String,
}

impl Progress {
    /// Progress on stderr, or none, on a line among `lines`; `stop` ends the trial.
    pub fn new(quiet: bool, lines: MultiProgress, stop: Arc<AtomicBool>) -> Self {
        Self {
            lines,
            stop,
            quiet,
            terminal: std::io::stderr().is_terminal(),
            place: "embc:".into(),
            name: String::new(),
            bar: ProgressBar::hidden(),
            epochs: 0,
            examples: 0,
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

    /// A trial starts to train on so many examples at most.
    pub fn begin(&mut self, name: &str, examples: u64, settings: &Settings) {
        self.name = name.into();
        self.epochs = settings.epochs;
        self.select = format!("{}", settings.select);
        (self.examples, self.training, self.since, self.loss) =
            (0, Duration::ZERO, Instant::now(), 0.0);
        self.said = Instant::now();
        self.bar = self.bar(examples);
        self.bar.set_prefix(format!("{} {}", self.place, self.name));
    }

    fn bar(&self, total: u64) -> ProgressBar {
        if self.quiet || !self.terminal {
            return ProgressBar::hidden();
        }
        let style = "{prefix} {wide_bar} {msg}, {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a valid template");
        self.lines.add(ProgressBar::new(total).with_style(style))
    }

    /// Says a line, above those that are rewritten.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            self.lines.suspend(|| eprintln!("{line}"));
        }
    }

    /// Ends the trial's line.
    pub fn end(&mut self, result: &str) {
        self.bar.finish_and_clear();
        self.say(&format!("{} {}: {result}", self.place, self.name));
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
    fn step(&mut self, step: u64, epoch: u32, loss: f64, examples: usize) -> ControlFlow<()> {
        self.examples += examples as u64;
        self.loss = if step == 1 { loss } else { 0.99 * self.loss + 0.01 * loss };
        if step.is_multiple_of(32) {
            self.bar.set_message(format!("epoch {epoch}/{}, loss {:.4}", self.epochs, self.loss));
            self.bar.set_position(self.examples);
        }
        match interrupted() || self.stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
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
        let all = self.examples as f64 / f64::from(point.epoch) * f64::from(self.epochs);
        let left = Duration::from_secs(((all - self.examples as f64).max(0.0) / speed) as u64);
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
