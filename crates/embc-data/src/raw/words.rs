//! Labels, times, missing values and lists as people write them.

use super::Time;

/// Words that mean that there is no value.
const MISSING: &[&str] = &["na", "n/a", "null", "\\n", "nan", "none", "(no genres listed)"];

/// True for a word that means that there is no value; the empty one does so everywhere.
pub fn is_missing(value: &[u8]) -> bool {
    value.is_empty()
        || value.len() <= 18
            && MISSING.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// The 12 of 12.0.
pub fn whole(value: &[u8]) -> Option<&[u8]> {
    value.strip_suffix(b".0").filter(|digits| {
        let digits = digits.strip_prefix(b"-").unwrap_or(digits);
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    })
}

/// 0 or 1, in digits or in words.
pub fn label(value: &[u8]) -> Option<f64> {
    let value = value.trim_ascii();
    let is = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    match value {
        b"0" => Some(0.0),
        b"1" => Some(1.0),
        _ if is(&["true", "yes", "t", "y"]) => Some(1.0),
        _ if is(&["false", "no", "f", "n"]) => Some(0.0),
        _ => {
            let number: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
            (number == 0.0 || number == 1.0).then_some(number)
        }
    }
}

/// An integer, a decimal number, or a date with or without a time, ISO 8601: seconds since 1970.
pub fn time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if let Ok(whole) = text.parse() {
        return Some((whole, 0));
    }
    date(text).or_else(|| {
        let (whole, fraction) = text.split_once('.')?;
        let negative = whole.starts_with('-');
        let (whole, part): (i64, u32) = (whole.parse().ok()?, billionths(fraction)?);
        // Below zero the fraction counts down from the next whole.
        match negative && part > 0 {
            true => Some((whole.checked_sub(1)?, 1_000_000_000 - part)),
            false => Some((whole, part)),
        }
    })
}

/// True for a date, whose unit is the second; numbers may count others.
pub fn is_date(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| date(text.trim()).is_some())
}

fn billionths(digits: &str) -> Option<u32> {
    let is_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    let padded = format!("{:0<9}", digits.get(..digits.len().min(9))?);
    if is_digits { padded.parse().ok() } else { None }
}

/// 2024-01-31, 2024/01/31, with 12:30, 12:30:59 or 12:30:59.5 after a space or T, and Z or +02:00.
fn date(text: &str) -> Option<Time> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let marks = [text.get(4..5)?, text.get(7..8)?];
    let days_of = [
        31,
        if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let most = *days_of.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if marks[0] != marks[1] || !matches!(marks[0], "-" | "/") || !(1..=most).contains(&day) {
        return None;
    }
    // Days since 1970, the year beginning in March (Hinnant).
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * m + 2) / 5 + day
        - 719_469;
    let mut rest = &text[10..];
    let mut seconds = days * 86_400;
    let mut part = 0;
    if let Some(clock) = rest.strip_prefix([' ', 'T', 't']) {
        let (hour, minute) = (number(11..13)?, number(14..16)?);
        if clock.get(2..3)? != ":" || hour > 23 || minute > 59 {
            return None;
        }
        seconds += hour * 3600 + minute * 60;
        rest = &text[16..];
        if rest.starts_with(':') {
            let second = number(17..19).filter(|second| *second <= 60)?;
            seconds += second;
            rest = &text[19..];
            if let Some(fraction) = rest.strip_prefix('.') {
                let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
                (part, rest) = (billionths(&fraction[..end])?, &fraction[end..]);
            }
        }
    }
    let zone = match rest.trim() {
        "" | "Z" | "z" | "UTC" => 0,
        zone => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let digits: String = zone[1..].chars().filter(|c| *c != ':').collect();
            let digits = if digits.len() == 2 { digits + "00" } else { digits };
            let (hours, minutes): (i64, i64) =
                (digits.get(..2)?.parse().ok()?, digits.get(2..4)?.parse().ok()?);
            if digits.len() != 4 {
                return None;
            }
            sign * (hours * 3600 + minutes * 60)
        }
    };
    Some((seconds - zone, part))
}

/// Writes a time as [`time`] reads it: 2024-01-31, with 12:30:59.5 where it has a clock.
pub fn write_date((seconds, part): Time, clock: bool, out: &mut Vec<u8>) {
    use std::io::Write;
    let (days, of_day) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    // The inverse of the above (Hinnant).
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let m = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let mut write = || {
        write!(out, "{year:04}-{month:02}-{day:02}")?;
        if clock {
            let (hour, minute) = (of_day / 3600, of_day / 60 % 60);
            write!(out, " {hour:02}:{minute:02}:{:02}", of_day % 60)?;
        }
        if part > 0 {
            write!(out, ".{}", format!("{part:09}").trim_end_matches('0'))?;
        }
        Ok::<(), std::io::Error>(())
    };
    write().expect("memory");
}

