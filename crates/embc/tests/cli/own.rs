//! Files of one's own, as they are: what `embc init` understands of them, and that it runs untouched.
//! `scripts/own/make.py` wrote the files, and counted in them with pandas and DuckDB.

use crate::sandbox::{Ran, Sandbox, root};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn own(name: &str) -> PathBuf {
    root().join("crates/embc/tests/own").join(name)
}

fn init(sandbox: &Sandbox, files: &[&Path]) -> Ran {
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
fn movielens_100k() {
    let Some(datasets) = std::env::var_os("EMBC_DATASETS") else { return };
    let file = Path::new(&datasets).parent().unwrap().join("ml-100k/u.data");
    let roles = [("0", "user"), ("1", "item"), ("2", "rating"), ("3", "time")];
    understood("u", &[&file], &roles);
}

const TABLE: &str = r#"
title = "one table"
split = { rule = "tail", valid = 0.1, test = 0.1 }
"#;

const TRAIN: &str = r#"
title = "one table"
dataset = "csv"
[model]
kind = "dlrm"
bottom = [8]
top = [8]
[embedding]
dim = 4
[train]
optimizer = { kind = "adam", lr = 0.01 }
batch = 64
epochs = 2
select = "auc"
[[scheme]]
kind = "full"
"#;

#[test]
fn one_table_in_five_forms_is_one_data_set() {
    let sandbox = Sandbox::new();
    let columns = r#"label = "click", time = "when", dense = ["price"], categorical = ["user", "item"], multi = [{ name = "tags", separator = "|" }]"#;
    let mut registry = String::new();
    let forms = ["csv", "parquet", "jsonl", "arrow", "zip"];
    for form in forms {
        let format = if form == "zip" { "csv" } else { form };
        let path = own(&format!("table.{form}"));
        registry += &format!(
            "[{form}]{TABLE}format = {format:?}\ncolumns = {{ {columns} }}\nfiles.data = {{ path = {path:?} }}\n"
        );
    }
    sandbox.write("datasets.toml", registry);
    sandbox.write("x.toml", TRAIN);
    let mut first = None;
    for form in forms {
        let info = sandbox.run(&["data", "info", form, "--format", "json"]).fine();
        let info: Value = serde_json::from_str(&info.stdout).unwrap();
        let set = format!("dataset={form}");
        let train =
            ["train", "--config", "x.toml", "--set", &set, "--results", form, "--out", form];
        sandbox.run(&train).fine();
        let weights = std::fs::read(sandbox.path(form).join("weights.safetensors")).unwrap();
        let all = (info["data_hash"].clone(), info["fields"].clone(), weights);
        let first = first.get_or_insert_with(|| all.clone());
        assert!(all.0 == first.0 && all.1 == first.1, "{form}: {info:#}");
        assert!(all.2 == first.2, "{form}: other weights");
    }
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

/// Rows that cannot be read: an error with its line, or one row fewer and counted, of every reader.
#[test]
fn rows_that_cannot_be_read() {
    let sandbox = Sandbox::new();
    let rows: Vec<String> = (0..50).map(|i| format!("{},u{},{}", i % 2, i % 5, i)).collect();
    let csv = |bad: &[(usize, &str)]| {
        let mut rows = rows.clone();
        bad.iter().for_each(|(at, row)| rows[*at] = row.to_string());
        format!("click,user,price\n{}\n", rows.join("\n"))
    };
    sandbox.write("d.csv", csv(&[(6, "maybe,u1,2"), (9, "1,u1,cheap"), (11, "1,u2")]));
    let json = |i: usize| match i {
        6 => "{\"click\": \"maybe\", \"user\": \"u1\", \"price\": 2}\n".to_string(),
        9 => "{\"click\": 1, \"user\": \"u1\", \"price\": \"cheap\"}\n".into(),
        11 => "{\"click\": 1, \"user\"\n".into(),
        _ => format!("{{\"click\": {}, \"user\": \"u{}\", \"price\": {i}}}\n", i % 2, i % 5),
    };
    sandbox.write("d.jsonl", (0..50).map(json).collect::<String>());
    for (format, file, line) in [("csv", "d.csv", 8), ("jsonl", "d.jsonl", 7)] {
        for (on_error, name) in [("fail", "a"), ("skip", "b")] {
            let registry = format!(
                "[{name}]\ntitle = \"x\"\nformat = {format:?}\nsplit = {{ rule = \"tail\", valid = 0.1, test = 0.1 }}\ncolumns = {{ label = \"click\", dense = [\"price\"], categorical = [\"user\"], on_error = {on_error:?} }}\nfiles.data = {{ path = {file:?} }}\n"
            );
            sandbox.write("r.toml", registry);
            let info = ["data", "info", name, "--datasets", "r.toml", "--format", "json"];
            let ran = sandbox.run(&info);
            if on_error == "fail" {
                ran.refuses(&format!("{file}:{line}: click is \"maybe\""));
                continue;
            }
            let info: Value = serde_json::from_str(&ran.fine().stdout).unwrap();
            assert_eq!(info["rows"], 47);
            let notes = info["notes"].as_object().unwrap();
            let left_out = notes.iter().find(|(what, _)| what.contains("left out")).unwrap();
            assert_eq!(left_out.1, 3);
            assert!(left_out.0.contains(&format!("{file}:{line}")), "{}", left_out.0);
        }
    }
}

/// Parts come and go: a cache is of those that are there, in the order of their numbers.
#[test]
fn folders_and_patterns_of_parts() {
    let sandbox = Sandbox::new();
    let part = |i: usize| {
        let rows: String = (0..20).map(|row| format!("{},u{},{}\n", row % 2, row % 5, i)).collect();
        format!("click,user,part\n{rows}")
    };
    for i in [1, 2, 10] {
        sandbox.write(&format!("parts/day_{i}.csv"), part(i));
    }
    let columns = "columns = { label = \"click\", categorical = [\"user\", \"part\"] }";
    let split = "split = { rule = \"tail\", valid = 0.1, test = 0.34 }";
    let entry = |path: &str| {
        format!(
            "[p]\ntitle = \"x\"\nformat = \"csv\"\n{split}\n{columns}\nfiles.data = {{ path = {path:?} }}\n"
        )
    };
    let info = || {
        let ran = sandbox.run(&["data", "info", "p", "--datasets", "r.toml", "--format", "json"]);
        (serde_json::from_str::<Value>(&ran.stdout).unwrap_or_default()["rows"].clone(), ran.stderr)
    };
    for path in ["parts", "parts/day_*.csv"] {
        sandbox.write("r.toml", entry(path));
        assert_eq!(info().0, 60, "{path}");
    }
    sandbox.write("parts/day_3.csv", part(3));
    let (rows, said) = info();
    assert_eq!(rows, 80);
    assert!(
        said.contains("parts/day_3.csv is new") && said.contains("rows: 60 before, 80 now"),
        "{said}"
    );
    std::fs::remove_file(sandbox.path("parts/day_1.csv")).unwrap();
    let (rows, said) = info();
    assert_eq!(rows, 60);
    assert!(said.contains("parts/day_1.csv is gone"), "{said}");
    let (_, said) = info();
    assert!(!said.contains("anew"), "{said}");
    sandbox.write("r.toml", entry("parts/*.parquet"));
    assert!(info().1.contains("is not here"));
}

/// Archives and files that would take more than they may, or lie elsewhere.
#[test]
fn hostile_archives() {
    use std::io::Write;
    let sandbox = Sandbox::new();
    let zip = |name: &str, entries: &[(&str, &[u8])]| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        sandbox.write(name, zip.finish().unwrap().into_inner());
        sandbox.run(&["init", name])
    };
    let table = b"click,user\n1,a\n0,b\n1,a\n0,b\n1,c\n";
    zip("two.zip", &[("a.csv", table), ("b.csv", table)]).refuses("of several files");
    zip("out.zip", &[("../../a.csv", table)]).refuses("would lie elsewhere");
    zip("none.zip", &[]).refuses("none.zip");
    let inner = std::fs::read(sandbox.path("two.zip")).unwrap();
    zip("nested.zip", &[("a.zip", &inner)]).refuses("an archive again");
    // A line without an end, from a few bytes.
    let mut zst = Vec::new();
    let mut packer = zstd::stream::write::Encoder::new(&mut zst, 1).unwrap();
    packer.write_all(b"click,user\n1,a\n0,").unwrap();
    (0..100).for_each(|_| packer.write_all(&[b'a'; 1 << 20]).unwrap());
    packer.finish().unwrap();
    sandbox.write("long.zst", zst);
    sandbox.run(&["init", "long.zst"]).refuses("the line has more than 64 MiB");
}

/// Weights of one change nothing; a row of weight zero trains nothing; both are found by name.
#[test]
fn weights_say_how_much_a_row_counts() {
    let weights = |weight: &dyn Fn(usize) -> String| {
        let sandbox = Sandbox::new();
        let row = |i: usize| format!("{},u{},{},{}\n", i % 2, i * 7 % 11, i * 3 % 7, weight(i));
        let rows: String = (0..200).map(row).collect();
        sandbox.write("w.csv", format!("click,user,item,weight\n{rows}"));
        let ran = init(&sandbox, &[&sandbox.path("w.csv")]);
        if ran.code == Some(0) {
            let train = ["train", "--config", "w.toml", "--set", "train.epochs=1", "--out", "out"];
            sandbox.run(&train).fine();
        }
        (std::fs::read(sandbox.path("out/weights.safetensors")).ok(), ran)
    };
    let (ones, ran) = weights(&|_| "1".into());
    assert!(ran.stdout.contains("\"is\": \"weight\""), "{}", ran.stdout);
    let (twos, _) = weights(&|_| "2".into());
    let (zeros, _) = weights(&|_| "0".into());
    assert!(ones.is_some() && ones != twos && twos != zeros);
    let (_, ran) = weights(&|i| if i == 5 { "-1".into() } else { "1".into() });
    // What is below zero is no weight, but a number.
    assert!(ran.stdout.contains("numbers below zero"), "{}", ran.stdout);
}

/// Tables of attributes: joined by key, following their item, counted where they lack a row, and one
/// data set with the rows that have the columns themselves.
#[test]
fn tables_of_attributes() {
    let sandbox = Sandbox::new();
    let genres = |item: usize| if item.is_multiple_of(3) { "Noir|War" } else { "Drama" };
    let row = |i: usize| (i % 2, i * 7 % 10, i * 3 % 8);
    let rows: String = (0..200).map(row).map(|(y, u, i)| format!("{y}::{u}::{i}\n")).collect();
    sandbox.write("rows.dat", rows);
    // The film 7 is not there; its letters are of Latin-1.
    let films =
        (0..7).map(|i| format!("{i}::Caf\u{e9}: {}::{}::{}\n", i % 4, genres(i), i as f64 / 2.0));
    let films: String = films.collect();
    sandbox.write("films.dat", films.chars().map(|c| c as u8).collect::<Vec<u8>>());
    let whole = (0..200).map(row).map(|(y, u, i)| match i {
        7 => format!("{y},{u},{i},,,\n"),
        _ => format!("{y},{u},{i},Caf\u{e9}: {},{},{}\n", i % 4, genres(i), i as f64 / 2.0),
    });
    sandbox.write(
        "whole.csv",
        format!("label,user,item,films.1,films.2,films.3\n{}", whole.collect::<String>()),
    );
    let split = "split = { rule = \"tail\", valid = 0.1, test = 0.1 }";
    let side = "[[side.side]]\nof = \"2\"\nkey = \"0\"\nfile = { path = \"films.dat\" }\ndelimiter = \"::\"\nheader = false\nencoding = \"latin-1\"\ndense = [\"3\"]\ncategorical = [\"1\"]\nmulti = [{ name = \"2\", separator = \"|\" }]\n";
    sandbox.write("datasets.toml", format!(
        "[side]\ntitle = \"x\"\nformat = \"csv\"\n{split}\ncolumns = {{ delimiter = \"::\", header = false, label = \"0\", categorical = [\"1\", \"2\"] }}\nfiles.data = {{ path = \"rows.dat\" }}\n{side}\n[whole]\ntitle = \"x\"\nformat = \"csv\"\n{split}\ncolumns = {{ label = \"label\", dense = [\"films.3\"], categorical = [\"user\", \"item\", \"films.1\"], multi = [{{ name = \"films.2\", separator = \"|\" }}] }}\nfiles.data = {{ path = \"whole.csv\" }}\n"
    ));
    let info = |name: &str| -> Value {
        let ran = sandbox.run(&["data", "info", name, "--format", "json"]).fine();
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let (side, whole) = (info("side"), info("whole"));
    let distinct = |info: &Value, field: &str| {
        let fields = info["fields"].as_array().unwrap();
        fields.iter().find(|f| f["name"] == field).unwrap()["distinct"].clone()
    };
    for field in ["films.1", "films.2"] {
        assert_eq!(distinct(&side, field), distinct(&whole, field), "{field}");
    }
    let notes = side["notes"].as_object().unwrap();
    assert_eq!(notes["rows whose 2 is not in films.dat"], 25);
    // The columns follow the item: a sampled negative brings its own, or this would be refused.
    let data = "dataset = \"side\"\n[data]\nuser = \"1\"\nitem = \"2\"\nnegatives = 1";
    let text = sandbox.path("datasets.toml");
    let registry = std::fs::read_to_string(&text).unwrap();
    let positive = registry.replacen("label = \"0\"", "label = \"all-positive\"", 1);
    std::fs::write(&text, positive).unwrap();
    sandbox.write("x.toml", TRAIN.replace("dataset = \"csv\"", data));
    sandbox.run(&["train", "--config", "x.toml"]).fine();
    // Two rows of one film that differ are no table of attributes.
    let mut twice = std::fs::read(sandbox.path("films.dat")).unwrap();
    twice.extend(b"3::Other::War::1.5\n");
    sandbox.write("films.dat", twice);
    sandbox.run(&["data", "info", "side"]).refuses("films.dat: has \"3\" twice, with other values");
}

/// Columns that Spark keeps in the names of folders.
#[test]
fn partitions_are_columns() {
    let sandbox = Sandbox::new();
    for (i, day) in ["2024-01-01", "2024-01-02", "__HIVE_DEFAULT_PARTITION__"].iter().enumerate() {
        let part = own(&format!("spark/part-{i:05}-5f2a.snappy.parquet"));
        let bytes = std::fs::read(part).unwrap();
        sandbox.write(&format!("hive/shop={}/day={day}/part-0.parquet", i % 2), bytes);
    }
    let got: Value =
        serde_json::from_str(&init(&sandbox, &[&sandbox.path("hive")]).fine().stdout).unwrap();
    let column = |name: &str| {
        let columns = got["columns"].as_array().unwrap();
        columns.iter().find(|line| line["name"] == name).unwrap().clone()
    };
    assert_eq!(
        (column("shop")["distinct"].clone(), column("shop")["is"].clone()),
        (2.into(), "id".into())
    );
    assert_eq!(
        (column("day")["distinct"].clone(), column("day")["missing"].clone()),
        (2.into(), 150.into())
    );
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
