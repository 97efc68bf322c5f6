//! Own rows for the most frequent ids, and any scheme for the tail: what CAFE and adaptive embeddings
//! have in common. Frequent ids are few and read often, so that their rows are worth most.
//! h·d parameters and those of the tail.

use super::*;
use crate::state::TensorMut;

pub(super) struct Hot;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Knob {
    share: f64,
    tail: String,
    #[serde(flatten)]
    of_tail: Knobs,
}

impl Default for Knob {
    fn default() -> Self {
        Self { share: 0.5, tail: "hash".into(), of_tail: Knobs::new() }
    }
}

/// What rows of the tail may be: schemes that compress while they train and do not read the data.
pub(super) const TAILS: &[&str] = &[
    "hash",
    "signed_hash",
    "double_hash",
    "bloom",
    "hash_embedding",
    "qr",
    "memcom",
    "factorized",
    "ce",
    "cce",
    "cqr",
    "hashednet",
    "robe",
    "tt",
    "dhe",
];

impl Scheme for Hot {
    fn name(&self) -> &'static str {
        "hot"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "own rows for the most frequent ids, any scheme for the others",
            long: "A share of the memory goes to rows of their own for the ids with the most training rows, the rest to a scheme of your choice for all others; every other knob is that scheme's. Ids come in frequency order, so nothing says who is frequent; where they do not (one memory for all fields) a remap is stored and counted.",
            paper: "CAFE: Zhang et al., SIGMOD 2024, arXiv 2312.03256; adaptive embeddings: Chen et al. 2021",
            equation: "E_i = H[rank(i)] if rank(i) < h, else tail(rank(i) - h)",
            stores: "H [h x dim] and what the tail stores; a remap [vocab] where ids are not in frequency order",
            collisions: "none among the h most frequent ids; those of the tail's scheme among the others",
            knobs: &[
                (
                    "share",
                    "of the memory for ids with a row of their own, between 0 and 1 (default 0.5)",
                ),
                (
                    "tail",
                    "the scheme of all other ids, whose knobs stand beside these: hash (default), signed_hash, double_hash, bloom, hash_embedding, qr, memcom, factorized, ce, cce, cqr, hashednet, robe, tt, dhe",
                ),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { share, tail, of_tail } = super::knobs(knobs)?;
        let scheme = find(&tail).filter(|_| TAILS.contains(&&tail[..]));
        let scheme = scheme.filter(|_| share > 0.0 && share < 1.0).ok_or_else(|| {
            PlanError::Knob(format!(
                "hot: share = {share}, tail = {tail:?}: `share` lies between 0 and 1, `tail` is one of {}",
                TAILS.join(", ")
            ))
        })?;
        if t.vocab < 2 {
            return scheme.plan_table(t, limit, &of_tail);
        }
        let (vocab, dim, rank) = (t.vocab, t.dim, truncate_rare::rank(t));
        let index = 4 * rank.len() as u64;
        let of_rows = move |rows: u64| {
            let floats = Footprint::floats(rows * dim as u64);
            let train_bytes = floats.train_bytes + index;
            Footprint { index_bytes: index, train_bytes, ..floats }
        };
        let most = u64::from(vocab) - 1;
        let rows = match limit {
            Limit::None => Some(((share * most as f64) as u64).max(1)),
            _ => part(limit, share).largest(most, of_rows),
        };
        let rows = rows.ok_or_else(|| {
            PlanError::Infeasible(format!(
                "hot cannot fit table {} in {limit}: a share of {share} holds not one row of {dim} beside {index} bytes that say who is frequent",
                t.name
            ))
        })? as u32;
        let hot = of_rows(rows.into());
        let left = less(limit, hot).expect("a part of the limit");
        let tail = scheme.plan_table(&others(t, &rank, rows), left, &of_tail);
        let tail = tail.map_err(|error| match error {
            PlanError::Infeasible(why) => PlanError::Infeasible(format!("hot, tail: {why}")),
            PlanError::Knob(what) => PlanError::Knob(format!("hot, tail: {what}")),
        })?;
        Ok(Plan {
            out_dim: dim,
            footprint: hot.plus(tail.footprint),
            larger: hot.params.saturating_add(tail.larger),
            sizes: format!("{rows} rows x {dim} and, for all other ids, {}", tail.sizes),
            build: Box::new(move |cx| {
                let values = cx.init.table(rows.into(), dim, dim, &mut cx.rng);
                let hot = Param::rows("hot", dim, values);
                let tail = (tail.build)(cx);
                Box::new(HotAndTail { rank: rank.clone(), vocab, rows, hot, tail })
            }),
        })
    }
}

