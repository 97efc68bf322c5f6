//! After training: what each table becomes, by itself or within the bytes that all share.

use super::*;
use crate::allocate::{Choice, allocate};

impl Layer {
    /// Runs the schemes' post-training stages. Where any table changed: the epochs to train on,
    /// with an optimizer that starts anew.
    pub fn finish(&mut self, origin: Origin<'_>, cancel: &Cancel) -> Option<u32> {
        let mut epochs = None;
        let chosen = self.choose(origin, cancel);
        let rules = self.rules;
        for (index, table) in self.tables.iter_mut().enumerate() {
            let fields = fields_of(&table.inputs);
            let mut cx = finishing(index, table, rules, &fields, origin, cancel);
            cx.choice = chosen.as_ref().map(|chosen| chosen[index]);
            if let Some(finished) = table.embedding.finish(&mut cx) {
                epochs = epochs.max(Some(finished.finetune()));
                table.embedding = finished;
            }
        }
        epochs
    }

    /// Stores all parameters as `storage` has it: no training after this, unless it is as trained.
    pub fn quantize(&mut self, storage: Storage) {
        if storage == Storage::Fp32 || self.rules.low.is_some() {
            return;
        }
        for table in std::mem::take(&mut self.tables) {
            let group = quantize::group(table.dim);
            let embedding = Box::new(Quantized::new(table.embedding, storage, group));
            self.tables.push(Table { embedding, ..table });
        }
    }

    /// The sizes of each table, where its plan could only bound them.
    pub fn sizes(&self) -> impl Iterator<Item = Option<String>> {
        self.tables.iter().map(|table| table.embedding.sizes())
    }

    /// True where tables share a budget by what it buys, which gradients have to say.
    pub fn wants_curvature(&self) -> bool {
        self.shared.is_some()
    }

    /// What each table is to become, of its choices, within the bytes that all share.
    fn choose(&mut self, origin: Origin<'_>, cancel: &Cancel) -> Option<Vec<usize>> {
        let (bytes, storage) = self.shared.take()?;
        let rules = self.rules;
        let choices = |(index, table): (usize, &mut Table)| {
            let fields = fields_of(&table.inputs);
            let cx = finishing(index, table, rules, &fields, origin, cancel);
            let stored = Precision { storage, group: quantize::group(table.dim) };
            let cost = table.squares / table.width as f64;
            let choices = table.embedding.choices(cost, stored, &cx);
            let as_is = || table.embedding.footprint().stored(stored).bytes();
            if choices.is_empty() { vec![Choice { bytes: as_is(), loss: 0.0 }] } else { choices }
        };
        let all: Vec<_> = self.tables.iter_mut().enumerate().map(choices).collect();
        Some(allocate(&all, bytes).expect("planned with room for the smallest of each"))
    }

    /// Adds the squared gradients of the last forward pass: summed over training rows they estimate the
    /// loss's second derivative (the empirical Fisher information), so that what errors cost adds up in
    /// one unit, whatever a table's scale.
    pub fn measure(&mut self, batch: &Batch, grads: &[Vec<f32>]) {
        let pooling = self.rules.pooling;
        self.each_table(batch.size, |table| {
            table.sum_grads(batch, grads, pooling);
            table.squares += table.grads.iter().map(|g| f64::from(g * g)).sum::<f64>();
        });
    }
}

/// What a table that is finished with may see.
fn finishing<'a>(
    index: usize,
    table: &Table,
    rules: LayerRules,
    fields: &'a [(usize, u32)],
    origin: Origin<'a>,
    cancel: &Cancel,
) -> BuildCx<'a> {
    let LayerRules { init, hash, .. } = rules;
    let rng = table.rng.fork(u64::MAX);
    let cancel = cancel.clone();
    BuildCx { table: index, init, hash, fields, origin, cancel, ..BuildCx::new(rng) }
}
