//! What each column of a table is for, by rules that are said: each answer has its reason.

use super::profile::{Profile, SEPARATORS};
use super::sniff::Kind;
use crate::cache::Cache;
use crate::error::{Error, Result};

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// 0 or 1; a rating; the name of a class.
    Label,
    #[allow(missing_docs)]
    Rating,
    #[allow(missing_docs)]
    Class,
    /// How much a row counts.
    Weight,
    /// What sorts.
    Time,
    /// Ids of users and items, and others.
    User,
    #[allow(missing_docs)]
    Item,
    #[allow(missing_docs)]
    Id,
    /// Several ids, between such separators.
    Ids(char),
    /// A number.
    Dense,
    /// Nothing.
    Out,
}

/// A column, and what it is for.
#[derive(Clone, Debug)]
pub struct Column {
    /// What it holds.
    pub profile: Profile,
    /// What it is for.
    pub role: Use,
    /// Why.
    pub reason: String,
}

const LABELS: [&str; 17] = [
    "label",
    "click",
    "clicked",
    "isclick",
    "isclicked",
    "target",
    "y",
    "conversion",
    "converted",
    "isconverted",
    "purchased",
    "purchase",
    "bought",
    "install",
    "like",
    "liked",
    "longview",
];
const RATINGS: [&str; 6] = ["rating", "score", "stars", "overall", "rate", "ratings"];
const CLASSES: [&str; 4] = ["class", "category", "label", "target"];
const USERS: [&str; 9] = [
    "user",
    "userid",
    "uid",
    "visitorid",
    "customerid",
    "memberid",
    "reviewerid",
    "customer",
    "visitor",
];
const ITEMS: [&str; 22] = [
    "item",
    "itemid",
    "iid",
    "movieid",
    "movie",
    "productid",
    "product",
    "sku",
    "asin",
    "bookid",
    "book",
    "adid",
    "articleid",
    "newsid",
    "gameid",
    "game",
    "songid",
    "trackid",
    "videoid",
    "contentid",
    "isbn",
    "businessid",
];
const NUMBERS: [&str; 14] = [
    "count", "price", "amount", "age", "days", "hours", "duration", "length", "size", "quantity",
    "qty", "views", "score", "rate",
];

/// A name in lower-case letters alone.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Decides on all columns. `label` is a column that was named to be it.
pub fn decide(
    kind: &Kind,
    profiles: Vec<Profile>,
    cache: &Cache,
    label: Option<&str>,
    comma: bool,
) -> Result<Vec<Column>> {
    let open = |profile| Column { profile, role: Use::Out, reason: String::new() };
    let mut columns: Vec<Column> = profiles.into_iter().map(open).collect();
    let named = kind.columns.header || kind.format != "csv";
    find_label(&mut columns, label, named, comma)?;
    if named {
        find_named(&mut columns, &USERS, Use::User, "users");
        find_named(&mut columns, &ITEMS, Use::Item, "items");
    } else {
        find_by_place(&mut columns, cache);
    }
    find_time(&mut columns, named);
    let weighs = |p: &Profile| {
        ["weight", "sampleweight", "importance"].contains(&&plain(&p.name)[..])
            && p.is_number(comma)
            && p.present == p.rows
            && p.range.is_some_and(|(low, _)| low >= 0.0)
    };
    if let Some(column) = columns.iter_mut().find(|c| c.reason.is_empty() && weighs(&c.profile)) {
        (column.role, column.reason) = (Use::Weight, "called so, and numbers from zero on".into());
    }
    for (i, column) in columns.iter_mut().enumerate() {
        if column.reason.is_empty() {
            let kind = kind.types[i].as_deref();
            (column.role, column.reason) = feature(&column.profile, kind, named, comma);
        }
    }
    leave_out(&mut columns, cache);
    let positive = columns.iter().any(|column| column.role == Use::User)
        && columns.iter().any(|column| column.role == Use::Item);
    match columns.iter().any(|c| matches!(c.role, Use::Label | Use::Rating | Use::Class))
        || positive
    {
        true => Ok(columns),
        false => Err(no_label(&columns)),
    }
}

fn no_label(columns: &[Column]) -> Error {
    let two = columns.iter().filter(|column| column.profile.distinct == 2);
    let two: Vec<&str> = two.map(|column| &column.profile.name[..]).collect();
    let all: Vec<&str> = columns.iter().map(|column| &column.profile.name[..]).collect();
    let hint = match two.is_empty() {
        true => format!("the columns are {}", all.join(", ")),
        false => format!("columns of two values: {}", two.join(", ")),
    };
    Error::Data(format!(
        "no column is surely the label, and there are no users and items whose rows would all be positives: say --label COLUMN; {hint}"
    ))
}

