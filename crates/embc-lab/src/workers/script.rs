//! A worker's line, for GNU parallel, PBS, LSF, HyperQueue, or a shell on each machine.

use super::{Job, Starter, quoted};
use anyhow::Result;

pub(super) struct Script;

impl Starter for Script {
    fn name(&self) -> &'static str {
        "script"
    }
    fn doc(&self) -> &'static str {
        "prints a script that is one worker, for anything that starts processes; takes nothing more"
    }
    fn text(&self, job: &Job) -> Result<String> {
        job.takes_nothing_more(self.name())?;
        let (folder, line) = (quoted(job.folder()?), job.shell()?);
        Ok(format!(
            "#!/bin/sh\n# One worker; start as many as you like, where this folder is.\ncd {folder} && exec {line}\n"
        ))
    }
}
