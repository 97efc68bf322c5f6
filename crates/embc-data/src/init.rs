//! From a file to a data set: what kind it is, what its columns are for, its registry entry and its
//! cache. The files are read once: every column is encoded as text first, its vocabulary tells what
//! it holds, and the cache is made of that.

use crate::cache::{self, Cache, Meta};
use crate::columns::Rows;
use crate::dataset;
use crate::error::{At, Error, Result};
use crate::ingest::{self, Build, Progress, Watch};
use crate::raw::arrow::Arrays;
use crate::raw::cells::{Doubt, values_of};
use crate::raw::side::Attributes;
use crate::raw::{self, Field, Role};
use crate::registry::{Columns, Decimal, Entry, Multi, OnError, RawFile, Side, Weights};
use crate::split::SplitRule;
use crate::view::LabelRule;
use polars_arrow::array::BinaryViewArrayGeneric;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

mod profile;
mod roles;
mod sniff;
mod useless;

pub use profile::Profile;
pub use roles::{Column, Use};
use sniff::{Kind, sniff};

/// What is asked of a file.
pub struct Asked<'a> {
    /// The files: parts of one table in their order, and tables of attributes of users or items.
    pub files: &'a [PathBuf],
    /// The data set's name.
    pub name: String,
    /// The column of the label, where it is known.
    pub label: Option<&'a str>,
    /// Where caches lie, and bytes that may be taken.
    pub data_dir: &'a Path,
    #[allow(missing_docs)]
    pub memory: u64,
}

/// A data set as it was understood; its cache is there.
pub struct Draft {
    /// Its entry in a registry.
    pub entry: Entry,
    /// How its files are read, in words.
    pub kind: String,
    /// Its columns; none of libsvm and libffm, whose roles are given.
    pub columns: Vec<Column>,
    /// Tables beside the rows: file, key and columns, in words.
    pub beside: Vec<String>,
    /// How a rating becomes a label.
    pub rule: Option<LabelRule>,
    /// What the cache is.
    pub meta: Meta,
}

/// Reads files, finds out what they are, and builds their cache.
pub fn init(asked: &Asked<'_>, watch: Watch<'_>) -> Result<Draft> {
    let (mut parts, mut sides) = (Vec::new(), Vec::new());
    let mut main: Option<Kind> = None;
    for (i, file) in asked.files.iter().enumerate() {
        if asked.files[..i].contains(file) {
            return Err(Error::file(file, "is named twice"));
        }
        let kind = sniff_all(file)?;
        match &main {
            None => main = Some(kind),
            Some(first) if first.is_part(&kind) => {
                let known = first.names.clone();
                let first = main.as_mut().expect("matched");
                for name in kind.names.into_iter().filter(|name| !known.contains(name)) {
                    first.names.push(name);
                    first.types.push(None);
                }
            }
            Some(first) => {
                sides.push(beside(first, file, kind, asked, watch)?);
                continue;
            }
        }
        parts.push(file.clone());
    }
    let kind = main.ok_or_else(|| Error::Data("no file is named".into()))?;
    let file = |(i, path): (usize, &PathBuf)| {
        let name = if parts.len() == 1 { "data".into() } else { format!("part_{i}") };
        let path = std::path::absolute(path).at(path)?;
        Ok((name, RawFile { path, bytes: None, sha256: None }))
    };
    let files: BTreeMap<String, RawFile> =
        parts.iter().enumerate().map(file).collect::<Result<_>>()?;
    let mut draft = Entry {
        title: asked.name.clone(),
        format: kind.format.into(),
        files,
        columns: Some(kind.columns.clone()),
        name: asked.name.clone(),
        ..Entry::default()
    };
    if !kind.columns.multi.is_empty() {
        draft.split = Some(SplitRule::Tail { valid: 0.1, test: 0.1 });
        let (_, meta) = dataset::ingest(&draft, asked.data_dir, asked.memory, watch)?;
        let (kind, columns, beside) = (kind.reason, Vec::new(), Vec::new());
        return Ok(Draft { entry: draft, kind, columns, beside, rule: None, meta });
    }
    let folder = building(asked)?;
    let raw = Raw::read(draft.clone(), &kind, folder.path(), asked, watch)?;
    let (columns, comma) = raw.understand(&kind, asked.label, watch)?;
    draft.side = sides;
    let rule = describe(&mut draft, &columns, comma, &raw.folder)?;
    if draft.columns.as_ref().is_some_and(|c| c.categorical.is_empty() && c.multi.is_empty()) {
        return Err(Error::Data(
            "no column is an id, and embc compresses tables of ids: numbers are used as they are; if one of them is a code, give it a name that ends in id or code".into(),
        ));
    }
    let meta = raw.build(&draft, &kind, asked, watch)?;
    let side = |side: &Side| {
        let all = side.dense.iter().chain(&side.categorical);
        let all: Vec<&str> =
            all.map(|c| &c[..]).chain(side.multi.iter().map(|m| &m.name[..])).collect();
        format!("{}: {} for each {}", side.file.path.display(), all.join(", "), side.of)
    };
    let beside = draft.side.iter().map(side).collect();
    Ok(Draft { kind: kind.reason, beside, columns, rule, meta, entry: draft })
}

