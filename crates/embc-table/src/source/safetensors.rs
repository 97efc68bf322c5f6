//! One tensor of a safetensors file.

use super::{Format, pick};
use crate::table::{Dtype, Flat, Table};
use anyhow::{Result, bail};
use embc_lab::tensors::header_of;
use std::fs::File;
use std::path::Path;

pub(super) struct Safetensors;

/// What tables of embeddings are called.
pub fn is_usual(name: &str) -> bool {
    let last = name.strip_suffix(".weight").unwrap_or(name);
    last == "embeddings"
        || ["embedding", "embed_tokens", "word_embeddings", "wte", "tok_embeddings", "token_embd"]
            .iter()
            .any(|usual| last.ends_with(usual))
}

/// A tensor [shape] of a file: where its values begin, and how they lie.
pub struct Place {
    /// Its sizes.
    pub shape: Vec<usize>,
    /// The first byte.
    pub offset: u64,
    /// How values lie; none where they are no floats or bytes.
    pub dtype: Option<Dtype>,
    /// The same in words.
    pub kind: String,
}

/// All tensors of a file.
pub fn tensors(path: &Path) -> Result<Vec<(String, Place)>> {
    let (header, start) = header_of(&mut File::open(path)?)?;
    let all = header.tensors().into_iter().map(|(name, info)| {
        use safetensors::Dtype::{BF16, F16, F32, F64, I8};
        let dtype = match info.dtype {
            F16 => Some(Dtype::F16),
            BF16 => Some(Dtype::Bf16),
            F32 => Some(Dtype::F32),
            F64 => Some(Dtype::F64),
            I8 => Some(Dtype::I8),
            _ => None,
        };
        let (offset, kind) = (start + info.data_offsets.0 as u64, info.dtype.to_string());
        (name, Place { shape: info.shape.clone(), offset, dtype, kind })
    });
    let mut all: Vec<(String, Place)> = all.collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

impl Format for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }
    fn doc(&self) -> &'static str {
        ".safetensors: a tensor of f16, bf16, f32 or f64, by name"
    }
    fn is(&self, path: &Path, head: &[u8]) -> bool {
        path.extension().is_some_and(|e| e == "safetensors") || head.get(8) == Some(&b'{')
    }
    fn has_names(&self) -> bool {
        true
    }
    fn open(&self, path: &Path, tensor: Option<&str>) -> Result<Table> {
        let mut all = tensors(path)?;
        if tensor.is_none() {
            all.retain(|(_, place)| place.shape.len() == 2 && place.dtype.is_some());
        }
        let (name, place) = pick(&all, tensor, is_usual)?;
        let (&[rows, dim], Some(dtype)) = (&place.shape[..], place.dtype) else {
            bail!(
                "{name} is {} of shape {:?}: a table is of floats and has two dimensions",
                place.kind,
                place.shape
            );
        };
        Ok(Flat::new(path, place.offset, dtype, [rows, dim], false)?.table())
    }
}
