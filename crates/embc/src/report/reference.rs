//! Our values beside those of a paper or another program.

use crate::table::markdown as md_table;
use anyhow::{Context, Result};
use embc_lab::config::{Experiment, ReferenceConfig};
use embc_lab::grid::{Grid, Summary, sign_of};
use embc_lab::record::Status;

/// A value of a paper or another program.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Reference {
    pub scheme: String,
    /// The budget's value; none for a scheme that ignores it.
    pub budget: Option<f64>,
    pub metric: String,
    pub value: f64,
    /// Its standard error, where it is known.
    #[serde(default)]
    pub error: Option<f64>,
}

/// All values of the reference file.
pub fn read(experiment: &Experiment) -> Result<Vec<Reference>> {
    let Some(config) = &experiment.reference else { return Ok(Vec::new()) };
    let path = experiment.file_of("reference.file").with_file_name(&config.file);
    let place = || format!("{}: the reference file of {}", path.display(), experiment.name);
    let mut reader = csv::Reader::from_path(&path).with_context(place)?;
    reader.deserialize().map(|entry| entry.with_context(place)).collect()
}

impl Reference {
    fn budget_key(&self) -> String {
        self.budget.map_or(String::new(), |b| b.to_string())
    }

    /// Seconds of a whole trial instead of a metric: ours is the fastest seed, the least disturbed.
    fn is_time(&self) -> bool {
        self.metric == "seconds"
    }

    fn ours(&self, grid: &Grid<'_>) -> Option<Summary> {
        let cell = grid.cell(&self.scheme, &self.budget_key())?;
        if !self.is_time() {
            return cell.summary(&self.metric);
        }
        let ok = cell.records.iter().filter(|record| record.status == Status::Ok);
        Summary::of(&[ok.map(|record| record.whole_s()).reduce(f64::min)?])
    }

    /// How much better ours is, if by more than the tolerance and two standard errors: over seeds,
    /// where they are known, and over draws of the data.
    fn gap(&self, ours: Summary, config: &ReferenceConfig) -> Option<f64> {
        let tolerance = config.tolerance.filter(|_| !self.is_time())?;
        let of_ours = ours.deviation.map_or(0.0, |d| d / (ours.n as f64).sqrt());
        let of_draws = 2f64.sqrt() * config.draw;
        let error = of_ours.hypot(self.error.unwrap_or(0.0)).hypot(of_draws);
        let gap = sign_of(&self.metric) * (ours.mean - self.value);
        (gap.abs() > tolerance.max(2.0 * error)).then_some(gap)
    }
}

