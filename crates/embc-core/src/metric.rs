//! Metrics: pointwise over all examples, ranking over queries.
//!
//! Equal scores count as a random order among themselves: AUC uses midranks, ranking metrics their
//! expectation over tie orders. A scheme that gives two items one row must not win by file order.

use crate::batch::Items;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

mod ranking;
mod rows;

pub use ranking::Ranking;
pub use rows::{GROUPS, RowMetrics, auc};

/// A metric of the valid or test split.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub enum Metric {
    /// Area under the ROC curve; of all examples, or of a third of them: the head's values are the
    /// most frequent in training.
    Auc(Bucket),
    /// Mean negative log likelihood, in nats.
    LogLoss,
    /// Share of examples whose likeliest class is right.
    Accuracy,
    /// Mean over classes of the harmonic mean of precision and recall.
    MacroF1,
    /// AUC of each user's examples, mean over users by their examples (Zhu et al. 2017).
    Gauc,
    /// Expected calibration error: |mean score − mean label| in 15 bins of equal width, mean by
    /// their examples.
    Ece,
    /// Mean score over mean label: 1 is calibrated.
    Calibration,
    /// A ranking metric of the first k, 0 for all; of the positives among these items.
    Ranked(Rank, u32, Bucket),
}

/// A ranking metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// Normalised discounted cumulative gain.
    Ndcg,
    /// Share of queries with a positive among the first k.
    Hr,
    /// Share of a query's positives among the first k.
    Recall,
    /// Mean of 1 over the rank of the first positive.
    Mrr,
    /// Positives among the first k over k.
    Precision,
    /// Mean over queries of average precision: the precision at each positive among the first k,
    /// over as many positives as there could be.
    Map,
}

/// Items by popularity: thirds of the training rows, from the most frequent item down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// All items.
    All,
    /// The few that make up the first third of training rows.
    Head,
    /// Those of the second third.
    Torso,
    /// The many of the last third.
    Tail,
}

impl Bucket {
    fn suffix(self) -> &'static str {
        BUCKETS.iter().find(|(_, bucket)| *bucket == self).expect("all are named").0
    }

    fn holds(self, item: u32, items: Option<Items>) -> bool {
        let of = |Items { head, torso, .. }| match item {
            item if item < head => Bucket::Head,
            item if item < torso => Bucket::Torso,
            _ => Bucket::Tail,
        };
        self == Bucket::All || items.map(of) == Some(self)
    }
}

/// Metrics of a split.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// Those that are defined.
    pub all: Vec<(Metric, f64)>,
    /// AUC and log loss without each of [`GROUPS`] groups of the examples, of the test split.
    pub without_groups: Vec<(Metric, Vec<f64>)>,
}

const RANKS: [(&str, Rank); 6] = [
    ("ndcg", Rank::Ndcg),
    ("hr", Rank::Hr),
    ("recall", Rank::Recall),
    ("mrr", Rank::Mrr),
    ("precision", Rank::Precision),
    ("map", Rank::Map),
];
/// Metrics without a cut or a part.
const PLAIN: [(&str, Metric); 6] = [
    ("logloss", Metric::LogLoss),
    ("accuracy", Metric::Accuracy),
    ("macro-f1", Metric::MacroF1),
    ("gauc", Metric::Gauc),
    ("ece", Metric::Ece),
    ("calibration", Metric::Calibration),
];
const BUCKETS: [(&str, Bucket); 4] = [
    ("", Bucket::All),
    ("/head", Bucket::Head),
    ("/torso", Bucket::Torso),
    ("/tail", Bucket::Tail),
];

