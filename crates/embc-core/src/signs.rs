//! Rows as signs: a mean plus a sum of vectors, each taken with the sign that a bit of the row says
//! (matrix factorisation with binary components, Slawski et al. 2013). In many bits and few vectors:
//! where a codebook of 2⁸ rows is too large for a table, eight signs cost eight vectors.
//!
//! A row has a depth: it uses the first so many vectors, so that frequent ids may have more bits than
//! rare ones. Vectors are found one by one, each for what those before it left; then vectors and signs
//! in turn, vectors by least squares, signs by flips of one or two. The same bits on any number of
//! threads.

use crate::cancel::Cancel;
use crate::linalg::{Op, dot, gemm, solve};
use rayon::prelude::*;

/// Rows that are encoded together.
const ROWS: usize = 256;
/// Rounds of a vector and its signs, when it is found.
const POWER: usize = 8;

/// Vectors of a table.
#[derive(Clone, Debug)]
pub struct Signs {
    /// Columns of a row.
    pub dim: usize,
    /// Vectors [planes × dim].
    pub planes: Vec<f32>,
    /// What is added to all rows [dim].
    pub mean: Vec<f32>,
}

/// Rows to fit, what each counts, and how many vectors it may use.
pub struct Points<'a> {
    /// [n × dim].
    pub rows: &'a [f32],
    /// [n], none negative.
    pub weights: &'a [f32],
    /// [n].
    pub depths: &'a [u32],
}

impl Signs {
    /// The number of vectors.
    pub fn len(&self) -> usize {
        self.planes.len() / self.dim
    }

    /// True without vectors.
    pub fn is_empty(&self) -> bool {
        self.planes.is_empty()
    }

    /// Finds `planes` vectors for points, and signs of points [n × planes]: 1 or −1, and 0 beyond a
    /// point's depth. After the greedy start, `rounds` of vectors and signs in turn.
    pub fn fit(
        points: &Points<'_>,
        dim: usize,
        planes: usize,
        rounds: usize,
        cancel: &Cancel,
    ) -> (Self, Vec<f32>) {
        let mut signs = Self { dim, planes: Vec::new(), mean: mean(points, dim) };
        let mut codes = signs.greedy(points, planes, cancel, &mut |_| {});
        for _ in (0..rounds).take_while(|_| !cancel.is_set()) {
            signs.improve(points, &codes);
            signs.descend(points.rows, &mut codes);
        }
        (signs, codes)
    }

    /// The weighted square that bands of points, which end at `ends`, lose with the first 0, 1, … of
    /// `planes` vectors [bands][planes + 1], as they are found one by one.
    pub fn lost(
        points: &Points<'_>,
        dim: usize,
        planes: usize,
        ends: &[u32],
        cancel: &Cancel,
    ) -> Vec<Vec<f64>> {
        let mut lost = vec![Vec::new(); ends.len()];
        let mut signs = Self { dim, planes: Vec::new(), mean: mean(points, dim) };
        signs.greedy(points, planes, cancel, &mut |left| {
            let mut begin = 0;
            for (&end, lost) in ends.iter().zip(&mut lost) {
                let (ids, end) = (begin..end as usize, end as usize);
                let of = left[begin * dim..end * dim].chunks_exact(dim);
                let square =
                    |(i, row): (usize, &[f32])| f64::from(points.weights[i] * dot(row, row));
                lost.push(ids.zip(of).map(square).sum());
                begin = end;
            }
        });
        lost.iter_mut().for_each(|lost| lost.resize(planes + 1, 0.0));
        lost
    }

