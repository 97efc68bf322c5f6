//! Tables of text: one engine for all formats with a delimiter.

use super::{Field, Role, Row, Sink, number};
use crate::error::{Error, Result};
use crate::input::Input;

/// Where a column is.
pub(super) enum Column {
    At(usize),
    /// The first of these names that the header has.
    Named(Vec<String>),
}

/// The layout of a table.
pub(super) struct Layout {
    pub delimiter: u8,
    pub quoting: bool,
    pub header: bool,
    /// The number of columns, where it is known.
    pub width: Option<usize>,
    pub columns: Vec<(Column, Field)>,
}

impl Layout {
    /// The columns that a data set gets.
    pub fn fields(self) -> Vec<Field> {
        self.columns.into_iter().map(|(_, field)| field).collect()
    }

    /// Streams all rows.
    pub fn read(&self, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        let path = input.path.clone();
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .quoting(self.quoting)
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(1 << 18)
            .from_reader(input);
        let mut record = csv::ByteRecord::new();
        let mut places: Option<Vec<usize>> = match self.header {
            true => None,
            false => Some(self.positions(None).map_err(|what| Error::file(&path, what))?),
        };
        let mut width = self.width;
        let mut row = Row::default();
        while reader.read_byte_record(&mut record).map_err(|error| csv_error(&path, error))? {
            let line = record.position().map_or(0, csv::Position::line);
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
            for ((_, field), &place) in self.columns.iter().zip(places) {
                let value = record.get(place).ok_or_else(|| {
                    let what = format!(
                        "{} columns, but {} is column {}",
                        record.len(),
                        field.name,
                        place + 1
                    );
                    Error::line(&path, line, what)
                })?;
                fill(&mut row, field, value).map_err(|what| match what {
                    Wrong::Number => number::<f64>(value, &field.name, &path, line)
                        .map(|_| ())
                        .err()
                        .unwrap_or_else(|| {
                            Error::line(&path, line, format!("{} is not an integer", field.name))
                        }),
                    Wrong::Other(what) => {
                        let shown = String::from_utf8_lossy(&value[..value.len().min(40)]);
                        Error::line(
                            &path,
                            line,
                            format!("{} is {shown:?}, which is {what}", field.name),
                        )
                    }
                })?;
            }
            sink(&row)?;
        }
        Ok(())
    }

    fn positions(&self, header: Option<&[String]>) -> std::result::Result<Vec<usize>, String> {
        let place = |(column, field): &(Column, Field)| match (column, header) {
            (Column::At(place), _) => Ok(*place),
            (Column::Named(names), Some(header)) => names
                .iter()
                .find_map(|name| header.iter().position(|h| h.eq_ignore_ascii_case(name)))
                .ok_or_else(|| {
                    format!(
                        "no column {}; the header has {}",
                        names.join(" or "),
                        header.join(", ")
                    )
                }),
            (Column::Named(names), None) => names[0].parse().map_err(|_| {
                format!(
                    "column {} of {}: without a header, columns are called 0, 1, …",
                    names[0], field.name
                )
            }),
        };
        self.columns.iter().map(place).collect()
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
    Other(&'static str),
}

fn fill(row: &mut Row, field: &Field, value: &[u8]) -> std::result::Result<(), Wrong> {
    let float = |value: &[u8]| -> std::result::Result<f32, Wrong> {
        // Short integers, as most numbers are, without the general parser.
        if let 1..=7 = value.len()
            && value.iter().all(u8::is_ascii_digit)
        {
            return Ok(value.iter().fold(0, |n, digit| 10 * n + u32::from(digit - b'0')) as f32);
        }
        let text = std::str::from_utf8(value).map_err(|_| Wrong::Number)?;
        let parsed: f32 = text.trim().parse().map_err(|_| Wrong::Number)?;
        if parsed.is_finite() { Ok(parsed) } else { Err(Wrong::Other("not finite")) }
    };
    let utf8 = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(Wrong::Other("not valid UTF-8; convert the file first")),
    };
    match field.role {
        Role::Label => {
            row.label = match value {
                b"0" => 0.0,
                b"1" => 1.0,
                _ => match float(value) {
                    Ok(label) if label == 0.0 || label == 1.0 => label,
                    _ => return Err(Wrong::Other("not a label: it must be 0 or 1")),
                },
            }
        }
        Role::Rating => row.label = float(value)?,
        Role::Time => {
            let text = std::str::from_utf8(value).map_err(|_| Wrong::Number)?;
            row.time = text.trim().parse().map_err(|_| Wrong::Number)?;
        }
        Role::Dense if value.is_empty() => row.dense.push(f32::NAN),
        Role::Dense => row.dense.push(float(value)?),
        Role::Hex => {
            if value.len() > 8 || !value.iter().fold(true, |hex, b| hex & b.is_ascii_hexdigit()) {
                return Err(Wrong::Other("not a hexadecimal category of at most 8 digits"));
            }
            row.value(value);
            row.end_column();
        }
        Role::Categorical | Role::Class | Role::Tag => {
            utf8(value)?;
            row.value(value);
            row.end_column();
        }
        Role::Multi(separator) => {
            utf8(value)?;
            let mut bytes = [0; 4];
            let separator = separator.encode_utf8(&mut bytes).as_bytes();
            for part in split(value, separator).filter(|part| !part.is_empty()) {
                row.value(part);
            }
            row.end_column();
        }
    }
    Ok(())
}

fn split<'a>(text: &'a [u8], separator: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    // Valid UTF-8 on both sides, so that a str may do it.
    let text = std::str::from_utf8(text).unwrap_or_default();
    let separator = std::str::from_utf8(separator).unwrap_or(" ");
    text.split(separator).map(str::as_bytes)
}
