//! Tensor train: an id's digits each pick a slice of a small core, and their product is the
//! embedding (arXiv 2101.11714). Σ base·q·R_t-1·R_t parameters, R the rank.

use super::*;
use crate::linalg::{Op, gemm};

pub(super) struct TensorTrain;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    cores: usize,
}

impl Default for Knob {
    fn default() -> Self {
        Self { cores: 3 }
    }
}

/// The shapes of the cores.
#[derive(Clone)]
struct Shape {
    cores: usize,
    /// Digits' base: ids are numbers of `cores` digits.
    base: u64,
    /// Output components of each core; their product is dim.
    parts: Vec<usize>,
}

/// `dim` as a product of `cores` factors, as even as its primes allow, ascending.
fn parts(dim: usize, cores: usize) -> Vec<usize> {
    let mut parts = vec![1; cores];
    let (mut left, mut prime, mut primes) = (dim, 2, Vec::new());
    while left > 1 {
        if left.is_multiple_of(prime) {
            primes.push(prime);
            left /= prime;
        } else {
            prime += 1;
        }
    }
    for prime in primes.into_iter().rev() {
        *parts.iter_mut().min().expect("a core") *= prime;
    }
    parts.sort();
    parts
}

impl Shape {
    fn new(vocab: u32, dim: usize, cores: usize) -> Self {
        let root =
            |n: u64| (1..).find(|b: &u64| b.saturating_pow(cores as u32) >= n).expect("a root");
        Self { cores, base: root(vocab.into()), parts: parts(dim, cores) }
    }

    /// Rows and columns of the slice of core `t` at rank `rank`: [R_t-1 × part_t·R_t].
    fn slice(&self, t: usize, rank: usize) -> (usize, usize) {
        let left = if t == 0 { 1 } else { rank };
        let right = if t + 1 == self.cores { 1 } else { rank };
        (left, self.parts[t] * right)
    }

    fn params(&self, rank: u64) -> Footprint {
        let size = |t| {
            let (rows, columns) = self.slice(t, rank as usize);
            (rows * columns) as u64 * self.base
        };
        Footprint::floats((0..self.cores).map(size).sum())
    }

    fn digit(&self, id: u32, t: usize) -> u32 {
        (u64::from(id) / self.base.pow((self.cores - 1 - t) as u32) % self.base) as u32
    }

    /// For each group of `order` with the same digit of core `t`: the digit, and the group's rows
    /// of a matrix that has `parts` for each id.
    fn groups(
        &self,
        ids: &[u32],
        order: &[u32],
        t: usize,
        parts: usize,
    ) -> impl Iterator<Item = (u32, std::ops::Range<usize>)> {
        let digit = move |i: &u32| self.digit(ids[*i as usize], t);
        let groups = order.chunk_by(move |a, b| digit(a) == digit(b));
        groups.scan(0, move |at, group| {
            let first = *at;
            *at += group.len() * parts;
            Some((digit(&group[0]), first..*at))
        })
    }
}

