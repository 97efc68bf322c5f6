//! Quotient-remainder: two small tables whose combination is unique to each id
//! (arXiv 1909.02107). (m + ⌈v/m⌉)·d parameters, half of that for concat; reaches √v/2 (√v).

use super::*;
use crate::gather::Piece;

pub(super) struct QuotientRemainder;

#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Combine {
    #[default]
    Mult,
    Add,
    Concat,
}

#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "snake_case")]
enum Layout {
    /// Many remainder rows: ids j, j+m, j+2m, … share one, head with tail.
    #[default]
    BigRemainder,
    /// Many quotient rows: blocks of adjacent ids share one, head with head (DLRM's).
    BigQuotient,
}

#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    combine: Combine,
    layout: Layout,
}

impl Scheme for QuotientRemainder {
    fn name(&self) -> &'static str {
        "qr"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "quotient and remainder rows, combined",
            long: "An id's quotient and remainder by m each pick a row; no two ids have the same pair. Compression reaches sqrt(vocab)/2, or sqrt(vocab) with concat. The layout decides who shares the larger table's rows: head ids with tail ids, or ids of like frequency with each other.",
            paper: "Shi et al., arXiv 1909.02107",
            equation: "E_i = Q[i div m] (*, +, ++) R[i mod m]",
            stores: "R [m x dim], Q [ceil(vocab/m) x dim]; half as wide with concat",
            collisions: "none are equal; a remainder row serves ceil(vocab/m) ids, a quotient row m ids",
            knobs: &[
                ("combine", "mult (default) | add | concat"),
                ("layout", "big_remainder (default) | big_quotient"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { combine, layout } = super::knobs(knobs)?;
        let (dim, vocab) = (t.dim, u64::from(t.vocab));
        let width = match combine {
            Combine::Concat if dim % 2 == 1 => {
                return Err(PlanError::Knob(format!(
                    "qr combine = \"concat\" needs an even dim, not {dim}"
                )));
            }
            Combine::Concat => dim / 2,
            _ => dim,
        };
        let footprint = |m: u64| Footprint::floats((m + vocab.div_ceil(m.max(1))) * width as u64);
        // m + ⌈v/m⌉ falls until √v and grows after it: search the growing side for the largest m.
        let root = vocab.isqrt().max(1);
        let least = (root..=root + 1).min_by_key(|&m| footprint(m).params).expect("two sizes");
        let most = match limit {
            Limit::None => vocab,
            _ => u64::from(u32::MAX),
        };
        if !limit.holds(footprint(least)) {
            return Err(PlanError::Infeasible(format!(
                "qr cannot fit table {} in {limit}: {vocab} ids need at least {} parameters, a compression of {:.1}",
                t.name,
                footprint(least).params,
                t.full_params() as f64 / footprint(least).params as f64,
            )));
        }
        let extra = limit.largest(most.saturating_sub(least), |extra| footprint(least + extra));
        let big = least + extra.unwrap_or(0);
        // m, the divisor: the number of remainder rows.
        let m = match layout {
            Layout::BigRemainder => big,
            Layout::BigQuotient => vocab.div_ceil(big),
        };
        let (remainders, quotients) = match layout {
            Layout::BigRemainder => (m, vocab.div_ceil(m)),
            Layout::BigQuotient => (m, big),
        };
        let footprint = Footprint::floats((remainders + quotients) * width as u64);
        Ok(Plan {
            out_dim: dim,
            footprint,
            // One more row of the larger table.
            larger: footprint.params + width as u64,
            sizes: format!("{remainders} remainder + {quotients} quotient rows x {width}"),
            build: Box::new(move |cx| {
                // Factors are scaled so that the embedding has the full table's variance.
                let target = cx.init.deviation(vocab, dim);
                let deviation = match combine {
                    Combine::Mult => target.sqrt(),
                    Combine::Add => target / 2f32.sqrt(),
                    Combine::Concat => target,
                };
                let mut table = |name: &str, rows: u64| {
                    let values = cx.init.draw(rows as usize * width, deviation, &mut cx.rng);
                    Param::rows(name, width, values)
                };
                Box::new(Pair {
                    combine,
                    m: m as u32,
                    remainder: table("remainder", remainders),
                    quotient: table("quotient", quotients),
                })
            }),
        })
    }
}

struct Pair {
    combine: Combine,
    m: u32,
    remainder: Param,
    quotient: Param,
}

impl Pair {
    /// Where the quotient's and the remainder's rows go in the embedding.
    fn pieces(&self) -> (Piece, Piece) {
        let width = self.quotient.width();
        match self.combine {
            Combine::Concat => (Piece::column(0, 2, width), Piece::column(1, 2, width)),
            _ => (Piece::whole(width), Piece::whole(width)),
        }
    }
}

impl Embedding for Pair {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let [q, r] = tape.rows(2) else { unreachable!("two lists") };
        q.clear();
        q.extend(ids.iter().map(|&id| id / self.m));
        r.clear();
        r.extend(ids.iter().map(|&id| id % self.m));
        let (first, second) = self.pieces();
        self.quotient.gather(q, out, first, |_| |q, _| q);
        match self.combine {
            Combine::Concat => self.remainder.gather(r, out, second, |_| |r, _| r),
            Combine::Add => self.remainder.gather(r, out, second, |_| |r, q| q + r),
            Combine::Mult => self.remainder.gather(r, out, second, |_| |r, q| q * r),
        }
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let (first, second) = self.pieces();
        let Tape { buffers, rows, .. } = tape;
        let [q, r] = &rows[..] else { unreachable!("a gather came before") };
        if self.combine != Combine::Mult {
            self.quotient.scatter(q, grad, first, |_| |grad| grad);
            self.remainder.scatter(r, grad, second, |_| |grad| grad);
            return;
        }
        // Each factor's gradient is the other's row times the product's.
        let whole = Piece::whole(self.quotient.width());
        buffers.resize(1, Vec::new());
        let slope = &mut buffers[0];
        slope.resize(ids.len() * whole.stride, 0.0);
        slope.copy_from_slice(grad);
        self.remainder.gather(r, slope, whole, |_| |r, grad| grad * r);
        self.quotient.add_rows(q, slope);
        slope.copy_from_slice(grad);
        self.quotient.gather(q, slope, whole, |_| |q, grad| grad * q);
        self.remainder.add_rows(r, slope);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let q = g.int(ids, Int::Div, self.m);
        let r = g.int(ids, Int::Mod, self.m);
        let width = self.quotient.width();
        let (q, r) = (g.gather(q, &self.quotient, width), g.gather(r, &self.remainder, width));
        match self.combine {
            Combine::Concat => g.concat(vec![q, r]),
            Combine::Add => g.add(q, r),
            Combine::Mult => g.mul(q, r),
        }
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.remainder);
        visit(&mut self.quotient);
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats((self.remainder.value().len() + self.quotient.value().len()) as u64)
    }
}
