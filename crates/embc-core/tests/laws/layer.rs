//! Laws of whole layers: bags, sharing, threads, saving.

use super::graph::assert_reads_the_same;
use super::{read_out, variants};
use embc_core::batch::{Bag, Batch, FieldShape, Shape};
use embc_core::budget::{Allocation, Budget, Rules};
use embc_core::cancel::Cancel;
use embc_core::init::Init;
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec, Pooling, Sharing};
use embc_core::model::{Input, Mode};
use embc_core::optim::{Kind, Optim, Touch};
use embc_core::quantize::Storage;
use embc_core::rng::Rng;
use embc_core::scheme::*;
use embc_core::state::{HasState, State, Tensor, What, restore, save};
use std::collections::BTreeSet;

/// A layer of two fields.
fn layer(
    scheme: &dyn Scheme,
    knobs: &Knobs,
    vocabs: [u32; 2],
    sharing: Sharing,
    (dim, init, seed): (usize, Init, u64),
) -> Layer {
    let rules = LayerRules { init, ..Default::default() };
    layer_of(scheme, knobs, vocabs, sharing, (dim, rules, seed), |_, _| 1).0
}

/// A layer of two fields whose ids have so many training rows.
pub fn layer_of(
    scheme: &dyn Scheme,
    knobs: &Knobs,
    vocabs: [u32; 2],
    sharing: Sharing,
    (dim, rules, seed): (usize, LayerRules, u64),
    counts: impl Fn(usize, u32) -> u32,
) -> (Layer, Shape) {
    let (shape, inputs) = fields(vocabs, counts);
    let storage = rules.low.unwrap_or_default();
    let of_plan = Rules { storage, low: rules.low.is_some(), ..Rules::default() };
    let spec = LayerSpec { dim, sharing, rules: of_plan };
    let budget = Budget::Compression(2.5);
    let plan = LayerPlan::new(scheme, knobs, &shape, &inputs, spec, budget).unwrap();
    (Layer::build(&plan, rules, seed, Origin::Nothing), shape)
}

/// Two fields whose ids have so many training rows, each read once.
fn fields(vocabs: [u32; 2], counts: impl Fn(usize, u32) -> u32) -> (Shape, [Input; 2]) {
    let field = |i: usize| FieldShape {
        name: ["a", "b"][i].into(),
        vocab: vocabs[i],
        counts: (0..vocabs[i]).map(|id| counts(i, id)).collect(),
    };
    let fields = [0, 1].map(field).into();
    let shape = Shape { dense: 0, fields, classes: 2, train_rows: 1, items: None };
    (shape, [0, 1].map(|field| Input { field, table: field, width: None }))
}

/// Bags of up to three ids, some of them empty, for two fields.
pub fn bags(size: usize, vocabs: [u32; 2], mut rng: Rng) -> Batch {
    let mut batch = Batch { size, fields: vec![Bag::default(); 2], ..Batch::default() };
    for (bag, vocab) in batch.fields.iter_mut().zip(vocabs) {
        bag.offsets.push(0);
        for _ in 0..size {
            (0..rng.below(4)).for_each(|_| bag.ids.push(rng.below(vocab.into()) as u32));
            bag.offsets.push(bag.ids.len() as u32);
        }
    }
    batch
}

#[test]
fn gradients_through_bags_equal_finite_differences() {
    let vocabs = [60, 25];
    // Ids meet in a bag, in the batch, and in the rows that they share.
    let batch = bags(24, vocabs, Rng::stream(4, "bags"));
    for (scheme, knobs) in variants() {
        for sharing in [Sharing::PerField, Sharing::Global] {
            let mut layer = layer(scheme, &knobs, vocabs, sharing, (8, Init::Normal(0.5), 9));
            let grads: Vec<_> =
                layer.forward(&batch, Mode::Train).iter().map(|rows| read_out(rows).1).collect();
            layer.backward(&batch, &grads);
            // All gradients, numbered by parameter: tables share names.
            let mut analytic = Vec::new();
            let mut number = 0;
            layer.params(&mut |param| {
                param.visit_grad(&mut |row, grad| analytic.push((number, row, grad.to_vec())));
                number += 1;
            });
            for (wanted, row, grad) in analytic {
                // A component or two of each row.
                for i in (0..grad.len()).step_by(grad.len().div_ceil(2)) {
                    let mut at = |delta: f32| {
                        let nudge = |layer: &mut Layer, delta: f32| {
                            let mut number = 0;
                            layer.params(&mut |param| {
                                if number == wanted {
                                    let width = param.width();
                                    param.value_mut()[row as usize * width + i] += delta;
                                }
                                number += 1;
                            });
                        };
                        nudge(&mut layer, delta);
                        let rows = layer.forward(&batch, Mode::Train).iter();
                        let value: f64 = rows.map(|rows| read_out(rows).0).sum();
                        nudge(&mut layer, -delta);
                        value
                    };
                    let (below, above) = (at(-1e-3), at(1e-3));
                    let slope: f64 = (above - below) / 2e-3;
                    // A ReLU has another slope on either side of 0.
                    let kink = match knobs.get("network") {
                        Some(_) => (above + below - 2.0 * at(0.0)).abs() / 2e-3,
                        None => 0.0,
                    };
                    assert!(
                        (slope - f64::from(grad[i])).abs() < 2e-3 * (1.0 + slope.abs()) + kink,
                        "{} {knobs:?} {sharing:?} {wanted}[{row}][{i}]: {slope} {}",
                        scheme.name(),
                        grad[i]
                    );
                }
            }
        }
    }
}

