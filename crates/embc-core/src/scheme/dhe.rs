//! Deep hash embeddings: many hashes of an id, through a small network with Mish activations
//! (arXiv 2010.10784). (layers + 1)·w² + w·d parameters, w hashes and hidden units.
//!
//! `network = "relu"` is that of CCE's repository: ReLUs and biases, as many hidden layers as the
//! fourth root of their width, h·(w² + w) + (w + 1)·d parameters.

use super::*;
use crate::hash::mix64;
use crate::linalg::{Op, gemm, vectorised};
use crate::loss::exp;
use crate::nn::Linear;
use crate::state::TensorMut;
use embc_device::program::Int;

pub(super) struct DeepHash;

#[derive(Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Mish,
    Relu,
}

#[derive(Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    network: Kind,
    layers: Option<usize>,
}

impl Knob {
    /// Hidden layers of a width.
    fn hidden(&self, width: u64) -> usize {
        let more = match (self.layers, self.network) {
            (Some(layers), _) => layers,
            (None, Kind::Mish) => 2,
            // ⌈w^¼⌉ in all.
            (None, Kind::Relu) => {
                (0..).find(|more| (more + 1u64).pow(4) >= width).expect("one") as usize
            }
        };
        more + 1
    }

    fn footprint(&self, width: u64, dim: u64) -> Footprint {
        let (hidden, biases) = (self.hidden(width) as u64, u64::from(self.network == Kind::Relu));
        Footprint::floats(hidden * width * (width + biases) + (width + biases) * dim)
    }
}

impl Scheme for DeepHash {
    fn name(&self) -> &'static str {
        "dhe"
    }
    /// 2: another order of sums, for speed.
    fn version(&self) -> u32 {
        2
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "many hashes of an id through a small network",
            long: "No table: an id's w hash values, scaled to unit variance, are the input of a network whose output is the embedding. Each lookup costs as many multiplications as there are parameters.",
            paper: "Kang et al., arXiv 2010.10784, as sized in CCE, arXiv 2210.05974",
            equation: "E_i = W_out mish(W_n ... mish(W_0 x(i))), x_k(i) = hash of (i, k)",
            stores: "W_0 ... W_n [w x w], W_out [w x dim]",
            collisions: "none are equal; every id reads every parameter",
            knobs: &[
                (
                    "network",
                    "mish (default), the paper's; relu, that of CCE's repository: with biases, uniform weights, and smaller inputs",
                ),
                (
                    "layers",
                    "hidden layers after the first (default 2; with network = \"relu\" the fourth root of their width, in all)",
                ),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let knob: Knob = super::knobs(knobs)?;
        let dim = t.dim;
        let footprint = |w: u64| knob.footprint(w, dim as u64);
        // Without a limit: as many parameters as the full table.
        let limit = match limit {
            Limit::None => Limit::Params(t.full_params().max(footprint(1).params)),
            other => other,
        };
        let w = limit.largest(1 << 14, footprint).ok_or_else(|| {
            PlanError::Infeasible(format!(
                "dhe cannot fit table {} in {limit}: one hash takes {} parameters",
                t.name,
                footprint(1).params
            ))
        })?;
        let hidden = knob.hidden(w);
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(w),
            larger: if w < 1 << 14 { footprint(w + 1).params } else { u64::MAX },
            sizes: format!("{w} hashes, {hidden} layers of {w}"),
            build: match knob.network {
                Kind::Mish => {
                    Box::new(move |cx| Box::new(Network::new(w as usize, dim, hidden, cx)))
                }
                Kind::Relu => {
                    Box::new(move |cx| Box::new(Biased::new(w as usize, dim, hidden, cx)))
                }
            },
        })
    }
}

/// Rows of a table with as many parameters as one layer, for inits that count rows.
fn t_rows(w: usize, dim: usize) -> u64 {
    (w * w / dim).max(1) as u64
}

struct Network {
    dim: usize,
    key: u64,
    /// w.
    hashes: usize,
    /// Hidden layers [w × w], then the output [w × dim].
    weights: Vec<Param>,
}

/// x·tanh(ln(1 + eˣ)) and its derivative, with one exponential: tanh(ln(1 + e)) = n/(n + 2) for
/// n = e·(e + 2).
#[inline(always)]
fn mish(x: f32) -> (f32, f32) {
    // Beyond 20 both are exact at f32: mish(x) = x. Below −40 both are 0 for all that follows, but
    // would be denormal, which processors multiply up to a hundred times slower.
    let e = exp(x.clamp(-40.0, 20.0));
    let n = e * (e + 2.0);
    let tanh = n / (n + 2.0);
    (x * tanh, tanh + x * (1.0 - tanh * tanh) * e / (1.0 + e))
}

