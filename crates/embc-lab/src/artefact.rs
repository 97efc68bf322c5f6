//! A trained model as a folder, and back: what `embc train --out` writes predicts in another process,
//! on another machine, without the data.
//!
//! `model.json` has the format's version, the spec, the shape of the data, and the SHA-256 of each
//! other file and of itself: `weights.safetensors`, `counts.safetensors` (training rows of each id, by field) and
//! `vocab-FIELD.txt` (one JSON string a line in the order of ids, null for the unknown id) and
//! `sample.safetensors` (test rows, and what the model says of them). Beside
//! them lies `trial.json`, the record. `model.json` is written last: without it there is no model.

use crate::blueprint;
use crate::provenance::program;
use crate::record::{Program, Record};
use crate::sample::Sample;
use crate::spec::TrialSpec;
use crate::tensors::{self, Stored};
use anyhow::{Context, Result, bail};
use embc_core::batch::{Batch, Data, Examples, FieldShape, Items, Shape};
use embc_core::model::Mode;
use embc_core::net::Net;
use embc_core::scheme::Origin;
use embc_core::state::{HasState, Tensor, What, is_optimizer, restore};
use embc_data::registry::Entry;
use embc_data::rows::Reads;
use embc_data::view::View;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The version of this format.
const VERSION: u32 = 1;
const MODEL: &str = "model.json";
const WEIGHTS: &str = "weights.safetensors";
const COUNTS: &str = "counts.safetensors";
const TRIAL: &str = "trial.json";
const SAMPLE: &str = "sample.safetensors";

/// `model.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// What kind of file this is.
    format: String,
    v: u32,
    embc: Program,
    /// Versions of what computed it.
    versions: BTreeMap<String, u32>,
    spec: TrialSpec,
    /// Names of the dense features, and shift and scale of each where they are standardised.
    dense: Vec<String>,
    standard: Vec<(f64, f64)>,
    fields: Vec<Field>,
    classes: usize,
    train_rows: u64,
    items: Option<Items>,
    /// How the files were read that it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reads: Option<Reads>,
    /// SHA-256 of each file.
    files: BTreeMap<String, String>,
    /// SHA-256 of all of this, but for this.
    sha256: String,
}

impl Description {
    fn sum(&self) -> String {
        let mut value = serde_json::json!(self);
        value.as_object_mut().expect("a struct").remove("sha256");
        embc_data::hex(&Sha256::digest(value.to_string().as_bytes()))
    }
}

/// A categorical field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    name: String,
    /// Ids, and those that stand for one value: the unknown id follows them, where there is one.
    vocab: u32,
    known: u32,
    /// True where an example has any number of ids.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    several: bool,
}

fn vocab_file(field: &str) -> String {
    // A name is no path.
    format!("vocab-{}.txt", field.replace('/', "%2F").replace('\\', "%5C"))
}

/// Writes a trained net and all that it needs, each file whole or not at all.
pub fn save(
    folder: &Path,
    net: &mut Net,
    record: &Record,
    (entry, data_dir): (&Entry, &Path),
    data: &View,
) -> Result<()> {
    let (shape, spec) = (data.shape(), record.spec.clone().context("a record of a spec")?);
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{}: cannot be made", folder.display()))?;
    let description = folder.join(MODEL);
    if description.exists() {
        std::fs::remove_file(&description).with_context(|| description.display().to_string())?;
    }
    tensors::write(&folder.join(WEIGHTS), None, &mut |visit| {
        net.state(&mut |name, tensor| {
            if !is_optimizer(name) {
                visit(name, tensor.view());
            }
        });
    })?;
    // Fields of one name have one vocabulary: a history, an item, another item.
    let by_name: BTreeMap<&str, usize> =
        shape.fields.iter().enumerate().map(|(i, field)| (&field.name[..], i)).collect();
    let counts =
        by_name.iter().map(|(name, &i)| (*name, Tensor::from(shape.fields[i].counts.to_vec())));
    let counts: Vec<(&str, Tensor)> = counts.collect();
    tensors::write(&folder.join(COUNTS), None, &mut |visit| {
        counts.iter().for_each(|(name, counts)| visit(name, counts.view()));
    })?;
    write(folder, TRIAL, serde_json::to_string_pretty(record)?.as_bytes())?;
    let sample = Sample::take(net, data, spec.data.view.dense);
    sample.write(&folder.join(SAMPLE))?;
    let mut names = vec![WEIGHTS.to_string(), COUNTS.into(), SAMPLE.into()];
    for (name, field) in by_name {
        let mut text = String::new();
        for value in embc_data::dataset::vocabulary(entry, data_dir, data, field)? {
            text.push_str(&serde_json::to_string(&value)?);
            text.push('\n');
        }
        names.push(vocab_file(name));
        write(folder, names.last().expect("just put"), text.as_bytes())?;
    }
    let digest = |name: String| Ok((name.clone(), sha256(&folder.join(name))?));
    let fields = shape.fields.iter().enumerate();
    let field = |(i, f): (usize, &FieldShape)| {
        let (name, vocab) = (f.name.clone(), f.vocab);
        Field { name, vocab, known: data.known(i), several: data.several(i) }
    };
    let mut description = Description {
        format: "embc model".into(),
        v: VERSION,
        embc: program(),
        versions: spec.versions(),
        spec,
        dense: data.dense_names().into_iter().map(String::from).collect(),
        standard: data.standard().to_vec(),
        fields: fields.map(field).collect(),
        classes: shape.classes,
        train_rows: shape.train_rows,
        items: shape.items,
        reads: Some(Reads::new(entry)),
        files: names.into_iter().map(digest).collect::<Result<_>>()?,
        sha256: String::new(),
    };
    description.sha256 = description.sum();
    write(folder, MODEL, serde_json::to_string_pretty(&description)?.as_bytes())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    Ok(embc_data::atomic::write(&path, |file| {
        file.write_all(bytes).map_err(|error| embc_data::Error::io(&path, &error))
    })?)
}