/// Our values beside those of the reference file.
pub fn section(experiment: &Experiment, grid: &Grid<'_>, values: Vec<Reference>) -> String {
    // Only cells that the experiment has.
    let all = values.len();
    let known = |r: &Reference| match r.budget {
        Some(_) => grid.cells.contains_key(&(r.scheme.clone(), Some(r.budget_key()))),
        None => grid.cells.contains_key(&(r.scheme.clone(), None)),
    };
    let values: Vec<Reference> = values.into_iter().filter(known).collect();
    let others = all - values.len();
    let Some(config) = experiment.reference.as_ref().filter(|_| !values.is_empty()) else {
        return String::new();
    };
    let mut counts = [0; 3];
    let row = |entry: Reference| {
        let ours = entry.ours(grid);
        let is_time = entry.is_time();
        let text = ours.map_or("…".into(), |ours| match is_time {
            true => format!("{:.1}", ours.mean),
            false => ours.text(),
        });
        let gap = ours.map_or(String::new(), |ours| match is_time {
            true => format!("{:.1} times as fast", entry.value / ours.mean),
            false => format!("{:+.4}", ours.mean - entry.value),
        });
        let mut row = vec![
            entry.scheme.clone(),
            entry.budget_key(),
            entry.metric.clone(),
            text,
            if is_time { format!("{:.1}", entry.value) } else { format!("{:.4}", entry.value) },
            gap,
        ];
        if config.tolerance.is_some() {
            row.push(match ours.filter(|_| !is_time) {
                None => String::new(),
                Some(ours) => {
                    let (at, verdict) = match entry.gap(ours, config) {
                        None => (0, "same"),
                        Some(gap) if gap > 0.0 => (1, "better"),
                        Some(_) => (2, "**worse**"),
                    };
                    counts[at] += 1;
                    verdict.into()
                }
            });
        }
        row
    };
    let rows: Vec<Vec<String>> = values.into_iter().map(row).collect();
    let header = ["scheme", "budget", "metric", "embc", "reference", "difference", "verdict"];
    let shown = if config.tolerance.is_some() { 7 } else { 6 };
    let header: Vec<String> = header[..shown].iter().map(|name| name.to_string()).collect();
    let title = if config.title.is_empty() { "the reference" } else { &config.title };
    let verdict = config.tolerance.map_or(":".into(), |tolerance| {
        let [same, better, worse] = counts;
        let draws = match config.draw {
            0.0 => String::new(),
            draw => format!(", over seeds and over draws of the data (a deviation of {draw} on either side)"),
        };
        format!(
            ". {same} values are the same, {better} of ours are better and {worse} worse by more than {tolerance} and, as far as they are known, two standard errors of the difference{draws}."
        )
    });
    let others = match others {
        0 => String::new(),
        n => format!("\n{n} of its values are of schemes or sizes that this experiment has not.\n"),
    };
    let why = config.differs.iter().map(|(scheme, why)| format!("- {scheme}: {why}\n"));
    let why: String = why.collect();
    let why = if why.is_empty() { why } else { format!("\nWhy they differ:\n\n{why}") };
    format!("\nBeside {title}{verdict}\n\n{}{why}{others}", md_table(&header, &rows))
}

/// Values of ours that lie below the reference by more than `[reference] tolerance` and are not
/// explained, in words.
pub fn below(experiment: &Experiment, grid: &Grid<'_>) -> Result<Vec<String>> {
    let Some(config) = &experiment.reference else { return Ok(Vec::new()) };
    let text = |entry: &Reference| {
        let gap = entry.gap(entry.ours(grid)?, config).filter(|gap| *gap < 0.0)?;
        let (name, budget) = (&experiment.name, entry.budget_key());
        let Reference { scheme, metric, value, .. } = entry;
        Some(format!("{name}: {scheme} {budget} {metric} is {gap:.4} off the reference's {value}"))
    };
    let explained = |entry: &&Reference| !config.differs.contains_key(&entry.scheme);
    Ok(read(experiment)?.iter().filter(explained).filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_beyond_tolerance_and_chance() {
        let reference = |metric: &str, error| Reference {
            scheme: "hash".into(),
            budget: None,
            metric: metric.into(),
            value: 0.5,
            error,
        };
        let ours = |mean, deviation| Summary { mean, deviation: Some(deviation), n: 4 };
        let config = |draw| ReferenceConfig {
            file: "values.csv".into(),
            title: String::new(),
            tolerance: Some(0.012),
            draw,
            differs: Default::default(),
        };
        let gap = |reference: Reference, ours, draw| reference.gap(ours, &config(draw));
        let auc = || reference("valid/auc", None);
        assert_eq!(gap(auc(), ours(0.51, 0.0), 0.0), None);
        assert!(gap(auc(), ours(0.52, 0.0), 0.0).unwrap() > 0.0);
        assert!(gap(auc(), ours(0.48, 0.0), 0.0).unwrap() < 0.0);
        assert_eq!(gap(auc(), ours(0.48, 0.022), 0.0), None);
        // Both sides' draws: two standard errors are 2 · √2 · 0.0072 = 0.0204, or 0.0198.
        assert_eq!(gap(auc(), ours(0.48, 0.0), 0.0072), None);
        assert!(gap(auc(), ours(0.48, 0.0), 0.007).unwrap() < 0.0);
        assert_eq!(gap(reference("valid/auc", Some(0.011)), ours(0.48, 0.0), 0.0), None);
        assert!(gap(reference("test/logloss", None), ours(0.48, 0.0), 0.0).unwrap() > 0.0);
        // Machines differ.
        assert_eq!(gap(reference("seconds", None), ours(9.0, 0.0), 0.0), None);
    }
}
