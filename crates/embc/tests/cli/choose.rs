//! From data and a budget to an answer and a model.

use crate::sandbox::{Ran, Sandbox};
use crate::smoke::{REGISTRY, bare, records_of};
use crate::survive::{CONFIG, moment};
use std::process::Stdio;
use std::time::{Duration, Instant};

const CHOOSE: [&str; 6] =
    ["choose", "smoke", "--budget-bytes", "2KiB", "--checkpoint-every", "20ms"];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("datasets.toml", REGISTRY);
    sandbox.write("configs/smoke.toml", CONFIG.replace("epochs = 12", "epochs = 4"));
    sandbox
}

/// The answer, and what is left of it.
fn left(sandbox: &Sandbox, ran: &Ran) -> Vec<Vec<u8>> {
    let read = |name: &str| std::fs::read(sandbox.path("smoke-choice").join(name)).unwrap();
    let files = ["answer.md", "smoke-winner.toml", "smoke-choice.toml", "model/packed/model.embc"];
    [ran.stdout.clone().into_bytes()].into_iter().chain(files.map(read)).collect()
}

#[test]
fn killed_twenty_times_it_answers_the_same() {
    let undisturbed = sandbox();
    let began = Instant::now();
    let ran = undisturbed.run(&CHOOSE).fine();
    let took = began.elapsed();
    assert!(ran.stdout.starts_with("Within 2.00 KiB, use **"), "{}", ran.stdout);
    assert!(ran.stdout.contains("- Measured on seeds that nothing was picked by (5 seeds, "));
    assert!(
        ran.stderr.contains(" trainings at most") && ran.stderr.contains("smoke-choice/page.html")
    );
    let (expect, records) = (left(&undisturbed, &ran), records_of(&undisturbed, "smoke-choice"));
    let killed = sandbox();
    let mut early = 0;
    for _ in 0..20 {
        let mut command = killed.command(&CHOOSE);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment(took.as_millis() as u64 / 4) + Duration::from_millis(5));
        early += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(early > 3, "killed before its end {early} times only");
    let ran = killed.run(&CHOOSE).fine();
    assert_eq!(left(&killed, &ran), expect);
    assert_eq!(bare(records_of(&killed, "smoke-choice")), bare(records));
    assert!(!killed.path("results/.parents").exists(), "nothing is left behind");
    // There is nothing left to do, and so no time is needed.
    let again = killed.run(&[&CHOOSE[..], &["--time", "0s"]].concat()).fine();
    assert_eq!(left(&killed, &again), expect);
    // The model is one like others, and the config trains it again.
    let score = |name: &str| killed.run(&["train", "--config", name]).fine().stdout;
    let record: serde_json::Value =
        serde_json::from_str(&killed.read("smoke-choice/model/trial.json")).unwrap();
    let auc = record["metrics"]["test/auc"].as_f64().unwrap();
    assert!(score("smoke-choice/smoke-winner.toml").contains(&format!("test/auc {auc:.6}")));
}

#[test]
fn it_is_between_what_was_asked_for() {
    let sandbox = sandbox();
    let list =
        |more: &[&str]| sandbox.run(&[&CHOOSE[..], &["--list"], more].concat()).fine().stdout;
    let all = list(&[]);
    assert!(all.contains("full int8") && all.contains("pq int8") && all.contains("memcom int4"));
    assert!(all.contains(" trainings at most of ") && all.contains(" on one core"), "{all}");
    let post = list(&["--allow", "post"]);
    assert!(post.contains("rq int8") && !post.contains("memcom"), "{post}");
    assert!(post.contains("binary int4") && post.contains("binary trained through int4"));
    assert!(
        post.contains("about 18 trainings at most"),
        "a seed has a full table, and one more: {post}"
    );
    let trained = list(&["--allow", "trained"]);
    assert!(!trained.contains("full") && trained.contains("memcom int8"), "{trained}");
    let everything = list(&["--everything"]);
    assert!(everything.contains("dhe int4") && everything.contains("lma int8"), "{everything}");
    assert!(!sandbox.path("results").exists(), "nothing was trained");
    // One budget and another, and the smallest that loses little.
    let two = ["choose", "smoke", "--allow", "post", "--budget-bytes", "1KiB", "8KiB"];
    let answer = sandbox.run(&two).fine().stdout;
    let budgets: Vec<&str> = answer.lines().filter(|line| line.starts_with("Within ")).collect();
    assert!(budgets.len() == 2 && budgets[0].starts_with("Within 1.00 KiB"), "{answer}");
    let models = std::fs::read_dir(sandbox.path("smoke-choice")).unwrap().flatten();
    let models = models.filter(|file| file.file_name().to_string_lossy().starts_with("model-"));
    assert_eq!(models.count(), 2);
    let within = ["choose", "smoke", "--allow", "post", "--within", "5%", "--output", "w"];
    let answer = sandbox.run(&within).fine().stdout;
    assert!(answer.starts_with("To lose at most 5 %, use **"), "{answer}");
    assert!(answer.contains("- It "), "whether it holds: {answer}");
    assert!(sandbox.path("w/model/packed/model.embc").exists());
    // An answer is not overwritten by another question's.
    let other = ["choose", "smoke", "--allow", "post", "--budget-bytes", "4KiB"];
    let before = sandbox.read("smoke-choice/answer.md");
    sandbox.run(&other).refuses("smoke-choice holds the answer to another question");
    assert_eq!(sandbox.read("smoke-choice/answer.md"), before);
    sandbox.run(&two).fine();
    // By its name as what it is: an experiment.
    sandbox.run(&["report", "smoke-choice"]).fine();
    let advice =
        sandbox.run(&["recommend", "smoke-choice", "--budget-bytes", "8KiB"]).fine().stdout;
    assert!(advice.starts_with("smoke-choice: Within 8.00 KiB, use "), "{advice}");
}

