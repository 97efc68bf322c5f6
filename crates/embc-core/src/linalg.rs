//! The one file that knows a matrix product.
//!
//! Products run through `faer`, whose kernels are picked at run time for the machine's vectors, in
//! blocks that depend on the shape alone, so every thread count gives the same bits.

use faer::reborrow::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef, Par, Side, linalg::matmul::matmul};
use rayon::prelude::*;

/// Products of fewer multiply-adds stay on the calling thread.
const PARALLEL_WORK: usize = 1 << 22;
/// Most parts of a product.
const BLOCKS: usize = 8;
/// Columns that the kernels take at once.
const PANEL: usize = 64;
/// Rows of a part that lie in the cache while all its columns are computed.
const ROWS: usize = 256;

/// How an operand is stored: as given, or transposed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Row-major as in the formula.
    N,
    /// The transpose of what is stored.
    T,
}

fn view(data: &[f32], rows: usize, cols: usize, op: Op) -> MatRef<'_, f32> {
    match op {
        Op::N => MatRef::from_row_major_slice(data, rows, cols),
        Op::T => MatRef::from_row_major_slice(data, cols, rows).transpose(),
    }
}

/// Runs `f` in the widest vectors that this machine has. What is inlined into `f`, which should be
/// `#[inline(always)]`, is compiled once for each kind of machine; the arithmetic, and so every
/// bit, is the same on all of them.
#[inline(always)]
pub fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// C[m×n] = op(A)[m×k] · op(B)[k×n] + beta · C.
#[allow(clippy::too_many_arguments)] // the BLAS signature, minus the strides
pub fn gemm(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    op_a: Op,
    b: &[f32],
    op_b: Op,
    beta: f32,
    c: &mut [f32],
) {
    gemm_then(m, n, k, a, op_a, b, op_b, beta, c, |_, _, _| ());
}

/// [`gemm`], and `then(row, column, piece)` on every row of every block of C, the place of its
/// first value before it: on the thread that made it, while it lies in its cache.
#[allow(clippy::too_many_arguments)]
pub fn gemm_then(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    op_a: Op,
    b: &[f32],
    op_b: Op,
    beta: f32,
    c: &mut [f32],
    then: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    if beta != 0.0 && beta != 1.0 {
        c.iter_mut().for_each(|c| *c *= beta);
    }
    let add = if beta == 0.0 { Accum::Replace } else { Accum::Add };
    if n == 1 && op_a == Op::T {
        // Aᵀ·b: rows of the stored A, scaled and summed in order.
        return vectorised(
            #[inline(always)]
            || {
                if beta == 0.0 {
                    c.fill(0.0);
                }
                a.chunks_exact(m).zip(b).for_each(|(a, &b)| axpy(b, a, c));
                c.chunks_mut(1).enumerate().for_each(|(row, c)| then(row, 0, c));
            },
        );
    }
    if n == 1 || (k == 1 && op_a == Op::N) {
        // A·b, a dot a row, or the outer product a·bᵀ: a packing product would take several times
        // longer.
        return vectorised(
            #[inline(always)]
            || {
                for (row, (a, c)) in a.chunks_exact(k).zip(c.chunks_exact_mut(n)).enumerate() {
                    if beta == 0.0 {
                        c.fill(0.0);
                    }
                    if n == 1 {
                        c[0] += dot(a, b);
                    } else {
                        axpy(a[0], b, c);
                    }
                    then(row, 0, c);
                }
            },
        );
    }
    let c = MatMut::from_row_major_slice_mut(c, m, n);
    Product { a: view(a, m, k, op_a), b: view(b, k, n, op_b), add, then }.block(c, 0, 0, BLOCKS);
}

/// A product of matrices, and what follows on each row of a block.
struct Product<'a, F> {
    a: MatRef<'a, f32>,
    b: MatRef<'a, f32>,
    add: Accum,
    then: F,
}

