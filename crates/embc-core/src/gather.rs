//! Moving whole batches of rows: out of parameters, and into their gradients.
//!
//! Tables do not fit into caches, so what counts is how many reads are in flight at once. Callers
//! compute all row numbers of a batch first; then a loop of nothing but independent reads, of a
//! length that the compiler knows, overlaps several times more of them than one that hashes in
//! between.

use crate::linalg::vectorised;
use crate::param::{Grad, Param};

/// A part of each row of a batch: from `at` on, of rows that are `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// First component.
    pub at: usize,
    /// Width of the batch's rows.
    pub stride: usize,
}

impl Piece {
    /// The whole row.
    pub fn whole(width: usize) -> Self {
        Self { at: 0, stride: width }
    }

    /// Column `j` of `columns`, each `width` wide.
    pub fn column(j: usize, columns: usize, width: usize) -> Self {
        Self { at: j * width, stride: columns * width }
    }
}

/// Calls a function that is generic in the width of rows with the usual widths known, or with 0.
macro_rules! with_width {
    ($width:expr, $function:ident($($argument:expr),*)) => {
        match $width {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            4 => $function::<4>($($argument),*),
            8 => $function::<8>($($argument),*),
            16 => $function::<16>($($argument),*),
            32 => $function::<32>($($argument),*),
            64 => $function::<64>($($argument),*),
            128 => $function::<128>($($argument),*),
            _ => $function::<0>($($argument),*),
        }
    };
}
pub(crate) use with_width;

/// Calls `f` with the number, the values and the place in `out` of each of the runs of `width`
/// values that begin at `starts`.
fn read<const WIDTH: usize>(
    values: &[f32],
    width: usize,
    starts: impl Iterator<Item = usize>,
    out: &mut [f32],
    piece: Piece,
    f: impl Fn(usize, &[f32], &mut [f32]),
) {
    let width = if WIDTH == 0 { width } else { WIDTH };
    vectorised(
        #[inline(always)]
        || {
            for (i, (start, out)) in starts.zip(out.chunks_exact_mut(piece.stride)).enumerate() {
                f(i, &values[start..][..width], &mut out[piece.at..][..width]);
            }
        },
    );
}

/// Calls `f` with the number and the gradient of each of the runs of `width` values that begin at
/// `starts`, and with their sum so far: it begins at 0 where what it holds is of an earlier step.
fn add<const WIDTH: usize>(
    values: &mut [f32],
    width: usize,
    starts: impl Iterator<Item = (usize, bool)>,
    grad: &[f32],
    piece: Piece,
    f: impl Fn(usize, &[f32], &mut [f32]),
) {
    let width = if WIDTH == 0 { width } else { WIDTH };
    let grads = grad.chunks_exact(piece.stride);
    vectorised(
        #[inline(always)]
        || {
            for (i, ((start, new), grad)) in starts.zip(grads).enumerate() {
                let sum = &mut values[start..][..width];
                if new {
                    sum.fill(0.0);
                }
                f(i, &grad[piece.at..][..width], sum);
            }
        },
    );
}

/// sum += f(i)(grad), elementwise.
fn plus<F: Fn(f32) -> f32>(f: impl Fn(usize) -> F) -> impl Fn(usize, &[f32], &mut [f32]) {
    move |i, grad, sum| {
        let f = f(i);
        sum.iter_mut().zip(grad).for_each(|(sum, x)| *sum += f(*x));
    }
}

impl Param {
    /// out_i = f(i)(row, out_i), elementwise, for the pieces of `out` and the rows that `rows` name.
    /// `f` is called once a row, for what its values have in common.
    #[inline]
    pub fn gather<F: Fn(f32, f32) -> f32>(
        &self,
        rows: &[u32],
        out: &mut [f32],
        piece: Piece,
        f: impl Fn(usize) -> F,
    ) {
        let width = self.width();
        if let Some(low) = &self.low {
            for (i, (&row, out)) in rows.iter().zip(out.chunks_exact_mut(piece.stride)).enumerate()
            {
                let values = low.codes.read(row as usize * width, width);
                let (out, f) = (out[piece.at..].iter_mut(), f(i));
                out.zip(values).for_each(|(out, x)| *out = f(x, *out));
            }
            return;
        }
        let starts = rows.iter().map(|&row| row as usize * width);
        let each = |i: usize, row: &[f32], out: &mut [f32]| {
            let f = f(i);
            out.iter_mut().zip(row).for_each(|(out, x)| *out = f(*x, *out));
        };
        with_width!(width, read(&self.value, width, starts, out, piece, each));
    }

