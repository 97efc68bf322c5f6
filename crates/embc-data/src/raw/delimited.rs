//! Tables of text: one engine for all formats with a delimiter.

use super::cells::Cells;
use super::recoded::Recoded;
use super::records::Records;
use super::{Field, Role, Sink};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::Multi;
use std::collections::BTreeMap;

/// What follows a column's name in the header of RecBole's atomic files: user_id:token.
const TYPES: [&str; 4] = ["token", "token_seq", "float", "float_seq"];

/// Where a column is.
pub(crate) enum Place {
    At(usize),
    /// The first of these names that the header has.
    Named(Vec<String>),
}

/// How fields are quoted, and how freely values may be written.
#[derive(Default)]
pub(crate) struct Dialect {
    pub quoting: bool,
    /// What stands before a quote inside quotes, instead of another quote.
    pub escape: Option<u8>,
    /// A delimiter is this byte twice.
    pub twice: Option<u8>,
    /// Letters are of Latin-1.
    pub latin1: bool,
    /// Fractions stand after a comma.
    pub comma: bool,
    /// The text that means 1.
    pub positive: Option<String>,
    /// Rows that cannot be read are left out.
    pub skip: bool,
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
pub(crate) struct Layout {
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
        let (twice, latin1) = (self.dialect.twice, self.dialect.latin1);
        let text = Recoded::new(input.text()?, latin1, twice);
        let records = Records::new(text, &path, self.delimiter, quote);
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
        let mut cells = match self.header {
            true => None,
            false => Some(
                Cells::new(self, &path, self.positions(None))
                    .map_err(|what| Error::file(&path, what))?,
            ),
        };
        let mut width = self.width;
        while reader.read_byte_record(&mut record).map_err(|error| csv_error(&path, error))? {
            let line = reader.get_mut().line(&record);
            if let Some(width) = width.filter(|width| record.len() != *width) {
                let what = format!("{} columns instead of {width}", record.len());
                if self.dialect.skip {
                    sink.skip(&Error::line(&path, line, what), 1)?;
                    continue;
                }
                let last = !reader.read_byte_record(&mut record).unwrap_or(true);
                let hint =
                    if last { "; the file ends here and seems cut off: get it again" } else { "" };
                return Err(Error::line(&path, line, what + hint));
            }
            width = Some(record.len());
            let Some(cells) = &mut cells else {
                let header: Vec<String> = header_of(&record);
                let found = Cells::new(self, &path, self.positions(Some(&header)));
                cells = Some(found.map_err(|what| Error::line(&path, line, what))?);
                continue;
            };
            cells.push(line, record.len(), |place| record.get(place), sink)?;
        }
        cells.map_or(Ok(()), Cells::finish)
    }

    /// Where each column is, by the names that the file has.
    pub fn positions(&self, header: Option<&[String]>) -> std::result::Result<Vec<usize>, String> {
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

/// The names of columns; one without a name is called as pandas does.
pub(crate) fn header_of(record: &csv::ByteRecord) -> Vec<String> {
    let name = |(i, name): (usize, &[u8])| match String::from_utf8_lossy(name).trim() {
        "" => format!("Unnamed: {i}"),
        name => name.to_string(),
    };
    record.iter().enumerate().map(name).collect()
}

/// The column called `name`: as it is written, else without RecBole's type or in other letters, where
/// only one is called so.
fn named(header: &[String], name: &str) -> std::result::Result<Option<usize>, String> {
    let at = |is: &dyn Fn(&String) -> bool| -> Vec<usize> {
        (0..header.len()).filter(|&i| is(&header[i])).collect()
    };
    let exact = at(&|column| column == name);
    let typed = |column: &String| {
        column.split_once(':').is_some_and(|(own, kind)| own == name && TYPES.contains(&kind))
    };
    let found = [exact, at(&typed), at(&|column| column.eq_ignore_ascii_case(name))];
    let found = found.into_iter().find(|places| !places.is_empty()).unwrap_or_default();
    match found[..] {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ => {
            let places: Vec<String> = found.iter().map(|i| (i + 1).to_string()).collect();
            Err(format!("columns {} are all called {name}: rename one", places.join(" and ")))
        }
    }
}

fn csv_error(path: &std::path::Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => Error::io(path, &error),
        kind => Error::file(path, format!("{kind:?}")),
    }
}