/// The values of a list as JSON or Python write it: `["a", 'b']`; none where it is no list of values.
pub fn list(value: &str) -> Option<Vec<String>> {
    if let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(value) {
        let text = |value| match value {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Null => Some(String::new()),
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => None,
            other => Some(other.to_string()),
        };
        return values.into_iter().map(text).collect();
    }
    let inner = value.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut values = Vec::new();
    let mut chars = inner.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(&first) = chars.peek() else { return Some(values) };
        let mut item = String::new();
        if matches!(first, '"' | '\'') {
            chars.next();
            loop {
                match chars.next()? {
                    '\\' => item.push(escaped(&mut chars)?),
                    c if c == first => break,
                    c => item.push(c),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                if matches!(c, '[' | ']' | '(' | '{') {
                    return None;
                }
                item.push(c);
            }
            item.truncate(item.trim_end().len());
        }
        values.push(item);
        match chars.next() {
            None => return Some(values),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// What stands after a backslash in Python's text.
fn escaped(chars: &mut impl Iterator<Item = char>) -> Option<char> {
    let digits = match chars.next()? {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        other => return Some(other),
    };
    let code: String = chars.take(digits).collect();
    char::from_u32(u32::from_str_radix(&code, 16).ok()?)
}

/// A value without its weight, whatever number that is.
pub fn unweighted(value: &str) -> &str {
    match value.rsplit_once(':') {
        Some((name, weight)) if !name.is_empty() && weight.parse::<f64>().is_ok() => name,
        _ => value,
    }
}

/// True for "Comedy:0.93": a value with a weight.
pub fn is_weighted(value: &str) -> bool {
    let weight = value.rsplit_once(':').filter(|(name, _)| !name.is_empty());
    weight.is_some_and(|(_, weight)| weight.contains('.') && weight.parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expect) in [
            ("17", Some((17, 0))),
            (" -3 ", Some((-3, 0))),
            ("1577836800.25", Some((1_577_836_800, 250_000_000))),
            ("-1.25", Some((-2, 750_000_000))),
            ("1970-01-02", Some((86_400, 0))),
            ("2000-02-29T00:00:01Z", Some((951_782_401, 0))),
            ("2020/01/01 00:00", Some((1_577_836_800, 0))),
            ("2020-01-01T02:00:00.5+02:00", Some((1_577_836_800, 500_000_000))),
            ("1969-12-31 23:59:59 UTC", Some((-1, 0))),
            ("9007199254740993", Some((9_007_199_254_740_993, 0))),
            ("2019-02-29", None),
            ("2019-13-01", None),
            ("31.12.2019", None),
            ("2019-01-01x", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(time(text.as_bytes()), expect, "{text:?}");
        }
    }

    #[test]
    fn labels_and_missing_words() {
        let labels =
            ["1", " 0", "TRUE", "no", "1.0", "2", "maybe", ""].map(|x| label(x.as_bytes()));
        assert_eq!(
            labels,
            [Some(1.0), Some(0.0), Some(1.0), Some(0.0), Some(1.0), None, None, None]
        );
        assert!(["", "NA", "null", "\\N", "NaN"].iter().all(|x| is_missing(x.as_bytes())));
        assert!(!["0", "-", "nana"].iter().any(|x| is_missing(x.as_bytes())));
    }

    #[test]
    fn lists() {
        let of = |text: &str| list(text).map(|values| values.join("|"));
        assert_eq!(of(r#"["a", "b \"c\""]"#).as_deref(), Some("a|b \"c\""));
        assert_eq!(of("['a','it''s']"), None, "Python writes no such thing");
        assert_eq!(of("[1, 2 ]").as_deref(), Some("1|2"));
        assert_eq!(of(" [] ").as_deref(), Some(""));
        assert_eq!(of(r#"["caf\u00e9", "a\nb", 1.50]"#).as_deref(), Some("café|a\nb|1.5"));
        assert_eq!(of(r"['caf\xe9', None]").as_deref(), Some("café|None"));
        assert_eq!((of("[[1,2],[3]]"), of("[a, [b]]")), (None, None), "no list of values");
        assert_eq!(of("a, b"), None);
        assert_eq!(of("['open]"), None);
        for text in ["x", "x:1", "x:1e-05", "x:0.5"] {
            assert_eq!(unweighted(text), "x");
        }
        assert!(is_weighted("Comedy:0.9") && !is_weighted("12:30") && !is_weighted(":0.5"));
    }
}
