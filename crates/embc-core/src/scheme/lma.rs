//! LMA: memory shared in proportion to semantic overlap (arXiv 2103.06124). Any number of
//! parameters, and a slot per block of components of every seen value.
//!
//! Component i of value v lives in the cell that the minhashes of D_v pick, D_v the set of sampled
//! training rows that hold v: two values share a cell with probability J^power, J the Jaccard
//! similarity of their sets, and otherwise only by chance. Values that the sample does not hold are
//! hashed by themselves. With `block` = Z, minhashes pick Z consecutive cells (block-LMA): a Zth of
//! the slots and of the work to find them, the same collision law block by block, more variance.
//!
//! `hash` picks how rows are permuted and cells found: see `minhash.rs`.

use super::robe::{Stretch, cells_within, visit};
use super::*;
use crate::batch::Batch;
use crate::minhash::{Family, Places};
use crate::packed::Packed;
use crate::state::TensorMut;
use rayon::prelude::*;
use std::ops::ControlFlow;

pub(super) struct Lma;

#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Signature {
    #[default]
    Minhash,
    /// The control without semantics: every value is hashed by itself.
    Random,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    power: usize,
    sample_rows: u64,
    min_support: u32,
    signature: Signature,
    hash: Family,
    block: usize,
}

impl Default for Knob {
    fn default() -> Self {
        let (signature, hash) = (Signature::Minhash, Family::Mix64);
        Self { power: 2, sample_rows: 125_000, min_support: 1, signature, hash, block: 1 }
    }
}

impl Scheme for Lma {
    fn name(&self) -> &'static str {
        "lma"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "cells shared in proportion to the overlap of the rows that hold two values",
            long: "Minhashes of the training rows that hold a value pick the cells of its embedding, so that values which occur together share memory. Slots are looked up for values of a sample of training rows, and hashed on the fly for all others. The paper's setting is sharing = \"global\": one memory for all fields. Slots are not trained parameters but they are memory: compare bytes too.",
            paper: "Desai et al., arXiv 2103.06124",
            equation: "E_v[i] = M[h(minhash_1(D_v, i), ..., minhash_p(D_v, i), i)]",
            stores: "M [any number of cells], a slot per block of seen values [seen x dim/Z], an index [vocab]",
            collisions: "two values share a component with probability J^p + (1 - J^p)/m, J the Jaccard similarity of the rows that hold them",
            knobs: &[
                ("power", "p, minhashes a component: sharing falls as J^p (default 2)"),
                ("sample_rows", "training rows whose values get slots (default 125000)"),
                ("min_support", "sampled rows that a value needs for slots (default 1)"),
                ("signature", "minhash (default) | random: the control without semantics"),
                ("block", "Z, consecutive components that share a minhash (default 1)"),
                (
                    "hash",
                    "mix64 (default) | paper-poly | paper-universal | linear: published code's",
                ),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { power, sample_rows, min_support, signature, hash, block } = super::knobs(knobs)?;
        if power == 0 || sample_rows == 0 || block == 0 {
            let what = "`power`, `sample_rows` and `block` must be positive";
            return Err(PlanError::Knob(what.into()));
        }
        let (dim, vocab) = (t.dim, t.vocab);
        let block = block.min(dim);
        let blocks = dim.div_ceil(block);
        // At most the values that occur in training often enough have slots.
        let enough = |count: &&u32| **count >= min_support.max(1);
        let seen = match signature {
            Signature::Minhash => t.counts.iter().filter(enough).count() as u64,
            Signature::Random => 0,
        };
        let footprint = move |cells: u64| memory(cells, vocab, seen, blocks);
        let cells = match limit {
            Limit::Bytes(..) => limit.largest(u32::MAX.into(), footprint).ok_or_else(|| {
                PlanError::Infeasible(format!(
                    "lma cannot fit table {} in {limit}: its slots alone take up to {} bytes",
                    t.name,
                    footprint(1).index_bytes
                ))
            })?,
            _ => cells_within(self.name(), t, limit)?,
        };
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(cells),
            larger: cells + 1,
            sizes: format!("{cells} cells, slots for at most {seen} of {vocab} values"),
            build: Box::new(move |cx| {
                let deviation = cx.init.deviation(cells / dim as u64, dim);
                let key = cx.rng.bits();
                let values = cx.init.draw(cells as usize, deviation, &mut cx.rng);
                let places = |range| Places { family: hash, dim: blocks, power, key, cells, range };
                let memory = move |seen| memory(cells, vocab, seen, blocks);
                if let Origin::Saved(saved) = cx.origin {
                    let mut seen = [0];
                    saved.copy("seen", &mut TensorMut::u64(&mut seen));
                    let seen = seen[0].min(vocab.into());
                    let (index, slots) = empty(vocab, seen, blocks, cells);
                    let (places, footprint) = (places(sample_rows), memory(seen));
                    let cells = Param::rows("cells", 1, values);
                    return Box::new(Shared {
                        places,
                        dim,
                        block,
                        cells,
                        index,
                        slots,
                        vocab,
                        seen,
                        footprint,
                    });
                }
                let (pairs, range) = match signature {
                    Signature::Minhash => values_and_rows(cx, sample_rows),
                    Signature::Random => (Vec::new(), sample_rows),
                };
                let kept: Vec<&[(u32, u32)]> = pairs
                    .chunk_by(|a, b| a.0 == b.0)
                    .filter(|pairs| pairs.len() >= min_support.max(1) as usize)
                    .collect();
                let (places, seen) = (places(range), kept.len() as u64);
                let (mut index, mut slots) = empty(vocab, seen, blocks, cells);
                let place = |pairs: &&[(u32, u32)]| {
                    let rows: Vec<u32> = pairs.iter().map(|pair| pair.1).collect();
                    places.seen(&rows)
                };
                for (part, kept) in kept.chunks(AT_ONCE).enumerate() {
                    let found: Vec<Vec<u32>> = kept.par_iter().map(place).collect();
                    for (row, (pairs, found)) in (part * AT_ONCE..).zip(kept.iter().zip(&found)) {
                        index.set(pairs[0].0 as usize, row as u32 + 1);
                        let at = row * blocks;
                        found.iter().enumerate().for_each(|(i, &slot)| slots.set(at + i, slot));
                    }
                }
                let footprint = memory(seen);
                let cells = Param::rows("cells", 1, values);
                Box::new(Shared { places, dim, block, cells, index, slots, vocab, seen, footprint })
            }),
        })
    }
}

