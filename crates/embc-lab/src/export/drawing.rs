//! What a model computes, drawn: the operators of each program one below the other, with an arc from
//! each to what reads it.

use super::{Exported, Format, Stated};
use anyhow::{Context, Result};
use embc_core::graph::device::program::{Int, Node, Op, TensorId};
use embc_core::graph::device::tensor::{Stored, Tensor};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

pub(super) struct Svg;

/// Heights and widths in pixels: of a line, of a column of arcs, of a character.
const LINE: usize = 20;
const ARC: usize = 9;
const CHARACTER: usize = 7;

impl Format for Svg {
    fn name(&self) -> &'static str {
        "svg"
    }
    fn doc(&self) -> &'static str {
        "program.svg, a drawing of what is computed, for people"
    }
    fn write(&self, stated: &Stated<'_>, folder: &Path) -> Result<Exported> {
        let path = folder.join("program.svg");
        let why = || format!("{}: cannot be written", path.display());
        std::fs::write(&path, svg(&programs(stated))).with_context(why)?;
        Ok(Exported { files: vec!["program.svg".into()], checked: None })
    }
}

/// A line for each operator: what it says, and which lines it reads.
type Program = Vec<(String, Vec<Node>)>;

/// The programs with their titles. Fields whose programs are alike but for sizes and names have one.
fn programs(stated: &Stated<'_>) -> Vec<(String, Program)> {
    let tensors = &stated.header.tensors;
    let lines = |ops: &[Op]| ops.iter().map(|op| (says(op, tensors), reads(op))).collect();
    let mut alike: BTreeMap<Vec<(&str, Vec<u32>)>, Vec<usize>> = BTreeMap::new();
    for (i, input) in stated.header.inputs.iter().enumerate() {
        let shape = |op: &Op| (op.name(), reads(op).iter().map(|node| node.0).collect());
        alike.entry(input.table.iter().map(shape).collect()).or_default().push(i);
    }
    let mut groups: Vec<Vec<usize>> = alike.into_values().collect();
    groups.sort();
    let mut all: Vec<(String, Program)> = Vec::new();
    for group in groups {
        let input = &stated.header.inputs[group[0]];
        let more = match group.len() {
            1 => String::new(),
            n => format!("; so are those of {} more", n - 1),
        };
        all.push((format!("the row of a {}{more}", input.name), lines(&input.table)));
    }
    if !stated.header.model.is_empty() {
        all.push(("the model".into(), lines(&stated.header.model)));
    }
    all
}

