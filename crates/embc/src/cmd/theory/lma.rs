//! `embc theory lma`: how much memory two values share against how much their rows overlap.

use super::{Line, Study};
use crate::cli::{Global, Study as Args};
use crate::interrupted;
use anyhow::{Context, Result, ensure};
use embc_core::minhash::{Family, Places, law};
use embc_core::rng::Rng;
use embc_lab::estimate::Estimate;
use embc_lab::units::count;
use rayon::prelude::*;
use serde::Deserialize;

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
    /// Times that hash functions and sets are drawn.
    draws: u64,
    /// Components of a value: d.
    dim: usize,
    /// Cells of the memory: m.
    cells: u64,
    /// Training rows from which sets are drawn.
    sample: u32,
    /// Rows of each of the two sets.
    sizes: Vec<u32>,
    /// Their Jaccard similarities.
    jaccard: Vec<f64>,
    /// Minhashes a component: p.
    powers: Vec<usize>,
    families: Vec<Family>,
    /// The power that the plot shows, for the largest sets.
    plot: usize,
}

/// A cell of the table: one family, power, size and similarity.
struct Place {
    family: Family,
    power: usize,
    size: u32,
    /// As wanted, and as sets of this size have it.
    jaccard: [f64; 2],
    /// Share of components in common, and cosine of embeddings of normal cells, draw by draw.
    shared: Vec<f64>,
    cosine: Vec<f64>,
}

pub fn run(args: &Args, global: &Global) -> Result<Option<Study>> {
    let (path, config): (_, Config) = super::load(args, "lma")?;
    check(&config).with_context(|| path.display().to_string())?;
    let mut places = Vec::new();
    for &family in &config.families {
        for &power in &config.powers {
            for &size in &config.sizes {
                for &wanted in &config.jaccard {
                    let real = f64::from(common(size, wanted));
                    let jaccard = [wanted, real / (2.0 * f64::from(size) - real)];
                    let (shared, cosine) = (Vec::new(), Vec::new());
                    places.push(Place { family, power, size, jaccard, shared, cosine });
                }
            }
        }
    }
    let bar = super::bar(&path, places.len() as u64, "points", global);
    places.par_iter_mut().for_each(|place| {
        measure(place, &config);
        bar.inc(1);
    });
    bar.finish_and_clear();
    Ok((!interrupted()).then(|| study(super::name(&path), &config, &places)))
}

fn check(config: &Config) -> Result<()> {
    let Config { draws, dim, cells, sample, sizes, jaccard, powers, families, .. } = config;
    ensure!(*draws > 0 && *dim > 0 && *cells > 0, "draws, dim and cells must be positive");
    ensure!(*cells <= u32::MAX.into(), "cells must be below 2^32");
    let size = sizes.iter().find(|size| **size == 0 || u64::from(**size) * 2 > (*sample).into());
    ensure!(size.is_none(), "sizes must be positive and at most half of sample, {sample}");
    ensure!(jaccard.iter().all(|j| (0.0..=1.0).contains(j)), "jaccard must be between 0 and 1");
    ensure!(powers.iter().all(|p| *p > 0), "powers must be positive");
    let empty = sizes.is_empty() || jaccard.is_empty() || powers.is_empty() || families.is_empty();
    ensure!(!empty, "sizes, jaccard, powers and families must not be empty");
    ensure!(powers.contains(&config.plot), "plot must be one of powers");
    Ok(())
}

/// Rows that two sets must have in common for a Jaccard similarity.
fn common(size: u32, jaccard: f64) -> u32 {
    (f64::from(size) * 2.0 * jaccard / (1.0 + jaccard)).round() as u32
}

fn measure(place: &mut Place, config: &Config) {
    // Points have nothing in common but the law, so that a chance is not seen in all of them.
    let point = format!("{} {} {}", place.power, place.size, place.jaccard[0]);
    for draw in 1..=config.draws {
        if interrupted() {
            return;
        }
        let mut rows: Vec<u32> = (0..config.sample).collect();
        Rng::stream(draw, &format!("sample {point}")).shuffle(&mut rows);
        let size = place.size as usize;
        let from = size - common(place.size, place.jaccard[0]) as usize;
        let (family, power) = (place.family, place.power);
        let key = Rng::stream(draw, &format!("functions {point}")).bits();
        let (dim, cells, range) = (config.dim, config.cells, config.sample.into());
        let places = Places { family, dim, power, key, cells, range };
        let [a, b] = [&rows[..size], &rows[from..from + size]].map(|rows| places.seen(rows));
        let equal = a.iter().zip(&b).filter(|(a, b)| a == b).count();
        place.shared.push(equal as f64 / dim as f64);
        let memory = Rng::stream(draw, "memory");
        let [a, b] = [a, b].map(|cells| -> Vec<f64> {
            cells.into_iter().map(|cell| memory.fork(cell.into()).normal()).collect()
        });
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        place.cosine.push(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt());
    }
}

