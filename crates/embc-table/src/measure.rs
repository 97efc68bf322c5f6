//! How much a compressed table keeps, without a task: error, angles, and who is near whom; by how
//! often rows are read, since few rows are most reads.

use crate::table::{Rows, Table, each};
use anyhow::{Result, bail};
use embc_core::cancel::Cancel;
use embc_core::linalg::{Op, dot, gemm};
use embc_core::rng::Rng;
use rayon::prelude::*;
use serde::Serialize;
use std::ops::Range;

/// Neighbours of a row that are looked for.
pub const NEIGHBOURS: usize = 10;
/// Rows whose neighbours are looked for, of each band.
const QUERIES: usize = 250;
/// Queries that a thread compares at a time, and rows that it compares them with.
const TILE: [usize; 2] = [64, 2048];

/// What is kept of some rows, or of all.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Which rows.
    pub rows: String,
    /// How many.
    pub n: usize,
    /// ‖difference‖ / ‖table‖.
    pub error: f64,
    /// The mean cosine of a row and what it became.
    pub cosine: f64,
    /// The cosine that 1 % of rows stay below.
    pub cosine_low: f64,
    /// The share of each row's 10 nearest others, by cosine, that are still among its 10 nearest.
    pub neighbours: f64,
    /// Half of its 95 % interval, over queries.
    pub neighbours_half: f64,
}

/// What is known of a table before it is compressed.
pub struct Truth {
    bands: Vec<Range<usize>>,
    /// The rank of each row by its count; empty where rows come in this order.
    ranks: Vec<u32>,
    /// The share of reads of each band.
    shares: Vec<f64>,
    queries: Vec<u32>,
    nearest: Vec<Nearest>,
}

/// Cosines that differ by less are equal: rows that are multiples of each other.
const EQUAL: f32 = 1e-5;

type Nearest = [u32; NEIGHBOURS];

/// Bands of ranks that are read about as often: 1,000, to 10,000, to 100,000, …
fn bands(table: &Table) -> Vec<Range<usize>> {
    if table.unordered && table.counts.is_empty() {
        return std::iter::once(0..table.rows).collect();
    }
    let ends = std::iter::successors(Some(1000), |end| Some(end * 10));
    let mut ends: Vec<usize> = ends.take_while(|end| 2 * end < table.rows).collect();
    ends.push(table.rows);
    let starts = std::iter::once(0).chain(ends.clone());
    starts.zip(ends).map(|(start, end)| start..end).collect()
}

impl Truth {
    /// Draws queries from a table and finds their neighbours.
    pub fn of(table: &Table, rng: &mut Rng, cancel: &Cancel) -> Result<Self> {
        let bands = bands(table);
        let mut order: Vec<u32> = (0..table.rows as u32).collect();
        let mut ranks = Vec::new();
        if !table.counts.is_empty() && !table.is_ranked() {
            order.sort_by_key(|&id| std::cmp::Reverse(table.counts[id as usize]));
            ranks = vec![0; table.rows];
            (0..).zip(&order).for_each(|(rank, &id)| ranks[id as usize] = rank);
        }
        let reads = |band: &Range<usize>| match &table.counts[..] {
            [] => band.len() as f64,
            counts => order[band.clone()].iter().map(|&id| f64::from(counts[id as usize])).sum(),
        };
        let reads: Vec<f64> = bands.iter().map(reads).collect();
        let (mut queries, mut shares) = (Vec::new(), Vec::new());
        for (band, reads) in bands.iter().zip(reads) {
            let ids = &mut order[band.clone()];
            let n = ids.len().min(QUERIES);
            for i in 0..n {
                ids.swap(i, i + rng.below((ids.len() - i) as u64) as usize);
            }
            let mut rows = vec![0.0; n * table.dim];
            table.source.look_up(&ids[..n], &mut rows)?;
            let some = ids.iter().zip(rows.chunks_exact(table.dim));
            let some = some.filter(|(_, row)| row.iter().any(|x| *x != 0.0)).map(|(id, _)| *id);
            let before = queries.len();
            queries.extend(some);
            // A band of zeros has no neighbours to keep.
            shares.push(if queries.len() > before { reads } else { 0.0 });
        }
        let all: f64 = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let shares = shares.iter().map(|share| share / all).collect();
        let shape = [table.rows, table.dim];
        let nearest = nearest(&*table.source, shape, &queries, cancel)?;
        Ok(Self { bands, ranks, shares, queries, nearest })
    }

