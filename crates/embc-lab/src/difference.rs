//! Differences between schemes, with intervals over seeds and test rows together.
//!
//! Trials of one seed share initial values and order, and all share the test rows: differences are
//! paired by both. The rows' part of the error is the delete-a-group jackknife's. Where each seed
//! draws its own split, seeds and rows are one, and the interval is corrected for what splits share
//! (Nadeau and Bengio 2003).

use crate::config::Pair;
use crate::grid::Grid;
use crate::record::{Record, Status};
use statrs::distribution::{ContinuousCDF, StudentsT};
use std::collections::BTreeMap;

/// How much one scheme's metric lies above another's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// By seed.
    pub by_seed: BTreeMap<u64, f64>,
    /// Without each group of test rows, the mean over seeds; empty where trials do not know, and
    /// where each seed has its own test rows.
    without: Vec<f64>,
    /// Where each seed drew its own split: rows scored for each training row.
    resampled: Option<f64>,
}

impl Difference {
    /// Of a pair at its budget.
    pub fn of(grid: &Grid<'_>, pair: &Pair, key: &str) -> Option<Self> {
        let budget = pair.budget.map_or(String::new(), |b| b.to_string());
        let records = |scheme: &str| grid.cell(scheme, &budget).map(|cell| &cell.records[..]);
        Self::between(records(&pair.scheme)?, records(&pair.with)?, key)
    }

    /// By how much a metric of one cell's records lies above that of another's; none where they
    /// share no seed.
    pub fn between(ours: &[&Record], theirs: &[&Record], key: &str) -> Option<Self> {
        Self::above(ours, Some(theirs), key)
    }

    /// By how much it lies above that of another's records, or above zero.
    pub fn above(ours: &[&Record], theirs: Option<&[&Record]>, key: &str) -> Option<Self> {
        let values = |records: &[&Record]| -> BTreeMap<u64, f64> {
            let ok = records.iter().filter(|r| r.status == Status::Ok);
            ok.filter_map(|r| Some((r.seed, *r.metrics.get(key)?))).collect()
        };
        let groups = |records: &[&Record]| -> BTreeMap<u64, Vec<f64>> {
            let groups = |r: &&Record| Some((r.seed, r.without_groups.get(key)?.clone()));
            records.iter().filter_map(groups).collect()
        };
        let other = theirs.map(values);
        let above = |(seed, x): (u64, f64)| match &other {
            Some(other) => Some((seed, x - other.get(&seed)?)),
            None => Some((seed, x)),
        };
        let by_seed: BTreeMap<u64, f64> = values(ours).into_iter().filter_map(above).collect();
        let resampled = ours.first().and_then(|record| record.drawn_per_train(key));
        let (ours, theirs) = (groups(ours), theirs.map(groups));
        let mut without: Vec<f64> = Vec::new();
        for seed in by_seed.keys().filter(|_| resampled.is_none()) {
            let other = theirs.as_ref().map(|theirs| theirs.get(seed));
            let (Some(a), None | Some(Some(_))) = (ours.get(seed), other) else {
                without.clear();
                break;
            };
            without.resize(a.len(), 0.0);
            for (group, (sum, a)) in without.iter_mut().zip(a).enumerate() {
                let b = other.flatten().map_or(0.0, |b| b[group]);
                *sum += (a - b) / by_seed.len() as f64;
            }
        }
        (!by_seed.is_empty()).then_some(Self { by_seed, without, resampled })
    }

    /// The mean of several, seed by seed and group by group.
    pub fn mean_of(all: &[Self]) -> Option<Self> {
        let n = all.len() as f64;
        let mut mean = Self { resampled: all.first()?.resampled, ..Self::default() };
        for &seed in all.first()?.by_seed.keys() {
            let of_seed: Option<Vec<f64>> =
                all.iter().map(|d| d.by_seed.get(&seed).copied()).collect();
            mean.by_seed.extend(of_seed.map(|values| (seed, values.iter().sum::<f64>() / n)));
        }
        if all.iter().all(|d| !d.without.is_empty()) {
            let groups = all.iter().map(|d| d.without.len()).min()?;
            mean.without =
                (0..groups).map(|g| all.iter().map(|d| d.without[g]).sum::<f64>() / n).collect();
        }
        (!mean.by_seed.is_empty()).then_some(mean)
    }

