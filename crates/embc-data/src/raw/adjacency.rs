//! LightGCN's lists: a user and its items on each line, separated by blanks.

use super::{Field, Format, Role, Row, Sink};
use crate::error::{Error, Result};
use crate::input::Input;
use crate::registry::Entry;

pub(super) struct Adjacency;

impl Format for Adjacency {
    fn name(&self) -> &'static str {
        "adjacency"
    }
    fn doc(&self) -> &'static str {
        "user item item … on each line; every pair is a positive"
    }
    fn fields(&self, _: &Entry) -> Result<Vec<Field>> {
        Ok(vec![Field::new("user", Role::Categorical), Field::new("item", Role::Categorical)])
    }
    fn read(&self, _: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        let path = input.path.clone();
        let mut row = Row::default();
        input.lines(|number, line| {
            let line = std::str::from_utf8(line)
                .map_err(|_| Error::line(&path, number, "not valid UTF-8"))?;
            let mut words = line.split_ascii_whitespace();
            let Some(user) = words.next() else { return Ok(()) };
            for item in words {
                row.clear();
                for value in [user, item] {
                    row.value(value.as_bytes());
                    row.end_column();
                }
                sink.row(&row)?;
            }
            Ok(())
        })
    }
}