/// What kind of table a file is, or the parts in a folder or of a pattern: as the first of them.
pub(crate) fn sniff_all(path: &Path) -> Result<Kind> {
    if !path.exists() && !path.to_string_lossy().contains(['*', '?', '[']) {
        return Err(Error::file(path, "no such file or folder"));
    }
    let file = RawFile { path: path.into(), bytes: None, sha256: None };
    let parts = Entry::default().parts(&file, Path::new(""))?;
    let mut kind = sniff(&parts[0].1)?;
    let mut more = Vec::new();
    for (_, part) in &parts[1..] {
        let names = sniff(part)?.names.into_iter();
        more.extend(names.filter(|name| !kind.names.contains(name)));
    }
    more.sort();
    more.dedup();
    if kind.columns.header && !more.is_empty() {
        let more = more.join(", ");
        kind.reason += &format!("; left out, since the first part lacks them: {more}");
    }
    Ok(kind)
}

/// A file with other columns than the first: a table of attributes, if one of its columns is of both.
fn beside(
    main: &Kind,
    path: &Path,
    kind: Kind,
    asked: &Asked<'_>,
    watch: Watch<'_>,
) -> Result<Side> {
    let shared: Vec<&String> = kind.names.iter().filter(|name| main.names.contains(name)).collect();
    let named = main.columns.header && kind.columns.header;
    let [key] = shared[..] else {
        return Err(Error::file(
            path,
            format!(
                "has other columns than the first file ({}), and {} of them are in both: parts of one table have the same columns, and a table of attributes shares one, its key; where names do not say it, run `embc init` on the rows alone and add [[{}.side]]",
                kind.names.join(", "),
                shared.len(),
                asked.name
            ),
        ));
    };
    if !named {
        return Err(Error::file(
            path,
            "is a table of attributes without names of columns: run `embc init` on the rows alone and add a [[NAME.side]]",
        ));
    }
    let file = RawFile { path: std::path::absolute(path).at(path)?, bytes: None, sha256: None };
    let mut side = Side {
        of: key.clone(),
        key: None,
        file: file.clone(),
        format: kind.format.into(),
        delimiter: kind.columns.delimiter.clone(),
        header: kind.columns.header,
        quote: kind.columns.quote,
        encoding: kind.columns.encoding,
        dense: Vec::new(),
        categorical: Vec::new(),
        multi: Vec::new(),
    };
    let entry = Entry {
        format: kind.format.into(),
        files: [("data".into(), file)].into(),
        columns: Some(kind.columns.clone()),
        name: asked.name.clone(),
        ..Entry::default()
    };
    let folder = building(asked)?;
    let raw = Raw::read(entry, &kind, folder.path(), asked, watch)?;
    for (i, name) in kind.names.iter().enumerate().filter(|(_, name)| *name != key) {
        let profile = Profile::new(&raw.folder, i, name)?;
        match roles::feature(&profile, kind.types[i].as_deref(), true, false).0 {
            Use::Dense => side.dense.push(name.clone()),
            Use::Ids(separator) => {
                side.multi.push(several(&raw.folder, i, name, separator)?);
            }
            Use::Out => {}
            _ => side.categorical.push(name.clone()),
        }
    }
    Ok(side)
}

