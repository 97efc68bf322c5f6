//! DLRM: a bottom MLP on dense features, dot interaction of all vectors, a top MLP
//! (Naumov et al. 2019; the Criteo set-up of CCE, arXiv 2210.05974).

use super::*;
use crate::linalg::axpy;
use crate::nn::{DotInteraction, Mlp};
use rayon::prelude::*;

pub(super) struct Dlrm;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    bottom: Vec<usize>,
    top: Vec<usize>,
    /// Left out where it is not set, so that older trials keep their ids.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    bottom_linear: bool,
}

impl Default for Knob {
    fn default() -> Self {
        Self { bottom: vec![512, 256, 64], top: vec![512, 256], bottom_linear: false }
    }
}

impl ModelKind for Dlrm {
    fn name(&self) -> &'static str {
        "dlrm"
    }
    fn doc(&self) -> ModelDoc {
        ModelDoc {
            short: "bottom MLP, dot interaction of all feature vectors, top MLP",
            paper: "Naumov et al., arXiv 1906.00091",
            needs: "categorical fields; dense features are optional",
            knobs: &[
                (
                    "bottom",
                    "hidden widths of the bottom MLP; its output is as wide as the embedding (default [512, 256, 64])",
                ),
                (
                    "top",
                    "hidden widths of the top MLP, which ends in one logit (default [512, 256])",
                ),
                (
                    "bottom_linear",
                    "no ReLU after the bottom's last layer: in few dimensions all of them may be 0 for good, and the dense features are lost (default false)",
                ),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        crate::scheme::defaults::<Knob>()
    }
    fn build(
        &self,
        shape: &Shape,
        widths: &[usize],
        knobs: &Knobs,
        rng: &mut Rng,
    ) -> Result<Box<dyn Model>, String> {
        let Knob { mut bottom, mut top, bottom_linear } =
            crate::scheme::knobs(knobs).map_err(|error| error.to_string())?;
        if bottom.iter().chain(&top).any(|&width| width == 0) {
            return Err("model.bottom and model.top: every width must be positive".into());
        }
        let width = *widths.first().ok_or("model dlrm needs a categorical field")?;
        if widths.iter().any(|&other| other != width) {
            return Err("model dlrm needs embeddings of one width".into());
        }
        if widths.len() == 1 && shape.dense == 0 {
            return Err("model dlrm has nothing to combine: it needs two fields".into());
        }
        bottom.push(width);
        top.push(1);
        let bottom = (shape.dense > 0)
            .then(|| Mlp::new("bottom", shape.dense, &bottom, !bottom_linear, rng));
        let vectors = widths.len() + usize::from(bottom.is_some());
        let dots = DotInteraction { vectors, width };
        let first = if bottom.is_some() { width } else { 0 };
        let top = Mlp::new("top", first + dots.pairs(), &top, false, rng);
        let buffer = Vec::new;
        Ok(Box::new(Network {
            bottom,
            dots,
            top,
            first,
            z: buffer(),
            dz: buffer(),
            joined: buffer(),
            djoined: buffer(),
            dbottom: buffer(),
        }))
    }
}

struct Network {
    bottom: Option<Mlp>,
    dots: DotInteraction,
    top: Mlp,
    /// Floats of the bottom's output at the start of the top's input.
    first: usize,
    /// All vectors [B × F × D], and their gradient.
    z: Vec<f32>,
    dz: Vec<f32>,
    /// The top's input [B × (first + pairs)], and its gradient.
    joined: Vec<f32>,
    djoined: Vec<f32>,
    /// Gradient of the bottom's output [B × D].
    dbottom: Vec<f32>,
}

/// Examples that one thread takes at a time between the MLPs.
const BLOCK: usize = 64;

impl Model for Network {
    fn forward(&mut self, x: &Features<'_>, _: Mode, out: &mut [f32]) {
        let Self { dots, first, .. } = *self;
        let (width, stride) = (dots.width, first + dots.pairs());
        let size = dots.vectors * width;
        self.z.resize(x.batch * size, 0.0);
        self.joined.resize(x.batch * stride, 0.0);
        let bottom = self.bottom.as_mut().map(|bottom| {
            bottom.forward(x.batch, x.dense);
            bottom.output()
        });
        let blocks = self.z.par_chunks_mut(BLOCK * size);
        blocks.zip(self.joined.par_chunks_mut(BLOCK * stride)).enumerate().for_each(
            |(block, (z, joined))| {
                let rows = bottom.into_iter().chain(x.rows.iter().map(|rows| &rows[..]));
                for (f, rows) in rows.enumerate() {
                    let rows = rows[block * BLOCK * width..].chunks_exact(width);
                    for (z, row) in z.chunks_exact_mut(size).zip(rows) {
                        z[f * width..][..width].copy_from_slice(row);
                    }
                }
                for (joined, z) in joined.chunks_exact_mut(stride).zip(z.chunks_exact(size)) {
                    joined[..first].copy_from_slice(&z[..first]);
                }
                dots.forward(z, joined, stride, first);
            },
        );
        self.top.forward(x.batch, &self.joined);
        out.copy_from_slice(self.top.output());
    }

    fn graph<'a>(&'a self, g: &mut Graph<'a>) -> Node {
        let inputs = g.features();
        let (rows, dense) = inputs.split_at(self.dots.vectors - usize::from(self.bottom.is_some()));
        let bottom = self.bottom.as_ref().map(|bottom| bottom.graph(g, dense[0]));
        let z = g.concat(bottom.iter().chain(rows).copied().collect());
        let dots = g.op(Op::Dots { x: z, width: self.dots.width as u32 });
        let joined = g.concat(bottom.into_iter().chain([dots]).collect());
        self.top.graph(g, joined)
    }
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        let Self { dots, first, .. } = *self;
        let (width, stride) = (dots.width, first + dots.pairs());
        let size = dots.vectors * width;
        self.djoined.resize(self.joined.len(), 0.0);
        self.dz.resize(self.z.len(), 0.0);
        self.top.backward(x.batch, &self.joined, dout, Some(&mut self.djoined));
        let blocks = self.z.par_chunks(BLOCK * size).zip(self.dz.par_chunks_mut(BLOCK * size));
        blocks.zip(self.djoined.par_chunks(BLOCK * stride)).for_each(|((z, dz), djoined)| {
            dots.backward(z, djoined, stride, first, dz);
            // The bottom's output is also at the start of the top's input.
            for (dz, djoined) in dz.chunks_exact_mut(size).zip(djoined.chunks_exact(stride)) {
                axpy(1.0, &djoined[..first], &mut dz[..first]);
            }
        });
        let dz = &self.dz;
        let vector = |f: usize, out: &mut [f32]| {
            for (out, dz) in out.chunks_exact_mut(width).zip(dz.chunks_exact(size)) {
                out.copy_from_slice(&dz[f * width..][..width]);
            }
        };
        let skip = usize::from(self.bottom.is_some());
        let (dbottom, bottom) = (&mut self.dbottom, &mut self.bottom);
        rayon::join(
            || drows.par_iter_mut().enumerate().for_each(|(f, drows)| vector(f + skip, drows)),
            || {
                if let Some(bottom) = bottom {
                    dbottom.resize(x.batch * width, 0.0);
                    vector(0, dbottom);
                    bottom.backward(x.batch, x.dense, dbottom, None);
                }
            },
        );
    }

    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.bottom.iter_mut().for_each(|bottom| bottom.params(visit));
        self.top.params(visit);
    }
}