fn find_label(columns: &mut [Column], asked: Option<&str>, named: bool, comma: bool) -> Result<()> {
    if let Some(name) = asked {
        let Some(column) = columns.iter_mut().find(|column| column.profile.name == name) else {
            let all: Vec<&str> = columns.iter().map(|column| &column.profile.name[..]).collect();
            let what = format!("--label {name}: no such column; there are {}", all.join(", "));
            return Err(Error::Data(what));
        };
        let profile = &column.profile;
        column.role = match () {
            () if profile.is_label() => Use::Label,
            () if profile.is_number(comma) && profile.present == profile.rows => Use::Rating,
            () if profile.present == profile.rows && profile.values.is_some() => Use::Class,
            () => {
                let missing = profile.rows - profile.present;
                let what = format!(
                    "--label {name}: {} distinct values and {missing} missing ones are neither 0 and 1, nor numbers, nor classes",
                    profile.distinct
                );
                return Err(Error::Data(what));
            }
        };
        column.reason = "named by --label".into();
        return Ok(());
    }
    type Fits = fn(&Profile, bool) -> bool;
    let rules: [(&[&str], Use, Fits, &str); 3] = [
        (&LABELS, Use::Label, |p, _| p.is_label(), "called so, with two values"),
        (
            &RATINGS,
            Use::Rating,
            |p, comma| p.is_number(comma) && p.present == p.rows,
            "called so, and a number",
        ),
        (
            &CLASSES,
            Use::Class,
            |p, comma| {
                p.values.is_some() && p.present == p.rows && p.distinct > 2 && !p.is_number(comma)
            },
            "called so, with a few texts",
        ),
    ];
    for (names, role, fits, reason) in rules {
        for name in names {
            let is = |c: &&mut Column| plain(&c.profile.name) == *name && fits(&c.profile, comma);
            if let Some(column) = columns.iter_mut().find(is) {
                (column.role, column.reason) = (role, reason.into());
                return Ok(());
            }
        }
    }
    let two: Vec<usize> = (0..columns.len()).filter(|&i| columns[i].profile.is_label()).collect();
    let first = !named && two.first() == Some(&0);
    if two.len() == 1 || first {
        let column = &mut columns[two[0]];
        let reason =
            if first { "the first column, of 0 and 1" } else { "the only column of 0 and 1" };
        (column.role, column.reason) = (Use::Label, reason.into());
    }
    Ok(())
}

/// The users or items: the first of these names that a column has.
fn find_named(columns: &mut [Column], names: &[&str], role: Use, what: &str) {
    for name in names {
        let is = |c: &&mut Column| c.reason.is_empty() && plain(&c.profile.name) == *name;
        if let Some(column) = columns.iter_mut().find(is) {
            (column.role, column.reason) = (role, format!("called as {what} are"));
            return;
        }
    }
}

/// A table of two to four columns without names: user, item, rating or label, time.
fn find_by_place(columns: &mut [Column], cache: &Cache) {
    let free = columns.len() > 1 && columns[..2].iter().all(|column| column.reason.is_empty());
    let repeats = |i: usize| 2 * u64::from(cache.meta.columns[i].distinct) < cache.meta.rows;
    if !(2..=4).contains(&columns.len()) || !free || !repeats(0) || !repeats(1) {
        return;
    }
    let place = "by its place in a table of few columns without names: user, item, rating, time";
    for (column, role) in columns.iter_mut().zip([Use::User, Use::Item]) {
        (column.role, column.reason) = (role, place.into());
    }
    let labelled = columns.iter().any(|c| matches!(c.role, Use::Label | Use::Rating | Use::Class));
    if let Some(column) = columns.get_mut(2).filter(|column| !labelled && column.reason.is_empty())
    {
        let profile = &column.profile;
        if profile.is_number(false) && profile.present == profile.rows && profile.distinct <= 100 {
            (column.role, column.reason) = (Use::Rating, place.into());
        }
    }
}

