//! A Parquet table with a column of lists of floats; its first column of texts names the rows.

use super::spill::Spill;
use super::{Format, pick};
use crate::table::Table;
use anyhow::Result;
use embc_data::raw::vectors;
use std::path::Path;

pub(super) struct Parquet;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }
    fn doc(&self) -> &'static str {
        "Parquet with a column of lists of floats, and one of words"
    }
    fn is(&self, _: &Path, head: &[u8]) -> bool {
        head.starts_with(b"PAR1")
    }
    fn has_names(&self) -> bool {
        true
    }
    fn open(&self, path: &Path, tensor: Option<&str>) -> Result<Table> {
        let columns = vectors::columns(path)?;
        let lists: Vec<(String, ())> =
            columns.iter().filter(|of| of.list).map(|of| (of.name.clone(), ())).collect();
        let (name, ()) = pick(&lists, tensor, |_| false)?;
        let mut spill = Spill::new()?;
        vectors::floats(path, name, &mut |row| spill.push(row))?;
        let mut table = spill.table()?;
        if let Some(words) = columns.iter().find(|of| of.text) {
            table.words = vectors::texts(path, &words.name)?;
        }
        Ok(table)
    }
}
