//! A `[[scheme]]`: what is compressed how, and what it has of its own instead of the experiment's.

use super::Quantize;
use crate::axis::BudgetConfig;
use embc_core::budget::Allocation;
use embc_core::init::Init;
use embc_core::layer::Sharing;
use embc_core::scheme::{self, Knobs};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where `allocation` is read.
pub(super) const DIVIDES: &str =
    "divides compression, params and bytes among tables; rows and cap are of each table";

/// A way to compress, trained at each budget; every other key is a knob of its kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SchemeConfig {
    /// Which scheme: `embc list schemes` says what there is, and their knobs.
    pub kind: String,
    /// Its name in tables, which begins with its kind: to tell variants apart.
    pub label: Option<String>,
    /// Width of the embedding, instead of `[embedding]`'s.
    pub dim: Option<usize>,
    /// Which fields share memory, instead of `[embedding]`'s.
    pub sharing: Option<Sharing>,
    /// How a table starts, instead of `[embedding]`'s.
    pub init: Option<Init>,
    /// How its budget is divided among tables, instead of `[budget]`'s.
    pub allocation: Option<Allocation>,
    /// How its parameters are stored after training, such as "int8"; or already while it goes on:
    /// { bits = 8, train = true }, in 8 or 4 bits.
    pub quantize: Option<Quantize>,
    /// Its own keys.
    #[serde(flatten)]
    pub knobs: Knobs,
}

impl SchemeConfig {
    /// The name in tables.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.kind)
    }

    /// Why `allocation` says nothing here, where it is given and does not.
    pub(super) fn unread_allocation(&self, budget: Option<&BudgetConfig>) -> Option<&'static str> {
        self.allocation?;
        let spans = scheme::find(&self.kind).is_some_and(|scheme| scheme.spans_tables());
        match budget {
            None => Some("divides a budget, and there is none"),
            Some(budget) if !budget.is_divided() => Some(DIVIDES),
            _ if self.kind == "full" => Some("divides a budget, and full has none"),
            _ if spans => Some("divides a budget among tables, which this scheme does by itself"),
            _ => None,
        }
    }
}
