//! A table of embeddings, read some rows at a time: it may be larger than memory.

use anyhow::{Context, Result, bail};
use embc_core::rng::Rng;
use half::{bf16, f16};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Largest values of tables that half precision holds well: some forms keep values in it.
const LARGEST: Range<f32> = 1e-4..65504.0;

/// Rows of `dim` columns at a time: up to 12,288, or 16 MiB of them, and at least 64. Divisible by the
/// rows of every group of the quantiser: rows of 16 columns or more are groups of their own.
pub fn block(dim: usize) -> usize {
    ((1 << 22) / dim / 64 * 64).clamp(64, 12 << 10)
}

/// Shows all rows of a table [n × dim], some at a time, and the number of the first of them.
pub fn each(
    rows: &dyn Rows,
    [n, dim]: [usize; 2],
    mut visit: impl FnMut(usize, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let mut some = Vec::new();
    for first in (0..n).step_by(block(dim)) {
        some.resize(block(dim).min(n - first) * dim, 0.0);
        rows.read(first, &mut some)?;
        visit(first, &mut some)?;
    }
    Ok(())
}

/// Gives rows.
pub trait Rows: Send + Sync {
    /// Writes the rows from `first` on into `out` [n × dim].
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()>;
    /// Writes the rows of ids into `out` [ids × dim].
    fn look_up(&self, ids: &[u32], out: &mut [f32]) -> Result<()> {
        let dim = out.len() / ids.len().max(1);
        let mut rows = out.chunks_exact_mut(dim.max(1)).zip(ids);
        rows.try_for_each(|(out, &id)| self.read(id as usize, out))
    }
}

/// A table [rows × dim], and what is known of its rows.
pub struct Table {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub dim: usize,
    /// How its values are stored where it lies, in words.
    pub stored: String,
    /// Bytes that it takes there.
    pub bytes: u64,
    /// The words of the first rows, in their order; none where the file has none.
    pub words: Vec<String>,
    /// How often each row is read [rows]; empty where that is not known.
    pub counts: Vec<u32>,
    /// True where no order of rows says how often they are read.
    pub unordered: bool,
    /// What it is made of, where rows share vectors.
    pub parts: Option<Parts>,
    /// Where its rows are.
    pub source: Arc<dyn Rows>,
}

/// A table whose rows are vectors times a weight: what model2vec writes.
#[derive(Clone)]
pub struct Parts {
    /// Whole numbers [vectors × dim], of one byte.
    pub vectors: Vec<i8>,
    /// The vector of each row.
    pub mapping: Vec<u32>,
    /// The weight of each row; all 1 where it is empty.
    pub weights: Vec<f32>,
}

impl Table {
    /// A table without words or counts.
    pub fn new([rows, dim]: [usize; 2], stored: &str, bytes: u64, source: Arc<dyn Rows>) -> Self {
        let (words, counts, stored) = (Vec::new(), Vec::new(), stored.to_string());
        Self { rows, dim, stored, bytes, words, counts, unordered: false, parts: None, source }
    }

    /// Shows all rows, some at a time, and the number of the first of them.
    pub fn each(&self, mut visit: impl FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        each(&*self.source, [self.rows, self.dim], |first, some| visit(first, some))
    }

    /// At most `most` rows, drawn without replacement, in their order; and which they are.
    pub fn sample(&self, most: usize, rng: &mut Rng) -> Result<(Vec<f32>, Vec<usize>)> {
        let (mut rows, mut ids) = (Vec::with_capacity(most.min(self.rows) * self.dim), Vec::new());
        // Of those left, so many are wanted (Fan et al. 1962).
        let mut wanted = most.min(self.rows);
        self.each(|first, block| {
            for (row, id) in block.chunks_exact(self.dim).zip(first..) {
                if wanted > 0 && rng.below((self.rows - id) as u64) < wanted as u64 {
                    rows.extend_from_slice(row);
                    ids.push(id);
                    wanted -= 1;
                }
            }
            Ok(())
        })?;
        Ok((rows, ids))
    }

    /// True where rows come by how often they are read, the most frequent first: as counts say, or,
    /// without them, as is the custom with word vectors and tokens.
    pub fn is_ranked(&self) -> bool {
        !self.unordered && self.counts.is_sorted_by(|a, b| a >= b)
    }

    /// Some of its rows, as a table without words.
    pub fn part(&self, of: Range<usize>) -> Self {
        let source = Part { source: self.source.clone(), first: of.start };
        let mut part = Self::new([of.len(), self.dim], &self.stored, 0, Arc::new(source));
        if !self.counts.is_empty() {
            part.counts = self.counts[of].to_vec();
        }
        part
    }

    /// Its rows by count, the most frequent first, as a table without words.
    pub fn ranked(&self) -> (Self, Vec<u32>) {
        let mut order: Vec<u32> = (0..self.rows as u32).collect();
        order.sort_by_key(|&id| std::cmp::Reverse(self.counts[id as usize]));
        let source = self.source.clone();
        let source = Ordered { source, order: order.clone(), dim: self.dim };
        let mut table = Self::new([self.rows, self.dim], &self.stored, 0, Arc::new(source));
        table.counts = order.iter().map(|&id| self.counts[id as usize]).collect();
        (table, order)
    }

    /// The name of a row, for messages.
    pub fn name(&self, row: usize) -> String {
        match self.words.get(row) {
            Some(word) => format!("row {row} ({word})"),
            None => format!("row {row}"),
        }
    }

    /// Refuses a table with values that are no numbers, or that half precision does not hold, and counts
    /// the rows of zeros.
    pub fn check(&self) -> Result<usize> {
        let (mut zeros, mut most) = (0, 0f32);
        self.each(|first, block| {
            for (row, id) in block.chunks_exact(self.dim).zip(first..) {
                if let Some((column, x)) = row.iter().enumerate().find(|(_, x)| !x.is_finite()) {
                    bail!(
                        "{}, column {column} is {x}: no number that can be compressed; mend the table, or leave the row out",
                        self.name(id)
                    );
                }
                let largest = row.iter().fold(0f32, |most, x| most.max(x.abs()));
                zeros += usize::from(largest == 0.0);
                most = most.max(largest);
            }
            Ok(())
        })?;
        if most > LARGEST.end || most > 0.0 && most < LARGEST.start {
            bail!("its largest value is {most:e}: scale the table, so that it is near 1");
        }
        Ok(zeros)
    }
}

/// Rows in memory.
pub struct Held {
    /// Columns.
    pub dim: usize,
    /// All values.
    pub values: Vec<f32>,
}

impl Rows for Held {
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.values[first * self.dim..][..out.len()]);
        Ok(())
    }
}

