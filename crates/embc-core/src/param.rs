//! A trained tensor: values, the gradient of this step, optimizer state.
//!
//! Embedding parameters are rows (a cell is a row of width 1). Only rows touched in a step have a
//! gradient, and rows that are hit twice, by two ids that collide, are summed here, before any
//! optimizer sees them. A gradient is kept dense where the optimizer updates every row anyway and
//! caches hold the table.

use crate::gather::mark;
use crate::hash::mix64;
use crate::linalg::{all_finite, axpy, scale};
use crate::quantize::{Codes, Storage};
use crate::state::{OPTIMIZER, State, TensorMut};

/// A set of ids in insertion order with O(1) insert and clear (Briggs and Torczon's sparse set).
#[derive(Clone, Debug, Default)]
pub struct IdSet {
    /// Slot of each id of the universe; valid only where `ids[slot] == id`.
    slot: Vec<u32>,
    ids: Vec<u32>,
}

impl IdSet {
    /// The slot of `id`, and whether it is new.
    #[inline]
    pub fn insert(&mut self, id: u32) -> (usize, bool) {
        if id as usize >= self.slot.len() {
            self.slot.resize(id as usize + 1, 0);
        }
        let slot = self.slot[id as usize];
        if self.ids.get(slot as usize) == Some(&id) {
            return (slot as usize, false);
        }
        self.slot[id as usize] = self.ids.len() as u32;
        self.ids.push(id);
        (self.ids.len() - 1, true)
    }

    /// Writes the slot of each of `ids` to `slots`. New ids get the next slots, in order. Ids lie
    /// below the universe.
    #[inline]
    pub fn insert_all(&mut self, ids: impl ExactSizeIterator<Item = u32>, slots: &mut Vec<u32>) {
        let mut len = self.ids.len();
        // Room for all of them, and no branch that memory decides: many reads are in flight at once.
        self.ids.resize(len + ids.len() + 1, 0);
        slots.resize(ids.len(), 0);
        let (place, list) = (&mut self.slot[..], &mut self.ids[..]);
        for (id, slot) in ids.zip(slots) {
            let place = &mut place[id as usize];
            // What an untouched place holds is of an earlier set, and may lie beyond this one.
            let at = (*place as usize).min(len);
            let known = (list[at] == id) & (at < len);
            *slot = if known { at } else { len } as u32;
            *place = *slot;
            list[len] = id;
            len += usize::from(!known);
        }
        self.ids.truncate(len);
    }

    /// An empty set that will hold ids below `universe` without growing its index.
    pub fn with_universe(universe: usize) -> Self {
        Self { slot: vec![0; universe], ids: Vec::new() }
    }

    /// The ids, in insertion order.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The slot of `id`, which lies below the universe.
    #[inline(always)]
    pub fn find(&self, id: u32) -> Option<usize> {
        let slot = self.slot[id as usize] as usize;
        (self.ids.get(slot) == Some(&id)).then_some(slot)
    }

    /// Forgets all ids; keeps the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
    }
}

/// Rows that are drawn at a time, where they become codes.
const ROWS: usize = 1 << 12;

/// How a gradient is stored between backward and the optimizer's step.
#[derive(Debug)]
pub(crate) enum Grad {
    /// One value per parameter: every row is updated in every step.
    Dense(Vec<f32>),
    /// Gradients of the touched rows only, [touched × width]; scratch for the slots of a batch.
    Rows { touched: IdSet, values: Vec<f32>, slots: Vec<u32> },
    /// For rows of one value, where an index of rows would be as large as the gradient: a value per
    /// row, a bit for each touched one, and their list.
    Cells { touched: Vec<u32>, bits: Vec<u64>, values: Vec<f32> },
}

impl Grad {
    /// No row of `rows` touched yet.
    pub(crate) fn sparse(rows: usize, width: usize) -> Self {
        if width == 1 {
            let (bits, values) = (vec![0; rows.div_ceil(64)], vec![0.0; rows]);
            return Grad::Cells { touched: Vec::new(), bits, values };
        }
        let touched = IdSet::with_universe(rows);
        Grad::Rows { touched, values: Vec::new(), slots: Vec::new() }
    }
}

