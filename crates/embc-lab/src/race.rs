//! A race within bytes: who may still win at its budget trains with one more seed.
//!
//! 1. With the first seed: what follows from the full table (narrower storage, codes), which trains once
//!    for all of them but for what trains on, and of each other kind of scheme the form that the
//!    config names first.
//! 2. Of the kinds that stand best, the other forms.
//! 3. The best with a second seed, the best of those with a third; from then on who is not worse than
//!    the best beyond chance, by the paired 99 % t-interval over seeds.
//! 4. Where `confirm` is given: seeds that nothing was picked by, for the winner, the next and `full`.
//!
//! All of it by validation, after whole rounds, from records alone: neither `--jobs` nor an interruption
//! changes what is picked.

use crate::config::Experiment;
use crate::estimate::Estimate;
use crate::plan::{self, Trial};
use crate::record::{Record, Status};
use anyhow::Result;
use embc_core::scheme;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Kinds whose other forms are tried.
const WIDENED: usize = 2;
/// How many get the second seed, and the third.
const KEPT: [usize; 2] = [4, 3];
/// At which level a cell is worse beyond chance: with 95 %, many looked at after each round would lose
/// by chance.
const LEVEL: f64 = 0.99;

/// A scheme's form, at a budget where it has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Runner {
    /// Its label.
    pub label: String,
    /// The budget's value; none for what has one size.
    pub budget: Option<String>,
}

impl Runner {
    /// Of a trial.
    pub fn of(trial: &Trial) -> Self {
        let budget = trial.point.as_ref().map(|point| point.value.to_string());
        Self { label: trial.scheme.label().into(), budget }
    }
}

/// Who stands how within a budget.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Bytes.
    pub budget: u64,
    /// All that fit and have a value, best first.
    pub ranked: Vec<Runner>,
    /// How many of these, the first ones, may still win.
    pub alive: usize,
}

/// A race as records have it.
pub struct Race {
    /// The trials that it wants by now, done ones too.
    pub wanted: Vec<Trial>,
    /// Who stands how, by budget.
    pub standings: Vec<Standing>,
    /// True once nothing more is wanted.
    pub over: bool,
}

/// Finds a trial's record.
pub type Find<'a, 'b> = &'b dyn Fn(&Trial) -> Option<&'a Record>;

/// The race of an experiment; of trials that pass a filter.
pub fn race(e: &Experiment, passes: &dyn Fn(&Trial) -> bool, find: Find<'_, '_>) -> Result<Race> {
    let mut run = Run { e, find, wanted: Vec::new(), raced: BTreeSet::new() };
    let rounds = run.rounds(passes)?;
    let standings = run.standings()?;
    let over = rounds && run.is_done();
    Ok(Race { wanted: run.wanted, standings, over })
}

struct Run<'a, 'b> {
    e: &'b Experiment,
    find: Find<'a, 'b>,
    wanted: Vec<Trial>,
    /// Who races for a budget with which seed: what has one size may be given up at one, and not at
    /// another.
    raced: BTreeSet<(u64, Runner, u64)>,
}

/// Made of the full table after its training.
fn follows(trial: &Trial) -> bool {
    let kind = &trial.scheme.kind;
    kind == "full" || scheme::find(kind).is_some_and(|scheme| scheme.parent().is_some())
}

/// The same without more training: all of these cost the one of the full table.
fn is_free(trial: &Trial) -> bool {
    follows(trial) && !trial.spec.finetunes()
}

