//! Centroids in lanes: sixteen of them are compared with a point at once.

use crate::linalg::vectorised;

/// Centroids that are compared at once.
pub const LANES: usize = 16;

/// Points as columns of 16 lanes, [n / 16 × dim × 16]; those that fill the last are infinitely far.
pub struct Lanes {
    pub dim: usize,
    pub values: Vec<f32>,
}

impl Lanes {
    pub fn new<'a>(dim: usize, rows: impl Iterator<Item = &'a [f32]>) -> Self {
        let mut lanes = Self { dim, values: Vec::new() };
        lanes.fill(rows);
        lanes
    }

    pub fn fill<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        let dim = self.dim;
        self.values.clear();
        for (i, row) in rows.enumerate() {
            if i % LANES == 0 {
                self.values.resize(self.values.len() + dim * LANES, f32::INFINITY);
            }
            let block = &mut self.values[i / LANES * dim * LANES..];
            row.iter().enumerate().for_each(|(d, x)| block[d * LANES + i % LANES] = *x);
        }
    }

    /// Squared distance and index of the nearest of the first `n`, or of some more that share
    /// their lanes. The first of equals.
    #[inline]
    pub fn nearest(&self, point: &[f32], n: usize) -> (f32, usize) {
        vectorised(
            #[inline(always)]
            || self.nearest_here(point, n),
        )
    }

    /// The same for a caller that runs in wide vectors already.
    #[inline(always)]
    pub fn nearest_here(&self, point: &[f32], n: usize) -> (f32, usize) {
        match self.dim {
            1 => self.scan::<1>(point, n),
            2 => self.scan::<2>(point, n),
            4 => self.scan::<4>(point, n),
            8 => self.scan::<8>(point, n),
            _ => self.scan::<0>(point, n),
        }
    }

    /// The points within `bound` of a point, with their squared distances.
    pub fn within(&self, point: &[f32], bound: f32, found: &mut Vec<(f32, u32)>) {
        found.clear();
        vectorised(
            #[inline(always)]
            || {
                for (b, block) in self.values.chunks_exact(self.dim * LANES).enumerate() {
                    let squared = squared_distances::<0>(block, point);
                    if squared.iter().fold(false, |any, &d| any | (d <= bound)) {
                        let lanes = squared.iter().enumerate().filter(|(_, d)| **d <= bound);
                        found.extend(lanes.map(|(i, &d)| (d, (b * LANES + i) as u32)));
                    }
                }
            },
        );
    }

    /// Of each of these points the nearest of `rows` [k × dim] and its squared distance; the first of
    /// equals.
    pub fn each_nearest(&self, rows: &[f32], nearest: &mut [u32], squared: &mut [f32]) {
        let points = self.values.chunks_exact(self.dim * LANES);
        let out = nearest.chunks_mut(LANES).zip(squared.chunks_mut(LANES));
        vectorised(
            #[inline(always)]
            || {
                for (points, (nearest, squared)) in points.zip(out) {
                    let (least, of) = match self.dim {
                        1 => nearest_rows::<1>(points, rows, 1),
                        2 => nearest_rows::<2>(points, rows, 2),
                        4 => nearest_rows::<4>(points, rows, 4),
                        8 => nearest_rows::<8>(points, rows, 8),
                        dim => nearest_rows::<0>(points, rows, dim),
                    };
                    squared.copy_from_slice(&least[..squared.len()]);
                    nearest.copy_from_slice(&of[..nearest.len()]);
                }
            },
        );
    }

    #[inline(always)]
    fn scan<const DIM: usize>(&self, point: &[f32], n: usize) -> (f32, usize) {
        let dim = if DIM == 0 { self.dim } else { DIM };
        let point = &point[..dim];
        let (mut best, mut block_of) = ([f32::INFINITY; LANES], [0u32; LANES]);
        let blocks = self.values.chunks_exact(dim * LANES).take(n.div_ceil(LANES));
        for (b, block) in blocks.enumerate() {
            let squared = squared_distances::<DIM>(block, point);
            for lane in 0..LANES {
                let nearer = squared[lane] < best[lane];
                best[lane] = if nearer { squared[lane] } else { best[lane] };
                block_of[lane] = if nearer { b as u32 } else { block_of[lane] };
            }
        }
        // Without a branch a lane: which one is nearest cannot be foreseen.
        let mut least = best;
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                let other = least[lane + width];
                least[lane] = if other < least[lane] { other } else { least[lane] };
            }
        }
        let mut first = u32::MAX;
        for lane in 0..LANES {
            let at = block_of[lane] * LANES as u32 + lane as u32;
            first = first.min(if best[lane] == least[0] { at } else { u32::MAX });
        }
        (least[0], first as usize)
    }
}

/// The least squared distances of 16 points to rows [k × dim], and to which.
#[inline(always)]
fn nearest_rows<const DIM: usize>(
    points: &[f32],
    rows: &[f32],
    dim: usize,
) -> ([f32; LANES], [u32; LANES]) {
    let (mut best, mut of) = ([f32::INFINITY; LANES], [0u32; LANES]);
    for (c, row) in (0u32..).zip(rows.chunks_exact(dim)) {
        let squared = squared_distances::<DIM>(points, row);
        for lane in 0..LANES {
            let nearer = squared[lane] < best[lane];
            best[lane] = if nearer { squared[lane] } else { best[lane] };
            of[lane] = if nearer { c } else { of[lane] };
        }
    }
    (best, of)
}

/// Squared distances from a point to 16 others.
#[inline(always)]
fn squared_distances<const DIM: usize>(block: &[f32], point: &[f32]) -> [f32; LANES] {
    let dim = if DIM == 0 { point.len() } else { DIM };
    let mut squared = [0.0f32; LANES];
    for (d, x) in point[..dim].iter().enumerate() {
        let column = &block[d * LANES..][..LANES];
        for lane in 0..LANES {
            let difference = column[lane] - x;
            squared[lane] += difference * difference;
        }
    }
    squared
}
