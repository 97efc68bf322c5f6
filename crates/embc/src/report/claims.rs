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
    /// A curve of a study of `embc theory` is below another one everywhere.
    Below { curve: String, bound: String },
}

/// What is looked at, by name.
#[derive(Default)]
pub struct Recorded {
    /// Experiments with their records.
    pub experiments: BTreeMap<String, (Experiment, Vec<Record>)>,
    /// Studies: where each is, and its values.
    pub studies: BTreeMap<String, (String, Vec<Value>)>,
}

/// A value of a study, as its CSV has it.
#[derive(Debug, Deserialize)]
pub struct Value {
    curve: String,
    x: f64,
    mean: f64,
    half_width: Option<f64>,
}

impl Claims {
    /// Of a file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let claims: Self = config::Source::of(path, &text).parse()?;
        for claim in &claims.claim {
            if claim.experiments.is_empty() {
                bail!("{}: {:?}: `in` names no experiment", path.display(), claim.text);
            }
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

    /// All experiments that they name, and which of them are studies.
    pub fn experiments(&self) -> impl Iterator<Item = (&String, bool)> {
        self.claim.iter().flat_map(|claim| {
            let is_study = matches!(claim.check, Check::Below { .. });
            let named = claim.experiments.iter().chain(&claim.bytes);
            named.map(move |name| (name, is_study))
        })
    }

    /// The page: a line each, then what each experiment says of it.
    pub fn markdown(&self, recorded: &Recorded) -> Result<String> {
        let looked: Result<Vec<_>> = self.claim.iter().map(|claim| claim.look(recorded)).collect();
        let looked = looked?;
        let line = |(claim, (verdict, _)): (&Claim, &(String, _))| {
            vec![claim.paper.clone(), claim.text.clone(), format!("**{verdict}**")]
        };
        let lines: Vec<_> = self.claim.iter().zip(&looked).map(line).collect();
        let header = ["paper", "claim", "verdict"].map(String::from);
        let mut text = format!("{PREAMBLE}\n{}", md_table(&header, &lines));
        let mut paper = "";
        for (claim, (verdict, rows)) in self.claim.iter().zip(looked) {
            if paper != claim.paper {
                paper = &claim.paper;
                text += &format!("\n## {paper}\n");
            }
            text += &format!("\n### {}: {verdict}\n\n{}", claim.text, table(rows));
        }
        Ok(text)
    }
}

/// What experiments say, without columns in which nothing stands.
fn table(rows: Vec<[String; 5]>) -> String {
    let header = [
        "experiment",
        "measured",
        "holds",
        "best at the same parameters",
        "best in the same bytes",
    ];
    let shown: Vec<usize> = (0..5).filter(|&i| rows.iter().any(|row| !row[i].is_empty())).collect();
    let pick = |row: &[String; 5]| shown.iter().map(|&i| row[i].clone()).collect::<Vec<_>>();
    md_table(&pick(&header.map(String::from)), &rows.iter().map(pick).collect::<Vec<_>>())
}

const PREAMBLE: &str = "# Verdicts\n\nWhat the papers claim, and what these records say of it. A claim is *reproduced* where the whole 95 % interval of the difference is on its side in every experiment, *not reproduced* where in one of them it is on the other, else *undecided*; where a paper does not say which of its sets a number is of, one experiment is enough for it. What is open has beside it how many seeds would decide, if the mean stayed. Of a scheme's variants validation picked one. Losses are of the full table's test metric, in per cent. What is best in the same bytes is of another experiment on the same rows, with a training and a full table of its own.\n";

/// What an experiment says of a claim.
struct Found {
    /// Whether it does; none where that is open.
    holds: Option<bool>,
    /// How many seeds would tell; none where not even a hundred do.
    needs: Option<usize>,
    /// In words.
    measured: String,
    /// The best scheme at the same budget.
    best: String,
    /// Bytes of the scheme.
    bytes: Option<u64>,
}

impl Found {
    fn verdict(&self) -> String {
        match (self.holds, self.needs) {
            (Some(true), _) => "yes".into(),
            (Some(false), _) => "no".into(),
            (None, Some(seeds)) => format!("open: {seeds} seeds would tell"),
            (None, None) => "open: a hundred seeds would not tell".into(),
        }
    }
}

/// Whether a difference of at least `claim` holds, and how many seeds would tell.
fn judged(of: &Difference, claim: f64) -> (Option<bool>, Option<usize>) {
    let margin = of.mean() - claim;
    let told = of.half().filter(|half| margin.abs() > *half);
    (told.map(|_| margin > 0.0), of.seeds_for(margin))
}

impl Claim {
    /// The verdict, and a row an experiment.
    fn look(&self, recorded: &Recorded) -> Result<(String, Vec<[String; 5]>)> {
        let (mut all, mut rows) = (Vec::new(), Vec::new());
        for (i, name) in self.experiments.iter().enumerate() {
            let Some((place, found)) = self.look_at(name, recorded)? else {
                all.push(None);
                let none = String::new;
                rows.push([
                    name.clone(),
                    "not run, or not for all seeds".into(),
                    none(),
                    none(),
                    none(),
                ]);
                continue;
            };
            all.push(found.holds);
            let bytes = match self.bytes.get(i).zip(found.bytes) {
                Some((name, bytes)) => within(name, bytes, recorded)?,
                None => String::new(),
            };
            let holds = found.verdict();
            rows.push([format!("[{name}]({place}.md)"), found.measured, holds, found.best, bytes]);
        }
        let decisive = self.sets == Sets::Any;
        let holds = match all.contains(&Some(decisive)) {
            true => Some(decisive),
            false => all.iter().all(|holds| *holds == Some(!decisive)).then_some(!decisive),
        };
        let count = |of: Option<bool>| all.iter().filter(|holds| **holds == of).count();
        let on = |of: bool| match all.len() {
            1 => String::new(),
            n => format!(" on {} of {n} sets", count(Some(of))),
        };
        let verdict = match holds {
            Some(true) => format!("reproduced{}", on(true)),
            Some(false) => format!("not reproduced{}", on(false)),
            None => "undecided".into(),
        };
        Ok((verdict, rows))
    }

