//! Examples by user: histories with targets, next items, pairs of items, and queries.
//!
//! What is drawn at random is keyed by (seed, epoch, user, item), so that batches may be filled by
//! any thread.

use crate::candidates;
use crate::error::{Error, Result};
use crate::history::Histories;
use crate::loader::{EVAL_SEED, Stream, sampled, upto};
use crate::negative::Upto;
use crate::registry::Entry;
use crate::split::DROPPED;
use crate::view::{self, Candidates, Ranks, Shuffle, View, ViewField, ViewSpec, Word};
use embc_core::batch::{Bag, Batch, Examples, FieldShape, Order, Split, Visit};
use embc_core::rng::Rng;

/// Sampled negatives in validation where files name those of the test.
const SAMPLED: u32 = 99;

/// An example: a user, and where it is about one item, which of the user's.
#[derive(Clone, Copy)]
struct Case {
    user: u32,
    /// The position among the user's training items or targets, or a candidate's id.
    item: u32,
    group: u32,
    label: f32,
}

/// Takes cases one by one; `false` stops.
type Emit<'a> = &'a mut dyn FnMut(Case) -> bool;

/// All of a query's targets.
const ALL: u32 = u32::MAX;

impl View {
    /// Turns rows into histories.
    pub(crate) fn with_histories(
        mut self,
        [user, item]: [usize; 2],
        part: &[u8],
        entry: &Entry,
        data_dir: &std::path::Path,
    ) -> Result<Self> {
        let positive = |row: u32| self.label(row) > 0.5;
        self.histories = Histories::new(&self.cache, [user, item], part, positive);
        let (counts, order) = self.histories.counts();
        let Ranks { remap, known, counts } = Ranks::new(&order, &counts, &self.resolved);
        self.histories.rename(&remap, known);
        let users = self.histories.users();
        if self.resolved.candidates == Candidates::Word(Word::Files) {
            self.read_candidates([user, item], &remap, entry, data_dir)?;
        }
        let name = self.cache.fields[item].name.clone();
        let shape = FieldShape { name, vocab: counts.len() as u32, counts: counts.into() };
        let (inputs, candidate) = if self.examples == Examples::Pairs { (3, 1) } else { (1, 0) };
        self.shape.items = Some(view::items_of(candidate, &shape, known));
        (self.shape.dense, self.shape.classes) = (0, known as usize);
        self.shape.fields = vec![shape; inputs];
        self.fields = vec![ViewField { column: item, remap, known }; inputs];
        // A repeat says nothing: its item is where it first occurs.
        let mut part = part.to_vec();
        self.histories.repeats.iter().for_each(|&row| part[row as usize] = DROPPED);
        self.had = self.had_of([user, item], &part, 0);
        let had = &self.had;
        self.histories.leave_out(|split, user, item| had.has(upto(split), user, item));
        let lengths: Vec<u64> =
            (0..users).map(|user| self.histories.train(user).len() as u64).collect();
        self.shape.train_rows = lengths
            .iter()
            .filter(|&&n| n > 1)
            .map(|n| match self.examples {
                Examples::Users => 1,
                Examples::Events => n - 1,
                _ => *n,
            })
            .sum();
        if self.shape.train_rows == 0 {
            let what = "no user has two training items: there is nothing to learn from";
            return Err(Error::Data(what.into()));
        }
        self.count_left_out(&lengths);
        Ok(self)
    }

    /// Refuses settings that mean nothing to histories.
    pub(crate) fn check_histories(&self, spec: &ViewSpec) -> Result<()> {
        let pairs_of_all = self.examples == Examples::Pairs
            && self.resolved.candidates == Candidates::Word(Word::All)
            && self.resolved.history.is_none();
        let what = if self.resolved.history == Some(0) {
            "[data] history must be positive"
        } else if spec.negatives.is_some() {
            "[data] negatives is for models that read rows: this one draws its own; remove it"
        } else if self.resolved.shuffle != Shuffle::Full {
            "[data] shuffle is for models that read rows: histories are always shuffled; remove it"
        } else if pairs_of_all {
            "ranking all items one by one needs [data] history, the most items of a history; or rank candidates = 99"
        } else {
            return Ok(());
        };
        Err(Error::Data(what.into()))
    }

