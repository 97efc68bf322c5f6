//! Arrays, as Parquet and Arrow files hold them, become columns: what a value would be in a CSV file
//! is what it is here, so that one table in all three gives the same data.

use super::cells::{BELOW_ZERO, Reader, Wrong, utf8};
use super::delimited::Layout;
use super::{Field, Note, Role, Row, Sink, words};
use crate::block::{BlockColumn, Part};
use crate::error::{Error, Result};
use polars_arrow::array::{
    Array, BinaryViewArray, BooleanArray, DictionaryArray, FixedSizeListArray, ListArray,
    PrimitiveArray, Utf8Array, Utf8ViewArray,
};
use polars_arrow::datatypes::{ArrowDataType, TimeUnit};
use polars_arrow::types::NativeType;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Rows of a table on their way, from arrays of its columns.
pub(crate) struct Arrays<'a> {
    path: &'a Path,
    readers: Vec<Reader<'a>>,
    skip: bool,
    /// Rows so far.
    rows: u64,
}

/// A column of a part, and what was noted.
#[derive(Default)]
struct Column {
    out: BlockColumn,
    notes: BTreeMap<(usize, Note), u64>,
    dated: bool,
    /// Rows that cannot be read, in order, and what is wrong with the first.
    wrong: Vec<usize>,
    first: Option<String>,
}

impl<'a> Arrays<'a> {
    pub fn new(layout: &'a Layout, path: &'a Path) -> Self {
        Self { path, readers: Reader::all(layout), skip: layout.dialect.skip, rows: 0 }
    }

    /// Hands on `rows` rows, whose `i`th column `array` gives.
    pub fn push(
        &mut self,
        rows: usize,
        array: impl Fn(usize) -> Result<Box<dyn Array>> + Sync,
        sink: Sink<'_>,
    ) -> Result<()> {
        let path = self.path;
        let column = |(i, reader): (usize, &mut Reader<'a>)| {
            let array = array(i)?;
            if array.len() != rows {
                let what = format!("is damaged: {} rows, not {rows}", array.len());
                return Err(Error::file(path, what));
            }
            column(reader, &*array).map_err(|what| Error::file(path, what))
        };
        let readers = self.readers.par_iter_mut().enumerate().with_max_len(1);
        let columns = readers.map(column).collect::<Result<Vec<Column>>>()?;
        let mut part = Part { rows, ..Part::default() };
        let mut out = vec![false; rows];
        let bad = |column: &Column| Some((*column.wrong.first()?, column.first.clone()?));
        let first = columns.iter().filter_map(bad).min();
        for column in columns {
            column.wrong.iter().for_each(|&row| out[row] = true);
            part.columns.push(column.out);
            part.dated |= column.dated;
            part.notes.extend(column.notes);
        }
        if let Some((row, what)) = first {
            let row = self.rows + row as u64 + 1;
            let error = Error::file(path, format!("row {row}: {what}"));
            if !self.skip {
                return Err(error);
            }
            sink.skip(&error, out.iter().filter(|out| **out).count() as u64)?;
            let fields: Vec<&Field> = self.readers.iter().map(|reader| reader.field).collect();
            part.leave_out(&fields, &out);
        }
        self.rows += rows as u64;
        sink.part(part)
    }

    /// After the last row.
    pub fn finish(self) -> Result<()> {
        self.readers.iter().try_for_each(|reader| reader.finish(self.path))
    }
}

fn of<T: 'static>(array: &dyn Array) -> Option<&T> {
    array.as_any().downcast_ref()
}

