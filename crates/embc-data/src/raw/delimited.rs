//! Tables of text: one engine for all formats with a delimiter.

use super::records::Records;
use super::{Field, Note, Role, Row, Sink, words};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::Multi;
use std::collections::BTreeMap;

/// Where a column is.
pub(super) enum Place {
    At(usize),
    /// The first of these names that the header has.
    Named(Vec<String>),
}

/// How fields are quoted, and how freely values may be written.
#[derive(Default)]
pub(super) struct Dialect {
    pub quoting: bool,
    /// What stands before a quote inside quotes, instead of another quote.
    pub escape: Option<u8>,
    /// A user's own table: words such as NA are missing, ids are trimmed, lists are read. With the
    /// columns of several ids.
    pub words: Option<BTreeMap<String, Multi>>,
}

impl Dialect {
    /// A public format's: values as they are.
    pub fn strict(quoting: bool) -> Self {
        Self { quoting, ..Self::default() }
    }
}

/// The layout of a table.
pub(super) struct Layout {
    pub delimiter: u8,
    pub dialect: Dialect,
    pub header: bool,
    /// The number of columns, where it is known.
    pub width: Option<usize>,
    pub columns: Vec<(Place, Field)>,
}

impl Layout {
    /// The columns that a data set gets.
    pub fn fields(self) -> Vec<Field> {
        self.columns.into_iter().map(|(_, field)| field).collect()
    }

    /// Streams all rows.
    pub fn read(&self, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        let path = input.path.clone();
        let quote = self.dialect.quoting.then_some(self.dialect.escape);
        let records = Records::new(input, &path, self.delimiter, quote);
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .quoting(self.dialect.quoting)
            .escape(self.dialect.escape)
            .double_quote(self.dialect.escape.is_none())
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(1 << 18)
            .from_reader(records);
        let mut record = csv::ByteRecord::new();
        let mut places: Option<Vec<usize>> = match self.header {
            true => None,
            false => Some(self.positions(None).map_err(|what| Error::file(&path, what))?),
        };
        let mut width = self.width;
        let mut row = Row::default();
        let mut doubts = Doubts::new(&self.dialect, &self.columns);
        while reader.read_byte_record(&mut record).map_err(|error| csv_error(&path, error))? {
            let line = reader.get_mut().line(&record);
            match width {
                Some(width) if record.len() != width => {
                    let what = format!("{} columns instead of {width}", record.len());
                    let last = !reader.read_byte_record(&mut record).unwrap_or(true);
                    let hint = if last {
                        "; the file ends here and seems cut off: get it again"
                    } else {
                        ""
                    };
                    return Err(Error::line(&path, line, what + hint));
                }
                _ => width = Some(record.len()),
            }
            let Some(places) = &places else {
                let header: Vec<String> =
                    record.iter().map(|name| String::from_utf8_lossy(name).trim().into()).collect();
                let found = self.positions(Some(&header));
                places = Some(found.map_err(|what| Error::line(&path, line, what))?);
                continue;
            };
            row.clear();
            for (index, ((_, field), &place)) in self.columns.iter().zip(places).enumerate() {
                let value = record.get(place).ok_or_else(|| {
                    let what = format!(
                        "{} columns, but {} is column {}",
                        record.len(),
                        field.name,
                        place + 1
                    );
                    Error::line(&path, line, what)
                })?;
                let value = match self.dialect.words {
                    Some(_) => as_written(&mut row, index, field.role, value),
                    None => value,
                };
                let multi = self.dialect.words.as_ref().and_then(|w| w.get(&field.name));
                fill(&mut row, field, value, multi)
                    .map_err(|wrong| wrong.at(field, value, &path, line))?;
            }
            doubts.hear(&row);
            sink(&row)?;
        }
        doubts.refuse(&path)
    }

    fn positions(&self, header: Option<&[String]>) -> std::result::Result<Vec<usize>, String> {
        let place = |(column, field): &(Place, Field)| match (column, header) {
            (Place::At(place), _) => Ok(*place),
            (Place::Named(names), Some(header)) => {
                let of = |name: &String| named(header, name).transpose();
                names.iter().find_map(of).unwrap_or_else(|| {
                    Err(format!(
                        "no column {}; the header has {}",
                        names.join(" or "),
                        header.join(", ")
                    ))
                })
            }
            (Place::Named(names), None) => names[0].parse().map_err(|_| {
                format!(
                    "column {} of {}: without a header, columns are called 0, 1, …",
                    names[0], field.name
                )
            }),
        };
        let places = self.columns.iter().map(place).collect::<std::result::Result<Vec<_>, _>>()?;
        self.no_column_twice(&places)?;
        Ok(places)
    }

    /// Refuses one column under two spellings: as two features, or as a feature and the label.
    fn no_column_twice(&self, places: &[usize]) -> std::result::Result<(), String> {
        // What sorts or splits may be a feature too.
        let counts = |field: &Field| !matches!(field.role, Role::Time | Role::Tag);
        let used = self.columns.iter().zip(places).filter(|((_, field), _)| counts(field));
        let mut seen: BTreeMap<usize, &str> = BTreeMap::new();
        for ((_, field), &place) in used {
            if let Some(other) = seen.insert(place, &field.name) {
                return Err(format!("{other} and {} are one column of the file", field.name));
            }
        }
        Ok(())
    }
}

/// The column called `name`: as it is written, else in other letters where only one is called so.
fn named(header: &[String], name: &str) -> std::result::Result<Option<usize>, String> {
    let at = |is: &dyn Fn(&String) -> bool| -> Vec<usize> {
        (0..header.len()).filter(|&i| is(&header[i])).collect()
    };
    let exact = at(&|column| column == name);
    let found =
        if exact.is_empty() { at(&|column| column.eq_ignore_ascii_case(name)) } else { exact };
    match found[..] {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ => {
            let places: Vec<String> = found.iter().map(|i| (i + 1).to_string()).collect();
            Err(format!("columns {} are all called {name}: rename one", places.join(" and ")))
        }
    }
}

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

    fn refuse(&self, path: &std::path::Path) -> Result<()> {
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

fn csv_error(path: &std::path::Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::io(path, &error),
        kind => Error::file(path, format!("{kind:?}")),
    }
}

enum Wrong {
    Number,
    Integer,
    Other(&'static str),
}

impl Wrong {
    fn at(self, field: &Field, value: &[u8], path: &std::path::Path, line: u64) -> Error {
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
        Role::Time => row.time = words::time(value).ok_or(Wrong::Integer)?,
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