    /// All of it times a factor.
    pub fn scaled(mut self, by: f64) -> Self {
        self.by_seed.values_mut().chain(&mut self.without).for_each(|x| *x *= by);
        self
    }

    /// The mean over seeds.
    pub fn mean(&self) -> f64 {
        self.by_seed.values().sum::<f64>() / self.by_seed.len() as f64
    }

    /// Half the width of the 95 % interval; none for one seed without groups.
    pub fn half(&self) -> Option<f64> {
        self.half_of(self.by_seed.len())
    }

    /// The fewest seeds, up to a hundred, whose interval would lie on one side of what is `margin` away
    /// from the mean, if mean and spread stayed; none where the test rows alone are too few.
    pub fn seeds_for(&self, margin: f64) -> Option<usize> {
        let tells = |seeds: &usize| self.half_of(*seeds).is_some_and(|half| half < margin.abs());
        (self.by_seed.len()..=100).find(tells)
    }

    /// With another number of seeds of the same spread.
    fn half_of(&self, seeds: usize) -> Option<f64> {
        let squares = |values: &mut dyn Iterator<Item = f64>, mean: f64| -> f64 {
            values.map(|x| (x - mean).powi(2)).sum()
        };
        // Variance of the mean, and degrees of freedom.
        let mut parts = Vec::new();
        let n = self.by_seed.len() as f64;
        if n > 1.0 {
            let sum = squares(&mut self.by_seed.values().copied(), self.mean());
            // Differences that are all equal say nothing of how far others may lie.
            let grain = 1e-24 * self.mean().powi(2);
            let sum = if sum / (n - 1.0) > grain { sum } else { 0.0 };
            let per_seed = 1.0 / seeds as f64 + self.resampled.unwrap_or_default();
            parts.push((sum / (n - 1.0) * per_seed, seeds as f64 - 1.0));
        }
        let groups = self.without.len() as f64;
        if groups > 1.0 {
            let mean = self.without.iter().sum::<f64>() / groups;
            let sum = squares(&mut self.without.iter().copied(), mean);
            parts.push((sum * (groups - 1.0) / groups, groups - 1.0));
        }
        let variance: f64 = parts.iter().map(|(v, _)| v).sum();
        // Welch and Satterthwaite.
        let freedom = variance.powi(2) / parts.iter().map(|(v, f)| v * v / f).sum::<f64>();
        match variance > 0.0 {
            true => StudentsT::new(0.0, 1.0, freedom)
                .ok()
                .map(|t| t.inverse_cdf(0.975) * variance.sqrt()),
            false => None,
        }
    }

