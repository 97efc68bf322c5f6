//! Tables of attributes beside the rows: MovieLens' movies and users, RecBole's `.item`. They are
//! read first and held; each row gets the values of the one that its key names.

use super::{Field, Role, Row, Takes, csv};
use crate::block::{BlockColumn, Part};
use crate::cache::Source;
use crate::error::{Error, Result};
use crate::registry::{Columns, Entry, Side};
use crate::vocab::Allowance;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What the `i`th is called among the sources of a cache.
pub(crate) fn source_name(i: usize) -> String {
    format!("side {i}")
}

/// A table of attributes in memory.
pub(crate) struct Attributes {
    /// The field of the rows that holds its keys.
    of: usize,
    name: String,
    roles: Vec<Role>,
    row_of: HashMap<Vec<u8>, u32>,
    columns: Vec<BlockColumn>,
}

impl Side {
    /// The column of this table that holds the keys.
    fn key(&self) -> &String {
        self.key.as_ref().unwrap_or(&self.of)
    }

    /// The table as an entry of its own, its key first.
    fn entry(&self, main: &Entry) -> Entry {
        let columns = Columns {
            delimiter: self.delimiter.clone(),
            header: self.header,
            quote: self.quote,
            encoding: self.encoding,
            label: csv::ALL_POSITIVE.into(),
            dense: self.dense.clone(),
            categorical: [self.key()].into_iter().chain(&self.categorical).cloned().collect(),
            multi: self.multi.clone(),
            ..Columns::default()
        };
        Entry {
            title: String::new(),
            format: self.format.clone(),
            columns: Some(columns),
            name: main.name.clone(),
            folder: main.folder.clone(),
            ..Entry::default()
        }
    }

    /// The columns that the rows get, in the order in which they are read.
    pub(crate) fn fields(&self, main: &Entry) -> Result<Vec<Field>> {
        let entry = self.entry(main);
        let mut fields = super::find(&entry.format)?.fields(&entry)?;
        fields.retain(|field| field.name != *self.key() || field.role != Role::Categorical);
        if !self.header {
            // Numbers alone would be those of the rows' own columns.
            let table = self.file.path.file_stem().unwrap_or_default().to_string_lossy();
            fields.iter_mut().for_each(|field| field.name = format!("{table}.{}", field.name));
        }
        Ok(fields)
    }
}

impl Attributes {
    /// Reads a table for rows of such fields; says where it came from.
    pub fn read(
        (i, side): (usize, &Side),
        main: &Entry,
        fields: &[Field],
        data_dir: &Path,
        budget: &Allowance,
    ) -> Result<(Self, (PathBuf, Source))> {
        let entry = side.entry(main);
        let format = super::find(&entry.format)?;
        let all = format.fields(&entry)?;
        let is_key = |field: &Field| field.name == *side.key() && field.role == Role::Categorical;
        let key = all.iter().position(is_key).expect("its first id");
        let of = |field: &Field| field.name == side.of && field.role == Role::Categorical;
        let of = fields.iter().position(of).ok_or_else(|| {
            let what = format!("side.of = {:?} is no column of one id of the rows", side.of);
            Error::Data(format!("data set {}: {what}", main.name))
        })?;
        let path = main.locate(&side.file, data_dir)?;
        let mut held =
            Held { roles: all.iter().map(|field| field.role).collect(), ..Held::default() };
        held.columns.resize(all.len(), BlockColumn::default());
        let source = crate::ingest::read_file(
            (&source_name(i), &side.file.path.display().to_string()),
            (&side.file, &path),
            &mut |_| Ok(()),
            &mut |input| format.read(&entry, input, &mut held),
        )?;
        let Held { mut roles, mut columns, rows } = held;
        let keys = columns.remove(key);
        roles.remove(key);
        let mut row_of = HashMap::new();
        // What is missing is no key.
        for row in (0..rows).filter(|&row| !keys.of_row(row).is_empty()) {
            let value = keys.of_row(row);
            if let Some(other) = row_of.insert(value.to_vec(), row as u32) {
                let of = |column: &BlockColumn, role, row| column.gathered(role, &[Some(row)]);
                let alike = |(column, &role): (&BlockColumn, &Role)| {
                    of(column, role, other) == of(column, role, row as u32)
                };
                let same = columns.iter().zip(&roles).all(alike);
                if !same {
                    let what = format!(
                        "has {:?} twice, with other values",
                        String::from_utf8_lossy(value)
                    );
                    return Err(Error::file(&path, what));
                }
            }
        }
        let bytes: usize = columns.iter().map(BlockColumn::bytes).sum::<usize>() + 64 * rows;
        if !budget.take(bytes as u64) {
            let what = format!("takes {} MiB, which --memory does not have: raise it", bytes >> 20);
            return Err(Error::file(&path, what));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((Self { of, name, roles, row_of, columns }, (path, source)))
    }

    /// The attributes of some rows, whose columns are given; and of how many there are none.
    pub fn join(&self, rows: usize, columns: &[BlockColumn]) -> (Vec<BlockColumn>, u64) {
        let mut missing = 0;
        let row = |row: usize| {
            let found = self.row_of.get(columns[self.of].of_row(row)).copied();
            missing += u64::from(found.is_none());
            found
        };
        let rows: Vec<Option<u32>> = (0..rows).map(row).collect();
        let column = |(column, &role): (&BlockColumn, &Role)| column.gathered(role, &rows);
        (self.columns.iter().zip(&self.roles).map(column).collect(), missing)
    }

    /// What is said of rows without a match.
    pub fn missing(&self, fields: &[Field]) -> String {
        format!("rows whose {} is not in {}", fields[self.of].name, self.name)
    }
}

/// A table that is held as it is read.
#[derive(Default)]
struct Held {
    roles: Vec<Role>,
    columns: Vec<BlockColumn>,
    rows: usize,
}

impl Takes for Held {
    fn row(&mut self, row: &Row) -> Result<()> {
        let (mut dense, mut coded) = (row.dense.iter(), 0);
        for (&role, column) in self.roles.iter().zip(&mut self.columns) {
            let number = if role == Role::Dense { dense.next().copied() } else { None };
            column.push(role, row, number.unwrap_or(f64::NAN), coded);
            coded += usize::from(role.is_coded());
        }
        self.rows += 1;
        Ok(())
    }

    fn part(&mut self, part: Part) -> Result<()> {
        let all: Vec<Option<u32>> = (0..part.rows as u32).map(Some).collect();
        for ((column, held), &role) in part.columns.iter().zip(&mut self.columns).zip(&self.roles) {
            held.append(&column.gathered(role, &all));
        }
        self.rows += part.rows;
        Ok(())
    }

    fn skip(&mut self, why: &Error, _: u64) -> Result<()> {
        Err(Error::Data(why.to_string()))
    }

    fn room(&self) -> u64 {
        1 << 28
    }

    fn reserve(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}
