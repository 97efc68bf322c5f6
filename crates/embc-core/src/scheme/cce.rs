//! CCE: hashed pieces whose pointers are learned by k-means during training (arXiv 2210.05974,
//! Algorithm 3). c columns of two tables of k rows, d/c wide: 2·k·d parameters, and pointers.
//!
//! An id's piece is a row that its pointer names plus a helper row that a hash names. A clustering
//! takes the pieces of all ids as they are (one snapshot, so nothing is half replaced), finds k
//! centroids, points every id at its nearest, and starts the helper anew under a fresh hash.

use super::ce::check_columns;
use super::*;
use crate::codebook::{Error, Lloyd, quantise};
use crate::gather::Piece;
use crate::hash::{Hash, HashFamily, scaled};
use crate::kmeans::Start;
use crate::linalg::axpy;
use crate::packed::Packed;
use crate::state::TensorMut;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub(super) struct Cce;

/// How the helper rows start after a clustering.
#[derive(Serialize, Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum Helper {
    #[default]
    Zero,
    /// The mean of what the centroids miss, over the ids of a helper row.
    Residual,
    /// As at the start of training.
    Gaussian,
}

/// What a point weighs in k-means.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Weighting {
    /// Every id the same.
    #[default]
    Uniform,
    /// By its training rows.
    Frequency,
}

/// What happens to the optimizer's moments of rows that a clustering replaces.
#[derive(Serialize, Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Moments {
    #[default]
    Keep,
    Reset,
}

/// Settings of a clustering scheme.
#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Knob {
    pub columns: usize,
    pub clusterings: u32,
    pub every: f64,
    iterations: usize,
    samples: usize,
    start: Start,
    weighting: Weighting,
    helper: Helper,
    moments: Moments,
}

impl Default for Knob {
    fn default() -> Self {
        Self {
            columns: 4,
            clusterings: 6,
            every: 1.0,
            iterations: 50,
            samples: 256,
            start: Start::Random,
            weighting: Weighting::Uniform,
            helper: Helper::Zero,
            moments: Moments::Keep,
        }
    }
}

impl Knob {
    fn check(&self, scheme: &str, dim: usize) -> Result<(), PlanError> {
        check_columns(scheme, dim, self.columns)?;
        let fine = self.every > 0.0 && self.every.is_finite() && self.samples > 0;
        let what = || PlanError::Knob(format!("{scheme}: `every` and `samples` must be positive"));
        fine.then_some(()).ok_or_else(what)
    }
}

impl Scheme for Cce {
    fn name(&self) -> &'static str {
        "cce"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "hashed pieces, their pointers learned by k-means during training",
            long: "Starts as a sum of two hashed rows in each of c columns. Every so often k-means over the vocabulary replaces the first hash by learned pointers, so that ids which behave alike share rows, and the second by a fresh one. Pointers are not trained parameters but they are memory: compare bytes too. A clustering takes effect after the validation at its epoch's end.",
            paper: "CCE, arXiv 2210.05974",
            equation: "E_i = ++_j (M_j[p_j(i)] + M'_j[h_j(i)])",
            stores: "M, M' [c x k x dim/c], pointers [c x vocab] of log2(k) bits",
            collisions: "ids that behave alike share pointed rows by design; of those that share one, 1 in k shares the helper row too",
            knobs: KNOBS,
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let knob: Knob = super::knobs(knobs)?;
        plan(self.name(), t, limit, knob, false)
    }
}

pub(super) const KNOBS: &[(&str, &str)] = &[
    ("columns", "c, which divides dim (default 4)"),
    ("clusterings", "how often pointers are learned (default 6; cqr: 1)"),
    ("every", "epochs between clusterings, and before the first (default 1; cqr: 0.5)"),
    ("iterations", "of k-means (default 50)"),
    ("samples", "ids a centroid that k-means sees; all are assigned (default 256)"),
    ("start", "random (default) | plusplus: k-means' first centroids"),
    ("weighting", "uniform (default) | frequency: what an id weighs in k-means"),
    ("helper", "zero (default) | residual | gaussian: helper rows after a clustering"),
    ("moments", "keep (default, as CCE's code) | reset: optimizer state of replaced rows"),
];