/// One column; an error is about its type.
fn column(reader: &mut Reader<'_>, array: &dyn Array) -> std::result::Result<Column, String> {
    let mut column = Column::default();
    let field = reader.field;
    macro_rules! dictionary_of {
        ($($key:ty),*) => {$(
            if let Some(coded) = of::<DictionaryArray<$key>>(array) {
                // A missing value is one more.
                let none = coded.values().len() as u32;
                let code = |key: Option<&$key>| key.map_or(none, |&key| key as u32);
                let codes = coded.keys().iter().map(code).collect();
                column.dictionary(reader, &**coded.values(), codes)?;
                return Ok(column);
            }
        )*};
    }
    dictionary_of!(u32, i8, i16, i32, i64, u8, u16, u64);
    match (field.role, Lists::of(array)) {
        (Role::Multi(_), Some(lists)) => {
            column.lists(reader, array, &lists)?;
            return Ok(column);
        }
        // As it would be written, where nobody knows yet what it means.
        (Role::Tag, Some(lists)) => {
            column.written(reader, array, &lists)?;
            return Ok(column);
        }
        _ => {}
    }
    if let Some(texts) = of::<Utf8ViewArray>(array)
        && field.role.is_coded()
        && !matches!(field.role, Role::Multi(_))
    {
        column.texts(reader, texts);
        return Ok(column);
    }
    if !column.numbers(field, array) {
        check(field, array.dtype())?;
        let mut row = Row::default();
        let mut cell = Vec::new();
        for i in 0..array.len() {
            cell.clear();
            write_cell(array, i, &mut cell);
            column.cell(reader, &mut row, i, &cell);
        }
    }
    Ok(column)
}

impl Column {
    /// Adds the cell of row `i`, as text.
    fn cell(&mut self, reader: &mut Reader<'_>, row: &mut Row, i: usize, cell: &[u8]) {
        row.clear();
        let role = reader.field.role;
        if let Err(wrong) = reader.read(row, cell) {
            self.refuse(i, &wrong, &reader.field.name, cell);
            // Something in its place, as long as the row is not left out.
            row.clear();
            row.dense.push(f64::NAN);
            if role.is_coded() && !matches!(role, Role::Multi(_)) {
                row.value(b"");
            }
            row.end_column();
        }
        let dense = row.dense.first().copied().unwrap_or(f64::NAN);
        self.out.push(role, row, dense, 0);
        self.dated |= row.dated;
        row.notes.iter().for_each(|&note| *self.notes.entry(note).or_default() += 1);
    }

    /// Ids, most of which are as they should be.
    fn texts(&mut self, reader: &mut Reader<'_>, texts: &Utf8ViewArray) {
        let mut row = Row::default();
        for (i, text) in texts.iter().enumerate() {
            let text = text.unwrap_or_default().as_bytes();
            match reader.is_plain(text) {
                true => self.out.value(text),
                false => self.cell(reader, &mut row, i, text),
            }
        }
    }

    fn refuse(&mut self, i: usize, wrong: &Wrong, name: &str, value: &[u8]) {
        self.wrong.push(i);
        self.first.get_or_insert_with(|| wrong.say(name, value));
    }

    /// Values by their numbers, of which the last is that there is none: each is read once.
    fn dictionary(
        &mut self,
        reader: &mut Reader<'_>,
        values: &dyn Array,
        codes: Vec<u32>,
    ) -> std::result::Result<(), String> {
        check(reader.field, values.dtype())?;
        let write = |at: usize, cell: &mut Vec<u8>| {
            cell.clear();
            if at < values.len() {
                write_cell(values, at, cell);
            }
        };
        let (mut row, mut cell) = (Row::default(), Vec::new());
        let role = reader.field.role;
        if !role.is_coded() || matches!(role, Role::Multi(_)) {
            for (i, &code) in codes.iter().enumerate() {
                write(code as usize, &mut cell);
                self.cell(reader, &mut row, i, &cell);
            }
            return Ok(());
        }
        let mut counts = vec![0u64; values.len() + 1];
        codes.iter().for_each(|&code| counts[code as usize] += 1);
        let mut of_value = Self::default();
        for (at, &count) in counts.iter().enumerate() {
            // What no row has is no part of the data, and may be wrong.
            write(if count > 0 { at } else { values.len() }, &mut cell);
            of_value.cell(reader, &mut row, at, &cell);
            let notes = std::mem::take(&mut of_value.notes);
            notes.into_iter().for_each(|(note, _)| *self.notes.entry(note).or_default() += count);
        }
        let mut wrong = vec![false; counts.len()];
        of_value.wrong.iter().for_each(|&value| wrong[value] = true);
        self.wrong = (0..codes.len()).filter(|&row| wrong[codes[row] as usize]).collect();
        // A value that is wrong for a column of ids is so for what it is, as all others are.
        self.first = self.wrong.first().and(of_value.first);
        self.out = of_value.out;
        self.out.codes = Some(codes);
        Ok(())
    }

