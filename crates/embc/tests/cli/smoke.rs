//! Whole sweeps on synthetic data: same bits for any threads, skipping, resuming, saving.

use crate::sandbox::Sandbox;
use serde_json::Value;
use std::io::Read;
use std::process::Stdio;

pub const CONFIG: &str = r#"
title = "smoke"
dataset = "synth"
[model]
kind = "gmf"
[embedding]
dim = 8
[train]
optimizer = { kind = "adam", lr = 0.01, touch = "all" }
batch = 128
epochs = 2
select = "auc"
metrics = ["ndcg@10", "hr@10"]
seeds = [1, 2]
[budget]
compression = [2, 4]
[[scheme]]
kind = "full"
[[scheme]]
kind = "hash"
[[scheme]]
kind = "qr"
[[scheme]]
kind = "memcom"
[[scheme]]
kind = "reduce_dim"
[[scheme]]
kind = "cce"
columns = 2
every = 0.3
[[scheme]]
kind = "robe"
[[scheme]]
kind = "dhe"
[[scheme]]
kind = "lma"
sharing = "global"
[[scheme]]
kind = "pq"
columns = 2
[[scheme]]
kind = "pq"
label = "pq finetuned"
columns = 2
finetune = 1
[[scheme]]
kind = "memcom"
quantize = "int8"
[table]
relative_to = "full"
"#;

pub const REGISTRY: &str = r#"
[synth]
title = "synthetic"
format = "synth"
synth = { kind = "gmf", rows = 20000, vocab = 400, seed = 3 }
split = { rule = "column", column = "split", train = ["train"], valid = ["valid"], test = ["test"] }
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("datasets.toml", REGISTRY);
    sandbox.write("configs/smoke.toml", CONFIG);
    sandbox
}

pub fn records(sandbox: &Sandbox) -> Vec<Value> {
    records_of(sandbox, "smoke")
}

pub fn records_of(sandbox: &Sandbox, experiment: &str) -> Vec<Value> {
    records_at(&sandbox.path("results").join(experiment).with_extension("jsonl"))
}

/// Those of a file, with their details.
pub fn records_at(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for details in details_of(path) {
        for record in records.iter_mut().filter(|record| record["trial"] == details["trial"]) {
            let values = details.as_object().unwrap().clone();
            record.as_object_mut().unwrap().extend(values);
        }
    }
    records
}

