//! Models that read histories, end to end on a small file in MovieLens' layout.

use crate::sandbox::{Ran, Sandbox, root};

/// 300 users and 400 movies.
pub fn ratings() -> String {
    let mut text = "userId,movieId,rating,timestamp\n".to_string();
    for user in 0..300 {
        for i in 0..20 + user % 10 {
            let movie = (user * 31 + i * i * 7) % 400;
            text += &format!("{user},{movie},{}.5,{}\n", i % 5, 1_000_000 + i);
        }
    }
    text
}

/// `memcom_ml20m`, scaled to those.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("data/ml-20m/ratings.csv", ratings());
    let config = std::fs::read_to_string(root().join("configs/memcom/memcom_ml20m.toml")).unwrap();
    let config = config.replace("samples = 2048", "samples = 50").replace("0.1", "0.5");
    sandbox.write("configs/memcom/memcom_ml20m.toml", config);
    let reference =
        std::fs::read(root().join("configs/memcom/reference/memcom_abstract.csv")).unwrap();
    sandbox.write("configs/memcom/reference/memcom_abstract.csv", reference);
    sandbox
}

fn run(sandbox: &Sandbox, command: &str, sets: &[&str]) -> Ran {
    let mut args = vec![command, "--config", "memcom_ml20m.toml", "--set", "train.epochs=2"];
    sets.iter().for_each(|set| args.extend(["--set", set]));
    sandbox.run(&args)
}

#[test]
fn the_same_bits_on_one_thread_and_on_two() {
    let sandbox = sandbox();
    for model in [
        "{ kind = \"pointwise\", samples = 50 }",
        "{ kind = \"pointwise\", examples = \"event\", hidden = [8], dropout = 0.2 }",
        "{ kind = \"ranknet\", hidden = [8], batch_norm = true, dropout = 0.5 }",
    ] {
        let model = format!("model={model}");
        let [one, two] = ["1", "2"].map(|threads| {
            let args = ["train", "--config", "memcom_ml20m.toml", "--threads", threads];
            let sets = ["--set", "train.epochs=2", "--set", "scheme.kind=memcom", "--set", &model];
            let said = sandbox.run(&[&args[..], &sets].concat()).fine().stdout;
            let record = sandbox.read("results/memcom/memcom_ml20m.jsonl");
            std::fs::remove_dir_all(sandbox.path("results")).unwrap();
            let record: serde_json::Value = serde_json::from_str(&record).unwrap();
            (said, record["weights_hash"].to_string())
        });
        assert_eq!(one, two, "{model}");
        let one = one.0;
        let ndcg = one.lines().find_map(|line| line.strip_prefix("test/ndcg@20 ")).unwrap();
        assert!((0.0..1.0).contains(&ndcg.parse::<f64>().unwrap()), "{one}");
        assert!(one.contains("test/ndcg@20/tail") && one.contains("test/mrr"), "{one}");
    }
}

#[test]
fn the_report_says_who_loses_least_and_draws_it() {
    let sandbox = sandbox();
    run(&sandbox, "train", &["train.optimizer.lr=0.1"]).fine();
    let small = ["train.seeds=[1,2]", "budget.compression=[4,12]"];
    let kept = ["full", "hash", "memcom", "memcom sign", "factorized"];
    let filter = format!("^({}), ", kept.join("|"));
    let mut args = vec!["sweep", "--config", "memcom_ml20m.toml", "--filter", &filter];
    for set in small.iter().chain(&["train.epochs=2"]) {
        args.extend(["--set", set]);
    }
    sandbox.run(&args).fine();
    // The report reads the config as it is on disk.
    let path = sandbox.path("configs/memcom/memcom_ml20m.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let config = config
        .replace("seeds      = [1, 2, 3]", "seeds = [1, 2]")
        .replace("[4, 12, 16, 40]", "[4, 12]")
        .replace("epochs     = 20", "epochs = 2");
    std::fs::write(path, config).unwrap();
    let report = sandbox.run(&["report", "memcom_ml20m"]).fine().stdout;
    for part in [
        "- At 4x, `memcom",
        "| memcom (paper)",
        "optimizer.lr = 0.1",
        "head / torso / tail",
        "minutes in all on",
    ] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    let svg = sandbox.run(&["report", "memcom_ml20m", "--format", "svg"]).fine().stdout;
    assert!(svg.starts_with("<svg") && svg.contains("memcom") && !svg.contains("NaN"), "{svg}");
    let svg = sandbox.run(&["report", "memcom_ml20m", "--format", "svg", "--output", "a/b.svg"]);
    svg.fine();
    assert!(sandbox.path("a/b.svg").exists(), "written aside, in a folder that is made");
}

#[test]
fn wrong_settings_are_named() {
    let sandbox = sandbox();
    let refused = |set: &str, what: &str| run(&sandbox, "train", &[set]).refuses(what);
    refused("model.samples=300", "model.samples = 300, of");
    refused("model.dropout=1.0", "model.dropout must be at least 0 and below 1");
    refused("model.hidden=[0]", "every width must be positive");
    refused("model.examples=\"users\"", "unknown variant `users`, expected `user` or `event`");
    refused("model.widths=[3]", "unknown key \"widths\"; the keys are examples, samples, hidden");
    refused("data.candidates=\"files\"", "needs a file called loo_rating");
    refused("data.candidates=\"most\"", "candidates");
    refused("train.metrics=[\"hr\"]", "unknown metric");
    let path = sandbox.path("configs/memcom/memcom_ml20m.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, config.replace("= \"memcom\"\n\n[ref", "= \"lma\"\n\n[ref")).unwrap();
    let ran = sandbox.run(&["sweep", "--config", "memcom_ml20m.toml", "--list"]);
    ran.refuses("loss names the kind \"lma\", which no [[scheme]] has");
}

/// Nothing learns at this rate: every validation after the first is one without a better one.
#[test]
fn patience_counts_after_the_epochs_that_it_is_told_to_wait() {
    let sandbox = sandbox();
    let epochs = |stop: &str| {
        let stop = format!("train.early_stop={stop}");
        let sets = ["train.epochs=9", "train.optimizer.lr=1e-30", &stop];
        run(&sandbox, "train", &sets).fine();
        let records =
            std::fs::read_to_string(sandbox.path("results/memcom/memcom_ml20m.jsonl")).unwrap();
        let last: serde_json::Value =
            serde_json::from_str(records.lines().last().unwrap()).unwrap();
        last["epochs"].as_u64().unwrap()
    };
    assert_eq!(epochs("{ patience = 2 }"), 3);
    assert_eq!(epochs("{ patience = 2, after = 5 }"), 7);
    assert_eq!(epochs("{ patience = 20 }"), 9);
}
