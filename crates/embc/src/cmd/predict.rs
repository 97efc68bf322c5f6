//! `embc predict`: what a saved model says of the rows of any file, or the best items of its users.

use super::Outcome;
use crate::cli::{Global, Predict as Args};
use crate::progress::DataProgress;
use anyhow::{Result, bail};
use embc_data::table::{Cell, Kind, Table};
use embc_lab::artefact::Model;
use embc_lab::predict::Predictor;
use embc_lab::top::{Left, top};
use embc_lab::units::count;
use std::io::Write;

pub fn run(args: &Args, global: &Global) -> Result<Outcome> {
    let model = Model::load(&args.model)?;
    let Some(path) = &args.output else {
        write(model, args, global, std::io::stdout(), false)?;
        return Ok(Outcome::Fine);
    };
    let parquet = match path.extension().and_then(|extension| extension.to_str()) {
        None | Some("csv") => false,
        Some("parquet") => true,
        _ => bail!("--output {}: write .csv or .parquet", path.display()),
    };
    let mut failed = None;
    let written = embc_data::atomic::write(path, |file| {
        write(model, args, global, file.as_file(), parquet).map_err(|error| {
            failed = Some(error);
            embc_data::Error::Cancelled
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    written?;
    Ok(Outcome::Fine)
}

fn write(
    model: Model,
    args: &Args,
    global: &Global,
    out: impl Write + Send,
    parquet: bool,
) -> Result<()> {
    match args.top {
        Some(n) => best(model, n, args, global, out, parquet),
        None => scores(Predictor::new(model)?, args, global, out, parquet),
    }
}

/// Writes `row,score`, or `row,class,score`; rows count from 0.
fn scores(
    mut predictor: Predictor,
    args: &Args,
    global: &Global,
    out: impl Write + Send,
    parquet: bool,
) -> Result<()> {
    let outputs = predictor.outputs();
    let columns = [("row", Kind::Int), ("class", Kind::Int), ("score", Kind::Float)];
    let wanted: Vec<_> = columns.into_iter().filter(|c| outputs > 1 || c.0 != "class").collect();
    let mut table = Table::new(out, parquet, &wanted)?;
    let (mut row, mut progress) = (0u64, DataProgress::new("predict", global.quiet));
    predictor.files(
        &args.files,
        &global.data_dir,
        args.memory.0,
        &mut |at| progress.watch(at),
        &mut |scores, _| {
            for scores in scores.chunks_exact(outputs) {
                for (class, &score) in (0..).zip(scores) {
                    match outputs {
                        1 => table.row(&[Cell::Int(row), Cell::Float(score)])?,
                        _ => table.row(&[Cell::Int(row), Cell::Int(class), Cell::Float(score)])?,
                    }
                }
                row += 1;
            }
            Ok(())
        },
    )?;
    table.finish()?;
    for (name, all, unknown) in predictor.unknown() {
        say_unknown(&name, all, unknown);
    }
    Ok(())
}

fn say_unknown(name: &str, all: u64, unknown: u64) {
    if unknown > 0 {
        let share = 100.0 * unknown as f64 / all as f64;
        let (unknown, all) = (count(unknown), count(all));
        eprintln!("{name}: {unknown} of {all} values are unknown to the model, {share:.1} %");
    }
}

/// Writes `user,rank,item,score`; ranks count from 1.
fn best(
    mut model: Model,
    n: usize,
    args: &Args,
    global: &Global,
    out: impl Write,
    parquet: bool,
) -> Result<()> {
    if n == 0 {
        bail!("--top 0: how many items of each user?");
    }
    let columns =
        [("user", Kind::Text), ("rank", Kind::Int), ("item", Kind::Text), ("score", Kind::Float)];
    let mut table = Table::new(out, parquet, &columns)?;
    let mut progress = DataProgress::new("predict", global.quiet);
    let left: Left = top(
        &mut model,
        &args.files,
        &global.data_dir,
        args.memory.0,
        n,
        &mut |at| progress.watch(at),
        &mut |user, best| {
            for (rank, &(item, score)) in (1..).zip(best) {
                let cells =
                    [Cell::Text(user), Cell::Int(rank), Cell::Text(item), Cell::Float(score)];
                table.row(&cells)?;
            }
            Ok(())
        },
    )?;
    table.finish()?;
    say_unknown("items", left.events, left.unknown);
    if left.blank > 0 {
        let (blank, users) = (count(left.blank), count(left.users));
        eprintln!("{blank} of {users} users have no item that the model knows: none is offered");
    }
    Ok(())
}
