//! Files of one's own, as they are: what `embc init` understands of them, and that it runs untouched.
//! `scripts/own/make.py` wrote the files, and counted in them with pandas and DuckDB.

use crate::sandbox::{Ran, Sandbox, root};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub fn own(name: &str) -> PathBuf {
    root().join("crates/embc/tests/own").join(name)
}

pub fn init(sandbox: &Sandbox, files: &[&Path]) -> Ran {
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    sandbox.run(&[&["init", "--format", "json"], &files[..]].concat())
}

/// `embc init` then `embc sweep`, untouched; and what was counted.
#[track_caller]
fn understood(name: &str, files: &[&Path], roles: &[(&str, &str)]) {
    let sandbox = Sandbox::new();
    let ran = init(&sandbox, files).fine();
    let got: Value = serde_json::from_str(&ran.stdout).unwrap();
    let counts = std::fs::read_to_string(own("counts.json")).unwrap();
    let expect = &serde_json::from_str::<Value>(&counts).unwrap()[name];
    assert_eq!(got["rows"], expect["rows"], "{name}: rows");
    let columns = got["columns"].as_array().unwrap();
    for (column, counted) in expect["columns"].as_object().unwrap() {
        let found = columns.iter().find(|line| line["name"] == *column);
        let found = found.unwrap_or_else(|| panic!("{name}: no {column} in {got:#}"));
        assert_eq!(found["distinct"], counted["distinct"], "{name}: distinct values of {column}");
        if !counted["missing"].is_null() && !found["missing"].is_null() {
            assert_eq!(found["missing"], counted["missing"], "{name}: missing values of {column}");
        }
    }
    for (column, role) in roles {
        let found = columns.iter().find(|line| line["name"] == *column).unwrap();
        assert_eq!(found["is"], *role, "{name}: {column} is that because {}", found["because"]);
    }
    let swept = sandbox.run(&["sweep", "--config", &format!("{name}.toml")]).fine();
    assert!(swept.stdout.contains("| cce "), "{}", swept.stdout);
    assert!(!swept.stderr.contains("reading"), "the cache is there: {}", swept.stderr);
    // Read from the files again, by what was written, the data is the same.
    let hash = |sandbox: &Sandbox| {
        let ran = sandbox.run(&["data", "info", name, "--format", "json"]).fine();
        serde_json::from_str::<Value>(&ran.stdout).unwrap()["data_hash"].clone()
    };
    let once = hash(&sandbox);
    std::fs::remove_dir_all(sandbox.path("data")).unwrap();
    assert_eq!(hash(&sandbox), once, "{name}: its files and its cache");
}

#[test]
fn a_csv_with_semicolons_and_commas() {
    let roles = [
        ("row_id", "left out"),
        ("country", "left out"),
        ("when", "time"),
        ("user", "user"),
        ("item", "item"),
        ("price", "number"),
        ("city", "id"),
        ("clicked", "label"),
    ];
    understood("semicolons", &[&own("semicolons.csv")], &roles);
}

#[test]
fn a_folder_of_spark() {
    let roles = [("age", "number"), ("genres", "ids"), ("when", "time"), ("clicked", "label")];
    understood("spark", &[&own("spark")], &roles);
}

#[test]
fn atomic_files_of_recbole() {
    let roles = [("rating", "rating"), ("timestamp", "time"), ("class", "beside")];
    understood("ml", &[&own("ml.inter"), &own("ml.item")], &roles);
}

#[test]
fn libffm() {
    understood("fields", &[&own("fields.ffm")], &[("0", "ids")]);
}

#[test]
fn a_log_with_lists() {
    let roles = [("tags", "ids"), ("ts", "time"), ("user", "user"), ("label", "label")];
    understood("log", &[&own("log.jsonl")], &roles);
}

#[test]
fn a_packed_tsv_without_a_header() {
    let roles = [("0", "label"), ("1", "number"), ("2", "id"), ("3", "id"), ("4", "id")];
    understood("plain", &[&own("plain.tsv.gz")], &roles);
}

