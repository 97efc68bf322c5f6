//! Lloyd's assignments in many dimensions: most groups of centroids are not looked at (Ding et al.
//! 2015, "Yinyang k-means").
//!
//! Of each point and group a bound is kept that none of the group's centroids, but for the point's
//! own, is nearer than. It falls by the farthest that one of them has moved; while it is above the
//! distance of the point's own centroid, no other of the group can be nearer. That finds what
//! comparing all would, but for which of several centroids that are as near but for rounding.

use super::lanes::LANES;
use super::{BLOCK, squared};
use crate::linalg::{dot, vectorised};
use rayon::prelude::*;
use std::array::from_fn;
use std::ops::Range;

/// Most bounds that are kept, 64 MiB; groups are larger where there would be more.
const BOUNDS: usize = 1 << 24;

/// Points that are compared with a group at once.
const FOUR: usize = 4;

/// What is known of points and centroids from one assignment to the next.
pub struct Groups {
    dim: usize,
    /// Centroids of a group: whole lanes.
    size: usize,
    /// The centroids by group [G × size]; the last may lack some.
    members: Vec<u32>,
    /// The place of each centroid among the members.
    place: Vec<u32>,
    /// The centroids of the last assignment [k × dim].
    before: Vec<f32>,
    /// The bounds [n / BLOCK × G × BLOCK].
    bounds: Vec<f32>,
}

/// The centroids of an assignment, by places.
struct Lanes {
    /// [G × size / 16 × dim × 16]; zeros where a group lacks some.
    columns: Vec<f32>,
    /// Half of their squares [G × size]; infinite there.
    halves: Vec<f32>,
    /// How far the centroids of each group have moved at most [G].
    drifts: Vec<f32>,
    /// The largest square of a centroid.
    largest: f32,
}

/// The points of a block, and what is known of them.
struct Block<'a> {
    points: &'a [f32],
    bounds: &'a mut [f32],
    nearest: &'a mut [u32],
    /// Squared distances of the points from their centroids.
    squares: &'a mut [f32],
}

impl Groups {
    /// For `n` points and the centroids [k × dim].
    pub fn new(n: usize, centroids: &[f32], dim: usize) -> Self {
        Self::within(n, centroids, dim, BOUNDS)
    }

    /// With so many bounds, about.
    pub(super) fn within(n: usize, centroids: &[f32], dim: usize, bounds: usize) -> Self {
        let k = centroids.len() / dim;
        let size = LANES * (n * k / LANES).div_ceil(bounds).max(1);
        let mut members: Vec<u32> = (0..k as u32).collect();
        split(centroids, dim, &mut members, size);
        let mut place = vec![0; k];
        members.iter().enumerate().for_each(|(at, &c)| place[c as usize] = at as u32);
        let bounds = vec![0.0; n.div_ceil(BLOCK) * k.div_ceil(size) * BLOCK];
        Self { dim, size, members, place, before: centroids.to_vec(), bounds }
    }

    /// Replaces the centroids in `nearest`, any at first and then those of the last assignment, by
    /// the nearest ones; returns the squared distances.
    pub fn assign(&mut self, points: &[f32], centroids: &[f32], nearest: &mut [u32]) -> Vec<f32> {
        let lanes = self.lanes(centroids);
        let mut squares = vec![0.0; nearest.len()];
        let mut bounds = std::mem::take(&mut self.bounds);
        let known = bounds.par_chunks_mut(lanes.drifts.len() * BLOCK);
        let known = known.zip(points.par_chunks(BLOCK * self.dim));
        let found = nearest.par_chunks_mut(BLOCK).zip(squares.par_chunks_mut(BLOCK));
        known.zip(found).for_each(|((bounds, points), (nearest, squares))| {
            let block = Block { points, bounds, nearest, squares };
            vectorised(
                #[inline(always)]
                || self.assign_block(&lanes, centroids, block),
            );
        });
        self.bounds = bounds;
        self.before.copy_from_slice(centroids);
        squares
    }

