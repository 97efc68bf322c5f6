//! A compressed table for elsewhere: the registry of formats. The packed file is what all are made of.

use crate::packed::Packed;
use crate::table::{Rows, each};
use anyhow::{Context, Result};
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
            copy(to.from, &to.folder.join("model.embc"))?;
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
        doc: "rows.npy, all rows as floats: not compressed",
        write: |to| {
            npy(&to.folder.join("rows.npy"), to.packed, [to.packed.rows, to.packed.dim])?;
            Ok(vec!["rows.npy".into()])
        },
    },
    Format {
        name: "safetensors",
        doc: "rows.safetensors, all rows as floats in the tensor `embeddings`: not compressed",
        write: |to| {
            let [rows, dim] = [to.packed.rows, to.packed.dim];
            let bytes = 4 * rows * dim;
            let tensor = json!({"embeddings": {
                "dtype": "F32", "shape": [rows, dim], "data_offsets": [0, bytes]
            }});
            let path = to.folder.join("rows.safetensors");
            write_rows(&path, &safetensors_header(&tensor), to.packed, [rows, dim])?;
            Ok(vec!["rows.safetensors".into()])
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
        let written = each(rows, [n, dim], |_, some| {
            Ok(file.write_all(bytemuck::cast_slice(some)).map_err(io)?)
        });
        written.map_err(|error| {
            wrong = Some(error);
            embc_data::Error::Cancelled
        })?;
        Ok(())
    })
    .map_err(|error| wrong.unwrap_or(error.into()))
}

/// Copies a file, whole or not at all; onto itself it stays.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() && to.canonicalize()? == from.canonicalize()? {
        return Ok(());
    }
    let mut source = std::fs::File::open(from).with_context(|| from.display().to_string())?;
    Ok(embc_data::atomic::write(to, |file| {
        std::io::copy(&mut source, file).map(drop).map_err(|error| embc_data::Error::io(to, &error))
    })?)
}

/// Copies a file beside others, if it is there.
fn copy_if(from: &Path, folder: &Path, name: &str) -> Result<bool> {
    let from = from.join(name);
    if from.is_file() {
        copy(&from, &folder.join(name))?;
    }
    Ok(from.is_file())
}
