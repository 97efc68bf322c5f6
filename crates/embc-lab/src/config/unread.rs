//! What a config says that nothing reads, and what it says about data that a registry knows.

use super::Experiment;
use super::scheme::DIVIDES;
use crate::axis::BudgetConfig;
use anyhow::Result;
use embc_core::metric::Metric;
use embc_data::registry::Registry;
use embc_data::view::Resolved;

impl Experiment {
    /// Refuses keys that nothing reads.
    pub(super) fn check_unread(&self) -> Result<()> {
        let table = self.table();
        let given = |key: &str| {
            let (section, key) = key.split_once('.').expect("a section and a key");
            table.get(section).and_then(|section| section.get(key)).is_some()
        };
        let budget = self.budget.as_ref();
        let ratio = budget.is_some_and(|b| b.compression.is_some());
        let divided = budget.is_some_and(BudgetConfig::is_divided);
        let only_full = self.scheme.iter().all(|scheme| scheme.kind == "full");
        let unread = [
            (
                "budget.of",
                budget.is_some() && !ratio,
                "says what compression is a ratio of, and the budget is another",
            ),
            ("budget.allocation", budget.is_some() && !divided, DIVIDES),
            (
                "budget.allocation",
                self.scheme.iter().all(|s| s.kind == "full" || s.allocation.is_some()),
                "is of schemes that have a budget and no allocation of their own, and there are none",
            ),
            (
                "sweep.max_seeds",
                self.sweep.until_ci.is_none(),
                "is of until_ci, which is not given",
            ),
            ("sweep.confirm", !self.sweep.race, "confirms who has won a race, and there is none"),
            ("sweep.prune", self.sweep.race, "is of whole grids, and a race gives up by itself"),
            ("sweep.until_ci", self.sweep.race, "is of whole grids, and a race ends by itself"),
            (
                "embedding.full_below",
                only_full,
                "is of compressed tables, and there is no scheme but full",
            ),
        ];
        for (i, scheme) in self.scheme.iter().enumerate() {
            if let Some(why) = scheme.unread_allocation(budget) {
                let key = format!("scheme.{i}.allocation");
                return Err(self.error(&key, format!("allocation {why}; remove it")));
            }
        }
        match unread.iter().find(|(key, unread, _)| *unread && given(key)) {
            Some((key, _, why)) => {
                let name = key.split_once('.').map_or(*key, |(_, name)| name);
                Err(self.error(key, format!("{name} {why}; remove it")))
            }
            None => Ok(()),
        }
    }

    /// Finds what `[data]` comes to by a registry, so that records of other rows are told apart.
    pub fn resolve(&mut self, registry: &Registry) {
        let Some(entry) = registry.get(&self.dataset) else { return };
        let examples = self.examples().unwrap_or_default();
        let of = |&seed: &u64| {
            Resolved::new(entry, &self.data.of_seed(seed), examples).ok().map(|view| (seed, view))
        };
        self.views = self.train.seeds.iter().map(of).collect();
    }

    /// Metrics that the config names, with the keys that name them.
    pub fn named_metrics(&self) -> Vec<(&'static str, Metric)> {
        let mut named = vec![("train.select", self.select())];
        named.extend(self.table.metric.map(|metric| ("table.metric", metric)));
        named.extend(self.train.metrics.iter().map(|&metric| ("train.metrics", metric)));
        named.extend(self.expect.iter().map(|expect| ("expect", expect.metric)));
        named
    }
}
