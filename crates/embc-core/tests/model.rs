//! Every model in the registry: gradients of its rows and weights against finite differences.

use embc_core::batch::{Bag, FieldShape, Shape};
use embc_core::model::{Features, MODELS, Mode, Model, ModelKind, Sample};
use embc_core::param::Param;
use embc_core::rng::Rng;
use embc_core::scheme::Knobs;

const BATCH: usize = 5;

/// Data that the model takes.
fn shape(model: &str) -> Shape {
    let field = |name: &str| FieldShape { name: name.into(), vocab: 9, counts: vec![1; 9].into() };
    let names: &[&str] = match model {
        "ranknet" => &["history", "item", "other"],
        "pointwise" => &["history"],
        _ => &["a", "b"],
    };
    let classes = if ["classifier", "pointwise"].contains(&model) { 4 } else { 2 };
    let fields = names.iter().map(|name| field(name)).collect();
    Shape { dense: 3, fields, classes, train_rows: 1, items: None }
}

fn knobs(model: &str) -> Knobs {
    let text = match model {
        "gmf" => "{}",
        "dlrm" => r#"{"bottom":[7],"top":[6,5]}"#,
        "dcn" => r#"{"cross":2,"hidden":[7,5],"batch_norm":true}"#,
        "mlp" | "classifier" | "deepfm" => r#"{"hidden":[7,5],"batch_norm":true}"#,
        _ => r#"{"hidden":[7,6],"dropout":0.25}"#,
    };
    serde_json::from_str(text).unwrap()
}

fn weight(i: usize) -> f32 {
    (i % 7) as f32 - 1.5
}

/// A smooth function of the logits.
fn value(model: &mut dyn Model, x: &Features<'_>, outputs: usize) -> f64 {
    let mut out = vec![0.0; outputs];
    model.forward(x, Mode::Train, &mut out);
    out.iter().enumerate().map(|(i, &x)| f64::from(weight(i) * x)).sum()
}

#[test]
fn gradients_equal_finite_differences() {
    for kind in MODELS {
        check(*kind, &knobs(kind.name()), None);
    }
    let linear = r#"{"bottom":[7],"top":[6,5],"bottom_linear":true}"#;
    let dlrm = embc_core::model::find("dlrm").unwrap();
    check(dlrm, &serde_json::from_str(linear).unwrap(), None);
}

/// Trials are known by their knobs with all defaults.
#[test]
fn a_knob_that_came_later_is_in_no_trial_without_it() {
    let dlrm = embc_core::model::find("dlrm").unwrap();
    assert_eq!(dlrm.defaults().keys().collect::<Vec<_>>(), ["bottom", "top"]);
}

