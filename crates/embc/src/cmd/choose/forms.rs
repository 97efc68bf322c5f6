//! What each form of a choice comes to at each budget, before anything is trained.

use crate::table::text_table;
use anyhow::{Result, bail};
use embc_lab::bench::{Bench, Planned};
use embc_lab::choice::within;
use embc_lab::config::Experiment;
use embc_lab::plan;
use embc_lab::units::bytes;
use std::collections::BTreeSet;

/// What each form comes to at each budget.
pub struct Forms {
    budgets: Vec<u64>,
    /// By label, in the config's order; those of one size stand at every budget.
    forms: Vec<(String, Vec<Planned>)>,
}

impl Forms {
    /// Plans all.
    pub fn new(e: &Experiment, bench: &Bench<'_>, budgets: &[u64]) -> Result<Self> {
        let mut forms: Vec<(String, Vec<Planned>)> = Vec::new();
        for trial in plan::round(e, e.train.seeds[0])? {
            let planned = bench.size_of(&bench.order(&trial, e).spec);
            match forms.last_mut().filter(|(label, _)| label == trial.scheme.label()) {
                Some((_, all)) => all.push(planned),
                None => {
                    let times = if trial.point.is_some() { 1 } else { budgets.len() };
                    forms.push((trial.scheme.label().into(), vec![planned; times]));
                }
            }
        }
        Ok(Self { budgets: budgets.to_vec(), forms })
    }

    /// The budgets that hold something.
    pub fn held(&self) -> Vec<u64> {
        let holds = |i: usize, budget: u64| {
            let fits = |planned: &Planned| matches!(planned, Planned::Bytes(b) if *b <= budget);
            self.forms.iter().any(|(_, all)| fits(&all[i]))
        };
        let all = self.budgets.iter().enumerate();
        all.filter(|(i, budget)| holds(*i, **budget)).map(|(_, &budget)| budget).collect()
    }

    /// An error where a budget holds nothing, with a reason of one form.
    pub fn check(&self) -> Result<()> {
        let held = self.held();
        let Some(i) = self.budgets.iter().position(|budget| !held.contains(budget)) else {
            return Ok(());
        };
        let why = self.forms.iter().find_map(|(_, all)| match &all[i] {
            Planned::Infeasible(why) => Some(&why[..]),
            _ => None,
        });
        let why = why.unwrap_or("the smallest form is larger");
        bail!("nothing fits {}; for one, {why}", bytes(self.budgets[i]))
    }

    /// What has budgets, and at each of them is the uncompressed table or nothing.
    pub fn idle(&self) -> BTreeSet<String> {
        let idle = self
            .forms
            .iter()
            .filter(|(_, all)| all.iter().all(|planned| !matches!(planned, Planned::Bytes(_))));
        idle.map(|(label, _)| label.clone()).collect()
    }

    pub fn table(&self, e: &Experiment) -> Result<String> {
        let cell = |(planned, budget): (&Planned, &u64)| match planned {
            Planned::Bytes(size) if size > budget => format!("too large: {}", bytes(*size)),
            Planned::Bytes(size) => bytes(*size),
            Planned::Uncompressed => "the uncompressed table fits".into(),
            Planned::Infeasible(_) => "out of reach".into(),
        };
        let row = |(label, all): &(String, Vec<Planned>)| {
            [label.clone()].into_iter().chain(all.iter().zip(&self.budgets).map(cell)).collect()
        };
        let header: Vec<String> = self.budgets.iter().map(|&budget| within(budget)).collect();
        let header: Vec<&str> = ["form"].into_iter().chain(header.iter().map(|h| &h[..])).collect();
        Ok(format!("{}:\n{}", e.name, text_table(&header, self.forms.iter().map(row))))
    }
}
