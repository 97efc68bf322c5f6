//! Verdicts: what papers claim, a line each, beside what records say of it. A claim holds in an
//! experiment if the whole interval is on its side, and falls if the whole interval is on the other.

use super::choice::{loss, mean};
use crate::table::markdown as md_table;
use anyhow::{Context, Result, bail};
use embc_lab::choice::{By, Pick, best};
use embc_lab::config::{self, Compare, Experiment};
use embc_lab::difference::Difference;
use embc_lab::grid::{Grid, metric_key, sign_of};
use embc_lab::record::Record;
use embc_lab::suggest;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A file of claims.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    claim: Vec<Claim>,
}

/// `[[claim]]`: what a paper says, and where it is looked at.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The paper.
    paper: String,
    /// What it says.
    text: String,
    /// The experiments that answer.
    #[serde(rename = "in")]
    experiments: Vec<String>,
    /// What must hold in each of them.
    check: Check,
    /// In how many of them.
    #[serde(default)]
    sets: Sets,
    /// For each of them, where to look for what is best within the same bytes.
    #[serde(default)]
    bytes: Vec<String>,
}

/// In how many experiments a claim must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Sets {
    /// Where one speaks against it, it does not.
    #[default]
    All,
    /// One is enough.
    Any,
}

/// What must hold.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Check {
    /// A kind of scheme, or one variant of it, loses at most so many per cent of the full table's metric.
    Loses { scheme: String, variant: Option<String>, at: f64, most: f64 },
    /// It is ahead of another kind, or of all others, by so many per cent of the full table's metric.
    Ahead { scheme: String, of: Option<String>, at: f64, by: f64 },
    /// What the experiment's `[[compare]]` of this title claims.
    Compare { title: String },
}

/// Experiments with their records, by name.
pub type Recorded = BTreeMap<String, (Experiment, Vec<Record>)>;

impl Claims {
    /// Of a file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let claims: Self = config::parse(path, &text)?;
        for claim in &claims.claim {
            if !claim.bytes.is_empty() && claim.bytes.len() != claim.experiments.len() {
                bail!(
                    "{}: {:?}: `bytes` names one experiment for each of `in`",
                    path.display(),
                    claim.text
                );
            }
        }
        Ok(claims)
    }

    /// All experiments that they name.
    pub fn experiments(&self) -> impl Iterator<Item = &String> {
        self.claim.iter().flat_map(|claim| claim.experiments.iter().chain(&claim.bytes))
    }

    /// The page.
    pub fn markdown(&self, recorded: &Recorded) -> Result<String> {
        let mut papers: Vec<&String> = self.claim.iter().map(|claim| &claim.paper).collect();
        papers.dedup();
        let header = [
            "claim",
            "verdict",
            "measured",
            "best at the same parameters",
            "best in the same bytes",
        ];
        let mut text = String::from(PREAMBLE);
        for paper in papers {
            let of = self.claim.iter().filter(|claim| claim.paper == *paper);
            let rows: Result<Vec<_>> = of.map(|claim| claim.row(recorded)).collect();
            text += &format!("\n## {paper}\n\n{}", md_table(&header.map(String::from), &rows?));
        }
        Ok(text)
    }
}

const PREAMBLE: &str = "# Verdicts\n\nWhat the papers claim, and what these records say of it. A claim is *reproduced* where the whole 95 % interval of the difference is on its side in every experiment, *not reproduced* where in one of them it is on the other, else *undecided*; where a paper does not say which of its sets a number is of, one experiment is enough for it. What is open has about as many seeds beside it as would decide if the mean stayed. Of a scheme's variants validation picked one. Losses are of the full table's test metric, in per cent.\n";

/// What an experiment says of a claim.
struct Found {
    /// By how much it holds, and half of the interval.
    margin: (f64, Option<f64>),
    seeds: usize,
    /// In words.
    measured: String,
    /// The best scheme at the same budget.
    best: String,
    /// Bytes of the scheme.
    bytes: Option<u64>,
}

impl Found {
    /// Whether it holds; none where that is open.
    fn holds(&self) -> Option<bool> {
        let (margin, half) = self.margin;
        half.filter(|half| margin.abs() > *half).map(|_| margin > 0.0)
    }

