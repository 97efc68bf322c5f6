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
use std::fs::File;
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
    fn read(&self, entry: &Entry, input: Input<'_>, sink: Sink<'_>) -> Result<()> {
        let (layout, path) = (layout(entry)?, input.path);
        let mut file = File::open(&path).at(&path)?;
        let (metadata, columns) = schema(&path, &mut file)?;
        let header: Vec<String> = columns.iter().map(|field| field.name.to_string()).collect();
        let places = layout.positions(Some(&header)).map_err(|what| Error::file(&path, what))?;
        let length = file.metadata().at(&path)?.len();
        let mut largest = 0;
        for block in metadata.blocks.iter().chain(metadata.dictionaries.iter().flatten()) {
            let (at, bytes) = (block.offset as u64, block.body_length as u64);
            if at.checked_add(bytes).is_none_or(|end| end > length) {
                return Err(Error::file(&path, "is damaged: a batch lies outside of it"));
            }
            largest = largest.max(bytes);
        }
        // As it lies there, and unpacked.
        sink.reserve(4 * largest)?;
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
