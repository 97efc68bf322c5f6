//! What a trainer needs from data: shapes, and batches in buffers that are used again.

use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;

/// The ids of one field in a batch of B examples.
#[derive(Clone, Debug, Default)]
pub struct Bag {
    /// All ids, example after example.
    pub ids: Vec<u32>,
    /// Where each example's ids begin, [B+1]; empty where every example has exactly one id.
    pub offsets: Vec<u32>,
}

impl Bag {
    /// Forgets all ids; keeps the memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.offsets.clear();
    }

    /// The range of `ids` that belongs to example `i`.
    #[inline]
    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        match self.offsets.is_empty() {
            true => i..i + 1,
            false => self.offsets[i] as usize..self.offsets[i + 1] as usize,
        }
    }
}

/// B examples.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Number of examples B.
    pub size: usize,
    /// Dense features [B × dense], row-major.
    pub dense: Vec<f32>,
    /// Categorical features, a bag per field.
    pub fields: Vec<Bag>,
    /// Targets [B]: 0 or 1, or the class.
    pub labels: Vec<f32>,
    /// How much each example counts in the loss [B]; empty where all count alike.
    pub weights: Vec<f32>,
    /// The query of each example [B], ascending; empty where examples are scored alone.
    pub groups: Vec<u32>,
    /// For models with an output per item, the items that each example asks for.
    pub targets: Bag,
    /// Items that an evaluation does not rank, ascending: those that the user is known to have.
    pub seen: Bag,
    /// The only items that an evaluation ranks; empty for all.
    pub candidates: Bag,
    /// Keys all that is drawn at random for this batch.
    pub key: u64,
    /// In an evaluation, the row of the data that each example stands in [B].
    pub rows: Vec<u32>,
    /// In an evaluation, the data's own number of each example's user [B]; empty where there is
    /// none.
    pub users: Vec<u32>,
}

impl Batch {
    /// Forgets all examples; keeps the memory.
    pub fn clear(&mut self) {
        self.size = 0;
        self.dense.clear();
        self.fields.iter_mut().for_each(Bag::clear);
        self.labels.clear();
        self.weights.clear();
        self.groups.clear();
        self.targets.clear();
        self.seen.clear();
        self.candidates.clear();
        self.rows.clear();
        self.users.clear();
    }
}

/// A categorical field.
#[derive(Clone, Debug)]
pub struct FieldShape {
    /// Its name in the data set.
    pub name: String,
    /// Number of ids.
    pub vocab: u32,
    /// Training rows per id [vocab].
    pub counts: Arc<[u32]>,
}

/// The shape of a data set as a model sees it.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Number of dense features.
    pub dense: usize,
    /// The categorical fields.
    pub fields: Vec<FieldShape>,
    /// Number of classes of the label, 2 for clicks and likes; or of items to choose from.
    pub classes: usize,
    /// Training examples in an epoch.
    pub train_rows: u64,
    /// The items that are ranked, where there are any.
    pub items: Option<Items>,
}

/// The items of a ranking, whose ids are ranks by training count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Items {
    /// The field of candidates, in examples that have one each.
    pub field: usize,
    /// Items below this are the head: the most frequent, with a third of all training rows.
    pub head: u32,
    /// From the head's end to here is the torso, another third; the rest is the tail.
    pub torso: u32,
    /// Items from here on are unknown: they cannot be ranked, and count as missed.
    pub known: u32,
}

/// How a model wants its examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Examples {
    /// A row each, as the data has them.
    #[default]
    Rows,
    /// A user each: a random half of the items is the history, the rest are the targets.
    Users,
    /// A user's next item each, with all that came before as the history.
    Events,
    /// A user's item each: the other items are the history; then the item, and one that the user
    /// does not have.
    Pairs,
}

/// The part of the data that an evaluation reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Selects the epoch.
    Valid,
    /// Read once, at the end.
    Test,
}

impl Split {
    /// The name in metric keys.
    pub fn name(self) -> &'static str {
        match self {
            Split::Valid => "valid",
            Split::Test => "test",
        }
    }
}

/// How examples are presented for evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Each example on its own: AUC, log loss, accuracy.
    Rows,
    /// Each positive against its candidates: nDCG, HR, Recall, MRR.
    Ranking,
}

/// The order of one training epoch.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The trial's seed.
    pub seed: u64,
    /// Counted from 0.
    pub epoch: u32,
    /// Examples a batch.
    pub batch: usize,
    /// Batches to leave out at the start, for resuming inside an epoch.
    pub skip: u64,
    /// Let the unknown id stand for ids of one training row in half of the epochs, so that its row
    /// is trained.
    pub train_unknown: bool,
}

/// The receiver of batches; it may stop the stream.
pub type Visit<'a> = &'a mut dyn FnMut(&Batch) -> ControlFlow<()>;

/// A data set: a source of batches whose order is a function of (seed, epoch) alone.
pub trait Data: Sync {
    /// Fields, vocabularies, counts.
    fn shape(&self) -> &Shape;
    /// True where the split has examples for the task.
    fn has(&self, split: Split, protocol: Protocol) -> bool;
    /// Streams the training examples of one epoch.
    fn train(&self, order: Order, visit: Visit<'_>);
    /// Streams a uniform sample of at most `rows` training rows, without sampled negatives; the
    /// same for the same seed.
    fn sample(&self, rows: u64, seed: u64, visit: Visit<'_>);
    /// Streams the examples of a split in a fixed order.
    fn eval(&self, split: Split, protocol: Protocol, batch: usize, visit: Visit<'_>);
}
