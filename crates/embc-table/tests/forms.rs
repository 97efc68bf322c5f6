//! Laws of all methods: what is planned is what is packed, to the byte; more bytes lose less; the same
//! bits on any number of threads; odd tables are taken or refused.

use embc_core::cancel::Cancel;
use embc_core::rng::Rng;
use embc_table::choose::{Answer, Asked, choose, methods};
use embc_table::form::{METHODS, plans};
use embc_table::table::{Held, Parts, Rows, Table};
use std::sync::Arc;

/// Rows around some centres, the first ones longer: as words are.
fn table(n: usize, dim: usize) -> Table {
    let mut rng = Rng::stream(1, "rows");
    let centres: Vec<f32> = (0..40 * dim).map(|_| rng.normal() as f32).collect();
    let value = |at: usize| {
        let centre = centres[at / dim % 40 * dim + at % dim];
        centre + 0.5 * rng.normal() as f32
    };
    let values = (0..n * dim).map(value).collect();
    Table::new([n, dim], "f32", 0, Arc::new(Held { dim, values }))
}

fn asked<'a>(budgets: &[u64], names: &[&str], cancel: &'a Cancel) -> Asked<'a> {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let (methods, beside) = (methods(&names).unwrap(), Vec::new());
    Asked { budgets: budgets.to_vec(), methods, tasks: &[], beside, seed: 1, cancel }
}

fn run(table: &Table, budgets: &[u64], names: &[&str]) -> Answer {
    let (cancel, scratch) = (Cancel::default(), tempfile::tempdir().unwrap());
    let asked = asked(budgets, names, &cancel);
    choose(table, &asked, scratch.path(), &mut |_, _, _| ()).unwrap()
}

/// `choose` itself compares the bytes of each file with its plan's.
#[test]
fn every_method_is_tried_and_more_bytes_lose_less() {
    let mut table = table(4000, 24);
    table.parts = Some(Parts {
        vectors: (0..100 * 24).map(|i| (i % 251) as u8 as i8).collect(),
        mapping: (0..4000).map(|i| i % 100).collect(),
        weights: (0..4000).map(|i| 1.0 + (i % 9) as f32).collect(),
    });
    let budgets = [12_000, 48_000, 120_000];
    for method in METHODS {
        let answer = run(&table, &budgets, &[method.name()]);
        let mut last = f64::INFINITY;
        for (budget, best) in budgets.iter().zip(&answer.best) {
            let Some(best) = best else { continue };
            let tried = &answer.tried[*best];
            assert!(tried.bytes <= *budget, "{} {}", tried.method, tried.sizes);
            let error = tried.kept[0].error;
            // What it is chosen by are neighbours.
            assert!(error <= last * 1.02, "{} {}: {error} {last}", tried.method, tried.sizes);
            last = error;
        }
        let tried = answer.tried.iter().find(|tried| tried.method == method.name());
        assert!(tried.is_some(), "{} is never tried", method.name());
        // Not by parts, which are of another table here, and truncation loses what it leaves out.
        if !["as_it_is", "truncate_rare", "clusters"].contains(&method.name()) {
            assert!(last < 0.5, "{}: {last}", method.name());
        }
    }
}

#[test]
fn any_number_of_threads_packs_the_same_bits() {
    let table = table(3000, 16);
    let files = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (cancel, scratch) = (Cancel::default(), tempfile::tempdir().unwrap());
            let answer =
                choose(&table, &asked(&[30_000], &[], &cancel), scratch.path(), &mut |_, _, _| ())
                    .unwrap();
            let bytes = answer.tried.iter().map(|tried| std::fs::read(&tried.path).unwrap());
            let kept = answer.tried.iter().map(|tried| tried.kept[0].neighbours);
            (bytes.collect::<Vec<_>>(), kept.collect::<Vec<_>>(), answer.best)
        })
    };
    let one = files(1);
    assert!(one.0.len() > 8);
    assert_eq!(one, files(2));
    assert_eq!(one, files(7));
}

/// With counts, the rows that are read most are kept best, wherever they lie.
#[test]
fn counts_rank_rows_that_lie_in_no_order() {
    let mut table = table(4000, 8);
    table.counts = (0..4000u32).map(|i| i * 7919 % 4001).collect();
    assert!(!table.is_ranked());
    let (cancel, scratch) = (Cancel::default(), tempfile::tempdir().unwrap());
    let asked = asked(&[40_000], &["truncate_rare", "tiers"], &cancel);
    let answer = choose(&table, &asked, scratch.path(), &mut |_, _, _| ()).unwrap();
    assert!(answer.tried.iter().all(|tried| tried.sizes.ends_with("ranks")));
    let kept = answer.tried.iter().find(|of| of.method == "truncate_rare").unwrap();
    let packed = embc_table::packed::Packed::open(&kept.path).unwrap();
    let (mut theirs, mut ours) = (vec![0.0; 4000 * 8], vec![0.0; 4000 * 8]);
    packed.read(0, &mut theirs).unwrap();
    table.source.read(0, &mut ours).unwrap();
    let mut order: Vec<usize> = (0..4000).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(table.counts[id]));
    for &id in &order[..500] {
        let (a, b) = (&ours[8 * id..][..8], &theirs[8 * id..][..8]);
        let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.6, "row {id}: {a:?} {b:?}");
    }
}