impl<F: Fn(usize, usize, &mut [f32]) + Sync> Product<'_, F> {
    /// Computes the block C of the product that begins at (`row`, `column`), in up to `blocks`
    /// parts. Once their rows fit the cache, columns are split: each part packs its own alone.
    fn block(&self, mut c: MatMut<'_, f32>, row: usize, column: usize, blocks: usize) {
        let (m, n, k) = (c.nrows(), c.ncols(), self.a.ncols());
        let split = blocks > 1 && m * n * k >= PARALLEL_WORK;
        if split && n >= 2 * PANEL && m <= ROWS {
            let half = (n / 2).next_multiple_of(PANEL);
            let (left, right) = c.split_at_col_mut(half);
            rayon::join(
                || self.block(left, row, column, blocks / 2),
                || self.block(right, row, column + half, blocks / 2),
            );
        } else if split && m >= 16 {
            let half = (m / 2).next_multiple_of(8);
            let (top, bottom) = c.split_at_row_mut(half);
            rayon::join(
                || self.block(top, row, column, blocks / 2),
                || self.block(bottom, row + half, column, blocks / 2),
            );
        } else {
            let (a, b) = (self.a.subrows(row, m), self.b.subcols(column, n));
            matmul(c.rb_mut(), self.add, a, b, 1.0, Par::Seq);
            vectorised(
                #[inline(always)]
                || {
                    for i in 0..m {
                        let piece = c.rb_mut().row_mut(i).try_as_row_major_mut();
                        (self.then)(row + i, column, piece.expect("row-major").as_slice_mut());
                    }
                },
            );
        }
    }
}

/// Eigenvalues of a symmetric matrix [n × n], the greatest first, and the eigenvector of each as a row
/// [n × n]; zeros where the matrix holds NaN.
pub fn eigen(n: usize, a: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let Ok(of) = double(n, n, a).self_adjoint_eigen(Side::Lower) else {
        return (vec![0.0; n], vec![0.0; n * n]);
    };
    let values = (0..n).rev().map(|j| of.S()[j] as f32).collect();
    // Signs are as they come out; the largest component is positive here, so that they do not depend
    // on the kind of machine.
    let axis = |j: usize| {
        let axis: Vec<f64> = (0..n).map(|i| of.U()[(i, j)]).collect();
        let largest =
            axis.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        axis.into_iter().map(move |x| (x * largest.signum()) as f32)
    };
    (values, (0..n).rev().flat_map(axis).collect())
}

/// The orthogonal matrix that is nearest to a [n × n]: U·Vᵀ of its singular vectors.
pub fn polar(n: usize, a: &[f32]) -> Vec<f32> {
    let Ok(of) = double(n, n, a).svd() else { return a.to_vec() };
    let product = of.U() * of.V().transpose();
    (0..n * n).map(|at| product[(at / n, at % n)] as f32).collect()
}

/// x [n × m] of a · x = b, a [n × n] symmetric and positive; none where it is not.
pub fn solve(n: usize, m: usize, a: &[f32], b: &[f32]) -> Option<Vec<f32>> {
    use faer::linalg::solvers::Solve;
    let x = double(n, n, a).llt(Side::Lower).ok()?.solve(double(n, m, b));
    Some((0..n * m).map(|at| x[(at / m, at % m)] as f32).collect())
}

fn double(rows: usize, columns: usize, a: &[f32]) -> Mat<f64> {
    Mat::from_fn(rows, columns, |i, j| f64::from(a[i * columns + j]))
}

/// sums [n] += the columns' sums of x [m × n], four rows at a time from the first to the last.
pub fn add_columns(x: &[f32], sums: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            let n = sums.len();
            let fours = x.chunks_exact(4 * n);
            let rest = fours.remainder();
            for x in fours {
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| &x[i * n..][..n]);
                for i in 0..n {
                    sums[i] += (a[i] + b[i]) + (c[i] + d[i]);
                }
            }
            rest.chunks_exact(n).for_each(|x| axpy(1.0, x, sums));
        },
    );
}

/// y = f(x, y), elementwise. Rows are short: for the usual widths a loop of known length, since one
/// of any length spends its time on the ends.
#[inline(always)]
fn each(x: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    #[inline(always)]
    fn fixed<const N: usize>(x: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
        let x: &[f32; N] = x.try_into().expect("the length matched");
        let y: &mut [f32; N] = y.try_into().expect("rows of one width");
        for i in 0..N {
            y[i] = f(x[i], y[i]);
        }
    }
    match x.len() {
        1 => fixed::<1>(x, y, f),
        4 => fixed::<4>(x, y, f),
        8 => fixed::<8>(x, y, f),
        16 => fixed::<16>(x, y, f),
        32 => fixed::<32>(x, y, f),
        64 => fixed::<64>(x, y, f),
        128 => fixed::<128>(x, y, f),
        256 => fixed::<256>(x, y, f),
        _ => y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x, *y)),
    }
}

