//! What a trained net computes, stated once: a lookup is a program over the tensors of its scheme, a
//! model one over pooled rows. All that leaves embc follows from it.
//!
//! The operators and what they mean are those of `embc-device`, which also runs them. A scheme's
//! program gives the rows of its `gather`, bit for bit where there is no product of matrices; a
//! model's gives the logits of its `forward` but for the order of sums.

use crate::batch::Shape;
use crate::layer::Pooling;
use crate::packed::Packed;
use crate::param::Param;
use crate::quantize::{Coded, Codes};
use embc_device::file::{Feature, Header, Input};
use embc_device::program::{Int, Node, Op, Scope, TensorId, shape};
use embc_device::tensor::{Stored, Tensor};
use embc_device::{Error, Transform};
use std::borrow::Cow;
use std::ops::Range;

mod hashed;

pub use embc_device as device;

/// A blob: its name, and its bytes.
pub type Blob<'a> = (String, Cow<'a, [u8]>);

/// How ids become rows of tables where a hash decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashAs {
    /// Computed, in 64-bit integers.
    #[default]
    Graph,
    /// Looked up in a table that lists what each id comes to, for what cannot compute it.
    Remap,
}

/// The tensors and programs of a net, as they are stated.
pub struct Graph<'a> {
    /// What tensors are made of.
    pub blobs: Vec<Blob<'a>>,
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// The inputs, with the program of each.
    pub inputs: Vec<Input>,
    /// The program of the model, and how many dense features it reads; empty for tables alone.
    pub model: Vec<Op>,
    dense: usize,
    hash_as: HashAs,
    /// Of the program that is being stated: its operators, and what they may read.
    ops: Vec<Op>,
    shapes: Vec<embc_device::program::Shape>,
    reads: Reads,
    /// How names of tensors begin.
    prefix: String,
    /// The codes of the table that states itself, where it is quantised.
    coded: Option<Coded<'a>>,
    wrong: Option<String>,
}

/// What a program reads.
#[derive(Clone)]
enum Reads {
    /// Ids `x` below `vocab`, which a table counts from `offset` on.
    Ids { x: Node, offset: u32, vocab: u32 },
    /// Rows of such widths, and dense features.
    Pooled { widths: Vec<u32>, dense: u32 },
}

impl<'a> Graph<'a> {
    /// Nothing yet.
    pub fn new(hash_as: HashAs) -> Self {
        Self {
            blobs: Vec::new(),
            tensors: Vec::new(),
            inputs: Vec::new(),
            model: Vec::new(),
            dense: 0,
            hash_as,
            ops: Vec::new(),
            shapes: Vec::new(),
            reads: Reads::Ids { x: Node(0), offset: 0, vocab: 0 },
            prefix: String::new(),
            coded: None,
            wrong: None,
        }
    }

    /// States the program of an input: ids of a field, `offset` into its table.
    pub fn input(
        &mut self,
        name: &str,
        (table, offset, vocab): (usize, u32, u32),
        state: impl FnOnce(&mut Self, Node) -> Node,
    ) {
        self.prefix = format!("table{table}");
        self.reads = Reads::Ids { x: Node(0), offset, vocab };
        let ids = self.op(Op::Ids {});
        let row = if offset > 0 { self.int(ids, Int::Add, offset) } else { ids };
        let row = state(self, row);
        let table = self.program(row);
        let (name, vocabulary) = (name.into(), None);
        self.inputs.push(Input { name, vocab, several: false, table, vocabulary });
    }

    /// States what becomes of ids `x` below `vocab`, which are some of the input's, counted anew.
    pub fn within(
        &mut self,
        x: Node,
        vocab: u32,
        state: impl FnOnce(&mut Self, Node) -> Node,
    ) -> Node {
        let all = std::mem::replace(&mut self.reads, Reads::Ids { x, offset: 0, vocab });
        let row = state(self, x);
        self.reads = all;
        row
    }

    /// States the program of the model.
    pub fn model(&mut self, widths: &[usize], dense: usize, state: impl FnOnce(&mut Self) -> Node) {
        self.prefix = "model".into();
        let widths = widths.iter().map(|&width| width as u32).collect();
        self.reads = Reads::Pooled { widths, dense: dense as u32 };
        self.dense = dense;
        let logits = state(self);
        self.model = self.program(logits);
    }

