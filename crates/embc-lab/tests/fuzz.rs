//! Files that lie: seeds of every kind that embc reads, changed at random. Each is read or refused
//! with a word; nothing panics, hangs or takes all memory. `PROPTEST_CASES=5000 cargo test --release
//! --test fuzz` looks longer; a case that fails is kept beside this file, and tried first ever after.

use embc_core::cancel::Cancel;
use embc_core::net::Net;
use embc_core::state::{What, restore};
use embc_core::train::Observer;
use embc_data::dataset;
use embc_data::init::{Asked, init};
use embc_data::lease::TERM;
use embc_data::registry::Registry;
use embc_lab::artefact::{self, Model};
use embc_lab::bench::Running;
use embc_lab::checkpoint::{Claim, Keeper};
use embc_lab::config::Experiment;
use embc_lab::memory::Memory;
use embc_lab::order::Order;
use embc_lab::plan::trials;
use embc_lab::record::Program;
use embc_lab::store::{Book, Results};
use embc_lab::tensors::Stored;
use embc_lab::watch::Nobody;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::path::{Path, PathBuf};
use std::time::Duration;

mod world;
use world::{CONFIG, World};

/// What parsers trip over.
const WORDS: [&str; 24] = [
    "",
    "\n",
    "\r\n",
    "\0",
    "\"",
    "'",
    ",",
    ";",
    "\t",
    "::",
    "{",
    "}",
    "[",
    "]",
    "=",
    ":",
    "-1",
    "1e999",
    "NaN",
    "18446744073709551616",
    "4294967295",
    "null",
    "é",
    "\u{FEFF}",
];

