//! Compression schemes: the registry, and what a scheme must do.
//!
//! A [`Scheme`] is an entry of [`SCHEMES`]: it documents itself and, within a budget, makes a
//! [`Plan`] with sizes and memory for each table before anything is allocated. A plan builds an
//! [`Embedding`], which looks ids up, takes gradients and walks its state. A scheme knows no
//! optimizer, no model, no field layout and no data set.

use crate::allocate::Choice;
use crate::batch::Data;
use crate::cancel::Cancel;
use crate::graph::Graph;
use crate::hash::HashFamily;
use crate::init::Init;
use crate::param::Param;
use crate::quantize::Storage;
use crate::rng::Rng;
use crate::state::{State, Tensors};
use embc_device::program::{Int, Node, Op};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;
use std::sync::Arc;

mod binary;
mod bloom;
mod cce;
mod ce;
mod coded;
mod cqr;
mod dhe;
mod double_hash;
mod factorized;
mod full;
mod hash;
mod hash_embedding;
mod hashednet;
mod hot;
mod lma;
mod memcom;
mod mixed_dim;
mod opq;
mod pq;
mod qr;
mod reduce_dim;
mod robe;
mod rq;
mod signed_hash;
mod sum;
mod trained;
mod truncate_rare;
mod tt;
mod unified;

/// All schemes, in the order of `embc list schemes`. A new scheme is one file and one line here.
pub static SCHEMES: &[&dyn Scheme] = &[
    &full::Full,
    &hash::HashTrick,
    &signed_hash::SignedHash,
    &double_hash::DoubleHash,
    &bloom::Bloom,
    &hash_embedding::HashEmbedding,
    &qr::QuotientRemainder,
    &memcom::Memcom,
    &hot::Hot,
    &factorized::Factorized,
    &reduce_dim::ReduceDim,
    &truncate_rare::TruncateRare,
    &mixed_dim::MixedDim,
    &ce::CompositionalEmbedding,
    &unified::Unified,
    &cce::Cce,
    &cqr::Cqr,
    &hashednet::HashedNet,
    &robe::Robe,
    &tt::TensorTrain,
    &dhe::DeepHash,
    &lma::Lma,
    &pq::ProductQuantisation,
    &opq::OptimisedProduct,
    &rq::ResidualQuantisation,
    &binary::Binary,
];

/// The scheme called `name`.
pub fn find(name: &str) -> Option<&'static dyn Scheme> {
    SCHEMES.iter().copied().find(|scheme| scheme.name() == name)
}

/// Settings of a scheme, as written in a `[[scheme]]`.
pub type Knobs = serde_json::Map<String, serde_json::Value>;

/// Reads typed knobs; the error is serde's, with the names that exist.
pub fn knobs<T: DeserializeOwned>(knobs: &Knobs) -> Result<T, PlanError> {
    serde_json::from_value(knobs.clone().into()).map_err(|e| PlanError::Knob(e.to_string()))
}

/// Refuses any knob, for schemes without.
fn no_knobs(knobs: &Knobs) -> Result<(), PlanError> {
    knobs.keys().next().map_or(Ok(()), |key| {
        Err(PlanError::Knob(format!("unknown field `{key}`, there are no knobs")))
    })
}

/// The knobs that a type holds by default, as a map.
pub fn defaults<T: Serialize + Default>() -> Knobs {
    match serde_json::to_value(T::default()) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => Knobs::new(),
    }
}

/// What `embc list schemes` says about a scheme.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Doc {
    /// One line.
    pub short: &'static str,
    /// A paragraph: what it does, when it helps, what it costs.
    pub long: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// The embedding of id i.
    pub equation: &'static str,
    /// What is kept in memory, with shapes.
    pub stores: &'static str,
    /// Which ids share what, and how probably.
    pub collisions: &'static str,
    /// Name and meaning of each knob.
    pub knobs: &'static [(&'static str, &'static str)],
}

