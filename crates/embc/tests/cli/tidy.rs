//! The repository keeps its own rules.

use crate::sandbox::{Sandbox, root};
use std::path::{Path, PathBuf};

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.path()) {
        if file.is_dir() {
            found.extend(files(&file, extension));
        } else if file.extension().is_some_and(|e| e == extension) {
            found.push(file);
        }
    }
    found.sort();
    found
}

#[test]
fn files_stay_short_and_begin_with_their_story() {
    for file in files(&root().join("crates"), "rs") {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.lines().count() <= 500, "{} has more than 500 lines", file.display());
        assert!(text.starts_with("//!"), "{} does not say what it is", file.display());
    }
}

#[test]
fn configs_parse_and_every_scheme_and_model_is_used_by_one() {
    let root = root();
    let configs = files(&root.join("configs"), "toml");
    assert!(!configs.is_empty());
    let all: String = configs.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    // A crate is packed with no file of another folder.
    let quickstart = ["configs", "crates/embc-lab/src/config"]
        .map(|folder| std::fs::read_to_string(root.join(folder).join("quickstart.toml")).unwrap());
    assert!(quickstart[0] == quickstart[1], "quickstart.toml differs from its copy in embc-lab");
    let sandbox = Sandbox::new();
    for what in ["schemes", "models"] {
        let list = sandbox.run(&["list", what, "--format", "json"]).fine().stdout;
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        for entry in list.as_array().unwrap() {
            let name = entry["name"].as_str().unwrap();
            let used = all
                .lines()
                .any(|line| line.split('=').map(str::trim).eq(["kind", &format!("\"{name}\"")]));
            assert!(used, "no config uses {name}");
        }
    }
    // A wrong data set is the last thing that is checked before anything runs.
    for config in configs {
        let path = config.to_str().unwrap();
        if std::fs::read_to_string(&config).unwrap().contains("\ntheory ") {
            let args = ["sweep", "--list", "--config", path];
            sandbox.run(&args).refuses("a study of `embc theory");
            continue;
        }
        let args = ["sweep", "--list", "--config", path, "--set", "dataset=no-such-set"];
        sandbox.run(&args).refuses("unknown data set");
    }
}