    /// One vector after the other: the best for signs, signs the best for it. `see` gets what is left
    /// before the first and after each.
    fn greedy(
        &mut self,
        points: &Points<'_>,
        planes: usize,
        cancel: &Cancel,
        see: &mut dyn FnMut(&[f32]),
    ) -> Vec<f32> {
        let (dim, n) = (self.dim, points.weights.len());
        let mut left = points.rows.to_vec();
        for row in left.chunks_exact_mut(dim) {
            row.iter_mut().zip(&self.mean).for_each(|(x, m)| *x -= m);
        }
        let mut codes = vec![0.0; n * planes];
        let mut sign = vec![0.0; n];
        see(&left);
        for p in 0..planes {
            if cancel.is_set() {
                break;
            }
            let mut plane = start(&left, points, dim, p);
            for _ in 0..POWER {
                let each = sign.par_iter_mut().zip(left.par_chunks_exact(dim)).zip(points.depths);
                each.for_each(|((sign, row), &depth)| {
                    *sign = match p < depth as usize {
                        true if dot(row, &plane) < 0.0 => -1.0,
                        true => 1.0,
                        false => 0.0,
                    };
                });
                plane = mean_along(&left, points.weights, &sign, dim);
            }
            for ((row, sign), codes) in
                left.chunks_exact_mut(dim).zip(&sign).zip(codes.chunks_exact_mut(planes))
            {
                codes[p] = *sign;
                row.iter_mut().zip(&plane).for_each(|(x, v)| *x -= sign * v);
            }
            self.planes.extend(plane);
            see(&left);
        }
        // Of no use once cancelled, but of its size.
        self.planes.resize(planes * dim, 0.0);
        codes
    }

    /// Mean and vectors of least squares for the signs.
    fn improve(&mut self, points: &Points<'_>, codes: &[f32]) {
        let (dim, planes, n) = (self.dim, self.len(), points.weights.len());
        let all = planes + 1;
        let (mut s, mut x) = (vec![0.0; n * all], points.rows.to_vec());
        for (i, (s, x)) in s.chunks_exact_mut(all).zip(x.chunks_exact_mut(dim)).enumerate() {
            let root = points.weights[i].sqrt();
            s[..planes].copy_from_slice(&codes[i * planes..][..planes]);
            s[planes] = 1.0;
            s.iter_mut().chain(x).for_each(|x| *x *= root);
        }
        let (mut gram, mut right) = (vec![0.0; all * all], vec![0.0; all * dim]);
        gemm(all, all, n, &s, Op::T, &s, Op::N, 0.0, &mut gram);
        gemm(all, dim, n, &s, Op::T, &x, Op::N, 0.0, &mut right);
        let trace: f32 = (0..all).map(|i| gram[i * all + i]).sum();
        (0..all).for_each(|i| gram[i * all + i] += 1e-6 * trace / all as f32 + 1e-30);
        if let Some(best) = solve(all, dim, &gram, &right) {
            self.planes.copy_from_slice(&best[..planes * dim]);
            self.mean.copy_from_slice(&best[planes * dim..]);
        }
    }

    /// Flips signs while that brings rows nearer.
    pub fn descend(&self, rows: &[f32], codes: &mut [f32]) {
        let (dim, planes) = (self.dim, self.len());
        let mut gram = vec![0.0; planes * planes];
        gemm(planes, planes, dim, &self.planes, Op::N, &self.planes, Op::T, 0.0, &mut gram);
        let parts = rows.par_chunks(ROWS * dim).zip(codes.par_chunks_mut(ROWS * planes));
        parts.for_each_init(
            || (Vec::new(), Vec::new()),
            |(left, along), (rows, codes)| {
                let n = rows.len() / dim;
                self.decode(codes, left);
                left.iter_mut().zip(rows).for_each(|(left, x)| *left = x - *left);
                along.resize(n * planes, 0.0);
                gemm(n, planes, dim, left, Op::N, &self.planes, Op::T, 0.0, along);
                let each = along.chunks_exact_mut(planes).zip(codes.chunks_exact_mut(planes));
                each.for_each(|(along, codes)| flip(&gram, along, codes));
            },
        );
    }

    /// What signs [n × planes] stand for, `rows` [n × dim].
    pub fn decode(&self, codes: &[f32], rows: &mut Vec<f32>) {
        let (dim, planes) = (self.dim, self.len());
        let n = codes.len() / planes;
        rows.clear();
        (0..n).for_each(|_| rows.extend_from_slice(&self.mean));
        gemm(n, dim, planes, codes, Op::N, &self.planes, Op::N, 1.0, rows);
    }
}

