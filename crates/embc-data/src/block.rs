//! Some rows as columns: what readers hand on, and what is encoded.

use crate::raw::{Field, Note, Role, Row, Time};
use std::collections::BTreeMap;

/// Some rows as columns: those of the fields, and which file each row came from, last.
pub struct Block {
    /// The columns, and last that of the files.
    pub columns: Vec<BlockColumn>,
}

/// A column of a block.
#[derive(Clone, Default, PartialEq)]
pub struct BlockColumn {
    /// Numbers, or values a row of a multi-valued column.
    pub numbers: Vec<u8>,
    /// Values of a coded column, and where each ends.
    text: Vec<u8>,
    ends: Vec<u32>,
    /// The value of each row, where several rows have one: an index into `ends`.
    pub codes: Option<Vec<u32>>,
}

impl BlockColumn {
    /// A column of numbers, as bytes.
    pub fn of_numbers(numbers: Vec<u8>) -> Self {
        Self { numbers, ..Self::default() }
    }

    /// Adds a number.
    pub fn number(&mut self, number: f64) {
        self.numbers.extend(number.to_le_bytes());
    }

    /// Adds a time.
    pub fn time(&mut self, (whole, part): Time) {
        self.numbers.extend(whole.to_le_bytes());
        self.numbers.extend(part.to_le_bytes());
    }

    /// Adds a value of a coded column.
    pub fn value(&mut self, value: &[u8]) {
        self.text.extend_from_slice(value);
        self.ends.push(self.text.len() as u32);
    }

    /// Adds a row's value of a role: the dense one given, or those of its coded column `column`.
    pub fn push(&mut self, role: Role, row: &Row, dense: f64, column: usize) {
        match role {
            Role::Label | Role::Rating => self.number(row.label),
            Role::Time => self.time(row.time),
            Role::Dense | Role::Weight => self.number(dense),
            _ => {
                let before = self.ends.len();
                row.values(column).for_each(|value| self.value(value));
                if matches!(role, Role::Multi(_)) {
                    self.numbers.extend(((self.ends.len() - before) as u32).to_le_bytes());
                }
            }
        }
    }

    /// Adds the rows of another column of the same role, without codes.
    pub fn append(&mut self, other: &Self) {
        self.numbers.extend(&other.numbers);
        let start = self.text.len() as u32;
        self.text.extend(&other.text);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    /// All values of a coded column.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.ends.len()).map(|at| self.at(at))
    }

    /// The value of number `at`.
    fn at(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[at] as usize]
    }

    /// The value of a row of a column of one id.
    pub fn of_row(&self, row: usize) -> &[u8] {
        self.at(self.codes.as_ref().map_or(row, |codes| codes[row] as usize))
    }

    /// The values of each of these rows of a column of several ids.
    pub fn bags(
        &self,
        rows: std::ops::Range<usize>,
    ) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
        let (lengths, _) = self.numbers.as_chunks::<4>();
        let length = |row: usize| u32::from_le_bytes(lengths[row]) as usize;
        let mut start = (0..rows.start).map(length).sum();
        rows.map(move |row| {
            let first = start;
            start += length(row);
            (first..start).map(|at| self.at(at))
        })
    }

    /// The number of a row of a column of numbers.
    pub fn number_of(&self, row: usize) -> f64 {
        f64::from_le_bytes(self.numbers.as_chunks::<8>().0[row])
    }

    /// The time of a row of a column of times.
    pub fn time_of(&self, row: usize) -> Time {
        let [whole @ .., a, b, c, d] = self.numbers.as_chunks::<12>().0[row];
        (i64::from_le_bytes(whole), u32::from_le_bytes([a, b, c, d]))
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.numbers.len() + self.text.len() + 4 * self.ends.len()
    }

    /// These rows of a column of such a role; what there is none of is missing.
    pub fn gathered(&self, role: Role, rows: &[Option<u32>]) -> Self {
        let mut out = Self::default();
        match role {
            Role::Multi(_) => {
                let (lengths, _) = self.numbers.as_chunks::<4>();
                let mut end = 0;
                let starts = lengths.iter().map(|length| {
                    end += u32::from_le_bytes(*length) as usize;
                    end - u32::from_le_bytes(*length) as usize
                });
                let starts: Vec<usize> = starts.collect();
                for row in rows {
                    let length = row.map_or(0, |row| u32::from_le_bytes(lengths[row as usize]));
                    out.numbers.extend(length.to_le_bytes());
                    let start = row.map_or(0, |row| starts[row as usize]);
                    (start..start + length as usize).for_each(|at| out.value(self.at(at)));
                }
            }
            role if role.is_coded() => {
                rows.iter().for_each(|row| out.value(row.map_or(b"", |r| self.of_row(r as usize))));
            }
            Role::Time => {
                let (times, _) = self.numbers.as_chunks::<12>();
                let of = |row: &Option<u32>| row.map_or([0; 12], |row| times[row as usize]);
                rows.iter().for_each(|row| out.numbers.extend(of(row)));
            }
            _ => {
                let (numbers, _) = self.numbers.as_chunks::<8>();
                let none = f64::NAN.to_le_bytes();
                let of = |row: &Option<u32>| row.map_or(none, |row| numbers[row as usize]);
                rows.iter().for_each(|row| out.numbers.extend(of(row)));
            }
        }
        out
    }
}

/// Some rows as columns, in the order of the fields, and what was noted of them.
#[derive(Default)]
pub struct Part {
    /// The columns.
    pub columns: Vec<BlockColumn>,
    /// Rows.
    pub rows: usize,
    /// Some times are dates.
    pub dated: bool,
    /// How often something was done to values of each field.
    pub notes: BTreeMap<(usize, Note), u64>,
}

impl Part {
    /// Leaves out rows, those where `out` is true, of columns of such roles.
    pub fn leave_out(&mut self, fields: &[&Field], out: &[bool]) {
        let kept = (0..out.len()).filter(|row| !out[*row]);
        let kept: Vec<Option<u32>> = kept.map(|row| Some(row as u32)).collect();
        for (column, field) in self.columns.iter_mut().zip(fields) {
            *column = column.gathered(field.role, &kept);
        }
        self.rows = kept.len();
    }
}
