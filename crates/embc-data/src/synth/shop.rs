//! `shop`: who bought what in which order, as logs have it: items in clusters, popularity that falls
//! as Zipf's law, users with a few tastes, who visit in sessions about one of them.

use super::Each;
use crate::error::{Error, Result};
use crate::ingest::{Progress, Watch};
use crate::raw::Row;
use embc_core::rng::Rng;

/// Items of a cluster, on average.
const CLUSTER: u32 = 24;
/// The chance of rank r falls as r to this power, of clusters and of items inside one.
const ZIPF: f64 = 0.9;
/// Tastes of a user, at most.
const TASTES: u64 = 4;
/// Items of a session, on average.
const SESSION: f64 = 4.0;
/// How often a session is about nothing that its user likes, and an item is none of its session's.
const STRAY: [f64; 2] = [0.1, 0.15];

/// Draws by falling chances.
struct Zipf {
    /// Chances, summed.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(n: usize) -> Self {
        let mut sum = 0.0;
        let sums = (1..=n).map(|rank| {
            sum += (rank as f64).powf(-ZIPF);
            sum
        });
        Self { sums: sums.collect() }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let at = rng.unit() * self.sums.last().expect("not empty");
        self.sums.partition_point(|sum| *sum <= at).min(self.sums.len() - 1)
    }
}

/// About so many rows over `items` items, each user's items distinct and in order of time.
pub(super) fn shop(
    rows: u64,
    items: u32,
    seed: u64,
    each: Each<'_>,
    watch: Watch<'_>,
) -> Result<()> {
    if items < 2 * CLUSTER || rows < 20 {
        let what = format!("synth shop: {rows} rows of {items} items are too few");
        return Err(Error::Data(format!(
            "{what}; choose 20 rows and {} items, or more",
            2 * CLUSTER
        )));
    }
    // Clusters in turn, so that they are as large; an item's number says nothing of either rank.
    let clusters = (items / CLUSTER) as usize;
    let mut rng = Rng::stream(seed, "synth/names");
    let mut names: Vec<u32> = (0..items).collect();
    for i in (1..names.len()).rev() {
        names.swap(i, (rng.bits() % (i as u64 + 1)) as usize);
    }
    let size = |cluster: usize| (items as usize - cluster).div_ceil(clusters);
    let (of_clusters, of_items) = (Zipf::new(clusters), Zipf::new(size(0)));
    let draws = Rng::stream(seed, "synth/shop");
    let (mut row, mut user, mut written) = (Row::default(), 0, 0);
    while written < rows {
        watch(Progress { phase: "generating", done: written, total: rows })?;
        let mut rng = draws.fork(user);
        let tastes: Vec<usize> =
            (0..1 + rng.bits() % TASTES).map(|_| of_clusters.draw(&mut rng)).collect();
        let sessions = 3 + (-(1.0 - rng.unit()).ln() * 4.0) as u64;
        let (mut had, mut time) = (Vec::new(), rng.bits() % 1_000_000);
        for _ in 0..sessions {
            time += 3600 + rng.bits() % 1_000_000;
            let stray = rng.unit() < STRAY[0];
            let about = match stray {
                true => of_clusters.draw(&mut rng),
                false => tastes[(rng.bits() % tastes.len() as u64) as usize],
            };
            let length = 1 + (-(1.0 - rng.unit()).ln() * (SESSION - 1.0)).round() as usize;
            for _ in 0..length {
                let stray = rng.unit() < STRAY[1];
                let cluster = if stray { of_clusters.draw(&mut rng) } else { about };
                let rank = of_items.draw(&mut rng).min(size(cluster) - 1);
                let item = names[rank * clusters + cluster];
                time += 60;
                if had.contains(&item) {
                    continue;
                }
                had.push(item);
                row.clear();
                row.time = (time as i64, 0);
                for value in [format!("u{user}"), format!("i{item}")] {
                    row.value(value.as_bytes());
                    row.end_column();
                }
                each(&row)?;
            }
        }
        written += had.len() as u64;
        user += 1;
    }
    Ok(())
}
