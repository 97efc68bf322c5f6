//! ROBE: blocks of consecutive cells at hashed places of one circular array (arXiv 2108.02191).
//! Any number of parameters.

use super::*;
use crate::hash::mix64;
use crate::state::TensorMut;

pub(super) struct Robe;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    block: usize,
    signed: bool,
}

impl Default for Knob {
    fn default() -> Self {
        Self { block: 8, signed: false }
    }
}

impl Scheme for Robe {
    fn name(&self) -> &'static str {
        "robe"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "blocks of one circular array at hashed places",
            long: "The embedding is cut into blocks of Z components, and each block is read from a hashed place of one circular array: a HashedNet that reads memory in runs. With sharing = \"global\" one array serves all fields.",
            paper: "Desai et al., arXiv 2108.02191",
            equation: "E_i[bZ + t] = (s(i, b)) * M[(h(i, b) + t) mod |M|]",
            stores: "M [any number of cells]",
            collisions: "two ids share cells of a block with probability (2Z - 1)/m, a whole block with 1/m",
            knobs: &[
                ("block", "Z, components a block; the last one may be shorter (default 8)"),
                ("signed", "multiply each block by a random sign (default false)"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { block, signed } = super::knobs(knobs)?;
        if block == 0 {
            return Err(PlanError::Knob("`block` must be positive".into()));
        }
        plan(self.name(), t, limit, block, signed)
    }
}

/// The plan of a circular array that is read in blocks of `block` cells.
pub(super) fn plan(
    scheme: &str,
    t: &TableSpec,
    limit: Limit,
    block: usize,
    signed: bool,
) -> Result<Plan, PlanError> {
    let dim = t.dim;
    let cells = cells_within(scheme, t, limit)?;
    Ok(Plan {
        out_dim: dim,
        footprint: Footprint::floats(cells),
        larger: cells + 1,
        sizes: format!("{cells} cells in blocks of {block}"),
        build: Box::new(move |cx| {
            let deviation = cx.init.deviation(cells / dim as u64, dim);
            let key = cx.rng.bits();
            let values = cx.init.draw(cells as usize, deviation, &mut cx.rng);
            Box::new(Blocks { dim, block, key, signed, cells: Param::rows("cells", 1, values) })
        }),
    })
}

/// The most cells that fit; without a limit as many as the full table has.
pub(super) fn cells_within(scheme: &str, t: &TableSpec, limit: Limit) -> Result<u64, PlanError> {
    let most = match limit {
        Limit::None => t.full_params().min(u32::MAX.into()),
        _ => u32::MAX.into(),
    };
    limit.largest(most, Footprint::floats).ok_or_else(|| {
        PlanError::Infeasible(format!("{scheme} cannot fit table {} in {limit}", t.name))
    })
}

struct Blocks {
    dim: usize,
    block: usize,
    key: u64,
    signed: bool,
    cells: Param,
}

impl Blocks {
    /// The first cell and the sign of block `b` of an id.
    #[inline]
    fn place(&self, id: u32, b: usize) -> (usize, f32) {
        let hash = mix64(mix64(u64::from(id) ^ self.key) ^ b as u64);
        let sign = if self.signed && hash & 1 == 1 { -1.0 } else { 1.0 };
        (((u128::from(hash) * self.cells.value().len() as u128) >> 64) as usize, sign)
    }
}

impl Embedding for Blocks {
    fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
        let cells = self.cells.value();
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.dim)) {
            for (b, out) in out.chunks_mut(self.block).enumerate() {
                let (first, sign) = self.place(id, b);
                let run = cells[first..].iter().chain(cells.iter().cycle());
                out.iter_mut().zip(run).for_each(|(out, cell)| *out = sign * cell);
            }
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], _: &mut Tape) {
        let length = self.cells.value().len();
        for (&id, grad) in ids.iter().zip(grad.chunks_exact(self.dim)) {
            for (b, grad) in grad.chunks(self.block).enumerate() {
                let (first, sign) = self.place(id, b);
                for (t, grad) in grad.iter().enumerate() {
                    self.cells.grad_row(((first + t) % length) as u32)[0] += sign * grad;
                }
            }
        }
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.cells);
    }
    fn state(&mut self, visit: State<'_>) {
        self.cells.state(visit);
        visit("key", TensorMut::U64(std::slice::from_mut(&mut self.key)));
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.cells.value().len() as u64)
    }
}
