//! Cells of text become rows, by what each column is said to be.

use super::delimited::{Layout, Place};
use super::{Field, Note, Role, Row, Sink, words};
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
    match words::whole(trimmed) {
        Some(whole) if matches!(role, Role::Categorical | Role::Class) => {
            row.notes.push((index, Note::Whole));
            whole
        }
        _ => trimmed,
    }
}

/// What a column's cells are read as, wherever they come from.
pub(crate) struct Reader<'a> {
    pub field: &'a Field,
    index: usize,
    /// A user's own table: words and lists are read.
    words: bool,
    /// Fractions stand after a comma.
    comma: bool,
    /// The label that means 1.
    pub positive: Option<&'a str>,
    pub multi: Option<&'a Multi>,
    doubt: Option<Doubt>,
}

impl<'a> Reader<'a> {
    /// A reader for each column.
    pub fn all(layout: &'a Layout) -> Vec<Self> {
        let words = layout.dialect.words.as_ref();
        let reader = |(index, (_, field)): (usize, &'a (Place, Field))| {
            let multi = words.and_then(|words| words.get(&field.name));
            let doubt = multi.and_then(Doubt::new);
            let number =
                matches!(field.role, Role::Dense | Role::Weight | Role::Rating | Role::Time);
            let comma = layout.dialect.comma && number;
            let positive = layout.dialect.positive.as_deref();
            let positive = positive.filter(|_| field.role == Role::Label);
            Self { field, index, words: words.is_some(), comma, positive, multi, doubt }
        };
        layout.columns.iter().enumerate().map(reader).collect()
    }

    /// Adds a cell to a row.
    pub fn read(&mut self, row: &mut Row, cell: &[u8]) -> std::result::Result<(), Wrong> {
        let value = match self.words {
            true => as_written(row, self.index, self.field.role, cell),
            false => cell,
        };
        let before = row.columns.len();
        if let (Some(positive), false) = (self.positive, value.is_empty()) {
            row.label = f64::from(u8::from(value == positive.as_bytes()));
        } else if self.comma && value.contains(&b',') {
            let point = |&byte: &u8| if byte == b',' { b'.' } else { byte };
            let value: Vec<u8> = value.iter().map(point).collect();
            fill(row, self.field, &value, self.multi)?;
        } else {
            fill(row, self.field, value, self.multi)?;
        }
        if row.columns.len() > before {
            self.hear(row.values(before));
        }
        Ok(())
    }

    /// True where nobody knows yet what the column means.
    pub fn as_written(&self) -> bool {
        !self.words && self.field.role == Role::Tag
    }

    /// True for an id in UTF-8 that is surely read as it stands; false asks [`read`](Self::read).
    pub fn is_plain(&self, id: &[u8]) -> bool {
        match (id, self.field.role) {
            (b"", role) => role == Role::Categorical,
            ([first, .., last], Role::Categorical | Role::Class | Role::Tag) => {
                !self.words
                    || first.is_ascii_graphic()
                        && last.is_ascii_graphic()
                        && !matches!(first, b'n' | b'N' | b'\\' | b'(')
                        && !id.ends_with(b".0")
            }
            _ => false,
        }
    }

    /// Takes note of a row's values.
    pub fn hear<'v>(&mut self, values: impl Iterator<Item = &'v [u8]>) {
        if let Some(doubt) = &mut self.doubt {
            doubt.hear(values);
        }
    }

    /// After the last row: refuses a column that seems to hold something else than it is said to.
    pub fn finish(&self, path: &Path) -> Result<()> {
        match &self.doubt {
            Some(doubt) => doubt.refuse(&self.field.name).map_err(|what| Error::file(path, what)),
            None => Ok(()),
        }
    }
}

/// Rows of a table on their way, from cells of text, whatever file they are in.
pub(crate) struct Cells<'a> {
    path: &'a Path,
    /// Where each column's cell is.
    places: Vec<usize>,
    readers: Vec<Reader<'a>>,
    skip: bool,
    row: Row,
}

impl<'a> Cells<'a> {
    /// Of a layout whose columns are at such places.
    pub fn new(
        layout: &'a Layout,
        path: &'a Path,
        places: std::result::Result<Vec<usize>, String>,
    ) -> std::result::Result<Self, String> {
        let (readers, skip) = (Reader::all(layout), layout.dialect.skip);
        Ok(Self { path, places: places?, readers, skip, row: Row::default() })
    }

    /// Hands on the row of the `columns` cells of a line.
    pub fn push<'c>(
        &mut self,
        line: u64,
        columns: usize,
        cell: impl Fn(usize) -> Option<&'c [u8]>,
        sink: Sink<'_>,
    ) -> Result<()> {
        let Self { path, places, readers, row, .. } = self;
        row.clear();
        for (reader, &place) in readers.iter_mut().zip(&*places) {
            let name = &reader.field.name;
            let read = match cell(place) {
                Some(value) => reader.read(row, value).map_err(|wrong| wrong.say(name, value)),
                None => Err(format!("{columns} columns, but {name} is column {}", place + 1)),
            };
            if let Err(what) = read {
                let error = Error::line(path, line, what);
                return self.refuse(error, sink);
            }
        }
        sink.row(row)
    }

    /// Of a row that cannot be read: an error, or one row fewer.
    pub fn refuse(&self, error: Error, sink: Sink<'_>) -> Result<()> {
        if self.skip { sink.skip(&error, 1) } else { Err(error) }
    }

    /// After the last row: refuses columns that seem to hold something else than they are said to.
    pub fn finish(self) -> Result<()> {
        self.readers.iter().try_for_each(|reader| reader.finish(self.path))
    }
}

