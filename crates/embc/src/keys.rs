//! Every key of a config, a registry, a record and an order, as the types that read them know it:
//! `embc list keys`.
//!
//! The meanings are the types' own comments, so that no key can be without one or out of date.

use crate::report::claims::Claim;
use embc_data::registry::Entry;
use embc_lab::config::Experiment;
use embc_lab::order::Order;
use embc_lab::record::Record;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// JSON Schemas of all files that people and programs share, for editors and checkers.
pub fn schemas() -> Value {
    json!({ "experiment": schema::<Experiment>(), "record": schema::<Record>(), "order": schema::<Order>(), "registry": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": schema::<Entry>(),
    } })
}

fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().into()
}

/// All keys with their meaning, type and default; what must be there comes first.
pub fn text() -> String {
    let (experiment, entry) = (schema::<Experiment>(), schema::<Entry>());
    let mut list = List::default();
    list.line(0, "An experiment, the file of --config:");
    let is_table = |key: &Key<'_>| item(key.schema).get("properties").is_some();
    let (tables, plain): (Vec<_>, Vec<_>) = properties(&experiment).into_iter().partition(is_table);
    plain.iter().for_each(|key| list.key(1, key));
    for Key { name, schema, required } in tables {
        let repeats = schema.get("items").is_some();
        list.section = if repeats { format!("[[{name}]]") } else { format!("[{name}]") };
        let must = if required { "; required" } else { "" };
        list.line(0, &format!("\n{} {}{must}", list.section, meaning(schema)));
        list.parts(1, name, item(schema));
    }
    list.section = "[NAME]".into();
    list.line(0, "\nA data set, [NAME] in a file of --datasets:");
    list.parts(1, "", &entry);
    let (record, order, claim) = (schema::<Record>(), schema::<Order>(), schema::<Claim>());
    for (what, schema) in [
        ("A record, a line of results/NAME.jsonl: what a trial came to", &record),
        ("An order, the file of `embc trial`", &order),
        ("A [[claim]], of the file of `embc report --claims`", &claim),
    ] {
        list.line(0, &format!("\n{what}:"));
        properties(schema)
            .iter()
            .for_each(|key| list.line(1, &format!("{}: {}", key.name, meaning(key.schema))));
    }
    list.text
}

/// The list as far as it is written.
#[derive(Default)]
struct List<'a> {
    text: String,
    section: String,
    /// Choices that it explains, and where.
    explained: Vec<(Vec<&'a Value>, String)>,
}

impl<'a> List<'a> {
    fn line(&mut self, depth: usize, line: &str) {
        self.text += &("  ".repeat(depth) + line + "\n");
    }

    /// A key, and its parts below it.
    fn key(&mut self, depth: usize, key: &Key<'a>) {
        let schema = item(key.schema);
        let values = choices(schema);
        let earlier = self.explained.iter().find(|(known, _)| known.ends_with(&values));
        let earlier = earlier.map(|(_, place)| format!("as {place}"));
        let is_new = earlier.is_none();
        let kind = match earlier {
            Some(earlier) => earlier,
            None if values.len() > 1 => String::new(),
            None => kind(key.schema),
        };
        let default = match &key.schema["default"] {
            _ if key.required => "required".into(),
            Value::Null => String::new(),
            Value::String(text) if text.is_empty() => String::new(),
            Value::Array(list) if list.is_empty() => String::new(),
            Value::Object(table) if table.is_empty() => String::new(),
            value => format!("default {}", as_toml(value)),
        };
        let comma = if kind.is_empty() || default.is_empty() { "" } else { ", " };
        let bracket = match format!("{kind}{comma}{default}") {
            empty if empty.is_empty() => empty,
            text => format!(" ({text})"),
        };
        self.line(depth, &format!("{}: {}{bracket}", key.name, meaning(key.schema)));
        if is_new {
            self.parts(depth + 1, key.name, schema);
        }
    }

    /// The keys of a table, or the values of a choice.
    fn parts(&mut self, depth: usize, name: &'a str, schema: &'a Value) {
        properties(schema).iter().for_each(|key| self.key(depth, key));
        if let Some(schema) = schema.get("additionalProperties").filter(|s| s.is_object()) {
            self.key(depth, &Key { name: "NAME", schema, required: false });
        }
        let values = choices(schema);
        if values.len() > 1 {
            for choice in &values {
                self.line(depth, &format!("{}: {}", kind(choice), meaning(choice)));
                let described = |key: &&Key<'_>| !meaning(key.schema).is_empty();
                let keys = properties(choice);
                keys.iter().filter(described).for_each(|key| self.key(depth + 1, key));
            }
            self.explained.push((values, format!("{} {name}", self.section)));
        }
    }
}