    fn lanes(&self, centroids: &[f32]) -> Lanes {
        let (dim, size) = (self.dim, self.size);
        let row = |c: u32| &centroids[c as usize * dim..][..dim];
        let before = |c: u32| &self.before[c as usize * dim..][..dim];
        let groups = self.members.len().div_ceil(size);
        let mut columns = vec![0.0; groups * size * dim];
        let mut halves = vec![f32::INFINITY; groups * size];
        for (at, &c) in self.members.iter().enumerate() {
            let lane = &mut columns[at / LANES * LANES * dim + at % LANES..];
            lane.iter_mut().step_by(LANES).zip(row(c)).for_each(|(to, x)| *to = *x);
            halves[at] = 0.5 * dot(row(c), row(c));
        }
        // With room for rounding.
        let moved = |&c: &u32| 1.0001 * squared(row(c), before(c)).sqrt();
        let drifts = self.members.chunks(size);
        let drifts = drifts.map(|of| of.iter().map(moved).fold(0.0, f32::max)).collect();
        let finite = halves.iter().copied().filter(|half| half.is_finite());
        let largest = 2.0 * finite.fold(0.0, f32::max);
        Lanes { columns, halves, drifts, largest }
    }

    #[inline(always)]
    fn assign_block(&self, lanes: &Lanes, centroids: &[f32], block: Block<'_>) {
        let (dim, size) = (self.dim, self.size);
        let Block { points, bounds, nearest, squares } = block;
        let row = |c: u32| &centroids[c as usize * dim..][..dim];
        let point = |i: usize| &points[i * dim..][..dim];
        let n = nearest.len();
        // Of each point: its own square, the distance of its centroid, what rounding may come to.
        let (mut own, mut slack) = ([0.0f32; BLOCK], [0.0f32; BLOCK]);
        // Where the last block has no points, none is due.
        let mut near = [f32::NEG_INFINITY; BLOCK];
        for i in 0..n {
            squares[i] = squared(point(i), row(nearest[i]));
            near[i] = squares[i].sqrt();
            own[i] = dot(point(i), point(i));
            slack[i] = (dim + 4) as f32 * f32::EPSILON * (own[i] + 2.0 * lanes.largest);
        }
        let mut due = [0; BLOCK];
        for (g, drift) in lanes.drifts.iter().enumerate() {
            let dues = lower(&mut bounds[g * BLOCK..][..BLOCK], *drift, &near, &mut due);
            let group = g * size..(g + 1) * size;
            for four in due[..dues].chunks(FOUR) {
                // The last four may have one several times.
                let at = |q: usize| four[q.min(four.len() - 1)];
                let all = lanes.least_of_four(from_fn(|q| point(at(q))), group.clone());
                for (&i, mut least) in four.iter().zip(all) {
                    let square = |half: f32| own[i] + 2.0 * half - slack[i];
                    let place = self.place[nearest[i] as usize] as usize;
                    // Seldom: its own centroid is among them, or another is nearer.
                    if group.contains(&place) || square(least) < squares[i] {
                        let (half, at) = lanes.least(point(i), group.clone(), place);
                        least = half;
                        let c = self.members.get(at).copied().unwrap_or(nearest[i]);
                        let exact = squared(point(i), row(c));
                        if exact < squares[i] {
                            // The bound of its group is about the centroid that it leaves, too.
                            let left = &mut bounds[place / size * BLOCK + i];
                            *left = left.min(near[i]);
                            (nearest[i], squares[i], near[i]) = (c, exact, exact.sqrt());
                            least = lanes.least(point(i), group.clone(), at).0;
                        }
                    }
                    bounds[g * BLOCK + i] = square(least).max(0.0).sqrt();
                }
            }
        }
    }
}