fn sha256(path: &Path) -> Result<String> {
    let read = || -> std::io::Result<String> {
        let (mut file, mut sum, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 20]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(embc_data::hex(&sum.finalize())),
                n => sum.update(&buffer[..n]),
            }
        }
    };
    read().with_context(|| format!("{}: cannot be read", path.display()))
}

/// A trained model that was loaded.
pub struct Model {
    /// All that decided its numbers.
    pub spec: TrialSpec,
    /// The shape of what it reads.
    pub shape: Shape,
    folder: PathBuf,
    dense: Vec<String>,
    standard: Vec<(f64, f64)>,
    fields: Vec<Field>,
    reads: Option<Reads>,
    net: Net,
}

impl Model {
    /// Loads what [`save`] wrote. An error names the file, and what is wrong with it.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(MODEL);
        let text = std::fs::read_to_string(&path).with_context(|| {
            let inside = folder.join("model");
            let hint = match inside.join(MODEL).exists() {
                true => format!("{} is one", inside.display()),
                false => "`embc choose`, or `embc train --out`, writes one".into(),
            };
            format!("{}: no model here; {hint}", path.display())
        })?;
        let read = || -> Result<Self> {
            let it = describe(&text)?;
            for (name, sum) in &it.files {
                // Names are of files beside it, whatever it says.
                if Path::new(name).file_name().is_none_or(|only| only != &name[..]) {
                    bail!("{name:?} is no file of this folder");
                }
                if sha256(&folder.join(name))? != *sum {
                    bail!("{name} is damaged: its SHA-256 is not the one of when it was written");
                }
            }
            let shape = it.shape(&Stored::open(&folder.join(COUNTS))?)?;
            let net = net(&it.spec, &shape, &Stored::open(&folder.join(WEIGHTS))?)?;
            let Description { spec, dense, standard, fields, reads, .. } = it;
            Ok(Self { spec, shape, folder: folder.into(), dense, standard, fields, reads, net })
        };
        read().with_context(|| path.display().to_string())
    }

    /// The logits of a batch [B × outputs].
    pub fn score(&mut self, batch: &Batch) -> &[f32] {
        self.net.score(batch, Mode::Eval)
    }

    /// The net.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The record of its training.
    pub fn record(&self) -> Result<Record> {
        let path = self.folder.join(TRIAL);
        let read =
            || -> Result<Record> { Ok(serde_json::from_str(&std::fs::read_to_string(&path)?)?) };
        read().with_context(|| path.display().to_string())
    }

    /// Test rows, and what it said of them after training.
    pub fn sample(&self) -> Result<Sample> {
        let path = self.sample_path();
        if !path.exists() {
            bail!(
                "{}: a model of an embc that kept no test rows with it: train it again",
                path.display()
            );
        }
        Sample::read(&path, &self.shape)
    }

    /// Where these lie.
    pub fn sample_path(&self) -> PathBuf {
        self.folder.join(SAMPLE)
    }

    /// True where examples have any number of ids of a field.
    pub fn several(&self, field: usize) -> bool {
        self.fields[field].several
    }

    /// The name of a field.
    pub fn field_of(&self, field: usize) -> String {
        self.fields[field].name.clone()
    }

    /// Shift and scale of a dense feature, where they are standardised.
    pub fn standard(&self, feature: usize) -> Option<(f64, f64)> {
        self.standard.get(feature).copied()
    }

    /// How the files were read that it was trained on.
    pub fn reads(&self) -> Result<&Reads> {
        self.reads
            .as_ref()
            .context("a model of an embc that did not note how its files were read: train it again")
    }

    /// How it wants its examples.
    pub fn examples(&self) -> Result<Examples> {
        let kind = embc_core::model::find(&self.spec.model.kind).expect("checked");
        kind.examples(&self.spec.model.knobs).map_err(anyhow::Error::msg)
    }

    /// What the model sees of a dense feature's value.
    pub fn dense(&self, feature: usize, x: f64) -> f32 {
        self.spec.data.view.dense.of(x, self.standard.get(feature).copied())
    }

    /// Names of the dense features, in their order in a batch.
    pub fn dense_names(&self) -> &[String] {
        &self.dense
    }

    /// The value of each id of a field; none for the unknown id.
    pub fn values(&self, field: usize) -> Result<Vec<Option<String>>> {
        let Field { name, vocab, .. } = &self.fields[field];
        let path = self.folder.join(vocab_file(name));
        let read = || -> Result<Vec<Option<String>>> {
            let text = std::fs::read_to_string(&path)?;
            let values: Result<Vec<_>, _> = text.lines().map(serde_json::from_str).collect();
            let values = values?;
            match values.len() == *vocab as usize {
                true => Ok(values),
                false => bail!("it has {} values instead of {vocab}", values.len()),
            }
        };
        read().with_context(|| path.display().to_string())
    }

    /// The id of each value of a field. One that is not there has the unknown id, if there is one.
    pub fn ids(&self, field: usize) -> Result<Ids> {
        let Field { vocab, known, .. } = self.fields[field];
        let values = self.values(field)?.into_iter().enumerate();
        let ids = values.filter_map(|(id, value)| Some((value?, id as u32))).collect();
        Ok(Ids { ids, unknown: (known < vocab).then_some(known) })
    }
}