    /// Counts what examples and queries do not have, or not whole.
    fn count_left_out(&mut self, lengths: &[u64]) {
        let mut counts: Vec<(String, u64)> = Vec::new();
        let mut count = |what: String, n: u64| counts.push((what, n));
        count(
            "rows of an item that the user already had".into(),
            self.histories.repeats.len() as u64 + self.histories.left_out,
        );
        let short = lengths.iter().filter(|&&n| n == 1).count() as u64;
        count("users with one training item, who train nothing".into(), short);
        let most = self.resolved.history.map_or(u64::MAX, u64::from);
        let cut = lengths.iter().filter(|&&n| n > most).count() as u64;
        count(format!("users with more training items than the {most} of a history"), cut);
        for split in [Split::Valid, Split::Test] {
            let (mut unknown, mut blank, mut unnamed) = (0, 0, 0);
            for user in (0..self.histories.users()).filter(|&user| self.asks(user, split)) {
                let held = self.histories.held(user, split);
                let asked = usize::from(!held.targets.is_empty());
                unknown +=
                    held.targets.iter().filter(|&&t| t as usize >= self.shape.classes).count();
                blank += if held.known.is_empty() { asked } else { 0 };
                let given = self.given.get(user as usize).is_none_or(Option::is_some);
                unnamed += if given || split == Split::Valid { 0 } else { asked };
            }
            let name = split.name();
            count(
                format!("{name} items outside the vocabulary, which count as missed"),
                unknown as u64,
            );
            count(format!("{name} users without a history"), blank as u64);
            let what = format!(
                "{name} users whom the files of candidates do not name, among 99 sampled ones"
            );
            count(what, unnamed as u64);
        }
        self.left_out.extend(counts.into_iter().filter(|(_, n)| *n > 0));
    }

    /// Reads the candidates that files name, in view ids.
    fn read_candidates(
        &mut self,
        columns: [usize; 2],
        remap: &[u32],
        entry: &Entry,
        data_dir: &std::path::Path,
    ) -> Result<()> {
        let given = candidates::read(&self.cache, columns, entry, data_dir)?;
        self.resolved.given = Some(given.hash);
        let (mut itself, mut unknown) = (0, 0);
        for (user, given) in given.users.into_iter().enumerate() {
            let targets: Vec<u32> = self.histories.targets(user as u32, Split::Test).collect();
            let mut view = |(held, mut items): (u32, Vec<u32>)| {
                if targets != [remap[held as usize]] {
                    let what = "the files of candidates hold out other items than the split; choose the split that they belong to with [data] split";
                    return Err(Error::Data(what.into()));
                }
                let all = items.len();
                items.retain(|&item| item != held);
                itself += (all - items.len()) as u64;
                items.iter_mut().for_each(|item| *item = remap[*item as usize]);
                let known = items.len();
                items.retain(|&item| item < self.histories.known());
                unknown += (known - items.len()) as u64;
                Ok(items)
            };
            self.given.push(given.map(&mut view).transpose()?);
        }
        for (n, what) in [
            (itself, "given negatives that are the test item itself, dropped"),
            (unknown, "given negatives outside the vocabulary, dropped"),
        ] {
            if n > 0 {
                self.left_out.insert(what.into(), n);
            }
        }
        Ok(())
    }

    /// True where a user has items of the split.
    pub(crate) fn has_queries(&self, split: Split) -> bool {
        let asked = |&user: &u32| self.asks(user, split);
        let mut users = (0..self.histories.users()).filter(asked);
        users.any(|user| self.histories.targets(user, split).next().is_some())
    }

    /// Ids of an example's bags, on average.
    pub fn ids_per_example(&self) -> f64 {
        if self.examples == Examples::Rows {
            let each = |field: &ViewField| {
                let offsets = &self.cache.coded[&field.column].offsets;
                let ids = offsets.last().map_or(self.cache.meta.rows, |&end| end);
                ids as f64 / self.cache.meta.rows as f64
            };
            return self.fields.iter().map(each).sum();
        }
        let lists = &self.histories;
        let lengths = (0..lists.users()).map(|user| lists.train(user).len() as f64);
        let squares = lengths.clone().map(|n| n * n).sum::<f64>();
        let (users, rows) =
            (lengths.clone().filter(|&n| n > 1.0).count() as f64, lengths.sum::<f64>());
        let most = self.resolved.history.map_or(f64::MAX, f64::from);
        match self.examples {
            Examples::Rows | Examples::Users => rows / users,
            Examples::Events => (squares / rows / 2.0).min(most) + 1.0,
            Examples::Pairs => (squares / rows).min(most) + 2.0,
        }
    }