/// A share of a limit.
fn part(limit: Limit, share: f64) -> Limit {
    let of = |n: u64| (n as f64 * share) as u64;
    match limit {
        Limit::Params(n) => Limit::Params(of(n)),
        Limit::Bytes(n, stored) => Limit::Bytes(of(n), stored),
        Limit::None => Limit::None,
    }
}

/// What a limit leaves beside `taken`; nothing where that does not fit.
pub(super) fn less(limit: Limit, taken: Footprint) -> Option<Limit> {
    Some(match limit {
        Limit::Params(n) => Limit::Params(n.checked_sub(taken.params)?),
        Limit::Bytes(n, stored) => {
            Limit::Bytes(n.checked_sub(taken.stored(stored).bytes())?, stored)
        }
        Limit::None => Limit::None,
    })
}

/// The ids behind the first `rows`, in the order of `rank`.
fn others(t: &TableSpec, rank: &[u32], rows: u32) -> TableSpec {
    let mut counts = t.counts.to_vec();
    rank.iter().zip(t.counts.iter()).for_each(|(&place, &n)| counts[place as usize] = n);
    let counts = counts.get(rows as usize..).unwrap_or_default().into();
    TableSpec { vocab: t.vocab - rows, counts, ..t.clone() }
}

struct HotAndTail {
    /// The place of each id; nothing where ids are in frequency order.
    rank: Vec<u32>,
    vocab: u32,
    rows: u32,
    hot: Param,
    tail: Box<dyn Embedding>,
}

/// Lists that a gather leaves on the tape: for each part its ids, and their places in the batch.
const LISTS: usize = 4;

impl Embedding for HotAndTail {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        tape.buffers.resize(2, Vec::new());
        tape.inner.get_or_insert_default();
        let Tape { buffers, rows, inner } = tape;
        rows.resize(LISTS, Vec::new());
        rows.iter_mut().for_each(Vec::clear);
        for (at, &id) in ids.iter().enumerate() {
            let place = self.rank.get(id as usize).copied().unwrap_or(id);
            let (part, id) = if place < self.rows { (0, place) } else { (2, place - self.rows) };
            rows[part].push(id);
            rows[part + 1].push(at as u32);
        }
        let width = self.hot.width();
        for (part, buffer) in buffers.iter_mut().enumerate() {
            let (ids, at) = (&rows[2 * part], &rows[2 * part + 1]);
            buffer.resize(ids.len() * width, 0.0);
            match part {
                0 => self.hot.copy_rows(ids, buffer),
                _ => self.tail.gather(ids, buffer, inner.as_mut().expect("just made")),
            }
            for (&at, row) in at.iter().zip(buffer.chunks_exact(width)) {
                out[at as usize * width..][..width].copy_from_slice(row);
            }
        }
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        let Tape { buffers, rows, inner } = tape;
        let width = self.hot.width();
        for (part, buffer) in buffers.iter_mut().enumerate() {
            let (ids, at) = (&rows[2 * part], &rows[2 * part + 1]);
            for (&at, row) in at.iter().zip(buffer.chunks_exact_mut(width)) {
                row.copy_from_slice(&grad[at as usize * width..][..width]);
            }
            match part {
                0 => self.hot.add_rows(ids, buffer),
                _ => self.tail.scatter(ids, buffer, inner.as_mut().expect("a gather came before")),
            }
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let place = if self.rank.is_empty() { ids } else { g.lookup(ids, "rank", &self.rank) };
        let row = g.int(place, Int::Min, self.rows - 1);
        let hot = g.gather(row, &self.hot, self.hot.width());
        let hot = g.zero_within(hot, place, self.rows..self.vocab);
        let behind = g.int(place, Int::Max, self.rows);
        let behind = g.int(behind, Int::Sub, self.rows);
        let others = self.vocab - self.rows;
        let tail = g.within(behind, others, |g, ids| self.tail.graph(g, ids));
        let tail = g.zero_within(tail, place, 0..self.rows);
        g.add(hot, tail)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.hot);
        self.tail.params(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.hot.state(visit);
        if !self.rank.is_empty() {
            visit("rank", TensorMut::u32(&mut self.rank));
        }
        self.tail.state(visit);
    }
    fn after_step(&mut self, at: Clock, cancel: &Cancel, rng: Rng) -> ControlFlow<()> {
        self.tail.after_step(at, cancel, rng)
    }
    fn figures(&self) -> Vec<(&'static str, f64)> {
        self.tail.figures()
    }
    fn footprint(&self) -> Footprint {
        let hot = Footprint::floats(self.hot.len() as u64);
        let index = 4 * self.rank.len() as u64;
        let hot = Footprint { index_bytes: index, train_bytes: hot.train_bytes + index, ..hot };
        hot.plus(self.tail.footprint())
    }
}
