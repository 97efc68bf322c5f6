//! What kind of table a file is, by what it holds: format, delimiter, quoting, header, names.

use crate::error::{At, Error, Result};
use crate::input::Input;
use crate::raw::delimited::header_of;
use crate::raw::{ipc, parquet, records::Records, words};
use crate::registry::{Columns, Encoding, Multi, Quote, Weights};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a file's beginning that show its dialect; all of it shows what its columns mean.
const HEAD: u64 = 1 << 20;

/// How a file is read, and what its columns are called.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The registry's `format`.
    pub format: &'static str,
    /// Its dialect; of libsvm and libffm all of its columns.
    pub columns: Columns,
    /// The columns, as `columns` may name them.
    pub names: Vec<String>,
    /// What RecBole's header says of each.
    pub types: Vec<Option<String>>,
    /// Why it is read so, in a few words.
    pub reason: String,
}

impl Kind {
    fn new(format: &'static str, names: Vec<String>, reason: &str) -> Self {
        let types = vec![None; names.len()];
        Self { format, columns: Columns::default(), names, types, reason: reason.into() }
    }
}

impl Kind {
    /// True for a file of the same table: of the same columns, in whatever order where they have
    /// names; JSON objects may lack some.
    pub fn is_part(&self, other: &Kind) -> bool {
        let sorted = |kind: &Kind| {
            let mut names = kind.names.clone();
            names.sort();
            names
        };
        let shared = self.names.iter().filter(|name| other.names.contains(name)).count();
        self.format == other.format
            && (sorted(self) == sorted(other) || self.format == "jsonl" && shared > 1)
    }
}

/// Looks at a file.
pub fn sniff(path: &Path) -> Result<Kind> {
    let mut file = File::open(path).at(path)?;
    let mut begin = Vec::new();
    file.by_ref().take(8).read_to_end(&mut begin).at(path)?;
    if begin.is_empty() {
        return Err(Error::file(path, "the file is empty; get it again"));
    }
    let named = |fields: Vec<polars_arrow::datatypes::Field>| {
        fields.iter().map(|field| field.name.to_string()).collect()
    };
    if begin.starts_with(b"PAR1") {
        let mut names: Vec<String> = named(parquet::Schema::read(path, &mut file)?.columns);
        names.extend(parquet::partitions(path).into_iter().map(|(name, _)| name));
        return Ok(Kind::new("parquet", names, "Parquet"));
    }
    if begin.starts_with(b"ARROW1") {
        let names = named(ipc::schema(path, &mut file)?.1);
        return Ok(Kind::new("arrow", names, "an Arrow file"));
    }
    let mut head = Vec::new();
    let text = Input::new(path, File::open(path).at(path)?).text()?;
    text.take(HEAD).read_to_end(&mut head).at(path)?;
    let whole = (head.len() as u64) < HEAD;
    if !whole {
        let end = head.iter().rposition(|&byte| byte == b'\n').map_or(head.len(), |end| end + 1);
        head.truncate(end);
    }
    let lines: Vec<&[u8]> = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).collect();
    let lines: Vec<&[u8]> = lines.into_iter().filter(|line| !line.is_empty()).collect();
    match lines.first() {
        None => Err(Error::file(path, "holds no line of text")),
        Some(line) if line.starts_with(b"{") => json_lines(path, &lines),
        Some(line) if line.starts_with(b"[{") || **line == *b"[" => {
            Err(Error::file(path, "is one JSON array: write an object a line (jq -c '.[]')"))
        }
        _ => match features(&lines) {
            Some(kind) => Ok(kind),
            None => table(path, &head, whole),
        },
    }
}

/// A JSON object a line: all keys of its beginning.
fn json_lines(path: &Path, lines: &[&[u8]]) -> Result<Kind> {
    let (mut names, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, line) in lines.iter().enumerate() {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)
            .map_err(|e| Error::line(path, i as u64 + 1, format!("not a JSON object: {e}")))?;
        names.extend(object.keys().filter(|key| seen.insert((*key).clone())).cloned());
    }
    Ok(Kind::new("jsonl", names, "a JSON object a line"))
}