/// What `embc list metrics` prints.
pub const DOCS: &[(&str, &str)] = &[
    ("auc", "area under the ROC curve; equal scores count half"),
    (
        "auc/tail",
        "of the third of examples whose values are the rarest in training, on average over fields; also /torso and /head",
    ),
    ("logloss", "mean binary or multinomial cross-entropy in nats; lower is better"),
    ("accuracy", "share of examples whose likeliest class is right"),
    ("macro-f1", "F1 of each class, mean over classes"),
    ("gauc", "AUC of each user's examples, mean over users with both labels, by their examples"),
    (
        "ece",
        "expected calibration error: |mean probability - share of positives| in 15 bins of equal width; lower is better",
    ),
    ("calibration", "mean probability over the share of positives; 1 is best"),
    (
        "ndcg@k",
        "DCG of the first k candidates over the ideal DCG, mean over queries; ndcg is uncut",
    ),
    ("hr@k", "share of queries with a positive among the first k candidates"),
    ("recall@k", "share of a query's positives among the first k candidates"),
    ("mrr@k", "1 over the rank of the first positive, 0 beyond k; mrr is uncut"),
    ("precision@k", "positives among the first k candidates, over k"),
    (
        "map@k",
        "precision at the rank of each positive within k, summed, over min(positives, k); map is uncut",
    ),
    (
        "ndcg@k/tail",
        "a ranking metric of the tail's positives alone: /head, /torso and /tail are thirds of the training rows, by popularity",
    ),
];

impl Metric {
    /// True for metrics over candidates.
    pub fn is_ranking(self) -> bool {
        matches!(self, Metric::Ranked(..))
    }

    /// True for metrics that only labels 0 and 1 have.
    pub fn is_binary(self) -> bool {
        matches!(self, Metric::Auc(_) | Metric::Gauc | Metric::Ece | Metric::Calibration)
    }

    /// True where more is better.
    pub fn higher_is_better(self) -> bool {
        !matches!(self, Metric::LogLoss | Metric::Ece)
    }

    /// True if `new` beats `old`; ties go to the earlier epoch.
    pub fn better(self, new: f64, old: f64) -> bool {
        match self {
            Metric::Calibration => (new - 1.0).abs() < (old - 1.0).abs(),
            _ if self.higher_is_better() => new > old,
            _ => new < old,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Auc(bucket) => f.pad(&format!("auc{}", bucket.suffix())),
            Metric::Ranked(rank, k, bucket) => {
                let (name, _) = RANKS.iter().find(|(_, r)| r == rank).expect("all are named");
                let part = bucket.suffix();
                match k {
                    0 => f.pad(&format!("{name}{part}")),
                    k => f.pad(&format!("{name}@{k}{part}")),
                }
            }
            plain => {
                let named = PLAIN.iter().find(|(_, metric)| metric == plain);
                f.pad(named.expect("all are named").0)
            }
        }
    }
}

impl FromStr for Metric {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = PLAIN.iter().find(|(name, _)| *name == text).map(|(_, metric)| *metric);
        let bucketed = || {
            let (name, part) = text.split_at(text.find('/').unwrap_or(text.len()));
            let (_, bucket) = BUCKETS.into_iter().find(|(known, _)| *known == part)?;
            if name == "auc" {
                return Some(Metric::Auc(bucket));
            }
            let (name, k) = name.split_once('@').map_or((name, None), |(n, k)| (n, Some(k)));
            let k = k.map_or(Some(0), |k| k.parse().ok().filter(|&k| k > 0))?;
            let (_, rank) = RANKS.into_iter().find(|(known, _)| *known == name)?;
            // Uncut, the first two are 1, and precision is the share of positives.
            let trivial = k == 0 && matches!(rank, Rank::Hr | Rank::Recall | Rank::Precision);
            (!trivial).then_some(Metric::Ranked(rank, k, bucket))
        };
        plain.or_else(bucketed).ok_or_else(|| {
            let known: Vec<&str> = DOCS.iter().map(|(name, _)| *name).collect();
            format!("unknown metric \"{text}\", expected one of {}", known.join(", "))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in [
            "auc",
            "auc/tail",
            "logloss",
            "accuracy",
            "macro-f1",
            "ndcg",
            "ndcg@10/tail",
            "hr@1",
            "mrr",
            "map",
            "map@5/head",
            "precision@3",
            "gauc",
            "ece",
            "calibration",
        ] {
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
        }
        for name in ["auk", "hr", "precision", "ndcg@0", "auc@3", "ndcg@x", "ndcg/feet", "auc/feet"]
        {
            assert!(name.parse::<Metric>().is_err(), "{name}");
        }
    }
}
