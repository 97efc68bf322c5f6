//! A model that is written and loaded predicts the same bits, for every scheme, storage and model.

use embc_core::batch::{Data, Protocol, Split};
use embc_core::model::Mode;
use embc_core::scheme::SCHEMES;
use embc_lab::artefact::{self, Model};
use std::ops::ControlFlow;
use std::path::Path;

mod world;
use world::{CONFIG, Trained, World};

/// Saves, loads, and compares all scores of the test split.
fn round_trip(world: &World, config: &str) -> Model {
    let Trained { entry, data, mut net, record, data_dir } = world.train(config);
    let out = world.path("model");
    artefact::save(&out, &mut net, &record, (entry, &data_dir), &data).unwrap();
    let mut model = Model::load(&out).unwrap_or_else(|e| panic!("{config}{e:#}"));
    assert_eq!(model.spec.id(), record.trial);
    let mut seen = 0;
    for protocol in [Protocol::Rows, Protocol::Ranking] {
        if !data.has(Split::Test, protocol) {
            continue;
        }
        data.eval(Split::Test, protocol, 256, &mut |batch| {
            let ours = net.score(batch, Mode::Eval).to_vec();
            assert_eq!(model.score(batch), ours, "{config}");
            seen += batch.size;
            ControlFlow::Continue(())
        });
    }
    assert!(seen >= 30, "{seen} examples");
    model
}

#[test]
fn every_scheme_and_storage_predicts_the_same_after_loading() {
    let world = World::new();
    for scheme in SCHEMES {
        for more in ["", "quantize = \"int8\"\n"] {
            round_trip(&world, &(CONFIG.replace("SCHEME", scheme.name()) + more));
        }
    }
    round_trip(&world, &(CONFIG.replace("SCHEME", "lma") + "sharing = \"global\"\n"));
}

#[test]
fn every_model_and_stand_in_predicts_the_same_after_loading() {
    let world = World::new();
    for model in ["mlp", "dcn", "deepfm", "dlrm"] {
        for unknown in ["zero", "mean", "trained", "row"] {
            let text =
                CONFIG.replace("SCHEME", "memcom").replace("\"mlp\"", &format!("\"{model}\""));
            round_trip(
                &world,
                &text.replace("dim = 8", &format!("dim = 8\nunknown = \"{unknown}\"")),
            );
        }
    }
    let classes = CONFIG.replace("\"shop\"", "\"kinds\"").replace("dense = \"standard\"", "");
    let classes = classes.replace("SCHEME", "tt").replace("\"mlp\"", "\"classifier\"");
    round_trip(&world, &classes.replace("\"logloss\"", "\"accuracy\""));
    let rankings = CONFIG
        .replace("\"shop\"", "\"pairs\"")
        .replace("dense = \"standard\"", "history = 20")
        .replace("select = \"logloss\"\n", "");
    for model in ["pointwise", "ranknet"] {
        let text = rankings.replace("SCHEME", "hash").replace("\"mlp\"", &format!("\"{model}\""));
        let model = round_trip(&world, &text);
        assert_eq!(model.spec.schedule.select.to_string(), "ndcg@10", "unless it is told");
    }
}

#[test]
fn what_is_damaged_or_of_another_version_is_refused() {
    let world = World::new();
    let model = round_trip(&world, &CONFIG.replace("SCHEME", "pq"));
    assert_eq!(model.dense_names(), ["price"]);
    let ids = model.ids(0).unwrap();
    assert_eq!(ids.of("never seen"), Some(model.shape.fields[0].vocab - 1));
    assert_eq!(model.values(0).unwrap()[ids.of("u1").unwrap() as usize].as_deref(), Some("u1"));
    let out = world.path("model");
    let refused = |what: &str| {
        let error = Model::load(&out).err().map(|e| format!("{e:#}")).unwrap_or_default();
        assert!(error.contains("model.json") && error.contains(what), "{what}: {error}");
    };
    let text = std::fs::read_to_string(out.join("model.json")).unwrap();
    for (from, to, what) in [
        ("\"v\": 1", "\"v\": 7", "format version 7; this embc reads version 1"),
        ("\"scheme\": 1", "\"scheme\": 9", "changed"),
        ("\"dim\": 8", "\"dim\": 800000000000", "changed"),
        ("embc model", "a model", "not a model of embc"),
        ("{", "", "not a model"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(out.join("model.json"), text.replacen(from, to, 1)).unwrap();
        refused(what);
    }
    std::fs::write(out.join("model.json"), &text).unwrap();
    for name in ["weights.safetensors", "counts.safetensors", "vocab-item.txt"] {
        let bytes = std::fs::read(out.join(name)).unwrap();
        std::fs::write(out.join(name), &bytes[..bytes.len() - 1]).unwrap();
        refused(&format!("{name} is damaged"));
        std::fs::remove_file(out.join(name)).unwrap();
        refused(name);
        std::fs::write(out.join(name), bytes).unwrap();
    }
    assert!(Model::load(&out).is_ok());
    assert!(Model::load(Path::new("nowhere")).is_err());
}
