//! What held-out rows, other users' rows or the way a file is written must not decide.

use crate::cases::value;
use crate::sandbox::{Ran, Sandbox};

/// A data set by the parts of its rows, and a trial on it: `more` goes into `columns`.
fn world(rows: &str, more: &str, config: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("x.csv", rows);
    sandbox.write(
        "datasets.toml",
        format!(
            "[it]\ntitle = \"x\"\nformat = \"csv\"\nsplit = {{ rule = \"column\", column = \"part\", train = [\"train\"], valid = [\"valid\"], test = [\"test\"] }}\ncolumns = {{ {more} }}\nfiles.data = {{ path = \"x.csv\" }}\n"
        ),
    );
    sandbox.write(
        "x.toml",
        format!("title = \"x\"\ndataset = \"it\"\n{config}\n[[scheme]]\nkind = \"full\"\n"),
    );
    sandbox
}

fn config(data: &str, model: &str) -> String {
    format!(
        "[data]\n{data}\n[model]\nkind = \"{model}\"\n[embedding]\ndim = 4\n[train]\noptimizer = {{ kind = \"adam\", lr = 0.01 }}\nbatch = 64\nepochs = 1\nmetrics = [\"hr@1\", \"mrr\"]"
    )
}

fn train(sandbox: &Sandbox) -> Ran {
    sandbox.run(&["-q", "train", "--threads", "1", "--config", "x.toml", "--out", "out"])
}

fn lines(rows: impl Iterator<Item = String>) -> String {
    rows.map(|row| row + "\n").collect()
}

/// Of ids with equal training counts, those that the test rows have must not come first: they would
/// keep rows of their own.
#[test]
fn test_rows_do_not_order_ids() {
    let order = |tested: std::ops::Range<usize>| {
        let training =
            lines((0..40).map(|i| format!("{},u{},i{},train", i % 2, i % 4, i * 7 % 40)));
        let valid = lines((0..8).map(|i| format!("{},u{},i{i},valid", i % 2, i % 4)));
        let test = lines(tested.map(|i| format!("{},u{},i{i},test", i % 2, i % 4)));
        let rows = format!("label,user,item,part\n{training}{valid}{test}{test}");
        let columns = "label = \"label\", categorical = [\"user\", \"item\"]";
        let sandbox = world(&rows, columns, &config("", "mlp"));
        train(&sandbox).fine();
        std::fs::read_to_string(sandbox.path("out/vocab-item.txt")).unwrap()
    };
    assert_eq!(order(0..10), order(30..40));
    assert!(order(0..10).starts_with("\"i0\"\n\"i7\"\n\"i14\"\n"), "by first training row");
}

/// Ratings: what the user rated low is a candidate or not, whether or not the hour is known.
#[test]
fn the_situation_leaves_candidates_as_they_are() {
    let row = |u: usize, i: usize, part: &str| {
        // In the test one 5 and five 1s.
        let stars = match part {
            "test" => {
                if i.is_multiple_of(6) {
                    5
                } else {
                    1
                }
            }
            _ => 1 + (u * 5 + i * 3) % 5,
        };
        format!("{stars},u{u},i{i},h{},{part}", (u + i) % 3)
    };
    let part = |u: usize, i: usize| {
        ["test", "train", "train", "train", "valid"][(i + u) / 6 % 2 * (1 + i % 4)]
    };
    let rows = lines((0..480).map(|at| (at / 12, at % 12)).map(|(u, i)| row(u, i, part(0, i))));
    let scored = |data: &str, more: &str| {
        let columns =
            format!("label = \"stars\", rating = true, categorical = [\"user\", \"item\"{more}]");
        let rows = format!("stars,user,item,hour,part\n{rows}");
        let sandbox = world(
            &rows,
            &columns,
            &config(&format!("label = {{ positive_min = 4 }}\n{data}"), "mlp"),
        );
        let ran = sandbox.run(&["-q", "train", "--config", "x.toml", "--scores", "s.csv"]).fine();
        let ranking = std::fs::read_to_string(sandbox.path("s.ranking.csv")).unwrap();
        (ranking.lines().count(), value(&ran.stdout, "test/hr@1"))
    };
    let (with, hr) = scored("context = [\"hour\"]", ", \"hour\"");
    let (without, _) = scored("", "");
    assert_eq!(with, without, "lines of candidates");
    assert!(hr < 0.9, "{hr}: nothing is learned in an epoch");
}