/// Lowers a group's bounds; the points for which it is due, and how many these are.
#[inline(always)]
fn lower(bounds: &mut [f32], drift: f32, near: &[f32; BLOCK], due: &mut [usize; BLOCK]) -> usize {
    let mut dues = 0;
    let some = bounds.as_chunks_mut::<LANES>().0.iter_mut().zip(near.as_chunks::<LANES>().0);
    for (from, (bounds, near)) in some.enumerate() {
        bounds.iter_mut().for_each(|bound| *bound -= drift);
        // Mostly, none is.
        if (0..LANES).fold(false, |any, lane| any | (bounds[lane] < near[lane])) {
            for lane in 0..LANES {
                due[dues] = from * LANES + lane;
                dues += usize::from(bounds[lane] < near[lane]);
            }
        }
    }
    dues
}

impl Lanes {
    /// Half of the squares of sixteen centroids, and their columns.
    #[inline(always)]
    fn block(&self, from: usize, dim: usize) -> ([f32; LANES], &[[f32; LANES]]) {
        let half = self.halves[from..].first_chunk().expect("whole lanes");
        (*half, self.columns[from * dim..][..LANES * dim].as_chunks().0)
    }

    /// The least |c|² / 2 − ⟨x, c⟩ of the centroids in these places, for each of four points.
    #[inline(always)]
    fn least_of_four(&self, [x0, x1, x2, x3]: [&[f32]; FOUR], places: Range<usize>) -> [f32; FOUR] {
        let mut least = [f32::INFINITY; FOUR];
        for from in places.step_by(LANES) {
            let (half, columns) = self.block(from, x0.len());
            let [mut v0, mut v1, mut v2, mut v3] = [half; FOUR];
            for ((((column, x0), x1), x2), x3) in columns.iter().zip(x0).zip(x1).zip(x2).zip(x3) {
                for lane in 0..LANES {
                    v0[lane] -= x0 * column[lane];
                    v1[lane] -= x1 * column[lane];
                    v2[lane] -= x2 * column[lane];
                    v3[lane] -= x3 * column[lane];
                }
            }
            for (least, values) in least.iter_mut().zip([v0, v1, v2, v3]) {
                *least = lesser(*least, least_of(values));
            }
        }
        least
    }

    /// The same of one point without one of the places, and whose it is.
    fn least(&self, x: &[f32], places: Range<usize>, except: usize) -> (f32, usize) {
        let mut least = (f32::INFINITY, usize::MAX);
        for from in places.step_by(LANES) {
            let (mut values, columns) = self.block(from, x.len());
            for (column, x) in columns.iter().zip(x) {
                values.iter_mut().zip(column).for_each(|(value, c)| *value -= x * c);
            }
            for (place, value) in (from..).zip(values).filter(|(place, _)| *place != except) {
                least = if value < least.0 { (value, place) } else { least };
            }
        }
        least
    }
}

#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn least_of(values: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = from_fn(|lane| lesser(values[lane], values[lane + 8]));
    let four: [f32; 4] = from_fn(|lane| lesser(eight[lane], eight[lane + 4]));
    lesser(lesser(four[0], four[2]), lesser(four[1], four[3]))
}

/// Orders centroids so that runs of `size` are close to each other: halved at the middle of where
/// they vary most, until they are one run.
fn split(centroids: &[f32], dim: usize, members: &mut [u32], size: usize) {
    if members.len() <= size {
        return;
    }
    let value = |c: u32, d: usize| f64::from(centroids[c as usize * dim + d]);
    let n = members.len() as f64;
    let variance = |d: usize| {
        let mean = members.iter().map(|&c| value(c, d)).sum::<f64>() / n;
        members.iter().map(|&c| (value(c, d) - mean).powi(2)).sum::<f64>()
    };
    let most = (0..dim).map(|d| (variance(d), d)).max_by(|a, b| a.0.total_cmp(&b.0));
    let d = most.expect("dimensions").1;
    members.sort_unstable_by(|&a, &b| value(a, d).total_cmp(&value(b, d)).then(a.cmp(&b)));
    let (low, high) = members.split_at_mut(members.len().div_ceil(size) / 2 * size);
    split(centroids, dim, low, size);
    split(centroids, dim, high, size);
}
