//! Who watches trials run: a terminal, a log, nobody. Nothing here prints.

use crate::record::Record;
use embc_core::train::{Observer, Settings};

/// Watches the trials of one worker, one after the other.
pub trait Watcher: Observer {
    /// The next trial, by its name.
    fn next(&mut self, _name: &str) {}
    /// It trains on at most so many examples, of which some are done already.
    fn begin(&mut self, _done: u64, _examples: u64, _settings: &Settings) {}
    /// Something is worth a line.
    fn say(&mut self, _line: &str) {}
    /// It has ended, as the line says.
    fn end(&mut self, _line: &str, _failed: bool) {}
}

/// Watches a sweep.
pub trait Audience: Sync {
    /// Something is worth a line.
    fn say(&self, _line: &str) {}
    /// So many trials are to run, of which so many at once.
    fn round(&self, _trials: usize, _jobs: usize) {}
    /// Only so many trials are left, which other processes run.
    fn waits(&self, _trials: usize) {}
    /// Another process was faster.
    fn passed(&self) {}
    /// A trial has its record, or had it before.
    fn recorded(&self, _record: &Record) {}
    /// For the trials of one more worker.
    fn watcher(&self) -> Box<dyn Watcher + '_>;
}

/// Watches nothing.
pub struct Nobody;

impl Observer for Nobody {
    fn step(&mut self, _: u64, _: u32, _: f64, _: usize) {}
}

impl Watcher for Nobody {}

impl Audience for Nobody {
    fn watcher(&self) -> Box<dyn Watcher + '_> {
        Box::new(Nobody)
    }
}