/// A table that a model wants.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// The field's name, for messages.
    pub name: String,
    /// Number of ids.
    pub vocab: u32,
    /// Width of the embedding that the experiment asks for.
    pub dim: usize,
    /// Training rows per id [vocab].
    pub counts: Arc<[u32]>,
}

impl TableSpec {
    /// Parameters of the uncompressed table.
    pub fn full_params(&self) -> u64 {
        u64::from(self.vocab) * self.dim as u64
    }
}

/// How a table's parameters are stored after training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Bits of a value.
    pub storage: Storage,
    /// Values that share a range.
    pub group: usize,
}

/// The most that a table may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Trained parameters.
    Params(u64),
    /// Bytes of parameters, pointers and codes, and how a parameter is stored.
    Bytes(u64, Precision),
    /// No limit: the scheme's own full size.
    None,
}

impl Limit {
    /// True where `footprint` fits.
    pub fn holds(self, footprint: Footprint) -> bool {
        match self {
            Limit::Params(limit) => footprint.params <= limit,
            Limit::Bytes(limit, stored) => footprint.stored(stored).bytes() <= limit,
            Limit::None => true,
        }
    }

    /// The largest size in 1..=`most` whose footprint fits; footprints grow with the size.
    pub fn largest(self, most: u64, footprint: impl Fn(u64) -> Footprint) -> Option<u64> {
        let (mut fits, mut exceeds) = (0, most + 1);
        while exceeds - fits > 1 {
            let size = fits + (exceeds - fits) / 2;
            if self.holds(footprint(size)) {
                fits = size;
            } else {
                exceeds = size;
            }
        }
        (fits > 0).then_some(fits)
    }

    /// The sum of two limits of one kind.
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Limit::Params(a), Limit::Params(b)) => Limit::Params(a.saturating_add(b)),
            (Limit::Bytes(a, stored), Limit::Bytes(b, other)) => {
                let group = stored.group.min(other.group);
                let sum = a.saturating_add(b).saturating_sub(stored.storage.rounding());
                Limit::Bytes(sum, Precision { group, ..stored })
            }
            _ => Limit::None,
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::Params(n) => write!(f, "{n} parameters"),
            Limit::Bytes(n, _) => write!(f, "{n} bytes"),
            Limit::None => write!(f, "no limit"),
        }
    }
}

/// The memory of an embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Trained parameters, the papers' axis.
    pub params: u64,
    /// Bytes of parameters at the width they are stored in.
    pub param_bytes: u64,
    /// Bytes of pointers, codes, remaps and signatures at their packed width, and of rotations.
    pub index_bytes: u64,
    /// Bytes held in training, before gradients and optimizer state.
    pub train_bytes: u64,
}

impl Footprint {
    /// Memory of `params` floats and nothing else.
    pub fn floats(params: u64) -> Self {
        let bytes = 4 * params;
        Self { params, param_bytes: bytes, index_bytes: 0, train_bytes: bytes }
    }

    /// The same parameters at the width they are stored in after training.
    pub fn stored(self, Precision { storage, group }: Precision) -> Self {
        Self { param_bytes: storage.bytes(self.params, group), ..self }
    }

    /// What has to be shipped: parameters and index.
    pub fn bytes(self) -> u64 {
        self.param_bytes + self.index_bytes
    }

    /// The memory of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            params: self.params + other.params,
            param_bytes: self.param_bytes + other.param_bytes,
            index_bytes: self.index_bytes + other.index_bytes,
            train_bytes: self.train_bytes + other.train_bytes,
        }
    }
}

/// Why a plan cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The config is wrong: an unknown or contradictory knob.
    #[error("{0}")]
    Knob(String),
    /// The budget is out of reach; the message names the bound and what would do.
    #[error("{0}")]
    Infeasible(String),
}

