//! What sharing a folder costs: processes that take trials which only sleep, and ten thousand records
//! as files and folded: `cargo bench -p embc-lab --bench workers`

use anyhow::{Context, Result};
use embc_core::cancel::Cancel;
use embc_data::{dataset, lease::TERM, registry::Registry};
use embc_lab::desk::{Answer, Desk};
use embc_lab::record::{Record, Status};
use embc_lab::store::{Book, Results};
use embc_lab::{bench::Bench, config::Experiment, order::Order, plan};
use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const TRIAL: Duration = Duration::from_secs(1);
/// Of each worker.
const TRIALS: usize = 125;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().collect();
    if let [_, role, folder, trials] = &words[..]
        && role == "worker"
    {
        return work(Path::new(folder), trials.parse()?);
    }
    println!("| workers | trials | seconds | trials a second | time not in trials |");
    println!("|---|---|---|---|---|");
    for workers in [1, 2, 4, 8] {
        let folder = tempfile::tempdir()?;
        with_bench(folder.path(), 1, |_, _| Ok(()))?;
        let (start, trials) = (Instant::now(), workers * TRIALS);
        let child = || {
            let mut child = Command::new(std::env::current_exe()?);
            child.arg("worker").arg(folder.path()).arg(trials.to_string());
            child.stdout(Stdio::piped()).spawn()
        };
        let children = (0..workers).map(|_| child()).collect::<std::io::Result<Vec<_>>>()?;
        let mut other = 0.0;
        for child in children {
            let said = child.wait_with_output()?.stdout;
            other += String::from_utf8(said)?.trim().parse::<f64>().context("a worker's share")?;
        }
        let (seconds, each) = (start.elapsed().as_secs_f64(), other / workers as f64);
        let rate = trials as f64 / seconds;
        println!("| {workers} | {trials} | {seconds:.1} | {rate:.2} | {:.2} % |", 100.0 * each);
    }
    many(10_000)
}

/// Calls with orders of an experiment on its data.
fn with_bench(
    folder: &Path,
    trials: usize,
    call: impl FnOnce(&Bench<'_>, Vec<Order>) -> Result<()>,
) -> Result<()> {
    let seeds: Vec<usize> = (1..=trials).collect();
    let sets = [format!("train.seeds={seeds:?}"), "budget.compression=[4]".into()];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let experiment = Experiment::load(&root.join("configs/quickstart.toml"), &sets)?;
    let registry = Registry::load(&[])?;
    let entry = registry.get(&experiment.dataset).context("no such data")?;
    let (asked, by, watch) = (experiment.data.clone(), experiment.examples()?, &mut |_| Ok(()));
    let data = dataset::open(entry, folder, dataset::DEFAULT_MEMORY, asked, by, watch)?;
    let bench = Bench::new(entry, &data, false);
    let all = plan::trials(&experiment)?;
    let orders = all.iter().take(trials).map(|trial| bench.order(trial, &experiment)).collect();
    call(&bench, orders)
}

fn record(bench: &Bench<'_>, order: &Order) -> Record {
    let blank = bench.ended(order, Status::Ok, String::new());
    // As long as a record is.
    let curve = vec![order.metrics().iter().map(|m| (format!("valid/{m}"), 0.5)).collect(); 60];
    Record { error: None, evaluated: order.metrics(), curve, ..blank }
}

/// Takes trials until none is left; prints the share of the time that was not spent in them.
fn work(folder: &Path, trials: usize) -> Result<()> {
    with_bench(folder, trials, |bench, orders| {
        let start = Instant::now();
        let desk = Desk::open(&folder.join("results"), "quickstart", Default::default())?;
        let mut queue = VecDeque::from(orders);
        let (mut inside, mut last) = (Duration::ZERO, start);
        while let Some(order) = queue.pop_front() {
            match desk.ask(&order, true, &Cancel::default())? {
                Answer::Busy => queue.push_back(order),
                Answer::Run(claim, _) => {
                    std::thread::sleep(TRIAL);
                    inside += TRIAL;
                    desk.keep(&record(bench, &order), *claim)?;
                    last = Instant::now();
                }
                _ => {}
            }
            if queue.len() < 8 {
                // Waiting for others at the end is not the folder's doing.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        let whole = (last - start).as_secs_f64();
        println!("{}", 1.0 - inside.as_secs_f64() / whole);
        Ok(())
    })
}

/// Records as files, folded, and read both ways.
fn many(trials: usize) -> Result<()> {
    let folder = tempfile::tempdir()?;
    with_bench(folder.path(), trials, |bench, orders| {
        let results = folder.path().join("results");
        let open = || Results::open(&results, "quickstart");
        let timed = |what: &str, act: &dyn Fn() -> Result<usize>| {
            let start = Instant::now();
            let n = act()?;
            println!("{n} records: {what} in {:.2} s", start.elapsed().as_secs_f64());
            anyhow::Ok(())
        };
        timed("written as files", &|| {
            let store = open()?;
            orders.iter().try_for_each(|order| store.publish(&record(bench, order)))?;
            Ok(orders.len())
        })?;
        timed("read from files", &|| Ok(Book::open(open()?)?.records().count()))?;
        timed("folded", &|| open()?.fold(TERM)?.context("nobody else folds"))?;
        timed("read from the JSONL", &|| Ok(Book::open(open()?)?.records().count()))
    })
}
