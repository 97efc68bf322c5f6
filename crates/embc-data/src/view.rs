//! A view of a cache, as `[data]` of an experiment defines it: labels, split, vocabularies.
//!
//! Ids of a view are ranks by training count, so that `mod` hashing and truncation see ids in
//! frequency order without a look at validation or test rows.

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::negative::Seen;
use crate::raw::Role;
use crate::registry::Entry;
use crate::split::{self, DROPPED, SplitRule};
use embc_core::batch::{FieldShape, Shape, Split};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `[data]` of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ViewSpec {
    /// A named split of the data set, or a rule; the data set's own by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitChoice>,
    /// Ids with fewer training rows become the OOV id.
    pub min_count: u32,
    /// Which ids exist.
    pub vocab: VocabRule,
    /// How a rating becomes a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelRule>,
    /// Sampled negatives a positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negatives: Option<u32>,
    /// What positives are ranked against: all unseen items, or so many sampled ones.
    pub candidates: Candidates,
    /// How dense features are transformed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<Dense>,
    /// How training rows are shuffled.
    pub shuffle: Shuffle,
}

/// A split by name or by rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SplitChoice {
    /// One of the data set's `splits`.
    Name(String),
    /// A rule of its own.
    Rule(SplitRule),
}

/// Which ids exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VocabRule {
    /// Those of training rows; all others are one OOV id.
    #[default]
    Train,
    /// Those of all rows, as the papers' code has it.
    All,
}

/// How a rating becomes a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRule {
    /// Ratings from here on are 1, others 0.
    pub positive_min: f32,
    /// Rows with these ratings are left out.
    #[serde(default)]
    pub drop: Vec<f32>,
}

/// What a positive is ranked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Candidates {
    /// Every item that the user has not seen.
    All(All),
    /// So many sampled items that the user has not seen.
    Sampled(u32),
}

/// The word `"all"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// All of them.
    All,
}

impl Default for Candidates {
    fn default() -> Self {
        Candidates::All(All::All)
    }
}

/// A transformation of dense features; missing becomes 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dense {
    /// As they are.
    #[default]
    Raw,
    /// ln(max(x, 0) + 1).
    Log1p,
    /// Mean 0 and deviation 1 over the training rows.
    Standard,
    /// ⌊ln(x)²⌋ above 2, as in BARS.
    FloorLog2,
}

/// How training rows are shuffled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shuffle {
    /// All rows, anew each epoch.
    #[default]
    Full,
    /// Within a window of so many rows: memory for the window alone.
    Window(u32),
    /// File order.
    None,
}

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
    pub(crate) spec: ViewSpec,
    pub(crate) shape: Shape,
    pub(crate) fields: Vec<ViewField>,
    pub(crate) parts: [Rows; 3],
    /// Column of classes, where the label is one.
    pub(crate) class: Option<usize>,
    /// Every row is a positive: the labels 0 are sampled.
    pub(crate) implicit: bool,
    /// Sampled negatives a positive.
    pub(crate) negatives: u32,
    /// Fields of users and items, for negatives and rankings.
    pub(crate) pair: Option<(usize, usize)>,
    /// Known pairs of all parts, and of what is known when a part is ranked.
    pub(crate) seen: Seen,
    pub(crate) known: [Seen; 2],
    /// (shift, scale) of each dense feature.
    pub(crate) standard: Vec<(f32, f32)>,
    pub(crate) dense: Dense,
    /// Users with too few rows to hold one out.
    pub short_users: u64,
}

