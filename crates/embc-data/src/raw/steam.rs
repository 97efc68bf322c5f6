//! Kaggle's steam-200k: user, game, purchase or play, a value, 0.

use super::delimited::{Dialect, Layout, Place};
use super::{Field, Format, Role, Sink};
use crate::error::Result;
use crate::input::Input;
use crate::registry::Entry;

pub(super) struct Steam;

fn layout() -> Layout {
    let fields = [
        Field::new("user", Role::Categorical),
        Field::new("game", Role::Categorical),
        Field::new("event", Role::Tag),
        Field::new("value", Role::Rating),
    ];
    let columns = fields.into_iter().enumerate().map(|(i, f)| (Place::At(i), f)).collect();
    Layout {
        delimiter: b',',
        dialect: Dialect::strict(true),
        header: false,
        width: Some(5),
        columns,
    }
}

impl Format for Steam {
    fn name(&self) -> &'static str {
        "steam-200k"
    }
    fn doc(&self) -> &'static str {
        "user,game,purchase|play,value,0 without header; the value is 1 for a purchase, else hours"
    }
    fn fields(&self, _: &Entry) -> Result<Vec<Field>> {
        Ok(layout().fields())
    }
    fn read(&self, _: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        layout().read(input, sink)
    }
}
