//! Product quantisation after training: the pieces of a trained full table become centroids.
//! c codebooks of k rows, d/c wide: k·d parameters, and codes.

use super::ce::check_columns;
use super::codebook::{Error, Lloyd, quantise};
use super::*;
use crate::gather::Piece;
use crate::kmeans::Start;
use crate::packed::Packed;

pub(super) struct ProductQuantisation;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Knob {
    columns: usize,
    iterations: usize,
    samples: usize,
    start: Start,
    finetune: u32,
}

impl Default for Knob {
    fn default() -> Self {
        Self { columns: 4, iterations: 50, samples: 256, start: Start::Random, finetune: 0 }
    }
}

impl Scheme for ProductQuantisation {
    fn name(&self) -> &'static str {
        "pq"
    }
    fn doc(&self) -> Doc {
        Doc {
            short: "product quantisation of a trained full table",
            long: "Trains the full table, then replaces each of c pieces of a row by the nearest of k centroids. The memory is that of codebooks and codes only after training: while it trains, it takes as much as `full`.",
            paper: "Jegou et al. 2011; baseline of CCE, arXiv 2210.05974",
            equation: "E_i = ++_j B_j[code_j(i)]",
            stores: "B [c x k x dim/c], codes [vocab x c] of log2(k) bits",
            collisions: "ids that fall into the same cluster in every column are equal",
            knobs: &[
                ("columns", "c, which divides dim (default 4)"),
                ("iterations", "of k-means (default 50)"),
                ("samples", "ids a centroid that k-means sees; all are coded (default 256)"),
                ("start", "random (default) | plusplus: k-means' first centroids"),
                ("finetune", "epochs to train codebooks and model on, codes fixed (default 0)"),
            ],
        }
    }
    fn defaults(&self) -> Knobs {
        defaults::<Knob>()
    }
    fn plan_table(&self, t: &TableSpec, limit: Limit, knobs: &Knobs) -> Result<Plan, PlanError> {
        let Knob { columns, iterations, samples, start, finetune } = super::knobs(knobs)?;
        check_columns(self.name(), t.dim, columns)?;
        let (vocab, dim, full) = (t.vocab, t.dim, t.full_params());
        let footprint = move |k: u64| Footprint {
            index_bytes: Packed::bytes(u64::from(vocab) * columns as u64, k),
            train_bytes: 4 * full,
            ..Footprint::floats(k * dim as u64)
        };
        let k = rows_within(self.name(), t, limit, footprint)?;
        let lloyd = Lloyd { samples: samples.max(1), start, iterations };
        Ok(Plan {
            out_dim: dim,
            footprint: footprint(k.into()),
            larger: footprint(u64::from(k) + 1).params,
            sizes: format!("{columns} codebooks of {k} rows x {}, after training", dim / columns),
            build: Box::new(move |cx| {
                let footprint = footprint(k.into());
                if let Origin::Saved(_) = cx.origin {
                    let (width, error) = (dim / columns, Error::default());
                    let book = |j| {
                        Param::rows(format!("codebook{j}"), width, vec![0.0; k as usize * width])
                    };
                    let books = (0..columns).map(book).collect();
                    let codes = Packed::zeros(u64::from(vocab) * columns as u64, k.into());
                    let ids = vocab.into();
                    return Box::new(Coded { ids, books, codes, error, finetune, footprint });
                }
                let values = cx.init.table(vocab.into(), dim, dim, &mut cx.rng);
                let table = Param::rows("table", dim, values);
                Box::new(Training { table, columns, k, lloyd, finetune, footprint })
            }),
        })
    }
}

/// The full table, while it trains.
struct Training {
    table: Param,
    columns: usize,
    k: u32,
    lloyd: Lloyd,
    finetune: u32,
    footprint: Footprint,
}

