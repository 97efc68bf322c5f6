//! Cells of text become rows, by what each column is said to be.

use super::delimited::{Dialect, Layout, Place};
use super::{Field, Note, Role, Row, words};
use crate::error::{Error, Result};
use crate::registry::Multi;
use std::path::Path;

/// A value of a user's own table: spaces, words for missing, and whole numbers as floats aside.
fn as_written<'a>(row: &mut Row, index: usize, role: Role, value: &'a [u8]) -> &'a [u8] {
    let trimmed = value.trim_ascii();
    let id = matches!(role, Role::Categorical | Role::Class | Role::Tag);
    if trimmed.len() != value.len() && id {
        row.notes.push((index, Note::Trimmed));
    }
    let feature = matches!(role, Role::Categorical | Role::Multi(_) | Role::Dense);
    if feature && words::is_missing(trimmed) {
        if !trimmed.is_empty() {
            row.notes.push((index, Note::Missing));
        }
        return b"";
    }
    let whole = trimmed.strip_suffix(b".0").filter(|digits| {
        let digits = digits.strip_prefix(b"-").unwrap_or(digits);
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    });
    match whole {
        Some(whole) if role == Role::Categorical => {
            row.notes.push((index, Note::Whole));
            whole
        }
        _ => trimmed,
    }
}

/// Rows of a table on their way, from cells of text, whatever file they are in.
pub(super) struct Cells<'a> {
    layout: &'a Layout,
    path: &'a Path,
    /// Where each column's cell is.
    places: Vec<usize>,
    row: Row,
    doubts: Doubts,
}

impl<'a> Cells<'a> {
    /// Of a layout whose columns are at such places.
    pub fn new(
        layout: &'a Layout,
        path: &'a Path,
        places: std::result::Result<Vec<usize>, String>,
    ) -> std::result::Result<Self, String> {
        let doubts = Doubts::new(&layout.dialect, &layout.columns);
        Ok(Self { layout, path, places: places?, row: Row::default(), doubts })
    }

    /// The row of the `columns` cells of a line.
    pub fn row<'c>(
        &mut self,
        line: u64,
        columns: usize,
        cell: impl Fn(usize) -> Option<&'c [u8]>,
    ) -> Result<&Row> {
        let Self { layout, path, places, row, doubts } = self;
        row.clear();
        for (index, ((_, field), &place)) in layout.columns.iter().zip(&*places).enumerate() {
            let value = cell(place).ok_or_else(|| {
                let what = format!("{columns} columns, but {} is column {}", field.name, place + 1);
                Error::line(path, line, what)
            })?;
            let value = match layout.dialect.words {
                Some(_) => as_written(row, index, field.role, value),
                None => value,
            };
            let multi = layout.dialect.words.as_ref().and_then(|w| w.get(&field.name));
            fill(row, field, value, multi).map_err(|wrong| wrong.at(field, value, path, line))?;
        }
        doubts.hear(row);
        Ok(row)
    }

    /// After the last row: refuses columns that seem to hold something else than they are said to.
    pub fn finish(self) -> Result<()> {
        self.doubts.refuse(self.path)
    }
}

/// Columns of several ids that seem to hold something else: weights, or padding.
struct Doubts {
    of: Vec<Doubt>,
}

struct Doubt {
    name: String,
    /// Index among the coded columns of a row.
    column: usize,
    weights: bool,
    padding: bool,
    values: u64,
    weighted: u64,
    rows: u64,
    /// Values of each row, while all have as many.
    length: Option<usize>,
    /// Rows that end in zeros, while zeros stand at ends alone.
    padded: Option<u64>,
}

impl Doubts {
    fn new(dialect: &Dialect, columns: &[(Place, Field)]) -> Self {
        let coded = columns.iter().map(|(_, field)| field).filter(|field| field.role.is_coded());
        let doubt = |(column, field): (usize, &Field)| {
            let multi = dialect.words.as_ref()?.get(&field.name)?;
            let (weights, padding) = (multi.weights.is_none(), multi.pad.is_none());
            (weights || padding).then(|| Doubt {
                name: field.name.clone(),
                column,
                weights,
                padding,
                values: 0,
                weighted: 0,
                rows: 0,
                length: None,
                padded: Some(0),
            })
        };
        Self { of: coded.enumerate().filter_map(doubt).collect() }
    }

    fn hear(&mut self, row: &Row) {
        for doubt in &mut self.of {
            let (mut length, mut zeros, mut inside) = (0, 0, false);
            for value in row.values(doubt.column) {
                length += 1;
                let text = std::str::from_utf8(value).unwrap_or_default();
                doubt.weighted += u64::from(words::is_weighted(text));
                inside |= zeros > 0 && value != b"0";
                zeros += usize::from(value == b"0");
            }
            doubt.values += length as u64;
            if length == 0 {
                continue;
            }
            let alike = doubt.rows == 0 || doubt.length == Some(length);
            doubt.length = alike.then_some(length);
            doubt.padded = doubt.padded.filter(|_| !inside).map(|n| n + u64::from(zeros > 1));
            doubt.rows += 1;
        }
    }

