//! What a table is compressed to: the registry of methods, and what each must do.
//!
//! A [`Method`] plans, before anything is read, what fits a budget and what it takes to the byte; a
//! [`Plan`] fits a [`Form`] to the table, which states how a row comes of an id, as trained schemes
//! do. Everything else follows from that program.

use crate::table::Table;
use anyhow::Result;
use embc_core::cancel::Cancel;
use embc_core::graph::Graph;
use embc_core::graph::device::program::Node;
use embc_core::packed::Packed;
use embc_core::quantize::{self, Codes, Fit, Storage};
use embc_core::rng::Rng;

mod cce;
mod clusters;
mod codes;
mod factorized;
mod scalar;
mod shared;
mod tiers;
mod truncate;

/// All methods, in the order in which they are tried. A new one is a file and a line here.
pub static METHODS: &[&dyn Method] = &[
    &shared::Shared,
    &scalar::Scalar,
    &codes::Product,
    &codes::Rotated,
    &codes::Residual,
    &factorized::Factorized,
    &truncate::TruncateRare,
    &clusters::Clusters,
    &cce::Cce,
    &tiers::Tiers,
];

/// The method called `name`.
pub fn find(name: &str) -> Option<&'static dyn Method> {
    METHODS.iter().copied().find(|method| method.name() == name)
}

/// Schemes that are trained, and cannot be fitted: why not.
pub const UNFIT: &[(&str, &str)] = &[
    ("hash", "rows that share a bucket would read its mean"),
    ("memcom", "one weight a row cannot tell apart the rows of a bucket"),
    ("qr", "a quotient's and a remainder's rows have nothing in common with a finished row"),
];

/// What a method knows of a table before it is read.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub dim: usize,
    /// True where the first rows are those that are read most.
    pub ranked: bool,
    /// Where rows are vectors times weights: the vectors, and different weights in half precision.
    pub shared: Option<[usize; 2]>,
}

/// What fitting reads.
pub struct Fitting<'a> {
    /// The table.
    pub table: &'a Table,
    /// Rows that codebooks are fitted to [n × dim], and which they are.
    pub sample: Vec<f32>,
    /// See `sample`.
    pub sampled: Vec<usize>,
    /// Ends it early; what comes of it is then of no use.
    pub cancel: &'a Cancel,
    /// A stream of the method's own.
    pub rng: Rng,
}

/// Rows that codebooks are fitted to: as many as FAISS takes for 256 centroids, or 512 MiB of them.
fn sample_rows(dim: usize) -> usize {
    (256 * 256).min((512 << 20) / 4 / dim).max(1)
}

/// Columns beyond which products of all with all take too much memory and time.
const WIDE: usize = 4096;

impl<'a> Fitting<'a> {
    /// To fit methods to a table.
    pub fn new(table: &'a Table, cancel: &'a Cancel, rng: Rng) -> Result<Self> {
        let most = sample_rows(table.dim);
        let (sample, sampled) = table.sample(most, &mut rng.fork(0))?;
        Ok(Self { table, sample, sampled, cancel, rng })
    }

    /// The weights of the sampled rows; none where counts are not known.
    pub fn weights(&self) -> Option<Vec<u32>> {
        let counts = &self.table.counts;
        (!counts.is_empty()).then(|| self.sampled.iter().map(|&id| counts[id]).collect())
    }
}

/// Fits a form.
pub type Build<'a> = Box<dyn Fn(&Fitting<'_>) -> Result<Box<dyn Form>> + Send + Sync + 'a>;

/// A form of a size, decided before anything is read.
pub struct Plan {
    /// Its method.
    pub method: &'static str,
    /// What it keeps, in words.
    pub sizes: String,
    /// Its bytes: values, ranges, codes and pointers.
    pub bytes: u64,
    /// Fits it.
    pub build: Build<'static>,
}

/// A compressed table.
pub trait Form: Send + Sync {
    /// States how rows come of ids [N × 1]; `at` begins the names of its tensors.
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node;
}