/// Builds an embedding from a random stream; the sizes are fixed in the closure.
pub type Build = Box<dyn Fn(&mut BuildCx<'_>) -> Box<dyn Embedding> + Send + Sync>;

/// The sizes of one table, decided before anything is allocated.
pub struct Plan {
    /// Width of the rows that the embedding returns.
    pub out_dim: usize,
    /// Memory of what will be built.
    pub footprint: Footprint,
    /// Parameters of the next larger size that the scheme could have; beyond any for `full`.
    pub larger: u64,
    /// The decided sizes in words, such as "512 rows x 32".
    pub sizes: String,
    /// Builds it.
    pub build: Build,
}

/// What a plan may use to build.
pub struct BuildCx<'a> {
    /// This table's own stream.
    pub rng: Rng,
    /// Index of the table in the layer.
    pub table: usize,
    /// Initial values.
    pub init: Init,
    /// The experiment's hash family, or the scheme's default.
    pub hash: Option<HashFamily>,
    /// The data fields whose ids this table holds, and the first id of each.
    pub fields: &'a [(usize, u32)],
    /// Where what is more than random comes from.
    pub origin: Origin<'a>,
    /// Set where what is built will not be used, and may be of no use.
    pub cancel: Cancel,
    /// Storage that rows train in, where it is not fp32.
    pub low: Option<Storage>,
    /// Which of its [`Embedding::choices`] a table is to become, where all share a budget.
    pub choice: Option<usize>,
}

/// Where an embedding's content comes from, beside its random stream.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    /// Nowhere.
    Nothing,
    /// The training data, which may be read again (LMA's signatures).
    Data(&'a dyn Data),
    /// Saved weights, which are copied into what is built: of the sizes that these have, and as it
    /// is after its last stage.
    Saved(&'a dyn Tensors),
}

impl BuildCx<'_> {
    /// A table by itself, from its random stream alone.
    pub fn new(rng: Rng) -> Self {
        let (init, origin, cancel) = (Init::default(), Origin::Nothing, Cancel::default());
        let (hash, fields, choice, low) = (None, &[][..], None, None);
        Self { rng, table: 0, init, hash, fields, origin, cancel, choice, low }
    }

    /// A parameter of `rows` rows for embeddings of width `dim`, of standard deviation `deviation`.
    fn rows(&mut self, name: &str, rows: u64, dim: usize, deviation: f32) -> Param {
        let Self { init, low, rng, .. } = self;
        let Some(storage) = low.filter(|_| dim > 1) else {
            let values = init.draw(rows as usize * dim, deviation, rng);
            return Param::rows(name, dim, values);
        };
        let seed = rng.fork(rows).bits();
        let mut draw = |rows: usize| init.draw(rows * dim, deviation, rng);
        Param::coded(name, dim, rows as usize, storage, seed, &mut draw)
    }

    /// A table of `rows` rows, `dim` wide.
    fn table(&mut self, rows: u64, dim: usize) -> Param {
        self.rows("table", rows, dim, self.init.deviation(rows, dim))
    }
}

/// A registry entry.
pub trait Scheme: Sync {
    /// The `kind` of a `[[scheme]]`.
    fn name(&self) -> &'static str;
    /// What `embc list schemes` says.
    fn doc(&self) -> Doc;
    /// Part of its trials' ids: raise it when the same knobs mean other numbers.
    fn version(&self) -> u32 {
        1
    }
    /// What it is until training ends, bit for bit, where it becomes itself only then: `full` for codes
    /// of a trained table. Trials of one parent share its training.
    fn parent(&self) -> Option<&'static str> {
        None
    }
    /// All knobs with their defaults.
    fn defaults(&self) -> Knobs {
        Knobs::new()
    }
    /// True for schemes that choose sizes across tables: no table is kept full beside them.
    fn spans_tables(&self) -> bool {
        false
    }
    /// True for schemes whose tables say after training what they could become, and share a budget
    /// of bytes by what it buys: their plans are upper bounds.
    fn decides_late(&self) -> bool {
        false
    }
    /// True for schemes whose rows can train in few bits.
    fn trains_low(&self) -> bool {
        false
    }
    /// Checks the knobs and picks sizes for one table. Pure.
    fn plan_table(&self, table: &TableSpec, limit: Limit, knobs: &Knobs)
    -> Result<Plan, PlanError>;
    /// Checks the knobs and picks sizes for all tables of the layer at once. Pure.
    fn plan(
        &self,
        tables: &[TableSpec],
        limits: &[Limit],
        knobs: &Knobs,
    ) -> Result<Vec<Plan>, PlanError> {
        tables.iter().zip(limits).map(|(t, &limit)| self.plan_table(t, limit, knobs)).collect()
    }
}

