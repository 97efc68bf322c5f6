//! `embc compress`: a table that exists already, in the best form that fits a budget.

use super::Outcome;
use crate::INTERRUPT;
use crate::cli::{Compress as Args, Global};
use crate::report::compress::{self as report, Found};
use anyhow::{Context, Result, bail};
use embc_lab::axis::Bytes;
use embc_lab::units::count;
use embc_table::choose::{Asked, Beside, Tried, choose, methods};
use embc_table::form::megabytes;
use embc_table::output::{self, To};
use embc_table::packed::Packed;
use embc_table::source;
use embc_table::table::Table;
use embc_table::task::{self, Task};
use embc_table::words::{self, Index};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub fn run(args: &Args, global: &Global) -> Result<Outcome> {
    super::set_threads(args.threads)?;
    let methods = methods(&args.methods)?;
    if args.format.iter().any(|name| name == "model2vec") && !args.table.is_dir() {
        bail!(
            "--format model2vec: {} has no tokenizer; write it by `embc decompress --format model2vec --like FOLDER`",
            args.table.display()
        );
    }
    let mut budgets: Vec<u64> = args.budget_bytes.iter().map(|size| size.0).collect();
    budgets.sort_unstable();
    budgets.dedup();
    let table = open(args)?;
    let tasks = tasks(args, &table)?;
    let zeros = table.check().with_context(|| args.table.display().to_string())?;
    if !global.quiet {
        let (rows, dim) = (count(table.rows as u64), table.dim);
        eprintln!("{}: {rows} rows x {dim}, {}", args.table.display(), table.stored);
        if zeros > 0 {
            eprintln!("{} rows are zeros", count(zeros as u64));
        }
        tasks.iter().for_each(|task| eprintln!("{}: {}", task.name(), task.about()));
    }
    let beside = args.beside.chunks(3).map(|of| beside(of, &table)).collect::<Result<_>>()?;
    let folder = args.output.clone().unwrap_or_else(|| folder(&args.table));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("{}: cannot be made", folder.display()))?;
    for file in ["model.embc", "rows.npy", "rows.safetensors", "model.safetensors"] {
        let (file, table) = (folder.join(file).canonicalize(), args.table.canonicalize());
        if file.is_ok_and(|file| table.is_ok_and(|table| file.starts_with(table))) {
            bail!("{}: the table itself is there; choose another folder", folder.display());
        }
    }
    let scratch = tempfile::tempdir_in(&folder)?;
    let (seed, cancel) = (args.seed, &INTERRUPT);
    let asked = Asked { budgets: budgets.clone(), methods, tasks: &tasks, beside, seed, cancel };
    let mut watch = Watch { start: Instant::now(), quiet: global.quiet };
    let tell = &mut |done, of, last: Option<&Tried>| watch.tell(done, of, last);
    let answer = choose(&table, &asked, scratch.path(), tell)?;
    let found = Found { name: name(&args.table), table: &table, tasks: &tasks, budgets, answer };
    write(args, &found, &folder)?;
    super::print(&found.answers()?)?;
    if found.answer.interrupted {
        eprintln!("interrupted: what was measured till then is in {}", folder.display());
        return Ok(Outcome::Interrupted);
    }
    Ok(Outcome::Fine)
}

/// The table, with what is said of its rows.
fn open(args: &Args) -> Result<Table> {
    let mut table = source::open(&args.table, args.tensor.as_deref())?;
    if let Some(vocab) = &args.vocab {
        table.words = words::read(vocab)?;
        if table.words.len() != table.rows {
            bail!(
                "{}: {} words for a table of {} rows",
                vocab.display(),
                table.words.len(),
                table.rows
            );
        }
    }
    if let Some(counts) = &args.counts {
        table.counts = words::counts(counts, table.rows)?;
    }
    if args.with_vocabulary && table.words.len() != table.rows {
        let (words, rows) = (table.words.len(), table.rows);
        bail!("--with-vocabulary: {words} words for {rows} rows; name them with --vocab FILE");
    }
    Ok(table)
}

