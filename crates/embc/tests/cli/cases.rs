//! Situations in which a comparison was wrong without a word, as small inputs under tests/cases, each
//! with its right value, which was computed apart from saved weights.

use crate::sandbox::{Ran, Sandbox, root};
use std::path::Path;

/// A sandbox with a copy of a case.
pub fn case(name: &str) -> Sandbox {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().flatten() {
            let to = to.join(entry.file_name());
            match entry.path().is_dir() {
                true => copy(&entry.path(), &to),
                false => drop(std::fs::copy(entry.path(), to).unwrap()),
            }
        }
    }
    let sandbox = Sandbox::new();
    copy(&root().join("crates/embc/tests/cases").join(name), &sandbox.path(""));
    sandbox
}

fn run(sandbox: &Sandbox, command: &str, more: &[&str]) -> Ran {
    let args: Vec<&str> = command.split(' ').chain(["--datasets", "r.toml"]).collect();
    sandbox.run(&[&args[..], more].concat())
}

/// `embc train` of a config of the case: its metric.
#[track_caller]
fn train(sandbox: &Sandbox, config: &str, metric: &str) -> f64 {
    let ran = run(sandbox, &format!("-q train --threads 1 --config {config}"), &[]).fine();
    value(&ran.stdout, metric)
}

#[track_caller]
pub fn value(text: &str, metric: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{metric} ")));
    line.unwrap_or_else(|| panic!("no {metric} in {text}")).parse().unwrap()
}

#[track_caller]
fn near(got: f64, expect: f64, by: f64) {
    assert!((got - expect).abs() <= by, "{got} instead of {expect}");
}

#[test]
fn another_split_of_the_registry_is_another_trial() {
    let case = case("registry_split_stale");
    let sweep = |args: &[&str]| {
        case.run(&[&["sweep", "--config", "shop.toml", "--datasets", "mine.toml"], args].concat())
    };
    assert!(sweep(&[]).fine().stdout.contains("0.6999 ± 0.0120"));
    let text = std::fs::read_to_string(case.path("mine.toml")).unwrap();
    case.write("mine.toml", text.replace("valid = 0.1, test = 0.1", "valid = 0.3, test = 0.4"));
    let report = ["report", "shop.toml", "--datasets", "mine.toml"];
    let before = case.run(&report).fine();
    assert!(
        before.stdout.contains("0 trials, 4 still to run; 4 records of other"),
        "{}",
        before.stdout
    );
    let again = sweep(&[]).fine();
    assert!(!again.stderr.contains("done already"), "{}", again.stderr);
    assert!(again.stdout.contains("0.6840 ± 0.0214"), "{}", again.stdout);
    assert!(sweep(&[]).fine().stderr.contains("4 of 4 trials are done already"));
    // Back again: what was trained then is known.
    case.write("mine.toml", text);
    let back = sweep(&[]).fine();
    assert!(back.stderr.contains("4 of 4 trials are done already"), "{}", back.stderr);
    assert!(back.stdout.contains("0.6999 ± 0.0120"), "{}", back.stdout);
}

#[test]
fn two_experiments_train_a_trial_they_share_once() {
    let case = case("registry_split_stale");
    let text = std::fs::read_to_string(case.path("shop.toml")).unwrap();
    case.write("other.toml", text.replace("title   = \"t\"", "title = \"another\""));
    let sweep = |config: &str| case.run(&["sweep", "--config", config, "--datasets", "mine.toml"]);
    let first = sweep("shop.toml").fine();
    let second = sweep("other.toml").fine();
    assert_eq!(second.stderr.matches("trained already, in shop").count(), 4, "{}", second.stderr);
    let table = |text: &str| {
        text[text.find("**test/auc**").unwrap()..text.find("\n4 trials").unwrap()].to_string()
    };
    assert_eq!(table(&first.stdout), table(&second.stdout));
    // One more metric is not in the records: they train again, and what they had is kept.
    let more = text.replace("select     = \"auc\"", "select = \"auc\"\nmetrics = [\"ece\"]");
    case.write("other.toml", more);
    let third = sweep("other.toml").fine();
    assert!(!third.stderr.contains("trained already"), "{}", third.stderr);
}

