//! A view of a cache, as `[data]` of an experiment defines it: labels, split, vocabularies.
//!
//! Ids of a view are ranks by training count, so that `mod` hashing and truncation see ids in
//! frequency order without a look at validation or test rows.

use crate::cache::{Cache, Coded};
use crate::error::{Error, Result};
use crate::history::Histories;
use crate::loader::EVAL_SEED;
use crate::negative::Had;
use crate::raw::Role;
use crate::registry::Entry;
use crate::split::{self, DROPPED};
use embc_core::batch::{Examples, FieldShape, Items, Shape, Split};
use embc_core::rng::Rng;
use embc_core::task::LabelKind;
use std::collections::BTreeMap;
use std::path::Path;

mod follow;
mod ranks;
mod spec;

pub(crate) use follow::Follows;
use follow::no_pair;
pub(crate) use ranks::Ranks;

pub use spec::{
    Candidates, Dense, HadRule, LabelRule, Resolved, Shuffle, SplitChoice, ViewSpec, VocabRule,
    Word,
};

/// The rows of a part.
#[derive(Clone, Debug)]
pub enum Rows {
    /// first..end.
    Range(u32, u32),
    /// Any rows, ascending.
    List(Vec<u32>),
}

impl Rows {
    fn of(part: &[u8], wanted: u8) -> Self {
        let is = |&row: &u32| part[row as usize] == wanted;
        let all = 0..part.len() as u32;
        let count = all.clone().filter(is).count() as u32;
        match all.clone().find(is) {
            None => Rows::Range(0, 0),
            Some(first) if (first..first + count).all(|row| is(&row)) => {
                Rows::Range(first, first + count)
            }
            _ => Rows::List(all.filter(is).collect()),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Rows::Range(first, end) => (end - first) as usize,
            Rows::List(rows) => rows.len(),
        }
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `i`th row.
    #[inline]
    pub fn get(&self, i: usize) -> u32 {
        match self {
            Rows::Range(first, _) => first + i as u32,
            Rows::List(rows) => rows[i],
        }
    }
}

/// A field of a view.
#[derive(Clone)]
pub(crate) struct ViewField {
    /// Index among the data set's columns.
    pub column: usize,
    /// View id of each cache id.
    pub remap: Vec<u32>,
    /// View ids that stand for one value: all but the OOV id.
    pub known: u32,
}

/// A data set as an experiment sees it; the trainer's source of batches.
pub struct View {
    pub(crate) cache: Cache,
    pub(crate) resolved: Resolved,
    pub(crate) shape: Shape,
    pub(crate) fields: Vec<ViewField>,
    pub(crate) parts: [Rows; 3],
    /// Column of classes, where the label is one.
    pub(crate) class: Option<usize>,
    /// Every row is a positive: the labels 0 are sampled.
    pub(crate) implicit: bool,
    /// Fields of users and items, for negatives and rankings.
    pub(crate) pair: Option<(usize, usize)>,
    /// What users had, by their numbers in the cache.
    pub(crate) had: Had,
    /// Whom each field and each dense feature follows, and a row of each known item.
    pub(crate) follows: (Vec<Follows>, Vec<Follows>),
    pub(crate) row_of_item: Vec<u32>,
    /// Columns that belong to neither user nor item, nor to the situation.
    of_row: Vec<String>,
    /// (shift, scale) of each dense feature.
    pub(crate) standard: Vec<(f64, f64)>,
    /// How the model wants its examples, and where that is by user, what they have.
    pub(crate) examples: Examples,
    pub(crate) histories: Histories,
    /// Candidates of each user that files name.
    pub(crate) given: Vec<Option<Vec<u32>>>,
    /// Users with too few rows to hold one out.
    pub short_users: u64,
    /// What the data has that examples have not, or not whole: for reports.
    pub left_out: BTreeMap<String, u64>,
    /// Share of the test rows' lookups that are of ids without a training row.
    pub unknown_lookups: f64,
}

impl View {
    /// Applies `spec` to a cache in `folder`, and presents its rows as a model wants them.
    pub fn new(
        cache: Cache,
        entry: &Entry,
        folder: &Path,
        data_dir: &Path,
        spec: ViewSpec,
        examples: Examples,
    ) -> Result<Self> {
        let resolved = Resolved::new(entry, &spec, examples)?;
        let role = |wanted: fn(Role) -> bool| cache.fields.iter().position(|f| wanted(f.role));
        let rating = role(|r| r == Role::Rating).is_some();
        let class = role(|r| r == Role::Class);
        let implicit = class.is_none() && (cache.label.is_none() || rating && spec.label.is_none());
        let columns: Vec<usize> =
            (0..cache.fields.len()).filter(|&i| cache.fields[i].role.is_feature()).collect();
        let named = |name: &str| columns.iter().position(|&c| cache.fields[c].name == *name);
        let pair = resolved.pair.as_ref().and_then(|(user, item)| named(user).zip(named(item)));
        let part = Self::assign(&cache, &resolved, folder, pair.map(|(user, _)| columns[user]))?;
        let (part, short_users) = part;
        let parts = [0, 1, 2].map(|wanted| Rows::of(&part, wanted));
        if parts[0].is_empty() {
            return Err(Error::Data("the split leaves no training rows".into()));
        }

        let mut fields = Vec::new();
        let mut shapes = Vec::new();
        let ranks = ranks::ranks(&cache, folder, &columns, &part, &resolved);
        for (&column, Ranks { remap, known, counts }) in columns.iter().zip(ranks) {
            let name = &cache.fields[column].name;
            if known == 0 && resolved.min_count > 0 {
                return Err(Error::Data(format!(
                    "[data] min_count = {} leaves no value of {name}: none is in so many training rows",
                    resolved.min_count
                )));
            }
            let (name, vocab) = (name.clone(), counts.len() as u32);
            shapes.push(FieldShape { name, vocab, counts: counts.into() });
            fields.push(ViewField { column, remap, known });
        }
        if resolved.negatives > 0 && pair.is_none() {
            return Err(Error::Data(no_pair("[data] negatives", &cache.fields)));
        }
        let own = entry.columns.is_some();
        if own && class.is_some_and(|c| cache.meta.columns[c].distinct < 3) {
            let what = "classes = true is of three classes or more: of two texts, say positive = \"…\", the one that means 1";
            return Err(Error::Data(what.into()));
        }
        let classes = class.map_or(2, |c| cache.meta.columns[c].distinct as usize);
        let shape = Shape {
            dense: cache.dense.len(),
            classes,
            train_rows: parts[0].len() as u64,
            items: pair.map(|(_, field)| items_of(field, &shapes[field], fields[field].known)),
            fields: shapes,
        };
        let standard = standardise(&cache, &parts[0], resolved.dense);
        let left_out = cache.meta.notes.clone();
        let mut view = Self {
            cache,
            resolved,
            shape,
            fields,
            parts,
            class,
            implicit,
            pair,
            had: Had::default(),
            follows: Default::default(),
            row_of_item: Vec::new(),
            of_row: Vec::new(),
            standard,
            examples,
            histories: Histories::default(),
            given: Vec::new(),
            short_users,
            left_out,
            unknown_lookups: 0.0,
        };
        if examples == Examples::Rows {
            if view.resolved.candidates == Candidates::Word(Word::Files) {
                let what = "[data] candidates = \"files\" is for models that read histories, such as pointwise; use candidates = 99";
                return Err(Error::Data(what.into()));
            }
        } else {
            view.check_histories(&spec)?;
            let [user, item] = match pair {
                Some((user, item)) => [columns[user], columns[item]],
                None => {
                    return Err(Error::Data(no_pair(
                        "a model that reads histories",
                        &view.cache.fields,
                    )));
                }
            };
            return view.with_histories([user, item], &part, entry, data_dir);
        }
        view.count_cut();
        view.count_unknown();
        if let Some((user, item)) = pair {
            view.had = view.had_of([columns[user], columns[item]], &part, item);
            view.follow(user, item)?;
            view.count_negatives();
        }
        Ok(view)
    }