/// The plan of a clustered embedding. With `drop_helper` the one clustering finds 2k centroids,
/// and the helper goes (CQR).
pub(super) fn plan(
    scheme: &str,
    t: &TableSpec,
    limit: Limit,
    knob: Knob,
    drop_helper: bool,
) -> Result<Plan, PlanError> {
    knob.check(scheme, t.dim)?;
    let (dim, vocab, columns) = (t.dim, t.vocab, knob.columns);
    let pointed = move |k: u64| if drop_helper { 2 * k } else { k };
    let footprint = move |k: u64| {
        let index_bytes = Packed::bytes(u64::from(vocab) * columns as u64, pointed(k));
        let floats = Footprint::floats(2 * k * dim as u64);
        Footprint { index_bytes, train_bytes: floats.train_bytes + index_bytes, ..floats }
    };
    let limit = if limit == Limit::None {
        Limit::Params(t.full_params().max(2 * dim as u64))
    } else {
        limit
    };
    let k = rows_within(scheme, t, limit, footprint)?;
    let counts = t.counts.clone();
    Ok(Plan {
        out_dim: dim,
        footprint: footprint(k.into()),
        larger: footprint(u64::from(k) + 1).params,
        sizes: format!(
            "{columns} columns of 2 x {k} rows x {}, {} index bytes",
            dim / columns,
            footprint(k.into()).index_bytes
        ),
        build: Box::new(move |cx| {
            let width = dim / columns;
            // Two rows are summed: each has half of the full table's variance.
            let deviation = cx.init.deviation(k.into(), dim) / 2f32.sqrt();
            let mut pointers = Packed::zeros(u64::from(vocab) * columns as u64, pointed(k.into()));
            let family = cx.hash.unwrap_or(HashFamily::Mix64);
            let mut tables = Vec::new();
            for j in 0..columns {
                let hash = Hash::draw(family, k, &mut cx.rng);
                (0..vocab).for_each(|id| pointers.set(id as usize * columns + j, hash.row(id)));
                let values = cx.init.draw(2 * k as usize * width, deviation, &mut cx.rng);
                tables.push(Param::rows(format!("column{j}"), width, values));
            }
            let helper_keys = (0..columns).map(|_| cx.rng.bits()).collect();
            Box::new(Clustered {
                knob: knob.clone(),
                deviation,
                vocab,
                rows: k,
                counts: counts.clone(),
                tables,
                pointers,
                helper_keys,
                done: 0,
                error: Error::default(),
                drop_helper,
            })
        }),
    })
}

struct Clustered {
    knob: Knob,
    /// Deviation of the first values.
    deviation: f32,
    vocab: u32,
    /// k.
    rows: u32,
    counts: Arc<[u32]>,
    /// Per column [2k × d/c]: rows that pointers name, then helper rows.
    tables: Vec<Param>,
    /// Row of each id in each column, [vocab × c].
    pointers: Packed,
    /// Keys of the columns' helper hashes.
    helper_keys: Vec<u64>,
    /// Clusterings done.
    done: u64,
    /// Of the last clustering.
    error: Error,
    drop_helper: bool,
}

impl Clustered {
    /// True while helper rows are added.
    fn has_helper(&self) -> bool {
        !(self.drop_helper && self.done > 0)
    }

    #[inline]
    fn pointer(&self, id: u32, j: usize) -> u32 {
        self.pointers.get(id as usize * self.tables.len() + j)
    }

    /// The helper row of an id in column `j`, counted from the start of the table.
    #[inline]
    fn helper(&self, id: u32, j: usize) -> u32 {
        let hash = crate::hash::mix64(u64::from(id) ^ self.helper_keys[j]);
        self.rows + scaled(hash, self.rows.into())
    }

    /// The pieces of column `j` of `ids`, [ids × d/c].
    fn pieces(&self, j: usize, ids: &[u32]) -> Vec<f32> {
        let table = &self.tables[j];
        let width = table.width();
        let mut pieces = vec![0.0; ids.len() * width];
        pieces.par_chunks_mut(width).zip(ids).with_min_len(1024).for_each(|(piece, &id)| {
            piece.copy_from_slice(table.row(self.pointer(id, j)));
            if self.has_helper() {
                axpy(1.0, table.row(self.helper(id, j)), piece);
            }
        });
        pieces
    }

