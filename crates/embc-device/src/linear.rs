//! Products with weights. One example at a time, a product reads its weights once, and is as fast
//! as memory: rows of W that meet a zero, as half of a ReLU's values are, are left out.

use crate::run::relu;
use crate::tensor::{Stored, View};
use crate::{Error, wrong};

/// y [N × out] = x [N × in] · W + bias, through a ReLU where `then` .0 says so; W is [in × out], or
/// [out × in] with `then` .1. `decoded` has room for a row of W.
pub fn linear(
    x: &[f32],
    weight: View<'_>,
    bias: Option<View<'_>>,
    then: (bool, bool),
    decoded: &mut [f32],
    to: &mut [f32],
) -> Result<(), Error> {
    let (rows, width) = (weight.tensor.rows as usize, weight.tensor.width as usize);
    let (inputs, outputs) = if then.1 { (width, rows) } else { (rows, width) };
    let done = x.chunks_exact(inputs).zip(to.chunks_exact_mut(outputs)).try_for_each(|(x, to)| {
        match then.1 {
            true => by_output(x, weight, decoded, to)?,
            false => by_input(x, weight, decoded, to)?,
        }
        if let Some(bias) = bias {
            to.iter_mut().zip(bias.plain(0)?).for_each(|(to, bias)| *to += bias);
        }
        if then.0 {
            to.iter_mut().for_each(|to| *to = relu(*to));
        }
        Some(())
    });
    done.map_or_else(|| wrong("a weight lies outside its file"), Ok)
}

/// ⟨x, W_i⟩ for each row of W.
fn by_output(x: &[f32], weight: View<'_>, decoded: &mut [f32], to: &mut [f32]) -> Option<()> {
    let row = &mut decoded[..x.len()];
    for (i, to) in (0..).zip(to) {
        weight.floats(i, row)?;
        *to = dot(x, row);
    }
    Some(())
}

/// Rows of W, scaled and summed in their order, four at a time.
fn by_input(x: &[f32], weight: View<'_>, decoded: &mut [f32], to: &mut [f32]) -> Option<()> {
    to.fill(0.0);
    let (mut four, mut n) = ([(0u32, 0.0f32); 4], 0);
    for (k, &x) in (0..).zip(x).filter(|(_, x)| **x != 0.0) {
        four[n] = (k, x);
        n += 1;
        if n == 4 {
            add_rows(&four, weight, decoded, to)?;
            n = 0;
        }
    }
    add_rows(&four[..n], weight, decoded, to)
}

/// to += Σ x · W_k over up to four (k, x).
fn add_rows(
    terms: &[(u32, f32)],
    weight: View<'_>,
    decoded: &mut [f32],
    to: &mut [f32],
) -> Option<()> {
    let width = to.len();
    if let (&[a, b, c, d], Stored::Float) = (terms, weight.tensor.stored) {
        let rows = [a.0, b.0, c.0, d.0].map(|k| weight.bytes(k));
        let [Some(i), Some(j), Some(k), Some(l)] = rows else { return None };
        add_four([a.1, b.1, c.1, d.1], [i, j, k, l], to);
        return Some(());
    }
    for &(k, x) in terms {
        let row = &mut decoded[..width];
        weight.floats(k, row)?;
        to.iter_mut().zip(row).for_each(|(to, w)| *to += x * *w);
    }
    Some(())
}

/// The bytes of a row of floats.
type Row<'a> = &'a [[u8; 4]];

/// In the widest vectors that give the same bits everywhere: no fused multiply-add.
fn add_four(x: [f32; 4], rows: [Row<'_>; 4], to: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(x: [f32; 4], rows: [Row<'_>; 4], to: &mut [f32]) {
            add_four_inline(x, rows, to);
        }
        // SAFETY: this machine has AVX2.
        #[allow(unsafe_code)]
        return unsafe { wide(x, rows, to) };
    }
    add_four_inline(x, rows, to);
}

#[inline(always)]
fn add_four_inline(x: [f32; 4], rows: [Row<'_>; 4], to: &mut [f32]) {
    let n = to.len();
    let [a, b, c, d] = rows.map(|row| &row[..n]);
    for i in 0..n {
        let term = |x: f32, row: Row<'_>| x * f32::from_le_bytes(row[i]);
        let mut sum = to[i];
        sum += term(x[0], a);
        sum += term(x[1], b);
        sum += term(x[2], c);
        sum += term(x[3], d);
        to[i] = sum;
    }
}

/// ⟨x, y⟩, summed in eight lanes.
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let (xs, ys) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    let tail: f32 = xs.1.iter().zip(ys.1).map(|(x, y)| x * y).sum();
    let mut lanes = [0.0f32; 8];
    for (x, y) in xs.0.iter().zip(ys.0) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + tail
}