    /// Where an experiment is, and what it says; none where it has no records of it.
    fn look_at(&self, name: &str, recorded: &Recorded) -> Result<Option<(String, Found)>> {
        if let Check::Below { curve, bound } = &self.check {
            let Some((place, values)) = recorded.studies.get(name) else { return Ok(None) };
            return Ok(Some((place.clone(), below(name, values, curve, bound)?)));
        }
        let Some((e, records)) = recorded.experiments.get(name) else { return Ok(None) };
        let grid = Grid::new(e, records)?;
        let key = metric_key(e, &grid.records);
        let at = |budget: &f64| At { e, grid: &grid, key: &key, budget: budget.to_string() };
        let found = match &self.check {
            Check::Below { .. } => unreachable!("above"),
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
        if variant.is_some_and(|label| !self.e.scheme.iter().any(|known| known.label() == label)) {
            bail!("{}: no scheme is called {:?}", self.e.name, variant.unwrap_or_default());
        }
        let is = |label: &str| variant.is_none_or(|variant| variant == label);
        let ours = self.pick(&|pick| kind(pick) == scheme && is(&pick.runner.label));
        Ok(ours.and_then(|ours| {
            let gain = self.gap(&ours, &self.full()?)?;
            let measured =
                format!("{} loses {}", ours.runner.label, per_cent(-gain.mean(), gain.half()));
            self.found(ours, judged(&gain, -most), measured)
        }))
    }

    fn ahead(&self, scheme: &str, of: Option<&str>, by: f64) -> Result<Option<Found>> {
        self.knows(scheme)?;
        of.map_or(Ok(()), |of| self.knows(of))?;
        let rival = |kind: &str| of.map_or(kind != scheme, |of| kind == of);
        let ours = self.pick(&|pick| kind(pick) == scheme);
        Ok(ours.zip(self.pick(&|pick| rival(kind(pick)))).and_then(|(ours, other)| {
            let ahead = self.gap(&ours, &other)?;
            let word = if ahead.mean() < 0.0 { "behind" } else { "ahead of" };
            let (us, them) = (&ours.runner.label, &other.runner.label);
            let by_how_much = per_cent(ahead.mean().abs(), ahead.half());
            let measured = format!("{us} is {by_how_much} {word} {them}");
            self.found(ours, judged(&ahead, by), measured)
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
    fn gap(&self, ours: &Pick<'_>, other: &Pick<'_>) -> Option<Difference> {
        let gap = Difference::between(&ours.records, &other.records, self.key)?;
        let full = mean(&self.full()?.records, self.key)?.abs();
        Some(gap.scaled(100.0 * sign_of(self.key) / full))
    }

    fn found(
        &self,
        ours: Pick<'_>,
        (holds, needs): (Option<bool>, Option<usize>),
        measured: String,
    ) -> Option<Found> {
        let (first, full) = (self.pick(&|_| true)?, self.full()?);
        let lost = loss(&full.records, &first.records, self.key)?.0;
        let best = format!("{}, {lost}", first.runner.label);
        Some(Found { holds, needs, measured, best, bytes: Some(ours.bytes) })
    }
}

/// The mean of a `[[compare]]`, beside what it claims.
fn compared(e: &Experiment, grid: &Grid<'_>, key: &str, title: &str) -> Result<Option<Found>> {
    let is = |compare: &&Compare| compare.title == title;
    let Some(compare) = e.compare.iter().find(is) else {
        bail!("{}: no [[compare]] is titled {title:?}", e.path.display());
    };
    let all = compare.pairs.iter().map(|pair| Difference::of(grid, pair, key)).collect::<Vec<_>>();
    let seeds = e.train.seeds.len();
    let whole = super::compare::mean(compare, &all).filter(|mean| mean.by_seed.len() >= seeds);
    let Some(mean) = whole else { return Ok(None) };
    let (holds, needs) =
        judged(&mean.clone().scaled(sign_of(key)), compare.claim.unwrap_or_default());
    let measured = format!("{key} {}", mean.text());
    Ok(Some(Found { holds, needs, measured, best: String::new(), bytes: None }))
}

/// Whether one curve is below another at all places, by their intervals, and how near they come.
fn below(study: &str, values: &[Value], curve: &str, bound: &str) -> Result<Found> {
    let of = |label: &str| -> Result<Vec<&Value>> {
        let found: Vec<&Value> = values.iter().filter(|value| value.curve == label).collect();
        if found.is_empty() {
            let known = values.iter().map(|value| &value.curve[..]);
            bail!("{study}: no curve {label:?}{}", suggest::nearest(label, known));
        }
        Ok(found)
    };
    let (ours, bounds) = (of(curve)?, of(bound)?);
    let share = |value: &&Value| {
        let bound = bounds.iter().find(|bound| bound.x == value.x)?;
        let ends = |value: &Value, by: f64| value.mean + by * value.half_width.unwrap_or(0.0);
        Some((
            value.x,
            value.mean / bound.mean,
            ends(value, 1.0) < ends(bound, -1.0),
            ends(value, -1.0) > ends(bound, 1.0),
        ))
    };
    let all: Vec<_> = ours.iter().filter_map(share).collect();
    let Some((x, most, ..)) = all.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        bail!("{study}: {curve:?} and {bound:?} have no place in common");
    };
    let holds = match (all.iter().all(|of| of.2), all.iter().any(|of| of.3)) {
        (true, _) => Some(true),
        (_, above) => above.then_some(false),
    };
    let measured =
        format!("{} places; the nearest, {x}, has {:.0} % of the bound", all.len(), 100.0 * most);
    Ok(Found { holds, needs: None, measured, best: String::new(), bytes: None })
}

/// The best of an experiment within some bytes, and what it loses.
fn within(name: &str, bytes: u64, recorded: &Recorded) -> Result<String> {
    let Some((e, records)) = recorded.experiments.get(name) else { return Ok("not run".into()) };
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
