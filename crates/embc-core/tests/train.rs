//! The training loop on data that is written by hand: which epoch counts, what stands for unknown ids,
//! how the learning rate moves, and update rules against PyTorch's formulas.

use embc_core::batch::{Bag, Batch, Data, FieldShape, Order, Protocol, Shape, Split, Visit};
use embc_core::budget::Budget;
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec, Pooling, Unknown};
use embc_core::loss::Loss;
use embc_core::metric::Metric;
use embc_core::model::{Mode, find};
use embc_core::net::Net;
use embc_core::optim::{Kind, LrSchedule, Optim, Optimizer, Touch};
use embc_core::param::Param;
use embc_core::quantize::Storage;
use embc_core::rng::Rng;
use embc_core::scheme::{self, Knobs, Origin, SCHEMES};
use embc_core::train::{Observer, Outcome, Settings, run};

/// Rows of (user, item, label) for training, validation and the test. In training the label turns
/// round after `turn` epochs, so that validation gets worse from then on.
struct Rows {
    shape: Shape,
    parts: [Vec<(u32, u32, f32)>; 3],
    turn: u32,
}

fn rows(turn: u32, test_label: impl Fn(f32) -> f32) -> Rows {
    let counts: std::sync::Arc<[u32]> = vec![4, 4, 4, 4, 0].into();
    let field = |name: &str| FieldShape { name: name.into(), vocab: 5, counts: counts.clone() };
    let train: Vec<_> = (0..16).map(|i| (i % 4, i / 4, ((i % 4 + i / 4) % 2) as f32)).collect();
    let test = train.iter().map(|&(u, i, label)| (u, i, test_label(label))).collect();
    let fields = vec![field("user"), field("item")];
    let shape = Shape { dense: 0, fields, classes: 2, train_rows: 16, items: None };
    Rows { shape, parts: [train.clone(), train, test], turn }
}

fn batch(rows: &[(u32, u32, f32)], turned: bool) -> Batch {
    let bag = |ids: Vec<u32>| Bag { ids, offsets: Vec::new() };
    let fields =
        vec![bag(rows.iter().map(|r| r.0).collect()), bag(rows.iter().map(|r| r.1).collect())];
    let labels = rows.iter().map(|r| if turned { 1.0 - r.2 } else { r.2 }).collect();
    Batch { size: rows.len(), fields, labels, ..Batch::default() }
}

