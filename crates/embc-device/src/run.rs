//! Computes programs, an operator after the other, some rows at a time, in buffers that are made
//! once.

use crate::linear::{dot, linear};
use crate::program::{Int, Node, Op, Program, Shape, TensorId};
use crate::tensor::{Tensor, View};
use crate::{Error, wrong};

/// Rows at a time, where they are narrow.
const ROWS: usize = 64;
/// Values of all operators at a time, about: what the caches hold.
const VALUES: usize = 1 << 16;
/// The most values of all buffers: what a file may ask for.
pub const MOST: usize = 1 << 26;

/// Buffers of one program.
#[derive(Debug)]
pub struct Scratch {
    /// Rows at a time.
    pub rows: usize,
    ints: Vec<u32>,
    floats: Vec<f32>,
    /// Columns of integers or floats before each operator's.
    at: Vec<usize>,
    /// A decoded row of a weight.
    decoded: Vec<f32>,
}

/// What a program reads.
#[derive(Clone, Copy)]
pub struct Reads<'a> {
    /// Ids [N].
    pub ids: &'a [u32],
    /// Pooled rows of each input [N × width].
    pub pooled: &'a [Vec<f32>],
    /// Dense features [N × dense].
    pub dense: &'a [f32],
}

impl Scratch {
    /// Buffers for a program, of the values that are `left`.
    pub fn new(program: &Program, tensors: &[Tensor], left: &mut usize) -> Result<Self, Error> {
        let (mut ints, mut floats) = (0usize, 0usize);
        let mut at = Vec::with_capacity(program.shapes.len());
        // The result goes where the caller wants it.
        let (_, inner) = program.shapes.split_last().expect("checked");
        for shape in inner {
            let before = if shape.floats { &mut floats } else { &mut ints };
            at.push(*before);
            *before += shape.width as usize;
        }
        at.push(floats);
        let weights = program.ops.iter().map(|op| match op {
            Op::Linear { weight, .. } => tensors[weight.0 as usize].width as usize,
            _ => 0,
        });
        let decoded = weights.max().unwrap_or(0);
        // The result is kept, too, where it is pooled.
        let each = ints.saturating_add(floats).saturating_add(program.width() as usize);
        let rows = (VALUES / each).clamp(1, ROWS);
        let all = each.checked_mul(2 * rows).and_then(|all| all.checked_add(decoded));
        *left = all
            .and_then(|all| left.checked_sub(all))
            .map_or_else(|| wrong("it would take too much memory to compute"), Ok)?;
        let (ints, floats) = (vec![0; ints * rows], vec![0.0; floats * rows]);
        Ok(Self { rows, ints, floats, at, decoded: vec![0.0; decoded] })
    }

    /// Computes the program for `n` rows, at most [`Scratch::rows`], into `out` [n × width].
    pub fn run<'v>(
        &mut self,
        program: &Program,
        views: &impl Fn(TensorId) -> View<'v>,
        reads: Reads<'_>,
        n: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let Self { rows, ints, floats, at, decoded } = self;
        let last = program.ops.len() - 1;
        for (i, op) in program.ops.iter().enumerate() {
            let shape = program.shapes[i];
            let width = shape.width as usize;
            let size = n * width;
            if shape.floats {
                let (before, rest) = floats.split_at_mut(at[i] * *rows);
                let values =
                    Values { ints, floats: before, at, rows: *rows, n, shapes: &program.shapes };
                let to = if i == last { &mut out[..size] } else { &mut rest[..size] };
                compute_floats(op, values, views, reads, decoded, to, width)?;
            } else {
                let (before, rest) = ints.split_at_mut(at[i] * *rows);
                let values =
                    Values { ints: before, floats, at, rows: *rows, n, shapes: &program.shapes };
                compute_ints(op, values, views, reads.ids, &mut rest[..size], width)?;
            }
        }
        Ok(())
    }
}

/// The values of earlier operators.
#[derive(Clone, Copy)]
struct Values<'a> {
    ints: &'a [u32],
    floats: &'a [f32],
    at: &'a [usize],
    rows: usize,
    n: usize,
    shapes: &'a [Shape],
}

impl<'a> Values<'a> {
    fn width(self, node: Node) -> usize {
        self.shapes[node.0 as usize].width as usize
    }