/// Flips one sign, or two, until none brings the row nearer; `along` [planes] is what is left of the
/// row along each vector.
fn flip(gram: &[f32], along: &mut [f32], codes: &mut [f32]) {
    let planes = codes.len();
    let depth = codes.iter().take_while(|&&sign| sign != 0.0).count();
    let turn = |p: usize, along: &mut [f32], codes: &mut [f32]| {
        let by = 2.0 * codes[p];
        codes[p] = -codes[p];
        along.iter_mut().zip(&gram[p * planes..]).for_each(|(a, g)| *a += by * g);
    };
    // A flip changes the square by four times this.
    let gain = |p: usize, along: &[f32], codes: &[f32]| codes[p] * along[p] + gram[p * planes + p];
    for _ in 0..4 * planes {
        let least = |best: (f32, usize), p: usize| {
            let gain = gain(p, along, codes) / gram[p * planes + p].max(1e-30);
            if gain < best.0 { (gain, p) } else { best }
        };
        let (one, p) = (0..depth).fold((-1e-4, planes), least);
        if one < -1e-4 {
            turn(p, along, codes);
            continue;
        }
        let mut best = (0.0, planes, planes);
        for p in 0..depth {
            let (of_p, row) = (gain(p, along, codes), &gram[p * planes..][..planes]);
            let slack = -1e-4 * row[p];
            for q in p + 1..depth {
                let both = of_p + gain(q, along, codes) + 2.0 * codes[p] * codes[q] * row[q];
                if both < best.0 && both < slack {
                    best = (both, p, q);
                }
            }
        }
        if best.1 == planes {
            return;
        }
        turn(best.1, along, codes);
        turn(best.2, along, codes);
    }
}

/// A first direction: the heaviest of the rows that may use this vector, turned twice towards where
/// rows differ most.
fn start(left: &[f32], points: &Points<'_>, dim: usize, p: usize) -> Vec<f32> {
    let counts = |i: usize| p < points.depths[i] as usize;
    let norm = |i: usize| {
        let row = &left[i * dim..][..dim];
        if counts(i) { points.weights[i] * dot(row, row) } else { -1.0 }
    };
    let most = |best: (f32, usize), i: usize| {
        let norm = norm(i);
        if norm > best.0 { (norm, i) } else { best }
    };
    let (_, heaviest) = (0..points.weights.len()).fold((-2.0, 0), most);
    let mut axis = left[heaviest * dim..][..dim].to_vec();
    for _ in 0..POWER {
        let mut next = vec![0f64; dim];
        for (i, row) in left.chunks_exact(dim).enumerate().filter(|&(i, _)| counts(i)) {
            let along = f64::from(points.weights[i] * dot(row, &axis));
            next.iter_mut().zip(row).for_each(|(n, x)| *n += along * f64::from(*x));
        }
        let norm = next.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-30);
        axis.iter_mut().zip(next).for_each(|(a, n)| *a = (n / norm) as f32);
    }
    axis
}

/// The weighted mean.
fn mean(points: &Points<'_>, dim: usize) -> Vec<f32> {
    mean_along(points.rows, points.weights, &vec![1.0; points.weights.len()], dim)
}

/// The weighted mean of rows times their signs.
fn mean_along(left: &[f32], weights: &[f32], sign: &[f32], dim: usize) -> Vec<f32> {
    let (mut sum, mut mass) = (vec![0f64; dim], 0f64);
    for ((row, w), sign) in left.chunks_exact(dim).zip(weights).zip(sign) {
        let along = f64::from(w * sign);
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += along * f64::from(*x));
        mass += along.abs();
    }
    sum.into_iter().map(|sum| (sum / mass.max(1e-30)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn more_signs_lose_less_and_many_lose_next_to_nothing() {
        let mut rng = Rng::stream(1, "signs");
        let rows: Vec<f32> = (0..300 * 8).map(|_| rng.normal() as f32).collect();
        let weights = vec![1.0; 300];
        let lost = |planes: usize| {
            let depths = vec![planes as u32; 300];
            let points = Points { rows: &rows, weights: &weights, depths: &depths };
            let (signs, codes) = Signs::fit(&points, 8, planes, 10, &Cancel::default());
            let mut decoded = Vec::new();
            signs.decode(&codes, &mut decoded);
            let square = |(a, b): (&f32, &f32)| (a - b) * (a - b);
            rows.iter().zip(&decoded).map(square).sum::<f32>()
                / rows.iter().map(|x| x * x).sum::<f32>()
        };
        let all: Vec<f32> = [4, 8, 16, 32, 48].map(lost).into();
        println!("{all:?}");
        assert!(all.is_sorted_by(|a, b| a > b) && all[1] < 0.37 && all[4] < 0.01, "{all:?}");
    }
}
