//! LMA: memory shared in proportion to semantic overlap (arXiv 2103.06124). Any number of
//! parameters, and a slot per component of every seen value.
//!
//! Component i of value v lives in the cell that the minhashes of D_v pick, D_v the set of sampled
//! training rows that hold v: two values share a cell with probability J^power, J the Jaccard
//! similarity of their sets, and otherwise only by chance. Values that the sample does not hold are
//! hashed by themselves.

use super::robe::cells_within;
use super::*;
use crate::batch::Batch;
use crate::hash::mix64;
use crate::packed::Packed;
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
}

impl Default for Knob {
    fn default() -> Self {
        Self { power: 2, sample_rows: 125_000, min_support: 1, signature: Signature::Minhash }
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
            stores: "M [any number of cells], a slot per component of seen values [seen x dim], an index [vocab]",
            knobs: &[
                ("power", "p, minhashes a component: sharing falls as J^p (default 2)"),
                ("sample_rows", "training rows whose values get slots (default 125000)"),
                ("min_support", "sampled rows that a value needs for slots (default 1)"),
                ("signature", "minhash (default) | random: the control without semantics"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { power, sample_rows, min_support, signature } = super::knobs(knobs)?;
        if power == 0 || sample_rows == 0 {
            let what = "`power` and `sample_rows` must be positive";
            return Err(PlanError::Knob(what.into()));
        }
        let (dim, vocab) = (t.dim, t.vocab);
        // At most the values that occur in training often enough have slots.
        let enough = |count: &&u32| **count >= min_support.max(1);
        let seen = match signature {
            Signature::Minhash => t.counts.iter().filter(enough).count() as u64,
            Signature::Random => 0,
        };
        let footprint = move |cells: u64| memory(cells, vocab, seen, dim);
        let cells = match limit {
            Limit::Bytes(_) => limit.largest(u32::MAX.into(), footprint).ok_or_else(|| {
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
                let rows = match signature {
                    Signature::Minhash => rows_of_values(cx, vocab, sample_rows),
                    Signature::Random => Vec::new(),
                };
                let kept: Vec<(u32, &Vec<u32>)> = (0..)
                    .zip(&rows)
                    .filter(|(_, r)| r.len() >= min_support.max(1) as usize)
                    .collect();
                let indexed = if kept.is_empty() { 0 } else { u64::from(vocab) };
                let mut index = Packed::zeros(indexed, kept.len() as u64 + 1);
                let mut slots = Packed::zeros((kept.len() * dim) as u64, cells);
                let place = |(_, rows): &(u32, &Vec<u32>)| slots_of(rows, dim, power, key, cells);
                let places: Vec<Vec<u32>> = kept.par_iter().map(place).collect();
                for (row, ((id, _), places)) in kept.iter().zip(&places).enumerate() {
                    index.set(*id as usize, row as u32 + 1);
                    let at = row * dim;
                    places.iter().enumerate().for_each(|(i, &slot)| slots.set(at + i, slot));
                }
                let footprint = memory(cells, vocab, kept.len() as u64, dim);
                let cells = Param::rows("cells", 1, values);
                Box::new(Shared { dim, key, cells, index, slots, footprint })
            }),
        })
    }
}

/// Memory of `cells` cells and the slots of `seen` of `vocab` values.
fn memory(cells: u64, vocab: u32, seen: u64, dim: usize) -> Footprint {
    // Where no value has slots, nothing has to be known about any.
    let vocab = if seen > 0 { u64::from(vocab) } else { 0 };
    let index_bytes = Packed::bytes(vocab, seen + 1) + Packed::bytes(seen * dim as u64, cells);
    let floats = Footprint::floats(cells);
    Footprint { index_bytes, train_bytes: floats.train_bytes + index_bytes, ..floats }
}

/// For each value of the table, the sampled training rows that hold it.
fn rows_of_values(cx: &BuildCx<'_>, vocab: u32, sample: u64) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::new(); vocab as usize];
    let Some(examples) = cx.examples else { return rows };
    let mut row = 0;
    examples.sample(sample, 0, &mut |batch: &Batch| {
        for i in 0..batch.size {
            for &(field, offset) in cx.fields {
                let bag = &batch.fields[field];
                for &id in &bag.ids[bag.range(i)] {
                    let rows: &mut Vec<u32> = &mut rows[(id + offset) as usize];
                    if rows.last() != Some(&row) {
                        rows.push(row);
                    }
                }
            }
            row += 1;
        }
        ControlFlow::Continue(())
    });
    rows
}

/// The cell of each component of a value that `rows` hold, [dim].
fn slots_of(rows: &[u32], dim: usize, power: usize, key: u64, cells: u64) -> Vec<u32> {
    let slot = |i: usize| {
        let signature = (0..power).fold(key, |signature, k| {
            let seed = mix64(key ^ ((i * power + k) as u64 + 1));
            let minhash = rows.iter().map(|&row| mix64(u64::from(row) ^ seed)).min();
            mix64(signature ^ minhash.unwrap_or(0))
        });
        // The component takes part, so that two values that share one do not share the next.
        ((u128::from(mix64(signature ^ i as u64)) * u128::from(cells)) >> 64) as u32
    };
    (0..dim).map(slot).collect()
}

struct Shared {
    dim: usize,
    key: u64,
    cells: Param,
    /// 1 + row of a value in `slots`, 0 where it has none, [vocab]; empty without slots.
    index: Packed,
    /// Cells of seen values, [seen × dim].
    slots: Packed,
    footprint: Footprint,
}

impl Shared {
    /// 1 + the row of a value in `slots`, or 0.
    #[inline]
    fn row(&self, id: u32) -> u32 {
        if self.index.is_empty() { 0 } else { self.index.get(id as usize) }
    }

