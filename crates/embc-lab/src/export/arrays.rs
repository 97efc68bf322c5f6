//! The rows of every id as plain arrays [vocabulary × width], whatever the scheme: nothing is
//! compressed any more, and everything reads it.

use super::{Exported, Format, Stated};
use crate::tensors;
use anyhow::Result;
use embc_core::state::TensorRef;
use ndarray::ArrayViewD;
use std::io::Write;
use std::path::Path;

pub(super) struct Safetensors;
pub(super) struct Npy;

/// Ids at a time.
const IDS: usize = 4096;

impl Format for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }
    fn doc(&self) -> &'static str {
        "rows.safetensors, the rows of all ids as floats, a tensor a field: not compressed"
    }
    fn write(&self, stated: &Stated<'_>, folder: &Path) -> Result<Exported> {
        let file = "rows.safetensors";
        tensors::write(&folder.join(file), None, &mut |visit| {
            for (i, input) in stated.header.inputs.iter().enumerate() {
                let (shape, mut rows) = (shape(stated, i), Vec::new());
                each(stated, i, |some| rows.extend_from_slice(some));
                let rows = ArrayViewD::from_shape(&shape[..], &rows).expect("as many as it says");
                visit(&input.name, TensorRef::F32(rows));
            }
        })?;
        Ok(Exported { files: vec![file.into()], checked: None })
    }
}

impl Format for Npy {
    fn name(&self) -> &'static str {
        "npy"
    }
    fn doc(&self) -> &'static str {
        "FIELD.npy, the rows of all ids as floats, for numpy: not compressed"
    }
    fn write(&self, stated: &Stated<'_>, folder: &Path) -> Result<Exported> {
        let mut files = Vec::new();
        for (i, input) in stated.header.inputs.iter().enumerate() {
            let [rows, width] = shape(stated, i);
            let name = format!("{}.npy", input.name.replace(['/', '\\'], "_"));
            if files.contains(&name) {
                anyhow::bail!("two fields would be {name}: use --format safetensors");
            }
            let path = folder.join(&name);
            embc_data::atomic::write(&path, |file| {
                let mut put = |bytes: &[u8]| {
                    file.write_all(bytes).map_err(|error| embc_data::Error::io(&path, &error))
                };
                put(&npy_header([rows, width]))?;
                let mut result = Ok(());
                each(stated, i, |rows| {
                    if result.is_ok() {
                        result = put(bytemuck::cast_slice(rows));
                    }
                });
                result
            })?;
            files.push(name);
        }
        Ok(Exported { files, checked: None })
    }
}

/// What a .npy of floats [rows × width] begins with: version 1 of the format, a dictionary of Python,
/// and a line end at a multiple of 64.
pub fn npy_header([rows, width]: [usize; 2]) -> Vec<u8> {
    let of = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    let length = (10 + of.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((length as u16).to_le_bytes());
    header.extend(format!("{of:<0$}\n", length - 1).as_bytes());
    header
}

/// Ids and columns of an input.
fn shape(stated: &Stated<'_>, input: usize) -> [usize; 2] {
    [stated.header.inputs[input].vocab as usize, stated.model.net().layer.widths()[input]]
}

/// The rows of all ids of an input, some at a time.
fn each(stated: &Stated<'_>, input: usize, mut take: impl FnMut(&[f32])) {
    let [vocab, width] = shape(stated, input);
    let mut rows = vec![0.0; IDS * width];
    for first in (0..vocab).step_by(IDS) {
        let ids: Vec<u32> = (first..vocab.min(first + IDS)).map(|id| id as u32).collect();
        let rows = &mut rows[..ids.len() * width];
        stated.model.net().layer.rows_of(input, &ids, rows);
        take(rows);
    }
}