/// A registry entry.
pub trait Method: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What it keeps, in a line.
    fn doc(&self) -> &'static str;
    /// True where it treats the first rows better: where they are not those that are read most, it
    /// needs a list of ranks.
    fn needs_ranks(&self) -> bool {
        false
    }
    /// What it can be within so many bytes, the most promising first; empty where nothing fits.
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan>;
}

/// All plans of a method for a table within so many bytes.
pub fn plans(method: &dyn Method, table: &Table, budget: u64) -> Vec<Plan> {
    let shared = table
        .parts
        .as_ref()
        .map(|of| [of.vectors.len() / table.dim, shared::weights(&of.weights).len()]);
    let ranked = table.is_ranked();
    let shape = Shape { rows: table.rows, dim: table.dim, ranked, shared };
    if ranked || !method.needs_ranks() {
        return method.plans(&shape, budget);
    }
    let rows = table.rows as u64;
    let ranks = Packed::bytes(rows, rows);
    let Some(left) = budget.checked_sub(ranks) else { return Vec::new() };
    let plans = method.plans(&Shape { ranked: true, ..shape }, left).into_iter();
    plans.map(|plan| Plan { bytes: plan.bytes + ranks, ..by_rank(plan) }).collect()
}

/// The plan of a table in the order of counts, and the rank of each row.
fn by_rank(Plan { method, sizes, bytes, build }: Plan) -> Plan {
    let build = move |of: &Fitting<'_>| {
        let (table, order) = of.table.ranked();
        let inner = build(&Fitting::new(&table, of.cancel, of.rng.clone())?)?;
        let mut rank = Packed::zeros(order.len() as u64, order.len() as u64);
        (0..).zip(&order).for_each(|(place, &id)| rank.set(id as usize, place));
        let form: Box<dyn Form> = Box::new(Ranked { rank, rows: order.len() as u64, inner });
        Ok(form)
    };
    Plan { method, sizes: format!("{sizes}; ranks"), bytes, build: Box::new(build) }
}

/// A form of rows in the order of their counts.
struct Ranked {
    rank: Packed,
    rows: u64,
    inner: Box<dyn Form>,
}

impl Form for Ranked {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        let rank = g.unpack(ids, &format!("{at}rank"), &self.rank, (self.rows, 1));
        self.inner.graph(g, rank, at)
    }
}

/// The largest size in 1..=`most` that takes at most `budget` bytes; bytes grow with the size.
fn largest(most: usize, budget: u64, bytes: impl Fn(usize) -> u64) -> Option<usize> {
    let (mut fits, mut exceeds) = (0, most + 1);
    while exceeds - fits > 1 {
        let size = fits + (exceeds - fits) / 2;
        if bytes(size) <= budget { fits = size } else { exceeds = size }
    }
    (fits > 0).then_some(fits)
}

/// Narrow values [rows × width], in groups of a row or more.
struct Values {
    codes: Codes,
    width: usize,
}

impl Values {
    fn bytes(rows: usize, width: usize, storage: Storage) -> u64 {
        storage.bytes((rows * width) as u64, quantize::group(width))
    }

    /// Of values that are there.
    fn of(values: &[f32], width: usize, storage: Storage) -> Self {
        let mut codes = Codes::zeros(storage, values.len() as u64, quantize::group(width));
        codes.write(0, values, fit(storage));
        Self { codes, width }
    }

    /// What they stand for.
    fn decoded(&self) -> Vec<f32> {
        (0..self.codes.len() as usize).map(|at| self.codes.get(at)).collect()
    }

    fn gather<'a>(&'a self, g: &mut Graph<'a>, ids: Node, name: &str) -> Node {
        g.decode(ids, name, &self.codes, self.width)
    }
}

/// How ranges are chosen: where there are few levels, a wide one costs more than values outside it.
fn fit(storage: Storage) -> Fit {
    match storage {
        Storage::Int4 | Storage::Int2 => Fit::LeastSquares,
        _ => Fit::Whole,
    }
}

/// Counts of bytes as people read them: 7.0 MB.
pub fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} bytes"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..10_000_000 => format!("{:.2} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}
