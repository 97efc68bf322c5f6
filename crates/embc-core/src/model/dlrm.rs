//! DLRM: a bottom MLP on dense features, dot interaction of all vectors, a top MLP
//! (Naumov et al. 2019; the Criteo set-up of CCE, arXiv 2210.05974).

use super::*;
use crate::nn::{DotInteraction, Mlp};

pub(super) struct Dlrm;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    bottom: Vec<usize>,
    top: Vec<usize>,
}

impl Default for Knob {
    fn default() -> Self {
        Self { bottom: vec![512, 256, 64], top: vec![512, 256] }
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
        let Knob { mut bottom, mut top } =
            crate::scheme::knobs(knobs).map_err(|error| error.to_string())?;
        if bottom.iter().chain(&top).any(|&width| width == 0) {
            return Err("model.bottom and model.top: every width must be positive".into());
        }
        let width = *widths.first().ok_or("model dlrm needs a categorical field")?;
        if widths.iter().any(|&other| other != width) {
            return Err("model dlrm needs embeddings of one width".into());
        }
        bottom.push(width);
        top.push(1);
        let bottom = (shape.dense > 0).then(|| Mlp::new("bottom", shape.dense, &bottom, true, rng));
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

impl Network {
    fn stride(&self) -> usize {
        self.first + self.dots.pairs()
    }
}

impl Model for Network {
    fn forward(&mut self, x: &Features<'_>, _: Mode, out: &mut [f32]) {
        let DotInteraction { vectors, width } = self.dots;
        let stride = self.stride();
        self.z.resize(x.batch * vectors * width, 0.0);
        self.joined.resize(x.batch * stride, 0.0);
        let mut place = |f: usize, rows: &[f32]| {
            for (z, row) in self.z.chunks_exact_mut(vectors * width).zip(rows.chunks_exact(width)) {
                z[f * width..][..width].copy_from_slice(row);
            }
        };
        let skip = usize::from(self.bottom.is_some());
        x.rows.iter().enumerate().for_each(|(f, rows)| place(f + skip, rows));
        if let Some(bottom) = &mut self.bottom {
            bottom.forward(x.batch, x.dense);
            place(0, bottom.output());
            let joined = self.joined.chunks_exact_mut(stride);
            for (joined, row) in joined.zip(bottom.output().chunks_exact(width)) {
                joined[..width].copy_from_slice(row);
            }
        }
        self.dots.forward(&self.z, &mut self.joined, stride, self.first);
        self.top.forward(x.batch, &self.joined);
        out.copy_from_slice(self.top.output());
    }

    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        let DotInteraction { vectors, width } = self.dots;
        let stride = self.stride();
        self.djoined.resize(self.joined.len(), 0.0);
        self.dz.resize(self.z.len(), 0.0);
        self.top.backward(x.batch, &self.joined, dout, Some(&mut self.djoined));
        self.dots.backward(&self.z, &self.djoined, stride, self.first, &mut self.dz);
        let skip = usize::from(self.bottom.is_some());
        for (f, drows) in drows.iter_mut().enumerate() {
            let dz = self.dz.chunks_exact(vectors * width);
            for (drow, dz) in drows.chunks_exact_mut(width).zip(dz) {
                drow.copy_from_slice(&dz[(f + skip) * width..][..width]);
            }
        }
        if let Some(bottom) = &mut self.bottom {
            self.dbottom.resize(x.batch * width, 0.0);
            let parts =
                self.dz.chunks_exact(vectors * width).zip(self.djoined.chunks_exact(stride));
            for (out, (dz, djoined)) in self.dbottom.chunks_exact_mut(width).zip(parts) {
                for i in 0..width {
                    out[i] = dz[i] + djoined[i];
                }
            }
            bottom.backward(x.batch, x.dense, &self.dbottom, None);
        }
    }

    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.bottom.iter_mut().for_each(|bottom| bottom.params(visit));
        self.top.params(visit);
    }
}
