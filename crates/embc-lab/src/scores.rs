//! `--scores`: what a net says of the test rows, so that anyone can check a metric.
//!
//! Of rows `row,user,label,score`, of classes `row,label,class,score`, of rankings
//! `query,user,item,label,score`: a candidate a line. Rows count from 0 as the data has them; users
//! and items have the data's own names; scores are logits. An item that training does not know has
//! none. Where a trial is judged by rows and by rankings, those are in `FILE.ranking.csv`.

use anyhow::{Context, Result};
use embc_core::batch::{Batch, Data, Examples};
use embc_data::registry::Entry;
use embc_data::view::View;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Where scores go, and what users and items are called.
pub struct ScoresTo {
    path: PathBuf,
    users: Vec<String>,
    items: Vec<Option<String>>,
    /// Field of candidates, and how many items are known.
    ranked: (usize, u32),
    classes: usize,
    by_row: bool,
}

impl ScoresTo {
    /// Reads the names that a file at `path` will need.
    pub fn new(
        path: &Path,
        entry: &Entry,
        data_dir: &Path,
        view: &View,
        by: Examples,
    ) -> Result<Self> {
        let users =
            view.user_column().map(|column| embc_data::dataset::values(entry, data_dir, column));
        let items = view.shape().items;
        let of = |items: embc_core::batch::Items| {
            embc_data::dataset::vocabulary(entry, data_dir, view, items.field)
        };
        Ok(Self {
            path: path.into(),
            users: users.transpose()?.unwrap_or_default(),
            items: items.map(of).transpose()?.unwrap_or_default(),
            ranked: items.map_or((0, 0), |items| (items.field, items.known)),
            classes: view.shape().classes,
            by_row: by == Examples::Rows,
        })
    }

    /// A file of one trial; of several, each has its id in its file's name.
    pub fn open(&self, trial: Option<&str>) -> Scores<'_> {
        let path = trial.map_or(self.path.clone(), |trial| within(&self.path, trial));
        Scores { to: self, path, rows: None, ranking: None, query: 0, group: None, error: None }
    }
}

/// `scores.csv` as `scores.WORD.csv`.
fn within(path: &Path, word: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or("csv".into(), |e| e.to_string_lossy());
    path.with_file_name(format!("{stem}.{word}.{extension}"))
}

/// A file that takes its place in the end.
type Out = csv::Writer<NamedTempFile>;

/// Files of scores on their way.
pub struct Scores<'a> {
    to: &'a ScoresTo,
    path: PathBuf,
    rows: Option<Out>,
    ranking: Option<Out>,
    query: u64,
    group: Option<u32>,
    error: Option<csv::Error>,
}

fn begin(path: &Path, columns: &[&str]) -> csv::Result<Out> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut out = csv::Writer::from_writer(NamedTempFile::new_in(folder)?);
    out.write_record(columns)?;
    Ok(out)
}

impl Scores<'_> {
    /// Takes a batch of the test split, its scores [B] or [B × outputs].
    pub fn add(&mut self, batch: &Batch, scores: &[f32]) {
        if self.error.is_none() {
            let by_item = !self.to.by_row && batch.groups.is_empty();
            let added = match (by_item, batch.groups.is_empty()) {
                (true, _) => self.queries(batch, scores),
                (_, false) => self.candidates(batch, scores),
                _ => self.alone(batch, scores),
            };
            self.error = added.err();
        }
    }

    /// Rows by themselves.
    fn alone(&mut self, batch: &Batch, scores: &[f32]) -> csv::Result<()> {
        let outputs = scores.len() / batch.size.max(1);
        let by_class = self.to.classes > 2;
        if self.rows.is_none() {
            let columns: &[&str] = match by_class {
                true => &["row", "label", "class", "score"],
                false => &["row", "user", "label", "score"],
            };
            self.rows = Some(begin(&self.path, columns)?);
        }
        let out = self.rows.as_mut().expect("begun");
        for (i, scores) in scores.chunks_exact(outputs.max(1)).enumerate() {
            let (row, label) = (batch.rows[i].to_string(), batch.labels[i].to_string());
            if by_class {
                for (class, score) in scores.iter().enumerate() {
                    out.write_record([&row, &label, &class.to_string(), &score.to_string()])?;
                }
                continue;
            }
            let user = batch.users.get(i).map_or("", |&user| &self.to.users[user as usize]);
            out.write_record([&row, user, &label, &scores[0].to_string()])?;
        }
        Ok(())
    }

    /// One candidate an example.
    fn candidates(&mut self, batch: &Batch, scores: &[f32]) -> csv::Result<()> {
        let (field, known) = self.to.ranked;
        for (i, score) in scores.iter().enumerate() {
            if self.group != Some(batch.groups[i]) {
                self.query += u64::from(self.group.is_some());
                self.group = Some(batch.groups[i]);
            }
            let item = batch.fields[field].ids[i];
            let score = (item < known).then_some(*score);
            self.line(batch.users[i], item, batch.labels[i] > 0.5, score)?;
        }
        Ok(())
    }

    /// All items of each query, or its candidates.
    fn queries(&mut self, batch: &Batch, scores: &[f32]) -> csv::Result<()> {
        let outputs = scores.len() / batch.size.max(1);
        for (i, scores) in scores.chunks_exact(outputs.max(1)).enumerate() {
            self.query += u64::from(self.group.is_some());
            self.group = Some(0);
            let targets = &batch.targets.ids[batch.targets.range(i)];
            let known = &batch.seen.ids[batch.seen.range(i)];
            let unseen = |item: &u32| known.binary_search(item).is_err();
            let all: Vec<u32> = match batch.candidates.offsets.is_empty() {
                true => (0..outputs as u32).filter(unseen).collect(),
                false => batch.candidates.ids[batch.candidates.range(i)].to_vec(),
            };
            let user = batch.users[i];
            for item in all {
                self.line(user, item, targets.contains(&item), Some(scores[item as usize]))?;
            }
            for &item in targets.iter().filter(|&&item| item as usize >= outputs) {
                self.line(user, item, true, None)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, user: u32, item: u32, wanted: bool, score: Option<f32>) -> csv::Result<()> {
        if self.ranking.is_none() {
            let path = self.ranking_path();
            self.ranking = Some(begin(&path, &["query", "user", "item", "label", "score"])?);
        }
        let item = self.to.items.get(item as usize).and_then(Option::as_deref).unwrap_or("");
        let score = score.map_or(String::new(), |score| score.to_string());
        let (query, label) = (self.query.to_string(), if wanted { "1" } else { "0" });
        let user = &self.to.users[user as usize];
        self.ranking.as_mut().expect("begun").write_record([&query, user, item, label, &score])
    }

    fn ranking_path(&self) -> PathBuf {
        if self.to.by_row { within(&self.path, "ranking") } else { self.path.clone() }
    }

    /// Puts the files in their places.
    pub fn finish(self) -> Result<()> {
        let ranking = self.ranking_path();
        let place = || format!("{}: cannot be written", self.path.display());
        if let Some(error) = self.error {
            return Err(error).with_context(place);
        }
        for (out, path) in [(self.rows, &self.path), (self.ranking, &ranking)] {
            let Some(out) = out else { continue };
            let file = out.into_inner().map_err(|error| error.into_error()).with_context(place)?;
            file.as_file().sync_all().with_context(place)?;
            file.persist(path).map_err(|error| error.error).with_context(place)?;
        }
        Ok(())
    }
}
