//! Fields to tables: each unique id of a batch is looked up once, then pooled.
//!
//! Duplicates are summed here in batch order, before a scheme or an optimizer sees them. Tables are
//! independent, so they may run in parallel without changing a bit. With global sharing one table
//! serves all fields, ids offset by field.

use crate::batch::{Batch, Shape};
use crate::budget::{self, Budget, Rules};
use crate::cancel::Cancel;
use crate::census::{Census, census};
use crate::graph::{self, Graph};
use crate::hash::HashFamily;
use crate::init::Init;
use crate::linalg::{axpy, scale, vectorised};
use crate::model::{Input, Mode};
use crate::optim::Optim;
use crate::param::{IdSet, Param};
use crate::quantize::{self, Quantized, Storage};
use crate::rng::Rng;
use crate::scheme::{
    BuildCx, Clock, Embedding, Footprint, Knobs, Origin, Plan, PlanError, Precision, Scheme,
    TableSpec, Tape,
};
use crate::state::{State, Under, prefix};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

mod finish;
mod unknown;

pub use unknown::Unknown;
use unknown::UntrainedIds;

/// Below this many floats, threads cost more than they bring.
const PARALLEL_WORK: usize = 1 << 14;

/// Which fields share memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// A table for each field.
    #[default]
    PerField,
    /// One memory for all fields.
    Global,
}

/// How ids of a bag become one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The sum of the rows.
    Sum,
    /// The mean of the rows; an empty bag is zero.
    #[default]
    Mean,
}

/// The fields of a model and the tables they read, planned but not built.
pub struct LayerPlan {
    /// The tables.
    pub tables: Vec<TableSpec>,
    /// The plan of each table.
    pub plans: Vec<Plan>,
    /// Data field, table and id offset of each model input.
    inputs: Vec<(usize, usize, u32)>,
    /// The bytes that tables share, where they decide after training, and how values are stored.
    shared: Option<(u64, Storage)>,
}

/// What an experiment asks of the layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct LayerSpec {
    /// Width of the uncompressed embedding.
    pub dim: usize,
    /// A table per field, or one for all.
    pub sharing: Sharing,
    /// How a budget is divided.
    pub rules: Rules,
}

impl LayerPlan {
    /// Plans the tables of `inputs` within a budget.
    pub fn new(
        scheme: &dyn Scheme,
        knobs: &Knobs,
        shape: &Shape,
        inputs: &[Input],
        spec: LayerSpec,
        budget: Budget,
    ) -> Result<Self, PlanError> {
        let mut tables: Vec<TableSpec> = Vec::new();
        let mut placed: Vec<(usize, usize, u32)> = Vec::new();
        // The data fields of each table; two inputs on one table must read vocabularies of one size.
        let mut places: Vec<(usize, usize, u32)> = Vec::new();
        for input in inputs {
            let field = &shape.fields[input.field];
            let dim = input.width.unwrap_or(spec.dim);
            let known = places.iter().find(|(table, ..)| *table == input.table).copied();
            let (_, table, offset) = match known {
                Some(place) => place,
                None if spec.sharing == Sharing::Global && !tables.is_empty() => {
                    let memory = &mut tables[0];
                    let offset = memory.vocab;
                    memory.vocab = offset.checked_add(field.vocab).ok_or_else(|| {
                        PlanError::Infeasible("more than 2^32 ids in one memory".into())
                    })?;
                    memory.counts = memory.counts.iter().chain(&*field.counts).copied().collect();
                    (input.table, 0, offset)
                }
                None => {
                    let global = spec.sharing == Sharing::Global;
                    let name = if global { "memory".into() } else { field.name.clone() };
                    let counts = field.counts.clone();
                    tables.push(TableSpec { name, vocab: field.vocab, dim, counts });
                    (input.table, tables.len() - 1, 0)
                }
            };
            if known.is_none() {
                places.push((input.table, table, offset));
            }
            placed.push((input.field, table, offset));
        }
        let plans = budget::plan(scheme, &tables, budget, spec.rules, knobs)?;
        let shared = budget::shared(scheme, budget, spec.rules)?;
        let shared = shared.map(|bytes| (bytes, spec.rules.storage));
        Ok(Self { tables, plans, inputs: placed, shared })
    }

    /// The memory of all tables.
    pub fn footprint(&self) -> Footprint {
        budget::footprint(&self.plans)
    }

    /// Parameters of the uncompressed tables.
    pub fn full_params(&self) -> u64 {
        self.tables.iter().map(TableSpec::full_params).sum()
    }

    /// Width of each model input.
    pub fn widths(&self) -> Vec<usize> {
        self.inputs.iter().map(|&(_, table, _)| self.plans[table].out_dim).collect()
    }
}