    /// The band of a row.
    fn band(&self, row: usize) -> usize {
        let rank = self.ranks.get(row).map_or(row, |rank| *rank as usize);
        self.bands.partition_point(|band| band.end <= rank)
    }

    /// What `became` keeps of the table: of all rows, then of each band.
    pub fn measure(&self, table: &Table, became: &dyn Rows, cancel: &Cancel) -> Result<Vec<Kept>> {
        let dim = table.dim;
        let mut lost = vec![[0f64; 2]; self.bands.len()];
        let mut cosines = vec![Vec::new(); self.bands.len()];
        // Over all rows, as often as they are read.
        let (mut sums, mut mean) = ([0f64; 2], [0f64; 2]);
        let mut other = Vec::new();
        table.each(|first, block| {
            if cancel.is_set() {
                bail!("interrupted");
            }
            other.resize(block.len(), 0.0);
            became.read(first, &mut other)?;
            let of_rows: Vec<[f32; 3]> = block
                .par_chunks_exact(dim)
                .zip(other.par_chunks_exact(dim))
                .map(|(a, b)| {
                    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
                    [squares, dot(a, a), cosine(a, b)]
                })
                .collect();
            for (row, [squares, whole, cosine]) in (first..).zip(of_rows) {
                let (band, values) = (self.band(row), [squares, whole].map(f64::from));
                let reads = table.counts.get(row).map_or(1.0, |n| f64::from(*n));
                for i in 0..2 {
                    lost[band][i] += values[i];
                    sums[i] += reads * values[i];
                }
                mean = [mean[0] + reads * f64::from(cosine), mean[1] + reads];
                cosines[band].push(cosine);
            }
            Ok(())
        })?;
        let now = nearest(became, [table.rows, dim], &self.queries, cancel)?;
        let kept = self.queries.iter().zip(&self.nearest).zip(&now);
        let kept = kept.map(|((query, then), now)| kept_of(table, *query, then, now));
        let kept: Vec<f64> = kept.collect::<Result<_>>()?;
        let mut all: Vec<Kept> = (0..self.bands.len())
            .map(|band| self.of_band(band, lost[band], &mut cosines[band], &kept))
            .collect();
        let mut cosines = cosines.concat();
        let whole = Kept {
            error: relative(sums),
            cosine: mean[0] / mean[1].max(f64::MIN_POSITIVE),
            ..self.whole(&all, &mut cosines)
        };
        if all.len() > 1 {
            all.insert(0, whole)
        } else {
            all = vec![whole]
        }
        Ok(all)
    }

    fn of_band(&self, band: usize, lost: [f64; 2], cosines: &mut [f32], kept: &[f64]) -> Kept {
        let own = self.queries.iter().zip(kept).filter(|(id, _)| self.band(**id as usize) == band);
        let own: Vec<f64> = own.map(|(_, kept)| *kept).collect();
        // Where all rows are zeros, nothing is lost.
        let (mean, half) = if own.is_empty() { (1.0, 0.0) } else { interval(&own) };
        Kept {
            rows: format!("{}-{}", self.bands[band].start + 1, self.bands[band].end),
            n: cosines.len(),
            error: relative(lost),
            cosine: cosines.iter().map(|x| f64::from(*x)).sum::<f64>() / cosines.len() as f64,
            cosine_low: low(cosines),
            neighbours: mean,
            neighbours_half: half,
        }
    }

