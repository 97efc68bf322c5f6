//! The hashing trick: ids share m rows. m·d parameters.

use super::*;
use crate::hash::{Hash, HashFamily};

pub(super) struct HashTrick;

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    hash: Option<HashFamily>,
}

impl Scheme for HashTrick {
    fn name(&self) -> &'static str {
        "hash"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "the hashing trick: ids share rows",
            long: "A hash sends each id to one of m rows. With hash = \"mod\" on ids in frequency order, the m most frequent ids never share a row.",
            paper: "Weinberger et al. 2009; the naive baseline of all three papers",
            equation: "E_i = U[h(i)]",
            stores: "U [m x dim]",
            collisions: "an id is alone in its row with probability (1 - 1/m)^(vocab-1), about e^(-vocab/m); with hash = \"mod\" each row holds vocab/m ids, one of them of the m most frequent",
            knobs: &[(
                "hash",
                "mix64 (default) | mod | poly31; mod keeps the m most frequent ids apart",
            )],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn trains_low(&self) -> bool {
        true
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let knob: Knob = super::knobs(knobs)?;
        let dim = t.dim;
        let footprint = move |m: u64| Footprint::floats(m * dim as u64);
        let m = rows_within(self.name(), t, limit, footprint)?;
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(u64::from(m)),
            larger: footprint(u64::from(m) + 1).params,
            sizes: format!("{m} rows x {dim}"),
            build: Box::new(move |cx| {
                let family = knob.hash.or(cx.hash).unwrap_or_default();
                let hash = Hash::draw(family, m, &mut cx.rng);
                Box::new(Hashed { hash, table: cx.table(m.into(), dim) })
            }),
        })
    }
}

struct Hashed {
    hash: Hash,
    table: Param,
}

impl Embedding for Hashed {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        self.hash.rows(ids, tape.first());
        self.table.copy_rows(tape.first(), out);
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        self.table.add_rows(tape.first(), grad);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let rows = g.hash(ids, "hash", &self.hash);
        g.gather(rows, &self.table, self.table.width())
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
    }
    fn state(&mut self, visit: State<'_>) {
        self.table.state(visit);
        self.hash.state("hash", visit);
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.table.len() as u64)
    }
}
