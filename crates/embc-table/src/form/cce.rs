//! CCE's form (arXiv 2210.05974): each piece of a row is that of its cluster, plus a helper that a
//! hash picks. In training the helper leads to other clusters; fitted to a finished table it holds
//! the mean of what clusters leave of the rows that share it.

use super::codes::{Coded, LLOYD, Size};
use super::{Fitting, Form, Method, Plan, Shape, Values};
use anyhow::Result;
use embc_core::books::{Kind, Recipe};
use embc_core::graph::Graph;
use embc_core::graph::device::program::{Node, Op};
use embc_core::hash::{mix64, scaled};
use embc_core::quantize::Storage;

pub(super) struct Cce;

impl Method for Cce {
    fn name(&self) -> &'static str {
        "cce"
    }
    fn doc(&self) -> &'static str {
        "clustered pieces, each with a hashed helper: CCE's form"
    }
    fn plans(&self, shape: &Shape, budget: u64) -> Vec<Plan> {
        let of = |books: usize| {
            let size = |bits| Size { kind: Kind::Product, books, bits };
            let helpers = |bits: u32| {
                books as u64 * Values::bytes(1 << bits, shape.dim / books, Storage::Fp16)
            };
            let bytes = |bits: u32| size(bits).bytes(shape) + helpers(bits);
            let fits = |bits: &u32| bytes(*bits) <= budget && 2 << bits <= shape.rows;
            let bits = (4..=12).rev().find(fits)?;
            Some((books, bits, bytes(bits)))
        };
        let columns =
            (1..=shape.dim).filter(|c| shape.dim.is_multiple_of(*c) && shape.dim / c <= 64);
        let best = columns.filter_map(of).max_by_key(|of| (of.0 * of.1 as usize, of.1));
        let plan = |(books, bits, bytes): (usize, u32, u64)| Plan {
            method: self.name(),
            sizes: format!("{books} columns of 2 x {} x {}", 1 << bits, shape.dim / books),
            bytes,
            build: Box::new(move |of| {
                let recipe = Recipe { kind: Kind::Product, books, k: 1 << bits, lloyd: LLOYD };
                let form: Box<dyn Form> = Box::new(Helped::fit(of, recipe)?);
                Ok(form)
            }),
        };
        best.map(plan).into_iter().collect()
    }
}

struct Helped {
    clusters: Coded,
    helpers: Vec<Values>,
    keys: Vec<u64>,
    k: u64,
}

impl Helped {
    fn fit(of: &Fitting<'_>, recipe: Recipe) -> Result<Self> {
        let clusters = Coded::fit(of, recipe, Storage::Fp16)?;
        let (k, dim) = (recipe.k as usize, of.table.dim);
        let width = dim / recipe.books;
        let keys: Vec<u64> = (0..recipe.books as u64).map(|j| of.rng.fork(j).at(7)).collect();
        let mut sums = vec![vec![0f64; k * width]; keys.len()];
        let mut mass = vec![vec![0f64; k]; keys.len()];
        let mut said = Vec::new();
        of.table.each(|first, block| {
            said.resize(block.len(), 0.0);
            clusters.read(first, &mut said);
            let rows = block.chunks_exact(dim).zip(said.chunks_exact(dim)).zip(first as u64..);
            for ((row, said), id) in rows {
                for (j, key) in keys.iter().enumerate() {
                    let at = scaled(mix64(id ^ key), k as u64) as usize;
                    mass[j][at] += 1.0;
                    let piece = j * width..(j + 1) * width;
                    let left = row[piece.clone()].iter().zip(&said[piece]);
                    let sums = sums[j][at * width..].iter_mut().zip(left);
                    sums.for_each(|(sum, (x, y))| *sum += f64::from(x - y));
                }
            }
            Ok(())
        })?;
        let helper = |(sums, mass): (&Vec<f64>, &Vec<f64>)| {
            let mean = |(at, sum): (usize, &f64)| (sum / mass[at / width].max(1.0)) as f32;
            let values: Vec<f32> = sums.iter().enumerate().map(mean).collect();
            Values::of(&values, width, Storage::Fp16)
        };
        let helpers = sums.iter().zip(&mass).map(helper).collect();
        Ok(Self { clusters, helpers, keys, k: k as u64 })
    }
}

impl Form for Helped {
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node, at: &str) -> Node {
        let row = self.clusters.graph(g, ids, at);
        let helper = |(j, helper): (usize, &'a Values)| {
            let bucket = g.op(Op::Mix64 { x: ids, key: self.keys[j], rows: self.k });
            helper.gather(g, bucket, &format!("{at}helper{j}"))
        };
        let helpers = self.helpers.iter().enumerate().map(helper).collect();
        let helpers = g.concat(helpers);
        g.add(row, helpers)
    }
}
