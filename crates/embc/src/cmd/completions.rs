//! `embc completions`: for shells, and the manual.

use super::Outcome;
use crate::cli::{Cli, Completions, CompletionsOf};
use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use clap_complete::{Shell, generate};

pub fn run(args: &Completions) -> Result<Outcome> {
    let mut command = Cli::command();
    let shell = match args.of {
        CompletionsOf::Bash => Shell::Bash,
        CompletionsOf::Elvish => Shell::Elvish,
        CompletionsOf::Fish => Shell::Fish,
        CompletionsOf::Powershell => Shell::PowerShell,
        CompletionsOf::Zsh => Shell::Zsh,
        CompletionsOf::Man => {
            if let Some(folder) = &args.output {
                let at = || format!("{}: cannot be written", folder.display());
                std::fs::create_dir_all(folder).with_context(at)?;
                clap_mangen::generate_to(command, folder).with_context(at)?;
                return Ok(Outcome::Fine);
            }
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            super::print(&String::from_utf8(page)?)?;
            return Ok(Outcome::Fine);
        }
    };
    if args.output.is_some() {
        bail!("--output is of man, which has a page for each command");
    }
    let mut text = Vec::new();
    generate(shell, &mut command, "embc", &mut text);
    super::print(&String::from_utf8(text)?)?;
    Ok(Outcome::Fine)
}
