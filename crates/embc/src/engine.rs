//! Runs the trials that an experiment wants: several at once, each claimed, so that sweeps on one
//! folder of results share the work; every record on disk before the next trial starts.

use crate::checkpoint::Claim;
use crate::cmd::Outcome;
use crate::memory::{Memory, Need};
use crate::plan::Trial;
use crate::progress::{Progress, Total};
use crate::provenance::program;
use crate::record::{Book, Record, Status};
use crate::run::{Bench, Ended};
use crate::schedule::{Wanted, wanted};
use crate::{interrupted, stopping};
use anyhow::Result;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long to wait for another process's trial before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How to run trials.
pub struct Options<'a> {
    pub results: &'a Path,
    pub filter: Option<&'a regex::Regex>,
    pub rerun: bool,
    pub retry_failed: bool,
    pub fail_fast: bool,
    pub jobs: Option<usize>,
    pub threads: Option<usize>,
    /// Between checkpoints.
    pub checkpoint_every: Duration,
    pub quiet: bool,
}

/// What is known of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    ToDo,
    Done,
    Pruned,
    Failed,
}

/// An experiment's trials on their way.
pub struct Engine<'a> {
    bench: &'a Bench<'a>,
    options: Options<'a>,
    book: Mutex<Book>,
    memory: Memory,
    /// What trials of these ids have in other experiments.
    elsewhere: BTreeMap<String, Record>,
}

impl<'a> Engine<'a> {
    pub fn new(bench: &'a Bench<'a>, book: Book, options: Options<'a>) -> Self {
        let elsewhere = book.elsewhere(&bench.experiment.name);
        let (book, memory) = (Mutex::new(book), Memory::new());
        Self { bench, options, book, memory, elsewhere }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic while it is held")
    }

    /// What a trial's record says.
    fn state(&self, book: &Book, trial: &Trial) -> State {
        let record = book.get(&self.bench.id(trial));
        let metrics = self.bench.experiment.metrics();
        match record.filter(|r| r.has_evaluated(&metrics)).map(|record| record.status) {
            Some(Status::Ok | Status::Infeasible) => State::Done,
            Some(Status::Error) => State::Failed,
            // Whether it is pruned is for the schedule to say.
            Some(Status::Pruned) | None => State::ToDo,
        }
    }

    /// Whether a trial that is not pruned has to run.
    fn is_due(&self, book: &Book, trial: &Trial) -> bool {
        let again = match self.state(book, trial) {
            State::ToDo => return true,
            State::Failed => self.options.retry_failed || self.options.rerun,
            State::Done | State::Pruned => self.options.rerun,
        };
        again && !book.is_fresh(&self.bench.id(trial))
    }

    /// All trials that are wanted by now and pass the filter. A filter does not see who is better,
    /// so nothing is pruned under one.
    fn wanted(&self, book: &Book) -> Result<Vec<Wanted>> {
        let filter = self.options.filter;
        let passes = |trial: &Trial| filter.is_none_or(|f| f.is_match(&trial.name()));
        let find = |trial: &Trial| book.get(&self.bench.id(trial));
        wanted(self.bench.experiment, filter.is_none(), &passes, &find)
    }

    /// Those trials, with what is known of them.
    pub fn trials(&self) -> Result<Vec<(Trial, State)>> {
        let book = self.book();
        let state = |wanted: Wanted| match wanted.pruned {
            Some(_) => (wanted.trial, State::Pruned),
            None => {
                let state = self.state(&book, &wanted.trial);
                (wanted.trial, state)
            }
        };
        Ok(self.wanted(&book)?.into_iter().map(state).collect())
    }

    /// Records why trials are pruned, once.
    fn record_pruned(&self) -> Result<()> {
        let mut book = self.book();
        for Wanted { trial, pruned } in self.wanted(&book)? {
            let Some(why) = pruned else { continue };
            let id = self.bench.id(&trial);
            let Some(claim) = Claim::take(self.options.results, &id, program())? else { continue };
            book.refresh()?;
            if book.get(&id).is_none() {
                book.append(&self.bench.ended(&trial, Status::Pruned, why))?;
            }
            claim.done();
        }
        Ok(())
    }

