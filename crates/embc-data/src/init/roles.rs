//! What each column of a table is for, by rules that are said: each answer has its reason.

use super::profile::{Profile, SEPARATORS};
use super::sniff::Kind;
use super::useless::leave_out;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::raw::words;

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// 0 or 1; two texts; a rating; the name of a class.
    Label,
    #[allow(missing_docs)]
    Texts,
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
    match columns
        .iter()
        .any(|c| matches!(c.role, Use::Label | Use::Texts | Use::Rating | Use::Class))
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

/// How a column may be the label, if it may: rows that it says nothing of are left out.
fn as_label(p: &Profile, comma: bool) -> Option<(Use, String)> {
    let left_out = match p.missing() {
        0 => String::new(),
        n => format!("; {n} rows lack it, and are left out"),
    };
    let both = p.values.as_ref().map(|values| {
        let label = |value: &String| words::label(value.as_bytes()).map(|label| label > 0.5);
        values.keys().filter_map(label).collect::<std::collections::BTreeSet<bool>>().len()
    });
    let texts = p.values.is_some() && !p.is_number(comma);
    match () {
        () if p.is_label() => Some((Use::Label, "two values".into())),
        // Nearly all rows say 0 or 1: the others are mistakes.
        () if both == Some(2) && 10 * p.labels >= 9 * p.present => {
            let odd = p.present - p.labels;
            let odd = if odd > 0 {
                format!("; {odd} rows say neither, and are left out")
            } else {
                String::new()
            };
            Some((Use::Label, format!("two values{odd}{left_out}")))
        }
        () if p.is_number(comma) && p.distinct > 1 => {
            Some((Use::Rating, format!("a number{left_out}")))
        }
        () if texts && p.distinct == 2 => {
            Some((Use::Texts, format!("two texts, of which the rarer means 1{left_out}")))
        }
        () if texts && p.distinct > 2 => Some((Use::Class, format!("a few texts{left_out}"))),
        () => None,
    }
}

fn find_label(columns: &mut [Column], asked: Option<&str>, named: bool, comma: bool) -> Result<()> {
    if let Some(name) = asked {
        let Some(column) = columns.iter_mut().find(|column| column.profile.name == name) else {
            let all: Vec<&str> = columns.iter().map(|column| &column.profile.name[..]).collect();
            let what = format!("--label {name}: no such column; there are {}", all.join(", "));
            return Err(Error::Data(what));
        };
        let Some((role, what)) = as_label(&column.profile, comma) else {
            return Err(no_such_label(&format!("--label {name}"), &column.profile));
        };
        (column.role, column.reason) = (role, format!("named by --label, {what}"));
        return Ok(());
    }
    // A y may be a place: it is the label where it is 0 or 1.
    let is_y = |c: &Column| plain(&c.profile.name) == "y" && !c.profile.is_label();
    for (i, name) in LABELS.iter().chain(&RATINGS).chain(&CLASSES).enumerate() {
        let is = |c: &&mut Column| plain(&c.profile.name) == *name && !is_y(c);
        let Some(column) = columns.iter_mut().find(is) else { continue };
        let only_class = i >= LABELS.len() + RATINGS.len();
        match as_label(&column.profile, comma) {
            Some((role, _)) if only_class && role != Use::Class => {}
            Some((role, what)) => {
                (column.role, column.reason) = (role, format!("called so, and {what}"));
                return Ok(());
            }
            None if only_class => {}
            None => {
                return Err(no_such_label(
                    &format!("{} is called as labels are, and", column.profile.name),
                    &column.profile,
                ));
            }
        }
    }
    let two: Vec<usize> = (0..columns.len()).filter(|&i| columns[i].profile.is_label()).collect();
    let first = !named && two.first() == Some(&0);
    if two.len() == 1 || first {
        let column = &mut columns[two[0]];
        let reason = if first {
            "the first column, of two values"
        } else {
            "the only column of 0 and 1 or words for them"
        };
        (column.role, column.reason) = (Use::Label, reason.into());
    }
    Ok(())
}

fn no_such_label(who: &str, p: &Profile) -> Error {
    Error::Data(format!(
        "{who}: {} distinct values and {} missing ones are neither 0 and 1, nor numbers, nor a few texts: say which column it is with --label, or take this one out",
        p.distinct,
        p.missing()
    ))
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
    let labelled = columns
        .iter()
        .any(|c| matches!(c.role, Use::Label | Use::Texts | Use::Rating | Use::Class));
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
        p.numbers == p.present
            && p.distinct > 32
            && p.range.is_some_and(|(low, high)| low >= 3e8 && high < 4.2e18)
    };
    let called = |p: &Profile| {
        let name = plain(&p.name);
        let birth = ["birth", "dob"].iter().any(|word| name.contains(word));
        let ends = p.name.to_ascii_lowercase().ends_with("_at");
        !birth
            && (["ts", "when", "day", "epoch"].contains(&&name[..])
                || ends
                || ["time", "date", "stamp", "unix"].iter().any(|word| name.contains(word)))
    };
    let exact = |p: &Profile| {
        let name = plain(&p.name);
        ["time", "date", "timestamp", "datetime", "ts", "when"].contains(&&name[..])
    };
    let birth = |p: &Profile| plain(&p.name).contains("birth");
    type Fits<'a> = &'a dyn Fn(&Profile) -> bool;
    let rules: [(Fits<'_>, &str); 4] = [
        (&|p| exact(p), "called so, and moments"),
        (&|p| called(p) && (unix(p) || p.dates == p.present), "called so, and moments"),
        (&|p| p.dates == p.present && !birth(p), "dates"),
        (&|p| !named && unix(p), "seconds since 1970"),
    ];
    for (fits, reason) in rules {
        let is = |c: &&mut Column| {
            c.reason.is_empty() && c.profile.present > 0 && c.profile.is_time() && fits(&c.profile)
        };
        if let Some(column) = columns.iter_mut().find(is) {
            let missing = match column.profile.missing() {
                0 => String::new(),
                n => format!("; {n} rows lack it, and are left out"),
            };
            (column.role, column.reason) = (Use::Time, format!("{reason}{missing}"));
            return;
        }
    }
}

/// What a column is that is neither label, user, item nor time.
pub fn feature(profile: &Profile, typed: Option<&str>, named: bool, comma: bool) -> (Use, String) {
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
    if let Some(record) = &profile.record {
        let json = serde_json::from_str::<serde_json::Value>(record).is_ok();
        let reason = if json { "records of several values: take them apart first" } else { record };
        return say(Use::Out, reason.trim_matches(['{', '}']));
    }
    if profile.dates == profile.present && profile.dates > 0 {
        let missing = profile.missing();
        let reason = match 20 * missing > profile.rows {
            true => format!("dates, and {missing} rows have none"),
            false => "dates beside the time".into(),
        };
        return (Use::Out, reason);
    }
    let odd = [
        (
            profile.other_dates,
            "dates whose day and month are not told apart: write them as 2023-12-31",
        ),
        (profile.grouped + profile.numbers, "numbers such as 1,234.56: write them without commas"),
        (profile.infinite + profile.numbers, "some infinite numbers, which no model reads"),
    ];
    if let Some((_, reason)) = odd.iter().find(|(n, _)| *n > 0 && *n == profile.present) {
        return say(Use::Out, reason);
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
