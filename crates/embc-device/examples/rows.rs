//! The row of a value, and the score of an example that has the first id of every input:
//! `cargo run --release -p embc-device --example rows -- model.embc user 42`.

use embc_device::{Bag, Error, Model, Reader};
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, name, value] = &arguments[..] else {
        return Err(Error("usage: rows MODEL.embc INPUT VALUE".into()));
    };
    let model = Arc::new(Model::open(Path::new(path))?);
    let input = model.input(name).ok_or(Error(format!("the model has no input {name}")))?;
    let id = model.id(input, value.as_bytes());
    let id = id.ok_or(Error(format!("the model does not know {value}")))?;
    let mut reader = Reader::new(model.clone())?;
    let mut row = vec![0.0; model.width(input)];
    reader.rows(input, &[id], &mut row)?;
    println!("{id} {row:?}");
    if model.outputs() > 0 {
        let first = Bag { ids: &[0], offsets: &[] };
        let bags = vec![first; model.header().inputs.len()];
        let dense = vec![0.0; model.header().features.len()];
        let mut logits = vec![0.0; model.outputs()];
        reader.score(&bags, &dense, &mut logits)?;
        println!("{logits:?}");
    }
    Ok(())
}
