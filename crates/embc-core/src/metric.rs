//! Metrics: pointwise over all examples, ranking over queries.
//!
//! Equal scores count as a random order among themselves: AUC uses midranks, ranking metrics their
//! expectation over tie orders. A scheme that gives two items one row must not win by file order.

use crate::loss::{bce, cross_entropy};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A metric of the valid or test split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Metric {
    /// Area under the ROC curve.
    Auc,
    /// Mean negative log likelihood, in nats.
    LogLoss,
    /// Share of examples whose likeliest class is right.
    Accuracy,
    /// Normalised discounted cumulative gain of the first k; 0 means uncut.
    Ndcg(u32),
    /// Share of queries with a positive among the first k.
    Hr(u32),
    /// Share of a query's positives among the first k.
    Recall(u32),
}

/// What `embc list metrics` prints.
pub const DOCS: &[(&str, &str)] = &[
    ("auc", "area under the ROC curve; equal scores count half"),
    ("logloss", "mean binary or multinomial cross-entropy in nats; lower is better"),
    ("accuracy", "share of examples whose likeliest class is right"),
    (
        "ndcg@k",
        "DCG of the first k candidates over the ideal DCG, mean over queries; ndcg is uncut",
    ),
    ("hr@k", "share of queries with a positive among the first k candidates"),
    ("recall@k", "share of a query's positives among the first k candidates"),
];

impl Metric {
    /// True for metrics over groups of candidates.
    pub fn is_ranking(self) -> bool {
        matches!(self, Metric::Ndcg(_) | Metric::Hr(_) | Metric::Recall(_))
    }

    /// True where more is better.
    pub fn higher_is_better(self) -> bool {
        self != Metric::LogLoss
    }

    /// True if `new` beats `old`; ties go to the earlier epoch.
    pub fn better(self, new: f64, old: f64) -> bool {
        if self.higher_is_better() { new > old } else { new < old }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Auc => f.pad("auc"),
            Metric::LogLoss => f.pad("logloss"),
            Metric::Accuracy => f.pad("accuracy"),
            Metric::Ndcg(0) => f.pad("ndcg"),
            Metric::Ndcg(k) => f.pad(&format!("ndcg@{k}")),
            Metric::Hr(k) => f.pad(&format!("hr@{k}")),
            Metric::Recall(k) => f.pad(&format!("recall@{k}")),
        }
    }
}

