//! A trained full table that becomes something smaller: what binary, pq, opq and rq share.
//!
//! Where all tables share a budget of bytes, a table offers the forms it could take, and itself as it
//! is; what it becomes is then chosen for it.

use super::*;
use crate::allocate::Choice;
use crate::linalg::add_columns;
use crate::quantize;
use crate::state::TensorMut;

/// What a trained table becomes.
pub(super) trait Smaller: Send + Sync {
    /// One of the sizes it could have.
    type Form: Clone + Send + Sync;
    /// An id's error counts by this power of its training rows.
    fn weight(&self) -> f32 {
        0.5
    }
    /// Forms, each with its bytes in `stored` and the squares that it loses, weighed.
    fn forms(
        &self,
        table: &Table<'_>,
        stored: Precision,
        cx: &BuildCx<'_>,
    ) -> Vec<(Self::Form, Choice)>;
    /// The table in this form, or in what was planned.
    fn become_small(
        &self,
        table: &Table<'_>,
        form: Option<&Self::Form>,
        cx: &mut BuildCx<'_>,
    ) -> Box<dyn Embedding>;
}

/// A trained table.
pub(super) struct Table<'a> {
    /// [vocab × dim].
    pub rows: &'a [f32],
    pub dim: usize,
    /// Training rows of ids [vocab], or nothing.
    pub counts: &'a [u32],
}

impl Table<'_> {
    /// What the error of each id counts [vocab]: a power of its training rows.
    pub fn weights(&self, power: f32) -> Vec<f32> {
        let count = |id: usize| self.counts.get(id).copied().unwrap_or(1).max(1);
        (0..self.rows.len() / self.dim).map(|id| (count(id) as f32).powf(power)).collect()
    }
}

/// The full table, while it trains.
pub(super) struct Trained<S: Smaller> {
    table: Param,
    counts: Arc<[u32]>,
    smaller: S,
    /// What was planned.
    footprint: Footprint,
    /// What it may become, beside one row for all ids and itself.
    forms: Vec<S::Form>,
}

impl<S: Smaller + 'static> Trained<S> {
    /// The full table of a plan.
    pub fn start(t: &TableSpec, smaller: S, footprint: Footprint, cx: &mut BuildCx<'_>) -> Self {
        let values = cx.init.table(t.vocab.into(), t.dim, t.dim, &mut cx.rng);
        let table = Param::rows("table", t.dim, values);
        let (counts, forms) = (t.counts.clone(), Vec::new());
        Self { table, counts, smaller, footprint, forms }
    }

    fn view(&self) -> Table<'_> {
        Table { rows: self.table.value(), dim: self.table.width(), counts: &self.counts }
    }

    /// The weighted mean of all rows, and the squares that all lose by it.
    fn mean(&self, weights: &[f32]) -> (Vec<f32>, f64) {
        let (dim, mut mean) = (self.table.width(), vec![0f64; self.table.width()]);
        let rows = || self.table.value().chunks_exact(dim).zip(weights);
        let all = weights.iter().map(|&w| f64::from(w)).sum::<f64>().max(1e-30);
        for (row, &w) in rows() {
            mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(w) * f64::from(x) / all);
        }
        let square = |row: &[f32]| -> f64 {
            row.iter().zip(&mean).map(|(&x, m)| (f64::from(x) - m).powi(2)).sum()
        };
        let lost = rows().map(|(row, &w)| f64::from(w) * square(row)).sum();
        (mean.iter().map(|&x| x as f32).collect(), lost)
    }
}

/// Of saved weights what is no form of a scheme: the rows themselves, or one for all ids.
pub(super) fn saved(t: &TableSpec, cx: &mut BuildCx<'_>) -> Option<Box<dyn Embedding>> {
    let Origin::Saved(saved) = cx.origin else { return None };
    if length(saved, "row").is_some() {
        return Some(Box::new(Mean::new(vec![0.0; t.dim])));
    }
    length(saved, "table").map(|_| (full::table_plan(t.vocab.into(), t.dim).build)(cx))
}

/// Values of a parameter that was saved, or of its codes; none where it was not saved.
pub(super) fn length(saved: &dyn Tensors, param: &str) -> Option<usize> {
    let mut place = [0, 0];
    let coded = saved.copy(&format!("{param}/quantized"), &mut TensorMut::u64(&mut place));
    match coded {
        true => usize::try_from(place[1]).ok(),
        false => Some(saved.shape(param)?.iter().product()),
    }
}

impl<S: Smaller + 'static> Embedding for Trained<S> {
    fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
        self.table.copy_rows(ids, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], _: &mut Tape) {
        self.table.add_rows(ids, grad);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        g.gather(ids, &self.table, self.table.width())
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
    }
    /// What was planned; `train_bytes` tells what it is now.
    fn footprint(&self) -> Footprint {
        Footprint { train_bytes: 4 * self.table.value().len() as u64, ..self.footprint }
    }
    fn choices(&mut self, cost: f64, stored: Precision, cx: &BuildCx<'_>) -> Vec<Choice> {
        let table = self.view();
        let weights = table.weights(self.smaller.weight());
        let unit = cost / weights.iter().map(|&w| f64::from(w)).sum::<f64>().max(1e-30);
        let (forms, mut choices): (Vec<_>, Vec<Choice>) =
            self.smaller.forms(&table, stored, cx).into_iter().unzip();
        let bytes = |values: usize| Footprint::floats(values as u64).stored(stored).bytes();
        choices.push(Choice { bytes: bytes(table.dim), loss: self.mean(&weights).1 });
        let squares = quantize::lost(table.rows, table.dim, stored);
        let loss = squares.iter().zip(&weights).map(|(square, &w)| square * f64::from(w)).sum();
        choices.push(Choice { bytes: bytes(table.rows.len()), loss });
        choices.iter_mut().for_each(|choice| choice.loss *= unit);
        self.forms = forms;
        choices
    }
    fn finish(&mut self, cx: &mut BuildCx<'_>) -> Option<Box<dyn Embedding>> {
        let table = self.view();
        let Some(choice) = cx.choice else {
            return Some(self.smaller.become_small(&table, None, cx));
        };
        let forms = self.forms.len();
        Some(match self.forms.get(choice) {
            Some(form) => self.smaller.become_small(&table, Some(form), cx),
            None if choice == forms => {
                Box::new(Mean::new(self.mean(&table.weights(self.smaller.weight())).0))
            }
            None => Box::new(full::Table(Param::rows("table", table.dim, table.rows.to_vec()))),
        })
    }
}

/// One row for all ids: a table that is worth no more.
struct Mean(Param);

impl Mean {
    fn new(row: Vec<f32>) -> Self {
        let width = row.len();
        Self(Param::dense("row", row).matrix(width))
    }
}

impl Embedding for Mean {
    fn gather(&self, _: &[u32], out: &mut [f32], _: &mut Tape) {
        let row = self.0.value();
        out.chunks_exact_mut(row.len()).for_each(|out| out.copy_from_slice(row));
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], _: &mut Tape) {
        add_columns(grad, self.0.dense_grad());
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let first = g.int(ids, Int::Mod, 1);
        g.gather(first, &self.0, self.0.value().len())
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.0);
    }
    fn sizes(&self) -> Option<String> {
        Some(format!("one row x {}, for all ids", self.0.len()))
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.0.len() as u64)
    }
}
