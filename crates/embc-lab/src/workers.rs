//! Workers elsewhere: the registry of what starts them.
//!
//! A worker is `embc sweep` itself: it takes trials from a shared folder until none is left. So
//! whatever starts processes does, is told once, and is never asked again.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

mod kubernetes;
mod script;
mod slurm;

/// All that can start workers. A new one is a file and a line here.
pub static STARTERS: &[&dyn Starter] = &[&slurm::Slurm, &kubernetes::Kubernetes, &script::Script];

/// What called `name` starts workers.
pub fn find(name: &str) -> Option<&'static dyn Starter> {
    STARTERS.iter().copied().find(|starter| starter.name() == name)
}

/// Workers that are wanted.
#[derive(Clone)]
pub struct Job {
    /// The experiments' name.
    pub name: String,
    /// How many.
    pub workers: usize,
    /// The program, and the arguments of one worker.
    pub line: Vec<String>,
    /// Where that line means what it says.
    pub folder: PathBuf,
    /// Where scripts and logs go.
    pub logs: PathBuf,
    /// What the starter is told beyond.
    pub extra: Vec<String>,
}

/// A registry entry.
pub trait Starter: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What it does, and what it takes after `--`.
    fn doc(&self) -> &'static str;
    /// The text that starts the workers, for `--dry-run` and for people.
    fn text(&self, job: &Job) -> Result<String>;
    /// Starts them, and says how they are called; none where the text is for the user to start.
    fn start(&self, _job: &Job) -> Result<Option<String>> {
        Ok(None)
    }
}

impl Job {
    /// The worker's line for a shell.
    fn shell(&self) -> Result<String> {
        Ok(self.line.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
    }

    /// The folder as a text.
    fn folder(&self) -> Result<&str> {
        text(&self.folder)
    }

    /// Letters, digits and "-" of the name, at most 40: what all schedulers take.
    fn plain_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let name: String = self.name.chars().map(plain).take(40).collect();
        format!("embc-{}", name.trim_matches('-'))
    }

    fn takes_nothing_more(&self, starter: &str) -> Result<()> {
        match &self.extra[..] {
            [] => Ok(()),
            more => bail!("--on {starter} takes nothing after --: {}", more.join(" ")),
        }
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{}: not a text", path.display()))
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn job(extra: &[&str]) -> Job {
        let line = ["/opt/embc", "sweep", "--config", "it's.toml", "--filter", "hash|full"];
        Job {
            name: "MEmCom ml_20m".into(),
            workers: 8,
            line: line.map(String::from).into(),
            folder: "/home/me/my work".into(),
            logs: "/home/me/results/.jobs".into(),
            extra: extra.iter().map(|word| word.to_string()).collect(),
        }
    }

    /// A shell reads the line as it was.
    #[test]
    #[cfg(unix)]
    fn a_shell_reads_what_is_meant() {
        let mut job = job(&[]);
        job.line[0] = "printf".into();
        job.line[1] = "%s\n".into();
        let ran = std::process::Command::new("sh").args(["-c", &job.shell().unwrap()]).output();
        let said = String::from_utf8(ran.unwrap().stdout).unwrap();
        assert_eq!(said.lines().collect::<Vec<_>>(), job.line[2..]);
    }

    #[test]
    fn names_are_what_schedulers_take() {
        assert_eq!(job(&[]).plain_name(), "embc-memcom-ml-20m");
    }
}
