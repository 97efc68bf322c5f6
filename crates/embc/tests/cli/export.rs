//! From a trained model to use: exports, scores and best items in a folder that has the model alone.

use crate::own::own;
use crate::sandbox::Sandbox;
use embc_core::graph::device::{Bag, Model, Reader};
use std::sync::Arc;

/// A folder with the model of a table alone, and the scores of its test rows.
fn trained(sets: &[&str]) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sandbox.run(&["init", own("table.csv").to_str().unwrap()]).fine();
    let mut args = vec!["train", "--config", "table.toml", "--out", "m", "--scores", "s.csv"];
    for set in ["train.epochs=2", "budget.compression=[2]"].iter().chain(sets) {
        args.extend(["--set", set]);
    }
    let ran = sandbox.run(&args).fine();
    let elsewhere = Sandbox::new();
    std::fs::rename(sandbox.path("m"), elsewhere.path("m")).unwrap();
    std::fs::rename(sandbox.path("s.csv"), elsewhere.path("s.csv")).unwrap();
    (elsewhere, ran.stdout)
}

#[test]
fn every_format_is_written_and_every_byte_is_said() {
    let (sandbox, _) = trained(&["scheme.kind=memcom", "scheme.quantize=int8"]);
    for (format, files) in [
        ("onnx", &["model.onnx", "model.data"][..]),
        ("packed", &["model.embc"]),
        ("safetensors", &["rows.safetensors"]),
        ("npy", &["user.npy", "item.npy", "tags.npy"]),
    ] {
        let ran = sandbox.run(&["export", "m", "--format", format]).fine();
        let mut all = 0;
        for file in files {
            let size = sandbox.path(&format!("m/{format}/{file}")).metadata().unwrap().len();
            assert!(ran.stdout.contains(&format!("{size}")), "{file}: {}", ran.stdout);
            all += size;
        }
        let total = ran.stdout.lines().find(|line| line.contains("all files")).unwrap();
        assert!(total.contains(&all.to_string()), "{total} {all}");
        if format == "packed" {
            assert!(ran.stderr.contains("checked on "), "{}", ran.stderr);
            // What the record promised is what the tables take.
            let tables = ran.stdout.lines().find(|line| line.contains("tables")).unwrap();
            let numbers: Vec<&str> = tables.split_whitespace().skip(1).collect();
            assert_eq!(numbers[0], numbers[1], "{tables}");
        }
    }
    sandbox.run(&["export", "nothing"]).refuses("no model here");
    std::fs::remove_file(sandbox.path("m/sample.safetensors")).unwrap();
    sandbox.run(&["export", "m"]).refuses("sample.safetensors");
}

/// A service that has nothing but the packed file: names of things to scores.
#[test]
fn a_packed_file_scores_rows_by_their_names() {
    let (sandbox, _) = trained(&["scheme.kind=cce", "model.kind=dlrm", "embedding.dim=8"]);
    sandbox.run(&["export", "m", "--format", "packed", "--output", "p"]).fine();
    let file = own("table.csv");
    let expect = sandbox.run(&["predict", "m", file.to_str().unwrap()]).fine().stdout;
    let expect = expect.lines().skip(1).map(|line| line.split_once(',').unwrap().1);
    let mut reader =
        Reader::new(Arc::new(Model::open(&sandbox.path("p/model.embc")).unwrap())).unwrap();
    let model = reader.model().clone();
    let inputs: Vec<String> = model.header().inputs.iter().map(|i| i.name.clone()).collect();
    let features: Vec<String> = model.header().features.iter().map(|f| f.name.clone()).collect();
    let mut table = csv::Reader::from_path(&file).unwrap();
    let header = table.headers().unwrap().clone();
    let place = |name: &str| header.iter().position(|column| column == name).unwrap();
    for (row, expect) in table.records().map(Result::unwrap).zip(expect) {
        let ids: Vec<Vec<u32>> = (inputs.iter().enumerate())
            .map(|(i, name)| {
                let cell = &row[place(name)];
                let values: Vec<&str> = match model.header().inputs[i].several {
                    true => cell.split('|').filter(|value| !value.is_empty()).collect(),
                    false => vec![cell],
                };
                values.iter().map(|value| model.id(i, value.as_bytes()).unwrap()).collect()
            })
            .collect();
        let ends: Vec<[u32; 2]> = ids.iter().map(|ids| [0, ids.len() as u32]).collect();
        let bags: Vec<Bag<'_>> =
            ids.iter().zip(&ends).map(|(ids, ends)| Bag { ids, offsets: ends }).collect();
        let dense: Vec<f64> =
            features.iter().map(|name| row[place(name)].parse().unwrap_or(f64::NAN)).collect();
        let mut score = [0.0];
        reader.score(&bags, &dense, &mut score).unwrap();
        let expect: f32 = expect.parse().unwrap();
        assert!((score[0] - expect).abs() <= 1e-5 * (1.0 + expect.abs()), "{score:?} {expect}");
    }
}

