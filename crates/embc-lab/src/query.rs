//! An experiment as a query over records: which of all are its, as it is now.

use crate::config::Experiment;
use crate::plan::Trial;
use crate::record::Record;
use embc_data::view::Resolved;
use std::collections::BTreeMap;

/// Which records an experiment's trials have: those of its settings, on its rows.
pub struct Query<'a> {
    /// The newest of each trial, by all of its spec but the data.
    newest: BTreeMap<String, &'a Record>,
    /// The same of records of version 1, by their config; where there are no newer ones.
    legacy: BTreeMap<String, &'a Record>,
}

impl<'a> Query<'a> {
    pub fn new(experiment: &Experiment, records: &'a [Record]) -> Self {
        let mut all: Vec<&Record> = records.iter().collect();
        all.sort_by(|a, b| a.started.cmp(&b.started));
        // By the registry as it is now; without one, as the newest record has it.
        let on_its_view = |record: &&&Record| {
            let Some(spec) = &record.spec else { return false };
            experiment.views.as_ref().is_none_or(|views| {
                let given = spec.data.view.given.clone();
                let view = views.get(&record.seed).or(views.values().next());
                view.is_some_and(|view| Resolved { given, ..view.clone() } == spec.data.view)
            })
        };
        let rows = all.iter().rev().find(on_its_view).map(|record| record.rows());
        let (mut newest, mut legacy) = (BTreeMap::new(), BTreeMap::new());
        for record in all.iter().filter(|record| on_its_view(record)) {
            if Some(record.rows()) == rows
                && let Some(spec) = &record.spec
            {
                newest.insert(spec.without_data().to_string(), *record);
            }
        }
        if newest.is_empty() {
            for record in all.iter().filter(|record| record.spec.is_none()) {
                let mut config = record.config.clone();
                config.as_object_mut().map(|config| config.remove("metrics"));
                legacy.insert(config.to_string(), *record);
            }
        }
        Self { newest, legacy }
    }

    pub fn find(&self, experiment: &Experiment, trial: &Trial) -> Option<&'a Record> {
        let found = self.newest.get(&trial.spec.without_data().to_string());
        let old = || self.legacy.get(&crate::legacy::config(experiment, trial).to_string());
        found.or_else(|| if self.legacy.is_empty() { None } else { old() }).copied()
    }
}
