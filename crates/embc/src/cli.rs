//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use embc_lab::axis::Bytes;
use std::path::PathBuf;

mod choose;
mod completions;
mod model;
mod table;

pub use choose::{Choose, Way};
pub use completions::{Completions, CompletionsOf};
pub use model::{Bench, Export, HashAs, PageCache, Part, Predict};
pub use table::{Compress, Decompress};

/// Which embedding compression should I use on my data, at what budget, and what does it cost me?
///
/// embc trains recommender models whose embedding tables are compressed in different ways, and
/// compares them at equal memory: several seeds, error bars, parameters and bytes.
///
/// Start with:  embc sweep --config quickstart
///
/// Your data:   embc init FILE, then  embc choose NAME --budget-bytes SIZE
///
/// Your table:  embc compress FILE --budget-bytes SIZE
#[derive(Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

/// Options of every command.
#[derive(Args, Clone)]
pub struct Global {
    /// Where downloads and caches lie
    #[arg(long, global = true, env = "EMBC_DATA_DIR", default_value = "data", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// A registry of data sets to add to the built-in one; may be repeated
    #[arg(long, global = true, env = "EMBC_DATASETS", value_name = "FILE", value_delimiter = ':')]
    pub datasets: Vec<PathBuf>,
    /// Where records of trials lie
    #[arg(long, global = true, default_value = "results", value_name = "DIR")]
    pub results: PathBuf,
    /// Train although the estimate exceeds the free memory
    #[arg(long, global = true)]
    pub overcommit: bool,
    /// Say more; -vv says all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: Color,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
pub enum Command {
    Init(Init),
    Choose(Choose),
    Train(Train),
    Sweep(Sweep),
    Trial(Trial),
    Predict(Predict),
    Export(Export),
    Bench(Bench),
    Compress(Compress),
    Decompress(Decompress),
    Report(Report),
    Compare(Compare),
    Recommend(Recommend),
    /// List, describe, download, ingest or generate data sets
    Data {
        #[command(subcommand)]
        command: Data,
    },
    List(List),
    /// Check what is proved, without data or training
    Theory {
        #[command(subcommand)]
        command: Theory,
    },
    Completions(Completions),
}

/// Understand files as they are, and write a data set and an experiment that run
///
/// Reads CSV and TSV (by tab, comma, semicolon, bar or ::, with or without a header), Parquet, Arrow
/// files, JSON lines, RecBole's atomic files, libsvm and libffm; plain, .gz, .zst or .zip; a file, a
/// folder of parts, a pattern. Every row is read, once: what a column is for is decided by all of its
/// values, and NAME.data.toml says why. The rows come first: a later file with other columns that
/// shares one with them is a table of attributes.
///
///   embc init clicks.csv
///   embc init clicks/ --label bought
///   embc init shop.inter shop.item
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Init {
    /// Files, folders or patterns: parts of one table, and tables of attributes
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The column to predict, where it is not found by its name
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,
    /// The data set's name; the first file's by default
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where NAME.data.toml and NAME.toml go
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
    #[command(flatten)]
    pub json: Json,
    /// The most memory to take
    #[arg(long, default_value = "2GiB", value_name = "SIZE")]
    pub memory: Bytes,
}

/// Train one trial: the first scheme, budget and seed of a config, or those that --set names.
///
///   embc train --config memcom_ml20m --set scheme.kind=memcom --set budget.compression=[16]
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Train {
    /// The experiment: a path, or a name under configs/
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Override a key, such as train.epochs=2 or scheme.kind=memcom; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The seed, instead of the config's first
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads; the numbers do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Save weights (safetensors), vocabularies and the trial's record here
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write the test rows' scores to this file as CSV: row or query and item, label, score
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    #[command(flatten)]
    pub keep: Keep,
}

/// How much work may be lost.
#[derive(Args)]
pub struct Keep {
    /// Time between checkpoints inside an epoch; at the ends of epochs they come more often. A trial
    /// that is cut off goes on from its last one, to the same numbers
    #[arg(long, value_name = "TIME", default_value = "5min")]
    pub checkpoint_every: humantime::Duration,
    /// After so long without a word from the process that runs a trial, others may take it over; one
    /// that has died on this machine is seen at once
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = lease)]
    pub lease: humantime::Duration,
}