    /// Most items of a history.
    fn most(&self) -> usize {
        self.resolved.history.map_or(usize::MAX, |n| n as usize)
    }

    /// The items of a history: the last ones.
    fn cut<'a>(&self, items: &'a [u32]) -> &'a [u32] {
        &items[items.len().saturating_sub(self.most())..]
    }

    pub(crate) fn train_histories(&self, order: Order, visit: Visit<'_>) {
        let lists = &self.histories;
        let mut cases: Vec<(u32, u32)> = Vec::new();
        for user in 0..lists.users() {
            match (lists.train(user).len() as u32, self.examples) {
                (0 | 1, _) => {}
                (_, Examples::Users) => cases.push((user, ALL)),
                (n, Examples::Events) => cases.extend((1..n).map(|at| (user, at))),
                (n, _) => cases.extend((0..n).map(|at| (user, at))),
            }
        }
        Rng::stream(order.seed, "shuffle").fork(order.epoch.into()).shuffle(&mut cases);
        let rng = Rng::stream(order.seed, "histories").fork(order.epoch.into());
        let produce = |emit: Emit<'_>| {
            let case = |&(user, item)| emit(Case { user, item, group: 0, label: 1.0 });
            let _ = cases.iter().all(case);
        };
        let fill = |batch: &mut Batch, cases: &[Case]| {
            self.start(batch, cases);
            for case in cases {
                self.training_example(batch, case, rng.fork(case.user.into()));
            }
        };
        self.stream(Stream::train(order), produce, fill, visit);
    }

    fn training_example(&self, batch: &mut Batch, case: &Case, mut rng: Rng) {
        let (items, at) = (self.histories.train(case.user), case.item as usize);
        match self.examples {
            Examples::Users => {
                let mut items = items.to_vec();
                rng.shuffle(&mut items);
                let (history, targets) = items.split_at(items.len() / 2);
                push(&mut batch.fields[0], self.cut(history));
                push(&mut batch.targets, targets);
            }
            Examples::Events => {
                push(&mut batch.fields[0], self.cut(&items[..at]));
                push(&mut batch.targets, &items[at..=at]);
            }
            _ => {
                let mut rng = rng.fork(at as u64);
                // What is held out must not be spared: training knows nothing of it. A user who has
                // everything has a random item instead.
                let mut other = Vec::new();
                self.had.draw(Upto::Train, case.user, 1, &mut rng, &mut other);
                let known = self.histories.known();
                let any = |rng: &mut Rng| rng.below(known.into()) as u32;
                let other = other.first().copied().unwrap_or_else(|| any(&mut rng));
                let others = items.len() - 1;
                // The last ones, without the item itself.
                let start = others.saturating_sub(self.most());
                let start = start + usize::from(at < start);
                let [before, after] = [start.min(at)..at, (at + 1).max(start)..items.len()];
                let history = &mut batch.fields[0];
                history.ids.extend_from_slice(&items[before]);
                push(history, &items[after]);
                batch.fields[1].ids.push(items[at]);
                batch.fields[2].ids.push(other);
            }
        }
    }

    /// Makes room for cases.
    fn start(&self, batch: &mut Batch, cases: &[Case]) {
        batch.fields.resize(self.fields.len(), Bag::default());
        batch.fields[0].offsets.push(0);
        batch.labels.extend(cases.iter().map(|case| case.label));
        if self.examples != Examples::Pairs {
            batch.targets.offsets.push(0);
        }
    }

    /// Whole training histories.
    pub(crate) fn sample_histories(&self, rows: u64, seed: u64, visit: Visit<'_>) {
        let users = sampled(self.histories.users(), rows, seed);
        let produce = |emit: Emit<'_>| {
            let case = |&user| emit(Case { user, item: ALL, group: 0, label: 1.0 });
            let _ = users.iter().all(case);
        };
        let fill = |batch: &mut Batch, cases: &[Case]| {
            self.start(batch, cases);
            batch.fields.iter_mut().skip(1).for_each(|bag| bag.offsets.push(0));
            for case in cases {
                let items = self.histories.train(case.user);
                batch.fields.iter_mut().for_each(|bag| push(bag, items));
            }
        };
        self.stream(Stream::eval(4096), produce, fill, visit);
    }

    /// Each user's query, or where candidates are sampled or given, one for each of its targets.
    pub(crate) fn eval_histories(&self, split: Split, size: usize, visit: Visit<'_>) {
        let pairs = self.examples == Examples::Pairs;
        let fill = |batch: &mut Batch, cases: &[Case]| {
            self.start(batch, cases);
            batch.users.extend(cases.iter().map(|case| case.user));
            for of_user in cases.chunk_by(|a, b| a.user == b.user) {
                let held = self.histories.held(of_user[0].user, split);
                for case in of_user {
                    push(&mut batch.fields[0], self.cut(&held.known));
                    if pairs {
                        batch.fields[1].ids.push(case.item);
                        batch.fields[2].ids.push(case.item);
                        batch.groups.push(case.group);
                    } else {
                        self.query(batch, case, &held.targets, split);
                    }
                }
            }
        };
        let produce = |emit: Emit<'_>| {
            let mut group = 0;
            for user in 0..self.histories.users() {
                if !self.asks(user, split) {
                    continue;
                }
                let targets = self.histories.targets(user, split).count() as u32;
                let alone = self.resolved.candidates != Candidates::Word(Word::All);
                let each = if alone { 0..targets } else { 0..0 };
                for item in each.chain((targets > 0 && !alone).then_some(ALL)) {
                    let case = Case { user, item, group, label: 1.0 };
                    group += 1;
                    let more = match pairs {
                        true => self.candidates_of(case, split, emit),
                        false => emit(case),
                    };
                    if !more {
                        return;
                    }
                }
            }
        };
        self.stream(Stream::eval(size), produce, fill, visit);
    }

    /// What an output per item is asked.
    fn query(&self, batch: &mut Batch, case: &Case, targets: &[u32], split: Split) {
        if case.item == ALL {
            push_to(&mut batch.seen, &self.had.items(upto(split), case.user));
            push(&mut batch.targets, targets);
            return;
        }
        let target = targets[case.item as usize];
        push_to(&mut batch.seen, &[]);
        push(&mut batch.targets, &[target]);
        let negatives = self.negatives_of(case, target, split);
        let candidates = [&[target][..], &negatives].concat();
        let known = |item: &&u32| **item < self.histories.known();
        let candidates: Vec<u32> = candidates.iter().filter(known).copied().collect();
        push_to(&mut batch.candidates, &candidates);
    }

    /// The candidates of a query, one example each.
    fn candidates_of(&self, case: Case, split: Split, emit: Emit<'_>) -> bool {
        let held = self.histories.held(case.user, split);
        let mut one = |item: u32, label: f32| emit(Case { item, label, ..case });
        if case.item != ALL {
            let target = held.targets[case.item as usize];
            let negatives = self.negatives_of(&case, target, split);
            return one(target, 1.0) && negatives.into_iter().all(|item| one(item, 0.0));
        }
        let mut targets = held.targets;
        targets.sort_unstable();
        // Unknown targets share the OOV id, and count as missed.
        let unknown = targets.iter().filter(|&&item| item >= self.histories.known());
        self.had
            .unseen(upto(split), case.user)
            .all(|item| one(item, f32::from(targets.binary_search(&item).is_ok())))
            && unknown.into_iter().all(|&item| one(item, 1.0))
    }

    /// What one target of a query is ranked against, itself aside.
    fn negatives_of(&self, case: &Case, target: u32, split: Split) -> Vec<u32> {
        let given = self.given.get(case.user as usize).and_then(Option::as_ref);
        if let Some(given) = given.filter(|_| split == Split::Test) {
            return given.clone();
        }
        let n = match self.resolved.candidates {
            Candidates::Sampled(n) => n,
            Candidates::Word(_) => SAMPLED,
        };
        let rng = Rng::stream(EVAL_SEED, "candidates").fork(split as u64);
        let mut rng = rng.fork(case.user.into()).fork(target.into());
        let mut drawn = Vec::new();
        self.had.draw(Upto::Test, case.user, n, &mut rng, &mut drawn);
        drawn
    }
}

/// Adds an example's ids to a bag that began.
fn push(bag: &mut Bag, ids: &[u32]) {
    bag.ids.extend_from_slice(ids);
    bag.offsets.push(bag.ids.len() as u32);
}

/// Adds an example's ids to a bag that may not have begun.
fn push_to(bag: &mut Bag, ids: &[u32]) {
    if bag.offsets.is_empty() {
        bag.offsets.push(0);
    }
    push(bag, ids);
}
