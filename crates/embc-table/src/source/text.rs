//! A word and its values a line, apart by spaces: GloVe's files, and word2vec's and fastText's text
//! with a line of rows and columns before.

use super::Format;
use super::spill::Spill;
use crate::table::Table;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

pub(super) struct Text;

impl Format for Text {
    fn name(&self) -> &'static str {
        "text"
    }
    fn doc(&self) -> &'static str {
        "GloVe's and word2vec's text, and fastText's .vec: a word and its values a line"
    }
    fn is(&self, _: &Path, head: &[u8]) -> bool {
        let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
        let fields = std::str::from_utf8(line).unwrap_or_default().split_whitespace();
        let all: Vec<&str> = fields.collect();
        let last = all.last().is_some_and(|last| last.parse::<f32>().is_ok());
        last && all.len() >= 2
    }
    fn open(&self, path: &Path, _: Option<&str>) -> Result<Table> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
        let (mut spill, mut words, mut row) = (Spill::new()?, Vec::new(), Vec::new());
        let (mut line, mut number, mut dim, mut said) = (Vec::new(), 0u64, None, None);
        loop {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            number += 1;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() {
                continue;
            }
            if number == 1
                && let Some(shape) = header(text)
            {
                if !(1..=1 << 20).contains(&shape[1]) {
                    bail!("its first line says {} columns", shape[1]);
                }
                (said, dim) = (Some(shape[0]), Some(shape[1]));
                continue;
            }
            let dim = *dim.get_or_insert_with(|| text.split_whitespace().count() - 1);
            let word = split(text, dim, &mut row).with_context(|| format!("line {number}"))?;
            words.push(word.to_string());
            spill.push(&row).with_context(|| format!("line {number}"))?;
        }
        if let Some(said) = said.filter(|said| *said != words.len()) {
            bail!(
                "its first line says {said} rows, and there are {}: it is cut off, or damaged",
                words.len()
            );
        }
        if words.is_empty() {
            bail!("it holds no rows");
        }
        let mut table = spill.table()?;
        (table.words, table.stored) = (words, "text".into());
        table.bytes = 4 * (table.rows * table.dim) as u64;
        Ok(table)
    }
}

/// Rows and columns, where a line says no more.
fn header(line: &str) -> Option<[usize; 2]> {
    let fields: Option<Vec<usize>> = line.split_whitespace().map(|n| n.parse().ok()).collect();
    fields?.try_into().ok()
}

/// The word of a line, whose last `dim` fields are its values; a word may hold spaces.
fn split<'a>(line: &'a str, dim: usize, row: &mut Vec<f32>) -> Result<&'a str> {
    let (mut rest, mut values) = (line, Vec::with_capacity(dim));
    for _ in 0..dim {
        let at = rest.rfind([' ', '\t']);
        let at = at.with_context(|| format!("fewer than {dim} values after its word"))?;
        values.push(&rest[at + 1..]);
        rest = rest[..at].trim_end_matches([' ', '\t']);
    }
    row.clear();
    for value in values.iter().rev() {
        row.push(value.parse().with_context(|| format!("{value:?} is no number"))?);
    }
    Ok(rest)
}
