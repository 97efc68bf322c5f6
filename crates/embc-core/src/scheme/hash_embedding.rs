//! Hash embeddings: a weighted sum of k hashed rows, the weights learned and hashed too
//! (arXiv 1709.03933). m·d + weights parameters.

use super::*;
use crate::gather::Piece;
use crate::hash::{Hash, HashFamily};
use crate::linalg::dot;

pub(super) struct HashEmbedding;

/// Where the k weights of an id come from.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Weights {
    /// One hash picks a row of k weights.
    #[default]
    Original,
    /// Weight j is component j of a row of its own hash.
    Independent,
    /// Each weight is any cell of the flat weights.
    Flat,
    /// Each weight is a cell of the table itself.
    Table,
    /// Every id has k weights of its own.
    PerId,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    hashes: usize,
    weights: Weights,
    hash: Option<HashFamily>,
}

impl Default for Knob {
    fn default() -> Self {
        Self { hashes: 4, weights: Weights::Original, hash: None }
    }
}

impl Scheme for HashEmbedding {
    fn name(&self) -> &'static str {
        "hash_embedding"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "a weighted sum of hashed rows, with learned weights",
            long: "Each id has k rows of one table and k learned weights, which tell apart ids that share rows. Half of the budget is weights, unless every id has its own (MEmCom is that with one row) or they are read from the table itself.",
            paper: "Tito Svenstrup et al., arXiv 1709.03933; variants of CCE's repository",
            equation: "E_i = sum_j w_j(i) * U[h_j(i)]",
            stores: "U [m x dim], W [K x k]",
            collisions: "two ids are equal if rows and weights both agree: probability about k!/m^k times 1/K; never with weights per id",
            knobs: &[
                ("hashes", "k, rows and weights an id (default 4)"),
                (
                    "weights",
                    "original (default) | independent | flat | table | per_id: where they come from",
                ),
                ("hash", "mix64 (default) | poly31"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { hashes: k, weights, hash } = super::knobs(knobs)?;
        if k == 0 {
            return Err(PlanError::Knob("`hashes` must be positive".into()));
        }
        let (dim, vocab) = (t.dim, u64::from(t.vocab));
        // Rows of weights beside m rows of the table: as many floats, or one row an id.
        let weight_rows = move |m: u64| match weights {
            Weights::Table => 0,
            Weights::PerId => vocab,
            _ => (m * dim as u64 / k as u64).max(1),
        };
        let footprint = move |m: u64| Footprint::floats(m * dim as u64 + weight_rows(m) * k as u64);
        let m = rows_within(self.name(), t, limit, footprint)?;
        let rows = weight_rows(m.into()) as u32;
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(m.into()),
            larger: footprint(u64::from(m) + 1).params,
            sizes: format!("{m} rows x {dim}, {rows} rows of {k} weights"),
            build: Box::new(move |cx| {
                let family = hash.or(cx.hash).unwrap_or_default();
                let draw = |rows: u32, cx: &mut BuildCx<'_>| Hash::draw(family, rows, &mut cx.rng);
                let hashes: Vec<Hash> = (0..k).map(|_| draw(m, cx)).collect();
                let cells = match weights {
                    Weights::Table => m * dim as u32,
                    Weights::Flat => rows * k as u32,
                    _ => rows,
                };
                let picks: Vec<Hash> = (0..k).map(|_| draw(cells, cx)).collect();
                // Scaled so that the sum has the full table's variance; weights are U(±1).
                let target = cx.init.deviation(m.into(), dim);
                let (deviation, scale) = match weights {
                    Weights::Table => (target, 1.0 / (target * (k as f32).sqrt())),
                    _ => (target * (3.0 / k as f32).sqrt(), 1.0),
                };
                let table = cx.init.draw(m as usize * dim, deviation, &mut cx.rng);
                let values = (0..rows as usize * k).map(|_| cx.rng.symmetric(1.0)).collect();
                Box::new(Weighted {
                    weights,
                    scale,
                    hashes,
                    picks,
                    table: Param::rows("table", dim, table),
                    // Without rows of weights an empty parameter stands in.
                    weight: Param::rows("weight", k, values),
                })
            }),
        })
    }
}

struct Weighted {
    weights: Weights,
    scale: f32,
    /// Row of each term.
    hashes: Vec<Hash>,
    /// Place of each term's weight.
    picks: Vec<Hash>,
    table: Param,
    weight: Param,
}

impl Weighted {
    /// True where the k weights of an id are a row.
    fn by_row(&self) -> bool {
        matches!(self.weights, Weights::Original | Weights::PerId)
    }

