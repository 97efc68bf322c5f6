//! A compressed table for elsewhere: the registry of formats. The packed file is what all are made of.

use crate::packed::Packed;
use crate::table::{BLOCK, Rows};
use anyhow::{Context, Result, bail};
use embc_lab::export::arrays::npy_header;
use embc_lab::export::onnx;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

mod model2vec;

/// All formats. A new one is a file, or a function, and a line here.
pub static FORMATS: &[Format] = &[
    Format {
        name: "packed",
        doc: "model.embc, one mapped file for embc-device: Rust, C, and what calls C",
        write: |to| {
            let path = to.folder.join("model.embc");
            if !path.exists() || path.canonicalize()? != to.from.canonicalize()? {
                std::fs::copy(to.from, path)?;
            }
            Ok(vec!["model.embc".into()])
        },
    },
    Format {
        name: "onnx",
        doc: "model.onnx and model.data: ids to id_row, still compressed, for ONNX Runtime and others",
        write: |to| onnx::write(to.packed.model.header(), &to.packed.model.blobs(), to.folder),
    },
    Format {
        name: "npy",
        doc: "table.npy, all rows as floats: not compressed",
        write: |to| {
            npy(&to.folder.join("table.npy"), to.packed, [to.packed.rows, to.packed.dim])?;
            Ok(vec!["table.npy".into()])
        },
    },
    Format {
        name: "safetensors",
        doc: "table.safetensors, all rows as floats in the tensor `embeddings`: not compressed",
        write: |to| {
            let [rows, dim] = [to.packed.rows, to.packed.dim];
            let bytes = 4 * rows * dim;
            let tensor = json!({"embeddings": {
                "dtype": "F32", "shape": [rows, dim], "data_offsets": [0, bytes]
            }});
            let path = to.folder.join("table.safetensors");
            write_rows(&path, &safetensors_header(&tensor), to.packed, [rows, dim])?;
            Ok(vec!["table.safetensors".into()])
        },
    },
    Format {
        name: "model2vec",
        doc: "a folder that model2vec reads, with the tokenizer of --like",
        write: model2vec::write,
    },
];

/// What a compressed table is written as.
pub struct Format {
    /// Its name.
    pub name: &'static str,
    /// What is written, in a line.
    pub doc: &'static str,
    /// Writes it; returns the names of the files.
    pub write: fn(&To<'_>) -> Result<Vec<String>>,
}

/// What is written, and where.
pub struct To<'a> {
    /// The packed file.
    pub from: &'a Path,
    /// The same, mapped.
    pub packed: &'a Packed,
    /// A folder that is there.
    pub folder: &'a Path,
    /// A folder of model2vec, whose tokenizer and settings belong to the table.
    pub like: Option<&'a PathBuf>,
}

/// The format called `name`.
pub fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// Writes a table as .npy.
pub fn npy(path: &Path, rows: &dyn Rows, shape: [usize; 2]) -> Result<()> {
    write_rows(path, &npy_header(shape), rows, shape)
}

/// A header of safetensors: its length, and text whose end is aligned.
fn safetensors_header(tensors: &serde_json::Value) -> Vec<u8> {
    let mut text = tensors.to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Writes a header and all rows, whole or not at all.
fn write_rows(path: &Path, header: &[u8], rows: &dyn Rows, [n, dim]: [usize; 2]) -> Result<()> {
    let mut wrong = None;
    embc_data::atomic::write(path, |file| {
        let io = |error: std::io::Error| embc_data::Error::io(path, &error);
        file.write_all(header).map_err(io)?;
        let mut block = Vec::new();
        for first in (0..n).step_by(BLOCK) {
            block.resize(BLOCK.min(n - first) * dim, 0.0);
            if let Err(error) = rows.read(first, &mut block) {
                wrong = Some(error);
                return Err(embc_data::Error::Cancelled);
            }
            file.write_all(bytemuck::cast_slice(&block)).map_err(io)?;
        }
        Ok(())
    })
    .map_err(|error| wrong.unwrap_or(error.into()))
}

/// Copies a file beside others, if it is there.
fn copy_if(from: &Path, folder: &Path, name: &str) -> Result<bool> {
    let from = from.join(name);
    if !from.is_file() {
        return Ok(false);
    }
    let to = folder.join(name);
    if to.exists() && to.canonicalize()? == from.canonicalize()? {
        bail!("{}: would be written over itself; choose another folder", to.display());
    }
    std::fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    Ok(true)
}
