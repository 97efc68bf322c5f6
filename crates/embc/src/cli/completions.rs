//! The options of `embc completions`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Print what completes embc's commands in a shell, or its manual
///
///   embc completions bash > ~/.local/share/bash-completion/completions/embc
///   embc completions man --output ~/.local/share/man/man1
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Completions {
    /// The shell, or man
    #[arg(value_enum)]
    pub of: CompletionsOf,
    /// Write a page of the manual for each command into this folder, instead of the first to stdout
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompletionsOf {
    Bash,
    Elvish,
    Fish,
    Man,
    Powershell,
    Zsh,
}