    /// Several ids a row, from lists.
    fn lists(
        &mut self,
        reader: &mut Reader<'_>,
        array: &dyn Array,
        lists: &Lists<'_>,
    ) -> std::result::Result<(), String> {
        check(reader.field, lists.values.dtype())?;
        let (mut row, mut cell) = (Row::default(), Vec::new());
        for i in 0..array.len() {
            row.clear();
            for at in lists.range(i).filter(|_| array.is_valid(i)) {
                cell.clear();
                write_cell(lists.values, at, &mut cell);
                match (utf8(&cell), reader.multi) {
                    (Ok(text), Some(multi)) => {
                        multi.kept(text).into_iter().for_each(|kept| row.value(kept.as_bytes()));
                    }
                    (Ok(text), None) => row.value(text.as_bytes()),
                    (Err(wrong), _) => self.refuse(i, &wrong, &reader.field.name, &cell),
                }
            }
            row.end_column();
            reader.hear(row.values(0));
            self.out.push(reader.field.role, &row, f64::NAN, 0);
        }
        Ok(())
    }

    /// Lists as JSON writes them.
    fn written(
        &mut self,
        reader: &mut Reader<'_>,
        array: &dyn Array,
        lists: &Lists<'_>,
    ) -> std::result::Result<(), String> {
        check(reader.field, lists.values.dtype())?;
        let mut cell = Vec::new();
        for i in 0..array.len() {
            if array.is_null(i) {
                self.out.value(b"");
                continue;
            }
            let value = |at| {
                cell.clear();
                write_cell(lists.values, at, &mut cell);
                String::from_utf8_lossy(&cell).into_owned()
            };
            let values: Vec<String> = lists.range(i).map(value).collect();
            self.out.value(serde_json::json!(values).to_string().as_bytes());
        }
        Ok(())
    }

    /// Numbers for a column of numbers, without a way through text; false where it is another.
    fn numbers(&mut self, field: &Field, array: &dyn Array) -> bool {
        macro_rules! try_as {
            ($($type:ty),*) => {$(
                if let Some(numbers) = of::<PrimitiveArray<$type>>(array) {
                    self.plain(field, numbers);
                    return true;
                }
            )*};
        }
        if matches!(field.role, Role::Dense | Role::Weight | Role::Rating | Role::Label)
            && is_number(array.dtype())
        {
            try_as!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);
        }
        false
    }

    fn plain<T: NativeType + Number>(&mut self, field: &Field, numbers: &PrimitiveArray<T>) {
        for (i, number) in numbers.iter().enumerate() {
            let number = number.map_or(f64::NAN, |number| number.as_f64());
            let wrong = match field.role {
                Role::Dense if number.is_nan() => None,
                _ if number.is_nan() => Some(Wrong::Number),
                _ if number.is_infinite() => Some(Wrong::Other("not finite")),
                Role::Weight if number < 0.0 => Some(Wrong::Other(BELOW_ZERO)),
                Role::Label if number != 0.0 && number != 1.0 => {
                    Some(Wrong::Other("not a label: it must be 0 or 1, true or false, yes or no"))
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                let shown = if number.is_nan() { String::new() } else { number.to_string() };
                self.refuse(i, &wrong, &field.name, shown.as_bytes());
            }
            self.out.number(number);
        }
    }
}

/// Numbers that go into double precision.
trait Number: Copy {
    fn as_f64(self) -> f64;
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn as_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

numbers!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);

fn is_number(dtype: &ArrowDataType) -> bool {
    use ArrowDataType::{
        Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64,
    };
    matches!(
        dtype,
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64
    )
}

