//! A packed file that lies is refused, or read as what it says: a million changes of good files, their
//! header's checksum made right again, and not one panic. All reads are of slices of the mapping.

use embc_core::batch::{FieldShape, Shape};
use embc_core::budget::{Budget, Rules};
use embc_core::graph::HashAs;
use embc_core::graph::device::{Bag, Model, Reader, checksum, file};
use embc_core::layer::{Layer, LayerPlan, LayerRules, LayerSpec, Pooling, Sharing};
use embc_core::net::Net;
use embc_core::optim::{Kind, Optim, Touch};
use embc_core::quantize::Storage;
use embc_core::rng::Rng;
use embc_core::scheme::{Knobs, Origin, find};
use rayon::prelude::*;
use std::sync::Arc;

const CHANGES: u64 = 1_000_000;
/// Where the header's length and its checksum lie.
const LENGTH: usize = 16;
const SUM: usize = 24;
const START: usize = 40;

/// A packed net of two fields.
fn file(scheme: &str, model: &str, storage: Storage) -> Vec<u8> {
    let field =
        |name: &str| FieldShape { name: name.into(), vocab: 30, counts: vec![1; 30].into() };
    let fields = vec![field("a"), field("b")];
    let shape = Shape { dense: 2, fields, classes: 2, train_rows: 1, items: None };
    let kind = embc_core::model::find(model).unwrap();
    let (inputs, knobs) = (kind.inputs(&shape).unwrap(), Knobs::new());
    let spec = LayerSpec { dim: 8, sharing: Sharing::PerField, rules: Rules::default() };
    let scheme = find(scheme).unwrap();
    let budget = Budget::Compression(1.5);
    let plan = LayerPlan::new(scheme, &knobs, &shape, &inputs, spec, budget).unwrap();
    let layer = Layer::build(&plan, LayerRules::default(), 3, Origin::Nothing);
    let knobs = match model {
        "dlrm" => r#"{"bottom":[4],"top":[4]}"#,
        "dcn" => r#"{"hidden":[4],"cross":1}"#,
        _ => r#"{"hidden":[4],"batch_norm":true}"#,
    };
    let knobs = serde_json::from_str(knobs).unwrap();
    let model = kind.build(&shape, &plan.widths(), &knobs, &mut Rng::stream(4, "model")).unwrap();
    let mut net = Net::new(layer, model, &Optim::new(Kind::Adam, 0.01, Touch::Touched));
    net.layer.quantize(storage);
    let graph = net.graph(&shape, HashAs::Graph, true);
    let mut header = graph.header("hostile".into(), Pooling::Mean).unwrap();
    let mut blobs: Vec<&[u8]> = graph.blobs.iter().map(|(_, bytes)| &bytes[..]).collect();
    // A vocabulary of three: "a", "bc", "d".
    let words: [&[u8]; 3] = [
        b"abcd",
        &[0, 1, 3, 4].map(u32::to_le_bytes).concat(),
        &[0, 1, 2].map(u32::to_le_bytes).concat(),
    ];
    let [text, starts, sorted] = [0, 1, 2].map(|i| (blobs.len() + i) as u32);
    blobs.extend(words);
    header.vocabularies.push(file::Vocabulary {
        values: 3,
        unknown: Some(2),
        text,
        starts,
        sorted,
    });
    header.inputs[0].vocabulary = Some(0);
    let mut bytes = Vec::new();
    file::write(&mut header, &blobs, &mut bytes).unwrap();
    bytes
}

/// Reads all that a file offers; the error where it is refused.
fn read(bytes: Vec<u8>) -> Result<(), String> {
    let model = Arc::new(Model::from_bytes(bytes).map_err(|error| error.0)?);
    let mut reader = Reader::new(model.clone()).map_err(|error| error.0)?;
    let _ = model.verify();
    let (header, mut result) = (model.header(), Ok(()));
    for (i, input) in header.inputs.iter().enumerate() {
        let _ = (model.id(i, b"bc"), model.id(i, b"x"), model.value_of(i, 1));
        let ids = [0, 7, input.vocab.saturating_sub(1)];
        let mut rows = vec![0.0; ids.len() * model.width(i)];
        result = result.and(reader.rows(i, &ids, &mut rows).map_err(|error| error.0));
    }
    let bags = vec![Bag { ids: &[1, 2, 3], offsets: &[0, 1, 3] }; header.inputs.len()];
    let (dense, mut out) = (vec![1.0; 2 * header.features.len()], vec![0.0; 2 * model.outputs()]);
    result.and(reader.score(&bags, &dense, &mut out).map_err(|error| error.0))
}

/// Changes some bytes, most of them of the header, and makes its checksum right again.
fn change(good: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let length = u64::from_le_bytes(good[LENGTH..SUM].try_into().unwrap()) as usize;
    for _ in 0..1 + rng.below(3) {
        let at = match rng.below(8) {
            0 => rng.below(bytes.len() as u64) as usize,
            _ => START + rng.below(length as u64) as usize,
        };
        let Some(byte) = bytes.get_mut(at) else { continue };
        *byte = match rng.below(4) {
            0 => byte.wrapping_add(1),
            1 => byte.wrapping_sub(1),
            2 => [0, 1, 0x7F, 0x80, 0xFF][rng.below(5) as usize],
            _ => rng.below(256) as u8,
        };
    }
    if rng.below(50) == 0 {
        bytes.truncate(rng.below(bytes.len() as u64) as usize);
    }
    if let Some(header) = bytes.get(START..START + length) {
        let sum = checksum(header);
        bytes[SUM..SUM + 8].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

#[test]
fn a_million_changes_and_no_panic() {
    let files = [
        file("cce", "dlrm", Storage::Int4),
        file("robe", "deepfm", Storage::Fp16),
        file("tt", "dcn", Storage::Fp32),
        file("hash_embedding", "mlp", Storage::Int8),
        file("dhe", "mlp", Storage::Int2),
        file("lma", "dlrm", Storage::Fp32),
    ];
    for file in &files {
        read(file.clone()).unwrap();
        // Without the right checksum no change of the header is read at all.
        let mut damaged = file.clone();
        damaged[START + 20] ^= 1;
        assert!(read(damaged).unwrap_err().contains("checksum"));
        for end in 0..file.len().min(2000) {
            assert!(read(file[..end].to_vec()).is_err(), "{end}");
        }
    }
    let one = |i: u64| {
        let mut rng = Rng::stream(i, "change");
        read(change(&files[i as usize % files.len()], &mut rng)).is_ok()
    };
    let read = (0..CHANGES).into_par_iter().filter(|&i| one(i)).count() as u64;
    // Names, weights and keys may be any; sizes and places may not.
    assert!((CHANGES / 50..CHANGES * 9 / 10).contains(&read), "{read}");
}
