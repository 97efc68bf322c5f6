//! A user's own table in Parquet: the same `columns` as of a CSV file, by name. Columns are read in
//! parallel, some thousand rows at a time; what has one dictionary stays coded.

use super::arrow::Arrays;
use super::csv::layout;
use super::{Field, Format, Role, Sink};
use crate::calm::calmly;
use crate::error::{At, Error, Result};
use crate::input::Input;
use crate::registry::Entry;
use polars_arrow::array::{Array, Utf8ViewArray};
use polars_arrow::datatypes::{
    ArrowDataType, DTYPE_CATEGORICAL_NEW, Field as ArrowField, IntegerType, Metadata,
};
use polars_buffer::Buffer;
use polars_error::{PolarsResult, polars_bail};
use polars_parquet::parquet::page::{CompressedPage, ParquetPageHeader};
use polars_parquet::read::{
    BasicDecompressor, ColumnChunkMetadata, FileMetadata, Filter, PageReader, RowGroupMetadata,
    column_iter_to_arrays, infer_schema, read_metadata,
};
use polars_parquet_format::thrift::protocol::TCompactInputProtocol;
use rayon::prelude::*;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(crate) struct Parquet;

/// Bytes of values that are decoded at a time, about; and rows.
const PART_BYTES: usize = 32 << 20;
const PART_ROWS: Range<usize> = 1 << 14..1 << 18;

/// Bytes of a decoded value, about: a view, or a number and its row.
const VALUE_BYTES: usize = 24;

/// No page that anybody writes has more bytes.
const PAGE_BYTES: usize = 256 << 20;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }
    fn doc(&self) -> &'static str {
        "a table in Parquet; columns = { label, dense, categorical, multi } say what it holds"
    }
    fn fields(&self, entry: &Entry) -> Result<Vec<Field>> {
        Ok(layout(entry)?.fields())
    }
    fn dense(&self) -> crate::view::Dense {
        crate::view::Dense::Standard
    }
    fn in_pieces(&self) -> bool {
        true
    }
    fn read(&self, entry: &Entry, mut input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        let (layout, path) = (layout(entry)?, input.path.clone());
        let mut file = File::open(&path).at(&path)?;
        let Schema { metadata, columns } = Schema::read(&path, &mut file)?;
        let folders = partitions(&path);
        let header = columns.iter().map(|field| field.name.to_string());
        let header: Vec<String> = header.chain(folders.iter().map(|of| of.0.clone())).collect();
        let places = layout.positions(Some(&header)).map_err(|what| Error::file(&path, what))?;
        let (mut wanted, mut sources) = (Vec::new(), Vec::new());
        for (place, (_, field)) in places.into_iter().zip(&layout.columns) {
            sources.push(match columns.get(place) {
                Some(column) => {
                    wanted.push((column.clone(), field.role));
                    Source::File(wanted.len() - 1)
                }
                None => Source::Path(folders[place - columns.len()].1.as_deref()),
            });
        }
        let mut arrays = Arrays::new(&layout, &path);
        for group in &metadata.row_groups {
            let (chunks, bytes) = read_group(group, &wanted, &path, &mut file, sink)?;
            push_group(group.num_rows(), &chunks, bytes, &sources, &mut arrays, (&path, sink))?;
            let end = group.parquet_columns().iter().map(|column| column.byte_range().end).max();
            input.follow(end.unwrap_or_default())?;
        }
        arrays.finish()
    }
}

/// Where the values of a column are.
enum Source<'a> {
    /// In the file, at such a place of those that are read.
    File(usize),
    /// In its path, one for all rows.
    Path(Option<&'a str>),
}