impl Embedding for Training {
    fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
        self.table.copy_rows(ids, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], _: &mut Tape) {
        self.table.add_rows(ids, grad);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        g.gather(ids, &self.table, self.table.width())
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        visit(&mut self.table);
    }
    /// What it will be; `train_bytes` tells what it is now.
    fn footprint(&self) -> Footprint {
        self.footprint
    }
    fn finish(&mut self, cx: &mut BuildCx<'_>) -> Option<Box<dyn Embedding>> {
        let dim = self.table.width();
        let (width, vocab) = (dim / self.columns, self.table.value().len() / dim);
        let mut codes = Packed::zeros((vocab * self.columns) as u64, self.k.into());
        let mut error = Error::default();
        let codebook = |j: usize| {
            let piece = |row: &[f32]| row[j * width..][..width].to_vec();
            let pieces: Vec<f32> = self.table.value().chunks_exact(dim).flat_map(piece).collect();
            let (mut book, nearest) = {
                let mut rng = cx.rng.fork(j as u64);
                quantise(&pieces, width, self.k, self.lloyd, None, &cx.cancel, &mut rng)
            };
            error.add(&pieces, &book, width, &nearest);
            book.resize(self.k as usize * width, 0.0);
            nearest.iter().enumerate().for_each(|(id, &c)| codes.set(id * self.columns + j, c));
            Param::rows(format!("codebook{j}"), width, book)
        };
        let books = (0..self.columns).map(codebook).collect();
        let (finetune, footprint) = (self.finetune, self.footprint);
        let ids = vocab as u64;
        Some(Box::new(Coded { ids, books, codes, error, finetune, footprint }))
    }
}

/// Codebooks and codes.
struct Coded {
    /// Number of ids.
    ids: u64,
    books: Vec<Param>,
    codes: Packed,
    error: Error,
    finetune: u32,
    footprint: Footprint,
}

impl Coded {
    fn code(&self, id: u32, j: usize) -> u32 {
        self.codes.get(id as usize * self.books.len() + j)
    }
}

impl Embedding for Coded {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        let columns = self.books.len();
        for (j, (book, rows)) in self.books.iter().zip(tape.rows(columns)).enumerate() {
            rows.clear();
            rows.extend(ids.iter().map(|&id| self.code(id, j)));
            book.gather(rows, out, Piece::column(j, columns, book.width()), |_, row, _| row);
        }
    }
    fn scatter(&mut self, _: &[u32], grad: &[f32], tape: &mut Tape) {
        let columns = self.books.len();
        for (j, (book, rows)) in self.books.iter_mut().zip(tape.rows(columns)).enumerate() {
            book.scatter(rows, grad, Piece::column(j, columns, book.width()), |_, grad| grad);
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let columns = self.books.len();
        let codes = g.unpack(ids, "codes", &self.codes, (self.ids * columns as u64, columns));
        let column = |(j, book): (usize, &'a Param)| {
            let code = g.op(Op::Column { x: codes, at: j as u32 });
            g.gather(code, book, book.width())
        };
        let columns = self.books.iter().enumerate().map(column).collect();
        g.concat(columns)
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.books.iter_mut().for_each(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.books.iter_mut().for_each(|book| book.state(visit));
        visit("codes", self.codes.tensor());
        self.error.state(visit);
    }
    fn finetune(&self) -> u32 {
        self.finetune
    }
    fn figures(&self) -> Vec<(&'static str, f64)> {
        vec![self.error.figure()]
    }
    fn footprint(&self) -> Footprint {
        self.footprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finishing_approximates_the_table_and_more_centroids_do_better() {
        let table = TableSpec { name: "t".into(), vocab: 500, dim: 8, counts: [].into() };
        let error = |k: u64| {
            let limit = Limit::Params(k * 8);
            let plan = ProductQuantisation.plan_table(&table, limit, &Knobs::new()).unwrap();
            let mut cx = BuildCx::new(Rng::stream(1, "pq"));
            let mut trained = (plan.build)(&mut cx);
            let finished = trained.finish(&mut cx).unwrap();
            let ids: Vec<u32> = (0..500).collect();
            let rows = |embedding: &dyn Embedding| {
                let mut rows = vec![0.0; 500 * 8];
                embedding.gather(&ids, &mut rows, &mut Tape::default());
                rows
            };
            let (before, after) = (rows(&*trained), rows(&*finished));
            let square = |(a, b): (&f32, &f32)| (a - b) * (a - b);
            before.iter().zip(&after).map(square).sum::<f32>()
                / before.iter().map(|x| x * x).sum::<f32>()
        };
        let (few, many) = (error(4), error(64));
        assert!(many < 0.05 && many < few && few < 0.5, "{many} {few}");
        assert_eq!(error(500), 0.0, "a centroid an id loses nothing");
    }
}
