//! Parents: a training that several trials begin with, done once.
//!
//! Narrower storage and codes of a trained table are stages after training, so that trials which differ
//! in these alone have one parent: [`TrialSpec::parent`](crate::spec::TrialSpec::parent). Whichever comes
//! first trains it, under a claim to the parent, and leaves the selected weights in
//! `RESULTS/.parents/TRIAL.safetensors`; the others go on from there to the same bits. The file goes when
//! the last of them has its record. One that is lost, or of another build, is trained again.

use crate::checkpoint::{Claim, is_of_this_build, stamp};
use crate::desk::Desk;
use crate::order::Order;
use crate::provenance::program;
use crate::tensors::{Stored, write};
use anyhow::{Context, Result, bail};
use embc_core::cancel::Cancel;
use embc_core::metric::Metric;
use embc_core::net::Net;
use embc_core::state::{HasState, is_optimizer};
use embc_core::train::{Checkpoint, Position};
use embc_data::atomic::left_of;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

/// Which orders share a training, and how many of each parent have no record yet.
pub struct Families {
    left: Mutex<BTreeMap<String, usize>>,
    /// Parents that this process trains.
    training: Mutex<BTreeSet<String>>,
}

/// The parent of a trial that is about to run.
pub struct Parent {
    id: String,
    file: PathBuf,
    /// The right to train it, where it is not trained and another trial than this.
    pub claim: Option<Claim>,
}

/// A parent's training, as a trial goes on from it.
pub struct Trained {
    /// The selected weights, and the curve that led there.
    pub checkpoint: Checkpoint,
    /// What it took.
    pub took: Took,
}

/// What a training took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Took {
    /// Seconds.
    pub seconds: f64,
    /// Examples a second.
    pub examples_per_s: f64,
}

fn lacks_none(meta: &Value, metrics: &[Metric]) -> Result<()> {
    let has: Vec<Metric> = serde_json::from_value(meta["metrics"].clone())?;
    match metrics.iter().find(|metric| !has.contains(metric)) {
        Some(lacks) => bail!("trained without {lacks}"),
        None => Ok(()),
    }
}

/// Forgets what killed processes left of the parents of orders that are over.
pub(crate) fn tidy(orders: &[Order], desk: &Desk) {
    let ids: BTreeSet<String> = orders.iter().map(|order| order.spec.parent().id()).collect();
    let running = Claim::known(desk.results());
    for id in &ids {
        forget(desk, id);
        // Checkpoints of a parent that is no trial of its own, and what was half written.
        let left = left_of(&file(desk, id));
        if (running.contains(id) || !left.is_empty())
            && let Ok(Some(claim)) = desk.claim(id, &Cancel::default())
        {
            left.iter().for_each(|path| drop(std::fs::remove_file(path)));
            claim.done();
        }
    }
    // Where it is empty.
    let _ = std::fs::remove_dir(folder(desk));
}

fn forget(desk: &Desk, id: &str) {
    if std::fs::remove_file(file(desk, id)).is_ok() {
        // Where it was the last.
        let _ = std::fs::remove_dir(folder(desk));
    }
}

/// Where a parent's training is kept.
fn file(desk: &Desk, id: &str) -> PathBuf {
    folder(desk).join(format!("{id}.safetensors"))
}

fn folder(desk: &Desk) -> PathBuf {
    desk.results().join(".parents")
}

impl Families {
    /// The families of orders: those of two or more, and those whose parent is trained already.
    pub fn of(orders: &[Order], desk: &Desk) -> Self {
        let mut left = BTreeMap::new();
        orders.iter().for_each(|order| *left.entry(order.spec.parent().id()).or_default() += 1);
        left.retain(|id, members| *members > 1 || file(desk, id).exists());
        Self { left: Mutex::new(left), training: Mutex::default() }
    }

