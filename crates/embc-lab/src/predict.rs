//! What a model says of rows that it has not seen: files as they are become batches, and these scores.

use crate::artefact::{Ids, Model};
use anyhow::{Result, bail};
use embc_core::batch::{Bag, Batch, Examples};
use embc_data::block::BlockColumn;
use embc_data::ingest::Watch;
use embc_data::raw::{self, Role};
use embc_data::rows::stream;
use std::path::{Path, PathBuf};

/// Rows that are scored at a time, as in an evaluation.
const BATCH: usize = 4096;

/// A model and what it calls things.
pub struct Predictor {
    model: Model,
    ids: Vec<Ids>,
    /// Values of each field that were looked up, and that the model does not know.
    lookups: Vec<(u64, u64)>,
    batch: Batch,
}

impl Predictor {
    /// Of a model of single rows; one of histories ranks items, and scores no row.
    pub fn new(model: Model) -> Result<Self> {
        if model.examples()? != Examples::Rows {
            bail!("this model ranks items by users' histories: `embc predict` scores rows");
        }
        let fields = model.shape.fields.len();
        let ids = (0..fields).map(|field| model.ids(field)).collect::<Result<_>>()?;
        let (lookups, batch) = (vec![(0, 0); fields], Batch::default());
        Ok(Self { model, ids, lookups, batch })
    }

    /// Scores the rows of files; `each` gets some rows' logits [rows × outputs], in order.
    pub fn files(
        &mut self,
        files: &[PathBuf],
        data_dir: &Path,
        memory: u64,
        watch: Watch<'_>,
        each: &mut (dyn FnMut(&[f32], usize) -> Result<()> + Send),
    ) -> Result<u64> {
        let names = self.model.shape.fields.iter().map(|field| &field.name);
        let names: Vec<String> = names.chain(self.model.dense_names()).cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let entry = self.model.reads()?.entry(files, &names)?;
        let fields = raw::fields(&entry)?;
        let find = |name: &str| {
            let found = fields.iter().position(|field| field.name == name);
            found.ok_or_else(|| anyhow::anyhow!("the files' {} have no {name}", entry.format))
        };
        let coded: Vec<usize> =
            self.model.shape.fields.iter().map(|f| find(&f.name)).collect::<Result<_>>()?;
        let dense: Vec<usize> =
            self.model.dense_names().iter().map(|name| find(name)).collect::<Result<_>>()?;
        let several: Vec<bool> =
            coded.iter().map(|&i| matches!(fields[i].role, Role::Multi(_))).collect();
        let mut failed = None;
        let mut take = |columns: &[BlockColumn], rows: usize| {
            for first in (0..rows).step_by(BATCH) {
                let part = first..rows.min(first + BATCH);
                self.fill(columns, part.clone(), (&coded, &several), &dense)?;
                let scores = self.model.score(&self.batch);
                if let Err(error) = each(scores, part.len()) {
                    failed = Some(error);
                    return Err(embc_data::Error::Cancelled);
                }
            }
            Ok(())
        };
        let read = stream(&entry, data_dir, memory, watch, &mut take);
        match failed {
            Some(error) => Err(error),
            None => Ok(read?),
        }
    }

    fn fill(
        &mut self,
        columns: &[BlockColumn],
        rows: std::ops::Range<usize>,
        (coded, several): (&[usize], &[bool]),
        dense: &[usize],
    ) -> embc_data::Result<()> {
        let Self { model, ids, lookups, batch } = self;
        batch.clear();
        batch.size = rows.len();
        batch.fields.resize(coded.len(), Bag::default());
        let most = model.spec.data.view.history.map_or(usize::MAX, |n| n as usize);
        for (f, bag) in batch.fields.iter_mut().enumerate() {
            let (column, unknown) = (&columns[coded[f]], &mut lookups[f]);
            let mut look_up = |value: &[u8]| {
                let value = std::str::from_utf8(value).unwrap_or_default();
                unknown.0 += 1;
                unknown.1 += u64::from(!ids[f].knows(value));
                ids[f].of(value).ok_or_else(|| {
                    let name = &model.shape.fields[f].name;
                    embc_data::Error::Data(format!(
                        "{name} is {value:?}, which the model does not know; it has no unknown id, since it was trained with vocab = \"all\""
                    ))
                })
            };
            if several[f] {
                bag.offsets.push(0);
                for row in column.bags(rows.clone()) {
                    for value in row.take(most) {
                        bag.ids.push(look_up(value)?);
                    }
                    bag.offsets.push(bag.ids.len() as u32);
                }
            } else {
                for row in rows.clone() {
                    bag.ids.push(look_up(column.of_row(row))?);
                }
            }
        }
        batch.dense.resize(rows.len() * dense.len(), 0.0);
        for (feature, &column) in dense.iter().enumerate() {
            for (i, row) in rows.clone().enumerate() {
                let number = columns[column].number_of(row);
                batch.dense[i * dense.len() + feature] = model.dense(feature, number);
            }
        }
        Ok(())
    }

    /// Each field's name, the values that were looked up, and how many the model does not know.
    pub fn unknown(&self) -> Vec<(String, u64, u64)> {
        let fields = self.model.shape.fields.iter().zip(&self.lookups);
        fields.map(|(field, &(all, unknown))| (field.name.clone(), all, unknown)).collect()
    }

    /// Logits of a row: 1, or one for each class.
    pub fn outputs(&self) -> usize {
        if self.model.shape.classes > 2 { self.model.shape.classes } else { 1 }
    }
}
