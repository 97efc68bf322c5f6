//! Workers that others start, and records that many write.

use crate::sandbox::Sandbox;
use crate::smoke::{REGISTRY, bare, records};
use serde_json::Value;

const CONFIG: &str = r#"
title = "smoke"
dataset = "synth"
[model]
kind = "gmf"
[embedding]
dim = 8
[train]
optimizer = { kind = "adam", lr = 0.01 }
batch = 512
epochs = 1
select = "auc"
seeds = [1, 2]
[budget]
compression = [4]
[[scheme]]
kind = "full"
[[scheme]]
kind = "memcom"
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("datasets.toml", REGISTRY);
    sandbox.write("configs/smoke.toml", CONFIG);
    sandbox
}

#[test]
#[cfg(unix)]
fn a_script_is_a_worker() {
    let sandbox = sandbox();
    let filter = ["--filter", "memcom|it's"];
    let on = [&["sweep", "--config", "smoke"], &filter[..], &["--on", "script", "--workers=3"]];
    let script = sandbox.run(&on.concat()).fine().stdout;
    assert!(sandbox.has_cache(), "built before workers begin");
    sandbox.write("worker.sh", &script);
    let elsewhere = tempfile::tempdir().unwrap();
    let ran = std::process::Command::new("sh")
        .arg(sandbox.path("worker.sh"))
        .current_dir(elsewhere.path())
        .env_remove("EMBC_DATASETS")
        .output();
    let ran = crate::sandbox::Ran::from(ran.unwrap()).fine();
    assert!(ran.stdout.contains("memcom"), "{}", ran.stdout);
    assert_eq!(records(&sandbox).len(), 2, "{script}");
}

#[test]
fn what_would_start_workers_is_shown() {
    let sandbox = sandbox();
    let start = |more: &[&str]| sandbox.run(&[&["sweep", "--config", "smoke"], more].concat());
    let slurm = ["--on", "slurm", "--workers", "5", "--dry-run", "--", "--time=10"];
    let script = start(&slurm).fine().stdout;
    assert!(script.contains("#SBATCH --array=1-5\n") && script.contains("sweep --config smoke"));
    assert!(!script.contains("--dry-run") && !script.contains("--on"), "{script}");
    assert!(!sandbox.path("results/.jobs").exists(), "nothing was started");
    start(&["--on", "kubernetes"]).refuses("name the image after --");
    start(&["--on", "kubernetes", "--", "x=1"]).refuses("takes image, claim, mount, cpu, memory");
    start(&["--on", "script", "--", "--time=10"]).refuses("takes nothing after --");
    start(&["--on", "script", "--workers", "0"]).refuses("at least one worker");
    start(&["--workers", "3"]).expect(2, "--on <WHERE>");
    start(&["--on", "slrum"]).expect(2, "a similar value exists: 'slurm'");
    start(&["--lease", "0s"]).refuses("--lease");
    // A config that is wrong is so before anything starts.
    start(&["--on", "script", "--set", "train.epohcs=3"]).refuses("epochs");
}

