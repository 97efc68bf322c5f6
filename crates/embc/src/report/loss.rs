//! What compression costs: relative losses with intervals, in words, as a table and as a plot.

use super::budget_text;
use crate::plot::{Axis, Curve, Point};
use crate::table::markdown as md_table;
use anyhow::Result;
use embc_lab::config::Experiment;
use embc_lab::estimate::Estimate;
use embc_lab::grid::{Grid, sign_of};
use std::fmt::Write;

/// The losses of an experiment's cells against its baseline, in per cent, by seed.
pub struct Losses<'a> {
    experiment: &'a Experiment,
    grid: &'a Grid<'a>,
    baseline: &'a str,
    key: &'a str,
}

impl<'a> Losses<'a> {
    /// None unless `[table] loss` names a kind of scheme.
    pub fn new(experiment: &'a Experiment, grid: &'a Grid<'a>, key: &'a str) -> Option<Self> {
        let baseline = experiment.table.relative_to.as_deref()?;
        experiment.table.loss.as_ref()?;
        Some(Self { experiment, grid, baseline, key })
    }

    /// Values of the scheme and of the baseline, of the seeds that both have.
    fn of(&self, scheme: &str, budget: &str) -> (Vec<f64>, Vec<f64>) {
        let base = self.grid.by_seed(self.baseline, budget, self.key);
        let ours = self.grid.by_seed(scheme, budget, self.key);
        ours.into_iter().filter_map(|(seed, x)| Some((x, *base.get(&seed)?))).unzip()
    }

    /// The loss of the means; none where the baseline's is zero.
    fn estimate(&self, scheme: &str, budget: &str) -> Option<Estimate> {
        let (ours, base) = self.of(scheme, budget);
        Estimate::loss(&ours, &base, sign_of(self.key))
    }

    /// By how much the first loses more than the second, in per cent of the baseline's mean.
    fn gap(&self, ours: &str, other: &str, budget: &str) -> Option<Estimate> {
        let [a, b, base] =
            [ours, other, self.baseline].map(|scheme| self.grid.by_seed(scheme, budget, self.key));
        let pairs = a.iter().filter_map(|(seed, a)| Some((a - b.get(seed)?, *base.get(seed)?)));
        let (gaps, bases): (Vec<f64>, Vec<f64>) = pairs.unzip();
        let mean = bases.iter().sum::<f64>() / bases.len() as f64;
        let scale = -100.0 * sign_of(self.key) / mean.abs();
        let gaps: Vec<f64> = gaps.iter().map(|gap| scale * gap).collect();
        Estimate::of(&gaps).filter(|_| mean != 0.0)
    }

