//! A trained full table that becomes codes: what pq, opq and rq share.

use super::trained::{self, Smaller, Table, Trained};
use super::*;
use crate::allocate::Choice;
use crate::books::{Books, Fitting, Kind, Recipe};
use crate::codebook::Error;
use crate::gather::Piece;
use crate::linalg::{Op as Side, gemm};
use crate::packed::Packed;
use crate::state::TensorMut;

/// What the knob of that name is.
pub(super) const FINETUNE: &str = "epochs to train codebooks and model on, codes fixed, while the learning rate falls to 0 (default 0)";

/// Ids that are encoded between two looks at a wish to stop.
const BETWEEN_LOOKS: usize = 1 << 17;

/// Ids that are decoded at a time.
const BLOCK: usize = 1 << 12;

/// Rows of a codebook from which on they are not chosen: fitting them takes longer than training.
const MOST: u32 = 1 << 12;

/// The plan of a table that is `recipe` after training, then trained for `finetune` epochs.
pub(super) fn plan(
    scheme: &'static str,
    t: &TableSpec,
    limit: Limit,
    recipe: Recipe,
    finetune: u32,
) -> Result<Plan, PlanError> {
    let (columns, full) = (recipe.books, t.full_params());
    let coding = Coding { recipe, finetune };
    let of = |k: u64| Footprint {
        train_bytes: 4 * full,
        ..coding.of(k as u32).footprint(t.vocab, t.dim)
    };
    let k = rows_within(scheme, t, limit, of)?;
    let (coding, width) = (coding.of(k), width(t.dim, recipe));
    let (t, footprint) = (t.clone(), of(k.into()));
    Ok(Plan {
        out_dim: t.dim,
        footprint,
        larger: (u64::from(k) + 1) * (columns * width) as u64,
        sizes: sizes(columns, k, width),
        build: Box::new(move |cx| {
            if let Some(simple) = trained::saved(&t, cx) {
                return simple;
            }
            match cx.origin {
                Origin::Saved(saved) => {
                    let k = trained::length(saved, "codebook0").map(|n| (n / width) as u32);
                    // What is not of such a table is refused by its shapes.
                    let k = k.filter(|&k| k > 0 && k <= t.vocab.max(coding.recipe.k));
                    Box::new(Coded::empty(t.vocab, t.dim, coding.of(k.unwrap_or(coding.recipe.k))))
                }
                _ => Box::new(Trained::start(&t, coding, footprint, cx)),
            }
        }),
    })
}

fn sizes(columns: usize, k: u32, width: usize) -> String {
    format!("{columns} codebooks of {k} rows x {width}, after training")
}

/// Columns of a codebook.
fn width(dim: usize, recipe: Recipe) -> usize {
    match recipe.kind {
        Kind::Residual { .. } => dim,
        _ => dim / recipe.books,
    }
}

/// What a table becomes.
#[derive(Clone, Copy)]
struct Coding {
    recipe: Recipe,
    finetune: u32,
}

impl Coding {
    /// With codebooks of `k` rows.
    fn of(self, k: u32) -> Self {
        Self { recipe: Recipe { k, ..self.recipe }, ..self }
    }

    /// What it takes for `vocab` ids.
    fn footprint(self, vocab: u32, dim: usize) -> Footprint {
        let Recipe { books, k, kind, .. } = self.recipe;
        let rotation = match kind {
            Kind::Rotated { .. } => 4 * (dim * dim) as u64,
            _ => 0,
        };
        let values = u64::from(k) * (books * width(dim, self.recipe)) as u64;
        Footprint {
            index_bytes: Packed::bytes(u64::from(vocab) * books as u64, k.into()) + rotation,
            ..Footprint::floats(values)
        }
    }

    /// Codebooks and codes of a table.
    fn fit(self, table: &Table<'_>, cx: &BuildCx<'_>) -> Coded {
        let &Table { rows: all, dim, .. } = table;
        let fitting = Fitting { weights: None, cancel: &cx.cancel, rng: cx.rng.clone() };
        let books = Books::fit(all, dim, self.recipe, &fitting);
        let columns = self.recipe.books;
        let mut coded = Coded::empty((all.len() / dim) as u32, dim, self);
        for (part, rows) in all.chunks(BETWEEN_LOOKS * dim).enumerate() {
            if cx.cancel.is_set() {
                break;
            }
            let mut some = vec![0; rows.len() / dim * columns];
            books.encode(rows, &mut some);
            let first = part * BETWEEN_LOOKS * columns;
            (first..).zip(&some).for_each(|(at, &code)| coded.codes.set(at, code));
            let mut decoded = vec![0.0; rows.len()];
            books.decode(&some, &mut decoded);
            coded.error.add_rows(rows, &decoded);
        }
        coded.back = books.back();
        for (to, from) in coded.books.iter_mut().zip(&books.books) {
            to.value_mut()[..from.len()].copy_from_slice(from);
        }
        coded
    }
}

impl Smaller for Coding {
    /// Rows of a codebook.
    type Form = u32;

