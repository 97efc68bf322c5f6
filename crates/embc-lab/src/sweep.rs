//! An experiment's trials on their way: which are wanted, which are due, round by round.

use crate::bench::Bench;
use crate::config::Experiment;
use crate::desk::{Desk, State};
use crate::executor::Executor;
use crate::memory::Memory;
use crate::order::Order;
use crate::parent;
use crate::plan::Trial;
use crate::record::Status;
use crate::schedule::{Wanted, wanted};
use crate::store::Book;
use crate::watch::Audience;
use anyhow::Result;
use embc_core::cancel::Cancel;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All well.
    Fine,
    /// A trial or a check failed.
    Failed,
    /// It was cancelled.
    Interrupted,
}

/// Tells a trial by its name, such as "memcom, compression 16, seed 1".
pub type Filter<'a> = &'a dyn Fn(&str) -> bool;

/// The trials of an experiment on one view of its data.
pub struct Sweep<'a> {
    /// The experiment.
    pub experiment: &'a Experiment,
    /// Its data.
    pub bench: &'a Bench<'a>,
    /// Its records.
    pub desk: &'a Desk,
    /// Only trials that pass. It does not see who is better, so nothing is pruned under one.
    pub filter: Option<Filter<'a>>,
}

/// What is to run, and the other trials.
type Due = (Vec<Order>, Vec<(Trial, State)>);

impl Sweep<'_> {
    /// All trials that are wanted by now and pass the filter.
    fn wanted(&self, book: &Book) -> Result<Vec<Wanted>> {
        let passes = |trial: &Trial| self.filter.is_none_or(|passes| passes(&trial.name()));
        let find = |trial: &Trial| book.get(&self.bench.id(trial));
        wanted(self.experiment, self.filter.is_none(), &passes, &find)
    }

    /// Those trials, with what is known of them.
    pub fn trials(&self) -> Result<Vec<(Trial, State)>> {
        let (book, metrics) = (self.desk.book(), self.experiment.metrics());
        let state = |wanted: Wanted| match wanted.pruned {
            Some(_) => (wanted.trial, State::Pruned),
            None => {
                let state = self.desk.state(&book, &self.bench.id(&wanted.trial), &metrics);
                (wanted.trial, state)
            }
        };
        Ok(self.wanted(&book)?.into_iter().map(state).collect())
    }

    /// Records why trials are pruned, once.
    fn record_pruned(&self) -> Result<()> {
        let all = self.wanted(&self.desk.book())?;
        for Wanted { trial, pruned } in all {
            let Some(why) = pruned else { continue };
            let order = self.bench.order(&trial, self.experiment);
            self.desk.note(&self.bench.ended(&order, Status::Pruned, why))?;
        }
        Ok(())
    }

    /// Runs all trials that are due, until none is wanted any more.
    pub fn run(
        &self,
        executor: &dyn Executor,
        memory: &Memory,
        audience: &dyn Audience,
        cancel: &Cancel,
    ) -> Result<Outcome> {
        let mut first = true;
        let outcome = loop {
            self.record_pruned()?;
            let (todo, rest) = self.due()?;
            if first {
                self.say(&todo, &rest, memory, audience);
            }
            first = false;
            if todo.is_empty() {
                let fine = self.say_failed(&rest, audience) == 0;
                break if fine { Outcome::Fine } else { Outcome::Failed };
            }
            let flow = executor.run(todo, self.desk)?;
            self.desk.refresh()?;
            if cancel.is_set() {
                break Outcome::Interrupted;
            }
            if flow.is_break() {
                break Outcome::Failed;
            }
        };
        if outcome == Outcome::Fine {
            let trials = self.trials()?.into_iter();
            let orders: Vec<Order> =
                trials.map(|(trial, _)| self.bench.order(&trial, self.experiment)).collect();
            parent::tidy(&orders, self.desk);
        }
        // A trial that runs again has a record too, and its checkpoint may be wanted.
        self.desk.tidy(outcome == Outcome::Fine && !self.desk.again().done)?;
        Ok(outcome)
    }

    /// The trials that are to run, and the others.
    fn due(&self) -> Result<Due> {
        let (all, metrics) = (self.trials()?, self.experiment.metrics());
        let book = self.desk.book();
        let is_due = |(trial, state): &(Trial, State)| {
            *state != State::Pruned && self.desk.is_due(&book, &self.bench.id(trial), &metrics)
        };
        let (todo, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(is_due);
        let order = |(trial, _): &(Trial, State)| self.bench.order(trial, self.experiment);
        Ok((todo.iter().map(order).collect(), rest))
    }

    /// What is done already, and what the largest of the others needs.
    fn say(
        &self,
        todo: &[Order],
        rest: &[(Trial, State)],
        memory: &Memory,
        audience: &dyn Audience,
    ) {
        let name = &self.experiment.name;
        let book = self.desk.book();
        let known = rest.iter().filter_map(|(trial, _)| book.get(&self.bench.id(trial)));
        known.for_each(|record| audience.recorded(record));
        drop(book);
        if !rest.is_empty() {
            let failed = match rest.iter().filter(|(_, state)| *state == State::Failed).count() {
                0 => String::new(),
                n => format!(", {n} failed before: --retry-failed runs them again"),
            };
            let all = todo.len() + rest.len();
            audience
                .say(&format!("{name}: {} of {all} trials are done already{failed}", rest.len()));
        }
        if let Some(need) = self.bench.largest(todo, memory) {
            audience.say(&format!("{name}: the largest trial {need}"));
        }
    }

    /// Names the trials that failed, and why, the first ones of many; how many there are.
    fn say_failed(&self, rest: &[(Trial, State)], audience: &dyn Audience) -> usize {
        const SHOWN: usize = 10;
        let failed: Vec<&Trial> =
            rest.iter().filter(|(_, state)| *state == State::Failed).map(|(t, _)| t).collect();
        if failed.is_empty() {
            return 0;
        }
        audience.say(&format!("{}: {} trials failed:", self.experiment.name, failed.len()));
        let book = self.desk.book();
        for trial in failed.iter().take(SHOWN) {
            let record = book.get(&self.bench.id(trial));
            let why = record.and_then(|record| record.error.as_deref()).unwrap_or("");
            audience.say(&format!("  {}: {why}", trial.name()));
        }
        if failed.len() > SHOWN {
            audience.say(&format!("  and {} more", failed.len() - SHOWN));
        }
        failed.len()
    }
}