/// libsvm or libffm, where all lines are a label and such features.
fn features(lines: &[&[u8]]) -> Option<Kind> {
    let (mut fields, mut values, mut pieces_of_all) = (BTreeSet::new(), false, None);
    for line in lines {
        let mut parts = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        parts.next()?.parse::<f64>().ok()?;
        for part in parts {
            let pieces: Vec<&str> = part.split(':').collect();
            let value: f64 = pieces.last()?.parse().ok()?;
            values |= value != 1.0;
            if !(2..=3).contains(&pieces.len())
                || *pieces_of_all.get_or_insert(pieces.len()) != pieces.len()
            {
                return None;
            }
            pieces[..pieces.len() - 1].iter().try_for_each(|p| p.parse::<u64>().ok().map(drop))?;
            if pieces.len() == 3 {
                fields.insert(pieces[0].parse::<u64>().ok()?);
            }
        }
    }
    let (format, reason, names): (_, _, Vec<String>) = match pieces_of_all? {
        3 => (
            "libffm",
            "a label, then field:index:value",
            fields.iter().map(u64::to_string).collect(),
        ),
        _ => ("libsvm", "a label, then index:value", vec!["features".into()]),
    };
    let mut kind = Kind::new(format, names, reason);
    kind.columns.label = "label".into();
    let multi = |name: &String| Multi {
        name: name.clone(),
        separator: " ".into(),
        weights: values.then_some(Weights::Drop),
        pad: None,
    };
    kind.columns.multi = kind.names.iter().map(multi).collect();
    if values {
        kind.reason += "; values other than 1 are left out, as weights = \"drop\" says";
    }
    Some(kind)
}

/// A table of text.
fn table(path: &Path, head: &[u8], whole: bool) -> Result<Kind> {
    let mut columns = Columns::default();
    let mut reason = String::new();
    let latin = std::str::from_utf8(head).is_err();
    let head = match latin {
        false => head.to_vec(),
        true => {
            columns.encoding = Encoding::Latin1;
            reason += "in Latin-1, since it is not UTF-8; ";
            head.iter().flat_map(|&byte| char::from(byte).to_string().into_bytes()).collect()
        }
    };
    let (delimiter, records) = delimiter(&head).map_err(|wrong| match wrong {
        Some((line, what)) => Error::line(path, line, what),
        None => Error::file(path, "is no table that embc knows: its lines have no two columns each, by tab, comma, semicolon, bar or ::"),
    })?;
    columns.delimiter = delimiter.into();
    reason += &format!("columns by {}", name_of(delimiter));
    let first = records[0].clone();
    let typed: Vec<Option<(&str, &str)>> = first.iter().map(|name| name.split_once(':')).collect();
    let is_typed = typed.iter().all(|name| {
        name.is_some_and(|(_, kind)| ["token", "token_seq", "float", "float_seq"].contains(&kind))
    });
    columns.header = is_typed || is_header(&records);
    if is_typed || delimiter == "::" {
        columns.quote = Quote::None;
    } else if let Some(dialect) = quoting(path, &head, delimiter.as_bytes()[0], whole) {
        (columns.quote, columns.escape) = dialect;
    }
    if columns.header && !is_typed {
        for (i, name) in first.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if let Some(j) = first[..i].iter().position(|other| other == name) {
                let what =
                    format!("columns {} and {} are both called {name}: rename one", j + 1, i + 1);
                return Err(Error::line(path, 1, what));
            }
        }
    }
    let names: Vec<String> = match (columns.header, is_typed) {
        (true, true) => typed.iter().flatten().map(|(name, _)| name.to_string()).collect(),
        (true, false) => header_of(&csv::StringRecord::from(first.clone()).into_byte_record()),
        _ => (0..first.len()).map(|i| i.to_string()).collect(),
    };
    reason += if columns.header { ", with a header" } else { ", without a header" };
    let types = typed.iter().map(|name| name.filter(|_| is_typed).map(|(_, kind)| kind.into()));
    let types = types.collect();
    Ok(Kind { format: "csv", columns, names, types, reason })
}

fn name_of(delimiter: &str) -> &str {
    match delimiter {
        "\t" => "tab",
        "," => "comma",
        ";" => "semicolon",
        "|" => "bar",
        other => other,
    }
}

