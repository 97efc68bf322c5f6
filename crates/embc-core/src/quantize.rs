//! Post-training quantisation: the values of any embedding at 16, 8, 4 or 2 bits.
//!
//! Values are taken in groups of `dim` (of several `dim`s where it is below 16), one parameter after
//! the other: groups are the rows of a table, and runs of narrower parameters. A group keeps its
//! least value and its step, each a bfloat16 rounded outwards: every value lies in the range, and is
//! off by at most half a step; with [`Fit::LeastSquares`] a range may leave out the outermost
//! values. fp16 keeps no range. Where a parameter ends inside a group, the next
//! one shares that group's range.

use crate::graph::Graph;
use crate::hash::mix64;
use crate::packed::Packed;
use crate::param::Param;
use crate::scheme::{Embedding, Footprint, Precision, Tape};
use crate::state::{State, TensorMut, is_optimizer};
use embc_device::program::Node;
use embc_device::tensor::Stored;
use half::f16;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod range;

use range::Range;

/// How values are stored after training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// As they are trained.
    #[default]
    Fp32,
    /// IEEE half precision.
    Fp16,
    /// 256 levels a group.
    Int8,
    /// 16 levels a group.
    Int4,
    /// 4 levels a group.
    Int2,
}

impl Storage {
    /// As configs write it.
    pub fn name(self) -> &'static str {
        match self {
            Storage::Fp32 => "fp32",
            Storage::Fp16 => "fp16",
            Storage::Int8 => "int8",
            Storage::Int4 => "int4",
            Storage::Int2 => "int2",
        }
    }

    /// Bits of a value, its share of the group's range left out.
    pub fn bits(self) -> u32 {
        match self {
            Storage::Fp32 => 32,
            Storage::Fp16 => 16,
            Storage::Int8 => 8,
            Storage::Int4 => 4,
            Storage::Int2 => 2,
        }
    }

    /// Bytes of `values` values in groups of `group`: codes in whole 64-bit words, and the groups'
    /// ranges.
    pub fn bytes(self, values: u64, group: usize) -> u64 {
        let codes = Packed::bytes(values, 1 << self.bits());
        match self {
            Storage::Fp32 => 4 * values,
            Storage::Fp16 => codes,
            _ => codes + 4 * values.div_ceil(group as u64),
        }
    }

    /// The highest code.
    fn levels(self) -> f32 {
        ((1u64 << self.bits()) - 1) as f32
    }

    /// What the bytes of two parts exceed those of their sum by, at most: a word of codes, a range.
    pub(crate) fn rounding(self) -> u64 {
        match self {
            Storage::Fp32 => 0,
            Storage::Fp16 => 8,
            _ => 12,
        }
    }
}

/// Values that share a range where embeddings are `dim` wide: at least 16, so that the range's four
/// bytes stay below what narrower values save.
pub fn group(dim: usize) -> usize {
    dim * 16usize.div_ceil(dim.max(1))
}

/// How the range of a group is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All values lie in it.
    Whole,
    /// It may be narrower, where that makes the sum of squared errors less.
    LeastSquares,
}

/// A list of values as codes, and a range a group but for fp16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes {
    storage: Storage,
    group: usize,
    len: u64,
    codes: Packed,
    ranges: Vec<u32>,
}

impl Codes {
    /// Room for `len` values in groups of `group`. `storage` is not fp32.
    pub fn zeros(storage: Storage, len: u64, group: usize) -> Self {
        assert!(storage != Storage::Fp32 && group > 0, "something to quantise");
        let ranges = if storage == Storage::Fp16 { 0 } else { len.div_ceil(group as u64) as usize };
        let codes = Packed::zeros(len, 1 << storage.bits());
        Self { storage, group, len, codes, ranges: vec![0; ranges] }
    }

    /// Encodes values from the `first`th on, with which a group begins.
    pub fn write(&mut self, first: usize, values: &[f32], fit: Fit) {
        let Self { storage, group, codes, ranges, .. } = self;
        for (first, values) in (first..).step_by(*group).zip(values.chunks(*group)) {
            if *storage == Storage::Fp16 {
                let half = |x: &f32| u32::from(f16::from_f32(*x).to_bits());
                (first..).zip(values).for_each(|(at, x)| codes.set(at, half(x)));
                continue;
            }
            let levels = storage.levels();
            let range = match fit {
                Fit::Whole => Range::of(values, levels),
                Fit::LeastSquares => Range::best(values, levels),
            };
            ranges[first / *group] = range.pack();
            (first..).zip(values).for_each(|(at, &x)| codes.set(at, range.encode(x, levels)));
        }
    }

    /// What the codes of `len` values from `first` on stand for; they lie in one group.
    pub fn read(&self, first: usize, len: usize) -> impl Iterator<Item = f32> {
        let range = Range::unpack(self.ranges[first / self.group]);
        (first..first + len).map(move |at| range.decode(self.codes.get(at)))
    }