/// Whether a column of several ids holds something else: weights, or padding.
pub(crate) struct Doubt {
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

impl Doubt {
    pub fn new(multi: &Multi) -> Option<Self> {
        let (weights, padding) = (multi.weights.is_none(), multi.pad.is_none());
        let (values, weighted, rows, length, padded) = (0, 0, 0, None, Some(0));
        let doubt = Self { weights, padding, values, weighted, rows, length, padded };
        (weights || padding).then_some(doubt)
    }

    pub fn hear<'v>(&mut self, values: impl Iterator<Item = &'v [u8]>) {
        let (mut length, mut zeros, mut inside) = (0, 0, false);
        for value in values {
            length += 1;
            let text = std::str::from_utf8(value).unwrap_or_default();
            self.weighted += u64::from(words::is_weighted(text));
            inside |= zeros > 0 && value != b"0";
            zeros += usize::from(value == b"0");
        }
        self.values += length as u64;
        if length == 0 {
            return;
        }
        let alike = self.rows == 0 || self.length == Some(length);
        self.length = alike.then_some(length);
        self.padded = self.padded.filter(|_| !inside).map(|n| n + u64::from(zeros > 1));
        self.rows += 1;
    }

    /// All values have weights.
    pub fn is_weighted(&self) -> bool {
        self.values > 0 && self.weighted == self.values
    }

    /// How many values each row has, where the last are often no more than padding.
    pub fn padded(&self) -> Option<usize> {
        let many = self.padded.is_some_and(|n| 10 * n > self.rows);
        self.length.filter(|&n| n > 1 && many)
    }

    fn refuse(&self, name: &str) -> std::result::Result<(), String> {
        if self.weights && self.is_weighted() {
            return Err(format!(
                "the values of {name} have weights, such as Comedy:0.9, which embc does not read: weights = \"drop\" in its entry of columns.multi leaves them out, \"keep\" makes them part of the value"
            ));
        }
        match self.padded().filter(|_| self.padding) {
            Some(length) => Err(format!(
                "all rows have {length} values of {name}, of which the last are often 0: if that is padding, say pad = \"0\" in its entry of columns.multi, else pad = \"\""
            )),
            None => Ok(()),
        }
    }
}

/// What is wrong with a value.
pub(crate) enum Wrong {
    Number,
    Integer,
    Other(&'static str),
}

impl Wrong {
    /// In words, with the column and the value.
    pub fn say(&self, name: &str, value: &[u8]) -> String {
        let what = match self {
            Wrong::Number => "not a number",
            Wrong::Integer => {
                "not a time: an integer, a decimal number, or a date such as 2024-01-31 12:30:59"
            }
            Wrong::Other(what) => what,
        };
        let shown = String::from_utf8_lossy(&value[..value.len().min(40)]);
        format!("{name} is {shown:?}, which is {what}")
    }
}

fn float(value: &[u8]) -> std::result::Result<f64, Wrong> {
    // Short integers, as most numbers are, without the general parser.
    if let 1..=7 = value.len()
        && value.iter().all(u8::is_ascii_digit)
    {
        return Ok(value.iter().fold(0, |n, digit| 10 * n + u32::from(digit - b'0')).into());
    }
    let text = std::str::from_utf8(value).map_err(|_| Wrong::Number)?;
    let parsed: f64 = text.trim().parse().map_err(|_| Wrong::Number)?;
    if parsed.is_finite() { Ok(parsed) } else { Err(Wrong::Other("not finite")) }
}

pub(crate) fn utf8(value: &[u8]) -> std::result::Result<&str, Wrong> {
    std::str::from_utf8(value).map_err(|_| {
        Wrong::Other(
            "not valid UTF-8: say encoding = \"latin-1\" in columns if it is that, else convert the file",
        )
    })
}

/// What is wrong with a weight.
pub(crate) const BELOW_ZERO: &str = "below zero, which no weight is";

fn fill(
    row: &mut Row,
    field: &Field,
    value: &[u8],
    multi: Option<&Multi>,
) -> std::result::Result<(), Wrong> {
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
        Role::Weight => match float(value)? {
            weight @ 0.0.. => row.dense.push(weight),
            _ => return Err(Wrong::Other(BELOW_ZERO)),
        },
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
            let text = utf8(value)?;
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

/// The values of a cell of several.
pub(crate) fn values_of(text: &str, multi: &Multi, separator: char) -> Vec<String> {
    let all = words::list(text);
    let all = all.unwrap_or_else(|| text.split(separator).map(String::from).collect());
    all.iter().filter_map(|value| multi.kept(value).map(String::from)).collect()
}

/// The values of a user's own column of several: a list, or parts between separators, trimmed.
fn several(row: &mut Row, text: &str, separator: char, multi: &Multi) {
    let mut one = |part: &str| {
        if let Some(part) = multi.kept(part) {
            row.value(part.as_bytes());
        }
    };
    match words::list(text) {
        Some(values) => values.iter().for_each(|value| one(value)),
        None => text.split(separator).for_each(one),
    }
}
