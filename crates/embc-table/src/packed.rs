//! A form as the packed file that apps map, and what that file says of ids.

use crate::form::Form;
use crate::table::Rows;
use anyhow::{Context, Result, bail};
use embc_core::graph::device::file::{self, Header};
use embc_core::graph::device::{Model, Reader};
use embc_core::graph::{Graph, HashAs};
use embc_core::layer::Pooling;
use embc_lab::export;
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// What the one input is called.
pub const INPUT: &str = "id";
/// Ids that one thread looks up at a time.
const IDS: usize = 1024;

/// A form that has stated itself.
pub struct Stated<'a> {
    /// All but where blobs lie.
    pub header: Header,
    graph: Graph<'a>,
}

impl<'a> Stated<'a> {
    /// States a form of `rows` rows.
    pub fn new(form: &'a dyn Form, rows: usize, about: String) -> Result<Self> {
        let mut graph = Graph::new(HashAs::Graph);
        graph.input(INPUT, (0, 0, rows as u32), |g, ids| form.graph(g, ids, ""));
        let header = graph.header(about, Pooling::Sum)?;
        Ok(Self { header, graph })
    }

    /// The bytes of all blobs.
    pub fn blobs(&self) -> Vec<&[u8]> {
        self.graph.blobs.iter().map(|(_, bytes)| &bytes[..]).collect()
    }

    /// Bytes of tensors: the table, without names and alignment.
    pub fn bytes(&self) -> u64 {
        self.graph.blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Writes the file, whole or not at all; returns its size.
    pub fn write(&self, path: &Path) -> Result<u64> {
        let mut header = self.header.clone();
        embc_data::atomic::write(path, |out| {
            file::write(&mut header, &self.blobs(), out)
                .map_err(|error| embc_data::Error::io(path, &error))
        })?;
        Ok(path.metadata().with_context(|| path.display().to_string())?.len())
    }
}

/// A packed table that is there.
#[derive(Clone)]
pub struct Packed {
    /// The file.
    pub model: Arc<Model>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub dim: usize,
}

impl Packed {
    /// Maps a file, every byte of which is checked.
    pub fn open(path: &Path) -> Result<Self> {
        let model = Model::open(path)?;
        model.verify().with_context(|| path.display().to_string())?;
        let inputs = &model.header().inputs;
        if inputs.len() != 1 || model.outputs() > 0 {
            bail!(
                "{}: a model of {} tables, not one table that embc compressed; `embc export --format npy` writes a trained model's",
                path.display(),
                inputs.len()
            );
        }
        let (rows, dim, model) = (inputs[0].vocab as usize, model.width(0), Arc::new(model));
        // What it computes fits into memory.
        Reader::new(model.clone()).with_context(|| path.display().to_string())?;
        Ok(Self { rows, dim, model })
    }

    /// The same table in a file with words for its rows.
    pub fn named(&self, words: &[String], path: &Path) -> Result<Self> {
        let (mut header, mut graph) = (self.model.header().clone(), Graph::new(HashAs::Graph));
        let blobs = self.model.blobs();
        graph.blobs = blobs.iter().map(|blob| (String::new(), (*blob).into())).collect();
        header.vocabularies.push(export::vocabulary(INPUT, words, &mut graph)?);
        header.inputs[0].vocabulary = Some(0);
        Stated { header, graph }.write(path)?;
        Self::open(path)
    }
}

impl Rows for Packed {
    fn look_up(&self, ids: &[u32], out: &mut [f32]) -> Result<()> {
        let chunks = ids.par_chunks(IDS).zip(out.par_chunks_mut(IDS * self.dim));
        chunks.try_for_each_init(
            || Reader::new(self.model.clone()),
            |reader, (ids, out)| match reader {
                Ok(reader) => Ok(reader.rows(0, ids, out)?),
                Err(error) => Err(error.clone().into()),
            },
        )
    }

    fn read(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let ids: Vec<u32> = (first..first + out.len() / self.dim).map(|id| id as u32).collect();
        self.look_up(&ids, out)
    }
}
