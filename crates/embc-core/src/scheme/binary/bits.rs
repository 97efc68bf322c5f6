//! Signs of shared vectors: as latent numbers while they train, as bits afterwards.

use super::super::*;
use crate::codebook::Error;
use crate::linalg::{Op as Side, add_columns, gemm};
use crate::packed::Packed;
use crate::state::TensorMut;

/// How many vectors the ids of each band use: bands of ids that end at .0 use .1 of them. Ids come in
/// frequency order, so that no index says which band an id is in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Depths(pub Vec<(u32, usize)>);

impl Depths {
    /// Those of saved weights; none where they are not of such a table.
    pub fn saved(from: &dyn Tensors, vocab: u32, most: usize) -> Option<Self> {
        let mut flat = vec![0u32; from.shape("depths")?.iter().product()];
        from.copy("depths", &mut TensorMut::u32(&mut flat)).then_some(())?;
        let band = |band: &[u32]| (band[0], band[1] as usize);
        let depths = Self(flat.chunks_exact(2).map(band).collect());
        let bands = &depths.0;
        let fine = depths.vocab() == vocab
            && depths.most() <= most
            && bands.is_sorted_by(|a, b| a.0 < b.0 && a.1 >= b.1);
        fine.then_some(depths)
    }

    /// Vectors of the id that uses most.
    pub fn most(&self) -> usize {
        self.0.iter().map(|band| band.1).max().unwrap_or(0)
    }

    /// Ids.
    fn vocab(&self) -> u32 {
        self.0.last().map_or(0, |band| band.0)
    }

    /// Vectors of each id.
    pub fn of_ids(&self) -> Vec<u32> {
        let ids = |of: u32| self.0[self.0.partition_point(|band| band.0 <= of)].1 as u32;
        (0..self.vocab()).map(ids).collect()
    }

    /// Vectors that all ids below an end use and no others: (end, first vector, how many).
    fn segments(&self) -> Vec<(u32, usize, usize)> {
        let mut from = 0;
        let bands = self.0.iter().rev().map(|&(end, depth)| {
            let first = std::mem::replace(&mut from, depth);
            (end, first, depth - first)
        });
        bands.filter(|segment| segment.2 > 0).collect()
    }

    /// Bytes of the bits.
    pub fn bytes(&self) -> u64 {
        let bytes = |&(end, _, width): &(u32, usize, usize)| {
            Packed::bytes(u64::from(end) * width as u64, 2)
        };
        self.segments().iter().map(bytes).sum()
    }
}

/// What signs multiply.
pub(super) struct Basis {
    planes: Param,
    mean: Param,
}

impl Basis {
    pub fn new(planes: &[f32], mean: &[f32]) -> Self {
        let dim = mean.len();
        let planes = Param::dense("planes", planes.to_vec()).matrix(dim);
        Self { planes, mean: Param::dense("mean", mean.to_vec()).matrix(dim) }
    }

    fn copy(&self) -> Self {
        Self::new(self.planes.value(), self.mean.value())
    }

    fn planes(&self) -> usize {
        self.planes.value().len() / self.mean.value().len()
    }

    /// Rows of signs [n × planes].
    fn rows(&self, signs: &[f32], out: &mut [f32]) {
        let (dim, mean) = (self.mean.value().len(), self.mean.value());
        let (n, planes) = (out.len() / dim, self.planes());
        gemm(n, dim, planes, signs, Side::N, self.planes.value(), Side::N, 0.0, out);
        for row in out.chunks_exact_mut(dim) {
            row.iter_mut().zip(mean).for_each(|(x, m)| *x += m);
        }
    }

    fn scatter(&mut self, signs: &[f32], grad: &[f32]) {
        let (dim, planes) = (self.mean.value().len(), self.planes());
        let n = grad.len() / dim;
        gemm(planes, dim, n, signs, Side::T, grad, Side::N, 1.0, self.planes.dense_grad());
        add_columns(grad, self.mean.dense_grad());
    }

    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.planes);
        visit(&mut self.mean);
    }

    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, signs: Option<Node>) -> Node {
        let dim = self.mean.value().len();
        let first = g.int(ids, Int::Mod, 1);
        let mean = g.gather(first, &self.mean, dim);
        let Some(signs) = signs else { return mean };
        let rows = g.product(signs, &self.planes, dim);
        g.add(rows, mean)
    }
}

/// Signs of latent numbers, which get the gradient as if they were read themselves.
pub(super) struct Through {
    basis: Basis,
    /// [vocab × planes].
    latent: Param,
    /// Vectors of each id.
    of_ids: Vec<u32>,
    depths: Depths,
    finetune: u32,
    error: Error,
}

impl Through {
    pub fn new(
        basis: Basis,
        latent: Vec<f32>,
        depths: Depths,
        finetune: u32,
        error: Error,
    ) -> Self {
        let (planes, of_ids) = (basis.planes().max(1), depths.of_ids());
        let latent = Param::rows("latent", planes, latent);
        Self { basis, latent, of_ids, depths, finetune, error }
    }
}

