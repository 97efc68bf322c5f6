//! Real files as they are: what is read, what is refused, and at which line.

use crate::cases::{case, value};
use crate::sandbox::{Ran, Sandbox};

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
    let zip = info(&case("data_zip"), "r.toml", "x").fine();
    assert!(zip.stdout.contains("\"rows\": 400"), "one file in an archive is read: {}", zip.stdout);
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

/// A table is what it holds, whatever file it is in: the same data hash, and so the same trials.
#[test]
fn one_table_in_several_formats_is_one_data_set() {
    let row = |i: usize| {
        let label = ["yes", "no"][i % 2];
        let (price, tags) = (["1.50", "", "7"][i % 3], ["a", "b", "c"][..i % 4].to_vec());
        (label, price, i % 5, i * 7 % 11, tags)
    };
    let rows: Vec<_> = (0..60).map(row).collect();
    let table = |delimiter: &str, header: &str| {
        let line = |(label, price, user, item, tags): &(&str, &str, usize, usize, Vec<&str>)| {
            let (user, item) = (format!("u{user}"), item.to_string());
            [label, price, &user[..], &item[..], &tags.join(" ")[..]].join(delimiter) + "\n"
        };
        header.replace(' ', delimiter) + "\n" + &rows.iter().map(line).collect::<String>()
    };
    let object = |(label, price, user, item, tags): &(&str, &str, usize, usize, Vec<&str>)| {
        let price: serde_json::Value = price.parse::<f64>().map_or(().into(), Into::into);
        let value = serde_json::json!({
            "tags": tags, "click": *label == "yes", "price": price, "user": format!("u{user}"), "item": item,
        });
        value.to_string() + "\n"
    };
    let objects: String = rows.iter().map(object).collect();
    let columns = "label = \"click\", dense = [\"price\"], categorical = [\"user\", \"item\"], multi = [{ name = \"tags\", separator = \" \" }]";
    let (plain, typed) = (
        "click price user item tags",
        "click:token price:float user:token item:token tags:token_seq",
    );
    let hash = |format: &str, text: String, more: &str| {
        let sandbox = Sandbox::new();
        let ran = sandbox.info(format, text, &format!("columns = {{ {columns}{more} }}\n")).fine();
        let info: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(info["rows"], 60);
        info["data_hash"].as_str().unwrap().to_string()
    };
    let csv = hash("csv", table(",", plain), "");
    assert_eq!(hash("csv", table(";", plain), ", delimiter = \";\""), csv);
    let recbole = ", delimiter = \"\\t\", quote = \"none\"";
    assert_eq!(hash("csv", table("\t", typed), recbole), csv);
    assert_eq!(hash("jsonl", objects.clone(), ""), csv);
    assert_ne!(hash("csv", table(",", plain).replace("1.50", "1.51"), ""), csv);
    let jsonl = |text: &str, more: &str| {
        Sandbox::new().info("jsonl", text, &format!("columns = {{ {columns}{more} }}\n"))
    };
    jsonl(&objects, ", delimiter = \";\"")
        .refuses("columns.delimiter is read with format = \"csv\"");
    jsonl(&objects.replace("\"user\"", "\"who\""), "")
        .refuses("raw.txt: no object has the key user");
    jsonl(&(objects.clone() + "{\"click\": tru"), "").refuses("raw.txt:61: not a JSON object");
    jsonl(&objects.replacen("true", "7", 1), "").refuses("raw.txt:1: click is \"7\"");
}

#[test]
fn libsvm_and_libffm_are_read() {
    let rows: String = (0..40)
        .map(|i| format!("{} 0:{}:1 1:{}:1 1:{}:1\n", i % 2, i % 5, 9 + i % 3, 20 + i % 4))
        .collect();
    let columns = |more: &str| {
        format!(
            "columns = {{ label = \"label\", multi = [{{ name = \"0\", separator = \" \" }}, {{ name = \"1\", separator = \" \"{more} }}] }}\n"
        )
    };
    let sandbox = Sandbox::new();
    let ran = sandbox.info("libffm", &rows, &columns("")).fine();
    assert_eq!((distinct(&ran, "0"), distinct(&ran, "1")), (5, 7));
    let weighted = rows.replace("20:1", "20:0.5");
    sandbox
        .info("libffm", &weighted, &columns(""))
        .refuses("raw.txt:1: feature 20 has the value 0.5");
    let ran = sandbox.info("libffm", &weighted, &columns(", weights = \"drop\"")).fine();
    assert_eq!(distinct(&ran, "1"), 7);
    sandbox.info("libffm", rows.replace("0:", "7:"), &columns("")).refuses("field 7 is not in");
    let svm: String =
        (0..40).map(|i| format!("{} {}:1\n", if i % 2 > 0 { 1 } else { -1 }, i % 6)).collect();
    let one =
        "columns = { label = \"label\", multi = [{ name = \"features\", separator = \" \" }] }\n";
    assert_eq!(distinct(&sandbox.info("libsvm", &svm, one).fine(), "features"), 6);
    sandbox
        .info("libsvm", svm.replace(":1", ":1:1"), one)
        .refuses("raw.txt:1: \"0:1:1\" is not index:value");
    sandbox.info("libsvm", &svm, "").refuses("format = \"libsvm\" needs columns");
}