#[test]
fn odd_tables_are_taken() {
    let of = |values: Vec<f32>, dim: usize| {
        Table::new([values.len() / dim, dim], "f32", 0, Arc::new(Held { dim, values }))
    };
    let duplicate: Vec<f32> = (0..600 * 4).map(|at| (at % 4) as f32 + 1.0).collect();
    let mut some_zeros: Vec<f32> = (0..600 * 4).map(|at| (at % 37) as f32).collect();
    some_zeros[..400].fill(0.0);
    for (what, table) in [
        ("one row", of(vec![1.0, 2.0, 3.0], 3)),
        ("one column", of((0..500).map(|x| x as f32).collect(), 1)),
        ("zeros", of(vec![0.0; 600], 6)),
        ("equal rows", of(duplicate, 4)),
        ("some zeros", of(some_zeros, 4)),
        ("fewer rows than centroids", of((0..60).map(|x| (x as f32).sin()).collect(), 6)),
        ("large values", of((0..4000).map(|x| 6e4 * (x as f32).sin()).collect(), 8)),
        ("small values", of((0..4000).map(|x| 2e-4 * (x as f32).sin()).collect(), 8)),
    ] {
        table.check().unwrap();
        let answer = run(&table, &[1 << 10, 1 << 20], &[]);
        let best = &answer.tried[answer.best[1].unwrap()];
        let error = best.kept[0].error;
        assert!(error < 0.02, "{what}: {} {}: {error}", best.method, best.sizes);
        assert!(answer.tried.iter().all(|of| !of.kept[0].neighbours.is_nan()), "{what}");
    }
}

#[test]
fn a_value_that_is_no_number_is_refused_where_it_is() {
    for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0; 60];
        values[21] = wild;
        let mut table = Table::new([20, 3], "f32", 0, Arc::new(Held { dim: 3, values }));
        table.words = vec!["w".into(); 20];
        let error = table.check().unwrap_err().to_string();
        assert!(error.contains("row 7 (w), column 0"), "{error}");
    }
    for far in [1e30, 1e-30] {
        let held = Held { dim: 1, values: vec![far; 3] };
        let table = Table::new([3, 1], "f32", 0, Arc::new(held));
        assert!(table.check().unwrap_err().to_string().contains("scale the table"));
    }
}

#[test]
fn too_small_a_budget_says_what_would_do_and_hash_says_why_not() {
    let table = table(4000, 8);
    let (cancel, scratch) = (Cancel::default(), tempfile::tempdir().unwrap());
    let asked = asked(&[10], &[], &cancel);
    let error = choose(&table, &asked, scratch.path(), &mut |_, _, _| ()).err().unwrap();
    // A row for the most frequent and one for all others: 16 values of 4 bits, and one range.
    let least = "the smallest are truncate_rare with 12 bytes";
    assert!(error.to_string().contains(least), "{error}");
    for unfit in ["hash", "memcom"] {
        let error = methods(&[unfit.to_string()]).err().unwrap().to_string();
        assert!(error.contains("not to fit to a finished table"), "{error}");
    }
    let error = methods(&["rqq".to_string()]).err().unwrap().to_string();
    assert!(error.contains("rq"), "{error}");
}

/// Nothing is planned beyond its budget, whatever the shape.
#[test]
fn plans_stay_within_their_budget() {
    for (rows, dim) in
        [(1, 1), (10, 300), (1000, 7), (100_000, 50), (32_000, 256), (2_000_000, 768)]
    {
        // Nothing is read.
        let table = Table::new([rows, dim], "f32", 0, Arc::new(Held { dim, values: Vec::new() }));
        for budget in [0, 100, 10_000, 1_000_000, 50_000_000, 1 << 32] {
            for method in METHODS {
                for plan in plans(*method, &table, budget) {
                    assert!(plan.bytes <= budget, "{} {}: {budget}", plan.method, plan.sizes);
                }
            }
        }
    }
}

/// A table times a constant loses the same share.
#[test]
fn no_method_depends_on_the_scale() {
    let table = table(3000, 16);
    let mut values = vec![0.0; 3000 * 16];
    table.source.read(0, &mut values).unwrap();
    let values = values.iter().map(|x| x / 1024.0).collect();
    let small = Table::new([3000, 16], "f32", 0, Arc::new(Held { dim: 16, values }));
    let errors = |table: &Table| -> Vec<(String, f64)> {
        let answer = run(table, &[30_000], &[]);
        answer.tried.iter().map(|of| (of.sizes.clone(), of.kept[0].error)).collect()
    };
    for ((sizes, a), (other, b)) in errors(&table).into_iter().zip(errors(&small)) {
        assert_eq!(sizes, other);
        assert!((a - b).abs() < 0.02 * a, "{sizes}: {a} {b}");
    }
}

/// Vectors times weights come back as they are, whatever the weights.
#[test]
fn shared_vectors_stay() {
    let (n, dim, rows) = (7, 4, 2000);
    let vectors: Vec<i8> = (0..n * dim).map(|i| (i * 37 % 256) as u8 as i8).collect();
    let mapping: Vec<u32> = (0..rows).map(|i| (i * i % n) as u32).collect();
    let weights: Vec<f32> = (0..rows).map(|i| [1.0, -1.0, 2.5, -0.125, 0.0][i % 5]).collect();
    let value = |at: usize| {
        let (row, column) = (at / dim, at % dim);
        f32::from(vectors[mapping[row] as usize * dim + column]) * weights[row]
    };
    let values: Vec<f32> = (0..rows * dim).map(value).collect();
    let mut table = Table::new([rows, dim], "int8", 0, Arc::new(Held { dim, values }));
    table.parts = Some(Parts { vectors, mapping, weights });
    let answer = run(&table, &[1 << 20], &["as_it_is"]);
    assert_eq!(answer.tried[0].kept[0].error, 0.0);
}
