//! k-means: the same bits on any number of threads.
//!
//! Points are assigned in fixed blocks, centroids are summed in the order of points. An empty
//! cluster starts anew at the point that is farthest from its centroid.

use crate::linalg::{Op, dot, gemm};
use crate::rng::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Points of an assignment block.
const BLOCK: usize = 256;

/// How the first centroids are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Points drawn at random, as FAISS does.
    #[default]
    Random,
    /// k-means++: points drawn in proportion to their squared distance from those chosen.
    PlusPlus,
}

/// Writes the nearest centroid of each of the points [n × dim] into `nearest` [n]; returns the
/// squared distances [n]. `centroids` is [k × dim].
pub fn assign(points: &[f32], dim: usize, centroids: &[f32], nearest: &mut [u32]) -> Vec<f32> {
    let k = centroids.len() / dim;
    let norms: Vec<f32> = centroids.chunks_exact(dim).map(|c| dot(c, c)).collect();
    let mut distances = vec![0.0; nearest.len()];
    let blocks = points.par_chunks(BLOCK * dim).zip(nearest.par_chunks_mut(BLOCK));
    blocks.zip(distances.par_chunks_mut(BLOCK)).for_each_init(
        Vec::new,
        |products, ((points, nearest), distances)| {
            let n = nearest.len();
            products.resize(n * k, 0.0);
            gemm(n, k, dim, points, Op::N, centroids, Op::T, 0.0, products);
            let rows = products.chunks_exact(k).zip(points.chunks_exact(dim));
            for ((products, point), (nearest, distance)) in
                rows.zip(nearest.iter_mut().zip(distances))
            {
                // |x − c|² = |x|² − 2⟨x, c⟩ + |c|²; the first term is the same for all.
                let mut best = (f32::INFINITY, 0);
                for (c, (product, norm)) in products.iter().zip(&norms).enumerate() {
                    let distance = norm - 2.0 * product;
                    if distance < best.0 {
                        best = (distance, c as u32);
                    }
                }
                *nearest = best.1;
                *distance = (best.0 + dot(point, point)).max(0.0);
            }
        },
    );
    distances
}

/// k centroids [k × dim] of weighted points [n × dim], n ≥ k, after `iterations` of Lloyd's
/// algorithm. Without weights each point counts once.
pub fn kmeans(
    points: &[f32],
    dim: usize,
    k: usize,
    weights: Option<&[f32]>,
    start: Start,
    iterations: usize,
    rng: &mut Rng,
) -> Vec<f32> {
    let n = points.len() / dim;
    let weight = |i: usize| f64::from(weights.map_or(1.0, |w| w[i]));
    let mut centroids = match start {
        Start::Random => {
            let mut order: Vec<usize> = (0..n).collect();
            // The first k of a shuffle.
            for i in 0..k {
                order.swap(i, i + rng.below((n - i) as u64) as usize);
            }
            order[..k].iter().flat_map(|&i| &points[i * dim..][..dim]).copied().collect()
        }
        Start::PlusPlus => plus_plus(points, dim, k, &weight, rng),
    };
    let mut nearest = vec![0; n];
    for _ in 0..iterations {
        let mut distances = assign(points, dim, &centroids, &mut nearest);
        let mut sums = vec![0f64; k * dim];
        let mut mass = vec![0f64; k];
        for (i, (&c, point)) in nearest.iter().zip(points.chunks_exact(dim)).enumerate() {
            let c = c as usize;
            mass[c] += weight(i);
            for (sum, x) in sums[c * dim..][..dim].iter_mut().zip(point) {
                *sum += weight(i) * f64::from(*x);
            }
        }
        for (c, centroid) in centroids.chunks_exact_mut(dim).enumerate() {
            if mass[c] > 0.0 {
                let sums = &sums[c * dim..][..dim];
                centroid.iter_mut().zip(sums).for_each(|(x, sum)| *x = (sum / mass[c]) as f32);
            }
        }
        for empty in (0..k).filter(|&c| mass[c] == 0.0) {
            let far = (0..n).max_by(|&a, &b| distances[a].total_cmp(&distances[b])).expect("n > 0");
            let (from, to) = (far * dim, empty * dim);
            centroids[to..to + dim].copy_from_slice(&points[from..from + dim]);
            distances[far] = 0.0;
        }
    }
    centroids
}

fn plus_plus(
    points: &[f32],
    dim: usize,
    k: usize,
    weight: &dyn Fn(usize) -> f64,
    rng: &mut Rng,
) -> Vec<f32> {
    let n = points.len() / dim;
    let point = |i: usize| &points[i * dim..][..dim];
    let mut centroids = point(rng.below(n as u64) as usize).to_vec();
    let mut distance = vec![f64::INFINITY; n];
    for _ in 1..k {
        let last = &centroids[centroids.len() - dim..];
        let mut total = 0.0;
        for (i, distance) in distance.iter_mut().enumerate() {
            let squares = point(i).iter().zip(last).map(|(a, b)| f64::from((a - b) * (a - b)));
            *distance = distance.min(squares.sum());
            total += *distance * weight(i);
        }
        let mut left = rng.unit() * total;
        let pick = (0..n).find(|&i| {
            left -= distance[i] * weight(i);
            left < 0.0
        });
        let pick = pick.unwrap_or_else(|| rng.below(n as u64) as usize);
        centroids.extend_from_slice(point(pick));
    }
    centroids
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` points around `k` centres that lie 10 apart.
    fn blobs(n: usize, k: usize) -> Vec<f32> {
        let mut rng = Rng::stream(1, "blobs");
        (0..n)
            .flat_map(|i| [10.0 * (i % k) as f32 + rng.symmetric(0.5), rng.symmetric(0.5)])
            .collect()
    }

    #[test]
    fn separate_blobs_are_found() {
        let points = blobs(2000, 8);
        for start in [Start::Random, Start::PlusPlus] {
            let mut rng = Rng::stream(2, "kmeans");
            let centroids = kmeans(&points, 2, 8, None, start, 50, &mut rng);
            let mut nearest = vec![0; 2000];
            let error = assign(&points, 2, &centroids, &mut nearest).iter().sum::<f32>() / 2000.0;
            // Random starts may leave two blobs together; k-means++ does not.
            if start == Start::PlusPlus {
                assert!(error < 0.2, "{error}");
                assert!((0..8).all(|i| nearest[i] == nearest[i + 8]));
            }
        }
    }

    #[test]
    fn empty_clusters_are_filled_and_weights_count() {
        // 90 equal points and 10 others: four of five random starts coincide.
        let points: Vec<f32> = (0..100).map(|i| if i < 90 { 1.0 } else { i as f32 }).collect();
        let centroids = kmeans(&points, 1, 5, None, Start::Random, 30, &mut Rng::stream(1, "k"));
        let mut nearest = vec![0; 100];
        let error = assign(&points, 1, &centroids, &mut nearest).iter().sum::<f32>();
        assert!(error < 30.0, "{error} {centroids:?}");
        let weights: Vec<f32> = (0..3).map(|i| [1.0, 3.0, 0.0][i]).collect();
        let one = kmeans(
            &[0.0, 4.0, 99.0],
            1,
            1,
            Some(&weights),
            Start::Random,
            2,
            &mut Rng::stream(1, "k"),
        );
        assert_eq!(one, [3.0]);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let points = blobs(5000, 30);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut rng = Rng::stream(3, "kmeans");
            pool.install(|| kmeans(&points, 2, 40, None, Start::Random, 10, &mut rng))
        };
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(7));
    }
}