    /// Of all rows; neighbours as often as they are asked for.
    fn whole(&self, bands: &[Kept], cosines: &mut [f32]) -> Kept {
        let whole = Kept {
            rows: "all".into(),
            n: cosines.len(),
            cosine_low: low(cosines),
            ..bands[0].clone()
        };
        if self.queries.is_empty() {
            return whole;
        }
        let shared = || bands.iter().zip(&self.shares);
        let squares = shared().map(|(of, share)| (share * of.neighbours_half).powi(2));
        Kept {
            neighbours: shared().map(|(of, share)| share * of.neighbours).sum(),
            neighbours_half: squares.sum::<f64>().sqrt(),
            ..whole
        }
    }
}

fn relative([lost, whole]: [f64; 2]) -> f64 {
    if whole > 0.0 { (lost / whole).sqrt() } else { 0.0 }
}

/// The value that 1 % stay below.
fn low(values: &mut [f32]) -> f64 {
    let at = values.len() / 100;
    f64::from(*values.select_nth_unstable_by(at, f32::total_cmp).1)
}

/// The mean, and half of its 95 % interval.
fn interval(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n.max(1.0);
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    (mean, 1.96 * (variance / n.max(1.0)).sqrt())
}

/// The share of a query's neighbours that are still found. Where rows are as near as the last of them,
/// any of these is right.
fn kept_of(table: &Table, query: u32, then: &Nearest, now: &Nearest) -> Result<f64> {
    let known = |ids: &Nearest| ids.iter().copied().filter(|id| *id != u32::MAX).collect();
    let (then, now): (Vec<u32>, Vec<u32>) = (known(then), known(now));
    let ids: Vec<u32> = [query].into_iter().chain(then.last().copied()).chain(now).collect();
    let mut rows = vec![0.0; ids.len() * table.dim];
    table.source.look_up(&ids, &mut rows)?;
    let (query, rows) = rows.split_at(table.dim);
    let mut near = rows.chunks_exact(table.dim).map(|row| cosine(query, row));
    let Some(last) = near.next() else { return Ok(1.0) };
    Ok(near.filter(|near| *near >= last - EQUAL).count() as f64 / then.len() as f64)
}

/// 1 for two rows of zeros, 0 where one of them is.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let (aa, bb) = (dot(a, a), dot(b, b));
    match (aa > 0.0, bb > 0.0) {
        (true, true) => dot(a, b) / (aa.sqrt() * bb.sqrt()),
        (false, false) => 1.0,
        _ => 0.0,
    }
}

/// Makes rows of length 1; those of zeros stay.
pub fn normalise(rows: &mut [f32], dim: usize) {
    rows.par_chunks_exact_mut(dim).for_each(|row| {
        let length = dot(row, row).sqrt();
        if length > 0.0 {
            row.iter_mut().for_each(|x| *x /= length);
        }
    });
}

/// The nearest rows of each query among all, itself left out: by cosine, exactly; of equals those
/// that come first.
fn nearest(
    rows: &dyn Rows,
    [n, dim]: [usize; 2],
    queries: &[u32],
    cancel: &Cancel,
) -> Result<Vec<Nearest>> {
    let mut wanted = vec![0.0; queries.len() * dim];
    rows.look_up(queries, &mut wanted)?;
    normalise(&mut wanted, dim);
    let itself = |query: usize, id: u32| queries[query] == id;
    let found = search(rows, [n, dim], &wanted, NEIGHBOURS, itself, cancel)?;
    Ok(found.chunks_exact(NEIGHBOURS).map(|ids| ids.try_into().expect("so many")).collect())
}

