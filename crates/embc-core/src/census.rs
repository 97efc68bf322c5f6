//! Who shares what: the collisions of a table as it was built and trained, whatever its scheme.
//!
//! A row is an id's own if no other id has the same bits. Which rows of a parameter an id reads is
//! seen from where its gradient goes, so no scheme has to tell.

use crate::hash::mix64;
use crate::param::{Grad, Param};
use crate::scheme::{Embedding, Tape};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ids gathered at a time.
const BLOCK: usize = 1024;
/// Most pairs of a bucket's ids that are compared, about.
const PAIRS: u64 = 1 << 20;
/// Embeddings closer than this, in Euclidean distance, are taken for equal.
const EQUAL: f32 = 1e-5;

/// How the ids of a table share its memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Census {
    /// Number of ids.
    pub ids: u64,
    /// Ids whose row equals no other's.
    pub unique_ids: u64,
    /// Training lookups of all ids.
    pub lookups: u64,
    /// Training lookups of ids whose row equals no other's.
    pub unique_lookups: u64,
    /// The load of each parameter whose rows are looked up.
    pub loads: Vec<Load>,
    /// Ids that no training row has, so that no gradient ever reached what is theirs alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untrained_ids: Option<u64>,
    /// Pairs of ids that read one row of the wide parameter that most ids share, where each id
    /// reads one: MEmCom's buckets.
    #[serde(default)]
    pub bucket_pairs: u64,
    /// Share of these pairs (of a million of them, where there are more) whose embeddings are
    /// closer than 1e-5.
    #[serde(default)]
    pub bucket_equal: f64,
    /// What the scheme measured of itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// How ids spread over the rows of a parameter [rows × width].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// The parameter's name.
    pub param: String,
    /// Number of rows.
    pub rows: u64,
    /// Floats a row.
    pub width: u64,
    /// Rows that any id reads.
    pub used: u64,
    /// Ids that read a used row, on average.
    pub mean: f64,
    /// Ids that read the busiest row.
    pub max: u64,
    /// Entropy of the load, in bits; log2(rows) where it is even.
    pub entropy: f64,
}

/// Counts the collisions of an embedding of `counts.len()` ids, or of `ids` without counts, whose
/// rows are `width` wide. Gradients must be zero, and are again afterwards.
pub fn census(embedding: &mut dyn Embedding, ids: u32, width: usize, counts: &[u32]) -> Census {
    let mut census = Census { ids: ids.into(), ..Census::default() };
    let mut prints = prints(embedding, ids, width);
    prints.par_sort_unstable();
    for equal in prints.chunk_by(|a, b| a.0 == b.0) {
        let lookups = |id: u32| u64::from(counts.get(id as usize).copied().unwrap_or(0));
        census.lookups += equal.iter().map(|&(_, id)| lookups(id)).sum::<u64>();
        if let [(_, id)] = *equal {
            census.unique_ids += 1;
            census.unique_lookups += lookups(id);
        }
    }
    drop(prints);
    let untrained = || counts.iter().filter(|&&n| n == 0).count() as u64;
    census.untrained_ids = (!counts.is_empty()).then(untrained);
    let (loads, buckets) = loads(embedding, ids, width);
    census.loads = loads;
    if let Some(buckets) = buckets {
        (census.bucket_pairs, census.bucket_equal) = bucket_mates(embedding, &buckets, width);
    }
    census.figures =
        embedding.figures().into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    census
}

/// 64 bits for each id's row, and the id: equal rows have equal prints, and of ten million different
/// ones hardly two.
fn prints(embedding: &dyn Embedding, ids: u32, width: usize) -> Vec<(u64, u32)> {
    let mut prints: Vec<(u64, u32)> = (0..ids).map(|id| (0, id)).collect();
    let scratch = || (Vec::new(), Vec::new(), Tape::default());
    prints.par_chunks_mut(BLOCK).for_each_init(scratch, |(block, rows, tape), prints| {
        block.clear();
        block.extend(prints.iter().map(|&(_, id)| id));
        rows.resize(block.len() * width, 0.0);
        embedding.gather(block, rows, tape);
        let print = |print: u64, x: &f32| mix64(print.wrapping_add(x.to_bits().into()));
        let rows = rows.chunks_exact(width).map(|row| row.iter().fold(1, print));
        prints.iter_mut().zip(rows).for_each(|(of, print)| of.0 = print);
    });
    prints
}

