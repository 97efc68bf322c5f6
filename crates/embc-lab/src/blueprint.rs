//! From a spec and the shape of its data to plans, sizes and nets. Needs no data.

use crate::axis;
use crate::spec::TrialSpec;
use embc_core::batch::Shape;
use embc_core::budget::{Budget, Rules};
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec};
use embc_core::model::{self, Model};
use embc_core::net::Net;
use embc_core::rng::Rng;
use embc_core::scheme::{self, Origin, PlanError};

/// A trial's size without compression.
#[derive(Clone, Copy, Debug)]
pub struct Full {
    /// Parameters of the tables.
    pub tables: u64,
    /// Parameters of the model on top of them.
    pub model: u64,
    /// Logits an example.
    pub outputs: usize,
    /// Items of a sampled softmax.
    pub samples: usize,
}

/// The tables of a trial, uncompressed: what its budget is against.
pub fn full_plan(shape: &Shape, spec: &TrialSpec) -> Result<LayerPlan, PlanError> {
    let kind = model::find(&spec.model.kind).expect("checked");
    let inputs = kind.inputs(shape).map_err(PlanError::Knob)?;
    let layer = LayerSpec {
        dim: spec.full_dim(),
        sharing: spec.embedding.sharing,
        rules: Rules::default(),
    };
    let full = scheme::find("full").expect("registered");
    LayerPlan::new(full, &Default::default(), shape, &inputs, layer, Budget::Unlimited)
}

/// The size of a trial without compression.
pub fn full(shape: &Shape, spec: &TrialSpec) -> Result<Full, PlanError> {
    let plan = full_plan(shape, spec)?;
    let mut model = model(shape, spec, &plan.widths(), 0).map_err(PlanError::Knob)?;
    let mut params = 0;
    model.params(&mut |param| params += param.value().len() as u64);
    let (outputs, samples) = (model.outputs(), model.samples());
    Ok(Full { tables: plan.full_params(), model: params, outputs, samples })
}

/// The model of a trial on rows of such widths; an error is about its knobs.
pub fn model(
    shape: &Shape,
    spec: &TrialSpec,
    widths: &[usize],
    seed: u64,
) -> Result<Box<dyn Model>, String> {
    let kind = model::find(&spec.model.kind).expect("checked");
    kind.build(shape, widths, &spec.model.knobs, &mut Rng::stream(seed, "init/model"))
}

/// How large a trial's tables are under its budget.
pub fn plan(shape: &Shape, spec: &TrialSpec, full: Full) -> Result<LayerPlan, PlanError> {
    let kind = model::find(&spec.model.kind).expect("checked");
    let inputs = kind.inputs(shape).map_err(PlanError::Knob)?;
    let rules = Rules {
        allocation: spec.scheme.allocation,
        of: spec.scheme.of,
        model_params: full.model,
        full_below: spec.embedding.full_below,
        storage: spec.scheme.quantize,
        low: spec.scheme.low,
    };
    let (dim, sharing) = (spec.embedding.dim, spec.embedding.sharing);
    let scheme = scheme::find(&spec.scheme.kind).expect("checked");
    let budget = spec.scheme.budget.as_ref();
    let budget = budget.map_or(Ok(Budget::Unlimited), |(axis, value)| {
        axis::budget(axis, value).map_err(|what| PlanError::Knob(what.to_string()))
    });
    let budget = match budget? {
        // A ratio is against the experiment's full tables, also where a scheme has its own dim.
        Budget::Compression(ratio) => {
            Budget::Compression(ratio * dim as f64 / spec.full_dim() as f64)
        }
        budget => budget,
    };
    let layer = LayerSpec { dim, sharing, rules };
    LayerPlan::new(scheme, &spec.scheme.all_knobs(), shape, &inputs, layer, budget)
}

/// The network of a trial on its random streams, untrained; or to copy saved weights into.
pub fn build(
    shape: &Shape,
    spec: &TrialSpec,
    plan: &LayerPlan,
    origin: Origin<'_>,
) -> Result<Net, String> {
    let rules = LayerRules {
        init: spec.embedding.init,
        hash: spec.embedding.hash,
        pooling: spec.embedding.pooling,
        unknown: spec.embedding.unknown,
        low: spec.scheme.low.then_some(spec.scheme.quantize),
    };
    let layer = Layer::build(plan, rules, spec.seed, origin);
    let model = model(shape, spec, &plan.widths(), spec.seed)?;
    Ok(Net::new(layer, model, &spec.optimizer.rule()))
}