impl Run<'_, '_> {
    /// Collects what is wanted, round by round; true if no round is left.
    fn rounds(&mut self, passes: &dyn Fn(&Trial) -> bool) -> Result<bool> {
        let round = |seed| -> Result<Vec<Trial>> {
            Ok(plan::round(self.e, seed)?.into_iter().filter(|trial| passes(trial)).collect())
        };
        let seeds = &self.e.train.seeds;
        let all = round(seeds[0])?;
        let mut kinds = BTreeSet::new();
        let led: BTreeSet<&str> = all
            .iter()
            .filter(|trial| kinds.insert((&trial.scheme.kind, is_free(trial))))
            .map(|trial| trial.scheme.label())
            .collect();
        let leads = |trial: &Trial| is_free(trial) || led.contains(trial.scheme.label());
        self.wanted.extend(all.iter().filter(|trial| leads(trial)).cloned());
        if !self.is_done() {
            return Ok(false);
        }
        let mut wide = self.best_kinds()?;
        // Whose first form is the uncompressed table there has not been tried yet.
        let idle = self
            .wanted
            .iter()
            .filter(|trial| (self.find)(trial).is_some_and(|record| record.is_uncompressed()));
        wide.extend(idle.map(|trial| (trial.scheme.kind.clone(), Runner::of(trial).budget)));
        let is_wide = |trial: &Trial| {
            let budget = Runner::of(trial).budget;
            wide.contains(&(trial.scheme.kind.clone(), budget))
        };
        let more = all.iter().filter(|trial| !leads(trial) && is_wide(trial)).cloned();
        self.wanted.extend(more);
        for &seed in &seeds[1..] {
            if !self.is_done() {
                return Ok(false);
            }
            let mut next = BTreeSet::new();
            for standing in self.standings()?.iter().filter(|standing| standing.alive > 1) {
                for runner in &standing.ranked[..standing.alive] {
                    self.raced.insert((standing.budget, runner.clone(), seed));
                    next.insert(runner.clone());
                }
            }
            if next.is_empty() {
                break;
            }
            self.add(round(seed)?, &next);
        }
        if !self.is_done() {
            return Ok(false);
        }
        let standings = self.standings()?;
        let first: BTreeSet<Runner> =
            standings.iter().flat_map(|s| s.ranked.iter().take(2).cloned()).collect();
        for seed in confirming(self.e) {
            self.add(round(seed)?, &first);
        }
        Ok(true)
    }

    /// The trials of some runners, and of the uncompressed table.
    fn add(&mut self, round: Vec<Trial>, runners: &BTreeSet<Runner>) {
        let full = |trial: &Trial| trial.scheme.label() == "full";
        let wanted = round.into_iter().filter(|t| full(t) || runners.contains(&Runner::of(t)));
        self.wanted.extend(wanted);
    }

    fn has(&self, trial: &Trial) -> bool {
        (self.find)(trial).is_some_and(|record| record.status != Status::Pruned)
    }

    fn is_done(&self) -> bool {
        self.wanted.iter().all(|trial| self.has(trial))
    }

    /// The kinds of trained forms that stand best, with their budget.
    fn best_kinds(&self) -> Result<BTreeSet<(String, Option<String>)>> {
        let mut best = BTreeSet::new();
        for standing in self.standings()? {
            let budget = Some(standing.budget.to_string());
            let trained = standing.ranked.iter().filter_map(|runner| {
                let mut trials = self.wanted.iter();
                let trial = trials.find(|trial| Runner::of(trial) == *runner)?;
                (!follows(trial)).then(|| trial.scheme.kind.clone())
            });
            best.extend(trained.take(WIDENED).map(|kind| (kind, budget.clone())));
        }
        Ok(best)
    }

    fn standings(&self) -> Result<Vec<Standing>> {
        let points = self.e.points()?;
        Ok(points.iter().filter_map(|p| p.value.as_u64()).map(|b| self.standing(b)).collect())
    }