/// Decodes the columns of a row group, and hands on its rows.
fn push_group(
    rows: usize,
    chunks: &[Chunk<'_>],
    bytes: u64,
    sources: &[Source<'_>],
    arrays: &mut Arrays<'_>,
    (path, sink): (&Path, Sink<'_>),
) -> Result<()> {
    let step = (PART_BYTES / (16 * sources.len())).clamp(PART_ROWS.start, PART_ROWS.end);
    // A page may hold all rows of its group: each is unpacked as seldom as memory allows.
    let of_row = VALUE_BYTES * sources.len();
    let span = (sink.room() as usize / 2 / of_row).clamp(step, rows.max(step));
    let needs = (span.min(rows) * of_row) as u64 + bytes;
    sink.reserve(needs).map_err(|error| Error::file(path, error))?;
    for start in (0..rows).step_by(span) {
        let part = start..rows.min(start + span);
        let decoded = chunks.par_iter().with_max_len(1);
        let decoded = decoded.map(|chunk| chunk.decode(part.clone(), path));
        let decoded = decoded.collect::<Result<Vec<Box<dyn Array>>>>()?;
        for first in (0..part.len()).step_by(step) {
            let n = step.min(part.len() - first);
            let array = |i: usize| match sources[i] {
                Source::File(at) => sliced(&*decoded[at], first, n, path),
                Source::Path(value) => Ok(Utf8ViewArray::from_slice(vec![value; n]).boxed()),
            };
            arrays.push(n, array, sink)?;
        }
    }
    Ok(())
}

/// What the end of a file says about it.
pub(crate) struct Schema {
    pub metadata: FileMetadata,
    pub columns: Vec<ArrowField>,
}

impl Schema {
    pub fn read(path: &Path, file: &mut File) -> Result<Self> {
        let read = calmly(path, || {
            let metadata = read_metadata(file)?;
            let columns = infer_schema(&metadata)?.iter_values().cloned().collect();
            Ok(Self { metadata, columns })
        });
        read.map_err(|error| match std::fs::metadata(path).map(|m| m.len()) {
            Ok(0) => Error::file(path, "the file is empty; get it again"),
            _ => error,
        })
    }
}

/// A column of a row group: its compressed bytes.
pub(super) struct Chunk<'a> {
    field: ArrowField,
    /// The leaves of the column, each with its bytes.
    leaves: Vec<Leaf<'a>>,
}

type Leaf<'a> = (&'a ColumnChunkMetadata, Buffer<u8>);

/// Reads the compressed columns of a row group.
pub(super) fn read_group<'a>(
    group: &'a RowGroupMetadata,
    wanted: &[(ArrowField, Role)],
    path: &Path,
    file: &mut File,
    sink: Sink<'_>,
) -> Result<(Vec<Chunk<'a>>, u64)> {
    let damaged = |what: &str| Error::file(path, format!("is damaged: {what}; get it again"));
    let length = file.metadata().at(path)?.len();
    let leaves = |field: &ArrowField| -> Vec<&'a ColumnChunkMetadata> {
        group.columns_under_root_iter(&field.name).into_iter().flatten().collect()
    };
    let all: Vec<Vec<&ColumnChunkMetadata>> =
        wanted.iter().map(|(field, _)| leaves(field)).collect();
    let mut bytes = 0;
    for leaf in all.iter().flatten() {
        let range = calmly(path, || Ok(leaf.byte_range()))?;
        if range.start > range.end || range.end > length || leaf.num_values() < 0 {
            return Err(damaged("a column lies outside of the file"));
        }
        bytes += range.end - range.start;
    }
    sink.reserve(bytes).map_err(|error| Error::file(path, error))?;
    let mut chunks = Vec::new();
    for ((field, role), metadata) in wanted.iter().zip(all) {
        if metadata.is_empty() {
            return Err(damaged(&format!("a row group lacks {}", field.name)));
        }
        let mut leaves = Vec::new();
        for leaf in metadata {
            let range = leaf.byte_range();
            file.seek(SeekFrom::Start(range.start)).at(path)?;
            let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
            file.take(range.end - range.start).read_to_end(&mut bytes).at(path)?;
            leaves.push((leaf, Buffer::from_vec(bytes)));
        }
        let mut field = field.clone();
        let coded = calmly(path, || check_pages(&leaves))?;
        // What lies there as numbers of a dictionary is left so.
        if coded && role.is_coded() && field.dtype == ArrowDataType::Utf8View {
            let (key, value) = (IntegerType::UInt32, ArrowDataType::Utf8View);
            field.dtype = ArrowDataType::Dictionary(key, Box::new(value), false);
            let mark = [(DTYPE_CATEGORICAL_NEW.into(), "".into())];
            field.metadata = Some(Arc::new(Metadata::from(mark)));
        }
        chunks.push(Chunk { field, leaves });
    }
    Ok((chunks, bytes))
}