fn tasks(args: &Args, table: &Table) -> Result<Vec<Box<dyn Task>>> {
    let index = Index::new(&table.words);
    let open = |of: &[String]| {
        let names = || task::KINDS.iter().map(|kind| kind.name());
        let kind = task::find(&of[0]).with_context(|| {
            let near = embc_lab::suggest::nearest(&of[0], names());
            let all: Vec<&str> = names().collect();
            format!("--eval {}: no such kind{near}; there are {}", of[0], all.join(", "))
        })?;
        if kind.needs_words() && table.words.is_empty() {
            bail!(
                "--eval {} looks words up, and the table has none: name them with --vocab FILE",
                of[0]
            );
        }
        kind.open(&of[1], &index)
    };
    let tasks = args.eval.chunks(2).map(open).collect::<Result<Vec<_>>>()?;
    for (i, task) in tasks.iter().enumerate() {
        if tasks[..i].iter().any(|other| other.name() == task.name()) {
            bail!("two tasks would be called {}: rename a file", task.name());
        }
    }
    Ok(tasks)
}

/// The table's name, without folders and ending.
fn name(table: &Path) -> String {
    let stem = if table.is_dir() { table.file_name() } else { table.file_stem() };
    stem.unwrap_or_default().to_string_lossy().into_owned()
}

fn folder(table: &Path) -> PathBuf {
    PathBuf::from(format!("{}-compressed", name(table)))
}

/// A table that another program made.
fn beside(of: &[String], table: &Table) -> Result<Beside> {
    let bytes = of[1].parse::<Bytes>().map_err(anyhow::Error::msg)?.0;
    let theirs = source::open(Path::new(&of[2]), None)?;
    if [theirs.rows, theirs.dim] != [table.rows, table.dim] {
        bail!("{}: {} rows x {}: not the same table", of[2], theirs.rows, theirs.dim);
    }
    theirs.check().with_context(|| of[2].clone())?;
    Ok(Beside { name: of[0].clone(), bytes, table: theirs })
}

/// The best of each budget, and the report.
fn write(args: &Args, found: &Found<'_>, folder: &Path) -> Result<()> {
    let several = found.budgets.len() > 1;
    for (budget, best) in found.budgets.iter().zip(&found.answer.best) {
        let Some(best) = best else { continue };
        let tried = &found.answer.tried[*best];
        let folder = if several { folder.join(budget.to_string()) } else { folder.to_path_buf() };
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("model.embc");
        let packed = match args.with_vocabulary {
            true => Packed::open(&tried.path)?.named(&found.table.words, &path)?,
            false => {
                output::copy(&tried.path, &path)?;
                Packed::open(&path)?
            }
        };
        for format in args.format.iter().filter(|name| *name != "packed") {
            let format = output::find(format).expect("clap knows the formats");
            let like = args.table.is_dir().then_some(&args.table);
            (format.write)(&To { from: &path, packed: &packed, folder: &folder, like })?;
        }
    }
    report::write(found, folder)
}

/// Says what was measured, and how long it will take.
struct Watch {
    start: Instant,
    quiet: bool,
}

impl Watch {
    fn tell(&mut self, done: usize, of: usize, last: Option<&Tried>) {
        if self.quiet {
            return;
        }
        let Some(last) = last else {
            return eprintln!("{of} forms fit; measuring the table itself first");
        };
        let mut said = format!(
            "[{done}/{of}] {}, {}: {}, error {:.3}, neighbours {:.3}",
            last.method,
            last.sizes,
            megabytes(last.bytes),
            last.kept[0].error,
            last.kept[0].neighbours
        );
        for score in &last.scores {
            said += &format!(", {} {:.3}", score.task, score.value);
        }
        if done < of {
            let left = self.start.elapsed().as_secs_f64() / done as f64 * (of - done) as f64;
            let left = Duration::from_secs(left as u64);
            said += &format!(", about {} left", humantime::format_duration(left));
        }
        eprintln!("{said}");
    }
}