#[test]
fn committed_results_are_readable_and_hold_their_expectations() {
    let root = root();
    for rendered in files(&root.join("results"), "md") {
        let records = rendered.with_extension("jsonl");
        let (stem, beside) = (rendered.file_stem().unwrap(), rendered.with_extension("csv"));
        // A study is computed, not recorded; its values are committed beside it.
        let other = stem == "quickstart" || stem == "verdicts" || beside.exists();
        assert!(other || records.exists(), "{} has no records", rendered.display());
    }
    for results in files(&root.join("results"), "jsonl") {
        let name = results.file_stem().unwrap().to_str().unwrap().to_string();
        // Not committed: it is what a newcomer's first command makes.
        if name == "quickstart" {
            continue;
        }
        let sandbox = Sandbox::new();
        let mut command = sandbox.command(&["report", &name, "--check"]);
        let ran: crate::sandbox::Ran = command.current_dir(&root).output().unwrap().into();
        let ran = ran.fine();
        assert!(!ran.stdout.contains("still to run"), "{name}: {}", ran.stdout);
        let rendered = results.with_extension("md");
        let rendered = std::fs::read_to_string(&rendered).unwrap();
        assert!(rendered == ran.stdout, "{name}.md is stale: run `just report`");
        if rendered.contains(&format!("({name}.svg)")) {
            let mut command = sandbox.command(&["report", &name, "--format", "svg"]);
            let ran: crate::sandbox::Ran = command.current_dir(&root).output().unwrap().into();
            let plot = std::fs::read_to_string(results.with_extension("svg")).unwrap_or_default();
            assert!(plot == ran.fine().stdout, "{name}.svg is stale: run `just report`");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let root = root();
    let pages = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root.join(name));
    let more = ["docs", "results"].map(|folder| files(&root.join(folder), "md"));
    for page in pages.into_iter().chain(more.into_iter().flatten()) {
        let text = std::fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let paths = links.map(|link| link.split('#').next().unwrap());
        for path in paths.filter(|path| !path.is_empty() && !path.contains("://")) {
            assert!(page.parent().unwrap().join(path).exists(), "{}: {path}", page.display());
        }
    }
}

/// What the papers claim, beside what the records say.
#[test]
fn verdicts_are_those_of_the_records() {
    let (root, sandbox) = (root(), Sandbox::new());
    let report = |claims: &str| -> crate::sandbox::Ran {
        let mut command = sandbox.command(&["report", "--claims", claims]);
        command.current_dir(&root).output().unwrap().into()
    };
    let verdicts = report("results/claims.toml").fine().stdout;
    let path = root.join("results/verdicts.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &verdicts).unwrap();
    }
    let shown = std::fs::read_to_string(&path).unwrap();
    assert!(shown == verdicts, "results/verdicts.md is stale: run this test with UPDATE=1");
    for verdict in ["**reproduced", "**not reproduced", "**undecided"] {
        assert!(shown.contains(verdict), "no claim is {verdict}");
    }
    let claim = "[[claim]]\npaper = \"p\"\ntext = \"t\"\nin = [\"memcom_ml1m\"]\n";
    for (check, wrong) in [
        ("{ loses = { scheme = \"memcom\", at = 4 } }", "claims.toml:5: missing field `most`"),
        ("{ looses = 4 }", "claims.toml:5: unknown variant `looses`"),
        ("{ loses = { scheme = \"memcom\", at = 3, most = 1 } }", "no budget 3; there are 4, 12"),
        ("{ ahead = { scheme = \"memcm\", at = 4, by = 1 } }", "did you mean \"memcom\"?"),
        ("{ compare = { title = \"none\" } }", "no [[compare]] is titled \"none\""),
        ("{ below = { curve = \"a\", bound = \"b\" } }", "memcom_ml1m.csv: the values of a study"),
    ] {
        sandbox.write("claims.toml", format!("{claim}check = {check}\n"));
        report(sandbox.path("claims.toml").to_str().unwrap()).refuses(wrong);
    }
    report("nothing.toml").refuses("nothing.toml");
}

/// A line of Markdown for each config: its report, what it is, how much of it was trained, and what is
/// best at its first and last budget.
fn experiments() -> String {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["list", "experiments", "--format", "json"]);
    let list: crate::sandbox::Ran = command.current_dir(root()).output().unwrap().into();
    let list: serde_json::Value = serde_json::from_str(&list.fine().stdout).unwrap();
    // README shows the quickstart itself; its records are made by whoever runs it.
    let list = list.as_array().unwrap().iter().filter(|line| line["place"] != "quickstart");
    let place = |line: &serde_json::Value| line["place"].as_str().unwrap().to_string();
    let sum = |key: &str| list.clone().filter_map(|line| line[key].as_f64()).sum::<f64>();
    let links = |folder: &str, kind: &str, is: &dyn Fn(&serde_json::Value) -> bool| {
        let named = list.clone().filter(|line| is(line)).map(place);
        let links = named.map(|place| format!("[{place}]({folder}/{place}.{kind})"));
        links.collect::<Vec<_>>().join(", ")
    };
    let row = |line: &serde_json::Value| {
        let (place, title) = (place(line), line["title"].as_str().unwrap());
        let found: Vec<&str> =
            line["found"].as_array().unwrap().iter().filter_map(|found| found.as_str()).collect();
        let ends = found.iter().take(1).chain(found.iter().skip(1).last());
        let found = ends.copied().collect::<Vec<_>>().join("; ");
        let (of, n) = (&line["trials"], &line["recorded"]);
        let trials = if n == of { n.to_string() } else { format!("{n} of {of}") };
        format!("| [{place}](results/{place}.md) | {title} | {trials} | {found} |\n")
    };
    let rows: String = list.clone().filter(|line| line["recorded"] != 0).map(row).collect();
    let studies = links("results", "md", &|line| line["trials"] == 0);
    let never = links("configs", "toml", &|line| line["trials"] != 0 && line["recorded"] == 0);
    format!(
        "| experiment | what it is | trials | best, and what it loses |\n|---|---|---|---|\n{rows}\n{} trials, {:.1} hours of the machines that ran them. Computed and not trained (`embc theory`): {studies}. Written and **never run**: {never}.\n",
        sum("recorded"),
        sum("minutes") / 60.0
    )
}

