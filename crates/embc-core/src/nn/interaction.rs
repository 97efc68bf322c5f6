//! DLRM's dot interaction: the inner products of all pairs of feature vectors.
//!
//! An example's vectors [F × D] are a matrix of a few kilobytes: its products stay in registers and
//! in the first cache, where a call of a general matrix product would cost more than it does.

use crate::gather::with_width;
use crate::linalg::{axpy, vectorised};

/// Columns of a tile: one wide vector.
const LANES: usize = 16;
/// Components of a tile.
const DEPTH: usize = 64;

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
        let size = self.vectors * self.width;
        vectorised(
            #[inline(always)]
            || {
                for (z, out) in z.chunks_exact(size).zip(out.chunks_exact_mut(stride)) {
                    self.pairs_of(z, &mut out[at..]);
                }
            },
        );
    }

    /// The products of rows with 16 of the rows before them at once, those transposed.
    #[inline(always)]
    fn pairs_of(self, z: &[f32], out: &mut [f32]) {
        let Self { vectors, width } = self;
        for j in (0..vectors - 1).step_by(LANES) {
            for d in (0..width).step_by(DEPTH) {
                let depth = DEPTH.min(width - d);
                let mut tile = [[0.0f32; LANES]; DEPTH];
                for lane in 0..LANES.min(vectors - 1 - j) {
                    let row = &z[(j + lane) * width + d..][..depth];
                    tile.iter_mut().zip(row).for_each(|(tile, z)| tile[lane] = *z);
                }
                for i in j + 1..vectors {
                    let row = &z[i * width + d..][..depth];
                    let mut sums = [0.0f32; LANES];
                    for (z, tile) in row.iter().zip(&tile) {
                        for lane in 0..LANES {
                            sums[lane] += z * tile[lane];
                        }
                    }
                    let out = &mut out[pairs_before(i) + j..][..LANES.min(i - j)];
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = sum + if d == 0 { 0.0 } else { *out };
                    }
                }
            }
        }
    }

    /// The gradient dz [B × F × D], overwritten, from the pairs' gradient in `dout`.
    pub fn backward(self, z: &[f32], dout: &[f32], stride: usize, at: usize, dz: &mut [f32]) {
        with_width!(self.width, gradient(self, z, dout, stride, at, dz));
    }
}

/// Rows of dz that are summed at once, in registers.
const ROWS: usize = 4;

/// dz_i = Σ_j g_ij z_j over all j ≠ i.
fn gradient<const WIDTH: usize>(
    dots: DotInteraction,
    z: &[f32],
    dout: &[f32],
    stride: usize,
    at: usize,
    dz: &mut [f32],
) {
    let vectors = dots.vectors;
    let width = if WIDTH == 0 { dots.width } else { WIDTH };
    let size = vectors * width;
    let examples = z.chunks_exact(size).zip(dout.chunks_exact(stride));
    vectorised(
        #[inline(always)]
        || {
            for ((z, dout), dz) in examples.zip(dz.chunks_exact_mut(size)) {
                let grads = &dout[at..];
                let pair = |i: usize, j: usize| match j < i {
                    true => grads[pairs_before(i) + j],
                    false if j == i => 0.0,
                    false => grads[pairs_before(j) + i],
                };
                let row = |j: usize| &z[j * width..][..width];
                for (block, dz) in dz.chunks_mut(ROWS * width).enumerate() {
                    let i = block * ROWS;
                    if WIDTH == 0 || dz.len() < ROWS * width {
                        dz.fill(0.0);
                        for (r, dz) in dz.chunks_exact_mut(width).enumerate() {
                            (0..vectors).for_each(|j| axpy(pair(i + r, j), row(j), dz));
                        }
                        continue;
                    }
                    let mut sums = [[0.0f32; WIDTH]; ROWS];
                    let mut add = |grads: [f32; ROWS], row: &[f32]| {
                        for (sums, grad) in sums.iter_mut().zip(grads) {
                            for k in 0..WIDTH {
                                sums[k] += grad * row[k];
                            }
                        }
                    };
                    let before = [0, 1, 2, 3].map(|r| &grads[pairs_before(i + r)..][..i]);
                    (0..i).for_each(|j| add(before.map(|grads| grads[j]), row(j)));
                    for j in i..i + ROWS {
                        add([0, 1, 2, 3].map(|r| pair(i + r, j)), row(j));
                    }
                    for j in i + ROWS..vectors {
                        let after = &grads[pairs_before(j) + i..][..ROWS];
                        add([after[0], after[1], after[2], after[3]], row(j));
                    }
                    dz.chunks_exact_mut(width).zip(&sums).for_each(|(d, s)| d.copy_from_slice(s));
                }
            }
        },
    );
}

/// Pairs of the vectors before the `i`th.
#[inline(always)]
fn pairs_before(i: usize) -> usize {
    i * i.saturating_sub(1) / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

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

    /// The formula, term by term, for shapes that fill tiles and that do not.
    #[test]
    fn tiles_equal_the_double_loop() {
        for (vectors, width) in [(2, 1), (16, 16), (17, 16), (27, 16), (34, 10), (40, 130)] {
            let mut rng = Rng::stream(1, "dots");
            let dots = DotInteraction { vectors, width };
            let mut random = |n| -> Vec<f32> { (0..n).map(|_| rng.symmetric(1.0)).collect() };
            let (examples, size, stride) = (3, vectors * width, dots.pairs() + 2);
            let (z, dout) = (random(examples * size), random(examples * stride));
            let (mut out, mut dz) = (random(examples * stride), random(examples * size));
            dots.forward(&z, &mut out, stride, 2);
            dots.backward(&z, &dout, stride, 2, &mut dz);
            for e in 0..examples {
                let row = |i: usize| &z[e * size + i * width..][..width];
                let mut expect = vec![0.0; size];
                let mut pair = e * stride + 2;
                for i in 1..vectors {
                    for j in 0..i {
                        let sum: f32 = row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum();
                        assert!((out[pair] - sum).abs() < 1e-4, "{vectors} x {width}");
                        for k in 0..width {
                            expect[i * width + k] += dout[pair] * row(j)[k];
                            expect[j * width + k] += dout[pair] * row(i)[k];
                        }
                        pair += 1;
                    }
                }
                let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
                assert!(dz[e * size..][..size].iter().zip(&expect).all(close));
            }
        }
    }
}