struct Table {
    embedding: Box<dyn Embedding>,
    rng: Rng,
    width: usize,
    /// Width of the uncompressed embedding.
    dim: usize,
    /// Model inputs that read this table: index, data field, id offset.
    inputs: Vec<(usize, usize, u32)>,
    seen: IdSet,
    /// Position in `seen` of each id of each input.
    slots: Vec<Vec<u32>>,
    unknown: Vec<UntrainedIds>,
    /// Rows of unique ids [U × width], and their gradient.
    rows: Vec<f32>,
    grads: Vec<f32>,
    /// Pooled rows of each input [B × width], lent to the layer between passes.
    pooled: Vec<Vec<f32>>,
    tape: Tape,
    /// The sum of its rows' squared gradients, as far as [`Layer::measure`] saw.
    squares: f64,
}

/// The embedding layer of a trial.
pub struct Layer {
    tables: Vec<Table>,
    /// Pooled rows of each model input [B × width].
    rows: Vec<Vec<f32>>,
    rules: LayerRules,
    shared: Option<(u64, Storage)>,
}

/// What an experiment says of all tables alike.
#[derive(Clone, Copy, Debug, Default)]
pub struct LayerRules {
    /// How a table starts.
    pub init: Init,
    /// Which family maps an id to a row; by default the scheme's own.
    pub hash: Option<HashFamily>,
    /// How ids of a bag become one row.
    pub pooling: Pooling,
    /// What stands for an id without a training row.
    pub unknown: Unknown,
    /// Storage in which rows train, where they do not in fp32.
    pub low: Option<Storage>,
}

impl LayerRules {
    /// What a table takes in the end, where its rows train as codes.
    fn stored(self, of: Footprint, dim: usize) -> Footprint {
        let Some(storage) = self.low.filter(|_| dim > 1) else { return of };
        let of = of.stored(Precision { storage, group: dim });
        Footprint { train_bytes: of.bytes(), ..of }
    }
}

impl Layer {
    /// Builds all tables. `init/TABLE` streams of `seed` give the values; saved ones are still to be
    /// copied in.
    pub fn build(plan: &LayerPlan, rules: LayerRules, seed: u64, origin: Origin<'_>) -> Self {
        let build = |(index, plan_of): (usize, &Plan)| {
            let spec = &plan.tables[index];
            let rng = Rng::stream(seed, &format!("init/{}", spec.name));
            let users = plan.inputs.iter().enumerate().filter(|(_, place)| place.1 == index);
            let inputs: Vec<_> = users.map(|(i, &(field, _, offset))| (i, field, offset)).collect();
            let fields = fields_of(&inputs);
            let (init, hash, low) = (rules.init, rules.hash, rules.low);
            let (width, by_rule) =
                (plan_of.out_dim, matches!(rules.unknown, Unknown::Zero | Unknown::Mean));
            let starts = fields.iter().map(|&(_, offset)| offset);
            let ends = starts.clone().skip(1).chain([spec.vocab]);
            let untrained = |(start, end)| UntrainedIds::of(start..end, &spec.counts, width);
            let unknown = starts.zip(ends).filter(|_| by_rule).map(untrained);
            let unknown = unknown.filter(|ids| !ids.runs.is_empty()).collect();
            let (fields, cancel) = (&fields, Cancel::default());
            let saved = match origin {
                Origin::Saved(all) => Some(Under { prefix: format!("table{index}/"), all }),
                _ => None,
            };
            let origin = saved.as_ref().map_or(origin, |saved| Origin::Saved(saved));
            let mut cx = BuildCx {
                low,
                hash,
                fields,
                origin,
                cancel,
                init,
                table: index,
                ..BuildCx::new(rng)
            };
            Table {
                unknown,
                embedding: (plan_of.build)(&mut cx),
                rng: Rng::stream(seed, &format!("step/{}", spec.name)),
                width: plan_of.out_dim,
                dim: spec.dim,
                seen: IdSet::with_universe(spec.vocab as usize),
                slots: vec![Vec::new(); inputs.len()],
                pooled: vec![Vec::new(); inputs.len()],
                inputs,
                rows: Vec::new(),
                grads: Vec::new(),
                tape: Tape::default(),
                squares: 0.0,
            }
        };
        let tables = plan.plans.par_iter().enumerate().map(build).collect();
        let rows = vec![Vec::new(); plan.inputs.len()];
        Self { tables, rows, rules, shared: plan.shared }
    }

