//! Commands on a trained model.

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, ValueEnum};
use embc_lab::axis::Bytes;
use embc_lab::export::{FORMATS, Format};
use std::path::PathBuf;

use super::Json;

/// Score the rows of files with a model that `embc train --out` saved
///
/// Files may be of any form that `embc init` reads, with the columns that the model was trained on;
/// a label need not be there. Prints row and score (a logit), or row, class and score; what the
/// model does not know is counted.
///
///   embc train --config clicks.toml --out model
///   embc predict model new.parquet --output scores.csv
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Predict {
    /// The model's folder
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Files, folders or patterns: parts of one table
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// For models of histories: the files are users' events, and the best N items of each user that
    /// the user does not have are written as user,rank,item,score
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,
    /// Write to a file instead of stdout
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The most memory to take for reading
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    pub memory: Bytes,
}

/// Write a trained model for elsewhere: ONNX, one mapped file, or plain arrays
///
/// MODEL is a folder that `embc train --out` wrote. What is written computes is run on test rows, and
/// compared with the model; every byte is listed beside what the trial's record promised.
///
///   embc export m                          m/onnx: for ONNX Runtime, in Python, on servers, in apps
///   embc export m --format packed          m/packed/model.embc: mapped, from Rust or C
///   embc export m --format npy             m/npy/FIELD.npy: the rows of all ids, not compressed
///   embc export m --part embedding         the embeddings, without the model on top
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Export {
    /// The model's folder
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// What to write
    #[arg(long, default_value = "onnx", value_parser = formats())]
    pub format: String,
    /// The folder to write to; MODEL/FORMAT by default
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// The whole model, or the embeddings alone
    #[arg(long, value_enum, default_value = "model")]
    pub part: Part,
    /// Where a hash picks the row: compute it, or list the row of every id, for runtimes that do not
    /// multiply unsigned 64-bit integers
    #[arg(long, value_enum, default_value = "graph")]
    pub hash_as: HashAs,
    /// Leave out the values of ids: the caller knows them
    #[arg(long)]
    pub without_vocabulary: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Model,
    Embedding,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HashAs {
    Graph,
    Remap,
}

/// Measure what trained models cost where they run: file, memory, page faults, latencies
///
/// Each model is packed, and read in a process of its own by the reader that apps have: cold, its
/// pages dropped from the page cache, and warm. Ids are those of real test rows: one at a time, a
/// session of 100, whole examples, and 4,096 at once.
///
///   embc bench m
///   embc bench full memcom --format json
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Bench {
    /// Folders of models
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<PathBuf>,
    #[command(flatten)]
    pub json: Json,
    /// A packed file that this process measures, MODEL its sample of rows
    #[arg(long, hide = true, value_name = "FILE")]
    pub measure: Option<PathBuf>,
    /// The state of the page cache in which it is measured
    #[arg(long, hide = true, value_enum, default_value = "warm")]
    pub state: PageCache,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PageCache {
    Cold,
    Warm,
}

fn formats() -> PossibleValuesParser {
    let value = |format: &&dyn Format| PossibleValue::new(format.name()).help(format.doc());
    PossibleValuesParser::new(FORMATS.iter().map(value).collect::<Vec<_>>())
}