#[test]
fn keys_that_a_kind_does_not_read_are_refused() {
    let case = case("optimizer_keys");
    for (optimizer, what) in [
        ("{ kind = \"sgd\", lr = 0.05, momentum = 0.9 }", "unknown key \"momentum\""),
        ("{ kind = \"adagrad\", lr = 0.05, weight_decay = 0.5 }", "unknown key \"weight_decay\""),
        ("{ kind = \"adam\", lr = 0.05, momentum = 0.9 }", "unknown key \"momentum\""),
        (
            "{ kind = \"sgd\", lr = 0.05, touch = \"all\" }",
            "touch is read by sgd with weight_decay",
        ),
    ] {
        let set = format!("train.optimizer={optimizer}");
        let args = ["train", "--config", "o.toml", "--datasets", "mine.toml", "--set", &set];
        case.run(&args).refuses(what);
    }
    let text = std::fs::read_to_string(case.path("o.toml")).unwrap();
    for (more, what) in [
        ("[data]\nhistory = 5\n", "history is of histories"),
        ("[data]\ndense = \"log1p\"\n", "dense is of dense features"),
        ("[data]\ncandidates = 9\n", "candidates is of rankings"),
        ("[data]\nhad = \"rows\"\n", "had is of users and items"),
        ("[data]\ncontext = [\"a\"]\n", "context is of rows with a user"),
        ("[budget]\nrows = [4]\nof = \"model\"\n", "of says what compression is a ratio of"),
        ("[budget]\ncap = [4]\nallocation = \"proportional\"\n", "allocation divides"),
        ("[budget]\ncap = [4]\nallocation = \"optimal\"\n", "allocation divides"),
        ("[sweep]\nmax_seeds = 5\n", "max_seeds is of until_ci"),
    ] {
        case.write("x.toml", text.clone() + more);
        case.run(&["train", "--config", "x.toml", "--datasets", "mine.toml"]).refuses(what);
    }
    let scheme = |more: &str| text.clone() + "[[scheme]]\n" + more;
    let divided = "[budget]\nbytes = [4096]\n[[scheme]]\n";
    for (more, what) in [
        ("[[scheme]]\nkind = \"pq\"\nallocation = \"cap\"\n", "there is none"),
        (
            "[budget]\nrows = [4]\n[[scheme]]\nkind = \"pq\"\nallocation = \"cap\"\n",
            "of each table",
        ),
        (&format!("{divided}kind = \"full\"\nallocation = \"cap\"\n"), "full has none"),
        (&format!("{divided}kind = \"reduce_dim\"\nallocation = \"optimal\"\n"), "does by itself"),
    ] {
        case.write("x.toml", text.clone() + more);
        let args = ["sweep", "--config", "x.toml", "--datasets", "mine.toml"];
        case.run(&args).refuses(what);
    }
    for (more, what) in [
        (
            "kind = \"full\"\nquantize = { bits = 3, train = true }\n",
            "bits = 3 is none of 8, 4 and 2",
        ),
        ("kind = \"full\"\nquantize = { bit = 8 }\n", "unknown key \"bit\""),
        ("kind = \"full\"\nquantize = { bits = 2, train = true }\n", "takes 8 or 4 bits"),
        ("kind = \"full\"\nquantize = 8\n", "{ bits = 8, train = true }"),
        ("kind = \"memcom\"\nquantize = { bits = 8, train = true }\n", "is of full, hash"),
    ] {
        case.write("x.toml", scheme(more));
        let args = ["sweep", "--config", "x.toml", "--datasets", "mine.toml"];
        case.run(&args).refuses(what);
    }
    let optimizer = "train.optimizer={ kind = \"momentum\", lr = 0.05 }";
    case.write("x.toml", scheme("kind = \"full\"\nquantize = { bits = 8, train = true }\n"));
    let args = ["sweep", "--config", "x.toml", "--datasets", "mine.toml", "--set", optimizer];
    case.run(&args).refuses("not with momentum");
    // Weight decay works where it is offered.
    let loss = |optimizer: &str| {
        let set = format!("train.optimizer={optimizer}");
        let args = ["-q", "train", "--config", "o.toml", "--datasets", "mine.toml", "--set", &set];
        value(&case.run(&args).fine().stdout, "test/logloss")
    };
    let plain = loss("{ kind = \"adam\", lr = 0.01 }");
    assert_ne!(plain, loss("{ kind = \"adam\", lr = 0.01, weight_decay = 0.5, touch = \"all\" }"));
}

