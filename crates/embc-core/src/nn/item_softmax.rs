//! A logit per item: the output layer of models that choose among all items, with its weights
//! stored row by item, so that a sampled softmax touches some rows only.

use crate::graph::Graph;
use crate::linalg::{Op, add_columns, axpy, dot, gemm, gemm_then};
use crate::model::Sample;
use crate::param::Param;
use crate::rng::Rng;
use embc_device::program::Node;

/// W [items × width] and b [items]: logit(i) = ⟨x, W_i⟩ + b_i.
pub struct ItemSoftmax {
    width: usize,
    items: usize,
    weight: Param,
    bias: Param,
    /// Rows of the drawn items, and their gradient [drawn × width].
    rows: Vec<f32>,
    drows: Vec<f32>,
}

impl ItemSoftmax {
    /// W ~ N(0, 2/(width + items)), b = 0. With `sampled`, gradients are of touched rows only.
    pub fn new(width: usize, items: usize, sampled: bool, rng: &mut Rng) -> Self {
        let deviation = (2.0 / (width + items) as f64).sqrt();
        let weight = (0..items * width).map(|_| (rng.normal() * deviation) as f32).collect();
        let param = |name: &str, width, value| match sampled {
            true => Param::rows(name, width, value),
            false => Param::dense(name, value).matrix(width),
        };
        Self {
            width,
            items,
            weight: param("output.weight", width, weight),
            bias: param("output.bias", 1, vec![0.0; items]),
            rows: Vec::new(),
            drows: Vec::new(),
        }
    }

    /// Number of items.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Logits [B × items] of x [B × width], or those of a sample: [B × drawn], then the targets'.
    pub fn forward(
        &mut self,
        batch: usize,
        x: &[f32],
        sample: Option<Sample<'_>>,
        out: &mut [f32],
    ) {
        let (width, weight, bias) = (self.width, &self.weight, self.bias.value());
        let Some(sample) = sample else {
            let finish = |_, column: usize, y: &mut [f32]| {
                y.iter_mut().zip(&bias[column..]).for_each(|(y, b)| *y += b);
            };
            let (n, t) = (Op::N, Op::T);
            return gemm_then(batch, self.items, width, x, n, weight.value(), t, 0.0, out, finish);
        };
        let drawn = sample.drawn;
        self.rows.clear();
        drawn.iter().for_each(|&item| self.rows.extend_from_slice(weight.row(item)));
        let (head, own) = out.split_at_mut(batch * drawn.len());
        let finish = |_, column: usize, y: &mut [f32]| {
            y.iter_mut().zip(&drawn[column..]).for_each(|(y, &item)| *y += bias[item as usize]);
        };
        let (n, t) = (Op::N, Op::T);
        gemm_then(batch, drawn.len(), width, x, n, &self.rows, t, 0.0, head, finish);
        for (i, x) in x.chunks_exact(width).enumerate() {
            let range = sample.targets.range(i);
            for (out, &item) in own[range.clone()].iter_mut().zip(&sample.targets.ids[range]) {
                *out = dot(x, weight.row(item)) + bias[item as usize];
            }
        }
    }

    /// States the logits of all items.
    pub fn graph<'a>(&'a self, g: &mut Graph<'a>, x: Node) -> Node {
        let weight = g.param(&self.weight, self.width, 0);
        g.linear(x, weight, Some(&self.bias), (false, true))
    }

    /// Adds the gradients of W and b; writes dx [B × width].
    pub fn backward(
        &mut self,
        batch: usize,
        x: &[f32],
        sample: Option<Sample<'_>>,
        dout: &[f32],
        dx: &mut [f32],
    ) {
        let width = self.width;
        let Some(sample) = sample else {
            let (weight, dweight) = self.weight.value_and_grad();
            let (dbias, items) = (self.bias.dense_grad(), self.items);
            rayon::join(
                || {
                    gemm(items, width, batch, dout, Op::T, x, Op::N, 1.0, dweight);
                    add_columns(dout, dbias);
                },
                || gemm(batch, width, items, dout, Op::N, weight, Op::N, 0.0, dx),
            );
            return;
        };
        let drawn = sample.drawn;
        let (head, own) = dout.split_at(batch * drawn.len());
        self.drows.clear();
        self.drows.resize(drawn.len() * (width + 1), 0.0);
        let (drows, dbias) = self.drows.split_at_mut(drawn.len() * width);
        let rows = &self.rows;
        rayon::join(
            || {
                gemm(drawn.len(), width, batch, head, Op::T, x, Op::N, 0.0, drows);
                add_columns(head, dbias);
            },
            || gemm(batch, width, drawn.len(), head, Op::N, rows, Op::N, 0.0, dx),
        );
        for (i, &item) in drawn.iter().enumerate() {
            self.weight.add(item, &drows[i * width..][..width]);
            self.bias.add(item, &dbias[i..=i]);
        }
        for (i, (x, dx)) in x.chunks_exact(width).zip(dx.chunks_exact_mut(width)).enumerate() {
            let range = sample.targets.range(i);
            for (&d, &item) in own[range.clone()].iter().zip(&sample.targets.ids[range]) {
                axpy(d, self.weight.row(item), dx);
                self.weight.add_scaled(item, d, x);
                self.bias.add(item, &[d]);
            }
        }
    }

    /// Visits W and b.
    pub fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.weight);
        visit(&mut self.bias);
    }
}
