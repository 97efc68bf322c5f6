//! Slurm: one job array, a worker an element.
//!
//! Three minutes before its time limit an element gets a signal: its worker keeps a checkpoint and
//! ends, and the element puts itself back into the queue. `scancel` ends it for good. The scheduler is
//! asked once for its limit of array sizes, and never polled.

use super::{Job, Starter, quoted, text};
use anyhow::{Context, Result, bail};
use std::process::Command;

pub(super) struct Slurm;

impl Starter for Slurm {
    fn name(&self) -> &'static str {
        "slurm"
    }
    fn doc(&self) -> &'static str {
        "one job array, by sbatch, which is told what comes after --, such as --time=4:00:00 --mem=16G"
    }

    fn text(&self, job: &Job) -> Result<String> {
        let (name, workers) = (job.plain_name(), job.workers);
        let logs = text(&job.logs)?;
        if logs.contains(['%', '\n']) {
            bail!("{logs}: sbatch would take the name of this folder for a pattern");
        }
        let (folder, line) = (quoted(job.folder()?), job.shell()?);
        Ok(format!(
            r#"#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=1-{workers}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
#SBATCH --output="{logs}/%x-%A_%a.log"
# Time is nearly up: the worker keeps a checkpoint, and this element goes back into the queue.
trap 'again=1; [ -z "$worker" ] || kill -TERM "$worker"' USR1
trap 'over=1; [ -z "$worker" ] || kill -TERM "$worker"' TERM
cd {folder} || exit 2
{line} &
worker=$!
[ -z "$again$over" ] || kill -TERM "$worker"
# A signal ends the waiting, not the worker.
while :; do
    wait "$worker"
    code=$?
    kill -0 "$worker" 2> /dev/null || break
done
if [ -n "$again" ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit "$code"
"#
        ))
    }

    fn start(&self, job: &Job) -> Result<Option<String>> {
        let most = largest_array()?;
        let job = &Job { workers: job.workers.min(most), ..job.clone() };
        std::fs::create_dir_all(&job.logs)
            .with_context(|| format!("{}: cannot be made", job.logs.display()))?;
        let script = job.logs.join(format!("{}.sbatch", job.plain_name()));
        std::fs::write(&script, self.text(job)?).with_context(|| script.display().to_string())?;
        let mut sbatch = Command::new("sbatch");
        sbatch.arg("--parsable").args(&job.extra).arg(&script);
        let id = said(sbatch)?;
        let id = id.trim().split(';').next().unwrap_or_default();
        let (workers, logs) = (job.workers, job.logs.display());
        Ok(Some(format!("job {id}: {workers} workers, whose logs are in {logs}")))
    }
}

/// What a command prints.
fn said(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ran = command.output().with_context(|| {
        format!("{name} cannot be run; is this a machine that submits to Slurm? --dry-run prints the script")
    })?;
    if !ran.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&ran.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// The most elements of a job array here.
fn largest_array() -> Result<usize> {
    let mut scontrol = Command::new("scontrol");
    scontrol.args(["show", "config"]);
    Ok(array_size(&said(scontrol)?).unwrap_or(1001).saturating_sub(1).max(1))
}

/// What `scontrol show config` says is one more than the largest index.
fn array_size(config: &str) -> Option<usize> {
    let line = config.lines().find_map(|line| line.strip_prefix("MaxArraySize"))?;
    line.trim_start().strip_prefix('=')?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::tests::job;

    #[test]
    fn a_script_that_bash_reads() {
        let text = Slurm.text(&job(&[])).unwrap();
        assert!(text.contains("#SBATCH --array=1-8\n") && text.contains("@180"));
        let mut bash = Command::new("bash");
        bash.args(["-n", "-c", &text]);
        said(bash).unwrap();
        assert_eq!(array_size("X = 1\nMaxArraySize            = 1001\n"), Some(1001));
    }
}
