//! Where a choice is kept: the winner's config, its model, its export.

use super::super::write;
use crate::INTERRUPT;
use crate::cli::{Choose as Args, Global};
use crate::progress::Terminal;
use crate::report::choice as words;
use anyhow::{Context, Result, bail};
use embc_core::graph::HashAs;
use embc_core::net::Net;
use embc_data::registry::Entry;
use embc_data::view::View;
use embc_lab::artefact::{self, Model};
use embc_lab::bench::{Bench, Ended, Running};
use embc_lab::choice::Choice;
use embc_lab::config::Experiment;
use embc_lab::desk::{Again, Answer, Desk};
use embc_lab::export::{self, Stated};
use embc_lab::memory::Memory;
use embc_lab::plan::{self, Trial};
use embc_lab::record::Record;
use embc_lab::watch::Audience;
use std::path::{Path, PathBuf};

/// Where a choice is kept.
pub struct Place<'a> {
    pub folder: &'a Path,
    pub base: &'a Experiment,
    pub e: &'a Experiment,
    pub text: &'a str,
    pub several: bool,
}

impl Place<'_> {
    /// "model", or with its budget where there are several.
    fn name(&self, what: &str, choice: &Choice<'_>) -> PathBuf {
        match self.several {
            true => self.folder.join(format!("{what}-{}", choice.budget)),
            false => self.folder.join(what),
        }
    }

    /// The winner's own config, called after the base: so are its records.
    fn winner(&self, choice: &Choice<'_>) -> PathBuf {
        let mut path = self.name(&format!("{}-winner", self.base.name), choice).into_os_string();
        path.push(".toml");
        path.into()
    }

    /// Trains the winner once more and keeps it, with its export and config; none once interrupted.
    pub fn keep(
        &self,
        choice: &Choice<'_>,
        (entry, data): (&Entry, &View),
        args: &Args,
        global: &Global,
        terminal: &Terminal,
    ) -> Result<Option<()>> {
        let path = self.winner(choice);
        write(&path, &words::config(self.e, choice, self.text)?)?;
        let record = choice.first.records[0];
        let model = self.name("model", choice);
        let is_there = |model: &Model| model.record().is_ok_and(|r| r.trial == record.trial);
        if !Model::load(&model).is_ok_and(|model| is_there(&model)) {
            terminal.say(&format!("{}: trained once more, to be kept", choice.first.runner.label));
            terminal.round(1, 1);
            let Some(mut net) = self.net(record, (entry, data), args, global, terminal)? else {
                return Ok(None);
            };
            // Exports of another model are none of this one.
            for format in export::FORMATS {
                let _ = std::fs::remove_dir_all(model.join(format.name()));
            }
            artefact::save(&model, &mut net, record, (entry, &global.data_dir), data)?;
        }
        let loaded = Model::load(&model)?;
        let asked = export::Asked { embedding: false, hash_as: HashAs::Graph, vocabulary: true };
        let format = export::find("packed").expect("registered");
        let export = model.join("packed");
        std::fs::create_dir_all(&export).with_context(|| export.display().to_string())?;
        format.write(&Stated::new(&loaded, asked)?, &export)?;
        Ok(Some(()))
    }

    /// The net of a trial that has its record, trained once more; none once interrupted.
    fn net(
        &self,
        record: &Record,
        (entry, data): (&Entry, &View),
        args: &Args,
        global: &Global,
        terminal: &Terminal,
    ) -> Result<Option<Box<Net>>> {
        let again = Again { done: true, failed: true };
        let desk = Desk::open(&global.results, &self.e.place(), again)?.lasting(*args.keep.lease);
        let bench = Bench::new(entry, data, global.overcommit);
        let order = bench.order(&self.trial(record, &bench)?, self.e);
        let Answer::Run(claim, metrics) = desk.ask_once(&order, false, &INTERRUPT)? else {
            bail!("another process trains {}: run this again for the model", order.name());
        };
        let (memory, every) = (Memory::free_now(), *args.keep.checkpoint_every);
        let cancel = claim.cancel();
        let running = Running { memory: &memory, claim: &claim, parent: None, every, cancel };
        let mut watcher = terminal.watcher();
        watcher.next(&order.name());
        // Its record stays: it has the same numbers, and what they took at first.
        match bench.run(&order, &metrics, &running, &mut *watcher) {
            Ended::Cancelled => Ok(None),
            Ended::Recorded(again, net) => {
                watcher.end(&again.summary(&order.spec.schedule.select), net.is_none());
                claim.done();
                let why = || again.error.clone().unwrap_or_default();
                net.with_context(why).map(Some)
            }
        }
    }

    /// The trial that a record is of.
    fn trial(&self, record: &Record, bench: &Bench<'_>) -> Result<Trial> {
        let trials = plan::round(self.e, record.seed)?.into_iter();
        let mut trials = trials.filter(|trial| bench.id(trial) == record.trial);
        trials.next().context("a record of this experiment")
    }

    pub fn leads_to(&self, all: &[Choice<'_>]) -> String {
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
