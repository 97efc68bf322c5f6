//! Batches of a view, drawn by a thread that runs ahead and filled by those that train, while they wait
//! for each other; their order depends on the seed alone.

use crate::negative::Upto;
use crate::view::{Candidates, Follows, Shuffle, View};
use embc_core::batch::{Bag, Batch, Data, Examples, Order, Protocol, Shape, Split, Visit};
use embc_core::rng::Rng;
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;

/// The version of batches: raise it when the same view means other examples.
pub const VERSION: u32 = 3;

/// Loads of examples that are drawn ahead.
const AHEAD: usize = 2;

/// Examples of a load, whose batches are filled while those of the one before are trained on: small
/// ones take no longer to train on than to hand over.
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

/// What a batch of rows is filled for.
#[derive(Clone, Copy)]
enum Filling<'a> {
    /// Training; with what draws which ids of one row stand for unknown ones.
    Training(Option<&'a Rng>),
    /// An evaluation of rows.
    Rows,
    /// A ranking.
    Ranking,
}

/// What is known before a split is ranked.
pub(crate) fn upto(split: Split) -> Upto {
    match split {
        Split::Valid => Upto::Train,
        Split::Test => Upto::Valid,
    }
}

/// Takes examples one by one; `false` stops.
type Emit<'a> = &'a mut dyn FnMut(Example) -> bool;

impl View {
    /// A row, then its sampled negatives, which the user has not had.
    fn with_negatives(&self, row: u32, upto: Upto, rng: &Rng, emit: Emit<'_>) -> bool {
        if !emit(Example { row, item: None, group: 0, label: None }) {
            return false;
        }
        let wanted = self.resolved.negatives;
        if wanted == 0 || self.label(row) < 0.5 {
            return true;
        }
        let mut drawn = Vec::new();
        self.had.draw(upto, self.user(row), wanted, &mut rng.fork(row.into()), &mut drawn);
        drawn
            .into_iter()
            .all(|item| emit(Example { row, item: Some(item), group: 0, label: Some(0.0) }))
    }

