//! Clusterings replace what they should, and nothing else.

use super::*;
use std::collections::BTreeMap;

fn build(knobs: &str, vocab: u32, rows: u64) -> Box<dyn Embedding> {
    let table =
        TableSpec { name: "t".into(), vocab, dim: 8, counts: vec![1; vocab as usize].into() };
    let knobs = serde_json::from_str(knobs).unwrap();
    let plan = Cce.plan_table(&table, Limit::Params(rows * 8), &knobs).unwrap();
    (plan.build)(&mut BuildCx::new(Rng::stream(1, "cce")))
}

fn rows(embedding: &dyn Embedding, vocab: u32) -> Vec<f32> {
    let mut out = vec![0.0; vocab as usize * 8];
    embedding.gather(&(0..vocab).collect::<Vec<_>>(), &mut out, &mut Tape::default());
    out
}

fn after(of: &mut dyn Embedding, step: u64, cancel: &Cancel) -> ControlFlow<()> {
    let at = Clock { step, epoch: 0, steps_per_epoch: 10 };
    of.after_step(at, cancel, Rng::stream(2, "step"))
}

/// Rows before and after the first clustering.
fn clustered(knobs: &str, vocab: u32, size: u64) -> (Vec<f32>, Vec<f32>) {
    let mut embedding = build(knobs, vocab, size);
    let before = rows(&*embedding, vocab);
    let cancelled = Cancel::default();
    cancelled.set();
    assert!(after(&mut *embedding, 10, &Cancel::default()).is_continue());
    assert!(after(&mut *embedding, 11, &cancelled).is_break());
    assert_eq!(rows(&*embedding, vocab), before, "before validation, and when cut off");
    assert!(after(&mut *embedding, 11, &Cancel::default()).is_continue());
    (before, rows(&*embedding, vocab))
}

fn error(a: &[f32], b: &[f32]) -> f32 {
    let squares: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    squares / a.iter().map(|x| x * x).sum::<f32>()
}

#[test]
fn clustering_keeps_what_fits_and_approximates_what_does_not() {
    // 64 rows, 64 helper rows; 40 ids fit into 64 centroids, 2,000 do not.
    let (before, after) = clustered("{}", 40, 128);
    assert!(error(&before, &after) < 1e-9, "a centroid an id loses nothing");
    let (before, after) = clustered("{}", 2000, 128);
    let zero = error(&before, &after);
    assert!((0.001..0.4).contains(&zero), "{zero}");
    let (before, after) = clustered(r#"{"helper": "residual"}"#, 2000, 128);
    assert!(error(&before, &after) < zero, "residuals keep more");
    let (_, more) = clustered(r#"{"start": "plusplus", "weighting": "frequency"}"#, 2000, 128);
    assert!(more.iter().all(|x| x.is_finite()));
}

#[test]
fn entropies_of_pointers() {
    let mut embedding = build(r#"{"columns": 2}"#, 2000, 128);
    assert_eq!(embedding.figures()[..1], [("clusterings", 0.0)]);
    assert!(after(&mut *embedding, 11, &Cancel::default()).is_continue());
    let figures: BTreeMap<_, _> = embedding.figures().into_iter().collect();
    // Random pieces fall into clusters of similar size; pairs of columns are independent.
    assert!((0.9..1.0).contains(&figures["entropy"]), "{figures:?}");
    assert!((0.9..1.0).contains(&figures["pair_entropy"]), "{figures:?}");
    // All ids in one cluster of each column: collapsed.
    embedding.state(&mut |name, mut tensor| {
        if let ("pointers", TensorMut::U64(bits)) = (name, &mut tensor) {
            bits.fill(0);
        }
    });
    let figures: BTreeMap<_, _> = embedding.figures().into_iter().collect();
    assert_eq!((figures["entropy"], figures["pair_entropy"]), (0.0, 0.0));
}
