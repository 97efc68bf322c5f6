//! Clustering the sketch on least squares, where theory can follow it (CCE §3): the loss of
//! min_T |X T − Y|² when T = H M, and H is made anew from the last T in each iteration.
//!
//! X [n × ids] and Y [n × dim] are seen once: the Gram matrix XᵀX [ids × ids] and XᵀY [ids × dim]
//! tell every later loss and solution, so that an iteration costs ids² · columns and not n.
//! A loss is kept as its excess over the optimum's, tr((T − T*)ᵀ XᵀX (T − T*)), which stays exact
//! where the two are close.

use crate::kmeans::{self, Start};
use crate::rng::Rng;
use faer::{Mat, Side, concat};
use serde::{Deserialize, Serialize};

/// What X and Y are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Rows of X and Y: n.
    pub examples: usize,
    /// Columns of X, rows of T: d1.
    pub ids: usize,
    /// Columns of Y and T: d2.
    pub dim: usize,
    /// X = A B + 0.01 N with A [n × rank] and B [rank × ids] of normal values, instead of normal X.
    #[serde(default)]
    pub rank: Option<usize>,
    /// Y = X T for a normal T, instead of normal Y: the optimum's loss is zero.
    #[serde(default)]
    pub planted: bool,
}

/// X and Y, as far as losses and solutions depend on them.
pub struct Problem {
    /// XᵀX [ids × ids].
    gram: Mat<f64>,
    /// XᵀY [ids × dim].
    cross: Mat<f64>,
    /// T* [ids × dim].
    optimum: Mat<f64>,
    /// |X T* − Y|².
    pub least: f64,
    /// |X T*|²: the excess of T = 0.
    pub explained: f64,
    /// Squared singular values of X, ascending [ids].
    spectrum: Vec<f64>,
    /// V Σ⁻¹ [ids × ids]: columns are X's right singular directions over their singular values.
    whitening: Mat<f64>,
    /// n · dim: losses over it are mean squared errors.
    pub entries: f64,
}

/// How H is made (CCE §3, Algorithms 1 and 2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// Algorithm 1: H = [T | noise]. The first iteration is normal noise alone.
    Dense {
        /// What is beside T.
        #[serde(default)]
        noise: Noise,
        /// Columns of noise after the first iteration; as many as rows of M, if not given.
        #[serde(default)]
        fresh: Option<usize>,
    },
    /// Algorithm 2: H = [clusters of T's rows | count sketch]. The first iteration is the sketch alone.
    Sparse {
        /// How rows of T are assigned.
        #[serde(default)]
        clusters: Clusters,
        /// Non-zeros of each row of H in each half.
        #[serde(default = "one")]
        ones: usize,
        /// The sketch's non-zeros are +1 or −1, instead of +1.
        #[serde(default)]
        signed: bool,
    },
}

fn one() -> usize {
    1
}

/// The columns beside T in the dense method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// N(0, 1).
    #[default]
    Normal,
    /// V Σ⁻¹ N(0, 1): as likely to point where X is narrow as where it is wide.
    Smart,
    /// Normal, and T itself keeps weight 1: M = [I | M′], as in the proof.
    Half,
    /// Smart, with M = [I | M′].
    HalfSmart,
}

/// How the sparse method assigns the rows of T.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clusters {
    /// k-means from k-means++.
    #[default]
    PlusPlus,
    /// k-means from random rows.
    Random,
    /// No k-means: the nearest of normal code words (v1, Fig. 9).
    Codebook,
}

/// Lloyd's iterations of each k-means.
const LLOYD: usize = 20;