/// Refuses a type that has no text.
fn check(field: &Field, dtype: &ArrowDataType) -> std::result::Result<(), String> {
    use ArrowDataType as T;
    let name = &field.name;
    match dtype {
        T::List(_) | T::LargeList(_) | T::FixedSizeList(..) => {
            Err(format!("{name} holds lists: name it in columns.multi, with any separator"))
        }
        T::Struct(_) | T::Map(..) | T::Union(_) => Err(format!(
            "{name} holds records of several values, which are no column: take them apart first"
        )),
        T::Boolean | T::Null | T::Utf8 | T::LargeUtf8 | T::Utf8View | T::BinaryView => Ok(()),
        T::Date32 | T::Timestamp(..) | T::Decimal(..) => Ok(()),
        number if is_number(number) => Ok(()),
        other => Err(format!("{name} is of type {other:?}, which embc does not read")),
    }
}

/// The cell of row `i` as a CSV file has it; nothing for null.
pub(crate) fn write_cell(array: &dyn Array, i: usize, cell: &mut Vec<u8>) {
    use ArrowDataType as T;
    if array.is_null(i) {
        return;
    }
    macro_rules! number {
        ($type:ty) => {{
            let number = of::<PrimitiveArray<$type>>(array).expect("of its type").value(i);
            write!(cell, "{number}").expect("memory")
        }};
    }
    macro_rules! text {
        ($type:ty) => {
            cell.extend_from_slice(of::<$type>(array).expect("of its type").value(i).as_ref())
        };
    }
    match array.dtype() {
        T::Boolean => {
            let value = of::<BooleanArray>(array).expect("of its type").value(i);
            cell.extend_from_slice(if value { b"true" } else { b"false" });
        }
        T::Utf8View => text!(Utf8ViewArray),
        T::Utf8 => text!(Utf8Array<i32>),
        T::LargeUtf8 => text!(Utf8Array<i64>),
        T::BinaryView => text!(BinaryViewArray),
        T::Int8 => number!(i8),
        T::Int16 => number!(i16),
        T::Int32 => number!(i32),
        T::Int64 => number!(i64),
        T::UInt8 => number!(u8),
        T::UInt16 => number!(u16),
        T::UInt32 => number!(u32),
        T::UInt64 => number!(u64),
        T::Float32 => number!(f32),
        T::Float64 => number!(f64),
        T::Date32 => {
            let days = of::<PrimitiveArray<i32>>(array).expect("of its type").value(i);
            words::write_date((i64::from(days) * 86_400, 0), false, cell);
        }
        T::Timestamp(unit, _) => {
            let count = of::<PrimitiveArray<i64>>(array).expect("of its type").value(i);
            let a_second = match unit {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => 1_000_000_000,
            };
            let part = count.rem_euclid(a_second) * (1_000_000_000 / a_second);
            words::write_date((count.div_euclid(a_second), part as u32), true, cell);
        }
        T::Decimal(_, scale) => {
            let digits = of::<PrimitiveArray<i128>>(array).expect("of its type").value(i);
            write_decimal(digits, *scale, cell);
        }
        _ => {}
    }
}

fn write_decimal(digits: i128, scale: usize, cell: &mut Vec<u8>) {
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, part) = text.split_at(text.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    write!(cell, "{sign}{whole}{point}{part}").expect("memory");
}

/// Lists of values, whatever their kind.
struct Lists<'a> {
    values: &'a dyn Array,
    ranges: Box<dyn Fn(usize) -> std::ops::Range<usize> + 'a>,
}

impl<'a> Lists<'a> {
    fn of(array: &'a dyn Array) -> Option<Self> {
        if let Some(lists) = of::<ListArray<i64>>(array) {
            let offsets = lists.offsets();
            let ranges = move |i| offsets[i] as usize..offsets[i + 1] as usize;
            return Some(Self { values: &**lists.values(), ranges: Box::new(ranges) });
        }
        if let Some(lists) = of::<ListArray<i32>>(array) {
            let offsets = lists.offsets();
            let ranges = move |i| offsets[i] as usize..offsets[i + 1] as usize;
            return Some(Self { values: &**lists.values(), ranges: Box::new(ranges) });
        }
        let lists = of::<FixedSizeListArray>(array)?;
        let size = lists.size();
        let ranges = move |i| i * size..(i + 1) * size;
        Some(Self { values: &**lists.values(), ranges: Box::new(ranges) })
    }

    fn range(&self, i: usize) -> std::ops::Range<usize> {
        (self.ranges)(i)
    }
}
