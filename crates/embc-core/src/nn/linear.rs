//! y = x·W + b, with W stored [in × out].

use crate::graph::Graph;
use crate::linalg::{Op, add_columns, gemm, gemm_then};
use crate::param::Param;
use crate::rng::Rng;
use embc_device::program::{self, Node};

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
        Self::of(name, (inputs, outputs), weight, bias)
    }

    /// One of given values: W [in × out] and b [out].
    pub fn of(
        name: &str,
        (inputs, outputs): (usize, usize),
        weight: Vec<f32>,
        bias: Vec<f32>,
    ) -> Self {
        let weight = Param::dense(format!("{name}.weight"), weight).matrix(outputs);
        Self { inputs, outputs, weight, bias: Param::dense(format!("{name}.bias"), bias) }
    }

    /// y [B × out] from x [B × in], through a ReLU where `relu` says so.
    pub fn forward(&self, batch: usize, x: &[f32], y: &mut [f32], relu: bool) {
        let (bias, weight) = (self.bias.value(), self.weight.value());
        let finish = |_, column: usize, y: &mut [f32]| {
            for (y, b) in y.iter_mut().zip(&bias[column..]) {
                *y += b;
                // Not `max`, which would turn NaN into a silent 0.
                *y = if relu && *y < 0.0 { 0.0 } else { *y };
            }
        };
        gemm_then(batch, self.outputs, self.inputs, x, Op::N, weight, Op::N, 0.0, y, finish);
    }

    /// States y.
    pub fn graph<'a>(&'a self, g: &mut Graph<'a>, x: Node, relu: bool) -> Node {
        let weight = g.param(&self.weight, self.outputs, 0);
        g.linear(x, weight, Some(&self.bias), (relu, false))
    }

    /// The same of a layer that is part of an embedding, whose W and b may be codes; `zero` is 0 in
    /// each row.
    pub fn graph_of_codes<'a>(
        &'a self,
        g: &mut Graph<'a>,
        x: Node,
        zero: Node,
        relu: bool,
    ) -> Node {
        let product = g.product(x, &self.weight, self.outputs);
        let bias = g.gather(zero, &self.bias, self.outputs);
        let y = g.add(product, bias);
        if relu { g.op(program::Op::Relu { x: y }) } else { y }
    }

    /// Adds the gradients of W and b; writes dx [B × in] where it is wanted, and where `relu` says
    /// that x came out of one, through its backward pass.
    pub fn backward(
        &mut self,
        batch: usize,
        x: &[f32],
        dy: &[f32],
        dx: Option<&mut [f32]>,
        relu: bool,
    ) {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let (weight, dweight) = self.weight.value_and_grad();
        let dbias = self.bias.dense_grad();
        let through_relu = |row: usize, column: usize, dx: &mut [f32]| {
            if relu {
                let x = &x[row * inputs + column..];
                dx.iter_mut().zip(x).for_each(|(d, x)| *d = if *x > 0.0 { *d } else { 0.0 });
            }
        };
        rayon::join(
            || {
                gemm(inputs, outputs, batch, x, Op::T, dy, Op::N, 1.0, dweight);
                add_columns(dy, dbias);
            },
            || {
                if let Some(dx) = dx {
                    let (n, t) = (Op::N, Op::T);
                    gemm_then(batch, inputs, outputs, dy, n, weight, t, 0.0, dx, through_relu);
                }
            },
        );
    }

    /// Visits W and b.
    pub fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.weight);
        visit(&mut self.bias);
    }
}
