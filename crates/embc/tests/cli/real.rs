//! Real data, where a registry of it is at hand: the counts that its notes state.

use crate::sandbox::Sandbox;
use serde_json::Value;

/// `embc data info` of a real data set.
fn info(sandbox: &Sandbox, name: &str) -> Value {
    let registry = std::env::var_os("EMBC_DATASETS").expect("a registry of real data");
    // Tests run in the crate's folder, the registry is named from the repository's root.
    let registry = crate::sandbox::root().join(registry);
    let mut command = sandbox.command(&["data", "info", name, "--format", "json"]);
    let ran: crate::sandbox::Ran = command.env("EMBC_DATASETS", registry).output().unwrap().into();
    serde_json::from_str(&ran.fine().stdout).unwrap()
}

/// Rows, the parts of the split, and distinct values of each field (or of all together).
#[track_caller]
fn check(name: &str, rows: u64, splits: Option<[u64; 3]>, distinct: &[u64]) -> Value {
    let info = info(&Sandbox::new(), name);
    assert_eq!(info["rows"], rows);
    if let Some(splits) = splits {
        let got = ["train", "valid", "test"].map(|part| info["splits"][part].as_u64().unwrap());
        assert_eq!(got, splits);
    }
    let fields: Vec<u64> = info["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["distinct"].as_u64().unwrap())
        .collect();
    let sum: Vec<u64> = vec![fields.iter().sum()];
    assert!(fields.starts_with(distinct) || sum == distinct, "{fields:?}");
    info
}

#[test]
#[cfg_attr(not(real_data), ignore = "EMBC_DATASETS names no registry of real data")]
fn criteo_and_avazu() {
    let info = check("criteo-kaggle-117k", 117_335, None, &[280_072]);
    assert!((info["label_rate"].as_f64().unwrap() - 0.2562).abs() < 5e-5);
    let repeated: u64 =
        info["fields"].as_array().unwrap().iter().map(|f| f["repeated"].as_u64().unwrap()).sum();
    assert_eq!(repeated, 68_667);
    let info = check("avazu-48k", 48_407, None, &[]);
    assert!((info["label_rate"].as_f64().unwrap() - 0.1712).abs() < 5e-5);
    assert_eq!(info["fields"].as_array().unwrap().len(), 22);
}

#[test]
#[cfg_attr(not(real_data), ignore = "EMBC_DATASETS names no registry of real data")]
fn movielens() {
    check("ml-100k", 100_000, Some([98_114, 943, 943]), &[943, 1682]);
    check("ml-1m-half", 487_650, Some([481_652, 2999, 2999]), &[2999, 3615]);
    check("ml-1m-pairs", 1_000_209, None, &[6040, 3706]);
    check("ml-1m-stars", 1_000_209, None, &[6040, 3706]);
    check("ml-latest-206k", 206_584, None, &[2149, 13_049]);
    check("ml-latest-small", 100_836, Some([99_616, 610, 610]), &[610, 9724]);
}

#[test]
#[cfg_attr(not(real_data), ignore = "EMBC_DATASETS names no registry of real data")]
fn implicit_feedback() {
    check("gowalla", 1_027_370, Some([719_081, 91_047, 217_242]), &[29_858, 40_981]);
    check("goodbooks-10k", 981_756, None, &[53_424, 10_000]);
    let info = check("frappe", 96_203, None, &[957, 4082]);
    assert!((info["label_rate"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    let info = check("steam-200k", 200_000, None, &[12_393, 5155]);
    assert_eq!(info["tags"]["event"], serde_json::json!([["purchase", 129_511], ["play", 70_489]]));
}

#[test]
#[cfg_attr(not(real_data), ignore = "EMBC_DATASETS names no registry of real data")]
fn texts() {
    let info = check("20news", 18_846, None, &[115_065]);
    assert_eq!(info["tags"]["label"].as_array().unwrap().len(), 20);
    assert_eq!(info["tags"]["split"], serde_json::json!([["train", 11_314], ["test", 7532]]));
    assert_eq!(info["splits"]["test"], 7532);
}
