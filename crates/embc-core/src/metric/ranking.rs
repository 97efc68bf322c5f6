//! Metrics of queries: positives among their candidates. This text is what every ranking follows.
//!
//! * A query is a user of the data, known to training or not, or one of a user's positives where
//!   candidates are sampled or given, or differ from row to row.
//! * It wants the user's positives of the split, each item once. What the user had before (in
//!   training; for the test also in validation) is a repeat: neither wanted nor a candidate.
//! * Candidates are the items that training knows and the user has not had, or a sample of them
//!   without replacement. An item that was rated low was had too.
//! * A wanted item that training does not know cannot be ranked: it is wanted, and missed. The ideal
//!   DCG is over all that is wanted, whether it can be ranked or not.
//! * Equal scores count as a random order; k may exceed the candidates. Precision divides by k.
//! * A query that wants nothing (in a bucket: nothing of that bucket) does not count.

use super::{Bucket, Metric, Rank};
use crate::batch::{Bag, Batch, Items};
use crate::linalg::vectorised;
use rayon::prelude::*;

/// A positive of a query.
#[derive(Clone, Copy)]
struct Hit {
    item: u32,
    score: f32,
    /// Candidates of a higher score.
    before: usize,
    /// Candidates of this score, itself included.
    ties: usize,
}

/// A query's positives, best first.
struct Query<'a> {
    hits: &'a [Hit],
    /// Positives that no score can be given: unknown items.
    unknown: usize,
}

/// Collects scores of candidates, query after query.
pub struct Ranking {
    metrics: Vec<Metric>,
    items: Option<Items>,
    sums: Vec<f64>,
    /// Queries that have a positive for the metric.
    queries: Vec<u64>,
    group: Option<u32>,
    /// Positives of the current query that are unknown items.
    unknown: usize,
    /// Score, relevance and item of the current query's candidates.
    candidates: Vec<(f32, bool, u32)>,
}

impl Ranking {
    /// A collector of the given ranking metrics. Without `items` there are no buckets.
    pub fn new(metrics: impl Iterator<Item = Metric>, items: Option<Items>) -> Self {
        let metrics: Vec<Metric> = metrics.filter(|m| m.is_ranking()).collect();
        let (sums, queries) = (vec![0.0; metrics.len()], vec![0; metrics.len()]);
        Self { metrics, items, sums, queries, group: None, unknown: 0, candidates: Vec::new() }
    }

    /// Takes scores [B] of a batch of candidates; a query's come in one run, which may span
    /// batches.
    pub fn add(&mut self, scores: &[f32], batch: &Batch) {
        let ids = self.items.map(|items| &batch.fields[items.field].ids[..]);
        for (i, &score) in scores.iter().enumerate() {
            let group = batch.groups[i];
            if self.group != Some(group) {
                self.close();
                self.group = Some(group);
            }
            let (item, positive) = (ids.map_or(0, |ids| ids[i]), batch.labels[i] > 0.5);
            if positive && self.items.is_some_and(|items| item >= items.known) {
                self.unknown += 1;
            } else {
                self.candidates.push((score, positive, item));
            }
        }
    }

    /// Takes logits [B × items] of a batch of queries; those of items that are not ranked are lost.
    pub fn add_queries(&mut self, logits: &mut [f32], batch: &Batch) {
        let (items, metrics) = (logits.len() / batch.size, &self.metrics);
        let of = |(i, logits): (usize, &mut [f32])| -> Vec<f64> {
            let of = |bag: &Bag| bag.range(i);
            let known = &batch.seen.ids[of(&batch.seen)];
            known.iter().for_each(|&item| logits[item as usize] = f32::NEG_INFINITY);
            let targets = &batch.targets.ids[of(&batch.targets)];
            let chosen: Vec<f32>;
            let scores = match batch.candidates.offsets.is_empty() {
                true => &*logits,
                false => {
                    let ids = &batch.candidates.ids[of(&batch.candidates)];
                    chosen = ids.iter().map(|&id| logits[id as usize]).collect();
                    &chosen[..]
                }
            };
            let ranked = targets.iter().filter(|&&item| (item as usize) < items);
            let hit = |&item: &u32| {
                let score = logits[item as usize];
                let (before, ties) = rank(scores, score);
                Hit { item, score, before, ties }
            };
            let mut hits: Vec<Hit> = ranked.map(hit).collect();
            hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item)));
            let query = Query { hits: &hits, unknown: targets.len() - hits.len() };
            metrics.iter().map(|&metric| query.value(metric, self.items)).collect()
        };
        let values: Vec<Vec<f64>> =
            logits.par_chunks_exact_mut(items).enumerate().map(of).collect();
        values.iter().for_each(|values| self.count(values));
    }

    /// Adds a query's values; NaN is none.
    fn count(&mut self, values: &[f64]) {
        let all = self.sums.iter_mut().zip(&mut self.queries).zip(values);
        for ((sum, queries), value) in all.filter(|(_, value)| !value.is_nan()) {
            *sum += value;
            *queries += 1;
        }
    }

    fn close(&mut self) {
        self.candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)));
        let (mut hits, mut before) = (Vec::new(), 0);
        for ties in self.candidates.chunk_by(|a, b| a.0 == b.0) {
            let positive = ties.iter().filter(|candidate| candidate.1);
            hits.extend(positive.map(|&(score, _, item)| Hit {
                item,
                score,
                before,
                ties: ties.len(),
            }));
            before += ties.len();
        }
        let unknown = std::mem::take(&mut self.unknown);
        let query = Query { hits: &hits, unknown };
        let values: Vec<f64> = self.metrics.iter().map(|&m| query.value(m, self.items)).collect();
        self.count(&values);
        self.candidates.clear();
    }

    /// The metrics' means over queries.
    pub fn values(mut self) -> Vec<(Metric, f64)> {
        self.close();
        let means = self.sums.iter().zip(&self.queries).map(|(sum, &n)| sum / n as f64);
        self.metrics.iter().copied().zip(means).collect()
    }
}

