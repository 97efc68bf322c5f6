//! Rows of files as they are, without a cache: for a model that exists already.

use crate::block::{Block, BlockColumn};
use crate::columns::Rows;
use crate::error::{Error, Result};
use crate::ingest::{self, Watch};
use crate::init::sniff_all;
use crate::raw::side::Attributes;
use crate::raw::{self, Field};
use crate::registry::{Columns, Entry, OWN, RawFile, Side};
use crate::vocab::Allowance;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

/// How the files of a data set were read: what a model must know to read others.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reads {
    /// The raw format.
    pub format: String,
    /// The columns of a table of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// Tables of attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub side: Vec<Side>,
}

impl Reads {
    /// How an entry is read.
    pub fn new(entry: &Entry) -> Self {
        let Entry { format, columns, side, .. } = entry.clone();
        Self { format, columns, side }
    }

    /// The entry of `files`, which hold the features of such names, and maybe more.
    pub fn entry(&self, files: &[PathBuf], features: &[&str]) -> Result<Entry> {
        self.entry_of(files, features, false)
    }

    /// The entry of `files` of events: features of such names, and what tells and sorts events as it
    /// did in training, a rating and a time.
    pub fn events(&self, files: &[PathBuf], features: &[&str]) -> Result<Entry> {
        self.entry_of(files, features, true)
    }

    fn entry_of(&self, files: &[PathBuf], features: &[&str], events: bool) -> Result<Entry> {
        let mut entry = Entry {
            title: "rows".into(),
            format: self.format.clone(),
            side: self.side.clone(),
            name: "rows".into(),
            ..Entry::default()
        };
        for (i, path) in files.iter().enumerate() {
            let path = std::path::absolute(path).map_err(|error| Error::io(path, &error))?;
            entry.files.insert(format!("part_{i}"), RawFile { path, bytes: None, sha256: None });
        }
        let Some(trained) = &self.columns else { return Ok(entry) };
        let mut columns = trained.clone();
        if OWN.contains(&&self.format[..]) {
            let kind = sniff_all(&files[0])?;
            let Columns { delimiter, header, quote, escape, encoding, .. } = kind.columns;
            columns = Columns { delimiter, header, quote, escape, encoding, ..columns };
            entry.format = kind.format.into();
        }
        // What is to be predicted, and what sorted or weighed rows of training, need not be there.
        let wanted = |name: &String| features.contains(&&name[..]);
        if !events {
            columns.label = raw::ALL_POSITIVE.into();
            (columns.rating, columns.classes, columns.positive) = (false, false, None);
            columns.time = None;
        }
        columns.weight = None;
        columns.dense.retain(wanted);
        columns.categorical.retain(|name| wanted(name) || self.side.iter().any(|s| s.of == *name));
        columns.multi.retain(|multi| wanted(&multi.name));
        entry.columns = Some(columns);
        Ok(entry)
    }
}

/// Streams all rows of an entry's files: `each` gets some thousand at a time, as columns in the order
/// of the fields that come back, on another thread. Returns how many rows there are.
pub fn stream(
    entry: &Entry,
    data_dir: &Path,
    memory: u64,
    watch: Watch<'_>,
    each: &mut (dyn FnMut(&[BlockColumn], usize) -> Result<()> + Send),
) -> Result<u64> {
    let format = raw::find(&entry.format)?;
    let own: Vec<Field> = format.fields(entry)?;
    let budget = Allowance::new(memory);
    let sides = entry.side.iter().enumerate();
    let sides = sides.map(|side| Ok(Attributes::read(side, entry, &own, data_dir, &budget)?.0));
    let sides = sides.collect::<Result<Vec<Attributes>>>()?;
    let (send, filled) = sync_channel::<Block>(1);
    let mut rows = Rows::new(&own, sides, send, budget.left());
    std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            for Block { mut columns } in filled {
                let files = columns.pop().expect("the files");
                each(&columns, files.numbers.len() / 2)?;
            }
            Ok::<(), Error>(())
        });
        let read = ingest::read_all(entry, format, data_dir, &mut rows, watch);
        let read = read.and_then(|_| rows.finish(&own));
        // Where taking failed, its error says why nothing more could be sent.
        taking.join().expect("its own errors")?;
        Ok(read?.rows)
    })
}
