//! What a registry says of a table of one's own: its dialect, its columns, and tables beside it.

use super::RawFile;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A multi-valued column of a user's CSV file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Multi {
    /// The column's name.
    pub name: String,
    /// The character between values; spaces around it are no part of them. Lists as JSON or Python
    /// write them are read whatever it is.
    pub separator: String,
    /// What to do with values such as Comedy:0.93.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// A value that only fills rows up, and is left out; "" for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<String>,
}

/// What to do with the weights of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// Leave them out.
    Drop,
    /// Take them as a part of the value.
    Keep,
}

/// How fields are quoted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quote {
    /// By double quotes.
    #[default]
    Double,
    /// Not at all: a quote is a letter like others.
    None,
}

/// How letters are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// As nearly all files have them.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// A byte each: ISO 8859-1, of Western Europe.
    #[serde(rename = "latin-1")]
    Latin1,
}

/// What stands before the fraction of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Decimal {
    /// As in 3.14.
    #[default]
    #[serde(rename = ".")]
    Point,
    /// As in 3,14.
    #[serde(rename = ",")]
    Comma,
}

/// What becomes of a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// It is an error, with its line.
    #[default]
    Fail,
    /// It is left out, and counted.
    Skip,
}

/// The columns of a user's own file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// `,` unless told: one character, or one twice, as in `::`.
    #[serde(default = "comma")]
    pub delimiter: String,
    /// Whether the first line names the columns; without it they are called `0`, `1`, …
    #[serde(default = "yes")]
    pub header: bool,
    /// Whether fields may be quoted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quote: Quote,
    /// What stands before a quote inside a quoted field, such as a backslash; by default another
    /// quote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escape: Option<char>,
    /// How letters are written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoding: Encoding,
    /// What stands before the fraction of a number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub decimal: Decimal,
    /// What becomes of a row that cannot be read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_error: OnError,
    /// The label's column, of 0 and 1, true and false, yes and no, or `"all-positive"`.
    pub label: String,
    /// The text that means 1, where the label is one of two texts; all others mean 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive: Option<String>,
    /// True where the label is the name of a class, of three or more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub classes: bool,
    /// True where the label is a rating, which `[data] label` turns into 0 or 1.
    #[serde(default)]
    pub rating: bool,
    /// The column of users, where it is not called user or user_id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The column of items, where it is not called item or item_id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// The column that says how much a row counts in training; metrics count all rows alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// The column to sort by in time: integers, decimal numbers, or dates such as 2024-01-31 12:30.
    pub time: Option<String>,
    /// Columns of numbers; empty means missing.
    #[serde(default)]
    pub dense: Vec<String>,
    /// Columns of one id.
    #[serde(default)]
    pub categorical: Vec<String>,
    /// Columns of several ids.
    #[serde(default)]
    pub multi: Vec<Multi>,
    /// Sampled negatives a positive.
    #[serde(default)]
    pub negatives: u32,
    /// Every column as text, just as it is written: what `embc init` looks at.
    #[serde(skip)]
    pub as_written: bool,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            delimiter: comma(),
            header: true,
            quote: Quote::default(),
            escape: None,
            encoding: Encoding::default(),
            decimal: Decimal::default(),
            on_error: OnError::default(),
            label: String::new(),
            positive: None,
            classes: false,
            rating: false,
            user: None,
            item: None,
            weight: None,
            time: None,
            dense: Vec::new(),
            categorical: Vec::new(),
            multi: Vec::new(),
            negatives: 0,
            as_written: false,
        }
    }
}

/// A table of attributes beside the rows, such as items with their genres: each row gets those that
/// its key names, and they go with their user or item everywhere.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Side {
    /// The column of the rows that holds its keys.
    pub of: String,
    /// This table's column of keys; called like that of the rows by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The table.
    pub file: RawFile,
    /// Its raw format, one of those that `columns` describes; `csv` unless told.
    #[serde(default = "csv")]
    pub format: String,
    /// `,` unless told: one character, or one twice, as in `::`.
    #[serde(default = "comma")]
    pub delimiter: String,
    /// Whether the first line names the columns; without it they are called `0`, `1`, … here, and
    /// `movies.1` everywhere else, after the file.
    #[serde(default = "yes")]
    pub header: bool,
    /// Whether fields may be quoted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub quote: Quote,
    /// How letters are written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoding: Encoding,
    /// Columns of numbers; empty means missing.
    #[serde(default)]
    pub dense: Vec<String>,
    /// Columns of one id.
    #[serde(default)]
    pub categorical: Vec<String>,
    /// Columns of several ids.
    #[serde(default)]
    pub multi: Vec<Multi>,
}

fn is_default<T: Default + PartialEq>(x: &T) -> bool {
    *x == T::default()
}
fn comma() -> String {
    ",".into()
}
fn csv() -> String {
    "csv".into()
}
fn yes() -> bool {
    true
}