/// Every model is measured in processes of its own; nothing is left beside it.
#[test]
fn what_a_model_costs_is_measured_cold_and_warm() {
    let (sandbox, _) = trained(&["scheme.kind=hash"]);
    let files = || std::fs::read_dir(sandbox.path("m")).unwrap().count();
    let before = files();
    let ran = sandbox.run(&["bench", "m", "--format", "json"]).fine();
    assert_eq!(files(), before);
    let line: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let measured = &line["measured"];
    assert_eq!(measured["input"], "user", "the field with most ids");
    assert!(measured["drift"].as_f64().unwrap() < 1e-5);
    let auc = &measured["auc"];
    assert!((auc[0].as_f64().unwrap() - auc[1].as_f64().unwrap()).abs() < 1e-6, "{auc}");
    for state in ["cold", "warm"] {
        let at = |p: &str| measured[state]["id"][p].as_f64().unwrap();
        assert!(at("p50") > 0.0 && at("p50") <= at("p95") && at("p99") <= at("p999"), "{line}");
        assert!(measured[state]["score"]["p50"].as_f64().unwrap() > 0.0);
        // Opening takes less than 4 MB of the process's own.
        assert!(measured[state]["open_anonymous"].as_u64().unwrap() < 4 << 20);
    }
    let table = sandbox.run(&["bench", "m"]).fine().stdout;
    assert_eq!(table.lines().count(), 2, "{table}");
    sandbox.run(&["bench", "m", "nothing"]).refuses("no model here");
}

/// The area under the ROC curve, pair by pair.
fn auc(scored: &[(f32, bool)]) -> f64 {
    let (mut won, mut pairs) = (0.0, 0.0);
    for (score, _) in scored.iter().filter(|row| row.1) {
        for (other, _) in scored.iter().filter(|row| !row.1) {
            won += if score > other {
                1.0
            } else if score == other {
                0.5
            } else {
                0.0
            };
            pairs += 1.0;
        }
    }
    won / pairs
}

#[test]
fn the_recorded_auc_comes_out_of_a_models_scores_of_the_test_rows() {
    let (sandbox, metrics) = trained(&["scheme.kind=qr"]);
    let recorded = metrics.lines().find_map(|line| line.strip_prefix("test/auc ")).unwrap();
    let file = own("table.csv");
    let args = ["predict", "m", file.to_str().unwrap(), "--output", "p.parquet"];
    sandbox.run(&args).fine();
    // Parquet is what embc itself reads.
    let rows = sandbox.run(&["predict", "m", file.to_str().unwrap()]).fine().stdout;
    let scores: Vec<f32> =
        rows.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse().unwrap()).collect();
    assert!(sandbox.path("p.parquet").metadata().unwrap().len() > 1000);
    let test = std::fs::read_to_string(sandbox.path("s.csv")).unwrap();
    let test: Vec<(f32, bool)> = (test.lines().skip(1))
        .map(|line| {
            let [row, _, label, _] = line.split(',').collect::<Vec<_>>()[..] else { panic!() };
            (scores[row.parse::<usize>().unwrap()], label == "1")
        })
        .collect();
    assert!((auc(&test) - recorded.parse::<f64>().unwrap()).abs() < 1e-6, "{recorded}");
    sandbox.run(&["predict", "m", "p.parquet", "--top", "3"]).refuses("models of histories");
    let wrong = ["predict", "m", file.to_str().unwrap(), "--output", "p.xlsx"];
    sandbox.run(&wrong).refuses(".csv or .parquet");
}

const PAIRS: &str = r#"
[likes]
title = "users and items"
format = "pairs-csv"
split = { rule = "last-per-user", valid = 1, test = 1 }
files.data = { path = "likes.csv" }
"#;