/// y += a · x.
#[inline(always)]
pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    each(x, y, |x, y| y + a * x);
}

/// y = a · x.
#[inline(always)]
pub fn scale(a: f32, x: &[f32], y: &mut [f32]) {
    each(x, y, |x, _| a * x);
}

/// ⟨x, y⟩, summed in eight fixed lanes so that the compiler can vectorise it.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let tail: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in xs.zip(ys) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// Whether all of x are numbers. The exponents of infinity and NaN are the largest.
pub fn all_finite(x: &[f32]) -> bool {
    const INFINITY: u32 = f32::INFINITY.to_bits();
    x.par_chunks(1 << 16).all(|x| {
        vectorised(
            #[inline(always)]
            || x.iter().fold(0, |most, x| most.max(x.to_bits() & INFINITY)) < INFINITY,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The clear version: the oracle of the fast one.
    fn naive(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> Vec<f32> {
        let at = |i: usize| (0..n).map(move |j| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum());
        (0..m).flat_map(at).collect()
    }

    fn transpose(rows: usize, cols: usize, x: &[f32]) -> Vec<f32> {
        (0..cols).flat_map(|j| (0..rows).map(move |i| x[i * cols + j])).collect()
    }

    #[test]
    fn gemm_equals_the_triple_loop_in_all_layouts() {
        for (m, n, k) in [(1, 1, 1), (9, 1, 5), (6, 7, 1), (3, 5, 7), (130, 33, 70), (300, 192, 90)]
        {
            let mut rng = Rng::stream(1, "gemm");
            let a: Vec<f32> = (0..m * k).map(|_| rng.symmetric(1.0)).collect();
            let b: Vec<f32> = (0..k * n).map(|_| rng.symmetric(1.0)).collect();
            let expect = naive(m, n, k, &a, &b);
            let (at, bt) = (transpose(m, k, &a), transpose(k, n, &b));
            for (a, op_a) in [(&a, Op::N), (&at, Op::T)] {
                for (b, op_b) in [(&b, Op::N), (&bt, Op::T)] {
                    let mut c = vec![1.0; m * n];
                    gemm(m, n, k, a, op_a, b, op_b, 2.0, &mut c);
                    let close = |(c, e): (&f32, &f32)| (c - 2.0 - e).abs() < 1e-4;
                    assert!(c.iter().zip(&expect).all(close), "{m}x{n}x{k}");
                }
            }
        }
    }

    #[test]
    fn gemm_gives_the_same_bits_on_1_2_and_7_threads() {
        let (m, n, k) = (600, 192, 90);
        let mut rng = Rng::stream(2, "gemm");
        let a: Vec<f32> = (0..m * k).map(|_| rng.symmetric(1.0)).collect();
        let b: Vec<f32> = (0..k * n).map(|_| rng.symmetric(1.0)).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut c = vec![0.0; m * n];
            // Every value is seen once, where it is.
            let then = |row: usize, column: usize, piece: &mut [f32]| {
                piece.iter_mut().zip(row * n + column..).for_each(|(c, at)| *c += at as f32);
            };
            let product = |c: &mut [f32]| gemm_then(m, n, k, &a, Op::N, &b, Op::N, 0.0, c, then);
            pool.install(|| product(&mut c));
            c
        };
        let expect = naive(m, n, k, &a, &b);
        let close = |(at, (c, e)): (usize, (&f32, &f32))| (c - at as f32 - e).abs() < 0.02;
        assert!(run(1).iter().zip(&expect).enumerate().all(close));
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(7));
    }

    #[test]
    fn all_finite_finds_one_that_is_not() {
        let mut x = vec![-f32::MAX; (1 << 16) + 19];
        x[3] = f32::from_bits(1);
        assert!(all_finite(&x) && all_finite(&[]));
        for at in [0, 1 << 15, x.len() - 1] {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let was = std::mem::replace(&mut x[at], bad);
                assert!(!all_finite(&x), "{bad} at {at}");
                x[at] = was;
            }
        }
    }

    #[test]
    fn dot_and_axpy() {
        let x: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(dot(&x, &x), (0..19).map(|i| (i * i) as f32).sum::<f32>());
        let mut y = vec![1.0; 19];
        axpy(2.0, &x, &mut y);
        assert_eq!(y[18], 37.0);
    }
}