    /// All that has a budget: not the baseline, nor other schemes that ignore it.
    fn schemes(&self) -> impl Iterator<Item = &'a String> {
        let (baseline, grid) = (self.baseline, self.grid);
        let full = |label: &str| self.kind(label) == "full";
        grid.schemes.iter().filter(move |scheme| *scheme != baseline && !full(scheme))
    }

    /// True where every seed has a value.
    fn is_whole(&self, scheme: &str, budget: &str) -> bool {
        let seeds = self.experiment.train.seeds.len();
        self.estimate(scheme, budget).is_some_and(|estimate| estimate.n >= seeds)
    }

    fn kind(&self, label: &str) -> &'a str {
        let scheme = self.experiment.scheme.iter().find(|s| s.label() == label);
        scheme.map_or("", |scheme| &scheme.kind)
    }

    /// The scheme of least mean loss at a budget, of those that `is` takes.
    fn best(&self, budget: &str, is: impl Fn(&str) -> bool) -> Option<&'a String> {
        let mean = |scheme: &&String| self.estimate(scheme, budget).map(|e| e.mean);
        let candidates = self.schemes().filter(|s| is(self.kind(s)) && self.is_whole(s, budget));
        candidates.min_by(|a, b| mean(a).unwrap().total_cmp(&mean(b).unwrap()))
    }

    /// Who wins at each budget, from the numbers.
    pub fn words(&self, axis: &str) -> String {
        let subject = self.experiment.table.loss.as_deref().unwrap_or_default();
        let mut text = String::new();
        for budget in &self.grid.budgets {
            let (ours, other) =
                (self.best(budget, |kind| kind == subject), self.best(budget, |k| k != subject));
            let at = budget_text(axis, budget);
            let line = match (ours, other) {
                (None, None) => continue,
                (None, Some(other)) => format!(
                    "`{subject}` is out of reach, or not done for every seed; `{other}` loses least, {} %",
                    self.show(other, budget)
                ),
                (Some(ours), None) => format!("`{ours}` loses {} %", self.show(ours, budget)),
                (Some(ours), Some(other)) => self.verdict(ours, other, budget),
            };
            let _ = writeln!(text, "- At {at}, {line}.");
        }
        text
    }

    fn show(&self, scheme: &str, budget: &str) -> String {
        let seeds = self.experiment.train.seeds.len();
        self.estimate(scheme, budget).map_or("–".into(), |estimate| match estimate.n {
            n if n < seeds => format!("{} [{n} of {seeds} seeds]", estimate.text()),
            _ => estimate.text(),
        })
    }

    fn verdict(&self, ours: &str, other: &str, budget: &str) -> String {
        let gap = self.gap(ours, other, budget);
        let (ours_text, other_text) = (self.show(ours, budget), self.show(other, budget));
        let verdict = match gap {
            Some(gap) if gap.n == 1 => "one seed cannot tell them apart".into(),
            Some(gap) if gap.half.is_none() => {
                format!(
                    "the difference is {} % in every seed, which tells nothing of others",
                    gap.text()
                )
            }
            Some(gap) if gap.holds(0.0) => {
                format!("the difference, {} %, may be chance", gap.text())
            }
            Some(gap) => {
                let better = if gap.mean < 0.0 { ours } else { other };
                let gap = Estimate { mean: gap.mean.abs(), ..gap };
                format!("`{better}` is better by {} %", gap.text())
            }
            None => "they share no seed".into(),
        };
        format!(
            "`{ours}` loses {ours_text} %, the best other method, `{other}`, {other_text} %: {verdict}"
        )
    }

    /// The table of losses, with values of the paper below.
    pub fn table(&self, header: &[String], paper: &[super::reference::Reference]) -> String {
        let best: Vec<_> = self.grid.budgets.iter().map(|b| self.best(b, |_| true)).collect();
        let row = |scheme: &String| {
            let cell = |(budget, best): (&String, &Option<&String>)| match self.show(scheme, budget)
            {
                text if text == "–" && !self.of(scheme, budget).0.is_empty() => {
                    "not defined".into()
                }
                text if text == "–" => self.grid.missing(scheme, budget).into(),
                text if *best == Some(scheme) => format!("**{text}**"),
                text => text,
            };
            let cells = self.grid.budgets.iter().zip(&best).map(cell);
            std::iter::once(scheme.clone()).chain(cells).collect::<Vec<_>>()
        };
        let mut rows: Vec<Vec<String>> = self.schemes().map(row).collect();
        let mut names: Vec<&String> = paper.iter().map(|value| &value.scheme).collect();
        names.dedup();
        names.sort();
        names.dedup();
        for name in names {
            let value = |budget: &String| {
                let is = |r: &&super::reference::Reference| {
                    r.scheme == *name && r.budget.map(|b| b.to_string()).as_ref() == Some(budget)
                };
                paper.iter().find(is).map_or(String::new(), |value| value.value.to_string())
            };
            rows.push(
                [name.clone()].into_iter().chain(self.grid.budgets.iter().map(value)).collect(),
            );
        }
        md_table(header, &rows)
    }

    /// For each kind of scheme the curve of its best variant, the subject first.
    pub fn curves(&self) -> Vec<Curve> {
        let subject = self.experiment.table.loss.as_deref().unwrap_or_default();
        let points = |scheme: &String| -> Vec<Point> {
            let point = |budget: &String| {
                let Estimate { mean, half, .. } = self.estimate(scheme, budget)?;
                Some(Point { x: budget.parse().ok()?, y: mean, half: half.unwrap_or(0.0) })
            };
            self.grid.budgets.iter().filter_map(point).collect()
        };
        let mut kinds: Vec<&str> = self.schemes().map(|scheme| self.kind(scheme)).collect();
        kinds.sort_by_key(|kind| *kind != subject);
        kinds.dedup();
        let curve = |kind: &str| {
            // Most budgets first, then the least loss over them.
            let mean = |points: &[Point]| points.iter().map(|p| p.y).sum::<f64>();
            self.schemes()
                .filter(|scheme| self.kind(scheme) == kind)
                .map(|scheme| Curve { name: scheme.clone(), points: points(scheme), beside: false })
                .filter(|curve| !curve.points.is_empty())
                .min_by(|a, b| {
                    let lengths = b.points.len().cmp(&a.points.len());
                    lengths.then(mean(&a.points).total_cmp(&mean(&b.points)))
                })
        };
        let mut seen = std::collections::BTreeSet::new();
        kinds.into_iter().filter(|kind| seen.insert(*kind)).filter_map(curve).collect()
    }
}

