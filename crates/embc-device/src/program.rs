//! What a model computes, as a flat list of operators: each reads earlier ones, and the last one's
//! value is the result.
//!
//! A value has a row for each of N ids, or of N examples, and is of 32-bit integers or of floats. An
//! operator has one meaning, stated here; `run.rs` computes it, and embc writes it as ONNX. Integers
//! wrap. Floats are multiplied and added one by one, in the order of their columns, never fused.

use crate::bytes::{Field, Read};
use crate::tensor::Tensor;
use crate::{Error, wrong};

/// The place of an operator in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub u32);

/// The place of a tensor in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorId(pub u32);

/// An operation on integers with a constant; the remainders and quotients are those of unsigned
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Int {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Min,
    Max,
}

impl Int {
    const ALL: [Int; 7] = [Int::Add, Int::Sub, Int::Mul, Int::Div, Int::Mod, Int::Min, Int::Max];
}

macro_rules! ops {
    ($($(#[$doc:meta])* $code:literal $name:ident { $($field:ident: $type:ty),* })*) => {
        /// An operator. `x`, `a`, `b`, … are earlier operators.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Op { $($(#[$doc])* $name { $($field: $type),* }),* }

        impl Field for Op {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Op::$name { $($field),* } => {
                        out.push($code);
                        $($field.put(out);)*
                    })*
                }
            }
            fn get(from: &mut Read<'_>) -> Result<Self, Error> {
                match u8::get(from)? {
                    $($code => Ok(Op::$name { $($field: Field::get(from)?),* }),)*
                    other => wrong(format!("operator {other} is of a newer embc, or the file is damaged")),
                }
            }
        }

        impl Op {
            /// Its name.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$name { .. } => stringify!($name),)* }
            }
        }
    };
}

ops! {
    /// The ids [N × 1].
    1 Ids {}
    /// x with a constant, integers.
    2 Int { x: Node, kind: Int, by: u32 }
    /// ⌊mix64(x ⊕ key) · rows / 2⁶⁴⌋, of x [N × 1].
    3 Mix64 { x: Node, key: u64, rows: u64 }
    /// (key · x mod 2³¹−1) mod rows, of x [N × 1].
    4 Poly31 { x: Node, key: u64, rows: u64 }
    /// Of x [N × 1], for b < width: ⌊mix64(mix64(x ⊕ key) ⊕ b) · rows / 2⁶⁴⌋.
    5 Blocks { x: Node, key: u64, rows: u64, width: u32 }
    /// Of x [N × 1]: −1 where mix64(x ⊕ key) is odd, else 1.
    6 Signs { x: Node, key: u64 }
    /// Of x [N × 1], for b < width: −1 where mix64(mix64(x ⊕ key) ⊕ b) is odd, else 1.
    7 BlockSigns { x: Node, key: u64, width: u32 }
    /// Of x [N × 1], for k < width: the upper 24 bits of mix64(mix64(x ⊕ key) ⊕ k) as a number of
    /// mean 0 and variance 1, (bits / 2²³ − 1) · √3.
    8 Noise { x: Node, key: u64, width: u32 }
    /// Row x of a tensor of integers, x [N × 1].
    9 Unpack { x: Node, tensor: TensorId }
    /// Column `at` of x, integers.
    10 Column { x: Node, at: u32 }
    /// `yes` where `when` [N × 1] is not 0, else `no`; integers of one width.
    11 Select { when: Node, yes: Node, no: Node }
    /// 1 where from ≤ x < to, else 0.
    12 Within { x: Node, from: u32, to: u32 }
    /// For c < width: (x[c / block] + c mod block) mod cells, the cells of runs in a ring.
    13 Runs { x: Node, width: u32, block: u32, cells: u64 }
    /// Rows x of a tensor of floats, side by side.
    14 Gather { x: Node, tensor: TensorId }
    /// For c < width: x[c / block], floats.
    15 Spread { x: Node, width: u32, block: u32 }
    /// a + b, of one width; or b is one column.
    16 Add { a: Node, b: Node }
    /// a · b, of one width; or b is one column.
    17 Mul { a: Node, b: Node }
    /// x · by.
    18 Scale { x: Node, by: f32 }
    /// x + the tensor's one row.
    19 AddRow { x: Node, tensor: TensorId }
    /// x · the tensor's one row.
    20 MulRow { x: Node, tensor: TensorId }
    /// All side by side.
    21 Concat { parts: Vec<Node> }
    /// Columns from.. of x, `width` of them.
    22 Slice { x: Node, from: u32, width: u32 }
    /// The sum of the columns of x [N × 1].
    23 Sum { x: Node }
    /// x · W + bias, and max(0, ·) with `relu`; W [in × out], or with `by_output` [out × in].
    24 Linear { x: Node, weight: TensorId, bias: Option<TensorId>, relu: bool, by_output: bool }
    /// For each row, a [p × rank] · b [rank × q], of tensor trains.
    25 Contract { a: Node, b: Node, rank: u32 }
    /// x · tanh(ln(1 + eˣ)).
    26 Mish { x: Node }
    /// max(0, x).
    27 Relu { x: Node }
    /// Of vectors of a width side by side, ⟨z_i, z_j⟩ for all j < i, row after row.
    28 Dots { x: Node, width: u32 }
    /// The tensor's one row where `when` [N × 1] is not 0, else x.
    29 Replace { x: Node, when: Node, tensor: TensorId }
    /// Pooled rows of an input of the model.
    30 Input { input: u32, width: u32 }
    /// The dense features.
    31 Dense { width: u32 }
    /// `yes` where `when` [N × 1] is not 0, else `no`; floats of one width.
    32 Either { when: Node, yes: Node, no: Node }
}

