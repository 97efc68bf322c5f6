//! What a scheme or model states is what it computes: the file of its graph, read by `embc-device`,
//! gives the same rows, bit for bit, and the same logits but for the order of sums.

use super::layer::{bags, layer_of};
use super::{Rows, build_from, rows, variants};
use embc_core::batch::{Batch, Data, FieldShape, Order, Protocol, Shape, Split, Visit};
use embc_core::budget::{Budget, Rules};
use embc_core::cancel::Cancel;
use embc_core::graph::device::{Bag, Model, Reader, file};
use embc_core::graph::{Graph, HashAs};
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec, Pooling, Sharing, Unknown};
use embc_core::model::{MODELS, Mode};
use embc_core::net::Net;
use embc_core::optim::{Kind, Optim, Touch};
use embc_core::quantize::{Quantized, Storage};
use embc_core::rng::Rng;
use embc_core::scheme::*;
use std::sync::Arc;

const STORAGES: [Storage; 5] =
    [Storage::Fp32, Storage::Fp16, Storage::Int8, Storage::Int4, Storage::Int2];

/// A reader of the file of a graph.
fn reader(graph: &Graph<'_>, pooling: Pooling) -> Reader {
    let mut header = graph.header("a law".into(), pooling).unwrap();
    let blobs: Vec<&[u8]> = graph.blobs.iter().map(|(_, bytes)| &bytes[..]).collect();
    let mut bytes = Vec::new();
    file::write(&mut header, &blobs, &mut bytes).unwrap();
    let model = Model::from_bytes(bytes).unwrap();
    model.verify().unwrap();
    assert_eq!(*model.header(), header);
    Reader::new(Arc::new(model)).unwrap()
}

/// Schemes that multiply matrices, whose sums the machine's kernels take in another order.
const PRODUCTS: [&str; 7] = ["factorized", "mixed_dim", "tt", "dhe", "opq", "binary", "hot"];

/// Equal bits, or with products values that differ by a part in 10⁵ of the largest of their row.
#[track_caller]
fn assert_same(scheme: &str, ours: &[f32], theirs: &[f32], width: usize, what: &str) {
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.chunks(width).zip(theirs.chunks(width)) {
        if PRODUCTS.contains(&scheme) {
            let most = ours.iter().fold(0f32, |most, x| most.max(x.abs()));
            let off = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * most;
            assert!(ours.iter().zip(theirs).all(off), "{what}: {ours:?} {theirs:?}");
        } else {
            assert_eq!(ours, theirs, "{what}");
        }
    }
}

#[test]
fn the_rows_of_every_scheme_and_storage_are_those_of_its_graph() {
    let (vocab, dim, stages) = (200, 12, [false, true]);
    let tables = [TableSpec {
        name: "t".into(),
        vocab,
        dim,
        counts: (1..=vocab).rev().collect::<Vec<u32>>().into(),
    }];
    let ids: Vec<u32> = (0..vocab).rev().chain([7, 7]).collect();
    for (scheme, knobs) in variants() {
        for storage in STORAGES {
            for late in stages {
                let rules = Rules { storage, ..Rules::default() };
                // Within bytes bands of ids use different numbers of vectors.
                let budget = match scheme.name() {
                    "binary" => Budget::Bytes(2000),
                    _ => Budget::Compression(2.5),
                };
                let plan = embc_core::budget::plan(scheme, &tables, budget, rules, &knobs);
                let plan = plan.expect("feasible").pop().unwrap();
                let mut of = build_from(&plan, 1, Origin::Data(&Rows)).0;
                if late {
                    let at = Clock { step: 1000, epoch: 9, steps_per_epoch: 10 };
                    let _ = of.after_step(at, &Cancel::default(), Rng::stream(2, "step"));
                    let mut cx = BuildCx::new(Rng::stream(1, "finish"));
                    of = of.finish(&mut cx).unwrap_or(of);
                }
                if storage != Storage::Fp32 {
                    of = Box::new(Quantized::new(of, storage, 16));
                }
                let (ours, width) = (rows(&*of, &ids, plan.out_dim), plan.out_dim);
                for hash_as in [HashAs::Graph, HashAs::Remap] {
                    let what = format!("{} {knobs:?} {storage:?} {hash_as:?}", scheme.name());
                    let mut graph = Graph::new(hash_as);
                    graph.input("t", (0, 0, vocab), |g, ids| of.graph(g, ids));
                    if hash_as == HashAs::Remap && scheme.name() == "dhe" {
                        let error = graph.header(String::new(), Pooling::Sum).unwrap_err();
                        assert!(error.0.contains("--hash-as graph"), "{error}");
                        continue;
                    }
                    // Beside what has to be shipped there are a name and a place for each tensor.
                    // What a sign and no vector stand for is the same for all tables.
                    let constant = |name: &str| name.contains("/signs") || name.contains("/zeros");
                    let blobs = graph.blobs.iter().filter(|(name, _)| !constant(name));
                    let bytes: usize = blobs.map(|(_, bytes)| bytes.len()).sum();
                    let listed = graph.blobs.iter().any(|(name, _)| name.contains("/of 0.."));
                    let promised = of.footprint().bytes() as usize;
                    let codes = ["pq", "opq", "rq", "binary"].contains(&scheme.name());
                    if !listed && (!codes || late) {
                        assert_eq!(bytes, promised.max(bytes.min(promised + 4)), "{what}");
                    }
                    let mut reader = reader(&graph, Pooling::Sum);
                    let mut theirs = vec![f32::NAN; ours.len()];
                    reader.rows(0, &ids, &mut theirs).unwrap();
                    assert_same(scheme.name(), &ours, &theirs, width, &what);
                    let error = reader.rows(0, &[vocab], &mut theirs[..width]).unwrap_err();
                    assert_eq!(error.0, "200 is no id of t, which has 200");
                }
            }
        }
    }
}

