//! libsvm and libffm: a label, then `index:value` or `field:index:value` for each feature of a row.
//! Features are ids: what is not 1 would be lost, and is refused unless `weights` say otherwise.

use super::{Field, Format, Role, Row, Sink, words};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::{Entry, Weights};
use std::path::Path;

pub(super) struct Libsvm;
pub(super) struct Libffm;

/// The one column of libsvm.
const FEATURES: &str = "features";

fn multi(entry: &Entry) -> Result<Vec<&crate::registry::Multi>> {
    match &entry.columns {
        Some(c) if !c.multi.is_empty() => {
            let unread = [
                ("label", c.label != "label"),
                ("classes", c.classes),
                ("rating", c.rating),
                ("positive", c.positive.is_some()),
                ("user", c.user.is_some()),
                ("item", c.item.is_some()),
                ("weight", c.weight.is_some()),
                ("time", c.time.is_some()),
                ("dense", !c.dense.is_empty()),
                ("categorical", !c.categorical.is_empty()),
                ("negatives", c.negatives > 0),
                ("delimiter", c.delimiter != ","),
                ("header", !c.header),
            ];
            match unread.iter().find(|(_, given)| *given) {
                Some((key, _)) => Err(Error::Data(format!(
                    "data set {}: columns.{key}: {} has a label, called \"label\", and multi columns",
                    entry.name, entry.format
                ))),
                None => Ok(c.multi.iter().collect()),
            }
        }
        _ => Err(Error::Data(format!(
            "data set {}: format = {:?} needs columns = {{ label = \"label\", multi = [{{ name = …, separator = \" \" }}, …] }}: {}",
            entry.name,
            entry.format,
            match entry.format == "libsvm" {
                true => "one, called features",
                false => "one for each field, by its number",
            }
        ))),
    }
}

fn fields(entry: &Entry) -> Result<Vec<Field>> {
    let features = multi(entry)?.into_iter().map(|m| Field::new(&m.name, Role::Multi(' ')));
    Ok([Field::new("label", Role::Label)].into_iter().chain(features).collect())
}

/// Streams rows; `by_field` where each feature says its field.
fn read(entry: &Entry, input: Input<'_>, sink: Sink<'_>, by_field: bool) -> Result<()> {
    let (columns, path) = (multi(entry)?, input.path.clone());
    let mut row = Row::default();
    let mut of: Vec<Vec<Vec<u8>>> = vec![Vec::new(); columns.len()];
    input.lines(|line, text| {
        let wrong = |what: String| Error::line(&path, line, what);
        let mut parts = text.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty());
        let Some(label) = parts.next() else { return Ok(()) };
        row.clear();
        // libsvm's −1 is a 0.
        let label = if label == b"-1" { b"0" } else { label };
        row.label = words::label(label).ok_or_else(|| {
            wrong(format!("label is {:?}, which is neither 0 nor 1", show(label)))
        })?;
        of.iter_mut().for_each(Vec::clear);
        for part in parts {
            let mut pieces = part.split(|&byte| byte == b':');
            let field =
                if by_field { pieces.next().unwrap_or_default() } else { FEATURES.as_bytes() };
            let (Some(index), Some(value), None) = (pieces.next(), pieces.next(), pieces.next())
            else {
                let form = if by_field { "field:index:value" } else { "index:value" };
                return Err(wrong(format!("{:?} is not {form}", show(part))));
            };
            let Some(at) = columns.iter().position(|c| c.name.as_bytes() == field) else {
                let known: Vec<&str> = columns.iter().map(|c| &c.name[..]).collect();
                return Err(wrong(format!(
                    "field {} is not in columns.multi, which has {}",
                    show(field),
                    known.join(", ")
                )));
            };
            of[at].push(kept(columns[at].weights, index, value, &path, line)?);
        }
        for values in &of {
            values.iter().for_each(|value| row.value(value));
            row.end_column();
        }
        sink.row(&row)
    })
}

/// A feature's id: its index, with its value where that is kept.
fn kept(
    weights: Option<Weights>,
    index: &[u8],
    value: &[u8],
    path: &Path,
    line: u64,
) -> Result<Vec<u8>> {
    let number: Option<f64> = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    let number = number
        .filter(|x| x.is_finite())
        .ok_or_else(|| Error::line(path, line, format!("{:?} is not a number", show(value))))?;
    match weights {
        Some(Weights::Keep) => Ok([index, b":", value].concat()),
        None if number != 1.0 => Err(Error::line(
            path,
            line,
            format!(
                "feature {} has the value {}, and embc reads ids: weights = \"drop\" in its entry of columns.multi leaves values out, \"keep\" makes them part of the id",
                show(index),
                show(value)
            ),
        )),
        _ => Ok(index.to_vec()),
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned()
}

macro_rules! format {
    ($type:ty, $name:literal, $doc:literal, $by_field:literal) => {
        impl Format for $type {
            fn name(&self) -> &'static str {
                $name
            }
            fn doc(&self) -> &'static str {
                $doc
            }
            fn fields(&self, entry: &Entry) -> Result<Vec<Field>> {
                fields(entry)
            }
            fn read(&self, entry: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
                read(entry, input, sink, $by_field)
            }
        }
    };
}

format!(
    Libsvm,
    "libsvm", "a label, then index:value for each feature; one multi column, features", false
);
format!(
    Libffm,
    "libffm",
    "a label, then field:index:value for each feature; a multi column for each field",
    true
);
