//! All features of an example side by side: the rows of each input, then the dense features.

use crate::model::Features;

/// The joined features [B × width], and their gradient.
#[derive(Default)]
pub struct Joined {
    /// The features.
    pub values: Vec<f32>,
    /// Their gradient.
    pub grads: Vec<f32>,
}

impl Joined {
    /// Joins a batch.
    pub fn fill(&mut self, x: &Features<'_>) {
        let parts = x.rows.iter().map(|rows| &rows[..]).chain([x.dense]);
        let width: usize = parts.clone().map(|part| part.len() / x.batch).sum();
        self.values.resize(x.batch * width, 0.0);
        let mut first = 0;
        for part in parts.filter(|part| !part.is_empty()) {
            let own = part.len() / x.batch;
            for (joined, part) in self.values.chunks_exact_mut(width).zip(part.chunks_exact(own)) {
                joined[first..first + own].copy_from_slice(part);
            }
            first += own;
        }
    }

    /// The buffer of the gradient, as long as the features.
    pub fn grads(&mut self) -> (&[f32], &mut [f32]) {
        self.grads.resize(self.values.len(), 0.0);
        (&self.values, &mut self.grads)
    }

    /// Writes the gradient of each input's rows [B × width].
    pub fn split(&self, batch: usize, drows: &mut [Vec<f32>]) {
        let (width, mut first) = (self.grads.len() / batch, 0);
        for drows in drows {
            let own = drows.len() / batch;
            for (drow, joined) in drows.chunks_exact_mut(own).zip(self.grads.chunks_exact(width)) {
                drow.copy_from_slice(&joined[first..first + own]);
            }
            first += own;
        }
    }
}
