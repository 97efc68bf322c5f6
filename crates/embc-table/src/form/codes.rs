//! Rows as codes of codebooks, side by side (pq), rotated (opq) or summed (rq): what the schemes of
//! these names do after training.

use super::{Fitting, Form, Method, Plan, Shape, Values, WIDE, largest};
use crate::table::block;
use anyhow::{Result, bail};
use embc_core::books::{self, Books, Kind, Lloyd, Recipe};
use embc_core::graph::Graph;
use embc_core::graph::device::program::{Node, Op};
use embc_core::kmeans::Start;
use embc_core::packed::Packed;
use embc_core::quantize::Storage;

pub(super) struct Product;
pub(super) struct Rotated;
pub(super) struct Residual;

/// Iterations of k-means, as FAISS has them.
pub(super) const LLOYD: Lloyd = Lloyd { samples: 256, start: Start::Random, iterations: 25 };
/// Codebooks are of 16 to 4,096 rows, where codes lie side by side.
const BITS: std::ops::RangeInclusive<u32> = 4..=12;
/// Most codebooks of which rows are the sum.
const STAGES: usize = 64;

impl Method for Product {
    fn name(&self) -> &'static str {
        "pq"
    }
    fn doc(&self) -> &'static str {
        "product quantisation: pieces of a row as codes of codebooks"
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        side_by_side(self.name(), Kind::Product, shape, budget)
    }
}

impl Method for Rotated {
    fn name(&self) -> &'static str {
        "opq"
    }
    fn doc(&self) -> &'static str {
        "optimised product quantisation: the same after a rotation that is found with the codebooks"
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        if shape.dim > WIDE {
            return Vec::new();
        }
        side_by_side(self.name(), Kind::Rotated { iterations: 12 }, shape, budget)
    }
}

impl Method for Residual {
    fn name(&self) -> &'static str {
        "rq"
    }
    fn doc(&self) -> &'static str {
        "residual quantisation: a row as a sum of codes, found with a beam of 8"
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        residual(*shape, budget).into_iter().collect()
    }
}

/// The plan with the most codebooks: of 256 rows, or of fewer where they would outweigh the codes.
pub(super) fn residual(shape: Shape, budget: u64) -> Option<Plan> {
    let lighter = |bits: &u32| (shape.dim << bits) <= shape.rows * *bits as usize / 8;
    let bits = (4..=8).rev().find(lighter).unwrap_or(4);
    let size = |books| Size { kind: Kind::Residual { beam: 8, rounds: 3 }, books, bits };
    let books = largest(STAGES, budget, |books| size(books).bytes(&shape))?;
    Some(size(books).plan("rq", &shape))
}

/// The plans that use most of the budget, of all ways to cut a row: those of most bits a row first.
fn side_by_side(method: &'static str, kind: Kind, shape: &Shape, budget: u64) -> Vec<Plan> {
    let columns = (1..=shape.dim).filter(|c| shape.dim.is_multiple_of(*c) && shape.dim / c <= 64);
    let of_columns = |books: usize| {
        let sizes = BITS.map(|bits| Size { kind, books, bits });
        // A codebook of as many rows as the table has is the table.
        let fits =
            |size: &Size| size.bytes(shape) <= budget && 2 << size.bits <= shape.rows.max(32);
        sizes.rev().find(fits)
    };
    let mut sizes: Vec<Size> = columns.filter_map(of_columns).collect();
    // At equal bits a row, codebooks of more rows over wider pieces lose less.
    sizes.sort_by_key(|size| (std::cmp::Reverse(size.books * size.bits as usize), size.books));
    sizes.truncate(2);
    sizes.into_iter().map(|size| size.plan(method, shape)).collect()
}

/// Codebooks and their rows, in bits.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub kind: Kind,
    pub books: usize,
    pub bits: u32,
}

impl Size {
    fn width(self, dim: usize) -> usize {
        if let Kind::Residual { .. } = self.kind { dim } else { dim / self.books }
    }

