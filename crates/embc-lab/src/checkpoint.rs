//! A running trial on disk: who runs it, and where it stands.
//!
//! `RESULTS/.running/TRIAL/` holds a lease, so that sweeps on one folder share the work, and the last
//! two checkpoints. One whose checksum does not match is passed over for the one before. All of it goes
//! when the trial has its record.

use crate::bench::Running;
use crate::parent::{Parent, Took};
use crate::record::Program;
use crate::scores::Scores;
use crate::tensors::{Stored, write};
use crate::watch::Watcher;
use anyhow::{Context, Result, bail};
use embc_core::batch::{Batch, Split};
use embc_core::cancel::Cancel;
use embc_core::metric::Metric;
use embc_core::net::Net;
use embc_core::state::{HasState, Saved};
use embc_core::train::{Checkpoint, Observer, Position, Validation};
use embc_data::lease::{Holder, Lease, Seen, TERM};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The version of this format.
const VERSION: u32 = 1;
/// Names of the two files, the newer one first.
const FILES: [&str; 2] = ["last.safetensors", "previous.safetensors"];
/// Names of the best weights begin so.
const BEST: &str = "best:";
/// Bytes a second that a disk takes, before one is known.
const DISK: f64 = (1 << 28) as f64;

/// Name of the lease.
const LEASE: &str = "lease";
/// Name of the list of those who ran it before and are gone.
const LOST: &str = "lost";

/// The right to run a trial.
pub struct Claim {
    folder: PathBuf,
    /// Held for as long as this lives.
    lease: Lease,
    trial: String,
    program: Program,
}

/// What is known of a trial without a record.
#[derive(Clone, Debug)]
pub enum Stands {
    /// Nobody has begun it, or it was lost before its first checkpoint.
    ToDo,
    /// It goes on from a checkpoint once somebody takes it.
    Interrupted,
    /// Somebody runs it, for so long.
    Running(Holder, Duration),
}

impl Claim {
    /// Claims a trial for a term after which others may take it over, unless it is renewed; none where
    /// another process runs it. `whole` ends all work.
    pub fn take(
        results: &Path,
        trial: &str,
        program: Program,
        term: Duration,
        whole: &Cancel,
    ) -> Result<Option<Self>> {
        let folder = results.join(".running").join(trial);
        let lease = Lease::take(&folder.join(LEASE), term, whole)
            .with_context(|| "no trial can be claimed; choose another folder with --results")?;
        let Some(lease) = lease else { return Ok(None) };
        let claim = Self { folder, lease, trial: trial.into(), program };
        claim.sweep_up();
        if let Some(before) = &claim.lease.lost_by {
            claim.tell_lost(before);
        }
        Ok(Some(claim))
    }