    /// Encodes the values of a group, each rounded up or down by chance, so that it is right in the
    /// mean however small a step it made (Gupta et al., ICML 2015). The group's range stays while it
    /// holds them and they fill half of it; else it is theirs, and a quarter wider.
    pub fn write_by_chance(&mut self, first: usize, values: &[f32], seed: u64) {
        let levels = self.storage.levels();
        let known = &mut self.ranges[first / self.group];
        let mut range = Range::unpack(*known);
        if !range.suits(values, levels) {
            range = Range::around(values, levels);
            *known = range.pack();
        }
        for (i, &x) in values.iter().enumerate() {
            let chance = mix64(seed ^ i as u64) >> 40;
            let chance = chance as f32 / (1u64 << 24) as f32;
            let at = if range.step > 0.0 { (x - range.least) / range.step } else { 0.0 };
            self.codes.set(first + i, (at + chance).floor().clamp(0.0, levels) as u32);
        }
    }

    /// Encodes all values, in ranges that begin at `least` with such a step, both exact in bfloat16.
    pub fn write_as(&mut self, values: &[f32], least: f32, step: f32) {
        let (range, levels) = (Range { least, step }, self.storage.levels());
        self.ranges.fill(range.pack());
        (0..).zip(values).for_each(|(at, &x)| self.codes.set(at, range.encode(x, levels)));
    }

    /// What the code at `at` stands for.
    pub fn get(&self, at: usize) -> f32 {
        match self.storage {
            Storage::Fp16 => f16::from_bits(self.codes.get(at) as u16).to_f32(),
            _ => Range::unpack(self.ranges[at / self.group]).decode(self.codes.get(at)),
        }
    }

    /// True where all values are numbers.
    pub fn is_finite(&self) -> bool {
        let finite = |range: Range| range.step.is_finite() && range.least.is_finite();
        self.ranges.iter().all(|&range| finite(Range::unpack(range)))
    }

    /// Bytes of codes and ranges.
    pub fn bytes(&self) -> u64 {
        8 * self.codes.words().len() as u64 + 4 * self.ranges.len() as u64
    }

    /// Walks codes and ranges of the parameter `name`.
    pub fn state(&mut self, name: &str, visit: State<'_>) {
        visit(&format!("{name}/codes"), self.codes.tensor());
        visit(&format!("{name}/ranges"), TensorMut::u32(&mut self.ranges));
    }

    /// Number of values.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The codes, packed.
    pub fn words(&self) -> &[u64] {
        self.codes.words()
    }

    /// A range a group; none for fp16.
    pub fn ranges(&self) -> &[u32] {
        &self.ranges
    }

    /// How they are to be read.
    pub fn stored(&self) -> Stored {
        match self.storage {
            Storage::Fp32 => unreachable!("something is quantised"),
            Storage::Fp16 => Stored::Half,
            other => Stored::Levels { bits: other.bits() as u8, group: self.group as u32 },
        }
    }
}

/// The squares that rows of `dim` values lose when they are stored so, of each row.
pub fn lost(rows: &[f32], dim: usize, stored: Precision) -> Vec<f64> {
    let Precision { storage, group } = stored;
    if storage == Storage::Fp32 {
        return vec![0.0; rows.len() / dim];
    }
    let mut codes = Codes::zeros(storage, rows.len() as u64, group);
    codes.write(0, rows, Fit::Whole);
    let square = |(at, x): (usize, &f32)| f64::from(codes.get(at) - x).powi(2);
    let row = |(id, row): (usize, &[f32])| (id * dim..).zip(row).map(square).sum();
    rows.chunks_exact(dim).enumerate().map(row).collect()
}

/// An embedding whose values are codes; the decoded values that it reads are kept beside them.
pub struct Quantized {
    inner: Box<dyn Embedding>,
    /// Those of all parameters, one after the other in the order of `params`.
    codes: Codes,
    /// Each parameter's name, first value and number of values: the codes stand for it in saved
    /// weights.
    places: Vec<(String, [u64; 2])>,
}

impl Quantized {
    /// Quantises the parameters of `inner` in groups of `group` values. `storage` is not fp32.
    pub fn new(mut inner: Box<dyn Embedding>, storage: Storage, group: usize) -> Self {
        let (mut values, mut places) = (Vec::new(), Vec::new());
        inner.params(&mut |param| {
            places
                .push((param.name().into(), [values.len(), param.value().len()].map(|n| n as u64)));
            values.extend_from_slice(param.value());
        });
        let mut codes = Codes::zeros(storage, values.len() as u64, group);
        codes.write(0, &values, Fit::Whole);
        let mut quantized = Self { inner, codes, places };
        quantized.decode();
        quantized
    }

    /// Writes the values that the codes stand for into the parameters.
    fn decode(&mut self) {
        let Self { inner, codes, .. } = self;
        let mut at = 0;
        inner.params(&mut |param| {
            for value in param.value_mut() {
                *value = codes.get(at);
                at += 1;
            }
        });
    }
}

/// The codes of a table, and where each of its parameters begins in them.
#[derive(Clone, Copy)]
pub(crate) struct Coded<'a> {
    pub codes: &'a Codes,
    places: &'a [(String, [u64; 2])],
}