impl Problem {
    /// Draws X and Y, and solves them.
    pub fn draw(spec: &Spec, seed: u64) -> Self {
        let Spec { examples, ids, dim, rank, planted } = *spec;
        let stream = |name| Rng::stream(seed, name);
        let x = match rank {
            None => normal(examples, ids, stream("x")),
            Some(rank) => {
                let low = normal(examples, rank, stream("a")) * normal(rank, ids, stream("b"));
                low + 0.01 * normal(examples, ids, stream("x"))
            }
        };
        let gram = x.transpose() * &x;
        let (cross, optimum, least);
        if planted {
            optimum = normal(ids, dim, stream("t"));
            cross = &gram * &optimum;
            least = 0.0;
        } else {
            let y = normal(examples, dim, stream("y"));
            cross = x.transpose() * &y;
            optimum = solve(&gram, &cross);
            least = y.squared_norm_l2() - inner(&optimum, &cross);
        }
        let explained = inner(&optimum, &cross);
        let eigen = gram.self_adjoint_eigen(Side::Lower).expect("finite and symmetric");
        let spectrum: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
        let whitening =
            Mat::from_fn(ids, ids, |i, j| eigen.U()[(i, j)] / spectrum[j].max(0.0).sqrt());
        let entries = (examples * dim) as f64;
        Self { gram, cross, optimum, least, explained, spectrum, whitening, entries }
    }

    /// |X T − Y|² − |X T* − Y|².
    fn excess(&self, t: &Mat<f64>) -> f64 {
        let off = t - &self.optimum;
        inner(&off, &(&self.gram * &off))
    }

    /// The best M for H, and the T = H M that it gives.
    fn fit(&self, h: &Mat<f64>) -> Mat<f64> {
        h * solve(&(h.transpose() * (&self.gram * h)), &(h.transpose() * &self.cross))
    }

    /// ρ = σ_min² / Σ σ² (Theorem 3.1).
    pub fn rho(&self) -> f64 {
        self.spectrum[0].max(0.0) / self.spectrum.iter().sum::<f64>()
    }

    /// The excess of T's rows replaced by the centroids of their k clusters, and of the best
    /// codebook for these clusters: what one pointer an id can reach. The best of ten k-means.
    pub fn clustered_optimum(&self, k: usize, seed: u64) -> (f64, f64) {
        let (ids, dim) = (self.optimum.nrows(), self.optimum.ncols());
        let points = rows(&self.optimum);
        let tries = (0..10).map(|i| {
            let rng = &mut Rng::stream(seed, "optimum").fork(i);
            let (nearest, centroids) = clusters(&points, dim, k, Start::PlusPlus, rng);
            let at = |i, j| f64::from(centroids[nearest[i] as usize * dim + j]);
            let pointed = Mat::from_fn(ids, k, |i, c| f64::from(nearest[i] as usize == c));
            (self.excess(&Mat::from_fn(ids, dim, at)), self.excess(&self.fit(&pointed)))
        });
        tries.min_by(|a, b| a.0.total_cmp(&b.0)).expect("ten tries")
    }

    /// The excess loss of each iteration, without end; the first has no T before it.
    pub fn iterate(&self, method: Method, k: usize, seed: u64) -> impl Iterator<Item = f64> {
        let stream = Rng::stream(seed, "lsq");
        let mut last: Option<Mat<f64>> = None;
        (0u64..).map(move |i| {
            let t = self.step(method, k, last.as_ref(), &stream.fork(i));
            let excess = self.excess(&t);
            last = Some(t);
            excess
        })
    }

    fn step(&self, method: Method, k: usize, t: Option<&Mat<f64>>, rng: &Rng) -> Mat<f64> {
        let (ids, beside, sketched) = (self.gram.nrows(), rng.fork(0), rng.fork(1));
        match (method, t) {
            (Method::Dense { .. }, None) => self.fit(&normal(ids, k, beside)),
            (Method::Dense { noise, fresh }, Some(t)) => {
                let mut columns = normal(ids, fresh.unwrap_or(k), beside);
                if matches!(noise, Noise::Smart | Noise::HalfSmart) {
                    columns = &self.whitening * columns;
                }
                if matches!(noise, Noise::Normal | Noise::Smart) {
                    return self.fit(&concat![[t, &columns]]);
                }
                // M′ fits what T leaves over.
                let gram = &self.gram * &columns;
                let left = columns.transpose() * (&self.cross - &self.gram * t);
                t + &columns * solve(&(columns.transpose() * gram), &left)
            }
            (Method::Sparse { ones, signed, .. }, None) => {
                self.fit(&sketch(ids, k, ones, signed, sketched))
            }
            (Method::Sparse { clusters, ones, signed }, Some(t)) => {
                let sketch = sketch(ids, k, ones, signed, sketched);
                self.fit(&concat![[&assignment(t, k, ones, clusters, beside), &sketch]])
            }
        }
    }
}

