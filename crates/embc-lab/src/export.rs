//! A trained model for elsewhere: the registry of formats, what they are given, and a check of what
//! they wrote.

use crate::artefact::Model;
use crate::record::Record;
use anyhow::{Context, Result, bail};
use embc_core::graph::device::file::{Feature, Header, Vocabulary};
use embc_core::graph::{Graph, HashAs};
use embc_core::layer::Pooling;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

pub mod arrays;
pub mod drawing;
pub mod onnx;
pub mod packed;

/// All formats. A new one is a file and a line here.
pub static FORMATS: &[&dyn Format] =
    &[&onnx::Onnx, &packed::Packed, &arrays::Safetensors, &arrays::Npy, &drawing::Svg];

/// What a model is exported to.
pub trait Format: Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What is written, and for whom.
    fn doc(&self) -> &'static str;
    /// Writes files into a folder that is there.
    fn write(&self, stated: &Stated<'_>, folder: &Path) -> Result<Exported>;
}

/// The format called `name`.
pub fn find(name: &str) -> Option<&'static dyn Format> {
    FORMATS.iter().copied().find(|format| format.name() == name)
}

/// What is exported of a model.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The embeddings alone, not what reads them.
    pub embedding: bool,
    /// How a hash becomes a row.
    pub hash_as: HashAs,
    /// Values to ids in the file, where the format holds them.
    pub vocabulary: bool,
}

/// What a model states of itself.
pub struct Stated<'a> {
    /// All but where blobs lie.
    pub header: Header,
    /// Its tensors, and vocabularies.
    pub graph: Graph<'a>,
    /// The model.
    pub model: &'a Model,
}

/// What a format wrote.
pub struct Exported {
    /// Names of the files.
    pub files: Vec<String>,
    /// What its programs come to on test rows; none where there are rows, and no programs.
    pub checked: Option<Checked>,
}

/// What running an export's programs came to.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    /// Test rows.
    pub rows: usize,
    /// The largest difference of a value, over 1 + its size.
    pub worst: f64,
}

/// What an export may differ by, of 1 + a value's size. Sums in another order come to 10⁻⁶ where values
/// are of the size of 1, and to more where large ones cancel: what was really checked is said.
pub const BOUND: f64 = 1e-3;

impl Stated<'_> {
    /// The bytes of all blobs.
    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        self.graph.blobs.iter().map(|(_, bytes)| &bytes[..])
    }
}

impl<'a> Stated<'a> {
    /// States a model.
    pub fn new(model: &'a Model, asked: Asked) -> Result<Self> {
        let mut graph = model.net().graph(&model.shape, asked.hash_as, !asked.embedding);
        for (i, input) in graph.inputs.iter_mut().enumerate() {
            input.several = model.several(i);
        }
        let about = {
            let spec = &model.spec;
            format!("{} on {}, trial {}", spec.scheme.kind, spec.model.kind, spec.id())
        };
        let pooling: Pooling = model.net().layer.pooling();
        let mut header = graph.header(about, pooling)?;
        header.transform = model.spec.data.view.dense.transform();
        if !asked.embedding {
            header.features = features(model);
        }
        if asked.vocabulary {
            vocabularies(model, &mut header, &mut graph)?;
        }
        Ok(Self { header, graph, model })
    }

    /// What each part takes, and what its record promised: of the tables, of the model; then what
    /// neither has.
    pub fn parts(&self, record: &Record) -> Vec<Part> {
        let (mut tables, mut model) = (0, 0);
        let mut more: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, bytes) in &self.graph.blobs {
            let bytes = bytes.len() as u64;
            let of = ["/of ", "/stand-in", "/signs", ".statistics/", "vocabulary/"];
            let what = [
                "what ids come to, listed",
                "rows of unknown ids",
                "signs",
                "statistics of batch norm",
                "vocabularies",
            ];
            match of.iter().position(|of| name.contains(of)) {
                Some(i) => *more.entry(what[i]).or_default() += bytes,
                None if name.starts_with("model/") => model += bytes,
                None => tables += bytes,
            }
        }
        let part = |what: &str, bytes, promised| Part { what: what.into(), bytes, promised };
        let mut parts = vec![part("tables", tables, Some(record.param_bytes + record.index_bytes))];
        if model > 0 {
            parts.push(part("model", model, Some(4 * record.model_params)));
        }
        parts.extend(more.into_iter().map(|(what, bytes)| part(what, bytes, None)));
        parts
    }
}

/// The bytes of a part of an export.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which.
    pub what: String,
    /// Its bytes.
    pub bytes: u64,
    /// What the trial's record says.
    pub promised: Option<u64>,
}

/// The dense features of a model.
fn features(model: &Model) -> Vec<Feature> {
    let names = model.dense_names().iter().enumerate();
    let feature = |(i, name): (usize, &String)| {
        let (shift, scale) = model.standard(i).unwrap_or((0.0, 1.0));
        Feature { name: name.clone(), shift, scale }
    };
    names.map(feature).collect()
}

/// Puts the vocabulary of each field beside the tensors, once for those that share one.
fn vocabularies(model: &Model, header: &mut Header, graph: &mut Graph<'_>) -> Result<()> {
    let mut fields: BTreeMap<String, u32> = BTreeMap::new();
    for (i, input) in header.inputs.iter_mut().enumerate() {
        let name = model.field_of(i);
        if !fields.contains_key(&name) {
            let values = model.values(i)?;
            // The unknown id comes last, and is no value.
            let known: Vec<String> = values.iter().flatten().cloned().collect();
            let unknown = values.iter().position(Option::is_none);
            if unknown.is_some_and(|at| at != known.len()) {
                bail!("{name}: the unknown id is not the last one");
            }
            let words = Vocabulary {
                unknown: unknown.map(|at| at as u32),
                ..vocabulary(&name, &known, graph)?
            };
            header.vocabularies.push(words);
            fields.insert(name.clone(), header.vocabularies.len() as u32 - 1);
        }
        input.vocabulary = fields.get(&name).copied();
    }
    Ok(())
}

/// Puts values, in the order of their ids, beside the tensors.
pub fn vocabulary(name: &str, words: &[String], graph: &mut Graph<'_>) -> Result<Vocabulary> {
    let mut starts = vec![0u32];
    let mut text = Vec::new();
    for word in words {
        text.extend_from_slice(word.as_bytes());
        let end = u32::try_from(text.len());
        starts.push(end.with_context(|| format!("{name}: a vocabulary of more than 4 GiB"))?);
    }
    let mut sorted: Vec<u32> = (0..words.len() as u32).collect();
    sorted.sort_unstable_by_key(|&id| words[id as usize].as_bytes());
    let bytes = |x: &[u32]| x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let mut blob = |what: &str, bytes: Vec<u8>| {
        graph.blobs.push((format!("vocabulary/{name}/{what}"), Cow::Owned(bytes)));
        graph.blobs.len() as u32 - 1
    };
    Ok(Vocabulary {
        values: words.len() as u32,
        unknown: None,
        text: blob("text", text),
        starts: blob("starts", bytes(&starts)),
        sorted: blob("sorted", bytes(&sorted)),
    })
}
