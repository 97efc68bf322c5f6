//! Rows as codes: of every codebook a row, side by side (product quantisation, Jégou et al. 2011),
//! side by side and turned back by a rotation (OPQ, Ge et al. 2013), or summed (residual
//! quantisation, Chen et al. 2010).
//!
//! Books are fitted to points, which may be a sample, and then encode any rows. The same bits on any
//! number of threads.

mod residual;

use crate::cancel::Cancel;
use crate::codebook::centroids;
use crate::kmeans::{self, assign, refine};
use crate::linalg::{Op, eigen, gemm, polar};
use crate::rng::Rng;
use rayon::prelude::*;

pub use crate::codebook::Lloyd;

/// How codebooks make a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Their rows side by side.
    Product,
    /// Their rows side by side, rotated.
    Rotated {
        /// Of rotation and codebooks in turn.
        iterations: usize,
    },
    /// The sum of their rows.
    Residual {
        /// Partial sums that are followed for each row.
        beam: usize,
        /// Of codes and all codebooks in turn, after codebooks were found one by one.
        rounds: usize,
    },
}

/// What is to be fitted.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// How codebooks make a row.
    pub kind: Kind,
    /// Codebooks; where they lie side by side, they divide the width.
    pub books: usize,
    /// Rows of a codebook.
    pub k: u32,
    /// Of k-means.
    pub lloyd: Lloyd,
}

/// What fitting reads beside points.
pub struct Fitting<'a> {
    /// Weights of the points; all equal without them.
    pub weights: Option<&'a [u32]>,
    /// Ends it early; what comes of it is then of no use.
    pub cancel: &'a Cancel,
    /// Draws samples and first centroids.
    pub rng: Rng,
}

/// Codebooks.
#[derive(Clone, Debug)]
pub struct Books {
    /// Columns of a row.
    pub dim: usize,
    /// How they make a row.
    pub kind: Kind,
    /// Each [at most k × width]: fewer rows where there were fewer points.
    pub books: Vec<Vec<f32>>,
    /// What rows are multiplied by before they are cut into pieces [dim × dim], orthogonal.
    pub rotation: Option<Vec<f32>>,
}

impl Books {
    /// Fits codebooks to points [n × dim], n ≥ 1.
    pub fn fit(points: &[f32], dim: usize, recipe: Recipe, fitting: &Fitting<'_>) -> Self {
        match recipe.kind {
            Kind::Product => Self::product(points, dim, recipe, fitting),
            Kind::Rotated { iterations } => Self::rotated(points, dim, recipe, iterations, fitting),
            Kind::Residual { .. } => residual::fit(points, dim, recipe, fitting),
        }
    }

    /// Columns of a codebook.
    pub fn width(&self) -> usize {
        match self.kind {
            Kind::Residual { .. } => self.dim,
            _ => self.dim / self.books.len(),
        }
    }

    /// The codes of rows [n × dim], `codes` [n × books].
    pub fn encode(&self, rows: &[f32], codes: &mut [u32]) {
        match (self.kind, &self.rotation) {
            (Kind::Residual { beam, .. }, _) => residual::encode(self, beam, rows, codes),
            (_, Some(rotation)) => self.encode_pieces(&turned(rows, self.dim, rotation), codes),
            _ => self.encode_pieces(rows, codes),
        }
    }

    /// What turns decoded pieces back, if they were turned: the rotation's transpose.
    pub fn back(&self) -> Option<Vec<f32>> {
        let of = self.rotation.as_ref()?;
        let dim = self.dim;
        Some((0..dim * dim).map(|at| of[at % dim * dim + at / dim]).collect())
    }

    fn encode_pieces(&self, rows: &[f32], codes: &mut [u32]) {
        let (books, width) = (self.books.len(), self.width());
        let nearest = |(j, book): (usize, &Vec<f32>)| {
            let mut nearest = vec![0; rows.len() / self.dim];
            assign(&column(rows, self.dim, j, width), width, book, &mut nearest);
            nearest
        };
        let all: Vec<Vec<u32>> = self.books.par_iter().enumerate().map(nearest).collect();
        for (j, nearest) in all.iter().enumerate() {
            codes.chunks_exact_mut(books).zip(nearest).for_each(|(codes, &c)| codes[j] = c);
        }
    }

    /// What codes [n × books] stand for, `rows` [n × dim].
    pub fn decode(&self, codes: &[u32], rows: &mut [f32]) {
        let width = self.width();
        let each = rows.chunks_exact_mut(self.dim).zip(codes.chunks_exact(self.books.len()));
        for (row, codes) in each {
            row.fill(0.0);
            for (j, (book, &c)) in self.books.iter().zip(codes).enumerate() {
                let at = if width == self.dim { 0 } else { j * width };
                let of = &book[c as usize * width..][..width];
                row[at..at + width].iter_mut().zip(of).for_each(|(x, y)| *x += y);
            }
        }
        if let Some(rotation) = &self.rotation {
            let (n, dim, turned) = (rows.len() / self.dim, self.dim, rows.to_vec());
            gemm(n, dim, dim, &turned, Op::N, rotation, Op::T, 0.0, rows);
        }
    }