    /// Ends a program, whose last operator is its result.
    fn program(&mut self, result: Node) -> Vec<Op> {
        let mut ops = std::mem::take(&mut self.ops);
        self.shapes.clear();
        ops.truncate(result.0 as usize + 1);
        ops
    }

    /// The header of a file of this; `about` is for people.
    pub fn header(&self, about: String, pooling: Pooling) -> Result<Header, Error> {
        let (tensors, inputs) = (self.tensors.clone(), self.inputs.clone());
        self.wrong.clone().map_or(Ok(()), |what| Err(Error(what)))?;
        Ok(Header {
            about,
            blobs: Vec::new(),
            tensors,
            inputs,
            mean: pooling == Pooling::Mean,
            transform: Transform::Raw,
            features: (0..self.dense)
                .map(|i| Feature { name: format!("dense{i}"), shift: 0.0, scale: 1.0 })
                .collect(),
            model: self.model.clone(),
            vocabularies: Vec::new(),
        })
    }

    /// Appends an operator. It panics where it does not fit: a scheme or model is wrong.
    pub fn op(&mut self, op: Op) -> Node {
        let scope = match &self.reads {
            Reads::Ids { .. } => Scope::Ids,
            Reads::Pooled { widths, dense } => Scope::Pooled { widths, dense: *dense },
        };
        let of = shape(&op, &self.shapes, &self.tensors, scope)
            .unwrap_or_else(|error| panic!("{}: {op:?}: {error}", self.prefix));
        self.ops.push(op);
        self.shapes.push(of);
        Node(self.ops.len() as u32 - 1)
    }

    /// Columns of a value.
    pub fn width(&self, node: Node) -> usize {
        self.shapes[node.0 as usize].width as usize
    }

