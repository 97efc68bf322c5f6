//! Which rows train, validate and test.

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::raw::Role;
use crate::raw::words::{is_date, time};
use embc_core::rng::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A rule of `datasets.toml` or `[data] split`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "rule", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SplitRule {
    /// Each user's last rows in time, ties in file order: the last `test`, and `valid` before them.
    /// Users with no more rows than that train only.
    LastPerUser {
        /// Rows of each user that validate.
        valid: u32,
        /// Rows of each user that test.
        #[serde(default)]
        test: u32,
    },
    /// A random share of each user's rows.
    RandomPerUser {
        /// Share that validates.
        valid: f64,
        /// Share that tests.
        #[serde(default)]
        test: f64,
        /// Seed of the draw; without one, in `[data]`, the trial's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
    },
    /// A random share of all rows.
    Random {
        /// Share that validates.
        valid: f64,
        /// Share that tests.
        #[serde(default)]
        test: f64,
        /// Seed of the draw; without one, in `[data]`, the trial's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
    },
    /// The end in time, or of the file where there is no time: train, then valid, then test.
    Tail {
        /// Share that validates.
        valid: f64,
        /// Share that tests.
        #[serde(default)]
        test: f64,
    },
    /// From a moment on: a number as the time column has it, or a date such as "2024-01-31", in UTC.
    Time {
        /// From here on rows validate.
        valid: When,
        /// From here on rows test.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test: Option<When>,
    },
    /// The files called `train`, `valid` and `test`.
    Files,
    /// `days` equal consecutive parts, in time, or of the file where there is no time; of the last,
    /// the first half tests, the second validates.
    Days {
        /// Number of parts.
        days: u32,
    },
    /// The values of a column.
    Column {
        /// Its name.
        column: String,
        /// Values that train.
        train: Vec<String>,
        /// Values that validate, or a share of another part.
        valid: Part,
        /// Values that test.
        #[serde(default)]
        test: Vec<String>,
        /// Values whose rows are left out.
        #[serde(default)]
        drop: Vec<String>,
    },
}

/// A moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum When {
    /// As the time column has it.
    Number(i64),
    /// A date, with or without a time.
    Date(String),
}

impl When {
    /// The moment as a cache has it.
    fn of(&self, cache: &Cache, largest: i64) -> Result<i64> {
        let wrong = || {
            Error::Data(format!(
                "split: {self:?} is no moment; write a number, without quotes, or a date such as \"2024-01-31\""
            ))
        };
        match self {
            When::Number(n) => n.checked_mul(cache.meta.time_scale).ok_or_else(wrong),
            When::Date(text) => {
                let (seconds, part) =
                    time(text.as_bytes()).filter(|_| is_date(text.as_bytes())).ok_or_else(wrong)?;
                // Whole numbers of today are seconds, milliseconds, microseconds or nanoseconds.
                let whole = if cache.meta.dates { 0 } else { largest / cache.meta.time_scale };
                let unit = [1, 1_000, 1_000_000, 1_000_000_000];
                let unit = unit[[100_000_000_000, 100_000_000_000_000, 100_000_000_000_000_000]
                    .iter()
                    .filter(|&&bound| whole >= bound)
                    .count()]
                    * cache.meta.time_scale;
                seconds
                    .checked_mul(unit)
                    .map(|n| n + i64::from(part) * unit / 1_000_000_000)
                    .ok_or_else(wrong)
            }
        }
    }
}

/// Validation rows by value, or drawn from the training rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Part {
    /// Values of the column.
    Values(Vec<String>),
    /// A random share of the training rows.
    Share {
        /// Where it is drawn from.
        from: Train,
        /// The share.
        share: f64,
        /// Seed of the draw.
        seed: u64,
    },
}

/// The one part that validation rows may be drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Train {
    /// The training rows.
    Train,
}

impl SplitRule {
    /// The column that the rule reads.
    pub fn column(&self) -> Option<&str> {
        match self {
            SplitRule::Column { column, .. } => Some(column),
            _ => None,
        }
    }