impl View {
    /// Applies `spec` to a cache.
    pub fn new(cache: Cache, entry: &Entry, folder: &Path, spec: ViewSpec) -> Result<Self> {
        let role = |wanted: fn(Role) -> bool| cache.fields.iter().position(|f| wanted(f.role));
        let rating = role(|r| r == Role::Rating).is_some();
        let class = role(|r| r == Role::Class);
        if spec.label.is_some() && !rating {
            let what = "[data] label applies to ratings, which this data set has not; remove it";
            return Err(Error::Data(what.into()));
        }
        let implicit = class.is_none() && (cache.label.is_none() || rating && spec.label.is_none());
        let columns: Vec<usize> =
            (0..cache.fields.len()).filter(|&i| cache.fields[i].role.is_feature()).collect();
        let single = |i: &usize| cache.coded[&columns[*i]].offsets.is_empty();
        let named = |names: &[&str]| {
            let is = |&c: &usize| names.contains(&&*cache.fields[c].name);
            columns.iter().position(is).filter(single)
        };
        let named = named(&["user", "user_id"]).zip(named(&["item", "item_id", "game"]));
        // Two fields of one id each are a user's and an item's, whatever they are called.
        let pair = named.or((columns.len() == 2 && single(&0) && single(&1)).then_some((0, 1)));

        let rows = cache.meta.rows as usize;
        let mut part = vec![0u8; rows];
        if let (Some(rule), Some(label)) = (&spec.label, &cache.label) {
            for (row, part) in part.iter_mut().enumerate() {
                if rule.drop.contains(&label.float(row as u64)) {
                    *part = DROPPED;
                }
            }
        }
        let rule = match &spec.split {
            Some(SplitChoice::Rule(rule)) => rule.clone(),
            Some(SplitChoice::Name(name)) => entry.split_rule(Some(name))?,
            None => entry.split_rule(None)?,
        };
        let user = pair.map(|(user, _)| columns[user]);
        let short_users = split::assign(&rule, &cache, folder, user, &mut part)?;
        let parts = [0, 1, 2].map(|wanted| Rows::of(&part, wanted));
        if parts[0].is_empty() {
            return Err(Error::Data("the split leaves no training rows".into()));
        }

        let mut fields = Vec::new();
        let mut shapes = Vec::new();
        for &column in &columns {
            let (field, counts) = remap(&cache, column, &part, &spec);
            shapes.push(FieldShape {
                name: cache.fields[column].name.clone(),
                vocab: counts.len() as u32,
                counts: counts.into(),
            });
            fields.push(field);
        }
        let negatives = spec
            .negatives
            .or(entry.columns.as_ref().map(|c| c.negatives).filter(|&n| n > 0))
            .unwrap_or(0);
        if negatives > 0 && pair.is_none() {
            let what = "[data] negatives needs a user and an item column of one id each";
            return Err(Error::Data(what.into()));
        }
        let classes = class.map_or(2, |c| cache.meta.columns[c].distinct as usize);
        let shape = Shape {
            dense: cache.dense.len(),
            fields: shapes,
            classes,
            train_rows: parts[0].len() as u64,
        };
        let format = crate::raw::find(&entry.format)?;
        let dense = spec.dense.unwrap_or(format.dense());
        let standard = standardise(&cache, &parts[0], dense);
        let mut view = Self {
            cache,
            spec,
            shape,
            fields,
            parts,
            class,
            implicit,
            negatives,
            pair,
            seen: Seen::default(),
            known: [Seen::default(), Seen::default()],
            standard,
            dense,
            short_users,
        };
        if let Some((user, _)) = pair {
            // Negatives follow positives only.
            let positives = view.positives(&[0]).len() as u64;
            view.shape.train_rows += u64::from(negatives) * positives;
            let users = view.shape.fields[user].vocab;
            let pairs = |parts: &[usize]| Seen::new(users, view.positives(parts));
            (view.known, view.seen) = ([pairs(&[0]), pairs(&[0, 1])], pairs(&[0, 1, 2]));
        }
        Ok(view)
    }

    /// Positive (user, item) pairs of some parts, in view ids.
    fn positives(&self, parts: &[usize]) -> Vec<(u32, u32)> {
        let (user, item) = self.pair.expect("asked for pairs");
        let rows = |&part: &usize| {
            let rows = &self.parts[part];
            (0..rows.len()).map(move |i| rows.get(i))
        };
        let positive = |row: &u32| self.label(*row) > 0.5;
        let pair = |row| (self.id(user, row), self.id(item, row));
        parts.iter().flat_map(rows).filter(positive).map(pair).collect()
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
        if let Some(class) = self.class {
            return self.cache.coded[&class].ids.id(row.into()) as f32;
        }
        match &self.cache.label {
            _ if self.implicit => 1.0,
            None => 1.0,
            Some(label) => match &self.spec.label {
                Some(rule) => f32::from(label.float(row.into()) >= rule.positive_min),
                None => label.float(row.into()),
            },
        }
    }