    /// Copies whole rows to `out` [rows × width].
    #[inline]
    pub fn copy_rows(&self, rows: &[u32], out: &mut [f32]) {
        self.gather(rows, out, Piece::whole(self.width()), |_| |row, _| row);
    }

    /// Adds f(i)(grad_i), elementwise, to the gradients of the rows that `rows` name, in order, for
    /// the pieces of `grad`.
    #[inline]
    pub fn scatter<F: Fn(f32) -> f32>(
        &mut self,
        rows: &[u32],
        grad: &[f32],
        piece: Piece,
        f: impl Fn(usize) -> F,
    ) {
        let width = self.width();
        let places = rows.iter().map(|&row| (row as usize * width, false));
        let each = plus(f);
        match &mut self.grad {
            Grad::Dense(values) => {
                with_width!(width, add(values, width, places, grad, piece, each))
            }
            Grad::Rows { touched, values, slots } => {
                let mut next = touched.ids().len();
                touched.insert_all(rows.iter().copied(), slots);
                let all = touched.ids().len() * width;
                if values.len() < all {
                    values.resize(all, 0.0);
                }
                let places = slots.iter().map(|&slot| {
                    // New slots come in order, each for the first time.
                    let new = slot as usize == next;
                    next += usize::from(new);
                    (slot as usize * width, new)
                });
                with_width!(width, add(values, width, places, grad, piece, each));
            }
            Grad::Cells { touched, bits, values } => {
                rows.iter().for_each(|&row| mark(touched, bits, row));
                add::<1>(values, 1, places, grad, piece, each);
            }
        }
    }

    /// Adds `grad` [rows × width] to the gradients of the rows that `rows` name.
    #[inline]
    pub fn add_rows(&mut self, rows: &[u32], grad: &[f32]) {
        self.scatter(rows, grad, Piece::whole(self.width()), |_| |grad| grad);
    }

    /// out_i = f(i)(run), elementwise, for the runs of `width` cells that begin at `starts`; `out`
    /// is [starts × width]. For rows of one value.
    #[inline]
    pub fn gather_runs<F: Fn(f32) -> f32>(
        &self,
        starts: &[u32],
        width: usize,
        out: &mut [f32],
        f: impl Fn(usize) -> F,
    ) {
        let (starts, whole) = (starts.iter().map(|&start| start as usize), Piece::whole(width));
        let each = |i: usize, run: &[f32], out: &mut [f32]| {
            let f = f(i);
            out.iter_mut().zip(run).for_each(|(out, x)| *out = f(*x));
        };
        with_width!(width, read(&self.value, width, starts, out, whole, each));
    }

    /// Adds f(i)(grad_i), elementwise, to the gradients of the runs of `width` cells that begin at
    /// `starts`; `grad` is [starts × width]. For rows of one value.
    #[inline]
    pub fn scatter_runs<F: Fn(f32) -> f32>(
        &mut self,
        starts: &[u32],
        width: usize,
        grad: &[f32],
        f: impl Fn(usize) -> F,
    ) {
        let places = starts.iter().map(|&start| (start as usize, false));
        let values = match &mut self.grad {
            Grad::Dense(values) => values,
            Grad::Cells { touched, bits, values } => {
                starts.iter().for_each(|&start| mark_run(touched, bits, start, width));
                values
            }
            Grad::Rows { .. } => unreachable!("rows of one value are cells"),
        };
        with_width!(width, add(values, width, places, grad, Piece::whole(width), plus(f)));
    }
}