#[test]
#[cfg_attr(not(real_data), ignore = "EMBC_DATASETS names no registry of real data")]
fn movielens_100k() {
    let datasets = std::env::var_os("EMBC_DATASETS").expect("a registry of real data");
    let file = Path::new(&datasets).parent().unwrap().join("ml-100k/u.data");
    let roles = [("0", "user"), ("1", "item"), ("2", "rating"), ("3", "time")];
    understood("u", &[&file], &roles);
}

#[test]
fn what_is_not_sure_is_asked_for() {
    let sandbox = Sandbox::new();
    let rows: String = (0..40).map(|i| format!("{},a{},{}\n", i % 7, i % 5, i % 2)).collect();
    let path = sandbox.write("t.csv", format!("x,y,z\n{rows}"));
    // The only column of two values is the label.
    init(&sandbox, &[&path]).fine();
    sandbox.run(&["init", "t.csv"]).refuses("t.data.toml is there already");
    let rows: String = (0..40).map(|i| format!("{},a{},b{}\n", i % 7, i % 5, i % 3)).collect();
    sandbox.write("none.csv", format!("x,y,z\n{rows}"));
    sandbox.run(&["init", "none.csv"]).refuses("say --label COLUMN; the columns are x, y, z");
    sandbox.run(&["init", "none.csv", "--label", "w"]).refuses("no such column; there are x, y, z");
    sandbox.run(&["init", "none.csv", "--label", "z"]).fine();
    sandbox.run(&["init", "nothing.csv"]).refuses("nothing.csv: no such file or folder");
    sandbox.write("one.txt", "just\nwords\n");
    sandbox.run(&["init", "one.txt"]).refuses("one.txt: is no table that embc knows");
    sandbox.write("array.json", "[{\"a\": 1}]");
    sandbox.run(&["init", "array.json"]).refuses("array.json: is one JSON array");
    sandbox.write("empty.csv", "");
    sandbox.run(&["init", "empty.csv"]).refuses("empty.csv: the file is empty");
    assert!(!sandbox.path("empty.toml").exists() && !sandbox.path("nothing.toml").exists());
}

#[test]
fn what_tells_the_label_is_left_out() {
    let sandbox = Sandbox::new();
    let rows = (0..400).map(|i| {
        let click = usize::from((i * 7) % 11 < 4);
        let revenue = if click == 1 { "paid" } else { "free" };
        format!("{},{},v{},{revenue},{}\n", i % 20, i % 13, i % 13, click)
    });
    sandbox.write("l.csv", format!("user,item,item_name,how,click\n{}", rows.collect::<String>()));
    let ran = init(&sandbox, &[&sandbox.path("l.csv")]).fine();
    let got: Value = serde_json::from_str(&ran.stdout).unwrap();
    let column = |name: &str| {
        let columns = got["columns"].as_array().unwrap();
        columns.iter().find(|line| line["name"] == name).unwrap().clone()
    };
    assert_eq!(column("how")["is"], "left out");
    assert!(column("how")["because"].as_str().unwrap().contains("tells click on its own"));
    assert!(column("item_name")["because"].as_str().unwrap().contains("a copy of item"));
}