    /// Keeps who has lost it, for `embc sweep --list`.
    fn tell_lost(&self, before: &Holder) {
        let line = serde_json::to_string(before).expect("plain data") + "\n";
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join(LOST));
        // The trial does not depend on it.
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }

    /// Removes what a killed process was writing.
    fn sweep_up(&self) {
        for file in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = file.file_name();
            if ![LEASE, LOST].iter().chain(&FILES).any(|known| name == *known) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }

    /// Ends the trial: set where the claim is lost, and with the whole.
    pub fn cancel(&self) -> &Cancel {
        &self.lease.cancel
    }

    /// Whether it still is this process's: to be asked before its record is published.
    pub fn is_mine(&self) -> bool {
        self.lease.is_mine()
    }

    /// Whether another process has taken it over.
    pub fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    /// Watches a trial that another process runs until it is seen to be alive, or gone: true.
    pub fn is_deserted(results: &Path, trial: &str, whole: &Cancel) -> Result<bool> {
        Ok(Lease::is_deserted(&results.join(".running").join(trial).join(LEASE), whole)?)
    }

    /// The trials that somebody has begun.
    pub fn known(results: &Path) -> BTreeSet<String> {
        let folders = std::fs::read_dir(results.join(".running")).into_iter().flatten().flatten();
        folders.map(|folder| folder.file_name().to_string_lossy().into_owned()).collect()
    }

    /// What is known of a trial without a record, and who ran it before and is gone.
    pub fn stands(results: &Path, trial: &str) -> (Stands, Vec<Holder>) {
        let folder = results.join(".running").join(trial);
        let lost = std::fs::read_to_string(folder.join(LOST)).unwrap_or_default();
        let mut lost: Vec<Holder> =
            lost.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let stands = match Lease::look(&folder.join(LEASE)) {
            Ok(Some(Seen { holder: Some(holder), held, stale: false, .. })) => {
                return (Stands::Running(holder, held), lost);
            }
            Ok(Some(Seen { holder, .. })) => {
                lost.extend(holder);
                FILES.iter().any(|name| folder.join(name).exists())
            }
            _ => FILES.iter().any(|name| folder.join(name).exists()),
        };
        (if stands { Stands::Interrupted } else { Stands::ToDo }, lost)
    }

    /// Forgets trials that are over, which a killed process left.
    pub fn tidy(results: &Path, is_over: &dyn Fn(&str) -> bool) {
        for trial in Self::known(results) {
            let none = Program::default();
            if is_over(&trial)
                && let Ok(Some(claim)) = Self::take(results, &trial, none, TERM, &Cancel::default())
            {
                claim.done();
            }
        }
        // Where it is empty: its last trial's process may have been killed before it took it away.
        let _ = std::fs::remove_dir(results.join(".running"));
    }

    /// Forgets the trial, which has its record.
    pub fn done(self) {
        if !self.is_mine() {
            return;
        }
        let files = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for file in files.filter(|file| file.file_name() != LEASE) {
            let _ = std::fs::remove_file(file.path());
        }
        let folder = self.folder.clone();
        drop(self);
        // Where it was the last.
        let _ = std::fs::remove_dir(&folder);
        let _ = folder.parent().map(std::fs::remove_dir);
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
        is_of_this_build(&meta, &self.trial, &self.program)?;
        let at: Position = serde_json::from_value(meta["at"].clone())?;
        let best: Saved = stored
            .names()
            .iter()
            .filter_map(|name| Some((name.strip_prefix(BEST)?.to_string(), stored.tensor(name)?)))
            .collect();
        let best = (!best.is_empty()).then_some(best);
        let seconds = meta["seconds"].as_f64().unwrap_or(0.0);
        Ok((Checkpoint { at, net: Box::new(stored), best, trained: false }, seconds))
    }

    fn write(&self, at: &Position, net: &mut Net, best: Option<&Saved>, s: f64) -> Result<()> {
        if !self.is_mine() {
            // That of who has taken it over is newer.
            return Ok(());
        }
        let mut meta = stamp(&self.trial, &self.program);
        meta["seconds"] = json!(s);
        meta["at"] = json!(at);
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

/// What a file of a trial's tensors begins with.
pub(crate) fn stamp(trial: &str, program: &Program) -> Value {
    json!({
        "version": VERSION, "trial": trial, "program": program, "executable": executable(program),
    })
}

/// Refuses a file whose numbers may not be those of this build's trial.
pub(crate) fn is_of_this_build(meta: &Value, trial: &str, program: &Program) -> Result<()> {
    if meta["version"] != VERSION || meta["trial"] != trial {
        bail!("of another format or trial");
    }
    if meta["program"] != json!(program) || meta["executable"] != executable(program) {
        bail!("of another build of embc, whose numbers may differ");
    }
    Ok(())
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
    /// What a checkpoint takes: the last one, or by its size before there is one.
    cost: Duration,
    started: Instant,
    /// Seconds that the trial took before.
    before: f64,
    /// Examples of this run, what training on them took, and since when it goes on; but for the
    /// first step, which waits for the data and grows buffers, once there are others.
    examples: u64,
    training: Duration,
    since: Instant,
    /// When the first step was done, until the second is.
    first: Option<Instant>,
    steps: u64,
    /// It was said that a checkpoint could not be written.
    said: bool,
    /// Where the scores of the test rows go.
    pub scores: Option<Scores<'a>>,
    /// Where the trained net is kept for others, with its curve of these metrics.
    parent: Option<(&'a Parent, &'a [Metric])>,
    /// What the parent took to train, where this trial goes on from it.
    pub trained: Option<Took>,
}

impl<'a> Keeper<'a> {
    /// A keeper, and where to go on from.
    pub fn new(
        running: &Running<'a>,
        metrics: &'a [Metric],
        watcher: &'a mut dyn Watcher,
    ) -> (Self, Option<Checkpoint>) {
        let Running { parent, every, .. } = *running;
        let of_parent = parent.and_then(|parent| parent.claim.as_ref());
        let claim = of_parent.unwrap_or(running.claim);
        let (mut trained, mut before) = (None, None);
        let from = match parent.and_then(|parent| parent.read(metrics)) {
            Some(parent) => {
                trained = Some(parent.took);
                Some(parent.checkpoint)
            }
            None => claim.resume().map(|(from, seconds)| {
                before = Some(seconds);
                from
            }),
        };
        let now = Instant::now();
        let keeper = Self {
            watcher,
            claim,
            every,
            last: now,
            cost: Duration::ZERO,
            started: now,
            before: before.unwrap_or(0.0),
            examples: 0,
            training: Duration::ZERO,
            since: now,
            first: None,
            steps: 0,
            said: false,
            scores: None,
            parent: parent.map(|parent| (parent, metrics)),
            trained,
        };
        (keeper, from)
    }

    /// Tells about how many bytes a checkpoint has.
    pub fn checkpoints_of(&mut self, bytes: u64) {
        self.cost = Duration::from_secs_f64(bytes as f64 / DISK);
    }

    /// Training examples a second, evaluation and the first step left out.
    pub fn examples_per_second(&self) -> f64 {
        if let Some(took) = self.trained {
            return took.examples_per_s;
        }
        self.examples as f64 / self.training.as_secs_f64().max(1e-9)
    }

    /// Seconds that the trial has taken, also before it was cut off.
    pub fn seconds(&self) -> f64 {
        self.before + self.started.elapsed().as_secs_f64()
    }
}

impl Observer for Keeper<'_> {
    fn step(&mut self, step: u64, epoch: u32, loss: f64, examples: usize) {
        self.steps += 1;
        if self.steps == 1 {
            self.first = Some(Instant::now());
        } else if let Some(first) = self.first.take() {
            // An evaluation may have come in between.
            (self.examples, self.training) = (0, Duration::ZERO);
            self.since = self.since.max(first);
        }
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
    fn trained(&mut self, at: &Position, net: &mut Net) {
        let Some((parent, metrics)) = self.parent else { return };
        let took = Took { seconds: self.seconds(), examples_per_s: self.examples_per_second() };
        if let Err(error) = parent.write(at, net, metrics, took) {
            self.watcher.say(&format!("each of its family trains by itself: {error:#}"));
        }
    }
    fn wants_checkpoint(&mut self, epoch_ends: bool) -> bool {
        self.last.elapsed()
            >= if epoch_ends { at_epochs(self.every, self.cost) } else { self.every }
    }
    fn checkpoint(&mut self, at: &Position, net: &mut Net, best: Option<&Saved>) {
        let start = Instant::now();
        if let Err(error) = self.claim.write(at, net, best, self.seconds())
            && !std::mem::replace(&mut self.said, true)
        {
            let what = "the trial goes on, but may lose work if it is cut off";
            self.watcher.say(&format!("no checkpoint: {error:#}; {what}"));
        }
        self.last = Instant::now();
        self.cost = self.last - start;
    }
}

/// Between checkpoints at the ends of epochs: more often than inside of them, but not where epochs last
/// seconds, nor, short of `every`, before a checkpoint is a twentieth of the time.
fn at_epochs(every: Duration, cost: Duration) -> Duration {
    (every / 30).max(20 * cost).min(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_checkpoints_are_written_less_often() {
        let s = Duration::from_secs;
        assert_eq!(at_epochs(s(300), Duration::ZERO), s(10));
        assert_eq!(at_epochs(s(300), s(8)), s(160));
        assert_eq!(at_epochs(s(300), s(60)), s(300), "never less often than asked for");
    }

    #[test]
    fn one_claim_a_trial() {
        let folder = tempfile::tempdir().unwrap();
        let (program, cancel) = (Program::default, Cancel::default());
        let take = || Claim::take(folder.path(), "abc", program(), TERM, &cancel).unwrap();
        let first = take().unwrap();
        assert!(take().is_none());
        assert!(matches!(Claim::stands(folder.path(), "abc").0, Stands::Running(..)));
        first.done();
        assert!(!folder.path().join(".running").exists());
        assert!(take().is_some());
    }
}
