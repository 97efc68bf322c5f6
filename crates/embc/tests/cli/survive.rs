//! Sweeps that are killed, starved of disk, run twice at once or handed damaged files end with the
//! records of one that nobody disturbed, bit for bit.

use crate::histories::ratings;
use crate::sandbox::{Sandbox, root};
use crate::smoke::{REGISTRY, bare, records};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

/// Schemes whose state is more than weights: clusterings inside epochs, post-training stages,
/// validation inside epochs, narrow storage; and one that is infeasible.
pub const CONFIG: &str = r#"
title = "smoke"
dataset = "synth"
[model]
kind = "gmf"
[embedding]
dim = 8
[train]
optimizer = { kind = "adamw", lr = 0.01, touch = "touched" }
batch = 64
epochs = 12
select = "auc"
validate_every = 50
early_stop = { patience = 9, after = 2 }
seeds = [1, 2]
[budget]
compression = [4]
[[scheme]]
kind = "full"
[[scheme]]
kind = "cce"
columns = 2
every = 0.7
[[scheme]]
kind = "cqr"
columns = 2
[[scheme]]
kind = "pq"
columns = 2
finetune = 1
[[scheme]]
kind = "memcom"
[[scheme]]
kind = "memcom"
quantize = "int8"
[[scheme]]
kind = "reduce_dim"
label = "reduce_dim narrow"
dim = 2
"#;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("datasets.toml", REGISTRY);
    sandbox.write("configs/smoke.toml", CONFIG);
    sandbox
}

/// The same with more steps, so that there is time to be killed in.
fn rows() -> Sandbox {
    let sandbox = sandbox();
    sandbox.write("configs/smoke.toml", CONFIG.replace("batch = 64", "batch = 16"));
    sandbox
}

/// Histories, drawn targets, dropout, batch norm and a sampled softmax.
fn histories() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("data/ml-20m/ratings.csv", ratings());
    let config = std::fs::read_to_string(root().join("configs/memcom/memcom_ml20m.toml")).unwrap();
    let head = config.split("[model]").next().unwrap().replace("ml20m", "smoke");
    let rest = r#"
[model]
kind = "pointwise"
samples = 50
hidden = [8]
dropout = 0.3
batch_norm = true
[embedding]
dim = 8
[train]
optimizer = { kind = "adam", lr = 0.01 }
batch = 16
epochs = 400
select = "ndcg@20"
[[scheme]]
kind = "full"
[[scheme]]
kind = "memcom"
"#;
    sandbox.write("configs/smoke.toml", head.to_string() + rest);
    sandbox
}

const SWEEP: [&str; 5] = ["sweep", "--config", "smoke", "--checkpoint-every", "20ms"];

fn start(sandbox: &Sandbox, more: &[&str]) -> Child {
    let mut command = sandbox.command(&[&SWEEP, more].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn undisturbed(sandbox: &Sandbox) -> Vec<Value> {
    sandbox.run(&SWEEP).fine();
    bare(records(sandbox))
}

/// Moments that differ from run to run: that is what they are for.
pub fn moment(most: u64) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Duration::from_millis(u64::from(now.subsec_nanos()) / 1000 % most)
}

fn running(sandbox: &Sandbox) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(sandbox.path("results/.running")).into_iter().flatten();
    folders.flatten().map(|folder| folder.path()).collect()
}

/// The checkpoints there are, and when each was written.
fn checkpoints(sandbox: &Sandbox) -> Vec<(PathBuf, std::time::SystemTime)> {
    let of = |folder: PathBuf| {
        let path = folder.join("last.safetensors");
        let time = path.metadata().ok()?.modified().ok()?;
        Some((path, time))
    };
    running(sandbox).into_iter().filter_map(of).collect()
}

