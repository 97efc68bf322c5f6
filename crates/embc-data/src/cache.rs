//! The cache: a data set as Arrow IPC files of narrow columns, memory-mapped.
//!
//! `data.arrow` holds label, time, dense features and ids in record batches of 65,536 rows; the ids
//! of a multi-valued column lie flat in a file of their own, with the number per row in
//! `data.arrow`. A cache is built in a temporary folder and renamed; one that is not whole, or not
//! of this format version or these sources, is never trusted.
#![allow(unsafe_code)] // memory-mapping, in `open_mapped` alone

use crate::calm::calmly;
use crate::error::{At, Error, Result};
use crate::raw::{Field, Role};
use memmap2::Mmap;
use polars_arrow::array::{Array, PrimitiveArray, UInt32Array, Utf8ViewArray};
use polars_arrow::datatypes::{self as arrow, ArrowSchema};
use polars_arrow::io::ipc::read::read_file_metadata;
use polars_arrow::io::ipc::write::{FileWriter, WriteOptions};
use polars_arrow::mmap::mmap_unchecked;
use polars_arrow::record_batch::RecordBatchT;
use polars_arrow::types::NativeType;
use polars_buffer::Buffer;
use polars_error::PolarsError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Cursor};
use std::path::Path;
use std::sync::Arc;

/// The version of this layout; a cache of another one is built anew.
pub const VERSION: u32 = 4;

/// Rows of a record batch.
pub const CHUNK: usize = 1 << 16;

/// A raw file that a cache was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The name in `[files]`.
    pub name: String,
    /// The path there.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// Time of modification in nanoseconds since 1970.
    pub modified: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// A column of a cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ColumnMeta {
    /// Its name.
    pub name: String,
    /// Distinct values, for coded columns.
    pub distinct: u32,
    /// Values that occur at least twice, for coded columns.
    pub repeated: u32,
}

/// What `meta.json` says about a cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// [`VERSION`].
    pub version: u32,
    /// Identifies the format and its columns.
    pub definition: String,
    /// Times are written as dates, which count seconds.
    pub dates: bool,
    /// The raw files.
    pub sources: Vec<Source>,
    /// Identifies the content: the SHA-256 of all values, whatever files they came in.
    pub data_hash: String,
    /// Units of its times for one of the files' own.
    pub time_scale: i64,
    /// What was done to values so that they could be read, and how often.
    pub notes: BTreeMap<String, u64>,
    /// Rows.
    pub rows: u64,
    /// Mean of the label.
    pub label_mean: f64,
    /// One per field.
    pub columns: Vec<ColumnMeta>,
    /// Sizes of the files beside this one.
    pub files: BTreeMap<String, u64>,
    /// What a generator knows about its data, such as the oracle's AUC.
    #[serde(default)]
    pub facts: BTreeMap<String, f64>,
}

impl Meta {
    /// The files of rows, in their order, without the tables of attributes beside them.
    pub fn files_of_rows(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| !source.name.starts_with("side "))
    }
}

/// The name of a multi-valued column's ids.
pub fn flat_name(column: usize) -> String {
    format!("ids-{column}.arrow")
}

/// The name of a column's vocabulary.
pub fn vocab_name(column: usize) -> String {
    format!("vocab-{column}.arrow")
}

