//! Everything that fits: planned, fitted, packed, read again, measured; and which is best.

use crate::form::{Fitting, Method, Plan, UNFIT, megabytes, plans};
use crate::measure::{Kept, Truth};
use crate::packed::{Packed, Stated};
use crate::table::{Rows, Table};
use crate::task::{Scores, Task};
use anyhow::{Context, Result, bail};
use embc_core::cancel::Cancel;
use embc_core::rng::Rng;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is asked for.
pub struct Asked<'a> {
    /// The most bytes, each for an answer of its own.
    pub budgets: Vec<u64>,
    /// What may be tried.
    pub methods: Vec<&'static dyn Method>,
    /// What rows are for; without any, the neighbours that are kept decide.
    pub tasks: &'a [Box<dyn Task>],
    /// Tables that others made of this one, to be measured alike.
    pub beside: Vec<Beside>,
    /// Of all that is drawn.
    pub seed: u64,
    /// Ends it early, with what was measured till then.
    pub cancel: &'a Cancel,
}

/// What another program made of the table.
pub struct Beside {
    /// Its method.
    pub name: String,
    /// What it takes, as its maker says.
    pub bytes: u64,
    /// All rows as floats.
    pub table: Table,
}

/// A form that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tried {
    /// Its method.
    pub method: String,
    /// What it keeps.
    pub sizes: String,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Bytes of its file: tensors, program, alignment.
    pub file_bytes: u64,
    /// The table's bytes at 32 bits a value, over these.
    pub smaller: f64,
    /// Seconds to read the table, fit and encode.
    pub fit_s: f64,
    /// What it keeps of the table: of all rows, then of bands.
    pub kept: Vec<Kept>,
    /// What it scores in each task.
    pub scores: Vec<Outcome>,
    /// What it is chosen by, of 1: neighbours, or its share of the full table's scores on half of the
    /// items.
    pub chosen_by: f64,
    /// True for what another program made: it is never chosen.
    pub beside: bool,
    /// The packed file.
    #[serde(skip)]
    pub path: PathBuf,
}

/// A score, and how it differs from the full table's on the items that did not choose.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The task.
    pub task: String,
    /// On all items.
    pub value: f64,
    /// This less the full table's, on half of the items.
    pub difference: f64,
    /// Half of its 95 % interval.
    pub half: Option<f64>,
}

/// What came of it.
pub struct Answer {
    /// The full table's score in each task.
    pub full: Vec<f64>,
    /// All that was measured, the smallest first.
    pub tried: Vec<Tried>,
    /// For each budget the best of what fits.
    pub best: Vec<Option<usize>>,
    /// True where it was ended early.
    pub interrupted: bool,
}

/// The methods that are named; all without a name.
pub fn methods(names: &[String]) -> Result<Vec<&'static dyn Method>> {
    let find = |name: &String| {
        if let Some((_, why)) = UNFIT.iter().find(|(unfit, _)| unfit == name) {
            bail!(
                "{name} is a scheme to train with, not to fit to a finished table: {why} (on GloVe it leaves nothing of analogies); train with it by `embc train`, or take pq, rq or clusters here"
            );
        }
        let all = || crate::form::METHODS.iter().map(|method| method.name());
        crate::form::find(name).with_context(|| {
            let near = embc_lab::suggest::nearest(name, all());
            format!("no method {name:?}{near}; there are {}", all().collect::<Vec<_>>().join(", "))
        })
    };
    match names {
        [] => Ok(crate::form::METHODS.to_vec()),
        names => names.iter().map(find).collect(),
    }
}

/// All plans within the budgets, each once; the smallest first.
fn planned(table: &Table, asked: &Asked<'_>) -> Vec<Plan> {
    let mut all: Vec<Plan> = Vec::new();
    for &budget in &asked.budgets {
        for method in &asked.methods {
            for plan in plans(*method, table, budget) {
                let known = |of: &Plan| of.method == plan.method && of.sizes == plan.sizes;
                if !all.iter().any(known) {
                    all.push(plan);
                }
            }
        }
    }
    // What is larger than the table is no compression.
    all.retain(|plan| plan.bytes <= 4 * (table.rows * table.dim) as u64);
    all.sort_by_key(|plan| plan.bytes);
    all
}