    /// Learns the pointers of column `j` from its pieces; returns what replaces the table's first
    /// rows, and the pointers of all ids.
    fn cluster(
        &self,
        pieces: &[f32],
        width: usize,
        cancel: &Cancel,
        rng: &mut Rng,
    ) -> (Vec<f32>, Vec<u32>) {
        let k = if self.drop_helper { 2 * self.rows } else { self.rows };
        let weights = (self.knob.weighting == Weighting::Frequency).then_some(&self.counts[..]);
        let Knob { samples, start, iterations, .. } = self.knob;
        quantise(pieces, width, k, Lloyd { samples, start, iterations }, weights, cancel, rng)
    }

    /// The helper rows after a clustering, under the new hash.
    fn new_helper(
        &self,
        j: usize,
        before: &[f32],
        centroids: &[f32],
        nearest: &[u32],
        rng: &mut Rng,
    ) -> Vec<f32> {
        let width = self.tables[j].width();
        let length = self.rows as usize * width;
        match self.knob.helper {
            Helper::Zero => vec![0.0; length],
            Helper::Gaussian => (0..length).map(|_| rng.normal() as f32 * self.deviation).collect(),
            Helper::Residual => {
                let mut sums = vec![0.0; length];
                let mut ids = vec![0u32; self.rows as usize];
                for id in 0..self.vocab {
                    let row = (self.helper(id, j) - self.rows) as usize;
                    let piece = &before[id as usize * width..][..width];
                    let centroid = &centroids[nearest[id as usize] as usize * width..][..width];
                    let sum = &mut sums[row * width..][..width];
                    axpy(1.0, piece, sum);
                    axpy(-1.0, centroid, sum);
                    ids[row] += 1;
                }
                for (sum, &n) in sums.chunks_exact_mut(width).zip(&ids) {
                    sum.iter_mut().for_each(|x| *x /= n.max(1) as f32);
                }
                sums
            }
        }
    }
}

impl Clustered {
    /// The least entropy of a column's pointers, and of a pair of columns', each over the most that
    /// it can be (CCE, Appendix H): 1 is as random as a hash, little is a table that collapsed.
    /// None where there is only one row to point to, or one id.
    fn entropies(&self) -> Option<(f64, Option<f64>)> {
        let columns = self.tables.len();
        let k = if self.drop_helper { 2 * self.rows } else { self.rows };
        if k < 2 || self.vocab < 2 {
            return None;
        }
        let bits = |most: f64, of: &(dyn Fn(u32) -> u64 + Sync)| {
            let mut codes: Vec<u64> = (0..self.vocab).into_par_iter().map(of).collect();
            codes.par_sort_unstable();
            let n = f64::from(self.vocab);
            let share = codes.chunk_by(|a, b| a == b).map(|equal| equal.len() as f64 / n);
            share.map(|p| -p * p.log2()).sum::<f64>() / most.min(n.log2())
        };
        let code = |id: u32, j: usize| u64::from(self.pointer(id, j));
        let one = (0..columns).map(|j| bits(f64::from(k).log2(), &|id| code(id, j)));
        let pairs = (0..columns).flat_map(|a| (0..a).map(move |b| (a, b)));
        let two = pairs
            .map(|(a, b)| bits(2.0 * f64::from(k).log2(), &|id| code(id, a) << 32 | code(id, b)));
        Some((one.fold(f64::INFINITY, f64::min), two.reduce(f64::min)))
    }
}

