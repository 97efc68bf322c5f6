//! A packed model, and what reads it.

use crate::bytes::checksum;
use crate::file::{Header, Input, Programs, Vocabulary};
use crate::program::TensorId;
use crate::run::{MOST, Reads, Scratch};
use crate::tensor::View;
use crate::{Error, wrong};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Where the bytes of a model are.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Held(Vec<u8>),
}

/// A packed model, which threads share.
#[derive(Debug)]
pub struct Model {
    bytes: Bytes,
    header: Header,
    programs: Programs,
    sum: u64,
}

/// The ids of an input for B examples.
#[derive(Clone, Copy, Debug)]
pub struct Bag<'a> {
    /// All ids, example after example.
    pub ids: &'a [u32],
    /// Where each example's ids begin, and where the last one's end [B+1]; empty where every example
    /// has exactly one.
    pub offsets: &'a [u32],
}

impl Model {
    /// Maps a file: nothing is read but its header. An error says what is wrong with it.
    ///
    /// The file must not be changed while it is mapped.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at = |what: String| Error(format!("{}: {what}", path.display()));
        let file = File::open(path).map_err(|error| at(error.to_string()))?;
        // SAFETY: the contract above; a file that shrinks under a mapping is a fault of its writer,
        // and embc replaces files, it does not change them.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|error| at(error.to_string()))?;
        // Rows are read here and there: what lies beside them need not be.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Random);
        Self::new(Bytes::Mapped(map)).map_err(|Error(what)| at(what))
    }

    /// A model whose bytes are in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::new(Bytes::Held(bytes))
    }

    fn new(bytes: Bytes) -> Result<Self, Error> {
        let (header, sum) = Header::read(of(&bytes))?;
        let programs = header.programs()?;
        Ok(Self { bytes, header, programs, sum })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks every byte against the file's checksum: it reads all of it.
    pub fn verify(&self) -> Result<(), Error> {
        match self.blobs_sum() == self.sum {
            true => Ok(()),
            false => wrong("the file is damaged: the checksum of its tensors does not match"),
        }
    }

    /// The checksum of the blobs.
    fn blobs_sum(&self) -> u64 {
        let sums = self.header.blobs.iter().flat_map(|blob| {
            let bytes = &of(&self.bytes)[blob.offset as usize..][..blob.length as usize];
            checksum(bytes).to_le_bytes()
        });
        checksum(&sums.collect::<Vec<u8>>())
    }

    /// The input called `name`.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.header.inputs.iter().position(|input| input.name == name)
    }

    /// Columns of an input's rows.
    pub fn width(&self, input: usize) -> usize {
        self.programs.tables.get(input).map_or(0, |table| table.width() as usize)
    }

    /// Logits of an example; 0 where the file holds tables alone.
    pub fn outputs(&self) -> usize {
        self.programs.model.as_ref().map_or(0, |model| model.width() as usize)
    }

    /// The bytes of all blobs, in the order of the header.
    pub fn blobs(&self) -> Vec<&[u8]> {
        (0..self.header.blobs.len() as u32).map(|i| self.blob(i)).collect()
    }

    fn blob(&self, i: u32) -> &[u8] {
        let blob = self.header.blobs[i as usize];
        &of(&self.bytes)[blob.offset as usize..][..blob.length as usize]
    }

    #[inline]
    fn view(&self, id: TensorId) -> View<'_> {
        let tensor = &self.header.tensors[id.0 as usize];
        let ranges = tensor.ranges.map_or(&[][..], |ranges| self.blob(ranges));
        View { tensor, values: self.blob(tensor.values), ranges }
    }

    /// The id of a value of an input; one that training did not have has the unknown id, if there is
    /// one.
    pub fn id(&self, input: usize, value: &[u8]) -> Option<u32> {
        let words = self.vocabulary(input)?;
        let sorted = self.blob(words.sorted).as_chunks::<4>().0;
        let id = |at: usize| u32::from_le_bytes(sorted[at]);
        let (mut from, mut to) = (0, sorted.len());
        while from < to {
            let middle = from.midpoint(to);
            match self.value(words, id(middle)).unwrap_or_default().cmp(value) {
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
                std::cmp::Ordering::Equal => return Some(id(middle)),
            }
        }
        words.unknown
    }

    /// The value of an id of an input; none for an unknown one.
    pub fn value_of(&self, input: usize, id: u32) -> Option<&[u8]> {
        self.value(self.vocabulary(input)?, id)
    }

    fn vocabulary(&self, input: usize) -> Option<&Vocabulary> {
        let words = self.header.inputs.get(input)?.vocabulary?;
        self.header.vocabularies.get(words as usize)
    }

    fn value(&self, words: &Vocabulary, id: u32) -> Option<&[u8]> {
        let starts = self.blob(words.starts).as_chunks::<4>().0;
        let start = |i: usize| starts.get(i).map(|start| u32::from_le_bytes(*start) as usize);
        let (from, to) = (start(id as usize)?, start(id as usize + 1)?);
        self.blob(words.text).get(from..to)
    }
}