/// Kills it twenty times, each a moment after one to three more checkpoints, however fast the machine
/// is; returns how often it was killed inside a trial.
fn kill_twenty_times(sandbox: &Sandbox, jobs: &str) -> usize {
    let mut inside = 0;
    for _ in 0..20 {
        let mut before = checkpoints(sandbox);
        let mut child = start(sandbox, &["--jobs", jobs]);
        let mut left = 1 + moment(3).as_millis();
        while left > 0 && child.try_wait().unwrap().is_none() {
            let now = checkpoints(sandbox);
            if now != before && !now.is_empty() {
                left -= 1;
            }
            before = now;
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(moment(10));
        let alive = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        inside += usize::from(alive && !checkpoints(sandbox).is_empty());
    }
    inside
}

#[test]
fn killed_at_twenty_random_moments() {
    for (make, name) in [(rows as fn() -> Sandbox, "rows"), (histories, "histories")] {
        let sandbox = make();
        let expect = undisturbed(&sandbox);
        for jobs in ["1", "2"] {
            let killed = make();
            let inside = kill_twenty_times(&killed, jobs);
            eprintln!("{name}, {jobs} jobs: killed inside a trial {inside} times of 20");
            assert!(inside > 3, "{name}: killed inside a trial {inside} times only");
            killed.run(&SWEEP).fine();
            assert_eq!(bare(records(&killed)), expect, "{name}, {jobs} jobs");
            assert_eq!(running(&killed), [] as [PathBuf; 0], "nothing is left behind");
        }
    }
}

/// Full with pq, and memcom with its narrow form: a training each, and a seed.
#[test]
fn families_are_trained_once_to_the_bits_of_each_alone() {
    let (together, alone) = (sandbox(), sandbox());
    let expect = undisturbed(&together);
    let shared = records(&together).iter().filter(|record| !record["parent"].is_null()).count();
    assert_eq!(shared, 4, "one of each two");
    assert!(!together.path("results/.parents").exists(), "nothing is left behind");
    let orders = alone.run(&["sweep", "--config", "smoke", "--list", "--format", "json"]).fine();
    for order in orders.stdout.lines() {
        alone.write("order.json", order);
        alone.run(&["trial", "order.json"]).fine();
    }
    // Which folds them.
    alone.run(&SWEEP).fine();
    let trials = records(&alone);
    assert!(trials.iter().all(|record| record["parent"].is_null()));
    assert_eq!(bare(trials), expect);
}

/// What a process leaves that is killed while it writes, or between taking a file away and its folder.
#[test]
fn what_was_half_written_goes_with_the_next_sweep() {
    let sandbox = sandbox();
    let expect = undisturbed(&sandbox);
    let all = records(&sandbox);
    let parent = all.iter().find_map(|record| record["parent"]["trial"].as_str()).unwrap();
    let left = [format!(".parents/.{parent}.safetensors.a1b2c3"), ".smoke.jsonl.a1b2c3".into()];
    for name in left {
        sandbox.write(&format!("results/{name}"), "half");
    }
    for folder in [".running", "smoke.d"] {
        std::fs::create_dir(sandbox.path("results").join(folder)).unwrap();
    }
    sandbox.run(&SWEEP).fine();
    assert_eq!(bare(records(&sandbox)), expect);
    let files = std::fs::read_dir(sandbox.path("results")).unwrap().flatten();
    let names: Vec<String> = files.map(|f| f.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|name| !name.starts_with('.') && name != "smoke.d"), "{names:?}");
}