    /// The part of each row, and the number of users too short to hold out from.
    fn assign(
        cache: &Cache,
        resolved: &Resolved,
        folder: &Path,
        user: Option<usize>,
    ) -> Result<(Vec<u8>, u64)> {
        let mut part = vec![0u8; cache.meta.rows as usize];
        if let (Some(rule), Some(label)) = (&resolved.label, &cache.label) {
            for (row, part) in part.iter_mut().enumerate() {
                if rule.drop.contains(&label.float(row as u64)) {
                    *part = DROPPED;
                }
            }
        }
        let rule = resolved.split.as_ref().expect("resolved");
        let short = split::assign(rule, cache, folder, user, &mut part)?;
        Ok((part, short))
    }

    /// What the resolved `[data]` is, for a trial's identity.
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// What the label is.
    pub fn label_kind(&self) -> LabelKind {
        let has = |wanted: Role| self.cache.fields.iter().any(|field| field.role == wanted);
        match () {
            () if has(Role::Class) => LabelKind::Class,
            () if has(Role::Rating) => LabelKind::Rating,
            () => LabelKind::Binary,
        }
    }

    /// The number in the cache of a one-id field's value at a row.
    #[inline]
    pub(crate) fn raw(&self, field: usize, row: u32) -> u32 {
        self.cache.coded[&self.fields[field].column].ids.id(row.into())
    }

