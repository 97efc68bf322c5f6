//! Situations in which a comparison was wrong without a word, as small inputs under tests/cases, each
//! with its right value, which was computed apart from saved weights.

use crate::sandbox::{Ran, Sandbox, root};
use std::path::Path;

/// A sandbox with a copy of a case.
fn case(name: &str) -> Sandbox {
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
fn value(text: &str, metric: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{metric} ")));
    line.unwrap_or_else(|| panic!("no {metric} in {text}")).parse().unwrap()
}

#[track_caller]
fn near(got: f64, expect: f64, by: f64) {
    assert!((got - expect).abs() <= by, "{got} instead of {expect}");
}

/// `embc data info` of a data set of the case.
fn info(sandbox: &Sandbox, registry: &str, name: &str) -> Ran {
    sandbox.run(&["data", "info", name, "--datasets", registry, "--format", "json"])
}

#[track_caller]
fn distinct(ran: &Ran, field: &str) -> u64 {
    let info: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let fields = info["fields"].as_array().unwrap();
    fields.iter().find(|f| f["name"] == field).unwrap()["distinct"].as_u64().unwrap()
}

#[test]
fn another_split_of_the_registry_is_another_trial() {
    let case = case("registry_split_stale");
    let sweep = |args: &[&str]| {
        case.run(&[&["sweep", "--config", "shop.toml", "--datasets", "mine.toml"], args].concat())
    };
    assert!(sweep(&[]).fine().stdout.contains("0.6945 ± 0.0066"));
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
    assert!(again.stdout.contains("0.6886 ± 0.0372"), "{}", again.stdout);
    assert!(sweep(&[]).fine().stderr.contains("4 of 4 trials are done already"));
    // Back again: what was trained then is known.
    case.write("mine.toml", text);
    let back = sweep(&[]).fine();
    assert!(back.stderr.contains("4 of 4 trials are done already"), "{}", back.stderr);
    assert!(back.stdout.contains("0.6945 ± 0.0066"), "{}", back.stdout);
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
        ("[sweep]\nmax_seeds = 5\n", "max_seeds is of until_ci"),
    ] {
        case.write("x.toml", text.clone() + more);
        case.run(&["train", "--config", "x.toml", "--datasets", "mine.toml"]).refuses(what);
    }
    // Weight decay works where it is offered.
    let loss = |optimizer: &str| {
        let set = format!("train.optimizer={optimizer}");
        let args = ["-q", "train", "--config", "o.toml", "--datasets", "mine.toml", "--set", &set];
        value(&case.run(&args).fine().stdout, "test/logloss")
    };
    let plain = loss("{ kind = \"adam\", lr = 0.01 }");
    assert_ne!(plain, loss("{ kind = \"adam\", lr = 0.01, weight_decay = 0.5, touch = \"all\" }"));
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
    near(train(&explicit, "x.toml", "test/hr@10"), 0.193_878, 1e-6);
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
    near(train(&case, "x.toml", "test/mrr"), 0.096_461, 1e-6);
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
    // The epoch is picked with the stand-in too, which moves the third digit.
    near(row, 0.5505, 0.002);
    near(mean, 0.5445, 0.002);
    near(zero, 0.5434, 0.003);
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
    near(train(&case, "x.toml", "test/hr@5"), 0.590_909, 1e-6);
    let set = ["--set", "data.had=positives"];
    let ran = run(&case, "-q train --threads 1 --config x.toml", &set).fine();
    near(value(&ran.stdout, "test/hr@5"), 0.581_818, 1e-6);
}

