//! How near a training step comes to the machine's matrix product, and what the rest takes: DLRM at
//! the shape of Criteo-Kaggle, with small tables, so that no memory but the caches is measured.
//!
//! `just bench-step`

use embc_core::batch::{Bag, Batch, FieldShape, Shape};
use embc_core::budget::Budget;
use embc_core::init::Init;
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec};
use embc_core::loss::Loss;
use embc_core::net::Net;
use embc_core::optim::{Kind, Optim, Touch};
use embc_core::rng::Rng;
use embc_core::scheme::Knobs;
use std::time::{Duration, Instant};

const VOCAB: u32 = 100_000;

fn main() {
    let field = |i: usize| FieldShape {
        name: format!("f{i}"),
        vocab: VOCAB,
        counts: vec![1; VOCAB as usize].into(),
    };
    let shape = Shape {
        dense: 13,
        fields: (0..26).map(field).collect(),
        classes: 2,
        train_rows: 1,
        items: None,
    };
    let kind = embc_core::model::find("dlrm").expect("registered");
    let full = embc_core::scheme::find("full").expect("registered");
    let (knobs, spec) = (Knobs::new(), LayerSpec { dim: 16, ..LayerSpec::default() });
    let inputs = kind.inputs(&shape).expect("fields");
    let plan = LayerPlan::new(full, &knobs, &shape, &inputs, spec, Budget::Unlimited);
    let plan = plan.expect("no budget");
    let mut rng = Rng::stream(1, "bench");
    let optim = Optim::new(Kind::Sgd, 0.1, Touch::Touched);
    for size in [128, 2048] {
        let layer = Layer::build(
            &plan,
            LayerRules { init: Init::UniformDim, ..Default::default() },
            1,
            embc_core::scheme::Origin::Nothing,
        );
        let model = kind.build(&shape, &plan.widths(), &knobs, &mut rng).expect("defaults");
        let mut net = Net::new(layer, model, &optim);
        let batches: Vec<Batch> = (0..16)
            .map(|_| {
                let ids =
                    |rng: &mut Rng| (0..size).map(|_| rng.below(VOCAB.into()) as u32).collect();
                let fields = (0..26).map(|_| Bag { ids: ids(&mut rng), offsets: Vec::new() });
                Batch {
                    size,
                    fields: fields.collect(),
                    dense: (0..13 * size).map(|_| rng.symmetric(1.0)).collect(),
                    labels: (0..size).map(|_| rng.below(2) as f32).collect(),
                    ..Batch::default()
                }
            })
            .collect();
        let mut speed = || {
            let (mut done, start) = (0, Instant::now());
            while start.elapsed() < Duration::from_millis(300) {
                for batch in &batches {
                    net.step(batch, Loss::Bce, &optim);
                    done += size;
                }
            }
            done as f64 / start.elapsed().as_secs_f64()
        };
        rayon::scope(|_| {
            speed();
            let best = (0..5).map(|_| speed()).fold(0.0, f64::max);
            println!("batch {size}: {:.1} k examples/s", best / 1e3);
        });
    }
}
