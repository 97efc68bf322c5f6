//! Metrics of examples on their own: AUC, log loss, accuracy, macro-F1.

use super::{Bucket, Metric};
use crate::hash::mix64;
use crate::loss::{bce, cross_entropy};
use rayon::prelude::*;

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
    auc_of_sorted(all)
}

fn auc_of_sorted(all: &[u64]) -> f64 {
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

/// Parts of the examples that are left out one at a time, for the error that comes with a sample of
/// them (the delete-a-group jackknife).
pub const GROUPS: usize = 50;

/// The group of the `i`th example of a split: the same for every trial.
fn group(i: usize) -> usize {
    (mix64(i as u64) % GROUPS as u64) as usize
}

/// Bins of the probability, for calibration.
const BINS: usize = 15;

/// Collects scores of examples on their own.
#[derive(Default)]
pub struct RowMetrics {
    /// Eight bytes an example, as much as its score and label take.
    scored: Vec<u64>,
    loss: f64,
    /// Loss and number of the examples of each group.
    losses: Vec<(f64, u64)>,
    right: u64,
    examples: u64,
    /// The user of each example, where there is one.
    users: Vec<u32>,
    /// Sum of probabilities, positives and examples of each bin of the probability.
    bins: [(f64, u64, u64); BINS],
    /// How frequent each example's values are, where a metric asks for it.
    frequency: Vec<f32>,
    /// Of each class: examples taken for it rightly, taken for it, and of it.
    classes: Vec<[u64; 3]>,
}

impl RowMetrics {
    /// Takes logits [B × outputs] and labels [B].
    pub fn add(&mut self, logits: &[f32], labels: &[f32]) {
        let outputs = logits.len() / labels.len().max(1);
        self.losses.resize(GROUPS, (0.0, 0));
        for (logits, &label) in logits.chunks_exact(outputs.max(1)).zip(labels) {
            let of_group = &mut self.losses[group(self.examples as usize)];
            self.examples += 1;
            let (taken, class) = if outputs == 1 {
                let loss = bce(logits[0], label);
                self.loss += loss;
                (of_group.0, of_group.1) = (of_group.0 + loss, of_group.1 + 1);
                self.scored.push(scored(logits[0], label));
                let probability = 1.0 / (1.0 + (-f64::from(logits[0])).exp());
                let bin = ((probability * BINS as f64) as usize).min(BINS - 1);
                let bin = &mut self.bins[bin];
                *bin = (bin.0 + probability, bin.1 + u64::from(label > 0.5), bin.2 + 1);
                (usize::from(logits[0] > 0.0), usize::from(label > 0.5))
            } else {
                let class = label as usize;
                self.loss += cross_entropy(logits, class);
                let best = (0..outputs).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                (best.expect("more than one"), class)
            };
            self.classes.resize(outputs.max(2), [0; 3]);
            self.right += u64::from(taken == class);
            self.classes[class][0] += u64::from(taken == class);
            self.classes[taken][1] += 1;
            self.classes[class][2] += 1;
        }
    }

    /// Takes the users of the examples added last, where they have some.
    pub fn add_users(&mut self, users: &[u32]) {
        self.users.extend_from_slice(users);
    }

    /// AUC by user, of those with both labels, by their examples.
    fn gauc(&self) -> f64 {
        if self.users.len() != self.scored.len() {
            return f64::NAN;
        }
        let mut all: Vec<(u32, u64)> =
            self.users.iter().copied().zip(self.scored.iter().copied()).collect();
        all.par_sort_unstable();
        let (mut sum, mut examples) = (0.0, 0.0);
        for user in all.chunk_by(|a, b| a.0 == b.0) {
            let auc = auc_of_sorted(&user.iter().map(|&(_, scored)| scored).collect::<Vec<_>>());
            if !auc.is_nan() {
                let n = user.len() as f64;
                (sum, examples) = (sum + n * auc, examples + n);
            }
        }
        sum / examples
    }

    /// Expected calibration error, and mean probability over the share of positives.
    fn calibration(&self) -> (f64, f64) {
        let gap = |&(sum, positives, _): &(f64, u64, u64)| (sum - positives as f64).abs();
        let error = self.bins.iter().map(gap).sum::<f64>() / self.scored.len() as f64;
        let mean = self.bins.iter().map(|bin| bin.0).sum::<f64>();
        let positives = self.bins.iter().map(|bin| bin.1).sum::<u64>();
        (error, if positives == 0 { f64::NAN } else { mean / positives as f64 })
    }

    /// Takes how frequent the values of the examples added last are: for AUC by thirds.
    pub fn add_frequency(&mut self, frequency: impl Iterator<Item = f32>) {
        self.frequency.extend(frequency);
    }

    /// AUC of the third of examples that a bucket means: by how frequent their values are. Examples
    /// as frequent as a bound are all on its frequent side.
    fn auc_of_bucket(&self, bucket: Bucket) -> f64 {
        let mut order = self.frequency.clone();
        order.sort_unstable_by(|a, b| b.total_cmp(a));
        if order.is_empty() {
            return f64::NAN;
        }
        let [head, torso] =
            [1, 2].map(|thirds| order[(thirds * order.len() / 3).saturating_sub(1)]);
        let holds = |frequency: f32| match bucket {
            Bucket::All => true,
            Bucket::Head => frequency >= head,
            Bucket::Torso => frequency < head && frequency >= torso,
            Bucket::Tail => frequency < torso,
        };
        let examples = self.scored.iter().zip(&self.frequency);
        auc_of(&mut examples.filter(|(_, f)| holds(**f)).map(|(s, _)| *s).collect::<Vec<_>>())
    }

    /// AUC and log loss without each group in turn; nothing where examples are few or labels are
    /// classes.
    pub fn without_groups(&self) -> Vec<(Metric, Vec<f64>)> {
        if self.scored.len() < 4 * GROUPS {
            return Vec::new();
        }
        let mut all: Vec<(u64, u8)> =
            self.scored.iter().enumerate().map(|(i, &s)| (s, group(i) as u8)).collect();
        all.par_sort_unstable();
        let auc = |left_out: usize| {
            let kept = all.iter().filter(|(_, group)| usize::from(*group) != left_out);
            auc_of_sorted(&kept.map(|(s, _)| *s).collect::<Vec<_>>())
        };
        let loss = |(loss, n): &(f64, u64)| (self.loss - loss) / (self.examples - n) as f64;
        vec![
            (Metric::Auc(Bucket::All), (0..GROUPS).into_par_iter().map(auc).collect()),
            (Metric::LogLoss, self.losses.iter().map(loss).collect()),
        ]
    }

    /// The value of a pointwise metric; NaN where it is not defined.
    pub fn value(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Auc(Bucket::All) => auc_of(&mut self.scored.clone()),
            Metric::Auc(bucket) => self.auc_of_bucket(bucket),
            Metric::LogLoss => self.loss / self.examples as f64,
            Metric::Accuracy => self.right as f64 / self.examples as f64,
            Metric::MacroF1 => {
                // 2·PR/(P+R); a class that neither occurs nor is taken counts nothing.
                let occur = self.classes.iter().filter(|[_, taken, of]| taken + of > 0);
                let f1 = |[right, taken, of]: &[u64; 3]| 2.0 * *right as f64 / (taken + of) as f64;
                occur.clone().map(f1).sum::<f64>() / occur.count() as f64
            }
            Metric::Gauc => self.gauc(),
            Metric::Ece => self.calibration().0,
            Metric::Calibration => self.calibration().1,
            Metric::Ranked(..) => f64::NAN,
        }
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

    /// Against metrics of the examples that are left, and the jackknife's error against theory.
    #[test]
    fn groups_left_out() {
        let mut rng = crate::rng::Rng::stream(1, "groups");
        let labels: Vec<f32> = (0..4000).map(|_| rng.below(2) as f32).collect();
        let scores: Vec<f32> = labels.iter().map(|label| label + rng.normal() as f32).collect();
        let mut metrics = RowMetrics::default();
        metrics.add(&scores, &labels);
        let without = metrics.without_groups();
        let left: Vec<usize> = (0..4000).filter(|&i| group(i) != 7).collect();
        let of = |values: &[f32]| -> Vec<f32> { left.iter().map(|&i| values[i]).collect() };
        let mut rest = RowMetrics::default();
        rest.add(&of(&scores), &of(&labels));
        for (metric, values) in &without {
            assert!((values[7] - rest.value(*metric)).abs() < 1e-12, "{metric}");
        }
        // Hanley and McNeil 1982: at 4,000 balanced examples and an AUC of .76, about .0075.
        let (_, aucs) = &without[0];
        let mean = aucs.iter().sum::<f64>() / GROUPS as f64;
        let squares: f64 = aucs.iter().map(|x| (x - mean).powi(2)).sum();
        let error = ((GROUPS - 1) as f64 / GROUPS as f64 * squares).sqrt();
        assert!((0.0055..0.0095).contains(&error), "{error}");
        let mut few = RowMetrics::default();
        few.add(&scores[..100], &labels[..100]);
        assert!(few.without_groups().is_empty());
    }

    #[test]
    fn auc_by_thirds() {
        let mut metrics = RowMetrics::default();
        // Six examples, from frequent to rare in pairs: right, tied, wrong.
        metrics.add(&[2.0, 1.0, 1.0, 1.0, 0.0, 3.0], &[1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        metrics.add_frequency([9.0, 8.0, 5.0, 4.0, 1.0, 0.0].into_iter());
        let value = |bucket| metrics.value(Metric::Auc(bucket));
        assert_eq!([Bucket::Head, Bucket::Torso, Bucket::Tail].map(value), [1.0, 0.5, 0.0]);
        // Without frequencies there are no thirds.
        let mut metrics = RowMetrics::default();
        metrics.add(&[2.0, 1.0], &[1.0, 0.0]);
        assert!(metrics.value(Metric::Auc(Bucket::Tail)).is_nan());
    }

    #[test]
    fn macro_f1_worked_numbers() {
        let mut metrics = RowMetrics::default();
        // Classes 0, 0, 1, 2 taken for 0, 1, 1, 1; class 3 never occurs.
        let logits = [1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0].map(|x| x as f32);
        metrics.add(&logits, &[0.0, 0.0, 1.0, 2.0]);
        let expect = (2.0 / 3.0 + 0.5 + 0.0) / 3.0;
        assert!((metrics.value(Metric::MacroF1) - expect).abs() < 1e-12);
        assert_eq!(metrics.value(Metric::Accuracy), 0.5);
    }
}
