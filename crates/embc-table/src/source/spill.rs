//! Rows that a file gives one after the other, kept in a temporary file to be read in any order.

use crate::table::{Dtype, Flat, Table};
use anyhow::{Result, bail};
use std::fs::File;
use std::io::{BufWriter, Write};

/// Takes rows.
pub struct Spill {
    file: BufWriter<File>,
    rows: usize,
    dim: usize,
}

impl Spill {
    pub fn new() -> Result<Self> {
        Ok(Self { file: BufWriter::with_capacity(1 << 20, tempfile::tempfile()?), rows: 0, dim: 0 })
    }

    /// Appends a row; all are as wide as the first one.
    pub fn push(&mut self, row: &[f32]) -> Result<()> {
        if self.rows == 0 {
            self.dim = row.len();
        }
        if row.len() != self.dim || row.is_empty() {
            bail!("{} values, where the first row has {}", row.len(), self.dim);
        }
        let bytes = row.iter().flat_map(|x| x.to_le_bytes());
        self.file.write_all(&bytes.collect::<Vec<u8>>())?;
        self.rows += 1;
        Ok(())
    }

    /// The table of all rows.
    pub fn table(self) -> Result<Table> {
        let shape = [self.rows, self.dim];
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        Ok(Flat::of(file, 0, Dtype::F32, shape, false)?.table())
    }
}
