//! Criteo's display-advertising logs: label, 13 integers, 26 hex categories, tab separated.

use super::delimited::{Dialect, Layout, Place};
use super::{Field, Format, Role, Sink};
use crate::error::Result;
use crate::input::Input;
use crate::registry::Entry;

pub(super) struct Criteo;

fn layout() -> Layout {
    let mut columns = vec![(Place::At(0), Field::new("label", Role::Label))];
    columns.extend((1..=13).map(|i| (Place::At(i), Field::new(format!("I{i}"), Role::Dense))));
    columns.extend((1..=26).map(|i| (Place::At(13 + i), Field::new(format!("C{i}"), Role::Hex))));
    Layout {
        delimiter: b'\t',
        dialect: Dialect::strict(false),
        header: false,
        width: Some(40),
        columns,
    }
}

impl Format for Criteo {
    fn name(&self) -> &'static str {
        "criteo"
    }
    fn doc(&self) -> &'static str {
        "label, 13 integers, 26 hex categories, tab separated, no header, empty = missing"
    }
    fn fields(&self, _: &Entry) -> Result<Vec<Field>> {
        Ok(layout().fields())
    }
    fn dense(&self) -> crate::view::Dense {
        crate::view::Dense::Log1p
    }
    fn read(&self, _: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        layout().read(input, sink)
    }
}
