//! Schemes against PyTorch: rows, gradients, ten losses under each optimizer.
//!
//! `oracle/schemes.json` is written by `scripts/oracle/schemes.py`, which computes in float64 with
//! autograd and torch's own optimizers, from the same starting values.

use embc_core::batch::{Bag, Batch, FieldShape, Shape};
use embc_core::budget::{Budget, Rules};
use embc_core::init::Init;
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec, Sharing};
use embc_core::model::{Input, Mode};
use embc_core::optim::{Kind, Optim, Touch};
use embc_core::scheme::{Clock, Knobs, find};
use embc_core::state::{HasState, State, Tensor, What, restore, save};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Oracle {
    vocab: u32,
    dim: usize,
    /// The logit is the pooled row times this.
    readout: Vec<f32>,
    batches: Vec<Examples>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Examples {
    bags: Vec<Vec<u32>>,
    labels: Vec<f32>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    knobs: Knobs,
    /// Parameters / dim.
    rows_budget: Option<u64>,
    params: BTreeMap<String, Vec<f32>>,
    state: BTreeMap<String, Vec<u64>>,
    /// Rows of all ids [vocab × dim] at the start.
    rows: Vec<f32>,
    /// Of the first batch's loss.
    gradients: BTreeMap<String, Vec<f32>>,
    runs: BTreeMap<String, Run>,
    new_helper_keys: Option<Vec<u64>>,
}

#[derive(Deserialize)]
struct Run {
    /// Ten, and where there is a clustering ten more after it.
    losses: Vec<f64>,
    /// Rows after the clustering.
    clustered: Option<Vec<f32>>,
    /// Rows after the last step.
    rows: Vec<f32>,
}

struct OfLayer(Layer);

impl HasState for OfLayer {
    fn state(&mut self, visit: State<'_>) {
        self.0.state(visit);
    }
}

fn optimizer(name: &str) -> Optim {
    match name {
        "sgd" => Optim::new(Kind::Sgd, 0.1, Touch::Touched),
        "adagrad" => Optim::new(Kind::Adagrad, 0.1, Touch::Touched),
        "adam all" => Optim::new(Kind::Adam, 0.01, Touch::All),
        "adam touched" => Optim::new(Kind::Adam, 0.01, Touch::Touched),
        other => panic!("unknown optimizer {other}"),
    }
}

impl Oracle {
    fn layer(&self, case: &Case, optim: &Optim) -> OfLayer {
        let counts = vec![1; self.vocab as usize].into();
        let field = FieldShape { name: "f".into(), vocab: self.vocab, counts };
        let shape = Shape { dense: 0, fields: vec![field], classes: 2, train_rows: 1, items: None };
        let inputs = [Input { field: 0, table: 0, width: None }];
        let spec = LayerSpec { dim: self.dim, sharing: Sharing::PerField, rules: Rules::default() };
        let budget = case.rows_budget.map_or(Budget::Unlimited, Budget::Rows);
        let scheme = find(&case.kind).expect("registered");
        let plan = LayerPlan::new(scheme, &case.knobs, &shape, &inputs, spec, budget).unwrap();
        let mut layer = Layer::build(
            &plan,
            LayerRules { init: Init::UniformDim, ..Default::default() },
            1,
            embc_core::scheme::Origin::Nothing,
        );
        layer.params(&mut |param| optim.attach(param));
        let mut layer = OfLayer(layer);
        let mut start = BTreeMap::new();
        for (name, values) in &case.params {
            start.insert(format!("table0/{name}"), Tensor::from(values.clone()));
        }
        for (name, values) in &case.state {
            start.insert(format!("table0/{name}"), Tensor::from(values.clone()));
        }
        if case.kind == "cce" {
            start.insert("table0/quantisation_error".into(), Tensor::from(vec![0u64, 0]));
        }
        // Every tensor of ours is the oracle's, and of its shape.
        restore(&mut layer, &start, What::Weights).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        assert_eq!(save(&mut layer, What::Weights).len(), start.len(), "{}", case.name);
        layer
    }

    /// Rows of all ids.
    fn rows(&self, layer: &mut Layer) -> Vec<f32> {
        let ids = (0..self.vocab).collect();
        let fields = vec![Bag { ids, offsets: Vec::new() }];
        let batch = Batch { size: self.vocab as usize, fields, ..Batch::default() };
        layer.forward(&batch, Mode::Train)[0].clone()
    }

    /// Forward, binary cross-entropy, backward: the loss.
    fn backward(&self, layer: &mut Layer, examples: &Examples) -> f64 {
        let mut bag = Bag { ids: examples.bags.concat(), offsets: vec![0] };
        for ids in &examples.bags {
            bag.offsets.push(bag.offsets[bag.offsets.len() - 1] + ids.len() as u32);
        }
        let size = examples.bags.len();
        let batch = Batch { size, fields: vec![bag], ..Batch::default() };
        let rows = layer.forward(&batch, Mode::Train)[0].clone();
        let (mut loss, mut grads) = (0.0, Vec::new());
        for (row, &label) in rows.chunks(self.dim).zip(&examples.labels) {
            let logit: f64 =
                row.iter().zip(&self.readout).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            loss += logit.exp().ln_1p() - f64::from(label) * logit;
            let slope = (1.0 / (1.0 + (-logit).exp()) - f64::from(label)) / size as f64;
            grads.extend(self.readout.iter().map(|w| (slope * f64::from(*w)) as f32));
        }
        layer.backward(&batch, &[grads]);
        loss / size as f64
    }

    /// Trains for all batches; the losses.
    fn train(&self, layer: &mut Layer, optim: &Optim) -> Vec<f64> {
        let step = |examples| {
            let loss = self.backward(layer, examples);
            layer.params(&mut |param| optim.step(param));
            loss
        };
        self.batches.iter().map(step).collect()
    }
}

#[track_caller]
fn close(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{what} [{i}]: {a}, torch has {b}");
    }
}

