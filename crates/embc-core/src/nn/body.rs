//! A stack of layers: dense, batch normalisation where wanted, ReLU, dropout. Without a layer it is
//! dropout of its input.

use super::{BatchNorm, Linear};
use crate::graph::Graph;
use crate::linalg::vectorised;
use crate::model::Mode;
use crate::param::Param;
use crate::rng::Rng;
use crate::scheme::Knobs;
use crate::state::State;
use embc_device::program::{Node, Op};
use serde::{Deserialize, Serialize};

/// The knobs of a model's body.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BodyKnobs {
    /// Widths of the layers.
    pub hidden: Vec<usize>,
    /// Share of units that a training step leaves out.
    pub dropout: f32,
    /// Whether layers are normalised over the batch.
    pub batch_norm: bool,
}

/// What `embc list models` says about [`BodyKnobs`].
pub const BODY_KNOBS: [(&str, &str); 3] = [
    ("hidden", "widths of the ReLU layers (default [], none)"),
    (
        "dropout",
        "share of units left out in training, after each layer, or of the input where there is none (default 0)",
    ),
    ("batch_norm", "normalise each layer over the batch, before its ReLU (default false)"),
];

impl BodyKnobs {
    /// Reads and checks knobs. An error names the knob.
    pub fn read(knobs: &Knobs) -> Result<Self, String> {
        let knobs: Self = crate::scheme::knobs(knobs).map_err(|error| error.to_string())?;
        knobs.check()
    }

    /// Itself, if the values make sense.
    pub fn check(self) -> Result<Self, String> {
        if self.hidden.contains(&0) {
            return Err("model.hidden: every width must be positive".into());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err("model.dropout must be at least 0 and below 1".into());
        }
        Ok(self)
    }
}

/// The layers, with buffers that keep their memory.
pub struct Body {
    inputs: usize,
    layers: Vec<Linear>,
    norms: Vec<BatchNorm>,
    dropout: f32,
    /// Output of each layer, [B × out], or a copy of the input where there is none.
    outputs: Vec<Vec<f32>>,
    /// Gradients of the current and the next layer's output.
    grads: [Vec<f32>; 2],
}

impl Body {
    /// A body for inputs [B × inputs].
    pub fn new(inputs: usize, knobs: &BodyKnobs, rng: &mut Rng) -> Self {
        let mut from = inputs;
        let layer = |(i, &to): (usize, &usize)| {
            let layer = Linear::new(&format!("hidden{i}"), from, to, rng);
            from = to;
            layer
        };
        let layers: Vec<Linear> = knobs.hidden.iter().enumerate().map(layer).collect();
        let norm = |(i, &width): (usize, &usize)| BatchNorm::new(&format!("norm{i}"), width);
        let norms = match knobs.batch_norm {
            true => knobs.hidden.iter().enumerate().map(norm).collect(),
            false => Vec::new(),
        };
        let outputs = vec![Vec::new(); layers.len().max(1)];
        Self { inputs, layers, norms, dropout: knobs.dropout, outputs, grads: Default::default() }
    }

    /// Width of the output.
    pub fn width(&self) -> usize {
        self.layers.last().map_or(self.inputs, |layer| layer.outputs)
    }

    /// Runs all layers on x [B × inputs]; the result is [`Body::output`]. `key` decides what is
    /// dropped.
    pub fn forward(&mut self, batch: usize, x: &[f32], mode: Mode, key: u64) {
        let rng = Rng::stream(key, "dropout");
        if self.layers.is_empty() {
            self.outputs[0].clear();
            self.outputs[0].extend_from_slice(x);
            drop_out(self.dropout, mode, &rng, self.inputs, &mut self.outputs[0]);
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let (done, rest) = self.outputs.split_at_mut(i);
            let y = &mut rest[0];
            y.resize(batch * layer.outputs, 0.0);
            let norm = self.norms.get_mut(i);
            layer.forward(batch, done.last().map_or(x, |v| &v[..]), y, norm.is_none());
            if let Some(norm) = norm {
                norm.forward(y, mode);
                // Not `max`, which would turn NaN into a silent 0.
                y.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
            }
            drop_out(self.dropout, mode, &rng.fork(i as u64), layer.outputs, y);
        }
    }