    /// Who stands how within so many bytes, by the seeds that pick.
    fn standing(&self, budget: u64) -> Standing {
        let (select, at) = (self.e.select(), budget.to_string());
        let key = format!("valid/{select}");
        let mut values: BTreeMap<Runner, BTreeMap<u64, f64>> = BTreeMap::new();
        let first = self.e.train.seeds[0];
        // One net under several names is one runner: the free one, or the smallest.
        let mut nets: BTreeMap<&str, (bool, u64, Runner)> = BTreeMap::new();
        // Of the first seed, and of whole rounds.
        let seeds = &self.e.train.seeds;
        let counts = |seed: &&u64| {
            **seed == seeds[0] || self.wanted.iter().all(|t| t.seed != **seed || self.has(t))
        };
        let seeds: BTreeSet<u64> = seeds.iter().filter(counts).copied().collect();
        for trial in self.wanted.iter().filter(|trial| seeds.contains(&trial.seed)) {
            let runner = Runner::of(trial);
            let record = (self.find)(trial).filter(|record| {
                let bytes = record.param_bytes + record.index_bytes;
                let here = runner.budget.as_ref().is_none_or(|budget| *budget == at);
                let itself = !record.is_uncompressed();
                record.status == Status::Ok && itself && here && bytes <= budget
            });
            let Some(record) = record else { continue };
            let Some(&value) = record.metrics.get(&key) else { continue };
            if trial.seed == first {
                let bytes = record.param_bytes + record.index_bytes;
                let this = (!is_free(trial), bytes, runner.clone());
                let known = nets.entry(&record.weights_hash).or_insert_with(|| this.clone());
                *known = this.min(known.clone());
            }
            if trial.seed == first || self.raced.contains(&(budget, runner.clone(), trial.seed)) {
                values.entry(runner).or_default().insert(trial.seed, value);
            }
        }
        let nets: BTreeSet<Runner> = nets.into_values().map(|(.., runner)| runner).collect();
        values.retain(|runner, values| nets.contains(runner) && values.contains_key(&first));
        let seeds = values.values().map(BTreeMap::len).max().unwrap_or(0);
        let mean = |values: &BTreeMap<u64, f64>| values.values().sum::<f64>() / values.len() as f64;
        let mut ranked: Vec<(Runner, BTreeMap<u64, f64>)> = values.into_iter().collect();
        // Who was given up after fewer seeds comes after who was not.
        ranked.sort_by(|(_, a), (_, b)| {
            let (ours, theirs) = (mean(a), mean(b));
            let order = match (select.better(ours, theirs), select.better(theirs, ours)) {
                (true, _) => Ordering::Less,
                (_, true) => Ordering::Greater,
                _ => Ordering::Equal,
            };
            b.len().cmp(&a.len()).then(order)
        });
        let in_race = ranked.iter().filter(|(_, values)| values.len() == seeds).count();
        let kept = KEPT.get(seeds.wrapping_sub(1)).copied();
        let alive = match (kept, ranked.first()) {
            (Some(kept), _) => in_race.min(kept),
            (None, Some((_, best))) => {
                let close = |(_, values): &(Runner, BTreeMap<u64, f64>)| {
                    let differences: Vec<f64> =
                        values.iter().filter_map(|(seed, x)| Some(x - best.get(seed)?)).collect();
                    let worse = |e: &Estimate| {
                        let clear = e.half.is_some_and(|half| e.mean.abs() > half);
                        clear && select.better(0.0, e.mean)
                    };
                    !Estimate::at(LEVEL, &differences).is_some_and(|e| worse(&e))
                };
                // By mean: behind the first that is clearly worse nobody is looked at again.
                ranked[..in_race].iter().take_while(|runner| close(runner)).count()
            }
            (None, None) => 0,
        };
        Standing { budget, ranked: ranked.into_iter().map(|(runner, _)| runner).collect(), alive }
    }
}

/// Trainings that a race wants at most; of a whole grid all.
pub fn at_most(e: &Experiment) -> Result<usize> {
    let round = plan::round(e, e.train.seeds[0])?;
    let trained = round.iter().filter(|trial| !is_free(trial)).count();
    let seeds = e.train.seeds.len();
    let full = usize::from(trained < round.len());
    if !e.sweep.race {
        return Ok(seeds * (trained + full));
    }
    let kinds: BTreeSet<&str> =
        round.iter().filter(|t| !is_free(t)).map(|t| &t.scheme.kind[..]).collect();
    let budgets = e.points()?.len();
    let [second, third] = KEPT;
    let wide = budgets * (kinds.len() + WIDENED).min(trained);
    let more = [second].into_iter().chain(std::iter::repeat(third)).take(seeds - 1);
    let more: usize = more.map(|kept| full + budgets * kept.min(trained)).sum();
    let confirming = full + budgets * trained.min(2);
    Ok(full + wide + more + e.sweep.confirm as usize * confirming)
}

