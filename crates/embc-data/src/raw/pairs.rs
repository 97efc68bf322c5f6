//! User-item tables with a header, in any column order: with ratings, or bare pairs.

use super::delimited::{Dialect, Layout, Place};
use super::{Field, Format, Role, Sink};
use crate::error::Result;
use crate::input::Input;
use crate::registry::Entry;

pub(super) struct Ratings;
pub(super) struct Pairs;

fn layout(entry: &Entry, rating: bool) -> Layout {
    let named = |names: &str| Place::Named(names.split(' ').map(String::from).collect());
    let mut columns = vec![
        (named("user_id userID userId user"), Field::new("user", Role::Categorical)),
        (
            named("item_id itemID itemId item book_id movieID movieId movie"),
            Field::new("item", Role::Categorical),
        ),
    ];
    if rating {
        columns.push((named("rating score stars"), Field::new("rating", Role::Rating)));
    }
    let tag = |name: &String| (Place::Named(vec![name.clone()]), Field::new(name, Role::Tag));
    columns.extend(entry.split_columns().iter().map(tag));
    Layout { delimiter: b',', dialect: Dialect::strict(true), header: true, width: None, columns }
}

impl Format for Ratings {
    fn name(&self) -> &'static str {
        "ratings-csv"
    }
    fn doc(&self) -> &'static str {
        "user, item and rating columns with a header, in any order"
    }
    fn fields(&self, entry: &Entry) -> Result<Vec<Field>> {
        Ok(layout(entry, true).fields())
    }
    fn read(&self, entry: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        layout(entry, true).read(input, sink)
    }
}

impl Format for Pairs {
    fn name(&self) -> &'static str {
        "pairs-csv"
    }
    fn doc(&self) -> &'static str {
        "user and item columns with a header; every row is a positive; split columns as named"
    }
    fn fields(&self, entry: &Entry) -> Result<Vec<Field>> {
        Ok(layout(entry, false).fields())
    }
    fn read(&self, entry: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        layout(entry, false).read(input, sink)
    }
}
