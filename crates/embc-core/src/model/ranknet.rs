//! RankNet: a score of a history and an item, trained on pairs of items with
//! −ln σ(score(a) − score(b)) (Burges et al. 2005; the pairwise network of MEmCom, arXiv
//! 2203.10135).
//!
//! Both items of a pair go through one tower, one half of the batch after the other. In training
//! the logit is the difference of the two scores, whose label is 1; in evaluation it is the first
//! item's score.

use super::*;
use crate::nn::{BODY_KNOBS, Body, BodyKnobs, Linear};

pub(super) struct RankNet;

impl ModelKind for RankNet {
    fn name(&self) -> &'static str {
        "ranknet"
    }
    fn doc(&self) -> ModelDoc {
        ModelDoc {
            short: "a pair of items through one tower with the pooled history; pairwise logistic loss",
            paper: "Burges et al. 2005; the RankNet of MEmCom, arXiv 2203.10135",
            needs: "users and items",
            knobs: &BODY_KNOBS,
        }
    }
    fn defaults(&self) -> Knobs {
        crate::scheme::defaults::<BodyKnobs>()
    }
    fn metrics(&self) -> &'static [&'static str] {
        RANKING
    }
    fn examples(&self, _: &Knobs) -> Result<Examples, String> {
        Ok(Examples::Pairs)
    }
    fn inputs(&self, shape: &Shape) -> Result<Vec<Input>, String> {
        // One table for the history and both items.
        Ok((0..shape.fields.len()).map(|field| Input { field, table: 0, width: None }).collect())
    }
    fn build(
        &self,
        _: &Shape,
        widths: &[usize],
        knobs: &Knobs,
        rng: &mut Rng,
    ) -> Result<Box<dyn Model>, String> {
        let width = widths[0];
        let body = Body::new(3 * width, &BodyKnobs::read(knobs)?, rng);
        let output = Linear::new("output", body.width(), 1, rng);
        let buffer = Vec::new;
        Ok(Box::new(Network {
            width,
            body,
            output,
            joined: buffer(),
            djoined: buffer(),
            dbody: buffer(),
            scores: buffer(),
        }))
    }
}

struct Network {
    width: usize,
    body: Body,
    output: Linear,
    /// History, item, and their product [2B × 3D], and the gradient.
    joined: Vec<f32>,
    djoined: Vec<f32>,
    /// Gradient of the body's output [2B × width].
    dbody: Vec<f32>,
    /// Scores of both halves [2B], or their gradient.
    scores: Vec<f32>,
}

impl Model for Network {
    fn forward(&mut self, x: &Features<'_>, mode: Mode, out: &mut [f32]) {
        let (width, halves) = (self.width, if mode == Mode::Train { 2 } else { 1 });
        let batch = halves * x.batch;
        self.joined.resize(batch * 3 * width, 0.0);
        self.scores.resize(batch, 0.0);
        let [history, items @ ..] = x.rows else { unreachable!("three inputs") };
        let halves = self.joined.chunks_exact_mut(x.batch * 3 * width).zip(items);
        for (joined, items) in halves {
            let rows = history.chunks_exact(width).zip(items.chunks_exact(width));
            for (joined, (history, item)) in joined.chunks_exact_mut(3 * width).zip(rows) {
                joined[..width].copy_from_slice(history);
                joined[width..2 * width].copy_from_slice(item);
                for ((joined, h), i) in joined[2 * width..].iter_mut().zip(history).zip(item) {
                    *joined = h * i;
                }
            }
        }
        self.body.forward(batch, &self.joined, mode, x.key);
        self.output.forward(batch, self.body.output(), &mut self.scores, false);
        let (scores, others) = self.scores.split_at(x.batch);
        out.copy_from_slice(scores);
        out.iter_mut().zip(others).for_each(|(out, other)| *out -= other);
    }
    fn graph<'a>(&'a self, g: &mut Graph<'a>) -> Node {
        let (history, item) = (g.pooled(0), g.pooled(1));
        let product = g.mul(history, item);
        let x = g.concat(vec![history, item, product]);
        let x = self.body.graph(g, x);
        self.output.graph(g, x, false)
    }
    fn backward(&mut self, x: &Features<'_>, dout: &[f32], drows: &mut [Vec<f32>]) {
        let Self { width, body, output, joined, djoined, dbody, scores } = self;
        let (width, batch) = (*width, 2 * x.batch);
        for (score, sign) in scores.chunks_exact_mut(x.batch).zip([1.0, -1.0]) {
            score.iter_mut().zip(dout).for_each(|(score, d)| *score = sign * d);
        }
        dbody.resize(batch * body.width(), 0.0);
        djoined.resize(joined.len(), 0.0);
        output.backward(batch, body.output(), scores, Some(dbody), false);
        body.backward(batch, joined, dbody, x.key, djoined);
        let [history, items @ ..] = x.rows else { unreachable!("three inputs") };
        let [dhistory, ditems @ ..] = drows else { unreachable!("three inputs") };
        dhistory.fill(0.0);
        let halves = djoined.chunks_exact(x.batch * 3 * width).zip(items).zip(ditems);
        for ((djoined, items), ditems) in halves {
            for (i, d) in djoined.chunks_exact(3 * width).enumerate() {
                let at = i * width..(i + 1) * width;
                let (dh, rest) = d.split_at(width);
                let (di, dproduct) = rest.split_at(width);
                let (h, item) = (&history[at.clone()], &items[at.clone()]);
                let (dhistory, ditem) = (&mut dhistory[at.clone()], &mut ditems[at]);
                for j in 0..width {
                    dhistory[j] += dh[j] + dproduct[j] * item[j];
                    ditem[j] = di[j] + dproduct[j] * h[j];
                }
            }
        }
    }
    fn params(&mut self, visit: &mut dyn FnMut(&mut Param)) {
        self.body.params(visit);
        self.output.params(visit);
    }
    fn state(&mut self, visit: State<'_>) {
        self.params(&mut |param| param.state(visit));
        self.body.statistics(visit);
    }
}