/// The seeds that confirm: after all that may pick.
pub fn confirming(e: &Experiment) -> impl Iterator<Item = u64> {
    let first = 1 + e.train.seeds.iter().max().expect("checked with the config");
    (first..).take(e.sweep.confirm as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// An experiment within some bytes.
    fn experiment(bytes: &str) -> Experiment {
        let text = format!(
            "title = \"t\"\ndataset = \"d\"\n[model]\nkind = \"gmf\"\n[embedding]\ndim = 8\n[train]\noptimizer = {{ kind = \"adam\", lr = 0.01 }}\nbatch = 4\nepochs = 2\nselect = \"auc\"\nseeds = [1, 2, 3, 4, 5]\n[budget]\nbytes = {bytes}\n[sweep]\nrace = true\nconfirm = 2\n[[scheme]]\nkind = \"full\"\n[[scheme]]\nkind = \"full\"\nquantize = \"int2\"\n[[scheme]]\nkind = \"pq\"\n[[scheme]]\nkind = \"hash\"\nquantize = \"int4\"\n[[scheme]]\nkind = \"hash\"\nquantize = \"int8\"\n[[scheme]]\nkind = \"qr\"\nquantize = \"int4\"\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, text).unwrap();
        Experiment::load(&path, &[]).unwrap()
    }

    /// Runs a race where `value` gives the metric of a label at a budget with a seed, and its net.
    fn run(e: &Experiment, value: &dyn Fn(&str, u64, u64) -> (f64, String)) -> (Race, usize) {
        let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds/records.jsonl");
        let text = std::fs::read_to_string(text).unwrap();
        let blank: Record = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let mut records: BTreeMap<String, Record> = BTreeMap::new();
        loop {
            let key = |trial: &Trial| trial.name();
            let found = race(e, &|_| true, &|trial| records.get(&key(trial))).unwrap();
            let missing: Vec<&Trial> =
                found.wanted.iter().filter(|trial| !records.contains_key(&key(trial))).collect();
            if missing.is_empty() {
                return (found, records.len());
            }
            for trial in missing {
                let budget = trial.point.as_ref().and_then(|p| p.value.as_u64());
                let (value, net) = value(trial.scheme.label(), budget.unwrap_or(0), trial.seed);
                let mut record = Record { seed: trial.seed, weights_hash: net, ..blank.clone() };
                (record.scheme, record.label) =
                    (trial.scheme.kind.clone(), trial.scheme.label().into());
                // Tables of one size: the full one fits nothing, its narrowest form everything.
                record.param_bytes =
                    budget.unwrap_or(if record.label == "full" { 1 << 20 } else { 1500 });
                (record.index_bytes, record.compression_params) = (0, 2.0);
                record.metrics = [("valid/auc".to_string(), value)].into();
                records.insert(key(trial), record);
            }
        }
    }

    fn jitter(seed: u64) -> f64 {
        [0.0, 3e-4, -2e-4, 1e-4, -3e-4, 2e-4, 0.0, 1e-4][seed as usize % 8]
    }

    /// What has one size is given up at one budget and goes on at another: its further seeds count there
    /// alone.
    #[test]
    fn each_budget_has_a_race_of_its_own() {
        let e = experiment("[6000, 2000]");
        let (race, _) = run(&e, &|label, budget, seed| {
            let base = match (label, budget) {
                ("full", _) => 0.8,
                ("full int2", _) => 0.6,
                ("pq", 6000) => 0.7,
                ("pq", _) => 0.6 + 2.0 * jitter(seed + 1),
                _ => 0.5 + budget as f64 * 1e-6,
            };
            // Differences that are all equal would be no certainty.
            (base + jitter(seed + label.len() as u64), format!("{label} {budget} {seed}"))
        });
        assert!(race.over);
        let [large, small] = &race.standings[..] else { panic!("two budgets") };
        assert_eq!((large.ranked[0].label.as_str(), large.alive), ("pq", 1));
        assert_eq!(small.alive, 2, "int2 and pq are as good there");
        let seeds = |label: &str, budget: Option<&str>| {
            let budget = budget.map(String::from);
            let of = |trial: &&Trial| {
                Runner::of(trial) == Runner { label: label.into(), budget: budget.clone() }
            };
            race.wanted.iter().filter(of).map(|trial| trial.seed).collect::<Vec<u64>>()
        };
        assert_eq!(seeds("pq", Some("6000")), [1, 2, 3, 6, 7], "clear after three, then confirmed");
        assert_eq!(seeds("pq", Some("2000")), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(seeds("full", None), [1, 2, 3, 4, 5, 6, 7], "what all are compared with");
    }

    #[test]
    fn one_net_is_one_runner_and_the_better_half_of_kinds_has_its_other_forms_tried() {
        let e = experiment("[2000]");
        let (race, trained) = run(&e, &|label, budget, seed| {
            let base = match label {
                "full" => 0.8,
                // One net under three names.
                "hash int4" | "qr int4" | "pq" => 0.7,
                _ => 0.6,
            };
            let net = if base == 0.7 {
                format!("one {seed}")
            } else {
                format!("{label} {budget} {seed}")
            };
            (base + jitter(seed), net)
        });
        let standing = &race.standings[0];
        let labels: Vec<&str> = standing.ranked.iter().map(|runner| &runner.label[..]).collect();
        assert_eq!(labels[0], "pq", "the free one stands for all three");
        assert!(!labels.contains(&"hash int4") && !labels.contains(&"qr int4"), "{labels:?}");
        assert!(race.over && trained < 5 * 6, "{trained}");
        assert!(at_most(&e).unwrap() >= 10);
    }
}