/// The section of losses; nothing where the experiment does not ask for it.
pub fn section(
    experiment: &Experiment,
    grid: &Grid<'_>,
    key: &str,
    axis: Option<&str>,
    header: &[String],
    paper: &[super::reference::Reference],
) -> Result<String> {
    let (Some(losses), Some(axis)) = (Losses::new(experiment, grid, key), axis) else {
        return Ok(String::new());
    };
    let mut text = losses.words(axis);
    writeln!(
        text,
        "\nRelative loss of {key} against {} in %: mean and 95 % t-interval over {} seeds, paired by seed ({}). The best of several variants is picked by these numbers, which flatters it. Bold: the least loss.\n",
        losses.baseline,
        experiment.train.seeds.len(),
        experiment.seeds_vary()
    )?;
    text += &losses.table(header, paper);
    if !paper.is_empty() {
        let title = experiment.reference.as_ref().map_or("", |r| r.title.as_str());
        writeln!(text, "\nThe paper's rows: {title}.")?;
    }
    text += &buckets(&losses, header);
    text += &speeds(&losses, header);
    text += &builds(&losses);
    writeln!(
        text,
        "\n![Relative loss against compression, the best variant of each kind]({}.svg)",
        experiment.name
    )?;
    Ok(text)
}

/// The plot that the section shows.
pub fn svg(
    experiment: &Experiment,
    grid: &Grid<'_>,
    key: &str,
    axis: Option<&str>,
) -> Result<Option<String>> {
    let (Some(losses), Some(axis)) = (Losses::new(experiment, grid, key), axis) else {
        return Ok(None);
    };
    let y_name = format!("loss of {key} against {}, %", losses.baseline);
    let x_name = if axis == "compression" { "compression, times" } else { axis };
    let curves = losses.curves();
    if curves.is_empty() {
        return Ok(None);
    }
    let (x, y) = (Axis { name: x_name, log: true }, Axis { name: &y_name, log: false });
    crate::plot::svg(&experiment.title, [x, y], &curves).map(Some)
}