/// The place of a row's gradient, and whether it is new: what it holds then is of an earlier step.
#[inline]
fn slot<'a>(
    touched: &mut IdSet,
    values: &'a mut Vec<f32>,
    width: usize,
    row: u32,
) -> (&'a mut [f32], bool) {
    let (slot, new) = touched.insert(row);
    let end = (slot + 1) * width;
    if values.len() < end {
        values.resize(end, 0.0);
    }
    (&mut values[slot * width..end], new)
}

/// A trained tensor [rows × width].
#[derive(Debug)]
pub struct Param {
    name: String,
    width: usize,
    /// Of the matrix that is saved.
    columns: usize,
    pub(crate) value: Vec<f32>,
    pub(crate) grad: Grad,
    /// Optimizer state: moments of the shape of `value`, or one float a row.
    pub(crate) moments: Vec<Vec<f32>>,
    /// Steps taken.
    pub(crate) steps: u64,
    /// A model's weights, whose gradient is dense in every step.
    pub(crate) always_dense: bool,
    /// Rows as codes, where they train in few bits; `value` is empty then.
    pub(crate) low: Option<Low>,
}

/// Rows that are codes while they train: no value is kept beside them.
#[derive(Debug)]
pub(crate) struct Low {
    /// A range for each row.
    pub codes: Codes,
    /// Draws how values are rounded.
    pub seed: u64,
    /// Optimizer state, a word a row: see `optim::low`.
    pub state: Vec<u32>,
    /// Of a step, for a row and its gradient.
    pub scratch: Vec<f32>,
}

impl Param {
    /// An embedding parameter [value.len() / width × width], whose gradient is sparse.
    pub fn rows(name: impl Into<String>, width: usize, value: Vec<f32>) -> Self {
        assert!(width > 0 && value.len().is_multiple_of(width), "whole rows");
        let (name, grad) = (name.into(), Grad::sparse(value.len() / width, width));
        let (columns, moments) = (width, Vec::new());
        let (steps, always_dense, low) = (0, false, None);
        Self { name, width, columns, value, grad, moments, steps, always_dense, low }
    }

    /// An embedding parameter of `rows` rows which are codes of `storage` while they train. `draw`
    /// gives the first values of so many rows at a time.
    pub fn coded(
        name: impl Into<String>,
        width: usize,
        rows: usize,
        storage: Storage,
        seed: u64,
        draw: &mut dyn FnMut(usize) -> Vec<f32>,
    ) -> Self {
        let mut codes = Codes::zeros(storage, (rows * width) as u64, width);
        for row in (0..rows).step_by(ROWS) {
            let some = draw(ROWS.min(rows - row));
            for (i, values) in some.chunks_exact(width).enumerate() {
                let first = (row + i) * width;
                codes.write_by_chance(first, values, mix64(seed ^ first as u64));
            }
        }
        let low = Some(Low { codes, seed, state: Vec::new(), scratch: Vec::new() });
        Self { grad: Grad::sparse(rows, width), low, ..Self::rows(name, width, Vec::new()) }
    }

    /// A parameter that every step touches as a whole, such as a layer's weights.
    pub fn dense(name: impl Into<String>, value: Vec<f32>) -> Self {
        let width = value.len().max(1);
        let mut param = Self::rows(name, width, value);
        param.columns = 1;
        param.always_dense = true;
        param.make_dense();
        param
    }

    /// Saved as a matrix of so many columns.
    pub fn matrix(mut self, columns: usize) -> Self {
        self.columns = columns;
        self
    }

    /// Keeps the gradient dense from now on, for optimizers that update every row.
    pub(crate) fn make_dense(&mut self) {
        if !matches!(self.grad, Grad::Dense(_)) {
            self.grad = Grad::Dense(vec![0.0; self.value.len()]);
        }
    }