    fn verdict(&self) -> String {
        match (self.holds(), self.margin) {
            (Some(true), _) => "holds".into(),
            (Some(false), _) => "does not hold".into(),
            (None, (_, None)) => "open: one value".into(),
            (None, (margin, Some(half))) => {
                match (self.seeds as f64 * (half / margin).powi(2)).ceil() {
                    seeds if seeds <= 100.0 => format!("open: about {seeds} seeds"),
                    _ => "open: more than 100 seeds".into(),
                }
            }
        }
    }
}

impl Claim {
    fn row(&self, recorded: &Recorded) -> Result<Vec<String>> {
        let mut all = Vec::new();
        let mut lines = [const { Vec::new() }; 3];
        for (i, name) in self.experiments.iter().enumerate() {
            let Some((place, found)) = self.look(name, recorded)? else {
                let cells = [format!("{name}: not run"), String::new(), String::new()];
                lines.iter_mut().zip(cells).for_each(|(line, cell)| line.push(cell));
                continue;
            };
            let bytes = match self.bytes.get(i).zip(found.bytes) {
                Some((name, bytes)) => within(name, bytes, recorded)?,
                None => String::new(),
            };
            let measured =
                format!("[{name}]({place}.md): {} ({})", found.measured, found.verdict());
            let cells = [measured, found.best.clone(), bytes];
            lines.iter_mut().zip(cells).for_each(|(line, cell)| line.push(cell));
            all.push(found.holds());
        }
        all.resize(self.experiments.len(), None);
        let decisive = self.sets == Sets::Any;
        let holds = match all.contains(&Some(decisive)) {
            true => Some(decisive),
            false => all.iter().all(|holds| *holds == Some(!decisive)).then_some(!decisive),
        };
        let verdict = match holds {
            Some(true) => "**reproduced**",
            Some(false) => "**not reproduced**",
            None => "**undecided**",
        };
        let lines = lines.map(|lines| match lines.iter().all(String::is_empty) {
            true => String::new(),
            false => lines.join("<br>"),
        });
        Ok([vec![self.text.clone(), verdict.into()], lines.to_vec()].concat())
    }

    /// Where an experiment is, and what it says; none where it has no records of it.
    fn look(&self, name: &str, recorded: &Recorded) -> Result<Option<(String, Found)>> {
        let Some((e, records)) = recorded.get(name) else { return Ok(None) };
        let grid = Grid::new(e, records)?;
        let key = metric_key(e, &grid.records);
        let at = |budget: &f64| At { e, grid: &grid, key: &key, budget: budget.to_string() };
        let found = match &self.check {
            Check::Compare { title } => compared(e, &grid, &key, title)?,
            Check::Loses { scheme, variant, at: budget, most } => {
                at(budget).loses(scheme, variant.as_deref(), *most)?
            }
            Check::Ahead { scheme, of, at: budget, by } => {
                at(budget).ahead(scheme, of.as_deref(), *by)?
            }
        };
        Ok(found.map(|found| (e.place(), found)))
    }
}

fn kind<'r>(pick: &Pick<'r>) -> &'r str {
    &pick.records[0].scheme
}

fn per_cent(x: f64, half: Option<f64>) -> String {
    match half {
        Some(half) => format!("{x:.1} ± {half:.1} %"),
        None => format!("{x:.1} %"),
    }
}

/// An experiment at a budget.
struct At<'a, 'b> {
    e: &'b Experiment,
    grid: &'b Grid<'a>,
    key: &'b str,
    budget: String,
}

