//! ROBE: blocks of consecutive cells at hashed places of one circular array (arXiv 2108.02191).
//! Any number of parameters.

use super::*;
use crate::hash::{mix64, scaled};
use crate::linalg::{scale, vectorised};
use crate::state::TensorMut;
use std::ops::Range;

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
    let (dim, block) = (t.dim, block.min(t.dim));
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

/// A stretch of a batch's blocks.
pub(super) enum Stretch {
    /// Blocks of one width whose runs lie whole in the array.
    Whole(Range<usize>),
    /// A part of block .0: the first cell, and where it lies in a buffer [U × dim].
    Part(usize, usize, Range<usize>),
}

impl Blocks {
    fn blocks(&self) -> usize {
        self.dim.div_ceil(self.block)
    }

    /// The first cell and the sign of each block of each id [U × blocks], to the tape; without signs
    /// none.
    fn places(&self, ids: &[u32], tape: &mut Tape) {
        let blocks = self.blocks();
        tape.buffers.resize(1, Vec::new());
        let signs = &mut tape.buffers[0];
        signs.resize(if self.signed { ids.len() * blocks } else { 0 }, 0.0);
        tape.rows.resize(1, Vec::new());
        let firsts = &mut tape.rows[0];
        firsts.resize(ids.len() * blocks, 0);
        let cells = self.cells.value().len() as u64;
        let hash = |id: u32, b: usize| mix64(mix64(u64::from(id) ^ self.key) ^ b as u64);
        vectorised(
            #[inline(always)]
            || {
                for (&id, firsts) in ids.iter().zip(firsts.chunks_exact_mut(blocks)) {
                    for (b, first) in firsts.iter_mut().enumerate() {
                        *first = scaled(hash(id, b), cells);
                    }
                }
            },
        );
        for (&id, signs) in ids.iter().zip(signs.chunks_exact_mut(blocks)) {
            for (b, sign) in signs.iter_mut().enumerate() {
                *sign = if hash(id, b) & 1 == 1 { -1.0 } else { 1.0 };
            }
        }
    }
}

/// Visits the blocks of embeddings `dim` wide in order: in long stretches, but for those that pass
/// the end of the array, which has `length` cells.
pub(super) fn visit(
    dim: usize,
    width: usize,
    length: usize,
    firsts: &[u32],
    mut visit: impl FnMut(Stretch),
) {
    let (blocks, even) = (dim.div_ceil(width), dim.is_multiple_of(width));
    let apart = |&first: &u32| !even || first as usize + width > length;
    let mut block = 0;
    while block < firsts.len() {
        let whole = firsts[block..].iter().position(apart).unwrap_or(firsts.len() - block);
        if whole > 0 {
            visit(Stretch::Whole(block..block + whole));
        }
        block += whole;
        let Some(&first) = firsts.get(block) else { return };
        let (id, b) = (block / blocks, block % blocks);
        let end = id * dim + dim.min((b + 1) * width);
        let (mut at, mut first) = (id * dim + b * width, first as usize);
        while at < end {
            let run = at..end.min(at + length - first);
            visit(Stretch::Part(block, first, run.clone()));
            (at, first) = (run.end, 0);
        }
        block += 1;
    }
}

impl Embedding for Blocks {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        self.places(ids, tape);
        let (firsts, signs, width) = (&tape.rows[0], &tape.buffers[0], self.block);
        let sign = |block: usize| if self.signed { signs[block] } else { 1.0 };
        visit(self.dim, width, self.cells.value().len(), firsts, |stretch| match stretch {
            Stretch::Whole(blocks) => {
                let (from, out) =
                    (blocks.start, &mut out[blocks.start * width..blocks.end * width]);
                self.cells.gather_runs(&firsts[blocks], width, out, |i| {
                    let sign = sign(from + i);
                    move |x| sign * x
                });
            }
            Stretch::Part(block, first, run) => {
                let cells = &self.cells.value()[first..first + run.len()];
                scale(sign(block), cells, &mut out[run]);
            }
        });
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        let (firsts, signs, width) = (&tape.rows[0], &tape.buffers[0], self.block);
        let (signed, length) = (self.signed, self.cells.value().len());
        let sign = |block: usize| if signed { signs[block] } else { 1.0 };
        visit(self.dim, width, length, firsts, |stretch| match stretch {
            Stretch::Whole(blocks) => {
                let (from, grad) = (blocks.start, &grad[blocks.start * width..blocks.end * width]);
                let scaled = |i: usize| {
                    let sign = sign(from + i);
                    move |g| sign * g
                };
                self.cells.scatter_runs(&firsts[blocks], width, grad, scaled);
            }
            Stretch::Part(block, first, run) => {
                let sign = sign(block);
                self.cells
                    .scatter_runs(&[first as u32], run.len(), &grad[run], |_| move |g| sign * g);
            }
        });
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let (dim, block, length) = (self.dim as u32, self.block as u32, self.cells.value().len());
        let firsts = g.blocks(ids, "blocks", self.key, length as u64, self.blocks());
        let cells = g.op(Op::Runs { x: firsts, width: dim, block, cells: length as u64 });
        let row = g.gather(cells, &self.cells, 1);
        if !self.signed {
            return row;
        }
        let signs = g.block_signs(ids, "signs", self.key, self.blocks());
        let signs = g.op(Op::Spread { x: signs, width: dim, block });
        g.mul(row, signs)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.cells);
    }
    fn state(&mut self, visit: State<'_>) {
        self.cells.state(visit);
        visit("key", TensorMut::u64(std::slice::from_mut(&mut self.key)));
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.cells.value().len() as u64)
    }
}
