//! How alike two words are, as people say: the rank correlation with cosines (WordSim-353, SimLex-999).

use super::{Kind, Scores, Task, stem};
use crate::measure::normalise;
use crate::table::Rows;
use crate::words::Index;
use anyhow::{Context, Result, bail};
use embc_core::cancel::Cancel;
use embc_core::linalg::dot;

pub(super) struct Similarity;

impl Kind for Similarity {
    fn name(&self) -> &'static str {
        "similarity"
    }
    fn doc(&self) -> &'static str {
        "a file of two words and a number a line: Spearman's correlation with their cosine"
    }
    fn open(&self, of: &str, words: &Index) -> Result<Box<dyn Task>> {
        let text = std::fs::read_to_string(of).with_context(|| of.to_string())?;
        let (mut ids, mut wanted, mut unknown, mut named) = (Vec::new(), Vec::new(), 0, false);
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let apart = |c: char| if line.contains('\t') { c == '\t' } else { ", ;".contains(c) };
            let fields: Vec<&str> = line.split(apart).filter(|f| !f.is_empty()).collect();
            let score = fields.get(2).and_then(|n| n.trim().parse::<f32>().ok());
            let score = score.filter(|score| score.is_finite());
            let Some(score) = score else {
                // A first line may name the columns.
                if !std::mem::replace(&mut named, true) && wanted.is_empty() && unknown == 0 {
                    continue;
                }
                bail!("{of}:{number}: two words and a number, apart by tabs or commas");
            };
            match (words.row(fields[0].trim()), words.row(fields[1].trim())) {
                (Some(a), Some(b)) => {
                    ids.extend([a, b]);
                    wanted.push(score);
                }
                _ => unknown += 1,
            }
        }
        if wanted.len() < 10 {
            bail!("{of}: {} pairs of words that the table has: too few", wanted.len());
        }
        if wanted.iter().all(|score| *score == wanted[0]) {
            bail!("{of}: all pairs have the score {}: there is nothing to correlate", wanted[0]);
        }
        Ok(Box::new(Pairs { name: stem(of), ids, wanted, unknown }))
    }
}

struct Pairs {
    name: String,
    ids: Vec<u32>,
    wanted: Vec<f32>,
    unknown: usize,
}

impl Task for Pairs {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn metric(&self) -> &'static str {
        "Spearman's correlation"
    }
    fn about(&self) -> String {
        let (pairs, unknown) = (self.wanted.len(), self.unknown);
        format!("{pairs} pairs; {unknown} with a word that the table lacks are left out")
    }
    fn score(&self, rows: &dyn Rows, [_, dim]: [usize; 2], _: &Cancel) -> Result<Scores> {
        let mut values = vec![0.0; self.ids.len() * dim];
        rows.look_up(&self.ids, &mut values)?;
        normalise(&mut values, dim);
        let said = values.chunks_exact(2 * dim).map(|pair| dot(&pair[..dim], &pair[dim..]));
        Ok(Scores::Rank { wanted: self.wanted.clone(), said: said.collect() })
    }
}