/// Ctrl-C inside a trial, and the checkpoint that it leaves.
fn interrupted(sandbox: &Sandbox) -> PathBuf {
    let mut child = start(sandbox, &["--jobs", "1", "--filter", "cce"]);
    let both = |folder: &PathBuf| folder.join("previous.safetensors").exists();
    let folder = loop {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a checkpoint");
        if let Some(folder) = running(sandbox).into_iter().find(both) {
            break folder;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let pressed = std::time::Instant::now();
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(pressed.elapsed() < Duration::from_secs(2), "{:?}", pressed.elapsed());
    folder
}

#[test]
fn damaged_checkpoints_are_passed_over() {
    let expect = undisturbed(&sandbox());
    let damage = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 3);
    type Change = fn(&mut Vec<u8>);
    let all: [(&[&str], Change); 4] = [
        (&["last"], damage),
        (&["last"], cut),
        (&["last", "previous"], damage),
        (&["last", "previous"], |bytes| bytes.clear()),
    ];
    for (names, change) in all {
        let sandbox = sandbox();
        let folder = interrupted(&sandbox);
        let list = sandbox.run(&["sweep", "--config", "smoke", "--list"]).fine().stdout;
        assert_eq!(list.matches("interrupted").count(), 1, "{list}");
        for name in names {
            let path = folder.join(name).with_extension("safetensors");
            let mut bytes = std::fs::read(&path).unwrap();
            change(&mut bytes);
            std::fs::write(path, bytes).unwrap();
        }
        let ran = sandbox.run(&SWEEP).expect(0, "; passed over");
        assert_eq!(ran.stderr.contains("goes on from its checkpoint"), names.len() == 1);
        assert_eq!(bare(records(&sandbox)), expect);
    }
}

/// A panic, by a checkpoint that is whole and wrong: of a net with another name for a tensor.
#[test]
fn a_trial_that_panics_is_recorded_and_the_rest_go_on() {
    let sandbox = sandbox();
    let path = interrupted(&sandbox).join("last.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"\"table0/").unwrap();
    bytes[at + 1] = b'f';
    bytes.truncate(bytes.len() - 32);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    std::fs::write(&path, bytes).unwrap();
    sandbox.run(&SWEEP).expect(1, "smoke: 1 trials failed:");
    let all = records(&sandbox);
    let failed: Vec<&Value> = all.iter().filter(|r| r["status"] == "error").collect();
    assert_eq!((failed.len(), all.len()), (1, 14));
    let error = failed[0]["error"].as_str().unwrap();
    assert!(error.starts_with("panicked, which is a bug: ") && error.contains("table0"), "{error}");
    sandbox.run(&[&SWEEP[..], &["--retry-failed"]].concat()).fine();
}

#[test]
fn a_torn_last_line_is_cut_off() {
    let sandbox = sandbox();
    let expect = undisturbed(&sandbox);
    let path = sandbox.path("results/smoke.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - 100);
    // Torn inside a letter.
    bytes.push(0xc2);
    std::fs::write(&path, bytes).unwrap();
    sandbox.run(&SWEEP).expect(0, "the last line is torn and was dropped");
    assert_eq!(bare(records(&sandbox)), expect);
}

#[test]
fn two_sweeps_at_once_share_the_work() {
    let (one, two) = (sandbox(), sandbox());
    let expect = undisturbed(&one);
    let children: Vec<Child> = (0..2).map(|_| start(&two, &["--jobs", "1"])).collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    assert_eq!(bare(records(&two)), expect, "no trial twice, none forgotten");
    assert_eq!(running(&two), [] as [PathBuf; 0]);
}

/// A small disk of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(sandbox: &Sandbox, size: &str) -> Self {
        let path = sandbox.path("disk");
        std::fs::create_dir_all(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path);
        assert!(mount.status().unwrap().success());
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
#[cfg_attr(not(mounts), ignore = "needs the right to mount a small disk")]
fn a_full_disk_loses_nothing_that_was_recorded() {
    let sandbox = sandbox();
    let expect = undisturbed(&sandbox);
    let disk = Disk::mount(&sandbox, "2m");
    let sweep = [&SWEEP[..], &["--results", "disk"]].concat();
    // Full but for some records.
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, vec![0; (2 << 20) - (30 << 10)]).unwrap();
    let ran = sandbox.run(&sweep);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("choose another folder with --results"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the disk is full"), "{}", ran.stderr);
    let kept = std::fs::read_dir(disk.0.join("smoke.d")).into_iter().flatten().flatten();
    let kept = kept.filter(|file| file.file_name().to_string_lossy().ends_with(".json")).count();
    // With room again.
    std::fs::remove_file(&ballast).unwrap();
    sandbox.run(&sweep).fine();
    let all = crate::smoke::records_at(&disk.0.join("smoke.jsonl"));
    assert!(kept < all.len(), "the disk was full before the end");
    assert_eq!(bare(all), expect);
}

#[test]
fn failures_are_kept_and_retried_when_asked() {
    let sandbox = sandbox();
    // Diverges at once.
    let config = CONFIG.replace("lr = 0.01", "lr = 1e30").replace("adamw", "sgd");
    sandbox.write("configs/smoke.toml", config);
    let sweep = ["sweep", "--config", "smoke", "--jobs", "1", "--filter", "full|memcom"];
    let ran = sandbox.run(&sweep).expect(1, "smoke: 6 trials failed:");
    let error = records(&sandbox)[0]["error"].to_string();
    assert!(error.contains("is not finite at step") && error.contains("first seen in"), "{error}");
    assert!(ran.stdout.contains("failed"), "{}", ran.stdout);
    let again = sandbox.run(&sweep).expect(1, "6 failed before: --retry-failed runs them again");
    assert!(again.stderr.contains("full, seed 2: the training loss"), "{}", again.stderr);
    assert_eq!(records(&sandbox).len(), 6);
    let list = sandbox.run(&[&sweep[..], &["--list"]].concat()).fine().stdout;
    assert_eq!(list.matches("failed").count(), 6, "{list}");
    let one = sandbox.run(&[&sweep[..], &["--retry-failed", "--fail-fast"]].concat());
    let one = one.expect(1, "[1/6] ").stderr;
    assert!(!one.contains("[2/6] "), "one more, and then it stopped: {one}");
    let all = sandbox.run(&[&sweep[..], &["--retry-failed"]].concat()).expect(1, "[6/6] ").stderr;
    assert!(!all.contains("[7/"), "each once: {all}");
    assert_eq!(records(&sandbox).len(), 6);
}

#[test]
fn seeds_until_the_interval_is_narrow_and_none_for_losers() {
    let sandbox = sandbox();
    let more = "[sweep]\nuntil_ci = 0.02\nmax_seeds = 5\n";
    sandbox.write("configs/smoke.toml", format!("{CONFIG}{more}"));
    let sweep = ["sweep", "--config", "smoke", "--filter", "full|memcom"];
    sandbox.run(&sweep).fine();
    let all = records(&sandbox);
    let seeds = |label: &str| all.iter().filter(|r| r["label"] == label).count();
    assert!(all.len() > 4 && (2..=5).contains(&seeds("full")), "{}", all.len());
    sandbox.run(&sweep).expect(0, "trials are done already");
    assert_eq!(records(&sandbox).len(), all.len(), "nothing more to do");
    let report = sandbox.run(&["report", "smoke"]).fine().stdout;
    assert!(report.contains(&format!("{} trials", all.len())), "{report}");

    let sandbox = self::sandbox();
    let (head, _) = CONFIG.split_once("[[scheme]]").unwrap();
    let head = head.replace("seeds = [1, 2]", "seeds = [1, 2, 3, 4, 5]");
    let schemes = ["full", "hash", "hash_embedding", "memcom", "dhe", "tt"];
    let schemes = schemes.map(|kind| format!("[[scheme]]\nkind = \"{kind}\"\n")).concat();
    let config = head + &schemes;
    sandbox.write("configs/smoke.toml", format!("{config}[sweep]\nprune = true\n"));
    let sweep = ["sweep", "--config", "smoke", "--jobs", "2"];
    sandbox.run(&sweep).fine();
    let all = records(&sandbox);
    assert_eq!(all.len(), 30, "every trial has a record");
    let pruned: Vec<&Value> = all.iter().filter(|r| r["status"] == "pruned").collect();
    assert!(!pruned.is_empty() && pruned.iter().all(|r| r["seed"].as_u64() > Some(3)));
    let why = pruned[0]["error"].as_str().unwrap();
    assert!(why.starts_with("after ") && why.contains("valid/auc is -0."), "{why}");
    let report = sandbox.run(&["report", "smoke"]).fine().stdout;
    let ok = format!("\n{} trials. Trained by embc ", all.len() - pruned.len());
    assert!(report.contains(why) && report.contains(&ok), "{report}");
    let mut decided = Vec::new();
    // Losers get none of the seeds that the others' intervals need either.
    let both = self::sandbox();
    let fewer = config.replace("seeds = [1, 2, 3, 4, 5]", "seeds = [1, 2, 3]");
    let more = "[sweep]\nprune = true\nuntil_ci = 0.0001\nmax_seeds = 5\n";
    both.write("configs/smoke.toml", format!("{fewer}{more}"));
    both.run(&["sweep", "--config", "smoke"]).fine();
    let few: Vec<Value> = records(&both).into_iter().filter(|r| r["status"] == "ok").collect();
    let seeds = |label: &str| few.iter().filter(|r| r["label"] == label).count();
    let fewest = ["hash", "hash_embedding", "memcom", "dhe", "tt"].map(seeds).into_iter().min();
    assert!(seeds("full") == 5 && (Some(3)..Some(5)).contains(&fewest), "{fewest:?}");
    // The same decisions, by one trial after the other, and by four processes at once.
    for processes in [1, 4] {
        let other = self::sandbox();
        let more = "[sweep]\nprune = true\nuntil_ci = 0.0001\nmax_seeds = 6\n";
        other.write("configs/smoke.toml", format!("{config}{more}"));
        other.run(&["data", "ingest", "synth"]).fine();
        let all: Vec<Child> = (0..processes).map(|_| start(&other, &["--jobs", "1"])).collect();
        for mut child in all {
            assert_eq!(child.wait().unwrap().code(), Some(0));
        }
        decided.push(bare(records(&other)));
    }
    assert!(decided[0].iter().any(|record| record["seed"] == 6), "somebody goes on");
    assert_eq!(decided[0], decided[1]);
    // Whose further seeds nobody asked for.
    decided[0].retain(|record| record["seed"] != 6);
    assert_eq!(decided[0], bare(all));
}

#[test]
fn a_grid_of_ten_thousand_lists_at_once() {
    let sandbox = sandbox();
    let seeds: Vec<String> = (1..=625).map(|seed| seed.to_string()).collect();
    let config = CONFIG.replace("seeds = [1, 2]", &format!("seeds = [{}]", seeds.join(", ")));
    sandbox.write("configs/smoke.toml", config.replace("[4]", "[2, 3, 4]"));
    sandbox.run(&["data", "ingest", "synth"]).fine();
    let list = sandbox.run(&["sweep", "--config", "smoke", "--list"]).fine().stdout;
    assert_eq!(list.lines().count(), 11_875);
}
