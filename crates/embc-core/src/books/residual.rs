//! Residual quantisation: each codebook holds centroids of what those before it left; then codes and
//! all codebooks in turn, each codebook the best there is given the others.

use super::{Books, Fitting, Kind, Recipe};
use crate::codebook::centroids;
use crate::linalg::{Op, dot, gemm, vectorised};
use rayon::prelude::*;

/// Rows that are encoded together.
const ROWS: usize = 64;
/// Sweeps over the codebooks for each list of codes.
const SWEEPS: usize = 3;
/// Values that are compared with the worst of the best at once.
const LANES: usize = 64;

pub(super) fn fit(points: &[f32], dim: usize, recipe: Recipe, fitting: &Fitting<'_>) -> Books {
    let Recipe { kind, books: stages, k, lloyd } = recipe;
    let Kind::Residual { beam, rounds } = kind else { unreachable!("of residuals") };
    let n = points.len() / dim;
    let mut books = Books { dim, kind, books: Vec::new(), rotation: None };
    let mut left = points.to_vec();
    let mut nearest = vec![0; n];
    for j in 0..stages {
        let mut rng = fitting.rng.fork(j as u64);
        let Fitting { weights, cancel, .. } = fitting;
        let book = centroids(&left, dim, k, lloyd, *weights, cancel, &mut rng);
        crate::kmeans::assign(&left, dim, &book, &mut nearest);
        for (left, &c) in left.chunks_exact_mut(dim).zip(&nearest) {
            left.iter_mut().zip(&book[c as usize * dim..][..dim]).for_each(|(x, y)| *x -= y);
        }
        books.books.push(book);
    }
    let mut codes = vec![0; n * stages];
    for _ in (0..rounds).take_while(|_| !fitting.cancel.is_set()) {
        encode(&books, beam, points, &mut codes);
        improve(&mut books, points, &codes, fitting.weights);
    }
    books
}

/// Moves every row of every codebook to the mean of what the other codebooks leave.
fn improve(books: &mut Books, points: &[f32], codes: &[u32], weights: Option<&[u32]>) {
    let (dim, stages) = (books.dim, books.books.len());
    let mut left = vec![0.0; points.len()];
    books.decode(codes, &mut left);
    left.iter_mut().zip(points).for_each(|(left, x)| *left = x - *left);
    let weight = |i: usize| weights.map_or(1.0, |w| f64::from(w[i].max(1)));
    for _ in 0..SWEEPS {
        for (j, book) in books.books.iter_mut().enumerate() {
            let code = |i: usize| codes[i * stages + j] as usize;
            let mut sums = vec![0f64; book.len()];
            let mut mass = vec![0f64; book.len() / dim];
            for (i, left) in left.chunks_exact(dim).enumerate() {
                mass[code(i)] += weight(i);
                let sums = &mut sums[code(i) * dim..][..dim];
                sums.iter_mut().zip(left).for_each(|(sum, x)| *sum += weight(i) * f64::from(*x));
            }
            let mean = |(at, sum): (usize, f64)| (sum / mass[at / dim].max(1e-30)) as f32;
            let shift: Vec<f32> = sums.into_iter().enumerate().map(mean).collect();
            book.iter_mut().zip(&shift).for_each(|(x, by)| *x += by);
            for (i, left) in left.chunks_exact_mut(dim).enumerate() {
                left.iter_mut().zip(&shift[code(i) * dim..]).for_each(|(x, by)| *x -= by);
            }
        }
    }
}

/// A partial sum of a row: squared distance that it leaves, the sum before it, and the code.
type Step = (f32, u32, u32);

/// Partial sums of some rows.
#[derive(Default)]
struct Beams {
    /// What they leave of the row [rows × width × dim], and its square.
    left: Vec<f32>,
    squares: Vec<f32>,
    /// Their codes so far [rows × width × stages].
    codes: Vec<u32>,
}

