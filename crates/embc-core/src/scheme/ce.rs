//! Compositional embeddings: c columns, each a hashed row of its own small table, side by side.
//! c tables of m rows, d/c wide: m·d parameters.

use super::*;
use crate::gather::Piece;
use crate::hash::{Hash, HashFamily};

pub(super) struct CompositionalEmbedding;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    columns: usize,
    hash: Option<HashFamily>,
}

impl Default for Knob {
    fn default() -> Self {
        Self { columns: 4, hash: None }
    }
}

impl Scheme for CompositionalEmbedding {
    fn name(&self) -> &'static str {
        "ce"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "c hashed pieces side by side",
            long: "The embedding is cut into c columns, each looked up in a table of its own by a hash of its own. Two ids share all of their embedding only if all c hashes agree.",
            paper: "Shi et al., arXiv 1909.02107; the baseline CE of CCE, arXiv 2210.05974",
            equation: "E_i = T_1[h_1(i)] ++ ... ++ T_c[h_c(i)]",
            stores: "T_1 ... T_c [m x dim/c]",
            collisions: "two ids are equal with probability 1/m^c, and share some column with 1 - (1 - 1/m)^c",
            knobs: &[
                ("columns", "c, which divides dim (default 4)"),
                ("hash", "mix64 (default) | poly31"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { columns, hash } = super::knobs(knobs)?;
        plan(self.name(), t, limit, hash, (columns, columns))
    }
}

/// Refuses a number of columns that does not divide the width.
pub(super) fn check_columns(scheme: &str, dim: usize, columns: usize) -> Result<(), PlanError> {
    match columns > 0 && dim.is_multiple_of(columns) {
        true => Ok(()),
        false => {
            let what = format!("{scheme}: `columns` = {columns} must divide dim {dim}");
            Err(PlanError::Knob(what))
        }
    }
}

/// The plan of `columns` pieces that take rows of `tables` tables in turn.
pub(super) fn plan(
    scheme: &str,
    t: &TableSpec,
    limit: Limit,
    family: Option<HashFamily>,
    (columns, tables): (usize, usize),
) -> Result<Plan, PlanError> {
    let dim = t.dim;
    check_columns(scheme, dim, columns)?;
    let width = dim / columns;
    let footprint = move |m: u64| Footprint::floats(m * (tables * width) as u64);
    let m = rows_within(scheme, t, limit, footprint)?;
    Ok(Plan {
        out_dim: dim,
        footprint: footprint(m.into()),
        larger: footprint(u64::from(m) + 1).params,
        sizes: match tables == columns {
            true => format!("{columns} columns of {m} rows x {width}"),
            false => format!("{columns} columns of {tables} x {m} rows x {width}"),
        },
        build: Box::new(move |cx| {
            let family = family.or(cx.hash).unwrap_or_default();
            let mut built = Columns { hashes: Vec::new(), tables: Vec::new() };
            for j in 0..columns {
                built.hashes.push(Hash::draw(family, m, &mut cx.rng));
                if j < tables {
                    let values = cx.init.table(m.into(), width, dim, &mut cx.rng);
                    built.tables.push(Param::rows(format!("column{j}"), width, values));
                }
            }
            Box::new(built)
        }),
    })
}

struct Columns {
    /// One a column.
    hashes: Vec<Hash>,
    /// Columns take them in turn.
    tables: Vec<Param>,
}

impl Embedding for Columns {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let columns = self.hashes.len();
        for (j, (hash, rows)) in self.hashes.iter().zip(tape.rows(columns)).enumerate() {
            let table = &self.tables[j % self.tables.len()];
            hash.rows(ids, rows);
            table.gather(rows, out, Piece::column(j, columns, table.width()), |_| |row, _| row);
        }
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        let (columns, tables) = (self.hashes.len(), self.tables.len());
        for (j, rows) in tape.rows(columns).iter().enumerate() {
            let table = &mut self.tables[j % tables];
            table.scatter(rows, grad, Piece::column(j, columns, table.width()), |_| |grad| grad);
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let columns = self.hashes.iter().enumerate().map(|(j, hash)| {
            let table = &self.tables[j % self.tables.len()];
            let rows = g.hash(ids, &format!("hash{j}"), hash);
            g.gather(rows, table, table.width())
        });
        let columns = columns.collect();
        g.concat(columns)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.tables.iter_mut().for_each(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        for (j, hash) in self.hashes.iter_mut().enumerate() {
            if let Some(table) = self.tables.get_mut(j) {
                table.state(visit);
            }
            hash.state(&format!("hash{j}"), visit);
        }
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.tables.iter().map(|table| table.len() as u64).sum())
    }
}