    fn each_table(&mut self, batch: usize, run: impl Fn(&mut Table) + Sync + Send) {
        let floats: usize = self.tables.iter().map(|t| t.inputs.len() * t.width * batch).sum();
        if floats < PARALLEL_WORK || self.tables.len() == 1 {
            self.tables.iter_mut().for_each(run);
        } else {
            self.tables.par_iter_mut().for_each(run);
        }
    }

    /// Looks up and pools the rows of a batch: for each model input, [B × width].
    /// In an evaluation, [`Layer::prepare_unknown`] comes before the first batch.
    pub fn forward(&mut self, batch: &Batch, mode: Mode) -> &[Vec<f32>] {
        for table in &mut self.tables {
            for (pooled, (i, ..)) in table.pooled.iter_mut().zip(&table.inputs) {
                std::mem::swap(pooled, &mut self.rows[*i]);
            }
        }
        let pooling = self.rules.pooling;
        self.each_table(batch.size, |table| table.forward(batch, mode, pooling));
        for table in &mut self.tables {
            for (pooled, (i, ..)) in table.pooled.iter_mut().zip(&table.inputs) {
                std::mem::swap(pooled, &mut self.rows[*i]);
            }
        }
        &self.rows
    }

    /// The rows of the last forward pass.
    pub fn rows(&self) -> &[Vec<f32>] {
        &self.rows
    }

    /// Adds the gradient of each input, `grads[i]` [B × width], to the parameters' gradients, as the
    /// first half of [`Layer::step`] does. `batch` is that of the last forward pass.
    pub fn backward(&mut self, batch: &Batch, grads: &[Vec<f32>]) {
        let pooling = self.rules.pooling;
        self.each_table(batch.size, |table| table.backward(batch, grads, pooling));
    }

    /// [`Layer::backward`], and one optimizer step on every parameter: threads meet once for both.
    pub fn step(&mut self, batch: &Batch, grads: &[Vec<f32>], optim: &Optim) {
        let pooling = self.rules.pooling;
        self.each_table(batch.size, |table| {
            table.backward(batch, grads, pooling);
            table.embedding.params(&mut |param| optim.step(param));
        });
    }

    /// Lets schemes act on their schedule, but for the first `done` tables. Where it breaks off,
    /// `done` have acted; to go on it is called with the same clock again.
    pub fn after_step(
        &mut self,
        clock: Clock,
        done: &mut usize,
        cancel: &Cancel,
    ) -> ControlFlow<()> {
        for table in self.tables.iter_mut().skip(*done) {
            table.embedding.after_step(clock, cancel, table.rng.fork(clock.step))?;
            *done += 1;
        }
        ControlFlow::Continue(())
    }

    /// Finds what stands for ids without a training row, from the tables as they are.
    pub fn prepare_unknown(&mut self) {
        if self.rules.unknown == Unknown::Mean {
            self.tables.par_iter_mut().for_each(|table| {
                let Table { embedding, unknown, tape, .. } = table;
                unknown.iter_mut().for_each(|ids| ids.mean_of_trained(&**embedding, tape));
            });
        }
    }

    /// Visits all parameters in a fixed order.
    pub fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.tables.iter_mut().for_each(|table| table.embedding.params(visit));
    }

    /// Walks the state of all tables, named by their index.
    pub fn state(&mut self, visit: State<'_>) {
        for (i, table) in self.tables.iter_mut().enumerate() {
            table.embedding.state(&mut prefix(&format!("table{i}"), visit));
        }
    }

    /// States the lookups of all inputs, in their order.
    pub fn graph<'a>(&'a self, g: &mut Graph<'a>, shape: &Shape) {
        let mut inputs: Vec<_> = (self.tables.iter().enumerate())
            .flat_map(|(t, table)| table.inputs.iter().map(move |&input| (input, t, table)))
            .collect();
        inputs.sort_by_key(|((input, ..), ..)| *input);
        let names = graph::names(shape, inputs.iter().map(|((_, field, _), ..)| *field));
        for (((_, field, offset), t, table), name) in inputs.into_iter().zip(&names) {
            let vocab = shape.fields[field].vocab;
            g.input(name, (t, offset, vocab), |g, ids| {
                let row = table.embedding.graph(g, ids);
                let of_field = |unknown: &&UntrainedIds| unknown.is_of(offset);
                let unknown = table.unknown.iter().find(of_field);
                unknown.map_or(row, |unknown| unknown.graph(g, ids, row))
            });
        }
    }

    /// The rows of ids of an input in an evaluation, `out` [ids × width].
    pub fn rows_of(&self, input: usize, ids: &[u32], out: &mut [f32]) {
        for table in &self.tables {
            let of = table.inputs.iter().find(|(i, ..)| *i == input);
            let Some((_, _, offset)) = of else { continue };
            let ids: Vec<u32> = ids.iter().map(|id| id + offset).collect();
            table.embedding.gather(&ids, out, &mut Tape::default());
            table.unknown.iter().for_each(|unknown| unknown.stand_in(&ids, out));
        }
    }

    /// Width of each input's rows.
    pub fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.rows.len()];
        for table in &self.tables {
            table.inputs.iter().for_each(|(input, ..)| widths[*input] = table.width);
        }
        widths
    }

    /// How ids of a bag become one row.
    pub fn pooling(&self) -> Pooling {
        self.rules.pooling
    }

    /// Who shares what in each table; `specs` are those of the plan.
    pub fn census(&mut self, specs: &[TableSpec]) -> Vec<Census> {
        let of = |(table, spec): (&mut Table, &TableSpec)| {
            census(&mut *table.embedding, spec.vocab, table.width, &spec.counts)
        };
        self.tables.iter_mut().zip(specs).map(of).collect()
    }

    /// The memory of all tables.
    pub fn footprint(&self) -> Footprint {
        let of = |table: &Table| self.rules.stored(table.embedding.footprint(), table.dim);
        let all = self.tables.iter().map(of);
        all.fold(Footprint::default(), Footprint::plus)
    }
}