/// Where all bytes fit, tables stay as they trained, and measuring them moves nothing: not the running
/// statistics of a batch norm either.
#[test]
fn what_is_measured_after_training_stays_as_it_is() {
    let case = case("optimizer_keys");
    let text = std::fs::read_to_string(case.path("o.toml")).unwrap();
    let text = text.replace("hidden = [8]", "hidden = [8]\nbatch_norm = true");
    let more = "[budget]\nbytes = [\"1MiB\"]\nallocation = \"optimal\"\n[[scheme]]\nkind = \"binary\"\n[[scheme]]\nkind = \"pq\"\n";
    case.write("x.toml", text + more);
    case.run(&["-q", "sweep", "--config", "x.toml", "--datasets", "mine.toml"]).fine();
    let records = std::fs::read_to_string(case.path("results/x.jsonl")).unwrap();
    let tests = records.lines().map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["test"].to_string()
    });
    let tests: std::collections::BTreeSet<String> = tests.collect();
    assert_eq!(tests.len(), 1, "{tests:?}");
}

#[test]
fn candidates_bring_their_own_columns() {
    let case = case("item_features_negatives");
    near(train(&case, "withgenre.toml", "test/auc"), 0.5, 0.06);
    near(train(&case, "withgenre.toml", "test/hr@10"), 0.13, 0.05);
    let explicit = Sandbox::new();
    let folder = root().join("crates/embc/tests/cases/item_features_negatives/explicit");
    for name in ["r.toml", "x.csv", "x.toml"] {
        std::fs::copy(folder.join(name), explicit.path(name)).unwrap();
    }
    near(train(&explicit, "x.toml", "test/hr@10"), 0.234_694, 1e-6);
    // A price that changes from row to row belongs to neither.
    let rows = std::fs::read_to_string(explicit.path("x.csv")).unwrap();
    let (header, rows) = rows.split_once('\n').unwrap();
    let column = header.split(',').position(|name| name == "price").unwrap();
    let noisy = rows.lines().enumerate().map(|(i, row)| {
        let mut cells: Vec<String> = row.split(',').map(String::from).collect();
        cells[column] = format!("{}", i % 7);
        cells.join(",") + "\n"
    });
    explicit.write("x.csv", format!("{header}\n{}", noisy.collect::<String>()));
    run(&explicit, "train --config x.toml", &[]).refuses("price belong to the row");
    run(&explicit, "train --config x.toml", &["--set", "data.context=[\"price\"]"]).fine();
}

#[test]
fn a_user_whom_training_does_not_know_is_a_query() {
    let case = case("cold_users_merged");
    for config in ["x.toml", "pw.toml"] {
        near(train(&case, config, "test/hr@1"), 0.02, 1e-9);
        near(train(&case, config, "test/mrr"), 0.089_984, 1e-6);
    }
    let results = std::fs::read_to_string(case.path("results/x.jsonl")).unwrap();
    assert!(results.contains("\"test users whom training does not know, each a query\":50"));
}

