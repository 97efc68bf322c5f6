//! LMA: memory shared in proportion to semantic overlap (arXiv 2103.06124). Any number of
//! parameters, and a slot per component of every seen value.
//!
//! Component i of value v lives in the cell that the minhashes of D_v pick, D_v the set of sampled
//! training rows that hold v: two values share a cell with probability J^power, J the Jaccard
//! similarity of their sets, and otherwise only by chance. Values that the sample does not hold are
//! hashed by themselves.
//!
//! `hash` picks how rows are permuted and cells found. `mix64` is ours; the others are those of
//! published code, defects included, for side-by-side runs.

use super::robe::cells_within;
use super::*;
use crate::batch::Batch;
use crate::hash::mix64;
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

/// How rows are permuted for a minhash, and minhashes mapped to cells.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default, PartialEq, Debug)]
#[serde(rename_all = "kebab-case")]
enum Family {
    /// 64-bit mixing throughout.
    #[default]
    Mix64,
    /// Cubic polynomials of the row in wrapping arithmetic, modulo the sample; cells by a linear
    /// form of the minhashes, the same for every component. Frequent values collide at random.
    PaperPoly,
    /// Cubic polynomials modulo a prime, and everything modulo the sample at last: no more cells
    /// are ever used than the sample has rows.
    PaperUniversal,
    /// Mixing minhashes, but cells linear in signature and component, so that two values share
    /// either no cell by chance or about all of them.
    Linear,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    power: usize,
    sample_rows: u64,
    min_support: u32,
    signature: Signature,
    hash: Family,
}

