//! An ONNX graph on its way: nodes, constants, and tensors that lie in the data file.

use super::proto::{
    Attribute, Dim, Entry, Graph, Node, Shape, Size, Tensor, TensorType, Type, Value,
};
use prost::Message;
use std::collections::HashMap;

/// Element types, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    F32 = 1,
    U8 = 2,
    U16 = 4,
    I64 = 7,
    Bool = 9,
    F16 = 10,
    F64 = 11,
    U32 = 12,
    U64 = 13,
}

impl Kind {
    fn bytes(self) -> u64 {
        match self {
            Kind::U8 | Kind::Bool => 1,
            Kind::U16 | Kind::F16 => 2,
            Kind::F32 | Kind::U32 => 4,
            Kind::I64 | Kind::F64 | Kind::U64 => 8,
        }
    }
}

/// The name of a value.
pub type Name = String;

/// What is written.
#[derive(Default)]
pub struct Writer {
    /// The graph.
    pub graph: Graph,
    /// Constants that exist: by type, shape and bytes.
    constants: HashMap<(Kind, Vec<i64>, Vec<u8>), Name>,
    /// Tensors of the data file that exist: by type, shape and place.
    external: HashMap<(Kind, Vec<i64>, u64), Name>,
    /// Nodes that exist: by all but their name. What is computed twice is computed once.
    nodes: HashMap<Vec<u8>, Name>,
}

/// The name of the file of tensors.
pub const DATA: &str = "model.data";

impl Writer {
    /// A node with one output.
    pub fn node(&mut self, op: &str, inputs: &[&Name]) -> Name {
        self.with(op, inputs, Vec::new())
    }

    /// A node with attributes.
    pub fn with(&mut self, op: &str, inputs: &[&Name], attribute: Vec<Attribute>) -> Name {
        let input = inputs.iter().map(|name| (*name).clone()).collect();
        let mut node = Node { input, op_type: op.into(), attribute, ..Node::default() };
        let of = node.encode_to_vec();
        if let Some(known) = self.nodes.get(&of) {
            return known.clone();
        }
        node.name = format!("embc/{}_{}", op.to_lowercase(), self.nodes.len());
        let name = node.name.clone();
        node.output = vec![name.clone()];
        self.graph.node.push(node);
        self.nodes.insert(of, name.clone());
        name
    }

    /// A node that keeps its name: an output of the graph.
    pub fn output(&mut self, from: &Name, name: &str, columns: u32) {
        self.graph.node.push(Node {
            input: vec![from.clone()],
            output: vec![name.into()],
            name: name.into(),
            op_type: "Identity".into(),
            attribute: Vec::new(),
        });
        let dims = [Size::Named("batch".into()), Size::Known(columns.into())];
        self.graph.output.push(value(name, Kind::F32, &dims, ""));
    }

    /// An input of the graph.
    pub fn input(&mut self, name: &str, kind: Kind, dims: &[Size], doc: &str) -> Name {
        self.graph.input.push(value(name, kind, dims, doc));
        name.into()
    }

    /// A cast.
    pub fn cast(&mut self, x: &Name, to: Kind) -> Name {
        self.with("Cast", &[x], vec![number("to", to as i64)])
    }

    /// Rows x of a tensor; or with `axis` 1 its columns.
    pub fn gather(&mut self, from: &Name, x: &Name, axis: i64) -> Name {
        self.with("Gather", &[from, x], vec![number("axis", axis)])
    }

    /// Another shape; −1 is what is left.
    pub fn reshape(&mut self, x: &Name, shape: &[i64]) -> Name {
        let shape = self.i64s(shape, &[shape.len() as i64]);
        self.node("Reshape", &[x, &shape])
    }

    /// A constant.
    fn constant(&mut self, kind: Kind, dims: &[i64], bytes: Vec<u8>) -> Name {
        let key = (kind, dims.to_vec(), bytes);
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let name = format!("embc/constant_{}", self.constants.len());
        self.graph.initializer.push(Tensor {
            dims: dims.to_vec(),
            data_type: kind as i32,
            name: name.clone(),
            raw_data: Some(key.2.clone()),
            external_data: Vec::new(),
            data_location: 0,
        });
        self.constants.insert(key, name.clone());
        name
    }

    /// Constant integers.
    pub fn i64s(&mut self, values: &[i64], dims: &[i64]) -> Name {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(Kind::I64, dims, bytes)
    }

    /// A constant integer.
    pub fn i64(&mut self, value: i64) -> Name {
        self.i64s(&[value], &[])
    }

    /// Constant unsigned integers.
    pub fn u64s(&mut self, values: &[u64], dims: &[i64]) -> Name {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(Kind::U64, dims, bytes)
    }

    /// A constant unsigned integer.
    pub fn u64(&mut self, value: u64) -> Name {
        self.u64s(&[value], &[])
    }

    /// Constant bytes.
    pub fn u8s(&mut self, values: &[u8], dims: &[i64]) -> Name {
        self.constant(Kind::U8, dims, values.to_vec())
    }

    /// Constant floats.
    pub fn f32s(&mut self, values: &[f32], dims: &[i64]) -> Name {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(Kind::F32, dims, bytes)
    }

    /// A constant float.
    pub fn f32(&mut self, value: f32) -> Name {
        self.f32s(&[value], &[])
    }

    /// Constant doubles.
    pub fn f64s(&mut self, values: &[f64], dims: &[i64]) -> Name {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.constant(Kind::F64, dims, bytes)
    }

    /// A tensor of the data file, whose bytes begin at `offset`.
    pub fn stored(&mut self, name: &str, kind: Kind, dims: &[i64], offset: u64) -> Name {
        let key = (kind, dims.to_vec(), offset);
        if let Some(known) = self.external.get(&key) {
            return known.clone();
        }
        let name = format!("embc/{name} ({})", self.external.len());
        let length = dims.iter().product::<i64>() as u64 * kind.bytes();
        let entry = |key: &str, value: String| Entry { key: key.into(), value };
        self.graph.initializer.push(Tensor {
            dims: dims.to_vec(),
            data_type: kind as i32,
            name: name.clone(),
            raw_data: None,
            external_data: vec![
                entry("location", DATA.into()),
                entry("offset", offset.to_string()),
                entry("length", length.to_string()),
            ],
            data_location: 1,
        });
        self.external.insert(key, name.clone());
        name
    }
}

/// An attribute that is a number.
pub fn number(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i, kind: 2, ..Attribute::default() }
}

/// An attribute that is a string.
pub fn string(name: &str, s: &str) -> Attribute {
    Attribute { name: name.into(), s: s.into(), kind: 3, ..Attribute::default() }
}

/// An attribute that is a list.
pub fn list(name: &str, ints: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: ints.to_vec(), kind: 7, ..Attribute::default() }
}

fn value(name: &str, kind: Kind, dims: &[Size], doc: &str) -> Value {
    let dim = dims.iter().map(|size| Dim { size: Some(size.clone()) }).collect();
    let tensor = TensorType { elem_type: kind as i32, shape: Some(Shape { dim }) };
    Value { name: name.into(), r#type: Some(Type { tensor: Some(tensor) }), doc_string: doc.into() }
}