#[test]
fn repeats_are_left_out_and_counted() {
    let case = case("repeats");
    near(train(&case, "x.toml", "test/mrr"), 0.173_803, 1e-6);
    let results = || std::fs::read_to_string(case.path("results/x.jsonl")).unwrap();
    assert!(results().contains("\"test rows of an item that the user already had\":20"));
    // Among sampled candidates too.
    run(&case, "-q train --config x.toml", &["--set", "data.candidates=20"]).fine();
    let sampled = results();
    let last = sampled.lines().last().unwrap();
    assert!(last.contains("\"test rows of an item that the user already had\":20"), "{last}");
}

/// An unknown id adds no noise: the log loss of `full` with a stand-in, as worked out from saved
/// weights, and the report says how many lookups are of such ids.
#[test]
fn ids_that_training_does_not_know_read_the_same_in_all_schemes() {
    let case = case("oov_untrained");
    let full = |unknown: &str| {
        let set = format!("embedding.unknown={unknown}");
        let losses = (1..=8).map(|seed| {
            let args = ["--seed", &seed.to_string(), "--set", &set, "--set", "scheme.kind=full"];
            let ran = run(&case, "-q train --threads 1 --config x.toml", &args).fine();
            value(&ran.stdout, "test/logloss") / 8.0
        });
        losses.sum::<f64>()
    };
    let (row, mean, zero) = (full("row"), full("mean"), full("zero"));
    near(row, 0.5478, 1e-4);
    near(mean, 0.5438, 1e-4);
    near(zero, 0.5403, 1e-4);
    let report = run(&case, "report x.toml", &[]).fine();
    assert!(report.stdout.contains("of the test lookups are of ids without a training row"));
}

#[test]
fn dense_features_keep_their_precision() {
    let case = case("dense_f32");
    near(train(&case, "unix.toml", "test/auc"), 0.896, 1e-3);
    near(train(&case, "unix.toml", "test/auc"), train(&case, "sec.toml", "test/auc"), 1e-9);
}

#[test]
fn the_tail_is_one_of_time() {
    let case = case("tail_unsorted");
    near(train(&case, "shuffled.toml", "test/auc"), 0.183, 0.005);
    near(train(&case, "sorted.toml", "test/auc"), 0.183, 0.005);
    // The same rows by a moment, of either file.
    let text = std::fs::read_to_string(case.path("shuffled.csv")).unwrap();
    let at = text.lines().next().unwrap().split(',').position(|name| name == "t").unwrap();
    let times =
        text.lines().skip(1).map(|row| row.split(',').nth(at).unwrap().parse::<i64>().unwrap());
    let mut times: Vec<i64> = times.collect();
    times.sort();
    let cut = |share: f64| times[(share * times.len() as f64) as usize];
    let split = format!("{{ rule = \"time\", valid = {}, test = {} }}", cut(0.7), cut(0.8));
    let set = format!("data.split={split}");
    let ran = run(&case, "-q train --config shuffled.toml", &["--set", &set]).fine();
    near(value(&ran.stdout, "test/auc"), 0.183, 0.01);
    let wrong = "data.split={ rule = \"time\", valid = \"soon\" }";
    run(&case, "train --config shuffled.toml", &["--set", wrong]).refuses("is no moment");
}

#[test]
fn candidates_are_drawn_without_replacement() {
    let case = case("sampled_with_replacement");
    // 49 items are left: 99 candidates are all of them. The epoch is picked by rows.
    let set = ["--set", "train.select=auc"];
    let ran = run(&case, "-q train --threads 1 --config x.toml", &set).fine();
    let all = value(&ran.stdout, "test/hr@10");
    let set = ["--set", "train.select=auc", "--set", "data.candidates=99"];
    let ran = run(&case, "-q train --threads 1 --config x.toml", &set).fine();
    near(value(&ran.stdout, "test/hr@10"), all, 1e-9);
    let results = std::fs::read_to_string(case.path("results/x.jsonl")).unwrap();
    assert!(results.contains("test queries with fewer than 99 items left"), "{results}");
}