/// Where each user has one row, a genre is a function of the user too, and still the item's.
#[test]
fn users_of_one_row_do_not_own_a_column() {
    let part = |i: usize| ["train", "train", "train", "valid", "test"][i % 5];
    let rows = lines((0..1500).map(|i| {
        let item = i * i % 37;
        format!("1,u{i},i{item},g{},{}", item % 5, part(i))
    }));
    let rows = format!("label,user,item,genre,part\n{rows}");
    let columns = "label = \"all-positive\", categorical = [\"user\", \"item\", \"genre\"]";
    let sandbox = world(&rows, columns, &config("negatives = 2", "mlp"));
    sandbox.run(&["-q", "train", "--config", "x.toml", "--scores", "s.csv"]).fine();
    let model = sandbox.run(&["train", "--config", "x.toml", "--set", "data.context=[\"genre\"]"]);
    model.refuses("context names genre, which is the item's");
}

#[test]
fn labels_are_not_given_away() {
    let rows = lines((0..60).map(|i| {
        format!(
            "{},u{},i{},{}",
            ["a", "b", "c"][i % 3],
            i % 7,
            i % 11,
            ["train", "valid", "test"][i / 20]
        )
    }));
    let rows = format!("kind,user,item,part\n{rows}");
    let columns = "label = \"kind\", classes = true, categorical = [\"user\", \"item\"]";
    let plain = config("negatives = 2", "classifier").replace("metrics = [\"hr@1\", \"mrr\"]", "");
    train(&world(&rows, columns, &plain))
        .refuses("negatives are labels 0, which classes do not have");
    let columns = "label = \"all-positive\", categorical = [\"user\", \"item\"]";
    let sandbox = world(&rows, columns, &config("negatives = 2", "gmf"));
    sandbox
        .run(&["train", "--config", "x.toml", "--set", "embedding.unknown=trained"])
        .refuses("these are never unknown items");
}

/// The mean of ten times 0.1 is not 0.1.
#[test]
fn a_constant_has_no_deviation() {
    let rows = lines((0..40).map(|i| {
        let part = ["train", "train", "valid", "test"][i / 10];
        format!("{},u{},{},{part}", i % 2, i % 3, if part == "test" { 0.2 } else { 0.1 })
    }));
    let columns = "label = \"label\", dense = [\"price\"], categorical = [\"user\"]";
    let plain = config("", "mlp").replace("metrics = [\"hr@1\", \"mrr\"]", "");
    let sandbox = world(&format!("label,user,price,part\n{rows}"), columns, &plain);
    let loss = value(&train(&sandbox).fine().stdout, "test/logloss");
    assert!(loss < 10.0, "{loss}");
}