    /// How rows of codebooks are stored: full-width ones take as much as codes do, and lose little.
    fn storage(self) -> Storage {
        if let Kind::Residual { .. } = self.kind { Storage::Int8 } else { Storage::Fp16 }
    }

    pub fn bytes(self, shape: &Shape) -> u64 {
        let (k, width) = (1usize << self.bits, self.width(shape.dim));
        let codes = Packed::bytes((shape.rows * self.books) as u64, k as u64);
        let books = self.books as u64 * Values::bytes(k, width, self.storage());
        let rotation = match self.kind {
            Kind::Rotated { .. } => Values::bytes(shape.dim, shape.dim, Storage::Fp16),
            _ => 0,
        };
        codes + books + rotation
    }

    pub fn plan(self, method: &'static str, shape: &Shape) -> Plan {
        let (k, dim) = (1 << self.bits, shape.dim);
        let Self { books, kind, .. } = self;
        let recipe = Recipe { kind, books, k, lloyd: LLOYD };
        Plan {
            method,
            sizes: format!("{books} codebooks of {k} x {}", self.width(dim)),
            bytes: self.bytes(shape),
            build: Box::new(move |of| {
                let form: Box<dyn Form> = Box::new(Coded::fit(of, recipe, self.storage())?);
                Ok(form)
            }),
        }
    }
}

/// Codebooks and codes.
pub(super) struct Coded {
    found: Books,
    books: Vec<Values>,
    codes: Packed,
    rows: usize,
    summed: bool,
    back: Option<Values>,
}

impl Coded {
    pub fn fit(of: &Fitting<'_>, recipe: Recipe, storage: Storage) -> Result<Self> {
        let (rows, dim) = (of.table.rows, of.table.dim);
        let weights = of.weights();
        let fitting =
            books::Fitting { weights: weights.as_deref(), cancel: of.cancel, rng: of.rng.clone() };
        let mut found = Books::fit(&of.sample, dim, recipe, &fitting);
        // Codes are found for what the codebooks will be read as.
        let width = found.width();
        let books = found.books.iter_mut().map(|book| {
            book.resize(recipe.k as usize * width, 0.0);
            let values = Values::of(book, width, storage);
            *book = values.decoded();
            values
        });
        let books: Vec<Values> = books.collect();
        let n = recipe.books;
        let mut codes = Packed::zeros((rows * n) as u64, recipe.k.into());
        let mut some = vec![0; block(dim).min(rows) * n];
        of.table.each(|first, block| {
            if of.cancel.is_set() {
                bail!("interrupted");
            }
            let some = &mut some[..block.len() / dim * n];
            found.encode(block, some);
            (first * n..).zip(&*some).for_each(|(at, &code)| codes.set(at, code));
            Ok(())
        })?;
        let back = found.back().map(|back| Values::of(&back, dim, Storage::Fp16));
        let summed = matches!(recipe.kind, Kind::Residual { .. });
        Ok(Self { found, books, codes, rows, summed, back })
    }

    /// What it says of the rows from `first` on, `out` [n × dim].
    pub fn read(&self, first: usize, out: &mut [f32]) {
        let n = self.books.len();
        let codes = first * n..(first + out.len() / self.found.dim) * n;
        let codes: Vec<u32> = codes.map(|at| self.codes.get(at)).collect();
        self.found.decode(&codes, out);
    }
}

impl Form for Coded {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        let n = self.books.len();
        let codes = g.unpack(ids, &format!("{at}codes"), &self.codes, ((self.rows * n) as u64, n));
        let book = |(j, book): (usize, &'a Values)| {
            let code = g.op(Op::Column { x: codes, at: j as u32 });
            book.gather(g, code, &format!("{at}codebook{j}"))
        };
        let pieces: Vec<Node> = self.books.iter().enumerate().map(book).collect();
        let row = if self.summed { g.sum(pieces) } else { g.concat(pieces) };
        match &self.back {
            Some(back) => g.transform_coded(row, &format!("{at}rotation"), &back.codes),
            None => row,
        }
    }
}