/// The `column`th, of several ids: what its values say of weights and padding.
fn several(folder: &Path, column: usize, name: &str, separator: char) -> Result<Multi> {
    let mut multi =
        Multi { name: name.into(), separator: separator.into(), weights: None, pad: None };
    let mut doubt = Doubt::new(&multi).expect("nothing is said yet");
    Cache::vocabulary(folder, column, &mut |text, _| {
        let values = values_of(text, &multi, separator);
        doubt.hear(values.iter().map(|value| value.as_bytes()));
    })?;
    multi.weights = doubt.is_weighted().then_some(Weights::Drop);
    multi.pad = doubt.padded().map(|_| "0".into());
    Ok(multi)
}

/// Every column of a table as text, encoded.
struct Raw {
    cache: Cache,
    folder: PathBuf,
}

impl Raw {
    fn read(
        mut entry: Entry,
        kind: &Kind,
        folder: &Path,
        asked: &Asked<'_>,
        watch: Watch<'_>,
    ) -> Result<Self> {
        let columns = entry.columns.get_or_insert_with(Columns::default);
        columns.label = raw::ALL_POSITIVE.into();
        columns.categorical = kind.names.clone();
        columns.as_written = true;
        ingest::build(&entry, asked.data_dir, folder, asked.memory, watch)?;
        let cache = Cache::open(folder, raw::fields(&entry)?)?;
        Ok(Self { cache, folder: folder.into() })
    }

    /// What each column is for, and whether numbers have commas.
    fn understand(
        &self,
        kind: &Kind,
        label: Option<&str>,
        watch: Watch<'_>,
    ) -> Result<(Vec<Column>, bool)> {
        let total = kind.names.len() as u64;
        let mut profiles = Vec::new();
        for (i, name) in kind.names.iter().enumerate() {
            watch(Progress { phase: "looking", done: i as u64, total })?;
            profiles.push(Profile::new(&self.folder, i, name)?);
        }
        let commas = |p: &Profile| p.is_number(true) && !p.is_number(false);
        let comma =
            kind.format == "csv" && kind.columns.delimiter != "," && profiles.iter().any(commas);
        Ok((roles::decide(kind, profiles, &self.cache, label, comma)?, comma))
    }