/// A repeat in training, later than the test row, takes no target away.
#[test]
fn each_item_counts_where_it_first_occurs() {
    let user = |u: usize| {
        let mut rows: Vec<String> =
            (0..4).map(|i| format!("u{u},a{},{},train", (u + i) % 9, 10 + i)).collect();
        rows.push(format!("u{u},v{},20,valid", u % 3));
        rows.push(format!("u{u},t{},1,test", u % 3));
        // Some have the test item again, later.
        rows.extend((u < 10).then(|| format!("u{u},t{},50,train", u % 3)));
        rows.join("\n") + "\n"
    };
    let rows: String = (0..20).map(user).collect();
    let columns = "label = \"all-positive\", time = \"t\", categorical = [\"user\", \"item\"]";
    let plain = config("vocab = \"all\"\nhistory = 9", "pointwise");
    let sandbox = world(&format!("user,item,t,part\n{rows}"), columns, &plain);
    let ran = sandbox.run(&["-q", "train", "--config", "x.toml", "--scores", "s.csv"]).fine();
    assert!(ran.stdout.contains("test/mrr"));
    let scores = std::fs::read_to_string(sandbox.path("s.csv")).unwrap();
    let queries: std::collections::BTreeSet<&str> =
        scores.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(queries.len(), 20);
    let record = std::fs::read_to_string(sandbox.path("results/x.jsonl")).unwrap();
    assert!(record.contains("\"rows of an item that the user already had\":10"), "{record}");
    // And its order runs elsewhere, negatives or not.
    let list = ["sweep", "--config", "x.toml", "--list", "--format", "json"];
    sandbox.write("o.json", sandbox.run(&list).fine().stdout);
    sandbox.run(&["trial", "o.json", "--results", "elsewhere"]).fine();
}

/// `min_count` and what is known count training rows, and what `history` cuts is not read.
#[test]
fn counts_are_of_rows_that_are_read() {
    let rows = lines((0..60).map(|i| {
        let tags = format!("twice{i}|twice{i}|late{}", i % 5);
        let part = ["train", "valid", "test"][i / 20];
        format!(
            "{},u{},{},{part}",
            i % 2,
            i % 3,
            if part == "test" { format!("late{}", i % 5) } else { tags }
        )
    }));
    let columns = "label = \"label\", categorical = [\"user\"], multi = [{ name = \"tags\", separator = \"|\" }]";
    let run = |data: &str| {
        let plain = config(data, "mlp").replace("metrics = [\"hr@1\", \"mrr\"]", "");
        let sandbox = world(&format!("label,user,tags,part\n{rows}"), columns, &plain);
        train(&sandbox).fine();
        let tags = std::fs::read_to_string(sandbox.path("out/vocab-tags.txt")).unwrap();
        (tags, std::fs::read_to_string(sandbox.path("results/x.jsonl")).unwrap())
    };
    let (tags, _) = run("min_count = 2");
    assert!(!tags.contains("twice") && tags.contains("late"), "{tags}");
    let (tags, record) = run("history = 2");
    assert!(tags.contains("twice") && !tags.contains("late"), "{tags}");
    assert!(record.contains("\"unknown_lookups\":0.5"), "all test tags: {record}");
}

/// One date far off does not make seconds of days milliseconds.
#[test]
fn an_outlier_does_not_change_the_unit_of_times() {
    let dates = ["2020-01-01", "2020-01-02", "2020-02-01", "2020-03-01", "9999-12-31"];
    let rows = lines(dates.iter().enumerate().map(|(i, date)| format!("{},u{i},{date}", i % 2)));
    let sandbox = Sandbox::new();
    sandbox.write("raw.txt", format!("label,user,t\n{rows}"));
    let registry = |valid: &str| {
        sandbox.write(
            "datasets.toml",
            format!(
                "[it]\ntitle = \"x\"\nformat = \"csv\"\nsplit = {{ rule = \"time\", valid = {valid}, test = \"2020-02-15\" }}\ncolumns = {{ label = \"label\", time = \"t\", categorical = [\"user\"] }}\nfiles.data = {{ path = \"raw.txt\" }}\n"
            ),
        );
        sandbox.run(&["data", "info", "it", "--format", "json"])
    };
    let info: serde_json::Value =
        serde_json::from_str(&registry("\"2020-01-15\"").fine().stdout).unwrap();
    assert_eq!(info["splits"], serde_json::json!({ "train": 2, "valid": 1, "test": 2 }));
    registry("\"1580000000000\"").refuses("write a number, without quotes, or a date");
}