fn of(bytes: &Bytes) -> &[u8] {
    match bytes {
        Bytes::Mapped(map) => map,
        Bytes::Held(bytes) => bytes,
    }
}

/// Looks rows up and scores examples, in buffers of its own: one a thread.
#[derive(Debug)]
pub struct Reader {
    model: Arc<Model>,
    tables: Vec<Scratch>,
    head: Option<Scratch>,
    /// Rows of ids on their way to be pooled.
    rows: Vec<f32>,
    /// Pooled rows of each input, and dense features, of some examples.
    pooled: Vec<Vec<f32>>,
    dense: Vec<f32>,
}

impl Reader {
    /// Buffers for a model. An error says that it would need too much memory.
    pub fn new(model: Arc<Model>) -> Result<Self, Error> {
        let tensors = &model.header.tensors;
        let mut left = MOST;
        let mut scratch = |program| Scratch::new(program, tensors, &mut left);
        let tables = model.programs.tables.iter().map(&mut scratch);
        let tables: Vec<Scratch> = tables.collect::<Result<_, _>>()?;
        let head = model.programs.model.as_ref().map(scratch).transpose()?;
        let widths = (0..tables.len()).map(|input| model.width(input));
        let rows = tables.iter().zip(widths.clone()).map(|(t, width)| t.rows * width);
        let examples = head.as_ref().map_or(0, |head| head.rows);
        let each = widths.clone().sum::<usize>() + model.header.features.len();
        if head.is_some() && examples.checked_mul(each).is_none_or(|all| all > left) {
            return wrong("it would take too much memory to compute");
        }
        Ok(Self {
            rows: vec![0.0; rows.max().unwrap_or(0)],
            pooled: widths.map(|width| vec![0.0; examples * width]).collect(),
            dense: vec![0.0; examples * model.header.features.len()],
            tables,
            head,
            model,
        })
    }

    /// The model that it reads.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The rows of ids of an input, `out` [ids × width]. An error says which id is none.
    pub fn rows(&mut self, input: usize, ids: &[u32], out: &mut [f32]) -> Result<(), Error> {
        let Self { model, tables, .. } = self;
        if input >= tables.len() {
            return wrong(format!("there are {} inputs", tables.len()));
        }
        if out.len() != ids.len() * model.width(input) {
            return wrong(format!("rows of {} values", model.width(input)));
        }
        look_up(model, input, &mut tables[input], ids, out)
    }