impl Scheme for TensorTrain {
    fn name(&self) -> &'static str {
        "tt"
    }
    /// 2: another order of sums, for speed.
    fn version(&self) -> u32 {
        2
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "a product of slices that the id's digits pick",
            long: "The table is a tensor train: id i is written with one digit a core, and the matrices that the digits pick are multiplied. Every id is distinct at any size, but each lookup is a chain of small products.",
            paper: "Yin et al., arXiv 2101.11714",
            equation: "E_i = G_1[i_1] G_2[i_2] ... G_n[i_n]",
            stores: "G_t [base x R x part_t x R], base = ceil(vocab^(1/n)), the parts' product is dim",
            collisions: "none are equal; a slice of a core serves vocab/base ids",
            knobs: &[("cores", "n, 2 to 6 (default 3)")],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { cores } = super::knobs(knobs)?;
        if !(2..=6).contains(&cores) {
            return Err(PlanError::Knob(format!("`cores` = {cores} must lie in 2 to 6")));
        }
        let (dim, shape) = (t.dim, Shape::new(t.vocab, t.dim, cores));
        let full = t.full_params();
        // Without a limit: as many parameters as the full table.
        let limit = if limit == Limit::None {
            Limit::Params(full.max(shape.params(1).params))
        } else {
            limit
        };
        let rank = limit.largest(1 << 14, |rank| shape.params(rank)).ok_or_else(|| {
            PlanError::Infeasible(format!(
                "tt cannot fit table {} in {limit}: rank 1 takes {} parameters, a compression of {:.1}",
                t.name,
                shape.params(1).params,
                full as f64 / shape.params(1).params as f64,
            ))
        })?;
        Ok(Plan {
            out_dim: dim,
            footprint: shape.params(rank),
            larger: if rank < 1 << 14 { shape.params(rank + 1).params } else { u64::MAX },
            sizes: format!("{cores} cores of base {} and rank {rank}", shape.base),
            build: Box::new(move |cx| {
                let rank = rank as usize;
                // A component is a sum of R^(n-1) products of n core entries.
                let target = cx.init.deviation(shape.base.pow(cores as u32), dim);
                let paths = (rank as f32).powi(cores as i32 - 1);
                let deviation = (target / paths.sqrt()).powf(1.0 / cores as f32);
                let core = |t| {
                    let (rows, columns) = shape.slice(t, rank);
                    let length = rows * columns * shape.base as usize;
                    let values = cx.init.draw(length, deviation, &mut cx.rng);
                    Param::rows(format!("core{t}"), rows * columns, values)
                };
                let cores = (0..cores).map(core).collect();
                Box::new(Train { rank, shape: shape.clone(), cores })
            }),
        })
    }
}

struct Train {
    rank: usize,
    shape: Shape,
    cores: Vec<Param>,
}

/// to[place] = from[order[place]], rows of a width.
fn pack(from: &[f32], order: &[u32], to: &mut Vec<f32>) {
    let width = from.len() / order.len();
    to.clear();
    order.iter().for_each(|&i| to.extend_from_slice(&from[i as usize * width..][..width]));
}

/// to[order[place]] = from[place].
fn unpack(from: &[f32], order: &[u32], to: &mut Vec<f32>) {
    let width = from.len() / order.len();
    to.resize(from.len(), 0.0);
    for (&i, from) in order.iter().zip(from.chunks_exact(width)) {
        to[i as usize * width..][..width].copy_from_slice(from);
    }
}

impl Train {
    /// Products of the cores, all ids with the same slice of a core in one. Leaves the inputs of
    /// each core [n·parts × R] in the order of its digits, and the embeddings [n × dim] behind them
    /// in the ids' own.
    fn forward(&self, ids: &[u32], tape: &mut Tape) {
        let (shape, cores) = (&self.shape, self.shape.cores);
        tape.buffers.resize(cores + 3, Vec::new());
        tape.rows(cores);
        let Tape { buffers, rows: orders, .. } = tape;
        let (inputs, rest) = buffers.split_at_mut(cores);
        let [product, out, _] = rest else { unreachable!("three buffers") };
        product.clear();
        ids.iter().for_each(|&id| product.extend_from_slice(self.cores[0].row(shape.digit(id, 0))));
        for t in 1..cores {
            let (rows, columns) = shape.slice(t, self.rank);
            let (order, input) = (&mut orders[t], &mut inputs[t]);
            order.clear();
            order.extend(0..ids.len() as u32);
            order.sort_unstable_by_key(|&i| (shape.digit(ids[i as usize], t), i));
            pack(product, order, input);
            let parts = input.len() / rows / ids.len();
            out.resize(ids.len() * parts * columns, 0.0);
            for (digit, at) in self.shape.groups(ids, order, t, parts) {
                let slice = self.cores[t].row(digit);
                let input = &input[at.start * rows..at.end * rows];
                let out = &mut out[at.start * columns..at.end * columns];
                gemm(at.len(), columns, rows, input, Op::N, slice, Op::N, 0.0, out);
            }
            unpack(out, order, product);
        }
    }
}

