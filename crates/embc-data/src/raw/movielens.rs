//! MovieLens in its three layouts: user, movie, rating, timestamp.

use super::delimited::{Dialect, Layout, Place};
use super::{Field, Format, Role, Sink};
use crate::error::Result;
use crate::input::Input;
use crate::registry::Entry;

pub(super) struct Dat;
pub(super) struct Csv;
pub(super) struct Tab;

fn layout(delimiter: u8, header: bool, stride: usize) -> Layout {
    let fields = [
        Field::new("user", Role::Categorical),
        Field::new("item", Role::Categorical),
        Field::new("rating", Role::Rating),
        Field::new("time", Role::Time),
    ];
    let columns = fields.into_iter().enumerate().map(|(i, f)| (Place::At(i * stride), f));
    let width = Some(3 * stride + 1);
    Layout {
        delimiter,
        dialect: Dialect::strict(header),
        header,
        width,
        columns: columns.collect(),
    }
}

macro_rules! format {
    ($type:ty, $name:literal, $doc:literal, $layout:expr) => {
        impl Format for $type {
            fn name(&self) -> &'static str {
                $name
            }
            fn doc(&self) -> &'static str {
                $doc
            }
            fn fields(&self, _: &Entry) -> Result<Vec<Field>> {
                Ok($layout.fields())
            }
            fn read(&self, _: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
                $layout.read(input, sink)
            }
        }
    };
}

// `::` is two delimiters with an empty column between them.
format!(Dat, "movielens-dat", "user::movie::rating::timestamp, no header", layout(b':', false, 2));
format!(
    Csv,
    "movielens-csv",
    "userId,movieId,rating,timestamp with a header",
    layout(b',', true, 1)
);
format!(
    Tab,
    "movielens-tab",
    "user, movie, rating, timestamp, tab separated, no header",
    layout(b'\t', false, 1)
);