const CONFIG: &str = r#"
title = "t"
dataset = "likes"
[data]
history = 5
[model]
kind = "KIND"
hidden = [8]
[embedding]
dim = 8
[train]
optimizer = { kind = "adam", lr = 0.05 }
batch = 32
epochs = 2
[budget]
compression = [2]
[[scheme]]
kind = "memcom"
"#;

/// The best items are those that the training's own scores put first, for models of both kinds.
#[test]
fn the_best_items_of_users_are_those_of_the_training() {
    for kind in ["pointwise", "ranknet"] {
        let sandbox = Sandbox::new();
        let pair = |i: usize| (format!("u{}", i % 40), format!("i{}", (i * i + i / 40) % 37));
        let pairs: Vec<(String, String)> = (0..400).map(pair).collect();
        let lines = |of: &[(String, String)]| -> String {
            let lines = of.iter().map(|(user, item)| format!("{user},{item}\n"));
            "user,item\n".to_string() + &lines.collect::<String>()
        };
        sandbox.write("likes.csv", lines(&pairs));
        sandbox.write("data.toml", PAIRS);
        sandbox.write("c.toml", CONFIG.replace("KIND", kind));
        let train = ["train", "--config", "c.toml", "--datasets", "data.toml", "--out", "m"];
        sandbox.run(&[&train[..], &["--scores", "s.csv"]].concat()).fine();
        // What the test knows of a user: all distinct items but the last.
        let mut known: Vec<(String, String)> = Vec::new();
        for user in (0..40).map(|u| format!("u{u}")) {
            let mut own: Vec<(String, String)> = Vec::new();
            for pair in pairs.iter().filter(|pair| pair.0 == user) {
                if !own.contains(pair) {
                    own.push(pair.clone());
                }
            }
            own.pop();
            known.extend(own);
        }
        sandbox.write("known.csv", lines(&known));
        let best = sandbox.run(&["predict", "m", "known.csv", "--top", "3"]).fine().stdout;
        let scores = std::fs::read_to_string(sandbox.path("s.csv")).unwrap();
        let mut users = 0;
        for user in (0..40).map(|u| format!("u{u}")) {
            let of = |text: &str, [u, item, score]: [usize; 3]| -> Vec<(String, f32)> {
                let rows = text.lines().skip(1).map(|line| line.split(',').collect::<Vec<_>>());
                let own = rows.filter(|row| row[u] == user && !row[score].is_empty());
                own.map(|row| (row[item].to_string(), row[score].parse().unwrap())).collect()
            };
            let mut all = of(&scores, [1, 2, 4]);
            if all.is_empty() {
                continue;
            }
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            let offered = of(&best, [0, 2, 3]);
            assert_eq!(offered.len(), 3.min(all.len()), "{kind} {user}");
            for ((_, ours), (_, theirs)) in all.iter().zip(&offered) {
                assert!((ours - theirs).abs() < 1e-5, "{kind} {user}: {all:?} {offered:?}");
            }
            users += 1;
        }
        assert!(users > 20, "{users}");
    }
}

/// What a user rated low is no history, and is not offered either, as in training.
#[test]
fn what_a_user_rated_low_is_not_offered() {
    let sandbox = Sandbox::new();
    let row = |i: usize| format!("u{},i{},{}\n", i % 40, (i * i + i / 40) % 37, 1 + i * 7 % 5);
    let rows: Vec<String> = (0..600).map(row).collect();
    sandbox.write("likes.csv", "user,item,rating\n".to_string() + &rows.concat());
    sandbox.write("data.toml", PAIRS.replace("pairs-csv", "ratings-csv"));
    for rule in ["label = { positive_min = 4 }", ""] {
        let config =
            CONFIG.replace("KIND", "pointwise").replace("[data]", &format!("[data]\n{rule}"));
        sandbox.write("c.toml", config);
        let train = ["train", "--config", "c.toml", "--datasets", "data.toml", "--out", "m"];
        sandbox.run(&train).fine();
        let best = sandbox.run(&["predict", "m", "likes.csv", "--top", "40"]).fine().stdout;
        assert!(best.lines().count() > 200, "{best}");
        for line in best.lines().skip(1) {
            let [user, _, item, _] = line.split(',').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let had = |row: &String| row.starts_with(&format!("{user},{item},"));
            assert!(!rows.iter().any(had), "{rule}: {line}");
        }
    }
}