    /// States [`Body::output`] of an evaluation, which drops nothing.
    pub fn graph<'a>(&'a self, g: &mut Graph<'a>, x: Node) -> Node {
        self.layers.iter().enumerate().fold(x, |x, (i, layer)| match self.norms.get(i) {
            None => layer.graph(g, x, true),
            Some(norm) => {
                let y = layer.graph(g, x, false);
                let x = norm.graph(g, y);
                g.op(Op::Relu { x })
            }
        })
    }

    /// The last layer's output [B × width].
    pub fn output(&self) -> &[f32] {
        self.outputs.last().expect("at least one")
    }

    /// Adds all gradients for dy [B × width]; writes dx [B × inputs]. `x` and `key` are those of
    /// the last forward pass, which was one of training.
    pub fn backward(&mut self, batch: usize, x: &[f32], dy: &[f32], key: u64, dx: &mut [f32]) {
        if self.layers.is_empty() {
            dx.copy_from_slice(dy);
            drop_out(self.dropout, Mode::Train, &Rng::stream(key, "dropout"), self.inputs, dx);
            return;
        }
        let [current, next] = &mut self.grads;
        current.clear();
        current.extend_from_slice(dy);
        let scale = 1.0 / (1.0 - self.dropout);
        for i in (0..self.layers.len()).rev() {
            // What was dropped is 0, as what the ReLU cut is.
            for (d, &y) in current.iter_mut().zip(&self.outputs[i]) {
                *d = if y > 0.0 { *d * scale } else { 0.0 };
            }
            if let Some(norm) = self.norms.get_mut(i) {
                norm.backward(current);
            }
            let layer = &mut self.layers[i];
            if i == 0 {
                layer.backward(batch, x, current, Some(&mut *dx), false);
            } else {
                next.resize(batch * layer.inputs, 0.0);
                layer.backward(batch, &self.outputs[i - 1], current, Some(next), false);
                std::mem::swap(current, next);
            }
        }
    }

    /// Visits all parameters.
    pub fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.layers.iter_mut().for_each(|layer| layer.params(visit));
        self.norms.iter_mut().for_each(|norm| norm.params(visit));
    }

    /// Visits what a checkpoint needs beside the parameters.
    pub fn statistics(&mut self, visit: State<'_>) {
        self.norms.iter_mut().for_each(|norm| norm.statistics(visit));
    }
}

/// Sets a random share of x [B × width] to 0 and scales the rest up, in training. A function of the
/// stream alone.
fn drop_out(share: f32, mode: Mode, rng: &Rng, width: usize, x: &mut [f32]) {
    if share == 0.0 || mode == Mode::Eval {
        return;
    }
    let (below, scale) = ((share * 65536.0) as u16, 1.0 / (1.0 - share));
    vectorised(
        #[inline(always)]
        || {
            for (example, x) in x.chunks_exact_mut(width).enumerate() {
                let rng = rng.fork(example as u64);
                for (block, x) in x.chunks_mut(4 * DRAWS).enumerate() {
                    // Four units share 64 bits.
                    let mut bits = [0u64; DRAWS];
                    for (i, bits) in bits.iter_mut().enumerate() {
                        *bits = rng.at((block * DRAWS + i) as u64);
                    }
                    let mut draws = [0u16; 4 * DRAWS];
                    for (i, draw) in draws.iter_mut().enumerate() {
                        *draw = (bits[i / 4] >> (16 * (i % 4))) as u16;
                    }
                    for (x, draw) in x.iter_mut().zip(&draws) {
                        *x = if *draw < below { 0.0 } else { *x * scale };
                    }
                }
            }
        },
    );
}

/// Numbers drawn at a time.
const DRAWS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_keeps_the_mean_and_its_backward_drops_the_same() {
        let knobs = BodyKnobs { dropout: 0.25, ..BodyKnobs::default() };
        let mut body = Body::new(40, &knobs, &mut Rng::stream(1, "body"));
        let x = vec![1.0; 40 * 1000];
        body.forward(1000, &x, Mode::Train, 7);
        let y = body.output().to_vec();
        let kept = y.iter().filter(|&&y| y > 0.0).count() as f64 / y.len() as f64;
        assert!((kept - 0.75).abs() < 0.01, "{kept}");
        assert!(y.iter().all(|&y| y == 0.0 || (y - 4.0 / 3.0).abs() < 1e-6));
        let mut dx = vec![0.0; x.len()];
        body.backward(1000, &x, &x, 7, &mut dx);
        assert_eq!(dx, y);
        body.forward(1000, &x, Mode::Train, 8);
        assert_ne!(body.output(), y);
        body.forward(1000, &x, Mode::Eval, 7);
        assert_eq!(body.output(), x);
    }
}
