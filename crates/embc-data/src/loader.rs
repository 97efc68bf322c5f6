//! Batches of a view, prepared by a thread that runs ahead; their order depends on the seed alone.

use crate::view::{Candidates, Shuffle, View};
use embc_core::batch::{Bag, Batch, Data, Order, Shape, Split, Task, Visit};
use embc_core::rng::Rng;
use std::sync::mpsc::sync_channel;

/// Batches between the loader and the trainer.
const AHEAD: usize = 4;

/// Draws for evaluation are keyed by this, so that every trial ranks the same candidates.
const EVAL_SEED: u64 = 0;

/// An example: a row, or a row with another item, which makes it a negative.
#[derive(Clone, Copy)]
struct Example {
    row: u32,
    item: Option<u32>,
    group: u32,
    label: f32,
}

/// Takes examples one by one; `false` stops.
type Emit<'a> = &'a mut dyn FnMut(Example) -> bool;

impl View {
    /// A row, then its sampled negatives.
    fn with_negatives(&self, row: u32, rng: &Rng, emit: Emit<'_>) -> bool {
        let label = self.label(row);
        if !emit(Example { row, item: None, group: 0, label }) {
            return false;
        }
        let Some((user, item)) = self.pair.filter(|_| label > 0.5) else { return true };
        let (user, items) = (self.id(user, row), self.fields[item].known);
        let mut rng = rng.fork(row.into());
        (0..self.negatives).all(|_| {
            let item = Some(self.seen.unseen(user, items, &mut rng));
            emit(Example { row, item, group: 0, label: 0.0 })
        })
    }

    /// The training examples of an epoch, in order.
    fn epoch(&self, seed: u64, epoch: u32, emit: Emit<'_>) {
        let rows = &self.parts[0];
        let mut shuffle = Rng::stream(seed, "shuffle").fork(epoch.into());
        let negatives = Rng::stream(seed, "negatives").fork(epoch.into());
        match self.spec.shuffle {
            Shuffle::None => {
                let _ = (0..rows.len()).all(|i| self.with_negatives(rows.get(i), &negatives, emit));
            }
            Shuffle::Full => {
                let mut order: Vec<u32> = (0..rows.len() as u32).collect();
                shuffle.shuffle(&mut order);
                let mut row =
                    |&i: &u32| self.with_negatives(rows.get(i as usize), &negatives, emit);
                let _ = order.iter().all(&mut row);
            }
            Shuffle::Window(window) => {
                let size = (window.max(1) as usize).min(rows.len());
                let mut held: Vec<u32> = (0..size).map(|i| rows.get(i)).collect();
                for next in size..rows.len() + size {
                    let at = shuffle.below(held.len() as u64) as usize;
                    let row = match next < rows.len() {
                        true => std::mem::replace(&mut held[at], rows.get(next)),
                        false => held.swap_remove(at),
                    };
                    if !self.with_negatives(row, &negatives, emit) {
                        return;
                    }
                }
            }
        }
    }

    /// The examples of a split, each alone.
    fn pointwise(&self, split: Split, emit: Emit<'_>) {
        let rows = &self.parts[self.part(split)];
        let rng = Rng::stream(EVAL_SEED, "eval-negatives");
        let _ = (0..rows.len()).all(|i| self.with_negatives(rows.get(i), &rng, emit));
    }

    /// The positives of a split among their candidates, query after query.
    fn ranking(&self, split: Split, emit: Emit<'_>) {
        let Some((user_field, item_field)) = self.pair else { return };
        let rows = &self.parts[self.part(split)];
        let positive = |row: &u32| self.label(*row) > 0.5;
        let mut rows: Vec<u32> = (0..rows.len()).map(|i| rows.get(i)).filter(positive).collect();
        let items = self.fields[item_field].known;
        if let Candidates::Sampled(n) = self.spec.candidates {
            let rng = Rng::stream(EVAL_SEED, "candidates");
            for (group, &row) in rows.iter().enumerate() {
                let (group, mut rng) = (group as u32, rng.fork(row.into()));
                let user = self.id(user_field, row);
                let negative = |_| Some(self.seen.unseen(user, items, &mut rng));
                let candidates = std::iter::once(None).chain((0..n).map(negative));
                for (i, item) in candidates.enumerate() {
                    let label = if i == 0 { 1.0 } else { 0.0 };
                    if !emit(Example { row, item, group, label }) {
                        return;
                    }
                }
            }
            return;
        }
        rows.sort_by_key(|&row| self.id(user_field, row));
        let known = &self.known[self.part(split) - 1];
        let same_user = |&a: &u32, &b: &u32| self.id(user_field, a) == self.id(user_field, b);
        for (group, rows) in rows.chunk_by(same_user).enumerate() {
            let mut wanted: Vec<u32> = rows.iter().map(|&row| self.id(item_field, row)).collect();
            wanted.sort_unstable();
            let known = known.items(self.id(user_field, rows[0]));
            // Items that the vocabulary does not know cannot be ranked: they are all one id.
            for item in (0..items).filter(|item| known.binary_search(item).is_err()) {
                let label = f32::from(wanted.binary_search(&item).is_ok());
                let example =
                    Example { row: rows[0], item: Some(item), group: group as u32, label };
                if !emit(example) {
                    return;
                }
            }
        }
    }

