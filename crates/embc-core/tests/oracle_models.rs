//! Models against PyTorch: losses of twenty steps, and scores after them.
//!
//! `oracle/models.json` is written by `scripts/oracle/models.py`, which computes in float64 with
//! autograd, torch's own layers and optimizer, from the same starting values.

use embc_core::batch::{Bag, Batch, FieldShape, Shape};
use embc_core::budget::Budget;
use embc_core::init::Init;
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec};
use embc_core::loss::Loss;
use embc_core::model::{Mode, find};
use embc_core::net::Net;
use embc_core::optim::{Kind, Optim, Touch};
use embc_core::rng::Rng;
use embc_core::scheme::{self, Knobs};
use embc_core::state::{Tensor, What, restore, save};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Oracle {
    vocab: u32,
    dim: usize,
    classes: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    model: String,
    knobs: Knobs,
    sgd: bool,
    state: BTreeMap<String, Vec<f32>>,
    batches: Vec<Examples>,
    losses: Vec<f64>,
    /// Of the first batch, in evaluation.
    scores: Vec<f32>,
}

#[derive(Deserialize)]
struct Examples {
    fields: Vec<Vec<Vec<u32>>>,
    targets: Vec<Vec<u32>>,
    labels: Vec<f32>,
    #[serde(default)]
    dense: Vec<f32>,
}

fn bag(ids: &[Vec<u32>]) -> Bag {
    let mut bag = Bag { ids: ids.concat(), offsets: vec![0] };
    for ids in ids {
        bag.offsets.push(bag.offsets[bag.offsets.len() - 1] + ids.len() as u32);
    }
    bag
}

impl Examples {
    fn batch(&self) -> Batch {
        Batch {
            size: self.fields[0].len(),
            fields: self.fields.iter().map(|field| bag(field)).collect(),
            targets: bag(&self.targets),
            labels: self.labels.clone(),
            dense: self.dense.clone(),
            ..Batch::default()
        }
    }
}

impl Oracle {
    fn net(&self, case: &Case, optim: &Optim) -> Net {
        let field = FieldShape {
            name: "item".into(),
            vocab: self.vocab,
            counts: vec![1; self.vocab as usize].into(),
        };
        let first = &case.batches[0];
        let dense = first.dense.len() / first.fields[0].len();
        let classes = match case.model.as_str() {
            "pointwise" => self.vocab as usize,
            "deepfm" | "dcn" => 2,
            _ => self.classes,
        };
        let fields = vec![field; first.fields.len()];
        let shape = Shape { dense, fields, classes, train_rows: 1, items: None };
        let kind = find(&case.model).expect("registered");
        let inputs = kind.inputs(&shape).unwrap();
        let spec = LayerSpec { dim: self.dim, ..LayerSpec::default() };
        let (full, none) = (scheme::find("full").expect("registered"), Knobs::new());
        let plan = LayerPlan::new(full, &none, &shape, &inputs, spec, Budget::Unlimited).unwrap();
        let layer = Layer::build(
            &plan,
            LayerRules { init: Init::UniformDim, ..Default::default() },
            1,
            embc_core::scheme::Origin::Nothing,
        );
        let mut rng = Rng::stream(1, "model");
        let model = kind.build(&shape, &plan.widths(), &case.knobs, &mut rng).unwrap();
        let mut net = Net::new(layer, model, optim);
        let start = case.state.iter().map(|(name, x)| (name.clone(), Tensor::from(x.clone())));
        let start: BTreeMap<_, _> = start.collect();
        // Every tensor of ours is the oracle's, and of its shape.
        restore(&mut net, &start, What::Weights).unwrap_or_else(|e| panic!("{}: {e}", case.model));
        assert_eq!(save(&mut net, What::Weights).len(), start.len(), "{}", case.model);
        net
    }
}

#[test]
fn losses_and_scores_are_those_of_pytorch() {
    let oracle: Oracle = serde_json::from_str(include_str!("oracle/models.json")).unwrap();
    assert_eq!(oracle.cases.len(), 6);
    for case in &oracle.cases {
        let optim = match case.sgd {
            true => Optim::new(Kind::Sgd, 0.1, Touch::All),
            false => Optim::new(Kind::Adam, 0.01, Touch::All),
        };
        let mut net = oracle.net(case, &optim);
        let batches: Vec<Batch> = case.batches.iter().map(Examples::batch).collect();
        let loss = match case.model.as_str() {
            "pointwise" => Loss::Multinomial,
            "ranknet" | "deepfm" | "dcn" => Loss::Bce,
            _ => Loss::Softmax,
        };
        for (step, theirs) in case.losses.iter().enumerate() {
            let ours = net.step(&batches[step % batches.len()], loss, &optim);
            assert!((ours - theirs).abs() <= 1e-5, "{} {step}: {ours}, {theirs}", case.model);
        }
        let scores = net.score(&batches[0], Mode::Eval);
        assert_eq!(scores.len(), case.scores.len());
        for (ours, theirs) in scores.iter().zip(&case.scores) {
            let near = (*ours - theirs).abs() <= 1e-4 * (1.0 + theirs.abs());
            assert!(near, "{} {:?}: {ours}, {theirs}", case.model, case.knobs);
        }
    }
}