macro_rules! places {
    ($($name:ident),*) => {
        $(impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn get(from: &mut Read<'_>) -> Result<Self, Error> {
                Ok(Self(u32::get(from)?))
            }
        })*
    };
}

places!(Node, TensorId);

impl Field for Int {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
    fn get(from: &mut Read<'_>) -> Result<Self, Error> {
        let code = u8::get(from)?;
        Self::ALL.get(usize::from(code)).copied().map_or_else(|| wrong("no such operation"), Ok)
    }
}

/// What a program may read.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// Ids: the program of a table.
    Ids,
    /// Pooled rows of inputs, of these widths, and so many dense features: the program of a model.
    Pooled {
        /// Of the inputs.
        widths: &'a [u32],
        /// Number of dense features.
        dense: u32,
    },
}

/// The value of an operator: integers or floats, and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Floats, else integers.
    pub floats: bool,
    /// Columns.
    pub width: u32,
}

/// The widest value: no file can ask for more scratch than this.
pub const WIDEST: u32 = 1 << 26;

/// Checks an operator against all before it and returns the shape of its value.
pub fn shape(
    op: &Op,
    done: &[Shape],
    tensors: &[Tensor],
    scope: Scope<'_>,
) -> Result<Shape, Error> {
    let check = Check { done, tensors };
    let shape = match scope {
        Scope::Ids => check.of_ids(op)?,
        Scope::Pooled { widths, dense } => check.of_examples(op, widths, dense)?,
    };
    match shape.width {
        1..=WIDEST => Ok(shape),
        width => wrong(format!("{} is {width} columns wide", op.name())),
    }
}

struct Check<'a> {
    done: &'a [Shape],
    tensors: &'a [Tensor],
}

