//! A trial as a value: run from its order, kept as a model, loaded in another process.

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
