//! Readers of all forms: one table is one data set, tables beside it, parts, and files that lie.

use crate::own::{init, own};
use crate::sandbox::Sandbox;
use serde_json::Value;

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
    // Two GiB of a few bytes, by what the directory says.
    zip("bomb.zip", &[("a.csv", table)]).fine();
    let mut bomb = std::fs::read(sandbox.path("bomb.zip")).unwrap();
    let directory = bomb.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    bomb[directory + 24..directory + 28].copy_from_slice(&(2u32 << 30).to_le_bytes());
    sandbox.write("bomb2.zip", bomb);
    sandbox.run(&["init", "bomb2.zip"]).refuses("of 2048 MiB in 0 KiB");
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
