//! What a trial needs to run.

use super::{Bench, presented};
use crate::blueprint::{self, Full};
use crate::memory::{Memory, Need};
use crate::order::Order;
use crate::spec::TrialSpec;
use embc_core::batch::{Data, Examples};
use embc_core::layer::LayerPlan;
use embc_core::optim::{Kind, Touch};
use embc_core::scheme::{self, PlanError};

/// What a plan comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// So many bytes, pointers and codes included.
    Bytes(u64),
    /// The uncompressed table, which its budget holds.
    Uncompressed,
    /// Nothing, and why.
    Infeasible(String),
}

impl Bench<'_> {
    /// The size of a trial without compression, found once for all that share it.
    pub(super) fn full(&self, spec: &TrialSpec) -> Result<Full, PlanError> {
        let key = serde_json::json!([spec.model, spec.full_dim(), spec.embedding.sharing]);
        let mut known = self.full.lock().expect("no panic while it is held");
        if let Some(full) = known.get(&key.to_string()) {
            return Ok(*full);
        }
        let full = blueprint::full(self.data.shape(), spec)?;
        known.insert(key.to_string(), full);
        Ok(full)
    }

    /// What a trial's plan comes to.
    pub fn size_of(&self, spec: &TrialSpec) -> Planned {
        match self.plan(spec) {
            Err(error) => Planned::Infeasible(error.to_string()),
            Ok(plan) => {
                let (footprint, full) = (plan.footprint(), self.full(spec).map(|full| full.tables));
                let whole = full == Ok(footprint.params) && footprint.index_bytes == 0;
                match whole && spec.scheme.kind != "full" {
                    true => Planned::Uncompressed,
                    false => Planned::Bytes(footprint.bytes()),
                }
            }
        }
    }

    /// Bytes of a trial's tables without compression.
    pub fn full_bytes(&self, spec: &TrialSpec) -> anyhow::Result<u64> {
        Ok(4 * self.full(spec)?.tables)
    }

    /// How large a trial's tables are under its budget.
    pub(super) fn plan(&self, spec: &TrialSpec) -> Result<LayerPlan, PlanError> {
        blueprint::plan(self.data.shape(), spec, self.full(spec)?)
    }

    /// What the trial will need, unless it cannot be planned.
    pub fn need(&self, spec: &TrialSpec) -> Option<Need> {
        self.plan(spec).ok().map(|plan| self.need_of(spec, &plan))
    }

    pub(super) fn need_of(&self, spec: &TrialSpec, plan: &LayerPlan) -> Need {
        let (train, optim) = (&spec.schedule, &spec.optimizer.rule());
        let full = self.full(spec).expect("planned against it");
        let dense = optim.touch == Touch::All
            && matches!(optim.kind, Kind::Adam | Kind::AdamW | Kind::Momentum);
        let (tables, model) = (plan.footprint().train_bytes, 4 * full.model);
        let moments = optim.moments() as u64;
        // What becomes codes trains as its parent.
        let parent = scheme::find(&spec.scheme.kind).is_some_and(|s| s.parent().is_some());
        let gradients = plan.plans.iter().map(|plan| match parent {
            true => plan.footprint.train_bytes,
            false => 4 * plan.footprint.params,
        });
        let gradients: u64 = if dense && !spec.scheme.low { gradients.sum() } else { 0 };
        // A word a row, where rows train as codes.
        let of_tables = match spec.scheme.low {
            true => 4 * plan.footprint().params / spec.embedding.dim as u64,
            false => moments * tables,
        };
        let ids: u64 = plan.tables.iter().map(|t| u64::from(t.vocab)).sum();
        let width: usize = plan.widths().iter().sum();
        // Looked up, pooled, joined, and the gradients of each; some loads of ids on their way.
        let floats = 6 * width + self.data.shape().dense;
        let outputs = match full.samples {
            0 => full.outputs,
            samples => samples + self.data.ids_per_example() as usize,
        };
        let ids_each = self.data.ids_per_example().max(plan.widths().len() as f64) as u64;
        let loads = 4 * 3 * (ids_each + self.data.shape().dense as u64 + 1);
        let order = match presented(spec) {
            Examples::Rows => 4 * self.data.rows(0) as u64,
            _ => 8 * self.data.shape().train_rows,
        };
        Need {
            parameters: tables + model,
            optimizer: of_tables + moments * model + gradients + model,
            // Where training goes on after a validation.
            best: if train.epochs > 1 || train.validate_every.is_some() || spec.finetunes() {
                tables + model
            } else {
                0
            },
            // Slots of ids and of rows in training, or prints of rows in the census after it.
            // And a clustering's new pointers beside the old ones.
            index: 16 * ids + plan.footprint().index_bytes,
            batch: (4 * train.batch * (floats + outputs)) as u64
                + loads * train.batch.max(1 << 13) as u64
                + 4 * (full.outputs << 12).min(1 << 23) as u64,
            // The shuffled rows of an epoch, or a score and label of each that is evaluated.
            rows: order.max(8 * self.data.rows(1).max(self.data.rows(2)) as u64),
            cache: self.data.cache_bytes(),
        }
    }

    /// What the largest of several needs, of those that can run at all.
    pub fn largest(&self, orders: &[Order], memory: &Memory) -> Option<Need> {
        // One that can never run is refused, and need not keep others from each other's side.
        let fits = |need: &Need| self.overcommit || need.total() <= memory.free();
        let needs = orders.iter().filter_map(|order| self.need(&order.spec));
        needs.filter(fits).max_by_key(Need::total)
    }
}