    fn fill(&self, batch: &mut Batch, examples: &[Example], grouped: bool) {
        batch.clear();
        batch.size = examples.len();
        batch.fields.resize(self.fields.len(), Bag::default());
        batch.labels.extend(examples.iter().map(|e| e.label));
        if grouped {
            batch.groups.extend(examples.iter().map(|e| e.group));
        }
        for example in examples {
            batch.dense.extend((0..self.shape.dense).map(|i| self.dense(i, example.row)));
        }
        let item_field = self.pair.map(|(_, item)| item);
        for (f, (field, bag)) in self.fields.iter().zip(&mut batch.fields).enumerate() {
            let coded = &self.cache.coded[&field.column];
            if coded.offsets.is_empty() {
                bag.ids.extend(examples.iter().map(|e| match e.item {
                    Some(item) if Some(f) == item_field => item,
                    _ => field.remap[coded.ids.id(e.row.into()) as usize],
                }));
                continue;
            }
            bag.offsets.push(0);
            for example in examples {
                let [start, end] = [0, 1].map(|i| coded.offsets[example.row as usize + i]);
                bag.ids.extend((start..end).map(|at| field.remap[coded.ids.id(at) as usize]));
                bag.offsets.push(bag.ids.len() as u32);
            }
        }
    }

    /// Runs `produce` on a thread that cuts its examples into batches, and visits these here.
    /// Buffers go back and are used again.
    fn stream(
        &self,
        size: usize,
        grouped: bool,
        skip: u64,
        produce: impl FnOnce(Emit<'_>) + Send,
        visit: Visit<'_>,
    ) {
        let (full, filled) = sync_channel::<Batch>(AHEAD);
        let (back, empty) = sync_channel::<Batch>(2 * AHEAD);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut examples = Vec::with_capacity(size);
                let mut number = 0;
                let mut send = |examples: &mut Vec<Example>| {
                    number += 1;
                    if number <= skip {
                        examples.clear();
                        return true;
                    }
                    let mut batch = empty.try_recv().unwrap_or_default();
                    self.fill(&mut batch, examples, grouped);
                    examples.clear();
                    full.send(batch).is_ok()
                };
                produce(&mut |example| {
                    examples.push(example);
                    examples.len() < size || send(&mut examples)
                });
                if !examples.is_empty() {
                    send(&mut examples);
                }
            });
            // Owned here, so that both ends close when the visitor stops.
            let (filled, back) = (filled, back);
            while let Ok(batch) = filled.recv() {
                if visit(&batch).is_break() {
                    break;
                }
                let _ = back.try_send(batch);
            }
        });
    }
}

impl Data for View {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn has(&self, split: Split, task: Task) -> bool {
        let rows = !self.parts[self.part(split)].is_empty();
        rows && match task {
            Task::Ranking => self.pair.is_some() && self.class.is_none(),
            Task::Pointwise => !self.needs_negatives(),
        }
    }

    fn train(&self, order: Order, visit: Visit<'_>) {
        let Order { seed, epoch, batch, skip } = order;
        self.stream(batch, false, skip, |emit| self.epoch(seed, epoch, emit), visit);
    }

    fn sample(&self, rows: u64, seed: u64, visit: Visit<'_>) {
        let train = &self.parts[0];
        let mut order: Vec<u32> = (0..train.len() as u32).collect();
        let mut rng = Rng::stream(seed, "sample");
        let wanted = rows.min(order.len() as u64) as usize;
        for i in 0..wanted {
            order.swap(i, i + rng.below((train.len() - i) as u64) as usize);
        }
        order.truncate(wanted);
        let produce = |emit: Emit<'_>| {
            let _ = order.iter().all(|&i| {
                let row = train.get(i as usize);
                emit(Example { row, item: None, group: 0, label: self.label(row) })
            });
        };
        self.stream(4096, false, 0, produce, visit);
    }

    fn eval(&self, split: Split, task: Task, batch: usize, visit: Visit<'_>) {
        match task {
            Task::Pointwise => {
                self.stream(batch, false, 0, |emit| self.pointwise(split, emit), visit);
            }
            Task::Ranking => self.stream(batch, true, 0, |emit| self.ranking(split, emit), visit),
        }
    }
}
