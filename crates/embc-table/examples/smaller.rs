//! A table in the best form that fits a tenth of its bytes, and what it says of a row:
//! `cargo run --release -p embc-table --example smaller`

use embc_core::cancel::Cancel;
use embc_core::rng::Rng;
use embc_table::choose::{Asked, choose, methods};
use embc_table::packed::Packed;
use embc_table::table::{Held, Rows, Table};
use std::sync::Arc;

fn main() -> anyhow::Result<()> {
    let (rows, dim) = (5000, 32);
    let mut rng = Rng::stream(1, "table");
    let topics: Vec<f32> = (0..50 * dim).map(|_| rng.normal() as f32).collect();
    let value = |at: usize| topics[at / dim % 50 * dim + at % dim] + 0.3 * rng.normal() as f32;
    let values: Vec<f32> = (0..rows * dim).map(value).collect();
    let held = Held { dim, values: values.clone() };
    let table = Table::new([rows, dim], "f32", 0, Arc::new(held));
    let (cancel, scratch) = (Cancel::default(), tempfile::tempdir()?);
    let asked = Asked {
        budgets: vec![(4 * rows * dim / 10) as u64],
        methods: methods(&[])?,
        tasks: &[],
        beside: Vec::new(),
        seed: 1,
        cancel: &cancel,
    };
    let answer = choose(&table, &asked, scratch.path(), &mut |_, _, tried| {
        let Some(tried) = tried else { return };
        let kept = &tried.kept[0];
        let (method, sizes, bytes) = (&tried.method, &tried.sizes, tried.bytes);
        let (error, neighbours) = (kept.error, kept.neighbours);
        println!("{method}, {sizes}: {bytes} bytes, error {error:.3}, neighbours {neighbours:.3}");
    })?;
    let best = &answer.tried[answer.best[0].expect("something fits")];
    let mut row = vec![0.0; dim];
    Packed::open(&best.path)?.read(7, &mut row)?;
    println!(
        "the best is {}; row 7 begins with {:.3?}, before {:.3?}",
        best.method,
        &row[..3],
        &values[7 * dim..][..3]
    );
    Ok(())
}