/// Scores bags with a reader, the fields as the layer has them.
fn score(reader: &mut Reader, batch: &Batch, outputs: usize) -> Vec<f32> {
    let inputs = reader.model().header().inputs.len();
    let bags: Vec<Bag<'_>> = (batch.fields[..inputs].iter())
        .map(|bag| Bag { ids: &bag.ids, offsets: &bag.offsets })
        .collect();
    let dense: Vec<f64> = batch.dense.iter().map(|&x| f64::from(x)).collect();
    let mut out = vec![f32::NAN; batch.size * outputs];
    reader.score(&bags, &dense, &mut out).unwrap();
    out
}

#[test]
fn pooled_rows_are_those_of_the_layer_with_every_sharing_and_stand_in() {
    let vocabs = [60, 25];
    let batch = bags(150, vocabs, Rng::stream(4, "bags"));
    for (scheme, knobs) in variants() {
        for (sharing, pooling, unknown) in [
            (Sharing::PerField, Pooling::Mean, Unknown::Mean),
            (Sharing::Global, Pooling::Sum, Unknown::Mean),
            (Sharing::Global, Pooling::Mean, Unknown::Zero),
            (Sharing::PerField, Pooling::Sum, Unknown::Row),
        ] {
            // The last ids are unknown to training in one field, and scattered ones in the other.
            let counts = |field: usize, id: u32| match field {
                0 => u32::from(id < 50),
                _ => u32::from(!id.is_multiple_of(7)),
            };
            let rules = LayerRules { pooling, unknown, ..LayerRules::default() };
            let (mut layer, shape) =
                layer_of(scheme, &knobs, vocabs, sharing, (8, rules, 9), counts);
            layer.prepare_unknown();
            let what = format!("{knobs:?} {sharing:?} {pooling:?}");
            assert_reads_the_same(scheme.name(), &mut layer, &shape, &batch, pooling, &what);
        }
    }
}

/// The pooled rows of two fields are those that the file of the layer's graph gives.
pub fn assert_reads_the_same(
    scheme: &str,
    layer: &mut Layer,
    shape: &Shape,
    batch: &Batch,
    pooling: Pooling,
    what: &str,
) {
    let ours: Vec<Vec<f32>> = layer.forward(batch, Mode::Eval).to_vec();
    let widths = layer.widths();
    for hash_as in [HashAs::Graph, HashAs::Remap] {
        if hash_as == HashAs::Remap && scheme == "dhe" {
            continue;
        }
        let mut graph = Graph::new(hash_as);
        layer.graph(&mut graph, shape);
        graph.model(&widths, 0, |g| {
            let features = g.features();
            g.concat(features)
        });
        let outputs = widths.iter().sum();
        let theirs = score(&mut reader(&graph, pooling), batch, outputs);
        let mut from = 0;
        for (ours, &width) in ours.iter().zip(&widths) {
            let rows = theirs.chunks(outputs).flat_map(|row| &row[from..from + width]);
            let theirs: Vec<f32> = rows.copied().collect();
            assert_same(scheme, ours, &theirs, width, &format!("{scheme} {what}"));
            from += width;
        }
    }
}

/// Nothing to read: models are built of shapes.
struct Nowhere(Shape);

