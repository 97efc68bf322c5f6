//! Every metric against its definition, on scores that embc wrote, over small random worlds: all
//! protocols, ties, repeats, unknown users and items, fewer candidates than k, empty histories.
//!
//! The definitions are written here again, plainly, from the text at the head of `metric/ranking.rs`.
//! `scripts/oracle/metrics.py` checks the same worlds with scikit-learn: with EMBC_WORLDS they are kept.

use crate::sandbox::Sandbox;
use embc_core::rng::Rng;
use std::collections::BTreeMap;

/// What a world is about.
const PROTOCOLS: [&str; 6] =
    ["clicks", "ratings sampled", "likes", "histories", "histories sampled", "classes"];
const CUTS: [usize; 3] = [1, 3, 20];

/// Rows and configs of a world, from its number.
fn world(number: u64) -> (String, String, String) {
    let mut rng = Rng::stream(number, "world");
    let mut below = |n: u64| rng.below(n);
    let protocol = (number % 6) as usize;
    let (users, items, rows) = (4 + below(5), 5 + below(9), 60 + below(60));
    let mut text = "user,item,part,y\n".to_string();
    for row in 0..rows {
        // A few users and items that only the test has; pairs come again.
        let test = row * 10 >= rows * 8;
        let part =
            ["train", "valid", "test"][usize::from(row * 10 >= rows * 6) + usize::from(test)];
        let user = below(users + if test { 2 } else { 0 });
        let item = below(items + if test { 2 } else { 0 });
        let y = match protocol {
            1 => (1 + below(5)).to_string(),
            5 => ["a", "b", "c", "d"][below(4) as usize].into(),
            _ => below(2).to_string(),
        };
        text += &format!("u{user},i{item},{part},{y}\n");
    }
    let label = match protocol {
        1 => "label = \"y\", rating = true",
        2..=4 => "label = \"all-positive\"",
        5 => "label = \"y\", classes = true",
        _ => "label = \"y\"",
    };
    let registry = format!(
        "[w]\ntitle = \"w\"\nformat = \"csv\"\nsplit = {{ rule = \"column\", column = \"part\", train = [\"train\"], valid = [\"valid\"], test = [\"test\"] }}\ncolumns = {{ {label}, categorical = [\"user\", \"item\"] }}\nfiles.data = {{ path = \"w.csv\" }}\n"
    );
    let ranked: Vec<String> = ["ndcg", "hr", "recall", "mrr", "precision", "map"]
        .iter()
        .flat_map(|name| CUTS.iter().map(move |k| format!("\"{name}@{k}\"")))
        .chain(["ndcg", "mrr", "map"].map(|name| format!("\"{name}\"")))
        .collect();
    let (data, model, metrics) = match protocol {
        0 => (
            "",
            "gmf",
            [&ranked[..], &["\"gauc\"", "\"ece\"", "\"calibration\""].map(String::from)].concat(),
        ),
        1 => ("label = { positive_min = 3 }\ncandidates = 4\n", "gmf", ranked),
        2 => ("negatives = 2\n", "gmf", ranked),
        3 => ("", "pointwise", ranked),
        4 => ("candidates = 5\n", "pointwise", ranked),
        _ => ("", "classifier", vec!["\"macro-f1\"".into()]),
    };
    let select = if protocol == 5 { "accuracy" } else { "ndcg" };
    // Two rows a table: many scores tie.
    let config = format!(
        "title = \"w\"\ndataset = \"w\"\n[data]\n{data}[model]\nkind = \"{model}\"\n[embedding]\ndim = 2\n[train]\noptimizer = {{ kind = \"adam\", lr = 0.1 }}\nbatch = 8\nepochs = 2\nselect = \"{select}\"\nmetrics = [{}]\n[budget]\nrows = [2]\n[[scheme]]\nkind = \"hash\"\n",
        metrics.join(", ")
    );
    (text, registry, config)
}

/// A candidate: its score, none where it cannot be ranked, and whether it is wanted.
type Candidate = (Option<f32>, bool);

