//! Steps of rows that are codes: a row is read, moved and rounded by chance; nothing wider is kept.
//!
//! Of Adam there is no first moment, and one second moment a row: the mean of its squared gradient, as
//! a bfloat16 that is rounded by chance, with the step that it is of, in sixteens, in one word. So a
//! table of 16 columns in 8 bits takes an eighth of what it takes in fp32 with Adam's moments. Weight
//! decay reaches a row when it next moves, and with `sgd`, which keeps no time, only rows that move.

use super::{Kind, Optim, Step, Touch};
use crate::hash::mix64;
use crate::linalg::{axpy, dot};
use crate::param::Low;

/// Steps that a noted time is rounded to.
const AGES: u64 = 16;

/// One step of `rows`, of which `grads` are the gradients [rows × width].
pub(super) fn step(
    step: &Step,
    width: usize,
    low: &mut Low,
    steps: u64,
    (rows, grads): (&[u32], &[f32]),
) {
    let o = &step.optim;
    let decoupled = o.kind == Kind::AdamW;
    let mut scratch = std::mem::take(&mut low.scratch);
    scratch.resize(2 * width, 0.0);
    let (value, grad) = scratch.split_at_mut(width);
    for (&row, of_row) in rows.iter().zip(grads.chunks_exact(width)) {
        let first = row as usize * width;
        let chance = mix64(low.seed ^ steps.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(row));
        value.iter_mut().zip(low.codes.read(first, width)).for_each(|(to, x)| *to = x);
        grad.copy_from_slice(of_row);
        // Rows begin their sixteens at steps of their own.
        let now = (steps + mix64(low.seed ^ u64::from(row)) % AGES) / AGES;
        if decoupled {
            // For the steps since it last moved, where every step reaches all rows.
            let since = low.state.get(row as usize).map_or(1, |&word| match o.touch {
                Touch::All => age(word, now),
                Touch::Touched => 1,
            });
            let keep = (1.0 - o.lr * o.weight_decay).powi(since as i32);
            value.iter_mut().for_each(|x| *x *= keep);
        } else if o.weight_decay > 0.0 {
            axpy(o.weight_decay, value, grad);
        }
        let square = dot(grad, grad) / width as f32;
        let rate = match low.state.get_mut(row as usize) {
            Some(word) => rate(o, word, square, (steps, now), chance),
            None => o.lr,
        };
        axpy(-rate, grad, value);
        low.codes.write_by_chance(first, value, mix64(chance));
    }
    low.scratch = scratch;
}

/// Steps since the time that a row's word holds.
fn age(word: u32, now: u64) -> u64 {
    AGES * (now.wrapping_sub(u64::from(word)) & 0xffff)
}

/// What a row's gradient is multiplied by; `word` is its state, `square` its mean square, `now` the
/// row's time.
fn rate(o: &Optim, word: &mut u32, square: f32, (steps, now): (u64, u64), chance: u64) -> f32 {
    let before = f32::from_bits(*word & 0xffff_0000);
    let (seen, rate) = match o.kind {
        Kind::Adagrad | Kind::RowAdagrad => {
            let seen = before + square;
            (seen, o.lr / (seen.sqrt() + o.eps))
        }
        _ if o.touch == Touch::Touched => {
            // A row's time is that of its own steps, whose first stands for those before it.
            let keep = if before > 0.0 { o.beta2 } else { 0.0 };
            let seen = keep * before + (1.0 - keep) * square;
            (seen, o.lr / (seen.sqrt() + o.eps))
        }
        _ => {
            let keep = f64::from(o.beta2).powi(age(*word, now) as i32) as f32;
            let seen = keep * before + (1.0 - o.beta2) * square;
            let known = 1.0 - f64::from(o.beta2).powi(steps.min(1 << 20) as i32);
            (seen, o.lr / ((f64::from(seen) / known).sqrt() as f32 + o.eps))
        }
    };
    // By chance up, in the mean right: what a bfloat16 cuts off would add up.
    let bits = seen.to_bits().wrapping_add((chance >> 48) as u32) & 0xffff_0000;
    *word = bits | (now & 0xffff) as u32;
    rate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::param::Param;
    use crate::quantize::Storage;
    use crate::rng::Rng;

    #[test]
    fn a_word_a_row_knows_what_adam_knows_of_its_row() {
        let o = Optim::new(Kind::Adam, 1.0, Touch::All);
        let mut rng = Rng::stream(5, "rows");
        // From rows of every step to rows of every thousandth.
        for (row, every) in [1u64, 3, 40, 300, 1000].into_iter().enumerate() {
            let (mut word, mut exact, mut last) = (0, 0f64, 0);
            let (mut ratio, mut times) = (0.0, 0);
            for steps in (1..60_000).filter(|steps| steps % every == 0) {
                let square = (0.2 + rng.unit()) as f32;
                let keep = f64::from(o.beta2).powi((steps - last) as i32);
                exact = keep * exact + (1.0 - f64::from(o.beta2)) * f64::from(square);
                last = steps;
                let known = 1.0 - f64::from(o.beta2).powi(steps as i32);
                let now = (steps + row as u64) / AGES;
                let chance = rng.bits();
                let ours = rate(&o, &mut word, square, (steps, now), chance);
                let ours = f64::from(ours) * (exact / known).sqrt();
                assert!((ours - 1.0).abs() < 0.1, "every {every}, step {steps}: {ours}");
                ratio += ours;
                times += 1;
            }
            let mean = ratio / f64::from(times);
            assert!((mean - 1.0).abs() < 0.01, "every {every}: {mean}");
        }
    }

    /// Rows that all get the same gradients, against one in fp32: their mean is off by no more than five
    /// of its deviations, a walk of 300 steps that are rounded by chance.
    #[track_caller]
    fn check(kind: Kind, bits: Storage, tolerance: f32) {
        let (rows, width, optim) = (400, 16, Optim::new(kind, 0.01, Touch::Touched));
        let mut rng = Rng::stream(3, "low");
        let start: Vec<f32> = (0..width).map(|_| rng.symmetric(0.5)).collect();
        let mut low = Param::coded("t", width, rows, bits, 7, &mut |n| start.repeat(n));
        let mut wide = Param::rows("t", width, start.clone());
        optim.attach(&mut low);
        optim.attach(&mut wide);
        for _ in 0..300 {
            let grad: Vec<f32> = (0..width).map(|_| rng.symmetric(0.3) + 0.15).collect();
            (0..rows as u32).for_each(|row| low.add(row, &grad));
            wide.add(0, &grad);
            optim.step(&mut low);
            optim.step(&mut wide);
        }
        let ids: Vec<u32> = (0..rows as u32).collect();
        let mut values = vec![0.0; rows * width];
        low.copy_rows(&ids, &mut values);
        for (i, wide) in wide.value().iter().enumerate() {
            let mean = values.iter().skip(i).step_by(width).sum::<f32>() / rows as f32;
            assert!((mean - wide).abs() < tolerance, "{kind:?} {bits:?} {i}: {mean} {wide}");
            assert!((wide - start[i]).abs() > 2.0 * tolerance, "it moved");
        }
    }

    #[test]
    fn rows_of_codes_move_in_the_mean_as_rows_of_floats_do() {
        check(Kind::Sgd, Storage::Int8, 0.012);
        check(Kind::Sgd, Storage::Int4, 0.05);
        check(Kind::RowAdagrad, Storage::Int8, 0.02);
    }
}
