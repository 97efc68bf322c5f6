//! k-means: the same bits on any number of threads.
//!
//! In few dimensions few centroids are all compared with a point, and of many its nearest is found
//! among the neighbours of a good guess: with the guess at distance r, every nearer centroid lies
//! within 2 r of it (Phillips 2002, "sort-means"). That prunes all but some dozens of ten thousand
//! centroids and changes no result, but for which of several centroids at the very same distance is
//! taken. In more dimensions matrix products compare all. Centroids are summed in the order of
//! points. An empty cluster starts anew at the point that is farthest from its centroid.

mod lanes;

use crate::cancel::Cancel;
use crate::linalg::{Op, dot, gemm, vectorised};
use crate::rng::Rng;
use lanes::{LANES, Lanes};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Points of an assignment block.
const BLOCK: usize = 256;
/// Most dimensions in which lanes are faster than products, and neighbours prune enough to pay.
const LOW: usize = 8;

/// How the first centroids are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// Points drawn at random, as FAISS does.
    #[default]
    Random,
    /// Greedy k-means++: each the best of 2 + ln k points drawn in proportion to their squared
    /// distance from those chosen.
    PlusPlus,
}

/// How k-means is run.
#[derive(Clone, Copy)]
pub struct Lloyd<'a> {
    /// The first centroids.
    pub start: Start,
    /// Lloyd's iterations.
    pub iterations: usize,
    /// Ends it early; what it returns is then of no use.
    pub cancel: Option<&'a Cancel>,
}

impl Lloyd<'_> {
    /// Without an early end.
    pub fn new(start: Start, iterations: usize) -> Self {
        Self { start, iterations, cancel: None }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(Cancel::is_set)
    }
}

/// Writes the nearest centroid of each of the points [n × dim] into `nearest` [n]; returns the
/// squared distances [n]. `centroids` is [k × dim].
pub fn assign(points: &[f32], dim: usize, centroids: &[f32], nearest: &mut [u32]) -> Vec<f32> {
    let k = centroids.len() / dim;
    if dim > LOW || !tame(points) || !tame(centroids) {
        return assign_by_products(points, dim, centroids, nearest);
    }
    if few(k, nearest.len()) {
        return assign_by_scan(points, dim, centroids, nearest);
    }
    // The first guess: the best of the centroids around the best of √k pivots.
    let pivots = (k as f64).sqrt() as usize;
    let pivot: Vec<f32> =
        (0..pivots).flat_map(|p| &centroids[p * (k / pivots) * dim..][..dim]).copied().collect();
    let pivot = Lanes::new(dim, pivot.chunks_exact(dim));
    let mut around = vec![Vec::new(); pivots];
    for (c, centroid) in centroids.chunks_exact(dim).enumerate() {
        around[pivot.nearest(centroid, pivots).1].push(c as u32);
    }
    let row = |c: &u32| &centroids[*c as usize * dim..][..dim];
    let lanes: Vec<Lanes> = around.iter().map(|a| Lanes::new(dim, a.iter().map(row))).collect();
    let blocks = nearest.par_chunks_mut(BLOCK).zip(points.par_chunks(BLOCK * dim));
    blocks.for_each(|(nearest, points)| {
        vectorised(
            #[inline(always)]
            || {
                for (nearest, point) in nearest.iter_mut().zip(points.chunks_exact(dim)) {
                    let p = pivot.nearest_here(point, pivots).1;
                    let at = lanes[p].nearest_here(point, around[p].len()).1;
                    *nearest = around[p].get(at).copied().unwrap_or(0);
                }
            },
        );
    });
    improve(points, dim, centroids, nearest)
}

/// True where all centroids are compared with all of `n` points sooner than their neighbours are sorted.
fn few(k: usize, n: usize) -> bool {
    k <= if n < 64 * k { 1024 } else { 128 }
}

/// Compares every point with every centroid, sixteen points at a time.
fn assign_by_scan(points: &[f32], dim: usize, centroids: &[f32], nearest: &mut [u32]) -> Vec<f32> {
    let mut distances = vec![0.0; nearest.len()];
    let blocks = nearest.par_chunks_mut(BLOCK).zip(distances.par_chunks_mut(BLOCK));
    let blocks = blocks.zip(points.par_chunks(BLOCK * dim));
    let lanes = || Lanes { dim, values: Vec::new() };
    blocks.for_each_init(lanes, |lanes, ((nearest, distances), points)| {
        lanes.fill(points.chunks_exact(dim));
        lanes.each_nearest(centroids, nearest, distances);
    });
    distances
}