fn study(name: String, config: &Config, places: &[Place]) -> Study {
    let mut lines = Vec::new();
    let off = places.iter().map(|p| (p.jaccard[0] - p.jaccard[1]).abs()).fold(0.0, f64::max);
    let largest = config.sizes.iter().max().copied().unwrap_or(0);
    let line = |name: String, plotted, points| Line { name, beside: false, plotted, points };
    for &power in &config.powers {
        let exact =
            |j: &f64| (*j, Estimate { mean: law(*j, power, config.cells), half: None, n: 1 });
        let law = config.jaccard.iter().map(exact).collect();
        lines.push(line(format!("J^{power} + (1 − J^{power})/m"), power == config.plot, law));
        for &family in &config.families {
            for &size in &config.sizes {
                let of = |values: &dyn Fn(&Place) -> Vec<f64>| -> Vec<(f64, Estimate)> {
                    let is = |p: &&Place| (p.family, p.power, p.size) == (family, power, size);
                    let point = |p: &Place| Some((p.jaccard[0], Estimate::of(&values(p))?));
                    places.iter().filter(is).filter_map(point).collect()
                };
                let plotted = power == config.plot && size == largest;
                let name = format!("{}, p = {power}, {} rows", text_of(family), count(size.into()));
                let cosine = line(format!("{name}: cosine"), false, of(&|p| p.cosine.clone()));
                lines.push(line(name, plotted, of(&|p| p.shared.clone())));
                if family == Family::Mix64 {
                    lines.push(cosine);
                }
            }
        }
    }
    Study {
        name,
        title: config.title.clone(),
        about: format!(
            "Paper: {}.\n\nTwo values, each in as many of {} training rows as the line says; {} components in {} cells; {} of sets and functions. Whole numbers of common rows put similarities up to {off:.4} off what the columns say; findings are by the real ones.\n\n{}",
            config.paper,
            count(config.sample.into()),
            config.dim,
            count(config.cells),
            match config.draws {
                1 => "one draw".into(),
                n => format!("mean and 95 % t-interval over {n} draws"),
            },
            config.notes.trim()
        ),
        findings: config.families.iter().map(|f| verdict(*f, config, places)).collect(),
        x_name: "Jaccard similarity".into(),
        y_name: "share of components in one cell".into(),
        log: [false, false],
        shown: config.jaccard.clone(),
        lines,
    }
}

/// How many points of a family follow the law, and which is furthest from it.
fn verdict(family: Family, config: &Config, places: &[Place]) -> String {
    let n = (config.dim as u64 * config.draws) as f64;
    let (mut all, mut within, mut furthest) = (0, 0, (0.0, 0.0, String::new()));
    for place in places.iter().filter(|place| place.family == family) {
        let expect = law(place.jaccard[1], place.power, config.cells);
        let mean = place.shared.iter().sum::<f64>() / place.shared.len() as f64;
        let gap = mean - expect;
        // Of counts: less than one component is no gap.
        let error = (expect * (1.0 - expect) / n).sqrt();
        all += 1;
        within += usize::from(gap.abs() <= 3.0 * error + 1.0 / n);
        if gap.abs() > furthest.0 {
            let Place { power, size, jaccard: [wanted, _], .. } = place;
            let at = format!("J = {wanted}, p = {power}, {} rows", count((*size).into()));
            furthest = (gap.abs(), gap, at);
        }
    }
    format!(
        "`{}`: {within} of {all} points lie within three standard errors of the law; the furthest is off by {:+.3} ({}).",
        text_of(family),
        furthest.1,
        furthest.2
    )
}

fn text_of(family: Family) -> String {
    serde_json::to_value(family)
        .ok()
        .and_then(|v| Some(v.as_str()?.to_string()))
        .unwrap_or_default()
}
