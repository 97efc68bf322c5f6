//! `embc theory lsq`: CCE on least squares, against the theorem's bound and k-means of the optimum.

use super::{Line, Study};
use crate::cli::{Global, Study as Args};
use crate::interrupted;
use anyhow::{Context, Result, bail, ensure};
use embc_core::lsq::{Method, Noise, Problem, Spec};
use embc_lab::estimate::Estimate;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The config of a study.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    title: String,
    #[serde(rename = "theory")]
    _theory: String,
    paper: String,
    #[serde(default)]
    notes: String,
    /// Times that X, Y and all that is random after them are drawn.
    draws: u64,
    /// Rows of M that are fresh in each iteration: k.
    rows: usize,
    iterations: usize,
    /// The number of the first iteration.
    #[serde(default)]
    first: usize,
    measure: Measure,
    /// Iterations that the table shows.
    show: Vec<usize>,
    /// Show the theorem's bound, and that of a flat spectrum.
    #[serde(default)]
    bound: bool,
    /// Numbers of clusters of the optimum to show as lines.
    #[serde(default)]
    clusters: Vec<usize>,
    /// Logarithmic axes, x and y.
    #[serde(default)]
    log: [bool; 2],
    /// A paper's values: curve,iteration,value; beside the config.
    #[serde(default)]
    reference: Option<String>,
    problem: Spec,
    curve: Vec<CurveConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CurveConfig {
    label: String,
    method: Method,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Measure {
    /// (|XT − Y|² − |XT* − Y|²) / |XT*|²: 1 for T = 0, 0 for the optimum.
    Excess,
    /// |XT − Y|² / (n d2).
    Mse,
}

impl Measure {
    fn of(self, excess: f64, problem: &Problem) -> f64 {
        match self {
            Self::Excess => excess / problem.explained,
            Self::Mse => (excess + problem.least) / problem.entries,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Excess => "share of the loss above the optimum's that is left",
            Self::Mse => "mean squared error",
        }
    }
}

/// One draw of the problem, and what each curve made of it.
struct Draw {
    seed: u64,
    problem: Problem,
    /// [curve][iteration], in the measure.
    curves: Vec<Vec<f64>>,
}

pub fn run(args: &Args, global: &Global) -> Result<Option<Study>> {
    let (path, config): (PathBuf, Config) = super::load(args, "lsq")?;
    check(&config).with_context(|| path.display().to_string())?;
    let papers = references(&config, &path)?;
    let steps = config.draws as usize * config.curve.len() * config.iterations;
    let bar = super::bar(&path, steps as u64, "iterations", global);
    let draws: Vec<Draw> =
        (1..=config.draws).into_par_iter().map(|i| draw(&config, i, &bar)).collect();
    bar.finish_and_clear();
    if interrupted() {
        return Ok(None);
    }
    Ok(Some(study(super::name(&path), &config, &draws, papers)))
}

fn check(config: &Config) -> Result<()> {
    let Spec { examples, ids, dim, .. } = config.problem;
    let rows = config.rows;
    ensure!(
        dim > 0 && dim < rows && rows < ids && ids <= examples,
        "0 < dim < rows < ids <= examples must hold, not 0 < {dim} < {rows} < {ids} <= {examples}"
    );
    ensure!(config.draws > 0 && config.iterations > 0, "draws and iterations must be positive");
    ensure!(!config.curve.is_empty(), "there is no [[curve]]");
    let wrong = config.clusters.iter().find(|k| **k == 0 || **k > ids);
    ensure!(wrong.is_none(), "clusters must be between 1 and ids");
    for CurveConfig { label, method } in &config.curve {
        match method {
            Method::Sparse { ones, .. } => {
                ensure!(*ones > 0 && *ones <= rows, "{label}: ones must be 1 to {rows}");
            }
            Method::Dense { fresh, .. } => {
                ensure!(*fresh != Some(0), "{label}: fresh must be positive");
            }
        }
    }
    Ok(())
}

fn draw(config: &Config, seed: u64, bar: &ProgressBar) -> Draw {
    let problem = Problem::draw(&config.problem, seed);
    let curve = |curve: &CurveConfig| {
        problem
            .iterate(curve.method, config.rows, seed)
            .take(config.iterations)
            .take_while(|_| !interrupted())
            .inspect(|_| bar.inc(1))
            .map(|excess| config.measure.of(excess, &problem))
            .collect()
    };
    let curves = config.curve.par_iter().map(curve).collect();
    Draw { seed, problem, curves }
}

fn study(name: String, config: &Config, draws: &[Draw], papers: Vec<(String, Points)>) -> Study {
    let mut lines = Vec::new();
    let mut findings = Vec::new();
    let over = |values: &dyn Fn(usize, &Draw) -> f64, label: &str| {
        let point = |i: usize| {
            let values: Vec<f64> = draws.iter().map(|draw| values(i, draw)).collect();
            ((config.first + i) as f64, Estimate::of(&values).expect("a seed"))
        };
        Line {
            name: label.into(),
            beside: false,
            plotted: true,
            points: (0..config.iterations).map(point).collect(),
        }
    };
    for (c, curve) in config.curve.iter().enumerate() {
        lines.push(over(&|i, draw| draw.curves[c][i], &curve.label));
        lines.extend(papers.iter().filter(|(label, _)| *label == curve.label).map(
            |(_, points)| Line {
                beside: true,
                plotted: true,
                name: format!("{}, the paper", curve.label),
                points: points.clone(),
            },
        ));
    }
    if config.bound {
        let bound = |rate: f64, i: usize, draw: &Draw| {
            let left = (1.0 - rate).powi(((i + 1) * config.rows) as i32);
            config.measure.of(left * draw.problem.explained, &draw.problem)
        };
        let theorem = |i: usize, draw: &Draw| bound(draw.problem.rho(), i, draw);
        let plain = Method::Dense { noise: Noise::Normal, fresh: None };
        for (c, curve) in config.curve.iter().enumerate().filter(|(_, c)| c.method == plain) {
            findings.push(against_bound(config, draws, c, &curve.label, &theorem));
        }
        lines.push(over(&theorem, "the theorem's bound, (1 − ρ)^ik"));
        let flat = |i, draw: &Draw| bound(1.0 / config.problem.ids as f64, i, draw);
        lines.push(over(&flat, "(1 − 1/d1)^ik"));
    }
    for &k in &config.clusters {
        let of = |draw: &Draw| {
            config.measure.of(draw.problem.clustered_optimum(k, draw.seed).0, &draw.problem)
        };
        let levels: Vec<f64> = draws.par_iter().map(of).collect();
        let level = Estimate::of(&levels).expect("a seed");
        for (c, curve) in config.curve.iter().enumerate() {
            findings.push(crossing(config, draws, c, &curve.label, k, &levels));
        }
        let x = |i| ((config.first + i) as f64, level);
        let points = (0..config.iterations).map(x).collect();
        lines.push(Line {
            name: format!("optimum in {k} clusters"),
            beside: false,
            plotted: true,
            points,
        });
    }
    Study {
        about: about(config),
        name,
        title: config.title.clone(),
        findings,
        x_name: "iteration".into(),
        y_name: config.measure.name().into(),
        log: config.log,
        shown: config.show.iter().map(|&i| i as f64).collect(),
        lines,
    }
}

fn about(config: &Config) -> String {
    let Spec { examples, ids, dim, rank, planted } = config.problem;
    let x = rank.map_or("normal X".into(), |r| format!("X = A B + 0.01 N of rank {r} but for N"));
    let y = if planted { "Y = X T for a normal T" } else { "normal Y" };
    format!(
        "Paper: {}.\n\n{x} [{examples} × {ids}], {y} [{examples} × {dim}], k = {}. {}\n\n{}",
        config.paper,
        config.rows,
        match config.draws {
            1 => "One draw.".into(),
            _ => format!(
                "Mean and 95 % t-interval over {} draws of X, Y and all else.",
                config.draws
            ),
        },
        config.notes.trim()
    )
}

/// Whether a curve stays below the bound in every draw and iteration, and how close it comes.
fn against_bound(
    config: &Config,
    draws: &[Draw],
    curve: usize,
    label: &str,
    bound: &dyn Fn(usize, &Draw) -> f64,
) -> String {
    let shares = draws.iter().flat_map(|draw| {
        let points = draw.curves[curve].iter().enumerate();
        // Below this, both are rounding.
        let told = points.filter(move |(i, _)| bound(*i, draw) > 1e-20 * bound(0, draw));
        told.map(move |(i, x)| (i, x / bound(i, draw)))
    });
    let (at, share) = shares.max_by(|a, b| a.1.total_cmp(&b.1)).expect("an iteration");
    let at = at + config.first;
    match share <= 1.0 {
        true => format!(
            "`{label}`: every iteration of every draw is below the theorem's bound; the closest is iteration {at}, with {:.0} % of it.",
            100.0 * share
        ),
        false => {
            format!("`{label}` is ABOVE the theorem's bound: {share:.3} times at iteration {at}.")
        }
    }
}

/// When a curve passes below the optimum's clusters, draw by draw.
fn crossing(
    config: &Config,
    draws: &[Draw],
    curve: usize,
    label: &str,
    k: usize,
    levels: &[f64],
) -> String {
    let passes = |(draw, level): (&Draw, &f64)| draw.curves[curve].iter().position(|x| x < level);
    let passed: Vec<Option<usize>> = draws.iter().zip(levels).map(passes).collect();
    if passed.iter().all(Option::is_none) {
        return format!(
            "`{label}` stays above the optimum in {k} clusters in all {} iterations, in every draw.",
            config.iterations
        );
    }
    let at = passed.into_iter().map(|at| match at {
        Some(at) => (config.first + at).to_string(),
        None => "none".into(),
    });
    let at = at.collect::<Vec<_>>().join(", ");
    format!("`{label}` passes below the optimum in {k} clusters at iteration {at}, draw by draw.")
}

type Points = Vec<(f64, Estimate)>;

/// The paper's values by curve.
fn references(config: &Config, beside: &Path) -> Result<Vec<(String, Points)>> {
    let Some(file) = &config.reference else { return Ok(Vec::new()) };
    let path = beside.with_file_name(file);
    let place = || format!("{}: the study's reference file", path.display());
    let mut reader = csv::Reader::from_path(&path).with_context(place)?;
    let mut curves: Vec<(String, Points)> = Vec::new();
    for row in reader.deserialize() {
        let (label, iteration, value): (String, f64, f64) = row.with_context(place)?;
        let point = (iteration, Estimate { mean: value, half: None, n: 1 });
        match curves.iter_mut().find(|(known, _)| *known == label) {
            Some((_, points)) => points.push(point),
            None => curves.push((label, vec![point])),
        }
    }
    let known = |label: &String| config.curve.iter().any(|curve| curve.label == *label);
    if let Some((label, _)) = curves.iter().find(|(label, _)| !known(label)) {
        bail!("{}: there is no [[curve]] called {label:?}", path.display());
    }
    Ok(curves)
}
