//! Ids that training does not have, and what stands for them.

use crate::graph::Graph;
use crate::scheme::{Embedding, Tape};
use embc_device::program::{Node, Op};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What stands for an id without a training row, the same for all schemes, so that rows that no
/// training moved do not decide a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// Zeros: the field says nothing.
    Zero,
    /// The mean of the field's trained rows.
    #[default]
    Mean,
    /// The row of the unknown id, which is trained: it stands for ids of one training row in half
    /// of the epochs.
    Trained,
    /// Whatever the scheme has there: a row as it began, or one that it shares with trained ids.
    Row,
}

/// Ids of one input field that training does not have, and what stands for them.
pub(super) struct UntrainedIds {
    /// The ids of the field in this table.
    field: Range<u32>,
    /// Runs of those without a training row.
    pub(super) runs: Vec<Range<u32>>,
    row: Vec<f32>,
}

impl UntrainedIds {
    pub(super) fn of(field: Range<u32>, counts: &[u32], width: usize) -> Self {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for id in field.clone().filter(|&id| counts.get(id as usize) == Some(&0)) {
            match runs.last_mut() {
                Some(run) if run.end == id => run.end += 1,
                _ => runs.push(id..id + 1),
            }
        }
        Self { field, runs, row: vec![0.0; width] }
    }

    /// True for the ids of the field that begins at `offset`.
    pub(super) fn is_of(&self, offset: u32) -> bool {
        self.field.start == offset
    }

    /// States the rows of ids, given those that the scheme has.
    pub(super) fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, row: Node) -> Node {
        let when = match &self.runs[..] {
            [Range { start, end }] => g.op(Op::Within { x: ids, from: *start, to: *end }),
            _ => g.listed("untrained", 2, 1, |id, _| u32::from(self.holds(id))),
        };
        let tensor = g.row(&format!("stand-in {}", self.field.start), &self.row);
        g.op(Op::Replace { x: row, when, tensor })
    }

    fn holds(&self, id: u32) -> bool {
        let at = self.runs.partition_point(|run| run.end <= id);
        self.runs.get(at).is_some_and(|run| run.start <= id)
    }

    /// Puts the stand-in into `rows` [U × width] of the ids that are such.
    pub(super) fn stand_in(&self, ids: &[u32], rows: &mut [f32]) {
        for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(self.row.len())) {
            if self.field.contains(&id) && self.holds(id) {
                row.copy_from_slice(&self.row);
            }
        }
    }

    /// Makes the mean of the field's trained rows the stand-in, summed in the order of ids.
    pub(super) fn mean_of_trained(&mut self, embedding: &dyn Embedding, tape: &mut Tape) {
        const CHUNK: u32 = 4096;
        let width = self.row.len();
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        let (mut sums, mut n) = (vec![0.0f64; width], 0u64);
        let mut start = self.field.start;
        while start < self.field.end {
            let end = self.field.end.min(start.saturating_add(CHUNK));
            ids.clear();
            ids.extend((start..end).filter(|&id| !self.holds(id)));
            rows.resize(ids.len() * width, 0.0);
            embedding.gather(&ids, &mut rows, tape);
            for row in rows.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            (n, start) = (n + ids.len() as u64, end);
        }
        let mean = |(out, sum): (&mut f32, &f64)| *out = (sum / n.max(1) as f64) as f32;
        self.row.iter_mut().zip(&sums).for_each(mean);
    }
}
