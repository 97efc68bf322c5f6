//! What rows are for: the registry of tasks, and what a score of one says.

use crate::table::Rows;
use crate::words::Index;
use anyhow::Result;
use embc_core::cancel::Cancel;
use embc_core::rng::Rng;
use embc_lab::estimate::Estimate;

mod analogy;
mod classify;
mod command;
mod similarity;

/// All kinds of tasks. A new one is a file and a line here.
pub static KINDS: &[&dyn Kind] =
    &[&similarity::Similarity, &analogy::Analogy, &classify::Classify, &command::Command];

/// A kind of task.
pub trait Kind: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What it reads and scores, in a line.
    fn doc(&self) -> &'static str;
    /// True where it looks words up.
    fn needs_words(&self) -> bool {
        true
    }
    /// Reads a task's file, or takes its command.
    fn open(&self, of: &str, words: &Index) -> Result<Box<dyn Task>>;
}

/// The kind called `name`.
pub fn find(name: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

/// A task.
pub trait Task: Send + Sync {
    /// What it is called in tables.
    fn name(&self) -> String;
    /// What its score is: a correlation, a share.
    fn metric(&self) -> &'static str;
    /// What it has, and what is left out of it, in words.
    fn about(&self) -> String;
    /// Scores rows of a table of such a shape.
    fn score(&self, rows: &dyn Rows, shape: [usize; 2], cancel: &Cancel) -> Result<Scores>;
}

/// What a task says of a table: item by item, so that two tables are compared on the same ones.
pub enum Scores {
    /// A score is the mean of its items.
    Mean(Vec<f32>),
    /// A score is the rank correlation of items with what people said of them.
    Rank {
        /// What people said.
        wanted: Vec<f32>,
        /// What the table says.
        said: Vec<f32>,
    },
    /// A score of each of several draws of training and test data.
    Draws {
        /// A score each.
        values: Vec<f64>,
        /// Scored items for each that was trained on.
        scored: f64,
    },
    /// A score alone.
    One(f64),
}

/// Draws of items for an interval.
const RESAMPLES: usize = 400;

impl Scores {
    /// The score.
    pub fn value(&self) -> f64 {
        self.of(&self.all())
    }

    /// The score on the half of items by which a form is chosen (0), or on the other one (1).
    pub fn half(&self, which: usize) -> f64 {
        let some = self.items(which);
        if some.len() < 2 { self.value() } else { self.of(&some) }
    }

    /// This score less that of `full`, and half of its 95 % interval, on the items that did not choose;
    /// none where there is but one item.
    pub fn against(&self, full: &Scores) -> (f64, Option<f64>) {
        let judged = self.items(1);
        match (self, full) {
            (Scores::One(a), Scores::One(b)) => (a - b, None),
            (Scores::Draws { values, scored }, Scores::Draws { values: base, .. }) => {
                let of = |i: &usize| values[*i] - base[*i];
                let differences: Vec<f64> = judged.iter().map(of).collect();
                let mean = differences.iter().sum::<f64>() / differences.len().max(1) as f64;
                (mean, Estimate::over_splits(&differences, *scored).and_then(|e| e.half))
            }
            _ => {
                let difference = |some: &[usize]| self.of(some) - full.of(some);
                let mut rng = Rng::stream(1, "resample");
                let mut draws: Vec<f64> = (0..RESAMPLES)
                    .map(|_| {
                        let draw = |_| judged[rng.below(judged.len() as u64) as usize];
                        difference(&(0..judged.len()).map(draw).collect::<Vec<usize>>())
                    })
                    .collect();
                draws.sort_by(f64::total_cmp);
                let at = |share: f64| draws[((RESAMPLES - 1) as f64 * share) as usize];
                (difference(&judged), Some((at(0.975) - at(0.025)) / 2.0))
            }
        }
    }

    /// The items of a half: every second draw; else as a hash says, since files are in some order.
    fn items(&self, which: usize) -> Vec<usize> {
        let half = |i: usize| match self {
            Scores::Draws { .. } => i % 2,
            _ => (embc_core::hash::mix64(i as u64) & 1) as usize,
        };
        self.all().into_iter().filter(|i| half(*i) == which).collect()
    }

    fn all(&self) -> Vec<usize> {
        let n = match self {
            Scores::Mean(items) => items.len(),
            Scores::Rank { said, .. } => said.len(),
            Scores::Draws { values, .. } => values.len(),
            Scores::One(_) => 1,
        };
        (0..n).collect()
    }

    fn of(&self, some: &[usize]) -> f64 {
        match self {
            Scores::Mean(items) => {
                some.iter().map(|&i| f64::from(items[i])).sum::<f64>() / some.len().max(1) as f64
            }
            Scores::Rank { wanted, said } => spearman(
                &some.iter().map(|&i| wanted[i]).collect::<Vec<f32>>(),
                &some.iter().map(|&i| said[i]).collect::<Vec<f32>>(),
            ),
            Scores::Draws { values, .. } => {
                some.iter().map(|&i| values[i]).sum::<f64>() / some.len().max(1) as f64
            }
            Scores::One(value) => *value,
        }
    }
}

/// Spearman's rank correlation; equal values share the mean of their ranks.
pub fn spearman(a: &[f32], b: &[f32]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    if scale > 0.0 { product(&a, &b) / scale } else { 0.0 }
}

fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + (group.len() as f64 - 1.0) / 2.0;
        group.iter().for_each(|&i| ranks[i] = rank);
        first += group.len();
    }
    ranks
}

/// The name of a task's file, without folders and ending.
fn stem(path: &str) -> String {
    let stem = std::path::Path::new(path).file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_correlations_are_those_of_scipy() {
        // scipy.stats.spearmanr
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]) - 0.8).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 2.0, 4.0], &[3.0, 1.0, 2.0, 2.0]) + 0.5).abs() < 1e-12);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }

    #[test]
    fn a_difference_has_the_interval_of_items_that_did_not_choose() {
        let full = Scores::Mean(vec![1.0; 1000]);
        assert_eq!(Scores::Mean(vec![1.0; 1000]).against(&full), (0.0, Some(0.0)));
        let some = Scores::Mean((0..1000).map(|i| (i % 2) as f32).collect());
        let (difference, half) = some.against(&full);
        // A share of one half of about 500: 1.96 / (2 √500).
        assert!((difference + 0.5).abs() < 0.06, "{difference}");
        assert!((half.unwrap() - 0.0438).abs() < 0.008, "{half:?}");
        assert_eq!(Scores::One(0.5).against(&Scores::One(0.75)), (-0.25, None));
    }
}
