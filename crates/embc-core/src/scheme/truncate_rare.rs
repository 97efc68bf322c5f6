//! Rare ids share one row: the m−1 most frequent ids keep their own. m·d parameters.

use super::*;

pub(super) struct TruncateRare;

impl Scheme for TruncateRare {
    fn name(&self) -> &'static str {
        "truncate_rare"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "frequent ids keep their row, rare ones share one",
            long: "The m-1 ids with the most training rows have a row each, all others one together. Ids come in frequency order, so nothing is stored but the rows; where they do not (one memory for all fields) a remap is stored and counted.",
            paper: "baseline of MEmCom, arXiv 2203.10135",
            equation: "E_i = T[min(rank(i), m-1)]",
            stores: "T [m x dim]; a remap [vocab] where ids are not in frequency order",
            collisions: "the vocab - m + 1 rarest ids are equal, all others have a row of their own",
            knobs: &[],
        }
    }
    fn trains_low(&self) -> bool {
        true
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        no_knobs(knobs)?;
        let dim = t.dim;
        // The last id may be OOV, whose count is that of all ids it stands for.
        let rank = rank(t);
        let index = 4 * rank.len() as u64;
        let footprint = move |m: u64| {
            let floats = Footprint::floats(m * dim as u64);
            let train_bytes = floats.train_bytes + index;
            Footprint { index_bytes: index, train_bytes, ..floats }
        };
        let m = rows_within(self.name(), t, limit, footprint)?;
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(m.into()),
            larger: footprint(u64::from(m) + 1).params,
            sizes: format!("{m} rows x {dim}"),
            build: Box::new(move |cx| {
                let rank = rank.clone();
                Box::new(Truncated { rank, table: cx.table(m.into(), dim), last: m - 1 })
            }),
        })
    }
}

/// The place of each id by training rows [vocab]; nothing where ids are in that order. The last id may
/// be OOV, whose count is that of all ids it stands for.
pub(super) fn rank(t: &TableSpec) -> Vec<u32> {
    let known = t.counts.split_last().map_or(&[][..], |(_, known)| known);
    if known.is_sorted_by(|a, b| a >= b) {
        return Vec::new();
    }
    let mut order: Vec<u32> = (0..t.vocab).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(t.counts[id as usize]));
    let mut rank = vec![0; t.vocab as usize];
    order.iter().zip(0..).for_each(|(&id, place)| rank[id as usize] = place);
    rank
}

struct Truncated {
    /// Frequency rank of each id; empty where ids are ranks.
    rank: Vec<u32>,
    table: Param,
    last: u32,
}

impl Truncated {
    fn row(&self, id: u32) -> u32 {
        self.rank.get(id as usize).copied().unwrap_or(id).min(self.last)
    }
}

impl Embedding for Truncated {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        tape.first().clear();
        tape.first().extend(ids.iter().map(|&id| self.row(id)));
        self.table.copy_rows(tape.first(), out);
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        self.table.add_rows(tape.first(), grad);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let rank = if self.rank.is_empty() { ids } else { g.lookup(ids, "rank", &self.rank) };
        let row = g.int(rank, Int::Min, self.last);
        g.gather(row, &self.table, self.table.width())
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
    }
    fn state(&mut self, visit: State<'_>) {
        self.table.state(visit);
        if !self.rank.is_empty() {
            visit("rank", crate::state::TensorMut::u32(&mut self.rank));
        }
    }
    fn footprint(&self) -> Footprint {
        let floats = Footprint::floats(self.table.len() as u64);
        let index_bytes = 4 * self.rank.len() as u64;
        Footprint { index_bytes, train_bytes: floats.train_bytes + index_bytes, ..floats }
    }
}