/// Run all trials of experiments that are not recorded yet, and print their tables.
///
///   embc sweep --config quickstart --filter 'memcom|full'
///   embc sweep --config big --on slurm --workers 32 -- --time=4:00:00 --mem=16G
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Sweep {
    /// The experiments: paths, or names under configs/
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    pub config: Vec<PathBuf>,
    /// Only trials whose name matches, such as 'memcom, compression 16'
    #[arg(long, value_name = "REGEX")]
    pub filter: Option<regex::Regex>,
    /// Override a key, such as train.seeds=[1]; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// List the trials, and run nothing: id, state, memory, time as others took it; as JSON a line
    /// each that `embc trial` runs
    #[arg(long)]
    pub list: bool,
    /// Run nothing, say what other processes and machines do until all trials are done, and print the
    /// tables
    #[arg(long, conflicts_with = "list")]
    pub watch: bool,
    #[command(flatten)]
    pub json: Json,
    /// Run also what is done; the newer record counts
    #[arg(long)]
    pub rerun: bool,
    /// Run also what failed before
    #[arg(long)]
    pub retry_failed: bool,
    /// Stop at the first failure; what is running then keeps a checkpoint
    #[arg(long)]
    pub fail_fast: bool,
    /// Go on after a failure, which is recorded: the default
    #[arg(long, conflicts_with = "fail_fast")]
    pub keep_going: bool,
    /// Trials at once, as far as memory allows; by default all cores are used, one thread a trial
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Threads of a trial; the numbers do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Write the test rows' scores of each trial that runs as CSV: FILE with the trial's id before
    /// its extension
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    #[command(flatten)]
    pub keep: Keep,
    /// Start workers elsewhere instead, on a folder that they share: each is this command, and takes
    /// trials until none is left
    #[arg(long, value_name = "WHERE", value_parser = starters(), conflicts_with_all = ["list", "watch", "scores", "rerun", "retry_failed"])]
    pub on: Option<String>,
    /// How many workers
    #[arg(long, value_name = "N", default_value = "1", requires = "on")]
    pub workers: usize,
    /// Print what would start them, and start nothing
    #[arg(long, requires = "on")]
    pub dry_run: bool,
    /// What sbatch is told, or for --on kubernetes image=IMAGE claim=VOLUME
    #[arg(last = true, value_name = "EXTRA", requires = "on")]
    pub extra: Vec<String>,
}

fn lease(text: &str) -> Result<humantime::Duration, String> {
    let time: humantime::Duration = text.parse().map_err(|error| format!("{error}"))?;
    if time.as_secs() == 0 {
        return Err("a second at least: it is renewed every third of that".into());
    }
    Ok(time)
}

fn starters() -> clap::builder::PossibleValuesParser {
    let value = |starter: &&'static dyn embc_lab::workers::Starter| {
        clap::builder::PossibleValue::new(starter.name()).help(starter.doc())
    };
    clap::builder::PossibleValuesParser::new(embc_lab::workers::STARTERS.iter().map(value))
}

/// Run one trial, as `embc sweep --list --format json` describes it, and print its record
///
///   embc sweep --config quickstart --list --format json | head -1 > trial.json
///   embc trial trial.json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Trial {
    /// The order: dataset, experiment, label, metrics, and the spec of all that decides its numbers
    #[arg(value_name = "FILE")]
    pub order: PathBuf,
    /// Train it although it has a record
    #[arg(long)]
    pub rerun: bool,
    /// Threads; the numbers do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub keep: Keep,
}

/// Render tables from recorded trials; all experiments with results unless some are named.
#[derive(Args)]
pub struct Report {
    /// Experiments: config paths, names under configs/, or files of records
    #[arg(value_name = "EXPERIMENT|FILE")]
    pub experiments: Vec<PathBuf>,
    /// How to render them
    #[arg(long, value_enum, default_value = "md")]
    pub format: Format,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Add who shares what: ids with a row of their own, load and entropy of rows
    #[arg(long)]
    pub collisions: bool,
    /// Instead, what the records say of claims: a file with [[claim]], as results/claims.toml has
    #[arg(long, value_name = "FILE", conflicts_with_all = ["experiments", "format", "collisions", "check"])]
    pub claims: Option<PathBuf>,
    /// Enforce the [[expect]] bounds and that reports beside the records are up to date: exit 1 where
    /// one is broken
    #[arg(long)]
    pub check: bool,
}

/// Compare two schemes of an experiment, or two files of results, seed by seed
///
/// Differences at each budget, or of each cell that both files have, with intervals.
///
///   embc compare memcom 'qr concat' --in memcom_steam
///   embc compare before/x.jsonl after/x.jsonl
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Compare {
    /// A scheme's label; or an experiment with results, or a file of records
    #[arg(value_name = "A")]
    pub a: String,
    /// What to take from it
    #[arg(value_name = "B")]
    pub b: String,
    /// The experiment of the two schemes
    #[arg(long = "in", value_name = "EXPERIMENT")]
    pub experiment: Option<PathBuf>,
    /// The metric, such as auc or valid/auc; by default the experiment's on the test split
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
}

