//! Centroids of an embedding's pieces: what cce, cqr and pq share.

use crate::cancel::Cancel;
use crate::kmeans::{self, Start, assign, kmeans};
use crate::rng::Rng;
use crate::state::{State, TensorMut};

/// Pieces that are assigned between two looks at a wish to stop.
const BETWEEN_LOOKS: usize = 1 << 17;

/// How k-means is run.
#[derive(Clone, Copy, Debug)]
pub struct Lloyd {
    /// Pieces a centroid that it sees.
    pub samples: usize,
    /// The first centroids.
    pub start: Start,
    /// Its iterations.
    pub iterations: usize,
}

/// At most k centroids of the pieces [n × width] of all ids, and the nearest one of each id; of
/// [`centroids`], whose arguments it takes.
pub(crate) fn quantise(
    pieces: &[f32],
    width: usize,
    k: u32,
    lloyd: Lloyd,
    counts: Option<&[u32]>,
    cancel: &Cancel,
    rng: &mut Rng,
) -> (Vec<f32>, Vec<u32>) {
    let n = pieces.len() / width;
    let centroids = centroids(pieces, width, k, lloyd, counts, cancel, rng);
    if n <= k as usize {
        return (centroids, (0..n as u32).collect());
    }
    let mut nearest = vec![0; n];
    let parts = pieces.chunks(BETWEEN_LOOKS * width).zip(nearest.chunks_mut(BETWEEN_LOOKS));
    for (pieces, nearest) in parts.take_while(|_| !cancel.is_set()) {
        assign(pieces, width, &centroids, nearest);
    }
    (centroids, nearest)
}

/// At most k centroids of the pieces [n × width], from a sample of them; the pieces themselves where
/// there are no more. `counts` are their weights, all equal without them. Once cancelled, what it
/// returns is of no use.
pub(crate) fn centroids(
    pieces: &[f32],
    width: usize,
    k: u32,
    lloyd: Lloyd,
    counts: Option<&[u32]>,
    cancel: &Cancel,
    rng: &mut Rng,
) -> Vec<f32> {
    let n = pieces.len() / width;
    if n <= k as usize {
        return pieces.to_vec();
    }
    let mut sample: Vec<u32> = (0..n as u32).collect();
    let wanted = lloyd.samples.saturating_mul(k as usize).clamp(k as usize, n);
    for i in 0..wanted {
        sample.swap(i, i + rng.below((n - i) as u64) as usize);
    }
    sample.truncate(wanted);
    let piece = |&id: &u32| &pieces[id as usize * width..][..width];
    let points: Vec<f32> = sample.iter().flat_map(piece).copied().collect();
    let weigh =
        |counts: &[u32]| sample.iter().map(|&id| counts[id as usize].max(1) as f32).collect();
    let weights: Option<Vec<f32>> = counts.filter(|counts| counts.len() == n).map(weigh);
    let Lloyd { start, iterations, .. } = lloyd;
    let lloyd = kmeans::Lloyd { start, iterations, cancel: Some(cancel) };
    kmeans(&points, width, k as usize, weights.as_deref(), lloyd, rng)
}

/// What k-means lost: the squared distance of pieces from their centroids, beside their own square.
#[derive(Clone, Copy, Default)]
pub(crate) struct Error {
    lost: f64,
    total: f64,
}

impl Error {
    /// Walks it: the weights of an earlier epoch come with the error of its clustering.
    pub fn state(&mut self, visit: State<'_>) {
        let mut bits = [self.lost.to_bits(), self.total.to_bits()];
        visit("quantisation_error", TensorMut::u64(&mut bits));
        [self.lost, self.total] = bits.map(f64::from_bits);
    }
}

impl Error {
    /// Counts the pieces [n × width] of a column.
    pub fn add(&mut self, pieces: &[f32], centroids: &[f32], width: usize, nearest: &[u32]) {
        for (piece, &c) in pieces.chunks_exact(width).zip(nearest) {
            self.add_rows(piece, &centroids[c as usize * width..][..width]);
        }
    }

    /// Counts rows, and what they became.
    pub fn add_rows(&mut self, rows: &[f32], decoded: &[f32]) {
        let square = |(a, b): (&f32, &f32)| f64::from((a - b) * (a - b));
        self.lost += rows.iter().zip(decoded).map(square).sum::<f64>();
        self.total += rows.iter().map(|x| f64::from(x * x)).sum::<f64>();
    }

    /// The share of the pieces' square that was lost.
    pub fn figure(self) -> (&'static str, f64) {
        ("quantisation_error", if self.total > 0.0 { self.lost / self.total } else { 0.0 })
    }
}
