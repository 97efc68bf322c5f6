//! ONNX, opset 21: `model.onnx`, and its tensors beside it in `model.data`, each table at a page, so
//! that a runtime maps them instead of loading them.
//!
//! An input is int64 ids: [batch], or [batch × most] with −1 for none where an example has several;
//! `dense` is double [batch × features] as the data has them, NaN where a value is missing. The
//! output is `logits`, or with `--part embedding` a `FIELD_row` each; where a field has such a name
//! already, theirs ends in `_`.

mod lower;
mod proto;
mod writer;

use super::{Exported, Format, Stated};
use anyhow::Result;
use embc_core::graph::device::Transform;
use embc_core::graph::device::file::{Header, Input};
use embc_core::graph::device::program::Program;
use lower::{Lower, Reads, Tensors};
use prost::Message;
use proto::{Model, Opset, Size};
use std::io::Write;
use std::path::Path;
use writer::{DATA, Kind, Name, Writer, number};

pub(super) struct Onnx;

/// The set of operators: BitwiseXor and Mish came with 18; 21 is what runtimes of 2024 have.
const OPSET: i64 = 21;
const IR: i64 = 10;

impl Format for Onnx {
    fn name(&self) -> &'static str {
        "onnx"
    }
    fn doc(&self) -> &'static str {
        "model.onnx and model.data, for ONNX Runtime and others: in Python, on servers, in apps"
    }
    fn write(&self, stated: &Stated<'_>, folder: &Path) -> Result<Exported> {
        // What was there stays, until what takes its place has been checked: its programs are those of
        // a packed file, which is run.
        let scratch = tempfile::tempdir_in(folder)?;
        let checked = super::packed::pack(stated, &scratch.path().join(super::packed::FILE))?;
        let files = write(&stated.header, &stated.blobs().collect::<Vec<&[u8]>>(), folder)?;
        Ok(Exported { files, checked: Some(checked) })
    }
}

/// Writes what a packed file's header says, and its blobs, as ONNX; returns the files' names.
pub fn write(header: &Header, blobs: &[&[u8]], folder: &Path) -> Result<Vec<String>> {
    let mut header = header.clone();
    header.place(&blobs.iter().map(|blob| blob.len() as u64).collect::<Vec<u64>>());
    // Blobs lie as in a packed file, but from the start of a file of their own.
    let first = header.blobs.first().map_or(0, |blob| blob.offset / 4096 * 4096);
    let offsets: Vec<u64> = header.blobs.iter().map(|blob| blob.offset - first).collect();
    let model = model(&header, &offsets)?;
    let scratch = tempfile::tempdir_in(folder)?;
    let write = |name: &str, content: &dyn Fn(&mut dyn Write) -> std::io::Result<()>| {
        let path = scratch.path().join(name);
        embc_data::atomic::write(&path, |file| {
            content(file).map_err(|error| embc_data::Error::io(&path, &error))
        })
    };
    write(DATA, &|file| {
        let mut at = 0;
        for (blob, &offset) in blobs.iter().zip(&offsets) {
            file.write_all(&vec![0; (offset - at) as usize])?;
            file.write_all(blob)?;
            at = offset + blob.len() as u64;
        }
        Ok(())
    })?;
    write(MODEL, &|file| file.write_all(&model.encode_to_vec()))?;
    // An old graph must not meet new tensors.
    let _ = std::fs::remove_file(folder.join(MODEL));
    for name in [DATA, MODEL] {
        std::fs::rename(scratch.path().join(name), folder.join(name))?;
    }
    embc_data::atomic::sync_folder(folder)?;
    Ok(vec![MODEL.into(), DATA.into()])
}

/// The name of the file of the graph.
const MODEL: &str = "model.onnx";

/// The messages of a model whose blobs begin at `offsets` of the data file.
fn model(header: &Header, offsets: &[u64]) -> Result<Model> {
    let tensors = Tensors { tensors: &header.tensors, offsets };
    let programs = header.programs()?;
    let mut to = Writer::default();
    let taken: Vec<&str> = header.inputs.iter().map(|input| &input.name[..]).collect();
    let free = |name: &str| {
        let mut name = name.to_string();
        while taken.contains(&&name[..]) {
            name.push('_');
        }
        name
    };
    let mut pooled = Vec::new();
    for (input, program) in header.inputs.iter().zip(&programs.tables) {
        pooled.push(pooled_row(&mut to, &tensors, input, program, header.mean));
    }
    match &programs.model {
        None => {
            for ((row, input), program) in pooled.iter().zip(&header.inputs).zip(&programs.tables) {
                to.output(row, &free(&format!("{}_row", input.name)), program.width());
            }
        }
        Some(program) => {
            let dense =
                (!header.features.is_empty()).then(|| dense(&mut to, header, &free("dense")));
            let reads = Reads { ids: None, pooled: &pooled, dense };
            let logits = run(&mut to, &tensors, program, reads);
            to.output(&logits, &free("logits"), program.width());
        }
    }
    let mut graph = to.graph;
    graph.name = "embc".into();
    Ok(Model {
        ir_version: IR,
        producer_name: "embc".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: header.about.clone(),
        graph: Some(graph),
        opset_import: vec![Opset { domain: String::new(), version: OPSET }],
    })
}