/// All orders of equal scores that differ in where the wanted stand, each with its chance.
fn orders(candidates: &[Candidate]) -> Vec<(Vec<bool>, f64)> {
    let mut ranked: Vec<(f32, bool)> =
        candidates.iter().filter_map(|&(score, wanted)| Some((score?, wanted))).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut all = vec![(Vec::new(), 1.0)];
    for ties in ranked.chunk_by(|a, b| a.0 == b.0) {
        let hits = ties.iter().filter(|tie| tie.1).count();
        let choices: Vec<Vec<bool>> = (0..1u32 << ties.len())
            .filter(|bits| bits.count_ones() as usize == hits)
            .map(|bits| (0..ties.len()).map(|i| bits >> i & 1 == 1).collect())
            .collect();
        let chance = 1.0 / choices.len() as f64;
        let with = |(order, p): &(Vec<bool>, f64)| {
            let one = |choice: &Vec<bool>| ([&order[..], choice].concat(), p * chance);
            choices.iter().map(one).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

/// A ranking metric of one order, by its definition.
fn ranked(name: &str, k: usize, order: &[bool], wanted: usize) -> f64 {
    let first = &order[..k.min(order.len())];
    let hits = first.iter().filter(|hit| **hit).count() as f64;
    let discount = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
    match name {
        "hr" => f64::from(hits > 0.0),
        "recall" => hits / wanted as f64,
        "precision" => hits / k as f64,
        "mrr" => first.iter().position(|hit| *hit).map_or(0.0, |at| 1.0 / (at + 1) as f64),
        "ndcg" => {
            let gain: f64 = (0..first.len()).filter(|&i| first[i]).map(discount).sum();
            gain / (0..wanted.min(k)).map(discount).sum::<f64>()
        }
        "map" => {
            let precision =
                |i: usize| first[..=i].iter().filter(|hit| **hit).count() as f64 / (i + 1) as f64;
            (0..first.len()).filter(|&i| first[i]).map(precision).sum::<f64>()
                / wanted.min(k) as f64
        }
        _ => unreachable!(),
    }
}

/// Share of pairs of a positive and a negative in the right order, ties half.
fn auc(rows: &[(f64, bool)]) -> Option<f64> {
    let (mut right, mut pairs) = (0.0, 0.0);
    for (a, _) in rows.iter().filter(|row| row.1) {
        for (b, _) in rows.iter().filter(|row| !row.1) {
            pairs += 1.0;
            right += if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            };
        }
    }
    (pairs > 0.0).then(|| right / pairs)
}

fn of_rows(text: &str) -> BTreeMap<String, f64> {
    let rows: Vec<(String, f64, bool)> = text
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            (cells[1].into(), cells[3].parse::<f32>().unwrap().into(), cells[2] == "1")
        })
        .collect();
    let n = rows.len() as f64;
    let chance = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut values = BTreeMap::new();
    let all: Vec<(f64, bool)> = rows.iter().map(|r| (r.1, r.2)).collect();
    values.extend(auc(&all).map(|auc| ("auc".into(), auc)));
    let loss = |r: &(f64, bool)| if r.1 { -chance(r.0).ln() } else { -(1.0 - chance(r.0)).ln() };
    values.insert("logloss".into(), all.iter().map(loss).sum::<f64>() / n);
    let right = all.iter().filter(|r| (r.0 > 0.0) == r.1).count();
    values.insert("accuracy".into(), right as f64 / n);
    let mut users: BTreeMap<&str, Vec<(f64, bool)>> = BTreeMap::new();
    rows.iter().for_each(|r| users.entry(&r.0).or_default().push((r.1, r.2)));
    let of_users: Vec<(f64, f64)> =
        users.values().filter_map(|rows| Some((rows.len() as f64, auc(rows)?))).collect();
    let weight: f64 = of_users.iter().map(|u| u.0).sum();
    if weight > 0.0 {
        values.insert("gauc".into(), of_users.iter().map(|(n, auc)| n * auc).sum::<f64>() / weight);
    }
    let bin = |r: &&(f64, bool), b: usize| ((chance(r.0) * 15.0) as usize).min(14) == b;
    let error = (0..15).map(|b| {
        let inside: Vec<_> = all.iter().filter(|r| bin(r, b)).collect();
        let gap: f64 = inside.iter().map(|r| chance(r.0) - f64::from(u8::from(r.1))).sum();
        gap.abs()
    });
    values.insert("ece".into(), error.sum::<f64>() / n);
    let positives = all.iter().filter(|r| r.1).count() as f64;
    if positives > 0.0 {
        values
            .insert("calibration".into(), all.iter().map(|r| chance(r.0)).sum::<f64>() / positives);
    }
    values
}

fn of_classes(text: &str) -> BTreeMap<String, f64> {
    let mut rows: BTreeMap<u64, (usize, Vec<f64>)> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let row = rows.entry(cells[0].parse().unwrap()).or_default();
        row.0 = cells[1].parse().unwrap();
        row.1.push(cells[3].parse::<f32>().unwrap().into());
    }
    let (mut loss, mut pairs) = (0.0, Vec::new());
    for (class, logits) in rows.values() {
        let top = logits.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - top).exp()).sum();
        loss -= logits[*class] - top - sum.ln();
        // Of equal scores the last.
        let taken = logits.iter().rposition(|x| *x == top).unwrap();
        pairs.push((*class, taken));
    }
    let n = pairs.len() as f64;
    let f1 = |class: usize| {
        let count =
            |is: &dyn Fn(&(usize, usize)) -> bool| pairs.iter().filter(|p| is(p)).count() as f64;
        let both = count(&|p| p.0 == class && p.1 == class);
        let all = count(&|p| p.0 == class) + count(&|p| p.1 == class);
        (all > 0.0).then(|| 2.0 * both / all)
    };
    let f1: Vec<f64> = (0..4).filter_map(f1).collect();
    BTreeMap::from([
        ("logloss".into(), loss / n),
        ("accuracy".into(), pairs.iter().filter(|p| p.0 == p.1).count() as f64 / n),
        ("macro-f1".into(), f1.iter().sum::<f64>() / f1.len() as f64),
    ])
}