impl Check<'_> {
    fn of_ids(&self, op: &Op) -> Result<Shape, Error> {
        match op {
            Op::Ids {} => Ok(ints(1)),
            Op::Input { .. } | Op::Dense { .. } => wrong("a table reads ids only"),
            other => self.of_values(other),
        }
    }

    fn of_examples(&self, op: &Op, widths: &[u32], dense: u32) -> Result<Shape, Error> {
        match *op {
            Op::Ids {} => wrong("a model reads rows, not ids"),
            Op::Input { input, width } => ok(
                widths.get(input as usize) == Some(&width),
                floats(width),
                "there is no such input",
            ),
            Op::Dense { width } => {
                ok(width == dense, floats(width), "the dense features are others")
            }
            ref other => self.of_values(other),
        }
    }

    fn of_values(&self, op: &Op) -> Result<Shape, Error> {
        match op {
            Op::Int { x, kind, by } => {
                let fine = *by > 0 || !matches!(kind, Int::Div | Int::Mod);
                ok(fine, ints(self.ints(*x)?), "a division by 0")
            }
            Op::Mix64 { x, rows, .. } | Op::Poly31 { x, rows, .. } => self.hash(*x, *rows, 1),
            Op::Blocks { x, rows, width, .. } => self.hash(*x, *rows, *width),
            Op::Signs { x, .. } => self.column(*x).map(|()| floats(1)),
            Op::BlockSigns { x, width, .. } | Op::Noise { x, width, .. } => {
                self.column(*x).map(|()| floats(*width))
            }
            Op::Unpack { x, tensor } => {
                self.column(*x)?;
                let tensor = self.tensor(*tensor)?;
                ok(!tensor.is_float(), ints(tensor.width), "its tensor has no integers")
            }
            Op::Column { x, at } => ok(*at < self.ints(*x)?, ints(1), "there is no such column"),
            Op::Select { when, yes, no } => {
                self.column(*when)?;
                let width = self.ints(*yes)?;
                ok(self.ints(*no)? == width, ints(width), "two widths")
            }
            Op::Within { x, .. } => Ok(ints(self.ints(*x)?)),
            Op::Runs { x, width, block, cells } => {
                let fits = *block > 0 && width.div_ceil(*block) == self.ints(*x)?;
                ok(fits && *cells > 0 && *cells <= 1 << 32, ints(*width), "runs of no blocks")
            }
            other => self.of_floats(other),
        }
    }

    fn of_floats(&self, op: &Op) -> Result<Shape, Error> {
        match op {
            Op::Gather { x, tensor } => {
                let tensor = self.tensor(*tensor)?;
                let width = self.ints(*x)?.saturating_mul(tensor.width);
                ok(tensor.is_float(), floats(width), "its tensor has no floats")
            }
            Op::Spread { x, width, block } => {
                let fits = *block > 0 && width.div_ceil(*block) == self.floats(*x)?;
                ok(fits, floats(*width), "no such blocks")
            }
            Op::Add { a, b } | Op::Mul { a, b } => {
                let (a, b) = (self.floats(*a)?, self.floats(*b)?);
                ok(a == b || b == 1, floats(a), "two widths")
            }
            Op::Scale { x, .. } | Op::Mish { x } | Op::Relu { x } => Ok(floats(self.floats(*x)?)),
            Op::AddRow { x, tensor } | Op::MulRow { x, tensor } => self.row(*x, *tensor),
            Op::Replace { x, when, tensor } => {
                self.column(*when)?;
                self.row(*x, *tensor)
            }
            Op::Concat { parts } => {
                let widths = parts.iter().map(|&part| self.floats(part));
                let sum = |a: Result<u32, Error>, b| Ok(a?.saturating_add(b?));
                widths.fold(Ok(0), sum).map(floats)
            }
            Op::Slice { x, from, width } => {
                let end = from.checked_add(*width);
                let inside = end.is_some_and(|end| self.floats(*x).is_ok_and(|x| end <= x));
                ok(inside, floats(*width), "there are no such columns")
            }
            Op::Sum { x } => self.floats(*x).map(|_| floats(1)),
            Op::Either { when, yes, no } => {
                self.column(*when)?;
                let width = self.floats(*yes)?;
                ok(self.floats(*no)? == width, floats(width), "two widths")
            }
            other => self.of_products(other),
        }
    }

    fn of_products(&self, op: &Op) -> Result<Shape, Error> {
        match op {
            Op::Linear { x, weight, bias, by_output, .. } => {
                let (x, weight) = (u64::from(self.floats(*x)?), self.tensor(*weight)?);
                let (rows, width) = (weight.rows, u64::from(weight.width));
                let (inputs, outputs) = if *by_output { (width, rows) } else { (rows, width) };
                let outputs = u32::try_from(outputs).unwrap_or(u32::MAX);
                let bias = bias.map(|bias| self.tensor(bias)).transpose()?;
                let fits = bias.is_none_or(|bias| bias.is_row(outputs)) && weight.is_float();
                ok(fits && x == inputs, floats(outputs), "a product of other widths")
            }
            Op::Contract { a, b, rank } => {
                let (a, b) = (self.floats(*a)?, self.floats(*b)?);
                let fits = *rank > 0 && a % rank == 0 && b % rank == 0;
                let width = (a / (*rank).max(1)).checked_mul(b / (*rank).max(1));
                ok(fits, floats(width.unwrap_or(u32::MAX)), "a product of other widths")
            }
            Op::Dots { x, width } => {
                let x = self.floats(*x)?;
                let vectors = u64::from(x / (*width).max(1));
                let pairs = vectors * vectors.saturating_sub(1) / 2;
                let pairs = u32::try_from(pairs).unwrap_or(u32::MAX);
                ok(*width > 0 && x % width == 0, floats(pairs), "vectors of another width")
            }
            other => wrong(format!("{} is out of place", other.name())),
        }
    }

    fn of(&self, node: Node) -> Result<Shape, Error> {
        self.done
            .get(node.0 as usize)
            .copied()
            .map_or_else(|| wrong("an operator reads a later one"), Ok)
    }

    fn ints(&self, node: Node) -> Result<u32, Error> {
        let Shape { floats, width } = self.of(node)?;
        ok(!floats, width, "an operator on integers reads floats")
    }

    fn floats(&self, node: Node) -> Result<u32, Error> {
        let Shape { floats, width } = self.of(node)?;
        ok(floats, width, "an operator on floats reads integers")
    }

    fn column(&self, node: Node) -> Result<(), Error> {
        let width = self.ints(node)?;
        ok(width == 1, (), "an operator on one column reads more")
    }

    fn hash(&self, x: Node, rows: u64, width: u32) -> Result<Shape, Error> {
        self.column(x)?;
        ok((1..=1 << 32).contains(&rows), ints(width), "a hash to no rows")
    }

    fn tensor(&self, id: TensorId) -> Result<&Tensor, Error> {
        self.tensors.get(id.0 as usize).map_or_else(|| wrong("there is no such tensor"), Ok)
    }

    /// x, which is as wide as the tensor, whose one row holds floats.
    fn row(&self, x: Node, tensor: TensorId) -> Result<Shape, Error> {
        let width = self.floats(x)?;
        ok(self.tensor(tensor)?.is_row(width), floats(width), "a row of another width")
    }
}

fn ints(width: u32) -> Shape {
    Shape { floats: false, width }
}

fn floats(width: u32) -> Shape {
    Shape { floats: true, width }
}

fn ok<T>(fine: bool, value: T, or: &str) -> Result<T, Error> {
    if fine { Ok(value) } else { wrong(or) }
}

/// A program whose operators fit together.
#[derive(Debug)]
pub struct Program {
    /// The operators.
    pub ops: Vec<Op>,
    /// Their values.
    pub shapes: Vec<Shape>,
}

impl Program {
    /// Checks operators; the last one's value must be of floats.
    pub fn new(ops: Vec<Op>, tensors: &[Tensor], scope: Scope<'_>) -> Result<Self, Error> {
        let mut shapes = Vec::with_capacity(ops.len());
        for op in &ops {
            let next = shape(op, &shapes, tensors, scope)?;
            shapes.push(next);
        }
        match shapes.last() {
            Some(Shape { floats: true, .. }) => Ok(Self { ops, shapes }),
            _ => wrong("a program without a result"),
        }
    }

    /// Columns of the result.
    pub fn width(&self) -> u32 {
        self.shapes.last().expect("checked").width
    }
}