/// Where a budget holds the uncompressed table, schemes under that budget are that table, and no news.
#[test]
fn the_uncompressed_table_races_under_its_own_name() {
    let sandbox = sandbox();
    let ran = sandbox.run(&["choose", "smoke", "--budget-bytes", "1MiB", "1KiB"]).fine();
    let all = records_of(&sandbox, "smoke-choice");
    let itself = |record: &&serde_json::Value| {
        record["scheme"] != "full"
            && record["compression_params"] == 1.0
            && record["index_bytes"] == 0
    };
    assert!(all.iter().any(|record| itself(&record)), "at the larger budget");
    assert!(all.iter().filter(itself).all(|record| record["seed"] == 1), "none gets another seed");
    let first = ran.stdout.lines().next().unwrap();
    assert!(first.starts_with("Within 1.00 MiB, use **full"), "{first}");
    let next = ran.stdout.lines().find(|line| line.starts_with("- Next: ")).unwrap();
    assert!(next.starts_with("- Next: **full"), "{next}");
    let list = sandbox.run(&["choose", "smoke", "--budget-bytes", "1MiB", "--list"]).fine().stdout;
    assert!(
        list.contains("the uncompressed table fits") && list.contains("about 9 trainings at most"),
        "{list}"
    );
}

#[test]
fn what_cannot_be_answered_is_said() {
    let sandbox = sandbox();
    sandbox.run(&["choose", "smoke"]).expect(2, "--budget-bytes <SIZE>");
    sandbox.run(&["choose", "smoke", "--within", "alot"]).expect(2, "such as 0.5%");
    let smock = ["choose", "smock", "--budget-bytes", "1KiB"];
    sandbox.run(&smock).refuses("did you mean \"smoke\"?");
    sandbox
        .run(&["choose", "smoke", "--budget-bytes", "2B", "--allow", "post"])
        .refuses("nothing fits");
    sandbox.run(&["choose", "smoke", "--budget-bytes", "0"]).refuses("nothing fits no bytes");
    sandbox.run(&["choose", "datasets.toml", "--budget-bytes", "1KiB"]).expect(2, "");
    sandbox.write("rows.csv", "a,b\n1,2\n");
    let data = ["choose", "rows.csv", "--budget-bytes", "1KiB"];
    sandbox.run(&data).refuses("run `embc init rows.csv` first");
    assert!(!sandbox.path("smoke-choice").exists(), "nothing half-written");
    let late = ["choose", "smoke", "--budget-bytes", "2KiB", "--time", "0s", "--output", "late"];
    sandbox.run(&late).refuses("the time was over before anything was trained");
    let none = ["choose", "smoke", "--within", "0.5%", "--allow", "trained", "--time", "1min"];
    sandbox.run(&none).refuses("--within is against the full table");
    // A data set stands for the config that is about it.
    let by_name = ["choose", "synth", "--budget-bytes", "2KiB", "--list"];
    sandbox.run(&by_name).expect(0, "synth as in configs/smoke.toml");
}