/// Memory of `cells` cells and `blocks` slots of each of `seen` of `vocab` values.
fn memory(cells: u64, vocab: u32, seen: u64, blocks: usize) -> Footprint {
    // Where no value has slots, nothing has to be known about any.
    let vocab = if seen > 0 { u64::from(vocab) } else { 0 };
    let index_bytes = Packed::bytes(vocab, seen + 1) + Packed::bytes(seen * blocks as u64, cells);
    let floats = Footprint::floats(cells);
    Footprint { index_bytes, train_bytes: floats.train_bytes + index_bytes, ..floats }
}

/// An index and slots for so many values, all zero.
fn empty(vocab: u32, seen: u64, blocks: usize, cells: u64) -> (Packed, Packed) {
    let indexed = if seen > 0 { u64::from(vocab) } else { 0 };
    (Packed::zeros(indexed, seen + 1), Packed::zeros(seen * blocks as u64, cells))
}

/// Values whose slots are computed at once, which bounds memory.
const AT_ONCE: usize = 1 << 16;

/// The values of the sampled training rows and the rows that hold them, ascending; and how many
/// were sampled.
fn values_and_rows(cx: &BuildCx<'_>, sample: u64) -> (Vec<(u32, u32)>, u64) {
    let mut pairs = Vec::new();
    let mut row = 0;
    if let Origin::Data(examples) = cx.origin {
        examples.sample(sample, 0, &mut |batch: &Batch| {
            for i in 0..batch.size {
                for &(field, offset) in cx.fields {
                    let bag = &batch.fields[field];
                    pairs.extend(bag.ids[bag.range(i)].iter().map(|id| (id + offset, row)));
                }
                row += 1;
            }
            ControlFlow::Continue(())
        });
    }
    pairs.par_sort_unstable();
    pairs.dedup();
    (pairs, if row == 0 { sample } else { row.into() })
}

struct Shared {
    /// Of blocks.
    places: Places,
    dim: usize,
    /// Components a block; the last one may be shorter.
    block: usize,
    cells: Param,
    /// 1 + row of a value in `slots`, 0 where it has none, [vocab]; empty without slots.
    index: Packed,
    /// First cells of the blocks of seen values, [seen × blocks].
    slots: Packed,
    /// Values, and those that have slots.
    vocab: u32,
    seen: u64,
    footprint: Footprint,
}

