//! y = x·W + b, with W stored [in × out].

use crate::linalg::{Op, gemm};
use crate::param::Param;
use crate::rng::Rng;

/// A fully connected layer.
pub struct Linear {
    /// Input width.
    pub inputs: usize,
    /// Output width.
    pub outputs: usize,
    weight: Param,
    bias: Param,
}

impl Linear {
    /// W ~ N(0, 2/(in+out)), b ~ N(0, 1/out), as DLRM does.
    pub fn new(name: &str, inputs: usize, outputs: usize, rng: &mut Rng) -> Self {
        let mut normal = |len: usize, variance: f64| -> Vec<f32> {
            (0..len).map(|_| (rng.normal() * variance.sqrt()) as f32).collect()
        };
        let weight = normal(inputs * outputs, 2.0 / (inputs + outputs) as f64);
        let bias = normal(outputs, 1.0 / outputs as f64);
        Self {
            inputs,
            outputs,
            weight: Param::dense(format!("{name}.weight"), weight),
            bias: Param::dense(format!("{name}.bias"), bias),
        }
    }

    /// y [B × out] from x [B × in].
    pub fn forward(&self, batch: usize, x: &[f32], y: &mut [f32]) {
        y.chunks_exact_mut(self.outputs).for_each(|y| y.copy_from_slice(self.bias.value()));
        gemm(batch, self.outputs, self.inputs, x, Op::N, self.weight.value(), Op::N, 1.0, y);
    }

    /// Adds the gradients of W and b; writes dx [B × in] where it is wanted.
    pub fn backward(&mut self, batch: usize, x: &[f32], dy: &[f32], dx: Option<&mut [f32]>) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        if let Some(dx) = dx {
            gemm(batch, inputs, outputs, dy, Op::N, self.weight.value(), Op::T, 0.0, dx);
        }
        gemm(inputs, outputs, batch, x, Op::T, dy, Op::N, 1.0, self.weight.dense_grad());
        let bias = self.bias.dense_grad();
        dy.chunks_exact(outputs).for_each(|dy| crate::linalg::axpy(1.0, dy, bias));
    }

    /// Visits W and b.
    pub fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.weight);
        visit(&mut self.bias);
    }
}