    #[inline]
    fn ints(self, node: Node) -> &'a [u32] {
        &self.ints[self.at[node.0 as usize] * self.rows..][..self.n * self.width(node)]
    }

    #[inline]
    fn floats(self, node: Node) -> &'a [f32] {
        &self.floats[self.at[node.0 as usize] * self.rows..][..self.n * self.width(node)]
    }
}

/// Bijective 64-bit mixer (the finaliser of MurmurHash3, Stafford's variant 13).
#[inline(always)]
pub fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// hash · size / 2⁶⁴, rounded down: a number below `size`, which is at most 2³². In halves, which
/// vectors can multiply.
#[inline(always)]
pub fn scaled(hash: u64, size: u64) -> u32 {
    let (high, low) = (hash >> 32, hash & 0xFFFF_FFFF);
    ((high * size + ((low * size) >> 32)) >> 32) as u32
}

#[inline(always)]
fn of_block(x: u32, key: u64, block: usize) -> u64 {
    mix64(mix64(u64::from(x) ^ key) ^ block as u64)
}

/// Rows of a width, one after the other: chunks without the division that takes longer than a row.
fn cut<T>(mut all: &[T], width: usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let (row, rest) = all.split_at_checked(width).filter(|_| !all.is_empty())?;
        all = rest;
        Some(row)
    })
}

fn cut_mut<T>(mut all: &mut [T], width: usize) -> impl Iterator<Item = &mut [T]> {
    std::iter::from_fn(move || {
        let (row, rest) = std::mem::take(&mut all).split_at_mut_checked(width)?;
        all = rest;
        (!row.is_empty()).then_some(row)
    })
}

fn map<A: Copy, B>(from: &[A], to: &mut [B], f: impl Fn(A) -> B) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = f(from));
}

/// to [N × width] from x [N × 1].
fn spread<B>(x: &[u32], to: &mut [B], width: usize, f: impl Fn(u32, usize) -> B) {
    for (&x, to) in x.iter().zip(cut_mut(to, width)) {
        to.iter_mut().enumerate().for_each(|(b, to)| *to = f(x, b));
    }
}

fn with_constant(kind: Int, x: &[u32], by: u32, to: &mut [u32]) {
    match kind {
        Int::Add => map(x, to, |x| x.wrapping_add(by)),
        Int::Sub => map(x, to, |x| x.wrapping_sub(by)),
        Int::Mul => map(x, to, |x| x.wrapping_mul(by)),
        Int::Div => map(x, to, |x| x / by),
        Int::Mod => map(x, to, |x| x % by),
        Int::Min => map(x, to, |x| x.min(by)),
        Int::Max => map(x, to, |x| x.max(by)),
    }
}

fn compute_ints<'v>(
    op: &Op,
    of: Values<'_>,
    views: &impl Fn(TensorId) -> View<'v>,
    ids: &[u32],
    to: &mut [u32],
    width: usize,
) -> Result<(), Error> {
    match *op {
        Op::Ids {} => to.copy_from_slice(ids),
        Op::Int { x, kind, by } => {
            with_constant(kind, of.ints(x), by, to);
        }
        Op::Mix64 { x, key, rows } => {
            map(of.ints(x), to, |x| scaled(mix64(u64::from(x) ^ key), rows));
        }
        Op::Poly31 { x, key, rows } => {
            map(of.ints(x), to, |x| (key.wrapping_mul(u64::from(x)) % 0x7FFF_FFFF % rows) as u32)
        }
        Op::Blocks { x, key, rows, .. } => {
            spread(of.ints(x), to, width, |x, b| scaled(of_block(x, key, b), rows));
        }
        Op::Unpack { x, tensor } => {
            let view = views(tensor);
            let width = view.tensor.width as usize;
            for (&row, to) in of.ints(x).iter().zip(cut_mut(to, width)) {
                view.ints(row, to).ok_or_else(|| outside(row, &view))?;
            }
        }
        Op::Column { x, at } => {
            let rows = cut(of.ints(x), of.width(x));
            to.iter_mut().zip(rows).for_each(|(to, row)| *to = row[at as usize]);
        }
        Op::Select { when, yes, no } => {
            let sides = cut(of.ints(yes), width).zip(cut(of.ints(no), width));
            let sides = sides.zip(of.ints(when));
            for (to, ((yes, no), &when)) in cut_mut(to, width).zip(sides) {
                to.copy_from_slice(if when != 0 { yes } else { no });
            }
        }
        Op::Within { x, from, to: end } => {
            map(of.ints(x), to, |x| u32::from((from..end).contains(&x)));
        }
        Op::Runs { x, width, block, cells } => {
            let (width, block) = (width as usize, block as usize);
            let firsts = cut(of.ints(x), of.width(x));
            for (to, firsts) in cut_mut(to, width).zip(firsts) {
                for (to, &first) in to.chunks_mut(block).zip(firsts) {
                    for (c, to) in to.iter_mut().enumerate() {
                        *to = ((u64::from(first) + c as u64) % cells) as u32;
                    }
                }
            }
        }
        ref other => return wrong(format!("{} has no integers", other.name())),
    }
    Ok(())
}