/// Say which scheme to use within so many bytes
///
/// From recorded trials: picked on validation, judged on test, with what it loses against the full
/// table; a sentence an experiment.
///
///   embc recommend memcom_steam --budget-bytes 100KiB
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Recommend {
    /// Experiments, preferably on data like yours; all with results unless some are named
    #[arg(value_name = "EXPERIMENT")]
    pub experiments: Vec<PathBuf>,
    /// The most that the embedding may take, pointers and codes included
    #[arg(long, value_name = "SIZE")]
    pub budget_bytes: Bytes,
    /// What to be good at; by default each experiment's metric
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<embc_core::metric::Metric>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables in Markdown.
    Md,
    /// The plot of an experiment with `[table] loss`.
    Svg,
    /// Every metric of every cell, over its seeds, a line each.
    Csv,
    /// The same as JSON, an object a line.
    Json,
    /// The table of values, for a paper.
    Latex,
    /// One page with everything: curves to ask, tables that sort, all trials; loads nothing.
    Html,
}

#[derive(Subcommand)]
pub enum Data {
    /// List all data sets, and whether they are here
    List {
        #[command(flatten)]
        json: Json,
    },
    /// Describe a data set: rows, label rate, fields, splits
    Info {
        /// Its name in the registry
        name: String,
        #[command(flatten)]
        json: Json,
    },
    /// Download a data set, or say where to get it
    Fetch {
        /// Its name in the registry
        name: String,
    },
    /// Read a data set's raw files into the cache
    Ingest {
        /// Its name in the registry
        name: String,
        /// The most memory to take
        #[arg(long, default_value = "2GiB", value_name = "SIZE")]
        memory: Bytes,
    },
    /// Write synthetic data as raw text, with a registry for it
    Synth {
        /// gmf: users x items with a planted inner product; criteo: Criteo's layout; shop: purchases in
        /// sessions, with clusters and popularity
        #[arg(value_parser = ["gmf", "criteo", "shop"])]
        kind: String,
        /// Training rows (gmf) or all rows
        #[arg(long, value_name = "N")]
        rows: u64,
        /// Where to write them; made if need be
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
        /// Users and items (gmf), or items (shop)
        #[arg(long, default_value_t = 6000, value_name = "N")]
        vocab: u32,
        /// Seed of the draw
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
    },
}

/// How to print.
#[derive(Args, Clone, Copy)]
pub struct Json {
    /// Print for people, or for programs
    #[arg(long, value_enum, default_value = "text")]
    pub format: TextOrJson,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextOrJson {
    Text,
    Json,
}

/// List what there is to choose from.
#[derive(Args)]
pub struct List {
    /// What to list
    #[arg(value_enum)]
    pub what: What,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Ways to compress, and their knobs
    Schemes,
    /// Networks, and their knobs
    Models,
    /// Data sets, and whether they are here
    Datasets,
    /// Configs under configs/, how much of each has been trained, and what it found
    Experiments,
    /// What trials are scored by
    Metrics,
    /// Update rules
    Optimizers,
    /// Every key of a config and of a registry; as JSON, their schemas for an editor
    Keys,
}

#[derive(Subcommand)]
pub enum Theory {
    /// CCE on least squares: losses of iterations against the theorem's bound (CCE §3, Theorem 3.1)
    ///
    ///   embc theory lsq --config cce_lsq_dense
    #[command(verbatim_doc_comment)]
    Lsq(Study),
    /// LMA: memory that two values share against how much their rows overlap (LMA §3)
    ///
    ///   embc theory lma --config lma_kernel
    #[command(verbatim_doc_comment)]
    Lma(Study),
}

/// A study: what to compute, and how to show it.
#[derive(Args)]
pub struct Study {
    /// The study: a path, or a name under configs/
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// How to render it
    #[arg(long, value_enum, default_value = "md")]
    pub format: StudyFormat,
    /// Write to a file instead of stdout; of --format all, the folder of the three files
    #[arg(long, value_name = "PATH", required_if_eq("format", "all"))]
    pub output: Option<PathBuf>,
    /// Threads; the numbers do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StudyFormat {
    /// Words and a table in Markdown.
    Md,
    /// The curves.
    Svg,
    /// All values: curve, x, mean, half the width of the interval.
    Csv,
    /// NAME.md, NAME.svg and NAME.csv, computed once.
    All,
}