#[test]
fn rows_gradients_and_losses_are_those_of_pytorch() {
    let oracle: Oracle = serde_json::from_str(include_str!("oracle/schemes.json")).unwrap();
    assert_eq!(oracle.cases.len(), 25);
    for case in &oracle.cases {
        let mut first = oracle.layer(case, &optimizer("sgd"));
        close(&format!("{} rows", case.name), &oracle.rows(&mut first.0), &case.rows);
        oracle.backward(&mut first.0, &oracle.batches[0]);
        let mut ours: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        first.0.params(&mut |param| {
            let mut dense = vec![0.0; param.value().len()];
            let width = param.width();
            param.visit_grad(&mut |row, grad| {
                dense[row as usize * width..][..width].copy_from_slice(grad);
            });
            ours.insert(param.name().into(), dense);
        });
        assert!(ours.keys().eq(case.gradients.keys()), "{}", case.name);
        for (name, theirs) in &case.gradients {
            close(&format!("{} gradient of {name}", case.name), &ours[name], theirs);
        }
        assert_eq!(case.runs.len(), 4);
        for (name, run) in &case.runs {
            let (what, optim) = (format!("{} under {name}", case.name), optimizer(name));
            let mut layer = oracle.layer(case, &optim);
            let mut losses = oracle.train(&mut layer.0, &optim);
            if let (Some(keys), Some(rows)) = (&case.new_helper_keys, &run.clustered) {
                let at = Clock { step: 11, epoch: 1, steps_per_epoch: 10 };
                let _ = layer.0.after_step(at, &mut 0, &Default::default());
                let mut state = save(&mut layer, What::Weights);
                let helper_keys = state.get_mut("table0/helper_keys").expect("cce has them");
                assert_ne!(*helper_keys, Tensor::from(case.state["helper_keys"].clone()));
                *helper_keys = Tensor::from(keys.clone());
                restore(&mut layer, &state, What::Weights).unwrap();
                close(&format!("{what}, clustered"), &oracle.rows(&mut layer.0), rows);
                losses.extend(oracle.train(&mut layer.0, &optim));
            }
            assert_eq!(losses.len(), run.losses.len(), "{what}");
            for (step, (ours, theirs)) in losses.iter().zip(&run.losses).enumerate() {
                assert!((ours - theirs).abs() <= 1e-5, "{what}, step {step}: {ours}, {theirs}");
            }
            close(&format!("{what}, last rows"), &oracle.rows(&mut layer.0), &run.rows);
        }
    }
}