/// Notes that a row was touched.
#[inline]
pub(crate) fn mark(touched: &mut Vec<u32>, bits: &mut [u64], row: u32) {
    let (word, bit) = (&mut bits[row as usize / 64], 1 << (row % 64));
    if *word & bit == 0 {
        *word |= bit;
        touched.push(row);
    }
}

/// Notes that `width` rows from `first` on were touched.
#[inline]
fn mark_run(touched: &mut Vec<u32>, bits: &mut [u64], first: u32, width: usize) {
    let (shift, all) = (first % 64, u64::MAX >> (64 - width.min(64)));
    let word = &mut bits[first as usize / 64];
    if width < 64 && shift as usize + width <= 64 && *word & (all << shift) == 0 {
        // Mostly, a run lies in one word, and none of it was touched.
        *word |= all << shift;
        touched.extend(first..first + width as u32);
    } else {
        (first..first + width as u32).for_each(|row| mark(touched, bits, row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{Kind, Optim, Touch};

    /// Pieces of any width go where they belong, and colliding rows are summed in order.
    #[track_caller]
    fn check(width: usize, dense: bool) {
        let columns = 3;
        let value: Vec<f32> = (0..10 * width).map(|x| x as f32).collect();
        let mut param = Param::rows("t", width, value);
        if dense {
            Optim::new(Kind::Adam, 0.1, Touch::All).attach(&mut param);
        }
        let rows = [7, 2, 7, 0];
        let piece = Piece::column(1, columns, width);
        let mut out = vec![0.5; rows.len() * piece.stride];
        param.gather(&rows, &mut out, piece, |i| move |x, y| i as f32 * x + y);
        for (i, (&row, out)) in rows.iter().zip(out.chunks(piece.stride)).enumerate() {
            let expect = |k: usize| i as f32 * (row as usize * width + k) as f32 + 0.5;
            assert!((0..width).all(|k| out[width + k] == expect(k)));
            assert!(out[..width].iter().chain(&out[2 * width..]).all(|&x| x == 0.5));
        }
        for _ in 0..2 {
            let before = out.clone();
            param.scatter(&rows, &out, piece, |i| move |g| (i + 1) as f32 * g);
            let mut sums = vec![0.0; 10 * width];
            for (i, &row) in rows.iter().enumerate() {
                for k in 0..width {
                    let grad = before[i * piece.stride + width + k];
                    sums[row as usize * width + k] += (i + 1) as f32 * grad;
                }
            }
            param.visit_grad(&mut |row, grad| {
                assert_eq!(grad, &sums[row as usize * width..][..width]);
                sums[row as usize * width..][..width].fill(0.0);
            });
            assert!(sums.iter().all(|&x| x == 0.0), "every row has its gradient");
            param.zero_grad();
        }
    }

    #[test]
    fn runs_overlap_and_cross_words() {
        for width in [1, 3, 8, 32, 64, 70] {
            let cells = 300;
            let mut param = Param::rows("m", 1, (0..cells).map(|x| x as f32).collect());
            let starts = [0, 61, 60, 300 - width as u32, 5];
            let mut out = vec![0.0; starts.len() * width];
            param.gather_runs(&starts, width, &mut out, |i| move |x| x + i as f32);
            let mut sums = vec![0.0; cells];
            for (i, &start) in starts.iter().enumerate() {
                for k in 0..width {
                    assert_eq!(out[i * width + k], (start as usize + k + i) as f32);
                    sums[start as usize + k] += 2.0 * out[i * width + k];
                }
            }
            param.scatter_runs(&starts, width, &out, |_| |g| 2.0 * g);
            let mut seen = std::collections::BTreeSet::new();
            param.visit_grad(&mut |row, grad| {
                assert!(seen.insert(row), "each once");
                assert_eq!(grad[0], std::mem::take(&mut sums[row as usize]));
            });
            assert!(sums.iter().all(|&x| x == 0.0));
        }
    }

    #[test]
    fn rows_of_every_width() {
        for width in [1, 2, 3, 4, 5, 8, 16, 17, 32, 64, 100] {
            check(width, false);
            check(width, true);
        }
    }
}
