//! DLRM's dot interaction: the inner products of all pairs of feature vectors.

use crate::linalg::{axpy, dot};
use rayon::prelude::*;

/// Pairwise inner products ⟨z_i, z_j⟩, j < i, of F vectors of width D, row after row.
#[derive(Clone, Copy, Debug)]
pub struct DotInteraction {
    /// Vectors an example.
    pub vectors: usize,
    /// Their width.
    pub width: usize,
}

impl DotInteraction {
    /// Number of pairs.
    pub fn pairs(self) -> usize {
        self.vectors * (self.vectors - 1) / 2
    }

    /// Pairs of z [B × F × D] into `out`, whose rows are `stride` long and begin with the pairs at
    /// `at`.
    pub fn forward(self, z: &[f32], out: &mut [f32], stride: usize, at: usize) {
        let Self { vectors, width } = self;
        let examples = z.par_chunks_exact(vectors * width).zip(out.par_chunks_exact_mut(stride));
        examples.with_min_len(64).for_each(|(z, out)| {
            let mut pair = out[at..].iter_mut();
            for i in 1..vectors {
                for (j, out) in (0..i).zip(&mut pair) {
                    *out = dot(&z[i * width..][..width], &z[j * width..][..width]);
                }
            }
        });
    }

    /// The gradient dz [B × F × D], overwritten, from the pairs' gradient in `dout`.
    pub fn backward(self, z: &[f32], dout: &[f32], stride: usize, at: usize, dz: &mut [f32]) {
        let Self { vectors, width } = self;
        let size = vectors * width;
        let examples = z.par_chunks_exact(size).zip(dout.par_chunks_exact(stride));
        examples.zip(dz.par_chunks_exact_mut(size)).with_min_len(64).for_each(|((z, dout), dz)| {
            dz.fill(0.0);
            let mut pair = dout[at..].iter();
            for i in 1..vectors {
                for (j, &grad) in (0..i).zip(&mut pair) {
                    axpy(grad, &z[j * width..][..width], &mut dz[i * width..][..width]);
                    axpy(grad, &z[i * width..][..width], &mut dz[j * width..][..width]);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_number() {
        let dots = DotInteraction { vectors: 3, width: 2 };
        let z = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut out = [0.0; 4];
        dots.forward(&z, &mut out, 4, 1);
        assert_eq!(out, [0.0, 11.0, 17.0, 39.0]);
        let mut dz = [0.0; 6];
        dots.backward(&z, &[9.0, 1.0, 0.0, 0.0], 4, 1, &mut dz);
        assert_eq!(dz, [3.0, 4.0, 1.0, 2.0, 0.0, 0.0]);
    }
}