/// Programs side by side would be wider than pages: one below the other.
fn svg(programs: &[(String, Program)]) -> String {
    let (mut body, mut y, mut width) = (String::new(), LINE, 0);
    for (title, program) in programs {
        let far = |at: usize, node: &Node| at - node.0 as usize;
        let reach = program.iter().enumerate();
        let reach = reach.flat_map(|(at, (_, reads))| reads.iter().map(move |node| far(at, node)));
        let left = ARC * (2 + reach.max().unwrap_or(0).min(24));
        let _ = writeln!(
            body,
            "<text x=\"4\" y=\"{y}\" font-weight=\"bold\">{}</text>",
            escaped(title)
        );
        for (at, (says, reads)) in program.iter().enumerate() {
            let line = y + LINE * (at + 1);
            width = width.max(left + CHARACTER * (says.chars().count() + 2));
            let _ = writeln!(body, "<text x=\"{left}\" y=\"{line}\">{}</text>", escaped(says));
            for node in reads {
                let (from, to) = (y + LINE * (node.0 as usize + 1) - 4, line - 6);
                let out = left - 4 - ARC * far(at, node).min(24);
                let x = left - 4;
                let _ = writeln!(
                    body,
                    "<path d=\"M{x} {from} C{out} {from} {out} {to} {x} {to}\" fill=\"none\" stroke=\"#888\" marker-end=\"url(#to)\"/>"
                );
            }
        }
        width = width.max(CHARACTER * (title.chars().count() + 2));
        y += LINE * (program.len() + 2);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {y}\" width=\"{width}\" height=\"{y}\" font-family=\"monospace\" font-size=\"12\" fill=\"#808080\">\n<marker id=\"to\" orient=\"auto\" markerWidth=\"6\" markerHeight=\"6\" refX=\"5\" refY=\"3\"><path d=\"M0 0 L6 3 L0 6\" fill=\"#888\"/></marker>\n{body}</svg>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// The operators whose values one reads.
fn reads(op: &Op) -> Vec<Node> {
    match op {
        Op::Ids {} | Op::Input { .. } | Op::Dense { .. } => Vec::new(),
        Op::Int { x, .. }
        | Op::Mix64 { x, .. }
        | Op::Poly31 { x, .. }
        | Op::Blocks { x, .. }
        | Op::Signs { x, .. }
        | Op::BlockSigns { x, .. }
        | Op::Noise { x, .. }
        | Op::Unpack { x, .. }
        | Op::Column { x, .. }
        | Op::Within { x, .. }
        | Op::Runs { x, .. }
        | Op::Gather { x, .. }
        | Op::Spread { x, .. }
        | Op::Scale { x, .. }
        | Op::AddRow { x, .. }
        | Op::MulRow { x, .. }
        | Op::Slice { x, .. }
        | Op::Sum { x }
        | Op::Linear { x, .. }
        | Op::Mish { x }
        | Op::Relu { x }
        | Op::Dots { x, .. } => vec![*x],
        Op::Add { a, b } | Op::Mul { a, b } | Op::Contract { a, b, .. } => vec![*a, *b],
        Op::Select { when, yes, no } | Op::Either { when, yes, no } => vec![*when, *yes, *no],
        Op::Replace { x, when, .. } => vec![*x, *when],
        Op::Concat { parts } => parts.clone(),
    }
}

/// What an operator does, in a line; what it reads is where arcs come from.
fn says(op: &Op, tensors: &[Tensor]) -> String {
    let of = |id: &TensorId| named(&tensors[id.0 as usize]);
    match op {
        Op::Ids {} => "ids".into(),
        Op::Int { kind, by, .. } => match kind {
            Int::Add => format!("+ {by}"),
            Int::Sub => format!("- {by}"),
            Int::Mul => format!("* {by}"),
            Int::Div => format!("div {by}"),
            Int::Mod => format!("mod {by}"),
            Int::Min => format!("at most {by}"),
            Int::Max => format!("at least {by}"),
        },
        Op::Mix64 { rows, .. } => format!("hash (mix64) below {rows}"),
        Op::Poly31 { rows, .. } => format!("hash (linear mod 2^31 - 1) below {rows}"),
        Op::Blocks { rows, width, .. } => format!("{width} hashes below {rows}"),
        Op::Signs { .. } => "hashed sign".into(),
        Op::BlockSigns { width, .. } => format!("{width} hashed signs"),
        Op::Noise { width, .. } => format!("{width} hashed numbers"),
        Op::Unpack { tensor, .. } => format!("integers of {}", of(tensor)),
        Op::Column { at, .. } => format!("column {at}"),
        Op::Select { .. } | Op::Either { .. } => "one of both, by the first".into(),
        Op::Within { from, to, .. } => format!("is it within {from}..{to}?"),
        Op::Runs { width, block, cells, .. } => {
            format!("{width} cells in runs of {block}, of a ring of {cells}")
        }
        Op::Gather { tensor, .. } => format!("rows of {}", of(tensor)),
        Op::Spread { block, .. } => format!("each {block} times"),
        Op::Add { .. } => "sum of both".into(),
        Op::Mul { .. } => "product of both, by component".into(),
        Op::Scale { by, .. } => format!("* {by}"),
        Op::AddRow { tensor, .. } => format!("+ {}", of(tensor)),
        Op::MulRow { tensor, .. } => format!("* {}", of(tensor)),
        Op::Concat { .. } => "side by side".into(),
        Op::Slice { from, width, .. } => format!("columns {from}..{}", from + width),
        Op::Sum { .. } => "sum of columns".into(),
        Op::Linear { weight, bias, relu, .. } => {
            let bias = bias.as_ref().map_or(String::new(), |bias| format!(" + {}", of(bias)));
            format!("times {}{bias}{}", of(weight), if *relu { ", ReLU" } else { "" })
        }
        Op::Contract { rank, .. } => format!("product of both as matrices, over {rank}"),
        Op::Mish { .. } => "mish".into(),
        Op::Relu { .. } => "ReLU".into(),
        Op::Dots { .. } => "inner products of all pairs".into(),
        Op::Replace { tensor, .. } => format!("where the second says so, {}", of(tensor)),
        Op::Input { input, width } => format!("pooled rows of input {input} [{width}]"),
        Op::Dense { width } => format!("dense features [{width}]"),
    }
}

/// A tensor's name, shape and form.
fn named(tensor: &Tensor) -> String {
    let form = match tensor.stored {
        Stored::Float => "",
        Stored::Half => ", fp16",
        Stored::Levels { bits: 8, .. } => ", 8 bits",
        Stored::Levels { bits: 4, .. } => ", 4 bits",
        Stored::Levels { .. } => ", 2 bits",
        Stored::Packed { .. } => ", packed",
    };
    let name = tensor.name.split_once('/').map_or(&tensor.name[..], |(_, name)| name);
    format!("{name} [{} x {}{form}]", tensor.rows, tensor.width)
}
