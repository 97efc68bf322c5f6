//! What the columns of a table hold: counted over all rows, by the vocabulary of each.

use crate::cache::Cache;
use crate::error::Result;
use crate::raw::words;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Values that are kept to be looked at.
const SMALL: usize = 64;

/// Separators of several values, the least used in names first.
pub const SEPARATORS: [char; 4] = ['|', ';', ',', ' '];

/// What a column holds. All counts are of rows.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // one comment for each group
pub struct Profile {
    /// Its name.
    pub name: String,
    /// All rows, and those with a value.
    pub rows: u64,
    pub present: u64,
    /// Distinct values that are not missing.
    pub distinct: u64,
    /// Values that are a number, written with a point or with a comma; whole ones; below zero.
    pub numbers: u64,
    pub comma_numbers: u64,
    pub whole: u64,
    pub negative: u64,
    /// Whole numbers of as many digits as the first, and how many that is.
    pub digits: Option<usize>,
    /// The least and the largest number.
    pub range: Option<(f64, f64)>,
    /// Dates; 0 and 1 or their words; JSON or Python lists; records.
    pub dates: u64,
    pub times: u64,
    pub labels: u64,
    pub lists: u64,
    pub records: u64,
    /// The first of these.
    pub record: Option<String>,
    /// Infinite numbers; numbers such as 1,234.56; dates such as 31/12/2023.
    pub infinite: u64,
    pub grouped: u64,
    pub other_dates: u64,
    /// Rows with each of the separators, and distinct values between them.
    pub separated: [u64; 4],
    pub tokens: [usize; 4],
    /// Such as Comedy:0.9.
    pub weighted: u64,
    /// Bytes of all values.
    pub length: u64,
    /// All values with their counts, where there are few.
    pub values: Option<BTreeMap<String, u64>>,
}

/// A number, as it may be written.
pub fn number(text: &str, comma: bool) -> Option<f64> {
    let number = if comma { text.replacen(',', ".", 1).parse() } else { text.parse() };
    number.ok().filter(|number: &f64| number.is_finite())
}

fn is_empty_list(value: &str) -> bool {
    value.starts_with('[') && words::list(value).is_some_and(|values| values.is_empty())
}

/// True for 1,234.56.
fn is_grouped(value: &str) -> bool {
    let whole = value.split('.').next().unwrap_or_default();
    let mut groups = whole.trim_start_matches('-').split(',');
    let digits = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
    let first = groups.next().is_some_and(|g| (1..=3).contains(&g.len()) && digits(g));
    let rest: Vec<&str> = groups.collect();
    first && !rest.is_empty() && rest.iter().all(|g| g.len() == 3 && digits(g))
}

/// True for 31/12/2023, 12.31.2023 10:30 and the like, whose day and month nobody can tell apart.
fn is_other_date(value: &str) -> bool {
    let date = value.split([' ', 'T']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split(['/', '.', '-']).collect();
    let digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    parts.len() == 3
        && parts.iter().all(digits)
        && [4, 2].contains(&parts[2].len())
        && parts[..2].iter().all(|part| (1..=2).contains(&part.len()))
}

impl Profile {
    /// Looks at all values of a column of a raw cache.
    pub fn new(folder: &Path, column: usize, name: &str) -> Result<Self> {
        let mut profile =
            Self { name: name.into(), values: Some(BTreeMap::new()), ..Self::default() };
        let mut tokens: [HashSet<String>; 4] = Default::default();
        let mut unlike = false;
        Cache::vocabulary(folder, column, &mut |value, count| {
            let value = value.trim();
            profile.rows += u64::from(count);
            if !words::is_missing(value.as_bytes()) && !is_empty_list(value) {
                profile.take(value, count.into(), &mut tokens, &mut unlike);
            }
        })?;
        profile.tokens = tokens.map(|tokens| tokens.len());
        profile.digits = profile.digits.filter(|_| !unlike);
        Ok(profile)
    }

    fn take(
        &mut self,
        value: &str,
        count: u64,
        tokens: &mut [HashSet<String>; 4],
        unlike: &mut bool,
    ) {
        self.present += count;
        self.distinct += 1;
        self.length += count * value.len() as u64;
        match &mut self.values {
            Some(values) if values.len() < SMALL => {
                *values.entry(value.into()).or_default() += count
            }
            values => *values = None,
        }
        self.comma_numbers += if number(value, true).is_some() { count } else { 0 };
        if let Some(number) = number(value, false) {
            self.numbers += count;
            self.negative += if number < 0.0 { count } else { 0 };
            self.whole += if number.fract() == 0.0 { count } else { 0 };
            let (low, high) = self.range.unwrap_or((number, number));
            self.range = Some((low.min(number), high.max(number)));
            *unlike |= *self.digits.get_or_insert(value.len()) != value.len();
        } else {
            self.dates += if words::is_date(value.as_bytes()) { count } else { 0 };
            let list = value.starts_with('[') && words::list(value).is_some();
            self.lists += if list { count } else { 0 };
            if value.starts_with('{') {
                self.records += count;
                self.record.get_or_insert_with(|| value.into());
            }
            let infinite = value.parse().is_ok_and(f64::is_infinite);
            self.infinite += if infinite { count } else { 0 };
            self.grouped += if is_grouped(value) { count } else { 0 };
            self.other_dates += if is_other_date(value) { count } else { 0 };
            for (i, separator) in SEPARATORS.into_iter().enumerate() {
                if !list && value.contains(separator) {
                    self.separated[i] += count;
                }
                // Enough to see whether they repeat.
                if tokens[i].len() < 1 << 17 && value.len() < 1 << 10 {
                    let parts = value.split(separator).map(|part| part.trim().to_string());
                    tokens[i].extend(parts.filter(|part| !part.is_empty()));
                }
            }
            self.weighted += if words::is_weighted(value) { count } else { 0 };
        }
        self.times += if words::time(value.as_bytes()).is_some() { count } else { 0 };
        self.labels += if words::label(value.as_bytes()).is_some() { count } else { 0 };
    }

    /// True where all values are numbers.
    pub fn is_number(&self, comma: bool) -> bool {
        let numbers = if comma { self.comma_numbers } else { self.numbers };
        self.present > 0 && numbers == self.present
    }

    /// True where all values are whole numbers.
    pub fn is_whole(&self) -> bool {
        self.present > 0 && self.whole == self.present
    }

    /// True where all values are 0 and 1 or words for them, and both occur.
    pub fn is_label(&self) -> bool {
        let both = self.values.as_ref().map(|values| {
            let label = |value: &String| words::label(value.as_bytes()).map(|label| label > 0.5);
            values.keys().filter_map(label).collect::<HashSet<bool>>().len()
        });
        self.labels == self.rows && self.present == self.rows && both == Some(2)
    }

    /// True where all values are moments: dates, or numbers; one in twenty may be missing.
    pub fn is_time(&self) -> bool {
        self.times == self.present && 20 * self.missing() <= self.rows
    }

    /// Rows without a value.
    pub fn missing(&self) -> u64 {
        self.rows - self.present
    }
}
