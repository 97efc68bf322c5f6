//! Tensor train: an id's digits each pick a slice of a small core, and their product is the
//! embedding (arXiv 2101.11714). Σ base·q·R_t-1·R_t parameters, R the rank.

use super::*;
use crate::linalg::axpy;

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
}

impl Scheme for TensorTrain {
    fn name(&self) -> &'static str {
        "tt"
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
                Box::new(Train { dim, rank, shape: shape.clone(), cores })
            }),
        })
    }
}

struct Train {
    dim: usize,
    rank: usize,
    shape: Shape,
    cores: Vec<Param>,
}

impl Train {
    /// Products of the first cores, for each t: [part^(t+1) × R_t], as rows of ranks.
    fn products(&self, id: u32, products: &mut [Vec<f32>]) {
        let shape = &self.shape;
        products[0].clear();
        products[0].extend_from_slice(self.cores[0].row(shape.digit(id, 0)));
        for t in 1..shape.cores {
            let (rows, columns) = shape.slice(t, self.rank);
            let slice = self.cores[t].row(shape.digit(id, t));
            let (done, rest) = products.split_at_mut(t);
            let (left, out) = (&done[t - 1], &mut rest[0]);
            out.clear();
            out.resize(left.len() / rows * columns, 0.0);
            for (left, out) in left.chunks_exact(rows).zip(out.chunks_exact_mut(columns)) {
                for (&x, row) in left.iter().zip(slice.chunks_exact(columns)) {
                    axpy(x, row, out);
                }
            }
        }
    }
}

impl Embedding for Train {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        tape.buffers.resize(self.shape.cores + 2, Vec::new());
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.dim)) {
            self.products(id, &mut tape.buffers);
            out.copy_from_slice(&tape.buffers[self.shape.cores - 1]);
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let shape = &self.shape;
        tape.buffers.resize(shape.cores + 2, Vec::new());
        for (&id, grad) in ids.iter().zip(grad.chunks_exact(self.dim)) {
            self.products(id, &mut tape.buffers);
            let (products, grads) = tape.buffers.split_at_mut(shape.cores);
            let [dout, dleft] = grads else { unreachable!("two gradients") };
            dout.clear();
            dout.extend_from_slice(grad);
            for t in (1..shape.cores).rev() {
                let (rows, columns) = shape.slice(t, self.rank);
                let digit = shape.digit(id, t);
                let left = &products[t - 1];
                dleft.clear();
                dleft.resize(left.len(), 0.0);
                let slice = self.cores[t].row(digit);
                for (dleft, dout) in dleft.chunks_exact_mut(rows).zip(dout.chunks_exact(columns)) {
                    for (d, row) in dleft.iter_mut().zip(slice.chunks_exact(columns)) {
                        *d = crate::linalg::dot(dout, row);
                    }
                }
                let dslice = self.cores[t].grad_row(digit);
                for (left, dout) in left.chunks_exact(rows).zip(dout.chunks_exact(columns)) {
                    for (&x, drow) in left.iter().zip(dslice.chunks_exact_mut(columns)) {
                        axpy(x, dout, drow);
                    }
                }
                std::mem::swap(dout, dleft);
            }
            self.cores[0].add(shape.digit(id, 0), dout);
        }
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
    use super::parts;

    #[test]
    fn dims_factor_evenly() {
        assert_eq!(parts(32, 4), [2, 2, 2, 4]);
        assert_eq!(parts(16, 3), [2, 2, 4]);
        assert_eq!(parts(60, 3), [3, 4, 5]);
        assert_eq!(parts(7, 2), [1, 7]);
    }
}
