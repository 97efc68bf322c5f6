//! Signs after training: the rows of a trained full table become a mean plus vectors, each taken with
//! the sign that a bit of the row says. (p + 1)·d parameters, and at most p bits a row.
//!
//! Frequent ids may use more vectors than rare ones: where a table's bytes are bounded, bands of ids
//! get bits while a bit takes off more of the error, weighed by training rows, than one elsewhere.
//! Training goes on through the bits, if asked: a latent number stands behind each, its sign is what
//! is read, and it gets the gradient as if it were read itself (straight through).

use super::*;
use crate::codebook::Error;
use crate::linalg::{Op as Side, dot, gemm};
use crate::signs::{Points, Signs};
use bits::{Basis, Bits, Depths, Through};

mod bits;

pub(super) struct Binary;

/// Latent numbers, where a row lies as far along a vector as the vector is long: what steps of the
/// usual optimizers turn within an epoch or two.
const LATENT: f32 = 0.1;

#[derive(serde::Serialize, serde::Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    rounds: usize,
    bands: u32,
    weight: f32,
    finetune: u32,
}

impl Default for Knob {
    fn default() -> Self {
        Self { rounds: 10, bands: 4, weight: 0.5, finetune: 0 }
    }
}

impl Scheme for Binary {
    fn name(&self) -> &'static str {
        "binary"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "signs of shared vectors after training, more for frequent ids",
            long: "Trains the full table, then replaces each row by a mean plus vectors, each with the sign that a bit of the row says: vectors by least squares, bits by flips of one or two, in turn. Eight bits cost eight vectors, where pq needs a codebook of 256 rows; so it pays where tables are small, or bytes are few. In a budget of bytes, bands of frequent ids use more vectors than rare ones. While it trains, it takes as much as `full`.",
            paper: "Slawski et al., NIPS 2013 (factorisation with binary components); trained through signs as Bengio et al., arXiv 1308.3432",
            equation: "E_i = m + sum_(j < p_i) (2 bit_j(i) - 1) V_j",
            stores: "V [p x dim], m [dim], bits [vocab x p], fewer for bands of rare ids",
            collisions: "ids of the same bits are equal",
            knobs: &[
                ("rounds", "of vectors and bits in turn (default 10)"),
                (
                    "bands",
                    "of ids by frequency, each four times as large as the one before; 1: all use the same vectors (default 4)",
                ),
                ("weight", "an id's error counts by this power of its training rows (default 0.5)"),
                ("finetune", "epochs to train bits, vectors and model on (default 0)"),
            ],
        }
    }
    fn parent(&self) -> Option<&'static str> {
        Some("full")
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let knob: Knob = super::knobs(knobs)?;
        if !(1..=8).contains(&knob.bands) || !(0.0..=1.0).contains(&knob.weight) {
            let what = "binary: `bands` is 1 to 8, `weight` 0 to 1";
            return Err(PlanError::Knob(what.into()));
        }
        let (vocab, dim, full) = (t.vocab, t.dim, t.full_params());
        let footprint = move |planes: u64| Footprint {
            index_bytes: Depths(vec![(vocab, planes as usize)]).bytes(),
            train_bytes: 4 * full,
            ..Footprint::floats((planes + 1) * dim as u64)
        };
        let most = 8 * dim as u64;
        let planes = limit.largest(most, footprint).ok_or_else(|| {
            let least = footprint(1);
            PlanError::Infeasible(format!(
                "binary cannot fit table {} in {limit}: one bit a row takes {} parameters in {} bytes",
                t.name, least.params, least.bytes()
            ))
        })?;
        let counts = t.counts.clone();
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(planes),
            larger: if planes < most { footprint(planes + 1).params } else { u64::MAX },
            sizes: format!("about {planes} signs a row of vectors of {dim}, after training"),
            build: Box::new(move |cx| {
                let uniform = Depths(vec![(vocab, planes as usize)]);
                if let Origin::Saved(saved) = cx.origin {
                    // What is not of such a table is refused by its shapes.
                    let depths = Depths::saved(saved, vocab, 2 * planes as usize + 8);
                    return Box::new(Bits::empty(dim, depths.unwrap_or(uniform)));
                }
                let values = cx.init.table(vocab.into(), dim, dim, &mut cx.rng);
                let table = Param::rows("table", dim, values);
                Box::new(Training { table, counts: counts.clone(), uniform, limit, knob })
            }),
        })
    }
}

/// The full table, while it trains.
struct Training {
    table: Param,
    counts: Arc<[u32]>,
    /// As many vectors for all ids as the limit allows.
    uniform: Depths,
    limit: Limit,
    knob: Knob,
}

