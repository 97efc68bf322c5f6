//! GGUF: the token embeddings of a language model, and its tokens.

use super::bytes::{Bytes, word};
use super::{Format, pick};
use crate::table::{Dtype, Flat, Table};
use anyhow::{Result, bail};
use std::path::Path;

pub(super) struct Gguf;

impl Format for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
    }
    fn doc(&self) -> &'static str {
        "GGUF: token_embd of f32, f16, bf16 or q8_0"
    }
    fn is(&self, _: &Path, head: &[u8]) -> bool {
        head.starts_with(b"GGUF")
    }
    fn has_names(&self) -> bool {
        true
    }
    fn open(&self, path: &Path, tensor: Option<&str>) -> Result<Table> {
        let mut file = Bytes::open(path)?;
        file.u32()?;
        let version = file.u32()?;
        if !(2..=3).contains(&version) {
            bail!("version {version} of GGUF; embc reads 2 and 3");
        }
        let (tensors, keys) = (file.u64()?, file.u64()?);
        let (mut alignment, mut words) = (32, Vec::new());
        for _ in 0..keys {
            let length = file.u64()?;
            let key = word(file.some(length)?);
            let kind = file.u32()?;
            match &key[..] {
                "general.alignment" if kind == U32 => alignment = u64::from(file.u32()?),
                "tokenizer.ggml.tokens" if kind == ARRAY => words = texts(&mut file)?,
                _ => skip(&mut file, kind, 0)?,
            }
        }
        let mut all = Vec::new();
        for _ in 0..tensors {
            let length = file.u64()?;
            let name = word(file.some(length)?);
            let sizes = file.u32()?;
            if sizes > 4 {
                bail!("a tensor of {sizes} dimensions: it is damaged");
            }
            let mut shape = Vec::new();
            for _ in 0..sizes {
                shape.push(file.u64()? as usize);
            }
            let kind = file.u32()?;
            all.push((name, (shape, kind, file.u64()?)));
        }
        if alignment == 0 {
            bail!("an alignment of 0: it is damaged");
        }
        let start = file.place()?.next_multiple_of(alignment);
        let (name, (shape, kind, offset)) = pick(&all, tensor, |name| name == "token_embd.weight")?;
        let dtype = match kind {
            0 => Dtype::F32,
            1 => Dtype::F16,
            8 => Dtype::Q8,
            30 => Dtype::Bf16,
            other => bail!(
                "{name} is quantised already, as type {other} of ggml: embc reads f32, f16, bf16 and q8_0"
            ),
        };
        let &[dim, rows] = &shape[..] else { bail!("{name} has {} dimensions", shape.len()) };
        if dtype == Dtype::Q8 && dim % 32 != 0 {
            bail!("{name} has rows of {dim} values, no multiple of 32");
        }
        let offset = start.saturating_add(*offset);
        let mut table = Flat::new(path, offset, dtype, [rows, dim], false)?.table();
        words.truncate(rows);
        table.words = words;
        Ok(table)
    }
}

const U32: u32 = 4;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// An array of texts.
fn texts(file: &mut Bytes) -> Result<Vec<String>> {
    let (kind, n) = (file.u32()?, file.u64()?);
    if kind != TEXT {
        bail!("its tokens are no texts");
    }
    let mut all = Vec::new();
    for _ in 0..n {
        let length = file.u64()?;
        all.push(word(file.some(length)?));
    }
    Ok(all)
}

/// Skips a value of a kind.
fn skip(file: &mut Bytes, kind: u32, depth: u32) -> Result<()> {
    let bytes = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        U32 | 5 | 6 => 4,
        10..=12 => 8,
        TEXT => file.u64()?,
        ARRAY if depth < 4 => {
            let (kind, n) = (file.u32()?, file.u64()?);
            return (0..n).try_for_each(|_| skip(file, kind, depth + 1));
        }
        other => bail!("a value of kind {other}: it is damaged"),
    };
    file.some(bytes).map(|_| ())
}
