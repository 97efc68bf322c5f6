//! Batch normalisation (Ioffe and Szegedy 2015), with PyTorch's constants.

use crate::graph::Graph;
use crate::model::Mode;
use crate::param::Param;
use crate::state::{State, TensorMut};
use embc_device::program::{Node, Op};

/// Added to variances.
const EPSILON: f32 = 1e-5;
/// What a batch counts in the running statistics.
const MOMENTUM: f32 = 0.1;

/// y = γ (x − mean) / deviation + β, over the batch in training, with running means in evaluation.
/// A batch of one row has no deviation (PyTorch refuses it): it is normalised as in evaluation.
pub struct BatchNorm {
    name: String,
    width: usize,
    gamma: Param,
    beta: Param,
    running_mean: Vec<f32>,
    running_variance: Vec<f32>,
    /// Of the last batch, [width]: its mean, and 1 over its deviation.
    mean: Vec<f32>,
    inverse: Vec<f32>,
    /// (x − mean) / deviation of the last batch [B × width].
    normal: Vec<f32>,
    /// Column sums of backward.
    sums: [Vec<f32>; 2],
}

impl BatchNorm {
    /// For x [B × width].
    pub fn new(name: &str, width: usize) -> Self {
        Self {
            name: name.into(),
            width,
            gamma: Param::dense(format!("{name}.gamma"), vec![1.0; width]),
            beta: Param::dense(format!("{name}.beta"), vec![0.0; width]),
            running_mean: vec![0.0; width],
            running_variance: vec![1.0; width],
            mean: vec![0.0; width],
            inverse: vec![0.0; width],
            normal: Vec::new(),
            sums: [vec![0.0; width], vec![0.0; width]],
        }
    }

    /// Normalises x [B × width] in place.
    pub fn forward(&mut self, x: &mut [f32], mode: Mode) {
        let (width, rows) = (self.width, (x.len() / self.width) as f32);
        if mode == Mode::Eval || rows == 1.0 {
            self.mean.copy_from_slice(&self.running_mean);
            for (inverse, variance) in self.inverse.iter_mut().zip(&self.running_variance) {
                *inverse = 1.0 / (variance + EPSILON).sqrt();
            }
        } else {
            self.mean.fill(0.0);
            for x in x.chunks_exact(width) {
                self.mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += x / rows);
            }
            let variance = &mut self.inverse;
            variance.fill(0.0);
            for x in x.chunks_exact(width) {
                for ((variance, x), mean) in variance.iter_mut().zip(x).zip(&self.mean) {
                    *variance += (x - mean) * (x - mean) / rows;
                }
            }
            let unbiased = rows / (rows - 1.0);
            let run = |running: &mut f32, now: f32| *running += MOMENTUM * (now - *running);
            self.running_mean.iter_mut().zip(&self.mean).for_each(|(old, now)| run(old, *now));
            for (old, variance) in self.running_variance.iter_mut().zip(variance) {
                run(old, unbiased * *variance);
                *variance = 1.0 / (*variance + EPSILON).sqrt();
            }
        }
        self.normal.resize(x.len(), 0.0);
        for (x, normal) in x.chunks_exact_mut(width).zip(self.normal.chunks_exact_mut(width)) {
            for i in 0..width {
                normal[i] = (x[i] - self.mean[i]) * self.inverse[i];
                x[i] = self.gamma.value()[i] * normal[i] + self.beta.value()[i];
            }
        }
    }

    /// States an evaluation, step by step: folded into one scale and shift, large means would cancel
    /// in other digits.
    pub fn graph<'a>(&'a self, g: &mut Graph<'a>, x: Node) -> Node {
        let named = |of: &str| format!("{}.{of}", self.name);
        let mean: Vec<f32> = self.running_mean.iter().map(|mean| -mean).collect();
        let inverse = self.running_variance.iter().map(|v| 1.0 / (v + EPSILON).sqrt());
        let inverse: Vec<f32> = inverse.collect();
        let (mean, inverse) =
            (g.row(&named("statistics/mean"), mean), g.row(&named("statistics/inverse"), inverse));
        let gamma = g.row(&named("gamma"), self.gamma.value());
        let beta = g.row(&named("beta"), self.beta.value());
        let x = g.op(Op::AddRow { x, tensor: mean });
        let x = g.op(Op::MulRow { x, tensor: inverse });
        let x = g.op(Op::MulRow { x, tensor: gamma });
        g.op(Op::AddRow { x, tensor: beta })
    }

    /// Turns dy [B × width] into dx, and adds the gradients of γ and β.
    pub fn backward(&mut self, dy: &mut [f32]) {
        let (width, rows) = (self.width, (dy.len() / self.width) as f32);
        let [sum, product] = &mut self.sums;
        sum.fill(0.0);
        product.fill(0.0);
        for (dy, normal) in dy.chunks_exact(width).zip(self.normal.chunks_exact(width)) {
            for i in 0..width {
                sum[i] += dy[i];
                product[i] += dy[i] * normal[i];
            }
        }
        self.beta.dense_grad().iter_mut().zip(&*sum).for_each(|(grad, sum)| *grad += sum);
        self.gamma.dense_grad().iter_mut().zip(&*product).for_each(|(grad, sum)| *grad += sum);
        let gamma = self.gamma.value();
        for (dy, normal) in dy.chunks_exact_mut(width).zip(self.normal.chunks_exact(width)) {
            for i in 0..width {
                // The statistics of one row are not its own.
                let through = if rows == 1.0 { 0.0 } else { sum[i] + normal[i] * product[i] };
                let centred = dy[i] - through / rows;
                dy[i] = gamma[i] * self.inverse[i] * centred;
            }
        }
    }

    /// Visits γ and β.
    pub fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.gamma);
        visit(&mut self.beta);
    }

    /// Visits the running statistics.
    pub fn statistics(&mut self, visit: State<'_>) {
        visit(&format!("{}.mean", self.name), TensorMut::rows(&mut self.running_mean, 1));
        visit(&format!("{}.variance", self.name), TensorMut::rows(&mut self.running_variance, 1));
    }
}