impl<'a> At<'a, '_> {
    fn loses(&self, scheme: &str, variant: Option<&str>, most: f64) -> Result<Option<Found>> {
        self.knows(scheme)?;
        let is = |label: &str| variant.is_none_or(|variant| variant == label);
        let ours = self.pick(&|pick| kind(pick) == scheme && is(&pick.runner.label));
        Ok(ours.and_then(|ours| {
            let (lost, half) = self.gap(&self.full()?, &ours)?;
            let measured = format!("{} loses {}", ours.runner.label, per_cent(lost, half));
            self.found(ours, (most - lost, half), measured)
        }))
    }

    fn ahead(&self, scheme: &str, of: Option<&str>, by: f64) -> Result<Option<Found>> {
        self.knows(scheme)?;
        of.map_or(Ok(()), |of| self.knows(of))?;
        let rival = |kind: &str| of.map_or(kind != scheme, |of| kind == of);
        let ours = self.pick(&|pick| kind(pick) == scheme);
        Ok(ours.zip(self.pick(&|pick| rival(kind(pick)))).and_then(|(ours, other)| {
            let (ahead, half) = self.gap(&ours, &other)?;
            let word = if ahead < 0.0 { "behind" } else { "ahead of" };
            let (us, them) = (&ours.runner.label, &other.runner.label);
            let measured = format!("{us} is {} {word} {them}", per_cent(ahead.abs(), half));
            self.found(ours, (ahead - by, half), measured)
        }))
    }

    /// Refuses what the experiment does not have.
    fn knows(&self, scheme: &str) -> Result<()> {
        let (e, budgets) = (self.e, &self.grid.budgets);
        if !budgets.contains(&self.budget) {
            bail!("{}: no budget {}; there are {}", e.name, self.budget, budgets.join(", "));
        }
        if !e.scheme.iter().any(|known| known.kind == scheme) {
            let known = e.scheme.iter().map(|scheme| &scheme.kind[..]);
            bail!("{}: no scheme {scheme:?}{}", e.name, suggest::nearest(scheme, known));
        }
        Ok(())
    }

    /// The best by validation, of the schemes that `is` takes.
    fn pick(&self, is: &dyn Fn(&Pick<'_>) -> bool) -> Option<Pick<'a>> {
        let passes = |pick: &Pick<'_>| {
            pick.runner.budget.as_ref() == Some(&self.budget) && kind(pick) != "full" && is(pick)
        };
        Some(best(self.grid, self.e.metric(), String::new(), By::Metric, &passes)?.first)
    }

    fn full(&self) -> Option<Pick<'a>> {
        let passes = |pick: &Pick<'_>| pick.runner.label == "full";
        Some(best(self.grid, self.e.metric(), String::new(), By::Metric, &passes)?.first)
    }

    /// By how many per cent of the full table's metric the first is better than the second.
    fn gap(&self, ours: &Pick<'_>, other: &Pick<'_>) -> Option<(f64, Option<f64>)> {
        let gap = Difference::between(&ours.records, &other.records, self.key)?;
        let scale = 100.0 / mean(&self.full()?.records, self.key)?.abs();
        Some((scale * sign_of(self.key) * gap.mean(), gap.half().map(|half| scale * half)))
    }

    fn found(&self, ours: Pick<'_>, margin: (f64, Option<f64>), measured: String) -> Option<Found> {
        let (first, full) = (self.pick(&|_| true)?, self.full()?);
        let lost = loss(&full.records, &first.records, self.key)?.0;
        let best = format!("{}, {lost}", first.runner.label);
        let (seeds, bytes) = (ours.records.len(), Some(ours.bytes));
        Some(Found { margin, seeds, measured, best, bytes })
    }
}

/// The mean of a `[[compare]]`, beside what it claims.
fn compared(e: &Experiment, grid: &Grid<'_>, key: &str, title: &str) -> Result<Option<Found>> {
    let is = |compare: &&Compare| compare.title == title;
    let Some(compare) = e.compare.iter().find(is) else {
        bail!("{}: no [[compare]] is titled {title:?}", e.path.display());
    };
    let all = compare.pairs.iter().map(|pair| Difference::of(grid, pair, key)).collect::<Vec<_>>();
    let Some(mean) = super::compare::mean(compare, &all) else { return Ok(None) };
    let margin = sign_of(key) * mean.mean() - compare.claim.unwrap_or_default();
    let measured = format!("{key} {}", mean.text());
    let (margin, seeds) = ((margin, mean.half()), mean.by_seed.len());
    Ok(Some(Found { margin, seeds, measured, best: String::new(), bytes: None }))
}

/// The best of an experiment within some bytes, and what it loses.
fn within(name: &str, bytes: u64, recorded: &Recorded) -> Result<String> {
    let Some((e, records)) = recorded.get(name) else { return Ok(format!("{name}: not run")) };
    let grid = Grid::new(e, records)?;
    let fits = |pick: &Pick<'_>| pick.bytes <= bytes;
    let Some(choice) = best(&grid, e.metric(), String::new(), By::Metric, &fits) else {
        return Ok("nothing fits".into());
    };
    let key = metric_key(e, &grid.records);
    let full = choice.full.as_ref();
    let lost = full.and_then(|full| loss(&full.records, &choice.first.records, &key));
    let lost = lost.map_or(String::new(), |(lost, _)| format!(", {lost}"));
    let smaller = bytes as f64 / choice.first.bytes as f64;
    let smaller = if smaller >= 1.5 { format!(", in {smaller:.0}x fewer") } else { String::new() };
    Ok(format!("{}{lost}{smaller}", choice.first.runner.label))
}
