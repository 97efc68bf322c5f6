//! fastText's `.bin`: the input matrix, words first and then the buckets of their pieces.

use super::Format;
use super::bytes::{Bytes, word};
use crate::table::{Dtype, Flat, Table};
use anyhow::{Result, bail};
use std::path::Path;

pub(super) struct FastText;

const MAGIC: i32 = 793_712_314;

impl Format for FastText {
    fn name(&self) -> &'static str {
        "fasttext"
    }
    fn doc(&self) -> &'static str {
        "fastText's .bin: its input matrix, words and buckets, with counts"
    }
    fn is(&self, _: &Path, head: &[u8]) -> bool {
        head.starts_with(&MAGIC.to_le_bytes())
    }
    fn open(&self, path: &Path, _: Option<&str>) -> Result<Table> {
        let mut file = Bytes::open(path)?;
        file.i32()?;
        let version = file.i32()?;
        if !(11..=12).contains(&version) {
            bail!("version {version} of fastText's format; embc reads 11 and 12");
        }
        // dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn, lrUpdateRate, t
        file.take::<{ 12 * 4 + 8 }>()?;
        let (size, known, _labels) = (file.i32()?, file.i32()?, file.i32()?);
        let (_tokens, pruned) = (file.i64()?, file.i64()?);
        let (mut words, mut counts) = (Vec::new(), Vec::new());
        for _ in 0..size.max(0) {
            let name = word(file.until(0)?);
            let count = file.i64()?;
            let [label] = file.take()?;
            if label == 0 {
                words.push(name);
                counts.push(u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
        if words.len() != known.max(0) as usize {
            bail!("its dictionary says {known} words, and holds {}", words.len());
        }
        file.skip((pruned.max(0) as u64).saturating_mul(8))?;
        if file.take()? != [0u8] {
            bail!(
                "its matrix is quantised already (a .ftz): compress the .bin that it was made from"
            );
        }
        let (rows, dim) = (file.i64()?, file.i64()?);
        let (Ok(rows), Ok(dim)) = (usize::try_from(rows), usize::try_from(dim)) else {
            bail!("a matrix of {rows} rows and {dim} columns");
        };
        let mut table = Flat::new(path, file.place()?, Dtype::F32, [rows, dim], false)?.table();
        words.truncate(rows);
        table.words = words;
        // Buckets come last and are read by many words: how often is not known.
        table.unordered = counts.len() != rows;
        if !table.unordered {
            table.counts = counts;
        }
        Ok(table)
    }
}
