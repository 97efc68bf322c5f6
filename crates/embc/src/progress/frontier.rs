//! Who is ahead at each budget, while a sweep fills its table.

use crate::report::budget_text;
use embc_lab::grid::Summary;
use embc_lab::record::{Record, Status};
use std::collections::BTreeMap;

/// How many are named at a budget.
const NAMED: usize = 4;
/// How many budgets are shown: the largest.
const LINES: usize = 8;

/// An axis, and the bits of a positive number on it, which are ordered as numbers; none for what has one
/// size.
type Budget = Option<(String, u64)>;
/// Values by label.
type Cells = BTreeMap<String, Vec<f64>>;

/// Validation values so far.
#[derive(Default)]
pub struct Frontier {
    budgets: BTreeMap<Budget, Cells>,
    lower_is_better: bool,
}

impl Frontier {
    /// A trial has ended.
    pub fn add(&mut self, record: &Record) {
        let key = format!("valid/{}", record.select());
        let Some(&value) = record.metrics.get(&key).filter(|_| record.status == Status::Ok) else {
            return;
        };
        let select = record.spec.as_ref().map(|spec| spec.schedule.select);
        self.lower_is_better = select.is_some_and(|select| !select.higher_is_better());
        let budget = record.budget.as_object().and_then(|budget| budget.iter().next());
        let budget = budget.map(|(axis, x)| (axis.clone(), x.as_f64().unwrap_or(0.0).to_bits()));
        let cells = self.budgets.entry(budget).or_default();
        cells.entry(record.label.clone()).or_default().push(value);
    }

    /// A line a budget, the best first: "64.00 KiB: pq 0.1699, qr 0.1595".
    pub fn lines(&self) -> Vec<String> {
        let line = |(budget, cells): (&Budget, &Cells)| {
            let mean =
                |values: &[f64]| Summary::of(values).map_or(f64::NAN, |summary| summary.mean);
            let mut ranked: Vec<(&String, f64, usize)> =
                cells.iter().map(|(label, x)| (label, mean(x), x.len())).collect();
            ranked.sort_by(|a, b| {
                if self.lower_is_better { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) }
            });
            let name = budget.as_ref().map_or("of one size".into(), |(axis, bits)| {
                budget_text(axis, &f64::from_bits(*bits).to_string())
            });
            let named = ranked.iter().take(NAMED).map(|(label, mean, n)| {
                let seeds = if *n > 1 { format!(" ({n})") } else { String::new() };
                format!("{label} {mean:.4}{seeds}")
            });
            format!("{name:>12}: {}", named.collect::<Vec<_>>().join(", "))
        };
        let first = self.budgets.iter().take_while(|(budget, _)| budget.is_none());
        let last = self.budgets.iter().rev().take_while(|(budget, _)| budget.is_some()).take(LINES);
        first.chain(last).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(label: &str, budget: &str, value: f64) -> Record {
        let text = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../embc-lab/tests/seeds/records.jsonl"
        ));
        let mut record: Record =
            serde_json::from_str(text.unwrap().lines().next().unwrap()).unwrap();
        record.label = label.into();
        record.budget = serde_json::from_str(budget).unwrap();
        record.metrics = [(format!("valid/{}", record.select()), value)].into();
        record
    }

    #[test]
    fn the_best_come_first_at_each_budget() {
        let mut frontier = Frontier::default();
        frontier.add(&record("full", "{}", 0.9));
        for (label, bytes, value) in
            [("hash", 1024, 0.5), ("pq", 1024, 0.7), ("pq", 1024, 0.8), ("qr", 2048, 0.6)]
        {
            frontier.add(&record(label, &format!("{{\"bytes\": {bytes}}}"), value));
        }
        let expect = [
            " of one size: full 0.9000",
            "    2.00 KiB: qr 0.6000",
            "    1.00 KiB: pq 0.7500 (2), hash 0.5000",
        ];
        assert_eq!(frontier.lines(), expect);
    }
}
