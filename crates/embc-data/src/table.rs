//! A table on its way out: rows of numbers and texts as CSV, or as Parquet.

use polars_arrow::array::{Array, Float32Array, Int64Array, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowDataType, ArrowSchema, Field};
use polars_arrow::record_batch::RecordBatchT;
use polars_error::{PolarsError, PolarsResult};
use polars_parquet::write::{
    CompressionOptions, FileWriter, RowGroupIterator, StatisticsOptions, Version, WriteOptions,
    get_dtype_encoding,
};
use std::io::{self, Write};
use std::sync::Arc;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Integers.
    Int,
    /// Floats.
    Float,
    /// Texts.
    Text,
}

/// A cell.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    /// An integer.
    Int(u64),
    /// A float.
    Float(f32),
    /// A text.
    Text(&'a str),
}

/// Rows of a row group.
const GROUP: usize = 1 << 18;

/// What is written to.
pub enum Table<W: Write> {
    /// CSV, a line a row.
    Csv(Box<csv::Writer<W>>),
    /// Parquet, compressed.
    Parquet(Box<Groups<W>>),
}

/// Rows on their way to a row group.
pub struct Groups<W: Write> {
    writer: FileWriter<W>,
    schema: ArrowSchema,
    columns: Vec<Values>,
    rows: usize,
}

enum Values {
    Int(Vec<i64>),
    Float(Vec<f32>),
    Text(Vec<String>),
}

impl Kind {
    fn empty(self) -> Values {
        match self {
            Kind::Int => Values::Int(Vec::new()),
            Kind::Float => Values::Float(Vec::new()),
            Kind::Text => Values::Text(Vec::new()),
        }
    }

    fn arrow(self) -> ArrowDataType {
        match self {
            Kind::Int => ArrowDataType::Int64,
            Kind::Float => ArrowDataType::Float32,
            Kind::Text => ArrowDataType::Utf8View,
        }
    }
}

impl Values {
    fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Values::Int(all), Cell::Int(x)) => all.push(x as i64),
            (Values::Float(all), Cell::Float(x)) => all.push(x),
            (Values::Text(all), Cell::Text(x)) => all.push(x.into()),
            _ => unreachable!("a cell is of its column's kind"),
        }
    }

    /// An array of them; none are left.
    fn take(&mut self) -> Box<dyn Array> {
        match self {
            Values::Int(all) => Box::new(Int64Array::from_vec(std::mem::take(all))),
            Values::Float(all) => Box::new(Float32Array::from_vec(std::mem::take(all))),
            Values::Text(all) => Box::new(Utf8ViewArray::from_slice_values(std::mem::take(all))),
        }
    }
}

/// Errors keep what they are, as that of a pipe which nobody reads.
fn failed(error: PolarsError) -> io::Error {
    match error {
        PolarsError::IO { error, .. } => io::Error::new(error.kind(), error.to_string()),
        other => io::Error::other(other.to_string()),
    }
}

fn options() -> WriteOptions {
    WriteOptions {
        statistics: StatisticsOptions::default(),
        version: Version::V1,
        compression: CompressionOptions::Snappy,
        data_page_size: None,
    }
}

impl<W: Write> Table<W> {
    /// Begins a table of such columns in `out`.
    pub fn new(out: W, parquet: bool, columns: &[(&str, Kind)]) -> io::Result<Self> {
        if !parquet {
            let mut writer = Box::new(csv::Writer::from_writer(out));
            writer.write_record(columns.iter().map(|(name, _)| name)).map_err(of_csv)?;
            return Ok(Table::Csv(writer));
        }
        let field = |(name, kind): &(&str, Kind)| {
            let field = Field::new((*name).into(), kind.arrow(), false);
            (field.name.clone(), field)
        };
        let schema: ArrowSchema = columns.iter().map(field).collect();
        let writer = FileWriter::try_new(out, schema.clone(), options()).map_err(failed)?;
        let columns = columns.iter().map(|(_, kind)| kind.empty()).collect();
        Ok(Table::Parquet(Box::new(Groups { writer, schema, columns, rows: 0 })))
    }

    /// Writes a row, a cell a column.
    pub fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        match self {
            Table::Csv(writer) => {
                for cell in cells {
                    match cell {
                        Cell::Int(x) => writer.write_field(x.to_string()),
                        Cell::Float(x) => writer.write_field(x.to_string()),
                        Cell::Text(x) => writer.write_field(x),
                    }
                    .map_err(of_csv)?;
                }
                writer.write_record(None::<&[u8]>).map_err(of_csv)
            }
            Table::Parquet(groups) => {
                groups.columns.iter_mut().zip(cells).for_each(|(all, &cell)| all.push(cell));
                groups.rows += 1;
                if groups.rows == GROUP { groups.flush() } else { Ok(()) }
            }
        }
    }

    /// Writes what is left.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Table::Csv(mut writer) => writer.flush(),
            Table::Parquet(mut groups) => {
                groups.flush()?;
                groups.writer.end(None).map_err(failed)?;
                Ok(())
            }
        }
    }
}

fn of_csv(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

impl<W: Write> Groups<W> {
    /// Writes the rows as a group.
    fn flush(&mut self) -> io::Result<()> {
        let arrays: Vec<Box<dyn Array>> = self.columns.iter_mut().map(Values::take).collect();
        let rows = std::mem::take(&mut self.rows);
        let write = || -> PolarsResult<()> {
            let encodings = self.schema.iter_values().map(|field| get_dtype_encoding(&field.dtype));
            let encodings: Vec<_> = encodings.collect();
            let batch = RecordBatchT::try_new(rows, Arc::new(self.schema.clone()), arrays)?;
            let one = std::iter::once(Ok(batch));
            let groups = RowGroupIterator::try_new(one, &self.schema, options(), encodings.into())?;
            for group in groups {
                self.writer.write(rows as u64, group?)?;
            }
            Ok(())
        };
        write().map_err(failed)
    }
}
