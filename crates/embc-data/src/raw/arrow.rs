//! Arrays, as Parquet and Arrow files hold them, become columns: what a value would be in a CSV file
//! is what it is here, so that one table in all three gives the same data.

use super::cells::{BELOW_ZERO, Reader, Wrong, utf8};
use super::delimited::Layout;
use super::{Field, Note, Role, Row, Sink};
use crate::block::{BlockColumn, Part};
use crate::error::{Error, Result};
use polars_arrow::array::{
    Array, DictionaryArray, FixedSizeListArray, ListArray, PrimitiveArray, Utf8ViewArray,
};
use polars_arrow::types::NativeType;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

mod cell;

use cell::{check, is_number, write_cell};

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
            let column = column(reader, &*array).map_err(|what| Error::file(path, what))?;
            match column.out.bytes() > TEXT_BYTES {
                true => Err(Error::file(path, too_much(reader.field))),
                false => Ok(column),
            }
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

/// Bytes of a column's texts in the rows that are read at a time.
const TEXT_BYTES: usize = 1 << 30;

fn too_much(field: &Field) -> String {
    format!("{} has more than {} MiB of text in a few thousand rows", field.name, TEXT_BYTES >> 20)
}

pub(super) fn of<T: 'static>(array: &dyn Array) -> Option<&T> {
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
        column.texts(reader, texts)?;
        return Ok(column);
    }
    if !column.numbers(reader, array) {
        if let (Err(what), true) = (check(field, array.dtype()), reader.as_written()) {
            column.unread(&what, array);
            return Ok(column);
        }
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
    fn texts(
        &mut self,
        reader: &mut Reader<'_>,
        texts: &Utf8ViewArray,
    ) -> std::result::Result<(), String> {
        // Many views may be of one text.
        if texts.total_bytes_len() > TEXT_BYTES {
            return Err(too_much(reader.field));
        }
        let mut row = Row::default();
        for (i, text) in texts.iter().enumerate() {
            let text = text.unwrap_or_default().as_bytes();
            match reader.is_plain(text) {
                true => self.out.value(text),
                false => self.cell(reader, &mut row, i, text),
            }
        }
        Ok(())
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

    /// What has no text, where nobody knows yet whether it is wanted.
    fn unread(&mut self, what: &str, array: &dyn Array) {
        let mark = format!("{{{what}}}");
        for i in 0..array.len() {
            self.out.value(if array.is_null(i) { b"" } else { mark.as_bytes() });
        }
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
        if check(reader.field, lists.values.dtype()).is_err() {
            self.unread(&format!("{} holds lists of no single values", reader.field.name), array);
            return Ok(());
        }
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
    fn numbers(&mut self, reader: &Reader<'_>, array: &dyn Array) -> bool {
        let field = reader.field;
        macro_rules! try_as {
            ($($type:ty),*) => {$(
                if let Some(numbers) = of::<PrimitiveArray<$type>>(array) {
                    self.plain(field, numbers);
                    return true;
                }
            )*};
        }
        let texts = field.role == Role::Label && reader.positive.is_some();
        if !texts
            && matches!(field.role, Role::Dense | Role::Weight | Role::Rating | Role::Label)
            && is_number(array.dtype())
        {
            try_as!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64);
        }
        false
    }

    fn plain<T: NativeType + Number>(&mut self, field: &Field, numbers: &PrimitiveArray<T>) {
        for (i, number) in numbers.iter().enumerate() {
            let number = number.map_or(f64::NAN, |number| number.as_f64());
            // One of all that are no number.
            let number = if number.is_nan() { f64::NAN } else { number };
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

numbers!(i8, i16, i32, i64, u8, u16, u32, u64, f64);

/// As a CSV file of it would have it: 0.1 is 0.1, and not what is nearest to it in single precision.
impl Number for f32 {
    fn as_f64(self) -> f64 {
        match self.fract() == 0.0 || !self.is_finite() {
            true => self.into(),
            false => self.to_string().parse().unwrap_or(self.into()),
        }
    }
}

/// Lists of values, whatever their kind.
pub(super) struct Lists<'a> {
    pub values: &'a dyn Array,
    ranges: Box<dyn Fn(usize) -> std::ops::Range<usize> + 'a>,
}

impl<'a> Lists<'a> {
    pub fn of(array: &'a dyn Array) -> Option<Self> {
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

    pub fn range(&self, i: usize) -> std::ops::Range<usize> {
        (self.ranges)(i)
    }
}
