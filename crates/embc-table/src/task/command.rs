//! A command of the user's own: it is given the table as .npy, and its last number is the score.

use super::{Kind, Scores, Task};
use crate::output;
use crate::table::Rows;
use crate::words::Index;
use anyhow::{Context, Result, bail};
use embc_core::cancel::Cancel;
use std::process::{Command as Process, Stdio};

pub(super) struct Command;

impl Kind for Command {
    fn name(&self) -> &'static str {
        "command"
    }
    fn doc(&self) -> &'static str {
        "a command, {} in it the path of the table as .npy: the last number that it prints, more is better"
    }
    fn needs_words(&self) -> bool {
        false
    }
    fn open(&self, of: &str, _: &Index) -> Result<Box<dyn Task>> {
        if !of.contains("{}") {
            bail!("{of:?} does not say where the path of the table goes: write {{}} there");
        }
        Ok(Box::new(Own(of.into())))
    }
}

struct Own(String);

impl Task for Own {
    fn name(&self) -> String {
        "command".into()
    }
    fn metric(&self) -> &'static str {
        "its last number"
    }
    fn about(&self) -> String {
        format!("{}; one number, without an interval", self.0)
    }
    fn score(&self, rows: &dyn Rows, shape: [usize; 2], _: &Cancel) -> Result<Scores> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("table.npy");
        output::npy(&path, rows, shape)?;
        let line = self.0.replace("{}", &path.display().to_string());
        let shell = if cfg!(windows) { ["cmd", "/C"] } else { ["sh", "-c"] };
        let run = Process::new(shell[0]).arg(shell[1]).arg(&line).stderr(Stdio::inherit()).output();
        let run = run.with_context(|| line.clone())?;
        if !run.status.success() {
            bail!("{line}: {}", run.status);
        }
        let said = String::from_utf8_lossy(&run.stdout);
        let number = said.split_whitespace().rev().find_map(|word| word.parse::<f64>().ok());
        let number = number.filter(|x| x.is_finite());
        Ok(Scores::One(number.with_context(|| format!("{line}: it prints no number"))?))
    }
}
