//! A trial as a value: run from its order, kept as a model, loaded in another process.

use crate::own::own;
use crate::sandbox::Sandbox;
use crate::smoke::{CONFIG, REGISTRY, records};
use embc_core::batch::{Bag, Batch};
use embc_lab::artefact::Model;
use serde_json::Value;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("datasets.toml", REGISTRY);
    sandbox.write("configs/smoke.toml", CONFIG);
    sandbox
}

#[test]
fn an_order_runs_anywhere_to_the_same_bits() {
    let sandbox = sandbox();
    let list = ["sweep", "--config", "smoke", "--filter", "memcom, compression 4", "--list"];
    let orders = sandbox.run(&[&list[..], &["--format", "json"]].concat()).fine().stdout;
    assert_eq!(orders.lines().count(), 2, "a line a seed: {orders}");
    let order: Value = serde_json::from_str(orders.lines().next().unwrap()).unwrap();
    sandbox.write("order.json", orders.lines().next().unwrap());
    let alone = ["trial", "order.json", "--results", "elsewhere"];
    let record: Value = serde_json::from_str(&sandbox.run(&alone).fine().stdout).unwrap();
    sandbox.run(&list[..5]).fine();
    let same = |r: &&Value| r["trial"] == record["trial"];
    let swept = records(&sandbox);
    let swept = swept.iter().find(same).expect("the same id");
    for key in ["weights_hash", "metrics", "curve", "spec", "knobs", "budget", "label"] {
        assert_eq!(swept[key], record[key], "{key}");
    }
    // What is recorded is printed, not trained.
    let again: Value = serde_json::from_str(&sandbox.run(&alone).fine().stdout).unwrap();
    assert_eq!(again["started"], record["started"]);
    // It says where it is wrong.
    let mut wrong = order.clone();
    wrong["spec"]["data"]["content"] = "other".into();
    sandbox.write("order.json", wrong.to_string());
    sandbox.run(&alone).refuses("order.json: data set synth has another content here");
    let mut wrong = order.clone();
    wrong["spec"]["data"]["view"]["columns"].as_array_mut().unwrap().pop();
    sandbox.write("order.json", wrong.to_string());
    sandbox.run(&alone).refuses("the spec's data.view is not what the registry comes to here");
    let mut wrong = order.clone();
    wrong["spec"]["schedule"]["epoch"] = 3.into();
    sandbox.write("order.json", serde_json::to_string_pretty(&wrong).unwrap());
    sandbox.run(&alone).refuses("did you mean \"epochs\"?");
    let mut wrong = order;
    wrong["spec"]["scheme"]["knobs"]["v_int"] = "sign".into();
    sandbox.write("order.json", wrong.to_string());
    sandbox.run(&alone).refuses("did you mean \"v_init\"?");
}

#[test]
fn a_model_predicts_in_another_process() {
    let sandbox = sandbox();
    let args = ["train", "--config", "smoke", "--set", "scheme.kind=qr", "--out", "m"];
    sandbox.run(&[&args[..], &["--scores", "s.csv"]].concat()).fine();
    let mut model = Model::load(&sandbox.path("m")).unwrap();
    let ids = [model.ids(0).unwrap(), model.ids(1).unwrap()];
    // Rows by the data's own names, which a service has.
    let text = std::fs::read_to_string(sandbox.path("s.ranking.csv")).unwrap();
    let mut batch = Batch { fields: vec![Bag::default(); 2], ..Batch::default() };
    let mut expect = Vec::new();
    for row in text.lines().skip(1).map(|row| row.split(',').collect::<Vec<_>>()) {
        let [_, user, item, _, score] = row[..] else { panic!("{row:?}") };
        for (bag, (ids, value)) in batch.fields.iter_mut().zip(ids.iter().zip([user, item])) {
            bag.ids.push(ids.of(value).unwrap());
        }
        expect.push(score.parse::<f32>().unwrap());
    }
    batch.size = expect.len();
    assert!(batch.size > 100);
    assert_eq!(model.score(&batch), expect);
}

/// Scores of files that a model has not seen are those of its own evaluation, to the last bit, whatever
/// form the rows are in; what it does not know is counted, and nothing but the model is needed.
#[test]
fn a_model_scores_files() {
    let sandbox = Sandbox::new();
    let table = own("table.csv");
    sandbox.run(&["init", table.to_str().unwrap()]).fine();
    let train = [
        "train",
        "--config",
        "table.toml",
        "--set",
        "train.epochs=2",
        "--set",
        "scheme.kind=memcom",
    ];
    sandbox
        .run(
            &[&train[..], &["--set", "budget.compression=[2]", "--out", "m", "--scores", "s.csv"]]
                .concat(),
        )
        .fine();
    let elsewhere = Sandbox::new();
    std::fs::rename(sandbox.path("m"), elsewhere.path("m")).unwrap();
    let mut first = None;
    for form in ["csv", "parquet", "arrow", "jsonl", "zip"] {
        let file = own(&format!("table.{form}"));
        let ran = elsewhere.run(&["predict", "m", file.to_str().unwrap()]).fine();
        assert_eq!(ran.stdout.lines().count(), 601, "{form}");
        assert_eq!(*first.get_or_insert(ran.stdout.clone()), ran.stdout, "{form}");
    }
    let all = first.unwrap();
    let scored = |row: &str| all.lines().nth(1 + row.parse::<usize>().unwrap()).unwrap();
    let of_training = std::fs::read_to_string(sandbox.path("s.csv")).unwrap();
    for line in of_training.lines().skip(1) {
        let [row, _, _, score] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!(scored(row), format!("{row},{score}"));
    }
    assert!(of_training.lines().count() > 50);
    // Without a label, with a user that nobody knows, to a file.
    let rows = "price,user,item,tags\n3.5,9999,item 6,Drama\n,18,item 22,\n";
    elsewhere.write("new.csv", rows);
    let ran = elsewhere.run(&["predict", "m", "new.csv", "--output", "p.csv"]).fine();
    assert!(
        ran.stderr.contains("user: 1 of 2 values are unknown to the model, 50.0 %"),
        "{}",
        ran.stderr
    );
    assert_eq!(std::fs::read_to_string(elsewhere.path("p.csv")).unwrap().lines().count(), 3);
    elsewhere.write("less.csv", "price,user,tags\n3.5,1,Drama\n");
    elsewhere.run(&["predict", "m", "less.csv", "--output", "q.csv"]).refuses("no column item");
    assert!(!elsewhere.path("q.csv").exists());
    elsewhere.run(&["predict", "nothing", "new.csv"]).refuses("no model here");
}
