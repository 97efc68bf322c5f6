//! Commands on a table that exists already.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use embc_lab::axis::Bytes;
use embc_table::form::METHODS;
use embc_table::output::{FORMATS, Format};
use embc_table::task::KINDS;
use std::path::PathBuf;

/// Compress a table of embeddings that exists already, and say what it loses
///
/// Reads .npy, a tensor of .safetensors, GloVe's and word2vec's text, word2vec's and fastText's .bin,
/// a folder of model2vec, a GGUF's token_embd, and Parquet with a column of lists. Everything that fits
/// the budget is tried: fitted, packed, read again, and compared with the table, by frequency, and by
/// what rows are for. DIR gets model.embc, the best of it, report.html, report.md, and tried.jsonl.
///
///   embc compress glove.npy --budget-bytes 10MiB
///   embc compress glove.npy --budget-bytes 4MiB,8MiB --vocab words.txt \
///       --eval similarity wordsim353.tsv --eval analogy questions-words.txt
///   embc compress model.safetensors --budget-bytes 5MB --eval command './score.py {}'
#[derive(Args)]
#[command(verbatim_doc_comment, after_help = after())]
pub struct Compress {
    /// The table's file, or a folder of model2vec
    #[arg(value_name = "TABLE")]
    pub table: PathBuf,
    /// The most bytes that it may take, such as 500kB or 10MiB: values, ranges, codes and pointers, but
    /// not words, nor what a file needs to begin them at pages; several for a curve
    #[arg(long, value_name = "SIZE", value_delimiter = ',', required = true)]
    pub budget_bytes: Vec<Bytes>,
    /// Which of several tensors or columns
    #[arg(long, value_name = "NAME")]
    pub tensor: Option<String>,
    /// What rows are called: a word a line, a tokenizer.json, or a Parquet with a column of texts
    #[arg(long, value_name = "FILE")]
    pub vocab: Option<PathBuf>,
    /// How often each row is read, a number a line; without it rows are taken to come by frequency,
    /// the most frequent first
    #[arg(long, value_name = "FILE")]
    pub counts: Option<PathBuf>,
    /// What rows are for, as KIND and its file or command; may be repeated
    #[arg(long, num_args = 2, value_names = ["KIND", "FILE"], action = clap::ArgAction::Append)]
    pub eval: Vec<String>,
    /// A table that another program made of this one, measured alike and listed beside: its name, its
    /// bytes, and all its rows as .npy; may be repeated
    #[arg(long, num_args = 3, value_names = ["NAME", "BYTES", "FILE"], action = clap::ArgAction::Append)]
    pub beside: Vec<String>,
    /// Try these methods only
    #[arg(long = "method", value_name = "NAME", value_delimiter = ',')]
    pub methods: Vec<String>,
    /// Write the best one in this format, too
    #[arg(long, value_parser = formats(), value_delimiter = ',', default_value = "packed")]
    pub format: Vec<String>,
    /// Where everything goes; TABLE's name and `-compressed` by default
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Put the words into model.embc, for readers without a tokenizer of their own
    #[arg(long)]
    pub with_vocabulary: bool,
    /// Seed of what is drawn
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Threads; the numbers do not depend on it
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Give a compressed table back, or write it for elsewhere
///
///   embc decompress glove-compressed             writes glove-compressed/rows.npy
///   embc decompress small --format model2vec --like potion --output smaller
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Decompress {
    /// The packed file, or the folder that has it
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What to write
    #[arg(long, value_parser = formats(), default_value = "npy")]
    pub format: String,
    /// The folder to write to; the file's own by default
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// A folder of model2vec whose tokenizer and settings belong to the table
    #[arg(long, value_name = "DIR")]
    pub like: Option<PathBuf>,
}

fn formats() -> PossibleValuesParser {
    let value = |format: &Format| PossibleValue::new(format.name).help(format.doc);
    PossibleValuesParser::new(FORMATS.iter().map(value).collect::<Vec<_>>())
}

/// Methods and kinds of tasks, as their registries have them.
fn after() -> String {
    let line = |name: &str, doc: &str| format!("  {name:<14} {doc}\n");
    let methods: String = METHODS.iter().map(|of| line(of.name(), of.doc())).collect();
    let kinds: String = KINDS.iter().map(|of| line(of.name(), of.doc())).collect();
    format!("Methods:\n{methods}\nKinds of --eval:\n{kinds}")
}
