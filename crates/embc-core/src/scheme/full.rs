//! The uncompressed table: one row an id. v·d parameters.

use super::*;

pub(super) struct Full;

impl Scheme for Full {
    fn name(&self) -> &'static str {
        "full"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "the uncompressed table",
            long: "One trained row for each id. What every compression is measured against; it ignores the budget and is trained once for each seed.",
            paper: "-",
            equation: "E_i = T[i]",
            stores: "T [vocab x dim]",
            collisions: "none",
            knobs: &[],
        }
    }
    fn trains_low(&self) -> bool {
        true
    }
    fn plan_table(&self, t: &TableSpec, _: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        no_knobs(knobs)?;
        Ok(table_plan(u64::from(t.vocab), t.dim))
    }
}

/// The plan of a table with a row for each of `rows` ids, `dim` wide.
pub(super) fn table_plan(rows: u64, dim: usize) -> Plan {
    Plan {
        out_dim: dim,
        footprint: Footprint::floats(rows * dim as u64),
        larger: u64::MAX,
        sizes: sizes(rows, dim),
        build: Box::new(move |cx| Box::new(Table(cx.table(rows, dim)))),
    }
}

fn sizes(rows: u64, dim: usize) -> String {
    format!("{rows} rows x {dim}")
}

/// A row an id.
pub(super) struct Table(pub Param);

impl Embedding for Table {
    fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
        self.0.copy_rows(ids, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], _: &mut Tape) {
        self.0.add_rows(ids, grad);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        g.gather(ids, &self.0, self.0.width())
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.0);
    }
    fn sizes(&self) -> Option<String> {
        Some(sizes((self.0.len() / self.0.width()) as u64, self.0.width()))
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.0.len() as u64)
    }
}
