//! A table that exists already, from its file to an answer and back.

use crate::sandbox::Sandbox;

const ROWS: usize = 600;
const DIM: usize = 8;

/// Words around 30 topics: those of one are alike.
fn value(row: usize, column: usize) -> f32 {
    let topic = ((row % 30 * 31 + column * 17) as f32).sin();
    topic + 0.2 * ((row * 7 + column * 3) as f32).cos()
}

/// A sandbox with table.txt, pairs.tsv, questions.txt and texts.jsonl.
fn world() -> Sandbox {
    let sandbox = Sandbox::new();
    let line = |row: usize| {
        let values: Vec<String> = (0..DIM).map(|column| value(row, column).to_string()).collect();
        format!("w{row} {}\n", values.join(" "))
    };
    sandbox.write("table.txt", (0..ROWS).map(line).collect::<String>());
    let cosine = |a: usize, b: usize| {
        let dot = |a: usize, b: usize| (0..DIM).map(|i| value(a, i) * value(b, i)).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let pair = |i: usize| {
        let (a, b) = (i * 7 % ROWS, i * 11 % ROWS + 1);
        format!("w{a}\tw{}\t{}\n", b % ROWS, cosine(a, b % ROWS))
    };
    let pairs: String = (0..80).map(pair).collect();
    sandbox.write("pairs.tsv", format!("# pairs\nword\tword\tscore\n{pairs}w1\tnone\t3\n"));
    let question = |i: usize| format!("w{} w{} w{} w{}\n", i, i + 30, i + 60, i + 90);
    sandbox
        .write("questions.txt", format!(": topic\n{}", (0..60).map(question).collect::<String>()));
    let text = |i: usize| {
        let words: Vec<String> =
            (0..6).map(|j| format!("W{}", i % 3 + 30 * (i + j) % 600)).collect();
        format!("{{\"text\": \"{}, other\", \"label\": {}}}\n", words.join(" "), i % 3)
    };
    sandbox.write("texts.jsonl", (0..150).map(text).collect::<String>());
    sandbox
}

const TASKS: [&str; 9] = [
    "--eval",
    "similarity",
    "pairs.tsv",
    "--eval",
    "analogy",
    "questions.txt",
    "--eval",
    "classify",
    "texts.jsonl",
];

#[test]
fn from_a_file_to_an_answer_and_back() {
    let sandbox = world();
    let args = [&["compress", "table.txt", "--budget-bytes", "8kB", "--output", "out"], &TASKS[..]];
    let ran = sandbox.run(&args.concat()).fine();
    assert!(ran.stdout.starts_with("Within 8.0 kB: "), "{}", ran.stdout);
    for said in
        ["pairs, Spearman's correlation: ", "questions, share", "texts, accuracy", "neighbours"]
    {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("80 pairs; 1 with a word that the table lacks"), "{}", ran.stderr);
    // Four words of a question are asked for; words in capitals are found.
    assert!(ran.stderr.contains("14.3 % of words are not in the table"), "{}", ran.stderr);
    let report = sandbox.read("out/report.md");
    for part in ["### All that was tried", "| full table", "(pairs.svg)", "What was measured"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let page = sandbox.read("out/report.html");
    assert_eq!(page.matches("<svg").count(), 5, "three tasks, neighbours, error");
    let lines = sandbox.read("out/tried.jsonl");
    assert!(lines.lines().count() > 5);
    for line in lines.lines() {
        let tried: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(tried["bytes"].as_u64().unwrap() <= 8000, "{line}");
        // The table itself orders these pairs, so that any form is at most as good.
        assert!(tried["scores"][0]["value"].as_f64().unwrap() <= 1.0, "{line}");
    }
    // The same again, and on one thread, is the same file.
    let packed = std::fs::read(sandbox.path("out/model.embc")).unwrap();
    let more = [&args.concat()[..5], &["again", "--threads", "1"], &TASKS[..]].concat();
    sandbox.run(&more).fine();
    assert_eq!(std::fs::read(sandbox.path("again/model.embc")).unwrap(), packed);

    let ran = sandbox.run(&["decompress", "out/model.embc"]).fine();
    assert!(ran.stdout.contains("out/rows.npy"), "{}", ran.stdout);
    let npy = std::fs::read(sandbox.path("out/rows.npy")).unwrap();
    let rows = &npy[npy.len() - 4 * ROWS * DIM..];
    let off = rows.chunks_exact(4).enumerate().map(|(at, bytes)| {
        (f32::from_le_bytes(bytes.try_into().unwrap()) - value(at / DIM, at % DIM)).powi(2)
    });
    assert!(off.sum::<f32>() / ((ROWS * DIM) as f32) < 0.01, "what comes back is the table");
    // What comes back is a table like any other.
    let ran = sandbox.run(&["compress", "out/rows.npy", "--budget-bytes", "1MB", "--quiet"]).fine();
    assert!(ran.stdout.contains("2.0 times smaller than the table"), "{}", ran.stdout);
    assert!(sandbox.path("rows-compressed/model.embc").exists());
    // Nothing is written over.
    sandbox.run(&["decompress", "out/model.embc"]).refuses("is there already");
    let args = ["compress", "out/rows.npy", "--budget-bytes", "8kB", "--output", "out"];
    sandbox.run(&args).refuses("the table itself is there");
}

#[test]
fn words_formats_and_several_budgets() {
    let sandbox = world();
    let args = ["compress", "table.txt", "--budget-bytes", "4kB,16kB", "--method", "pq,scalar"];
    let more = ["--format", "packed,onnx,npy,safetensors", "--with-vocabulary", "--output", "out"];
    let ran = sandbox.run(&[&args[..], &more[..]].concat()).fine();
    assert_eq!(ran.stdout.lines().count(), 2, "{}", ran.stdout);
    for file in ["model.embc", "model.onnx", "model.data", "rows.npy", "rows.safetensors"] {
        assert!(sandbox.path(&format!("out/16000/{file}")).exists(), "{file}");
    }
    let model =
        embc_core::graph::device::Model::open(&sandbox.path("out/4000/model.embc")).unwrap();
    assert_eq!((model.id(0, b"w17"), model.id(0, b"none")), (Some(17), None));
    assert_eq!(model.value_of(0, 599), Some(&b"w599"[..]));
    let args = ["decompress", "out/4000/model.embc", "--format", "model2vec", "--output", "m"];
    sandbox.run(&args).refuses("--like");
}

#[test]
fn a_command_scores_and_others_are_measured_alike() {
    let sandbox = world();
    sandbox
        .run(&[
            "compress",
            "table.txt",
            "--budget-bytes",
            "12kB",
            "--format",
            "npy",
            "--output",
            "a",
        ])
        .fine();
    let args =
        ["compress", "table.txt", "--budget-bytes", "8kB", "--method", "scalar", "--output", "b"];
    let size = ["--eval", "command", "wc -c < {}", "--beside", "theirs", "9kB", "a/rows.npy"];
    let ran = sandbox.run(&[&args[..], &size[..]].concat()).fine();
    // Of all tables as .npy the same.
    let bytes = std::fs::metadata(sandbox.path("a/rows.npy")).unwrap().len();
    assert!(ran.stdout.contains(&format!("command, its last number: {bytes}")), "{}", ran.stdout);
    assert!(sandbox.read("b/report.md").contains("| theirs"));
    assert!(!ran.stdout.contains("theirs"), "what others made is never the answer");
}

#[test]
fn what_is_wrong_is_said() {
    let sandbox = world();
    let base = ["compress", "table.txt", "--budget-bytes", "8kB"];
    for (more, text) in [
        (&["--eval", "similarty", "pairs.tsv"][..], "did you mean \"similarity\""),
        (&["--eval", "similarity", "none.tsv"], "none.tsv"),
        (&["--eval", "analogy", "pairs.tsv"], "pairs.tsv:1: four words"),
        (&["--eval", "command", "true"], "write {} there"),
        (&["--eval", "command", "true {}"], "prints no number"),
        (&["--eval", "command", "false {}"], "exit status"),
        (&["--method", "memcom"], "not to fit to a finished table"),
        (&["--vocab", "pairs.tsv"], "83 words for a table of 600 rows"),
        (&["--counts", "pairs.tsv"], "pairs.tsv:1: no number of reads"),
        (&["--tensor", "x"], "--tensor"),
        (&["--beside", "x", "1kB", "pairs.tsv"], "pairs.tsv"),
        (&["--format", "model2vec"], "--like"),
    ] {
        sandbox.run(&[&base[..], more].concat()).refuses(text);
    }
    sandbox.write("nan.txt", "a 1 2\nb NaN 4\n");
    sandbox.run(&["compress", "nan.txt", "--budget-bytes", "1kB"]).refuses("row 1 (b), column 0");
    sandbox.run(&["compress", "table.txt", "--budget-bytes", "3"]).refuses("the smallest are");
    sandbox.write("broken.embc", "no model");
    sandbox.run(&["decompress", "broken.embc"]).refuses("broken.embc");
    assert!(!sandbox.path("table-compressed/model.embc").exists(), "nothing half-written");
}
