//! a is to b as c is to what? The row nearest to b − a + c among the 100,000 most frequent, but for
//! the three (Mikolov et al. 2013; 3CosAdd).

use super::{Kind, Scores, Task, stem};
use crate::measure::{normalise, search};
use crate::table::Rows;
use crate::words::Index;
use anyhow::{Context, Result, bail};
use embc_core::cancel::Cancel;

pub(super) struct Analogy;

/// Rows that an answer is looked for in.
const AMONG: u32 = 100_000;

impl Kind for Analogy {
    fn name(&self) -> &'static str {
        "analogy"
    }
    fn doc(&self) -> &'static str {
        "a file of four words a line, ': section' between: the share of right fourth words"
    }
    fn open(&self, of: &str, words: &Index) -> Result<Box<dyn Task>> {
        let text = std::fs::read_to_string(of).with_context(|| of.to_string())?;
        let (mut questions, mut unknown) = (Vec::new(), 0);
        for (number, line) in (1..).zip(text.lines()) {
            if line.starts_with(':') || line.trim().is_empty() {
                continue;
            }
            let fields: Vec<&str> = line.split_whitespace().collect();
            let Ok([a, b, c, d]) = <[&str; 4]>::try_from(fields) else {
                bail!("{of}:{number}: four words, or ': section'");
            };
            let row = |word| words.row(word).filter(|row| *row < AMONG);
            match (row(a), row(b), row(c), row(d)) {
                (Some(a), Some(b), Some(c), Some(d)) => questions.push([a, b, c, d]),
                _ => unknown += 1,
            }
        }
        if questions.len() < 10 {
            bail!("{of}: {} questions of words that the table has: too few", questions.len());
        }
        Ok(Box::new(Questions { name: stem(of), questions, unknown }))
    }
}

struct Questions {
    name: String,
    questions: Vec<[u32; 4]>,
    unknown: usize,
}

impl Task for Questions {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn metric(&self) -> &'static str {
        "share of right answers"
    }
    fn about(&self) -> String {
        let (n, unknown) = (self.questions.len(), self.unknown);
        format!(
            "{n} questions; {unknown} with a word that is not among the first {AMONG} rows are left out"
        )
    }
    fn score(&self, rows: &dyn Rows, [n, dim]: [usize; 2], cancel: &Cancel) -> Result<Scores> {
        let ids: Vec<u32> = self.questions.iter().flat_map(|of| &of[..3]).copied().collect();
        let mut given = vec![0.0; ids.len() * dim];
        rows.look_up(&ids, &mut given)?;
        normalise(&mut given, dim);
        let target = |of: &[f32]| -> Vec<f32> {
            (0..dim).map(|i| of[dim + i] - of[i] + of[2 * dim + i]).collect()
        };
        let targets: Vec<f32> = given.chunks_exact(3 * dim).flat_map(target).collect();
        let shape = [n.min(AMONG as usize), dim];
        let given = |question: usize, id: u32| self.questions[question][..3].contains(&id);
        let best = search(rows, shape, &targets, 1, given, cancel)?;
        let right = best.iter().zip(&self.questions).map(|(best, of)| u8::from(*best == of[3]));
        Ok(Scores::Mean(right.map(f32::from).collect()))
    }
}