impl Embedding for Train {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        if !ids.is_empty() {
            self.forward(ids, tape);
            out.copy_from_slice(&tape.buffers[self.shape.cores]);
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        if ids.is_empty() {
            return;
        }
        let cores = self.shape.cores;
        let (inputs, rest) = tape.buffers.split_at_mut(cores);
        let [product, dout, dinput] = rest else { unreachable!("three buffers") };
        product.clear();
        product.extend_from_slice(grad);
        for t in (1..cores).rev() {
            let (rows, columns) = self.shape.slice(t, self.rank);
            let (order, input) = (&tape.rows[t], &inputs[t]);
            pack(product, order, dout);
            dinput.resize(input.len(), 0.0);
            let parts = input.len() / rows / ids.len();
            let core = &mut self.cores[t];
            for (digit, at) in self.shape.groups(ids, order, t, parts) {
                let (m, input) = (at.len(), &input[at.start * rows..at.end * rows]);
                let dout = &dout[at.start * columns..at.end * columns];
                let dinput = &mut dinput[at.start * rows..at.end * rows];
                gemm(m, rows, columns, dout, Op::N, core.row(digit), Op::T, 0.0, dinput);
                let dslice = core.grad_row(digit);
                gemm(rows, columns, m, input, Op::T, dout, Op::N, 1.0, dslice);
            }
            product.clear();
            unpack(dinput, order, product);
        }
        let width = product.len() / ids.len();
        for (&id, grad) in ids.iter().zip(product.chunks_exact(width)) {
            self.cores[0].add(self.shape.digit(id, 0), grad);
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let Shape { cores, base, .. } = self.shape;
        let slice = |t: usize, g: &mut Graph<'a>| {
            let place = base.pow((cores - 1 - t) as u32);
            let digit = g.int(ids, Int::Div, u32::try_from(place).unwrap_or(u32::MAX));
            let digit = g.int(digit, Int::Mod, base as u32);
            g.gather(digit, &self.cores[t], self.cores[t].width())
        };
        let first = slice(0, g);
        (1..cores).fold(first, |a, t| {
            let b = slice(t, g);
            g.contract(a, b, self.rank)
        })
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.cores.iter_mut().for_each(visit);
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.cores.iter().map(|core| core.value().len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The clear version: an id's slices, multiplied one after the other.
    fn naive(train: &Train, id: u32) -> Vec<f32> {
        let mut product = train.cores[0].row(train.shape.digit(id, 0)).to_vec();
        for (t, core) in train.cores.iter().enumerate().skip(1) {
            let (rows, columns) = train.shape.slice(t, train.rank);
            let slice = core.row(train.shape.digit(id, t));
            let entry = |left: &[f32], column: usize| -> f32 {
                (0..rows).map(|r| left[r] * slice[r * columns + column]).sum()
            };
            let of_row = |left| (0..columns).map(move |column| entry(left, column));
            product = product.chunks_exact(rows).flat_map(of_row).collect();
        }
        product
    }

    #[test]
    fn a_batch_equals_its_ids_one_by_one() {
        let (vocab, dim, rank) = (100, 12, 5);
        for cores in [2, 3, 4] {
            let shape = Shape::new(vocab, dim, cores);
            let mut rng = Rng::stream(3, "tt");
            let core = |t| {
                let (rows, columns) = shape.slice(t, rank);
                let length = rows * columns * shape.base as usize;
                let values = (0..length).map(|_| rng.symmetric(1.0)).collect();
                Param::rows("core", rows * columns, values)
            };
            let train = Train { rank, cores: (0..cores).map(core).collect(), shape: shape.clone() };
            let mut tape = Tape::default();
            // What a tape holds from before does not matter.
            for ids in [&[99, 0, 17, 18, 4, 71][..], &[71, 5], &[], &[0, 1, 2, 3]] {
                let mut out = vec![0.0; ids.len() * dim];
                train.gather(ids, &mut out, &mut tape);
                for (&id, out) in ids.iter().zip(out.chunks_exact(dim)) {
                    let close = |(a, b): (&f32, f32)| (a - b).abs() < 1e-4;
                    assert!(out.iter().zip(naive(&train, id)).all(close), "{cores} cores, id {id}");
                }
            }
        }
    }

    #[test]
    fn dims_factor_evenly() {
        assert_eq!(parts(32, 4), [2, 2, 2, 4]);
        assert_eq!(parts(16, 3), [2, 2, 4]);
        assert_eq!(parts(60, 3), [3, 4, 5]);
        assert_eq!(parts(7, 2), [1, 7]);
    }
}