    /// The cell of component `i` of a value.
    #[inline]
    fn cell(&self, id: u32, row: u32, i: usize) -> u32 {
        if row > 0 {
            return self.slots.get((row as usize - 1) * self.dim + i);
        }
        let hash = mix64(mix64(u64::from(id) ^ self.key) ^ i as u64);
        ((u128::from(hash) * self.cells.value().len() as u128) >> 64) as u32
    }
}

impl Embedding for Shared {
    fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.dim)) {
            let row = self.row(id);
            for (i, out) in out.iter_mut().enumerate() {
                *out = self.cells.value()[self.cell(id, row, i) as usize];
            }
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], _: &mut Tape) {
        for (&id, grad) in ids.iter().zip(grad.chunks_exact(self.dim)) {
            let row = self.row(id);
            for (i, grad) in grad.iter().enumerate() {
                let cell = self.cell(id, row, i);
                self.cells.grad_row(cell)[0] += grad;
            }
        }
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.cells);
    }
    fn state(&mut self, visit: State<'_>) {
        self.cells.state(visit);
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

    /// Two sets of `size` rows of Jaccard similarity near `wanted`, and the one they really have.
    fn sets(size: u32, wanted: f64) -> (Vec<u32>, Vec<u32>, f64) {
        let common = (f64::from(size) * 2.0 * wanted / (1.0 + wanted)).round() as u32;
        let a: Vec<u32> = (0..size).collect();
        let b: Vec<u32> = (size - common..2 * size - common).collect();
        let jaccard = f64::from(common) / f64::from(2 * size - common);
        (a, b, jaccard)
    }

    /// The share of equal slots follows J^p + (1 − J^p)/m within three standard errors.
    #[track_caller]
    fn check(size: u32, wanted: f64, power: usize) {
        let (a, b, jaccard) = sets(size, wanted);
        let (dim, cells, keys) = (64, 1 << 20, 40);
        let mut equal = 0;
        for key in 0..keys {
            let key = mix64(key + 1);
            let (a, b) =
                (slots_of(&a, dim, power, key, cells), slots_of(&b, dim, power, key, cells));
            equal += a.iter().zip(&b).filter(|(a, b)| a == b).count();
        }
        let n = (dim as u64 * keys) as f64;
        let together = jaccard.powi(power as i32);
        let expect = together + (1.0 - together) / cells as f64;
        let slack = 3.0 * (expect * (1.0 - expect) / n).sqrt() + 1.0 / n;
        let share = equal as f64 / n;
        assert!((share - expect).abs() <= slack, "J {jaccard} p {power}: {share}, not {expect}");
    }

    #[test]
    fn collisions_follow_the_jaccard_similarity() {
        for power in [1, 2, 4] {
            for wanted in [0.0, 0.1, 0.3, 0.5, 0.8, 1.0] {
                for size in [1, 10, 1000] {
                    check(size, wanted, power);
                }
            }
        }
    }

    #[test]
    fn large_disjoint_sets_do_not_share() {
        let (a, b, jaccard) = sets(60_000, 0.0);
        assert_eq!(jaccard, 0.0);
        let equal: usize = (0..4)
            .map(|key| {
                let (a, b) =
                    (slots_of(&a, 256, 2, key, 1 << 24), slots_of(&b, 256, 2, key, 1 << 24));
                a.iter().zip(&b).filter(|(a, b)| a == b).count()
            })
            .sum();
        assert!((equal as f64) < 0.001 * 1024.0, "{equal} of 1024");
    }
}