/// A sampled softmax: two items drawn, one of them a target; one example without a target.
#[test]
fn gradients_of_a_sample_equal_finite_differences() {
    let kind = embc_core::model::find("pointwise").unwrap();
    let targets = Bag { ids: vec![0, 3, 1, 2, 1], offsets: vec![0, 2, 3, 3, 4, 5] };
    let knobs = serde_json::from_str(r#"{"samples":2}"#).unwrap();
    check(kind, &knobs, Some(Sample { drawn: &[3, 0], targets: &targets }));
}

fn check(kind: &dyn ModelKind, knobs: &Knobs, sample: Option<Sample<'_>>) {
    {
        let (name, shape) = (kind.name(), shape(kind.name()));
        let widths: Vec<usize> = vec![4; kind.inputs(&shape).unwrap().len()];
        let mut rng = Rng::stream(3, "model");
        let mut model = kind.build(&shape, &widths, knobs, &mut rng).unwrap();
        let outputs = sample.map_or(BATCH * model.outputs(), |sample| {
            BATCH * sample.drawn.len() + sample.targets.ids.len()
        });
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.symmetric(1.0)).collect() };
        let dense = random(BATCH * shape.dense);
        let mut rows: Vec<Vec<f32>> = widths.iter().map(|w| random(BATCH * w)).collect();
        let x = Features { batch: BATCH, dense: &dense, rows: &[], key: 9, sample };
        value(&mut *model, &Features { rows: &rows, ..x }, outputs);
        let dout: Vec<f32> = (0..outputs).map(weight).collect();
        let mut drows: Vec<Vec<f32>> = rows.iter().map(|r| vec![f32::NAN; r.len()]).collect();
        model.backward(&Features { rows: &rows, ..x }, &dout, &mut drows);
        // A ReLU may switch inside a step: the gradient lies between the one-sided slopes.
        let between = |slopes: [f64; 2], grad: f32| {
            let (low, high) = (slopes[0].min(slopes[1]), slopes[0].max(slopes[1]));
            let slack = 5e-3 * (1.0 + high.abs());
            (low - slack..high + slack).contains(&f64::from(grad))
        };
        let step = 2e-3;
        for f in 0..rows.len() {
            for i in 0..rows[f].len() {
                let mut at = |delta: f32| {
                    rows[f][i] += delta;
                    let value = value(&mut *model, &Features { rows: &rows, ..x }, outputs);
                    rows[f][i] -= delta;
                    value
                };
                let middle = at(0.0);
                let slopes = [at(step) - middle, middle - at(-step)].map(|d| d / f64::from(step));
                let grad = drows[f][i];
                assert!(between(slopes, grad), "{name} row {f} {i}: {slopes:?} {grad}");
            }
        }
        let mut params: Vec<(String, Vec<f32>)> = Vec::new();
        model.params(&mut |p: &mut Param| {
            let mut grads = vec![0.0; p.value().len()];
            let width = p.width();
            match sample {
                Some(_) => p.visit_grad(&mut |row, grad| {
                    grads[row as usize * width..][..width].copy_from_slice(grad);
                }),
                None => grads.copy_from_slice(p.dense_grad()),
            }
            params.push((p.name().into(), grads));
        });
        for (tensor, grads) in params {
            for (i, &grad) in grads.iter().enumerate() {
                let mut at = |delta: f32| {
                    let nudge = |model: &mut dyn Model, delta: f32| {
                        model.params(&mut |p| {
                            if p.name() == tensor {
                                p.value_mut()[i] += delta;
                            }
                        });
                    };
                    nudge(&mut *model, delta);
                    let value = value(&mut *model, &Features { rows: &rows, ..x }, outputs);
                    nudge(&mut *model, -delta);
                    value
                };
                let middle = at(0.0);
                let slopes = [at(step) - middle, middle - at(-step)].map(|d| d / f64::from(step));
                assert!(between(slopes, grad), "{name} {tensor}[{i}]: {slopes:?} {grad}");
            }
        }
        assert!(
            kind.build(
                &shape,
                &widths,
                &[("typo".into(), 1.into())].into_iter().collect(),
                &mut rng
            )
            .is_err()
        );
    }
}

/// Blocks of examples, and parts of products, change nothing for any of them.
#[test]
fn a_large_batch_is_its_examples() {
    for kind in MODELS {
        let (shape, size) = (shape(kind.name()), 301);
        let widths: Vec<usize> = vec![4; kind.inputs(&shape).unwrap().len()];
        let knobs: Knobs = match kind.name() {
            "dlrm" => serde_json::from_str(r#"{"bottom":[128],"top":[256,200]}"#).unwrap(),
            "gmf" => Knobs::new(),
            _ => serde_json::from_str(r#"{"hidden":[128]}"#).unwrap(),
        };
        let mut rng = Rng::stream(4, "model");
        let mut model = kind.build(&shape, &widths, &knobs, &mut rng).unwrap();
        let outputs = model.outputs();
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.symmetric(1.0)).collect() };
        let dense = random(size * shape.dense);
        let rows: Vec<Vec<f32>> = widths.iter().map(|w| random(size * w)).collect();
        let mut run = |examples: std::ops::Range<usize>| {
            let part =
                |x: &[f32], width: usize| x[examples.start * width..examples.end * width].to_vec();
            let dense = part(&dense, shape.dense);
            let rows: Vec<Vec<f32>> = rows.iter().map(|rows| part(rows, 4)).collect();
            let (batch, mut out) = (examples.len(), vec![0.0; examples.len() * outputs]);
            let mut drows = rows.clone();
            let x = Features { batch, dense: &dense, rows: &rows, key: 0, sample: None };
            model.forward(&x, Mode::Train, &mut out);
            model.backward(&x, &vec![1.0; out.len()], &mut drows);
            (out, drows)
        };
        let (out, drows) = run(0..size);
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        for i in 0..size {
            let (one, done) = run(i..i + 1);
            assert!(close(&one, &out[outputs * i..][..outputs]), "{} {i}", kind.name());
            let same = |(one, all): (&Vec<f32>, &Vec<f32>)| close(one, &all[4 * i..4 * i + 4]);
            assert!(done.iter().zip(&drows).all(same), "{} {i}", kind.name());
        }
    }
}
