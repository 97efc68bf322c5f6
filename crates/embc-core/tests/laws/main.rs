//! Laws that every scheme in the registry obeys, whatever it does inside.

use embc_core::batch::{Bag, Batch, Data, Order, Protocol, Shape, Split, Visit};
use embc_core::budget::{Budget, Rules};
use embc_core::init::Init;
use embc_core::param::Param;
use embc_core::quantize::{Quantized, Storage};
use embc_core::rng::Rng;
use embc_core::scheme::*;
use embc_core::state::{HasState, State, What, restore, save};

mod budget;
mod graph;
mod layer;

/// Every scheme with every value of its knobs that changes the arithmetic.
fn variants() -> Vec<(&'static dyn Scheme, Knobs)> {
    let more = |name: &str| -> &[&str] {
        match name {
            "hash" => &[r#"{"hash":"mod"}"#, r#"{"hash":"poly31"}"#],
            "double_hash" => &[r#"{"combine":"concat"}"#],
            "bloom" => &[r#"{"hashes":2,"signed":true}"#],
            "hash_embedding" => &[
                r#"{"hashes":2,"weights":"independent"}"#,
                r#"{"hashes":3,"weights":"flat"}"#,
                r#"{"weights":"table"}"#,
                r#"{"hashes":1,"weights":"per_id"}"#,
            ],
            "qr" => &[
                r#"{"combine":"add"}"#,
                r#"{"combine":"concat"}"#,
                r#"{"combine":"mult","layout":"big_quotient"}"#,
            ],
            "factorized" => &[
                r#"{"rank":2}"#,
                r#"{"narrow":"cce","rank":4,"columns":4}"#,
                r#"{"narrow":"memcom","rank":2}"#,
            ],
            "hot" => &[
                r#"{"share":0.3,"tail":"cce","columns":2}"#,
                r#"{"tail":"memcom"}"#,
                r#"{"tail":"robe","share":0.7}"#,
            ],
            "memcom" => &[
                r#"{"bias":true}"#,
                r#"{"v_init":"sign","hash":"mix64"}"#,
                r#"{"v_init":"uniform"}"#,
            ],
            "mixed_dim" => &[r#"{"alpha":0.0}"#],
            "ce" => &[r#"{"columns":2,"hash":"poly31"}"#],
            "unified" => &[r#"{"columns":2}"#, r#"{"tables":3}"#],
            "cce" => &[r#"{"columns":2,"helper":"residual","moments":"reset"}"#],
            "cqr" => &[r#"{"columns":2}"#],
            "lma" => &[
                r#"{"block": 3}"#,
                r#"{"signature":"random"}"#,
                r#"{"hash":"paper-poly"}"#,
                r#"{"hash":"paper-universal"}"#,
                r#"{"hash":"linear"}"#,
            ],
            "pq" => &[r#"{"columns":2,"start":"plusplus"}"#],
            "opq" => &[r#"{"columns":2,"rotations":3}"#],
            "binary" => &[r#"{"bands":1,"rounds":2}"#],
            "rq" => &[r#"{"stages":2,"beam":1}"#, r#"{"stages":3,"rounds":0}"#],
            "hashednet" => &[r#"{"signed":true}"#],
            "robe" => &[r#"{"block":3,"signed":true}"#],
            "tt" => &[r#"{"cores":2}"#, r#"{"cores":4}"#],
            "dhe" => &[
                r#"{"layers":0}"#,
                r#"{"layers":1}"#,
                r#"{"network":"relu"}"#,
                r#"{"network":"relu","layers":0}"#,
            ],
            _ => &[],
        }
    };
    let knobs = |text: &str| serde_json::from_str::<Knobs>(text).unwrap();
    SCHEMES
        .iter()
        .flat_map(|&scheme| {
            let all = std::iter::once("{}").chain(more(scheme.name()).iter().copied());
            all.map(move |text| (scheme, knobs(text)))
        })
        .collect()
}

fn table(vocab: u32, dim: usize) -> TableSpec {
    TableSpec { name: "t".into(), vocab, dim, counts: vec![1; vocab as usize].into() }
}

fn plan(scheme: &dyn Scheme, knobs: &Knobs, vocab: u32, dim: usize, ratio: f64) -> Option<Plan> {
    let (tables, budget) = ([table(vocab, dim)], Budget::Compression(ratio));
    match embc_core::budget::plan(scheme, &tables, budget, Rules::default(), knobs) {
        Ok(mut plans) => plans.pop(),
        Err(PlanError::Infeasible(_)) => None,
        Err(error) => panic!("{}: {error}", scheme.name()),
    }
}

fn build(plan: &Plan, seed: u64) -> Built {
    build_from(plan, seed, Origin::Data(&Rows))
}

fn build_from(plan: &Plan, seed: u64, origin: Origin<'_>) -> Built {
    let rng = Rng::stream(seed, "init/t");
    let (init, fields) = (Init::Normal(0.5), &[(0, 0)][..]);
    Built((plan.build)(&mut BuildCx { init, fields, origin, ..BuildCx::new(rng) }))
}

/// Training rows for schemes that read them: each holds a few of the ids below 24.
struct Rows;

impl Data for Rows {
    fn sample(&self, _: u64, _: u64, visit: Visit<'_>) {
        let ids: Vec<u32> = (0..100).map(|row| (row * row + 3) % 24).collect();
        let offsets = (0..=50).map(|row| 2 * row).collect();
        let fields = vec![Bag { ids, offsets }];
        let _ = visit(&Batch { size: 50, fields, ..Batch::default() });
    }
    fn shape(&self) -> &Shape {
        unreachable!("schemes read rows only")
    }
    fn has(&self, _: Split, _: Protocol) -> bool {
        false
    }
    fn train(&self, _: Order, _: Visit<'_>) {}
    fn eval(&self, _: Split, _: Protocol, _: usize, _: Visit<'_>) {}
}

struct Built(Box<dyn Embedding>);

impl HasState for Built {
    fn state(&mut self, visit: State<'_>) {
        self.0.state(visit);
    }
}

fn rows(embedding: &dyn Embedding, ids: &[u32], dim: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; ids.len() * dim];
    embedding.gather(ids, &mut out, &mut Tape::default());
    assert!(out.iter().all(|x| x.is_finite()), "every component is written");
    out
}

/// A smooth read-out of rows, and its gradient.
fn read_out(rows: &[f32]) -> (f64, Vec<f32>) {
    let weight = |i: usize| ((i * 7 + 3) % 11) as f64 / 5.0 - 1.0;
    let value = rows.iter().enumerate().map(|(i, &x)| weight(i) * f64::from(x).tanh()).sum();
    let slope = |(i, &x): (usize, &f32)| (weight(i) * (1.0 - f64::from(x).tanh().powi(2))) as f32;
    (value, rows.iter().enumerate().map(slope).collect())
}

fn gradients(embedding: &mut dyn Embedding) -> Vec<(String, u32, Vec<f32>)> {
    let mut all = Vec::new();
    embedding.params(&mut |param: &mut Param| {
        param.visit_grad(&mut |row, grad| all.push((param.name().into(), row, grad.to_vec())));
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        param.zero_grad();
    });
    all
}

#[test]
fn gradients_equal_finite_differences() {
    for (scheme, knobs) in variants() {
        let plan = plan(scheme, &knobs, 30, 8, 2.0).expect("feasible");
        let dim = plan.out_dim;
        let mut built = build(&plan, 1).0;
        // With 30 ids in about 15 rows, many of these collide.
        let ids: Vec<u32> = (0..20).collect();
        let mut tape = Tape::default();
        let mut out = vec![0.0; ids.len() * dim];
        built.gather(&ids, &mut out, &mut tape);
        built.scatter(&ids, &read_out(&out).1, &mut tape);
        let analytic = gradients(&mut *built);
        assert!(!analytic.is_empty(), "{}", scheme.name());
        for (name, row, grad) in analytic {
            for (i, &grad) in grad.iter().enumerate() {
                let mut at = |delta: f32| {
                    let nudge = |built: &mut dyn Embedding, delta: f32| {
                        built.params(&mut |param| {
                            if param.name() == name {
                                let width = param.width();
                                param.value_mut()[row as usize * width + i] += delta;
                            }
                        });
                    };
                    nudge(&mut *built, delta);
                    let value = read_out(&rows(&*built, &ids, dim)).0;
                    nudge(&mut *built, -delta);
                    value
                };
                let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!(
                    (slope - f64::from(grad)).abs() < 2e-3 * (1.0 + slope.abs()),
                    "{} {knobs:?} {name}[{row}][{i}]: {slope} {grad}",
                    scheme.name()
                );
            }
        }
    }
}

#[test]
fn footprints_equal_the_real_buffers() {
    for (scheme, knobs) in variants() {
        for storage in [Storage::Fp32, Storage::Fp16, Storage::Int8, Storage::Int2] {
            let rules = Rules { storage, ..Rules::default() };
            let tables = [table(1000, 16)];
            let budget = Budget::Compression(3.0);
            let plans =
                embc_core::budget::plan(scheme, &tables, budget, rules, &knobs).expect("feasible");
            let plan = &plans[0];
            let mut built = build(plan, 1);
            // Post-training stages promise what they will be.
            let mut cx = BuildCx::new(Rng::stream(1, "finish"));
            if let Some(finished) = built.0.finish(&mut cx) {
                built.0 = finished;
            }
            if storage != Storage::Fp32 {
                built.0 = Box::new(Quantized::new(built.0, storage, 16));
            }
            // Slots that depend on the data are planned at their most.
            let footprint = built.0.footprint();
            assert_eq!(footprint.params, plan.footprint.params, "{}", scheme.name());
            assert_eq!(footprint.param_bytes, plan.footprint.param_bytes, "{}", scheme.name());
            assert!(footprint.index_bytes <= plan.footprint.index_bytes, "{}", scheme.name());
            let (mut params, mut index) = (0, 0);
            built.state(&mut |name, tensor| {
                use embc_core::state::TensorMut::{F32, U32, U64};
                let packed = storage != Storage::Fp32 && name.starts_with("quantized_");
                let (len, bytes) = match &tensor {
                    F32(x) => (x.len(), 4 * x.len() as u64),
                    U32(x) => (x.len(), 4 * x.len() as u64),
                    U64(x) => (x.len(), 8 * x.len() as u64),
                };
                match tensor {
                    // Not trained.
                    F32(_) if name == "rotation" => index += bytes,
                    F32(_) => params += bytes,
                    _ if packed => params += bytes,
                    // Seeds and counters, a few words a table, are not memory to speak of.
                    _ if len > 8 => index += bytes,
                    _ => {}
                }
            });
            assert_eq!(footprint.param_bytes, params, "{}", scheme.name());
            assert_eq!(footprint.index_bytes, index, "{}", scheme.name());
            // Saved weights are all that it takes to look up the same, without the data.
            let saved = save(&mut built, What::Weights);
            let mut loaded = build_from(plan, 9, Origin::Saved(&saved));
            if storage != Storage::Fp32 {
                loaded.0 = Box::new(Quantized::new(loaded.0, storage, 16));
            }
            restore(&mut loaded, &saved, What::Weights)
                .unwrap_or_else(|e| panic!("{}: {e}", scheme.name()));
            assert_eq!(loaded.0.footprint().bytes(), footprint.bytes(), "{}", scheme.name());
            let ids: Vec<u32> = (0..1000).collect();
            let rows = |built: &Built| rows(&*built.0, &ids, plan.out_dim);
            assert_eq!(rows(&loaded), rows(&built), "{} {storage:?}", scheme.name());
        }
    }
}

#[test]
fn gather_is_pure_and_does_not_depend_on_order_or_company() {
    for (scheme, knobs) in variants() {
        let plan = plan(scheme, &knobs, 100, 8, 2.5).expect("feasible");
        let mut built = build(&plan, 3);
        let before = save(&mut built, What::Everything);
        let ids: Vec<u32> = (0..100).collect();
        let forward = rows(&*built.0, &ids, plan.out_dim);
        let backward =
            rows(&*built.0, &ids.iter().rev().copied().collect::<Vec<_>>(), plan.out_dim);
        for (a, b) in forward.chunks(plan.out_dim).zip(backward.chunks(plan.out_dim).rev()) {
            assert_eq!(a, b, "{}", scheme.name());
        }
        assert_eq!(
            rows(&*built.0, &[42], plan.out_dim),
            forward[42 * plan.out_dim..][..plan.out_dim]
        );
        assert_eq!(save(&mut built, What::Everything), before);
    }
}

#[test]
fn scatter_is_linear() {
    for (scheme, knobs) in variants() {
        let plan = plan(scheme, &knobs, 40, 8, 2.0).expect("feasible");
        let mut built = build(&plan, 5).0;
        let ids = [3, 17, 39, 8];
        let n = ids.len() * plan.out_dim;
        let (a, b): (Vec<f32>, Vec<f32>) = (0..n).map(|i| (i as f32 / 8.0, (n - i) as f32)).unzip();
        let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let mut tape = Tape::default();
        let mut run = |grads: &[&[f32]]| {
            let mut out = vec![0.0; n];
            built.gather(&ids, &mut out, &mut tape);
            grads.iter().for_each(|grad| built.scatter(&ids, grad, &mut tape));
            gradients(&mut *built)
        };
        let (once, twice) = (run(&[&sum]), run(&[&a, &b]));
        for (x, y) in once.iter().zip(&twice) {
            assert_eq!((&x.0, x.1), (&y.0, y.1));
            for (x, y) in x.2.iter().zip(&y.2) {
                assert!((x - y).abs() <= 1e-4 * (1.0 + x.abs()), "{}", scheme.name());
            }
        }
    }
}

#[test]
fn a_build_depends_on_its_stream_alone() {
    for (scheme, knobs) in variants() {
        let plan = plan(scheme, &knobs, 50, 8, 2.0).expect("feasible");
        let ids: Vec<u32> = (0..50).collect();
        let of = |seed| rows(&*build(&plan, seed).0, &ids, plan.out_dim);
        assert_eq!(of(1), of(1), "{}", scheme.name());
        assert_ne!(of(1), of(2), "{}", scheme.name());
    }
}

#[test]
fn until_training_ends_a_scheme_is_its_parent() {
    for (scheme, knobs) in variants() {
        let Some(kind) = scheme.parent() else { continue };
        let parent = embc_core::scheme::find(kind).unwrap();
        assert_eq!(parent.parent(), None, "{kind} trains as itself");
        let state = |plan: &Plan| save(&mut build(plan, 3), What::Everything);
        let ours = state(&plan(scheme, &knobs, 50, 8, 2.0).expect("feasible"));
        let theirs = state(&plan(parent, &Knobs::new(), 50, 8, 1.0).expect("feasible"));
        assert_eq!(ours, theirs, "{}", scheme.name());
    }
}

#[test]
fn wrong_knobs_are_refused_and_all_entries_are_documented() {
    for &scheme in SCHEMES {
        let wrong = serde_json::from_str(r#"{"no_such_knob": 1}"#).unwrap();
        let error = embc_core::budget::plan(
            scheme,
            &[table(10, 4)],
            Budget::Unlimited,
            Rules::default(),
            &wrong,
        );
        let Err(PlanError::Knob(message)) = error.map(|_| ()) else {
            panic!("{} takes any knob", scheme.name());
        };
        assert!(message.contains("no_such_knob"), "{message}");
        let doc = scheme.doc();
        for text in [doc.short, doc.long, doc.paper, doc.equation, doc.stores, doc.collisions] {
            assert!(!text.is_empty(), "{}", scheme.name());
        }
        let documented: std::collections::BTreeSet<_> =
            doc.knobs.iter().map(|k| k.0.to_string()).collect();
        let existing: std::collections::BTreeSet<_> = scheme.defaults().keys().cloned().collect();
        assert_eq!(documented, existing, "{}", scheme.name());
    }
}
