//! HashedNets: every component is a hashed cell of one flat array (Chen et al. 2015).
//! Any number of parameters.

use super::*;
use crate::hash::mix64;

pub(super) struct HashedNet;

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    signed: bool,
}

impl Scheme for HashedNet {
    fn name(&self) -> &'static str {
        "hashednet"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "every component is a hashed cell of one array",
            long: "Component j of id i is one cell of a flat array, by a hash of both. Sharing is spread so thin that no two ids have much in common, at the cost of dim scattered reads an id. With sharing = \"global\" one array serves all fields.",
            paper: "Chen et al., arXiv 1504.04788; the random-sharing baseline of LMA",
            equation: "E_i[j] = (s(i, j)) * M[h(i, j)]",
            stores: "M [any number of cells]",
            knobs: &[("signed", "multiply each component by a random sign (default false)")],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { signed } = super::knobs(knobs)?;
        let dim = t.dim;
        let cells = cells_within(self.name(), t, limit)?;
        Ok(Plan {
            out_dim: dim,
            footprint: Footprint::floats(cells),
            larger: cells + 1,
            sizes: format!("{cells} cells"),
            build: Box::new(move |cx| {
                let deviation = cx.init.deviation(cells / dim as u64, dim);
                let key = cx.rng.bits();
                let values = cx.init.draw(cells as usize, deviation, &mut cx.rng);
                Box::new(Cells { dim, key, signed, cells: Param::rows("cells", 1, values) })
            }),
        })
    }
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

struct Cells {
    dim: usize,
    key: u64,
    signed: bool,
    cells: Param,
}

impl Cells {
    /// The cell and the sign of component `j` of an id.
    #[inline]
    fn cell(&self, id: u32, j: usize) -> (u32, f32) {
        let hash = mix64(mix64(u64::from(id) ^ self.key) ^ j as u64);
        let cells = self.cells.value().len() as u128;
        let sign = if self.signed && hash & 1 == 1 { -1.0 } else { 1.0 };
        (((u128::from(hash) * cells) >> 64) as u32, sign)
    }
}

impl Embedding for Cells {
    fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.dim)) {
            for (j, out) in out.iter_mut().enumerate() {
                let (cell, sign) = self.cell(id, j);
                *out = sign * self.cells.value()[cell as usize];
            }
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], _: &mut Tape) {
        for (&id, grad) in ids.iter().zip(grad.chunks_exact(self.dim)) {
            for (j, grad) in grad.iter().enumerate() {
                let (cell, sign) = self.cell(id, j);
                self.cells.grad_row(cell)[0] += sign * grad;
            }
        }
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.cells);
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.cells.value().len() as u64)
    }
}