/// Scratch that lives from a gather to its scatter: row numbers, and inner activations. A scheme
/// sizes it as it likes; it keeps its memory from step to step.
#[derive(Debug, Default)]
pub struct Tape {
    /// Values.
    pub buffers: Vec<Vec<f32>>,
    /// Rows of the parameters that the batch's ids read.
    pub rows: Vec<Vec<u32>>,
    /// The tape of an embedding within.
    pub inner: Option<Box<Tape>>,
}

impl Tape {
    /// `n` lists of rows, as they were left.
    pub fn rows(&mut self, n: usize) -> &mut [Vec<u32>] {
        self.rows.resize(n, Vec::new());
        &mut self.rows
    }

    /// The first list of rows.
    pub fn first(&mut self) -> &mut Vec<u32> {
        &mut self.rows(1)[0]
    }
}

/// Where training stands, for schemes that act on a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Steps done in the trial.
    pub step: u64,
    /// Current epoch, from 0.
    pub epoch: u32,
    /// Steps of a whole epoch.
    pub steps_per_epoch: u64,
}

/// An embedding of one table. Rows are `out_dim` floats; ids are unique and below the vocabulary.
pub trait Embedding: Send + Sync {
    /// Writes the rows of `ids` [U] into `out` [U × out_dim]. Changes nothing but `tape`.
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape);
    /// Adds the gradient of the rows, `grad` [U × out_dim], to the parameters' gradients. `tape` is
    /// as the gather of the same `ids` left it, or another scatter of them.
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape);
    /// Visits all parameters in a fixed order.
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param));
    /// Visits everything a checkpoint needs; the names are unique within the embedding.
    fn state(&mut self, visit: State<'_>) {
        self.params(&mut |param| param.state(visit));
    }
    /// States how rows come from ids [N × 1], which are those of `gather`.
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node;
    /// The memory it holds.
    fn footprint(&self) -> Footprint;
    /// Called after every optimizer step; `rng` is a function of (seed, table, step). Once
    /// cancelled it may break off, and then has changed nothing.
    fn after_step(&mut self, _at: Clock, _cancel: &Cancel, _rng: Rng) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
    /// What it could become after training, in bytes as `stored`; `cost` is what an error of 1 in
    /// every value of every row costs. Nothing where it stays as it is.
    fn choices(&mut self, _cost: f64, _stored: Precision, _cx: &BuildCx<'_>) -> Vec<Choice> {
        Vec::new()
    }
    /// A post-training stage: what takes this embedding's place, if anything.
    fn finish(&mut self, _cx: &mut BuildCx<'_>) -> Option<Box<dyn Embedding>> {
        None
    }
    /// Epochs to train on after it took another's place.
    fn finetune(&self) -> u32 {
        0
    }
    /// Its sizes, where a plan could only bound them.
    fn sizes(&self) -> Option<String> {
        None
    }
    /// What it measured of itself, by name: the quantisation error of k-means.
    fn figures(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// The most rows that fit the limit, or why not one does. Not capped by the vocabulary: `rows = n`
/// gives every table exactly n.
fn rows_within(
    scheme: &str,
    table: &TableSpec,
    limit: Limit,
    footprint: impl Fn(u64) -> Footprint,
) -> Result<u32, PlanError> {
    let most = match limit {
        Limit::None => u64::from(table.vocab),
        _ => u64::from(u32::MAX),
    };
    limit.largest(most, &footprint).map(|m| m as u32).ok_or_else(|| {
        let least = footprint(1);
        PlanError::Infeasible(format!(
            "{scheme} cannot fit table {} in {limit}: its smallest form takes {} parameters in {} bytes",
            table.name, least.params, least.bytes()
        ))
    })
}
