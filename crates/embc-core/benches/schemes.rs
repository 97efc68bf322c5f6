//! How fast each scheme looks ids up and takes their gradients, beside the uncompressed table.
//!
//! One thread, batches of 2,048 distinct ids drawn uniformly: the worst case for caches. Rounds of
//! a scheme and of `full` alternate, and medians are compared, so that a busy machine slows both.
//! `bytes` and `lines` are what one id reads of the parameters: its cells, and the 64-byte cache
//! lines that hold them. `of limit` is the share of what the machine can do: for lookups, lines a
//! second against plain random reads and writes of one line each over as much memory; for
//! computed embeddings (tt, dhe), multiply-adds against a large matrix product.
//!
//! `just bench-schemes [filter]`

use embc_core::batch::{Bag, Batch, Data, Order, Protocol, Shape, Split, Visit};
use embc_core::budget::{self, Budget, Rules};
use embc_core::linalg::{Op, gemm};
use embc_core::rng::Rng;
use embc_core::scheme::*;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

const BATCH: usize = 2048;
/// Distinct batches: a million ids, so that rows do not stay in the cache from round to round.
const BATCHES: usize = 512;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(100);

/// Rows for LMA's minhashes: 125,000 of 26 values, as its paper samples.
struct Sample(u32);

impl Data for Sample {
    fn sample(&self, rows: u64, seed: u64, visit: Visit<'_>) {
        let mut rng = Rng::stream(seed, "sample");
        for _ in 0..rows.div_ceil(1000) {
            let ids = (0..26_000).map(|_| rng.below(self.0.into()) as u32).collect();
            let offsets = (0..=1000).map(|row| 26 * row).collect();
            let fields = vec![Bag { ids, offsets }];
            if let ControlFlow::Break(()) = visit(&Batch { size: 1000, fields, ..Batch::default() })
            {
                return;
            }
        }
    }
    fn shape(&self) -> &Shape {
        unreachable!("schemes read rows only")
    }
    fn has(&self, _: Split, _: Protocol) -> bool {
        false
    }
    fn train(&self, _: Order, _: Visit<'_>) {}
    fn eval(&self, _: Split, _: Protocol, _: usize, _: Visit<'_>) {}
}

/// An embedding under test.
struct Lane {
    embedding: Box<dyn Embedding>,
    width: usize,
    params: u64,
    rows: Vec<f32>,
    tape: Tape,
    next: usize,
    /// Steps that fill a round.
    steps: usize,
    /// Seconds an id, one a round.
    times: Vec<f64>,
}

impl Lane {
    fn new(scheme: &dyn Scheme, knobs: &Knobs, vocab: u32, dim: usize) -> Option<Self> {
        let counts = vec![1; vocab as usize].into();
        let tables = [TableSpec { name: "t".into(), vocab, dim, counts }];
        let budget = Budget::Compression(16.0);
        let plans = budget::plan(scheme, &tables, budget, Rules::default(), knobs).ok()?;
        let plan = plans.into_iter().next()?;
        let sample = Sample(vocab);
        let embedding = (plan.build)(&mut BuildCx {
            fields: &[(0, 0)],
            origin: Origin::Data(&sample),
            ..BuildCx::new(Rng::stream(1, "bench"))
        });
        let (width, params) = (plan.out_dim, plan.footprint.params);
        let rows = vec![0.0; BATCH * width];
        let (tape, times) = (Tape::default(), Vec::new());
        Some(Self { embedding, width, params, rows, tape, next: 0, steps: 1, times })
    }

    /// One batch: rows out, gradients in, gradients forgotten, as the optimizer would.
    fn step(&mut self, ids: &[u32]) {
        let rows = &mut self.rows[..ids.len() * self.width];
        self.embedding.gather(ids, rows, &mut self.tape);
        self.embedding.scatter(ids, black_box(rows), &mut self.tape);
        self.embedding.params(&mut |param| param.zero_grad());
    }

    /// The seconds of `steps` batches.
    fn time(&mut self, ids: &[u32]) -> f64 {
        let start = Instant::now();
        for _ in 0..self.steps {
            let at = self.next * BATCH;
            self.next = (self.next + 1) % (ids.len() / BATCH);
            self.step(&ids[at..at + BATCH]);
        }
        start.elapsed().as_secs_f64()
    }

    /// Finds how many steps fill a round; warms up.
    fn calibrate(&mut self, ids: &[u32]) {
        while self.time(ids) < ROUND.as_secs_f64() {
            self.steps *= 2;
        }
    }

    fn round(&mut self, ids: &[u32]) {
        let seconds = self.time(ids);
        self.times.push(seconds / (self.steps * BATCH) as f64);
    }

    /// Seconds an id: the median round.
    fn seconds(&self) -> f64 {
        median(&self.times)
    }

    /// Parameter bytes and cache lines that an id reads, the mean over a batch.
    fn reads(&mut self, ids: &[u32]) -> (f64, f64) {
        let (mut bytes, mut lines, mut read) = (0, 0, 0);
        for &id in &ids[..BATCH] {
            // One id is enough where each reads everything.
            if bytes > 1 << 24 {
                break;
            }
            read += 1;
            let rows = &mut self.rows[..self.width];
            self.embedding.gather(&[id], rows, &mut self.tape);
            self.embedding.scatter(&[id], rows, &mut self.tape);
            self.embedding.params(&mut |param| {
                let mut touched = std::collections::BTreeSet::new();
                let width = 4 * param.width();
                param.visit_grad(&mut |row, _| {
                    bytes += width;
                    let start = row as usize * width;
                    touched.extend(start / 64..(start + width).div_ceil(64));
                });
                lines += touched.len();
                param.zero_grad();
            });
        }
        (bytes as f64 / f64::from(read), lines as f64 / f64::from(read))
    }
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Seconds to read one random line of an array of `floats`, and to write one of another like it.
fn random_line(floats: u64) -> f64 {
    let lines = (floats / 16).max(1);
    let mut rng = Rng::stream(3, "lines");
    let places: Vec<u32> = (0..1 << 20).map(|_| rng.below(lines) as u32).collect();
    let from = vec![1f32; 16 * lines as usize];
    let mut to = vec![0f32; 16 * lines as usize];
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        // Independent, so that the machine may have many misses in flight.
        for &place in &places {
            to[16 * place as usize] += from[16 * place as usize];
        }
        times.push(start.elapsed().as_secs_f64() / places.len() as f64);
        black_box(&to);
    }
    median(&times)
}

/// Multiply-adds a second of a large matrix product on one thread.
fn gemm_rate() -> f64 {
    let n = 2048;
    let (a, b) = (vec![1f32; n * n], vec![1f32; n * n]);
    let mut c = vec![0f32; n * n];
    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        gemm(n, n, n, &a, Op::N, &b, Op::N, 0.0, black_box(&mut c));
        times.push(start.elapsed().as_secs_f64());
    }
    (n * n * n) as f64 / median(&times)
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    threads.install(|| run(&filter));
}

fn run(filter: &str) {
    let rate = gemm_rate();
    println!(
        "compression 16, batches of {BATCH} ids, 1 thread; product {:.0} GFLOP/s\n",
        2e-9 * rate
    );
    println!(
        "| scheme | dim | vocab | M ids/s | against full | bytes | lines | of limit |\n|---|---|---|---|---|---|---|---|"
    );
    let knobs = |text: &str| serde_json::from_str::<Knobs>(text).expect("knobs");
    let mut variants: Vec<(String, &dyn Scheme, Knobs)> =
        SCHEMES.iter().map(|&scheme| (scheme.name().to_string(), scheme, Knobs::new())).collect();
    let robe = find("robe").expect("registered");
    variants.push(("robe Z=32".into(), robe, knobs(r#"{"block": 32}"#)));
    for vocab in [10_000, 10_000_000] {
        let mut rng = Rng::stream(2, "ids");
        let mut ids = Vec::with_capacity(BATCH * BATCHES);
        for _ in 0..BATCHES {
            let mut seen = std::collections::BTreeSet::new();
            while seen.len() < BATCH {
                let id = rng.below(vocab.into()) as u32;
                if seen.insert(id) {
                    ids.push(id);
                }
            }
        }
        for dim in [16, 32] {
            let full = find("full").expect("registered");
            let mut full = Lane::new(full, &Knobs::new(), vocab, dim).expect("feasible");
            full.calibrate(&ids);
            for (name, scheme, knobs) in &variants {
                if !name.contains(filter) || name == "full" {
                    continue;
                }
                let Some(mut lane) = Lane::new(*scheme, knobs, vocab, dim) else {
                    println!("| {name} | {dim} | {vocab} | infeasible | | | | |");
                    continue;
                };
                lane.calibrate(&ids);
                full.times.clear();
                let start = Instant::now();
                while lane.times.is_empty()
                    || lane.times.len() < ROUNDS && start.elapsed() < 20 * ROUND
                {
                    full.round(&ids);
                    lane.round(&ids);
                }
                let seconds = lane.seconds();
                let (bytes, lines) = lane.reads(&ids);
                let limit = match name.as_str() {
                    // Each value read takes part in one multiply-add forward and two backward; for
                    // tt, whose middle core holds nearly all, in one for each of the two columns of
                    // the first core's slice.
                    "dhe" => 3.0 * bytes / 4.0 / rate,
                    "tt" => 6.0 * bytes / 4.0 / rate,
                    _ => lines * random_line(lane.params),
                };
                println!(
                    "| {name} | {dim} | {vocab} | {:.2} | {:.2}x | {bytes:.0} | {lines:.1} | {:.0} % |",
                    1e-6 / seconds,
                    seconds / full.seconds(),
                    100.0 * limit / seconds,
                );
            }
            let seconds = full.seconds();
            let (bytes, lines) = full.reads(&ids);
            println!(
                "| full | {dim} | {vocab} | {:.2} | 1.00x | {bytes:.0} | {lines:.1} | {:.0} % |",
                1e-6 / seconds,
                100.0 * lines * random_line(full.params) / seconds,
            );
        }
    }
}