    /// Runs all trials that are due; hands back the book, and how it went.
    pub fn run(self) -> Result<(Book, Outcome)> {
        let name = &self.bench.experiment.name;
        let mut first = true;
        loop {
            self.record_pruned()?;
            let all = self.trials()?;
            let due = |(trial, state): &(Trial, State)| {
                *state != State::Pruned && self.is_due(&self.book(), trial)
            };
            let (todo, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(due);
            let is = |wanted: State| rest.iter().filter(|(_, state)| *state == wanted).count();
            if first && !rest.is_empty() && !self.options.quiet {
                let failed = match is(State::Failed) {
                    0 => String::new(),
                    n => format!(", {n} failed before: --retry-failed runs them again"),
                };
                let all = todo.len() + rest.len();
                eprintln!("{name}: {} of {all} trials are done already{failed}", rest.len());
            }
            let trials: VecDeque<Trial> = todo.into_iter().map(|(trial, _)| trial).collect();
            if trials.is_empty() {
                let failed: Vec<&Trial> = rest
                    .iter()
                    .filter(|(_, state)| *state == State::Failed)
                    .map(|(trial, _)| trial)
                    .collect();
                self.say_failed(&failed);
                let fine = failed.is_empty();
                return self.end(if fine { Outcome::Fine } else { Outcome::Failed });
            }
            if let Some(need) = self.largest(&trials).filter(|_| first && !self.options.quiet) {
                eprintln!("{name}: the largest trial {need}");
            }
            first = false;
            self.round(trials)?;
            if interrupted() {
                return self.end(Outcome::Interrupted);
            }
            if stopping().is_set() {
                return self.end(Outcome::Failed);
            }
        }
    }

    /// Names the trials that failed, and why, the first ones of many.
    fn say_failed(&self, failed: &[&Trial]) {
        const SHOWN: usize = 10;
        if failed.is_empty() {
            return;
        }
        eprintln!("{}: {} trials failed:", self.bench.experiment.name, failed.len());
        let book = self.book();
        for trial in failed.iter().take(SHOWN) {
            let record = book.get(&self.bench.id(trial));
            let why = record.and_then(|record| record.error.as_deref()).unwrap_or("");
            eprintln!("  {}: {why}", trial.name());
        }
        if failed.len() > SHOWN {
            eprintln!("  and {} more", failed.len() - SHOWN);
        }
    }

    pub fn into_book(self) -> Book {
        self.book.into_inner().expect("no panic while it was held")
    }

    fn end(self, outcome: Outcome) -> Result<(Book, Outcome)> {
        let (results, rerun) = (self.options.results, self.options.rerun);
        let mut book = self.into_book();
        book.refresh()?;
        // A trial that runs again has a record too, and its checkpoint may be wanted.
        let all_done = outcome == Outcome::Fine && !rerun;
        let is_done = |record: &Record| record.status != Status::Error;
        Claim::tidy(results, &|trial| {
            book.is_fresh(trial) || all_done && book.get(trial).is_some_and(is_done)
        });
        Ok((book, outcome))
    }

    /// What the largest of them needs.
    fn largest(&self, trials: &VecDeque<Trial>) -> Option<Need> {
        // One that can never run is refused, and need not keep others from each other's side.
        let fits = |need: &Need| self.bench.overcommit || need.total() <= self.memory.free();
        trials
            .iter()
            .filter_map(|trial| self.bench.need(trial))
            .filter(fits)
            .max_by_key(Need::total)
    }

    /// Runs trials, several at once.
    fn round(&self, trials: VecDeque<Trial>) -> Result<()> {
        // So many that they need not wait for each other's memory.
        let fit = self.memory.free() / self.largest(&trials).map_or(1, |need| need.total().max(1));
        let (jobs, threads) = self.jobs_and_threads(trials.len().min(fit as usize));
        let total = Total::new(trials.len(), self.options.quiet);
        let queue = Mutex::new(trials);
        std::thread::scope(|scope| {
            let work = || {
                // One that cannot go on stops the others, so that its error is seen.
                let end = self.work(&queue, &total, jobs, threads);
                end.inspect_err(|_| stopping().set())
            };
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let ends = workers.into_iter().map(|worker| worker.join().expect("it catches panics"));
            // All of them, and then the first error.
            ends.collect::<Vec<Result<()>>>().into_iter().collect()
        })
    }

    /// Takes trials from the queue until it is empty.
    fn work(
        &self,
        queue: &Mutex<VecDeque<Trial>>,
        total: &Total,
        jobs: usize,
        threads: usize,
    ) -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let mut progress = Progress::new(self.options.quiet, total.lines.clone());
        // Trials in a row that another process runs.
        let mut elsewhere = 0;
        while !stopping().is_set() {
            let next = |queue: &mut VecDeque<Trial>| (queue.pop_front(), queue.len());
            let (Some(trial), left) = next(&mut queue.lock().expect("never held for long")) else {
                break;
            };
            let id = self.bench.id(&trial);
            let claim = Claim::take(self.options.results, &id, program());
            let Some(claim) = claim? else {
                queue.lock().expect("never held for long").push_back(trial);
                elsewhere += 1;
                if elsewhere > left {
                    total.waits(left + 1);
                    std::thread::sleep(LOOK_AGAIN);
                    elsewhere = 0;
                }
                continue;
            };
            elsewhere = 0;
            let mut book = self.book();
            book.refresh()?;
            let is_due = self.is_due(&book, &trial);
            // With what another experiment asks of the same trial, so that neither has to again.
            let mut metrics = self.bench.experiment.metrics();
            let known = book.get(&id).into_iter().chain(self.elsewhere.get(&id));
            metrics.extend(known.flat_map(|record| record.evaluated.iter().copied()));
            metrics.sort();
            metrics.dedup();
            drop(book);
            if !is_due {
                // Another process was faster.
                claim.done();
                total.ended(false);
                continue;
            }
            progress.place(total.start(), total.all);
            progress.name(&trial.name());
            if let Some(record) = self.trained_elsewhere(&id, &trial) {
                self.book().append(&record)?;
                claim.done();
                total.ended(false);
                let from = format!("trained already, in {}", self.elsewhere[&id].experiment);
                progress.end(&from, &total.left(jobs));
                continue;
            }
            let every = self.options.checkpoint_every;
            let run =
                || self.bench.run(&trial, &metrics, &self.memory, &claim, every, &mut progress);
            let record = match pool.install(run) {
                Ended::Cancelled => break,
                Ended::Recorded(record, net) => {
                    // Its memory is another trial's already.
                    drop(net);
                    *record
                }
            };
            // The process's peak is that of all its trials.
            let peak_rss_bytes = if jobs > 1 { 0 } else { record.peak_rss_bytes };
            let record = Record { jobs, peak_rss_bytes, ..record };
            // Where a record cannot be kept, the other trials would be lost too.
            self.book().append(&record)?;
            claim.done();
            let failed = record.status == Status::Error;
            total.ended(failed);
            progress.end(&record.summary(&self.bench.experiment.metric()), &total.left(jobs));
            if failed && self.options.fail_fast {
                stopping().set();
            }
        }
        Ok(())
    }

    /// The record that another experiment has of the same trial, as one of this.
    fn trained_elsewhere(&self, id: &str, trial: &Trial) -> Option<Record> {
        let metrics = self.bench.experiment.metrics();
        let record = self
            .elsewhere
            .get(id)
            .filter(|_| !self.options.rerun && self.bench.scores.is_none())?;
        let usable = record.status == Status::Ok && record.has_evaluated(&metrics);
        usable.then(|| Record {
            experiment: self.bench.experiment.name.clone(),
            label: trial.scheme.label().into(),
            dataset: self.bench.experiment.dataset.clone(),
            ..record.clone()
        })
    }

    /// Trials at once, and the threads of each. Many trials on one thread each make the most of a
    /// machine; one alone gets all of it.
    fn jobs_and_threads(&self, trials: usize) -> (usize, usize) {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = self.options.threads;
        let jobs = self.options.jobs.unwrap_or(cores / threads.unwrap_or(1));
        let jobs = jobs.clamp(1, trials.max(1));
        (jobs, threads.unwrap_or((cores / jobs).max(1)))
    }
}
