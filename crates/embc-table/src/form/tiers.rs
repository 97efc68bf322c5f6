//! Two forms under one budget: the rows that are read most at more bits each than all others.

use super::{Fitting, Form, Method, Plan, Shape, codes, scalar};
use embc_core::graph::Graph;
use embc_core::graph::device::program::{Int, Node, Op};
use embc_core::quantize::{Storage, group};
use std::sync::Arc;

pub(super) struct Tiers;

/// Rows of the first part, as shares of all; the two largest that fit are tried.
const SHARES: [usize; 5] = [4, 8, 16, 40, 100];

impl Method for Tiers {
    fn name(&self) -> &'static str {
        "tiers"
    }
    fn doc(&self) -> &'static str {
        "the first rows in one form, all others in a smaller one, both of this list"
    }
    fn needs_ranks(&self) -> bool {
        true
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        if !shape.ranked || shape.rows < 1000 {
            return Vec::new();
        }
        let part = |rows| Shape { rows, shared: None, ..*shape };
        let mut plans = Vec::new();
        for storage in [Storage::Int8, Storage::Int4] {
            let head = |cut| scalar::plan(&part(cut), storage, group(shape.dim));
            // With more, too little is left for the others.
            let fits = |cut: &usize| head(*cut).bytes <= budget / 5 * 3;
            for cut in SHARES.map(|share| shape.rows / share).into_iter().filter(fits).take(2) {
                let head = head(cut);
                let tail = codes::residual(part(shape.rows - cut), budget - head.bytes);
                plans.extend(tail.map(|tail| both(cut, head, tail)));
            }
        }
        plans
    }
}

/// The plan of the first `cut` rows as `head`, and the others as `tail`.
fn both(cut: usize, head: Plan, tail: Plan) -> Plan {
    let sizes = format!(
        "{cut} rows: {} {}; others: {} {}",
        head.method, head.sizes, tail.method, tail.sizes
    );
    let (bytes, parts) = (head.bytes + tail.bytes, Arc::new([head, tail]));
    let build = move |of: &Fitting<'_>| {
        let ranges = [0..cut, cut..of.table.rows];
        let mut forms = Vec::new();
        for (range, plan) in ranges.into_iter().zip(&*parts) {
            let table = of.table.part(range);
            forms.push((plan.build)(&Fitting::new(&table, of.cancel, of.rng.clone())?)?);
        }
        let forms: [Box<dyn Form>; 2] = forms.try_into().ok().expect("two");
        let form: Box<dyn Form> = Box::new(Tiered { cut: cut as u32, forms });
        Ok(form)
    };
    Plan { method: "tiers", sizes, bytes, build: Box::new(build) }
}

struct Tiered {
    cut: u32,
    forms: [Box<dyn Form>; 2],
}

impl Form for Tiered {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        let [head, tail] = &self.forms;
        let when = g.op(Op::Within { x: ids, from: 0, to: self.cut });
        let first = g.int(ids, Int::Min, self.cut - 1);
        let yes = head.graph(g, first, &format!("{at}first/"));
        let later = g.int(ids, Int::Max, self.cut);
        let later = g.int(later, Int::Sub, self.cut);
        let no = tail.graph(g, later, &format!("{at}others/"));
        g.op(Op::Either { when, yes, no })
    }
}
