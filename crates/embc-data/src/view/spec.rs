//! `[data]` of an experiment.

use crate::split::SplitRule;
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

impl ViewSpec {
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

/// How a rating becomes a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelRule {
    /// Ratings from here on are 1, others 0.
    pub positive_min: f32,
    /// Rows with these ratings are left out.
    #[serde(default)]
    pub drop: Vec<f32>,
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