    fn refuse(&self, path: &Path) -> Result<()> {
        for Doubt { name, values, weighted, length, padded, rows, .. } in &self.of {
            let doubt = self.of.iter().find(|doubt| doubt.name == *name).expect("itself");
            if doubt.weights && *values > 0 && weighted == values {
                return Err(Error::file(
                    path,
                    format!(
                        "the values of {name} have weights, such as Comedy:0.9, which embc does not read: weights = \"drop\" in its entry of columns.multi leaves them out, \"keep\" makes them part of the value"
                    ),
                ));
            }
            let many = padded.is_some_and(|n| 10 * n > *rows);
            if let Some(length) = length.filter(|&n| n > 1 && many && doubt.padding) {
                return Err(Error::file(
                    path,
                    format!(
                        "all rows have {length} values of {name}, of which the last are often 0: if that is padding, say pad = \"0\" in its entry of columns.multi, else pad = \"\""
                    ),
                ));
            }
        }
        Ok(())
    }
}

enum Wrong {
    Number,
    Integer,
    Other(&'static str),
}

impl Wrong {
    fn at(self, field: &Field, value: &[u8], path: &Path, line: u64) -> Error {
        let what = match self {
            Wrong::Number => "not a number",
            Wrong::Integer => {
                "not a time: an integer, a decimal number, or a date such as 2024-01-31 12:30:59"
            }
            Wrong::Other(what) => what,
        };
        let shown = String::from_utf8_lossy(&value[..value.len().min(40)]);
        Error::line(path, line, format!("{} is {shown:?}, which is {what}", field.name))
    }
}

fn fill(
    row: &mut Row,
    field: &Field,
    value: &[u8],
    multi: Option<&Multi>,
) -> std::result::Result<(), Wrong> {
    let float = |value: &[u8]| -> std::result::Result<f64, Wrong> {
        // Short integers, as most numbers are, without the general parser.
        if let 1..=7 = value.len()
            && value.iter().all(u8::is_ascii_digit)
        {
            return Ok(value.iter().fold(0, |n, digit| 10 * n + u32::from(digit - b'0')).into());
        }
        let text = std::str::from_utf8(value).map_err(|_| Wrong::Number)?;
        let parsed: f64 = text.trim().parse().map_err(|_| Wrong::Number)?;
        if parsed.is_finite() { Ok(parsed) } else { Err(Wrong::Other("not finite")) }
    };
    let utf8 = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(Wrong::Other("not valid UTF-8; convert the file first")),
    };
    match field.role {
        Role::Label => {
            let what = "not a label: it must be 0 or 1, true or false, yes or no";
            row.label = words::label(value).ok_or(Wrong::Other(what))?;
        }
        Role::Rating => row.label = float(value)?,
        Role::Time => {
            row.time = words::time(value).ok_or(Wrong::Integer)?;
            row.dated = words::is_date(value);
        }
        Role::Dense if value.is_empty() => row.dense.push(f64::NAN),
        Role::Dense => row.dense.push(float(value)?),
        Role::Hex => {
            if value.len() > 8 || !value.iter().fold(true, |hex, b| hex & b.is_ascii_hexdigit()) {
                return Err(Wrong::Other("not a hexadecimal category of at most 8 digits"));
            }
            row.value(value);
            row.end_column();
        }
        Role::Class if value.is_empty() => return Err(Wrong::Other("no class")),
        Role::Categorical | Role::Class | Role::Tag => {
            utf8(value)?;
            row.value(value);
            row.end_column();
        }
        Role::Multi(separator) => {
            utf8(value)?;
            let text = std::str::from_utf8(value).unwrap_or_default();
            match multi {
                Some(multi) => several(row, text, separator, multi),
                None => {
                    let parts = text.split(separator).filter(|part| !part.is_empty());
                    parts.for_each(|part| row.value(part.as_bytes()));
                }
            }
            row.end_column();
        }
    }
    Ok(())
}

/// The values of a user's own column of several: a list, or parts between separators, trimmed.
fn several(row: &mut Row, text: &str, separator: char, multi: &Multi) {
    let mut one = |part: &str| {
        let part = multi.unweighted(part.trim());
        let pads = multi.pad.as_deref().is_some_and(|pad| pad == part);
        if !words::is_missing(part.as_bytes()) && !pads {
            row.value(part.as_bytes());
        }
    };
    match words::list(text) {
        Some(values) => values.iter().for_each(|value| one(value)),
        None => text.split(separator).for_each(one),
    }
}
