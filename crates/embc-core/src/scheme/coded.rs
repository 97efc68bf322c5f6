//! A trained full table that becomes codes: what pq, opq and rq share.

use super::{
    BuildCx, Embedding, Footprint, Graph, Limit, Node, Origin, Param, Plan, PlanError, State,
    TableSpec, Tape, rows_within,
};
use crate::books::{Books, Fitting, Kind, Recipe};
use crate::codebook::Error;
use crate::gather::Piece;
use crate::graph::device::program as device;
use crate::linalg::{Op, gemm};
use crate::packed::Packed;
use crate::state::TensorMut;

/// Ids that are encoded between two looks at a wish to stop.
const BETWEEN_LOOKS: usize = 1 << 17;

/// The plan of a table that is `recipe` after training, then trained for `finetune` epochs.
pub(super) fn plan(
    scheme: &'static str,
    t: &TableSpec,
    limit: Limit,
    recipe: Recipe,
    finetune: u32,
) -> Result<Plan, PlanError> {
    let (vocab, dim, full, columns) = (t.vocab, t.dim, t.full_params(), recipe.books);
    let (width, rotation) = match recipe.kind {
        Kind::Residual { .. } => (dim, 0),
        Kind::Product => (dim / columns, 0),
        Kind::Rotated { .. } => (dim / columns, 4 * (dim * dim) as u64),
    };
    let footprint = move |k: u64| Footprint {
        index_bytes: Packed::bytes(u64::from(vocab) * columns as u64, k) + rotation,
        train_bytes: 4 * full,
        ..Footprint::floats(k * (columns * width) as u64)
    };
    let k = rows_within(scheme, t, limit, footprint)?;
    let (recipe, footprint) = (Recipe { k, ..recipe }, footprint(k.into()));
    let larger = (u64::from(k) + 1) * (columns * width) as u64;
    Ok(Plan {
        out_dim: dim,
        footprint,
        larger,
        sizes: format!("{columns} codebooks of {k} rows x {width}, after training"),
        build: Box::new(move |cx| {
            if let Origin::Saved(_) = cx.origin {
                let values = || vec![0.0; k as usize * width];
                let book = |j| Param::rows(format!("codebook{j}"), width, values());
                let books = (0..columns).map(book).collect();
                let codes = Packed::zeros(u64::from(vocab) * columns as u64, k.into());
                let back = (rotation > 0).then(|| vec![0.0; dim * dim]);
                let (ids, summed, error) = (vocab.into(), width == dim, Error::default());
                return Box::new(Coded {
                    ids,
                    books,
                    codes,
                    summed,
                    back,
                    error,
                    finetune,
                    footprint,
                });
            }
            let values = cx.init.table(vocab.into(), dim, dim, &mut cx.rng);
            let table = Param::rows("table", dim, values);
            Box::new(Training { table, recipe, finetune, footprint })
        }),
    })
}

/// The full table, while it trains.
struct Training {
    table: Param,
    recipe: Recipe,
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
        let Self { recipe, finetune, footprint, .. } = *self;
        let (dim, table) = (self.table.width(), self.table.value());
        let fitting = Fitting { weights: None, cancel: &cx.cancel, rng: cx.rng.clone() };
        let books = Books::fit(table, dim, recipe, &fitting);
        let (n, columns, width) = (table.len() / dim, recipe.books, books.width());
        let mut codes = Packed::zeros((n * columns) as u64, recipe.k.into());
        let mut error = Error::default();
        for (part, rows) in table.chunks(BETWEEN_LOOKS * dim).enumerate() {
            if cx.cancel.is_set() {
                break;
            }
            let mut some = vec![0; rows.len() / dim * columns];
            books.encode(rows, &mut some);
            let first = part * BETWEEN_LOOKS * columns;
            (first..).zip(&some).for_each(|(at, &code)| codes.set(at, code));
            let mut decoded = vec![0.0; rows.len()];
            books.decode(&some, &mut decoded);
            error.add_rows(rows, &decoded);
        }
        let book = |(j, mut rows): (usize, Vec<f32>)| {
            rows.resize(recipe.k as usize * width, 0.0);
            Param::rows(format!("codebook{j}"), width, rows)
        };
        let (ids, summed) = (n as u64, width == dim);
        let back = books.back();
        let books = books.books.into_iter().enumerate().map(book).collect();
        Some(Box::new(Coded { ids, books, codes, summed, back, error, finetune, footprint }))
    }
}