    /// Says why there is no such program.
    fn refuse(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    // Tensors.

    fn blob(&mut self, name: String, bytes: impl FnOnce() -> Cow<'a, [u8]>) -> u32 {
        let known = self.blobs.iter().position(|(known, _)| *known == name);
        let place = known.unwrap_or_else(|| {
            self.blobs.push((name, bytes()));
            self.blobs.len() - 1
        });
        place as u32
    }

    fn tensor(&mut self, tensor: Tensor) -> TensorId {
        let known = self.tensors.iter().position(|known| *known == tensor);
        let place = known.unwrap_or_else(|| {
            self.tensors.push(tensor);
            self.tensors.len() - 1
        });
        TensorId(place as u32)
    }

    fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// A parameter as rows of `width` values, from the row `from` on; as codes where its table is
    /// quantised.
    pub fn param(&mut self, param: &'a Param, width: usize, from: usize) -> TensorId {
        let name = self.named(param.name());
        let (rows, first) = ((param.len() / width - from) as u64, (from * width) as u64);
        let mut tensor = Tensor {
            name: name.clone(),
            rows,
            width: width as u32,
            stored: Stored::Float,
            first,
            values: 0,
            ranges: None,
        };
        let (codes, of) = match (&param.low, self.coded) {
            (Some(low), _) => (&low.codes, format!("{}/", param.name())),
            (None, Some(coded)) => {
                tensor.first += coded.first(param.name());
                (coded.codes, String::from("quantized_"))
            }
            (None, None) => {
                tensor.values = self.blob(name, || bytemuck::cast_slice(param.value()).into());
                return self.tensor(tensor);
            }
        };
        tensor.stored = codes.stored();
        let name = self.named(&format!("{of}values"));
        tensor.values = self.blob(name, || bytemuck::cast_slice(codes.words()).into());
        if !codes.ranges().is_empty() {
            let (name, ranges) = (self.named(&format!("{of}ranges")), codes.ranges());
            tensor.ranges = Some(self.blob(name, || bytemuck::cast_slice(ranges).into()));
        }
        self.tensor(tensor)
    }

    /// A row of plain floats.
    pub fn row(&mut self, name: &str, values: impl Into<Cow<'a, [f32]>>) -> TensorId {
        self.floats(name, 1, values.into())
    }

    fn floats(&mut self, name: &str, rows: usize, values: Cow<'a, [f32]>) -> TensorId {
        let (name, width) = (self.named(name), (values.len() / rows) as u32);
        let values = self.blob(name.clone(), || match values {
            Cow::Borrowed(values) => bytemuck::cast_slice(values).into(),
            Cow::Owned(values) => bytemuck::cast_slice(&values).to_vec().into(),
        });
        let (rows, stored) = (rows as u64, Stored::Float);
        self.tensor(Tensor { name, rows, width, stored, first: 0, values, ranges: None })
    }

    /// Packed integers as rows of `width`.
    fn packed(&mut self, name: &str, len: u64, width: usize, of: Cow<'a, Packed>) -> TensorId {
        let (name, bits) = (self.named(name), of.bits() as u8);
        let values = self.blob(name.clone(), || match of {
            Cow::Borrowed(of) => bytemuck::cast_slice(of.words()).into(),
            Cow::Owned(of) => bytemuck::cast_slice(of.words()).to_vec().into(),
        });
        let (rows, width, stored) = (len / width as u64, width as u32, Stored::Packed { bits });
        self.tensor(Tensor { name, rows, width, stored, first: 0, values, ranges: None })
    }

    // Integers.

    /// x with a constant.
    pub fn int(&mut self, x: Node, kind: Int, by: u32) -> Node {
        self.op(Op::Int { x, kind, by })
    }

    /// Rows x of `len` packed integers, `width` a row.
    pub fn unpack(
        &mut self,
        x: Node,
        name: &str,
        of: &'a Packed,
        (len, width): (u64, usize),
    ) -> Node {
        let tensor = self.packed(name, len, width, Cow::Borrowed(of));
        self.op(Op::Unpack { x, tensor })
    }

    /// Rows x of integers.
    pub fn lookup(&mut self, x: Node, name: &str, of: &[u32]) -> Node {
        let mut packed = Packed::zeros(of.len() as u64, 1 << 32);
        of.iter().enumerate().for_each(|(at, &value)| packed.set(at, value));
        let tensor = self.packed(name, of.len() as u64, 1, Cow::Owned(packed));
        self.op(Op::Unpack { x, tensor })
    }

    // Floats.

    /// −1 where x is 0, and 1 where it is 1.
    pub fn signs_of(&mut self, x: Node) -> Node {
        let tensor = self.floats("signs", 2, Cow::Owned(vec![-1.0, 1.0]));
        self.op(Op::Gather { x, tensor })
    }

    /// x, and zeros for such ids.
    pub fn zero_within(&mut self, x: Node, ids: Node, of: Range<u32>) -> Node {
        let when = self.op(Op::Within { x: ids, from: of.start, to: of.end });
        let zeros = vec![0.0; self.width(x)];
        let tensor = self.row(&format!("zeros {}", zeros.len()), zeros);
        self.op(Op::Replace { x, when, tensor })
    }

    /// Rows x of a parameter that is `width` wide, side by side.
    pub fn gather(&mut self, x: Node, param: &'a Param, width: usize) -> Node {
        self.gather_from(x, param, width, 0)
    }

    /// Rows `from` + x of a parameter.
    pub fn gather_from(&mut self, x: Node, param: &'a Param, width: usize, from: usize) -> Node {
        let tensor = self.param(param, width, from);
        self.op(Op::Gather { x, tensor })
    }

    /// Rows x of values that are codes, `width` a row.
    pub fn decode(&mut self, x: Node, name: &str, of: &'a Codes, width: usize) -> Node {
        let tensor = self.codes(name, of, width);
        self.op(Op::Gather { x, tensor })
    }

    fn codes(&mut self, name: &str, of: &'a Codes, width: usize) -> TensorId {
        let name = self.named(name);
        let values = self.blob(name.clone(), || bytemuck::cast_slice(of.words()).into());
        let ranged = !of.ranges().is_empty();
        let ranges = format!("{name}/ranges");
        let ranges = ranged.then(|| self.blob(ranges, || bytemuck::cast_slice(of.ranges()).into()));
        let (rows, width, stored) = (of.len() / width as u64, width as u32, of.stored());
        self.tensor(Tensor { name, rows, width, stored, first: 0, values, ranges })
    }

    /// x · W of values that are codes [in × out].
    pub fn transform_coded(&mut self, x: Node, name: &str, weight: &'a Codes) -> Node {
        let outputs = weight.len() as usize / self.width(x);
        let weight = self.codes(name, weight, outputs);
        self.linear(x, weight, None, (false, false))
    }

    /// x · W of plain floats [in × out].
    pub fn transform(&mut self, x: Node, name: &str, weight: &'a [f32]) -> Node {
        let weight = self.floats(name, self.width(x), weight.into());
        self.linear(x, weight, None, (false, false))
    }

    /// a + b.
    pub fn add(&mut self, a: Node, b: Node) -> Node {
        self.op(Op::Add { a, b })
    }

    /// a · b.
    pub fn mul(&mut self, a: Node, b: Node) -> Node {
        self.op(Op::Mul { a, b })
    }

    /// x · by.
    pub fn scale(&mut self, x: Node, by: f32) -> Node {
        // A product with 1 changes no bit.
        if by == 1.0 { x } else { self.op(Op::Scale { x, by }) }
    }

    /// The sum of terms, in their order.
    pub fn sum(&mut self, terms: impl IntoIterator<Item = Node>) -> Node {
        let mut terms = terms.into_iter();
        let first = terms.next().expect("a term");
        terms.fold(first, |sum, term| self.add(sum, term))
    }

    /// Of k parts, side by side.
    pub fn each(&mut self, k: usize, mut part: impl FnMut(usize, &mut Self) -> Node) -> Node {
        let parts = (0..k).map(|j| part(j, self)).collect();
        self.concat(parts)
    }

    /// All side by side.
    pub fn concat(&mut self, parts: Vec<Node>) -> Node {
        match parts[..] {
            [one] => one,
            _ => self.op(Op::Concat { parts }),
        }
    }

    /// x · W + bias, through a ReLU where .0 says so; W is [in × out], or [out × in] with .1.
    pub fn linear(
        &mut self,
        x: Node,
        weight: TensorId,
        bias: Option<&'a Param>,
        (relu, by_output): (bool, bool),
    ) -> Node {
        let bias = bias.map(|bias| self.row(bias.name(), bias.value()));
        self.op(Op::Linear { x, weight, bias, relu, by_output })
    }

    /// x · W of a parameter [in × out].
    pub fn product(&mut self, x: Node, weight: &'a Param, outputs: usize) -> Node {
        let weight = self.param(weight, outputs, 0);
        self.linear(x, weight, None, (false, false))
    }

    /// x · tanh(ln(1 + eˣ)).
    pub fn mish(&mut self, x: Node) -> Node {
        self.op(Op::Mish { x })
    }

    /// For each row, a [p × rank] · b [rank × q].
    pub fn contract(&mut self, a: Node, b: Node, rank: usize) -> Node {
        self.op(Op::Contract { a, b, rank: rank as u32 })
    }

    /// Pooled rows of the model's input `i`.
    pub fn pooled(&mut self, i: usize) -> Node {
        let Reads::Pooled { widths, .. } = &self.reads else { panic!("a table has no inputs") };
        let width = widths[i];
        self.op(Op::Input { input: i as u32, width })
    }

    /// The dense features, where there are any.
    pub fn dense(&mut self) -> Option<Node> {
        match self.reads {
            Reads::Pooled { dense, .. } if dense > 0 => Some(self.op(Op::Dense { width: dense })),
            _ => None,
        }
    }

    /// Rows of all inputs, and after them the dense features.
    pub fn features(&mut self) -> Vec<Node> {
        let Reads::Pooled { widths, .. } = &self.reads else { panic!("a table has no inputs") };
        let inputs = widths.len();
        let mut all: Vec<Node> = (0..inputs).map(|i| self.pooled(i)).collect();
        all.extend(self.dense());
        all
    }

    /// What a table says whose parameters are codes.
    pub(crate) fn coded(
        &mut self,
        coded: Coded<'a>,
        state: impl FnOnce(&mut Self) -> Node,
    ) -> Node {
        self.coded = Some(coded);
        let node = state(self);
        self.coded = None;
        node
    }

    /// Inputs that the model reads, up to the last one: those of training alone come after them.
    pub(crate) fn read(&self) -> usize {
        let read = |op: &Op| match op {
            Op::Input { input, .. } => *input as usize + 1,
            _ => 0,
        };
        self.model.iter().map(read).max().unwrap_or(0)
    }
}

/// Names of a model's inputs, each once: those of their fields; a candidate's field is that of the
/// history, whose name it does not take.
pub fn names(shape: &Shape, fields: impl Iterator<Item = usize>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for field in fields {
        let name = &shape.fields[field].name;
        let mut own = if names.contains(name) { "candidate".into() } else { name.clone() };
        while names.contains(&own) {
            own.push('_');
        }
        names.push(own);
    }
    names
}