    /// The name in checkpoints and error messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Floats a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.low.as_ref().map_or(self.value.len(), |low| low.codes.len() as usize)
    }

    /// True without values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values, row-major. Panics where they are codes.
    pub fn value(&self) -> &[f32] {
        assert!(self.low.is_none(), "{} trains in few bits", self.name);
        &self.value
    }

    /// True where all values are numbers.
    pub fn is_finite(&self) -> bool {
        match &self.low {
            Some(low) => low.codes.is_finite(),
            None => all_finite(&self.value),
        }
    }

    /// All values, writable: for clustering and post-training stages.
    pub fn value_mut(&mut self) -> &mut [f32] {
        &mut self.value
    }

    /// The values of one row.
    #[inline]
    pub fn row(&self, row: u32) -> &[f32] {
        let start = row as usize * self.width;
        &self.value[start..start + self.width]
    }

    /// The gradient of one row, to be added to.
    #[inline]
    pub fn grad_row(&mut self, row: u32) -> &mut [f32] {
        let width = self.width;
        match &mut self.grad {
            Grad::Dense(values) => &mut values[row as usize * width..][..width],
            Grad::Rows { touched, values, .. } => {
                let (row, new) = slot(touched, values, width, row);
                if new {
                    row.fill(0.0);
                }
                row
            }
            Grad::Cells { touched, bits, values } => {
                mark(touched, bits, row);
                &mut values[row as usize..][..1]
            }
        }
    }

    /// Adds `a · grad` to the gradient of one row.
    #[inline]
    pub fn add_scaled(&mut self, row: u32, a: f32, grad: &[f32]) {
        match &mut self.grad {
            Grad::Rows { touched, values, .. } => {
                let (row, new) = slot(touched, values, self.width, row);
                if new { scale(a, grad, row) } else { axpy(a, grad, row) }
            }
            _ => axpy(a, grad, self.grad_row(row)),
        }
    }

    /// Adds `grad` to the gradient of one row.
    #[inline]
    pub fn add(&mut self, row: u32, grad: &[f32]) {
        self.add_scaled(row, 1.0, grad);
    }

    /// The whole dense gradient. Panics for sparse parameters.
    pub fn dense_grad(&mut self) -> &mut [f32] {
        self.value_and_grad().1
    }

    /// The values, and the whole dense gradient. Panics for sparse parameters.
    pub fn value_and_grad(&mut self) -> (&[f32], &mut [f32]) {
        match &mut self.grad {
            Grad::Dense(grad) => (&self.value, grad),
            _ => panic!("{} has a sparse gradient", self.name),
        }
    }

    /// Calls `visit` with every row that has a gradient.
    pub fn visit_grad(&self, visit: &mut dyn FnMut(u32, &[f32])) {
        match &self.grad {
            Grad::Dense(values) => {
                for (row, grad) in values.chunks_exact(self.width).enumerate() {
                    visit(row as u32, grad);
                }
            }
            Grad::Rows { touched, values, .. } => {
                for (&row, grad) in touched.ids().iter().zip(values.chunks_exact(self.width)) {
                    visit(row, grad);
                }
            }
            Grad::Cells { touched, values, .. } => {
                touched.iter().for_each(|&row| visit(row, &values[row as usize..][..1]));
            }
        }
    }

    /// Bytes held in training: values, dense gradient, optimizer state.
    pub fn train_bytes(&self) -> u64 {
        let grad = match &self.grad {
            Grad::Dense(values) | Grad::Cells { values, .. } => values.len(),
            Grad::Rows { .. } => 0,
        };
        let moments: usize = self.moments.iter().map(Vec::len).sum();
        let low = self.low.as_ref();
        let low = low.map_or(0, |low| low.codes.bytes() + 4 * low.state.len() as u64);
        4 * (self.value.len() + grad + moments) as u64 + low
    }

    /// Forgets the gradient.
    pub fn zero_grad(&mut self) {
        match &mut self.grad {
            Grad::Dense(values) => values.fill(0.0),
            Grad::Rows { touched, .. } => touched.clear(),
            Grad::Cells { touched, bits, values } => {
                for row in touched.drain(..) {
                    values[row as usize] = 0.0;
                    bits[row as usize / 64] = 0;
                }
            }
        }
    }

    /// Walks what a checkpoint needs: values, moments, step count.
    pub fn state(&mut self, visit: State<'_>) {
        match &mut self.low {
            Some(low) => low.codes.state(&self.name, visit),
            None => visit(&self.name, TensorMut::rows(&mut self.value, self.columns)),
        }
        if let Some(low) = &mut self.low {
            let name = |what: &str| format!("{}{OPTIMIZER}{what}", self.name);
            visit(&name("seed"), TensorMut::u64(std::slice::from_mut(&mut low.seed)));
            visit(&name("rows"), TensorMut::u32(&mut low.state));
        }
        for (i, moment) in self.moments.iter_mut().enumerate() {
            visit(&format!("{}{OPTIMIZER}moment{i}", self.name), TensorMut::rows(moment, 1));
        }
        if self.low.is_some() || !self.moments.is_empty() {
            let name = format!("{}{OPTIMIZER}steps", self.name);
            visit(&name, TensorMut::u64(std::slice::from_mut(&mut self.steps)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colliding_rows_are_summed_once() {
        let mut param = Param::rows("u", 2, vec![0.0; 8]);
        param.add(3, &[1.0, 2.0]);
        param.add(1, &[5.0, 5.0]);
        param.add(3, &[1.0, 1.0]);
        let mut seen = Vec::new();
        param.visit_grad(&mut |row, grad| seen.push((row, grad.to_vec())));
        assert_eq!(seen, [(3, vec![2.0, 3.0]), (1, vec![5.0, 5.0])]);
        param.zero_grad();
        assert_eq!(param.grad_row(3), [0.0, 0.0], "a row touched again starts from zero");
    }

    #[test]
    fn cells_are_summed_listed_once_and_forgotten() {
        let mut param = Param::rows("m", 1, vec![0.0; 200]);
        (60..70).for_each(|row| param.add(row, &[2.0]));
        param.add(63, &[5.0]);
        param.grad_row(199)[0] += 1.0;
        let sum = |param: &Param| {
            let (mut rows, mut sum) = (0, 0.0);
            param.visit_grad(&mut |row, grad| {
                rows += 1;
                sum += row as f32 * grad[0];
            });
            (rows, sum)
        };
        assert_eq!(sum(&param), (11, 2.0 * 645.0 + 5.0 * 63.0 + 199.0));
        param.zero_grad();
        assert_eq!(sum(&param), (0, 0.0));
        assert_eq!(param.grad_row(61), [0.0], "a cell touched again starts from zero");
    }

    #[test]
    fn id_set_survives_clear_without_clearing_its_index() {
        let mut set = IdSet::default();
        assert_eq!(set.insert(9), (0, true));
        assert_eq!(set.insert(2), (1, true));
        assert_eq!(set.insert(9), (0, false));
        set.clear();
        assert_eq!(set.insert(2), (0, true));
        assert_eq!(set.ids(), [2]);
    }

    #[test]
    fn many_ids_are_inserted_as_one_by_one() {
        let (mut one, mut all) = (IdSet::default(), IdSet::with_universe(50));
        let mut slots = Vec::new();
        for round in 0..20u64 {
            let ids: Vec<u32> =
                (0..30).map(|i| (crate::hash::mix64(round * 100 + i) % 50) as u32).collect();
            let expect: Vec<u32> = ids.iter().map(|&id| one.insert(id).0 as u32).collect();
            all.insert_all(ids.iter().copied(), &mut slots);
            assert_eq!((slots.as_slice(), all.ids()), (&expect[..], one.ids()));
            if round % 3 == 2 {
                one.clear();
                all.clear();
            }
        }
    }
}