/// A change of a file.
#[derive(Clone, Debug)]
enum Change {
    /// One byte is another.
    Byte(usize, u8),
    /// It ends here.
    Cut(usize),
    /// A word comes in.
    Word(usize, usize),
    /// A part goes out.
    Remove(usize, usize),
    /// A part comes twice.
    Repeat(usize, usize),
    /// A digit is another.
    Digit(usize, u8),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let (at, long) = (any::<usize>(), 1usize..64);
    let change = prop_oneof![
        (at, any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        at.prop_map(Change::Cut),
        (at, 0..WORDS.len()).prop_map(|(at, word)| Change::Word(at, word)),
        (at, long.clone()).prop_map(|(at, long)| Change::Remove(at, long)),
        (at, long).prop_map(|(at, long)| Change::Repeat(at, long)),
        (at, b'0'..=b'9').prop_map(|(at, digit)| Change::Digit(at, digit)),
    ];
    prop::collection::vec(change, 1..5)
}

fn changed(seed: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for change in changes {
        let len = bytes.len();
        let place = |at: usize| at % (len + 1);
        let part = |at: usize, long: usize| place(at)..len.min(place(at) + long);
        match *change {
            Change::Byte(at, byte) if len > 0 => bytes[at % len] = byte,
            Change::Byte(..) => {}
            Change::Cut(at) => bytes.truncate(place(at)),
            Change::Word(at, word) => drop(bytes.splice(place(at)..place(at), WORDS[word].bytes())),
            Change::Remove(at, long) => drop(bytes.drain(part(at, long))),
            Change::Repeat(at, long) => {
                let again = bytes[part(at, long)].to_vec();
                drop(bytes.splice(place(at)..place(at), again));
            }
            Change::Digit(at, digit) => {
                let digits = bytes.iter_mut().filter(|byte| byte.is_ascii_digit());
                let mut digits: Vec<&mut u8> = digits.collect();
                let n = digits.len();
                if n > 0 {
                    *digits[at % n] = digit;
                }
            }
        }
    }
    bytes
}

/// Lets `read` see the seed, and then the seed changed in many ways.
fn fuzz(seed: &[u8], mut read: impl FnMut(&[u8])) {
    read(seed);
    let read = std::cell::RefCell::new(read);
    let config =
        Config { source_file: Some(file!()), max_shrink_time: 20_000, ..Config::default() };
    TestRunner::new(config)
        .run(&changes(), |changes| {
            (read.borrow_mut())(&changed(seed, &changes));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds")
}

#[test]
fn raw_files_of_every_format() {
    let registry = Registry::load(&[seeds().join("r.toml")]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut formats = std::collections::BTreeSet::new();
    for name in [
        "criteo",
        "avazu",
        "dat",
        "mlcsv",
        "tab",
        "steam",
        "ratings",
        "pairs",
        "adjacency",
        "text",
        "csv",
        "jsonl",
        "ffm",
        "svm",
        "parquet",
        "parquet-zstd",
        "arrow",
        "arrow-plain",
        "zip",
        "movies",
    ] {
        let mut entry = registry.get(name).unwrap().clone();
        let file = entry.files.values_mut().next().unwrap();
        let seed = std::fs::read(seeds().join(&file.path)).unwrap();
        let path = folder.path().join(&file.path);
        file.path = path.clone();
        formats.insert(entry.format.clone());
        fuzz(&seed, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            let read =
                dataset::info(&entry, folder.path(), dataset::DEFAULT_MEMORY, &mut |_| Ok(()));
            assert!(read.is_ok() || bytes != seed, "{name}: the seed itself: {:?}", read.err());
        });
    }
    let all = embc_data::raw::FORMATS.iter().map(|format| format.name());
    let missing: Vec<_> = all.filter(|name| !formats.contains(*name) && *name != "synth").collect();
    assert!(missing.is_empty(), "no seed of {missing:?}");
}

#[test]
fn tables_of_attributes() {
    let registry = Registry::load(&[seeds().join("r.toml")]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut entry = registry.get("movies").unwrap().clone();
    let seed = std::fs::read(seeds().join("movies.txt")).unwrap();
    let path = folder.path().join("movies.txt");
    entry.side[0].file.path = path.clone();
    fuzz(&seed, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let read = dataset::info(&entry, folder.path(), dataset::DEFAULT_MEMORY, &mut |_| Ok(()));
        assert!(read.is_ok() || bytes != seed, "{:?}", read.err());
    });
}

#[test]
fn files_that_are_to_be_understood() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "csv.txt",
        "tab.gz",
        "colons.txt",
        "jsonl.txt",
        "ffm.txt",
        "svm.txt",
        "table.zip",
        "table.parquet",
        "table-plain.arrow",
    ] {
        let path = folder.path().join(name);
        fuzz(&std::fs::read(seeds().join(name)).unwrap(), |bytes| {
            std::fs::write(&path, bytes).unwrap();
            let asked = Asked {
                files: std::slice::from_ref(&path),
                name: "x".into(),
                label: None,
                data_dir: folder.path(),
                memory: dataset::DEFAULT_MEMORY,
            };
            if let Ok(draft) = init(&asked, &mut |_| Ok(())) {
                // What is understood is read so from then on, by the files themselves.
                std::fs::remove_dir_all(folder.path().join("cache")).unwrap();
                let (_, meta) =
                    dataset::ingest(&draft.entry, folder.path(), asked.memory, &mut |_| Ok(()))
                        .unwrap();
                assert_eq!(meta.data_hash, draft.meta.data_hash);
            }
        });
    }
}

#[test]
fn configs_registries_and_orders() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fuzz(CONFIG.replace("SCHEME", "cce").as_bytes(), |bytes| {
        std::fs::write(at("x.toml"), bytes).unwrap();
        if let Ok(experiment) = Experiment::load(&at("x.toml"), &[]) {
            let _ = trials(&experiment).map(|trials| trials.iter().for_each(|t| drop(t.name())));
        }
    });
    fuzz(&std::fs::read(seeds().join("r.toml")).unwrap(), |bytes| {
        std::fs::write(at("r.toml"), bytes).unwrap();
        let _ = Registry::load(&[at("r.toml")]);
    });
    fuzz(&std::fs::read(seeds().join("order.json")).unwrap(), |bytes| {
        std::fs::write(at("order.json"), bytes).unwrap();
        if let Ok(order) = Order::read(&at("order.json")) {
            let _ = order.check().map(|()| (order.id(), order.metrics()));
        }
    });
}

