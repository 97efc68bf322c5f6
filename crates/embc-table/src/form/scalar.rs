//! All rows at fewer bits a value: fp16, int8, int4, int2, with a range a row or a group of 32.

use super::{Fitting, Form, Method, Plan, Shape, fit};
use anyhow::Result;
use embc_core::graph::Graph;
use embc_core::graph::device::program::Node;
use embc_core::quantize::{Codes, Storage, group};

pub(super) struct Scalar;

/// Values of a narrow group.
const NARROW: usize = 32;

impl Method for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }
    fn doc(&self) -> &'static str {
        "every value at 16, 8, 4 or 2 bits, with a least value and a step a row or a group of 32"
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        let (row, mut plans) = (group(shape.dim), Vec::new());
        for storage in [Storage::Fp16, Storage::Int8, Storage::Int4, Storage::Int2] {
            plans.push(plan(shape, storage, row));
            let narrow = matches!(storage, Storage::Int4 | Storage::Int2);
            if narrow && shape.dim.is_multiple_of(NARROW) && shape.dim > NARROW {
                plans.push(plan(shape, storage, NARROW));
            }
        }
        plans.retain(|plan| plan.bytes <= budget);
        // The widest that fit: narrower forms are for smaller budgets.
        plans.truncate(2);
        plans
    }
}

/// All rows at such bits, with a range for `of` values.
pub(super) fn plan(shape: &Shape, storage: Storage, of: usize) -> Plan {
    let Shape { rows, dim, .. } = *shape;
    let range = if of == group(dim) { "a row".into() } else { format!("{of} values") };
    let sizes = match storage {
        Storage::Fp16 => "fp16".into(),
        _ => format!("{}, a range for {range}", storage.name()),
    };
    let build = move |fitting: &Fitting<'_>| {
        let form: Box<dyn Form> = Box::new(Scaled::of(fitting, rows, None, storage, of)?);
        Ok(form)
    };
    let bytes = storage.bytes((rows * dim) as u64, of);
    Plan { method: "scalar", sizes, bytes, build: Box::new(build) }
}

/// Codes of rows.
pub(super) struct Scaled {
    codes: Codes,
    dim: usize,
}

impl Scaled {
    /// The first `rows` rows of the table, and after them `rest`, if there is such a row.
    pub fn of(
        of: &Fitting<'_>,
        rows: usize,
        rest: Option<&[f32]>,
        storage: Storage,
        group: usize,
    ) -> Result<Self> {
        let dim = of.table.dim;
        let all = (rows + usize::from(rest.is_some())) * dim;
        let mut codes = Codes::zeros(storage, all as u64, group);
        let (at_once, mut block) = (crate::table::block(dim), Vec::new());
        for first in (0..all / dim).step_by(at_once) {
            let n = (all / dim - first).min(at_once);
            let known = n.min(rows.saturating_sub(first));
            block.resize(known * dim, 0.0);
            of.table.source.read(first, &mut block)?;
            block.extend(rest.filter(|_| known < n).into_iter().flatten());
            codes.write(first * dim, &block, fit(storage));
        }
        Ok(Self { codes, dim })
    }
}

impl Form for Scaled {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        g.decode(ids, &format!("{at}rows"), &self.codes, self.dim)
    }
}