/// Refuses pages that would take more memory than any page does; true where a column is one whose
/// every page holds numbers of a dictionary.
fn check_pages(leaves: &[Leaf<'_>]) -> PolarsResult<bool> {
    let (mut coded, mut values) = (leaves.len() == 1, 0u64);
    for (leaf, bytes) in leaves {
        let mut first = TCompactInputProtocol::new(Cursor::new(&bytes[..]), PAGE_BYTES);
        let first = ParquetPageHeader::read_from_in_protocol(&mut first);
        let mut sizes = vec![first.map_or(0, |page| page.uncompressed_page_size as usize)];
        for page in pages(leaf, bytes) {
            if let CompressedPage::Data(page) = page? {
                sizes.push(page.uncompressed_size());
                coded &= page.header().is_dictionary_encoded();
                values += page.num_values() as u64;
            }
        }
        if let Some(size) = sizes.into_iter().find(|size| *size > PAGE_BYTES) {
            polars_bail!(ComputeError: "a page of {} MiB", size >> 20);
        }
    }
    Ok(coded && values > 0)
}

fn pages(leaf: &ColumnChunkMetadata, bytes: &Buffer<u8>) -> PageReader {
    PageReader::new(Cursor::new(bytes.clone()), leaf, Vec::new(), PAGE_BYTES)
}

/// The columns that Spark and Hive keep in the names of folders, `day=2024-01-31`, with this file's
/// values.
pub(crate) fn partitions(path: &Path) -> Vec<(String, Option<String>)> {
    let folders = path.parent().into_iter().flat_map(Path::components);
    let folders = folders.filter_map(|part| part.as_os_str().to_str()?.split_once('='));
    let value = |value: &str| (value != "__HIVE_DEFAULT_PARTITION__").then(|| value.to_string());
    folders.map(|(name, text)| (name.to_string(), value(text))).collect()
}

/// Some rows of a decoded column.
fn sliced(array: &dyn Array, first: usize, rows: usize, path: &Path) -> Result<Box<dyn Array>> {
    match first + rows <= array.len() {
        true => Ok(array.sliced(first, rows)),
        false => Err(Error::file(path, "is damaged: a column has fewer rows than others")),
    }
}

impl Chunk<'_> {
    /// Rows of the column as one array.
    pub fn decode(&self, rows: Range<usize>, path: &Path) -> Result<Box<dyn Array>> {
        let of_leaf =
            |(leaf, bytes): &Leaf<'_>| BasicDecompressor::new(pages(leaf, bytes), Vec::new());
        calmly(path, || {
            let columns = self.leaves.iter().map(of_leaf).collect();
            let types =
                self.leaves.iter().map(|(leaf, _)| &leaf.descriptor().descriptor.primitive_type);
            let filter = Some(Filter::Range(rows));
            let (mut arrays, _) =
                column_iter_to_arrays(columns, types.collect(), self.field.clone(), filter)?;
            match arrays.len() {
                1 => Ok(arrays.remove(0)),
                0 => Ok(Utf8ViewArray::new_empty(ArrowDataType::Utf8View).boxed()),
                _ => {
                    let arrays: Vec<&dyn Array> = arrays.iter().map(|array| &**array).collect();
                    polars_arrow::compute::concatenate::concatenate(&arrays)
                }
            }
        })
    }
}