/// Codebooks and codes.
struct Coded {
    /// Number of ids.
    ids: u64,
    books: Vec<Param>,
    codes: Packed,
    /// True where rows of codebooks are summed; else they lie side by side.
    summed: bool,
    /// What then turns them back [dim × dim].
    back: Option<Vec<f32>>,
    error: Error,
    finetune: u32,
    footprint: Footprint,
}

impl Coded {
    fn piece(&self, j: usize) -> Piece {
        let width = self.books[0].width();
        if self.summed { Piece::whole(width) } else { Piece::column(j, self.books.len(), width) }
    }

    /// Sums or puts side by side what codes stand for.
    fn join(&self, ids: &[u32], out: &mut [f32], rows: &mut [Vec<u32>]) {
        let code = |id: u32, j: usize| self.codes.get(id as usize * self.books.len() + j);
        for (j, (book, rows)) in self.books.iter().zip(rows).enumerate() {
            rows.clear();
            rows.extend(ids.iter().map(|&id| code(id, j)));
            match self.summed && j > 0 {
                true => book.gather(rows, out, self.piece(j), |_, row, sum| sum + row),
                false => book.gather(rows, out, self.piece(j), |_, row, _| row),
            }
        }
    }
}

impl Embedding for Coded {
    fn gather(&self, ids: &[u32], out: &mut [f32], tape: &mut Tape) {
        tape.rows(self.books.len());
        let Some(back) = &self.back else { return self.join(ids, out, &mut tape.rows) };
        tape.buffers.resize(1, Vec::new());
        let (dim, buffer) = (out.len() / ids.len().max(1), &mut tape.buffers[0]);
        buffer.resize(out.len(), 0.0);
        self.join(ids, buffer, &mut tape.rows);
        gemm(ids.len(), dim, dim, buffer, Op::N, back, Op::N, 0.0, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let Tape { buffers, rows } = tape;
        let grad = match &self.back {
            Some(back) => {
                let (n, dim) = (ids.len(), grad.len() / ids.len().max(1));
                gemm(n, dim, dim, grad, Op::N, back, Op::T, 0.0, &mut buffers[0]);
                &buffers[0][..]
            }
            None => grad,
        };
        for (j, rows) in rows.iter().enumerate().take(self.books.len()) {
            let piece = self.piece(j);
            self.books[j].scatter(rows, grad, piece, |_, grad| grad);
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let columns = self.books.len();
        let codes = g.unpack(ids, "codes", &self.codes, (self.ids * columns as u64, columns));
        let column = |(j, book): (usize, &'a Param)| {
            let code = g.op(device::Op::Column { x: codes, at: j as u32 });
            g.gather(code, book, book.width())
        };
        let columns: Vec<Node> = self.books.iter().enumerate().map(column).collect();
        let rows = if self.summed { g.sum(columns) } else { g.concat(columns) };
        self.back.as_ref().map_or(rows, |back| g.transform(rows, "rotation", back))
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.books.iter_mut().for_each(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.books.iter_mut().for_each(|book| book.state(visit));
        visit("codes", self.codes.tensor());
        let dim = self.books.len() * self.books[0].width();
        if let Some(back) = &mut self.back {
            visit("rotation", TensorMut::rows(back, dim));
        }
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
    use super::super::{Knobs, find};
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn finishing_approximates_the_table_and_more_centroids_do_better() {
        let table = TableSpec { name: "t".into(), vocab: 500, dim: 8, counts: [].into() };
        for (name, of_id, most) in [("pq", 8, 0.05), ("opq", 8, 0.05), ("rq", 32, 0.05)] {
            let error = |k: u64| {
                let scheme = find(name).unwrap();
                let plan = scheme.plan_table(&table, Limit::Params(k * of_id), &Knobs::new());
                let plan = plan.unwrap();
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
                let lost = before.iter().zip(&after).map(square).sum::<f32>();
                let error = lost / before.iter().map(|x| x * x).sum::<f32>();
                let said = finished.figures()[0].1;
                assert!((f64::from(error) - said).abs() < 1e-6, "{name}: {error} {said}");
                error
            };
            let (few, many) = (error(4), error(64));
            assert!(many < most && many < few && few < 0.5, "{name}: {many} {few}");
            let all = error(500);
            assert!(all < 1e-10, "{name}: a centroid an id loses nothing: {all}");
        }
    }
}
