//! The options of `embc choose`.

use super::{Bytes, Keep};
use clap::{Args, ValueEnum};
use embc_core::metric::Metric;
use std::path::PathBuf;

/// Find what to use within so many bytes: try what fits, keep the best as a model
///
/// Races forms of schemes on the data, model and training of an experiment: what follows from a
/// trained full table first, which is nearly free, then what trains compressed, a seed at a time; who
/// has lost beyond chance gets no further seed. The winner is trained on fresh seeds, and kept as a
/// MODEL with its export, its page and its config. Interrupted, the same command goes on.
///
///   embc init clicks.csv && embc choose clicks --budget-bytes 256KiB
///   embc choose clicks --within 0.5%               the smallest that loses at most this
///   embc choose clicks --budget-bytes 1MiB --list  what it will try, and how long that takes
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Choose {
    /// What `embc init` wrote, an experiment (a path, or a name under configs/), or a data set that
    /// one of these is about
    #[arg(value_name = "DATA")]
    pub data: PathBuf,
    /// The most that the embedding may take, pointers and codes included; several for a choice each
    #[arg(long, value_name = "SIZE", num_args = 1.., required_unless_present = "within")]
    pub budget_bytes: Vec<Bytes>,
    /// What to be good at; by default the experiment's metric
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<Metric>,
    /// The smallest whose metric is at most so much worse than the full table's, such as 0.5%
    #[arg(long, value_name = "PER CENT", value_parser = per_cent)]
    pub within: Option<f64>,
    /// When to stop and answer by what is known, such as 30min
    #[arg(long, value_name = "TIME")]
    pub time: Option<humantime::Duration>,
    /// What may be tried: trained compressed, or made of a trained full table
    #[arg(long, value_enum, value_delimiter = ',', default_value = "trained,post")]
    pub allow: Vec<Way>,
    /// Train three seeds of all schemes, the slow and the dominated ones too: the grid that a choice
    /// spares
    #[arg(long, conflicts_with = "time")]
    pub everything: bool,
    /// Say what it will try and how long that takes at most, and train nothing
    #[arg(long)]
    pub list: bool,
    /// Where the model, its export, page and configs go; DATA-choice by default
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Trials at once, as far as memory allows; by default all cores are used, one thread a trial
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    #[command(flatten)]
    pub keep: Keep,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Trained compressed: in training it needs less memory than the full table.
    Trained,
    /// Made after training: the full table's values narrower, or as codes.
    Post,
}

fn per_cent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(n) if (0.0..100.0).contains(&n) => Ok(n),
        _ => Err("a share in per cent, such as 0.5%".into()),
    }
}