    /// The cache of `entry`, from the encoded text.
    fn build(
        &self,
        entry: &Entry,
        kind: &Kind,
        asked: &Asked<'_>,
        watch: Watch<'_>,
    ) -> Result<Meta> {
        let own = raw::find(&entry.format)?.fields(entry)?;
        let fields = raw::fields(entry)?;
        let place = |field: &Field| kind.names.iter().position(|name| *name == field.name);
        let places: Vec<usize> = own.iter().filter_map(place).collect();
        let layout = raw::layout(entry)?;
        let vocabularies = places.iter().map(|&place| cache::Vocabulary::open(&self.folder, place));
        let vocabularies = vocabularies.collect::<Result<Vec<_>>>()?;
        let data_dir = asked.data_dir;
        let folder = building(asked)?;
        // What is mapped takes memory, too.
        let mapped: u64 =
            self.cache.meta.files.iter().filter(|f| f.0.contains("vocab")).map(|f| f.1).sum();
        let memory = (asked.memory - mapped.min(asked.memory / 2)).max(ingest::LEAST);
        let build = Build { name: &entry.name, fields: &fields, folder: folder.path(), memory };
        let budget = build.budget()?;
        let (mut sides, mut sources) = (Vec::new(), self.cache.meta.sources.clone());
        for (i, side) in entry.side.iter().enumerate() {
            let (table, (_, source)) = Attributes::read((i, side), entry, &own, data_dir, &budget)?;
            sides.push(table);
            sources.push(source);
        }
        let path = entry.files.values().next().map(|file| file.path.clone()).unwrap_or_default();
        let mut arrays = Arrays::new(&layout, &path);
        let meta = build.run(&budget, 0, (&own, sides), watch, &mut |sink, watch| {
            let text = |i: usize, row: u64| {
                vocabularies[i].value(self.cache.coded[&places[i]].ids.id(row))
            };
            self.push(&text, &mut arrays, sink, watch)?;
            let named = sources.iter().map(|source| (path.clone(), source.clone()));
            Ok((named.collect(), BTreeMap::new()))
        })?;
        arrays.finish()?;
        let definition = ingest::definition(entry, &fields);
        let meta = build.finish(Meta { definition, ..meta })?;
        dataset::put(entry, data_dir, &folder.keep())?;
        Ok(meta)
    }
}

impl Raw {
    /// Hands on all rows, whose texts `text` gives by column and row.
    fn push<'t>(
        &self,
        text: &(dyn Fn(usize, u64) -> &'t str + Sync),
        arrays: &mut Arrays<'_>,
        sink: &mut Rows,
        watch: Watch<'_>,
    ) -> Result<()> {
        let (mut first, rows) = (0, self.cache.meta.rows);
        while first < rows {
            watch(Progress { phase: "building", done: first, total: rows })?;
            let file = self.cache.file.id(first);
            let most = rows.min(first + ROWS);
            // One file at a time.
            let end = (first..most).find(|&row| self.cache.file.id(row) != file).unwrap_or(most);
            sink.file = file as u16;
            let array = |i: usize| {
                let texts: Vec<&str> = (first..end).map(|row| text(i, row)).collect();
                Ok(BinaryViewArrayGeneric::<str>::from_slice_values(texts).boxed())
            };
            arrays.push((end - first) as usize, array, sink)?;
            first = end;
        }
        Ok(())
    }
}

/// A folder for a cache that is built; removed unless it is kept.
fn building(asked: &Asked<'_>) -> Result<tempfile::TempDir> {
    let parent = asked.data_dir.join("cache");
    std::fs::create_dir_all(&parent).at(&parent)?;
    tempfile::Builder::new()
        .prefix(&format!(".building-{}-", asked.name))
        .tempdir_in(&parent)
        .at(&parent)
}

/// Rows that are made into columns at a time.
const ROWS: u64 = 1 << 15;

