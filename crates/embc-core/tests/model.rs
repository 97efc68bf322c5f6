//! Every model in the registry: gradients of its rows and weights against finite differences.

use embc_core::batch::{FieldShape, Shape};
use embc_core::model::{Features, MODELS, Mode, Model};
use embc_core::param::Param;
use embc_core::rng::Rng;
use embc_core::scheme::Knobs;

const BATCH: usize = 5;

fn shape() -> Shape {
    let field = |name: &str| FieldShape { name: name.into(), vocab: 9, counts: vec![1; 9].into() };
    Shape { dense: 3, fields: vec![field("a"), field("b")], classes: 2, train_rows: 1 }
}

fn knobs(model: &str) -> Knobs {
    let text = if model == "dlrm" { r#"{"bottom":[7],"top":[6,5]}"# } else { "{}" };
    serde_json::from_str(text).unwrap()
}

/// A smooth function of the logits.
fn value(model: &mut dyn Model, dense: &[f32], rows: &[Vec<f32>]) -> f64 {
    let mut out = vec![0.0; BATCH];
    model.forward(&Features { batch: BATCH, dense, rows }, Mode::Train, &mut out);
    out.iter().enumerate().map(|(i, &x)| (i as f64 - 1.5) * f64::from(x)).sum()
}

#[test]
fn gradients_equal_finite_differences() {
    for kind in MODELS {
        let (name, shape) = (kind.name(), shape());
        let widths: Vec<usize> = vec![4; kind.inputs(&shape).unwrap().len()];
        let mut rng = Rng::stream(3, "model");
        let mut model = kind.build(&shape, &widths, &knobs(name), &mut rng).unwrap();
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.symmetric(1.0)).collect() };
        let dense = random(BATCH * shape.dense);
        let mut rows: Vec<Vec<f32>> = widths.iter().map(|w| random(BATCH * w)).collect();
        value(&mut *model, &dense, &rows);
        let dout: Vec<f32> = (0..BATCH).map(|i| i as f32 - 1.5).collect();
        let mut drows: Vec<Vec<f32>> = rows.iter().map(|r| vec![f32::NAN; r.len()]).collect();
        let x = Features { batch: BATCH, dense: &dense, rows: &rows };
        model.backward(&x, &dout, &mut drows);
        // A ReLU may switch inside a step: the gradient lies between the one-sided slopes.
        let between = |slopes: [f64; 2], grad: f32| {
            let (low, high) = (slopes[0].min(slopes[1]), slopes[0].max(slopes[1]));
            let slack = 5e-3 * (1.0 + high.abs());
            (low - slack..high + slack).contains(&f64::from(grad))
        };
        let step = 1e-2;
        for f in 0..rows.len() {
            for i in 0..rows[f].len() {
                let mut at = |delta: f32| {
                    rows[f][i] += delta;
                    let value = value(&mut *model, &dense, &rows);
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
        model.params(&mut |p: &mut Param| params.push((p.name().into(), p.dense_grad().to_vec())));
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
                    let value = value(&mut *model, &dense, &rows);
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
        let (shape, size) = (shape(), 301);
        let widths: Vec<usize> = vec![4; kind.inputs(&shape).unwrap().len()];
        let knobs: Knobs = match kind.name() {
            "dlrm" => serde_json::from_str(r#"{"bottom":[128],"top":[256,200]}"#).unwrap(),
            _ => Knobs::new(),
        };
        let mut rng = Rng::stream(4, "model");
        let mut model = kind.build(&shape, &widths, &knobs, &mut rng).unwrap();
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.symmetric(1.0)).collect() };
        let dense = random(size * shape.dense);
        let rows: Vec<Vec<f32>> = widths.iter().map(|w| random(size * w)).collect();
        let mut run = |examples: std::ops::Range<usize>| {
            let part =
                |x: &[f32], width: usize| x[examples.start * width..examples.end * width].to_vec();
            let dense = part(&dense, shape.dense);
            let rows: Vec<Vec<f32>> = rows.iter().map(|rows| part(rows, 4)).collect();
            let (batch, mut out) = (examples.len(), vec![0.0; examples.len()]);
            let mut drows = rows.clone();
            let x = Features { batch, dense: &dense, rows: &rows };
            model.forward(&x, Mode::Train, &mut out);
            model.backward(&x, &vec![1.0; batch], &mut drows);
            (out, drows)
        };
        let (out, drows) = run(0..size);
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        for i in 0..size {
            let (one, done) = run(i..i + 1);
            assert!(close(&one, &out[i..=i]), "{} {i}", kind.name());
            let same = |(one, all): (&Vec<f32>, &Vec<f32>)| close(one, &all[4 * i..4 * i + 4]);
            assert!(done.iter().zip(&drows).all(same), "{} {i}", kind.name());
        }
    }
}