/// Some rows of a table, one after the other.
struct Part {
    source: Arc<dyn Rows>,
    first: usize,
}

impl Rows for Part {
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        self.source.read(self.first + first, out)
    }
}

/// Rows in another order.
struct Ordered {
    source: Arc<dyn Rows>,
    order: Vec<u32>,
    dim: usize,
}

impl Rows for Ordered {
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let mut rows = out.chunks_exact_mut(self.dim).zip(&self.order[first..]);
        rows.try_for_each(|(out, &id)| self.source.read(id as usize, out))
    }
}

/// How values lie in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Single precision.
    F32,
    /// Double precision; it is rounded.
    F64,
    /// Whole numbers.
    I8,
    /// Blocks of 32: a half, and a byte a value.
    Q8,
}

impl Dtype {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
            Dtype::I8 => "int8",
            Dtype::Q8 => "q8_0",
        }
    }

    /// Bytes of `n` values.
    pub fn bytes(self, n: u64) -> Option<u64> {
        match self {
            Dtype::I8 => Some(n),
            Dtype::F16 | Dtype::Bf16 => n.checked_mul(2),
            Dtype::F32 => n.checked_mul(4),
            Dtype::F64 => n.checked_mul(8),
            Dtype::Q8 => n.div_ceil(32).checked_mul(34),
        }
    }

    fn decode(self, bytes: &[u8], out: &mut [f32]) {
        fn each<const N: usize>(bytes: &[u8], out: &mut [f32], of: impl Fn([u8; N]) -> f32) {
            let values = bytes.as_chunks().0.iter();
            out.iter_mut().zip(values).for_each(|(x, bytes)| *x = of(*bytes));
        }
        match self {
            Dtype::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F32 => each(bytes, out, f32::from_le_bytes),
            Dtype::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Dtype::I8 => each(bytes, out, |[b]: [u8; 1]| f32::from(b as i8)),
            Dtype::Q8 => {
                for (block, out) in bytes.chunks_exact(34).zip(out.chunks_mut(32)) {
                    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                    let values = out.iter_mut().zip(&block[2..]);
                    values.for_each(|(x, b)| *x = scale * f32::from(*b as i8));
                }
            }
        }
    }
}

