//! Signs after training: the rows of a trained full table become a mean plus vectors, each taken with
//! the sign that a bit of the row says. (p + 1)·d parameters, and at most p bits a row.
//!
//! Frequent ids may use more vectors than rare ones: where a table's bytes are bounded, bands of ids
//! get bits while a bit takes off more of the error, weighed by training rows, than one elsewhere.
//! Training goes on through the bits, if asked: a latent number stands behind each, its sign is what
//! is read, and it gets the gradient as if it were read itself (straight through).

use super::trained::{self, Smaller, Table, Trained};
use super::*;
use crate::allocate::{Choice, allocate};
use crate::codebook::Error;
use crate::linalg::{Op as Side, dot, gemm};
use crate::signs::{Points, Signs};
use bits::{Basis, Bits, Depths, Through};

mod bits;

pub(super) struct Binary;

/// Latent numbers, where a row lies as far along a vector as the vector is long: what steps of the
/// usual optimizers turn within an epoch or two.
const LATENT: f32 = 0.1;

/// Prices that are tried, each an eighth of an octave below the one before.
const PRICES: u32 = 320;

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
                (
                    "finetune",
                    "epochs to train bits, vectors and model on, while the learning rate falls to 0 (default 0)",
                ),
            ],
        }
    }
    fn parent(&self) -> Option<&'static str> {
        Some("full")
    }
    fn version(&self) -> u32 {
        2
    }
    fn decides_late(&self) -> bool {
        true
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
        let t = t.clone();
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(planes),
            larger: if planes < most { footprint(planes + 1).params } else { u64::MAX },
            sizes: format!("about {planes} signs a row of vectors of {dim}, after training"),
            build: Box::new(move |cx| {
                let uniform = Depths(vec![(vocab, planes as usize)]);
                if let Some(simple) = trained::saved(&t, cx) {
                    return simple;
                }
                if let Origin::Saved(saved) = cx.origin {
                    // What is not of such a table is refused by its shapes.
                    let depths = Depths::saved(saved, vocab, deepest(dim, planes as usize));
                    return Box::new(Bits::empty(dim, depths.unwrap_or(uniform)));
                }
                let smaller = Signed { limit, knob, uniform };
                Box::new(Trained::start(&t, smaller, footprint(planes), cx))
            }),
        })
    }
}

/// Vectors that frequent ids may use at most, where as many for all ids would fit.
fn deepest(dim: usize, planes: usize) -> usize {
    (2 * planes + 8).min(8 * dim)
}

/// Signs of a trained table.
struct Signed {
    limit: Limit,
    knob: Knob,
    /// As many vectors for all ids as the limit allows.
    uniform: Depths,
}

impl Smaller for Signed {
    type Form = Depths;

    fn weight(&self) -> f32 {
        self.knob.weight
    }

    /// Depths that are equal, or that one price a bit gives.
    fn forms(
        &self,
        table: &Table<'_>,
        stored: Precision,
        cx: &BuildCx<'_>,
    ) -> Vec<(Depths, Choice)> {
        let (vocab, planes) = self.uniform.0[0];
        let (dim, weights) = (table.dim, table.weights(self.knob.weight));
        let most = deepest(dim, planes);
        // The last id may be OOV, whose count is that of all ids it stands for.
        let known = table.counts.split_last().map_or(&[][..], |(_, known)| known);
        let bands = if known.is_sorted_by(|a, b| a >= b) { self.knob.bands } else { 1 };
        let mut ends: Vec<u32> = (0..bands).rev().map(|b| vocab >> (2 * b)).collect();
        ends.retain(|&end| end > 0);
        let deep = vec![most as u32; vocab as usize];
        let points = Points { rows: table.rows, weights: &weights, depths: &deep };
        let lost = Signs::lost(&points, dim, most, &ends, &cx.cancel);
        let floats = |n: usize| Footprint::floats(n as u64).stored(stored).bytes();
        let choice = |depths: &Depths| Choice {
            bytes: depths.bytes() + floats((depths.most() + 1) * dim),
            loss: lost.iter().zip(&depths.0).map(|(lost, band)| lost[band.1]).sum(),
        };
        let first = lost.iter().map(|lost| lost[0]).sum::<f64>();
        let prices = (0..PRICES).map(|step| first * 2f64.powf(-f64::from(step) / 8.0));
        let priced = prices.map(|price| priced(&ends, &lost, price, 8.0 * floats(dim) as f64));
        let equal = (1..=most).map(|p| Depths(ends.iter().map(|&end| (end, p)).collect()));
        let mut forms: Vec<Depths> = equal.chain(priced).filter(|d| d.most() > 0).collect();
        forms.dedup();
        forms.into_iter().map(|depths| (depths.clone(), choice(&depths))).collect()
    }

    fn become_small(
        &self,
        table: &Table<'_>,
        form: Option<&Depths>,
        cx: &mut BuildCx<'_>,
    ) -> Box<dyn Embedding> {
        let (dim, weights) = (table.dim, table.weights(self.knob.weight));
        let depths = form.cloned().unwrap_or_else(|| self.alone(table, cx));
        let (planes, of_ids) = (depths.most(), depths.of_ids());
        let points = Points { rows: table.rows, weights: &weights, depths: &of_ids };
        let (signs, codes) = Signs::fit(&points, dim, planes, self.knob.rounds, &cx.cancel);
        let (mut decoded, mut error) = (Vec::new(), Error::default());
        signs.decode(&codes, &mut decoded);
        error.add_rows(table.rows, &decoded);
        let basis = Basis::new(&signs.planes, &signs.mean);
        if self.knob.finetune == 0 {
            return Box::new(Bits::new(basis, depths, &codes, error));
        }
        let latent = latent(&signs, table.rows, &decoded, &codes);
        Box::new(Through::new(basis, latent, depths, self.knob.finetune, error))
    }
}

impl Signed {
    /// The depths that lose least within the table's own limit.
    fn alone(&self, table: &Table<'_>, cx: &BuildCx<'_>) -> Depths {
        let Limit::Bytes(bytes, stored) = self.limit else { return self.uniform.clone() };
        let (forms, choices): (Vec<_>, Vec<_>) = self.forms(table, stored, cx).into_iter().unzip();
        match allocate(&[choices], bytes) {
            Some(chosen) => forms[chosen[0]].clone(),
            None => self.uniform.clone(),
        }
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