    /// The logits of examples, `out` [B × outputs]: a bag for each input, and the dense features as
    /// the data has them [B × dense].
    pub fn score(&mut self, bags: &[Bag<'_>], dense: &[f64], out: &mut [f32]) -> Result<(), Error> {
        let Self { model, tables, head, rows, pooled, dense: seen } = self;
        let Some(head) = head else {
            return wrong("the file holds tables alone: it has no scores");
        };
        let outputs = model.outputs();
        let batch = out.len() / outputs;
        check(model, bags, dense.len(), (batch, out.len()))?;
        let features = model.header.features.len();
        for first in (0..batch).step_by(head.rows) {
            let n = head.rows.min(batch - first);
            for (input, bag) in bags.iter().enumerate() {
                let (scratch, out) = (&mut tables[input], &mut pooled[input]);
                pool(model, input, scratch, bag, first..first + n, rows, out)?;
            }
            let values = dense[first * features..][..n * features].iter().enumerate();
            for (to, (i, &x)) in seen.iter_mut().zip(values) {
                let of = &model.header.features[i % features];
                *to = model.header.transform.of(x, of.shift, of.scale);
            }
            let reads = Reads { ids: &[], pooled, dense: &seen[..n * features] };
            let program = model.programs.model.as_ref().expect("it has scores");
            let out = &mut out[first * outputs..][..n * outputs];
            head.run(program, &|id| model.view(id), reads, n, out)?;
        }
        Ok(())
    }
}

/// Checks what is to be scored against what the model reads.
fn check(
    model: &Model,
    bags: &[Bag<'_>],
    dense: usize,
    (batch, out): (usize, usize),
) -> Result<(), Error> {
    let header = &model.header;
    if bags.len() != header.inputs.len() || out != batch * model.outputs() {
        let (inputs, outputs) = (header.inputs.len(), model.outputs());
        return wrong(format!("the model has {inputs} inputs and {outputs} outputs an example"));
    }
    if dense != batch * header.features.len() {
        return wrong(format!("the model has {} dense features", header.features.len()));
    }
    for (Input { name, .. }, bag) in header.inputs.iter().zip(bags) {
        let fits = match bag.offsets {
            [] => bag.ids.len() == batch,
            offsets => {
                offsets.len() == batch + 1
                    && offsets.is_sorted()
                    && offsets[batch] as usize <= bag.ids.len()
            }
        };
        if !fits {
            return wrong(format!("{name}: not the ids of {batch} examples"));
        }
    }
    Ok(())
}

/// Rows of ids, some at a time.
fn look_up(
    model: &Model,
    input: usize,
    scratch: &mut Scratch,
    ids: &[u32],
    out: &mut [f32],
) -> Result<(), Error> {
    let Input { name, vocab, .. } = &model.header.inputs[input];
    if let Some(id) = ids.iter().find(|id| *id >= vocab) {
        return wrong(format!("{id} is no id of {name}, which has {vocab}"));
    }
    let program = &model.programs.tables[input];
    let width = program.width() as usize;
    let chunks = ids.chunks(scratch.rows).zip(out.chunks_mut(scratch.rows * width));
    for (ids, out) in chunks {
        let reads = Reads { ids, pooled: &[], dense: &[] };
        scratch.run(program, &|id| model.view(id), reads, ids.len(), out)?;
    }
    Ok(())
}

/// Pooled rows of some examples, `out` [examples × width]: a sum in the order of ids, each row times
/// its share.
fn pool(
    model: &Model,
    input: usize,
    scratch: &mut Scratch,
    bag: &Bag<'_>,
    examples: std::ops::Range<usize>,
    rows: &mut [f32],
    out: &mut [f32],
) -> Result<(), Error> {
    let width = model.width(input);
    if bag.offsets.is_empty() {
        let out = &mut out[..examples.len() * width];
        return look_up(model, input, scratch, &bag.ids[examples], out);
    }
    for (example, out) in examples.zip(out.chunks_exact_mut(width)) {
        let of = bag.offsets[example] as usize..bag.offsets[example + 1] as usize;
        let ids = &bag.ids[of];
        if let [id] = ids {
            look_up(model, input, scratch, &[*id], out)?;
            continue;
        }
        out.fill(0.0);
        let share = if model.header.mean { 1.0 / ids.len().max(1) as f32 } else { 1.0 };
        for ids in ids.chunks(scratch.rows) {
            let rows = &mut rows[..ids.len() * width];
            look_up(model, input, scratch, ids, rows)?;
            for row in rows.chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(out, x)| *out += share * x);
            }
        }
    }
    Ok(())
}
