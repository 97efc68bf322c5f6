//! Initial values of embedding parameters.

use crate::rng::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[embedding] init`: how a table of a scheme starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// U(±d^-½), d the embedding's width.
    #[default]
    UniformDim,
    /// U(±n^-½), n the physical rows (DLRM's).
    UniformRows,
    /// U(±x).
    Uniform(f32),
    /// N(0, σ²).
    Normal(f32),
}

impl Init {
    /// The standard deviation for a table of `rows` rows that serves embeddings of width `dim`.
    pub fn deviation(self, rows: u64, dim: usize) -> f32 {
        let third = 1.0 / 3f32.sqrt();
        match self {
            Init::UniformDim => third / (dim as f32).sqrt(),
            Init::UniformRows => third / (rows.max(1) as f32).sqrt(),
            Init::Uniform(bound) => third * bound,
            Init::Normal(deviation) => deviation,
        }
    }

    /// `len` values of this distribution, rescaled to standard deviation `deviation`.
    pub fn draw(self, len: usize, deviation: f32, rng: &mut Rng) -> Vec<f32> {
        let bound = deviation * 3f32.sqrt();
        match self {
            Init::Normal(_) => (0..len).map(|_| rng.normal() as f32 * deviation).collect(),
            _ => (0..len).map(|_| rng.symmetric(bound)).collect(),
        }
    }

    /// The values of a table [rows × width] for embeddings of width `dim`.
    pub fn table(self, rows: u64, width: usize, dim: usize, rng: &mut Rng) -> Vec<f32> {
        self.draw(rows as usize * width, self.deviation(rows, dim), rng)
    }

    /// Refuses bounds that are not positive numbers.
    pub fn validate(self) -> Result<(), String> {
        match self {
            Init::Uniform(x) | Init::Normal(x) if !(x > 0.0 && x.is_finite()) => {
                Err(format!("init = {x}: the bound must be positive"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(init: Init, deviation: f32) {
        let values = init.table(10_000, 16, 16, &mut Rng::stream(1, "init"));
        let mean_square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        assert!((mean_square.sqrt() / deviation - 1.0).abs() < 0.01, "{init:?}");
    }

    #[test]
    fn deviations() {
        check(Init::UniformDim, 0.25 / 3f32.sqrt());
        check(Init::UniformRows, 0.01 / 3f32.sqrt());
        check(Init::Uniform(0.05), 0.05 / 3f32.sqrt());
        check(Init::Normal(0.01), 0.01);
    }
}
