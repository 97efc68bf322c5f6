//! What a trial learns: the one place that says which label, loss and metrics go together.

use crate::batch::Examples;
use crate::loss::Loss;
use crate::metric::Metric;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the label of a data set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// 0 or 1, or rows that are all positive.
    Binary,
    /// A number, which a threshold makes 0 or 1.
    Rating,
    /// The name of a class.
    Class,
}

/// What a trial learns to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Whether a row's label is 1.
    Click,
    /// Whether a rating is high.
    Rating,
    /// Which items a user has, from the items before.
    Ranking,
    /// Which class a row is of.
    Classes,
}

impl Task {
    /// The task of data with such labels under a model that wants such examples.
    pub fn of(label: LabelKind, examples: Examples) -> Self {
        match (examples, label) {
            (Examples::Rows, LabelKind::Binary) => Task::Click,
            (Examples::Rows, LabelKind::Rating) => Task::Rating,
            (Examples::Rows, LabelKind::Class) => Task::Classes,
            _ => Task::Ranking,
        }
    }

    /// What is minimised.
    pub fn loss(self, examples: Examples) -> Loss {
        match self {
            Task::Click | Task::Rating => Loss::Bce,
            Task::Classes => Loss::Softmax,
            // Of pairs, the difference of scores has the label 1.
            Task::Ranking if examples == Examples::Pairs => Loss::Bce,
            Task::Ranking => Loss::Multinomial,
        }
    }

    /// The metric that picks the epoch unless a config names one.
    pub fn select(self) -> Metric {
        let name = match self {
            Task::Click | Task::Rating => "auc",
            Task::Ranking => "ndcg@10",
            Task::Classes => "accuracy",
        };
        name.parse().expect("a metric's name")
    }

    /// Why a metric means nothing here, if it does not.
    pub fn refuses(self, metric: Metric) -> Option<String> {
        let (of, instead) = match self {
            Task::Click | Task::Rating if metric == Metric::MacroF1 => ("of classes", "auc"),
            Task::Classes if metric.is_ranking() => ("of ranked items", "accuracy"),
            Task::Classes if metric.is_binary() => ("of labels 0 and 1", "accuracy"),
            Task::Ranking if !metric.is_ranking() => ("of rows", "ndcg@20"),
            _ => return None,
        };
        let what = match self {
            Task::Click => "whether a label is 1",
            Task::Rating => "whether a rating is high",
            Task::Ranking => "which items a user has",
            Task::Classes => "classes",
        };
        Some(format!(
            "{metric} is a metric {of}, and this trial learns {what}: choose one such as \"{instead}\""
        ))
    }
}
