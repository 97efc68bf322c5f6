//! Records of before trials were values: what their `config` would be, to find them by. They are read
//! and shown, and count as done for nobody.

use crate::config::Experiment;
use crate::plan::Trial;
use crate::spec::shorten;
use embc_core::optim::{Kind, Optim};
use embc_core::scheme::Knobs;
use serde_json::{Value, json};

/// What a record of a trial says in its `config`, metrics aside.
pub fn config(e: &Experiment, trial: &Trial) -> Value {
    let mut model = embc_core::model::find(&e.model.kind).map(|m| m.defaults()).unwrap_or_default();
    model.extend(e.model.knobs.clone());
    model.insert("kind".into(), e.model.kind.clone().into());
    let mut embedding = json!(e.embedding);
    embedding["dim"] = trial.spec.embedding.dim.into();
    embedding["sharing"] = json!(trial.spec.embedding.sharing);
    embedding["init"] = json!(trial.spec.embedding.init);
    embedding.as_object_mut().expect("a struct").remove("unknown");
    let (of, allocation) = e.budget.as_ref().map(|b| (b.of, b.allocation)).unwrap_or_default();
    let budget = trial.point.as_ref().map_or(json!({}), |point| {
        let allocation = trial.scheme.allocation.unwrap_or(allocation);
        json!({ point.axis: point.value, "of": of, "allocation": allocation })
    });
    let mut train = json!(e.train);
    train["select"] = json!(e.select());
    train["optimizer"] = optimizer(e.train.optimizer.rule());
    let mut config = json!({
        "dataset": e.dataset,
        "data": data(e),
        "model": model,
        "embedding": embedding,
        "train": train,
        "budget": budget,
        "scheme": { "kind": trial.scheme.kind, "knobs": knobs(trial) },
        "full_dim": e.embedding.dim,
        "seed": trial.seed,
    });
    if let Some(storage) = trial.scheme.quantize {
        config["scheme"]["quantize"] = json!(storage.storage());
        if storage.trains() {
            // No record of version 1 did.
            config["scheme"]["low"] = json!(true);
        }
    }
    shorten(config)
}

/// A scheme's knobs without those that came later, where they say nothing.
fn knobs(trial: &Trial) -> Knobs {
    let mut knobs = trial.knobs.clone();
    if trial.scheme.kind == "factorized" && trial.scheme.knobs.is_empty() {
        ["rank", "narrow"].iter().for_each(|key| drop(knobs.remove(*key)));
    }
    if trial.scheme.kind == "dhe" && trial.scheme.knobs.is_empty() {
        knobs = Knobs::from_iter([("layers".into(), 2.into())]);
    }
    knobs
}

/// `[data]` without the keys that came later.
fn data(e: &Experiment) -> Value {
    let mut data = json!(e.data);
    let keys = data.as_object_mut().expect("a struct");
    ["user", "item", "context", "had"].iter().for_each(|key| drop(keys.remove(*key)));
    data
}

/// An update rule with the keys of all kinds, as they were.
fn optimizer(rule: Optim) -> Value {
    let kind = format!("{:?}", rule.kind).to_lowercase();
    let mut value = json!({
        "kind": kind, "lr": rule.lr, "touch": rule.touch, "momentum": rule.momentum,
        "beta1": rule.beta1, "beta2": rule.beta2, "weight_decay": 0.01_f32,
    });
    if rule.eps != Optim::new(rule.kind, rule.lr, rule.touch).eps {
        value["eps"] = json!(rule.eps);
    }
    if rule.kind == Kind::AdamW {
        value["weight_decay"] = json!(rule.weight_decay);
    }
    value
}