    /// True where every row is a positive, so that training needs sampled negatives.
    pub fn needs_negatives(&self) -> bool {
        self.implicit && self.negatives == 0
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

    pub(crate) fn part(&self, split: Split) -> usize {
        match split {
            Split::Valid => 1,
            Split::Test => 2,
        }
    }

    /// A dense feature of a row, transformed.
    #[inline]
    pub(crate) fn dense(&self, feature: usize, row: u32) -> f32 {
        let x = self.cache.dense[feature].float(row.into());
        if x.is_nan() {
            return 0.0;
        }
        match self.dense {
            Dense::Raw => x,
            Dense::Log1p => x.max(0.0).ln_1p(),
            Dense::FloorLog2 => {
                if x > 2.0 {
                    x.ln().powi(2).floor()
                } else {
                    x
                }
            }
            Dense::Standard => {
                let (shift, scale) = self.standard[feature];
                (x - shift) * scale
            }
        }
    }
}

/// View ids of a column: ranks by training count, then by cache id; the OOV id is last.
fn remap(cache: &Cache, column: usize, part: &[u8], spec: &ViewSpec) -> (ViewField, Vec<u32>) {
    let coded = &cache.coded[&column];
    let distinct = cache.meta.columns[column].distinct as usize;
    let mut counts = vec![0u32; distinct];
    let mut occurs = vec![false; distinct];
    for (row, &part) in part.iter().enumerate().filter(|(_, part)| **part != DROPPED) {
        let row = row as u64;
        let range = match coded.offsets.is_empty() {
            true => row..row + 1,
            false => coded.offsets[row as usize]..coded.offsets[row as usize + 1],
        };
        for at in range {
            let id = coded.ids.id(at) as usize;
            occurs[id] = true;
            counts[id] += u32::from(part == split::TRAIN);
        }
    }
    let kept = |id: &u32| match spec.vocab {
        VocabRule::Train => counts[*id as usize] >= spec.min_count.max(1),
        VocabRule::All => occurs[*id as usize] && counts[*id as usize] >= spec.min_count,
    };
    let mut order: Vec<u32> = (0..distinct as u32).filter(kept).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(counts[id as usize]));
    let known = order.len() as u32;
    let mut remap = vec![known; distinct];
    let mut ranked = Vec::with_capacity(order.len() + 1);
    for (rank, &id) in order.iter().enumerate() {
        remap[id as usize] = rank as u32;
        ranked.push(counts[id as usize]);
    }
    if spec.vocab == VocabRule::Train || spec.min_count > 0 {
        let total: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        let inside: u64 = ranked.iter().map(|&n| u64::from(n)).sum();
        ranked.push((total - inside).min(u32::MAX.into()) as u32);
    }
    (ViewField { column, remap, known }, ranked)
}

fn standardise(cache: &Cache, train: &Rows, dense: Dense) -> Vec<(f32, f32)> {
    if dense != Dense::Standard {
        return Vec::new();
    }
    let moments = |column: &crate::cache::Column| {
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for i in 0..train.len() {
            let x = f64::from(column.float(train.get(i).into()));
            if !x.is_nan() {
                (n, sum, squares) = (n + 1.0, sum + x, squares + x * x);
            }
        }
        let mean = if n > 0.0 { sum / n } else { 0.0 };
        let deviation = if n > 0.0 { (squares / n - mean * mean).max(0.0).sqrt() } else { 0.0 };
        (mean as f32, if deviation > 0.0 { (1.0 / deviation) as f32 } else { 1.0 })
    };
    cache.dense.iter().map(moments).collect()
}