impl Shared {
    /// 1 + the row of a value in `slots`, or 0.
    #[inline]
    fn row(&self, id: u32) -> u32 {
        if self.index.is_empty() { 0 } else { self.index.get(id as usize) }
    }

    /// The first cell of block `b` of a value.
    #[inline]
    fn first(&self, id: u32, row: u32, b: usize) -> u32 {
        match row {
            0 => self.places.unseen(id, b),
            _ => self.slots.get((row as usize - 1) * self.places.dim + b),
        }
    }
}

impl Embedding for Shared {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let (blocks, width, firsts) = (self.places.dim, self.block, tape.first());
        firsts.resize(ids.len() * blocks, 0);
        for (&id, firsts) in ids.iter().zip(firsts.chunks_exact_mut(blocks)) {
            let row = self.row(id);
            firsts.iter_mut().enumerate().for_each(|(b, first)| *first = self.first(id, row, b));
        }
        visit(self.dim, width, self.cells.value().len(), firsts, |stretch| match stretch {
            Stretch::Whole(blocks) => {
                let out = &mut out[blocks.start * width..blocks.end * width];
                self.cells.gather_runs(&firsts[blocks], width, out, |_| |x| x);
            }
            Stretch::Part(_, first, run) => {
                let cells = &self.cells.value()[first..first + run.len()];
                out[run].copy_from_slice(cells);
            }
        });
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        let (width, length, firsts) = (self.block, self.cells.value().len(), tape.first());
        visit(self.dim, width, length, firsts, |stretch| match stretch {
            Stretch::Whole(blocks) => {
                let grad = &grad[blocks.start * width..blocks.end * width];
                self.cells.scatter_runs(&firsts[blocks], width, grad, |_| |g| g);
            }
            Stretch::Part(_, first, run) => {
                self.cells.scatter_runs(&[first as u32], run.len(), &grad[run], |_| |g| g);
            }
        });
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let (blocks, cells) = (self.places.dim, self.cells.value().len() as u64);
        let unseen = match self.places.family {
            Family::Mix64 => g.blocks(ids, "unseen", self.places.key, cells, blocks),
            // The published families are no operators: what they come to is listed.
            _ => g.listed("unseen", cells, blocks, |id, b| self.places.unseen(id, b)),
        };
        let firsts = match self.index.is_empty() {
            true => unseen,
            false => {
                let vocab = self.vocab.into();
                let row = g.unpack(ids, "index", &self.index, (vocab, 1));
                let slot = g.int(row, Int::Max, 1);
                let slot = g.int(slot, Int::Sub, 1);
                let len = self.seen * blocks as u64;
                let slots = g.unpack(slot, "slots", &self.slots, (len, blocks));
                g.op(Op::Select { when: row, yes: slots, no: unseen })
            }
        };
        let (width, block) = (self.dim as u32, self.block as u32);
        let cells = g.op(Op::Runs { x: firsts, width, block, cells });
        g.gather(cells, &self.cells, 1)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.cells);
    }
    fn state(&mut self, visit: State<'_>) {
        self.cells.state(visit);
        visit("key", TensorMut::u64(std::slice::from_mut(&mut self.places.key)));
        visit("sampled_rows", TensorMut::u64(std::slice::from_mut(&mut self.places.range)));
        visit("seen", TensorMut::u64(std::slice::from_mut(&mut self.seen)));
        visit("index", self.index.tensor());
        visit("slots", self.slots.tensor());
    }
    fn footprint(&self) -> Footprint {
        self.footprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_of_the_published_hashes_spreads_over_the_cells() {
        for hash in ["paper-poly", "paper-universal", "linear", "mix64"] {
            let table = TableSpec { name: "t".into(), vocab: 500, dim: 4, counts: [].into() };
            let knobs = format!(r#"{{"signature": "random", "hash": "{hash}"}}"#);
            let knobs = serde_json::from_str(&knobs).unwrap();
            let plan = Lma.plan_table(&table, Limit::Params(1000), &knobs).unwrap();
            let mut built = (plan.build)(&mut BuildCx::new(Rng::stream(1, "t")));
            let census = crate::census::census(&mut *built, 500, 4, &[]);
            // 2,000 places in 1,000 cells: 865 are expected; cubic polynomials modulo a multiple of
            // 8 see little of a row but its last three bits.
            let least = if hash == "paper-poly" { 500 } else { 800 };
            assert!(census.loads[0].used >= least, "{hash}: {census:?}");
        }
    }
}