    /// The number of the user of a row, where there are users.
    #[inline]
    pub(crate) fn user(&self, row: u32) -> u32 {
        self.pair.map_or(0, |(user, _)| self.raw(user, row))
    }

    /// The column of users, whose numbers [`Batch::users`](embc_core::batch::Batch::users) are.
    pub fn user_column(&self) -> Option<usize> {
        let (user, _) = self.resolved.pair.as_ref()?;
        let is = |f: &crate::raw::Field| f.role.is_feature() && f.name == *user;
        self.cache.fields.iter().position(is)
    }

    /// The view id of a one-id field at a row.
    #[inline]
    pub(crate) fn id(&self, field: usize, row: u32) -> u32 {
        let field = &self.fields[field];
        field.remap[self.cache.coded[&field.column].ids.id(row.into()) as usize]
    }

    /// The label of a row: 0 or 1, or the class.
    #[inline]
    pub(crate) fn label(&self, row: u32) -> f32 {
        let mut found = 1.0;
        self.labels([row].into_iter(), |label| found = label);
        found
    }

    /// Calls `each` with the label of every one of `rows`.
    #[inline]
    pub(crate) fn labels(&self, rows: impl Iterator<Item = u32>, mut each: impl FnMut(f32)) {
        let rows = rows.map(u64::from);
        if let Some(class) = self.class {
            return self.cache.coded[&class].ids.ids(rows, |id| each(id as f32));
        }
        match (&self.cache.label, &self.resolved.label) {
            (Some(label), Some(rule)) if !self.implicit => {
                label.floats(rows, |x| each(f32::from(x >= rule.positive_min)));
            }
            (Some(label), None) if !self.implicit => label.floats(rows, |x| each(x as f32)),
            _ => rows.for_each(|_| each(1.0)),
        }
    }

    /// True where every row is a positive, so that training needs sampled negatives.
    pub fn needs_negatives(&self) -> bool {
        self.implicit && self.resolved.negatives == 0 && self.examples == Examples::Rows
    }

    /// Rows of a part: 0 train, 1 valid, 2 test.
    pub fn rows(&self, part: usize) -> usize {
        self.parts[part].len()
    }

    /// Bytes of the cache on disk that rows are read from.
    pub fn cache_bytes(&self) -> u64 {
        let files = self.cache.meta.files.iter();
        files.filter(|(name, _)| !name.starts_with("vocab")).map(|(_, bytes)| bytes).sum()
    }

    /// Identifies the content of the data set.
    pub fn data_hash(&self) -> &str {
        &self.cache.meta.data_hash
    }

    /// Ids of a field that stand for one value: all but the OOV id.
    pub fn known(&self, field: usize) -> u32 {
        self.fields[field].known
    }

    /// Column and view id of each cache id of a field.
    pub fn remap(&self, field: usize) -> (usize, &[u32]) {
        (self.fields[field].column, &self.fields[field].remap)
    }

    /// Counts bags that `history` cuts, and empty ones.
    fn count_cut(&mut self) {
        let (most, rows) = (self.resolved.history.map_or(u64::MAX, u64::from), &self.parts);
        for field in &self.fields {
            let coded = &self.cache.coded[&field.column];
            if coded.offsets.is_empty() {
                continue;
            }
            let name = &self.cache.fields[field.column].name;
            let all = rows.iter().flat_map(|part| (0..part.len()).map(|i| part.get(i) as usize));
            for ids in all.map(|row| coded.offsets[row + 1] - coded.offsets[row]) {
                let what = match ids {
                    0 => format!("rows with nothing in {name}"),
                    ids if ids > most => format!("rows with {name} cut to the first {most} ids"),
                    _ => continue,
                };
                *self.left_out.entry(what).or_default() += 1;
            }
        }
    }

