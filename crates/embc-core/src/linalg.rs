//! The one file that knows a matrix product.
//!
//! Products run through `faer`, whose kernels are picked at run time for the machine's vectors, split
//! into fixed blocks of output rows: the block size depends on the shape alone, so every thread
//! count gives the same bits.

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

/// Products below this many multiply-adds stay on the calling thread.
const PARALLEL_WORK: usize = 1 << 20;

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
    if n == 1 && op_a == Op::N {
        // A·b: a dot a row, which a packing gemm would do several times slower.
        for (a, c) in a.chunks_exact(k).zip(c) {
            *c = dot(a, b) + if beta == 0.0 { 0.0 } else { beta * *c };
        }
        return;
    }
    if n == 1 {
        // Aᵀ·b: rows of the stored A, scaled and summed in order.
        c.iter_mut().for_each(|c| *c = if beta == 0.0 { 0.0 } else { beta * *c });
        a.chunks_exact(m).zip(b).for_each(|(a, &b)| axpy(b, a, c));
        return;
    }
    if k == 1 && op_a == Op::N && op_b == Op::N {
        // a·bᵀ: an outer product.
        for (&a, c) in a.iter().zip(c.chunks_exact_mut(n)) {
            for (c, b) in c.iter_mut().zip(b) {
                *c = a * b + if beta == 0.0 { 0.0 } else { beta * *c };
            }
        }
        return;
    }
    let (a, b) = (view(a, m, k, op_a), view(b, k, n, op_b));
    let product = |first: usize, c: &mut [f32]| {
        let rows = c.len() / n;
        let accumulate = match beta {
            0.0 => Accum::Replace,
            _ => {
                if beta != 1.0 {
                    c.iter_mut().for_each(|c| *c *= beta);
                }
                Accum::Add
            }
        };
        let c = MatMut::from_row_major_slice_mut(c, rows, n);
        matmul(c, accumulate, a.subrows(first, rows), b, 1.0, Par::Seq);
    };
    if m * n * k < PARALLEL_WORK || m < 2 {
        return product(0, c);
    }
    let block = m.div_ceil(8).next_multiple_of(8);
    c.par_chunks_mut(block * n).enumerate().for_each(|(i, c)| product(i * block, c));
}

/// y = f(x, y), elementwise. Rows are short: for the usual widths a loop of known length, since one
/// of any length spends its time on the ends.
#[inline]
fn each(x: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    #[inline]
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
        _ => y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x, *y)),
    }
}

/// y += a · x.
#[inline]
pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    each(x, y, |x, y| y + a * x);
}

/// y = a · x.
#[inline]
pub fn scale(a: f32, x: &[f32], y: &mut [f32]) {
    each(x, y, |x, _| a * x);
}

/// ⟨x, y⟩, summed in eight fixed lanes so that the compiler can vectorise it.
#[inline]
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
        for (m, n, k) in [(1, 1, 1), (9, 1, 5), (6, 7, 1), (3, 5, 7), (130, 33, 70), (257, 128, 65)]
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
        let (m, n, k) = (300, 96, 90);
        let mut rng = Rng::stream(2, "gemm");
        let a: Vec<f32> = (0..m * k).map(|_| rng.symmetric(1.0)).collect();
        let b: Vec<f32> = (0..k * n).map(|_| rng.symmetric(1.0)).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut c = vec![0.0; m * n];
            pool.install(|| gemm(m, n, k, &a, Op::N, &b, Op::N, 0.0, &mut c));
            c
        };
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(7));
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