/// Nearest clusters of T's rows as a matrix of zeros and ones [ids × k].
fn assignment(t: &Mat<f64>, k: usize, ones: usize, how: Clusters, mut rng: Rng) -> Mat<f64> {
    let (ids, dim) = (t.nrows(), t.ncols());
    let points = rows(t);
    let mut a = Mat::zeros(ids, k);
    let start = match how {
        Clusters::PlusPlus => Start::PlusPlus,
        _ => Start::Random,
    };
    let centroids = match how {
        Clusters::Codebook => (0..k * dim).map(|_| rng.normal() as f32).collect(),
        _ => kmeans::kmeans(&points, dim, k, None, kmeans::Lloyd::new(start, LLOYD), &mut rng),
    };
    for (i, point) in points.chunks_exact(dim).enumerate() {
        let far = |c: usize| -> f32 {
            point.iter().zip(&centroids[c * dim..]).map(|(x, y)| (x - y) * (x - y)).sum()
        };
        let mut order: Vec<(f32, usize)> = (0..k).map(|c| (far(c), c)).collect();
        order.select_nth_unstable_by(ones - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order[..ones].iter().for_each(|&(_, c)| a[(i, c)] = 1.0);
    }
    a
}

/// Clusters of points, and their centroids.
fn clusters(p: &[f32], dim: usize, k: usize, start: Start, rng: &mut Rng) -> (Vec<u32>, Vec<f32>) {
    let centroids = kmeans::kmeans(p, dim, k, None, kmeans::Lloyd::new(start, LLOYD), rng);
    let mut nearest = vec![0; p.len() / dim];
    kmeans::assign(p, dim, &centroids, &mut nearest);
    (nearest, centroids)
}

/// A count sketch [ids × k]: `ones` non-zeros in each row.
fn sketch(ids: usize, k: usize, ones: usize, signed: bool, mut rng: Rng) -> Mat<f64> {
    let mut c = Mat::zeros(ids, k);
    for i in 0..ids {
        for _ in 0..ones {
            let sign = if signed && rng.below(2) == 0 { -1.0 } else { 1.0 };
            c[(i, rng.below(k as u64) as usize)] += sign;
        }
    }
    c
}

/// The solution of A Z = B of least norm, for a positive semi-definite A: clusters and a sketch
/// share a direction (both sum to one in each row), and an empty bucket is a column of zeros.
fn solve(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    // To a diagonal of ones, so that columns of different scale do not look dependent.
    let n = a.nrows();
    let scale: Vec<f64> =
        (0..n).map(|i| if a[(i, i)] > 0.0 { a[(i, i)].sqrt().recip() } else { 0.0 }).collect();
    let scaled = Mat::from_fn(n, n, |i, j| scale[i] * a[(i, j)] * scale[j]);
    let eigen = scaled.self_adjoint_eigen(Side::Lower).expect("finite and symmetric");
    let (u, s) = (eigen.U(), eigen.S().column_vector());
    let least = 1e-13 * s[n - 1];
    let seen = u.transpose() * Mat::from_fn(n, b.ncols(), |i, j| scale[i] * b[(i, j)]);
    let weighed = Mat::from_fn(n, b.ncols(), |i, j| match s[i] > least {
        true => seen[(i, j)] / s[i],
        false => 0.0,
    });
    let z = u * weighed;
    Mat::from_fn(n, b.ncols(), |i, j| scale[i] * z[(i, j)])
}

fn normal(rows: usize, columns: usize, mut rng: Rng) -> Mat<f64> {
    Mat::from_fn(rows, columns, |_, _| rng.normal())
}

/// ⟨A, B⟩, the sum of products of entries.
fn inner(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    let columns = a.col_iter().zip(b.col_iter());
    columns.map(|(a, b)| a.transpose() * b).sum()
}

/// Row-major, for k-means.
fn rows(t: &Mat<f64>) -> Vec<f32> {
    t.row_iter().flat_map(|row| row.iter().map(|x| *x as f32).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAPER: Spec = Spec { examples: 10_000, ids: 1000, dim: 10, rank: None, planted: false };

    #[track_caller]
    fn close(ours: f64, expect: f64, share: f64) {
        assert!((ours / expect - 1.0).abs() < share, "{ours} against {expect}");
    }

    fn run(p: &Problem, method: Method, k: usize, iterations: usize, seed: u64) -> Vec<f64> {
        p.iterate(method, k, seed).take(iterations).collect()
    }

    /// Theorem 3.1, and the curve of the paper's Fig. 8, close to (1 − 1/d1)^ik at first.
    #[test]
    fn dense_stays_below_the_theorem() {
        let p = Problem::draw(&PAPER, 1);
        close(p.rho(), 0.00047, 0.02);
        let excess = run(&p, Method::Dense { noise: Noise::Normal, fresh: None }, 100, 100, 1);
        let left: Vec<f64> = excess.iter().map(|e| e / p.explained).collect();
        for (i, left) in left.iter().enumerate() {
            assert!(*left < (1.0 - p.rho()).powi(100 * (i as i32 + 1)), "iteration {}", i + 1);
        }
        for (iteration, expect) in [(1, 0.904), (5, 0.595), (20, 0.132), (50, 0.0075)] {
            close(left[iteration - 1], expect, 0.1);
        }
    }

    /// The paper's Fig. 1b; its first point is the second solve.
    #[test]
    fn sparse_follows_the_paper() {
        let p = Problem::draw(&Spec { planted: true, ..PAPER }, 1);
        let method = Method::Sparse { clusters: Clusters::PlusPlus, ones: 1, signed: false };
        let excess = run(&p, method, 100, 201, 1);
        for (iteration, expect, share) in [(1, 767.0, 0.05), (20, 518.0, 0.05), (200, 400.9, 0.06)]
        {
            close(excess[iteration] / p.entries, expect, share);
        }
        let (pointed, fitted) = p.clustered_optimum(100, 1);
        assert!(fitted < pointed && pointed < excess[200]);
    }

    /// The paper's Fig. 6, over forty draws: iterations 5, 10, 20, 30.
    #[test]
    fn kinds_of_noise_differ_as_in_the_paper() {
        let spec = Spec { examples: 625, ids: 125, dim: 5, rank: Some(10), planted: true };
        let problems: Vec<Problem> = (1..=40).map(|seed| Problem::draw(&spec, seed)).collect();
        for (noise, expect) in [
            (Noise::Normal, [0.00607, 0.00322, 0.00109, 0.000389]),
            (Noise::Smart, [0.00680, 0.00275, 0.000441, 0.0000705]),
            (Noise::HalfSmart, [0.00704, 0.00288, 0.000499, 0.0000884]),
            (Noise::Half, [0.0103, 0.0066, 0.00283, 0.00128]),
        ] {
            let mut mean = [0.0; 4];
            for (seed, p) in (1..).zip(&problems) {
                let excess = run(p, Method::Dense { noise, fresh: Some(20) }, 25, 31, seed);
                for (mean, i) in mean.iter_mut().zip([5, 10, 20, 30]) {
                    *mean += excess[i] / p.entries / 40.0;
                }
            }
            mean.into_iter().zip(expect).for_each(|(mean, expect)| close(mean, expect, 0.15));
        }
    }

    /// Dependent columns and empty buckets change nothing about what the others span.
    #[test]
    fn solutions_of_least_norm() {
        let a = Mat::from_fn(3, 3, |i, j| [[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0; 3]][i][j]);
        let z = solve(&a, &Mat::from_fn(3, 1, |i, _| [4.0, 4.0, 0.0][i]));
        (0..3).for_each(|i| assert!((z[(i, 0)] - [1.0, 1.0, 0.0][i]).abs() < 1e-12));
    }
}
