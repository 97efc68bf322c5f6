//! A sample of the test rows that a model keeps with it, and what it says of them: what an export is
//! checked on, and what a device is measured with.

use crate::tensors::{self, Stored};
use anyhow::{Context, Result, bail};
use embc_core::batch::{Bag, Batch, Data, Protocol, Shape, Split};
use embc_core::hash::mix64;
use embc_core::model::Mode;
use embc_core::net::Net;
use embc_core::state::Tensor;
use embc_data::view::{Dense, View};
use std::ops::ControlFlow;
use std::path::Path;

/// Examples, at most, and logits.
const EXAMPLES: usize = 4096;
const LOGITS: usize = 1 << 20;

/// Test examples, drawn evenly.
#[derive(Debug, Default)]
pub struct Sample {
    /// How many.
    pub size: usize,
    /// The ids of each field.
    pub fields: Vec<Bag>,
    /// Dense features as the data has them [size × dense]; NaN where they are missing.
    pub dense: Vec<f64>,
    /// Labels [size]; empty for models that rank.
    pub labels: Vec<f32>,
    /// Logits [size × outputs].
    pub scores: Vec<f32>,
}

/// An example that may stay: by the least hashes of their places, whatever stands beside them.
struct Drawn {
    hash: u64,
    place: u64,
    fields: Vec<Vec<u32>>,
    dense: Vec<f64>,
    label: f32,
}

impl Sample {
    /// Draws a sample of the test split, and scores it.
    pub fn take(net: &mut Net, data: &View, dense: Dense) -> Self {
        let by_row = data.has(Split::Test, Protocol::Rows);
        let protocol = if by_row { Protocol::Rows } else { Protocol::Ranking };
        let most = EXAMPLES.min(LOGITS / net.model.outputs()).max(1);
        let (mut drawn, mut place): (Vec<Drawn>, u64) = (Vec::new(), 0);
        let mut bound = u64::MAX;
        data.eval(Split::Test, protocol, EXAMPLES, &mut |batch| {
            for i in 0..batch.size {
                let hash = mix64(place);
                if hash <= bound {
                    drawn.push(Drawn::of(batch, i, by_row, data, (hash, place)));
                }
                place += 1;
            }
            // Twice as many as wanted at the most.
            if drawn.len() >= 2 * most {
                drawn.select_nth_unstable_by_key(most, |one| one.hash);
                drawn.truncate(most);
                bound = drawn.iter().map(|one| one.hash).max().unwrap_or(bound);
            }
            ControlFlow::Continue(())
        });
        drawn.sort_unstable_by_key(|one| one.hash);
        drawn.truncate(most);
        drawn.sort_unstable_by_key(|one| one.place);
        let mut sample = Self::of(drawn, by_row, data);
        let batch = sample
            .batch(data.shape(), |feature, x| dense.of(x, data.standard().get(feature).copied()));
        if sample.size > 0 {
            net.layer.prepare_unknown();
            sample.scores = net.score(&batch, Mode::Eval).to_vec();
        }
        sample
    }

    /// Examples side by side.
    fn of(drawn: Vec<Drawn>, by_row: bool, data: &View) -> Self {
        let bag = |field| {
            let offsets = if data.several(field) { vec![0] } else { Vec::new() };
            Bag { ids: Vec::new(), offsets }
        };
        let fields = (0..data.shape().fields.len()).map(bag).collect();
        let mut sample = Self { size: drawn.len(), fields, ..Self::default() };
        for one in drawn {
            for (bag, ids) in sample.fields.iter_mut().zip(one.fields) {
                bag.ids.extend(ids);
                if !bag.offsets.is_empty() {
                    bag.offsets.push(bag.ids.len() as u32);
                }
            }
            sample.dense.extend(one.dense);
            if by_row {
                sample.labels.push(one.label);
            }
        }
        sample
    }