    /// Puts the weights of `ids` [U × k] into the tape's first buffer, and after its k lists of rows
    /// where they come from: a row each, or k cells.
    fn weights(&self, ids: &[u32], tape: &mut Tape) {
        let k = self.hashes.len();
        tape.buffers.resize(2, Vec::new());
        tape.rows(k + 1);
        let (weights, places) = (&mut tape.buffers[0], &mut tape.rows[k]);
        weights.resize(ids.len() * k, 0.0);
        match self.weights {
            Weights::Original => self.picks[0].rows(ids, places),
            Weights::PerId => {
                places.clear();
                places.extend_from_slice(ids);
            }
            _ => {
                let cell = |id: u32, j: usize| match self.weights {
                    Weights::Independent => self.picks[j].row(id) * k as u32 + j as u32,
                    _ => self.picks[j].row(id),
                };
                places.clear();
                places.extend(ids.iter().flat_map(|&id| (0..k).map(move |j| cell(id, j))));
                let from = if self.weights == Weights::Table { &self.table } else { &self.weight };
                for (weight, &cell) in weights.iter_mut().zip(&*places) {
                    *weight = self.scale * from.value()[cell as usize];
                }
                return;
            }
        }
        let whole = Piece::whole(k);
        self.weight.gather(places, weights, whole, |_| |weight, _| self.scale * weight);
    }
}

impl Embedding for Weighted {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let (k, whole) = (self.hashes.len(), Piece::whole(self.table.width()));
        self.weights(ids, tape);
        let Tape { buffers, rows, .. } = tape;
        let weights = &buffers[0];
        for (j, (hash, rows)) in self.hashes.iter().zip(rows).enumerate() {
            hash.rows(ids, rows);
            let first = |i: usize| {
                let weight = weights[i * k + j];
                move |row, _| weight * row
            };
            let next = |i: usize| {
                let weight = weights[i * k + j];
                move |row, sum| sum + weight * row
            };
            match j {
                0 => self.table.gather(rows, out, whole, first),
                _ => self.table.gather(rows, out, whole, next),
            }
        }
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        let (k, whole) = (self.hashes.len(), Piece::whole(self.table.width()));
        let Tape { buffers, rows, .. } = tape;
        let [weights, slopes] = &mut buffers[..] else { unreachable!("a gather came before") };
        let (rows, picks) = rows.split_at(k);
        slopes.resize(weights.len(), 0.0);
        for (j, rows) in rows.iter().enumerate() {
            for (i, (&row, grad)) in rows.iter().zip(grad.chunks_exact(whole.stride)).enumerate() {
                slopes[i * k + j] = self.scale * dot(grad, self.table.row(row));
            }
            self.table.scatter(rows, grad, whole, |i| {
                let weight = weights[i * k + j];
                move |grad| weight * grad
            });
        }
        match self.by_row() {
            true => self.weight.add_rows(&picks[0], slopes),
            false => {
                let from = match self.weights {
                    Weights::Table => &mut self.table,
                    _ => &mut self.weight,
                };
                let width = from.width();
                for (slopes, cells) in slopes.chunks_exact(k).zip(picks[0].chunks_exact(k)) {
                    for (slope, &cell) in slopes.iter().zip(cells) {
                        let (row, column) = (cell / width as u32, cell as usize % width);
                        from.grad_row(row)[column] += slope;
                    }
                }
            }
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let (k, dim) = (self.hashes.len(), self.table.width());
        let pick = |j: usize, g: &mut Graph<'a>| g.hash(ids, &format!("pick{j}"), &self.picks[j]);
        let cell = |j: usize, param: &'a Param, g: &mut Graph<'a>| {
            let cell = pick(j, g);
            g.gather(cell, param, 1)
        };
        let weights = match self.weights {
            Weights::PerId => g.gather(ids, &self.weight, k),
            Weights::Original => {
                let row = pick(0, g);
                g.gather(row, &self.weight, k)
            }
            Weights::Table => g.each(k, |j, g| cell(j, &self.table, g)),
            Weights::Flat => g.each(k, |j, g| cell(j, &self.weight, g)),
            // Column j of a row of its own.
            Weights::Independent => g.each(k, |j, g| {
                let row = pick(j, g);
                let row = g.gather(row, &self.weight, k);
                g.op(Op::Slice { x: row, from: j as u32, width: 1 })
            }),
        };
        let weights = g.scale(weights, self.scale);
        let terms: Vec<Node> = (self.hashes.iter().enumerate())
            .map(|(j, hash)| {
                let rows = g.hash(ids, &format!("hash{j}"), hash);
                let row = g.gather(rows, &self.table, dim);
                let weight = g.op(Op::Slice { x: weights, from: j as u32, width: 1 });
                g.mul(row, weight)
            })
            .collect();
        g.sum(terms)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
        if self.weights != Weights::Table {
            visit(&mut self.weight);
        }
    }
    fn state(&mut self, visit: State<'_>) {
        self.params(&mut |param| param.state(visit));
        for (j, (hash, pick)) in self.hashes.iter_mut().zip(&mut self.picks).enumerate() {
            hash.state(&format!("hash{j}"), visit);
            pick.state(&format!("pick{j}"), visit);
        }
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats((self.table.value().len() + self.weight.value().len()) as u64)
    }
}
