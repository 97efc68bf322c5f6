//! A running trial on disk: who runs it, and where it stands.
//!
//! `RESULTS/.running/TRIAL/` holds a lock, so that sweeps on one folder share the work, and the last
//! two checkpoints. One whose checksum does not match is passed over for the one before. All of it goes
//! when the trial has its record.

use crate::record::Program;
use crate::scores::Scores;
use crate::tensors::{Stored, write};
use crate::watch::Watcher;
use anyhow::{Context, Result, bail};
use embc_core::batch::{Batch, Split};
use embc_core::net::Net;
use embc_core::state::{HasState, Saved};
use embc_core::train::{Checkpoint, Observer, Position, Validation};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The version of this format.
const VERSION: u32 = 1;
/// Names of the two files, the newer one first.
const FILES: [&str; 2] = ["last.safetensors", "previous.safetensors"];
/// Names of the best weights begin so.
const BEST: &str = "best:";

/// The right to run a trial.
pub struct Claim {
    folder: PathBuf,
    /// Locked for as long as this lives.
    _lock: File,
    trial: String,
    program: Program,
}

impl Claim {
    /// Claims a trial; none where another process runs it.
    pub fn take(results: &Path, trial: &str, program: Program) -> Result<Option<Self>> {
        let folder = results.join(".running").join(trial);
        let path = folder.join("lock");
        let open = || {
            std::fs::create_dir_all(&folder)?;
            OpenOptions::new().create(true).truncate(false).write(true).open(&path)
        };
        // Another process may take the folder away between its making and the lock's.
        let gone = |lock: &std::io::Result<File>| {
            lock.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        };
        let lock = (0..100).map(|_| open()).find(|lock| !gone(lock)).unwrap_or_else(open);
        let lock = lock.with_context(|| {
            format!("{}: cannot be made; choose another folder with --results", path.display())
        })?;
        match lock.try_lock() {
            Ok(()) => {
                let claim = Self { folder, _lock: lock, trial: trial.into(), program };
                claim.sweep_up();
                Ok(Some(claim))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{}: cannot be locked", path.display()))
            }
        }
    }

    /// Removes what a killed process was writing.
    fn sweep_up(&self) {
        for file in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = file.file_name();
            if name != "lock" && FILES.iter().all(|known| name != *known) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }

    /// What is known of a trial without a record.
    pub fn stands(results: &Path, trial: &str) -> &'static str {
        let folder = results.join(".running").join(trial);
        let lock = File::open(folder.join("lock"));
        match lock.map(|lock| lock.try_lock_shared()) {
            Ok(Err(TryLockError::WouldBlock)) => "running",
            _ if FILES.iter().any(|name| folder.join(name).exists()) => "interrupted",
            _ => "to do",
        }
    }

    /// Forgets trials that are over, which a killed process left.
    pub fn tidy(results: &Path, is_over: &dyn Fn(&str) -> bool) {
        for folder in std::fs::read_dir(results.join(".running")).into_iter().flatten().flatten() {
            let trial = folder.file_name().to_string_lossy().into_owned();
            if is_over(&trial)
                && let Ok(Some(claim)) = Self::take(results, &trial, Program::default())
            {
                claim.done();
            }
        }
    }

    /// Forgets the trial, which has its record.
    pub fn done(self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        // Only where it was the last.
        let _ = self.folder.parent().map(std::fs::remove_dir);
    }

    /// Where the trial stood, and the seconds that it had taken; none to start from the beginning.
    fn resume(&self) -> Option<(Checkpoint, f64)> {
        for path in FILES.map(|name| self.folder.join(name)).iter().filter(|path| path.exists()) {
            match self.read(path) {
                Ok(found) => return Some(found),
                Err(error) => {
                    tracing::warn!("{}: {error:#}; passed over", path.display());
                    // Else it would take the place of a good one before it.
                    let _ = std::fs::remove_file(path);
                }
            }
        }
        None
    }

    fn read(&self, path: &Path) -> Result<(Checkpoint, f64)> {
        let stored = Stored::checked(path)?;
        let meta = stored.meta()?;
        if meta["version"] != VERSION || meta["trial"] != self.trial {
            bail!("of another format or trial");
        }
        if meta["program"] != json!(self.program) || meta["executable"] != executable(&self.program)
        {
            bail!("of another build of embc, whose numbers may differ");
        }
        let at: Position = serde_json::from_value(meta["at"].clone())?;
        let best: Saved = stored
            .names()
            .iter()
            .filter_map(|name| Some((name.strip_prefix(BEST)?.to_string(), stored.tensor(name)?)))
            .collect();
        let best = (!best.is_empty()).then_some(best);
        let seconds = meta["seconds"].as_f64().unwrap_or(0.0);
        Ok((Checkpoint { at, net: Box::new(stored), best }, seconds))
    }

    fn write(&self, at: &Position, net: &mut Net, best: Option<&Saved>, s: f64) -> Result<()> {
        let meta = json!({
            "version": VERSION, "trial": self.trial, "program": self.program,
            "executable": executable(&self.program), "seconds": s, "at": at,
        });
        let [last, previous] = FILES.map(|name| self.folder.join(name));
        if last.exists() {
            std::fs::rename(&last, previous)?;
        }
        write(&last, Some(&meta), &mut |visit| {
            net.state(&mut |name, tensor| visit(name, tensor.view()));
            for (name, tensor) in best.into_iter().flatten() {
                visit(&format!("{BEST}{name}"), tensor.view());
            }
        })
    }
}