/// A scheme, its knobs, and the storage that its rows train in.
type Way = (&'static dyn Scheme, Knobs, Option<Storage>);

/// All variants, and in few bits those that can.
fn ways() -> Vec<Way> {
    let wide = variants().into_iter().map(|(scheme, knobs)| (scheme, knobs, None));
    let low = wide.clone().filter(|(scheme, ..)| scheme.trains_low());
    let low = low.flat_map(|(scheme, knobs, _)| {
        [Storage::Int8, Storage::Int4].map(|storage| (scheme, knobs.clone(), Some(storage)))
    });
    wide.clone().chain(low).collect()
}

/// Two fields of bags over a scheme, trained for some steps on any number of threads.
fn train(
    (scheme, knobs, low): &Way,
    threads: usize,
    sharing: Sharing,
    (seed, steps): (u64, u64),
) -> Layer {
    let rules = LayerRules { low: *low, ..LayerRules::default() };
    let (mut layer, _) = layer_of(*scheme, knobs, [300, 70], sharing, (16, rules, seed), |_, _| 1);
    let optim = Optim::new(Kind::Adam, 0.01, Touch::Touched);
    layer.params(&mut |param| optim.attach(param));
    steps_of(&mut layer, threads, 0..steps);
    layer
}

fn steps_of(layer: &mut Layer, threads: usize, steps: std::ops::Range<u64>) {
    let optim = Optim::new(Kind::Adam, 0.01, Touch::Touched);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        for step in steps {
            // 4,096 examples are enough work for the tables to run in parallel.
            let batch = bags(4096, [300, 70], Rng::stream(step, "batch"));
            let grads: Vec<Vec<f32>> =
                layer.forward(&batch, Mode::Train).iter().map(|rows| read_out(rows).1).collect();
            layer.step(&batch, &grads, &optim);
        }
    });
}

struct OfLayer(Layer);