fn of_rankings(text: &str) -> BTreeMap<String, f64> {
    let mut queries: BTreeMap<u64, Vec<Candidate>> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let candidate = (cells[4].parse().ok(), cells[3] == "1");
        queries.entry(cells[0].parse().unwrap()).or_default().push(candidate);
    }
    let orders: Vec<_> = queries
        .values()
        .map(|candidates| (orders(candidates), candidates.iter().filter(|c| c.1).count()))
        .collect();
    let cuts = CUTS.iter().map(|k| (format!("@{k}"), *k)).chain([(String::new(), 1000)]);
    let mut values = BTreeMap::new();
    for (cut, k) in cuts {
        for name in ["ndcg", "hr", "recall", "mrr", "precision", "map"] {
            let of = |(orders, wanted): &(Vec<(Vec<bool>, f64)>, usize)| -> f64 {
                orders.iter().map(|(order, p)| p * ranked(name, k, order, *wanted)).sum()
            };
            values.insert(
                format!("{name}{cut}"),
                orders.iter().map(of).sum::<f64>() / orders.len() as f64,
            );
        }
    }
    values
}

#[test]
fn metrics_are_what_they_are_defined_as() {
    let kept = std::env::var_os("EMBC_WORLDS").map(std::path::PathBuf::from);
    let mut checked = [0; 6];
    for number in 0..240 {
        let sandbox = Sandbox::new();
        let (rows, registry, config) = world(number);
        sandbox.write("w.csv", rows);
        sandbox.write("r.toml", registry);
        sandbox.write("w.toml", config);
        let args = [
            "-q",
            "train",
            "--threads",
            "1",
            "--config",
            "w.toml",
            "--datasets",
            "r.toml",
            "--scores",
            "s.csv",
        ];
        let ran = sandbox.run(&args);
        let what = format!("world {number}, {}", PROTOCOLS[(number % 6) as usize]);
        if ran.code == Some(2) && ran.stderr.contains("needs validation rows") {
            continue;
        }
        let stdout = ran.expect(0, "").stdout;
        let mut expect = BTreeMap::new();
        for name in ["s.csv", "s.ranking.csv"] {
            let Ok(text) = std::fs::read_to_string(sandbox.path(name)) else { continue };
            expect.extend(match &text[..10] {
                "row,user,l" => of_rows(&text),
                "row,label," => of_classes(&text),
                _ => of_rankings(&text),
            });
        }
        let got: Vec<(&str, f64)> = stdout
            .lines()
            .filter_map(|line| line.strip_prefix("test/")?.split_once(' '))
            .map(|(name, value)| (name, value.parse().unwrap()))
            .filter(|(name, _)| {
                !name.contains('/') && !name.ends_with("@10") && !name.ends_with("@100")
            })
            .filter(|(name, _)| {
                !matches!(*name, "auc" | "logloss" | "accuracy") || expect.contains_key(*name)
            })
            .collect();
        assert!(got.len() > 2, "{what}: {stdout}");
        // What a record says has all digits.
        let record = std::fs::read_to_string(sandbox.path("results/w.jsonl")).unwrap();
        let record: serde_json::Value =
            serde_json::from_str(record.lines().last().unwrap()).unwrap();
        for (name, _) in got {
            let value = record["metrics"][format!("test/{name}")].as_f64().unwrap();
            let expect = expect.get(name).unwrap_or_else(|| panic!("{what}: no {name}"));
            assert!((value - expect).abs() < 1e-9, "{what}: {name} is {value}, not {expect}");
        }
        checked[(number % 6) as usize] += 1;
        if let Some(folder) = &kept {
            let folder = folder.join(number.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            for name in ["s.csv", "s.ranking.csv", "results/w.jsonl"] {
                let to = folder.join(std::path::Path::new(name).file_name().unwrap());
                let _ = std::fs::copy(sandbox.path(name), to);
            }
        }
    }
    assert!(checked.iter().all(|n| *n > 30) && checked.iter().sum::<i32>() >= 200, "{checked:?}");
}