/// True without values whose squares are infinite, and without NaN.
fn tame(values: &[f32]) -> bool {
    values.par_chunks(1 << 16).all(|values| values.iter().all(|x| x.abs() < 1e18))
}

fn squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// A point on its way to its nearest centroid.
#[derive(Clone, Copy)]
struct Guess {
    point: u32,
    centroid: u32,
    squared: f32,
}

/// Replaces the guesses in `nearest` by the nearest centroids; returns the squared distances.
fn improve(points: &[f32], dim: usize, centroids: &[f32], nearest: &mut [u32]) -> Vec<f32> {
    let k = centroids.len() / dim;
    let all = Lanes::new(dim, centroids.chunks_exact(dim));
    // By guess, so that the neighbours of each are found once.
    let mut starts = vec![0u32; k + 1];
    nearest.iter().for_each(|&c| starts[c as usize + 1] += 1);
    (0..k).for_each(|c| starts[c + 1] += starts[c]);
    let mut guesses = vec![Guess { point: 0, centroid: 0, squared: 0.0 }; nearest.len()];
    for (i, &c) in nearest.iter().enumerate() {
        let start = &mut starts[c as usize];
        guesses[*start as usize] = Guess { point: i as u32, centroid: c, squared: 0.0 };
        *start += 1;
    }
    let point = |guess: &Guess| &points[guess.point as usize * dim..][..dim];
    let neighbours = || (Vec::<(f32, u32)>::new(), Lanes { dim, values: Vec::new() });
    guesses.par_chunk_by_mut(|a, b| a.centroid == b.centroid).for_each_init(
        neighbours,
        |(order, lanes), group| {
            let centre = &centroids[group[0].centroid as usize * dim..][..dim];
            let mut reach = 0f32;
            for guess in group.iter_mut() {
                guess.squared = squared(point(guess), centre);
                reach = reach.max(guess.squared);
            }
            // Squares of 2 r, with room for rounding.
            let bound = |squared: f32| 4.0001 * squared;
            all.within(centre, bound(reach), order);
            order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            lanes.fill(order.iter().map(|&(_, c)| &centroids[c as usize * dim..][..dim]));
            vectorised(
                #[inline(always)]
                || {
                    for guess in group {
                        // Blocks of lanes that begin near enough; where the second centroid is not,
                        // the guess is right.
                        let bound = bound(guess.squared);
                        if order.len() > 1 && order[1].0 > bound {
                            continue;
                        }
                        let blocks = order.iter().step_by(LANES).take_while(|of| of.0 <= bound);
                        let (squared, at) =
                            lanes.nearest_here(point(guess), LANES * blocks.count());
                        (guess.squared, guess.centroid) = (squared, order[at].1);
                    }
                },
            );
        },
    );
    let mut distances = vec![0.0; nearest.len()];
    for guess in guesses {
        nearest[guess.point as usize] = guess.centroid;
        distances[guess.point as usize] = guess.squared;
    }
    distances
}

/// Compares every point with every centroid, by matrix products.
fn assign_by_products(
    points: &[f32],
    dim: usize,
    centroids: &[f32],
    nearest: &mut [u32],
) -> Vec<f32> {
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
                let best = least(products, &norms);
                *nearest = best.1;
                *distance = (best.0 + dot(point, point)).max(0.0);
            }
        },
    );
    distances
}

