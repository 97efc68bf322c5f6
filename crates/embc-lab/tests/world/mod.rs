//! Small data sets in a folder of their own, and trials on them.

use embc_core::cancel::Cancel;
use embc_core::net::Net;
use embc_data::dataset;
use embc_data::registry::{Entry, Registry};
use embc_data::view::View;
use embc_lab::bench::{Bench, Ended, Running};
use embc_lab::config::Experiment;
use embc_lab::desk::{Answer, Desk};
use embc_lab::memory::Memory;
use embc_lab::plan::trials;
use embc_lab::record::{Record, Status};
use embc_lab::watch::Nobody;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Three small data sets.
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

/// A trial; SCHEME stands for one.
pub const CONFIG: &str = r#"
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
pub struct World {
    folder: TempDir,
    pub registry: Registry,
}

impl World {
    pub fn new() -> Self {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Trains the trial of a config.
    pub fn train(&self, config: &str) -> Trained<'_> {
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
        let Answer::Run(claim, metrics) = desk.ask(&order, false, &Default::default()).unwrap()
        else {
            panic!("due")
        };
        let (memory, cancel) = (Memory::free_now(), Cancel::default());
        let every = Duration::from_secs(600);
        let running =
            Running { memory: &memory, claim: &claim, parent: None, every, cancel: &cancel };
        let Ended::Recorded(record, net) = bench.run(&order, &metrics, &running, &mut Nobody)
        else {
            panic!("nobody cancels")
        };
        assert_eq!(record.status, Status::Ok, "{config}{record:?}");
        drop(bench);
        Trained { entry, data, net: *net.unwrap(), record: *record, data_dir }
    }
}

/// A trained trial with its data.
pub struct Trained<'a> {
    pub entry: &'a Entry,
    pub data: View,
    pub net: Net,
    pub record: Record,
    pub data_dir: PathBuf,
}
