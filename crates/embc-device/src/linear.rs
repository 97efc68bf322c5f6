//! Products with weights. One example at a time, a product reads its weights once, and is as fast
//! as memory: rows of W that meet a zero, as half of a ReLU's values are, are left out.

use crate::run::relu;
use crate::tensor::{Stored, View};
use crate::{Error, wrong};

/// The bytes of floats.
type Row<'a> = &'a [[u8; 4]];

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
    let plain = weight.tensor.stored == Stored::Float;
    let all = if plain { weight.all() } else { None };
    let decoded = &mut decoded[..if plain { 0 } else { width }];
    let done = x.chunks_exact(inputs).zip(to.chunks_exact_mut(outputs)).try_for_each(|(x, to)| {
        match all {
            // A column lies in one piece, too.
            Some(all) if then.1 || outputs == 1 => {
                products(x, all, to);
            }
            Some(all) => by_input(x, all, to),
            None if then.1 => by_output(x, weight, decoded, to)?,
            None => {
                to.fill(0.0);
                for (k, &x) in (0..).zip(x) {
                    weight.floats(k, decoded)?;
                    to.iter_mut().zip(&*decoded).for_each(|(to, w)| *to += x * w);
                }
            }
        }
        if let Some(bias) = bias {
            to.iter_mut().zip(bias.bytes(0)?).for_each(|(to, b)| *to += f32::from_le_bytes(*b));
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
    for (i, to) in (0..).zip(to) {
        weight.floats(i, decoded)?;
        *to = dot(x, decoded);
    }
    Some(())
}

/// Values of x at a time.
const PART: usize = 64;

/// Rows of W, scaled and summed in their order, four at a time.
fn by_input(x: &[f32], all: Row<'_>, to: &mut [f32]) {
    to.fill(0.0);
    let width = to.len();
    let row = |k: u32| &all[k as usize * width..][..width];
    // Those that are not zero, gathered without a branch; up to three are left for the next part.
    let (mut at, mut some, mut n) = ([0u32; PART + 4], [0.0f32; PART + 4], 0);
    for (part, x) in x.chunks(PART).enumerate() {
        for (k, &x) in (part * PART..).zip(x) {
            (at[n], some[n]) = (k as u32, x);
            n += usize::from(x != 0.0);
        }
        let whole = n / 4 * 4;
        for i in (0..whole).step_by(4) {
            let rows = [row(at[i]), row(at[i + 1]), row(at[i + 2]), row(at[i + 3])];
            add_four([some[i], some[i + 1], some[i + 2], some[i + 3]], rows, to);
        }
        at.copy_within(whole..n, 0);
        some.copy_within(whole..n, 0);
        n -= whole;
    }
    for i in 0..n {
        let terms = to.iter_mut().zip(row(at[i]));
        terms.for_each(|(to, w)| *to += some[i] * f32::from_le_bytes(*w));
    }
}

/// Compiles a function twice, and runs it in the widest vectors that give the same bits everywhere: no
/// fused multiply-add.
macro_rules! wide {
    ($(#[$doc:meta])* $name:ident, $inline:ident($($x:ident: $type:ty),*)) => {
        $(#[$doc])*
        fn $name($($x: $type),*) {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn wide($($x: $type),*) {
                    $inline($($x),*);
                }
                // SAFETY: this machine has AVX2.
                #[allow(unsafe_code)]
                return unsafe { wide($($x),*) };
            }
            $inline($($x),*);
        }
    };
}

wide!(
    /// to += Σ x_k · row k.
    add_four, add_four_inline(x: [f32; 4], rows: [Row<'_>; 4], to: &mut [f32])
);

wide!(
    /// to_i = ⟨x, row i⟩.
    products, products_inline(x: &[f32], all: Row<'_>, to: &mut [f32])
);

/// Four rows at a time: the sums of one would wait for each other.
#[inline(always)]
fn products_inline(x: &[f32], all: Row<'_>, to: &mut [f32]) {
    let n = x.len();
    let read = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
    let (fours, rest) = to.as_chunks_mut::<4>();
    let (rows, last) = all.split_at(4 * n * fours.len());
    for (to, rows) in fours.iter_mut().zip(rows.chunks_exact(4 * n)) {
        *to = lanes(x, [0, 1, 2, 3].map(|r| &rows[r * n..][..n]), read);
    }
    for (to, row) in rest.iter_mut().zip(last.chunks_exact(n)) {
        [*to] = lanes(x, [row], read);
    }
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

/// ⟨x, y⟩.
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    let [sum] = lanes(x, [y], |y| *y);
    sum
}

/// ⟨x, row⟩ for R rows as long as x, each summed in eight lanes.
#[inline(always)]
fn lanes<const R: usize, T>(x: &[f32], rows: [&[T]; R], read: impl Fn(&T) -> f32) -> [f32; R] {
    let (whole, tail) = x.as_chunks::<8>();
    let rows = rows.map(|row| row.as_chunks::<8>());
    let mut lanes = [[0.0f32; 8]; R];
    for (at, x) in whole.iter().enumerate() {
        for (lanes, (row, _)) in lanes.iter_mut().zip(&rows) {
            let row = &row[at];
            for i in 0..8 {
                lanes[i] += x[i] * read(&row[i]);
            }
        }
    }
    std::array::from_fn(|r| {
        let tail = tail.iter().zip(rows[r].1).map(|(x, y)| x * read(y));
        lanes[r].iter().sum::<f32>() + tail.sum::<f32>()
    })
}