struct Key<'a> {
    name: &'a str,
    schema: &'a Value,
    required: bool,
}

/// The keys of a table: tags first, then those that must be there.
fn properties(schema: &Value) -> Vec<Key<'_>> {
    let required = |name: &str| {
        let names = schema["required"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).any(|known| known == name)
    };
    let keys = schema["properties"].as_object().into_iter().flatten();
    let mut keys: Vec<Key<'_>> =
        keys.map(|(name, schema)| Key { name, schema, required: required(name) }).collect();
    keys.sort_by_key(|key| (key.schema.get("const").is_none(), !key.required));
    keys
}

/// What a list or an optional value holds.
fn item(schema: &Value) -> &Value {
    match (schema.get("items"), &choices(schema)[..]) {
        (Some(items), _) => item(items),
        (None, [only]) if !std::ptr::eq(*only, schema) => item(only),
        _ => schema,
    }
}

/// The schemas that a value may have, null aside.
fn choices(schema: &Value) -> Vec<&Value> {
    match schema.get("oneOf").or(schema.get("anyOf")).and_then(Value::as_array) {
        Some(all) => all.iter().flat_map(choices).filter(|one| one["type"] != "null").collect(),
        None => vec![schema],
    }
}

/// What kind of value it is, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items).replace("table", "tables"));
    }
    let mut inline = properties(schema).into_iter().map_while(|key| {
        let plain = !key.schema["const"].is_null() || meaning(key.schema).is_empty();
        plain.then(|| format!("{} = {}", key.name, kind(key.schema)))
    });
    if let Some(first) = inline.next() {
        let more = properties(schema).len() > 1;
        return format!("{{ {first}{} }}", if more { ", …" } else { "" });
    }
    match &schema["type"] {
        Value::String(name) => name.replace("object", "table"),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.collect::<Vec<_>>().join(" or ").replace("object", "table")
        }
        _ => match &choices(schema)[..] {
            [only] if !std::ptr::eq(*only, schema) => kind(only),
            _ => "table".into(),
        },
    }
}

fn meaning(schema: &Value) -> String {
    let description = schema["description"].as_str().unwrap_or_default();
    description.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').into()
}

fn as_toml(value: &Value) -> String {
    match value {
        Value::Object(table) => {
            let keys = table.iter().map(|(key, value)| format!("{key} = {}", as_toml(value)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        // What a program of single precision calls .9.
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            let short = number as f32;
            if f64::from(short) == number { short.to_string() } else { number.to_string() }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_meaning() {
        fn check(name: &str, schema: &Value) {
            for key in properties(schema).into_iter().filter(|k| k.schema.get("const").is_none()) {
                let name = format!("{name}.{}", key.name);
                assert!(!meaning(key.schema).is_empty(), "{name} says nothing");
                check(&name, item(key.schema));
            }
            for choice in
                choices(schema).into_iter().filter(|choice| !std::ptr::eq(*choice, schema))
            {
                let name = format!("{name} {}", kind(choice));
                assert!(!meaning(choice).is_empty(), "{name} says nothing");
                if properties(choice).len() > 1 {
                    check(&name, choice);
                }
            }
        }
        check("experiment", &schema::<Experiment>());
        check("registry", &schema::<Entry>());
        check("record", &schema::<Record>());
        check("order", &schema::<Order>());
    }

    #[test]
    fn text_names_types_defaults_and_choices() {
        let text = text();
        for line in [
            "\n[budget] ",
            "\n[[scheme]] ",
            "\n  batch: Examples a step (integer, required)\n",
            "\n    { kind = \"sgd\", … }: w -= lr g\n      lr: Learning rate (number, required)\n",
            "\n      beta2: Decay of the second moment, 0.999 by default (number)\n",
            "\n  vocab: Which ids exist (default \"train\")\n    \"train\": Those of training rows",
            "\n    { uniform = number }: U(±x)\n",
            "\n  split: The default split (as [data] split)\n",
            "\n  bytes: Bytes of all tables, pointers and codes included, such as \"50MiB\" (list of integer or string)\n",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
}