/// What tells builds apart whose revision does not: size and time of the executable.
fn executable(program: &Program) -> Value {
    let file = std::env::current_exe().and_then(std::fs::metadata);
    let Ok(file) = file.map_err(drop).and_then(|f| if program.dirty { Ok(f) } else { Err(()) })
    else {
        return Value::Null;
    };
    let time = file.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    json!([file.len(), time.map(|t| t.as_secs())])
}

/// Keeps a trial's checkpoints and times, and lets another watch it.
pub struct Keeper<'a> {
    /// Who watches.
    pub watcher: &'a mut dyn Watcher,
    claim: &'a Claim,
    /// Between checkpoints inside an epoch.
    every: Duration,
    /// Of the last checkpoint.
    last: Instant,
    started: Instant,
    /// Seconds that the trial took before.
    before: f64,
    /// Examples of this run, what training on them took, and since when it goes on.
    examples: u64,
    training: Duration,
    since: Instant,
    /// It was said that a checkpoint could not be written.
    said: bool,
    /// Where the scores of the test rows go.
    pub scores: Option<Scores<'a>>,
}

impl<'a> Keeper<'a> {
    /// A keeper, and where to go on from.
    pub fn new(
        claim: &'a Claim,
        every: Duration,
        watcher: &'a mut dyn Watcher,
    ) -> (Self, Option<Checkpoint>) {
        let (from, before) = claim.resume().unzip();
        let now = Instant::now();
        let keeper = Self {
            watcher,
            claim,
            every,
            last: now,
            started: now,
            before: before.unwrap_or(0.0),
            examples: 0,
            training: Duration::ZERO,
            since: now,
            said: false,
            scores: None,
        };
        (keeper, from)
    }

    /// Training examples a second, evaluation left out.
    pub fn examples_per_second(&self) -> f64 {
        self.examples as f64 / self.training.as_secs_f64().max(1e-9)
    }

    /// Seconds that the trial has taken, also before it was cut off.
    pub fn seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }
}

impl Observer for Keeper<'_> {
    fn step(&mut self, step: u64, epoch: u32, loss: f64, examples: usize) {
        self.examples += examples as u64;
        self.watcher.step(step, epoch, loss, examples);
    }
    fn evaluating(&mut self, split: Split, done: bool) {
        match done {
            false => self.training += self.since.elapsed(),
            true => self.since = Instant::now(),
        }
        self.watcher.evaluating(split, done);
    }
    fn stage(&mut self, epochs: u32) {
        self.since = Instant::now();
        self.watcher.stage(epochs);
    }
    fn validated(&mut self, at: &Validation) {
        self.watcher.validated(at);
    }
    fn wants_scores(&self) -> bool {
        self.scores.is_some()
    }
    fn scores(&mut self, batch: &Batch, scores: &[f32]) {
        self.scores.iter_mut().for_each(|into| into.add(batch, scores));
    }
    /// At the ends of epochs more often, but not where they last seconds.
    fn wants_checkpoint(&mut self, epoch_ends: bool) -> bool {
        self.last.elapsed() >= if epoch_ends { self.every / 30 } else { self.every }
    }
    fn checkpoint(&mut self, at: &Position, net: &mut Net, best: Option<&Saved>) {
        if let Err(error) = self.claim.write(at, net, best, self.seconds())
            && !std::mem::replace(&mut self.said, true)
        {
            let what = "the trial goes on, but may lose work if it is cut off";
            self.watcher.say(&format!("no checkpoint: {error:#}; {what}"));
        }
        self.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_a_trial() {
        let folder = tempfile::tempdir().unwrap();
        let take = || Claim::take(folder.path(), "abc", Program::default()).unwrap();
        let first = take().unwrap();
        assert!(take().is_none());
        first.done();
        assert!(take().is_some());
    }
}