/// The least of norm − 2 · product, and its index; the first of equals.
fn least(products: &[f32], norms: &[f32]) -> (f32, u32) {
    vectorised(
        #[inline(always)]
        || {
            let (mut best, mut block_of) = ([f32::INFINITY; LANES], [0u32; LANES]);
            let blocks = products.chunks_exact(LANES).zip(norms.chunks_exact(LANES));
            for (b, (products, norms)) in blocks.enumerate() {
                for lane in 0..LANES {
                    let distance = norms[lane] - 2.0 * products[lane];
                    let nearer = distance < best[lane];
                    best[lane] = if nearer { distance } else { best[lane] };
                    block_of[lane] = if nearer { b as u32 } else { block_of[lane] };
                }
            }
            let mut found = (f32::INFINITY, 0);
            for lane in 0..LANES {
                let at = block_of[lane] * LANES as u32 + lane as u32;
                if best[lane] < found.0 || (best[lane] == found.0 && at < found.1) {
                    found = (best[lane], at);
                }
            }
            for at in products.len() / LANES * LANES..products.len() {
                let distance = norms[at] - 2.0 * products[at];
                if distance < found.0 {
                    found = (distance, at as u32);
                }
            }
            found
        },
    )
}

/// k centroids [k × dim] of weighted points [n × dim], n ≥ k, by Lloyd's algorithm. Without weights
/// each point counts once.
pub fn kmeans(
    points: &[f32],
    dim: usize,
    k: usize,
    weights: Option<&[f32]>,
    lloyd: Lloyd<'_>,
    rng: &mut Rng,
) -> Vec<f32> {
    let n = points.len() / dim;
    let weight = |i: usize| f64::from(weights.map_or(1.0, |w| w[i]));
    let mut centroids = match lloyd.start {
        Start::Random => {
            let mut order: Vec<usize> = (0..n).collect();
            // The first k of a shuffle.
            for i in 0..k {
                order.swap(i, i + rng.below((n - i) as u64) as usize);
            }
            order[..k].iter().flat_map(|&i| &points[i * dim..][..dim]).copied().collect()
        }
        Start::PlusPlus => plus_plus(points, dim, k, &weight, lloyd, rng),
    };
    refine(points, dim, &mut centroids, weights, lloyd);
    centroids
}