impl Embedding for Through {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        tape.buffers.resize(2, Vec::new());
        let (signs, planes) = (&mut tape.buffers[0], self.latent.width());
        signs.resize(ids.len() * planes, 0.0);
        self.latent.copy_rows(ids, signs);
        for (&id, signs) in ids.iter().zip(signs.chunks_exact_mut(planes)) {
            let (used, unused) = signs.split_at_mut(self.of_ids[id as usize] as usize);
            used.iter_mut().for_each(|x| *x = if *x < 0.0 { -1.0 } else { 1.0 });
            unused.fill(0.0);
        }
        self.basis.rows(signs, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let [signs, through] = &mut tape.buffers[..] else { unreachable!("a gather came before") };
        self.basis.scatter(signs, grad);
        let (planes, dim) = (self.latent.width(), grad.len() / ids.len().max(1));
        through.resize(ids.len() * planes, 0.0);
        let vectors = self.basis.planes.value();
        gemm(ids.len(), planes, dim, grad, Side::N, vectors, Side::T, 0.0, through);
        self.latent.add_rows(ids, through);
    }
    fn graph<'a>(&'a self, _: &mut Graph<'a>, _: Node) -> Node {
        unreachable!("no net leaves before its last stage")
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.latent);
        self.basis.params(visit);
    }
    /// What it will be.
    fn footprint(&self) -> Footprint {
        footprint(&self.basis, &self.depths)
    }
    fn finetune(&self) -> u32 {
        self.finetune
    }
    fn finish(&mut self, _: &mut BuildCx<'_>) -> Option<Box<dyn Embedding>> {
        let (basis, depths) = (self.basis.copy(), self.depths.clone());
        Some(Box::new(Bits::new(basis, depths, self.latent.value(), self.error)))
    }
}

fn footprint(basis: &Basis, depths: &Depths) -> Footprint {
    let floats = (basis.planes.value().len() + basis.mean.value().len()) as u64;
    let (floats, index_bytes) = (Footprint::floats(floats), depths.bytes());
    Footprint { index_bytes, train_bytes: floats.train_bytes + index_bytes, ..floats }
}

/// Signs as bits.
pub(super) struct Bits {
    basis: Basis,
    depths: Depths,
    /// Of each segment [ids × vectors].
    bits: Vec<Packed>,
    error: Error,
}

impl Bits {
    /// Of numbers [vocab × planes], whose signs count.
    pub fn new(basis: Basis, depths: Depths, codes: &[f32], error: Error) -> Self {
        let planes = basis.planes();
        let pack = |&(end, first, width): &(u32, usize, usize)| {
            let mut bits = Packed::zeros(u64::from(end) * width as u64, 2);
            for (id, codes) in codes.chunks_exact(planes).take(end as usize).enumerate() {
                let codes = codes[first..first + width].iter().enumerate();
                codes.for_each(|(p, &x)| bits.set(id * width + p, u32::from(x >= 0.0)));
            }
            bits
        };
        let bits = depths.segments().iter().map(pack).collect();
        Self { basis, depths, bits, error }
    }

    /// Of such a size, to copy saved weights into.
    pub fn empty(dim: usize, depths: Depths) -> Self {
        let planes = depths.most();
        let zeros = |&(end, _, width): &(u32, usize, usize)| {
            Packed::zeros(u64::from(end) * width as u64, 2)
        };
        let bits = depths.segments().iter().map(zeros).collect();
        let basis = Basis::new(&vec![0.0; planes * dim], &vec![0.0; dim]);
        Self { basis, depths, bits, error: Error::default() }
    }
}

impl Embedding for Bits {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let planes = self.basis.planes();
        tape.buffers.resize(1, Vec::new());
        let signs = &mut tape.buffers[0];
        signs.clear();
        signs.resize(ids.len() * planes, 0.0);
        for ((end, first, width), bits) in self.depths.segments().into_iter().zip(&self.bits) {
            for (&id, signs) in ids.iter().zip(signs.chunks_exact_mut(planes)) {
                if id < end {
                    let at = id as usize * width;
                    let each = signs[first..first + width].iter_mut().zip(at..);
                    each.for_each(|(sign, at)| *sign = 2.0 * bits.get(at) as f32 - 1.0);
                }
            }
        }
        self.basis.rows(signs, out);
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        self.basis.scatter(&tape.buffers[0], grad);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let vocab = self.depths.vocab();
        let segments = self.depths.segments().into_iter().zip(&self.bits).enumerate();
        let signs = segments.map(|(j, ((end, _, width), bits))| {
            let near = if end < vocab { g.int(ids, Int::Min, end - 1) } else { ids };
            let len = u64::from(end) * width as u64;
            let bits = g.unpack(near, &format!("bits{j}"), bits, (len, width));
            let signs = g.signs_of(bits);
            if end == vocab { signs } else { g.zero_within(signs, ids, end..vocab) }
        });
        let signs: Vec<Node> = signs.collect();
        let signs = (!signs.is_empty()).then(|| g.concat(signs));
        self.basis.graph(g, ids, signs)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.basis.params(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.basis.params(&mut |param| param.state(visit));
        let bands = self.depths.0.iter();
        let mut depths: Vec<u32> = bands.flat_map(|&(end, depth)| [end, depth as u32]).collect();
        visit("depths", TensorMut::u32(&mut depths));
        for (j, bits) in self.bits.iter_mut().enumerate() {
            visit(&format!("bits{j}"), bits.tensor());
        }
        self.error.state(visit);
    }
    fn sizes(&self) -> Option<String> {
        let mut from = 0;
        let bands = self.depths.0.iter().map(|&(end, depth)| {
            let ids = end - std::mem::replace(&mut from, end);
            format!("{depth} for {ids} ids")
        });
        let bands: Vec<String> = bands.collect();
        Some(format!("{} vectors, signs of {}", self.depths.most(), bands.join(", ")))
    }
    fn figures(&self) -> Vec<(&'static str, f64)> {
        vec![self.error.figure()]
    }
    fn footprint(&self) -> Footprint {
        footprint(&self.basis, &self.depths)
    }
}