/// The column to sort by.
fn find_time(columns: &mut [Column], named: bool) {
    // Seconds, or finer units, from 1979 on.
    let unix = |p: &Profile| {
        p.is_whole()
            && p.distinct > 32
            && p.range.is_some_and(|(low, high)| low >= 3e8 && high < 4.2e18)
    };
    let called = |p: &Profile| {
        let name = plain(&p.name);
        ["time", "date", "timestamp", "datetime", "ts"].iter().any(|n| name == *n)
            || name.contains("timestamp")
            || name.contains("time") && (unix(p) || p.dates == p.rows)
    };
    type Fits<'a> = &'a dyn Fn(&Profile) -> bool;
    let rules: [(Fits<'_>, &str); 3] = [
        (&|p| called(p) && p.is_time(), "called so, and moments"),
        (&|p| p.is_time() && p.dates == p.rows, "dates"),
        (&|p| !named && p.is_time() && unix(p), "seconds since 1970"),
    ];
    for (fits, reason) in rules {
        let is = |c: &&mut Column| c.reason.is_empty() && fits(&c.profile);
        if let Some(column) = columns.iter_mut().find(is) {
            (column.role, column.reason) = (Use::Time, reason.into());
            return;
        }
    }
}

/// What a column is that is neither label, user, item nor time.
fn feature(profile: &Profile, typed: Option<&str>, named: bool, comma: bool) -> (Use, String) {
    let say = |role, reason: &str| (role, reason.to_string());
    let name = plain(&profile.name);
    let is_code = named && ["id", "code", "zip", "no"].iter().any(|end| name.ends_with(end));
    match typed {
        Some("token_seq") => return say(Use::Ids(' '), "RecBole's token_seq"),
        Some("token") => return say(Use::Id, "RecBole's token"),
        Some("float") if profile.numbers == profile.present => {
            return say(Use::Dense, "RecBole's float");
        }
        Some("float_seq") => return say(Use::Out, "vectors of numbers, which no model here reads"),
        _ => {}
    }
    if profile.is_number(comma) {
        let digits = profile.digits.unwrap_or(0);
        return match () {
            () if is_code => say(Use::Id, "its name ends as that of a code"),
            () if !profile.is_whole() => say(Use::Dense, "numbers with fractions"),
            () if profile.negative > 0 => say(Use::Dense, "numbers below zero"),
            () if named && NUMBERS.iter().any(|word| name.contains(word)) => {
                say(Use::Dense, "called as a number is")
            }
            () if profile.distinct <= 32 => say(Use::Id, "few whole numbers"),
            () if digits >= 4 => say(Use::Id, "whole numbers of as many digits each: a code"),
            () => say(Use::Dense, "whole numbers"),
        };
    }
    if profile.records > 0 {
        return say(Use::Out, "records of several values: take them apart first");
    }
    if profile.dates == profile.present && profile.dates > 0 {
        return say(Use::Out, "dates beside the time");
    }
    if profile.lists > 0 && profile.lists == profile.present {
        return say(Use::Ids(','), "lists");
    }
    for (i, separator) in SEPARATORS.into_iter().enumerate() {
        let often = if separator == ' ' { 2 } else { 20 };
        let repeat = if separator == ' ' { 4 } else { 2 };
        let many = profile.separated[i] * often >= profile.present;
        if many && profile.distinct > 2 && ((profile.tokens[i] * repeat) as u64) < profile.distinct
        {
            let what = format!("{} ids, {separator:?} between them", profile.tokens[i]);
            return (Use::Ids(separator), what);
        }
    }
    let long = profile.length > 40 * profile.present && 2 * profile.distinct > profile.present;
    if long {
        return say(Use::Out, "long texts that hardly repeat");
    }
    say(Use::Id, "texts")
}

/// Takes out what says nothing, or too much.
fn leave_out(columns: &mut [Column], cache: &Cache) {
    let rows = cache.meta.rows;
    let feature =
        |role: Use| matches!(role, Use::User | Use::Item | Use::Id | Use::Ids(_) | Use::Dense);
    let label = columns.iter().position(|column| matches!(column.role, Use::Label | Use::Class));
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

/// True where each value of one column is the same one of another, and the other way around.
fn is_copy(cache: &Cache, a: usize, b: usize) -> bool {
    let distinct = cache.meta.columns[a].distinct;
    if distinct != cache.meta.columns[b].distinct || distinct < 3 {
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

/// Why a column gives the label away, if it does: its values that repeat, or its order, tell it.
fn gives_away(columns: &[Column], cache: &Cache, column: usize, label: usize) -> Option<String> {
    let values = columns[label].profile.values.as_ref()?;
    let classes = cache.meta.columns[label].distinct as usize;
    let rows = cache.meta.rows;
    let most = *values.values().max()?;
    let distinct = cache.meta.columns[column].distinct as usize;
    if classes.checked_mul(distinct).is_none_or(|cells| cells > 1 << 26) {
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
        if n > 1 {
            repeated += n;
            right += of_value.iter().max().copied().unwrap_or(0);
        }
    }
    let sure = |right: u64, of: u64| right as f64 >= 0.999 * of as f64;
    (2 * repeated > rows && sure(right, repeated) && !sure(most, rows)).then(|| {
        format!("tells {} on its own: its values have one label each", columns[label].profile.name)
    })
}

/// The smallest rating that counts as a positive: at most six in ten have it.
pub fn threshold(profile: &Profile, comma: bool) -> f64 {
    let mut ratings: Vec<(f64, u64)> = profile
        .values
        .iter()
        .flatten()
        .filter_map(|(value, &n)| super::profile::number(value, comma).map(|number| (number, n)))
        .collect();
    ratings.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut above = profile.rows;
    for (rating, n) in &ratings {
        if 10 * above <= 6 * profile.rows {
            return *rating;
        }
        above -= n;
    }
    ratings.last().map_or(profile.range.map_or(1.0, |(low, high)| (low + high) / 2.0), |r| r.0)
}