/// Hashes of ids as numbers of mean 0 and variance 1 [U × w].
fn noise(ids: &[u32], key: u64, w: usize, out: &mut Vec<f32>) {
    out.clear();
    for &id in ids {
        let of_id = mix64(u64::from(id) ^ key);
        out.extend((0..w as u64).map(|k| {
            let bits = mix64(of_id ^ k) >> 40;
            (bits as f32 / (1u32 << 23) as f32 - 1.0) * 3f32.sqrt()
        }));
    }
}

impl Network {
    fn new(w: usize, dim: usize, layers: usize, cx: &mut BuildCx<'_>) -> Self {
        let key = cx.rng.bits();
        // Mish keeps about a third of the variance of its input.
        let hidden = (3.0 / w as f32).sqrt();
        let mut weights: Vec<Param> = (0..layers)
            .map(|l| {
                let deviation = if l == 0 { 1.0 / (w as f32).sqrt() } else { hidden };
                let values = cx.init.draw(w * w, deviation, &mut cx.rng);
                Param::dense(format!("layer{l}"), values).matrix(w)
            })
            .collect();
        let deviation = hidden * cx.init.deviation(t_rows(w, dim), dim);
        let values = cx.init.draw(w * dim, deviation, &mut cx.rng);
        weights.push(Param::dense("output", values).matrix(dim));
        Self { dim, key, hashes: w, weights }
    }

    /// Fills the tape: buffer 0 is the input [U × w], then each layer's activation and its slope.
    fn forward(&self, ids: &[u32], tape: &mut Tape) {
        let (n, w) = (ids.len(), self.hashes);
        let layers = self.weights.len() - 1;
        tape.buffers.resize(2 * layers + 3, Vec::new());
        noise(ids, self.key, w, &mut tape.buffers[0]);
        for (l, weight) in self.weights[..layers].iter().enumerate() {
            let (done, rest) = tape.buffers.split_at_mut(2 * l + 1);
            let input = &done[if l == 0 { 0 } else { 2 * l - 1 }];
            let [activation, slope, ..] = rest else { unreachable!("buffers are there") };
            activation.resize(n * w, 0.0);
            slope.resize(n * w, 0.0);
            gemm(n, w, w, input, Op::N, weight.value(), Op::N, 0.0, activation);
            vectorised(
                #[inline(always)]
                || activation.iter_mut().zip(slope).for_each(|(a, s)| (*a, *s) = mish(*a)),
            );
        }
    }
}