#[test]
fn records() {
    let folder = tempfile::tempdir().unwrap();
    let read = || Ok(Book::open(Results::open(folder.path(), "x")?)?.into_records());
    fuzz(&std::fs::read(seeds().join("records.jsonl")).unwrap(), |bytes| {
        std::fs::write(folder.path().join("x.jsonl"), bytes).unwrap();
        for record in read().unwrap_or_else(|_: anyhow::Error| Vec::new()) {
            let _ = (record.settings(), record.rows(), record.clusterings(), record.undefined());
        }
    });
    // And what lies beside them once they are folded.
    let experiment = Results::open(folder.path(), "y").unwrap();
    std::fs::copy(seeds().join("records.jsonl"), folder.path().join("x.jsonl")).unwrap();
    read().unwrap().iter().for_each(|record| experiment.publish(record).unwrap());
    experiment.fold(TERM).unwrap().unwrap();
    let path = folder.path().join("y.details.jsonl.gz");
    fuzz(&std::fs::read(&path).unwrap(), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let _ = Book::open(Results::at(folder.path(), "y")).map(Book::into_records);
    });
}

/// Where a checksum keeps liars out, what lies behind it is tried too.
#[test]
fn checkpoints_and_models() {
    let world = World::new();
    let config = CONFIG.replace("SCHEME", "lma");
    let mut trained = world.train(&config);
    let out = world.path("model");
    let of = (trained.entry, &*trained.data_dir);
    artefact::save(&out, &mut trained.net, &trained.record, of, &trained.data).unwrap();
    let spec = trained.record.spec.clone();
    for name in ["model.json", "weights.safetensors", "counts.safetensors", "vocab-item.txt"] {
        let seed = std::fs::read(out.join(name)).unwrap();
        fuzz(&seed, |bytes| {
            std::fs::write(out.join(name), bytes).unwrap();
            match Model::load(&out) {
                // Spaces mean nothing in JSON.
                Ok(model) if name == "model.json" => assert_eq!(Some(model.spec), spec),
                read => assert_eq!(read.is_ok(), bytes == seed, "{name}"),
            }
            if name.ends_with("safetensors") {
                stored(&out.join(name), &mut trained.net);
            }
        });
        std::fs::write(out.join(name), &seed).unwrap();
    }
    let (results, program) = (world.path("results"), Program::default());
    let claim = Claim::take(&results, "abc", program, TERM, &Cancel::default()).unwrap().unwrap();
    let (memory, cancel, every) = (Memory::free_now(), Cancel::default(), Duration::ZERO);
    let running = Running { memory: &memory, claim: &claim, parent: None, every, cancel: &cancel };
    Keeper::new(&running, &[], &mut Nobody).0.checkpoint(
        &Default::default(),
        &mut trained.net,
        None,
    );
    let path = world.path("results/.running/abc/last.safetensors");
    let seed = std::fs::read(&path).unwrap();
    fuzz(&seed, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let resumed = Keeper::new(&running, &[], &mut Nobody).1.is_some();
        assert_eq!(resumed, bytes == seed, "a checkpoint that was changed");
        std::fs::write(&path, bytes).unwrap();
        stored(&path, &mut trained.net);
    });
}

/// Reads all tensors of a file that has no checksum, or whose checksum is not looked at.
fn stored(path: &Path, net: &mut Net) {
    let Ok(stored) = Stored::open(path) else { return };
    stored.names().iter().for_each(|name| drop(stored.tensor(name)));
    let _ = restore(net, &stored, What::Weights);
}
