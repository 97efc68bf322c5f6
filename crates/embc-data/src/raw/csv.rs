//! A user's own table: `columns` in the registry says what each column means.

use super::delimited::{Column, Layout};
use super::{Field, Format, Role, Sink};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::Entry;

pub(super) struct Csv;

/// The label that makes every row a positive.
const ALL_POSITIVE: &str = "all-positive";

fn layout(entry: &Entry) -> Result<Layout> {
    let wrong = |what: String| Error::Data(format!("data set {}: {what}", entry.name));
    let c = entry.columns.as_ref().ok_or_else(|| {
        wrong("format = \"csv\" needs columns = { label = …, categorical = […] }".into())
    })?;
    let delimiter = u8::try_from(c.delimiter)
        .map_err(|_| wrong(format!("columns.delimiter {:?} is not one byte", c.delimiter)))?;
    if c.categorical.is_empty() && c.multi.is_empty() {
        return Err(wrong("columns names no categorical or multi column".into()));
    }
    let column =
        |name: &String, role| (Column::Named(vec![name.clone()]), Field::new(name.clone(), role));
    let mut columns = Vec::new();
    if c.label != ALL_POSITIVE {
        columns.push(column(&c.label, if c.rating { Role::Rating } else { Role::Label }));
    }
    columns.extend(c.time.iter().map(|name| column(name, Role::Time)));
    columns.extend(c.dense.iter().map(|name| column(name, Role::Dense)));
    columns.extend(c.categorical.iter().map(|name| column(name, Role::Categorical)));
    columns.extend(c.multi.iter().map(|m| column(&m.name, Role::Multi(m.separator))));
    columns.extend(entry.split_columns().iter().map(|name| column(name, Role::Tag)));
    Ok(Layout { delimiter, quoting: true, header: c.header, width: None, columns })
}

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }
    fn doc(&self) -> &'static str {
        "any table of text; columns = { label, dense, categorical, multi } say what it holds"
    }
    fn fields(&self, entry: &Entry) -> Result<Vec<Field>> {
        Ok(layout(entry)?.fields())
    }
    fn dense(&self) -> crate::view::Dense {
        crate::view::Dense::Standard
    }
    fn read(&self, entry: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        layout(entry)?.read(input, sink)
    }
}