/// Pairs of ids of one bucket, and the share of them that are closer than [`EQUAL`].
fn bucket_mates(embedding: &dyn Embedding, buckets: &[u32], width: usize) -> (u64, f64) {
    let mut order: Vec<u32> = (0..buckets.len() as u32).collect();
    order.sort_by_key(|&id| buckets[id as usize]);
    let same = |a: &u32, b: &u32| buckets[*a as usize] == buckets[*b as usize];
    let pairs_of = |n: usize| n as u64 * (n as u64 - 1) / 2;
    let pairs: u64 = order.chunk_by(same).map(|ids| pairs_of(ids.len())).sum();
    // One of every so many pairs, counted through all buckets.
    let stride = pairs.div_ceil(PAIRS).max(1);
    let place = |n: u64| n * stride + mix64(n) % stride;
    let (mut before, mut seen, mut equal) = (0, 0u64, 0u64);
    let (mut rows, mut tape) = (vec![0.0; 2 * width], Tape::default());
    for ids in order.chunk_by(same) {
        let end = before + pairs_of(ids.len());
        // Pairs of a bucket: (0,1), (0,2), (1,2), (0,3), …
        while place(seen) < end {
            let at = place(seen) - before;
            let mut b = ((1.0 + (1.0 + 8.0 * at as f64).sqrt()) / 2.0) as u64;
            // Roots of large numbers are not exact.
            b = if b * (b - 1) / 2 > at { b - 1 } else { b };
            b = if b * (b + 1) / 2 <= at { b + 1 } else { b };
            let a = at - b * (b - 1) / 2;
            embedding.gather(&[ids[a as usize], ids[b as usize]], &mut rows, &mut tape);
            let (x, y) = rows.split_at(width);
            let distance: f32 = x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum();
            equal += u64::from(distance.sqrt() < EQUAL);
            seen += 1;
        }
        before = end;
    }
    (pairs, equal as f64 / seen.max(1) as f64)
}

/// The load of each parameter, and the row of the most shared wide one that each id reads.
fn loads(embedding: &mut dyn Embedding, ids: u32, width: usize) -> (Vec<Load>, Option<Vec<u32>>) {
    // Gradients that optimizers keep dense would not tell which rows were touched.
    let mut set_aside = Vec::new();
    let mut counts: Vec<Vec<u32>> = Vec::new();
    // The row of each id, while each has read exactly one.
    let mut buckets: Vec<Vec<u32>> = Vec::new();
    embedding.params(&mut |param| {
        if !param.always_dense {
            let rows = param.len() / param.width();
            let sparse = Grad::sparse(rows, param.width());
            set_aside.push(std::mem::replace(&mut param.grad, sparse));
            counts.push(vec![0; rows]);
            buckets.push(if param.width() > 1 { vec![u32::MAX; ids as usize] } else { Vec::new() });
        }
    });
    if counts.is_empty() {
        return (Vec::new(), None);
    }
    let (mut row, mut tape) = (vec![0.0; width], Tape::default());
    let ones = vec![1.0; width];
    for id in 0..ids {
        embedding.gather(&[id], &mut row, &mut tape);
        embedding.scatter(&[id], &ones, &mut tape);
        let mut counts = counts.iter_mut().zip(&mut buckets);
        embedding.params(&mut |param| {
            if !param.always_dense {
                let (counts, buckets) = counts.next().expect("one a sparse parameter");
                let mut reads = 0;
                param.visit_grad(&mut |row, _| {
                    counts[row as usize] += 1;
                    reads += 1;
                    if let Some(bucket) = buckets.get_mut(id as usize) {
                        *bucket = row;
                    }
                });
                if reads != 1 {
                    buckets.clear();
                }
                param.zero_grad();
            }
        });
    }
    let (mut loads, mut counts, mut set_aside) =
        (Vec::new(), counts.into_iter(), set_aside.into_iter());
    embedding.params(&mut |param| {
        if param.always_dense {
            param.zero_grad();
        } else {
            param.grad = set_aside.next().expect("one a sparse parameter");
            loads.push(load(param, &counts.next().expect("one a sparse parameter")));
        }
    });
    let shared = loads.iter().zip(buckets).filter(|(load, b)| load.max > 1 && !b.is_empty());
    let most = shared.max_by(|(a, _), (b, _)| a.mean.total_cmp(&b.mean));
    (loads.clone(), most.map(|(_, buckets)| buckets))
}

