//! numpy's arrays of two dimensions: versions 1 to 3 of the format, in C's or Fortran's order.

use super::Format;
use super::bytes::Bytes;
use crate::table::{Dtype, Flat, Table};
use anyhow::{Context, Result, bail};
use std::path::Path;

pub(super) struct Npy;

impl Format for Npy {
    fn name(&self) -> &'static str {
        "npy"
    }
    fn doc(&self) -> &'static str {
        ".npy of f16, f32 or f64 [rows x dim], in C's or Fortran's order"
    }
    fn is(&self, _: &Path, head: &[u8]) -> bool {
        head.starts_with(b"\x93NUMPY")
    }
    fn open(&self, path: &Path, _: Option<&str>) -> Result<Table> {
        let mut file = Bytes::open(path)?;
        file.take::<6>()?;
        let [major, _] = file.take()?;
        let length = match major {
            1 => u64::from(u16::from_le_bytes(file.take()?)),
            2 | 3 => file.u32()?.into(),
            other => bail!("version {other} of npy, which is newer than embc"),
        };
        let header = String::from_utf8(file.some(length)?).context("its header is no text")?;
        let dtype = match of(&header, "descr")?.trim_matches(['\'', '"']) {
            "<f2" | "|f2" => Dtype::F16,
            "<f4" => Dtype::F32,
            "<f8" => Dtype::F64,
            other => bail!("values of type {other}: {}", converts(other)),
        };
        let columns = match of(&header, "fortran_order")? {
            "True" => true,
            "False" => false,
            other => bail!("its header says fortran_order = {other}"),
        };
        let shape = of(&header, "shape")?.trim_start_matches('(');
        let sizes: Result<Vec<usize>, _> =
            shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::parse).collect();
        let Ok([rows, dim]) = sizes.as_deref() else {
            bail!("an array of shape ({shape}): a table has two dimensions, rows and columns");
        };
        Ok(Flat::new(path, file.place()?, dtype, [*rows, *dim], columns)?.table())
    }
}

/// How to make a table of an array that is none.
fn converts(dtype: &str) -> String {
    let line = |of: &str| {
        format!("write it with numpy.save(\"table.npy\", numpy.load(FILE{of}).astype(\"<f4\"))")
    };
    match dtype {
        "|O" => line(", allow_pickle=True").replace(
            "write",
            "objects of Python, which embc does not load; if you trust the file, write",
        ),
        _ if dtype.starts_with('>') => line("").replace("write", "big-endian; write"),
        _ => line("").replace("write", "embc reads floats; write"),
    }
}

/// The value of a key in the header, a dictionary of Python.
fn of<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    let value = || {
        let rest = header.split_once(&format!("'{key}':"))?.1.trim_start();
        let end = if rest.starts_with('(') { rest.find(')') } else { rest.find([',', '}']) };
        Some(rest[..end?].trim())
    };
    value().with_context(|| format!("its header does not say {key}"))
}
