//! Fully connected layers with ReLU between them.

use super::Linear;
use crate::graph::Graph;
use crate::param::Param;
use crate::rng::Rng;
use embc_device::program::Node;

/// A stack of [`Linear`] layers; every one but the last, or all, is followed by a ReLU.
pub struct Mlp {
    layers: Vec<Linear>,
    relu_last: bool,
    /// Output of each layer, [B × out].
    outputs: Vec<Vec<f32>>,
    /// Gradients of the current and the next layer's output.
    grads: [Vec<f32>; 2],
}

impl Mlp {
    /// Layers of widths `inputs`, `widths[0]`, …
    pub fn new(
        name: &str,
        inputs: usize,
        widths: &[usize],
        relu_last: bool,
        rng: &mut Rng,
    ) -> Self {
        let mut from = inputs;
        let layer = |(i, &to): (usize, &usize)| {
            let layer = Linear::new(&format!("{name}{i}"), from, to, rng);
            from = to;
            layer
        };
        let layers: Vec<Linear> = widths.iter().enumerate().map(layer).collect();
        let outputs = vec![Vec::new(); layers.len()];
        Self { layers, relu_last, outputs, grads: Default::default() }
    }

    /// Runs all layers on x [B × in]; the result is [`Mlp::output`].
    pub fn forward(&mut self, batch: usize, x: &[f32]) {
        for i in 0..self.layers.len() {
            let relu = self.relu_last || i + 1 < self.layers.len();
            let (done, rest) = self.outputs.split_at_mut(i);
            let y = &mut rest[0];
            y.resize(batch * self.layers[i].outputs, 0.0);
            self.layers[i].forward(batch, done.last().map_or(x, |v| &v[..]), y, relu);
        }
    }

    /// States [`Mlp::output`].
    pub fn graph<'a>(&'a self, g: &mut Graph<'a>, x: Node) -> Node {
        let last = self.layers.len() - 1;
        let layers = self.layers.iter().enumerate();
        layers.fold(x, |x, (i, layer)| layer.graph(g, x, self.relu_last || i < last))
    }

    /// The last layer's output [B × out].
    pub fn output(&self) -> &[f32] {
        self.outputs.last().expect("at least one layer")
    }

    /// Adds all gradients for dy [B × out]; writes dx [B × in] where it is wanted.
    pub fn backward(&mut self, batch: usize, x: &[f32], dy: &[f32], dx: Option<&mut [f32]>) {
        let [current, next] = &mut self.grads;
        current.clear();
        current.extend_from_slice(dy);
        if self.relu_last {
            let y = self.outputs.last().expect("at least one layer");
            current.iter_mut().zip(y).for_each(|(d, y)| *d = if *y > 0.0 { *d } else { 0.0 });
        }
        for i in (1..self.layers.len()).rev() {
            let layer = &mut self.layers[i];
            next.resize(batch * layer.inputs, 0.0);
            layer.backward(batch, &self.outputs[i - 1], current, Some(next), true);
            std::mem::swap(current, next);
        }
        self.layers[0].backward(batch, x, current, dx, false);
    }

    /// Visits all parameters.
    pub fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.layers.iter_mut().for_each(|layer| layer.params(visit));
    }
}