/// Follows for each row the `beam` best partial sums from codebook to codebook.
pub(super) fn encode(books: &Books, beam: usize, rows: &[f32], codes: &mut [u32]) {
    let (dim, stages) = (books.dim, books.books.len());
    let square = |row: &[f32]| dot(row, row);
    let norms: Vec<Vec<f32>> =
        books.books.iter().map(|book| book.chunks_exact(dim).map(square).collect()).collect();
    let parts = rows.par_chunks(ROWS * dim).zip(codes.par_chunks_mut(ROWS * stages));
    parts.for_each_init(
        || (Beams::default(), Beams::default(), Vec::new(), Vec::new()),
        |(now, next, products, best), (rows, codes)| {
            let n = rows.len() / dim;
            now.left = rows.to_vec();
            now.squares = rows.chunks_exact(dim).map(square).collect();
            now.codes = vec![0; n * stages];
            let mut width = 1;
            for (j, (book, norms)) in books.books.iter().zip(&norms).enumerate() {
                let k = norms.len();
                products.resize(n * width * k, 0.0);
                gemm(n * width, k, dim, &now.left, Op::N, book, Op::T, 0.0, products);
                let wider = beam.min(width * k);
                next.left.resize(n * wider * dim, 0.0);
                next.squares.resize(n * wider, 0.0);
                next.codes.resize(n * wider * stages, 0);
                for i in 0..n {
                    let of = i * width..(i + 1) * width;
                    let products = &products[of.start * k..of.end * k];
                    select(&now.squares[of], products, norms, wider, best);
                    for (b, &(_, from, c)) in best.iter().enumerate() {
                        let (from, to) = (i * width + from as usize, i * wider + b);
                        let left = &mut next.left[to * dim..][..dim];
                        let of = now.left[from * dim..][..dim].iter();
                        let of = of.zip(&book[c as usize * dim..][..dim]);
                        left.iter_mut().zip(of).for_each(|(to, (x, y))| *to = x - y);
                        next.squares[to] = square(left);
                        let codes = &mut next.codes[to * stages..][..stages];
                        codes.copy_from_slice(&now.codes[from * stages..][..stages]);
                        codes[j] = c;
                    }
                }
                width = wider;
                std::mem::swap(now, next);
            }
            let best = now.codes.chunks_exact(width * stages);
            codes.chunks_exact_mut(stages).zip(best).for_each(|(to, of)| {
                to.copy_from_slice(&of[..stages]);
            });
        },
    );
}

/// The `n` least of square − 2 · product + norm, in order; of equals the first.
fn select(squares: &[f32], products: &[f32], norms: &[f32], n: usize, best: &mut Vec<Step>) {
    let k = norms.len();
    best.clear();
    best.resize(n, (f32::INFINITY, 0, 0));
    let best = &mut best[..n];
    vectorised(
        #[inline(always)]
        || {
            let norms = norms.as_chunks::<LANES>();
            for (from, (square, products)) in squares.iter().zip(products.chunks(k)).enumerate() {
                let products = products.as_chunks::<LANES>();
                for (block, (products, norms)) in products.0.iter().zip(norms.0).enumerate() {
                    let mut distances = [0.0; LANES];
                    let (mut nearer, worst) = (0, best[n - 1].0);
                    for lane in 0..LANES {
                        distances[lane] = square - 2.0 * products[lane] + norms[lane];
                        nearer |= u32::from(distances[lane] < worst);
                    }
                    if nearer > 0 {
                        insert(best, &distances, from as u32, (block * LANES) as u32);
                    }
                }
                let rest = products.1.iter().zip(norms.1);
                let rest = rest.map(|(product, norm)| square - 2.0 * product + norm);
                let at = products.0.len() * LANES;
                insert(best, &rest.collect::<Vec<f32>>(), from as u32, at as u32);
            }
        },
    );
}

/// Puts distances of codes from the `first`th on where they belong.
#[inline(never)]
fn insert(best: &mut [Step], distances: &[f32], from: u32, first: u32) {
    let last = best.len() - 1;
    for (code, &distance) in (first..).zip(distances) {
        if distance < best[last].0 {
            let at = best.partition_point(|step| step.0 <= distance);
            best.copy_within(at..last, at + 1);
            best[at] = (distance, from, code);
        }
    }
}