    /// Whether a user's items are ranked: in validation, those of `valid_queries`.
    pub(crate) fn asks(&self, user: u32, split: Split) -> bool {
        let share = self.resolved.valid_queries.filter(|_| split == Split::Valid);
        let drawn = || Rng::stream(EVAL_SEED, "queries").fork(user.into()).unit();
        share.is_none_or(|share| drawn() < share)
    }

    pub(crate) fn part(&self, split: Split) -> usize {
        match split {
            Split::Valid => 1,
            Split::Test => 2,
        }
    }

    /// Calls `each` with a dense feature of every one of `rows`, transformed.
    #[inline]
    pub(crate) fn dense(
        &self,
        feature: usize,
        rows: impl Iterator<Item = u32>,
        mut each: impl FnMut(f32),
    ) {
        let standard = self.standard.get(feature).copied();
        let of = |x| each(self.resolved.dense.of(x, standard));
        self.cache.dense[feature].floats(rows.map(u64::from), of);
    }

    /// A dense feature of a row as the data has it; NaN where it is missing.
    pub fn raw_dense(&self, feature: usize, row: u32) -> f64 {
        self.cache.dense[feature].float(row.into())
    }

    /// True where examples have any number of ids of a field: a history, or a list of values.
    pub fn several(&self, field: usize) -> bool {
        match self.examples {
            Examples::Rows => !self.cache.coded[&self.fields[field].column].offsets.is_empty(),
            _ => field == 0,
        }
    }

    /// Shift and scale of each dense feature where they are standardised; else empty.
    pub fn standard(&self) -> &[(f64, f64)] {
        &self.standard
    }

    /// Names of the dense features, in their order in a batch.
    pub fn dense_names(&self) -> Vec<&str> {
        let dense = self.cache.fields.iter().filter(|field| field.role == Role::Dense);
        dense.map(|field| &field.name[..]).take(self.shape.dense).collect()
    }
}

/// Where the ids of a row stand, of those that a view reads.
pub(crate) fn bag(coded: &Coded, row: u32, most: Option<u32>) -> std::ops::Range<u64> {
    let row = u64::from(row);
    if coded.offsets.is_empty() {
        return row..row + 1;
    }
    let [start, end] = [row, row + 1].map(|row| coded.offsets[row as usize]);
    start..end.min(start.saturating_add(most.map_or(u64::MAX, u64::from)))
}

/// Where head and torso of a field's items end, by training rows.
pub(crate) fn items_of(field: usize, shape: &FieldShape, known: u32) -> Items {
    let counts = &shape.counts[..known as usize];
    let third = counts.iter().map(|&n| u64::from(n)).sum::<u64>().div_ceil(3);
    let mut sum = 0;
    let ends: Vec<u64> = counts
        .iter()
        .map(|&n| {
            sum += u64::from(n);
            sum
        })
        .collect();
    let end = |part: u64| ends.iter().position(|&sum| sum >= part * third).map_or(0, |at| at + 1);
    Items { field, head: end(1) as u32, torso: end(2) as u32, known }
}

fn standardise(cache: &Cache, train: &Rows, dense: Dense) -> Vec<(f64, f64)> {
    if dense != Dense::Standard {
        return Vec::new();
    }
    // Around the mean, which may be large beside the deviation: times.
    let moments = |column: &crate::cache::Mapped| {
        let values = || {
            let all = (0..train.len()).map(|i| column.float(train.get(i).into()));
            all.filter(|x| !x.is_nan())
        };
        let n = f64::max(values().count() as f64, 1.0);
        let mean = values().sum::<f64>() / n;
        let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        // Of equal values the mean may be another number, and the variance what rounding leaves.
        let varies = values().any(|x| Some(x) != values().next());
        (mean, if varies && variance > 0.0 { 1.0 / variance.sqrt() } else { 1.0 })
    };
    cache.dense.iter().map(moments).collect()
}
