//! `embc theory`: the committed studies' shape, and what it refuses.

use crate::sandbox::{Sandbox, root};

/// A study that takes no time.
const SMALL: &str = r#"
title = "Small"
theory = "lsq"
paper = "none"
draws = 2
rows = 10
iterations = 12
first = 1
measure = "excess"
show = [1, 12]
bound = true
clusters = [10]
problem = { examples = 300, ids = 60, dim = 4 }
[[curve]]
label = "dense"
method = { kind = "dense" }
[[curve]]
label = "sparse"
method = { kind = "sparse", signed = true }
"#;

#[test]
fn a_study_is_the_same_on_any_number_of_threads() {
    let sandbox = Sandbox::new();
    sandbox.write("small.toml", SMALL);
    let run = |threads, format| {
        let args = ["theory", "lsq", "--config", "small", "--threads", threads, "--format", format];
        sandbox.run(&args).fine().stdout
    };
    let text = run("1", "md");
    assert_eq!(text, run("2", "md"));
    assert!(text.contains("`dense`: every iteration of every draw is below"), "{text}");
    assert!(text.contains("`sparse` stays above the optimum in 10 clusters"), "{text}");
    assert!(run("1", "svg").starts_with("<svg"));
    // Two curves, two bounds, one line of clusters, twelve iterations each.
    assert_eq!(run("1", "csv").lines().count(), 1 + 5 * 12);
}

/// Jaccard similarities, powers, sizes: every point of `mix64` follows the law.
const KERNEL: &str = r#"
title = "Kernel"
theory = "lma"
paper = "none"
draws = 10
dim = 64
cells = 1048576
sample = 20000
sizes = [10, 1000]
jaccard = [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]
powers = [1, 2, 4, 8]
families = ["mix64", "paper-poly"]
plot = 2
"#;

#[test]
fn shared_memory_follows_the_law() {
    let sandbox = Sandbox::new();
    sandbox.write("kernel.toml", KERNEL);
    let run = |threads, format| {
        let args =
            ["theory", "lma", "--config", "kernel", "--threads", threads, "--format", format];
        sandbox.run(&args).fine().stdout
    };
    let text = run("1", "md");
    assert_eq!(text, run("2", "md"));
    assert!(text.contains("`mix64`: 56 of 56 points lie within three standard errors"), "{text}");
    assert!(run("2", "svg").starts_with("<svg"));
    let all = ["theory", "lma", "--config", "kernel", "--format", "all"];
    sandbox.run(&all).expect(2, "--output <PATH>");
    sandbox.run(&[&all[..], &["--output", "."]].concat()).fine();
    assert_eq!(std::fs::read_to_string(sandbox.path("kernel.md")).unwrap(), text);
    assert!(sandbox.path("kernel.svg").exists() && sandbox.path("kernel.csv").exists());
    sandbox.run(&["theory", "lsq", "--config", "kernel"]).refuses("a study of `embc theory lma`");
    for (from, to, why) in [
        ("[10, 1000]", "[10001]", "sizes must be positive and at most half of sample"),
        ("0.25", "1.25", "jaccard must be between 0 and 1"),
        ("plot = 2", "plot = 3", "plot must be one of powers"),
        ("mix64", "md5", "kernel.toml:12: unknown variant `md5`"),
    ] {
        sandbox.write("kernel.toml", KERNEL.replace(from, to));
        sandbox.run(&["theory", "lma", "--config", "kernel"]).refuses(why);
    }
}

#[test]
fn wrong_studies_are_refused() {
    let sandbox = Sandbox::new();
    for (from, to, why) in [
        ("rows = 10", "rows = 100", "0 < dim < rows < ids <= examples must hold"),
        ("draws = 2", "draws = 0", "draws and iterations must be positive"),
        ("kind = \"dense\"", "kind = \"dens\"", "small.toml:16: unknown variant `dens`"),
        ("signed = true", "sign = true", "unknown key \"sign\"; did you mean \"signed\"?"),
        ("signed = true", "ones = 11", "sparse: ones must be 1 to 10"),
        ("clusters = [10]", "clusters = [61]", "clusters must be between 1 and ids"),
        ("theory = \"lsq\"", "theory = \"lma\"", "a study of `embc theory lma`"),
        ("theory = \"lsq\"", "", "it has no theory"),
        ("theory = \"lsq\"", "theory = \"lsq", "small.toml:3"),
        ("kind = \"dense\"", "kind = \"dense\", fresh = 0", "dense: fresh must be positive"),
        ("first = 1", "reference = \"none.csv\"", "none.csv: the study's reference file"),
    ] {
        let text = SMALL.replace(from, to);
        assert_ne!(text, SMALL);
        sandbox.write("small.toml", &text);
        sandbox.run(&["theory", "lsq", "--config", "small"]).refuses(why);
    }
    let quickstart = root().join("configs/quickstart.toml");
    let args = ["theory", "lsq", "--config", quickstart.to_str().unwrap()];
    sandbox.run(&args).refuses("it has no theory");
}
