//! One HTML page for people: the report's words and tables, its curves to ask, every trial with its
//! curve, config and provenance. It loads nothing: it opens from a file, without a network.

use super::{axis_of, markdown, svg};
use anyhow::Result;
use embc_lab::config::Experiment;
use embc_lab::estimate::Estimate;
use embc_lab::grid::{Grid, metric_key};
use embc_lab::record::Record;
use embc_lab::record::Status;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The section of an experiment.
pub fn section(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let words = markdown(experiment, records)?;
    let plot = svg(experiment, records)?.unwrap_or_default();
    let data = data(experiment, records)?;
    Ok(format!(
        "<section id=\"{}\">\n{}<h3>Curves</h3>\n<div class=\"curves\"></div>\n<div class=\"trials\"></div>\n<script type=\"application/json\">{}</script>\n</section>\n",
        escaped(&experiment.name),
        html(&words, &[plot]),
        // No end tag inside.
        data.to_string().replace('<', "\\u003c"),
    ))
}

/// The page of such sections; `titles` are names and titles of experiments.
pub fn page(titles: &[(String, String)], sections: &str) -> String {
    let item = |(name, title): &(String, String)| {
        format!("<li><a href=\"#{}\">{}</a></li>", escaped(name), escaped(title))
    };
    let items: String = titles.iter().map(item).collect();
    let title = match titles {
        [(_, title)] => escaped(title),
        _ => "Embedding compression: results".into(),
    };
    let contents = match titles.len() {
        1 => String::new(),
        _ => format!("<h1>{title}</h1>\n<nav><ul>{items}</ul></nav>\n"),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n{contents}{sections}<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page/page.css"),
        include_str!("page/page.js"),
    )
}

/// A page of words alone, with plots where their files are named.
pub fn document(title: &str, words: &str, plots: &[String]) -> String {
    let section = format!("<article>\n{}</article>\n", html(words, plots));
    page(&[(String::new(), title.to_string())], &section)
}

/// Markdown as HTML; tables may scroll, and plots stand where their files are named.
fn html(words: &str, plots: &[String]) -> String {
    let (mut image, mut plots) = (false, plots.iter());
    let events = Parser::new_ext(words, Options::ENABLE_TABLES).filter_map(|event| match event {
        Event::Start(Tag::Image { .. }) => {
            image = true;
            Some(Event::Html(plots.next().cloned().unwrap_or_default().into()))
        }
        Event::End(TagEnd::Image) => {
            image = false;
            None
        }
        Event::Text(_) if image => None,
        // A label or an error with angle brackets is text.
        Event::Html(text) | Event::InlineHtml(text) => Some(Event::Text(text)),
        Event::Start(Tag::Link { .. }) | Event::End(TagEnd::Link) => None,
        Event::Start(Tag::Table(_)) => Some(Event::Html("<div class=\"wide\"><table>".into())),
        Event::End(TagEnd::Table) => Some(Event::Html("</tbody></table></div>\n".into())),
        other => Some(other),
    });
    let mut text = String::new();
    pulldown_cmark::html::push_html(&mut text, events);
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// What the page's script reads.
fn data(experiment: &Experiment, records: &[Record]) -> Result<Value> {
    let grid = Grid::new(experiment, records)?;
    let key = metric_key(experiment, &grid.records);
    let select = format!("valid/{}", experiment.select());
    // What all trials' configs share is said once.
    let mut common = grid.records.first().and_then(|r| r.shown().as_object().cloned());
    for record in &grid.records {
        if let Some(common) = &mut common {
            let shown = record.shown();
            common.retain(|key, value| shown.get(key) == Some(value));
        }
    }
    let common = common.unwrap_or_default();
    let axis = axis_of(experiment)?;
    let cells = grid.cells.iter().filter_map(|((label, budget), cell)| {
        let first = cell.records.iter().find(|r| r.status == Status::Ok)?;
        let metric = |key: &String| {
            let scored = first.drawn_per_train(key).unwrap_or_default();
            let estimate = Estimate::over_splits(&cell.values(key), scored)?;
            let numbers = json!([six(estimate.mean), estimate.half.map(six), estimate.n]);
            Some((key.clone(), numbers))
        };
        let metrics: BTreeMap<String, Value> = first.metrics.keys().filter_map(metric).collect();
        let name = match (budget, axis) {
            (Some(budget), Some(axis)) => format!("{label}, {axis} {budget}"),
            _ => label.clone(),
        };
        Some(json!({
            "label": label, "name": name, "params": first.params,
            "bytes": first.param_bytes + first.index_bytes,
            "compression_params": first.compression_params,
            "compression_bytes": first.compression_bytes, "metrics": metrics,
        }))
    });
    let cells: Vec<Value> = cells.collect();
    let trials: Vec<Value> =
        grid.records.iter().map(|record| trial(record, &key, &select, &common)).collect();
    Ok(json!({
        "metric": key, "select": select, "config": common, "cells": cells, "trials": trials,
    }))
}

fn trial(record: &Record, key: &str, select: &str, common: &Map<String, Value>) -> Value {
    let budget = record.budget.as_object().into_iter().flatten();
    let budget = budget.map(|(axis, value)| format!(", {axis} {value}")).collect::<String>();
    let mut config = record.shown().as_object().cloned().unwrap_or_default();
    config.retain(|key, value| common.get(key) != Some(value));
    let curve = record.curve.iter().map(|point| {
        let at = |key: &str| point.get(key).copied();
        json!([at("epoch"), at(select), at("train/loss")])
    });
    json!({
        "id": record.trial, "name": format!("{}{budget}, seed {}", record.label, record.seed),
        "status": record.status, "error": record.error,
        "value": record.metrics.get(key).copied().map(six), "params": record.params,
        "bytes": record.param_bytes + record.index_bytes, "best_epoch": record.best_epoch,
        "wall_s": record.wall_s, "examples_per_s": record.train_examples_per_s,
        "curve": curve.collect::<Vec<_>>(), "config": config,
        "facts": {
            "sizes": record.sizes, "train_bytes": record.train_bytes,
            "model_params": record.model_params, "build_s": record.build_s,
            "peak_rss_bytes": record.peak_rss_bytes, "threads": record.threads,
            "jobs": record.jobs, "data_hash": record.data_hash,
            "weights_hash": record.weights_hash, "embc": record.embc, "host": record.host,
            "started": record.started, "finished": record.finished,
        },
    })
}

/// Six digits: more than seeds leave certain.
fn six(x: f64) -> f64 {
    format!("{x:.5e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_tables_that_scroll_and_plots_in_place() {
        let html =
            html("a < b\n\n| x |\n|---|\n| 1 & 2 |\n\n![alt](x.svg)\n", &["<svg></svg>".into()]);
        assert!(html.contains("<p>a &lt; b</p>"), "{html}");
        assert!(html.contains("<div class=\"wide\"><table><thead>"), "{html}");
        assert!(html.contains("<td>1 &amp; 2</td>"), "{html}");
        assert!(html.contains("<p><svg></svg></p>") && !html.contains("alt"), "{html}");
        let html = super::html("a <img src=x onerror=f()> Vec<u32> [b](javascript:c)\n", &[]);
        assert_eq!(html, "<p>a &lt;img src=x onerror=f()&gt; Vec&lt;u32&gt; b</p>\n");
    }
}