impl Training {
    /// What the error of each id counts.
    fn weights(&self) -> Vec<f32> {
        let count = |id: u32| self.counts.get(id as usize).copied().unwrap_or(1).max(1);
        (0..self.uniform.0[0].0).map(|id| (count(id) as f32).powf(self.knob.weight)).collect()
    }

    /// Depths that take off most of the error within the limit.
    fn depths(&self, weights: &[f32], cancel: &Cancel) -> Depths {
        let (vocab, planes) = self.uniform.0[0];
        // The last id may be OOV, whose count is that of all ids it stands for.
        let known = self.counts.split_last().map_or(&[][..], |(_, known)| known);
        let banded = self.knob.bands > 1 && known.is_sorted_by(|a, b| a >= b);
        let Limit::Bytes(bytes, stored) = self.limit else { return self.uniform.clone() };
        if !banded {
            return self.uniform.clone();
        }
        let (dim, most) = (self.table.width(), 2 * planes + 8);
        let mut ends: Vec<u32> = (0..self.knob.bands).rev().map(|b| vocab >> (2 * b)).collect();
        ends.retain(|&end| end > 0);
        let deep = vec![most as u32; vocab as usize];
        let points = Points { rows: self.table.value(), weights, depths: &deep };
        let lost = Signs::lost(&points, dim, most, &ends, cancel);
        let size = |depths: &Depths| {
            let floats = Footprint::floats(((depths.most() + 1) * dim) as u64);
            depths.bytes() + floats.stored(stored).bytes()
        };
        let vector = 8.0 * Footprint::floats(dim as u64).stored(stored).bytes() as f64;
        let at = |price: f64| priced(&ends, &lost, price, vector);
        // Dearer until it fits, then cheaper while it does, by halves.
        let (mut dear, mut cheap) = (lost[0].iter().sum::<f64>().max(1e-30), 0.0);
        for _ in 0..60 {
            let middle = if cheap > 0.0 { f64::sqrt(dear * cheap) } else { dear / 16.0 };
            match size(&at(middle)) <= bytes {
                true => dear = middle,
                false => cheap = middle,
            }
        }
        let found = at(dear);
        let left = |depths: &Depths| -> f64 {
            lost.iter().zip(&depths.0).map(|(lost, band)| lost[band.1]).sum()
        };
        let uniform = Depths(ends.iter().map(|&end| (end, planes)).collect());
        let better = size(&found) <= bytes && left(&found) < left(&uniform);
        if better { found } else { self.uniform.clone() }
    }
}

/// Depths where a bit costs so much of the error, and a vector as much as so many bits; `lost`
/// [bands][vectors used]. Each vector goes to the bands that gain most by it, of those that have all
/// vectors before it.
fn priced(ends: &[u32], lost: &[Vec<f64>], price: f64, vector: f64) -> Depths {
    let mut depths: Vec<(u32, usize)> = ends.iter().map(|&end| (end, 0)).collect();
    let mut bands = ends.len();
    for p in 1..lost[0].len() {
        let (mut gain, mut best, mut begin) = (-price * vector, (0.0, 0), 0);
        for b in 0..bands {
            gain += lost[b][p - 1] - lost[b][p] - price * f64::from(ends[b] - begin);
            begin = ends[b];
            if gain > best.0 {
                best = (gain, b + 1);
            }
        }
        bands = best.1;
        depths[..bands].iter_mut().for_each(|band| band.1 = p);
        if bands == 0 {
            break;
        }
    }
    Depths(depths)
}

impl Embedding for Training {
    fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
        self.table.copy_rows(ids, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], _: &mut Tape) {
        self.table.add_rows(ids, grad);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        g.gather(ids, &self.table, self.table.width())
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
    }
    /// What it will be at most; `train_bytes` tells what it is now.
    fn footprint(&self) -> Footprint {
        let (dim, values) = (self.table.width() as u64, self.table.value().len() as u64);
        let floats = Footprint::floats((self.uniform.most() as u64 + 1) * dim);
        Footprint { index_bytes: self.uniform.bytes(), train_bytes: 4 * values, ..floats }
    }
    fn finish(&mut self, cx: &mut BuildCx<'_>) -> Option<Box<dyn Embedding>> {
        let (dim, table, weights) = (self.table.width(), self.table.value(), self.weights());
        let depths = self.depths(&weights, &cx.cancel);
        let (planes, of_ids) = (depths.most(), depths.of_ids());
        let points = Points { rows: table, weights: &weights, depths: &of_ids };
        let (signs, codes) = Signs::fit(&points, dim, planes, self.knob.rounds, &cx.cancel);
        let (mut decoded, mut error) = (Vec::new(), Error::default());
        signs.decode(&codes, &mut decoded);
        error.add_rows(table, &decoded);
        let basis = Basis::new(&signs.planes, &signs.mean);
        if self.knob.finetune == 0 {
            return Some(Box::new(Bits::new(basis, depths, &codes, error)));
        }
        let latent = latent(&signs, table, &decoded, &codes);
        Some(Box::new(Through::new(basis, latent, depths, self.knob.finetune, error)))
    }
}