/// Tries what fits, in files of `scratch`; `watch` is told how many of how many are done, and what of
/// the last.
pub fn choose(
    table: &Table,
    asked: &Asked<'_>,
    scratch: &Path,
    watch: &mut dyn FnMut(usize, usize, Option<&Tried>),
) -> Result<Answer> {
    let plans = planned(table, asked);
    if plans.is_empty() {
        let least = *asked.budgets.iter().max().expect("a budget");
        bail!(
            "nothing fits {}: {} rows of {} values need more; the smallest are {}",
            megabytes(least),
            table.rows,
            table.dim,
            smallest(table, asked)
        );
    }
    watch(0, plans.len(), None);
    let rng = Rng::stream(asked.seed, "compress");
    let truth = Truth::of(table, &mut rng.fork(1), asked.cancel)?;
    let shape = [table.rows, table.dim];
    let full = asked.tasks.iter().map(|task| task.score(&*table.source, shape, asked.cancel));
    let full = full.collect::<Result<Vec<Scores>>>()?;
    let mut tried = Vec::new();
    for (i, plan) in plans.iter().enumerate().take_while(|_| !asked.cancel.is_set()) {
        let path = scratch.join(format!("{i}.embc"));
        match attempt(table, asked, plan, &path, (&truth, &full)) {
            Ok(one) => {
                watch(i + 1, plans.len(), Some(&one));
                tried.push(one);
            }
            Err(_) if asked.cancel.is_set() => break,
            Err(error) => return Err(error.context(format!("{} ({})", plan.method, plan.sizes))),
        }
    }
    for beside in asked.beside.iter().take_while(|_| !asked.cancel.is_set()) {
        let at = || beside.name.clone();
        tried.push(other(table, asked, beside, (&truth, &full)).with_context(at)?);
    }
    if tried.is_empty() {
        bail!("nothing was measured");
    }
    tried.sort_by_key(|of| of.bytes);
    let full = full.iter().map(Scores::value).collect();
    let mut answer = Answer { full, tried, best: Vec::new(), interrupted: asked.cancel.is_set() };
    answer.best = asked.budgets.iter().map(|budget| answer.best(*budget)).collect();
    Ok(answer)
}

/// What a form may at least fall behind in what it is chosen by, and still be taken for what else it
/// keeps.
const CLOSE: f64 = 0.01;

impl Answer {
    /// What fits a budget and is as good as the best but for chance: as many hundredths behind as the
    /// best itself may be off the full table, by the intervals of its scores, and at least one.
    pub fn close(&self, budget: u64) -> Vec<usize> {
        let fits = |i: &usize| self.tried[*i].bytes <= budget && !self.tried[*i].beside;
        let fits: Vec<usize> = (0..self.tried.len()).filter(fits).collect();
        let score = |i: &usize| self.tried[*i].chosen_by;
        let Some(best) = fits.iter().max_by(|a, b| score(a).total_cmp(&score(b))) else {
            return fits;
        };
        let scores = self.tried[*best].scores.iter().zip(&self.full);
        let chance = scores.map(|(of, full)| of.half.unwrap_or(0.0) / full.abs().max(1e-9));
        let chance = chance.sum::<f64>() / self.full.len().max(1) as f64;
        let least = score(best) - chance.max(CLOSE);
        fits.into_iter().filter(|i| score(i) >= least).collect()
    }

    /// The best of what fits a budget: of those that are close, the one that keeps most neighbours. A
    /// task reads few of the rows, and says nothing of the others.
    fn best(&self, budget: u64) -> Option<usize> {
        self.close(budget).into_iter().max_by(|&a, &b| {
            let [(x, p), (y, q)] = [a, b].map(|i| (&self.tried[i], &self.tried[i].kept[0]));
            let neighbours = p.neighbours.total_cmp(&q.neighbours);
            let rest = q.error.total_cmp(&p.error).then(y.bytes.cmp(&x.bytes)).then(b.cmp(&a));
            neighbours.then(rest)
        })
    }
}

