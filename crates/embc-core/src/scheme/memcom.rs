//! MEmCom: a hashed row times one learned weight per id, plus an optional learned bias
//! (arXiv 2203.10135). m·d + v parameters, 2v with the bias; reaches compressions below d (d/2).

use super::*;
use crate::gather::Piece;
use crate::hash::{Hash, HashFamily};
use crate::linalg::dot;

pub(super) struct Memcom;

#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum VInit {
    /// All ids of a bucket start identical.
    #[default]
    Ones,
    /// ±1 at random: signed feature hashing at the first step.
    Sign,
    /// U(±√3), of variance 1.
    Uniform,
}

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    bias: bool,
    v_init: VInit,
    hash: Option<HashFamily>,
}

impl Scheme for Memcom {
    fn name(&self) -> &'static str {
        "memcom"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "a hashed row times one learned weight per id",
            long: "Ids of a bucket share a row, and each scales it by a weight of its own, so that no two ids are bound to be equal. The weights alone cost one parameter an id: compression stays below dim, below dim/2 with the bias. Ids of a bucket lie on one line through the origin.",
            paper: "MEmCom, arXiv 2203.10135",
            equation: "E_i = U[i mod m] * V[i] (+ W[i])",
            stores: "U [m x dim], V [vocab], with bias W [vocab]",
            collisions: "vocab/m ids share a row and differ by their weights; with v_init = \"ones\" they are equal until trained",
            knobs: &[
                ("bias", "add a learned scalar per id (default false)"),
                ("v_init", "ones (default) | sign | uniform: V at the start"),
                ("hash", "mod (default, the paper's) | mix64 | poly31"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { bias, v_init, hash } = super::knobs(knobs)?;
        let (dim, vocab) = (t.dim, t.vocab as usize);
        let per_id = (1 + u64::from(bias)) * u64::from(t.vocab);
        let footprint = move |m: u64| Footprint::floats(m * dim as u64 + per_id);
        let m = rows_within(self.name(), t, limit, footprint)
            .map_err(|e| unreachable(t, bias, limit).unwrap_or(e))?;
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(u64::from(m)),
            larger: footprint(u64::from(m) + 1).params,
            sizes: format!("{m} rows x {dim} + {per_id} weights"),
            build: Box::new(move |cx| {
                let family = hash.or(cx.hash).unwrap_or(HashFamily::Mod);
                let hash = Hash::draw(family, m, &mut cx.rng);
                let table = cx.init.table(m.into(), dim, dim, &mut cx.rng);
                let weight = |_| match v_init {
                    VInit::Ones => 1.0,
                    VInit::Sign => [1.0, -1.0][cx.rng.below(2) as usize],
                    VInit::Uniform => cx.rng.symmetric(3f32.sqrt()),
                };
                Box::new(Weighted {
                    hash,
                    weight: Param::rows("weight", 1, (0..vocab).map(weight).collect()),
                    bias: bias.then(|| Param::rows("bias", 1, vec![0.0; vocab])),
                    table: Param::rows("table", dim, table),
                })
            }),
        })
    }
}

/// Says that the per-id weights break the budget, and which width would not.
fn unreachable(t: &TableSpec, bias: bool, limit: Limit) -> Option<PlanError> {
    let b = 1 + u64::from(bias);
    let ids = b * u64::from(t.vocab);
    let (budget, weights, full) = match limit {
        Limit::Params(n) => (n, ids, t.full_params()),
        Limit::Bytes(n, stored) => {
            (n, Footprint::floats(ids).stored(stored).bytes(), t.full_params())
        }
        Limit::None => return None,
    };
    if budget == 0 {
        return None;
    }
    if let Limit::Bytes(..) = limit {
        return Some(PlanError::Infeasible(format!(
            "memcom cannot fit table {} in {limit}: the per-id weights alone take {weights} bytes",
            t.name
        )));
    }
    let share = 100.0 * weights as f64 / budget as f64;
    let reach = full as f64 / budget as f64;
    Some(PlanError::Infeasible(format!(
        "memcom cannot reach {reach:.4}x at dim {}: the per-id weights alone are {share:.0} % of table {}'s budget; use dim >= {:.0}",
        t.dim,
        t.name,
        (b as f64 * reach).floor() + 1.0,
    )))
}

struct Weighted {
    hash: Hash,
    table: Param,
    weight: Param,
    bias: Option<Param>,
}

impl Embedding for Weighted {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        self.hash.rows(ids, tape.first());
        tape.buffers.resize(2, Vec::new());
        let Tape { buffers, rows, .. } = tape;
        let [weight, bias] = &mut buffers[..] else { unreachable!("two buffers") };
        weight.resize(ids.len(), 0.0);
        self.weight.copy_rows(ids, weight);
        let whole = Piece::whole(self.table.width());
        match &self.bias {
            Some(of_id) => {
                bias.resize(ids.len(), 0.0);
                of_id.copy_rows(ids, bias);
                self.table.gather(&rows[0], out, whole, |i| {
                    let (weight, bias) = (weight[i], bias[i]);
                    move |u, _| u * weight + bias
                });
            }
            None => self.table.gather(&rows[0], out, whole, |i| {
                let weight = weight[i];
                move |u, _| u * weight
            }),
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let Tape { buffers, rows, .. } = tape;
        let [weight, slope] = &mut buffers[..] else { unreachable!("a gather came before") };
        let width = self.table.width();
        let grads = grad.chunks_exact(width);
        slope.clear();
        slope.extend(rows[0].iter().zip(grads.clone()).map(|(&r, g)| dot(g, self.table.row(r))));
        self.weight.add_rows(ids, slope);
        if let Some(bias) = &mut self.bias {
            slope.clear();
            slope.extend(grads.map(|grad| grad.iter().sum::<f32>()));
            bias.add_rows(ids, slope);
        }
        self.table.scatter(&rows[0], grad, Piece::whole(width), |i| {
            let weight = weight[i];
            move |grad| weight * grad
        });
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let rows = g.hash(ids, "hash", &self.hash);
        let row = g.gather(rows, &self.table, self.table.width());
        let weight = g.gather(ids, &self.weight, 1);
        let weighted = g.mul(row, weight);
        match &self.bias {
            Some(bias) => {
                let bias = g.gather(ids, bias, 1);
                g.add(weighted, bias)
            }
            None => weighted,
        }
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
        visit(&mut self.weight);
        self.bias.iter_mut().for_each(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.params(&mut |param| param.state(visit));
        self.hash.state("hash", visit);
    }
    fn footprint(&self) -> Footprint {
        let params = self.table.value().len() + self.weight.value().len();
        let bias = self.bias.as_ref().map_or(0, |bias| bias.value().len());
        Footprint::floats((params + bias) as u64)
    }
}