fn load(param: &Param, counts: &[u32]) -> Load {
    let used = counts.iter().filter(|n| **n > 0).count() as u64;
    let total: f64 = counts.iter().map(|&n| f64::from(n)).sum();
    let share = |n: &u32| (*n > 0).then(|| f64::from(*n) / total);
    let entropy = -counts.iter().filter_map(share).map(|p| p * p.log2()).sum::<f64>();
    Load {
        param: param.name().into(),
        rows: counts.len() as u64,
        width: param.width() as u64,
        used,
        mean: total / used.max(1) as f64,
        max: counts.iter().copied().max().unwrap_or(0).into(),
        // Not −0.
        entropy: entropy.max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::optim::{Kind, Optim, Touch};
    use crate::rng::Rng;
    use crate::scheme::{BuildCx, Knobs, Limit, TableSpec, find};
    use embc_device::program::Node;

    /// The census of 1,000 ids, of which id i was looked up i times, within `params` parameters.
    fn of(scheme: &str, knobs: &str, params: u64) -> Census {
        let counts: Vec<u32> = (0..1000).collect();
        let (name, counts) = ("t".into(), counts.into());
        let table = TableSpec { name, vocab: 1000, dim: 8, counts };
        let knobs: Knobs = serde_json::from_str(knobs).unwrap();
        let scheme = find(scheme).unwrap();
        let plan = scheme.plan_table(&table, Limit::Params(params), &knobs).unwrap();
        let mut built = (plan.build)(&mut BuildCx::new(Rng::stream(1, "t")));
        // Dense gradients must not hide who touches what.
        let optim = Optim::new(Kind::Adam, 0.1, Touch::All);
        built.params(&mut |param| optim.attach(param));
        census(&mut *built, 1000, plan.out_dim, &table.counts)
    }

    #[test]
    fn hashing_by_mod_loads_all_rows_alike() {
        let census = of("hash", r#"{"hash": "mod"}"#, 8 * 250);
        assert_eq!((census.unique_ids, census.lookups, census.unique_lookups), (0, 499_500, 0));
        let load = &census.loads[0];
        assert_eq!((load.rows, load.used, load.mean, load.max), (250, 250, 4.0, 4));
        assert!((load.entropy - 250f64.log2()).abs() < 1e-9);
    }

    #[test]
    fn hashing_at_random_leaves_as_many_alone_as_chance_says() {
        let census = of("hash", "{}", 8 * 500);
        // 1000 · e^-2 = 135, deviation about 10.
        assert!((100..170).contains(&census.unique_ids), "{census:?}");
        let load = &census.loads[0];
        assert!(load.used < 500 && load.max >= 5 && load.entropy < 500f64.log2() - 0.1);
    }

    /// More pairs than are compared: a third of them equal.
    #[test]
    fn large_buckets_are_sampled() {
        struct Thirds;
        impl Embedding for Thirds {
            fn gather(&self, ids: &[u32], out: &mut [f32], _: &mut Tape) {
                ids.iter().zip(out).for_each(|(id, out)| *out = (id % 3) as f32);
            }
            fn scatter(&mut self, _: &[u32], _: &[f32], _: &mut Tape) {}
            fn graph<'a>(&'a self, _: &mut Graph<'a>, ids: Node) -> Node {
                ids
            }
            fn params(&mut self, _: &mut dyn FnMut(&mut Param)) {}
            fn footprint(&self) -> crate::scheme::Footprint {
                Default::default()
            }
        }
        let (pairs, equal) = bucket_mates(&Thirds, &[0; 6000], 1);
        assert_eq!(pairs, 6000 * 5999 / 2);
        assert!((equal - 1.0 / 3.0).abs() < 0.01, "{equal}");
    }

    #[test]
    fn rows_of_their_own() {
        assert_eq!(of("full", "{}", 8000).unique_ids, 1000);
        assert_eq!(of("qr", "{}", 8 * 120).unique_ids, 1000);
        // Weights start at one, so that ids of a bucket are equal until they are trained.
        assert_eq!(of("memcom", "{}", 8 * 225).unique_ids, 0);
        assert_eq!(of("memcom", r#"{"v_init": "uniform"}"#, 8 * 225).unique_ids, 1000);
        let memcom = of("memcom", "{}", 8 * 225);
        let names: Vec<_> = memcom.loads.iter().map(|l| (l.param.as_str(), l.max)).collect();
        assert_eq!(names, [("table", 10), ("weight", 1)]);
        // Ten ids a bucket, all pairs equal before training.
        assert_eq!((memcom.bucket_pairs, memcom.bucket_equal), (100 * 45, 1.0));
        assert_eq!(of("memcom", r#"{"v_init": "uniform"}"#, 8 * 225).bucket_equal, 0.0);
        assert_eq!(memcom.untrained_ids, Some(1));
        let dhe = of("dhe", "{}", 2000);
        assert_eq!((dhe.unique_ids, dhe.loads.len()), (1000, 0));
        let rare = of("truncate_rare", "{}", 8 * 100);
        assert_eq!((rare.unique_ids, rare.loads[0].max), (99, 901));
        assert_eq!((rare.bucket_pairs, rare.bucket_equal), (901 * 900 / 2, 1.0));
        // Two rows an id, so that there is no one bucket.
        assert_eq!(of("bloom", "{}", 8 * 100).bucket_pairs, 0);
    }
}
