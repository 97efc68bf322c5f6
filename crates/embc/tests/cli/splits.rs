//! Splits that each seed draws.

use crate::sandbox::Sandbox;
use crate::smoke::{REGISTRY, records};

const CONFIG: &str = r#"
title = "splits"
dataset = "synth"
[data]
split = { rule = "random", valid = 0.1, test = 0.2 }
[model]
kind = "gmf"
[embedding]
dim = 4
[train]
optimizer = { kind = "adam", lr = 0.01 }
batch = 128
epochs = 1
select = "auc"
seeds = [1, 2, 3]
[budget]
compression = [4]
[[scheme]]
kind = "full"
[[scheme]]
kind = "hash"
[[compare]]
title = "What hashing costs"
pairs = [{ scheme = "hash", with = "full", budget = 4 }]
"#;

#[test]
fn each_seed_draws_its_own() {
    let sandbox = Sandbox::new();
    sandbox.write("datasets.toml", REGISTRY);
    sandbox.write("configs/smoke.toml", CONFIG);
    let report = sandbox
        .run(&["sweep", "--config", "smoke"])
        .expect(0, "smoke: split 2 of 3, of seed 2")
        .stdout;
    assert!(report.contains("initialisation, order, and the split, which each seed draws"));
    assert!(report.contains("over seeds, each with a split of its own"), "{report}");
    assert!(report.contains("6 trials."), "{report}");
    assert!(report.contains("\n- What hashing costs: test/auc "), "{report}");
    let all = records(&sandbox);
    assert_eq!(all.len(), 6);
    let full = |seed: u64| {
        let is = |r: &&serde_json::Value| r["label"] == "full" && r["seed"] == seed;
        all.iter().find(is).unwrap()["metrics"].clone()
    };
    // The interval knows that a test row stands beside 7/2 training rows that splits share.
    let auc = |label: &str, seed: u64| {
        let is = |r: &&serde_json::Value| r["label"] == label && r["seed"] == seed;
        all.iter().find(is).unwrap()["metrics"]["test/auc"].as_f64().unwrap()
    };
    let differences = [1, 2, 3].map(|seed| auc("hash", seed) - auc("full", seed));
    let mean = differences.iter().sum::<f64>() / 3.0;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 2.0;
    let half = 4.302_652_7 * (variance * (1.0 / 3.0 + 2.0 / 7.0)).sqrt();
    let text = format!("{mean:+.4} ± {half:.4}");
    assert!(report.contains(&text), "no {text} in {report}");
    // The same as with that split for all.
    let fixed = ["--set", "data.split.seed=2", "--seed", "2", "--results", "fixed"];
    sandbox.run(&[&["train", "--config", "smoke"][..], &fixed].concat()).fine();
    let text = std::fs::read_to_string(sandbox.path("fixed/smoke.jsonl")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["metrics"], full(2));
    assert_ne!(record["metrics"], full(3));
    sandbox
        .run(&["sweep", "--config", "smoke", "--set", "sweep.until_ci=0.1"])
        .refuses("judge by intervals of one split");
    let tail = REGISTRY.find("split =").unwrap();
    let own = "split = { rule = \"random\", valid = 0.1 }\n";
    sandbox.write("datasets.toml", [&REGISTRY[..tail], own].concat());
    sandbox.run(&["data", "info", "synth"]).refuses("data set synth: a random split needs a seed");
}
