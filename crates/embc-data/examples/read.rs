//! Read a CSV of one's own, split it, and walk over its batches:
//! `cargo run --release -p embc-data --example read`

use embc_core::batch::{Data, Examples, Order, Protocol, Split};
use embc_data::dataset::{DEFAULT_MEMORY, open};
use embc_data::registry::Registry;
use embc_data::view::ViewSpec;
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::temp_dir().join(format!("embc-read-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let rows = (0..1000).map(|i| format!("{},u{},i{},{}\n", i % 3 / 2, i % 70, i % 90, i % 11));
    std::fs::write(
        folder.join("clicks.csv"),
        format!("click,user,item,price\n{}", rows.collect::<String>()),
    )?;
    std::fs::write(
        folder.join("mine.toml"),
        "[shop]\ntitle = \"clicks\"\nformat = \"csv\"\nsplit = { rule = \"tail\", valid = 0.1, test = 0.1 }\ncolumns = { label = \"click\", dense = [\"price\"], categorical = [\"user\", \"item\"] }\nfiles.data = { path = \"clicks.csv\" }\n",
    )?;
    let registry = Registry::load(&[folder.join("mine.toml")])?;
    let shop = registry.get("shop").ok_or("no such data set")?;
    let (spec, by) = (ViewSpec::default(), Examples::Rows);
    let view = open(shop, &folder.join("data"), DEFAULT_MEMORY, spec, by, &mut |_| Ok(()))?;
    for field in &view.shape().fields {
        println!("{}: {} ids", field.name, field.vocab);
    }
    let (mut examples, mut positives) = (0, 0.0);
    let order = Order { seed: 1, epoch: 0, batch: 64, skip: 0, train_unknown: false };
    view.train(order, &mut |batch| {
        (examples, positives) =
            (examples + batch.size, positives + batch.labels.iter().sum::<f32>());
        ControlFlow::Continue(())
    });
    println!("an epoch has {examples} examples, {positives} of them positive");
    view.eval(Split::Test, Protocol::Rows, 1024, &mut |batch| {
        println!("the test rows are {} to {}", batch.rows[0], batch.rows[batch.size - 1]);
        ControlFlow::Continue(())
    });
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
