//! A folder of model2vec: `model.safetensors` with `embeddings`, and where the vocabulary is quantised
//! the `mapping` of tokens to vectors, and their `weights`; `tokenizer.json` names the tokens.

use super::Format;
use super::safetensors::{Place, tensors};
use crate::table::{Dtype, Flat, Parts, Rows, Table};
use crate::words;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::sync::Arc;

pub(super) struct Model2vec;

impl Format for Model2vec {
    fn name(&self) -> &'static str {
        "model2vec"
    }
    fn doc(&self) -> &'static str {
        "a folder of model2vec, with its mapping and weights"
    }
    fn is(&self, path: &Path, _: &[u8]) -> bool {
        path.is_dir()
    }
    fn open(&self, path: &Path, _: Option<&str>) -> Result<Table> {
        let file = path.join("model.safetensors");
        if !file.is_file() {
            bail!("a folder without model.safetensors: none of model2vec");
        }
        let all = tensors(&file)?;
        let find = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, of)| of);
        let vectors = find("embeddings").context("model.safetensors holds no embeddings")?;
        let (&[n, dim], Some(dtype)) = (&vectors.shape[..], vectors.dtype) else {
            bail!("its embeddings are {} of shape {:?}", vectors.kind, vectors.shape);
        };
        let flat = Flat::new(&file, vectors.offset, dtype, [n, dim], false)?;
        let weights = find("weights").map(|of| vector(&file, of, "weights")).transpose()?;
        let mapping = find("mapping").map(|of| mapping(&file, of, n)).transpose()?;
        let mut table = match (mapping, weights) {
            (None, None) => flat.table(),
            (mapping, weights) => {
                let weights = weights.unwrap_or_default();
                let mapping = mapping.unwrap_or_else(|| (0..n as u32).collect());
                shared(flat, [n, dim], dtype, mapping, weights)?
            }
        };
        table.bytes = all.iter().map(|(_, of)| of.bytes()).sum();
        let tokenizer = path.join("tokenizer.json");
        if tokenizer.is_file() {
            table.words = words::read(&tokenizer)?;
            table.words.truncate(table.rows);
        }
        Ok(table)
    }
}

impl Place {
    fn bytes(&self) -> u64 {
        let values: usize = self.shape.iter().product();
        values as u64
            * match &self.kind[..] {
                "I64" | "U64" | "F64" => 8,
                "I32" | "U32" | "F32" => 4,
                "I16" | "U16" | "F16" | "BF16" => 2,
                _ => 1,
            }
    }

    fn len(&self) -> Result<usize> {
        match self.shape[..] {
            [n] => Ok(n),
            _ => bail!("of shape {:?}, no vector", self.shape),
        }
    }
}

/// A vector of floats.
fn vector(file: &Path, of: &Place, name: &str) -> Result<Vec<f32>> {
    let (n, dtype) = (of.len().context(name.to_string())?, of.dtype);
    let dtype = dtype.with_context(|| format!("{name} are {}", of.kind))?;
    let mut values = vec![0.0; n];
    Flat::new(file, of.offset, dtype, [n, 1], false)?.read(0, &mut values)?;
    Ok(values)
}

/// The vector of each token, below `n`.
fn mapping(file: &Path, of: &Place, n: usize) -> Result<Vec<u32>> {
    let rows = of.len().context("mapping")?;
    let width = match &of.kind[..] {
        "I64" | "U64" => 8,
        "I32" | "U32" => 4,
        "U16" => 2,
        other => bail!("its mapping is of {other}"),
    };
    let bytes = Flat::new(file, of.offset, Dtype::I8, [rows, width], false)?;
    let mut raw = vec![0.0; rows * width];
    bytes.read(0, &mut raw)?;
    let number = |bytes: &[f32]| {
        bytes.iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b as i8 as u8))
    };
    let mapping = raw.chunks_exact(width).map(number);
    mapping
        .map(|vector| match vector {
            inside if inside < n as u64 => Ok(inside as u32),
            other => bail!("its mapping names vector {}, and there are {n}", other as i64),
        })
        .collect()
}

/// A table whose rows share vectors.
fn shared(
    vectors: Flat,
    [n, dim]: [usize; 2],
    dtype: Dtype,
    mapping: Vec<u32>,
    weights: Vec<f32>,
) -> Result<Table> {
    let rows = mapping.len();
    if !weights.is_empty() && weights.len() != rows {
        bail!("{} weights for {rows} tokens", weights.len());
    }
    let mut values = vec![0.0; n * dim];
    vectors.read(0, &mut values)?;
    let bytes = (dtype == Dtype::I8).then(|| values.iter().map(|x| *x as i8).collect());
    let source = Shared { dim, values, mapping: mapping.clone(), weights: weights.clone() };
    let mut table = Table::new([rows, dim], dtype.name(), 0, Arc::new(source));
    table.stored = format!("{} x weights, {n} vectors", dtype.name());
    table.parts = bytes.map(|vectors| Parts { vectors, mapping, weights });
    Ok(table)
}

struct Shared {
    dim: usize,
    values: Vec<f32>,
    mapping: Vec<u32>,
    weights: Vec<f32>,
}

impl Rows for Shared {
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        for (row, id) in out.chunks_exact_mut(self.dim).zip(first..) {
            row.copy_from_slice(&self.values[self.mapping[id] as usize * self.dim..][..self.dim]);
            let weight = self.weights.get(id).copied().unwrap_or(1.0);
            row.iter_mut().for_each(|x| *x *= weight);
        }
        Ok(())
    }
}
