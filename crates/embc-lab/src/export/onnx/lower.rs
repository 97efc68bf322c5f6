//! From the operators of a program to nodes of ONNX. Integers are int64 and, where they are hashed,
//! uint64: both wrap, and are exact in every engine. Every value is [N × width].

use super::writer::{Kind, Name, Writer, list, number, string};
use embc_core::graph::device::program::{Node, Op, Shape, TensorId};
use embc_core::graph::device::tensor::{Stored, Tensor};

/// Where the tensors lie.
pub struct Tensors<'a> {
    /// All tensors.
    pub tensors: &'a [Tensor],
    /// Where each blob begins in the data file.
    pub offsets: &'a [u64],
}

/// A program on its way.
pub struct Lower<'a> {
    /// What is written.
    pub to: &'a mut Writer,
    /// Its tensors.
    pub of: &'a Tensors<'a>,
    /// Shapes of its values.
    pub shapes: Vec<Shape>,
    /// Names of its values.
    pub values: Vec<Name>,
    /// What `Ids`, `Input` and `Dense` are.
    pub reads: Reads<'a>,
}

/// The values that a program begins with.
pub struct Reads<'a> {
    /// Ids [N × 1].
    pub ids: Option<Name>,
    /// Pooled rows of each input.
    pub pooled: &'a [Name],
    /// Dense features.
    pub dense: Option<Name>,
}

