//! A user's own table: `columns` in the registry says what each column means.

use super::delimited::{Dialect, Layout, Place};
use super::recoded::UNIT;
use super::{Field, Format, Role, Sink};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::{Columns, Decimal, Encoding, Entry, Multi, OnError, Quote, Weights};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Csv;

/// The label that makes every row a positive.
pub(crate) const ALL_POSITIVE: &str = "all-positive";

pub(crate) fn layout(entry: &Entry) -> Result<Layout> {
    let wrong = |what: String| Error::Data(format!("data set {}: {what}", entry.name));
    let c = entry.columns.as_ref().ok_or_else(|| {
        wrong(format!(
            "format = {:?} needs columns = {{ label = …, categorical = […] }}",
            entry.format
        ))
    })?;
    let (delimiter, twice) = delimiter(c).map_err(wrong)?;
    let escape = c.escape.map(u8::try_from).transpose();
    let escape = escape.map_err(|_| wrong("columns.escape is not one byte".into()))?;
    if escape.is_some() && c.quote == Quote::None {
        return Err(wrong("columns.escape is read inside quotes, and quote = \"none\"".into()));
    }
    if c.categorical.is_empty() && c.multi.is_empty() {
        return Err(wrong("columns names no categorical or multi column".into()));
    }
    let of_text = [
        ("delimiter", c.delimiter != ","),
        ("header", !c.header),
        ("quote", c.quote != Quote::Double),
        ("escape", c.escape.is_some()),
        ("encoding", c.encoding != Encoding::Utf8),
        ("decimal", c.decimal != Decimal::Point),
    ];
    if let Some((key, _)) = of_text.iter().find(|(_, given)| *given && entry.format != "csv") {
        return Err(wrong(format!("columns.{key} is read with format = \"csv\"; remove it")));
    }
    check_label(c).and_then(|()| check_names(c)).map_err(wrong)?;
    let mut columns = columns_of(c, &entry.split_columns()).map_err(wrong)?;
    let multi: BTreeMap<String, Multi> =
        c.multi.iter().map(|m| (m.name.clone(), m.clone())).collect();
    if c.as_written {
        // What they mean is not known yet.
        columns.iter_mut().for_each(|(_, field)| field.role = Role::Tag);
    }
    let dialect = Dialect {
        // A doubled delimiter has no quotes.
        quoting: c.quote == Quote::Double && twice.is_none(),
        escape,
        twice,
        latin1: c.encoding == Encoding::Latin1,
        comma: c.decimal == Decimal::Comma,
        positive: c.positive.clone(),
        skip: c.on_error == OnError::Skip,
        words: (!c.as_written).then_some(multi),
    };
    Ok(Layout { delimiter, dialect, header: c.header, width: None, columns })
}

/// The byte between columns; and which one stands there twice.
fn delimiter(c: &Columns) -> std::result::Result<(u8, Option<u8>), String> {
    match c.delimiter.as_bytes() {
        [one] => Ok((*one, None)),
        [one, two] if one == two => Ok((UNIT, Some(*one))),
        _ => Err(format!("columns.delimiter {:?} is not one byte, or one twice", c.delimiter)),
    }
}

/// All columns with their roles, those that splits read last.
fn columns_of(c: &Columns, tags: &[String]) -> std::result::Result<Vec<(Place, Field)>, String> {
    let column =
        |name: &String, role| (Place::Named(vec![name.clone()]), Field::new(name.clone(), role));
    let mut columns = Vec::new();
    if c.label != ALL_POSITIVE {
        let role = match (c.rating, c.classes) {
            (true, _) => Role::Rating,
            (_, true) => Role::Class,
            _ => Role::Label,
        };
        columns.push(column(&c.label, role));
    }
    columns.extend(c.weight.iter().map(|name| column(name, Role::Weight)));
    columns.extend(c.time.iter().map(|name| column(name, Role::Time)));
    columns.extend(c.dense.iter().map(|name| column(name, Role::Dense)));
    columns.extend(c.categorical.iter().map(|name| column(name, Role::Categorical)));
    for multi in &c.multi {
        columns.push(column(&multi.name, Role::Multi(multi.separator()?)));
    }
    columns.extend(tags.iter().map(|name| column(name, Role::Tag)));
    Ok(columns)
}

fn check_label(c: &Columns) -> std::result::Result<(), String> {
    let all = c.label == ALL_POSITIVE;
    match () {
        () if all && (c.rating || c.classes) => {
            Err("columns: label = \"all-positive\" names no column, so rating and classes say nothing of it".into())
        }
        () if c.positive.is_some() && (all || c.rating || c.classes) => {
            Err("columns.positive is of a label of two texts: no rating, no class".into())
        }
        () if c.rating && c.classes => Err("columns: a label is a rating or a class, not both".into()),
        () if c.classes && c.negatives > 0 => {
            Err("columns.negatives are labels 0, which classes do not have".into())
        }
        () => Ok(()),
    }
}

/// A column is the label or a feature, and one feature only. What sorts or splits may be either.
fn check_names(c: &Columns) -> std::result::Result<(), String> {
    let mut seen = BTreeSet::new();
    let multi = c.multi.iter().map(|m| &m.name);
    for name in c.weight.iter().chain(&c.dense).chain(&c.categorical).chain(multi) {
        if *name == c.label {
            return Err(format!(
                "columns: {name} is the label, and as a feature it would give the answer away"
            ));
        }
        if !seen.insert(name) {
            return Err(format!("columns names {name} twice"));
        }
    }
    Ok(())
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

impl Multi {
    /// What stands between values: one character, spaces around it aside.
    fn separator(&self) -> std::result::Result<char, String> {
        let text = self.separator.trim();
        let text = if text.is_empty() { &self.separator[..] } else { text };
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(separator), None) => Ok(separator),
            _ if self.separator.trim().is_empty() && !self.separator.is_empty() => Ok(' '),
            _ => Err(format!(
                "columns.multi {}: separator {:?} is not one character",
                self.name, self.separator
            )),
        }
    }

    /// A value as it is kept: trimmed, without a weight that is dropped; none that is missing or pads.
    pub(crate) fn kept<'a>(&self, value: &'a str) -> Option<&'a str> {
        let value = match self.weights {
            Some(Weights::Drop) => super::words::unweighted(value.trim()),
            _ => value.trim(),
        };
        let value =
            super::words::whole(value.as_bytes()).map_or(value, |whole| &value[..whole.len()]);
        let pads = self.pad.as_deref() == Some(value);
        (!super::words::is_missing(value.as_bytes()) && !pads).then_some(value)
    }
}
