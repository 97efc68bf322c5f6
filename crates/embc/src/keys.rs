//! Every key of a config and of a registry, as the types that read them know it: `embc list keys`.
//!
//! The meanings are the types' own comments, so that no key can be without one or out of date.

use crate::config::Experiment;
use embc_data::registry::Entry;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use std::fmt::Write;

/// JSON Schemas of an experiment and of a registry, for editors and checkers.
pub fn schemas() -> Value {
    json!({ "experiment": schema::<Experiment>(), "registry": {
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
    let mut text = String::from("An experiment, the file of --config:\n");
    let experiment = schema::<Experiment>();
    let is_table = |part: &Value| item(part).get("properties").is_some();
    let (tables, plain): (Vec<_>, Vec<_>) =
        properties(&experiment).into_iter().partition(|key| is_table(key.schema));
    for key in plain {
        key.write(&mut text, 1);
    }
    for Key { name, schema, required } in tables {
        let list = schema.get("items").is_some();
        let name = if list { format!("[[{name}]]") } else { format!("[{name}]") };
        let must = if required { "; required" } else { "" };
        let _ = writeln!(text, "\n{name} {}{must}", meaning(schema));
        children(&mut text, schema, 1);
    }
    text += "\nA data set, [NAME] in a file of --datasets:\n";
    children(&mut text, &schema::<Entry>(), 1);
    text
}

struct Key<'a> {
    name: &'a str,
    schema: &'a Value,
    required: bool,
}

impl Key<'_> {
    /// A line, and its parts below it.
    fn write(&self, text: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        let default = match self.schema.get("default") {
            _ if self.required => ", required".into(),
            Some(Value::Null) | None => String::new(),
            Some(default) => format!(", default {}", as_toml(default)),
        };
        let (name, meaning, kind) = (self.name, meaning(self.schema), kind(self.schema));
        let _ = writeln!(text, "{indent}{name}: {meaning} ({kind}{default})");
        children(text, self.schema, depth + 1);
    }
}

/// The keys of a table, or the values of a choice, with their meanings.
fn children(text: &mut String, schema: &Value, depth: usize) {
    let schema = item(schema);
    for key in properties(schema) {
        key.write(text, depth);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        Key { name: "NAME", schema: values, required: false }.write(text, depth);
    }
    let choices = choices(schema);
    if choices.len() > 1 && choices.iter().any(|choice| choice.get("description").is_some()) {
        for choice in choices {
            let _ = writeln!(text, "{}{}: {}", "  ".repeat(depth), kind(choice), meaning(choice));
            let keys =
                properties(choice).into_iter().filter(|key| key.schema.get("const").is_none());
            keys.for_each(|key| key.write(text, depth + 1));
        }
    }
}

/// The keys of a table, those first that must be there.
fn properties(schema: &Value) -> Vec<Key<'_>> {
    let required = |name: &str| {
        let names = schema["required"].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).any(|known| known == name)
    };
    let keys = schema["properties"].as_object().into_iter().flatten();
    let mut keys: Vec<Key<'_>> =
        keys.map(|(name, schema)| Key { name, schema, required: required(name) }).collect();
    keys.sort_by_key(|key| !key.required);
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
    let choices = choices(schema);
    if choices.len() > 1 {
        let kinds: Vec<String> = choices.into_iter().map(kind).collect();
        return kinds.join(" | ");
    }
    let schema = choices[0];
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> =
            values.iter().filter(|value| !value.is_null()).map(Value::to_string).collect();
        return values.join(" | ");
    }
    if let Some(items) = schema.get("items") {
        return format!("list of {}", kind(items));
    }
    let keys = properties(schema).into_iter().map(|key| match key.schema.get("const") {
        Some(value) => format!("{} = {value}", key.name),
        None => format!("{} = …", key.name),
    });
    let keys: Vec<String> = keys.collect();
    match &schema["type"] {
        _ if !keys.is_empty() => format!("{{ {} }}", keys.join(", ")),
        Value::String(name) if name == "object" => "table".into(),
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            names.collect::<Vec<_>>().join(" | ")
        }
        _ => "value".into(),
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
            let choices = choices(schema);
            if choices.len() > 1 {
                choices.into_iter().for_each(|choice| check(name, choice));
            }
        }
        check("experiment", &schema::<Experiment>());
        check("registry", &schema::<Entry>());
    }

    #[test]
    fn text_names_types_defaults_and_choices() {
        let text = text();
        for line in [
            "\n[budget] ",
            "\n[[scheme]] ",
            "\n  batch: Examples a step (integer, required)\n",
            "\n    lr: Learning rate (number, required)\n",
            "\n    beta2: Decay of the second moment (adam, adamw) (number, default 0.999)\n",
            "\n    \"train\": Those of training rows; all others are one OOV id\n",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
}
