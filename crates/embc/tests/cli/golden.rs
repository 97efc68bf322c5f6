//! Golden numbers: a small trial of each model, to the last digit, so that nothing changes what embc
//! computes without a word.
//!
//! Products of matrices may round differently on another kind of processor, so each kind has numbers
//! of its own. Where a change is meant, raise the version of what changed it, and write them anew:
//! `EMBC_GOLDEN=write cargo test --release --test cli golden`; those of another kind with
//! `EMBC_RUNNER='qemu-x86_64 -cpu Haswell'` before it.

use crate::sandbox::{Sandbox, root};
use serde_json::{Map, Value, json};
use std::process::Command;

/// Model, its data set, the scheme under it, and what else a config says.
const TRIALS: [(&str, &str, &str, &str); 8] = [
    ("gmf", "two", "memcom", ""),
    ("mlp", "shop", "cce", "columns = 2\nevery = 0.3"),
    ("dcn", "shop", "qr", "quantize = \"int8\""),
    ("deepfm", "shop", "robe", ""),
    ("dlrm", "shop", "lma", ""),
    ("classifier", "kinds", "tt", ""),
    ("pointwise", "pairs", "pq", ""),
    ("ranknet", "pairs", "dhe", ""),
];

const REGISTRY: &str = r#"
[two]
title = "two columns"
format = "csv"
split = { rule = "tail", valid = 0.2, test = 0.2 }
columns = { label = "click", categorical = ["user", "item"] }
files.data = { path = "shop.csv" }

[shop]
title = "all columns"
format = "csv"
split = { rule = "tail", valid = 0.2, test = 0.2 }
columns = { label = "click", dense = ["price"], categorical = ["user", "item"], multi = [{ name = "tags", separator = "|" }] }
files.data = { path = "shop.csv" }

[kinds]
title = "classes"
format = "csv"
split = { rule = "tail", valid = 0.2, test = 0.2 }
columns = { label = "price", classes = true, categorical = ["user", "item"] }
files.data = { path = "shop.csv" }

[pairs]
title = "who had what"
format = "pairs-csv"
split = { rule = "last-per-user", valid = 1, test = 1 }
files.data = { path = "pairs.csv" }
"#;

/// What decides how products round.
fn kind() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    match std::env::var("EMBC_RUNNER") {
        Ok(runner) if runner.contains("Haswell") => return "x86-64-v3",
        _ if std::arch::is_x86_feature_detected!("avx512f") => return "x86-64-v4",
        _ if std::arch::is_x86_feature_detected!("avx2") => return "x86-64-v3",
        _ => {}
    }
    std::env::consts::ARCH
}

fn world() -> Sandbox {
    let sandbox = Sandbox::new();
    let shop = |i: usize| {
        let (user, item) = (i * i % 53, i * 7 % 41 + i / 400);
        let label = (user + item) % 3 / 2;
        format!("{label},{}.5,u{user},i{item},t{}|t{}\n", i % 9, i % 5, item % 4)
    };
    let shop: String = (0..2000).map(shop).collect();
    let pairs = |i: usize| format!("u{},i{}\n", i % 40, (i * i + i / 40) % 37);
    let pairs: String = (0..400).map(pairs).collect();
    sandbox.write("shop.csv", "click,price,user,item,tags\n".to_string() + &shop);
    sandbox.write("pairs.csv", "user,item\n".to_string() + &pairs);
    sandbox.write("datasets.toml", REGISTRY);
    sandbox
}

/// All numbers of a trial, from its record.
fn numbers(sandbox: &Sandbox, (model, data, scheme, more): (&str, &str, &str, &str)) -> Value {
    let history = if data == "pairs" { "[data]\nhistory = 20\n" } else { "" };
    sandbox.write("x.toml", format!(
        "title = \"t\"\ndataset = \"{data}\"\n{history}[model]\nkind = \"{model}\"\n[embedding]\ndim = 8\n[train]\noptimizer = {{ kind = \"adam\", lr = 0.02 }}\nbatch = 64\nepochs = 3\n[budget]\ncompression = [1.5]\n[[scheme]]\nkind = \"{scheme}\"\n{more}\n"
    ));
    let mut command = sandbox.command(&["-q", "train", "--config", "x.toml"]);
    if let Ok(runner) = std::env::var("EMBC_RUNNER") {
        let own = command;
        let mut words = runner.split(' ');
        command = Command::new(words.next().unwrap());
        command.args(words).arg(own.get_program()).args(own.get_args());
        command.current_dir(own.get_current_dir().unwrap());
        command.envs(own.get_envs().filter_map(|(key, value)| Some((key, value?))));
    }
    crate::sandbox::Ran::from(command.output().unwrap()).fine();
    let records = std::fs::read_to_string(sandbox.path("results/x.jsonl")).unwrap();
    let record: Value = serde_json::from_str(&records).unwrap();
    std::fs::remove_dir_all(sandbox.path("results")).unwrap();
    let keys = ["trial", "weights_hash", "metrics", "best_epoch", "params", "index_bytes"];
    keys.into_iter().map(|key| (key.to_string(), record[key].clone())).collect()
}

#[test]
fn golden_numbers_stay() {
    let path = root().join("crates/embc/tests/golden.json");
    let text = std::fs::read_to_string(&path).unwrap_or("{}".into());
    let mut golden: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let sandbox = world();
    let ours: Map<String, Value> = TRIALS
        .into_iter()
        .map(|trial| (format!("{} {}", trial.0, trial.2), numbers(&sandbox, trial)))
        .collect();
    if std::env::var("EMBC_GOLDEN").is_ok_and(|wish| wish == "write") {
        golden.insert(kind().into(), json!(ours));
        let text = serde_json::to_string_pretty(&golden).unwrap() + "\n";
        return std::fs::write(path, text).unwrap();
    }
    match golden.get(kind()) {
        Some(golden) => assert_eq!(*golden, json!(ours)),
        // Nobody has run this kind yet: what no product rounds is the same there.
        None => {
            for golden in golden.values() {
                assert_eq!(golden["gmf memcom"], ours["gmf memcom"], "on {}", kind());
            }
        }
    }
}
