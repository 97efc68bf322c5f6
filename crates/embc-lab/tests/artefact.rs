//! A model that is written and loaded predicts the same bits, for every scheme, storage and model.

use embc_core::batch::{Data, Protocol, Split};
use embc_core::cancel::Cancel;
use embc_core::model::Mode;
use embc_core::net::Net;
use embc_core::scheme::SCHEMES;
use embc_data::dataset;
use embc_data::registry::{Entry, Registry};
use embc_data::view::View;
use embc_lab::artefact::{self, Model};
use embc_lab::bench::{Bench, Ended, Running};
use embc_lab::config::Experiment;
use embc_lab::desk::{Answer, Desk};
use embc_lab::memory::Memory;
use embc_lab::plan::trials;
use embc_lab::record::{Record, Status};
use embc_lab::watch::Nobody;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const REGISTRY: &str = r#"
[shop]
title = "a shop"
format = "csv"
split = { rule = "tail", valid = 0.2, test = 0.2 }
columns = { label = "click", dense = ["price"], categorical = ["user", "item"], multi = [{ name = "tags", separator = "|" }] }
files.data = { path = "shop.csv" }

[kinds]
title = "what a thing costs"
format = "csv"
split = { rule = "tail", valid = 0.2, test = 0.2 }
columns = { label = "price", classes = true, categorical = ["user", "item"] }
files.data = { path = "shop.csv" }

[pairs]
title = "users and items"
format = "pairs-csv"
split = { rule = "last-per-user", valid = 1, test = 1 }
files.data = { path = "pairs.csv" }
"#;

const CONFIG: &str = r#"
title = "t"
dataset = "shop"
[data]
dense = "standard"
[model]
kind = "mlp"
[embedding]
dim = 8
[train]
optimizer = { kind = "adam", lr = 0.05 }
batch = 32
epochs = 2
select = "logloss"
[budget]
compression = [1.5]
[[scheme]]
kind = "SCHEME"
"#;

/// A folder with both data sets.
struct World {
    folder: TempDir,
    registry: Registry,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shop = |i: usize| {
            let (user, item) = (i * i % 53, i * 7 % 41 + i / 400);
            let label = (user + item) % 3 / 2;
            format!("{label},{}.5,u{user},i{item},t{}|t{}\n", i % 9, i % 5, item % 4)
        };
        let shop: String = (0..600).map(shop).collect();
        let pairs: String =
            (0..400).map(|i| format!("u{},i{}\n", i % 40, (i * i + i / 40) % 37)).collect();
        for (name, text) in [
            ("shop.csv", "click,price,user,item,tags\n".to_string() + &shop),
            ("pairs.csv", "user,item\n".to_string() + &pairs),
            ("r.toml", REGISTRY.into()),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let registry = Registry::load(&[folder.path().join("r.toml")]).unwrap();
        Self { folder, registry }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Trains the trial of a config.
    fn train(&self, config: &str) -> Trained<'_> {
        std::fs::write(self.path("x.toml"), config).unwrap();
        let e = Experiment::load(&self.path("x.toml"), &[]).unwrap();
        let entry = self.registry.get(&e.dataset).unwrap();
        let (asked, by, watch) = (e.data.clone(), e.examples().unwrap(), &mut |_| Ok(()));
        let (data_dir, memory) = (self.path("data"), dataset::DEFAULT_MEMORY);
        let data = dataset::open(entry, &data_dir, memory, asked, by, watch).unwrap();
        let bench = Bench::new(entry, &data, false);
        bench.check(&e).unwrap();
        let desk = Desk::open(&self.path("results"), &e.name, Default::default()).unwrap();
        let order = bench.order(&trials(&e).unwrap()[0], &e);
        let Answer::Run(claim, metrics) = desk.ask(&order, false).unwrap() else { panic!("due") };
        let (memory, cancel) = (Memory::free_now(), Cancel::default());
        let every = Duration::from_secs(600);
        let running = Running { memory: &memory, claim: &claim, every, cancel: &cancel };
        let Ended::Recorded(record, net) = bench.run(&order, &metrics, &running, &mut Nobody)
        else {
            panic!("nobody cancels")
        };
        assert_eq!(record.status, Status::Ok, "{config}{record:?}");
        drop(bench);
        Trained { entry, data, net: *net.unwrap(), record: *record, data_dir }
    }

    /// Saves, loads, and compares all scores of the test split.
    fn round_trip(&self, config: &str) -> Model {
        let Trained { entry, data, mut net, record, data_dir } = self.train(config);
        let out = self.path("model");
        artefact::save(&out, &mut net, &record, (entry, &data_dir), &data).unwrap();
        let mut model = Model::load(&out).unwrap_or_else(|e| panic!("{config}{e:#}"));
        assert_eq!(model.spec.id(), record.trial);
        let mut seen = 0;
        for protocol in [Protocol::Pointwise, Protocol::Ranking] {
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
}

struct Trained<'a> {
    entry: &'a Entry,
    data: View,
    net: Net,
    record: Record,
    data_dir: PathBuf,
}

#[test]
fn every_scheme_and_storage_predicts_the_same_after_loading() {
    let world = World::new();
    for scheme in SCHEMES {
        for more in ["", "quantize = \"int8\"\n"] {
            world.round_trip(&(CONFIG.replace("SCHEME", scheme.name()) + more));
        }
    }
    world.round_trip(&(CONFIG.replace("SCHEME", "lma") + "sharing = \"global\"\n"));
}

#[test]
fn every_model_and_stand_in_predicts_the_same_after_loading() {
    let world = World::new();
    for model in ["mlp", "dcn", "deepfm", "dlrm"] {
        for unknown in ["zero", "mean", "trained", "row"] {
            let text =
                CONFIG.replace("SCHEME", "memcom").replace("\"mlp\"", &format!("\"{model}\""));
            world
                .round_trip(&text.replace("dim = 8", &format!("dim = 8\nunknown = \"{unknown}\"")));
        }
    }
    let classes = CONFIG.replace("\"shop\"", "\"kinds\"").replace("dense = \"standard\"", "");
    let classes = classes.replace("SCHEME", "tt").replace("\"mlp\"", "\"classifier\"");
    world.round_trip(&classes.replace("\"logloss\"", "\"accuracy\""));
    let rankings = CONFIG
        .replace("\"shop\"", "\"pairs\"")
        .replace("dense = \"standard\"", "history = 20")
        .replace("select = \"logloss\"\n", "");
    for model in ["pointwise", "ranknet"] {
        let text = rankings.replace("SCHEME", "hash").replace("\"mlp\"", &format!("\"{model}\""));
        let model = world.round_trip(&text);
        assert_eq!(model.spec.schedule.select.to_string(), "ndcg@10", "unless it is told");
    }
}

#[test]
fn what_is_damaged_or_of_another_version_is_refused() {
    let world = World::new();
    let model = world.round_trip(&CONFIG.replace("SCHEME", "pq"));
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