/// Values of a column, to be written.
pub enum Values<'a> {
    /// Numbers.
    F32(&'a [f32]),
    /// Numbers that single precision does not hold.
    F64(&'a [f64]),
    /// Times.
    I64(&'a [i64]),
    /// Ids below `distinct`, stored as narrow as that allows.
    Ids {
        /// The ids.
        ids: &'a [u32],
        /// Their number.
        distinct: u32,
    },
    /// Strings of a vocabulary.
    Text(&'a [String]),
}

impl Values<'_> {
    fn array(&self) -> Box<dyn Array> {
        fn of<T: NativeType>(values: Vec<T>) -> Box<dyn Array> {
            PrimitiveArray::from_vec(values).boxed()
        }
        match *self {
            Values::F32(x) => of(x.to_vec()),
            Values::F64(x) => of(x.to_vec()),
            Values::I64(x) => of(x.to_vec()),
            Values::Text(x) => Utf8ViewArray::from_slice_values(x).boxed(),
            Values::Ids { ids, distinct } if distinct <= 1 << 8 => {
                of(ids.iter().map(|&id| id as u8).collect())
            }
            Values::Ids { ids, distinct } if distinct <= 1 << 16 => {
                of(ids.iter().map(|&id| id as u16).collect())
            }
            Values::Ids { ids, .. } => of(ids.to_vec()),
        }
    }
}

/// Writes an Arrow IPC file, a record batch at a time.
pub struct ArrowWriter<'a> {
    path: &'a Path,
    writer: Option<FileWriter<BufWriter<File>>>,
}

impl<'a> ArrowWriter<'a> {
    /// A writer; the file appears with the first batch.
    pub fn new(path: &'a Path) -> Self {
        Self { path, writer: None }
    }

    /// Adds a record batch.
    pub fn write(&mut self, columns: &[(&str, Values<'_>)]) -> Result<()> {
        let fail = |error: PolarsError| Error::polars(self.path, error);
        let arrays: Vec<Box<dyn Array>> = columns.iter().map(|(_, v)| v.array()).collect();
        let fields = columns.iter().zip(&arrays).map(|((name, _), array)| {
            let field = arrow::Field::new((*name).into(), array.dtype().clone(), true);
            (field.name.clone(), field)
        });
        let schema: ArrowSchema = fields.collect();
        let (schema, rows) = (Arc::new(schema), arrays.first().map_or(0, |array| array.len()));
        let batch = RecordBatchT::try_new(rows, schema.clone(), arrays).map_err(fail)?;
        if self.writer.is_none() {
            let file = BufWriter::with_capacity(1 << 20, File::create(self.path).at(self.path)?);
            let options = WriteOptions { compression: None };
            self.writer = Some(FileWriter::try_new(file, schema, None, options).map_err(fail)?);
        }
        let writer = self.writer.as_mut().expect("just made");
        writer.write(&batch, None).map_err(fail)
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<()> {
        match &mut self.writer {
            Some(writer) => writer.finish().map_err(|error| Error::polars(self.path, error)),
            None => Ok(()),
        }
    }
}

/// A memory-mapped column.
#[derive(Clone)]
pub enum Mapped {
    /// Ids of a small vocabulary.
    U8(Vec<Buffer<u8>>),
    /// Ids of a middling vocabulary.
    U16(Vec<Buffer<u16>>),
    /// Ids.
    U32(Vec<Buffer<u32>>),
    /// Numbers.
    F32(Vec<Buffer<f32>>),
    /// Numbers that single precision does not hold.
    F64(Vec<Buffer<f64>>),
    /// Times.
    I64(Vec<Buffer<i64>>),
}

#[inline]
fn at<T: Copy>(chunks: &[Buffer<T>], row: u64) -> T {
    chunks[(row / CHUNK as u64) as usize][(row % CHUNK as u64) as usize]
}

impl Mapped {
    /// The id at `row`.
    #[inline]
    pub fn id(&self, row: u64) -> u32 {
        match self {
            Mapped::U8(chunks) => at(chunks, row).into(),
            Mapped::U16(chunks) => at(chunks, row).into(),
            Mapped::U32(chunks) => at(chunks, row),
            _ => unreachable!("a coded column"),
        }
    }

    /// Calls `each` with the id at every one of `rows`. Nothing stands between the reads but what
    /// `each` does, so that many are in flight at once.
    #[inline]
    pub fn ids(&self, rows: impl Iterator<Item = u64>, mut each: impl FnMut(u32)) {
        match self {
            Mapped::U8(chunks) => rows.for_each(|row| each(at(chunks, row).into())),
            Mapped::U16(chunks) => rows.for_each(|row| each(at(chunks, row).into())),
            Mapped::U32(chunks) => rows.for_each(|row| each(at(chunks, row))),
            _ => unreachable!("a coded column"),
        }
    }

    /// The number at `row`.
    #[inline]
    pub fn float(&self, row: u64) -> f64 {
        match self {
            Mapped::F32(chunks) => at(chunks, row).into(),
            Mapped::F64(chunks) => at(chunks, row),
            _ => unreachable!("a column of numbers"),
        }
    }

    /// Calls `each` with the number at every one of `rows`, as [`Mapped::ids`] does.
    #[inline]
    pub fn floats(&self, rows: impl Iterator<Item = u64>, mut each: impl FnMut(f64)) {
        match self {
            Mapped::F32(chunks) => rows.for_each(|row| each(at(chunks, row).into())),
            Mapped::F64(chunks) => rows.for_each(|row| each(at(chunks, row))),
            _ => unreachable!("a column of numbers"),
        }
    }

    /// The time at `row`.
    pub fn time(&self, row: u64) -> i64 {
        match self {
            Mapped::I64(chunks) => at(chunks, row),
            _ => unreachable!("a column of times"),
        }
    }
}

/// A coded column with its values per row.
pub struct Coded {
    /// Ids, one a row, or flat where `offsets` is not empty.
    pub ids: Mapped,
    /// Where each row's ids begin, [rows + 1]; empty for one id a row.
    pub offsets: Vec<u64>,
}

/// An opened cache.
pub struct Cache {
    /// What it holds.
    pub meta: Meta,
    /// The columns as the format names them.
    pub fields: Vec<Field>,
    /// The label; absent where every row is positive.
    pub label: Option<Mapped>,
    /// How much each row counts in training, where a column says so.
    pub weight: Option<Mapped>,
    /// The time to sort by.
    pub time: Option<Mapped>,
    /// Dense features, in the order of `fields`.
    pub dense: Vec<Mapped>,
    /// Coded columns, by index into `fields`.
    pub coded: BTreeMap<usize, Coded>,
    /// Which file each row came from, an index into `meta.sources`.
    pub file: Mapped,
}

/// A memory-mapped Arrow IPC file, by record batches.
pub(crate) struct Frame<'a> {
    path: &'a Path,
    batches: Vec<RecordBatchT<Box<dyn Array>>>,
}

/// Memory-maps an Arrow IPC file that [`ArrowWriter`] wrote.
pub(crate) fn open_mapped(path: &Path) -> Result<Frame<'_>> {
    let file = File::open(path).at(path)?;
    // SAFETY: the map must not change while it is read. A cache is written once, in a folder of
    // its own that is renamed into place, and never written again, and a file that is kept beside it
    // is renamed into place too; on Unix, removing them keeps the mapped pages alive.
    let map = Arc::new(unsafe { Mmap::map(&file) }.at(path)?);
    let batches = calmly(path, || {
        let meta = read_file_metadata(&mut Cursor::new(&map[..]))?;
        let none = Default::default();
        // SAFETY: buffers are checked to lie inside of the file, numbers may be any, and text is
        // checked before it is read (`Frame::text`).
        let batch = |chunk| unsafe { mmap_unchecked(&meta, &none, map.clone(), chunk) };
        (0..meta.blocks.len()).map(batch).collect()
    });
    Ok(Frame { path, batches: batches? })
}

impl Frame<'_> {
    fn height(&self) -> u64 {
        self.batches.iter().map(|batch| batch.len() as u64).sum()
    }

    /// A column by its name, of this kind of arrays.
    fn arrays<T: Array + Clone>(&self, name: &str) -> Result<Vec<T>> {
        let fail = |what: &str| Error::file(self.path, format!("column {name} {what}"));
        let array = |batch: &RecordBatchT<Box<dyn Array>>| {
            let at = batch.schema().index_of(name).ok_or_else(|| fail("is missing"))?;
            let array = batch.arrays()[at].as_any().downcast_ref::<T>();
            array.cloned().ok_or_else(|| fail("has another type"))
        };
        self.batches.iter().map(array).collect()
    }

    /// A column of text, each place and byte of which is checked.
    fn text(&self, name: &str) -> Result<Vec<Utf8ViewArray>> {
        let check = |array: Utf8ViewArray| {
            let (views, buffers) = (array.views().clone(), array.data_buffers().clone());
            let checked = || Utf8ViewArray::try_new(array.dtype().clone(), views, buffers, None);
            calmly(self.path, checked)
        };
        self.arrays(name)?.into_iter().map(check).collect()
    }

    fn values<T: NativeType>(&self, name: &str) -> Result<Vec<Buffer<T>>> {
        let arrays = self.arrays::<PrimitiveArray<T>>(name)?;
        Ok(arrays.iter().map(|array| array.values().clone()).collect())
    }

    /// The ids of a column, copied.
    pub fn ids(&self, name: &str) -> Result<Vec<u32>> {
        let batches = self.values::<u32>(name)?;
        Ok(batches.iter().map(|batch| &batch[..]).collect::<Vec<_>>().concat())
    }

    fn column(&self, name: &str) -> Result<Mapped> {
        let field = self.batches.first().and_then(|batch| batch.schema().get(name));
        Ok(match field.map(|field| &field.dtype) {
            Some(arrow::ArrowDataType::UInt8) => Mapped::U8(self.values(name)?),
            Some(arrow::ArrowDataType::UInt16) => Mapped::U16(self.values(name)?),
            Some(arrow::ArrowDataType::UInt32) => Mapped::U32(self.values(name)?),
            Some(arrow::ArrowDataType::Float64) => Mapped::F64(self.values(name)?),
            Some(arrow::ArrowDataType::Float32) => Mapped::F32(self.values(name)?),
            Some(arrow::ArrowDataType::Int64) => Mapped::I64(self.values(name)?),
            Some(other) => {
                let what = format!("column {name} has type {other:?}");
                return Err(Error::file(self.path, what));
            }
            None => return Err(Error::file(self.path, format!("column {name} is missing"))),
        })
    }
}

/// Reads `meta.json` of a cache folder and checks that the cache is whole.
pub fn read_meta(folder: &Path) -> Result<Meta> {
    let path = folder.join("meta.json");
    let text = std::fs::read_to_string(&path).at(&path)?;
    let meta: Meta = serde_json::from_str(&text).map_err(|error| Error::file(&path, error))?;
    if meta.version != VERSION {
        let what = format!("cache of format version {}, not {VERSION}", meta.version);
        return Err(Error::file(&path, what));
    }
    for (name, &bytes) in &meta.files {
        let path = folder.join(name);
        let length = std::fs::metadata(&path).at(&path)?.len();
        if length != bytes {
            return Err(Error::file(&path, format!("{length} bytes instead of {bytes}")));
        }
    }
    Ok(meta)
}

impl Cache {
    /// Opens a cache folder for a data set of these columns.
    pub fn open(folder: &Path, fields: Vec<Field>) -> Result<Self> {
        let meta = read_meta(folder)?;
        let path = folder.join("data.arrow");
        let frame = open_mapped(&path)?;
        if frame.height() != meta.rows {
            return Err(Error::file(&path, format!("{} rows, not {}", frame.height(), meta.rows)));
        }
        let (mut label, mut weight, mut time, mut dense) = (None, None, None, Vec::new());
        let mut coded = BTreeMap::new();
        for (i, field) in fields.iter().enumerate() {
            let read = |name: &str| frame.column(name);
            match field.role {
                Role::Label | Role::Rating => label = Some(read(&i.to_string())?),
                Role::Weight => weight = Some(read(&i.to_string())?),
                Role::Time => time = Some(read(&i.to_string())?),
                Role::Dense => dense.push(read(&i.to_string())?),
                Role::Multi(_) => {
                    let lengths = read(&i.to_string())?;
                    let mut offsets = Vec::with_capacity(meta.rows as usize + 1);
                    let mut end = 0;
                    offsets.push(end);
                    for row in 0..meta.rows {
                        end += u64::from(lengths.id(row));
                        offsets.push(end);
                    }
                    let path = folder.join(flat_name(i));
                    let ids = match end {
                        0 => Mapped::U32(Vec::new()),
                        _ => open_mapped(&path)?.column("id")?,
                    };
                    coded.insert(i, Coded { ids, offsets });
                }
                _ => {
                    let ids = read(&i.to_string())?;
                    coded.insert(i, Coded { ids, offsets: Vec::new() });
                }
            }
        }
        let file = frame.column("file")?;
        Ok(Self { meta, fields, label, weight, time, dense, coded, file })
    }

    /// Calls `each` with every value of a coded column and its count, in the order of ids.
    pub fn vocabulary(folder: &Path, column: usize, each: &mut dyn FnMut(&str, u32)) -> Result<()> {
        let path = folder.join(vocab_name(column));
        let frame = open_mapped(&path)?;
        let values = frame.text("value")?;
        let counts = frame.arrays::<UInt32Array>("count")?;
        for (values, counts) in values.iter().zip(&counts) {
            values.values_iter().zip(counts.values_iter()).for_each(|(v, &n)| each(v, n));
        }
        Ok(())
    }
}

/// The values of a coded column, memory-mapped.
pub struct Vocabulary(Vec<Utf8ViewArray>);

impl Vocabulary {
    /// That of a column of the cache in `folder`.
    pub fn open(folder: &Path, column: usize) -> Result<Self> {
        let path = folder.join(vocab_name(column));
        Ok(Self(open_mapped(&path)?.text("value")?))
    }

    /// The value of an id.
    pub fn value(&self, id: u32) -> &str {
        self.0[id as usize / CHUNK].value(id as usize % CHUNK)
    }
}
