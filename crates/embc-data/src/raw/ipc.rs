//! A user's own table as an Arrow IPC file (Feather 2): the same `columns` as of a CSV file, by name.

use super::arrow::Arrays;
use super::csv::layout;
use super::{Field, Format, Sink};
use crate::calm::calmly;
use crate::error::{At, Error, Result};
use crate::input::Input;
use crate::registry::Entry;
use polars_arrow::datatypes::Field as ArrowField;
use polars_arrow::io::ipc::read::{FileMetadata, FileReader, read_file_metadata};
use polars_arrow_format::ipc::planus::ReadAsRoot;
use polars_arrow_format::ipc::{Block, MessageHeaderRef, MessageRef};
use polars_error::{PolarsError, PolarsResult, polars_ensure, polars_err};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

pub(crate) struct Arrow;

impl Format for Arrow {
    fn name(&self) -> &'static str {
        "arrow"
    }
    fn doc(&self) -> &'static str {
        "a table as an Arrow IPC file; columns = { label, dense, categorical, multi } say what it holds"
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
        let (metadata, columns) = schema(&path, &mut file)?;
        let header: Vec<String> = columns.iter().map(|field| field.name.to_string()).collect();
        let places = layout.positions(Some(&header)).map_err(|what| Error::file(&path, what))?;
        let (mut largest, mut dictionaries) = (0, 0);
        for block in &metadata.blocks {
            largest = largest.max(calmly(&path, || unpacked(&mut file, block))?);
        }
        for block in metadata.dictionaries.iter().flatten() {
            dictionaries += calmly(&path, || unpacked(&mut file, block))?;
        }
        // As it lies there, and unpacked.
        let needs = 2 * largest + dictionaries;
        sink.reserve(needs).map_err(|error| Error::file(&path, error))?;
        let ends = metadata.blocks.iter().map(|block| (block.offset + block.body_length) as u64);
        let mut ends = ends.collect::<Vec<u64>>().into_iter();
        let mut projection = places.clone();
        projection.sort_unstable();
        projection.dedup();
        let at = |place: &usize| projection.iter().position(|other| other == place);
        let at: Vec<usize> = places.iter().filter_map(at).collect();
        let mut batches =
            calmly(&path, || Ok(FileReader::new(file, metadata, Some(projection.clone()), None)))?;
        let mut arrays = Arrays::new(&layout, &path);
        while let Some(batch) = calmly(&path, || batches.next().transpose())? {
            let columns = batch.into_arrays();
            let rows = columns.first().map_or(0, |column| column.len());
            arrays.push(rows, |i| Ok(columns[at[i]].clone()), sink)?;
            input.follow(ends.next().unwrap_or_default())?;
        }
        arrays.finish()
    }
}

/// What the end of a file says about it.
pub(crate) fn schema(path: &Path, file: &mut File) -> Result<(FileMetadata, Vec<ArrowField>)> {
    calmly(path, || {
        let metadata = read_file_metadata(file)?;
        let columns = metadata.schema.iter_values().cloned().collect();
        Ok((metadata, columns))
    })
}

/// Bytes that a batch takes once it is unpacked; refuses one that says what cannot be.
fn unpacked(file: &mut File, block: &Block) -> PolarsResult<u64> {
    let length = file.metadata()?.len();
    let (start, head) = (block.offset as u64, block.meta_data_length as u64);
    let body = start.saturating_add(head);
    let end = body.saturating_add(block.body_length as u64);
    polars_ensure!(end <= length, ComputeError: "a batch lies outside of the file");
    let mut message = vec![0; head as usize];
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(&mut message)?;
    // The length stands before the message, and a mark may stand before that.
    let skip = if message.starts_with(&[0xFF; 4]) { 8 } else { 4 };
    let message = message.get(skip..).unwrap_or_default();
    let message = MessageRef::read_as_root(message).map_err(wrong)?;
    let batch = match message.header().map_err(wrong)? {
        Some(MessageHeaderRef::RecordBatch(batch)) => Some(batch),
        Some(MessageHeaderRef::DictionaryBatch(batch)) => batch.data().map_err(wrong)?,
        _ => None,
    };
    let Some(batch) = batch else { return Ok(0) };
    let rows = batch.length().map_err(wrong)?;
    polars_ensure!((0..1 << 27).contains(&rows), ComputeError: "a batch of {rows} rows");
    let packed = batch.compression().map_err(wrong)?.is_some();
    let mut total = 0u64;
    for buffer in batch.buffers().map_err(wrong)?.into_iter().flatten() {
        let (at, bytes) = (buffer.offset() as u64, buffer.length() as u64);
        let inside = at.checked_add(bytes).is_some_and(|to| body.saturating_add(to) <= end);
        polars_ensure!(inside, ComputeError: "a buffer lies outside of its batch");
        let size = match packed && bytes >= 8 {
            true => {
                let mut size = [0; 8];
                file.seek(SeekFrom::Start(body + at))?;
                file.read_exact(&mut size)?;
                // -1 is as it lies there.
                u64::try_from(i64::from_le_bytes(size)).unwrap_or(bytes)
            }
            false => bytes,
        };
        // LZ4 and zstd alike stay far below this for anything but a bomb.
        let bomb = size > 64 << 20 && size / 1000 > bytes;
        polars_ensure!(!bomb, ComputeError: "a buffer of {} MiB in {bytes} bytes", size >> 20);
        total = total.saturating_add(size);
    }
    polars_ensure!(total < 1 << 40, ComputeError: "a batch of {} GiB", total >> 30);
    Ok(total)
}

fn wrong(error: impl std::fmt::Display) -> PolarsError {
    polars_err!(ComputeError: "{error}")
}