/// Mean losses of the positives in each popularity bucket, where trials have them.
fn buckets(losses: &Losses<'_>, header: &[String]) -> String {
    let keys = ["head", "torso", "tail"].map(|bucket| format!("{}/{bucket}", losses.key));
    let cell = |scheme: &str, budget: &String| {
        let of = |key: &String| {
            let losses = Losses { key, ..*losses };
            losses.estimate(scheme, budget).map(|e| format!("{:.1}", e.mean))
        };
        keys.iter().map(of).collect::<Option<Vec<_>>>().map(|means| means.join(" / "))
    };
    let budgets = &losses.grid.budgets;
    let row = |scheme: &String| {
        let cells = budgets
            .iter()
            .map(|b| cell(scheme, b).unwrap_or_else(|| losses.grid.missing(scheme, b).into()));
        std::iter::once(scheme.clone()).chain(cells).collect::<Vec<_>>()
    };
    let any = losses.schemes().any(|s| budgets.iter().any(|b| cell(s, b).is_some()));
    let rows: Vec<Vec<String>> = losses.schemes().map(row).collect();
    match any {
        false => String::new(),
        true => format!(
            "\nMean loss in % {}\n\n{}",
            match losses.key.ends_with("auc") {
                true =>
                    "of the third of the examples whose values are the most frequent in training, on average over fields / of the next third / of the rarest.",
                false =>
                    "where the items to find are in the head / torso / tail: the most frequent items that make up a third of all training rows, those of the next third, and the rest.",
            },
            md_table(header, &rows)
        ),
    }
}

/// Which schemes take much longer to build than the baseline: LMA's locations, learned codes.
fn builds(losses: &Losses<'_>) -> String {
    let seconds = |scheme: &str| {
        let cells = losses.grid.cells.iter().filter(|((label, _), _)| label == scheme);
        let records = cells.flat_map(|(_, cell)| &cell.records);
        let ok = records.filter(|r| r.status == embc_lab::record::Status::Ok);
        ok.map(|r| r.build_s).reduce(f64::min)
    };
    let Some(base) = seconds(losses.baseline) else { return String::new() };
    let slow = |scheme: &String| seconds(scheme).filter(|s| *s > 0.05 && *s > 3.0 * base);
    let slow: Vec<String> = losses
        .schemes()
        .filter_map(|scheme| slow(scheme).map(|s| format!("{scheme} {s:.2} s")))
        .collect();
    match slow.is_empty() {
        true => String::new(),
        false => format!(
            "\nBuilt before the first step, the fastest trial: {} {base:.2} s; {}.\n",
            losses.baseline,
            slow.join(", ")
        ),
    }
}

/// How fast each scheme trains beside the baseline.
fn speeds(losses: &Losses<'_>, header: &[String]) -> String {
    let grid = losses.grid;
    let ok = |scheme: &str, budget: &str| -> Vec<&embc_lab::record::Record> {
        let records = grid.cell(scheme, budget).into_iter().flat_map(|cell| &cell.records);
        records.copied().filter(|r| r.status == embc_lab::record::Status::Ok).collect()
    };
    // Other work only slows a trial down, so the fastest seed of each is the least disturbed; on as
    // many threads, among as many trials.
    let ratio = |scheme: &str, budget: &str| {
        let base = ok(losses.baseline, budget);
        let alike = |record: &embc_lab::record::Record| {
            base.iter()
                .filter(|b| (b.threads, b.jobs) == (record.threads, record.jobs))
                .map(|b| b.train_examples_per_s)
                .fold(0.0, f64::max)
        };
        let ratios = ok(scheme, budget).into_iter().map(|r| (r.train_examples_per_s, alike(r)));
        let fastest = ratios.filter(|(_, base)| *base > 0.0).max_by(|a, b| a.0.total_cmp(&b.0))?;
        let ratio = fastest.0 / fastest.1;
        // Two digits where one would round to nothing.
        Some(if ratio < 0.095 { format!("{ratio:.2}") } else { format!("{ratio:.1}") })
    };
    let row = |scheme: &String| {
        let cells = grid.budgets.iter().map(|budget| {
            ratio(scheme, budget).unwrap_or_else(|| match ok(scheme, budget).is_empty() {
                true => grid.missing(scheme, budget).into(),
                false => "–".into(),
            })
        });
        std::iter::once(scheme.clone()).chain(cells).collect()
    };
    let rows: Vec<Vec<String>> = losses.schemes().map(row).collect();
    format!(
        "\nTraining examples a second over {}'s, clusterings included: the fastest seed of each, on as many threads. No benchmark: the machine also did other work.\n\n{}",
        losses.baseline,
        md_table(header, &rows)
    )
}