impl Data for Rows {
    fn shape(&self) -> &Shape {
        &self.shape
    }
    fn has(&self, _: Split, protocol: Protocol) -> bool {
        protocol == Protocol::Rows
    }
    fn train(&self, order: Order, visit: Visit<'_>) {
        let chunks = self.parts[0].chunks(order.batch).skip(order.skip as usize);
        for rows in chunks {
            if visit(&batch(rows, order.epoch >= self.turn)).is_break() {
                return;
            }
        }
    }
    fn sample(&self, _: u64, _: u64, _: Visit<'_>) {}
    fn eval(&self, split: Split, _: Protocol, size: usize, visit: Visit<'_>) {
        let part = if split == Split::Valid { 1 } else { 2 };
        let _ = self.parts[part].chunks(size).all(|rows| visit(&batch(rows, false)).is_continue());
    }
}

fn net(data: &Rows, scheme: &str, rules: LayerRules, optim: &Optim) -> Net {
    net_of(data, scheme, &Knobs::new(), rules, optim)
}

fn net_of(data: &Rows, scheme: &str, knobs: &Knobs, rules: LayerRules, optim: &Optim) -> Net {
    let model = find("gmf").unwrap();
    let inputs = model.inputs(&data.shape).unwrap();
    let spec = LayerSpec { dim: 8, ..LayerSpec::default() };
    let scheme = scheme::find(scheme).unwrap();
    let plan = LayerPlan::new(scheme, knobs, &data.shape, &inputs, spec, Budget::Unlimited);
    let plan = plan.unwrap();
    let layer = Layer::build(&plan, rules, 1, Origin::Nothing);
    let mut rng = Rng::stream(1, "model");
    Net::new(
        layer,
        model.build(&data.shape, &plan.widths(), &Knobs::new(), &mut rng).unwrap(),
        optim,
    )
}

struct Silent;
impl Observer for Silent {
    fn step(&mut self, _: u64, _: u32, _: f64, _: usize) {}
}

fn settings(optimizer: Optim, epochs: u32) -> Settings {
    let select: Metric = "logloss".parse().unwrap();
    Settings {
        optimizer,
        lr_schedule: None,
        train_unknown: false,
        loss: Loss::Bce,
        batch: 4,
        epochs,
        metrics: vec!["auc".parse().unwrap(), select],
        select,
        patience: None,
        patient_until: 0,
        validate_every: None,
        max_steps: None,
        storage: Storage::Fp32,
        seed: 1,
        cancel: Default::default(),
    }
}

fn value(of: &[(Metric, f64)], name: &str) -> f64 {
    of.iter().find(|(metric, _)| metric.to_string() == name).unwrap().1
}

fn adam() -> Optim {
    Optim::new(Kind::Adam, 0.05, Touch::Touched)
}

fn trained(data: &Rows, epochs: u32) -> Outcome {
    run(
        &mut net(data, "full", LayerRules::default(), &adam()),
        data,
        &settings(adam(), epochs),
        None,
        &mut Silent,
    )
    .unwrap()
}

/// After the labels turn round every epoch is worse: the weights before it are tested.
#[test]
fn the_best_epochs_weights_are_tested() {
    let data = rows(6, |label| label);
    let outcome = trained(&data, 12);
    let losses: Vec<f64> = outcome.curve.iter().map(|p| value(&p.valid, "logloss")).collect();
    let best = losses.iter().copied().fold(f64::MAX, f64::min);
    assert_eq!(losses[outcome.best], best);
    assert!((5..8).contains(&outcome.best), "{losses:?}");
    assert_eq!(value(&outcome.test.all, "logloss"), best, "validation and test rows are the same");
    assert!(value(&outcome.curve[11].valid, "logloss") > best + 0.1);
    // The net that is left behind has those weights.
    let mut net = net(&data, "full", LayerRules::default(), &adam());
    run(&mut net, &data, &settings(adam(), 12), None, &mut Silent).unwrap();
    let metrics = settings(adam(), 1).metrics;
    let left = net.evaluate(&data, Split::Valid, &metrics, &Default::default(), None).unwrap();
    assert_eq!(value(&left.all, "logloss"), best);
}

/// A test split that likes the later epochs changes nothing.
#[test]
fn the_test_split_does_not_pick_the_epoch() {
    let outcome = trained(&rows(6, |label| 1.0 - label), 12);
    assert_eq!(outcome.best, trained(&rows(6, |label| label), 12).best);
    assert!(value(&outcome.test.all, "auc") < 0.2, "nearly the worst epoch for it");
}

/// For every scheme an id without a training row reads zeros, the mean of the others, or its own.
#[test]
fn unknown_ids_read_the_same_in_every_scheme() {
    let data = rows(99, |label| label);
    for scheme in SCHEMES.iter().map(|scheme| scheme.name()).filter(|name| *name != "lma") {
        let read = |unknown: Unknown| {
            let rules = LayerRules { unknown, ..LayerRules::default() };
            let mut net = net(&data, scheme, rules, &adam());
            net.layer.prepare_unknown();
            let all: Vec<(u32, u32, f32)> = (0..5).map(|id| (id, id, 0.0)).collect();
            net.layer.forward(&batch(&all, false), Mode::Eval)[0].clone()
        };
        let (own, zero, mean) = (read(Unknown::Row), read(Unknown::Zero), read(Unknown::Mean));
        let width = own.len() / 5;
        let unknown = 4 * width..;
        assert_eq!(own[..4 * width], zero[..4 * width], "{scheme}: known ids are as they are");
        assert!(zero[unknown.clone()].iter().all(|x| *x == 0.0), "{scheme}");
        for (i, x) in mean[unknown].iter().enumerate() {
            let expect = (0..4).map(|id| f64::from(own[id * width + i])).sum::<f64>() / 4.0;
            assert!((f64::from(*x) - expect).abs() < 1e-6, "{scheme}");
        }
    }
}

#[test]
fn bags_are_summed_or_averaged() {
    let data = rows(99, |label| label);
    let of = |pooling: Pooling| {
        let rules = LayerRules { pooling, ..LayerRules::default() };
        let mut net = net(&data, "full", rules, &adam());
        let bag = Bag { ids: vec![0, 1, 2, 0, 1, 2], offsets: vec![0, 1, 2, 3, 6] };
        let two = Batch { size: 4, fields: vec![bag.clone(), bag], ..Batch::default() };
        net.layer.forward(&two, Mode::Train)[0].clone()
    };
    for (pooling, parts) in [(Pooling::Sum, 1.0), (Pooling::Mean, 3.0)] {
        let rows = of(pooling);
        for i in 0..8 {
            let sum: f32 = (0..3).map(|row| rows[row * 8 + i]).sum();
            assert!((rows[3 * 8 + i] - sum / parts).abs() < 1e-6, "{pooling:?}");
        }
    }
}

/// PyTorch's LinearLR, CosineAnnealingLR and a linear warm-up, worked out by their formulas.
#[test]
fn learning_rates_move() {
    let factors = |schedule: LrSchedule| -> Vec<f64> {
        (0..5).map(|step| (schedule.factor(step, 4) * 1e4).round() / 1e4).collect()
    };
    let (warmup, end) = (0, 0.0);
    assert_eq!(factors(LrSchedule::Linear { warmup, end: 0.5 }), [1.0, 0.875, 0.75, 0.625, 0.5]);
    assert_eq!(factors(LrSchedule::Cosine { warmup, end }), [1.0, 0.8536, 0.5, 0.1464, 0.0]);
    assert_eq!(factors(LrSchedule::Constant { warmup: 4 }), [0.25, 0.5, 0.75, 1.0, 1.0]);
    let both = LrSchedule::Cosine { warmup: 2, end };
    assert_eq!(factors(both), [0.5, 1.0, 1.0, 0.5, 0.0]);
    // And in training: a rate of nothing leaves everything as it is.
    let data = rows(99, |label| label);
    let last = |schedule: Option<LrSchedule>| {
        let mut settings = settings(adam(), 2);
        settings.lr_schedule = schedule;
        let mut net = net(&data, "full", LayerRules::default(), &adam());
        let outcome = run(&mut net, &data, &settings, None, &mut Silent).unwrap();
        value(&outcome.curve[1].valid, "logloss")
    };
    let cosine = last(Some(LrSchedule::Cosine { warmup: 0, end: 0.0 }));
    assert_ne!(cosine, last(None));
    assert_eq!(last(Some(LrSchedule::Linear { warmup: 0, end: 1.0 })), last(None));
}

/// After a stage the rate falls to nothing over its epochs, all of which are trained, patience or not.
#[test]
fn fine_tuning_comes_to_rest() {
    let data = rows(1, |label| label);
    for scheme in ["pq", "binary"] {
        let (optim, epochs) = (Optim::new(Kind::Sgd, 0.1, Touch::Touched), 5);
        let knobs = Knobs::from_iter([("finetune".to_string(), epochs.into())]);
        let mut settings = settings(optim, 1);
        settings.patience = Some(1);
        let mut net = net_of(&data, scheme, &knobs, LayerRules::default(), &optim);
        let curve = run(&mut net, &data, &settings, None, &mut Silent).unwrap().curve;
        assert_eq!(curve.len(), 2 + epochs as usize, "{scheme}");
        // Labels have turned, so that validation gets worse with every step, in the end hardly.
        let losses: Vec<f64> = curve[1..].iter().map(|at| value(&at.valid, "logloss")).collect();
        let moves: Vec<f64> = losses.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let most = moves.iter().copied().fold(0.0, f64::max);
        assert!(moves[4] > 0.0 && moves[4] < 0.2 * most, "{scheme}: {moves:?}");
    }
}

/// Two steps with the gradients (1, −2), then (3, 0.5), on weights of (1, −1): PyTorch's values, and
/// rowadagrad's by its formula.
#[test]
fn weight_decay_and_rows_of_two() {
    let check = |optimizer: Optimizer, expect: [f32; 2]| {
        let optim = optimizer.rule();
        for touch in [Touch::All, Touch::Touched] {
            let optim = Optim { touch, ..optim };
            let mut param = Param::rows("w", 2, vec![1.0, -1.0]);
            optim.attach(&mut param);
            for grad in [[1.0, -2.0], [3.0, 0.5]] {
                param.add(0, &grad);
                optim.step(&mut param);
            }
            for (got, expect) in param.value().iter().zip(expect) {
                assert!(
                    (got - expect).abs() < 1e-5,
                    "{optimizer:?} {touch:?}: {:?}",
                    param.value()
                );
            }
        }
    };
    let (lr, touch) = (0.1, Touch::All);
    // g + 0.5 w: w = 1 − 0.1 · 1.5 = 0.85, then 0.85 − 0.1 · 3.425.
    check(Optimizer::Sgd { lr, weight_decay: 0.5, touch }, [0.5075, -0.7625]);
    check(Optimizer::Momentum { lr, momentum: 0.9, weight_decay: 0.5, touch }, [0.3725, -0.5375]);
    // s = mean of squares 2.5, then 2.5 + 4.625.
    let rate = [0.1 / 2.5f32.sqrt(), 0.1 / 7.125f32.sqrt()];
    check(
        Optimizer::RowAdagrad { lr, eps: 1e-10 },
        [1.0 - rate[0] - 3.0 * rate[1], -1.0 + 2.0 * rate[0] - 0.5 * rate[1]],
    );
}