/// Single precision, no number, floats that are ids: Parquet and pandas' text of it are one data set,
/// and what `init` makes of either is what its files are read as.
#[test]
fn what_is_easily_read_in_two_ways() {
    let mut hashes = Vec::new();
    for form in ["odd.csv", "odd.parquet"] {
        let sandbox = Sandbox::new();
        init(&sandbox, &[&own(form)]).fine();
        for _ in 0..2 {
            let ran = sandbox.run(&["data", "info", "odd", "--format", "json"]).fine();
            let info: Value = serde_json::from_str(&ran.stdout).unwrap();
            hashes.push(info["data_hash"].as_str().unwrap().to_string());
            std::fs::remove_dir_all(sandbox.path("data")).unwrap();
        }
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

/// A file that says so is believed: a label that lacks values, headers that are odd.
#[test]
fn names_are_believed() {
    let row = |i: usize| (i * 7 % 40, i * 3 % 29, usize::from(i * i % 7 < 3));
    let understand = |header: &str, line: &dyn Fn(usize) -> String| -> Ran {
        let sandbox = Sandbox::new();
        let rows: String = (0..600).map(|i| line(i) + "\n").collect();
        sandbox.write("t.csv", format!("{header}\n{rows}"));
        let ran = init(&sandbox, &[&sandbox.path("t.csv")]);
        if ran.code == Some(0) {
            let sweep = [
                "sweep",
                "--config",
                "t.toml",
                "--set",
                "train.epochs=1",
                "--set",
                "train.seeds=[1]",
            ];
            sandbox.run(&sweep).fine();
            sandbox.run(&["data", "info", "t"]).fine();
        }
        ran
    };
    let is = |ran: &Ran, name: &str| -> (String, String) {
        let got: Value = serde_json::from_str(&ran.stdout).unwrap();
        let columns = got["columns"].as_array().unwrap();
        let line = columns.iter().find(|line| line["name"] == name).unwrap();
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_string();
        (text("is"), text("because"))
    };
    let (header, label) = ("user,item,clicked", |i: usize| row(i).2.to_string());
    let with = |label: &dyn Fn(usize) -> String| {
        let line = |i: usize| format!("{},{},{}", row(i).0, row(i).1, label(i));
        understand(header, &line)
    };
    let ran = with(&|i| if i == 7 { String::new() } else { label(i) }).fine();
    assert_eq!(
        is(&ran, "clicked"),
        ("label".into(), "called so, and two values; 1 rows lack it, and are left out".into())
    );
    let ran = with(&|i| if i == 7 { "oops".into() } else { label(i) }).fine();
    assert!(is(&ran, "clicked").1.contains("1 rows say neither"));
    let ran = with(&|i| ["pos", "neg"][row(i).2].into()).fine();
    assert_eq!(is(&ran, "clicked").0, "label");
    let ran = with(&|i| ["-1", "1"][row(i).2].into()).fine();
    assert_eq!(is(&ran, "clicked").0, "rating");
    let ran = with(&|i| ["bad", "fair", "good"][i % 3].into()).fine();
    assert_eq!(is(&ran, "clicked").0, "class");
    with(&|i| format!("text {i}")).refuses("clicked is called as labels are, and");
    // pandas' index, numbers for names, a header that comes again.
    let line = |i: usize| format!("{i},{},{},{}", row(i).0, row(i).1, label(i));
    let ran = understand(",user,item,clicked", &line).fine();
    assert_eq!(is(&ran, "Unnamed: 0"), ("left out".into(), "the rows counted: a key".into()));
    let ran = understand("7,user,item,clicked", &line).fine();
    assert_eq!(is(&ran, "clicked").0, "label");
    understand("x,x,item,clicked", &line).refuses("t.csv:1: columns 1 and 2 are both called x");
    let again = |i: usize| if i == 300 { "n,user,item,clicked".into() } else { line(i) };
    let ran = understand("n,user,item,clicked", &again).fine();
    assert!(is(&ran, "clicked").1.contains("1 rows say neither"));
    // Numbers that hardly repeat go with everything, and are no copies of each other.
    let places = |i: usize| {
        format!("{},{},{}.{i},{}.{i},{}", row(i).0, row(i).1, i * 13 % 90, i * 17 % 180, label(i))
    };
    let ran = understand("user,item,lat,lon,clicked", &places).fine();
    assert_eq!((is(&ran, "lat").0, is(&ran, "lon").0), ("number".into(), "number".into()));
    // Times by any name; dates that nobody can read are not guessed.
    let times = |i: usize| {
        format!(
            "{},{},{},{}/12/2023,{}",
            row(i).0,
            row(i).1,
            1_700_000_000 + i,
            1 + i % 28,
            label(i)
        )
    };
    let ran = understand("user,item,created_at,day_of,clicked", &times).fine();
    assert_eq!(is(&ran, "created_at").0, "time");
    assert!(is(&ran, "day_of").1.contains("write them as 2023-12-31"), "{:?}", is(&ran, "day_of"));
}