#[test]
fn what_was_rated_low_is_no_candidate() {
    let case = case("rated_low_candidates");
    near(train(&case, "x.toml", "test/mrr"), 0.328_281, 1e-6);
    let set = ["--set", "data.had=positives"];
    let ran = run(&case, "-q train --threads 1 --config x.toml", &set).fine();
    near(value(&ran.stdout, "test/mrr"), 0.326_732, 1e-6);
}

#[test]
fn a_baseline_of_zero_decides_nothing() {
    let case = case("zero_baseline");
    let z = run(&case, "-q sweep --config z.toml", &[]).fine().stdout;
    assert!(z.contains("`hash` loses least, 25.0 ± "), "{z}");
    let zz = run(&case, "-q sweep --config zz.toml", &[]).fine().stdout;
    assert!(zz.contains("not defined") && !zz.contains("inf ") && !zz.contains("NaN"), "{zz}");
    let advice = run(&case, "recommend zz.toml --budget-bytes 1MiB", &[]).fine().stdout;
    assert!(
        !advice.contains("inf ") && advice.contains(" better than the full table's"),
        "{advice}"
    );
    assert!(advice.contains("0.0150 ± "), "in the metric itself: {advice}");
}

#[test]
fn no_spread_is_no_certainty() {
    let case = case("zero_variance");
    let text = run(&case, "-q sweep --config v.toml", &[]).fine().stdout;
    assert!(!text.contains("beyond chance") && !text.contains("± 0.0000,"), "{text}");
    let compared = run(&case, "compare hash full --in v.toml", &[]).fine().stdout;
    assert!(compared.contains("undecided: all seeds alike"), "{compared}");
    // Nor does it end a sweep that waits for narrow intervals, nor prune.
    let pruned = Sandbox::new();
    let folder = root().join("crates/embc/tests/cases/zero_variance/prune");
    for name in ["r.toml", "x.csv", "x.toml"] {
        std::fs::copy(folder.join(name), pruned.path(name)).unwrap();
    }
    run(&pruned, "-q sweep --config x.toml", &[]).fine();
    let results = std::fs::read_to_string(pruned.path("results/x.jsonl")).unwrap();
    assert!(!results.contains("± 0.0000"), "{results}");
}

#[test]
fn degenerate_inputs_are_refused_by_name() {
    let case = case("degenerate");
    let of = |set: &str| {
        run(&case, "-q train --config x.toml", &["--set", "scheme.kind=hash", "--set", set])
    };
    of("train.metrics=[\"hr@10\"]").refuses("here are uid, iid, const: name them with [data] user");
    of("budget.rows=[4611686018427387905]").refuses("more than the 2^32");
    of("data.min_count=99999").refuses("leaves no value of");
    let nan =
        of("train.optimizer={ kind = \"adam\", lr = 1e30 }").expect(1, "error: the training loss");
    assert!(nan.stderr.contains("lower the learning rate"));
    let named =
        ["--set", "data.user=uid", "--set", "data.item=iid", "--set", "train.metrics=[\"gauc\"]"];
    let ran = run(&case, "-q train --config x.toml", &named).fine();
    assert!(ran.stdout.contains("test/gauc"));
    run(&case, "-q train --config x.toml", &["--set", "train.metrics=[\"macro-f1\"]"])
        .refuses("macro-f1 is a metric of classes");
}

#[test]
fn cce_that_never_clustered_says_so() {
    let case = case("cce_never_clusters");
    let ran = run(&case, "sweep --config x.toml", &[]).fine();
    let said = "0 of 6 clusterings before the picked epoch";
    assert!(ran.stdout.contains(said) && ran.stderr.contains(said), "{}{}", ran.stdout, ran.stderr);
}
