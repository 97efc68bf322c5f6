//! Texts with labels: the mean of their words' rows, and a linear head on it (ridge regression on the
//! classes). Ten random divisions into texts to train on and others; of these, half are scored in five
//! divisions, which choose, and the other half in the other five, which judge.

use super::{Kind, Scores, Task, stem};
use crate::table::Rows;
use crate::words::Index;
use anyhow::{Context, Result, bail};
use embc_core::cancel::Cancel;
use embc_core::linalg::{Op, gemm, solve};
use embc_core::rng::Rng;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

pub(super) struct Classify;

/// Divisions of the texts: half of them choose.
const DRAWS: u64 = 10;
/// One text in so many is held out; the others train.
const HELD: u64 = 5;
/// More classes than these are none.
const MOST: usize = 1000;
/// What is added to the products of features, over the mean of their diagonal.
const RIDGE: f32 = 1e-4;

#[derive(Deserialize)]
struct Line {
    text: String,
    label: serde_json::Value,
}

impl Kind for Classify {
    fn name(&self) -> &'static str {
        "classify"
    }
    fn doc(&self) -> &'static str {
        "JSON lines with text and label: accuracy of a linear head on the mean of a text's rows"
    }
    fn open(&self, of: &str, words: &Index) -> Result<Box<dyn Task>> {
        let file = BufReader::new(File::open(of).with_context(|| of.to_string())?);
        let mut ids: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut texts, mut labels, mut unknown) = (Vec::new(), Vec::new(), [0u64; 2]);
        for (number, line) in (1..).zip(file.lines()) {
            let line = line.with_context(|| of.to_string())?;
            if line.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&line)
                .with_context(|| format!("{of}:{number}: a text and a label"))?;
            let mut rows = Vec::new();
            for word in line.text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
                unknown[1] += 1;
                match words.row(word) {
                    Some(row) => rows.push(row),
                    None => unknown[0] += 1,
                }
            }
            ids.extend(rows.iter().map(|&row| (row, 0)));
            texts.push(rows);
            labels.push(match line.label {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            });
        }
        // Rows are looked up once each.
        (0..).zip(ids.values_mut()).for_each(|(place, id)| *id = place);
        texts.iter_mut().flatten().for_each(|row| *row = ids[row]);
        let mut names = labels.clone();
        names.sort();
        names.dedup();
        if names.len() < 2 || names.len() > MOST || texts.len() < 50 {
            let (texts, classes) = (texts.len(), names.len());
            bail!(
                "{of}: {texts} texts of {classes} classes: 50 or more, of 2 to {MOST}, are scored"
            );
        }
        let class = |label: &String| names.binary_search(label).expect("it is one");
        let labels = labels.iter().map(class).collect();
        let (rows, classes) = (ids.into_keys().collect(), names.len());
        Ok(Box::new(Texts { name: stem(of), rows, texts, labels, classes, unknown }))
    }
}

struct Texts {
    name: String,
    /// Rows of the table that occur.
    rows: Vec<u32>,
    /// Places among these.
    texts: Vec<Vec<u32>>,
    labels: Vec<usize>,
    classes: usize,
    unknown: [u64; 2],
}

impl Task for Texts {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn metric(&self) -> &'static str {
        "accuracy"
    }
    fn about(&self) -> String {
        let [unknown, all] = self.unknown;
        format!(
            "{} texts of {} classes, {DRAWS} random divisions, four fifths to train on; {:.1} % of words are not in the table and left out",
            self.texts.len(),
            self.classes,
            100.0 * unknown as f64 / all.max(1) as f64
        )
    }
    fn score(&self, rows: &dyn Rows, [_, dim]: [usize; 2], _: &Cancel) -> Result<Scores> {
        let mut values = vec![0.0; self.rows.len() * dim];
        rows.look_up(&self.rows, &mut values)?;
        // The last feature is 1.
        let width = dim + 1;
        let mut features = vec![0.0; self.texts.len() * width];
        for (text, out) in self.texts.iter().zip(features.chunks_exact_mut(width)) {
            for &row in text {
                let row = &values[row as usize * dim..][..dim];
                out.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / text.len() as f32);
            }
            out[dim] = 1.0;
        }
        let values = (0..DRAWS).map(|draw| self.accuracy(&features, width, draw));
        let values = values.collect::<Result<Vec<f64>>>()?;
        Ok(Scores::Draws { values, scored: 0.5 / (HELD - 1) as f64 })
    }
}

impl Texts {
    /// Of a head that most texts train, on the others.
    fn accuracy(&self, features: &[f32], width: usize, draw: u64) -> Result<f64> {
        let (stream, half) = (Rng::stream(draw, "division"), Rng::stream(0, "halves"));
        let held = |i: usize| stream.at(i as u64).is_multiple_of(HELD);
        let scored = |i: usize| held(i) && half.at(i as u64) % 2 == draw % 2;
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for (i, of) in features.chunks_exact(width).enumerate().filter(|(i, _)| !held(*i)) {
            x.extend_from_slice(of);
            y.extend((0..self.classes).map(|class| f32::from(self.labels[i] == class)));
        }
        let (n, classes) = (x.len() / width, self.classes);
        let (mut products, mut sums) = (vec![0.0; width * width], vec![0.0; width * classes]);
        gemm(width, width, n, &x, Op::T, &x, Op::N, 0.0, &mut products);
        gemm(width, classes, n, &x, Op::T, &y, Op::N, 0.0, &mut sums);
        // The last feature, which is 1, is not held back.
        let mean = (0..width - 1).map(|i| products[i * (width + 1)]).sum::<f32>() / width as f32;
        let head = std::iter::successors(Some(RIDGE), |ridge| Some(ridge * 10.0))
            .take(12)
            .find_map(|ridge| {
                let mut products = products.clone();
                let by = (ridge * mean).max(f32::MIN_POSITIVE);
                (0..width - 1).for_each(|i| products[i * (width + 1)] += by);
                solve(width, classes, &products, &sums)
            });
        let head = head.context("the rows are too alike for a linear head")?;
        let mut said = vec![0.0; features.len() / width * classes];
        gemm(features.len() / width, classes, width, features, Op::N, &head, Op::N, 0.0, &mut said);
        let (mut right, mut all) = (0, 0);
        for (i, said) in said.chunks_exact(classes).enumerate().filter(|(i, _)| scored(*i)) {
            let best = (0..classes).max_by(|&a, &b| said[a].total_cmp(&said[b]).then(b.cmp(&a)));
            right += usize::from(best == Some(self.labels[i]));
            all += 1;
        }
        Ok(right as f64 / (all as f64).max(1.0))
    }
}
