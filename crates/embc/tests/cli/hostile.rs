//! Bad input: one clear line, exit code 2, and nothing left that a later run would trust.

use crate::sandbox::{Sandbox, caches, criteo_rows};

const CSV: &str = "columns = { label = \"y\", dense = [\"x\"], categorical = [\"a\", \"b\"] }";

/// Bytes that a format refuses: the message, and no cache.
#[track_caller]
fn refused(format: &str, bytes: impl AsRef<[u8]>, more: &str, message: &str) {
    let sandbox = Sandbox::new();
    sandbox.info(format, bytes, more).refuses(message);
    assert!(!sandbox.has_cache());
}

/// Bytes that a format takes: their number of rows.
#[track_caller]
fn taken(format: &str, bytes: impl AsRef<[u8]>, more: &str, rows: u64) -> serde_json::Value {
    let ran = Sandbox::new().info(format, bytes, more).fine();
    let info: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(info["rows"], rows);
    info
}

#[test]
fn criteo() {
    let good = criteo_rows(20);
    taken("criteo", &good, "", 20);
    // The last line may lack its newline, but not its columns.
    taken("criteo", good.trim_end(), "", 20);
    refused(
        "criteo",
        &good[..good.len() - 20],
        "",
        "raw.txt:20: 38 columns instead of 40; the file ends here and seems cut off",
    );
    refused("criteo", good.replacen('\t', " ", 1), "", "raw.txt:1: 39 columns instead of 40");
    let third = |from: &str, to: &str| {
        let lines: Vec<String> = good
            .lines()
            .enumerate()
            .map(|(i, line)| if i == 2 { line.replacen(from, to, 1) } else { line.into() })
            .collect();
        lines.join("\n")
    };
    refused(
        "criteo",
        third("00000002", "0000zz02"),
        "",
        "raw.txt:3: C1 is \"0000zz02\", which is not a hexadecimal category",
    );
    refused(
        "criteo",
        third("0\t", "2\t"),
        "",
        "raw.txt:3: label is \"2\", which is not a label: it must be 0 or 1",
    );
    refused("criteo", third("\t4\t", "\tmany\t"), "", "which is not a number");
    refused("criteo", "", "", "raw.txt: the file is empty");
    refused("criteo", "\n\n", "", "raw.txt: holds no rows");
}

#[test]
fn line_ends_marks_and_encodings() {
    let rows = "y,x,a,b\n0,1.5,p,q\n1,,p,r\n0,2,s,q\n1,3,t,r\n0,4,t,q\n";
    let plain = taken("csv", rows, CSV, 5);
    let same = |bytes: Vec<u8>| {
        let mut info = taken("csv", bytes, CSV, 5);
        info["data_hash"] = plain["data_hash"].clone();
        assert_eq!(info, plain);
    };
    same(rows.replace('\n', "\r\n").into());
    same([b"\xEF\xBB\xBF", rows.as_bytes()].concat());
    refused(
        "csv",
        [&rows.as_bytes()[..rows.len() - 2], b"\xFF\n"].concat(),
        CSV,
        "raw.txt:6: b is \"\u{FFFD}\", which is not valid UTF-8",
    );
    refused(
        "csv",
        rows,
        "columns = { label = \"y\", categorical = [\"a\", \"c\"] }",
        "raw.txt:1: no column c; the header has y, x, a, b",
    );
    refused("csv", rows.replace("1.5", "inf"), CSV, "raw.txt:2: x is \"inf\", which is not finite");
    refused("csv", rows, "", "format = \"csv\" needs columns");
    refused("csv", rows, "columns = { label = \"y\", categorical = [] }", "names no categorical");
    refused(
        "csv",
        rows,
        "columns = { label = \"y\", categoricl = [\"a\"] }",
        "datasets.toml:6: unknown field `categoricl`",
    );
    refused("tsv", rows, "", "unknown format \"tsv\"");
    refused(
        "movielens-dat",
        "1::2::5::9\n1::3::x::9\n",
        "",
        "raw.txt:2: rating is \"x\", which is not a number",
    );
    refused("text-jsonl", "{\"split\": \"train\"\n", "", "raw.txt:1: not a document");
}

#[test]
fn compressed_files() {
    let rows = criteo_rows(50);
    for (name, bytes) in [("raw.gz", gzip(&rows)), ("raw.zst", zstd(&rows))] {
        let sandbox = Sandbox::new();
        sandbox.write(name, &bytes);
        sandbox.registry("criteo", name, "");
        sandbox.run(&["data", "ingest", "it"]).expect(0, "50 rows");
        let sandbox = Sandbox::new();
        sandbox.write(name, &bytes[..bytes.len() / 2]);
        sandbox.registry("criteo", name, "");
        sandbox.run(&["data", "ingest", "it"]).refuses(name);
        assert!(!sandbox.has_cache());
    }
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 3).unwrap()
}

