//! Columns of a Parquet file by themselves, lists of floats and texts: a table of embeddings has a
//! vector a row. No format of data sets.

use super::arrow::{Lists, of};
use super::parquet::{Schema, read_group};
use super::{Part, Role, Row, Takes};
use crate::error::{At, Error, Result};
use polars_arrow::array::{Array, PrimitiveArray, Utf8ViewArray};
use polars_arrow::datatypes::{ArrowDataType, Field};
use std::fs::File;
use std::path::Path;

/// Rows that are decoded at a time.
const ROWS: usize = 1 << 16;

/// A column of a file.
pub struct Column {
    /// Its name.
    pub name: String,
    /// True for lists of floats.
    pub list: bool,
    /// True for texts.
    pub text: bool,
}

/// The columns of a file.
pub fn columns(path: &Path) -> Result<Vec<Column>> {
    let schema = Schema::read(path, &mut File::open(path).at(path)?)?;
    let column = |field: &Field| Column {
        name: field.name.to_string(),
        list: match field.dtype() {
            ArrowDataType::List(item)
            | ArrowDataType::LargeList(item)
            | ArrowDataType::FixedSizeList(item, _) => {
                matches!(item.dtype(), ArrowDataType::Float32 | ArrowDataType::Float64)
            }
            _ => false,
        },
        text: *field.dtype() == ArrowDataType::Utf8View,
    };
    Ok(schema.columns.iter().map(column).collect())
}

/// Shows the list of each row of a column.
pub fn floats<E: From<Error>>(
    path: &Path,
    column: &str,
    show: &mut dyn FnMut(&[f32]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut row: Vec<f32> = Vec::new();
    decode(path, column, &mut |first, array| {
        let wrong = |i: usize, what: &str| {
            Error::file(path, format!("row {}, column {column}: {what}", first + i))
        };
        let lists = Lists::of(array).ok_or_else(|| wrong(0, "no list"))?;
        let singles = of::<PrimitiveArray<f32>>(lists.values);
        let doubles = of::<PrimitiveArray<f64>>(lists.values);
        for i in 0..array.len() {
            let range = lists.range(i);
            if array.is_null(i) || range.clone().any(|at| lists.values.is_null(at)) {
                return Err(wrong(i, "a value is missing").into());
            }
            row.clear();
            match (singles, doubles) {
                (Some(of), _) => row.extend(&of.values()[range]),
                (_, Some(of)) => row.extend(of.values()[range].iter().map(|x| *x as f32)),
                _ => return Err(wrong(i, "no list of floats").into()),
            }
            show(&row)?;
        }
        Ok(())
    })
}

/// The texts of a column; a missing one is empty.
pub fn texts(path: &Path, column: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    decode(path, column, &mut |_, array| {
        let texts = of::<Utf8ViewArray>(array)
            .ok_or_else(|| Error::file(path, format!("column {column} holds no texts")))?;
        all.extend(texts.iter().map(|text| text.unwrap_or_default().to_string()));
        Ok(())
    })?;
    Ok(all)
}

/// Shows a column, some rows at a time, and the number of the first of them.
fn decode<E: From<Error>>(
    path: &Path,
    column: &str,
    show: &mut dyn FnMut(usize, &dyn Array) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut file = File::open(path).at(path)?;
    let Schema { metadata, columns } = Schema::read(path, &mut file)?;
    let field = columns.into_iter().find(|field| field.name.as_str() == column);
    let field = field.ok_or_else(|| Error::file(path, format!("there is no column {column}")))?;
    let wanted = [(field, Role::Dense)];
    let mut first = 0;
    for group in &metadata.row_groups {
        let (chunks, _) = read_group(group, &wanted, path, &mut file, &mut Unbounded)?;
        for start in (0..group.num_rows()).step_by(ROWS) {
            let part = start..group.num_rows().min(start + ROWS);
            let n = part.len();
            let array = chunks[0].decode(part, path)?;
            if array.len() != n {
                let what = "is damaged: a column has fewer rows than its group; get it again";
                return Err(Error::file(path, what).into());
            }
            show(first, &*array)?;
            first += n;
        }
    }
    Ok(())
}

/// Lets readers have what they ask for.
struct Unbounded;

impl Takes for Unbounded {
    fn row(&mut self, _: &Row) -> Result<()> {
        unreachable!("columns are read by themselves")
    }
    fn part(&mut self, _: Part) -> Result<()> {
        unreachable!("columns are read by themselves")
    }
    fn skip(&mut self, _: &Error, _: u64) -> Result<()> {
        unreachable!("columns are read by themselves")
    }
    fn room(&self) -> u64 {
        u64::MAX
    }
    fn reserve(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}