/// Ids of a field's values.
pub struct Ids {
    ids: HashMap<String, u32>,
    unknown: Option<u32>,
}

impl Ids {
    /// True for a value of training.
    pub fn knows(&self, value: &str) -> bool {
        self.ids.contains_key(value)
    }

    /// The id of a value.
    pub fn of(&self, value: &str) -> Option<u32> {
        self.ids.get(value).copied().or(self.unknown)
    }
}

/// Reads `model.json`, and refuses what this program would predict otherwise with.
fn describe(text: &str) -> Result<Description> {
    let value: serde_json::Value = serde_json::from_str(text).context("not a model")?;
    if value["format"] != "embc model" {
        bail!("not a model of embc");
    }
    if value["v"] != VERSION {
        bail!("a model of format version {}; this embc reads version {VERSION}", value["v"]);
    }
    let it: Description = serde_json::from_value(value)?;
    if it.sum() != it.sha256 {
        bail!("it was changed: its SHA-256 is not the one of when it was written");
    }
    crate::order::known(&it.spec)?;
    it.spec.check().map_err(anyhow::Error::msg)?;
    let ours = it.spec.versions();
    if let Some((part, version)) = it.versions.iter().find(|(part, v)| ours.get(*part) != Some(v)) {
        let here = ours.get(part).copied().unwrap_or_default();
        bail!(
            "made by version {version} of the {part}, and this embc has version {here}: it would compute other numbers"
        );
    }
    Ok(it)
}

impl Description {
    /// The shape of the data, with the counts of ids.
    fn shape(&self, counts: &Stored) -> Result<Shape> {
        let field = |Field { name, vocab, known, .. }: &Field| {
            let Some(Tensor::U32(of)) = counts.tensor(name).filter(|_| known <= vocab) else {
                bail!("{COUNTS} has no counts of {name}");
            };
            if of.len() != *vocab as usize {
                bail!("{COUNTS} has {} ids of {name} instead of {vocab}", of.len());
            }
            let (name, counts) = (name.clone(), of.into_iter().collect());
            Ok(FieldShape { name, vocab: *vocab, counts })
        };
        let fields: Vec<FieldShape> = self.fields.iter().map(field).collect::<Result<_>>()?;
        let inside = |i: Items| fields.get(i.field).is_some_and(|f| i.known <= f.vocab);
        if self.items.is_some_and(|items| !inside(items)) {
            bail!("its items are no field of it");
        }
        let (dense, classes) = (self.dense.len(), self.classes);
        Ok(Shape { dense, fields, classes, train_rows: self.train_rows, items: self.items })
    }
}

/// The net of a spec with saved weights.
fn net(spec: &TrialSpec, shape: &Shape, weights: &Stored) -> Result<Net> {
    let plan = blueprint::full(shape, spec).and_then(|full| blueprint::plan(shape, spec, full))?;
    let mut net =
        blueprint::build(shape, spec, &plan, Origin::Saved(weights)).map_err(anyhow::Error::msg)?;
    net.layer.quantize(spec.scheme.quantize);
    restore(&mut net, weights, What::Weights)
        .map_err(|what| anyhow::anyhow!("{WEIGHTS}: {what}"))?;
    let mut wanted = 0;
    net.state(&mut |name, _| wanted += usize::from(!is_optimizer(name)));
    if wanted != weights.names().len() {
        bail!("{WEIGHTS} has tensors that are no part of the model");
    }
    net.layer.prepare_unknown();
    Ok(net)
}