impl Default for Knob {
    fn default() -> Self {
        let (signature, hash) = (Signature::Minhash, Family::Mix64);
        Self { power: 2, sample_rows: 125_000, min_support: 1, signature, hash }
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
            collisions: "two values share a component with probability J^p + (1 - J^p)/m, J the Jaccard similarity of the rows that hold them",
            knobs: &[
                ("power", "p, minhashes a component: sharing falls as J^p (default 2)"),
                ("sample_rows", "training rows whose values get slots (default 125000)"),
                ("min_support", "sampled rows that a value needs for slots (default 1)"),
                ("signature", "minhash (default) | random: the control without semantics"),
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
        let Knob { power, sample_rows, min_support, signature, hash } = super::knobs(knobs)?;
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
                let (rows, range) = match signature {
                    Signature::Minhash => rows_of_values(cx, vocab, sample_rows),
                    Signature::Random => (Vec::new(), sample_rows),
                };
                let kept: Vec<(u32, &Vec<u32>)> = (0..)
                    .zip(&rows)
                    .filter(|(_, r)| r.len() >= min_support.max(1) as usize)
                    .collect();
                let places = Places { family: hash, dim, power, key, cells, range };
                let indexed = if kept.is_empty() { 0 } else { u64::from(vocab) };
                let mut index = Packed::zeros(indexed, kept.len() as u64 + 1);
                let mut slots = Packed::zeros((kept.len() * dim) as u64, cells);
                let place = |(_, rows): &(u32, &Vec<u32>)| places.seen(rows);
                let found: Vec<Vec<u32>> = kept.par_iter().map(place).collect();
                for (row, ((id, _), found)) in kept.iter().zip(&found).enumerate() {
                    index.set(*id as usize, row as u32 + 1);
                    let at = row * dim;
                    found.iter().enumerate().for_each(|(i, &slot)| slots.set(at + i, slot));
                }
                let footprint = memory(cells, vocab, kept.len() as u64, dim);
                let cells = Param::rows("cells", 1, values);
                Box::new(Shared { places, cells, index, slots, footprint })
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

/// For each value of the table, the sampled training rows that hold it; and how many were sampled.
fn rows_of_values(cx: &BuildCx<'_>, vocab: u32, sample: u64) -> (Vec<Vec<u32>>, u64) {
    let mut rows = vec![Vec::new(); vocab as usize];
    let mut row = 0;
    if let Some(examples) = cx.examples {
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
    }
    (rows, if row == 0 { sample } else { row.into() })
}

/// The published families' modulus for coefficients: the millionth prime.
const PRIME: u64 = 15_485_863;
/// The modulus of linear cells.
const LINEAR_PRIME: u64 = 2_038_074_743;

/// Where the components of a value live: a function of its parameters alone.
#[derive(Clone, Copy)]
struct Places {
    family: Family,
    dim: usize,
    /// Minhashes a component.
    power: usize,
    key: u64,
    cells: u64,
    /// Rows sampled, the range of the published families' minhashes.
    range: u64,
}

impl Places {
    /// The cell of each component of a value that `rows` hold, [dim].
    fn seen(&self, rows: &[u32]) -> Vec<u32> {
        (0..self.dim).map(|i| self.cell(i, rows)).collect()
    }

    /// The cell of component `i` of a value that the sample does not hold.
    #[inline]
    fn unseen(&self, id: u32, i: usize) -> u32 {
        let of_id = mix64(u64::from(id) ^ self.key);
        match self.family {
            Family::Mix64 => self.scale(mix64(of_id ^ i as u64)),
            Family::Linear => self.linear(id.into(), i),
            // A row id at random, two beyond the sample included, as published.
            _ => self.cell(i, &[((u128::from(of_id) * u128::from(self.range + 2)) >> 64) as u32]),
        }
    }

    /// The cell that the minhashes of `rows` pick for component `i`.
    fn cell(&self, i: usize, rows: &[u32]) -> u32 {
        let minhashes = (0..self.power).map(|k| self.minhash(i * self.power + k, rows));
        match self.family {
            Family::Mix64 | Family::Linear => {
                let signature = minhashes.fold(self.key, |folded, m| mix64(folded ^ m));
                match self.family {
                    // The component takes part, so that two values that share one do not share
                    // the next.
                    Family::Mix64 => self.scale(mix64(signature ^ i as u64)),
                    _ => self.linear(signature % LINEAR_PRIME, i),
                }
            }
            Family::PaperPoly => {
                let sum: u64 = (0..).zip(minhashes).map(|(k, m)| (1 + self.outer(k)) * m).sum();
                (sum % self.cells) as u32
            }
            Family::PaperUniversal => {
                let sum: u64 = (0..).zip(minhashes).map(|(k, m)| (1 + self.outer(k)) * m).sum();
                ((sum + self.outer(self.power as u64)) % PRIME % self.range % self.cells) as u32
            }
        }
    }

    /// The least image of `rows` under the `j`th permutation.
    fn minhash(&self, j: usize, rows: &[u32]) -> u64 {
        let seed = mix64(self.key ^ (j as u64 + 1));
        let c = [1, 2, 3, 4].map(|n| mix64(seed ^ n) % PRIME);
        let x = |row: u32| u64::from(row) + 1;
        let image = |row: &u32| match self.family {
            Family::Mix64 | Family::Linear => mix64(u64::from(*row) ^ seed),
            Family::PaperPoly => {
                let x = x(*row);
                let cubic = [x, x * x, x.wrapping_mul(x * x)];
                let sum = c
                    .iter()
                    .zip(cubic)
                    .fold(0, |sum: u64, (c, x)| sum.wrapping_add(c.wrapping_mul(x)));
                (sum as i64).rem_euclid(self.range as i64) as u64
            }
            Family::PaperUniversal => {
                let x = x(*row) % PRIME;
                // Horner's rule, below 2⁴⁸ throughout.
                let cubic = ((c[2] * x + c[1]) % PRIME * x + c[0]) % PRIME * x + c[3];
                cubic % PRIME % self.range
            }
        };
        rows.iter().map(image).min().unwrap_or(0)
    }

    /// Coefficient `k` of the published linear forms, below the prime.
    fn outer(&self, k: u64) -> u64 {
        mix64(!self.key ^ k) % (PRIME - 1)
    }

    fn scale(&self, hash: u64) -> u32 {
        ((u128::from(hash) * u128::from(self.cells)) >> 64) as u32
    }

    /// ((a·x + b·i + c) mod P) mod cells.
    fn linear(&self, x: u64, i: usize) -> u32 {
        let [a, b, c] = [1, 2, 3].map(|n| mix64(self.key ^ n) % LINEAR_PRIME);
        let sum = u128::from(a) * u128::from(x) + u128::from(b) * i as u128 + u128::from(c);
        (sum % u128::from(LINEAR_PRIME) % u128::from(self.cells)) as u32
    }
}

struct Shared {
    places: Places,
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
        match row {
            0 => self.places.unseen(id, i),
            _ => self.slots.get((row as usize - 1) * self.places.dim + i),
        }
    }
}

impl Embedding for Shared {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let (dim, cells) = (self.places.dim, tape.first());
        cells.resize(ids.len() * dim, 0);
        for (&id, cells) in ids.iter().zip(cells.chunks_exact_mut(dim)) {
            let row = self.row(id);
            cells.iter_mut().enumerate().for_each(|(i, cell)| *cell = self.cell(id, row, i));
        }
        self.cells.copy_rows(cells, out);
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        self.cells.add_rows(tape.first(), grad);
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.cells);
    }
    fn state(&mut self, visit: State<'_>) {
        self.cells.state(visit);
        visit("key", TensorMut::U64(std::slice::from_mut(&mut self.places.key)));
        visit("sampled_rows", TensorMut::U64(std::slice::from_mut(&mut self.places.range)));
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

    fn places(family: Family, dim: usize, power: usize, cells: u64, key: u64) -> Places {
        Places { family, dim, power, key: mix64(key + 1), cells, range: 125_000 }
    }

    /// Components of equal place, over `keys` draws of the functions.
    fn shared(family: Family, a: &[u32], b: &[u32], dim: usize, power: usize, keys: u64) -> usize {
        let equal = |key| {
            let places = places(family, dim, power, 1 << 24, key);
            places.seen(a).iter().zip(places.seen(b)).filter(|(a, b)| **a == *b).count()
        };
        (0..keys).map(equal).sum()
    }

    /// The share of equal slots follows J^p + (1 − J^p)/m within three standard errors.
    #[track_caller]
    fn check(size: u32, wanted: f64, power: usize) {
        let (a, b, jaccard) = sets(size, wanted);
        let (dim, keys) = (64, 40);
        let n = (dim as u64 * keys) as f64;
        let together = jaccard.powi(power as i32);
        let expect = together + (1.0 - together) / f64::from(1 << 24);
        let slack = 3.0 * (expect * (1.0 - expect) / n).sqrt() + 1.0 / n;
        let share = shared(Family::Mix64, &a, &b, dim, power, keys) as f64 / n;
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
    fn large_disjoint_sets_share_with_the_published_polynomials_only() {
        // Sets drawn from the sample, as frequent values are.
        let mut sample: Vec<u32> = (0..125_000).collect();
        Rng::stream(1, "sample").shuffle(&mut sample);
        let (a, b) = (&sample[..60_000], &sample[60_000..120_000]);
        let share = |family| shared(family, a, b, 256, 2, 4) as f64 / 1024.0;
        assert!(share(Family::Mix64) < 0.001);
        let poly = share(Family::PaperPoly);
        assert!((0.25..0.35).contains(&poly), "{poly}");
        let universal = share(Family::PaperUniversal);
        assert!((0.03..0.1).contains(&universal), "{universal}");
    }

    #[test]
    fn the_published_universal_hash_uses_no_more_cells_than_the_sample_has_rows() {
        let used = |family| {
            let places = places(family, 16, 2, 33_762_577, 1);
            let mut used = vec![false; 33_762_577];
            for id in 0..300_000 {
                (0..16).for_each(|i| used[places.unseen(id, i) as usize] = true);
            }
            used.iter().filter(|used| **used).count()
        };
        assert!(used(Family::PaperUniversal) <= 125_000);
        // 4.8 M places; the published fake rows repeat.
        assert!(used(Family::PaperPoly) > 1_500_000);
        assert!(used(Family::Mix64) > 4_400_000);
    }

    #[test]
    fn the_control_of_the_published_hashes_spreads_over_the_cells() {
        for hash in ["paper-poly", "paper-universal", "linear", "mix64"] {
            let table = TableSpec { name: "t".into(), vocab: 500, dim: 4, counts: [].into() };
            let knobs = format!(r#"{{"signature": "random", "hash": "{hash}"}}"#);
            let knobs = serde_json::from_str(&knobs).unwrap();
            let plan = Lma.plan_table(&table, Limit::Params(1000), &knobs).unwrap();
            let (rng, init) = (Rng::stream(1, "t"), Init::default());
            let cx = BuildCx { rng, table: 0, init, hash: None, fields: &[], examples: None };
            let mut built = (plan.build)(&mut { cx });
            let census = crate::census::census(&mut *built, 500, 4, &[]);
            // 2,000 places in 1,000 cells: 865 are expected; cubic polynomials modulo a multiple of
            // 8 see little of a row but its last three bits.
            let least = if hash == "paper-poly" { 500 } else { 800 };
            assert!(census.loads[0].used >= least, "{hash}: {census:?}");
        }
    }

    #[test]
    fn collisions_of_a_linear_hash_come_in_clumps() {
        // Of 20 M random pairs: the mean of equal components, where any is equal.
        let clump = |family| {
            let places = places(family, 16, 2, 500_000, 7);
            let mut rng = Rng::stream(2, "pairs");
            let (mut pairs, mut components) = (0, 0);
            for _ in 0..20_000_000 {
                let (a, b) = (rng.bits() as u32, rng.bits() as u32);
                let equal = |i: &usize| places.unseen(a, *i) == places.unseen(b, *i);
                let equal = (0..16).filter(equal).count();
                pairs += usize::from(equal > 0);
                components += equal;
            }
            // 640 are expected.
            assert!((400..900).contains(&components), "{components}");
            components as f64 / pairs as f64
        };
        let linear = clump(Family::Linear);
        assert!((7.0..=11.0).contains(&linear), "{linear}");
        assert!(clump(Family::Mix64) < 1.01);
    }
}