/// The `keep` rows of greatest cosine with each target [targets × dim], the nearest first, but for those
/// that are `out`; u32::MAX where there are fewer.
pub fn search(
    rows: &dyn Rows,
    [n, dim]: [usize; 2],
    targets: &[f32],
    keep: usize,
    out: impl Fn(usize, u32) -> bool + Sync,
    cancel: &Cancel,
) -> Result<Vec<u32>> {
    let mut best = vec![(f32::NEG_INFINITY, u32::MAX); targets.len() / dim * keep];
    each(rows, [n, dim], |first, block| {
        if cancel.is_set() {
            bail!("interrupted");
        }
        normalise(block, dim);
        let parts = targets.par_chunks(TILE[0] * dim).zip(best.par_chunks_mut(TILE[0] * keep));
        parts.enumerate().for_each_init(Vec::new, |products, (part, (targets, best))| {
            for (tile, rows) in block.chunks(TILE[1] * dim).enumerate() {
                let (some, width) = (targets.len() / dim, rows.len() / dim);
                products.resize(some * width, 0.0);
                gemm(some, width, dim, targets, Op::N, rows, Op::T, 0.0, products);
                let start = (first + tile * TILE[1]) as u32;
                let each = products.chunks_exact(width).zip(best.chunks_exact_mut(keep));
                for (target, (products, best)) in (part * TILE[0]..).zip(each) {
                    for (id, &product) in (start..).zip(products) {
                        if product > best[keep - 1].0 && !out(target, id) {
                            let at = best.partition_point(|of| of.0 >= product);
                            best[at..].rotate_right(1);
                            best[at] = (product, id);
                        }
                    }
                }
            }
        });
        Ok(())
    })?;
    Ok(best.into_iter().map(|(_, id)| id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Held;
    use std::sync::Arc;

    fn table(n: usize, dim: usize) -> (Table, Vec<f32>) {
        let mut rng = Rng::stream(1, "rows");
        let values: Vec<f32> = (0..n * dim).map(|_| rng.normal() as f32).collect();
        let held = Held { dim, values: values.clone() };
        (Table::new([n, dim], "f32", 0, Arc::new(held)), values)
    }

    #[test]
    fn neighbours_are_those_that_a_comparison_of_all_finds() {
        let (table, values) = table(3000, 6);
        let queries = [0, 17, 2999];
        let found = nearest(&*table.source, [3000, 6], &queries, &Cancel::default()).unwrap();
        for (query, found) in queries.into_iter().zip(found) {
            let row = |id: usize| &values[id * 6..][..6];
            let mut all: Vec<(f32, usize)> = (0..3000)
                .filter(|id| *id != query as usize)
                .map(|id| (cosine(row(query as usize), row(id)), id))
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            let expect: Vec<u32> = all[..10].iter().map(|of| of.1 as u32).collect();
            assert_eq!(found.to_vec(), expect);
        }
    }

    /// Multiples of a few rows: which of them are nearest is a matter of rounding.
    #[test]
    fn rows_that_are_as_near_count_as_well() {
        let (_, some) = table(20, 6);
        let scaled = |i: usize| {
            let scale = 1.0 + i as f32 / 7.0;
            some[i % 20 * 6..][..6].iter().map(move |x| x * scale)
        };
        let values: Vec<f32> = (0..2000).flat_map(scaled).collect();
        let other = values.iter().map(|x| x * 0.999).collect();
        let table = Table::new([2000, 6], "f32", 0, Arc::new(Held { dim: 6, values }));
        let truth = Truth::of(&table, &mut Rng::stream(2, "t"), &Cancel::default()).unwrap();
        let kept = truth.measure(&table, &Held { dim: 6, values: other }, &Cancel::default());
        assert_eq!(kept.unwrap()[0].neighbours, 1.0);
    }

    #[test]
    fn what_stays_is_whole_and_noise_keeps_less_of_it() {
        let (table, values) = table(4000, 8);
        let truth = Truth::of(&table, &mut Rng::stream(2, "t"), &Cancel::default()).unwrap();
        let same = truth.measure(&table, &*table.source, &Cancel::default()).unwrap();
        assert_eq!(same.len(), 3, "all, and two bands");
        for kept in &same {
            assert_eq!((kept.error, kept.neighbours), (0.0, 1.0));
            assert!((kept.cosine - 1.0).abs() < 1e-6 && kept.cosine_low > 0.999);
        }
        let mut rng = Rng::stream(3, "noise");
        let other = values.iter().map(|x| x + 0.3 * rng.normal() as f32).collect();
        let other = Held { dim: 8, values: other };
        let noisy = truth.measure(&table, &other, &Cancel::default()).unwrap();
        assert!((noisy[0].error - 0.3).abs() < 0.01, "{noisy:?}");
        assert!((0.2..0.8).contains(&noisy[0].neighbours), "{noisy:?}");
    }
}