impl Data for Nowhere {
    fn shape(&self) -> &Shape {
        &self.0
    }
    fn has(&self, _: Split, _: Protocol) -> bool {
        false
    }
    fn train(&self, _: Order, _: Visit<'_>) {}
    fn sample(&self, _: u64, _: u64, _: Visit<'_>) {}
    fn eval(&self, _: Split, _: Protocol, _: usize, _: Visit<'_>) {}
}

#[test]
fn the_logits_of_every_model_are_those_of_its_graph() {
    for kind in MODELS {
        let name = kind.name();
        let fields: &[&str] = match name {
            "pointwise" => &["item"],
            "ranknet" => &["item", "item", "item"],
            "gmf" => &["user", "item"],
            _ => &["a", "b", "c"],
        };
        let counts = Arc::from(vec![3; 40]);
        let field = |name: &&str| FieldShape {
            name: (*name).into(),
            vocab: 40,
            counts: Arc::clone(&counts),
        };
        let classes = if ["classifier", "pointwise"].contains(&name) { 40 } else { 2 };
        let (fields, dense) =
            (fields.iter().map(field).collect::<Vec<_>>(), if name == "gmf" { 0 } else { 3 });
        let data = Nowhere(Shape { dense, fields, classes, train_rows: 1, items: None });
        let text = match name {
            "gmf" => "{}",
            "dlrm" => r#"{"bottom":[17],"top":[36,5]}"#,
            "dcn" => r#"{"cross":2,"hidden":[17,5],"batch_norm":true}"#,
            _ => r#"{"hidden":[17,16],"batch_norm":true}"#,
        };
        let knobs = serde_json::from_str(text).unwrap();
        let mut net = net(*kind, &knobs, data.shape());
        let size = 130;
        let mut batch = bags(size, [40, 40], Rng::stream(8, "bags"));
        batch.fields.push(batch.fields[1].clone());
        batch.fields.truncate(data.shape().fields.len());
        let mut rng = Rng::stream(9, "dense");
        batch.dense = (0..size * dense).map(|_| rng.symmetric(2.0)).collect();
        let ours = net.score(&batch, Mode::Eval).to_vec();
        let outputs = net.model.outputs();
        let mut graph = net.graph(data.shape(), HashAs::Graph, true);
        let mut read = reader(&graph, Pooling::Mean);
        assert_eq!(read.model().outputs(), outputs);
        let names: Vec<&str> = graph.inputs.iter().map(|input| &input.name[..]).collect();
        if name == "ranknet" {
            assert_eq!(names, ["item", "candidate"]);
        }
        let theirs = score(&mut read, &batch, outputs);
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{name}: {a} {b}");
        }
        // Alone, tables are the same, and nothing of the model is kept.
        graph = net.graph(data.shape(), HashAs::Graph, false);
        assert!(graph.blobs.iter().all(|(name, _)| name.starts_with("table")), "{name}");
        let mut alone = reader(&graph, Pooling::Mean);
        let (mut a, mut b) = ([0.0; 8], [1.0; 8]);
        read.rows(0, &[3], &mut a).unwrap();
        alone.rows(0, &[3], &mut b).unwrap();
        assert_eq!(a, b);
        assert!(alone.score(&[], &[], &mut []).unwrap_err().0.contains("tables alone"));
    }
}

/// A net with statistics that are not those of its start.
fn net(kind: &dyn embc_core::model::ModelKind, knobs: &Knobs, shape: &Shape) -> Net {
    let inputs = kind.inputs(shape).unwrap();
    let spec = LayerSpec { dim: 8, sharing: Sharing::PerField, rules: Rules::default() };
    let memcom = find("memcom").unwrap();
    let budget = Budget::Compression(2.5);
    let plan = LayerPlan::new(memcom, &Knobs::new(), shape, &inputs, spec, budget).unwrap();
    let layer = Layer::build(&plan, LayerRules::default(), 3, Origin::Nothing);
    let model = kind.build(shape, &plan.widths(), knobs, &mut Rng::stream(4, "model")).unwrap();
    let mut net = Net::new(layer, model, &Optim::new(Kind::Adam, 0.01, Touch::Touched));
    let mut rng = Rng::stream(5, "state");
    use embc_core::state::{HasState, TensorMut};
    net.state(&mut |name, tensor| {
        if let TensorMut::F32(mut x) = tensor
            && name.contains("norm")
        {
            x.iter_mut().for_each(|x| *x = 1.5 + rng.symmetric(1.0));
        }
    });
    net
}
