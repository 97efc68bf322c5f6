//! A sample of the test rows that a model keeps with it, and what it says of them: what an export is
//! checked on, and what a device is measured with.

use crate::tensors::{self, Stored};
use anyhow::{Context, Result, bail};
use embc_core::batch::{Bag, Batch, Data, Protocol, Shape, Split};
use embc_core::model::Mode;
use embc_core::net::Net;
use embc_core::state::Tensor;
use embc_data::view::{Dense, View};
use std::ops::ControlFlow;
use std::path::Path;

/// Examples, at most, and logits.
const EXAMPLES: usize = 4096;
const LOGITS: usize = 1 << 20;

/// Test examples, evenly taken.
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

impl Sample {
    /// Takes a sample of the test split, and scores it.
    pub fn take(net: &mut Net, data: &View, dense: Dense) -> Self {
        let by_row = data.has(Split::Test, Protocol::Rows);
        let protocol = if by_row { Protocol::Rows } else { Protocol::Ranking };
        let most = EXAMPLES.min(LOGITS / net.model.outputs()).max(1);
        let mut all = 0usize;
        let each = |visit: &mut dyn FnMut(&Batch)| {
            data.eval(Split::Test, protocol, EXAMPLES, &mut |batch| {
                visit(batch);
                ControlFlow::Continue(())
            });
        };
        each(&mut |batch| all += batch.size);
        let (step, mut at) = (all.div_ceil(most).max(1), 0);
        let mut sample = Self::default();
        each(&mut |batch| {
            for i in (0..batch.size).filter(|i| (at + i).is_multiple_of(step)) {
                sample.add(batch, i, by_row, data);
            }
            at += batch.size;
        });
        let batch = sample
            .batch(data.shape(), |feature, x| dense.of(x, data.standard().get(feature).copied()));
        if sample.size > 0 {
            net.layer.prepare_unknown();
            sample.scores = net.score(&batch, Mode::Eval).to_vec();
        }
        sample
    }

    fn add(&mut self, batch: &Batch, i: usize, by_row: bool, data: &View) {
        self.fields.resize(batch.fields.len(), Bag::default());
        for (to, from) in self.fields.iter_mut().zip(&batch.fields) {
            to.ids.extend_from_slice(&from.ids[from.range(i)]);
            if !from.offsets.is_empty() {
                if to.offsets.is_empty() {
                    to.offsets.push(0);
                }
                to.offsets.push(to.ids.len() as u32);
            }
        }
        let row = |feature: usize| data.raw_dense(feature, batch.rows[i]);
        self.dense.extend((0..data.shape().dense).map(row));
        if by_row {
            self.labels.push(batch.labels[i]);
        }
        self.size += 1;
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
                [_] => false,
            };
            places && bag.ids.iter().all(|&id| id < field.vocab)
        };
        self.fields.len() == shape.fields.len()
            && self.dense.len() == self.size * shape.dense
            && self.fields.iter().zip(&shape.fields).all(bag)
            && (self.labels.is_empty() || self.labels.len() == self.size)
    }
}