    /// The parent of an order, to train or trained already; the outer `None` while another process or
    /// thread trains it, the inner one where the order shares it with no other.
    pub fn parent(
        &self,
        order: &Order,
        desk: &Desk,
        cancel: &Cancel,
    ) -> Result<Option<Option<Parent>>> {
        let id = order.spec.parent().id();
        if !self.left.lock().expect("no panic while it is held").contains_key(&id) {
            return Ok(Some(None));
        }
        let file = file(desk, &id);
        let mut parent = Parent { id, file, claim: None };
        let usable = || parent.file.exists() && parent.is_usable(&order.metrics());
        if usable() {
            return Ok(Some(Some(parent)));
        }
        if parent.id != order.id() {
            let Some(claim) = desk.claim(&parent.id, cancel)? else { return Ok(None) };
            // Trained and recorded in between.
            if usable() { claim.done() } else { parent.claim = Some(claim) }
        }
        self.training().insert(parent.id.clone());
        Ok(Some(Some(parent)))
    }

    fn training(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.training.lock().expect("no panic while it is held")
    }

    /// Whether an order's parent is in training here: it need not be asked for.
    pub fn trains_parent_of(&self, order: &Order) -> bool {
        let training = self.training();
        !training.is_empty() && training.contains(&order.spec.parent().id())
    }

    /// Whether any is.
    pub fn trains(&self) -> bool {
        !self.training().is_empty()
    }

    /// A trial has ended, with its parent's training where it was to train it.
    pub fn ends(&self, parent: Option<Parent>) {
        let Some(parent) = parent else { return };
        self.training().remove(&parent.id);
        if let Some(claim) = parent.claim
            && parent.file.exists()
        {
            // Else its checkpoints are for who trains it next.
            claim.done();
        }
    }

    /// An order has its record: nothing is kept for it any more. True where others of its family have
    /// none.
    pub fn leaves(&self, order: &Order, desk: &Desk) -> bool {
        let id = order.spec.parent().id();
        let mut left = self.left.lock().expect("no panic while it is held");
        let Some(members) = left.get_mut(&id) else { return false };
        *members -= 1;
        let waited_for = *members > 0;
        if !waited_for {
            left.remove(&id);
            forget(desk, &id);
        }
        waited_for
    }
}

impl Parent {
    /// The id of the parent as a trial.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether its file is of this build and has these metrics; damage is seen when it is read.
    fn is_usable(&self, metrics: &[Metric]) -> bool {
        let look = || -> Result<()> {
            let meta = Stored::open(&self.file)?.meta()?;
            is_of_this_build(&meta, &self.id, &program())?;
            lacks_none(&meta, metrics)
        };
        look().is_ok()
    }

    /// The training, if there is one with a curve of these metrics.
    pub fn read(&self, metrics: &[Metric]) -> Option<Trained> {
        if !self.file.exists() {
            return None;
        }
        let warn = |error: &anyhow::Error| {
            tracing::warn!("{}: {error:#}; it is trained again", self.file.display());
        };
        self.try_read(metrics).inspect_err(warn).ok()
    }

    fn try_read(&self, metrics: &[Metric]) -> Result<Trained> {
        let stored = Stored::checked(&self.file)?;
        let meta = stored.meta()?;
        is_of_this_build(&meta, &self.id, &program())?;
        lacks_none(&meta, metrics)?;
        let mut at: Position = serde_json::from_value(meta["at"].clone())?;
        for point in &mut at.curve {
            point.valid.retain(|(metric, _)| metrics.contains(metric));
        }
        let took = serde_json::from_value(meta["took"].clone())?;
        let checkpoint = Checkpoint { at, net: Box::new(stored), best: None, trained: true };
        Ok(Trained { checkpoint, took })
    }

    /// Keeps a training for the others of its family.
    pub fn write(
        &self,
        at: &Position,
        net: &mut Net,
        metrics: &[Metric],
        took: Took,
    ) -> Result<()> {
        let folder = self.file.parent().expect("a file in a folder");
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut meta = stamp(&self.id, &program());
        meta["at"] = json!(at);
        meta["metrics"] = json!(metrics);
        meta["took"] = json!(took);
        write(&self.file, Some(&meta), &mut |visit| {
            net.state(&mut |name, tensor| {
                if !is_optimizer(name) {
                    visit(name, tensor.view());
                }
            });
        })
    }
}