/// What is wrong with a line, where one is to blame.
type NoTable = Option<(u64, String)>;

/// The delimiter that divides all lines into as many columns, the most; with the first records.
fn delimiter(head: &[u8]) -> std::result::Result<(&'static str, Vec<Vec<String>>), NoTable> {
    let parse = |delimiter: &'static str| {
        let text = String::from_utf8_lossy(head);
        let text = if delimiter == "::" { text.replace("::", "\x1F") } else { text.into_owned() };
        let byte = if delimiter == "::" { 0x1F } else { delimiter.as_bytes()[0] };
        let reader = csv::ReaderBuilder::new()
            .delimiter(byte)
            .has_headers(false)
            .flexible(true)
            .quoting(delimiter != "::")
            .from_reader(text.as_bytes());
        let records = reader.into_records().take(1000).map_while(std::result::Result::ok);
        let records: Vec<csv::StringRecord> = records.collect();
        let width = records.first()?.len();
        let other = records.iter().find(|record| record.len() != width);
        let other = other.map(|record| {
            let line = record.position().map_or(1, csv::Position::line);
            let name = name_of(delimiter);
            (line, format!("{} columns by {name}, and the first line has {width}", record.len()))
        });
        let alike = records.iter().filter(|record| record.len() == width).count();
        let row =
            |record: &csv::StringRecord| record.iter().map(|cell| cell.trim().into()).collect();
        let share = 100 * alike / records.len();
        let cells: Vec<Vec<String>> = records.iter().map(row).collect();
        let wide = records.iter().any(|record| record.len() > 1);
        wide.then_some(((width > 1, share, width), delimiter, cells, other))
    };
    let found = ["\t", "::", ";", "|", ","].into_iter().filter_map(parse);
    // Of several that divide alike, the one that people use least inside of values.
    let best = found.reduce(|best, other| if other.0 > best.0 { other } else { best });
    match best {
        Some(((true, 90.., _), delimiter, cells, _)) => Ok((delimiter, cells)),
        Some((_, _, _, other)) => Err(other),
        None => Err(None),
    }
}

/// True for what is a value and no name: a number or a date.
fn is_value(cell: &str) -> bool {
    cell.parse::<f64>().is_ok() || words::time(cell.as_bytes()).is_some()
}

/// True where the first record names columns: it has a text over a column of values; or no cell of
/// it is a value, and none occurs again below.
fn is_header(records: &[Vec<String>]) -> bool {
    let first = &records[0];
    let below = |i: usize| records[1..].iter().filter_map(move |record| record.get(i));
    let over_values = |i: usize| {
        let cells = below(i).filter(|cell| !words::is_missing(cell.as_bytes()));
        let (all, values) = cells
            .fold((0, 0), |(all, values), cell| (all + 1, values + usize::from(is_value(cell))));
        all > 0 && 10 * values >= 9 * all
    };
    let is_text = |cell: &String| !is_value(cell) && !words::is_missing(cell.as_bytes());
    let named = (0..first.len()).any(|i| is_text(&first[i]) && over_values(i));
    let again = |i: usize| below(i).any(|cell| *cell == first[i]);
    let distinct: BTreeSet<&String> = first.iter().collect();
    let plain = !first.iter().any(|cell| cell.is_empty() || is_value(cell));
    named || plain && distinct.len() == first.len() && !(0..first.len()).any(again)
}

/// How fields are quoted, where it is not by double quotes alone.
fn quoting(path: &Path, head: &[u8], delimiter: u8, whole: bool) -> Option<(Quote, Option<char>)> {
    let reads = |escape: Option<u8>| {
        let mut all = Vec::new();
        match Records::new(head, path, delimiter, Some(escape)).read_to_end(&mut all) {
            Ok(_) => true,
            // The end of a part of a file may be inside quotes.
            Err(error) => !whole && error.to_string().contains("never ends"),
        }
    };
    match (reads(None), head.contains(&b'\\') && reads(Some(b'\\'))) {
        (true, _) => None,
        (false, true) => Some((Quote::Double, Some('\\'))),
        (false, false) => Some((Quote::None, None)),
    }
}
