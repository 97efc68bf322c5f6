//! Plots as SVG: curves over a logarithmic axis, with intervals, readable on light and dark pages.

use anyhow::{Result, anyhow};
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
}

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

/// Draws curves; the first stands out.
pub fn svg(title: &str, x_name: &str, y_name: &str, curves: &[Curve]) -> Result<String> {
    let mut text = String::new();
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let mut values: Vec<f64> = points().map(|point| point.x.ln()).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    let (Some(&first), Some(&last)) = (values.first(), values.last()) else {
        return Err(anyhow!("{title}: nothing to plot"));
    };
    let low = points().map(|p| p.y - p.half).fold(0.0, f64::min);
    let high = points().map(|p| p.y + p.half).fold(1.0, f64::max);
    let margin = 0.04 * (high - low);
    let x = first - 0.1..last + 0.1;
    draw(&mut text, title, [x_name, y_name], curves, x, values, low - margin..high + margin)
        .map_err(|error| anyhow!("{title}: cannot be drawn: {error}"))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    title: &str,
    [x_name, y_name]: [&str; 2],
    curves: &[Curve],
    x: Range<f64>,
    marks: Vec<f64>,
    y: Range<f64>,
) -> Result<()> {
    let root = SVGBackend::with_string(text, (900, 520)).into_drawing_area();
    let (plot, legend) = root.split_horizontally(680);
    let font = |size: i32| ("sans-serif", size).into_font().color(&GREY);
    let mut chart = ChartBuilder::on(&plot)
        .caption(title, font(17))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.25))
        .light_line_style(TRANSPARENT)
        .label_style(font(14))
        .axis_desc_style(font(15))
        .x_labels(0)
        .x_desc(x_name)
        .y_desc(y_name)
        .draw()?;
    // A mark for each value that occurs, which is not a thing that axes of the library do.
    for mark in marks {
        let value = format!("{:.3}", mark.exp());
        let value = value.trim_end_matches('0').trim_end_matches('.').to_string();
        let (x, y) = chart.backend_coord(&(mark, y.start));
        plot.draw(&Text::new(value.clone(), (x - 4 * value.len() as i32, y + 8), font(14)))?;
    }
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let style = colour.stroke_width(if i == 0 { 4 } else { 2 });
        // Colours come again with open marks.
        let mark = if i < COLOURS.len() { colour.filled() } else { colour.stroke_width(2) };
        let line = curve.points.iter().map(|p| (p.x.ln(), p.y));
        chart.draw_series(LineSeries::new(line.clone(), style))?;
        let bars = curve.points.iter().filter(|p| p.half > 0.0).map(|p| {
            PathElement::new([(p.x.ln(), p.y - p.half), (p.x.ln(), p.y + p.half)], colour.mix(0.5))
        });
        chart.draw_series(bars)?;
        chart.draw_series(line.map(|at| Circle::new(at, 4, mark)))?;
        let at = 60 + 24 * i as i32;
        legend.draw(&PathElement::new([(0, at), (26, at)], style))?;
        legend.draw(&Circle::new((13, at), 4, mark))?;
        legend.draw(&Text::new(curve.name.clone(), (34, at - 7), font(14)))?;
    }
    root.present()?;
    Ok(())
}