#[cold]
fn outside(row: u32, view: &View<'_>) -> Error {
    let tensor = view.tensor;
    Error(format!("{row} is no row of {}, which has {}", tensor.name, tensor.rows))
}

fn compute_floats<'v>(
    op: &Op,
    of: Values<'_>,
    views: &impl Fn(TensorId) -> View<'v>,
    reads: Reads<'_>,
    decoded: &mut [f32],
    to: &mut [f32],
    width: usize,
) -> Result<(), Error> {
    let sign = |hash: u64| if hash & 1 == 1 { -1.0 } else { 1.0 };
    match *op {
        Op::Signs { x, key } => map(of.ints(x), to, |x| sign(mix64(u64::from(x) ^ key))),
        Op::BlockSigns { x, key, .. } => {
            spread(of.ints(x), to, width, |x, b| sign(of_block(x, key, b)));
        }
        Op::Noise { x, key, .. } => spread(of.ints(x), to, width, |x, k| {
            let bits = of_block(x, key, k) >> 40;
            (bits as f32 / (1u32 << 23) as f32 - 1.0) * 3f32.sqrt()
        }),
        Op::Gather { x, tensor } => {
            let view = views(tensor);
            let width = view.tensor.width as usize;
            for (&row, to) in of.ints(x).iter().zip(cut_mut(to, width)) {
                view.floats(row, to).ok_or_else(|| outside(row, &view))?;
            }
        }
        Op::Linear { x, weight, bias, relu, by_output } => {
            let (weight, bias) = (views(weight), bias.map(views));
            linear(of.floats(x), weight, bias, (relu, by_output), decoded, to)?;
        }
        Op::Contract { a, b, rank } => {
            let (a, b) = (rows(of, a), rows(of, b));
            for (to, (a, b)) in cut_mut(to, width).zip(a.zip(b)) {
                contract(a, b, rank as usize, to);
            }
        }
        Op::Dots { x, width: of_vector } => {
            for (to, z) in cut_mut(to, width).zip(rows(of, x)) {
                dots(z, of_vector as usize, to);
            }
        }
        Op::Input { input, .. } => to.copy_from_slice(&reads.pooled[input as usize][..to.len()]),
        Op::Dense { .. } => to.copy_from_slice(reads.dense),
        ref other => return elementwise(other, of, views, to, width),
    }
    Ok(())
}

