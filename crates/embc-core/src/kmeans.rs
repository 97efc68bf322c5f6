//! k-means: the same bits on any number of threads.
//!
//! In few dimensions few centroids are all compared with a point, and of many its nearest is found
//! among the neighbours of a good guess: with the guess at distance r, every nearer centroid lies
//! within 2 r of it (Phillips 2002, "sort-means"). That prunes all but some dozens of ten thousand
//! centroids and changes no result, but for which of several centroids at the very same distance is
//! taken. In more dimensions matrix products compare all, but for Lloyd's iterations, which keep
//! bounds of groups of centroids. Centroids are summed in the order of points. An empty cluster
//! starts anew at the point that is farthest from its centroid.

mod groups;
mod lanes;

use crate::cancel::Cancel;
use crate::linalg::{Op, dot, gemm, vectorised};
use crate::rng::Rng;
use groups::Groups;
use lanes::{LANES, Lanes};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Points of an assignment block.
const BLOCK: usize = 256;
/// Most dimensions in which lanes are faster than products, and neighbours prune enough to pay.
const LOW: usize = 8;
/// Fewest centroids whose groups are worth bounds: products compare fewer sooner.
const GROUPED: usize = 512;

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

/// How points find their centroids in one iteration after another.
enum Assigner {
    /// Without a memory of the last one.
    Anew,
    /// Among the neighbours of the last one.
    Neighbours,
    /// By bounds.
    Groups(Groups),
}

impl Assigner {
    fn new(points: &[f32], dim: usize, centroids: &[f32]) -> Self {
        let (n, k) = (points.len() / dim, centroids.len() / dim);
        match dim <= LOW {
            _ if !tame(points) || !tame(centroids) => Assigner::Anew,
            true if !few(k, n) => Assigner::Neighbours,
            false if k >= GROUPED => Assigner::Groups(Groups::new(n, centroids, dim)),
            _ => Assigner::Anew,
        }
    }

    /// Writes the nearest centroids of the points; returns the squared distances.
    fn assign(
        &mut self,
        points: &[f32],
        dim: usize,
        centroids: &[f32],
        nearest: &mut [u32],
        first: bool,
    ) -> Vec<f32> {
        match self {
            Assigner::Groups(groups) => groups.assign(points, centroids, nearest),
            Assigner::Neighbours if !first => improve(points, dim, centroids, nearest),
            _ => assign(points, dim, centroids, nearest),
        }
    }
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
    let (mut nearest, mut before) = (vec![0; n], Vec::new());
    let mut assigner = Assigner::new(points, dim, centroids);
    for iteration in 0..lloyd.iterations {
        if lloyd.is_cancelled() {
            break;
        }
        let first = iteration == 0;
        let mut distances = assigner.assign(points, dim, centroids, &mut nearest, first);
        if nearest == before {
            // At rest: all that is to come would find the same.
            break;
        }
        let mass = means(points, dim, weights, &nearest, centroids);
        before.clear();
        if mass.iter().all(|&mass| mass > 0.0) {
            before.extend_from_slice(&nearest);
        }
        for empty in (0..k).filter(|&c| mass[c] == 0.0) {
            let far = (0..n).max_by(|&a, &b| distances[a].total_cmp(&distances[b])).expect("n > 0");
            let (from, to) = (far * dim, empty * dim);
            centroids[to..to + dim].copy_from_slice(&points[from..from + dim]);
            distances[far] = 0.0;
        }
    }
}

/// Moves centroids to the weighted means of their points, summed in their order; returns the weight of
/// each. One without points stays.
fn means(
    points: &[f32],
    dim: usize,
    weights: Option<&[f32]>,
    nearest: &[u32],
    centroids: &mut [f32],
) -> Vec<f64> {
    let k = centroids.len() / dim;
    let (mut sums, mut mass) = (vec![0f64; k * dim], vec![0f64; k]);
    for (i, (&c, point)) in nearest.iter().zip(points.chunks_exact(dim)).enumerate() {
        let (c, weight) = (c as usize, f64::from(weights.map_or(1.0, |w| w[i])));
        mass[c] += weight;
        for (sum, x) in sums[c * dim..][..dim].iter_mut().zip(point) {
            *sum += weight * f64::from(*x);
        }
    }
    for (c, centroid) in centroids.chunks_exact_mut(dim).enumerate() {
        if mass[c] > 0.0 {
            let sums = &sums[c * dim..][..dim];
            centroid.iter_mut().zip(sums).for_each(|(x, sum)| *x = (sum / mass[c]) as f32);
        }
    }
    mass
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
mod tests;
