//! Columns that say nothing, or too much: constants, keys, copies, and what gives the label away.

use super::profile::Profile;
use super::roles::{Column, Use};
use crate::cache::Cache;

/// Takes out what says nothing, or too much.
pub fn leave_out(columns: &mut [Column], cache: &Cache) {
    let rows = cache.meta.rows;
    let feature =
        |role: Use| matches!(role, Use::User | Use::Item | Use::Id | Use::Ids(_) | Use::Dense);
    let label = columns
        .iter()
        .position(|column| matches!(column.role, Use::Label | Use::Texts | Use::Class));
    for i in 0..columns.len() {
        let (profile, role) = (&columns[i].profile, columns[i].role);
        let distinct = u64::from(cache.meta.columns[i].distinct);
        let reason = match () {
            () if !feature(role) => continue,
            () if distinct == 1 => Some("the same in all rows".to_string()),
            () if profile.present == 0 => Some("always missing".into()),
            () if distinct == rows && rows > 100 && role != Use::Dense => {
                Some("another value in each row: a key".into())
            }
            () if distinct == rows && rows > 100 && is_counting(profile) => {
                Some("the rows counted: a key".into())
            }
            () => match label
                .filter(|&label| label != i)
                .and_then(|label| gives_away(columns, cache, i, label))
            {
                Some(reason) => Some(reason),
                None => (0..i)
                    .filter(|&other| feature(columns[other].role))
                    .find(|&other| is_copy(cache, i, other))
                    .map(|other| format!("a copy of {}", columns[other].profile.name)),
            },
        };
        if let Some(reason) = reason {
            (columns[i].role, columns[i].reason) = (Use::Out, reason);
        }
    }
}

/// True for whole numbers one after the other.
fn is_counting(profile: &Profile) -> bool {
    let span = profile.range.map(|(low, high)| high - low + 1.0);
    profile.is_whole() && span == Some(profile.distinct as f64)
}

/// True where each value of one column is the same one of another, and the other way around.
fn is_copy(cache: &Cache, a: usize, b: usize) -> bool {
    let distinct = cache.meta.columns[a].distinct;
    // What hardly repeats goes with everything.
    let repeats = 2 * u64::from(distinct) <= cache.meta.rows;
    if distinct != cache.meta.columns[b].distinct || distinct < 3 || !repeats {
        return false;
    }
    let (a, b) = (&cache.coded[&a].ids, &cache.coded[&b].ids);
    let mut of = vec![[u32::MAX; 2]; distinct as usize];
    (0..cache.meta.rows).all(|row| {
        let (x, y) = (a.id(row), b.id(row));
        let there = std::mem::replace(&mut of[x as usize][0], y);
        let back = std::mem::replace(&mut of[y as usize][1], x);
        (there == u32::MAX || there == y) && (back == u32::MAX || back == x)
    })
}

/// Why a column gives the label away, if it does: nearly all rows of a value that repeats have one.
fn gives_away(columns: &[Column], cache: &Cache, column: usize, label: usize) -> Option<String> {
    let values = columns[label].profile.values.as_ref()?;
    let classes = cache.meta.columns[label].distinct as usize;
    let rows = cache.meta.rows;
    let most = *values.values().max()?;
    let distinct = cache.meta.columns[column].distinct as usize;
    if classes.checked_mul(distinct).is_none_or(|cells| cells > 1 << 23) {
        return None;
    }
    let mut cells = vec![0u64; classes * distinct];
    let (ids, labels) = (&cache.coded[&column].ids, &cache.coded[&label].ids);
    for row in 0..rows {
        cells[ids.id(row) as usize * classes + labels.id(row) as usize] += 1;
    }
    let (mut right, mut repeated) = (0, 0);
    for of_value in cells.chunks(classes) {
        let n: u64 = of_value.iter().sum();
        // Two or three rows of one label are chance.
        if n >= 5 {
            repeated += n;
            right += of_value.iter().max().copied().unwrap_or(0);
        }
    }
    let sure = |right: u64, of: u64| right as f64 >= 0.999 * of as f64;
    (2 * repeated > rows && sure(right, repeated) && !sure(most, rows)).then(|| {
        format!("tells {} on its own: its values have one label each", columns[label].profile.name)
    })
}