/// Operators that write each value from those in its row.
fn elementwise<'v>(
    op: &Op,
    of: Values<'_>,
    views: &impl Fn(TensorId) -> View<'v>,
    to: &mut [f32],
    width: usize,
) -> Result<(), Error> {
    match *op {
        Op::Spread { x, block, .. } => {
            for (to, x) in cut_mut(to, width).zip(rows(of, x)) {
                to.chunks_mut(block as usize).zip(x).for_each(|(to, &x)| to.fill(x));
            }
        }
        Op::Add { a, b } => binary(of, a, b, to, |a, b| a + b),
        Op::Mul { a, b } => binary(of, a, b, to, |a, b| a * b),
        Op::Scale { x, by } => map(of.floats(x), to, |x| by * x),
        Op::Mish { x } => map(of.floats(x), to, mish),
        Op::Relu { x } => map(of.floats(x), to, relu),
        Op::AddRow { x, tensor } => with_row(of, x, &views(tensor), to, |x, r| x + r)?,
        Op::MulRow { x, tensor } => with_row(of, x, &views(tensor), to, |x, r| x * r)?,
        Op::Replace { x, when, tensor } => {
            let view = views(tensor);
            for ((to, x), &when) in cut_mut(to, width).zip(rows(of, x)).zip(of.ints(when)) {
                match when {
                    0 => to.copy_from_slice(x),
                    _ => view.floats(0, to).ok_or_else(|| outside(0, &view))?,
                }
            }
        }
        Op::Either { when, yes, no } => {
            let each = cut_mut(to, width).zip(rows(of, yes).zip(rows(of, no)));
            for ((to, (yes, no)), &when) in each.zip(of.ints(when)) {
                to.copy_from_slice(if when == 0 { no } else { yes });
            }
        }
        Op::Concat { ref parts } => {
            let mut first = 0;
            for &part in parts {
                let own = of.width(part);
                for (to, x) in cut_mut(to, width).zip(rows(of, part)) {
                    to[first..first + own].copy_from_slice(x);
                }
                first += own;
            }
        }
        Op::Slice { x, from, .. } => {
            for (to, x) in cut_mut(to, width).zip(rows(of, x)) {
                to.copy_from_slice(&x[from as usize..][..width]);
            }
        }
        Op::Sum { x } => {
            to.iter_mut().zip(rows(of, x)).for_each(|(to, x)| *to = x.iter().sum());
        }
        ref other => return wrong(format!("{} has no floats", other.name())),
    }
    Ok(())
}

/// The rows of a value.
fn rows(of: Values<'_>, node: Node) -> impl Iterator<Item = &[f32]> {
    cut(of.floats(node), of.width(node))
}

fn binary(of: Values<'_>, a: Node, b: Node, to: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let (width, x, y) = (of.width(a), of.floats(a), of.floats(b));
    if of.width(b) == width {
        to.iter_mut().zip(x.iter().zip(y)).for_each(|(to, (x, y))| *to = f(*x, *y));
        return;
    }
    for (to, (x, &y)) in cut_mut(to, width).zip(cut(x, width).zip(y)) {
        map(x, to, |x| f(x, y));
    }
}

fn with_row(
    of: Values<'_>,
    x: Node,
    row: &View<'_>,
    to: &mut [f32],
    f: impl Fn(f32, f32) -> f32,
) -> Result<(), Error> {
    let row = row.bytes(0).ok_or_else(|| outside(0, row))?;
    for (to, x) in cut_mut(to, row.len()).zip(rows(of, x)) {
        let parts = x.iter().zip(row);
        to.iter_mut().zip(parts).for_each(|(to, (x, r))| *to = f(*x, f32::from_le_bytes(*r)));
    }
    Ok(())
}

/// Not `max`, which would turn NaN into a silent 0.
pub(crate) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// tanh(ln(1 + e)) = n/(n + 2) for n = e·(e + 2); beyond the bounds it is exact at f32, and below
/// them what would be denormal is 0 for all that follows.
fn mish(x: f32) -> f32 {
    let e = x.clamp(-40.0, 20.0).exp();
    let n = e * (e + 2.0);
    x * (n / (n + 2.0))
}

/// a [p × rank] · b [rank × q].
fn contract(a: &[f32], b: &[f32], rank: usize, to: &mut [f32]) {
    let q = b.len() / rank;
    for (to, a) in cut_mut(to, q).zip(cut(a, rank)) {
        to.fill(0.0);
        for (&a, b) in a.iter().zip(cut(b, q)) {
            to.iter_mut().zip(b).for_each(|(to, b)| *to += a * b);
        }
    }
}

/// ⟨z_i, z_j⟩ for all j < i, row after row.
fn dots(z: &[f32], width: usize, to: &mut [f32]) {
    let vector = |i: usize| &z[i * width..][..width];
    let pairs = (1..z.len() / width).flat_map(|i| (0..i).map(move |j| (i, j)));
    to.iter_mut().zip(pairs).for_each(|(to, (i, j))| *to = dot(vector(i), vector(j)));
}