impl Embedding for Clustered {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let columns = self.tables.len();
        // The pointed rows of each column, then the helper rows.
        let (pointed, helpers) = tape.rows(2 * columns).split_at_mut(columns);
        for (j, table) in self.tables.iter().enumerate() {
            let piece = Piece::column(j, columns, table.width());
            pointed[j].clear();
            pointed[j].extend(ids.iter().map(|&id| self.pointer(id, j)));
            table.gather(&pointed[j], out, piece, |_| |row, _| row);
            helpers[j].clear();
            if self.has_helper() {
                helpers[j].extend(ids.iter().map(|&id| self.helper(id, j)));
                table.gather(&helpers[j], out, piece, |_| |row, pointed| pointed + row);
            }
        }
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        let columns = self.tables.len();
        let (pointed, helpers) = tape.rows(2 * columns).split_at(columns);
        for (j, table) in self.tables.iter_mut().enumerate() {
            let piece = Piece::column(j, columns, table.width());
            table.scatter(&pointed[j], grad, piece, |_| |grad| grad);
            table.scatter(&helpers[j], grad, piece, |_| |grad| grad);
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let columns = self.tables.len();
        let len = u64::from(self.vocab) * columns as u64;
        let pointers = g.unpack(ids, "pointers", &self.pointers, (len, columns));
        let column = |(j, table): (usize, &'a Param)| {
            let at = g.op(Op::Column { x: pointers, at: j as u32 });
            let pointed = g.gather(at, table, table.width());
            if !self.has_helper() {
                return pointed;
            }
            let helper = g.mix64(ids, &format!("helper{j}"), self.helper_keys[j], self.rows.into());
            let helper = g.gather_from(helper, table, table.width(), self.rows as usize);
            g.add(pointed, helper)
        };
        let columns = self.tables.iter().enumerate().map(column).collect();
        g.concat(columns)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.tables.iter_mut().for_each(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.tables.iter_mut().for_each(|table| table.state(visit));
        visit("pointers", self.pointers.tensor());
        visit("helper_keys", TensorMut::u64(&mut self.helper_keys));
        visit("clusterings", TensorMut::u64(std::slice::from_mut(&mut self.done)));
        self.error.state(visit);
    }
    fn footprint(&self) -> Footprint {
        let params = self.tables.iter().map(|table| table.value().len() as u64).sum();
        let pointed = if self.drop_helper { 2 * self.rows } else { self.rows };
        let pointers = u64::from(self.vocab) * self.tables.len() as u64;
        let index_bytes = Packed::bytes(pointers, pointed.into());
        let floats = Footprint::floats(params);
        Footprint { index_bytes, train_bytes: floats.train_bytes + index_bytes, ..floats }
    }
    fn figures(&self) -> Vec<(&'static str, f64)> {
        let (done, planned) = (self.done as f64, f64::from(self.knob.clusterings));
        let mut figures = vec![("clusterings", done), ("clusterings_planned", planned)];
        if self.done > 0 {
            figures.push(self.error.figure());
            if let Some((one, two)) = self.entropies() {
                figures.push(("entropy", one));
                figures.extend(two.map(|two| ("pair_entropy", two)));
            }
        }
        figures
    }
    fn after_step(&mut self, at: Clock, cancel: &Cancel, mut rng: Rng) -> ControlFlow<()> {
        let due = (self.done + 1) as f64 * self.knob.every * at.steps_per_epoch as f64;
        // Strictly after: the validation at an epoch's end still sees what was trained.
        if self.done >= u64::from(self.knob.clusterings) || at.step as f64 <= due {
            return ControlFlow::Continue(());
        }
        let all: Vec<u32> = (0..self.vocab).collect();
        // All or nothing: what is cut off starts again from here.
        let (mut error, mut pointers) = (Error::default(), self.pointers.clone());
        let (old_keys, mut learned) = (self.helper_keys.clone(), Vec::new());
        for j in 0..self.tables.len() {
            let before = self.pieces(j, &all);
            let width = self.tables[j].width();
            let (centroids, nearest) = self.cluster(&before, width, cancel, &mut rng);
            if cancel.is_set() {
                self.helper_keys = old_keys;
                return ControlFlow::Break(());
            }
            error.add(&before, &centroids, width, &nearest);
            self.helper_keys[j] = rng.bits();
            let helper = (!self.drop_helper)
                .then(|| self.new_helper(j, &before, &centroids, &nearest, &mut rng));
            let columns = self.tables.len();
            for (id, &row) in nearest.iter().enumerate() {
                pointers.set(id * columns + j, row);
            }
            learned.push((centroids, helper));
        }
        (self.error, self.pointers) = (error, pointers);
        for (table, (centroids, helper)) in self.tables.iter_mut().zip(learned) {
            table.value_mut()[..centroids.len()].copy_from_slice(&centroids);
            if let Some(helper) = helper {
                let from = self.rows as usize * table.width();
                table.value_mut()[from..].copy_from_slice(&helper);
            }
            if self.knob.moments == Moments::Reset {
                table.moments.iter_mut().for_each(|moment| moment.fill(0.0));
            }
        }
        self.done += 1;
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
