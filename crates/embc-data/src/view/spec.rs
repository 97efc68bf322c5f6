//! `[data]` of an experiment.

use crate::error::{Error, Result};
use crate::raw::{Field, Role};
use crate::registry::Entry;
use crate::split::SplitRule;
use embc_core::batch::Examples;
use embc_core::graph::device::Transform;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[data]` of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// What positives are ranked against: all unseen items, so many sampled ones, or those that
    /// files name.
    pub candidates: Candidates,
    /// Share of users whose items are ranked in validation, drawn once; all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_queries: Option<f64>,
    /// The column of users, where it is not called user or user_id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The column of items, where it is not called item or item_id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// Columns that describe the situation of a row and are known before an item is chosen, such
    /// as the hour: negatives and candidates keep them. Each positive is then ranked by itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// Which rows say that a user had an item, which is then no negative and no candidate: by
    /// default every rating, however low, and of labels 0 and 1 the ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub had: Option<HadRule>,
    /// How dense features are transformed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<Dense>,
    /// How training rows are shuffled.
    pub shuffle: Shuffle,
    /// Most items of a history, the last ones, and most ids of a multi-valued field, the first
    /// ones; without it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<u32>,
}

/// What a view came to, whatever text led there: the part of a trial's identity that is about data.
/// What says nothing is left out, so that it changes no id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resolved {
    /// The columns that are read, each with its role.
    pub columns: Vec<(String, String)>,
    /// Columns of users and items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<(String, String)>,
    /// The rule that splits, with its seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitRule>,
    /// Ids with fewer training rows become the unknown id.
    #[serde(skip_serializing_if = "is_default")]
    pub min_count: u32,
    /// Which ids exist.
    #[serde(skip_serializing_if = "is_default")]
    pub vocab: VocabRule,
    /// How a rating becomes a label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<LabelRule>,
    /// Sampled negatives a positive.
    #[serde(skip_serializing_if = "is_default")]
    pub negatives: u32,
    /// What positives are ranked against.
    #[serde(skip_serializing_if = "is_default")]
    pub candidates: Candidates,
    /// SHA-256 of the files that name candidates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
    /// Share of users whose items are ranked in validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_queries: Option<f64>,
    /// Columns of the situation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    /// Which rows say that a user had an item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub had: Option<HadRule>,
    /// How dense features are transformed.
    #[serde(skip_serializing_if = "is_default")]
    pub dense: Dense,
    /// How training rows are shuffled.
    #[serde(skip_serializing_if = "is_default")]
    pub shuffle: Shuffle,
    /// Most items of a history, most ids of a multi-valued field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<u32>,
}

fn is_default<T: Default + PartialEq>(x: &T) -> bool {
    *x == T::default()
}

impl Resolved {
    /// What `spec` comes to for the data set `entry` under a model that wants such examples. Needs
    /// no data; an error is about a key that means nothing here.
    pub fn new(entry: &Entry, spec: &ViewSpec, examples: Examples) -> Result<Self> {
        let format = crate::raw::find(&entry.format)?;
        let fields = crate::raw::fields(entry)?;
        let split = match &spec.split {
            Some(SplitChoice::Rule(rule)) => rule.clone(),
            Some(SplitChoice::Name(name)) => entry.split_rule(Some(name))?,
            None => entry.split_rule(None)?,
        };
        let said = entry.columns.as_ref();
        let user = spec.user.as_ref().or(said.and_then(|columns| columns.user.as_ref()));
        let item = spec.item.as_ref().or(said.and_then(|columns| columns.item.as_ref()));
        let pair = pair(user, item, &fields)?;
        spec.check(&fields, pair.is_some(), examples)?;
        let by_user = examples != Examples::Rows;
        let timed = split.reads_time() || by_user;
        let read = |field: &&Field| match field.role {
            Role::Tag => false,
            Role::Time => timed,
            Role::Weight => !by_user,
            // Histories are of users and items alone.
            role if by_user && (role.is_feature() || role == Role::Dense) => {
                pair.as_ref().is_some_and(|(user, item)| [user, item].contains(&&field.name))
            }
            _ => true,
        };
        let columns = fields.iter().filter(read);
        let columns = columns.map(|f| (f.name.clone(), f.role.name().to_string())).collect();
        let dense = fields.iter().any(|field| field.role == Role::Dense) && !by_user;
        let negatives = entry.columns.as_ref().map_or(0, |columns| columns.negatives);
        let rated = fields.iter().any(|field| field.role == Role::Rating);
        let usual = if rated { HadRule::Rows } else { HadRule::Positives };
        Ok(Self {
            columns,
            split: Some(split),
            min_count: spec.min_count,
            vocab: spec.vocab,
            label: spec.label.clone(),
            negatives: if by_user { 0 } else { spec.negatives.unwrap_or(negatives) },
            candidates: if pair.is_some() { spec.candidates } else { Candidates::default() },
            pair,
            given: None,
            valid_queries: spec.valid_queries.filter(|&share| share < 1.0),
            context: spec.context.clone(),
            had: spec.had.filter(|&had| had != usual),
            dense: if dense { spec.dense.unwrap_or(format.dense()) } else { Dense::Raw },
            shuffle: spec.shuffle,
            history: spec.history,
        })
    }

    /// What comes to this, on the data set that it is of, under a model that wants such examples.
    pub fn asked(&self, examples: Examples) -> ViewSpec {
        let has = |role: Role| self.columns.iter().any(|(_, name)| name == role.name());
        let (user, item) = self.pair.clone().unzip();
        ViewSpec {
            split: self.split.clone().map(SplitChoice::Rule),
            min_count: self.min_count,
            vocab: self.vocab,
            label: self.label.clone(),
            negatives: (examples == Examples::Rows).then_some(self.negatives),
            candidates: self.candidates,
            valid_queries: self.valid_queries,
            user,
            item,
            context: self.context.clone(),
            had: self.had,
            dense: (examples == Examples::Rows && has(Role::Dense)).then_some(self.dense),
            shuffle: self.shuffle,
            history: self.history,
        }
    }
}

/// The columns of users and items, if there are any: those that are named, those that are called so,
/// or the only two of one id each.
fn pair(
    user: Option<&String>,
    item: Option<&String>,
    fields: &[Field],
) -> Result<Option<(String, String)>> {
    let single = |field: &&Field| matches!(field.role, Role::Categorical | Role::Hex);
    let singles: Vec<&Field> = fields.iter().filter(single).collect();
    let features = fields.iter().filter(|field| field.role.is_feature()).count();
    let find = |key: &str, given: Option<&String>, usual: &[&str]| match given {
        Some(name) => match singles.iter().any(|field| field.name == *name) {
            true => Ok(Some(name.clone())),
            false => {
                let known: Vec<&str> = singles.iter().map(|field| &field.name[..]).collect();
                Err(Error::Data(format!(
                    "[data] {key} = {name:?} is no column of one id; there are {}",
                    known.join(", ")
                )))
            }
        },
        None => {
            let is = |field: &&&Field| usual.contains(&&field.name[..]);
            Ok(singles.iter().find(is).map(|field| field.name.clone()))
        }
    };
    let user = find("user", user, &["user", "user_id"])?;
    let item = find("item", item, &["item", "item_id", "game"])?;
    if user.is_some() && user == item {
        return Err(Error::Data("[data] user and item are one column".into()));
    }
    let [first, second] = [0, 1].map(|i| singles.get(i).map(|field| field.name.clone()));
    Ok(match (user, item) {
        (Some(user), Some(item)) => Some((user, item)),
        (user, item) if features == 2 && singles.len() == 2 => {
            let other = |one: &String| if Some(one) == first.as_ref() { &second } else { &first };
            match (user, item) {
                (None, None) => first.clone().zip(second.clone()),
                (Some(user), None) => other(&user).clone().map(|item| (user, item)),
                (None, Some(item)) => other(&item).clone().map(|user| (user, item)),
                both => both.0.zip(both.1),
            }
        }
        _ => None,
    })
}

impl ViewSpec {
    /// Refuses keys that mean nothing for this data and model.
    fn check(&self, fields: &[Field], pair: bool, examples: Examples) -> Result<()> {
        let has = |wanted: fn(&Role) -> bool| fields.iter().any(|field| wanted(&field.role));
        let by_user = examples != Examples::Rows;
        let implicit = !has(|r| matches!(r, Role::Label | Role::Rating | Role::Class));
        let unread = [
            (
                self.negatives.is_some_and(|n| n > 0) && has(|r| *r == Role::Class),
                "negatives",
                "are labels 0, which classes do not have",
            ),
            (
                self.label.is_some() && !has(|r| *r == Role::Rating),
                "label",
                "applies to ratings, which this data set has not",
            ),
            (
                self.dense.is_some() && by_user,
                "dense",
                "is of dense features, which this model does not read",
            ),
            (
                self.dense.is_some() && !has(|r| *r == Role::Dense),
                "dense",
                "is of dense features, which this data set has not",
            ),
            (
                self.history.is_some() && !by_user && !has(|r| matches!(r, Role::Multi(_))),
                "history",
                "is of histories and of columns of several ids, and there are none",
            ),
            (
                self.candidates != Candidates::default() && !pair,
                "candidates",
                "is of rankings, which need a user and an item column of one id each",
            ),
            (
                self.valid_queries.is_some() && !pair,
                "valid_queries",
                "is of rankings, which need a user and an item column of one id each",
            ),
            (
                !self.context.is_empty() && (!pair || by_user),
                "context",
                "is of rows with a user, an item and more columns, which this model and data have not",
            ),
            (
                self.had.is_some() && !pair,
                "had",
                "is of users and items, which this data set has not",
            ),
            (
                self.had.is_some() && implicit,
                "had",
                "is of rows with labels or ratings, and here every row is a positive",
            ),
        ];
        if let Some((_, key, why)) = unread.iter().find(|(unread, ..)| *unread) {
            return Err(Error::Data(format!("[data] {key} {why}; remove it")));
        }
        if self.valid_queries.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            let what = "[data] valid_queries must be above 0, and at most 1";
            return Err(Error::Data(what.into()));
        }
        if self.candidates == Candidates::Sampled(0) {
            return Err(Error::Data("[data] candidates must be positive".into()));
        }
        let feature = |name: &&String| {
            let is = |f: &Field| f.name == **name && (f.role.is_feature() || f.role == Role::Dense);
            !fields.iter().any(is)
        };
        match self.context.iter().find(feature) {
            Some(name) => {
                Err(Error::Data(format!("[data] context names {name}, which is no feature")))
            }
            None => Ok(()),
        }
    }

    /// Whether each trial's seed draws a split of its own.
    pub fn splits_by_seed(&self) -> bool {
        self.clone().open_seed().is_some()
    }

    /// The view of the trials with `seed`.
    pub fn of_seed(&self, seed: u64) -> Self {
        let mut spec = self.clone();
        if let Some(open) = spec.open_seed() {
            *open = Some(seed);
        }
        spec
    }

    fn open_seed(&mut self) -> Option<&mut Option<u64>> {
        match &mut self.split {
            Some(SplitChoice::Rule(rule)) => rule.open_seed(),
            _ => None,
        }
    }
}

/// A split by name or by rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SplitChoice {
    /// The name of one of the data set's `splits`.
    Name(String),
    /// A rule of its own.
    Rule(SplitRule),
}

/// Which ids exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VocabRule {
    /// Those of training rows; all others are one OOV id.
    #[default]
    Train,
    /// Those of all rows, as the papers' code has it.
    All,
}

/// Which rows say that a user had an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HadRule {
    /// All.
    Rows,
    /// Those with the label 1.
    Positives,
}

/// How a rating becomes a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelRule {
    /// Ratings from here on are 1, others 0.
    pub positive_min: f64,
    /// Rows with these ratings are left out.
    #[serde(default)]
    pub drop: Vec<f64>,
}

/// What a positive is ranked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Candidates {
    /// Items that a word says.
    Word(Word),
    /// So many sampled items that the user has not seen.
    Sampled(u32),
}

/// Candidates in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Every item that the user has not seen.
    All,
    /// Those that the data set's files name for the test; 99 sampled ones in validation.
    Files,
}

impl Default for Candidates {
    fn default() -> Self {
        Candidates::Word(Word::All)
    }
}

/// A transformation of dense features; missing becomes 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

impl Dense {
    /// What a model sees of a value; `standard` is its feature's (shift, scale). Missing ones are 0.
    #[inline]
    pub fn of(self, x: f64, standard: Option<(f64, f64)>) -> f32 {
        let (shift, scale) = standard.unwrap_or((0.0, 1.0));
        self.transform().of(x, shift, scale)
    }

    /// What it does, as an exported model does it.
    pub fn transform(self) -> Transform {
        match self {
            Dense::Raw => Transform::Raw,
            Dense::Log1p => Transform::Log1p,
            Dense::Standard => Transform::Standard,
            Dense::FloorLog2 => Transform::FloorLog2,
        }
    }
}

/// How training rows are shuffled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