    /// The training examples of an epoch, in order.
    fn epoch(&self, seed: u64, epoch: u32, emit: Emit<'_>) {
        // What is held out must not be spared: training knows nothing of it.
        let (rows, seen) = (&self.parts[0], Upto::Train);
        let mut shuffle = Rng::stream(seed, "shuffle").fork(epoch.into());
        let negatives = Rng::stream(seed, "negatives").fork(epoch.into());
        match self.resolved.shuffle {
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
        let row = |i| self.with_negatives(rows.get(i), Upto::Test, &rng, emit);
        let _ = (0..rows.len()).all(row);
    }

    /// The positives of a split that a ranking wants, in the order of users: each item of a user
    /// once, and none that the user had before. With how many were repeats.
    fn wanted(&self, split: Split) -> (Vec<u32>, u64) {
        let Some((_, item_field)) = self.pair else { return (Vec::new(), 0) };
        let (part, before) = (&self.parts[self.part(split)], upto(split));
        let positive = |row: &u32| self.label(*row) > 0.5 && self.asks(self.user(*row), split);
        let mut rows: Vec<u32> = (0..part.len()).map(|i| part.get(i)).filter(positive).collect();
        let all = rows.len();
        let item = |row: u32| self.raw(item_field, row);
        rows.retain(|&row| !self.had.holds(before, self.user(row), item(row)));
        rows.sort_by_key(|&row| (self.user(row), item(row)));
        rows.dedup_by_key(|row| (self.user(*row), item(*row)));
        // Within a user as they come.
        rows.sort_by_key(|&row| (self.user(row), row));
        let repeats = (all - rows.len()) as u64;
        (rows, repeats)
    }

    /// What rankings leave out or cut short, for reports.
    pub fn left_out_of_rankings(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        let Some((user_field, item_field)) = self.pair.filter(|_| self.examples == Examples::Rows)
        else {
            return counts;
        };
        let mut count = |what: String, n: u64| {
            if n > 0 {
                counts.insert(what, n);
            }
        };
        for split in [Split::Valid, Split::Test] {
            let (rows, repeats) = self.wanted(split);
            let name = split.name();
            count(format!("{name} rows of an item that the user already had"), repeats);
            let known = self.fields[item_field].known;
            let unknown = rows.iter().filter(|&&row| self.id(item_field, row) >= known).count();
            count(
                format!("{name} items outside the vocabulary, which count as missed"),
                unknown as u64,
            );
            let users = rows.chunk_by(|&a, &b| self.user(a) == self.user(b));
            let cold = |rows: &&[u32]| {
                let id = self.id(user_field, rows[0]) as usize;
                self.shape.fields[user_field].counts[id] == 0
            };
            let users: Vec<&[u32]> = users.collect();
            let cold = users.iter().filter(|rows| cold(rows)).count() as u64;
            count(format!("{name} users whom training does not know, each a query"), cold);
            if let Candidates::Sampled(n) = self.resolved.candidates {
                let short = users.iter().map(|rows| {
                    let free = self.had.free(Upto::Test, self.user(rows[0]));
                    if free < n { rows.len() as u64 } else { 0 }
                });
                count(
                    format!(
                        "{name} queries with fewer than {n} items left for candidates, ranked among all of them"
                    ),
                    short.sum(),
                );
            }
        }
        counts
    }

    /// The positives of a split among their candidates, query after query.
    fn ranking(&self, split: Split, emit: Emit<'_>) {
        let Some((_, item_field)) = self.pair else { return };
        let (rows, _) = self.wanted(split);
        let known = self.fields[item_field].known;
        let rng = Rng::stream(EVAL_SEED, "candidates").fork(split as u64);
        let of_user = rows.chunk_by(|&a, &b| self.user(a) == self.user(b));
        // A query is a user, or a positive that is ranked by itself.
        let alone = matches!(self.resolved.candidates, Candidates::Sampled(_))
            || !self.resolved.context.is_empty();
        let queries = of_user.flat_map(|all| {
            all.chunks(if alone { 1 } else { all.len() }).map(move |rows| (all, rows))
        });
        let mut candidates = Vec::new();
        for (group, (all, rows)) in queries.enumerate() {
            let (row, user, group) = (rows[0], self.user(rows[0]), group as u32);
            let mut one = |item: Option<u32>, label: f32| {
                emit(Example { row, item, group, label: Some(label) })
            };
            let mut wanted: Vec<u32> = rows.iter().map(|&row| self.id(item_field, row)).collect();
            wanted.sort_unstable();
            if let Candidates::Sampled(n) = self.resolved.candidates {
                let mut rng = rng.fork(user.into()).fork(self.raw(item_field, row).into());
                self.had.draw(Upto::Test, user, n, &mut rng, &mut candidates);
                candidates.insert(0, wanted[0]);
            } else {
                candidates.clear();
                candidates.extend(self.had.unseen(upto(split), user));
                // Other positives of the user, which are queries of their own.
                let mut others: Vec<u32> =
                    all.iter().map(|&row| self.id(item_field, row)).collect();
                others.sort_unstable();
                candidates.retain(|item| {
                    wanted.binary_search(item).is_ok() || others.binary_search(item).is_err()
                });
                // Unknown targets share the unknown id, and count as missed.
                candidates.extend(wanted.iter().copied().filter(|&item| item >= known));
            }
            for &item in &candidates {
                let label = f32::from(wanted.binary_search(&item).is_ok());
                if !one(Some(item), label) {
                    return;
                }
            }
        }
    }

    /// Fills a batch; in training, `rare` draws which ids of one row stand for unknown ones.
    fn fill(&self, batch: &mut Batch, examples: &[Example], what: Filling<'_>) {
        batch.fields.resize(self.fields.len(), Bag::default());
        self.labels(examples.iter().map(|e| e.row), |label| batch.labels.push(label));
        for (example, label) in examples.iter().zip(&mut batch.labels) {
            *label = example.label.unwrap_or(*label);
        }
        if let (Some(weight), Filling::Training(_)) = (&self.cache.weight, &what) {
            batch.weights.extend(examples.iter().map(|e| weight.float(e.row.into()) as f32));
        }
        let grouped = matches!(what, Filling::Ranking);
        if grouped {
            batch.groups.extend(examples.iter().map(|e| e.group));
        }
        if grouped || matches!(what, Filling::Rows) {
            batch.rows.extend(examples.iter().map(|e| e.row));
            if self.pair.is_some() {
                batch.users.extend(examples.iter().map(|e| self.user(e.row)));
            }
        }
        // The row that an example reads a column from: another item brings its own.
        let of_item = |e: &Example| e.item.and_then(|item| self.row_of_item.get(item as usize));
        let source = |e: &Example, follows: Option<&Follows>| match follows {
            Some(Follows::Item) => of_item(e).copied().unwrap_or(e.row),
            _ => e.row,
        };
        // Column by column: what is read together lies together.
        let features = self.shape.dense;
        batch.dense.resize(examples.len() * features, 0.0);
        for feature in 0..features {
            let follows = self.follows.1.get(feature);
            let mut places = batch.dense[feature..].iter_mut().step_by(features);
            self.dense(feature, examples.iter().map(|e| source(e, follows)), |x| {
                *places.next().expect("one an example") = x;
            });
        }
        let item_field = self.pair.map(|(_, item)| item);
        for (f, (field, bag)) in self.fields.iter().zip(&mut batch.fields).enumerate() {
            let coded = &self.cache.coded[&field.column];
            let follows = self.follows.0.get(f);
            let counts = &self.shape.fields[f].counts;
            let rare = match what {
                Filling::Training(Some(rng)) if field.known < counts.len() as u32 => {
                    Some((rng.fork(f as u64), field.known))
                }
                _ => None,
            };
            let remap = |id: u32| match (&rare, field.remap[id as usize]) {
                (Some((rng, unknown)), id)
                    if counts[id as usize] == 1 && rng.at(id.into()) & 1 == 1 =>
                {
                    *unknown
                }
                (_, id) => id,
            };
            if coded.offsets.is_empty() {
                let rows = examples.iter().map(|e| source(e, follows).into());
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
                let row = source(example, follows);
                coded.ids.ids(crate::view::bag(coded, row, self.resolved.history), |id| {
                    bag.ids.push(remap(id));
                });
                bag.offsets.push(bag.ids.len() as u32);
            }
        }
    }

    /// Runs `produce` on a thread of its own, and visits its examples here, in batches that the threads
    /// of the pool fill between what the visitor has for them. Buffers are used again.
    pub(crate) fn stream<E: Copy + Send + Sync>(
        &self,
        how: Stream,
        produce: impl FnOnce(&mut dyn FnMut(E) -> bool) + Send,
        fill: impl Fn(&mut Batch, &[E]) + Sync,
        visit: Visit<'_>,
    ) {
        let Stream { size, skip, key } = how;
        let per_load = (LOAD / size).max(1) * size;
        let (send, drawn) = sync_channel::<Vec<E>>(AHEAD);
        std::thread::scope(|scope| {
            let drawer = scope.spawn(move || {
                let (mut load, mut seen) = (Vec::with_capacity(per_load), 0);
                produce(&mut |example| {
                    seen += 1;
                    if seen <= skip * size as u64 {
                        return true;
                    }
                    load.push(example);
                    load.len() < per_load || {
                        let room = Vec::with_capacity(per_load);
                        send.send(std::mem::replace(&mut load, room)).is_ok()
                    }
                });
                // Nobody is there to take it where the visitor has stopped.
                let _ = send.send(load);
            });
            // Owned here, so that it closes when the visitor stops.
            let (drawn, mut number) = (drawn, skip);
            let (mut batches, mut next): (Vec<Batch>, Vec<Batch>) = Default::default();
            loop {
                let examples = drawn.recv().unwrap_or_default();
                next.resize_with(examples.len().div_ceil(size), Batch::default);
                let stopped = rayon::in_place_scope(|scope| {
                    for (batch, examples) in next.iter_mut().zip(examples.chunks(size)) {
                        number += 1;
                        batch.clear();
                        batch.size = examples.len();
                        batch.key = key.as_ref().map_or(0, |key| key.fork(number).bits());
                        let fill = &fill;
                        scope.spawn(move |_| fill(batch, examples));
                    }
                    batches.iter().any(|batch| visit(batch).is_break())
                });
                std::mem::swap(&mut batches, &mut next);
                if stopped || batches.is_empty() {
                    break;
                }
            }
            drop(drawn);
            // A panic there goes on here, with what it said.
            drawer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
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

    fn has(&self, split: Split, protocol: Protocol) -> bool {
        if self.examples != Examples::Rows {
            return protocol == Protocol::Ranking && self.has_queries(split);
        }
        let rows = !self.parts[self.part(split)].is_empty();
        rows && match protocol {
            Protocol::Ranking => {
                self.pair.is_some() && self.class.is_none() && !self.wanted(split).0.is_empty()
            }
            Protocol::Rows => !self.needs_negatives(),
        }
    }

    fn train(&self, order: Order, visit: Visit<'_>) {
        if self.examples != Examples::Rows {
            return self.train_histories(order, visit);
        }
        let produce = |emit: Emit<'_>| self.epoch(order.seed, order.epoch, emit);
        let rare = Rng::stream(order.seed, "unknown").fork(order.epoch.into());
        let rare = order.train_unknown.then_some(&rare);
        let fill = |batch: &mut Batch, examples: &[Example]| {
            self.fill(batch, examples, Filling::Training(rare));
        };
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
        let fill = |batch: &mut Batch, examples: &[Example]| {
            self.fill(batch, examples, Filling::Training(None));
        };
        self.stream(Stream::eval(4096), produce, fill, visit);
    }

    fn eval(&self, split: Split, protocol: Protocol, batch: usize, visit: Visit<'_>) {
        if self.examples != Examples::Rows {
            return self.eval_histories(split, batch, visit);
        }
        let produce = |emit: Emit<'_>| match protocol {
            Protocol::Rows => self.pointwise(split, emit),
            Protocol::Ranking => self.ranking(split, emit),
        };
        let fill = |batch: &mut Batch, examples: &[Example]| {
            let what = match protocol {
                Protocol::Rows => Filling::Rows,
                Protocol::Ranking => Filling::Ranking,
            };
            self.fill(batch, examples, what);
        };
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