#[test]
fn files_that_are_not_what_the_registry_says() {
    let sandbox = Sandbox::new();
    sandbox.registry("criteo", "raw.txt", "");
    sandbox
        .run(&["data", "info", "it"])
        .refuses("data/raw.txt: data set it is not here; put it there");
    sandbox.run(&["data", "info", "its"]).refuses("unknown data set \"its\"; did you mean \"it\"?");
    std::fs::create_dir(sandbox.path("raw.txt")).unwrap();
    sandbox.run(&["data", "info", "it"]).refuses("raw.txt: is a folder without a file");
    std::fs::remove_dir(sandbox.path("raw.txt")).unwrap();
    let rows = criteo_rows(30);
    sandbox.write("raw.txt", &rows);
    let digest = |sha256: &str, bytes: usize| {
        let text = std::fs::read_to_string(sandbox.path("datasets.toml")).unwrap();
        let file = format!(
            "files.data = {{ path = \"raw.txt\", bytes = {bytes}, sha256 = \"{sha256}\" }}\n"
        );
        let rest: String =
            text.lines().filter(|l| !l.starts_with("files")).map(|l| format!("{l}\n")).collect();
        sandbox.write("datasets.toml", rest + &file);
    };
    digest(&"0".repeat(64), rows.len());
    sandbox.run(&["data", "info", "it"]).refuses("the registry says 0000");
    assert!(!sandbox.has_cache());
    digest(&"0".repeat(64), 5);
    sandbox
        .run(&["data", "info", "it"])
        .refuses(&format!("{} bytes, the registry says 5", rows.len()));
    assert!(!sandbox.has_cache());
}

#[test]
fn a_damaged_cache_is_built_anew_and_a_changed_file_is_noticed() {
    let sandbox = Sandbox::new();
    sandbox.info("criteo", criteo_rows(40), "").fine();
    let data = sandbox.path("data/cache/it/data.arrow");
    let bytes = std::fs::read(&data).unwrap();
    std::fs::write(&data, &bytes[..bytes.len() / 2]).unwrap();
    sandbox.run(&["data", "info", "it"]).expect(0, "building the cache of it anew");
    assert_eq!(std::fs::read(&data).unwrap(), bytes);
    sandbox.write("data/cache/it/meta.json", "{");
    sandbox.run(&["data", "info", "it"]).expect(0, "building the cache of it anew");
    sandbox.write("raw.txt", criteo_rows(41));
    let ran = sandbox.run(&["data", "info", "it"]).expect(0, "raw.txt has changed");
    assert!(ran.stdout.contains("rows       41"), "{}", ran.stdout);
    let left = caches(&sandbox.path("data/cache"));
    assert_eq!(left, 1, "only the cache itself");
}

