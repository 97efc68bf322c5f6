//! Sums of hashed rows of one table: what signed hashing, double hashing and bloom share.

use super::*;
use crate::gather::Piece;
use crate::hash::{Hash, HashFamily, mix64};
use crate::state::TensorMut;

/// E_i = scale · Σ_j s_j(i) · T[h_j(i)], with s = 1 unless signed.
pub(super) struct SumOfRows {
    hashes: Vec<Hash>,
    /// Keys of the sign hashes; empty for plain sums.
    signs: Vec<u64>,
    scale: f32,
    table: Param,
}

/// How many rows are summed, and how.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub hashes: usize,
    pub signed: bool,
    pub scale: f32,
}

/// The plan of a sum of `sum.hashes` of m rows, the most that fit: m·d parameters.
pub(super) fn plan(
    scheme: &str,
    t: &TableSpec,
    limit: Limit,
    family: Option<HashFamily>,
    sum: Sum,
) -> Result<Plan, PlanError> {
    let dim = t.dim;
    let footprint = move |m: u64| Footprint::floats(m * dim as u64);
    let m = rows_within(scheme, t, limit, footprint)?;
    Ok(Plan {
        out_dim: dim,
        footprint: footprint(m.into()),
        larger: footprint(u64::from(m) + 1).params,
        sizes: format!("{m} rows x {dim}, {} an id", sum.hashes),
        build: Box::new(move |cx| {
            let family = family.or(cx.hash).unwrap_or_default();
            let hashes = (0..sum.hashes).map(|_| Hash::draw(family, m, &mut cx.rng)).collect();
            let signs = match sum.signed {
                true => (0..sum.hashes).map(|_| cx.rng.bits()).collect(),
                false => Vec::new(),
            };
            // Scaled so that the sum has the full table's variance.
            let target = cx.init.deviation(m.into(), dim);
            let deviation = target / (sum.scale * (sum.hashes as f32).sqrt());
            let table = cx.rows("table", m.into(), dim, deviation);
            Box::new(SumOfRows { hashes, signs, scale: sum.scale, table })
        }),
    })
}

/// −scale where the sign hash of an id says so.
#[inline]
fn factor(scale: f32, sign: Option<u64>, id: u32) -> f32 {
    let minus = sign.is_some_and(|key| mix64(u64::from(id) ^ key) & 1 == 1);
    if minus { -scale } else { scale }
}

impl SumOfRows {
    #[inline]
    fn factor(&self, j: usize, id: u32) -> f32 {
        factor(self.scale, self.signs.get(j).copied(), id)
    }
}

impl Embedding for SumOfRows {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let whole = Piece::whole(self.table.width());
        for (j, rows) in tape.rows(self.hashes.len()).iter_mut().enumerate() {
            self.hashes[j].rows(ids, rows);
            let first = |i: usize| {
                let factor = self.factor(j, ids[i]);
                move |row, _| factor * row
            };
            let next = |i: usize| {
                let factor = self.factor(j, ids[i]);
                move |row, sum| sum + factor * row
            };
            match j {
                0 => self.table.gather(rows, out, whole, first),
                _ => self.table.gather(rows, out, whole, next),
            }
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let whole = Piece::whole(self.table.width());
        for (j, rows) in tape.rows(self.hashes.len()).iter().enumerate() {
            let (scale, sign) = (self.scale, self.signs.get(j).copied());
            self.table.scatter(rows, grad, whole, |i| {
                let factor = factor(scale, sign, ids[i]);
                move |grad| factor * grad
            });
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let terms: Vec<Node> = (self.hashes.iter().enumerate())
            .map(|(j, hash)| {
                let rows = g.hash(ids, &format!("hash{j}"), hash);
                let row = g.gather(rows, &self.table, self.table.width());
                let Some(&key) = self.signs.get(j) else { return g.scale(row, self.scale) };
                let sign = g.signs(ids, &format!("sign{j}"), key);
                let factor = g.scale(sign, self.scale);
                g.mul(row, factor)
            })
            .collect();
        g.sum(terms)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
    }
    fn state(&mut self, visit: State<'_>) {
        self.table.state(visit);
        for (j, hash) in self.hashes.iter_mut().enumerate() {
            hash.state(&format!("hash{j}"), visit);
        }
        if !self.signs.is_empty() {
            visit("sign_keys", TensorMut::u64(&mut self.signs));
        }
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.table.len() as u64)
    }
}