impl Coded<'_> {
    /// The place of the first code of a parameter.
    pub fn first(&self, param: &str) -> u64 {
        let place = self.places.iter().find(|(name, _)| name == param);
        place.expect("every parameter is coded").1[0]
    }
}

impl Embedding for Quantized {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let Self { codes, places, .. } = self;
        g.coded(Coded { codes, places }, |g| self.inner.graph(g, ids))
    }
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        self.inner.gather(ids, out, tape);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        self.inner.scatter(ids, grad, tape);
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.inner.params(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        let places = &mut self.places;
        self.inner.state(&mut |name, tensor| match places.iter_mut().find(|p| p.0 == name) {
            Some((_, place)) => visit(&format!("{name}/quantized"), TensorMut::u64(place)),
            None if is_optimizer(name) => {}
            None => visit(name, tensor),
        });
        visit("quantized_values", self.codes.codes.tensor());
        if !self.codes.ranges.is_empty() {
            visit("quantized_ranges", TensorMut::u32(&mut self.codes.ranges));
        }
        // The visitor may have restored other codes.
        self.decode();
    }
    fn footprint(&self) -> Footprint {
        self.inner
            .footprint()
            .stored(Precision { storage: self.codes.storage, group: self.codes.group })
    }
    fn sizes(&self) -> Option<String> {
        self.inner.sizes()
    }
    fn figures(&self) -> Vec<(&'static str, f64)> {
        self.inner.figures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::scheme::{BuildCx, Knobs, Limit, TableSpec, find};

    /// Rows of a table before and after.
    fn rows(storage: Storage, values: &[f32]) -> (Vec<f32>, Quantized) {
        let ids: Vec<u32> = (0..values.len() as u32 / 16).collect();
        let counts = vec![1; ids.len()].into();
        let table = TableSpec { name: "t".into(), vocab: ids.len() as u32, dim: 16, counts };
        let plan = find("full").unwrap().plan_table(&table, Limit::None, &Knobs::new()).unwrap();
        let mut built = (plan.build)(&mut BuildCx::new(Rng::stream(1, "t")));
        built.params(&mut |param| param.value_mut().copy_from_slice(values));
        let quantized = Quantized::new(built, storage, 16);
        let mut out = vec![0.0; values.len()];
        quantized.gather(&ids, &mut out, &mut Tape::default());
        (out, quantized)
    }

    #[test]
    fn values_are_off_by_at_most_half_a_step_and_saved_weights_are_the_codes() {
        let mut rng = Rng::stream(2, "values");
        // Rows of very different sizes, one constant, one of zeros.
        let mut values: Vec<f32> =
            (0..64 * 16).map(|i| 10f32.powi(i / 16 % 12 - 8) * rng.symmetric(1.0)).collect();
        values[..16].fill(0.3);
        values[16..32].fill(0.0);
        for storage in [Storage::Int8, Storage::Int4, Storage::Int2, Storage::Fp16] {
            let (after, mut quantized) = rows(storage, &values);
            for (before, after) in values.chunks(16).zip(after.chunks(16)) {
                let most = before.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let least = before.iter().copied().fold(f32::INFINITY, f32::min);
                let error =
                    before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let bound = match storage {
                    Storage::Fp16 => (most.max(-least) / 2048.0).max(3e-8),
                    // The step is at most 2 % longer than the range asks for.
                    _ => 0.51 * (most - least + least.abs() / 128.0) / storage.levels(),
                };
                assert!(error <= bound * 1.001, "{storage:?} {error} {bound}");
            }
            let mut bytes = 0;
            quantized.state(&mut |name, tensor| match (name, tensor) {
                ("table/quantized", TensorMut::U64(place)) => {
                    assert_eq!(place.as_slice(), Some(&[0, 1024][..]))
                }
                ("quantized_values", TensorMut::U64(words)) => bytes += 8 * words.len() as u64,
                ("quantized_ranges", TensorMut::U32(words)) => bytes += 4 * words.len() as u64,
                (other, _) => panic!("{other} is saved"),
            });
            assert_eq!(quantized.footprint().bytes(), bytes);
            assert_eq!(bytes, storage.bytes(1024, 16));
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_not_hidden() {
        let mut values = vec![1.0; 32];
        values[3] = f32::NAN;
        for storage in [Storage::Int8, Storage::Fp16] {
            let (after, _) = rows(storage, &values);
            assert!(after[3].is_nan() && after[16..] == values[16..]);
        }
    }

    #[test]
    fn restored_codes_are_read() {
        use crate::state::{HasState, What, restore, save};
        struct One(Quantized);
        impl HasState for One {
            fn state(&mut self, visit: State<'_>) {
                self.0.state(visit);
            }
        }
        let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let (expect, quantized) = rows(Storage::Int4, &values);
        let saved = save(&mut One(quantized), What::Weights);
        let mut other = One(rows(Storage::Int4, &[7.0; 64]).1);
        restore(&mut other, &saved, What::Weights).unwrap();
        let mut out = vec![0.0; 64];
        other.0.gather(&[0, 1, 2, 3], &mut out, &mut Tape::default());
        assert_eq!(out, expect);
    }
}