/// How many scores are higher, and how many equal.
fn rank(scores: &[f32], score: f32) -> (usize, usize) {
    vectorised(
        #[inline(always)]
        || {
            let (mut higher, mut equal) = (0, 0);
            // Counters as wide as scores, in blocks that they cannot overflow in.
            for scores in scores.chunks(1 << 20) {
                let (mut more, mut same) = (0u32, 0u32);
                for &x in scores {
                    more += u32::from(x > score);
                    same += u32::from(x == score);
                }
                higher += more as usize;
                equal += same as usize;
            }
            (higher, equal)
        },
    )
}

fn discount(rank: usize) -> f64 {
    1.0 / ((rank + 2) as f64).log2()
}

impl Query<'_> {
    /// A metric, expected over the orders of equal scores; NaN without positives.
    fn value(&self, metric: Metric, items: Option<Items>) -> f64 {
        let Metric::Ranked(rank, k, bucket) = metric else { return f64::NAN };
        let wanted = |hit: &&Hit| bucket.holds(hit.item, items);
        let unknown = if bucket == Bucket::All { self.unknown } else { 0 };
        let relevant = self.hits.iter().filter(wanted).count() + unknown;
        if relevant == 0 {
            return f64::NAN;
        }
        let k = if k == 0 { usize::MAX } else { k as usize };
        let (mut value, mut missed, mut found) = (0.0, 1.0, 0.0);
        for tied in self.hits.chunk_by(|a, b| a.score == b.score) {
            let Hit { before, ties, .. } = tied[0];
            if before >= k {
                break;
            }
            let hits = tied.iter().filter(wanted).count();
            if hits == 0 {
                continue;
            }
            let slots = ties.min(k - before);
            let share = hits as f64 / ties as f64;
            // The chance that none of the hits is drawn into the slots before this one.
            let none = |slots: usize| -> f64 {
                let others = ties - hits;
                let miss = |i| others.saturating_sub(i) as f64 / (ties - i) as f64;
                (0..slots).map(miss).product()
            };
            match rank {
                Rank::Ndcg => value += share * (before..before + slots).map(discount).sum::<f64>(),
                Rank::Recall | Rank::Precision => value += share * slots as f64,
                Rank::Map => {
                    // At slot i a hit is expected to have `found` before the ties, and this many
                    // among those before it.
                    let among = |i: usize| i as f64 * (hits - 1) as f64 / (ties - 1).max(1) as f64;
                    let precision = |i: usize| (found + 1.0 + among(i)) / (before + i + 1) as f64;
                    value += share * (0..slots).map(precision).sum::<f64>();
                    found += hits as f64;
                }
                Rank::Hr => missed *= none(slots),
                Rank::Mrr => {
                    let first = |i: usize| {
                        let here = hits as f64 / (ties - i) as f64;
                        none(i) * here / (before + i + 1) as f64
                    };
                    return (0..slots.min(ties - hits + 1)).map(first).sum();
                }
            }
        }
        match rank {
            Rank::Ndcg => value / (0..relevant.min(k)).map(discount).sum::<f64>(),
            Rank::Recall => value / relevant as f64,
            Rank::Precision => value / k as f64,
            Rank::Map => value / relevant.min(k) as f64,
            Rank::Hr => 1.0 - missed,
            Rank::Mrr => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By candidates in two batches, which a group may span, and as one query over all items.
    #[track_caller]
    fn check(metric: &str, scores: &[f32], labels: &[f32], expect: f64) {
        let metric: Metric = metric.parse().unwrap();
        // Item 0 is the head, 1 and 2 are the torso.
        let items = Some(Items { field: 0, head: 1, torso: 3, known: 9 });
        let mut ranking = Ranking::new([metric].into_iter(), items);
        for range in [0..1, 1..scores.len()] {
            let ids = range.clone().map(|i| i as u32).collect();
            let fields = vec![Bag { ids, offsets: Vec::new() }];
            let (labels, groups) = (labels[range.clone()].to_vec(), vec![7; range.len()]);
            let batch = Batch { size: range.len(), fields, labels, groups, ..Batch::default() };
            ranking.add(&scores[range], &batch);
        }
        let value = ranking.values()[0].1;
        assert!((value - expect).abs() < 1e-12, "{metric}: {value}");

        let bag = |ids: Vec<u32>| Bag { offsets: vec![0, ids.len() as u32], ids };
        let last = scores.len() as u32;
        let targets = bag((0..last).filter(|&i| labels[i as usize] > 0.5).collect());
        // An item that the user has, with the best score of all.
        let known = bag(vec![last]);
        let mut ranking = Ranking::new([metric].into_iter(), items);
        let mut logits = [scores, &[1e9]].concat();
        let candidates = bag((0..last).collect());
        let all = Batch { size: 1, targets, seen: known, ..Batch::default() };
        ranking.add_queries(&mut logits, &all);
        ranking.add_queries(&mut [scores, &[1e9]].concat(), &Batch { candidates, ..all });
        assert_eq!(ranking.queries, [2]);
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
        check("mrr", &scores, &labels, 0.5);
        check("mrr@1", &scores, &labels, 0.0);
        check("precision@2", &scores, &labels, 0.5);
        check("precision@8", &scores, &labels, 0.25);
        check("map", &scores, &labels, 0.5);
        check("map@2", &scores, &labels, 0.25);
        let ideal = 1.0 + 1.0 / 3f64.log2();
        check("ndcg@2", &scores, &labels, 1.0 / 3f64.log2() / ideal);
        check("ndcg", &scores, &labels, (1.0 / 3f64.log2() + 1.0 / 5f64.log2()) / ideal);
        check("ndcg/torso", &scores, &labels, 1.0 / 3f64.log2());
        check("ndcg@2/tail", &scores, &labels, 0.0);
        check("hr@4/tail", &scores, &labels, 1.0);
    }

    #[test]
    fn an_unknown_positive_is_a_miss() {
        let bag = |ids: Vec<u32>| Bag { offsets: vec![0, ids.len() as u32], ids };
        let metrics = ["recall@1", "ndcg@1/head", "hr@1/tail"].map(|name| name.parse().unwrap());
        let items = Some(Items { field: 0, head: 1, torso: 2, known: 2 });
        let mut ranking = Ranking::new(metrics.into_iter(), items);
        let (targets, known) = (bag(vec![0, 2]), bag(vec![]));
        let batch = Batch { size: 1, targets, seen: known, ..Batch::default() };
        ranking.add_queries(&mut [1.0, 0.0], &batch);
        assert_eq!(ranking.queries, [1, 1, 0], "no positive is in the tail");
        let values: Vec<f64> = ranking.values().into_iter().map(|(_, value)| value).collect();
        assert!(values[..2] == [0.5, 1.0] && values[2].is_nan());
        // The same by candidates, of which the unknown one has the best score.
        let metrics = ["recall@1", "ndcg", "hr@1/tail"].map(|name| name.parse().unwrap());
        let mut ranking = Ranking::new(metrics.into_iter(), items);
        let fields = vec![Bag { ids: vec![1, 0, 2], offsets: Vec::new() }];
        let (labels, groups) = (vec![0.0, 1.0, 1.0], vec![1; 3]);
        let batch = Batch { size: 3, fields, labels, groups, ..Batch::default() };
        ranking.add(&[0.5, 1.0, 9.0], &batch);
        let values: Vec<f64> = ranking.values().into_iter().map(|(_, value)| value).collect();
        let ideal = 1.0 + 1.0 / 3f64.log2();
        assert!(values[0] == 0.5 && (values[1] - 1.0 / ideal).abs() < 1e-12 && values[2].is_nan());
    }

    #[test]
    fn ties_count_as_a_random_order() {
        // One positive among four equal scores: in the first two with chance 1/2.
        let (scores, labels) = ([1.0; 4], [0.0, 0.0, 0.0, 1.0]);
        check("hr@2", &scores, &labels, 0.5);
        check("recall@2", &scores, &labels, 0.5);
        check("ndcg@2", &scores, &labels, (1.0 + 1.0 / 3f64.log2()) / 4.0);
        check("mrr", &scores, &labels, (1.0 + 0.5 + 1.0 / 3.0 + 0.25) / 4.0);
        check("mrr@2", &scores, &labels, 1.5 / 4.0);
        check("map", &scores, &labels, (1.0 + 0.5 + 1.0 / 3.0 + 0.25) / 4.0);
        // Two of three: at 1 and 2, 1 and 3, or 2 and 3.
        let orders = (1.0 + (1.0 + 2.0 / 3.0) / 2.0 + (0.5 + 2.0 / 3.0) / 2.0) / 3.0;
        check("map", &[1.0; 3], &[1.0, 1.0, 0.0], orders);
        // Two of three: first with chance 2/3, else second.
        check("mrr", &[1.0; 3], &[1.0, 1.0, 0.0], 2.0 / 3.0 + 1.0 / 6.0);
        // Two positives among three equal: missed by one slot with chance 1/3.
        check("hr@1", &[1.0; 3], &[1.0, 1.0, 0.0], 2.0 / 3.0);
        check("hr@2", &[1.0; 3], &[1.0, 1.0, 0.0], 1.0);
    }
}