    fn forms(&self, table: &Table<'_>, stored: Precision, cx: &BuildCx<'_>) -> Vec<(u32, Choice)> {
        let (weights, dim) = (table.weights(self.weight()), table.dim);
        let form = |k: u32| {
            let coded = self.of(k).fit(table, cx);
            let (mut loss, mut tape) = (0.0, Tape::default());
            let ids: Vec<u32> = (0..weights.len() as u32).collect();
            let mut near = Vec::new();
            for (ids, rows) in ids.chunks(BLOCK).zip(table.rows.chunks(BLOCK * dim)) {
                near.resize(rows.len(), 0.0);
                coded.gather(ids, &mut near, &mut tape);
                let square = |(x, y): (&f32, &f32)| f64::from(x - y).powi(2);
                let rows = rows.chunks_exact(dim).zip(near.chunks_exact(dim)).zip(ids);
                let lost = rows.map(|((row, near), &id)| {
                    let lost: f64 = row.iter().zip(near).map(square).sum();
                    f64::from(weights[id as usize]) * lost
                });
                loss += lost.sum::<f64>();
            }
            (k, Choice { bytes: coded.footprint().stored(stored).bytes(), loss })
        };
        let (vocab, as_is) = (weights.len() as u32, Footprint::floats(table.rows.len() as u64));
        // What is no smaller than the rows themselves is not worth the time.
        let worth = |k: u32| {
            let bytes = self.of(k).footprint(vocab, dim).stored(stored).bytes();
            bytes < as_is.stored(stored).bytes() && k <= MOST && !cx.cancel.is_set()
        };
        // Codes of whole bits, and what the table could have if it were alone.
        let ks = (1..=MOST.ilog2()).map(|bits| 1 << bits).take_while(|&k| k < self.recipe.k);
        ks.chain([self.recipe.k]).filter(|&k| worth(k)).map(form).collect()
    }

    fn become_small(
        &self,
        table: &Table<'_>,
        k: Option<&u32>,
        cx: &mut BuildCx<'_>,
    ) -> Box<dyn Embedding> {
        Box::new(self.of(k.copied().unwrap_or(self.recipe.k)).fit(table, cx))
    }
}

/// Codebooks and codes.
struct Coded {
    /// Number of ids.
    ids: u32,
    coding: Coding,
    books: Vec<Param>,
    codes: Packed,
    /// What then turns them back [dim × dim].
    back: Option<Vec<f32>>,
    error: Error,
}

impl Coded {
    /// Zeros.
    fn empty(ids: u32, dim: usize, coding: Coding) -> Self {
        let Recipe { books, k, kind, .. } = coding.recipe;
        let width = width(dim, coding.recipe);
        let book = |j| Param::rows(format!("codebook{j}"), width, vec![0.0; k as usize * width]);
        let codes = Packed::zeros(u64::from(ids) * books as u64, k.into());
        let back = matches!(kind, Kind::Rotated { .. }).then(|| vec![0.0; dim * dim]);
        let (books, error) = ((0..books).map(book).collect(), Error::default());
        Self { ids, coding, books, codes, back, error }
    }

    /// True where rows of codebooks are summed; else they lie side by side.
    fn summed(&self) -> bool {
        matches!(self.coding.recipe.kind, Kind::Residual { .. })
    }

    fn dim(&self) -> usize {
        let side_by_side = if self.summed() { 1 } else { self.books.len() };
        side_by_side * self.books[0].width()
    }

    fn piece(&self, j: usize) -> Piece {
        let width = self.books[0].width();
        if self.summed() { Piece::whole(width) } else { Piece::column(j, self.books.len(), width) }
    }

    /// Sums or puts side by side what codes stand for.
    fn join(&self, ids: &[u32], out: &mut [f32], rows: &mut [Vec<u32>]) {
        let code = |id: u32, j: usize| self.codes.get(id as usize * self.books.len() + j);
        for (j, (book, rows)) in self.books.iter().zip(rows).enumerate() {
            rows.clear();
            rows.extend(ids.iter().map(|&id| code(id, j)));
            match self.summed() && j > 0 {
                true => book.gather(rows, out, self.piece(j), |_| |row, sum| sum + row),
                false => book.gather(rows, out, self.piece(j), |_| |row, _| row),
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
        gemm(ids.len(), dim, dim, buffer, Side::N, back, Side::N, 0.0, out);
    }
    fn scatter(&mut self, ids: &[u32], grad: &[f32], tape: &mut Tape) {
        let Tape { buffers, rows, .. } = tape;
        let grad = match &self.back {
            Some(back) => {
                let (n, dim) = (ids.len(), grad.len() / ids.len().max(1));
                gemm(n, dim, dim, grad, Side::N, back, Side::T, 0.0, &mut buffers[0]);
                &buffers[0][..]
            }
            None => grad,
        };
        for (j, rows) in rows.iter().enumerate().take(self.books.len()) {
            let piece = self.piece(j);
            self.books[j].scatter(rows, grad, piece, |_| |grad| grad);
        }
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>, ids: Node) -> Node {
        let columns = self.books.len();
        let codes =
            g.unpack(ids, "codes", &self.codes, (u64::from(self.ids) * columns as u64, columns));
        let column = |(j, book): (usize, &'a Param)| {
            let code = g.op(Op::Column { x: codes, at: j as u32 });
            g.gather(code, book, book.width())
        };
        let columns: Vec<Node> = self.books.iter().enumerate().map(column).collect();
        let rows = if self.summed() { g.sum(columns) } else { g.concat(columns) };
        self.back.as_ref().map_or(rows, |back| g.transform(rows, "rotation", back))
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.books.iter_mut().for_each(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.books.iter_mut().for_each(|book| book.state(visit));
        visit("codes", self.codes.tensor());
        let dim = self.dim();
        if let Some(back) = &mut self.back {
            visit("rotation", TensorMut::rows(back, dim));
        }
        self.error.state(visit);
    }
    fn finetune(&self) -> u32 {
        self.coding.finetune
    }
    fn sizes(&self) -> Option<String> {
        let (columns, width, k) = (self.books.len(), self.books[0].width(), self.coding.recipe.k);
        Some(sizes(columns, k, width))
    }
    fn figures(&self) -> Vec<(&'static str, f64)> {
        vec![self.error.figure()]
    }
    fn footprint(&self) -> Footprint {
        self.coding.footprint(self.ids, self.dim())
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
