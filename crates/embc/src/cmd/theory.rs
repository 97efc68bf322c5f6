//! `embc theory`: studies of what is proved, rendered as words, a table, a plot or values.

use super::Outcome;
use crate::cli::{Global, Study as Args, StudyFormat, Theory};
use crate::plot::{self, Axis, Curve, Point};
use crate::table::markdown;
use anyhow::{Context, Result, bail};
use embc_lab::config;
use embc_lab::estimate::Estimate;
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::path::{Path, PathBuf};

mod lma;
mod lsq;

pub fn run(command: &Theory, global: &Global) -> Result<Outcome> {
    let (Theory::Lsq(args) | Theory::Lma(args)) = command;
    super::set_threads(args.threads)?;
    let study = match command {
        Theory::Lsq(args) => lsq::run(args, global)?,
        Theory::Lma(args) => lma::run(args, global)?,
    };
    let Some(study) = study else { return Ok(Outcome::Interrupted) };
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
    };
    let text = match args.format {
        StudyFormat::Md => study.markdown(),
        StudyFormat::Svg => study.svg()?,
        StudyFormat::Csv => study.csv()?,
        StudyFormat::All => {
            let folder = args.output.as_ref().expect("required");
            let file = |extension: &str| folder.join(format!("{}.{extension}", study.name));
            write(&file("md"), study.markdown())?;
            write(&file("svg"), study.svg()?)?;
            write(&file("csv"), study.csv()?)?;
            return Ok(Outcome::Fine);
        }
    };
    match &args.output {
        Some(path) => write(path, text)?,
        None => super::print(&text)?,
    }
    Ok(Outcome::Fine)
}

/// Reads a study's config; `kind` is the command it must be for.
fn load<T: DeserializeOwned>(args: &Args, kind: &str) -> Result<(PathBuf, T)> {
    let (path, text) = config::read(&args.config)?;
    let source = config::Source::of(&path, &text);
    source.parse::<toml::Table>()?;
    match config::theory(&text) {
        Some(theory) if theory == kind => {}
        Some(theory) => bail!("{}: a study of `embc theory {theory}`", path.display()),
        None => bail!("{}: no study: it has no theory = \"{kind}\"", path.display()),
    }
    Ok((path, source.parse()?))
}

/// The name of a study: its file's stem.
fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Progress on stderr.
fn bar(path: &Path, total: u64, what: &str, global: &Global) -> ProgressBar {
    let bar = if global.quiet { ProgressBar::hidden() } else { ProgressBar::new(total) };
    let style = format!("{{msg}} {{wide_bar}} {{pos}}/{{len}} {what}, {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&style).expect("a valid template"));
    bar.set_message(name(path));
    bar
}

/// What a study found.
struct Study {
    /// Its name, and that of its files.
    name: String,
    title: String,
    /// What was done, in Markdown.
    about: String,
    /// What follows from the numbers, a line each.
    findings: Vec<String>,
    x_name: String,
    y_name: String,
    log: [bool; 2],
    /// Columns of the table.
    shown: Vec<f64>,
    lines: Vec<Line>,
}

/// Values over x, of our own or of a paper.
struct Line {
    name: String,
    /// A paper's values for the line before.
    beside: bool,
    /// Whether the plot shows it; the table shows all.
    plotted: bool,
    points: Vec<(f64, Estimate)>,
}

impl Study {
    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.about.trim());
        for finding in &self.findings {
            let _ = writeln!(text, "- {finding}");
        }
        if !self.findings.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "**{}**:\n", self.y_name);
        let mut header = vec![self.x_name.clone()];
        header.extend(self.shown.iter().map(f64::to_string));
        let row = |line: &Line| {
            let at = |x: &f64| line.points.iter().find(|(at, _)| at == x);
            let cells = self.shown.iter().map(|x| at(x).map_or(String::new(), |p| text_of(p.1)));
            std::iter::once(line.name.clone()).chain(cells).collect()
        };
        text += &markdown(&header, &self.lines.iter().map(row).collect::<Vec<_>>());
        let _ = writeln!(text, "\n![{}]({}.svg)", self.title, self.name);
        text
    }

    fn csv(&self) -> Result<String> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(["curve", "x", "mean", "half_width"])?;
        for line in &self.lines {
            for (x, Estimate { mean, half, .. }) in &line.points {
                let half = half.map_or(String::new(), |half| format!("{half:e}"));
                csv.write_record([&line.name, &x.to_string(), &format!("{mean:e}"), &half])?;
            }
        }
        Ok(String::from_utf8(csv.into_inner()?)?)
    }

    fn svg(&self) -> Result<String> {
        let curve = |line: &Line| Curve {
            name: line.name.clone(),
            beside: line.beside,
            points: line
                .points
                .iter()
                .map(|&(x, y)| Point { x, y: y.mean, half: y.half.unwrap_or(0.0) })
                .collect(),
        };
        let axes = [(&self.x_name, self.log[0]), (&self.y_name, self.log[1])];
        let axes = axes.map(|(name, log)| Axis { name, log });
        let plotted = self.lines.iter().filter(|line| line.plotted);
        plot::svg(&self.title, axes, &plotted.map(curve).collect::<Vec<_>>())
    }
}

/// Three digits that count.
fn text_of(value: Estimate) -> String {
    let digits = (2 - value.mean.abs().max(1e-300).log10().floor() as i32).max(0);
    let (places, scale) = if digits > 6 { (2, true) } else { (digits as usize, false) };
    let text = |x: f64| if scale { format!("{x:.places$e}") } else { format!("{x:.places$}") };
    match value.half.filter(|half| *half > 1e-9 * value.mean.abs()) {
        Some(half) => format!("{} ± {}", text(value.mean), text(half)),
        None => text(value.mean),
    }
}