impl Table {
    fn forward(&mut self, batch: &Batch, mode: Mode, pooling: Pooling) {
        self.seen.clear();
        for (slots, &(_, field, offset)) in self.slots.iter_mut().zip(&self.inputs) {
            let ids = &batch.fields[field].ids;
            self.seen.insert_all(ids.iter().map(|&id| id + offset), slots);
        }
        let width = self.width;
        self.rows.resize(self.seen.ids().len() * width, 0.0);
        self.embedding.gather(self.seen.ids(), &mut self.rows, &mut self.tape);
        if mode == Mode::Eval {
            // Training has no such ids.
            self.unknown.iter().for_each(|ids| ids.stand_in(self.seen.ids(), &mut self.rows));
        }
        for ((slots, pooled), &(_, field, _)) in
            self.slots.iter().zip(&mut self.pooled).zip(&self.inputs)
        {
            pooled.resize(batch.size * width, 0.0);
            let row = |slot: u32| &self.rows[slot as usize * width..][..width];
            let bag = &batch.fields[field];
            vectorised(
                #[inline(always)]
                || {
                    let mut before: &[u32] = &[];
                    for i in 0..batch.size {
                        let (done, out) = pooled.split_at_mut(i * width);
                        let (out, slots) = (&mut out[..width], &slots[bag.range(i)]);
                        match slots {
                            [slot] => scale(1.0, row(*slot), out),
                            // A history comes once for each candidate that it is ranked with.
                            _ if i > 0 && slots == before => {
                                out.copy_from_slice(&done[(i - 1) * width..]);
                            }
                            _ => {
                                out.fill(0.0);
                                let part = share(pooling, slots.len());
                                for &slot in slots {
                                    axpy(part, row(slot), out);
                                }
                            }
                        }
                        before = slots;
                    }
                },
            );
        }
    }

    fn backward(&mut self, batch: &Batch, grads: &[Vec<f32>], pooling: Pooling) {
        self.sum_grads(batch, grads, pooling);
        self.embedding.scatter(self.seen.ids(), &self.grads, &mut self.tape);
    }

    /// Sums the gradients of each unique id, in batch order.
    fn sum_grads(&mut self, batch: &Batch, grads: &[Vec<f32>], pooling: Pooling) {
        let width = self.width;
        self.grads.clear();
        self.grads.resize(self.seen.ids().len() * width, 0.0);
        for (slots, &(input, field, _)) in self.slots.iter().zip(&self.inputs) {
            let bag = &batch.fields[field];
            let sums = &mut self.grads[..];
            vectorised(
                #[inline(always)]
                || {
                    for (i, grad) in grads[input].chunks_exact(width).enumerate() {
                        let slots = &slots[bag.range(i)];
                        let part = share(pooling, slots.len());
                        for &slot in slots {
                            axpy(part, grad, &mut sums[slot as usize * width..][..width]);
                        }
                    }
                },
            );
        }
    }
}

/// The data fields of a table's inputs with their id offsets, each once.
fn fields_of(inputs: &[(usize, usize, u32)]) -> Vec<(usize, u32)> {
    let mut fields: Vec<_> = inputs.iter().map(|&(_, field, offset)| (field, offset)).collect();
    fields.sort();
    fields.dedup();
    fields
}

/// What each of so many ids counts in a pooled row.
fn share(pooling: Pooling, ids: usize) -> f32 {
    match pooling {
        Pooling::Sum => 1.0,
        Pooling::Mean => 1.0 / ids.max(1) as f32,
    }
}
