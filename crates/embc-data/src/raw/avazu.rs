//! Avazu's click-through-rate contest: the 24 columns of train.csv. The id is not a feature.

use super::delimited::{Dialect, Layout, Place};
use super::{Field, Format, Role, Sink};
use crate::error::Result;
use crate::input::Input;
use crate::registry::Entry;

pub(super) struct Avazu;

const FEATURES: &str = "hour C1 banner_pos site_id site_domain site_category app_id app_domain app_category device_id device_ip device_model device_type device_conn_type C14 C15 C16 C17 C18 C19 C20 C21";

fn layout() -> Layout {
    let named = |column: &str| Place::Named(vec![column.into()]);
    let mut columns = vec![
        (named("click"), Field::new("click", Role::Label)),
        (named("hour"), Field::new("time", Role::Time)),
    ];
    let feature = |name: &str| (named(name), Field::new(name, Role::Categorical));
    columns.extend(FEATURES.split(' ').map(feature));
    Layout {
        delimiter: b',',
        dialect: Dialect::strict(true),
        header: true,
        width: Some(24),
        columns,
    }
}

impl Format for Avazu {
    fn name(&self) -> &'static str {
        "avazu"
    }
    fn doc(&self) -> &'static str {
        "the 24 columns of train.csv with a header; click is the label, id is not a feature"
    }
    fn fields(&self, _: &Entry) -> Result<Vec<Field>> {
        Ok(layout().fields())
    }
    fn read(&self, _: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        layout().read(input, sink)
    }
}