impl FromStr for Metric {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, k) = text.split_once('@').map_or((text, None), |(name, k)| (name, Some(k)));
        let k = k.map(|k| k.parse().ok().filter(|&k| k > 0)).map_or(Some(0), |k| k);
        match (name, k) {
            ("auc", Some(0)) => Ok(Metric::Auc),
            ("logloss", Some(0)) => Ok(Metric::LogLoss),
            ("accuracy", Some(0)) => Ok(Metric::Accuracy),
            ("ndcg", Some(k)) => Ok(Metric::Ndcg(k)),
            ("hr", Some(k @ 1..)) => Ok(Metric::Hr(k)),
            ("recall", Some(k @ 1..)) => Ok(Metric::Recall(k)),
            _ => {
                let known: Vec<&str> = DOCS.iter().map(|(name, _)| *name).collect();
                Err(format!("unknown metric \"{text}\", expected one of {}", known.join(", ")))
            }
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

/// Area under the ROC curve, with midranks for ties; NaN unless both classes occur.
pub fn auc(scores: &[f32], labels: &[f32]) -> f64 {
    let mut all: Vec<u64> = scores.iter().zip(labels).map(|(&s, &l)| scored(s, l)).collect();
    auc_of(&mut all)
}

/// A score and its label in one number that sorts as the score does.
fn scored(score: f32, label: f32) -> u64 {
    // Zeros of both signs are equal scores.
    let bits = (score + 0.0).to_bits();
    let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    u64::from(ordered) << 1 | u64::from(label > 0.5)
}

/// The AUC of [`scored`] examples, which are sorted in place.
fn auc_of(all: &mut [u64]) -> f64 {
    all.par_sort_unstable();
    let (mut rank_sum, mut positives, mut before) = (0.0, 0u64, 0u64);
    for ties in all.chunk_by(|a, b| a >> 1 == b >> 1) {
        // Positives sort behind the negatives of equal score.
        let hits = ties.len() - ties.partition_point(|tied| tied & 1 == 0);
        let midrank = before as f64 + (ties.len() as f64 + 1.0) / 2.0;
        rank_sum += hits as f64 * midrank;
        positives += hits as u64;
        before += ties.len() as u64;
    }
    let negatives = before - positives;
    (rank_sum - positives as f64 * (positives as f64 + 1.0) / 2.0)
        / (positives as f64 * negatives as f64)
}

/// Collects scores of examples on their own.
#[derive(Default)]
pub struct Pointwise {
    /// Eight bytes an example, as much as its score and label take.
    scored: Vec<u64>,
    loss: f64,
    right: u64,
    examples: u64,
}

impl Pointwise {
    /// Takes logits [B × outputs] and labels [B].
    pub fn add(&mut self, logits: &[f32], labels: &[f32]) {
        let outputs = logits.len() / labels.len().max(1);
        for (logits, &label) in logits.chunks_exact(outputs.max(1)).zip(labels) {
            self.examples += 1;
            if outputs == 1 {
                self.loss += bce(logits[0], label);
                self.right += u64::from((logits[0] > 0.0) == (label > 0.5));
                self.scored.push(scored(logits[0], label));
            } else {
                let class = label as usize;
                self.loss += cross_entropy(logits, class);
                let best = (0..outputs).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                self.right += u64::from(best == Some(class));
            }
        }
    }

    /// The value of a pointwise metric; NaN where it is not defined.
    pub fn value(&mut self, metric: Metric) -> f64 {
        match metric {
            Metric::Auc => auc_of(&mut self.scored),
            Metric::LogLoss => self.loss / self.examples as f64,
            Metric::Accuracy => self.right as f64 / self.examples as f64,
            _ => f64::NAN,
        }
    }
}

/// Collects scores of candidates, query after query.
pub struct Ranking {
    metrics: Vec<Metric>,
    sums: Vec<f64>,
    queries: u64,
    group: Option<u32>,
    /// Score and relevance of the current query's candidates.
    candidates: Vec<(f32, bool)>,
}

impl Ranking {
    /// A collector of the given ranking metrics.
    pub fn new(metrics: impl Iterator<Item = Metric>) -> Self {
        let metrics: Vec<Metric> = metrics.filter(|m| m.is_ranking()).collect();
        let sums = vec![0.0; metrics.len()];
        Self { metrics, sums, queries: 0, group: None, candidates: Vec::new() }
    }

    /// Takes scores, relevances and queries [B]; a query's candidates come in one run, which may
    /// span batches.
    pub fn add(&mut self, scores: &[f32], labels: &[f32], groups: &[u32]) {
        for ((&score, &label), &group) in scores.iter().zip(labels).zip(groups) {
            if self.group != Some(group) {
                self.close();
                self.group = Some(group);
            }
            self.candidates.push((score, label > 0.5));
        }
    }

    fn close(&mut self) {
        let relevant = self.candidates.iter().filter(|c| c.1).count();
        if relevant > 0 {
            self.candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            for (sum, &metric) in self.sums.iter_mut().zip(&self.metrics) {
                *sum += query(metric, &self.candidates, relevant);
            }
            self.queries += 1;
        }
        self.candidates.clear();
    }

    /// The metrics' means over queries.
    pub fn values(mut self) -> Vec<(Metric, f64)> {
        self.close();
        let mean = |sum: &f64| sum / self.queries as f64;
        self.metrics.iter().copied().zip(self.sums.iter().map(mean)).collect()
    }
}

fn discount(rank: usize) -> f64 {
    1.0 / ((rank + 2) as f64).log2()
}

/// One query's metric, expected over the orders of equal scores. `ranked` is sorted, best first.
fn query(metric: Metric, ranked: &[(f32, bool)], relevant: usize) -> f64 {
    let k = match metric {
        Metric::Ndcg(0) => ranked.len(),
        Metric::Ndcg(k) | Metric::Hr(k) | Metric::Recall(k) => (k as usize).min(ranked.len()),
        _ => unreachable!("not a ranking metric"),
    };
    let (mut value, mut missed, mut before) = (0.0, 1.0, 0);
    for ties in ranked.chunk_by(|a, b| a.0 == b.0) {
        if before >= k {
            break;
        }
        let hits = ties.iter().filter(|c| c.1).count();
        let slots = ties.len().min(k - before);
        if hits > 0 {
            let share = hits as f64 / ties.len() as f64;
            value += match metric {
                Metric::Ndcg(_) => share * (before..before + slots).map(discount).sum::<f64>(),
                _ => share * slots as f64,
            };
            // The chance that none of the hits is drawn into the slots.
            let others = ties.len() - hits;
            missed *= (0..slots)
                .map(|i| others.saturating_sub(i) as f64 / (ties.len() - i) as f64)
                .product::<f64>();
        }
        before += ties.len();
    }
    match metric {
        Metric::Ndcg(_) => value / (0..relevant.min(k)).map(discount).sum::<f64>(),
        Metric::Hr(_) => 1.0 - missed,
        _ => value / relevant as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_worked_numbers() {
        assert_eq!(auc(&[0.1, 0.4, 0.35, 0.8], &[0.0, 0.0, 1.0, 1.0]), 0.75);
        assert_eq!(auc(&[1.0, 1.0, 1.0], &[0.0, 1.0, 0.0]), 0.5);
        assert_eq!(auc(&[1.0, 2.0, 2.0, 3.0], &[0.0, 0.0, 1.0, 1.0]), 0.875);
        assert!(auc(&[1.0], &[1.0]).is_nan());
        assert_eq!(auc(&[-1.0, -2.0, 3.0, 0.0, -0.0], &[1.0, 0.0, 1.0, 0.0, 1.0]), 4.5 / 6.0);
    }

    /// Against the definition: the share of pairs in the right order.
    #[test]
    fn auc_counts_pairs() {
        let mut rng = crate::rng::Rng::stream(1, "auc");
        let scores: Vec<f32> = (0..300).map(|_| (rng.below(100) as f32 - 50.0) / 7.0).collect();
        let labels: Vec<f32> = (0..300).map(|_| rng.below(2) as f32).collect();
        let (mut right, mut pairs) = (0.0, 0.0);
        for i in (0..300).filter(|&i| labels[i] == 1.0) {
            for j in (0..300).filter(|&j| labels[j] == 0.0) {
                pairs += 1.0;
                right += match scores[i].total_cmp(&scores[j]) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        assert!((auc(&scores, &labels) - right / pairs).abs() < 1e-12);
    }

    #[track_caller]
    fn check(metric: &str, scores: &[f32], labels: &[f32], expect: f64) {
        let metric: Metric = metric.parse().unwrap();
        let mut ranking = Ranking::new([metric].into_iter());
        // Split in two batches: a group may span them.
        let groups = vec![7; scores.len()];
        ranking.add(&scores[..1], &labels[..1], &groups[..1]);
        ranking.add(&scores[1..], &labels[1..], &groups[1..]);
        let value = ranking.values()[0].1;
        assert!((value - expect).abs() < 1e-12, "{metric}: {value}");
    }

    #[test]
    fn ranking_worked_numbers() {
        let (scores, labels) = ([4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 0.0, 1.0]);
        check("hr@1", &scores, &labels, 0.0);
        check("hr@2", &scores, &labels, 1.0);
        check("recall@2", &scores, &labels, 0.5);
        check("recall@9", &scores, &labels, 1.0);
        let ideal = 1.0 + 1.0 / 3f64.log2();
        check("ndcg@2", &scores, &labels, 1.0 / 3f64.log2() / ideal);
        check("ndcg", &scores, &labels, (1.0 / 3f64.log2() + 1.0 / 5f64.log2()) / ideal);
    }

    #[test]
    fn ties_count_as_a_random_order() {
        // One positive among four equal scores: in the first two with chance 1/2.
        let (scores, labels) = ([1.0; 4], [0.0, 0.0, 0.0, 1.0]);
        check("hr@2", &scores, &labels, 0.5);
        check("recall@2", &scores, &labels, 0.5);
        check("ndcg@2", &scores, &labels, (1.0 + 1.0 / 3f64.log2()) / 4.0);
        // Two positives among three equal: missed by one slot with chance 1/3.
        check("hr@1", &[1.0; 3], &[1.0, 1.0, 0.0], 2.0 / 3.0);
        check("hr@2", &[1.0; 3], &[1.0, 1.0, 0.0], 1.0);
    }

    #[test]
    fn names_round_trip() {
        for name in ["auc", "logloss", "accuracy", "ndcg", "ndcg@10", "hr@1", "recall@20"] {
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
        }
        for name in ["auk", "hr", "ndcg@0", "auc@3", "ndcg@x"] {
            assert!(name.parse::<Metric>().is_err(), "{name}");
        }
    }
}