/// Writes the roles into an entry; a rating becomes a label by the rule that comes back.
fn describe(
    entry: &mut Entry,
    columns: &[Column],
    comma: bool,
    folder: &Path,
) -> Result<Option<LabelRule>> {
    let of = |role: Use| columns.iter().find(|column| column.role == role);
    let names = |roles: &[Use]| {
        let wanted = columns.iter().filter(|column| roles.contains(&column.role));
        wanted.map(|column| column.profile.name.clone()).collect::<Vec<String>>()
    };
    let entry_columns = entry.columns.get_or_insert_with(Columns::default);
    let label = [Use::Label, Use::Texts, Use::Rating, Use::Class].into_iter().find_map(of);
    entry_columns.label =
        label.map_or(raw::ALL_POSITIVE.into(), |column| column.profile.name.clone());
    entry_columns.rating = label.is_some_and(|column| column.role == Use::Rating);
    entry_columns.classes = label.is_some_and(|column| column.role == Use::Class);
    for (key, role) in [(&mut entry_columns.user, Use::User), (&mut entry_columns.item, Use::Item)]
    {
        *key = of(role).map(|column| column.profile.name.clone());
    }
    entry_columns.weight = of(Use::Weight).map(|column| column.profile.name.clone());
    entry_columns.time = of(Use::Time).map(|column| column.profile.name.clone());
    entry_columns.dense = names(&[Use::Dense]);
    entry_columns.categorical = names(&[Use::User, Use::Item, Use::Id]);
    if comma {
        entry_columns.decimal = Decimal::Comma;
    }
    for (i, column) in columns.iter().enumerate() {
        if let Use::Ids(separator) = column.role {
            entry_columns.multi.push(several(folder, i, &column.profile.name, separator)?);
        }
    }
    // Rows without a label or a time cannot be used.
    let mut needed = [label, of(Use::Time)].into_iter().flatten();
    if needed.any(|column| column.reason.contains("left out")) {
        entry_columns.on_error = OnError::Skip;
    }
    if let Some(column) = label.filter(|column| column.role == Use::Texts) {
        let values = column.profile.values.iter().flatten();
        let rarer = values.min_by_key(|(value, n)| (**n, (*value).clone()));
        entry_columns.positive = rarer.map(|(value, _)| value.clone());
    }
    let pair = of(Use::User).is_some() && of(Use::Item).is_some();
    let timed = entry_columns.time.is_some();
    let of_users = pair && label.is_none_or(|label| label.role == Use::Rating);
    entry.split = Some(match (of_users, timed) {
        (true, true) => SplitRule::LastPerUser { valid: 1, test: 1 },
        (false, true) => SplitRule::Tail { valid: 0.1, test: 0.1 },
        (true, false) => SplitRule::RandomPerUser { valid: 0.1, test: 0.1, seed: Some(1) },
        _ => SplitRule::Random { valid: 0.1, test: 0.1, seed: Some(1) },
    });
    let rating = label.filter(|column| column.role == Use::Rating);
    Ok(rating.map(|rating| LabelRule {
        positive_min: roles::threshold(&rating.profile, comma),
        drop: Vec::new(),
    }))
}

/// What a column is for, in a word.
pub fn role_name(role: Use) -> &'static str {
    match role {
        Use::Label | Use::Texts => "label",
        Use::Rating => "rating",
        Use::Class => "class",
        Use::Weight => "weight",
        Use::Time => "time",
        Use::User => "user",
        Use::Item => "item",
        Use::Id => "id",
        Use::Ids(_) => "ids",
        Use::Dense => "number",
        Use::Out => "left out",
    }
}

impl Draft {
    /// The fields of the cache that a model looks up, with their distinct values.
    pub fn looked_up(&self) -> Result<Vec<(String, u32)>> {
        let fields = raw::fields(&self.entry)?;
        let all = fields.iter().zip(&self.meta.columns);
        let all = all.filter(|(field, _)| field.role.is_feature());
        Ok(all.map(|(field, meta)| (field.name.clone(), meta.distinct)).collect())
    }

    /// Checks that the text of a registry says just this.
    pub fn is_said_by(&self, text: &str) -> Result<()> {
        let fields = raw::fields(&self.entry)?;
        let read: BTreeMap<String, Entry> =
            toml::from_str(text).map_err(|error| Error::Data(error.to_string()))?;
        let said = read.get(&self.entry.name);
        let same = |entry: &Entry| {
            ingest::definition(entry, &fields) == ingest::definition(&self.entry, &fields)
        };
        match said.is_some_and(same) {
            true => Ok(()),
            false => Err(Error::Data(format!("its entry of {} is another", self.entry.name))),
        }
    }

    /// The column of this use, if there is one.
    pub fn column(&self, role: Use) -> Option<&Column> {
        self.columns.iter().find(|column| column.role == role)
    }

    /// True where there are numbers.
    pub fn has_numbers(&self) -> Result<bool> {
        Ok(raw::fields(&self.entry)?.iter().any(|field| field.role == Role::Dense))
    }
}