/// Lloyd's iterations from the centroids [k × dim] that are there, of n ≥ 1 points.
pub fn refine(
    points: &[f32],
    dim: usize,
    centroids: &mut [f32],
    weights: Option<&[f32]>,
    lloyd: Lloyd<'_>,
) {
    let (n, k) = (points.len() / dim, centroids.len() / dim);
    let weight = |i: usize| f64::from(weights.map_or(1.0, |w| w[i]));
    let mut nearest = vec![0; n];
    let pruned = dim <= LOW && !few(k, n) && tame(points);
    for iteration in 0..lloyd.iterations {
        if lloyd.is_cancelled() {
            break;
        }
        let mut distances = match iteration > 0 && pruned {
            true => improve(points, dim, centroids, &mut nearest),
            false => assign(points, dim, centroids, &mut nearest),
        };
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
}

fn plus_plus(
    points: &[f32],
    dim: usize,
    k: usize,
    weight: &(dyn Fn(usize) -> f64 + Sync),
    lloyd: Lloyd<'_>,
    rng: &mut Rng,
) -> Vec<f32> {
    let n = points.len() / dim;
    let point = |i: usize| &points[i * dim..][..dim];
    let tries = 2 + (k as f64).ln() as usize;
    let mut distance = vec![f64::INFINITY; n];
    let mut centroids = Vec::with_capacity(k * dim);
    let mut picks = vec![rng.below(n as u64) as usize];
    while centroids.len() < k * dim {
        // The pick that leaves least, and what it leaves.
        let tried = picks.par_iter().map(|&pick| {
            let left: Vec<f64> = (0..n)
                .map(|i| distance[i].min(f64::from(squared(point(i), point(pick)))))
                .collect();
            let total: f64 = (0..n).map(|i| left[i] * weight(i)).sum();
            (total, pick, left)
        });
        let tried: Vec<_> = tried.collect();
        let best = tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).expect("a pick");
        let (total, pick);
        (total, pick, distance) = best;
        centroids.extend_from_slice(point(pick));
        if lloyd.is_cancelled() {
            centroids.resize(k * dim, 0.0);
            break;
        }
        picks = (0..tries)
            .map(|_| {
                let mut left = rng.unit() * total;
                let pick = (0..n).find(|&i| {
                    left -= distance[i] * weight(i);
                    left < 0.0
                });
                pick.unwrap_or_else(|| rng.below(n as u64) as usize)
            })
            .collect();
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

    /// Lanes and the rest after them, against the plain scan; values repeat, so that equals occur.
    #[test]
    fn the_least_is_the_first_of_equals() {
        let mut rng = Rng::stream(1, "least");
        for k in [1, 5, 16, 17, 48, 100, 333] {
            let mut random =
                |n: u64| -> Vec<f32> { (0..k).map(|_| rng.below(n) as f32 - 3.0).collect() };
            let (products, norms) = (random(9), random(4));
            let mut expect = (f32::INFINITY, 0);
            for (c, (product, norm)) in products.iter().zip(&norms).enumerate() {
                let distance = norm - 2.0 * product;
                expect = if distance < expect.0 { (distance, c as u32) } else { expect };
            }
            assert_eq!(least(&products, &norms), expect);
        }
    }

    /// Pruning finds what comparing all with all does, from good and from bad guesses.
    #[test]
    fn neighbours_hold_the_nearest() {
        for (dim, k) in [1, 2, 3, 4, 8].map(|dim| [(dim, 100), (dim, 2000)]).concat() {
            let mut rng = Rng::stream(3, "neighbours");
            let mut normal =
                |n: usize| -> Vec<f32> { (0..n * dim).map(|_| rng.normal() as f32).collect() };
            let (points, centroids) = (normal(3000), normal(k));
            let row = |c: u32| &centroids[c as usize * dim..][..dim];
            let (mut nearest, mut guessed) = (vec![0; 3000], vec![7; 3000]);
            let distances = assign(&points, dim, &centroids, &mut nearest);
            improve(&points, dim, &centroids, &mut guessed);
            assert_eq!(nearest, guessed);
            let mut by_products = vec![0; 3000];
            assign_by_products(&points, dim, &centroids, &mut by_products);
            for (i, point) in points.chunks_exact(dim).enumerate() {
                let all = (0..k as u32).map(|c| (squared(point, row(c)), c));
                let best = all.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
                assert_eq!((distances[i], nearest[i]), best);
                let rounding = squared(point, row(by_products[i])) - best.0;
                assert!(rounding < 1e-5, "products say the same: {rounding}");
            }
        }
    }

    #[test]
    fn separate_blobs_are_found() {
        let points = blobs(2000, 8);
        for start in [Start::Random, Start::PlusPlus] {
            let mut rng = Rng::stream(2, "kmeans");
            let centroids = kmeans(&points, 2, 8, None, Lloyd::new(start, 50), &mut rng);
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
        let centroids =
            kmeans(&points, 1, 5, None, Lloyd::new(Start::Random, 30), &mut Rng::stream(1, "k"));
        let mut nearest = vec![0; 100];
        let error = assign(&points, 1, &centroids, &mut nearest).iter().sum::<f32>();
        assert!(error < 30.0, "{error} {centroids:?}");
        let weights: Vec<f32> = (0..3).map(|i| [1.0, 3.0, 0.0][i]).collect();
        let one = kmeans(
            &[0.0, 4.0, 99.0],
            1,
            1,
            Some(&weights),
            Lloyd::new(Start::Random, 2),
            &mut Rng::stream(1, "k"),
        );
        assert_eq!(one, [3.0]);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let points = blobs(5000, 30);
        // All compared, and the neighbours of guesses.
        for k in [40, 1500] {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut rng = Rng::stream(3, "kmeans");
                pool.install(|| {
                    kmeans(&points, 2, k, None, Lloyd::new(Start::Random, 10), &mut rng)
                })
            };
            assert_eq!(run(1), run(2));
            assert_eq!(run(1), run(7));
        }
    }

    /// Weights that have blown up end the trial at its next loss, not here.
    #[test]
    fn points_that_are_not_finite_are_taken() {
        for wild in [f32::NAN, f32::INFINITY, 3e19, -1e38] {
            let mut points = blobs(500, 30);
            points[700] = wild;
            let mut rng = Rng::stream(4, "kmeans");
            let centroids = kmeans(&points, 2, 100, None, Lloyd::new(Start::Random, 5), &mut rng);
            let mut nearest = vec![0; 500];
            assign(&points, 2, &centroids, &mut nearest);
            assert!(nearest.iter().all(|&c| c < 100));
        }
    }
}
