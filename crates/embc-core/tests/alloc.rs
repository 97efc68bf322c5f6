//! A training step allocates nothing once its buffers have grown, a reader of the packed net nothing
//! after it was made.
//!
//! Steps run on a thread of the pool, as in training: handing work to the pool from outside
//! allocates now and then.

use embc_core::batch::{Bag, Batch, Examples, FieldShape, Shape};
use embc_core::budget::Budget;
use embc_core::graph::{HashAs, device};
use embc_core::init::Init;
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec, Pooling};
use embc_core::loss::Loss;
use embc_core::model;
use embc_core::net::Net;
use embc_core::optim::{Kind, Optim, Touch};
use embc_core::quantize::Storage;
use embc_core::rng::Rng;
use embc_core::scheme::{Knobs, SCHEMES};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts allocations.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes everything on to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const VOCABS: [u32; 2] = [400, 90];
/// Items of models that read a history.
const ITEMS: u32 = 300;

fn shape(examples: Examples) -> Shape {
    let field = |vocab: u32| FieldShape {
        name: format!("f{vocab}"),
        vocab,
        counts: vec![1; vocab as usize].into(),
    };
    let (dense, vocabs, classes) = match examples {
        Examples::Rows => (3, VOCABS.to_vec(), 2),
        Examples::Pairs => (0, vec![ITEMS; 3], 2),
        _ => (0, vec![ITEMS], ITEMS as usize),
    };
    let fields = vocabs.into_iter().map(field).collect();
    Shape { dense, fields, classes, train_rows: 1, items: None }
}

/// A batch of other ids each time, of the same number.
fn fill(batch: &mut Batch, step: u64, shape: &Shape, examples: Examples) {
    let mut rng = Rng::stream(step, "batch");
    batch.clear();
    (batch.size, batch.key) = (256, step);
    batch.fields.resize(shape.fields.len(), Bag::default());
    for (f, (bag, field)) in batch.fields.iter_mut().zip(&shape.fields).enumerate() {
        let each = if f == 0 && examples != Examples::Rows { 5 } else { 1 };
        bag.ids.extend((0..256 * each).map(|_| rng.below(field.vocab.into()) as u32));
        if each > 1 {
            bag.offsets.extend((0..=256).map(|i| i * each));
        }
    }
    if matches!(examples, Examples::Users | Examples::Events) {
        batch.targets.ids.extend((0..256 * 3).map(|i| (i * 7 + step as u32) % ITEMS));
        batch.targets.offsets.extend((0..=256).map(|i| i * 3));
    }
    batch.labels.extend((0..256).map(|_| rng.below(2) as f32));
    batch.dense.extend((0..256 * shape.dense).map(|_| rng.symmetric(1.0)));
}

/// One test, since the counter is one for the whole process.
#[test]
fn steady_steps_allocate_nothing() {
    let all: Vec<&str> = SCHEMES.iter().map(|scheme| scheme.name()).collect();
    // On a busy machine the pool's threads would still be starting, which allocates.
    rayon::broadcast(|_| ());
    rayon::scope(|_| {
        steps("gmf", "{}", &all);
        in_storage("gmf", "{}", &["full", "hash", "bloom"], Some(Storage::Int8));
        steps("dlrm", "{}", &all);
        let body = r#"{"hidden": [32], "dropout": 0.2, "batch_norm": true}"#;
        steps("mlp", body, &["full", "memcom"]);
        steps("deepfm", body, &["full", "memcom"]);
        steps("dcn", body, &["full", "memcom"]);
        steps("ranknet", body, &["full", "memcom"]);
        steps("pointwise", body, &["full", "memcom"]);
        steps("pointwise", r#"{"samples": 40}"#, &["full", "memcom"]);
    });
}

fn steps(model: &str, knobs: &str, schemes: &[&str]) {
    in_storage(model, knobs, schemes, None);
}

/// `low` is what rows train in, where it is not fp32.
fn in_storage(model: &str, knobs: &str, schemes: &[&str], low: Option<Storage>) {
    let kind = model::find(model).unwrap();
    let knobs: Knobs = serde_json::from_str(knobs).unwrap();
    let examples = kind.examples(&knobs).unwrap();
    let shape = &shape(examples);
    let loss = if shape.classes > 2 { Loss::Multinomial } else { Loss::Bce };
    for scheme in schemes.iter().map(|name| embc_core::scheme::find(name).unwrap()) {
        for optim in [Kind::Sgd, Kind::Adagrad, Kind::Adam] {
            for touch in [Touch::Touched, Touch::All] {
                let optim = Optim::new(optim, 0.01, touch);
                let inputs = kind.inputs(shape).unwrap();
                let spec = LayerSpec { dim: 8, ..LayerSpec::default() };
                let (budget, none) = (Budget::Compression(2.0), Knobs::new());
                let plan = LayerPlan::new(scheme, &none, shape, &inputs, spec, budget).unwrap();
                let layer = Layer::build(
                    &plan,
                    LayerRules { init: Init::UniformDim, low, ..Default::default() },
                    1,
                    embc_core::scheme::Origin::Nothing,
                );
                let mut rng = Rng::stream(1, "model");
                let model = kind.build(shape, &plan.widths(), &knobs, &mut rng).unwrap();
                let mut net = Net::new(layer, model, &optim);
                let mut batch = Batch::default();
                // Buffers grow in the first steps, with the number of unique ids; on a busy machine a
                // thread of the pool may get its first share of the work, and its scratch, late.
                let (mut step, mut quiet) = (0, 0);
                while quiet < 10 {
                    assert!(step < 400, "{} {} {optim:?}", kind.name(), scheme.name());
                    fill(&mut batch, step, shape, examples);
                    let before = ALLOCATIONS.load(Ordering::Relaxed);
                    net.step(&batch, loss, &optim);
                    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
                    (step, quiet) = (step + 1, if allocated == 0 { quiet + 1 } else { 0 });
                }
                if touch == Touch::All {
                    scores(&net, &batch, shape);
                }
            }
        }
    }
}

/// A reader of the packed net allocates nothing after it was made.
fn scores(net: &Net, batch: &Batch, shape: &Shape) {
    let graph = net.graph(shape, HashAs::Graph, true);
    let mut header = graph.header("alloc".into(), Pooling::Mean).unwrap();
    let blobs: Vec<&[u8]> = graph.blobs.iter().map(|(_, bytes)| &bytes[..]).collect();
    let mut bytes = Vec::new();
    device::file::write(&mut header, &blobs, &mut bytes).unwrap();
    let model = Arc::new(device::Model::from_bytes(bytes).unwrap());
    let mut reader = device::Reader::new(model.clone()).unwrap();
    let bags: Vec<device::Bag<'_>> = (batch.fields[..header.inputs.len()].iter())
        .map(|bag| device::Bag { ids: &bag.ids, offsets: &bag.offsets })
        .collect();
    let dense: Vec<f64> = batch.dense.iter().map(|&x| x.into()).collect();
    let mut logits = vec![0.0; batch.size * model.outputs()];
    let ids = &batch.fields[0].ids;
    let mut rows = vec![0.0; ids.len() * model.width(0)];
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    reader.score(&bags, &dense, &mut logits).unwrap();
    reader.rows(0, ids, &mut rows).unwrap();
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
}