#[test]
fn records_in_files_count_and_are_folded() {
    let sandbox = sandbox();
    sandbox.run(&["sweep", "--config", "smoke"]).fine();
    let report = sandbox.run(&["report", "smoke"]).fine().stdout;
    let expect = bare(records(&sandbox));
    // As workers leave them that are killed before they fold; one of a later embc; one that is torn.
    let text = sandbox.read("results/smoke.jsonl");
    let lines: Vec<&str> = text.lines().collect();
    let trial = |line: &str| serde_json::from_str::<Value>(line).unwrap()["trial"].clone();
    let name = |line: &str| format!("results/smoke.d/{}.json", trial(line).as_str().unwrap());
    for line in &lines[1..] {
        sandbox.write(&name(line), format!("{line}\n"));
    }
    let later = "{\"v\":99,\"trial\":\"ab\",\"new\":1}\n";
    sandbox.write("results/smoke.jsonl", format!("{later}{}\n", lines[0]));
    let ran = sandbox.run(&["report", "smoke"]).expect(0, "format version 99 was skipped");
    assert_eq!(ran.stdout, report);
    // Torn, and of no use; whole but for its end, and without a name.
    sandbox.write(&name(lines[2]), &lines[2][..100]);
    sandbox.write(&name(lines[1]), lines[1]);
    sandbox.write("results/smoke.d/abc.json", "{\"v\":2,\"trial\":\"abc\"}\n");
    // On its way out when its process was killed.
    let aside = name(lines[3]).replace("smoke.d/", "smoke.d/.folded-").replace(".json", "");
    std::fs::rename(sandbox.path(&name(lines[3])), sandbox.path(&aside)).unwrap();
    let list = sandbox.run(&["sweep", "--config", "smoke", "--list"]);
    let list = list.expect(0, "not a whole record; its trial runs again").stdout;
    assert_eq!(list.matches("to do").count(), 2, "{list}");
    sandbox.run(&["sweep", "--config", "smoke"]).expect(0, "2 of 4 trials are done already");
    std::fs::remove_file(sandbox.path("results/smoke.d/abc.json")).expect("it was left alone");
    std::fs::remove_dir(sandbox.path("results/smoke.d")).expect("all else was folded");
    let text = sandbox.read("results/smoke.jsonl");
    let rest = text.strip_prefix(later).expect("what a later embc wrote stays");
    sandbox.write("results/smoke.jsonl", rest);
    assert_eq!(bare(records(&sandbox)), expect);
    let trials: Vec<Value> = rest.lines().map(trial).collect();
    assert!(trials.is_sorted_by_key(|trial| trial.to_string()));
    // What is long in them lies beside them, whole or not at all.
    assert!(rest.lines().all(|line| !line.contains("\"curve\"")));
    let details = sandbox.path("results/smoke.details.jsonl.gz");
    let bytes = std::fs::read(&details).unwrap();
    std::fs::write(&details, &bytes[..bytes.len() / 2]).unwrap();
    sandbox.run(&["report", "smoke"]).refuses("smoke.details.jsonl.gz: damaged");
    std::fs::remove_file(&details).unwrap();
    let ran = sandbox.run(&["report", "smoke"]);
    ran.refuses("its curve is not there; copy results/smoke.details.jsonl.gz along");
}

/// Who watches sees what another does, and the same tables in the end.
#[test]
fn others_are_watched() {
    let sandbox = sandbox();
    let watch = || {
        let mut watch = sandbox.command(&["sweep", "--config", "smoke", "--watch"]);
        watch.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        watch.spawn().unwrap()
    };
    sandbox.run(&["data", "ingest", "synth"]).fine();
    let watching = watch();
    let table = sandbox.run(&["sweep", "--config", "smoke"]).fine().stdout;
    let seen = crate::sandbox::Ran::from(watching.wait_with_output().unwrap());
    let seen = seen.expect(0, "smoke: 4 of 4 trials are done, 0 running");
    assert_eq!(seen.stdout, table);
}

/// A machine that died while it ran a trial, and one while it folded: nobody has seen them before.
#[test]
fn what_a_dead_machine_holds_is_taken_over_by_who_asks_once() {
    let sandbox = sandbox();
    let dead = r#"{"token":"x","host":"gone","pid":7,"since":0,"term":0.3,"space":"","started":1}"#;
    sandbox.run(&["sweep", "--config", "smoke"]).fine();
    let line = sandbox.read("results/smoke.jsonl").lines().next().unwrap().to_string();
    let trial =
        serde_json::from_str::<Value>(&line).unwrap()["trial"].as_str().unwrap().to_string();
    sandbox.write(&format!("results/smoke.d/{trial}.json"), line + "\n");
    sandbox.write("results/smoke.d/.fold", dead);
    sandbox.run(&["sweep", "--config", "smoke"]).fine();
    assert!(!sandbox.path("results/smoke.d").exists(), "it was folded");

    let list = sandbox.run(&["sweep", "--config", "smoke", "--list"]).fine().stdout;
    for id in list.lines().map(|line| line.split(' ').next().unwrap()) {
        sandbox.write(&format!("results/.running/{id}/lease"), dead);
    }
    sandbox.run(&["train", "--config", "smoke"]).fine();
    let order = sandbox.run(&["sweep", "--config", "smoke", "--list", "--format", "json"]).fine();
    sandbox.write("trial.json", order.stdout.lines().last().unwrap());
    sandbox.run(&["trial", "trial.json", "--rerun"]).fine();
}
