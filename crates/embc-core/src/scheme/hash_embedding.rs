//! Hash embeddings: a weighted sum of k hashed rows, the weights learned and hashed too
//! (arXiv 1709.03933). m·d + weights parameters.

use super::*;
use crate::hash::{Hash, HashFamily};
use crate::linalg::{axpy, dot};

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
    /// Row and column of the `j`th weight of an id, in the weights or in the table.
    fn place(&self, id: u32, j: usize) -> (u32, usize) {
        let cell = |width: usize| {
            let cell = self.picks[j].row(id) as usize;
            ((cell / width) as u32, cell % width)
        };
        match self.weights {
            Weights::Original => (self.picks[0].row(id), j),
            Weights::Independent => (self.picks[j].row(id), j),
            Weights::Flat => cell(self.weight.width()),
            Weights::Table => cell(self.table.width()),
            Weights::PerId => (id, j),
        }
    }

    fn weight(&self, id: u32, j: usize) -> f32 {
        let (row, column) = self.place(id, j);
        let from = if self.weights == Weights::Table { &self.table } else { &self.weight };
        self.scale * from.row(row)[column]
    }
}

impl Embedding for Weighted {
    fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
        out.fill(0.0);
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.table.width())) {
            for (j, hash) in self.hashes.iter().enumerate() {
                axpy(self.weight(id, j), self.table.row(hash.row(id)), out);
            }
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], _: &mut Tape) {
        for (&id, grad) in ids.iter().zip(grad.chunks_exact(self.table.width())) {
            for j in 0..self.hashes.len() {
                let row = self.hashes[j].row(id);
                let weight = self.weight(id, j);
                let slope = self.scale * dot(grad, self.table.row(row));
                let (at, column) = self.place(id, j);
                let from = match self.weights {
                    Weights::Table => &mut self.table,
                    _ => &mut self.weight,
                };
                from.grad_row(at)[column] += slope;
                axpy(weight, grad, self.table.grad_row(row));
            }
        }
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