/// A table of values of one kind, one after the other in a file.
pub struct Flat {
    file: File,
    offset: u64,
    dtype: Dtype,
    rows: usize,
    dim: usize,
    /// Column after column, as Fortran has it.
    columns: bool,
}

impl Flat {
    /// The table at `offset` of a file. An error says that it does not fit.
    pub fn new(
        path: &Path,
        offset: u64,
        dtype: Dtype,
        [rows, dim]: [usize; 2],
        columns: bool,
    ) -> Result<Self> {
        let file = File::open(path)?;
        Self::of(file, offset, dtype, [rows, dim], columns)
    }

    /// The same of an open file.
    pub fn of(
        file: File,
        offset: u64,
        dtype: Dtype,
        [rows, dim]: [usize; 2],
        columns: bool,
    ) -> Result<Self> {
        let length = file.metadata()?.len();
        let bytes = (rows as u64).checked_mul(dim as u64).and_then(|n| dtype.bytes(n));
        let end = bytes.and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > length) {
            bail!(
                "it is cut off, or its header lies: {rows} x {dim} values of {} do not fit into its {length} bytes",
                dtype.name()
            );
        }
        if rows == 0 || dim == 0 {
            bail!("a table of {rows} rows and {dim} columns: there is nothing in it");
        }
        if rows > u32::MAX as usize || dim > 1 << 20 {
            bail!(
                "{rows} rows x {dim} columns: embc takes up to {} rows of up to {} columns",
                u32::MAX,
                1 << 20
            );
        }
        Ok(Self { file, offset, dtype, rows, dim, columns })
    }

    /// As a table.
    pub fn table(self) -> Table {
        let (shape, dtype) = ([self.rows, self.dim], self.dtype);
        let bytes = dtype.bytes((self.rows * self.dim) as u64).expect("it fits its file");
        Table::new(shape, dtype.name(), bytes, Arc::new(self))
    }

    /// Values from the `first`th of the file on.
    fn values(&self, first: u64, out: &mut [f32], buffer: &mut Vec<u8>) -> Result<()> {
        let bytes = |n: u64| self.dtype.bytes(n).expect("it fits its file");
        buffer.resize(bytes(out.len() as u64) as usize, 0);
        read_at(&self.file, self.offset + bytes(first), buffer)?;
        self.dtype.decode(buffer, out);
        Ok(())
    }
}

impl Rows for Flat {
    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let mut buffer = Vec::new();
        if !self.columns {
            return self.values((first * self.dim) as u64, out, &mut buffer);
        }
        let mut column = vec![0.0; out.len() / self.dim];
        for j in 0..self.dim {
            self.values((j * self.rows + first) as u64, &mut column, &mut buffer)?;
            out.chunks_exact_mut(self.dim).zip(&column).for_each(|(row, x)| row[j] = *x);
        }
        Ok(())
    }
}

/// Reads exactly so many bytes at a place, whatever others read.
#[cfg(unix)]
fn read_at(file: &File, at: u64, out: &mut [u8]) -> Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at).context("it cannot be read")
}

/// Reads exactly so many bytes at a place, whatever others read.
#[cfg(windows)]
fn read_at(file: &File, mut at: u64, mut out: &mut [u8]) -> Result<()> {
    while !out.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, out, at)?;
        (at, out) = (at + n as u64, &mut out[n..]);
        if n == 0 {
            bail!("it is cut off");
        }
    }
    Ok(())
}
