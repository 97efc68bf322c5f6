//! A user's own log: a JSON object a line. The same `columns` as of a CSV file, by key; what a value
//! would be in a CSV file is what it is here, so that one table in both gives the same data.

use super::cells::Cells;
use super::csv::layout;
use super::{Field, Format, Sink};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::Entry;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct JsonLines;

impl Format for JsonLines {
    fn name(&self) -> &'static str {
        "jsonl"
    }
    fn doc(&self) -> &'static str {
        "a JSON object a line; columns = { label, dense, categorical, multi } say what its keys hold"
    }
    fn fields(&self, entry: &Entry) -> Result<Vec<Field>> {
        Ok(layout(entry)?.fields())
    }
    fn dense(&self) -> crate::view::Dense {
        crate::view::Dense::Standard
    }
    fn read(&self, entry: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        let (layout, path) = (layout(entry)?, input.path.clone());
        let names: Vec<&str> = layout.columns.iter().map(|(_, field)| &field.name[..]).collect();
        let mut seen = vec![false; names.len()];
        let at = (0..names.len()).collect();
        // Keys that occur too late for `embc init` to have seen.
        let (mut others, as_written) = (BTreeSet::new(), layout.dialect.words.is_none());
        let mut cells = Cells::new(&layout, &path, Ok(at)).expect("places are given");
        input.lines(|line, text| {
            let object = serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(text);
            let values = object.and_then(|object| {
                if as_written && others.len() < 20 {
                    let late = object.keys().filter(|key| !names.contains(&&***key));
                    others.extend(late.map(|key| key.to_string()));
                }
                let value = |(name, seen): (&&str, &mut bool)| {
                    let value = object.get(*name);
                    *seen |= value.is_some();
                    value.map_or(Ok(Cow::Borrowed(&b""[..])), |value| cell(value))
                };
                names.iter().zip(&mut seen).map(value).collect::<serde_json::Result<Vec<_>>>()
            });
            match values {
                Ok(values) => {
                    cells.push(line, values.len(), |place| values.get(place).map(|v| &v[..]), sink)
                }
                Err(error) => {
                    let text = String::from_utf8_lossy(text);
                    let hint = ["NaN", "Infinity"].into_iter().find(|word| text.contains(word));
                    let hint = hint
                        .map_or(String::new(), |word| format!("; {word} is no JSON: write null"));
                    let what = format!("not a JSON object: {error}{hint}");
                    cells.refuse(Error::line(&path, line, what), sink)
                }
            }
        })?;
        if !others.is_empty() {
            let others = others.into_iter().collect::<Vec<_>>().join(", ");
            tracing::warn!(
                "{}: keys that no object of the beginning has are left out: {others}",
                path.display()
            );
        }
        // Of several files one may lack a key.
        if entry.files.len() > 1 {
            return cells.finish();
        }
        if let Some((name, _)) = names.iter().zip(seen).find(|(_, seen)| !seen) {
            return Err(Error::file(&path, format!("no object has the key {name}")));
        }
        cells.finish()
    }
}

/// A value as a CSV file has it: text without quotes, nothing for null, lists and numbers as written.
fn cell(value: &RawValue) -> std::result::Result<Cow<'_, [u8]>, serde_json::Error> {
    Ok(match value.get() {
        "null" => Cow::Borrowed(b""),
        text if text.starts_with('"') => match serde_json::from_str::<Cow<'_, str>>(text)? {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
        text => Cow::Borrowed(text.as_bytes()),
    })
}