    /// Which variance the interval covers.
    pub fn covers(&self) -> &'static str {
        match (self.resampled, self.without.is_empty()) {
            (Some(_), _) => {
                "seeds, each with a split of its own (corrected for the rows that splits share)"
            }
            (None, true) => {
                "seeds alone, the training rows fixed: these records do not know what test rows add"
            }
            (None, false) if self.by_seed.len() < 2 => "the choice of test rows alone, one seed",
            (None, false) => "seeds and the choice of test rows together, the training rows fixed",
        }
    }

    /// Whether the first or the second is better beyond chance; `sign` is −1 where less is better.
    pub fn winner(&self, sign: f64) -> Option<bool> {
        let half = self.half()?;
        (self.mean().abs() > half).then_some(sign * self.mean() > 0.0)
    }

    /// For people: "+0.0012 ± 0.0004".
    pub fn text(&self) -> String {
        match self.half() {
            Some(half) => format!("{:+.4} ± {half:.4}", self.mean()),
            None => format!("{:+.4}", self.mean()),
        }
    }

    /// Whether it is better by more than `claim`; `sign` is −1 where less is better.
    pub fn verdict(&self, claim: f64, sign: f64) -> &'static str {
        let mean = sign * self.mean();
        match self.half() {
            Some(half) if mean - half > claim => "reproduced, the interval lies above it",
            Some(half) if mean + half < claim => "not reproduced, the interval lies below it",
            None => "undecided, there is no interval",
            Some(_) => "undecided, the interval holds it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(by_seed: &[f64], without: &[f64]) -> Difference {
        Difference {
            by_seed: (1..).zip(by_seed.iter().copied()).collect(),
            without: without.to_vec(),
            resampled: None,
        }
    }

    #[test]
    fn intervals_over_seeds_and_rows() {
        // t(2, 0.975) = 4.3027, deviation 1, three values.
        let seeds = difference(&[1.0, 2.0, 3.0], &[]);
        assert!((seeds.half().unwrap() - 4.302_652_7 / 3f64.sqrt()).abs() < 1e-6);
        // One seed: rows alone. The jackknife of a mean is its standard error: here of 2, 4 and 6,
        // which are without one 5, 4 and 3; its variance 4/3.
        let rows = difference(&[4.0], &[5.0, 4.0, 3.0]);
        assert!((rows.half().unwrap() - 4.302_652_7 * (4.0 / 3.0f64).sqrt()).abs() < 1e-6);
        // Both: variances 1/3 and 4/3, 2.94 degrees of freedom.
        let both = difference(&[1.0, 2.0, 3.0], &[5.0, 4.0, 3.0]);
        let t = StudentsT::new(0.0, 1.0, 50.0 / 17.0).unwrap().inverse_cdf(0.975);
        assert!((both.half().unwrap() - t * (5.0 / 3.0f64).sqrt()).abs() < 1e-6);
        assert_eq!(difference(&[1.0], &[]).half(), None);
        // With deviation 1: 2.776 / √5 for five seeds, 1.96 / √100 or so for a hundred; rows stay.
        assert_eq!(seeds.seeds_for(1.25), Some(5));
        assert_eq!((seeds.seeds_for(0.1), both.seeds_for(2.0)), (None, None));
        let equal = difference(&[0.5, 0.5], &[]);
        assert_eq!((equal.half(), equal.winner(1.0)), (None, None), "no spread is no knowledge");
        // Splits of four training rows to a test row: variance 1/3 + 1/4.
        let splits = Difference { resampled: Some(0.25), ..difference(&[1.0, 2.0, 3.0], &[]) };
        assert!((splits.half().unwrap() - 4.302_652_7 * (7.0 / 12.0f64).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn verdicts() {
        let of =
            |mean: f64| difference(&[mean - 0.001, mean, mean + 0.001], &[]).verdict(0.003, 1.0);
        assert!(of(0.006).starts_with("reproduced"));
        assert!(of(0.0).starts_with("not reproduced"));
        assert!(of(0.004).starts_with("undecided"));
        let loss = difference(&[-0.005, -0.006, -0.007], &[]);
        assert!(loss.verdict(0.003, -1.0).starts_with("reproduced"));
        assert!(difference(&[0.1], &[]).verdict(0.003, 1.0).starts_with("undecided"));
    }

    #[test]
    fn means_need_what_all_have() {
        let (a, b) = (difference(&[1.0, 3.0], &[1.0, 2.0]), difference(&[3.0], &[3.0, 4.0]));
        assert_eq!(Difference::mean_of(&[a.clone(), b]), Some(difference(&[2.0], &[2.0, 3.0])));
        let c = difference(&[3.0, 5.0], &[]);
        assert_eq!(Difference::mean_of(&[a, c]), Some(difference(&[2.0, 4.0], &[])));
        assert_eq!(Difference::mean_of(&[]), None);
    }
}
