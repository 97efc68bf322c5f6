//! One HTML page for people: the answer in large letters, the curve of quality against bytes, words and
//! tables, every trial with its curve, config and provenance. It loads nothing: it opens from a file,
//! without a network. Trials are most of it: they are packed (deflate, base64) until they are asked for.

use super::{axis_of, body, choice, svg};
use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use embc_lab::choice::Choice;
use embc_lab::config::Experiment;
use embc_lab::estimate::Estimate;
use embc_lab::grid::{Grid, metric_key, sign_of};
use embc_lab::record::{Record, Status};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// The section of an experiment.
pub fn section(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let words = body(experiment, records)?;
    let plot = svg(experiment, records)?.unwrap_or_default();
    let (data, trials) = data(experiment, records)?;
    Ok(format!(
        "<section id=\"{name}\">\n<h2>{title}</h2>\n{answers}<div class=\"curves\" id=\"{name}/curve\"></div>\n<div id=\"{name}/words\">\n{words}</div>\n<div class=\"trials\" id=\"{name}/trials\"></div>\n<script type=\"application/json\">{data}</script>\n<script type=\"text/plain\">{trials}</script>\n</section>\n",
        name = escaped(&experiment.name),
        title = escaped(&experiment.title),
        words = html(&words, &[plot]),
        answers = answers(experiment, records)?,
        // No end tag inside.
        data = data.to_string().replace('<', "\\u003c"),
        trials = packed(&trials.to_string())?,
    ))
}

/// Answers that are seen at once.
const SHOWN: usize = 3;

/// What each budget's best is, and behind it the evidence.
fn answers(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let mut text = String::new();
    let all = choice::answers(experiment, records)?;
    let (first, rest) = all.split_at(all.len().min(SHOWN));
    let answer = |choice: &Choice<'_>| {
        let evidence: String =
            choice::evidence(choice).iter().map(|line| format!("- {line}\n")).collect();
        format!(
            "<details class=\"answer\"><summary>{}</summary>\n{}</details>\n",
            html(&choice::headline(choice), &[]).trim().replace("<p>", "").replace("</p>", ""),
            html(&evidence, &[])
        )
    };
    text.extend(first.iter().map(answer));
    if !rest.is_empty() {
        let rest_of: String = rest.iter().map(answer).collect();
        text += &format!(
            "<details class=\"more\"><summary>Other budgets: {} more</summary>\n{rest_of}</details>\n",
            rest.len()
        );
    }
    Ok(text)
}

/// Text for the page's script to unpack.
fn packed(text: &str) -> Result<String> {
    let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
    packer.write_all(text.as_bytes())?;
    Ok(STANDARD.encode(packer.finish()?))
}

/// The page of such sections; `titles` are names and titles of experiments.
pub fn page(titles: &[(String, String)], sections: &str) -> String {
    let item = |name: &str, title: &str| {
        format!("<li><a href=\"#{}\">{}</a></li>", escaped(name), escaped(title))
    };
    let items: String = match titles {
        [(name, _)] if !name.is_empty() => {
            let parts =
                [("", "Answer"), ("/curve", "Curve"), ("/words", "Tables"), ("/trials", "Trials")];
            parts.iter().map(|(part, title)| item(&format!("{name}{part}"), title)).collect()
        }
        _ => titles.iter().map(|(name, title)| item(name, title)).collect(),
    };
    let title = match titles {
        [(_, title)] => escaped(title),
        _ => "Embedding compression: results".into(),
    };
    let contents = match titles {
        [(name, _)] if name.is_empty() => "<main>\n".into(),
        [_] => format!("<nav aria-label=\"contents\"><ul>{items}</ul></nav>\n<main>\n"),
        _ => format!(
            "<nav aria-label=\"contents\"><ul>{items}</ul></nav>\n<main>\n<h1>{title}</h1>\n<div class=\"multiples\"></div>\n"
        ),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n{contents}{sections}</main>\n<script>\n{}</script>\n</body>\n</html>\n",
        include_str!("page/page.css"),
        include_str!("page/page.js"),
    )
}

/// The page of one experiment.
pub fn alone(experiment: &Experiment, records: &[Record]) -> Result<String> {
    let title = (experiment.name.clone(), experiment.title.clone());
    Ok(page(&[title], &section(experiment, records)?))
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

/// What the page's script reads at once, and the trials that it unpacks.
fn data(experiment: &Experiment, records: &[Record]) -> Result<(Value, Value)> {
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
    let number = trials.len();
    // Of which less is better, whatever they are called.
    let names: BTreeSet<&String> = grid.records.iter().flat_map(|r| r.metrics.keys()).collect();
    let less: Vec<&&String> = names.iter().filter(|name| sign_of(name) < 0.0).collect();
    let data = json!({
        "less": less, "title": experiment.title, "metric": key, "select": select, "cells": cells, "trials": number,
    });
    Ok((data, json!({ "config": common, "trials": trials })))
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
