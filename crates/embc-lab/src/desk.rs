//! Where orders are handed out: who runs which trial, what is recorded already, and where records go.
//! Any number of processes on one folder of results share the work.

use crate::checkpoint::Claim;
use crate::order::Order;
use crate::provenance::program;
use crate::record::{Record, Status};
use crate::store::{Book, Results};
use anyhow::Result;
use embc_core::cancel::Cancel;
use embc_core::metric::Metric;
use embc_data::lease::TERM;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// What is run although it has a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Again {
    /// What is done.
    pub done: bool,
    /// What failed.
    pub failed: bool,
}

/// What is known of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no record, or one that lacks a metric.
    ToDo,
    /// It has its numbers, or cannot have any at its budget.
    Done,
    /// Its cell has lost.
    Pruned,
    /// It has a record that says why.
    Failed,
}

/// An answer to who wants to run a trial.
pub enum Answer {
    /// Run it, with these metrics.
    Run(Box<Claim>, Vec<Metric>),
    /// Another process runs it.
    Busy,
    /// It need not run any more.
    Done,
    /// Another experiment has trained it: its record is this one's now.
    Shared(Box<Record>),
}

/// The trials of one experiment.
pub struct Desk {
    results: PathBuf,
    experiment: String,
    book: Mutex<Book>,
    again: Again,
    /// After so long without a word from who runs a trial, others may take it over.
    term: Duration,
    /// What trials of these ids have in other experiments.
    elsewhere: BTreeMap<String, Record>,
}

impl Desk {
    /// Opens the records of an experiment in a folder, which is made if need be.
    pub fn open(results: &Path, experiment: &str, again: Again) -> Result<Self> {
        let book = Book::open(Results::open(results, experiment)?)?;
        let elsewhere = book.elsewhere(experiment);
        let (results, experiment) = (results.into(), experiment.into());
        Ok(Self { results, experiment, book: Mutex::new(book), again, term: TERM, elsewhere })
    }

    /// The same with another time after which others may take over a trial that nobody speaks for.
    pub fn lasting(self, term: Duration) -> Self {
        Self { term, ..self }
    }

    /// The folder of results.
    pub fn results(&self) -> &Path {
        &self.results
    }

    /// What is run although it has a record.
    pub fn again(&self) -> Again {
        self.again
    }

    /// The records as they are now.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic while it is held")
    }

    /// All records.
    pub fn into_records(self) -> Vec<Record> {
        self.book.into_inner().expect("no panic while it was held").into_records()
    }

    /// What a trial's record says.
    pub fn state(&self, book: &Book, id: &str, metrics: &[Metric]) -> State {
        let record = book.get(id).filter(|record| record.has_evaluated(metrics));
        match record.map(|record| record.status) {
            Some(Status::Ok | Status::Infeasible) => State::Done,
            Some(Status::Error) => State::Failed,
            // Whether it is pruned is for the schedule to say.
            Some(Status::Pruned) | None => State::ToDo,
        }
    }

    /// Whether a trial that is not pruned has to run.
    pub fn is_due(&self, book: &Book, id: &str, metrics: &[Metric]) -> bool {
        let again = match self.state(book, id, metrics) {
            State::ToDo => return true,
            State::Failed => self.again.failed || self.again.done,
            State::Done | State::Pruned => self.again.done,
        };
        again && !book.is_fresh(id)
    }

    /// Claims a trial, whatever its record says; none where another process has it.
    pub(crate) fn claim(&self, id: &str, cancel: &Cancel) -> Result<Option<Claim>> {
        Claim::take(&self.results, id, program(), self.term, cancel)
    }

    /// Asks to run a trial, until `cancel` ends it; without `share` a record of another experiment does
    /// not do.
    pub fn ask(&self, order: &Order, share: bool, cancel: &Cancel) -> Result<Answer> {
        let (id, mut metrics) = (order.id(), order.metrics());
        // Without a claim, where others are ahead; and again with one, that they did not come between.
        if !self.is_due_now(&id, &metrics)? {
            return Ok(Answer::Done);
        }
        let Some(claim) = self.claim(&id, cancel)? else { return Ok(Answer::Busy) };
        let mut book = self.book();
        book.refresh_one(&id)?;
        if !self.is_due(&book, &id, &metrics) {
            claim.done();
            return Ok(Answer::Done);
        }
        if let Some(record) = self.shared(&id, order).filter(|_| share && !self.again.done) {
            book.publish(&record)?;
            claim.done();
            return Ok(Answer::Shared(Box::new(record)));
        }
        // With what another experiment asks of the same trial, so that neither has to again.
        let known = book.get(&id).into_iter().chain(self.elsewhere.get(&id));
        metrics.extend(known.flat_map(|record| record.evaluated.iter().copied()));
        metrics.sort();
        metrics.dedup();
        Ok(Answer::Run(Box::new(claim), metrics))
    }

    /// The same for who asks once: a trial is busy only where its process is seen to be alive.
    pub fn ask_once(&self, order: &Order, share: bool, cancel: &Cancel) -> Result<Answer> {
        match self.ask(order, share, cancel)? {
            Answer::Busy if Claim::is_deserted(&self.results, &order.id(), cancel)? => {
                self.ask(order, share, cancel)
            }
            answer => Ok(answer),
        }
    }

    fn is_due_now(&self, id: &str, metrics: &[Metric]) -> Result<bool> {
        let mut book = self.book();
        book.refresh_one(id)?;
        Ok(self.is_due(&book, id, metrics))
    }

    /// The record that another experiment has of a trial, as one of this.
    fn shared(&self, id: &str, order: &Order) -> Option<Record> {
        let record = self.elsewhere.get(id)?;
        let usable = record.status == Status::Ok && record.has_evaluated(&order.metrics());
        usable.then(|| Record {
            experiment: self.experiment.clone(),
            label: order.label().into(),
            dataset: order.dataset.clone(),
            ..record.clone()
        })
    }

    /// Which experiment has trained a trial already.
    pub fn owner(&self, id: &str) -> Option<&str> {
        self.elsewhere.get(id).map(|record| &record.experiment[..])
    }

    /// Keeps a record, and the trial is over; false where another process has taken it over.
    pub fn keep(&self, record: &Record, claim: Claim) -> Result<bool> {
        if !claim.is_mine() {
            return Ok(false);
        }
        self.book().publish(record)?;
        claim.done();
        Ok(true)
    }

    /// Keeps a record of a trial that nobody ran, unless it has one.
    pub fn note(&self, record: &Record) -> Result<()> {
        if self.book().get(&record.trial).is_some() {
            return Ok(());
        }
        let Some(claim) = self.claim(&record.trial, &Cancel::default())? else { return Ok(()) };
        let mut book = self.book();
        book.refresh_one(&record.trial)?;
        if book.get(&record.trial).is_none() {
            book.publish(record)?;
        }
        claim.done();
        Ok(())
    }

    /// Reads what others added.
    pub fn refresh(&self) -> Result<()> {
        self.book().refresh()
    }

    /// Reads what others added, folds it, and forgets checkpoints of trials that are over; where all
    /// are, also those of before.
    pub fn tidy(&self, all_done: bool) -> Result<()> {
        let mut book = self.book();
        book.refresh()?;
        // Nothing is lost where it cannot be folded.
        if let Err(error) = book.fold(self.term) {
            tracing::warn!("records stay in files of their own: {error:#}");
        }
        let is_done = |record: &Record| record.status != Status::Error;
        Claim::tidy(&self.results, &|trial| {
            book.is_fresh(trial) || all_done && book.get(trial).is_some_and(is_done)
        });
        Ok(())
    }
}
