//! Batches of a view, prepared by a thread that runs ahead; their order depends on the seed alone.

use crate::negative::Seen;
use crate::view::{Candidates, Shuffle, View};
use embc_core::batch::{Bag, Batch, Data, Examples, Order, Shape, Split, Task, Visit};
use embc_core::rng::Rng;
use std::sync::mpsc::sync_channel;

/// Loads of batches between the loader and the trainer.
const AHEAD: usize = 2;

/// Examples of a load: batches change threads together, since small ones take no longer to train on
/// than to hand over.
const LOAD: usize = 1 << 13;

/// Draws for evaluation are keyed by this, so that every trial ranks the same candidates.
pub(crate) const EVAL_SEED: u64 = 0;

/// An example: a row, or a row with another item, which makes it a negative.
#[derive(Clone, Copy)]
struct Example {
    row: u32,
    item: Option<u32>,
    group: u32,
    /// The row's own where none is given.
    label: Option<f32>,
}

/// Takes examples one by one; `false` stops.
type Emit<'a> = &'a mut dyn FnMut(Example) -> bool;

impl View {
    /// A row, then its sampled negatives, which the user has not in `seen`.
    fn with_negatives(&self, row: u32, seen: &Seen, rng: &Rng, emit: Emit<'_>) -> bool {
        if !emit(Example { row, item: None, group: 0, label: None }) {
            return false;
        }
        let Some((user, item)) = self.pair.filter(|_| self.negatives > 0 && self.label(row) > 0.5)
        else {
            return true;
        };
        let (user, items) = (self.id(user, row), self.fields[item].known);
        let mut rng = rng.fork(row.into());
        (0..self.negatives).all(|_| {
            let item = Some(seen.unseen(user, items, &mut rng));
            emit(Example { row, item, group: 0, label: Some(0.0) })
        })
    }

    /// The training examples of an epoch, in order.
    fn epoch(&self, seed: u64, epoch: u32, emit: Emit<'_>) {
        // What is held out must not be spared: training knows nothing of it.
        let (rows, seen) = (&self.parts[0], &self.known[0]);
        let mut shuffle = Rng::stream(seed, "shuffle").fork(epoch.into());
        let negatives = Rng::stream(seed, "negatives").fork(epoch.into());
        match self.spec.shuffle {
            Shuffle::None => {
                let row = |i| self.with_negatives(rows.get(i), seen, &negatives, emit);
                let _ = (0..rows.len()).all(row);
            }
            Shuffle::Full => {
                let mut order: Vec<u32> = (0..rows.len()).map(|i| rows.get(i)).collect();
                shuffle.shuffle(&mut order);
                let _ = order.iter().all(|&row| self.with_negatives(row, seen, &negatives, emit));
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
                    if !self.with_negatives(row, seen, &negatives, emit) {
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
        let row = |i| self.with_negatives(rows.get(i), &self.seen, &rng, emit);
        let _ = (0..rows.len()).all(row);
    }

    /// The positives of a split among their candidates, query after query.
    fn ranking(&self, split: Split, emit: Emit<'_>) {
        let Some((user_field, item_field)) = self.pair else { return };
        let rows = &self.parts[self.part(split)];
        let positive = |row: &u32| self.label(*row) > 0.5;
        let asked = |row: &u32| self.asks(self.id(user_field, *row), split);
        let rows = (0..rows.len()).map(|i| rows.get(i)).filter(positive).filter(asked);
        let mut rows: Vec<u32> = rows.collect();
        let items = self.fields[item_field].known;
        if let Candidates::Sampled(n) = self.spec.candidates {
            let rng = Rng::stream(EVAL_SEED, "candidates");
            for (group, &row) in rows.iter().enumerate() {
                let (group, mut rng) = (group as u32, rng.fork(row.into()));
                let user = self.id(user_field, row);
                let negative = |_| Some(self.seen.unseen(user, items, &mut rng));
                let candidates = std::iter::once(None).chain((0..n).map(negative));
                for (i, item) in candidates.enumerate() {
                    let label = Some(if i == 0 { 1.0 } else { 0.0 });
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
            let unseen = (0..items).filter(|item| known.binary_search(item).is_err());
            // Unknown targets share the OOV id, and count as missed.
            let unknown = wanted.iter().copied().filter(|&item| item >= items);
            for item in unseen.chain(unknown) {
                let label = Some(f32::from(wanted.binary_search(&item).is_ok()));
                let example =
                    Example { row: rows[0], item: Some(item), group: group as u32, label };
                if !emit(example) {
                    return;
                }
            }
        }
    }

    fn fill(&self, batch: &mut Batch, examples: &[Example], grouped: bool) {
        batch.fields.resize(self.fields.len(), Bag::default());
        let label = |e: &Example| e.label.unwrap_or_else(|| self.label(e.row));
        batch.labels.extend(examples.iter().map(label));
        if grouped {
            batch.groups.extend(examples.iter().map(|e| e.group));
        }
        // Column by column: what is read together lies together.
        let features = self.shape.dense;
        batch.dense.resize(examples.len() * features, 0.0);
        for feature in 0..features {
            for (example, dense) in examples.iter().zip(batch.dense.chunks_exact_mut(features)) {
                dense[feature] = self.dense(feature, example.row);
            }
        }
        let item_field = self.pair.map(|(_, item)| item);
        for (f, (field, bag)) in self.fields.iter().zip(&mut batch.fields).enumerate() {
            let coded = &self.cache.coded[&field.column];
            let remap = |id: u32| field.remap[id as usize];
            if coded.offsets.is_empty() {
                let rows = examples.iter().map(|e| e.row.into());
                coded.ids.ids(rows, |id| bag.ids.push(id));
                bag.ids.iter_mut().for_each(|id| *id = remap(*id));
                if Some(f) == item_field {
                    for (example, id) in examples.iter().zip(&mut bag.ids) {
                        *id = example.item.unwrap_or(*id);
                    }
                }
                continue;
            }
            bag.offsets.push(0);
            for example in examples {
                let [start, end] = [0, 1].map(|i| coded.offsets[example.row as usize + i]);
                let most = self.spec.history.map_or(u64::MAX, u64::from);
                coded.ids.ids(start..end.min(start.saturating_add(most)), |id| {
                    bag.ids.push(remap(id));
                });
                bag.offsets.push(bag.ids.len() as u32);
            }
        }
    }

    /// Runs `produce` on a thread that cuts its examples into batches, and visits these here.
    /// Buffers go back and are used again.
    pub(crate) fn stream<E: Copy + Send>(
        &self,
        how: Stream,
        produce: impl FnOnce(&mut dyn FnMut(E) -> bool) + Send,
        fill: impl Fn(&mut Batch, &[E]) + Send,
        visit: Visit<'_>,
    ) {
        let Stream { size, skip, key } = how;
        let per_load = (LOAD / size).max(1);
        let (full, filled) = sync_channel::<Vec<Batch>>(AHEAD);
        let (back, empty) = sync_channel::<Vec<Batch>>(2 * AHEAD);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut examples = Vec::with_capacity(size);
                let (mut number, mut load, mut spare) = (0, Vec::new(), Vec::new());
                let mut send = |examples: &mut Vec<E>, last: bool| {
                    number += 1;
                    if number > skip && !examples.is_empty() {
                        let mut batch: Batch = spare.pop().unwrap_or_default();
                        batch.clear();
                        batch.size = examples.len();
                        batch.key = key.as_ref().map_or(0, |key| key.fork(number).bits());
                        fill(&mut batch, examples);
                        load.push(batch);
                    }
                    examples.clear();
                    if load.len() < per_load && !last {
                        return true;
                    }
                    let room = Vec::with_capacity(per_load);
                    spare.extend(empty.try_iter().flatten());
                    full.send(std::mem::replace(&mut load, room)).is_ok()
                };
                produce(&mut |example| {
                    examples.push(example);
                    examples.len() < size || send(&mut examples, false)
                });
                send(&mut examples, true);
            });
            // Owned here, so that both ends close when the visitor stops.
            let (filled, back) = (filled, back);
            while let Ok(load) = filled.recv() {
                if load.iter().any(|batch| visit(batch).is_break()) {
                    break;
                }
                let _ = back.try_send(load);
            }
        });
    }
}

/// How examples are cut into batches.
pub(crate) struct Stream {
    /// Examples a batch.
    pub size: usize,
    /// Batches to leave out at the start.
    pub skip: u64,
    /// Keys what is drawn for each batch, in training.
    pub key: Option<Rng>,
}

impl Stream {
    /// Batches of an evaluation.
    pub fn eval(size: usize) -> Self {
        Self { size, skip: 0, key: None }
    }