impl Lower<'_> {
    /// Writes the nodes of an operator.
    pub fn op(&mut self, op: &Op) {
        let value = match op {
            Op::Ids {} => self.reads.ids.clone().expect("a table reads ids"),
            Op::Input { input, .. } => self.reads.pooled[*input as usize].clone(),
            Op::Dense { .. } => self.reads.dense.clone().expect("dense features"),
            other => self.ints(other).or_else(|| self.floats(other)).expect("an operator"),
        };
        self.values.push(value);
    }

    fn of(&self, node: Node) -> Name {
        self.values[node.0 as usize].clone()
    }

    fn width(&self, node: Node) -> i64 {
        self.shapes[node.0 as usize].width.into()
    }

    fn ints(&mut self, op: &Op) -> Option<Name> {
        Some(match *op {
            Op::Int { x, kind, by } => {
                let (x, by) = (self.of(x), self.to.i64(by.into()));
                // ONNX calls them the same.
                let op = format!("{kind:?}");
                self.to.node(&op, &[&x, &by])
            }
            Op::Mix64 { x, key, rows } => {
                let hash = self.mixed(x, key);
                self.scaled(&hash, rows)
            }
            Op::Poly31 { x, key, rows } => {
                let x = self.of(x);
                let [key, prime, rows] =
                    [key as i64, 0x7FFF_FFFF, rows as i64].map(|x| self.to.i64(x));
                let product = self.to.node("Mul", &[&x, &key]);
                let hash = self.to.node("Mod", &[&product, &prime]);
                self.to.node("Mod", &[&hash, &rows])
            }
            Op::Blocks { x, key, rows, width } => {
                let hash = self.of_blocks(x, key, width);
                self.scaled(&hash, rows)
            }
            Op::Unpack { x, tensor } => self.unpack(x, tensor),
            Op::Column { x, at } => {
                let (x, at) = (self.of(x), self.to.i64s(&[at.into()], &[1]));
                self.to.gather(&x, &at, 1)
            }
            Op::Select { when, yes, no } => {
                let (when, yes, no) = (self.of(when), self.of(yes), self.of(no));
                let when = self.to.cast(&when, Kind::Bool);
                self.to.node("Where", &[&when, &yes, &no])
            }
            Op::Within { x, from, to } => {
                let (x, from, to) = (self.of(x), self.to.i64(from.into()), self.to.i64(to.into()));
                let (above, below) = (
                    self.to.node("GreaterOrEqual", &[&x, &from]),
                    self.to.node("Less", &[&x, &to]),
                );
                let inside = self.to.node("And", &[&above, &below]);
                self.to.cast(&inside, Kind::I64)
            }
            Op::Runs { x, width, block, cells } => {
                let firsts = self.spread(x, width, block);
                let within: Vec<i64> = (0..width).map(|c| (c % block).into()).collect();
                let within = self.to.i64s(&within, &[1, width.into()]);
                let cell = self.to.node("Add", &[&firsts, &within]);
                let cells = self.to.i64(cells as i64);
                self.to.node("Mod", &[&cell, &cells])
            }
            _ => return None,
        })
    }

    /// Column c / block of x, for each c below the width.
    fn spread(&mut self, x: Node, width: u32, block: u32) -> Name {
        let x = self.of(x);
        let columns: Vec<i64> = (0..width).map(|c| (c / block).into()).collect();
        let columns = self.to.i64s(&columns, &[width.into()]);
        self.to.gather(&x, &columns, 1)
    }

    /// mix64(x ⊕ key), unsigned.
    fn mixed(&mut self, x: Node, key: u64) -> Name {
        let (x, key) = (self.of(x), self.to.u64(key));
        let x = self.to.cast(&x, Kind::U64);
        let x = self.to.node("BitwiseXor", &[&x, &key]);
        self.mix64(&x)
    }

    fn of_blocks(&mut self, x: Node, key: u64, width: u32) -> Name {
        let of_id = self.mixed(x, key);
        let blocks: Vec<u64> = (0..u64::from(width)).collect();
        let blocks = self.to.u64s(&blocks, &[1, width.into()]);
        let x = self.to.node("BitwiseXor", &[&of_id, &blocks]);
        self.mix64(&x)
    }

    fn mix64(&mut self, x: &Name) -> Name {
        let mut x = x.clone();
        for (shift, factor) in [(30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)] {
            let shifted = self.shift(&x, shift);
            let (mixed, factor) =
                (self.to.node("BitwiseXor", &[&x, &shifted]), self.to.u64(factor));
            x = self.to.node("Mul", &[&mixed, &factor]);
        }
        let shifted = self.shift(&x, 31);
        self.to.node("BitwiseXor", &[&x, &shifted])
    }

    fn shift(&mut self, x: &Name, by: u64) -> Name {
        let by = self.to.u64(by);
        self.shift_by(x, &by)
    }

    fn shift_by(&mut self, x: &Name, by: &Name) -> Name {
        self.to.with("BitShift", &[x, by], vec![string("direction", "RIGHT")])
    }

    /// ⌊hash · rows / 2⁶⁴⌋, in halves.
    fn scaled(&mut self, hash: &Name, rows: u64) -> Name {
        let (rows, mask) = (self.to.u64(rows), self.to.u64(0xFFFF_FFFF));
        let (high, low) = (self.shift(hash, 32), self.to.node("BitwiseAnd", &[hash, &mask]));
        let (high, low) =
            (self.to.node("Mul", &[&high, &rows]), self.to.node("Mul", &[&low, &rows]));
        let carry = self.shift(&low, 32);
        let sum = self.to.node("Add", &[&high, &carry]);
        let row = self.shift(&sum, 32);
        self.to.cast(&row, Kind::I64)
    }

    /// x · width + first + (0, 1, …), the places of the values of rows [N × k·width].
    fn places(&mut self, x: &Name, k: i64, tensor: &Tensor) -> Name {
        let (width, first) = (i64::from(tensor.width), tensor.first as i64);
        let columns: Vec<i64> = (0..width).map(|c| first + c).collect();
        let (columns, by) = (self.to.i64s(&columns, &[1, 1, width]), self.to.i64(width));
        let x = self.to.reshape(x, &[-1, k, 1]);
        let start = self.to.node("Mul", &[&x, &by]);
        let places = self.to.node("Add", &[&start, &columns]);
        self.to.reshape(&places, &[-1, k * width])
    }

    fn unpack(&mut self, x: Node, tensor: TensorId) -> Name {
        let (x, tensor) = (self.of(x), self.of.tensors[tensor.0 as usize].clone());
        let offset = self.of.offsets[tensor.values as usize];
        let Stored::Packed { bits } = tensor.stored else { unreachable!("checked") };
        let (rows, width) = (tensor.rows as i64, i64::from(tensor.width));
        let whole = match bits {
            8 => Some(Kind::U8),
            16 => Some(Kind::U16),
            32 => Some(Kind::U32),
            _ => None,
        };
        if let Some(kind) = whole {
            let table = self.to.stored(&tensor.name, kind, &[rows, width], offset);
            let ints = self.to.gather(&table, &x, 0);
            let ints = self.to.cast(&ints, Kind::I64);
            return self.to.reshape(&ints, &[-1, width]);
        }
        let per_word = 64 / i64::from(bits);
        let words = (rows * width + per_word - 1) / per_word;
        let table = self.to.stored(&tensor.name, Kind::U64, &[words], offset);
        let places = self.places(&x, 1, &tensor);
        let (by, bits_each) = (self.to.i64(per_word), self.to.i64(bits.into()));
        let (word, place) =
            (self.to.node("Div", &[&places, &by]), self.to.node("Mod", &[&places, &by]));
        let word = self.to.gather(&table, &word, 0);
        let shift = self.to.node("Mul", &[&place, &bits_each]);
        let shift = self.to.cast(&shift, Kind::U64);
        let (ints, mask) = (self.shift_by(&word, &shift), self.to.u64(u64::MAX >> (64 - bits)));
        let ints = self.to.node("BitwiseAnd", &[&ints, &mask]);
        self.to.cast(&ints, Kind::I64)
    }

    /// Rows x [N × k] of a tensor of floats [N × k·width].
    fn rows(&mut self, x: &Name, k: i64, tensor: TensorId) -> Name {
        let tensor = self.of.tensors[tensor.0 as usize].clone();
        let (rows, width) = (tensor.rows as i64, i64::from(tensor.width));
        let at = |bytes: u64| self.of.offsets[tensor.values as usize] + bytes;
        let (kind, offset) = match tensor.stored {
            Stored::Float => (Kind::F32, at(4 * tensor.first)),
            Stored::Half => (Kind::F16, at(2 * tensor.first)),
            Stored::Levels { bits, group } => return self.levels(x, k, &tensor, bits, group),
            Stored::Packed { .. } => unreachable!("checked"),
        };
        let table = self.to.stored(&tensor.name, kind, &[rows, width], offset);
        let mut row = self.to.gather(&table, x, 0);
        if kind == Kind::F16 {
            row = self.to.cast(&row, Kind::F32);
        }
        self.to.reshape(&row, &[-1, k * width])
    }

    /// Rows of codes: least + code · step.
    fn levels(&mut self, x: &Name, k: i64, tensor: &Tensor, bits: u8, group: u32) -> Name {
        let codes = self.codes(x, k, tensor, bits);
        let values = tensor.rows * u64::from(tensor.width) + tensor.first;
        let ranges = values.div_ceil(group.into()) as i64;
        let offset = self.of.offsets[tensor.ranges.expect("codes have ranges") as usize];
        let name = format!("{} ranges", tensor.name);
        // Two bfloat16 each, the step first: as words are stored.
        let table = self.to.stored(&name, Kind::U16, &[ranges, 2], offset);
        let by = self.to.i64(group.into());
        let (width, group) = (i64::from(tensor.width), i64::from(group));
        let inside = group % width == 0 && (tensor.first as i64) % width == 0;
        // A row in one group needs one range, else each of its values looks for its own.
        let (places, each) = match inside {
            true => {
                let start =
                    Tensor { width: 1, first: tensor.first / width as u64, ..tensor.clone() };
                let row = self.places(x, k, &start);
                let width = self.to.i64(width);
                (self.to.node("Mul", &[&row, &width]), k)
            }
            false => (self.places(x, k, tensor), k * width),
        };
        let place = self.to.node("Div", &[&places, &by]);
        let pair = self.to.gather(&table, &place, 0);
        let pair = self.bfloats(&pair);
        let part = |at: i64, to: &mut Writer| {
            let at = to.i64s(&[at], &[1]);
            to.gather(&pair, &at, 2)
        };
        let (step, least) = (part(0, self.to), part(1, self.to));
        let codes = self.to.reshape(&codes, &[-1, each, k * width / each]);
        let steps = self.to.node("Mul", &[&codes, &step]);
        let row = self.to.node("Add", &[&least, &steps]);
        self.to.reshape(&row, &[-1, k * width])
    }

    /// Codes of rows as floats [N × k·width].
    fn codes(&mut self, x: &Name, k: i64, tensor: &Tensor, bits: u8) -> Name {
        let (rows, width) = (tensor.rows as i64, i64::from(tensor.width));
        let (per_byte, first) = (8 / i64::from(bits), tensor.first as i64);
        let offset = self.of.offsets[tensor.values as usize];
        let shifts: Vec<u8> = (0..per_byte).map(|i| i as u8 * bits).collect();
        let masked = |bytes: &Name, shifts: &Name, lower: &mut Self| {
            let codes = lower.shift_by(bytes, shifts);
            let mask = lower.to.u8s(&[u8::MAX >> (8 - bits)], &[]);
            lower.to.node("BitwiseAnd", &[&codes, &mask])
        };
        let codes = if width % per_byte == 0 && first % per_byte == 0 {
            // Rows of whole bytes.
            let (bytes, offset) = (width / per_byte, offset + (first / per_byte) as u64);
            let table = self.to.stored(&tensor.name, Kind::U8, &[rows, bytes], offset);
            let bytes = self.to.gather(&table, x, 0);
            if per_byte == 1 {
                bytes
            } else {
                let bytes = self.to.reshape(&bytes, &[-1, k * width / per_byte, 1]);
                let shifts = self.to.u8s(&shifts, &[per_byte]);
                masked(&bytes, &shifts, self)
            }
        } else {
            let bytes = (rows * width + first + per_byte - 1) / per_byte;
            let table = self.to.stored(&tensor.name, Kind::U8, &[bytes], offset);
            let (places, by) = (self.places(x, k, tensor), self.to.i64(per_byte));
            let (byte, place) =
                (self.to.node("Div", &[&places, &by]), self.to.node("Mod", &[&places, &by]));
            let bytes = self.to.gather(&table, &byte, 0);
            let shifts = self.to.u8s(&shifts, &[per_byte]);
            let shifts = self.to.gather(&shifts, &place, 0);
            masked(&bytes, &shifts, self)
        };
        self.to.cast(&codes, Kind::F32)
    }

    /// The floats that bfloat16 bits stand for, by integers: engines that lack the type have these.
    /// A power of two for sign and exponent, times 128 or 0 and the seven bits that are left.
    fn bfloats(&mut self, bits: &Name) -> Name {
        // In double precision, whose powers go far enough.
        let power = |exponent: u32| 2f64.powi(exponent.max(1) as i32 - 134) as f32;
        let scales: Vec<f32> =
            (0..512u32).map(|e| if e < 256 { power(e) } else { -power(e - 256) }).collect();
        let ones: Vec<f32> = (0..512).map(|e| if e % 256 == 0 { 0.0 } else { 128.0 }).collect();
        let (scales, ones) = (self.to.f32s(&scales, &[512]), self.to.f32s(&ones, &[512]));
        let (bits, by) = (self.to.cast(bits, Kind::I64), self.to.i64(128));
        let (high, low) = (self.to.node("Div", &[&bits, &by]), self.to.node("Mod", &[&bits, &by]));
        let (scale, one) = (self.to.gather(&scales, &high, 0), self.to.gather(&ones, &high, 0));
        let low = self.to.cast(&low, Kind::F32);
        let digits = self.to.node("Add", &[&one, &low]);
        self.to.node("Mul", &[&scale, &digits])
    }

    fn floats(&mut self, op: &Op) -> Option<Name> {
        Some(match *op {
            Op::Signs { x, key } => {
                let hash = self.mixed(x, key);
                self.sign(&hash)
            }
            Op::BlockSigns { x, key, width } => {
                let hash = self.of_blocks(x, key, width);
                self.sign(&hash)
            }
            Op::Noise { x, key, width } => {
                let hash = self.of_blocks(x, key, width);
                let bits = self.shift(&hash, 40);
                let bits = self.to.cast(&bits, Kind::F32);
                let (unit, one) = (self.to.f32(1.0 / (1u32 << 23) as f32), self.to.f32(1.0));
                let (x, root) = (self.to.node("Mul", &[&bits, &unit]), self.to.f32(3f32.sqrt()));
                let x = self.to.node("Sub", &[&x, &one]);
                self.to.node("Mul", &[&x, &root])
            }
            Op::Gather { x, tensor } => {
                let (name, k) = (self.of(x), self.width(x));
                self.rows(&name, k, tensor)
            }
            Op::Spread { x, width, block } => self.spread(x, width, block),
            Op::Add { a, b } => self.two("Add", a, b),
            Op::Mul { a, b } => self.two("Mul", a, b),
            Op::Scale { x, by } => {
                let (x, by) = (self.of(x), self.to.f32(by));
                self.to.node("Mul", &[&by, &x])
            }
            Op::AddRow { x, tensor } => self.with_row("Add", x, tensor),
            Op::MulRow { x, tensor } => self.with_row("Mul", x, tensor),
            Op::Concat { ref parts } => {
                let parts: Vec<Name> = parts.iter().map(|&part| self.of(part)).collect();
                let parts: Vec<&Name> = parts.iter().collect();
                self.to.with("Concat", &parts, vec![number("axis", 1)])
            }
            Op::Slice { x, from, width } => {
                // A Gather: tract pulls a Slice up through all that it is a slice of.
                let columns: Vec<i64> = (from..from + width).map(i64::from).collect();
                let (x, columns) = (self.of(x), self.to.i64s(&columns, &[width.into()]));
                self.to.gather(&x, &columns, 1)
            }
            Op::Sum { x } => {
                let (x, axis) = (self.of(x), self.to.i64s(&[1], &[1]));
                self.to.with("ReduceSum", &[&x, &axis], vec![number("keepdims", 1)])
            }
            ref other => return self.products(other),
        })
    }

    fn products(&mut self, op: &Op) -> Option<Name> {
        Some(match *op {
            Op::Linear { x, weight, bias, relu, by_output } => {
                let rows = self.of.tensors[weight.0 as usize].rows as i64;
                let x = self.of(x);
                let w = self.whole(weight, rows);
                let mut inputs = vec![x, w];
                inputs.extend(bias.map(|bias| self.row(bias)));
                let inputs: Vec<&Name> = inputs.iter().collect();
                let y = self.to.with("Gemm", &inputs, vec![number("transB", by_output.into())]);
                if relu { self.to.node("Relu", &[&y]) } else { y }
            }
            Op::Contract { a, b, rank } => {
                let r = i64::from(rank);
                let (p, q) = (self.width(a) / r, self.width(b) / r);
                let (a, b) = (self.of(a), self.of(b));
                let (a, b) = (self.to.reshape(&a, &[-1, p, r]), self.to.reshape(&b, &[-1, r, q]));
                let product = self.to.node("MatMul", &[&a, &b]);
                self.to.reshape(&product, &[-1, p * q])
            }
            Op::Mish { x } => {
                let x = self.of(x);
                self.to.node("Mish", &[&x])
            }
            Op::Relu { x } => {
                let x = self.of(x);
                self.to.node("Relu", &[&x])
            }
            Op::Dots { x, width } => {
                let vectors = self.width(x) / i64::from(width);
                let x = self.of(x);
                let z = self.to.reshape(&x, &[-1, vectors, width.into()]);
                let turned = self.to.with("Transpose", &[&z], vec![list("perm", &[0, 2, 1])]);
                let all = self.to.node("MatMul", &[&z, &turned]);
                let all = self.to.reshape(&all, &[-1, vectors * vectors]);
                let pairs: Vec<i64> =
                    (0..vectors).flat_map(|i| (0..i).map(move |j| i * vectors + j)).collect();
                let pairs = self.to.i64s(&pairs, &[pairs.len() as i64]);
                self.to.gather(&all, &pairs, 1)
            }
            Op::Either { when, yes, no } => {
                let (when, yes, no) = (self.of(when), self.of(yes), self.of(no));
                let when = self.to.cast(&when, Kind::Bool);
                self.to.node("Where", &[&when, &yes, &no])
            }
            Op::Replace { x, when, tensor } => {
                let (x, when) = (self.of(x), self.of(when));
                let (row, when) = (self.row(tensor), self.to.cast(&when, Kind::Bool));
                self.to.node("Where", &[&when, &row, &x])
            }
            _ => return None,
        })
    }

    /// −1 for odd hashes, else 1.
    fn sign(&mut self, hash: &Name) -> Name {
        let one = self.to.u64(1);
        let bit = self.to.node("BitwiseAnd", &[hash, &one]);
        let bit = self.to.cast(&bit, Kind::F32);
        let (by, one) = (self.to.f32(-2.0), self.to.f32(1.0));
        let x = self.to.node("Mul", &[&bit, &by]);
        self.to.node("Add", &[&x, &one])
    }

    fn two(&mut self, op: &str, a: Node, b: Node) -> Name {
        let (a, b) = (self.of(a), self.of(b));
        self.to.node(op, &[&a, &b])
    }

    fn with_row(&mut self, op: &str, x: Node, tensor: TensorId) -> Name {
        let (x, row) = (self.of(x), self.row(tensor));
        self.to.node(op, &[&x, &row])
    }

    /// A tensor of one row of plain floats.
    fn row(&mut self, tensor: TensorId) -> Name {
        self.whole(tensor, 1)
    }

    /// A tensor as a whole; codes are decoded by the graph.
    fn whole(&mut self, tensor: TensorId, rows: i64) -> Name {
        let id = tensor;
        let tensor = self.of.tensors[id.0 as usize].clone();
        if tensor.stored == Stored::Float {
            let offset = self.of.offsets[tensor.values as usize] + 4 * tensor.first;
            let dims = [rows, tensor.width.into()];
            return self.to.stored(&tensor.name, Kind::F32, &dims, offset);
        }
        let all: Vec<i64> = (0..rows).collect();
        let all = self.to.i64s(&all, &[rows, 1]);
        self.rows(&all, 1, id)
    }
}
