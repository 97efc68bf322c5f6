//! Sweep an experiment's trials and compare two of its schemes, as a program of your own would:
//! `cargo run --release -p embc-lab --example sweep`

use anyhow::{Context, Result};
use embc_core::cancel::Cancel;
use embc_data::{dataset, registry::Registry};
use embc_lab::{
    bench::Bench, config::Experiment, desk::Desk, difference::Difference, executor::Threads,
    grid::Grid, memory::Memory, sweep::Sweep, watch::Nobody,
};
use std::path::Path;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = tempfile::tempdir()?;
    let fewer = ["train.epochs=3".to_string()];
    let experiment = Experiment::load(&root.join("configs/quickstart.toml"), &fewer)?;
    let registry = Registry::load(&[])?;
    let entry = registry.get(&experiment.dataset).context("no such data")?;
    let (asked, by) = (experiment.data.clone(), experiment.examples()?);
    let watch = &mut |_| Ok(());
    let data = dataset::open(entry, folder.path(), dataset::DEFAULT_MEMORY, asked, by, watch)?;

    let bench = Bench::new(entry, &data, false);
    bench.check(&experiment)?;
    let desk = Desk::open(&folder.path().join("results"), &experiment.name, Default::default())?;
    let sweep = Sweep { experiment: &experiment, bench: &bench, desk: &desk, filter: None };
    let (memory, cancel) = (Memory::free_now(), Cancel::default());
    let threads = Threads::new(&bench, &memory, &Nobody, cancel.part());
    println!("{:?}", sweep.run(&threads, &memory, &Nobody, &cancel)?);

    let records = desk.into_records();
    let grid = Grid::new(&experiment, &records)?;
    for budget in &grid.budgets {
        let cell = |scheme| grid.cell(scheme, budget).map(|cell| &cell.records[..]);
        let (memcom, full) = (cell("memcom").context("trained")?, cell("full").context("trained")?);
        let difference = Difference::between(memcom, full, "test/auc").context("shared seeds")?;
        println!("memcom - full at {budget}x: test/auc {}", difference.text());
    }
    Ok(())
}