    /// All of it as a batch; `transform` is what the model sees of a dense feature's value.
    pub fn batch(&self, shape: &Shape, transform: impl Fn(usize, f64) -> f32) -> Batch {
        let dense = self.dense.iter().enumerate();
        Batch {
            size: self.size,
            fields: self.fields.clone(),
            dense: dense.map(|(i, &x)| transform(i % shape.dense, x)).collect(),
            ..Batch::default()
        }
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bits: Vec<u64> = self.dense.iter().map(|x| x.to_bits()).collect();
        let mut all = vec![
            ("size".to_string(), Tensor::from(vec![self.size as u64])),
            ("dense".into(), bits.into()),
            ("labels".into(), self.labels.clone().into()),
            ("scores".into(), self.scores.clone().into()),
        ];
        for (i, Bag { ids, offsets }) in self.fields.iter().enumerate() {
            all.push((format!("ids{i}"), ids.clone().into()));
            all.push((format!("offsets{i}"), offsets.clone().into()));
        }
        tensors::write(path, None, &mut |visit| {
            all.iter().for_each(|(name, tensor)| visit(name, tensor.view()));
        })
    }

    /// Reads what [`Sample::write`] wrote, for a model of such a shape.
    pub fn read(path: &Path, shape: &Shape) -> Result<Self> {
        let sample = Self::open(path)?;
        let fits = || sample.fits(shape).then_some(()).context("it is of another model");
        fits().with_context(|| path.display().to_string())?;
        Ok(sample)
    }

    /// Reads it without a look at the model.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let stored = Stored::open(path)?;
            let tensor = |name: &str| stored.tensor(name).with_context(|| format!("no {name}"));
            let u32s = |name: &str| match tensor(name)? {
                Tensor::U32(x) => Ok(x.into_iter().collect()),
                _ => bail!("{name} is of another type"),
            };
            let u64s = |name: &str| -> Result<Vec<u64>> {
                match tensor(name)? {
                    Tensor::U64(x) => Ok(x.into_iter().collect()),
                    _ => bail!("{name} is of another type"),
                }
            };
            let f32s = |name: &str| match tensor(name)? {
                Tensor::F32(x) => Ok(x.into_iter().collect()),
                _ => bail!("{name} is of another type"),
            };
            let bag = |i: usize| -> Result<Bag> {
                Ok(Bag { ids: u32s(&format!("ids{i}"))?, offsets: u32s(&format!("offsets{i}"))? })
            };
            let fields = stored.names().iter().filter(|name| name.starts_with("ids")).count();
            Ok(Self {
                size: *u64s("size")?.first().context("no size")? as usize,
                fields: (0..fields).map(bag).collect::<Result<_>>()?,
                dense: u64s("dense")?.into_iter().map(f64::from_bits).collect(),
                labels: f32s("labels")?,
                scores: f32s("scores")?,
            })
        };
        read().with_context(|| path.display().to_string())
    }

    fn fits(&self, shape: &Shape) -> bool {
        let bag = |(bag, field): (&Bag, &embc_core::batch::FieldShape)| {
            let places = match bag.offsets[..] {
                [] => bag.ids.len() == self.size,
                [first, .., last] => {
                    first == 0
                        && last as usize == bag.ids.len()
                        && bag.offsets.len() == self.size + 1
                        && bag.offsets.is_sorted()
                }
                [first] => first == 0 && self.size == 0 && bag.ids.is_empty(),
            };
            places && bag.ids.iter().all(|&id| id < field.vocab)
        };
        self.fields.len() == shape.fields.len()
            && self.dense.len() == self.size * shape.dense
            && self.fields.iter().zip(&shape.fields).all(bag)
            && (self.labels.is_empty() || self.labels.len() == self.size)
    }
}

impl Drawn {
    fn of(batch: &Batch, i: usize, by_row: bool, data: &View, (hash, place): (u64, u64)) -> Self {
        let fields = batch.fields.iter().map(|bag| bag.ids[bag.range(i)].to_vec()).collect();
        let dense = (0..data.shape().dense).map(|f| data.raw_dense(f, batch.rows[i])).collect();
        let label = if by_row { batch.labels[i] } else { 0.0 };
        Self { hash, place, fields, dense, label }
    }
}
