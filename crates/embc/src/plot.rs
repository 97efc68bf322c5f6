//! Plots as SVG: curves with intervals, readable on light and dark pages.

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;

/// A value with half the width of its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    pub half: f64,
}

/// A named line.
#[derive(Clone, Debug)]
pub struct Curve {
    pub name: String,
    pub points: Vec<Point>,
    /// Another's values beside the curve before: open marks of its colour, without a line.
    pub beside: bool,
}

/// What an axis shows. One that is not logarithmic holds 0.
#[derive(Clone, Copy, Debug)]
pub struct Axis<'a> {
    pub name: &'a str,
    pub log: bool,
}

/// More values than this are a line without marks, on an axis with round numbers.
const MARKED: usize = 16;
/// Text and axes: of middle grey, which white and black pages both show.
const GREY: RGBColor = RGBColor(128, 128, 128);
/// Okabe and Ito's colours, which colour-blind readers tell apart; black and yellow, which do not
/// show on every page, are left out.
const COLOURS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Where values lie on an axis: as they are, or as their logarithms.
struct Scale {
    log: bool,
    ticks: Vec<f64>,
    /// Least and greatest value.
    ends: [f64; 2],
    /// The places of the axis's ends.
    low: f64,
    high: f64,
}

impl Scale {
    /// An axis for these values, with a tick for each if there are few, and `marked`.
    fn new(axis: Axis<'_>, values: impl Iterator<Item = f64>, marked: bool) -> Self {
        let mut values: Vec<f64> = values.filter(|x| !axis.log || *x > 0.0).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let (low, high) = (values.first().map_or(1.0, |x| *x), values.last().map_or(1.0, |x| *x));
        let (low, high) = if axis.log { (low, high) } else { (low.min(0.0), high.max(0.0)) };
        // Something to divide where all values are the same.
        let high = if high > low { high } else { low + 1.0 };
        let ticks = match (marked && values.len() <= MARKED, axis.log) {
            (true, _) => values,
            (_, true) => {
                let decades = (low.log10().floor() as i32..=high.log10().ceil() as i32)
                    .flat_map(|e| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(e)));
                let all: Vec<f64> = decades.filter(|x| (low..=high).contains(x)).collect();
                let few = all.len() <= 10;
                let is_decade = |x: &f64| x.log10().fract().abs() < 1e-9;
                match all.len() {
                    0 | 1 => vec![low, high],
                    _ => all.into_iter().filter(|x| few || is_decade(x)).collect(),
                }
            }
            (_, false) => {
                // 1, 2 or 5 times a power of ten, five to eleven of them.
                let rough = (high - low) / 5.0;
                let power = 10f64.powf(rough.log10().floor());
                let step = [5.0, 2.0, 1.0].map(|m| m * power).into_iter().find(|s| *s <= rough);
                let step = step.unwrap_or(power);
                let first = (low / step).ceil() as i64;
                (first..=(high / step) as i64).map(|i| i as f64 * step).collect()
            }
        };
        let ends = [low, high];
        let mut scale = Self { log: axis.log, ticks, ends, low: f64::NEG_INFINITY, high: 0.0 };
        let margin = 0.04 * (scale.at(high) - scale.at(low)).max(1e-9);
        (scale.low, scale.high) = (scale.at(low) - margin, scale.at(high) + margin);
        scale
    }

    /// The place of a value; values below a logarithmic axis lie at its end.
    fn at(&self, value: f64) -> f64 {
        match self.log {
            true => value.max(f64::MIN_POSITIVE).ln().max(self.low),
            false => value,
        }
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (self.at(*value) - self.low) / (self.high - self.low);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.ends[0]..self.ends[1]
    }
}

impl ValueFormatter<f64> for Scale {
    fn format_ext(&self, value: &f64) -> String {
        let short = |digits: String| digits.trim_end_matches('0').trim_end_matches('.').to_string();
        match value.abs() {
            0.001..1e6 | 0.0 => short(format!("{value:.3}")),
            1e6..1e9 => short(format!("{:.3}", value / 1e6)) + " M",
            _ => format!("{value:.2e}").replace(".00e", "e"),
        }
    }
}

/// Draws curves; the first stands out.
pub fn svg(title: &str, axes: [Axis<'_>; 2], curves: &[Curve]) -> Result<String> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    if points().next().is_none() {
        return Err(anyhow!("{title}: nothing to plot"));
    }
    let ends = |p: &Point| [p.y - p.half, p.y, p.y + p.half];
    // An interval of a logarithmic axis may reach below zero.
    let ends = points().flat_map(|p| if axes[1].log { [p.y; 3] } else { ends(p) });
    let scales =
        [Scale::new(axes[0], points().map(|p| p.x), true), Scale::new(axes[1], ends, false)];
    let mut text = String::new();
    draw(&mut text, title, axes, scales, curves)
        .map_err(|error| anyhow!("{title}: cannot be drawn: {error}"))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    title: &str,
    axes: [Axis<'_>; 2],
    [x, y]: [Scale; 2],
    curves: &[Curve],
) -> Result<()> {
    // Room for the longest name, at about so many pixels a letter.
    let letters = curves.iter().map(|curve| curve.name.chars().count()).max().unwrap_or(0);
    let width = 900.max(720 + 13 * letters as u32 / 2);
    let root = SVGBackend::with_string(text, (width, 520)).into_drawing_area();
    let (plot, legend) = root.split_horizontally(680);
    let font = |size: i32| ("sans-serif", size).into_font().color(&GREY);
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, font(17))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.25))
        .light_line_style(TRANSPARENT)
        .label_style(font(14))
        .axis_desc_style(font(15))
        .x_desc(axes[0].name)
        .y_desc(axes[1].name)
        .draw()?;
    let mut lines = 0;
    for (i, curve) in curves.iter().enumerate() {
        lines += usize::from(!curve.beside);
        let number = lines.max(1) - 1;
        let colour = COLOURS[number % COLOURS.len()];
        let style = colour.stroke_width(if i == 0 { 4 } else { 2 });
        // Colours come again with open marks.
        let open = curve.beside || number >= COLOURS.len();
        let mark = if open { colour.stroke_width(2) } else { colour.filled() };
        let shown: Vec<&Point> =
            curve.points.iter().filter(|p| !axes[0].log || p.x > 0.0).collect();
        let line = shown.iter().map(|p| (p.x, p.y));
        let at = 60 + 24 * i as i32;
        if !curve.beside {
            chart.draw_series(LineSeries::new(line.clone(), style))?;
            legend.draw(&PathElement::new([(0, at), (26, at)], style))?;
        }
        if curve.beside || shown.len() <= MARKED {
            let bars = shown.iter().filter(|p| p.half > 0.0).map(|p| {
                PathElement::new([(p.x, p.y - p.half), (p.x, p.y + p.half)], colour.mix(0.5))
            });
            chart.draw_series(bars)?;
            chart.draw_series(line.map(|at| Circle::new(at, 4, mark)))?;
            legend.draw(&Circle::new((13, at), 4, mark))?;
        }
        legend.draw(&Text::new(curve.name.clone(), (34, at - 7), font(14)))?;
    }
    root.present()?;
    Ok(())
}