impl Embedding for Network {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        self.forward(ids, tape);
        let layers = self.weights.len() - 1;
        let last = &tape.buffers[2 * layers - 1];
        let weight = self.weights[layers].value();
        gemm(ids.len(), self.dim, self.hashes, last, Op::N, weight, Op::N, 0.0, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let (n, w, dim) = (ids.len(), self.hashes, self.dim);
        let layers = self.weights.len() - 1;
        let (kept, scratch) = tape.buffers.split_at_mut(2 * layers + 1);
        let [delta, next] = scratch else { unreachable!("two buffers") };
        let output = &mut self.weights[layers];
        delta.resize(n * w, 0.0);
        gemm(n, w, dim, grad, Op::N, output.value(), Op::T, 0.0, delta);
        gemm(w, dim, n, &kept[2 * layers - 1], Op::T, grad, Op::N, 1.0, output.dense_grad());
        for l in (0..layers).rev() {
            delta.iter_mut().zip(&kept[2 * l + 2]).for_each(|(d, slope)| *d *= slope);
            let input = &kept[if l == 0 { 0 } else { 2 * l - 1 }];
            let weight = &mut self.weights[l];
            gemm(w, w, n, input, Op::T, delta, Op::N, 1.0, weight.dense_grad());
            if l > 0 {
                next.resize(n * w, 0.0);
                gemm(n, w, w, delta, Op::N, weight.value(), Op::T, 0.0, next);
                std::mem::swap(delta, next);
            }
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let noise = g.noise(ids, self.key, self.hashes);
        let (output, layers) = self.weights.split_last().expect("an output");
        let last = layers.iter().fold(noise, |x, layer| {
            let x = g.product(x, layer, self.hashes);
            g.mish(x)
        });
        g.product(last, output, self.dim)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.weights.iter_mut().for_each(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.weights.iter_mut().for_each(|weight| weight.state(visit));
        visit("key", TensorMut::u64(std::slice::from_mut(&mut self.key)));
    }
    fn footprint(&self) -> Footprint {
        Footprint::floats(self.weights.iter().map(|w| w.value().len() as u64).sum())
    }
}

/// The network of CCE's repository.
struct Biased {
    key: u64,
    /// w.
    hashes: usize,
    /// Hidden layers [w × w], then the output [w × dim].
    layers: Vec<Linear>,
}

impl Biased {
    /// All weights and biases U(±w^-½), whatever the table's init.
    fn new(w: usize, dim: usize, hidden: usize, cx: &mut BuildCx<'_>) -> Self {
        let key = cx.rng.bits();
        let bound = 1.0 / (w as f32).sqrt();
        let layer = |l| {
            let (name, outputs) =
                if l < hidden { (format!("layer{l}"), w) } else { ("output".into(), dim) };
            let mut draw = || cx.rng.symmetric(bound);
            let mut values = |len: usize| (0..len).map(|_| draw()).collect();
            let (weight, bias) = (values(w * outputs), values(outputs));
            Linear::of(&name, (w, outputs), weight, bias)
        };
        Self { key, hashes: w, layers: (0..=hidden).map(layer).collect() }
    }

    /// What hashes of variance 1 are multiplied by: U(±w^-½) then.
    fn scale(&self) -> f32 {
        (3.0 * self.hashes as f32).sqrt().recip()
    }
}

impl Embedding for Biased {
    /// Buffer l of the tape is the input of layer l.
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let (n, hidden, scale) = (ids.len(), self.layers.len() - 1, self.scale());
        tape.buffers.resize(hidden + 3, Vec::new());
        noise(ids, self.key, self.hashes, &mut tape.buffers[0]);
        tape.buffers[0].iter_mut().for_each(|x| *x *= scale);
        for (l, layer) in self.layers[..hidden].iter().enumerate() {
            let [x, y, ..] = &mut tape.buffers[l..] else { unreachable!("buffers are there") };
            y.resize(n * self.hashes, 0.0);
            layer.forward(n, x, y, true);
        }
        self.layers[hidden].forward(n, &tape.buffers[hidden], out, false);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let (n, hidden) = (ids.len(), self.layers.len() - 1);
        let (inputs, scratch) = tape.buffers.split_at_mut(hidden + 1);
        let [delta, next] = scratch else { unreachable!("two buffers") };
        delta.resize(n * self.hashes, 0.0);
        self.layers[hidden].backward(n, &inputs[hidden], grad, Some(delta), true);
        for l in (0..hidden).rev() {
            next.resize(n * self.hashes, 0.0);
            let dx = (l > 0).then_some(&mut next[..]);
            self.layers[l].backward(n, &inputs[l], delta, dx, true);
            std::mem::swap(delta, next);
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let noise = g.noise(ids, self.key, self.hashes);
        let (output, layers) = self.layers.split_last().expect("an output");
        let (x, zero) = (g.scale(noise, self.scale()), g.int(ids, Int::Mod, 1));
        let last = layers.iter().fold(x, |x, layer| layer.graph_of_codes(g, x, zero, true));
        output.graph_of_codes(g, last, zero, false)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.layers.iter_mut().for_each(|layer| layer.params(visit));
    }
    fn state(&mut self, visit: State<'_>) {
        self.layers.iter_mut().for_each(|layer| layer.params(&mut |param| param.state(visit)));
        visit("key", TensorMut::u64(std::slice::from_mut(&mut self.key)));
    }
    fn footprint(&self) -> Footprint {
        let size = |layer: &Linear| (layer.inputs + 1) * layer.outputs;
        Footprint::floats(self.layers.iter().map(|layer| size(layer) as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mish_equals_its_definition() {
        for x in [-1e4, -100.0, -41.0, -30.0, -5.0, -1.0, -1e-3, 0.0, 0.5, 3.0, 19.9, 20.1, 90.0] {
            let by_definition = |x: f64| x * x.exp().ln_1p().tanh();
            let slope = (by_definition(x + 1e-6) - by_definition(x - 1e-6)) / 2e-6;
            let (value, derivative) = super::mish(x as f32);
            let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-5 * (1.0 + b.abs());
            assert!(close(value, by_definition(x)) && close(derivative, slope), "{x}");
            assert!(value == 0.0 || value.is_normal() && derivative.is_normal(), "{x}: denormal");
        }
    }
}