    /// Where the trial's seed draws the split, the place for it.
    pub fn open_seed(&mut self) -> Option<&mut Option<u64>> {
        match self {
            SplitRule::Random { seed, .. } | SplitRule::RandomPerUser { seed, .. } => {
                seed.is_none().then_some(seed)
            }
            _ => None,
        }
    }

    /// True where it follows the time of rows, if they have one.
    pub fn reads_time(&self) -> bool {
        use SplitRule::{Days, LastPerUser, Tail, Time};
        matches!(self, Tail { .. } | Days { .. } | LastPerUser { .. } | Time { .. })
    }

    fn check(&self) -> Result<()> {
        let shares = match self {
            SplitRule::RandomPerUser { valid, test, .. }
            | SplitRule::Random { valid, test, .. }
            | SplitRule::Tail { valid, test } => [*valid, *test],
            SplitRule::Column { valid: Part::Share { share, .. }, .. } => [*share, 0.0],
            SplitRule::Days { days: 0 | 1 } => {
                return Err(Error::Data("split: days must be at least 2".into()));
            }
            _ => return Ok(()),
        };
        match shares.iter().all(|s| (0.0..1.0).contains(s)) && shares[0] + shares[1] < 1.0 {
            true => Ok(()),
            false => Err(Error::Data(format!(
                "split: valid = {} and test = {} must be shares that leave something to train on",
                shares[0], shares[1]
            ))),
        }
    }
}

/// The part of a row.
pub const TRAIN: u8 = 0;
/// A validation row.
pub const VALID: u8 = 1;
/// A test row.
pub const TEST: u8 = 2;
/// A row that is left out.
pub const DROPPED: u8 = 3;