/// How far rows lie along each vector, the others as they are: a number near 0 turns soon.
fn latent(signs: &Signs, rows: &[f32], decoded: &[f32], codes: &[f32]) -> Vec<f32> {
    let (dim, planes) = (signs.dim, signs.len());
    let n = rows.len() / dim;
    let left: Vec<f32> = rows.iter().zip(decoded).map(|(x, near)| x - near).collect();
    let mut latent = vec![0.0; codes.len()];
    gemm(n, planes, dim, &left, Side::N, &signs.planes, Side::T, 0.0, &mut latent);
    let vectors = signs.planes.chunks_exact(dim);
    let squares: Vec<f32> = vectors.map(|v| dot(v, v).max(1e-30)).collect();
    for (latent, codes) in latent.chunks_exact_mut(planes).zip(codes.chunks_exact(planes)) {
        for ((x, sign), square) in latent.iter_mut().zip(codes).zip(&squares) {
            *x = LATENT * sign * (1.0 + *x * sign / square).clamp(0.01, 2.0);
        }
    }
    latent
}

#[cfg(test)]
mod tests {
    use super::super::{Precision, find};
    use super::*;
    use crate::quantize::Storage;
    use crate::rng::Rng;

    /// Finishes a table of random rows whose first ids are the most frequent: its bytes, and its
    /// squared error, weighed by training rows.
    fn finished(bytes: u64, knobs: &str) -> (u64, f32) {
        let (vocab, dim) = (2000u32, 16);
        let counts: Vec<u32> = (1..=vocab).map(|rank| 1 + 100_000 / rank).collect();
        let table = TableSpec { name: "t".into(), vocab, dim, counts: counts.into() };
        let limit = Limit::Bytes(bytes, Precision { storage: Storage::Fp32, group: 16 });
        let knobs = serde_json::from_str(knobs).unwrap();
        let plan = find("binary").unwrap().plan_table(&table, limit, &knobs).unwrap();
        let mut cx = BuildCx::new(Rng::stream(1, "binary"));
        let mut trained = (plan.build)(&mut cx);
        let of_all = |embedding: &dyn Embedding| {
            let ids: Vec<u32> = (0..vocab).collect();
            let mut rows = vec![0.0; vocab as usize * dim];
            embedding.gather(&ids, &mut rows, &mut Tape::default());
            rows
        };
        let before = of_all(&*trained);
        let mut after = trained.finish(&mut cx).unwrap();
        let bytes = after.footprint().bytes();
        if after.finetune() > 0 {
            after = after.finish(&mut cx).unwrap();
            assert!(after.finish(&mut cx).is_none(), "bits are its last stage");
        }
        assert_eq!(after.footprint().bytes(), bytes);
        let after = of_all(&*after);
        let error = {
            let pairs = before.chunks_exact(dim).zip(after.chunks_exact(dim)).enumerate();
            let square = |(a, b): (&f32, &f32)| (a - b) * (a - b);
            let lost = |(id, (a, b)): (usize, (&[f32], &[f32]))| {
                table.counts[id] as f32 * a.iter().zip(b).map(square).sum::<f32>()
            };
            pairs.map(lost).sum::<f32>() / before.iter().map(|x| x * x).sum::<f32>()
        };
        (bytes, error)
    }

    #[test]
    fn frequent_ids_lose_less_within_the_same_bytes() {
        let of = |bytes, bands| finished(bytes, &format!(r#"{{"weight":1.0,"bands":{bands}}}"#));
        let (banded, uniform) = (of(12_000, 4), of(12_000, 1));
        assert!(banded.0 <= 12_000 && uniform.0 <= 12_000, "{banded:?} {uniform:?}");
        assert!(banded.1 < 0.9 * uniform.1, "{banded:?} {uniform:?}");
        assert!(of(6_000, 4).1 > banded.1, "{banded:?}");
    }

    #[test]
    fn what_trained_through_its_bits_becomes_them() {
        assert_eq!(finished(12_000, r#"{"finetune":1}"#), finished(12_000, "{}"));
    }
}
