//! Raw formats: the registry, and the row that every reader fills.
//!
//! Most formats are tables of text and differ only in their [`delimited::Layout`]. A reader says
//! which columns there are ([`Field`]) and streams rows; it keeps nothing.

use crate::block::Part;
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::Entry;

mod adjacency;
pub(crate) mod arrow;
mod avazu;
pub(crate) mod cells;
mod criteo;
mod csv;
pub(crate) mod delimited;
pub(crate) mod ipc;
mod jsonl;
mod libffm;
mod movielens;
mod pairs;
pub(crate) mod parquet;
mod recoded;
pub(crate) mod records;
pub(crate) mod side;
mod steam;
mod text;
pub mod vectors;
pub(crate) mod words;

pub(crate) use csv::{ALL_POSITIVE, layout};

/// All formats. A new one is a file and a line here.
pub static FORMATS: &[&dyn Format] = &[
    &criteo::Criteo,
    &avazu::Avazu,
    &movielens::Dat,
    &movielens::Csv,
    &movielens::Tab,
    &steam::Steam,
    &pairs::Ratings,
    &pairs::Pairs,
    &adjacency::Adjacency,
    &text::Text,
    &csv::Csv,
    &parquet::Parquet,
    &ipc::Arrow,
    &jsonl::JsonLines,
    &libffm::Libsvm,
    &libffm::Libffm,
    &crate::synth::Generated,
];

/// The format called `name`.
pub fn find(name: &str) -> Result<&'static dyn Format> {
    FORMATS.iter().copied().find(|format| format.name() == name).ok_or_else(|| {
        let known: Vec<&str> = FORMATS.iter().map(|format| format.name()).collect();
        Error::Data(format!("unknown format {name:?}, expected one of {}", known.join(", ")))
    })
}

/// The columns of a data set: those of its files, and what tables of attributes add.
pub fn fields(entry: &Entry) -> Result<Vec<Field>> {
    let mut fields = find(&entry.format)?.fields(entry)?;
    for side in &entry.side {
        for field in side.fields(entry)? {
            if fields.iter().any(|other| other.name == field.name) {
                return Err(Error::Data(format!(
                    "data set {}: {} is a column of the rows and of side {:?}: name it once",
                    entry.name, field.name, side.of
                )));
            }
            fields.push(field);
        }
    }
    Ok(fields)
}

/// What a column means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// 0 or 1.
    Label,
    /// A number that `[data] label` turns into 0 or 1; without that rule every row is a positive.
    Rating,
    /// The name of a class.
    Class,
    /// How much a row counts in training: a number, not below zero.
    Weight,
    /// An integer to sort by.
    Time,
    /// A number; empty means missing.
    Dense,
    /// One id; empty is a value too.
    Categorical,
    /// One id of up to eight hex digits; empty is a value too.
    Hex,
    /// Several ids, separated by this character.
    Multi(char),
    /// A value that splits read.
    Tag,
}

impl Role {
    /// Its name in a trial's identity.
    pub fn name(self) -> &'static str {
        match self {
            Role::Label => "label",
            Role::Rating => "rating",
            Role::Class => "class",
            Role::Weight => "weight",
            Role::Time => "time",
            Role::Dense => "dense",
            Role::Categorical | Role::Hex => "id",
            Role::Multi(_) => "ids",
            Role::Tag => "tag",
        }
    }

    /// True for columns that get a vocabulary.
    pub fn is_coded(self) -> bool {
        use Role::{Categorical, Class, Hex, Multi, Tag};
        matches!(self, Class | Categorical | Hex | Multi(_) | Tag)
    }

    /// True for columns that a model looks up.
    pub fn is_feature(self) -> bool {
        matches!(self, Role::Categorical | Role::Hex | Role::Multi(_))
    }
}

/// A column of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its meaning.
    pub role: Role,
}

impl Field {
    /// A column of this name and role.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role }
    }
}

/// What was done to a value so that it could be read: counted and said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A word such as NA was taken as missing.
    Missing,
    /// Spaces around an id were cut off.
    Trimmed,
    /// An id such as 12.0 was read as 12.
    Whole,
}

impl Note {
    /// What is counted, of a column.
    pub fn text(self, column: &str) -> String {
        match self {
            Note::Missing => format!("values of {column} such as NA or NULL, which are missing"),
            Note::Trimmed => {
                format!("values of {column} with spaces around them, which were cut off")
            }
            Note::Whole => format!("values of {column} written as 12.0, which were read as 12"),
        }
    }
}

/// A moment: whole units and billionths.
pub type Time = (i64, u32);

/// One row; a reader fills it again and again.
#[derive(Debug, Default)]
pub struct Row {
    /// 0 or 1, or a rating; 1 where all rows are positive.
    pub label: f64,
    /// Seconds, hours, or anything that sorts.
    pub time: Time,
    /// Dense features, NaN where missing, and the weight, in the order of the fields.
    pub dense: Vec<f64>,
    /// The time is written as a date.
    pub dated: bool,
    /// What was done to values, by the index of the field.
    pub notes: Vec<(usize, Note)>,
    pub(crate) text: Vec<u8>,
    /// End of each value in `text`.
    ends: Vec<usize>,
    /// End of each coded column in `ends`.
    columns: Vec<usize>,
}

impl Row {
    /// Forgets the last row.
    pub fn clear(&mut self) {
        (self.label, self.time, self.dated) = (1.0, (0, 0), false);
        self.dense.clear();
        self.notes.clear();
        self.text.clear();
        self.ends.clear();
        self.columns.clear();
    }

    /// Adds a value to the current coded column.
    pub fn value(&mut self, value: &[u8]) {
        self.text.extend_from_slice(value);
        self.ends.push(self.text.len());
    }

    /// Closes the current coded column.
    pub fn end_column(&mut self) {
        self.columns.push(self.ends.len());
    }

    /// The values of coded column `column`.
    pub fn values(&self, column: usize) -> impl Iterator<Item = &[u8]> {
        let start = column.checked_sub(1).map_or(0, |previous| self.columns[previous]);
        (start..self.columns[column]).map(|i| {
            let begin = i.checked_sub(1).map_or(0, |previous| self.ends[previous]);
            &self.text[begin..self.ends[i]]
        })
    }
}

/// Takes what is read.
pub type Sink<'a> = &'a mut dyn Takes;

/// Whoever takes what a reader yields: rows of text, or columns of a file that is made of them.
pub trait Takes {
    /// One row.
    fn row(&mut self, row: &Row) -> Result<()>;
    /// Some rows as columns, in the order of the fields.
    fn part(&mut self, part: Part) -> Result<()>;
    /// Rows that were left out, and why the first of them was.
    fn skip(&mut self, why: &Error, rows: u64) -> Result<()>;
    /// Bytes of memory that reading may take.
    fn room(&self) -> u64;
    /// Asks for memory for what a file has in one piece.
    fn reserve(&mut self, bytes: u64) -> Result<()>;
}

/// A raw format.
pub trait Format: Sync {
    /// The registry's `format`.
    fn name(&self) -> &'static str;
    /// One line on its layout.
    fn doc(&self) -> &'static str;
    /// The columns of a data set of this format.
    fn fields(&self, entry: &Entry) -> Result<Vec<Field>>;
    /// How dense features are transformed unless the experiment says otherwise.
    fn dense(&self) -> crate::view::Dense {
        crate::view::Dense::Raw
    }
    /// True where a file holds much in one piece, which takes memory beside the vocabularies.
    fn in_pieces(&self) -> bool {
        false
    }
    /// Streams the rows of one file.
    fn read(&self, entry: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()>;
}