/// README's generated parts; with UPDATE=1 in the environment they are written anew.
#[test]
fn readme_shows_what_there_is() {
    let path = root().join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let list = Sandbox::new().run(&["list", "schemes", "--format", "json"]).fine().stdout;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let row = |scheme: &serde_json::Value| {
        let get = |key: &str| scheme[key].as_str().unwrap().replace('|', "\\|");
        let (name, short) = (get("name"), get("short"));
        format!("| `{name}` | {short} | {} | {} |\n", get("equation"), get("paper"))
    };
    let rows: String = list.as_array().unwrap().iter().map(row).collect();
    let schemes =
        format!("| scheme | what it is | embedding of id i | from |\n|---|---|---|---|\n{rows}");
    let quickstart = std::fs::read_to_string(root().join("results/quickstart.md")).unwrap();
    let part = |start: &str| quickstart.split("\n\n").find(|part| part.starts_with(start)).unwrap();
    let quickstart =
        format!("{}\n\n{}\n\n{}\n", part("- Within"), part("**test/"), part("| scheme"));
    let choose = std::fs::read_to_string(root().join("results/choose.md")).unwrap();
    let (_, answer) = choose.split_once("### lma_criteo_117k\n\n").unwrap();
    let choose = format!("```text\n{}\n```\n", answer.split("\n\n###").next().unwrap().trim());
    let verdicts = std::fs::read_to_string(root().join("results/verdicts.md")).unwrap();
    let verdicts = verdicts.split("\n\n").find(|part| part.starts_with("| paper")).unwrap();
    let verdicts = format!("{verdicts}\n");
    let experiments = experiments();
    let mut expect = text.clone();
    let parts = [
        ("experiments", experiments),
        ("schemes", schemes),
        ("quickstart", quickstart),
        ("choose", choose),
        ("verdicts", verdicts),
    ];
    for (name, part) in parts {
        let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let (before, rest) = expect.split_once(&open).unwrap();
        let (_, after) = rest.split_once(&close).unwrap();
        expect = format!("{before}{open}{part}{close}{after}");
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &expect).unwrap();
    } else {
        assert!(text == expect, "README.md is stale: run this test with UPDATE=1");
    }
}

#[test]
fn help_teaches() {
    let sandbox = Sandbox::new();
    for command in
        ["choose", "train", "sweep", "report", "compare", "recommend", "data", "list", "theory"]
    {
        let help = sandbox.run(&[command, "--help"]).fine().stdout;
        assert!(help.contains("Usage: embc"), "{command}");
    }
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let completions = sandbox.run(&["completions", shell]).fine().stdout;
        assert!(completions.contains("budget-bytes"), "{shell}");
    }
    assert!(sandbox.run(&["completions", "man"]).fine().stdout.contains(".TH embc 1"));
    sandbox.run(&["completions", "man", "--output", "man"]).fine();
    assert!(sandbox.read("man/embc-choose.1").contains("Interrupted"));
    sandbox.run(&["completions", "bash", "--output", "man"]).refuses("--output is of man");
    let help = sandbox.run(&["--help"]).fine().stdout;
    assert!(help.contains("embc sweep --config quickstart"), "{help}");
    for what in ["schemes", "models", "datasets", "metrics", "optimizers"] {
        let text = sandbox.run(&["list", what]).fine().stdout;
        assert!(text.lines().count() > 3, "{what}");
        let json = sandbox.run(&["list", what, "--format", "json"]).fine().stdout;
        let list: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(list.as_array().is_some_and(|list| list.len() > 1), "{what}");
    }
}
