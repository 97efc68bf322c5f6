//! `embc list`: what there is to choose from.

use super::Outcome;
use crate::cli::{Global, List, TextOrJson, What};
use crate::table::text_table;
use anyhow::Result;
use embc_core::{metric, model::MODELS, optim, scheme::SCHEMES};
use serde_json::{Value, json};

mod experiments;

pub fn run(args: &List, global: &Global) -> Result<Outcome> {
    let format = args.json.format;
    let pairs = |docs: &[(&str, &str)], what: &str| match format {
        TextOrJson::Json => {
            let all: Vec<Value> =
                docs.iter().map(|(n, d)| json!({ "name": n, "doc": d })).collect();
            pretty(&all.into())
        }
        TextOrJson::Text => {
            let rows = docs.iter().map(|(n, d)| vec![n.to_string(), d.to_string()]);
            Ok(text_table(&[what, "meaning"], rows))
        }
    };
    let text = match args.what {
        What::Schemes => schemes(format)?,
        What::Models => models(format)?,
        What::Metrics => pairs(metric::DOCS, "metric")?,
        What::Keys => match format {
            TextOrJson::Json => pretty(&crate::keys::schemas())?,
            TextOrJson::Text => crate::keys::text(),
        },
        What::Optimizers => pairs(optim::DOCS, "optimizer")?,
        What::Experiments => experiments::experiments(global, format)?,
        What::Datasets => {
            datasets(global, format)?;
            String::new()
        }
    };
    super::print(&text)?;
    Ok(Outcome::Fine)
}

fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn knobs(docs: &[(&str, &str)], defaults: &serde_json::Map<String, Value>) -> Value {
    let knob = |(name, doc): &(&str, &str)| json!({ "name": name, "default": defaults.get(*name).unwrap_or(&Value::Null), "doc": doc });
    docs.iter().map(knob).collect()
}

fn schemes(format: TextOrJson) -> Result<String> {
    if format == TextOrJson::Json {
        let one = |s: &&dyn embc_core::scheme::Scheme| {
            let doc = s.doc();
            json!({
                "name": s.name(), "short": doc.short, "long": doc.long, "paper": doc.paper,
                "equation": doc.equation, "stores": doc.stores, "collisions": doc.collisions, "knobs": knobs(doc.knobs, &s.defaults()),
            })
        };
        return pretty(&SCHEMES.iter().map(one).collect());
    }
    let mut text = String::new();
    for scheme in SCHEMES {
        let doc = scheme.doc();
        text += &format!(
            "{}: {}\n  {}\n  stores {}\n  collisions: {}\n  {}\n",
            scheme.name(),
            doc.short,
            doc.equation,
            doc.stores,
            doc.collisions,
            doc.paper
        );
        text += &format!("  {}\n", doc.long);
        for (name, help) in doc.knobs {
            text += &format!("  {name}: {help}\n");
        }
        text.push('\n');
    }
    text += "Every [[scheme]] also takes dim, sharing, init, label, and\n  quantize: fp16 | int8 | int4 | int2: how its parameters are stored after training, in groups of dim values;\n  { bits = 8, train = true } (8 or 4): already while they train, with nothing wider beside them\n";
    Ok(text)
}

fn models(format: TextOrJson) -> Result<String> {
    if format == TextOrJson::Json {
        let one = |m: &&dyn embc_core::model::ModelKind| {
            let doc = m.doc();
            json!({ "name": m.name(), "short": doc.short, "paper": doc.paper, "needs": doc.needs, "knobs": knobs(doc.knobs, &m.defaults()) })
        };
        return pretty(&MODELS.iter().map(one).collect());
    }
    let mut text = String::new();
    for model in MODELS {
        let doc = model.doc();
        text +=
            &format!("{}: {}\n  needs {}\n  {}\n", model.name(), doc.short, doc.needs, doc.paper);
        for (name, help) in doc.knobs {
            text += &format!("  {name}: {help}\n");
        }
        text.push('\n');
    }
    Ok(text)
}

/// All data sets and whether they are here.
pub fn datasets(global: &Global, format: TextOrJson) -> Result<()> {
    let registry = super::registry(global, &[])?;
    let state = |e: &embc_data::registry::Entry| {
        let cached = embc_data::dataset::cache_folder(e, &global.data_dir).exists();
        let here = e.files.values().all(|file| e.locate(file, &global.data_dir).is_ok());
        match (cached, here, &e.archive) {
            (true, ..) => "ingested",
            (_, true, _) if e.files.is_empty() => "generated on use",
            (_, true, _) => "here",
            (_, _, Some(_)) => "embc data fetch",
            _ => "by hand",
        }
    };
    let text = match format {
        TextOrJson::Json => {
            let one = |e: &embc_data::registry::Entry| json!({ "name": e.name, "title": e.title, "format": e.format, "licence": e.licence, "homepage": e.homepage, "note": e.note, "state": state(e) });
            pretty(&registry.entries().map(one).collect())?
        }
        TextOrJson::Text => {
            let row = |e: &embc_data::registry::Entry| {
                vec![e.name.clone(), state(e).into(), e.format.clone(), e.title.clone()]
            };
            text_table(&["data set", "state", "format", "title"], registry.entries().map(row))
        }
    };
    super::print(&text)
}