#[test]
fn a_baseline_of_zero_decides_nothing() {
    let case = case("zero_baseline");
    let z = run(&case, "-q sweep --config z.toml", &[]).fine().stdout;
    assert!(z.contains("`hash` 25.0") || z.contains("`hash`, 25.0"), "{z}");
    let zz = run(&case, "-q sweep --config zz.toml", &[]).fine().stdout;
    assert!(zz.contains("not defined") && !zz.contains("inf ") && !zz.contains("NaN"), "{zz}");
    let advice = run(&case, "recommend zz.toml --budget-bytes 1MiB", &[]).fine().stdout;
    assert!(
        !advice.contains("inf ") && advice.contains(" better than the full table's"),
        "{advice}"
    );
    assert!(advice.contains("0.0178 ± "), "in the metric itself: {advice}");
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

#[test]
fn a_cache_is_of_its_files() {
    let case = case("data_cache_files");
    let text = std::fs::read_to_string(case.path("mine.toml")).unwrap();
    let rows = |files: &str| {
        let start = text.find("files.data").unwrap();
        case.write("m.toml", format!("{}{files}\n", &text[..start]));
        let ran = info(&case, "m.toml", "shop");
        serde_json::from_str::<serde_json::Value>(&ran.stdout)
            .map(|info| info["rows"].as_u64().unwrap())
            .map_err(|_| ran.stderr)
    };
    assert_eq!(rows("files.data = { path = \"day2.csv\" }"), Ok(600));
    assert_eq!(
        rows("files.data = { path = \"day2.csv\" }\nfiles.b = { path = \"day1.csv\" }"),
        Ok(1000)
    );
    assert_eq!(rows("files.b = { path = \"day1.csv\" }"), Ok(400));
    assert_eq!(rows("files.b = { path = \"day2.csv\" }"), Ok(600), "another path of the same name");
    assert!(
        rows("files.b = { path = \"day1.csv\" }\nfiles.c = { path = \"day9.csv\" }")
            .unwrap_err()
            .contains("day9.csv")
    );
    // A touched file is the same file.
    assert_eq!(rows("files.b = { path = \"day1.csv\" }"), Ok(400));
    let bytes = std::fs::read(case.path("day1.csv")).unwrap();
    case.write("day1.csv", bytes);
    let again = info(&case, "m.toml", "shop");
    assert!(
        !again.stderr.contains("anew") && !again.stderr.contains("reading"),
        "{}",
        again.stderr
    );
}

#[test]
fn days_are_counted_as_people_count() {
    let case = case("data_days_order");
    let args =
        ["-q", "train", "--config", "x.toml", "--datasets", "mine.toml", "--scores", "s.csv"];
    case.run(&args).fine();
    let scores = std::fs::read_to_string(case.path("s.csv")).unwrap();
    let mut labels: Vec<String> = Vec::new();
    for row in scores.lines().skip(1) {
        labels.push(row.split(',').nth(2).unwrap().into());
    }
    let day = std::fs::read_to_string(case.path("day_11.csv")).unwrap();
    let at = day.lines().next().unwrap().split(',').position(|name| name == "label").unwrap();
    let expect: Vec<String> =
        day.lines().skip(1).map(|row| row.split(',').nth(at).unwrap().into()).collect();
    assert_eq!(labels, expect, "day 11 tests");
}

#[test]
fn rows_are_not_swallowed_by_quotes() {
    let case = case("data_quotes");
    for (name, line) in [("tail", "tail.tsv:"), ("mid", "mid.tsv:"), ("spark", "spark.csv:")] {
        info(&case, "mine.toml", name).refuses(line);
    }
    let text = std::fs::read_to_string(case.path("mine.toml")).unwrap();
    let plain = text.replace("delimiter = \"\\t\"", "delimiter = \"\\t\", quote = \"none\"");
    case.write("plain.toml", plain.replace("\"title\"] }", "\"title\"], escape = \"\\\\\" }"));
    for name in ["tail", "mid", "spark"] {
        let ran = info(&case, "plain.toml", name).fine();
        assert!(ran.stdout.contains("\"rows\": 1000"), "{}", ran.stdout);
    }
    let open = self::case("data_unclosed_quote");
    info(&open, "r.toml", "x").refuses("unclosed_quote.csv:6: a quoted field begins here");
}

#[test]
fn names_of_columns_mean_one_column() {
    let case = case("data_dup_header");
    assert_eq!(distinct(&info(&case, "mine.toml", "case").fine(), "item"), 30);
    info(&case, "mine.toml", "dup").refuses("dup.csv:1: columns 3 and 5 are all called click");
    info(&case, "mine.toml", "twice").refuses("columns names user twice");
    let text = std::fs::read_to_string(case.path("mine.toml")).unwrap();
    case.write("leak.toml", text.replace("\"user\",\"user\",", "\"user\","));
    info(&case, "leak.toml", "twice").refuses("click is the label");
    // Under another spelling it is the same column still.
    let rows: String = (0..40).map(|i| format!("{},u{},i{}\n", i % 2, i % 5, i % 7)).collect();
    let spelt = "columns = { label = \"click\", categorical = [\"user\", \"Click\"] }\n";
    let sandbox = Sandbox::new();
    sandbox
        .info("csv", format!("click,user,item\n{rows}"), spelt)
        .refuses("raw.txt:1: click and Click are one column of the file");
}

#[test]
fn values_are_read_as_people_write_them() {
    let multi = case("data_multi");
    for name in ["comma_space", "pylist", "json", "na"] {
        assert_eq!(distinct(&info(&multi, "mine.toml", name).fine(), "genres"), 5, "{name}");
    }
    assert_eq!(distinct(&info(&multi, "two.toml", "two").fine(), "genres"), 5);
    info(&multi, "mine.toml", "padded").refuses("pad = \"0\"");
    info(&multi, "mine.toml", "weighted").refuses("weights = \"drop\"");
    let text = std::fs::read_to_string(multi.path("mine.toml")).unwrap();
    let told = "separator = \"|\", weights = \"drop\", pad = \"0\"";
    multi.write("told.toml", text.replace("separator = \"|\"", told));
    for name in ["padded", "weighted"] {
        assert_eq!(distinct(&info(&multi, "told.toml", name).fine(), "genres"), 5, "{name}");
    }
    for (name, file) in [("data_float_ids", "float_id"), ("data_padded_ids", "space_id")] {
        let case = case(name);
        let ran = info(&case, "r.toml", "x").fine();
        assert_eq!(distinct(&ran, "user"), 30, "{file}");
        let info: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(
            info["notes"].as_object().unwrap().values().all(|n| n.as_u64() > Some(0)),
            "{info}"
        );
        assert_eq!(info["notes"].as_object().unwrap().len(), 1, "{info}");
    }
    let missing = case("data_missing_words");
    assert_eq!(distinct(&info(&missing, "r.toml", "x").fine(), "user"), 31, "and the missing one");
    let text = std::fs::read_to_string(missing.path("r.toml")).unwrap();
    missing.write("d.toml", text.replace("na_cat", "na_dense"));
    info(&missing, "d.toml", "x").fine();
}

#[test]
fn kinds_of_files_are_told_apart() {
    info(&case("data_crlf_line"), "r.toml", "x").refuses("crlf.csv:8: click is");
    info(&case("data_utf16"), "r.toml", "x").refuses("text in UTF-16: convert it");
    info(&case("data_zip"), "r.toml", "x").refuses("a zip archive: unpack it");
    info(&case("data_latin1"), "r.toml", "x").refuses("not valid UTF-8");
    // Words for labels, dates for times, and packed text under any name.
    let rows: String = (0..40)
        .map(|i| {
            format!(
                "{},u{},i{},2024-01-{:02}T00:00:{:02}Z\n",
                ["yes", "no"][i % 2],
                i % 5,
                i % 7,
                1 + i % 28,
                i
            )
        })
        .collect();
    let sandbox = Sandbox::new();
    let more =
        "columns = { label = \"click\", time = \"t\", categorical = [\"user\", \"item\"] }\n";
    let ran = sandbox.info("csv", format!("click,user,item,t\n{rows}"), more).fine();
    assert!(ran.stdout.contains("\"label_rate\": 0.5"), "{}", ran.stdout);
    sandbox
        .info("csv", format!("click,user,item,t\n{rows}1,a,b,soon\n"), more)
        .refuses("raw.txt:42: t is \"soon\"");
}

/// A label of the user's own can be a class.
#[test]
fn a_csv_can_have_classes() {
    let rows: String = (0..300)
        .map(|i| format!("{},a{},b{}\n", ["cat", "dog", "emu"][i % 3], i % 6, i % 5))
        .collect();
    let sandbox = Sandbox::new();
    sandbox.write("raw.txt", format!("kind,a,b\n{rows}"));
    sandbox.registry(
        "csv",
        "raw.txt",
        "columns = { label = \"kind\", classes = true, categorical = [\"a\", \"b\"] }\n",
    );
    let config = "title = \"t\"\ndataset = \"it\"\n[model]\nkind = \"classifier\"\n[embedding]\ndim = 4\n[train]\noptimizer = { kind = \"adam\", lr = 0.05 }\nbatch = 32\nepochs = 5\nselect = \"accuracy\"\n[[scheme]]\nkind = \"full\"\n";
    sandbox.write("x.toml", config);
    let ran = sandbox.run(&["-q", "train", "--config", "x.toml", "--scores", "s.csv"]).fine();
    assert!(value(&ran.stdout, "test/accuracy") > 0.9, "{}", ran.stdout);
    let scores = std::fs::read_to_string(sandbox.path("s.csv")).unwrap();
    assert!(scores.starts_with("row,label,class,score\n"));
    assert_eq!(scores.lines().count(), 1 + 60 * 3);
    sandbox.write("x.toml", config.replace("select = \"accuracy\"", "select = \"auc\""));
    sandbox
        .run(&["train", "--config", "x.toml"])
        .refuses("x.toml:11: auc is a metric of labels 0 and 1");
}