#[test]
fn processes_that_need_the_same_cache_build_it_once() {
    let sandbox = Sandbox::new();
    sandbox.write("raw.txt", criteo_rows(20_000));
    sandbox.registry("criteo", "raw.txt", "");
    let start = |_| {
        let mut command = sandbox.command(&["data", "info", "it", "--format", "json"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let started: Vec<_> = (0..4).map(start).collect();
    let ended: Vec<crate::sandbox::Ran> =
        started.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect();
    let built = ended.iter().filter(|ran| ran.stderr.contains("it: encoding")).count();
    assert_eq!(built, 1);
    let first = ended[0].stdout.clone();
    ended.into_iter().for_each(|ran| assert_eq!(ran.fine().stdout, first));
}

/// A config over the data set `it`.
fn config(more: &str) -> String {
    format!(
        "title = \"t\"\ndataset = \"it\"\n[model]\nkind = \"dlrm\"\nbottom = [8]\ntop = [8]\n[embedding]\ndim = 4\n[train]\noptimizer = {{ kind = \"sgd\", lr = 0.1 }}\nbatch = 16\nepochs = 1\nselect = \"auc\"\n{more}"
    )
}

const FULL: &str = "[[scheme]]\nkind = \"full\"\n";

/// A config in a folder of `configs` is called as before it was there, and its records are in a folder
/// of that name.
#[test]
fn folders_of_configs() {
    let sandbox = Sandbox::new();
    sandbox.info("criteo", criteo_rows(400), "").fine();
    sandbox.run(&["list", "experiments"]).refuses("no configs/ here");
    sandbox.write("configs/paper/z.toml", config(FULL));
    let table = sandbox.run(&["sweep", "--config", "z"]).fine().stdout;
    for name in ["z.toml", "paper/z", "configs/z.toml", "configs/paper/z.toml"] {
        sandbox.run(&["sweep", "--config", name]).expect(0, "1 of 1 trials are done already");
    }
    sandbox.run(&["sweep", "--config", "elsewhere/z.toml"]).refuses("no such config");
    sandbox.run(&["sweep", "--config", "zz"]).refuses("did you mean \"z\"?");
    for file in ["z.jsonl", "z.details.jsonl.gz", "z.html"] {
        assert!(sandbox.path(&format!("results/paper/{file}")).exists(), "{file}");
    }
    // Two files of results, whose config need not be readable.
    sandbox.write("configs/paper/z.toml", "title = ");
    let text = sandbox.run(&["compare", "z", "results/paper/z.jsonl"]).fine().stdout;
    assert!(text.contains("+0.0000"), "{text}");
    sandbox.write("configs/paper/z.toml", config(FULL));
    assert_eq!(sandbox.run(&["report"]).fine().stdout, table, "all that there is");
    assert_eq!(sandbox.run(&["report", "results/paper/z.jsonl"]).fine().stdout, table);
    // Another experiment shares its trial.
    sandbox.write("configs/w.toml", config(FULL));
    sandbox.run(&["sweep", "--config", "w"]).expect(0, "trained already, in paper/z");
}

#[test]
fn configs() {
    let sandbox = Sandbox::new();
    sandbox.info("criteo", criteo_rows(400), "").fine();
    let run = |text: &str| {
        sandbox.write("x.toml", text);
        sandbox.run(&["sweep", "--config", "x.toml"])
    };
    run(&config(FULL)).fine();
    run(&config(FULL).replace("epochs", "epoch"))
        .refuses("x.toml:12: unknown key \"epoch\"; did you mean \"epochs\"?");
    run(&config(FULL).replace("bottom", "botom"))
        .refuses("x.toml:5: model dlrm: unknown key \"botom\"; did you mean \"bottom\"?");
    run(&config(FULL).replace("\"full\"", "\"hsh\""))
        .refuses("x.toml:15: unknown scheme \"hsh\"; did you mean \"hash\"?");
    run(&config("[[scheme]]\nkind = \"memcom\"\nbais = true\n"))
        .refuses("x.toml:16: scheme memcom: unknown key \"bais\"; did you mean \"bias\"?");
    run(&config(FULL).replace("\"auc\"", "\"auk\"")).refuses("x.toml:13: unknown metric \"auk\"");
    run(&config(FULL).replace("\"dlrm\"\nbottom = [8]\ntop = [8]", "\"gmf\""))
        .refuses("model gmf needs exactly two categorical fields, this data set has 26");
    run(&config(FULL).replace("epochs = 1", "epochs = 0"))
        .refuses("x.toml:12: epochs must be positive");
    run(&config(FULL).replace("lr = 0.1", "lr = -1"))
        .refuses("x.toml:10: optimizer.lr = -1 must be positive");
    run(&config("")).refuses("missing field `scheme`");
    run(&config(&format!("{FULL}{FULL}"))).refuses("two schemes are called \"full\"");
    run(&config(&format!("[budget]\nrows = [4]\ncap = [3]\n{FULL}")))
        .refuses("needs exactly one of compression, params, bytes, rows, cap");
    run(&config(FULL).replace("\"auc\"", "\"ndcg@10\""))
        .refuses("x.toml:13: ndcg@10: a ranking needs a user and an item column");
    run("title = ").refuses("x.toml:1:");
    sandbox.run(&["sweep", "--config", "y"]).refuses("y: no such config");
    sandbox.run(&["sweep", "--config", "x.toml", "--set", "train.epoch=1"]).refuses("x.toml");
    run(&config(FULL)).fine();
    sandbox
        .run(&["sweep", "--config", "x", "--set", "train.epoch=1"])
        .refuses("unknown key \"epoch\"; did you mean \"epochs\"?");
    sandbox
        .run(&["sweep", "--config", "x", "--set", "train.epochs=few"])
        .refuses("invalid type: string \"few\"");
    sandbox.run(&["sweep", "--config", "x", "--threads", "0"]).refuses("at least one thread");
    sandbox.run(&["sweep", "--config", "x", "--jobs", "0"]).refuses("one job");
    assert_eq!(sandbox.run(&["sweep"]).code, Some(2));
}

#[test]
fn an_impossible_budget_names_its_bound_and_is_no_failure() {
    let sandbox = Sandbox::new();
    sandbox.info("criteo", criteo_rows(400), "").fine();
    let more = "[budget]\ncompression = [40]\n[[scheme]]\nkind = \"full\"\n[[scheme]]\nkind = \"memcom\"\n";
    sandbox.write("x.toml", config(more));
    let ran = sandbox.run(&["sweep", "--config", "x.toml"]).fine();
    assert!(ran.stdout.contains("infeasible"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("the per-id weights alone are") && ran.stdout.contains("use dim >=")
    );
    sandbox
        .run(&["train", "--config", "x.toml", "--set", "scheme.kind=memcom"])
        .refuses("use dim >=");
}

#[test]
fn a_trial_that_blows_up_is_recorded_with_step_and_tensor_and_exits_1() {
    let sandbox = Sandbox::new();
    sandbox.info("criteo", criteo_rows(400), "").fine();
    sandbox.write("x.toml", config(FULL).replace("dim = 4", "dim = 4\ninit = { normal = 1e30 }"));
    let ran = sandbox.run(&["sweep", "--config", "x.toml"]).expect(1, "is not finite at step");
    assert!(ran.stdout.contains("failed"), "{}", ran.stdout);
    let records = std::fs::read_to_string(sandbox.path("results/x.jsonl")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&records).unwrap();
    assert_eq!(record["status"], "error");
    assert!(record["error"].as_str().unwrap().contains("first seen in"), "{}", record["error"]);
}

#[test]
fn a_metric_that_is_not_defined_picks_no_epoch() {
    let sandbox = Sandbox::new();
    // The last fifths of the rows, which validate and test, are all negatives.
    let rows: String = (0..400)
        .map(|i| format!("{},{},{}\n", i32::from(i < 200 && i % 2 == 0), i % 9, i % 7))
        .collect();
    let columns = "columns = { label = \"y\", categorical = [\"a\", \"b\"] }";
    sandbox.info("csv", format!("y,a,b\n{rows}"), columns).fine();
    sandbox.write("x.toml", config(FULL));
    sandbox.run(&["sweep", "--config", "x.toml"]).expect(1, "valid/auc is not defined");
    sandbox.write("x.toml", config(FULL).replace("\"auc\"", "\"logloss\""));
    sandbox.run(&["sweep", "--config", "x.toml"]).fine();
}

#[test]
fn torn_and_broken_results() {
    let sandbox = Sandbox::new();
    sandbox.info("criteo", criteo_rows(400), "").fine();
    sandbox.write("x.toml", config(FULL));
    let results = sandbox.path("results/x.jsonl");
    sandbox.run(&["sweep", "--config", "x.toml"]).fine();
    let whole = std::fs::read(&results).unwrap();
    // Half a record at the end, as after a power cut: dropped, and cut off by the next append.
    std::fs::write(&results, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
    sandbox
        .run(&["sweep", "--config", "x.toml", "--set", "train.seeds=[1,2]"])
        .expect(0, "x.jsonl:2: the last line is torn");
    assert_eq!(std::fs::read_to_string(&results).unwrap().lines().count(), 2);
    let report = sandbox.run(&["report", "x"]).fine().stdout;
    assert_eq!(sandbox.run(&["report", "results/x.jsonl"]).fine().stdout, report);
    std::fs::write(&results, "{}\n").unwrap();
    sandbox.run(&["report", "x"]).refuses("x.jsonl:1: not a record");
}

/// Runs a script with a file system of its own.
fn with_own_mounts(sandbox: &Sandbox, script: &str) -> crate::sandbox::Ran {
    let mut command = std::process::Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).current_dir(sandbox.path("."));
    command
        .env("EMBC", env!("CARGO_BIN_EXE_embc"))
        .env("EMBC_DATASETS", sandbox.path("datasets.toml"));
    command.output().unwrap().into()
}

#[test]
#[cfg_attr(not(own_mounts), ignore = "needs user namespaces")]
fn full_and_read_only_disks() {
    let sandbox = Sandbox::new();
    sandbox.write("raw.txt", criteo_rows(40_000));
    sandbox.registry("criteo", "raw.txt", "");
    std::fs::create_dir(sandbox.path("data")).unwrap();
    let full = "mount -t tmpfs -o size=2m tmpfs data && $EMBC data ingest it; code=$?; ls -A data/cache; exit $code";
    let ran = with_own_mounts(&sandbox, full).refuses("the disk is full; free some space");
    assert_eq!(ran.stdout, "", "nothing is left in the cache");
    let read_only = "mount -t tmpfs -o ro tmpfs data && $EMBC data ingest it";
    with_own_mounts(&sandbox, read_only)
        .refuses("read-only; choose another folder with --data-dir");
}

#[test]
fn a_file_where_a_folder_is_needed() {
    let sandbox = Sandbox::new();
    sandbox.write("raw.txt", criteo_rows(40));
    sandbox.registry("criteo", "raw.txt", "");
    sandbox.write("data", "not a folder");
    sandbox.run(&["data", "ingest", "it"]).refuses("data/cache");
    sandbox.write("results", "not a folder");
    sandbox.write("x.toml", config(FULL));
    sandbox
        .run(&["--data-dir", "other", "sweep", "--config", "x.toml"])
        .refuses("results: cannot be made; choose another folder with --results");
}