/// The least bytes of a few methods, to say what would do.
fn smallest(table: &Table, asked: &Asked<'_>) -> String {
    let least = |method: &&'static dyn Method| {
        let fits = |budget: u64| !plans(*method, table, budget).is_empty();
        let mut exceeds = (0..48).map(|bits| 1u64 << bits).find(|budget| fits(*budget))?;
        let mut lacks = 0;
        while exceeds - lacks > 1 {
            let budget = lacks + (exceeds - lacks) / 2;
            if fits(budget) { exceeds = budget } else { lacks = budget }
        }
        Some((exceeds, format!("{} with {}", method.name(), megabytes(exceeds))))
    };
    let mut all: Vec<(u64, String)> = asked.methods.iter().filter_map(least).collect();
    all.sort();
    let few: Vec<String> = all.into_iter().take(3).map(|(_, text)| text).collect();
    if few.is_empty() { "of no method that was named".into() } else { few.join(", ") }
}

/// Fits a plan, packs it, reads the file and measures what it says.
fn attempt(
    table: &Table,
    asked: &Asked<'_>,
    plan: &Plan,
    path: &Path,
    (truth, full): (&Truth, &[Scores]),
) -> Result<Tried> {
    let start = Instant::now();
    let rng = Rng::stream(asked.seed, plan.method);
    let form = (plan.build)(&Fitting::new(table, asked.cancel, rng)?)?;
    let fit_s = start.elapsed().as_secs_f64();
    if asked.cancel.is_set() {
        bail!("interrupted");
    }
    let about = format!("{}, {}", plan.method, plan.sizes);
    let stated = Stated::new(&*form, table.rows, about)?;
    let (bytes, file_bytes) = (stated.bytes(), stated.write(path)?);
    if bytes != plan.bytes {
        bail!("it was planned to take {} bytes and takes {bytes}: a fault of embc", plan.bytes);
    }
    drop(stated);
    drop(form);
    let packed = Packed::open(path)?;
    let measured = measure(table, asked, &packed, (truth, full))?;
    Ok(Tried {
        method: plan.method.into(),
        sizes: plan.sizes.clone(),
        bytes,
        file_bytes,
        smaller: (4 * table.rows * table.dim) as f64 / bytes as f64,
        fit_s,
        path: path.into(),
        ..measured
    })
}

/// Measures what another program made.
fn other(
    table: &Table,
    asked: &Asked<'_>,
    other: &Beside,
    known: (&Truth, &[Scores]),
) -> Result<Tried> {
    if [other.table.rows, other.table.dim] != [table.rows, table.dim] {
        bail!("{} rows x {}: not the same table", other.table.rows, other.table.dim);
    }
    let measured = measure(table, asked, &*other.table.source, known)?;
    let smaller = (4 * table.rows * table.dim) as f64 / other.bytes as f64;
    let (method, bytes) = (other.name.clone(), other.bytes);
    Ok(Tried { method, bytes, smaller, beside: true, ..measured })
}

/// Measures rows that stand for those of the table.
fn measure(
    table: &Table,
    asked: &Asked<'_>,
    rows: &dyn Rows,
    (truth, full): (&Truth, &[Scores]),
) -> Result<Tried> {
    let kept = truth.measure(table, rows, asked.cancel)?;
    let shape = [table.rows, table.dim];
    let (mut scores, mut shares) = (Vec::new(), Vec::new());
    for (task, full) in asked.tasks.iter().zip(full) {
        let score = task.score(rows, shape, asked.cancel)?;
        let (difference, half) = score.against(full);
        let (now, then) = (score.half(0), full.half(0));
        // More than the full table's score is luck.
        shares.push(if then > 0.0 { now / then } else { 1.0 + now - then }.min(1.0));
        scores.push(Outcome { task: task.name(), value: score.value(), difference, half });
    }
    let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    let chosen_by = if shares.is_empty() { kept[0].neighbours } else { mean };
    Ok(Tried { kept, scores, chosen_by, ..Tried::default() })
}