    fn product(points: &[f32], dim: usize, recipe: Recipe, fitting: &Fitting<'_>) -> Self {
        let width = dim / recipe.books;
        let book = |j: usize| {
            let (pieces, mut rng) = (column(points, dim, j, width), fitting.rng.fork(j as u64));
            let Fitting { weights, cancel, .. } = fitting;
            centroids(&pieces, width, recipe.k, recipe.lloyd, *weights, cancel, &mut rng)
        };
        // Codebooks side by side: one alone is too small a work for all cores.
        let books = (0..recipe.books).into_par_iter().map(book).collect();
        Self { dim, kind: recipe.kind, books, rotation: None }
    }

    /// From principal axes, whose variance is spread over the pieces, rotation and codebooks in turn
    /// (Ge et al. 2013, §3.1).
    fn rotated(
        points: &[f32],
        dim: usize,
        recipe: Recipe,
        iterations: usize,
        fitting: &Fitting<'_>,
    ) -> Self {
        let n = points.len() / dim;
        let weights = fitting.weights.map(|w| w.iter().map(|&w| w.max(1) as f32).collect());
        let weights: Option<Vec<f32>> = weights;
        let mut rotation = balanced(points, dim, recipe.books);
        let first = turned(points, dim, &rotation);
        let mut books = Self { kind: recipe.kind, ..Self::product(&first, dim, recipe, fitting) };
        let (width, mut codes) = (books.width(), vec![0; n * recipe.books]);
        for _ in (0..iterations).take_while(|_| !fitting.cancel.is_set()) {
            let seen = turned(points, dim, &rotation);
            let (start, cancel) = (recipe.lloyd.start, Some(fitting.cancel));
            let lloyd = kmeans::Lloyd { start, iterations: 2, cancel };
            books.books.par_iter_mut().enumerate().for_each(|(j, book)| {
                refine(&column(&seen, dim, j, width), width, book, weights.as_deref(), lloyd);
            });
            let (mut rows, mut product) = (seen, vec![0.0; dim * dim]);
            books.encode_pieces(&rows, &mut codes);
            books.decode(&codes, &mut rows);
            gemm(dim, dim, n, points, Op::T, &rows, Op::N, 0.0, &mut product);
            rotation = polar(dim, &product);
        }
        Self { rotation: Some(rotation), ..books }
    }
}

/// Rows · rotation.
fn turned(rows: &[f32], dim: usize, rotation: &[f32]) -> Vec<f32> {
    let mut turned = vec![0.0; rows.len()];
    gemm(rows.len() / dim, dim, dim, rows, Op::N, rotation, Op::N, 0.0, &mut turned);
    turned
}

/// Piece `j` of rows [n × dim].
fn column(rows: &[f32], dim: usize, j: usize, width: usize) -> Vec<f32> {
    let mut pieces = vec![0.0; rows.len() / dim * width];
    let each = pieces.chunks_exact_mut(width).zip(rows.chunks_exact(dim));
    each.for_each(|(piece, row)| piece.copy_from_slice(&row[j * width..][..width]));
    pieces
}

/// The sum of products of the columns of rows [n × dim], around their mean with `centred`.
pub fn covariance(rows: &[f32], dim: usize, centred: bool) -> Vec<f32> {
    let n = rows.len() / dim;
    let mut products = vec![0.0; dim * dim];
    gemm(dim, dim, n, rows, Op::T, rows, Op::N, 0.0, &mut products);
    if centred {
        let mut sums = vec![0f64; dim];
        for row in rows.chunks_exact(dim) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        for (at, product) in products.iter_mut().enumerate() {
            *product -= (sums[at / dim] * sums[at % dim] / n as f64) as f32;
        }
    }
    products
}

/// A rotation [dim × dim] to principal axes, so that pieces have products of variances as equal as
/// can be (Ge et al. 2013, §3.2).
fn balanced(points: &[f32], dim: usize, pieces: usize) -> Vec<f32> {
    let (values, axes) = eigen(dim, &covariance(points, dim, true));
    let (width, mut taken) = (dim / pieces, vec![(0f64, 0usize); pieces]);
    let mut rotation = vec![0.0; dim * dim];
    // Over the least, so that products grow with every axis, whatever the table's scale.
    let least = values[dim - 1].max(1e-9 * values[0]).max(f32::MIN_POSITIVE);
    for (axis, value) in axes.chunks_exact(dim).zip(values) {
        let open = (0..pieces).filter(|&j| taken[j].1 < width);
        let j = open.min_by(|&a, &b| taken[a].0.total_cmp(&taken[b].0)).expect("places left");
        let at = j * width + taken[j].1;
        axis.iter().enumerate().for_each(|(i, x)| rotation[i * dim + at] = *x);
        taken[j] = (taken[j].0 + f64::from((value / least).max(1.0)).ln(), taken[j].1 + 1);
    }
    rotation
}