/// The nodes of a program; the name of its result.
fn run(to: &mut Writer, of: &Tensors<'_>, program: &Program, reads: Reads<'_>) -> Name {
    let mut lower = Lower { to, of, shapes: program.shapes.clone(), values: Vec::new(), reads };
    program.ops.iter().for_each(|op| lower.op(op));
    lower.values.pop().expect("a result")
}

/// The rows of an input's ids, pooled [batch × width].
fn pooled_row(
    to: &mut Writer,
    of: &Tensors<'_>,
    input: &Input,
    program: &Program,
    mean: bool,
) -> Name {
    let batch = Size::Named("batch".into());
    let doc = format!("ids of {}, 0 to {}", input.name, input.vocab - 1);
    let row = |to: &mut Writer, ids: &Name| {
        let ids = to.reshape(ids, &[-1, 1]);
        run(to, of, program, Reads { ids: Some(ids), pooled: &[], dense: None })
    };
    if !input.several {
        let ids = to.input(&input.name, Kind::I64, &[batch], &doc);
        return row(to, &ids);
    }
    let most = Size::Named(format!("most {}", input.name));
    let ids = to.input(&input.name, Kind::I64, &[batch, most], &(doc + "; -1 for none"));
    let zero = to.i64(0);
    let there = to.node("GreaterOrEqual", &[&ids, &zero]);
    let mut share = to.cast(&there, Kind::F32);
    let known = to.node("Max", &[&ids, &zero]);
    let rows = row(to, &known);
    let (shape, width) = (to.node("Shape", &[&ids]), to.i64s(&[program.width().into()], &[1]));
    let shape = to.with("Concat", &[&shape, &width], vec![number("axis", 0)]);
    // An example without ids may have no column at all: 0 is then no copy of a dimension.
    let rows = to.with("Reshape", &[&rows, &shape], vec![number("allowzero", 1)]);
    let axis = to.i64s(&[1], &[1]);
    if mean {
        let n = to.with("ReduceSum", &[&share, &axis], vec![number("keepdims", 1)]);
        let one = to.f32(1.0);
        let n = to.node("Max", &[&n, &one]);
        share = to.node("Div", &[&share, &n]);
    }
    let last = to.i64s(&[2], &[1]);
    let share = to.node("Unsqueeze", &[&share, &last]);
    let rows = to.node("Mul", &[&rows, &share]);
    to.with("ReduceSum", &[&rows, &axis], vec![number("keepdims", 0)])
}

/// What the model sees of the dense features [batch × features].
fn dense(to: &mut Writer, header: &Header, name: &str) -> Name {
    let n = header.features.len() as i64;
    let names: Vec<&str> = header.features.iter().map(|feature| &feature.name[..]).collect();
    let dims = [Size::Named("batch".into()), Size::Known(n)];
    let x = to.input(name, Kind::F64, &dims, &format!("{}; NaN for none", names.join(", ")));
    let single = to.cast(&x, Kind::F32);
    // In double precision, but of the single one, as in training.
    let seen = match header.transform {
        Transform::Raw => single,
        Transform::Log1p => {
            let (zero, one) = (to.f64s(&[0.0], &[]), to.f64s(&[1.0], &[]));
            let x = to.cast(&single, Kind::F64);
            let x = to.node("Max", &[&x, &zero]);
            let x = to.node("Add", &[&x, &one]);
            let x = to.node("Log", &[&x]);
            to.cast(&x, Kind::F32)
        }
        Transform::FloorLog2 => {
            let (two, one) = (to.f64s(&[2.0], &[]), to.f64s(&[1.0], &[]));
            let above = to.node("Greater", &[&x, &two]);
            let of = to.cast(&single, Kind::F64);
            let safe = to.node("Max", &[&of, &one]);
            let log = to.node("Log", &[&safe]);
            // Floors are of the single-precision square.
            let log = to.cast(&log, Kind::F32);
            let square = to.node("Mul", &[&log, &log]);
            let floor = to.node("Floor", &[&square]);
            to.node("Where", &[&above, &floor, &single])
        }
        Transform::Standard => {
            let shifts: Vec<f64> = header.features.iter().map(|feature| feature.shift).collect();
            let scales: Vec<f64> = header.features.iter().map(|feature| feature.scale).collect();
            let (shifts, scales) = (to.f64s(&shifts, &[1, n]), to.f64s(&scales, &[1, n]));
            let x = to.node("Sub", &[&x, &shifts]);
            let x = to.node("Mul", &[&x, &scales]);
            to.cast(&x, Kind::F32)
        }
    };
    // NaN is not itself; tract's IsNaN is not of booleans.
    let (there, zero) = (to.node("Equal", &[&x, &x]), to.f32(0.0));
    to.node("Where", &[&there, &seen, &zero])
}