impl HasState for OfLayer {
    fn state(&mut self, visit: State<'_>) {
        self.0.state(visit);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for way in ways() {
        for sharing in [Sharing::PerField, Sharing::Global] {
            let of = |threads| {
                let layer = train(&way, threads, sharing, (9, 3));
                save(&mut OfLayer(layer), What::Everything)
            };
            let one = of(1);
            assert_eq!(one, of(2), "{}", way.0.name());
            assert_eq!(one, of(7), "{}", way.0.name());
        }
    }
}

#[test]
fn a_saved_layer_goes_on_with_the_same_bits() {
    for way in ways() {
        let mut through = OfLayer(train(&way, 2, Sharing::PerField, (9, 2)));
        let saved = save(&mut through, What::Everything);
        // Built from another stream: nothing may come from anywhere but the saved state.
        let mut resumed = OfLayer(train(&way, 1, Sharing::PerField, (10, 0)));
        restore(&mut resumed, &saved, What::Everything).unwrap();
        steps_of(&mut through.0, 2, 2..4);
        steps_of(&mut resumed.0, 1, 2..4);
        let of = |layer: &mut OfLayer| save(layer, What::Everything);
        assert_eq!(of(&mut through), of(&mut resumed), "{}", way.0.name());
    }
}

/// From one row for all ids, through codes, to the rows as they were: within the bytes that tables
/// share, and saved as what they became.
#[test]
fn what_tables_become_within_shared_bytes_fits_and_is_what_is_loaded() {
    let (vocabs, cancel) = ([900, 12], Cancel::default());
    let batch = bags(512, vocabs, Rng::stream(4, "bags"));
    for (scheme, knobs) in variants().into_iter().filter(|(scheme, _)| scheme.decides_late()) {
        let mut became = BTreeSet::new();
        for (storage, bytes) in [70, 400, 1500, 6000, 1 << 20]
            .into_iter()
            .flat_map(|bytes| [(Storage::Fp32, bytes), (Storage::Int4, bytes)])
        {
            let rules = Rules { allocation: Allocation::Optimal, storage, ..Rules::default() };
            let (shape, inputs) = fields(vocabs, |_, id| 1 + 900 / (1 + id));
            let spec = LayerSpec { dim: 8, sharing: Sharing::PerField, rules };
            let budget = Budget::Bytes(bytes);
            let plan = LayerPlan::new(scheme, &knobs, &shape, &inputs, spec, budget).unwrap();
            let build =
                |seed, origin: Origin<'_>| Layer::build(&plan, LayerRules::default(), seed, origin);
            let mut layer = build(9, Origin::Nothing);
            let rows = layer.forward(&batch, Mode::Train).iter();
            let grads: Vec<_> = rows.map(|rows| read_out(rows).1).collect();
            layer.measure(&batch, &grads);
            while layer.finish(Origin::Nothing, &cancel).is_some() {}
            layer.quantize(storage);
            let what = format!("{knobs:?} {bytes}");
            assert_reads_the_same(scheme.name(), &mut layer, &shape, &batch, Pooling::Mean, &what);
            let footprint = layer.footprint();
            assert!(footprint.bytes() <= bytes, "{} {bytes}: {footprint:?}", scheme.name());
            let mut layer = OfLayer(layer);
            let saved = save(&mut layer, What::Weights);
            became.extend(
                saved.keys().filter_map(|name| name.strip_prefix("table0/")).map(String::from),
            );
            let mut loaded = build(10, Origin::Saved(&saved));
            loaded.quantize(storage);
            let mut loaded = OfLayer(loaded);
            restore(&mut loaded, &saved, What::Weights).unwrap();
            assert_eq!(loaded.0.footprint().bytes(), footprint.bytes(), "{}", scheme.name());
            let rows = |layer: &mut OfLayer| layer.0.forward(&batch, Mode::Eval).to_vec();
            assert_eq!(rows(&mut loaded), rows(&mut layer), "{} {bytes}", scheme.name());
        }
        for form in ["row", "table", if scheme.name() == "binary" { "bits0" } else { "codes" }] {
            assert!(became.contains(form), "{}: {became:?}", scheme.name());
        }
    }
}

#[test]
fn rows_that_train_in_few_bits_are_stored_and_read_as_they_are() {
    let batch = bags(512, [300, 70], Rng::stream(4, "bags"));
    for way in ways() {
        let (scheme, knobs, Some(storage)) = &way else { continue };
        let rules = LayerRules { low: Some(*storage), ..LayerRules::default() };
        let of = |seed| {
            layer_of(*scheme, knobs, [300, 70], Sharing::PerField, (16, rules, seed), |_, _| 1)
        };
        let what = format!("{} {storage:?}", scheme.name());
        let mut trained = train(&way, 1, Sharing::PerField, (9, 3));
        let bytes: u64 =
            save(&mut OfLayer(train(&way, 1, Sharing::PerField, (9, 3))), What::Weights)
                .iter()
                .filter(|(name, _)| name.ends_with("codes") || name.ends_with("ranges"))
                .map(|(_, tensor)| match tensor {
                    Tensor::U64(words) => 8 * words.len() as u64,
                    Tensor::U32(ranges) => 4 * ranges.len() as u64,
                    Tensor::F32(_) => panic!("{what}: floats"),
                })
                .sum();
        assert_eq!(trained.footprint().param_bytes, bytes, "{what}");
        // Codes, ranges and a word a row of optimizer state; nothing in fp32.
        let mut held = 0;
        trained.params(&mut |param| held += param.train_bytes());
        let rows = trained.footprint().params / 16;
        assert_eq!(held, bytes + 4 * rows, "{what}");
        let (_, shape) = of(9);
        assert_reads_the_same(scheme.name(), &mut trained, &shape, &batch, Pooling::Mean, &what);
        let mut trained = OfLayer(trained);
        let saved = save(&mut trained, What::Weights);
        let mut loaded = OfLayer(of(10).0);
        restore(&mut loaded, &saved, What::Weights).unwrap();
        let rows = |layer: &mut OfLayer| layer.0.forward(&batch, Mode::Eval).to_vec();
        assert_eq!(rows(&mut loaded), rows(&mut trained), "{what}");
    }
}
