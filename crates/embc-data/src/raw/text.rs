//! Documents as JSON lines; tokens are runs of a-z after lower-casing.

use super::{Field, Format, Role, Row, Sink};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::Entry;
use std::borrow::Cow;

pub(super) struct Text;

#[derive(serde::Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    split: Cow<'a, str>,
    #[serde(borrow)]
    label: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl Format for Text {
    fn name(&self) -> &'static str {
        "text-jsonl"
    }
    fn doc(&self) -> &'static str {
        "one JSON object a line with split, label and text; tokens are [a-z]+ of the lower-cased text"
    }
    fn fields(&self, _: &Entry) -> Result<Vec<Field>> {
        Ok(vec![
            Field::new("label", Role::Class),
            Field::new("split", Role::Tag),
            Field::new("text", Role::Multi(' ')),
        ])
    }
    fn read(&self, _: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        let path = input.path.clone();
        let mut row = Row::default();
        let mut lower = Vec::new();
        input.lines(|number, line| {
            let document: Document<'_> = serde_json::from_slice(line)
                .map_err(|error| Error::line(&path, number, format!("not a document: {error}")))?;
            row.clear();
            for value in [&document.label, &document.split] {
                row.value(value.as_bytes());
                row.end_column();
            }
            lower.clear();
            lower.extend(document.text.bytes().map(|b| b.to_ascii_lowercase()));
            for token in lower.split(|b| !b.is_ascii_lowercase()).filter(|t| !t.is_empty()) {
                row.value(token);
            }
            row.end_column();
            sink.row(&row)
        })
    }
}