/// What is long in the folded records of a file.
fn details_of(path: &std::path::Path) -> Vec<Value> {
    let Ok(bytes) = std::fs::read(path.with_extension("details.jsonl.gz")) else { return vec![] };
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Records without what may differ between machines and runs, in an order that does not either:
/// trials that run side by side are recorded as they end.
pub fn bare(mut records: Vec<Value>) -> Vec<Value> {
    let volatile = [
        "train_examples_per_s",
        "build_s",
        "wall_s",
        "parent",
        "peak_rss_bytes",
        "threads",
        "jobs",
        "started",
        "finished",
    ];
    for record in &mut records {
        volatile.iter().for_each(|key| drop(record.as_object_mut().unwrap().remove(*key)));
    }
    records.sort_by_key(|record| record["trial"].to_string());
    records
}

#[test]
fn one_and_two_threads_give_identical_records() {
    let (one, two) = (sandbox(), sandbox());
    let first = one.run(&["sweep", "--config", "smoke", "--threads", "1"]).fine();
    let second = two.run(&["sweep", "--config", "smoke", "--threads", "2"]).fine();
    assert_eq!(first.stdout, second.stdout);
    let (one_records, two_records) = (bare(records(&one)), bare(records(&two)));
    assert_eq!(one_records.len(), 46);
    assert_eq!(one_records, two_records);
    for record in &one_records {
        assert_eq!(record["status"], "ok");
        assert!(record["metrics"]["test/ndcg@10"].as_f64().unwrap() > 0.0);
        assert_eq!(record["weights_hash"].as_str().unwrap().len(), 16);
        let ratio = record["budget"]["compression"].as_f64().unwrap_or(1.0);
        assert!(record["compression_params"].as_f64().unwrap() >= ratio);
    }
    let of = |label: &str| {
        let first = |r: &&Value| r["seed"] == 1 && r["budget"]["compression"] == 2;
        one_records.iter().filter(first).find(|r| r["label"] == label).unwrap()
    };
    let (plain, narrow) = (of("memcom"), of("memcom int8"));
    assert_eq!(plain["params"], narrow["params"]);
    // A byte a value, and a range for each sixteen.
    let bytes = plain["param_bytes"].as_f64().unwrap() / narrow["param_bytes"].as_f64().unwrap();
    assert!((3.1..3.2).contains(&bytes), "{bytes}");
    assert_ne!(plain["metrics"], narrow["metrics"]);
    let auc = |record: &Value| record["metrics"]["valid/auc"].as_f64().unwrap();
    assert!((auc(plain) - auc(narrow)).abs() < 0.002, "int8 costs little");
    // A point for the codebooks as they are, and one for the epoch after; the better one is kept.
    let tuned = of("pq finetuned");
    assert_eq!(tuned["curve"].as_array().unwrap().len(), 4);
    assert!(auc(tuned) >= auc(of("pq")));
    let collisions = &of("hash")["collisions"][0];
    assert_eq!(
        (collisions["table"].as_str(), collisions["ids"].as_u64()),
        (Some("user"), Some(401))
    );
    assert!(of("pq")["collisions"][0]["figures"]["quantisation_error"].as_f64().unwrap() > 0.0);
    // Run again: nothing to do, the same table.
    let again =
        one.run(&["sweep", "--config", "smoke"]).expect(0, "46 of 46 trials are done already");
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(records(&one).len(), 46);
    assert_eq!(one.run(&["report"]).fine().stdout, first.stdout);
    undone(&first.stdout, &one_records);
    exports(&one, &one_records);
    advice(&one, &one_records);
    let why = one.run(&["report", "--collisions"]).fine().stdout;
    assert!(why.starts_with(&first.stdout) && why.contains("own row: ids %"), "{why}");
}

/// The report says where the codebooks as they were beat what an epoch made of them.
fn undone(report: &str, records: &[Value]) {
    let as_it_was = |record: &&Value| {
        let curve = record["curve"].as_array().unwrap();
        let point = curve.iter().rev().find(|point| point["train/loss"].is_null()).unwrap();
        let difference =
            |key: &str| record["metrics"][key].as_f64().unwrap() - point[key].as_f64().unwrap();
        difference("valid/auc").abs() < 1e-6
    };
    for ratio in [2, 4] {
        let of = |record: &&Value| {
            record["label"] == "pq finetuned" && record["budget"]["compression"] == ratio
        };
        let note = match records.iter().filter(of).filter(as_it_was).count() {
            0 => continue,
            n => format!(
                "pq finetuned {ratio}: training on after the stage only lost, and was undone, in {n} of 2 seeds"
            ),
        };
        assert!(report.contains(&note), "{note}: {report}");
    }
}

/// Two schemes side by side, two files, and what to use.
fn advice(sandbox: &Sandbox, records: &[Value]) {
    let mean = |label: &str| {
        let at = |r: &&Value| r["label"] == label && r["budget"]["compression"] == 2;
        let values = records.iter().filter(at).map(|r| r["metrics"]["test/auc"].as_f64().unwrap());
        values.sum::<f64>() / 2.0
    };
    let text = sandbox.run(&["compare", "memcom", "hash", "--in", "smoke"]).fine().stdout;
    let expect = format!("| 2x          | {:+.4} ± ", mean("memcom") - mean("hash"));
    assert!(text.contains(&expect), "{expect} {text}");
    let text = sandbox.run(&["compare", "smoke", "results/smoke.jsonl"]).fine().stdout;
    let zeros = text.matches("+0.0000  | 2     | the same in every seed").count();
    assert_eq!(zeros, 23, "a cell each: {text}");
    sandbox.run(&["compare", "memcm", "hash", "--in", "smoke"]).refuses("did you mean \"memcom\"?");
    sandbox.run(&["compare", "memcom", "hash"]).refuses("say in which experiment: --in NAME");
    let advice = |size| sandbox.run(&["recommend", "--budget-bytes", size]).fine().stdout;
    let full = advice("1GiB");
    assert!(full.starts_with("smoke: Within 1.00 GiB, use "), "{full}");
    let small = advice("4KiB");
    assert!(small.contains("than the full table's") && small.contains(" Next: "), "{small}");
    assert!(advice("10B").contains("nothing recorded fits 10 B; the smallest is "));
    sandbox.run(&["recommend"]).expect(2, "--budget-bytes");
    let html = sandbox.run(&["report", "--format", "html"]).fine().stdout;
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    assert!(!html.contains("http://") || html.matches("http://").count() == 1, "the SVG namespace");
    assert!(!html.contains("https://"), "it loads nothing");
}

/// The same numbers for other programs, and a table for a paper.
fn exports(sandbox: &Sandbox, records: &[Value]) {
    let report = |format| sandbox.run(&["report", "smoke", "--format", format]).fine().stdout;
    let aucs = records.iter().filter(|r| r["label"] == "full");
    let aucs: Vec<f64> = aucs.map(|r| r["metrics"]["test/auc"].as_f64().unwrap()).collect();
    let mean = (aucs[0] + aucs[1]) / 2.0;
    let json: Vec<Value> =
        report("json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let full = json.iter().find(|row| row["label"] == "full" && row["metric"] == "test/auc");
    let full = full.unwrap();
    assert!((full["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert_eq!((&full["seeds"], &full["budget"]), (&Value::from(2), &Value::Null));
    // A heading, then as many lines as JSON has.
    let csv = report("csv");
    assert_eq!(csv.lines().count(), 1 + json.len());
    assert!(csv.starts_with("experiment,data_hash,model,scheme,label,axis,budget,metric,mean"));
    let latex = report("latex");
    assert!(latex.contains("\\toprule\nscheme & 2x & 4x \\\\\n\\midrule\nfull & "), "{latex}");
    assert!(latex.contains("reduce\\_dim & ") && latex.ends_with("\\end{tabular}\n"), "{latex}");
}

#[test]
fn a_sweep_that_is_interrupted_goes_on_where_it_was() {
    let (cut, whole) = (sandbox(), sandbox());
    let mut child = cut
        .command(&["sweep", "--config", "smoke", "--set", "train.epochs=30"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Wait for a finished trial, then press Ctrl-C.
    let files = || std::fs::read_dir(cut.path("results/smoke.d")).into_iter().flatten().flatten();
    while !files().any(|file| file.path().extension().is_some_and(|kind| kind == "json")) {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a record");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let code = child.wait().unwrap().code();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(code, Some(130), "{stderr}");
    assert!(stderr.contains("run the same command again to go on"), "{stderr}");
    let done = records(&cut).len();
    assert!((1..46).contains(&done), "{done} trials were done");
    let args = ["sweep", "--config", "smoke", "--set", "train.epochs=30"];
    let resumed = cut.run(&args).expect(0, &format!("{done} of 46 trials are done already"));
    assert_eq!(resumed.stdout, whole.run(&args).fine().stdout);
    assert_eq!(bare(records(&cut)), bare(records(&whole)));
}

#[test]
fn filters_lists_and_reruns() {
    let sandbox = sandbox();
    let list =
        sandbox.run(&["sweep", "--config", "smoke", "--list", "--filter", "hash.*seed 2"]).fine();
    assert_eq!(list.stdout.lines().count(), 2);
    assert!(list.stdout.lines().all(|line| line.contains("to do")));
    sandbox.run(&["sweep", "--config", "smoke", "--filter", "hash, compression 2, seed 2"]).fine();
    let list = sandbox.run(&["sweep", "--config", "smoke", "--list"]).fine();
    assert_eq!(list.stdout.lines().filter(|line| line.contains("done")).count(), 1);
    let first = bare(records(&sandbox));
    sandbox
        .run(&["sweep", "--config", "smoke", "--filter", "hash, compression 2, seed 2", "--rerun"])
        .expect(0, "hash, compression 2, seed 2: valid/auc");
    assert_eq!(bare(records(&sandbox)), first, "a rerun gives the same bits");
}

#[test]
fn train_saves_weights_vocabulary_and_trial() {
    let sandbox = sandbox();
    let args = [
        "train",
        "--config",
        "smoke",
        "--set",
        "scheme.kind=memcom",
        "--seed",
        "5",
        "--out",
        "out",
    ];
    let ran = sandbox.run(&args).fine();
    assert!(ran.stdout.contains("valid/auc 0."), "{}", ran.stdout);
    let trial: Value =
        serde_json::from_slice(&std::fs::read(sandbox.path("out/trial.json")).unwrap()).unwrap();
    assert_eq!((trial["seed"].as_u64(), trial["scheme"].as_str()), (Some(5), Some("memcom")));
    let bytes = std::fs::read(sandbox.path("out/weights.safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let is_float = |t: &safetensors::tensor::TensorView<'_>| t.dtype() == safetensors::Dtype::F32;
    let tensors = weights.tensors();
    let floats = tensors.iter().filter(|(_, t)| is_float(t));
    assert_eq!(
        floats.map(|(_, t)| t.shape().iter().product::<usize>()).sum::<usize>() as u64,
        trial["params"].as_u64().unwrap() + trial["model_params"].as_u64().unwrap()
    );
    let hashes = tensors.iter().filter(|(name, _)| name.ends_with("/hash"));
    assert_eq!(hashes.count(), 2, "weights say where they are looked up");
    let vocab = std::fs::read_to_string(sandbox.path("out/vocab-user.txt")).unwrap();
    let values: Vec<Option<String>> =
        vocab.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), 401);
    assert!(values[..400].iter().all(Option::is_some) && values[400].is_none());
}

#[test]
fn checks_fail_with_exit_code_1() {
    let sandbox = sandbox();
    let expect =
        "[[expect]]\nscheme = \"full\"\nmetric = \"auc\"\nmin = 0.99\nsource = \"a dream\"\n";
    sandbox.write("configs/smoke.toml", format!("{CONFIG}{expect}"));
    sandbox
        .run(&["report", "smoke"])
        .refuses("smoke has no results yet; run `embc sweep --config smoke`");
    sandbox.run(&["sweep", "--config", "smoke", "--filter", "full"]).fine();
    sandbox.run(&["report", "smoke"]).fine();
    sandbox.run(&["report", "smoke", "--check"]).expect(1, "below 0.99 (bound from: a dream)");
    // A report beside the records that says something else.
    sandbox.write("configs/smoke.toml", CONFIG);
    sandbox.run(&["report", "smoke", "--output", "results/smoke.md"]).fine();
    sandbox.run(&["report", "smoke", "--check"]).fine();
    sandbox.run(&["sweep", "--config", "smoke", "--filter", "hash, compression 2"]).fine();
    sandbox.run(&["report", "smoke", "--check"]).expect(1, "results/smoke.md is stale");
    // The same config on other data.
    let text = std::fs::read_to_string(sandbox.path("results/smoke.jsonl")).unwrap();
    let first = text.lines().find(|line| line.contains("\"label\":\"full\"")).unwrap();
    let mut record: Value = serde_json::from_str(first).unwrap();
    record["data_hash"] = "0123456789abcdef".into();
    sandbox.write("results/smoke.jsonl", text.replace(first, &record.to_string()));
    let report = sandbox.run(&["report", "smoke"]).fine().stdout;
    assert!(report.contains("**Stale:** 1 trials were trained on other data"), "{report}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let sandbox = sandbox();
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        &format!(
            "'{}' list schemes --format json | true; '{}' list schemes | head -1",
            env!("CARGO_BIN_EXE_embc"),
            env!("CARGO_BIN_EXE_embc")
        ),
    ]);
    let output = command.current_dir(sandbox.path(".")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "full: the uncompressed table\n");
}

/// Peak resident memory of the program in bytes, from /proc.
#[cfg(target_os = "linux")]
fn peak_of(sandbox: &Sandbox, args: &[&str]) -> u64 {
    let mut child = sandbox.command(args).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    loop {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes =
            line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return peak;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn ingest_stays_within_its_memory() {
    let sandbox = Sandbox::new();
    // A million distinct values of 150 bytes: more than the bound below, without their index.
    let rows: String =
        (0..1_000_000u64).map(|i| format!("{},{:0150},x\n", i % 2, i * 7919)).collect();
    sandbox.write("raw.txt", format!("y,a,b\n{rows}"));
    drop(rows);
    let columns = "columns = { label = \"y\", categorical = [\"a\", \"b\"] }";
    sandbox.registry("csv", "raw.txt", columns);
    let ingest = |memory| {
        let _ = std::fs::remove_dir_all(sandbox.path("data"));
        let peak = peak_of(&sandbox, &["data", "ingest", "it", "--memory", memory]);
        (peak, std::fs::read(sandbox.path("data/cache/it/data.arrow")).unwrap())
    };
    let (free, whole) = ingest("2GiB");
    let (bound, parts) = ingest("128MiB");
    assert!(parts == whole, "the memory does not change the cache");
    assert!(bound <= 128 << 20, "{bound} bytes at --memory 128MiB");
    assert!(free > 128 << 20, "the test needs more without a bound: {free}");
    sandbox.run(&["data", "ingest", "it"]).fine();
    std::fs::remove_dir_all(sandbox.path("data")).unwrap();
    let little = sandbox.run(&["data", "ingest", "it", "--memory", "1MiB"]);
    little.refuses("--memory must be at least 128 MiB");
}