/// Assigns every row of `cache` to a part; `part` comes in with rows already dropped. Returns the
/// number of users that were too short to hold out from.
pub fn assign(
    rule: &SplitRule,
    cache: &Cache,
    folder: &Path,
    user: Option<usize>,
    part: &mut [u8],
) -> Result<u64> {
    rule.check()?;
    let kept: Vec<u32> =
        (0..part.len() as u32).filter(|&row| part[row as usize] != DROPPED).collect();
    let user = || {
        user.ok_or_else(|| {
            let what = "split: a rule per user needs a column called user, and one called item";
            Error::Data(what.into())
        })
    };
    let drawn = |seed: Option<u64>| {
        seed.ok_or_else(|| Error::Data("split: a random split needs a seed".into()))
    };
    let round = |share: f64, of: usize| (share * of as f64).round() as usize;
    let mut short = 0;
    let time = |row: u32| cache.time.as_ref().map_or(0, |time| time.time(row.into()));
    let kept = match rule {
        SplitRule::Tail { .. } | SplitRule::Days { .. } if cache.time.is_some() => {
            let mut kept = kept;
            kept.sort_by_key(|&row| time(row));
            kept
        }
        _ => kept,
    };
    match rule {
        SplitRule::Time { valid, test } => {
            if cache.time.is_none() {
                let what = "split: rule = \"time\" needs a time column; name it with columns.time";
                return Err(Error::Data(what.into()));
            }
            let largest = kept.iter().map(|&row| time(row)).max().unwrap_or(0);
            let valid = valid.of(cache, largest)?;
            let test = test.as_ref().map(|test| test.of(cache, largest)).transpose()?;
            if test.is_some_and(|test| test < valid) {
                let what = "split: test begins before valid; train, valid and test follow each other in time";
                return Err(Error::Data(what.into()));
            }
            for row in kept {
                part[row as usize] = match time(row) {
                    at if test.is_some_and(|test| at >= test) => TEST,
                    at if at >= valid => VALID,
                    _ => TRAIN,
                };
            }
        }
        SplitRule::Tail { valid, test } => {
            let (valid, test) = (round(*valid, kept.len()), round(*test, kept.len()));
            let first_test = kept.len() - test;
            kept[first_test - valid..first_test].iter().for_each(|&r| part[r as usize] = VALID);
            kept[first_test..].iter().for_each(|&r| part[r as usize] = TEST);
        }
        SplitRule::Days { days } => {
            let last = kept.len() - kept.len() / *days as usize;
            let middle = last + (kept.len() - last) / 2;
            kept[last..middle].iter().for_each(|&r| part[r as usize] = TEST);
            kept[middle..].iter().for_each(|&r| part[r as usize] = VALID);
        }
        SplitRule::Random { valid, test, seed } => {
            let rng = Rng::stream(drawn(*seed)?, "split");
            for row in kept {
                let draw = rng.fork(row.into()).unit();
                part[row as usize] = match draw {
                    x if x < *test => TEST,
                    x if x < test + valid => VALID,
                    _ => TRAIN,
                };
            }
        }
        SplitRule::RandomPerUser { valid, test, seed } => {
            let rng = Rng::stream(drawn(*seed)?, "split");
            for rows in by_user(cache, user()?, kept, |_| 0) {
                let mut rows = rows;
                rng.fork(rows[0].into()).shuffle(&mut rows);
                let test = round(*test, rows.len());
                let valid = round(*valid, rows.len()).min(rows.len() - test);
                rows[..test].iter().for_each(|&r| part[r as usize] = TEST);
                rows[test..test + valid].iter().for_each(|&r| part[r as usize] = VALID);
            }
        }
        SplitRule::LastPerUser { valid, test } => {
            let (valid, test) = (*valid as usize, *test as usize);
            for rows in by_user(cache, user()?, kept, time) {
                if rows.len() <= valid + test {
                    short += 1;
                    continue;
                }
                let first_test = rows.len() - test;
                rows[first_test - valid..first_test].iter().for_each(|&r| part[r as usize] = VALID);
                rows[first_test..].iter().for_each(|&r| part[r as usize] = TEST);
            }
        }
        SplitRule::Files => {
            let of = |name: &str| match name {
                "train" => Ok(TRAIN),
                "valid" => Ok(VALID),
                "test" => Ok(TEST),
                _ => Err(Error::Data(format!(
                    "split: rule = \"files\" needs files called train, valid and test, not {name}"
                ))),
            };
            let parts: Vec<u8> =
                cache.meta.files_of_rows().map(|s| of(&s.name)).collect::<Result<_>>()?;
            for row in kept {
                part[row as usize] = parts[cache.file.id(row.into()) as usize];
            }
        }
        SplitRule::Column { column, train, valid, test, drop } => {
            let found = |f: &crate::raw::Field| {
                f.name == *column && f.role.is_coded() && !matches!(f.role, Role::Multi(_))
            };
            let index = cache.fields.iter().position(found).ok_or_else(|| {
                Error::Data(format!("split: the data set has no column {column:?} to split by"))
            })?;
            let mut parts = Vec::new();
            let mut unknown = None;
            Cache::vocabulary(folder, index, &mut |value, _| {
                let is = |values: &[String]| values.iter().any(|v| v == value);
                let of_valid = matches!(valid, Part::Values(values) if is(values));
                parts.push(match () {
                    () if is(train) => TRAIN,
                    () if of_valid => VALID,
                    () if is(test) => TEST,
                    () if is(drop) => DROPPED,
                    () => {
                        unknown.get_or_insert_with(|| value.to_string());
                        DROPPED
                    }
                });
            })?;
            if let Some(value) = unknown {
                return Err(Error::Data(format!(
                    "split: column {column} has the value {value:?}, which is in none of train, valid, test, drop"
                )));
            }
            let ids = &cache.coded[&index].ids;
            for &row in &kept {
                part[row as usize] = parts[ids.id(row.into()) as usize];
            }
            if let Part::Share { share, seed, .. } = valid {
                let rng = Rng::stream(*seed, "split");
                for row in kept.into_iter().filter(|&row| rng.fork(row.into()).unit() < *share) {
                    let part = &mut part[row as usize];
                    *part = if *part == TRAIN { VALID } else { *part };
                }
            }
        }
    }
    Ok(short)
}

/// The rows of each user, by `key`, then in file order.
fn by_user(
    cache: &Cache,
    user: usize,
    mut rows: Vec<u32>,
    key: impl Fn(u32) -> i64,
) -> Vec<Vec<u32>> {
    let ids = &cache.coded[&user].ids;
    rows.sort_by_key(|&row| (ids.id(row.into()), key(row)));
    rows.chunk_by(|&a, &b| ids.id(a.into()) == ids.id(b.into())).map(<[u32]>::to_vec).collect()
}
