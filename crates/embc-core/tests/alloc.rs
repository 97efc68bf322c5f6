//! A training step allocates nothing once its buffers have grown.
//!
//! Steps run on a thread of the pool, as in training: handing work to the pool from outside
//! allocates now and then.

use embc_core::batch::{Bag, Batch, FieldShape, Shape};
use embc_core::budget::Budget;
use embc_core::init::Init;
use embc_core::layer::{Layer, LayerPlan, LayerSpec, Pooling};
use embc_core::loss::Loss;
use embc_core::model;
use embc_core::net::Net;
use embc_core::optim::{Kind, Optim, Touch};
use embc_core::rng::Rng;
use embc_core::scheme::{Knobs, SCHEMES};
use std::alloc::{GlobalAlloc, Layout, System};
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

fn shape() -> Shape {
    let field = |&vocab: &u32| FieldShape {
        name: format!("f{vocab}"),
        vocab,
        counts: vec![1; vocab as usize].into(),
    };
    Shape {
        dense: 3,
        fields: VOCABS.iter().map(field).collect(),
        classes: 2,
        train_rows: 1,
        items: None,
    }
}

/// A batch of other ids each time, of the same number.
fn fill(batch: &mut Batch, step: u64) {
    let mut rng = Rng::stream(step, "batch");
    batch.clear();
    batch.size = 256;
    batch.fields.resize(2, Bag::default());
    for (bag, vocab) in batch.fields.iter_mut().zip(VOCABS) {
        bag.ids.extend((0..256).map(|_| rng.below(vocab.into()) as u32));
    }
    batch.labels.extend((0..256).map(|_| rng.below(2) as f32));
    batch.dense.extend((0..256 * 3).map(|_| rng.symmetric(1.0)));
}

/// One test, since the counter is one for the whole process.
#[test]
fn steady_steps_allocate_nothing() {
    let shape = shape();
    rayon::scope(|_| ["gmf", "dlrm"].into_iter().for_each(|name| steps(name, &shape)));
}

fn steps(model: &str, shape: &Shape) {
    let kind = model::find(model).unwrap();
    for &scheme in SCHEMES {
        for optim in [Kind::Sgd, Kind::Adagrad, Kind::Adam] {
            for touch in [Touch::Touched, Touch::All] {
                let optim = Optim::new(optim, 0.01, touch);
                let inputs = kind.inputs(shape).unwrap();
                let spec = LayerSpec { dim: 8, ..LayerSpec::default() };
                let budget = Budget::Compression(2.0);
                let knobs = Knobs::new();
                let plan = LayerPlan::new(scheme, &knobs, shape, &inputs, spec, budget).unwrap();
                let layer = Layer::build(&plan, Init::UniformDim, None, Pooling::Mean, 1, None);
                let mut rng = Rng::stream(1, "model");
                let model = kind.build(shape, &plan.widths(), &knobs, &mut rng).unwrap();
                let mut net = Net::new(layer, model, &optim);
                let mut batch = Batch::default();
                let mut counted = 0;
                for step in 0..40 {
                    fill(&mut batch, step);
                    let before = ALLOCATIONS.load(Ordering::Relaxed);
                    net.step(&batch, Loss::Bce, &optim);
                    // The number of unique ids varies: buffers may grow in the first steps.
                    if step >= 30 {
                        counted += ALLOCATIONS.load(Ordering::Relaxed) - before;
                    }
                }
                assert_eq!(counted, 0, "{} {} {optim:?}", kind.name(), scheme.name());
            }
        }
    }
}