    /// Batches of a training epoch.
    pub fn train(order: Order) -> Self {
        let key = Rng::stream(order.seed, "batch").fork(order.epoch.into());
        Self { size: order.batch, skip: order.skip, key: Some(key) }
    }
}

impl Data for View {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn has(&self, split: Split, task: Task) -> bool {
        if self.examples != Examples::Rows {
            return task == Task::Ranking && self.has_queries(split);
        }
        let rows = !self.parts[self.part(split)].is_empty();
        rows && match task {
            Task::Ranking => self.pair.is_some() && self.class.is_none(),
            Task::Pointwise => !self.needs_negatives(),
        }
    }

    fn train(&self, order: Order, visit: Visit<'_>) {
        if self.examples != Examples::Rows {
            return self.train_histories(order, visit);
        }
        let produce = |emit: Emit<'_>| self.epoch(order.seed, order.epoch, emit);
        let fill = |batch: &mut Batch, examples: &[Example]| self.fill(batch, examples, false);
        self.stream(Stream::train(order), produce, fill, visit);
    }

    fn sample(&self, rows: u64, seed: u64, visit: Visit<'_>) {
        if self.examples != Examples::Rows {
            return self.sample_histories(rows, seed, visit);
        }
        let train = &self.parts[0];
        let order = sampled(train.len() as u32, rows, seed);
        let produce = |emit: Emit<'_>| {
            let _ = order.iter().all(|&i| {
                let row = train.get(i as usize);
                emit(Example { row, item: None, group: 0, label: None })
            });
        };
        let fill = |batch: &mut Batch, examples: &[Example]| self.fill(batch, examples, false);
        self.stream(Stream::eval(4096), produce, fill, visit);
    }

    fn eval(&self, split: Split, task: Task, batch: usize, visit: Visit<'_>) {
        if self.examples != Examples::Rows {
            return self.eval_histories(split, batch, visit);
        }
        let ranked = task == Task::Ranking;
        let produce = |emit: Emit<'_>| match task {
            Task::Pointwise => self.pointwise(split, emit),
            Task::Ranking => self.ranking(split, emit),
        };
        let fill = |batch: &mut Batch, examples: &[Example]| self.fill(batch, examples, ranked);
        self.stream(Stream::eval(batch), produce, fill, visit);
    }
}

/// A uniform sample of 0..all, in random order.
pub(crate) fn sampled(all: u32, wanted: u64, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..all).collect();
    let mut rng = Rng::stream(seed, "sample");
    let wanted = wanted.min(all.into()) as usize;
    for i in 0..wanted {
        order.swap(i, i + rng.below((all as usize - i) as u64) as usize);
    }
    order.truncate(wanted);
    order
}
