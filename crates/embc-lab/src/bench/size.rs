//! How large a trial's tables and model are, with and without compression, and what it needs to run.

use super::{Bench, presented};
use crate::axis;
use crate::memory::{Memory, Need};
use crate::order::Order;
use crate::spec::TrialSpec;
use embc_core::batch::{Data, Examples};
use embc_core::budget::{Budget, Rules};
use embc_core::layer::{LayerPlan, LayerSpec};
use embc_core::model::{self, Model};
use embc_core::optim::{Kind, Touch};
use embc_core::rng::Rng;
use embc_core::scheme::{self, PlanError};

/// Parameters of the uncompressed tables and of the model on top of them, and what that needs.
#[derive(Clone, Copy)]
pub(super) struct Full {
    pub tables: u64,
    model: u64,
    /// Logits an example, and items of a sampled softmax.
    pub outputs: usize,
    samples: usize,
}

impl Bench<'_> {
    /// The tables of a trial, uncompressed: what its budget is against.
    pub(super) fn full_plan(&self, spec: &TrialSpec) -> Result<LayerPlan, PlanError> {
        let kind = model::find(&spec.model.kind).expect("checked");
        let inputs = kind.inputs(self.data.shape()).map_err(PlanError::Knob)?;
        let dim = spec.scheme.full_dim.unwrap_or(spec.embedding.dim);
        let layer = LayerSpec { dim, sharing: spec.embedding.sharing, rules: Rules::default() };
        let full = scheme::find("full").expect("registered");
        LayerPlan::new(
            full,
            &Default::default(),
            self.data.shape(),
            &inputs,
            layer,
            Budget::Unlimited,
        )
    }

    /// The sizes of a trial without compression, built once for all that share them.
    pub(super) fn full(&self, spec: &TrialSpec) -> Result<Full, PlanError> {
        let dim = spec.scheme.full_dim.unwrap_or(spec.embedding.dim);
        let key = serde_json::json!([spec.model, dim, spec.embedding.sharing]).to_string();
        let mut known = self.full.lock().expect("no panic while it is held");
        if let Some(full) = known.get(&key) {
            return Ok(*full);
        }
        let plan = self.full_plan(spec)?;
        let mut model = self.model(spec, &plan.widths(), 0).map_err(PlanError::Knob)?;
        let mut params = 0;
        model.params(&mut |param| params += param.value().len() as u64);
        let (outputs, samples) = (model.outputs(), model.samples());
        let full = Full { tables: plan.full_params(), model: params, outputs, samples };
        known.insert(key, full);
        Ok(full)
    }

    /// The model of a trial on rows of such widths; an error is about its knobs.
    pub(super) fn model(
        &self,
        spec: &TrialSpec,
        widths: &[usize],
        seed: u64,
    ) -> Result<Box<dyn Model>, String> {
        let kind = model::find(&spec.model.kind).expect("checked");
        let mut rng = Rng::stream(seed, "init/model");
        kind.build(self.data.shape(), widths, &spec.model.knobs, &mut rng)
    }

    /// How large a trial's tables are under its budget.
    pub(super) fn plan(&self, spec: &TrialSpec) -> Result<LayerPlan, PlanError> {
        let full = self.full(spec)?;
        let kind = model::find(&spec.model.kind).expect("checked");
        let inputs = kind.inputs(self.data.shape()).map_err(PlanError::Knob)?;
        let rules = Rules {
            allocation: spec.scheme.allocation,
            of: spec.scheme.of,
            model_params: full.model,
            full_below: spec.embedding.full_below,
            storage: spec.scheme.quantize,
        };
        let (dim, sharing) = (spec.embedding.dim, spec.embedding.sharing);
        let scheme = scheme::find(&spec.scheme.kind).expect("checked");
        let budget = spec.scheme.budget.as_ref();
        let budget = budget.map_or(Ok(Budget::Unlimited), |(axis, value)| {
            axis::budget(axis, value).map_err(|what| PlanError::Knob(what.to_string()))
        });
        // A ratio is against the experiment's full tables, also where a scheme has its own dim.
        let budget = match (budget?, spec.scheme.full_dim) {
            (Budget::Compression(ratio), Some(full)) => {
                Budget::Compression(ratio * dim as f64 / full as f64)
            }
            (budget, _) => budget,
        };
        let layer = LayerSpec { dim, sharing, rules };
        LayerPlan::new(scheme, &spec.scheme.all_knobs(), self.data.shape(), &inputs, layer, budget)
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
        let gradients = plan.plans.iter().map(|plan| 4 * plan.footprint.params);
        let gradients: u64 = if dense { gradients.sum() } else { 0 };
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
            optimizer: moments * (tables + model) + gradients + model,
            // Where training goes on after a validation.
            best: if train.epochs > 1 || train.validate_every.is_some() {
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
