//! A folder of model2vec: vectors, and where they are shared mapping and weights; else all rows in
//! half precision. Tokenizer and settings are copied.

use super::{To, copy_if, safetensors_header};
use crate::table::each;
use crate::words;
use anyhow::{Context, Result, bail};
use embc_core::graph::device::tensor::View;
use half::f16;
use serde_json::{Map, Value, json};
use std::io::Write;

/// Tensors of a file: name, type, shape, and bytes.
type Tensors = Vec<(&'static str, &'static str, Vec<usize>, Vec<u8>)>;

pub(super) fn write(to: &To<'_>) -> Result<Vec<String>> {
    let like = to.like.context(
        "a folder of model2vec needs a tokenizer: name a folder that has it with --like FOLDER",
    )?;
    let tokenizer = like.join("tokenizer.json");
    if !tokenizer.is_file() {
        bail!("{}: it has no tokenizer.json", like.display());
    }
    let (tokens, rows) = (words::read(&tokenizer)?.len(), to.packed.rows);
    if tokens != rows {
        bail!("{}: {tokens} tokens, and the table has {rows} rows", tokenizer.display());
    }
    let tensors = shared(to)?.map_or_else(|| plain(to), Ok)?;
    let (mut header, mut at) = (Map::new(), 0);
    for (name, dtype, shape, bytes) in &tensors {
        let offsets = [at, at + bytes.len()];
        header.insert(
            (*name).into(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
        );
        at = offsets[1];
    }
    copy_if(like, to.folder, "tokenizer.json")?;
    let mut files = vec!["model.safetensors".to_string(), "tokenizer.json".into()];
    if copy_if(like, to.folder, "config.json")? {
        files.push("config.json".into());
    }
    let path = to.folder.join("model.safetensors");
    embc_data::atomic::write(&path, |file| {
        let mut result = file.write_all(&safetensors_header(&Value::Object(header)));
        for (_, _, _, bytes) in &tensors {
            result = result.and_then(|()| file.write_all(bytes));
        }
        result.map_err(|error| embc_data::Error::io(&path, &error))
    })?;
    Ok(files)
}

/// All rows, in half precision.
fn plain(to: &To<'_>) -> Result<Tensors> {
    let [rows, dim] = [to.packed.rows, to.packed.dim];
    let mut bytes = Vec::with_capacity(2 * rows * dim);
    each(to.packed, [rows, dim], |_, some| {
        bytes.extend(some.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
        Ok(())
    })?;
    Ok(vec![("embeddings", "F16", vec![rows, dim], bytes)])
}

/// Vectors, mapping and weights, where the table is of such.
fn shared(to: &To<'_>) -> Result<Option<Tensors>> {
    let (model, rows) = (&to.packed.model, to.packed.rows);
    let (header, blobs) = (model.header(), model.blobs());
    let find = |name: &str| {
        let tensor = header.tensors.iter().find(|of| of.name == format!("table0/{name}"))?;
        let ranges = tensor.ranges.map_or(&[][..], |at| blobs[at as usize]);
        Some(View { tensor, values: blobs[tensor.values as usize], ranges })
    };
    let (Some(mapping), Some(vectors)) = (find("mapping"), find("vectors")) else {
        return Ok(None);
    };
    let damaged = || anyhow::anyhow!("it is damaged");
    let ints = |of: View<'_>| -> Result<Vec<u32>> {
        let mut all = vec![0; rows];
        let mut each = all.iter_mut().zip(0..);
        each.try_for_each(|(x, row)| of.ints(row, std::slice::from_mut(x)).ok_or_else(damaged))?;
        Ok(all)
    };
    let (n, dim) = (vectors.tensor.rows as usize, to.packed.dim);
    let (mut values, mut row) = (Vec::with_capacity(n * dim), vec![0.0; dim]);
    for id in 0..n as u32 {
        vectors.floats(id, &mut row).ok_or_else(damaged)?;
        values.extend(row.iter().map(|x| *x as i8 as u8));
    }
    let mapping = ints(mapping)?;
    let (dtype, mapping): (&str, Vec<u8>) = match n {
        0..=0x1_0000 => ("U16", mapping.iter().flat_map(|x| (*x as u16).to_le_bytes()).collect()),
        _ => ("U32", mapping.iter().flat_map(|x| x.to_le_bytes()).collect()),
    };
    let mut tensors =
        vec![("embeddings", "I8", vec![n, dim], values), ("mapping", dtype, vec![rows], mapping)];
    if let (Some(which), Some(different)) = (find("weight"), find("weights")) {
        let mut bytes = Vec::with_capacity(2 * rows);
        for which in ints(which)? {
            let mut weight = [0.0];
            different.floats(which, &mut weight).ok_or_else(damaged)?;
            bytes.extend(f16::from_f32(weight[0]).to_le_bytes());
        }
        tensors.push(("weights", "F16", vec![rows], bytes));
    }
    Ok(Some(tensors))
}
