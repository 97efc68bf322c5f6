//! word2vec's binary: a line of rows and columns, then each word, a space, and its values.

use super::Format;
use super::bytes::{Bytes, word};
use super::spill::Spill;
use crate::table::Table;
use anyhow::{Context, Result, bail};
use std::path::Path;

pub(super) struct Word2vec;

impl Format for Word2vec {
    fn name(&self) -> &'static str {
        "word2vec"
    }
    fn doc(&self) -> &'static str {
        "word2vec's binary .bin"
    }
    fn is(&self, _: &Path, head: &[u8]) -> bool {
        // Such a line, a word, a space, and then what is no text.
        let Some((rest, [_, dim])) = header(head) else { return false };
        let Some(at) = rest.iter().position(|b| *b == b' ') else { return false };
        let values = &rest[at + 1..][..dim.saturating_mul(4).min(rest.len() - at - 1)];
        !values.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
    }
    fn open(&self, path: &Path, _: Option<&str>) -> Result<Table> {
        let mut file = Bytes::open(path)?;
        let line = file.until(b'\n')?;
        let line = [&line[..], b"\n"].concat();
        let (_, [rows, dim]) = header(&line).context("its first line is no rows and columns")?;
        if rows == 0 || dim == 0 || dim > 1 << 20 {
            bail!("its first line says {rows} rows of {dim} values");
        }
        let (mut spill, mut words, mut row) = (Spill::new()?, Vec::new(), vec![0.0; dim]);
        for i in 0..rows {
            let at = || format!("row {i} of {rows}");
            file.skip_if(b'\n').with_context(at)?;
            words.push(word(file.until(b' ').with_context(at)?));
            file.floats(&mut row).with_context(at)?;
            spill.push(&row)?;
        }
        let mut table = spill.table()?;
        table.words = words;
        Ok(table)
    }
}

/// Rows and columns, and what follows.
fn header(head: &[u8]) -> Option<(&[u8], [usize; 2])> {
    let end = head.iter().take(64).position(|b| *b == b'\n')?;
    let line = std::str::from_utf8(&head[..end]).ok()?;
    let sizes: Option<Vec<usize>> = line.split_whitespace().map(|n| n.parse().ok()).collect();
    Some((&head[end + 1..], sizes?.try_into().ok()?))
}
