//! What a packed model costs where it runs: file, opening, memory, page faults, latencies, and by how
//! much its scores differ. Measured in a process that does nothing else, on ids of real test rows.
//!
//! *Cold*: the file's pages were dropped from the page cache before it was opened, so that the first
//! lookups read from the disk. *Warm*: all of them were looked up before. Memory is what the process
//! has after opening and looking up, less what it had before: anonymous (its own) and of the file
//! (which the system may have back). A latency is one call's, less what the clock itself takes.

use crate::export::packed::{bags, worst};
use crate::record::{Host, Program};
use crate::sample::Sample;
use anyhow::{Context, Result};
use embc_core::graph::device::{Bag, Model, Reader};
use embc_core::metric::{Bucket, Metric, RowMetrics};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Ids of a session.
const SESSION: usize = 100;
/// Ids at once.
const MANY: usize = 4096;
/// Calls of each kind, at most.
const CALLS: usize = 20_000;

/// Latencies of calls of one kind, microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// 95 % are faster.
    pub p95: f64,
    /// 99 % are faster.
    pub p99: f64,
    /// 99.9 % are faster.
    pub p999: f64,
}

/// Memory and page faults of a process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of its own.
    pub anonymous: u64,
    /// Bytes of mapped files that are in memory.
    pub file: u64,
    /// Faults that memory served.
    pub minor_faults: u64,
    /// Faults that the disk served.
    pub major_faults: u64,
}

/// What was measured of one state of the page cache.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Milliseconds from the call to a handle.
    pub open_ms: f64,
    /// Anonymous bytes that opening took.
    pub open_anonymous: u64,
    /// What opening and all lookups took; none on systems that do not say.
    pub usage: Option<Usage>,
    /// Of the row of one id.
    pub id: Latency,
    /// Of the rows of a session of 100 ids.
    pub session: Latency,
    /// Of an example's logits; none for embeddings alone.
    pub score: Option<Latency>,
    /// Nanoseconds an id, 4,096 at once.
    pub ns_per_id: f64,
}

/// What was measured of a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// The trial that trained it.
    pub trial: String,
    /// Where and by what it was measured.
    pub host: Host,
    /// See `host`.
    pub embc: Program,
    /// Bytes of the file.
    pub file: u64,
    /// The input that is looked up: the one with most ids.
    pub input: String,
    /// With the file's pages dropped before, and with all of them in memory.
    pub cold: State,
    /// See `cold`.
    pub warm: State,
    /// The largest difference of a logit from the trained model's, over 1 + its size.
    pub drift: f64,
    /// AUC of the sample by the trained model, and by the file.
    pub auc: Option<[f64; 2]>,
}

/// Measures a file in one state of the page cache, which a process can do once.
pub fn measure(path: &Path, sample: &Sample, cold: bool) -> Result<(State, Reader)> {
    if cold {
        drop_pages(path)?;
    }
    let before = Usage::now();
    let start = Instant::now();
    let model = Arc::new(Model::open(path)?);
    let mut reader = Reader::new(model.clone())?;
    let mut state = State { open_ms: start.elapsed().as_secs_f64() * 1e3, ..State::default() };
    state.open_anonymous = since(before, Usage::now()).unwrap_or_default().anonymous;
    let input = largest(&model);
    let ids = &sample.fields[input].ids;
    anyhow::ensure!(!ids.is_empty(), "the model's sample of test rows has no id");
    let width = model.width(input);
    let mut out = vec![0.0; MANY * width];
    if !cold {
        for ids in ids.chunks(MANY) {
            reader.rows(input, ids, &mut out[..ids.len() * width])?;
        }
    }
    state.id = calls(ids.len().max(if cold { 0 } else { CALLS }), |call| {
        reader.rows(input, &[ids[call % ids.len()]], &mut out[..width])
    })?;
    let session: Vec<u32> = ids.iter().copied().cycle().take(ids.len() + MANY).collect();
    state.session = calls(CALLS / 10, |call| {
        let from = call * SESSION % ids.len();
        reader.rows(input, &session[from..from + SESSION], &mut out[..SESSION * width])
    })?;
    if model.outputs() > 0 {
        state.score = Some(scores(&mut reader, sample)?);
    }
    let many = calls(CALLS / 100, |_| reader.rows(input, &session[..MANY], &mut out))?;
    state.ns_per_id = many.p50 * 1e3 / MANY as f64;
    state.usage = since(before, Usage::now());
    Ok((state, reader))
}

/// The input with most ids.
fn largest(model: &Model) -> usize {
    let inputs = model.header().inputs.iter().enumerate();
    inputs.max_by_key(|(i, input)| (input.vocab, usize::MAX - i)).map_or(0, |(i, _)| i)
}

/// The name of the input that is looked up, for people.
pub fn looked_up(reader: &Reader) -> String {
    let model = reader.model();
    model.header().inputs[largest(model)].name.clone()
}

/// Latencies of whole scores, an example at a time.
fn scores(reader: &mut Reader, sample: &Sample) -> Result<Latency> {
    let model = reader.model().clone();
    let (inputs, dense) = (model.header().inputs.len(), model.header().features.len());
    let mut logits = vec![0.0; model.outputs()];
    let (mut latencies, clock, examples) = (Vec::new(), clock(), sample.size.max(1));
    for call in 0..CALLS / 4 {
        let example = call % examples;
        // Each example's bags are made before its call: a service has them.
        let fields = &sample.fields[..inputs];
        let ids: Vec<&[u32]> = fields.iter().map(|bag| &bag.ids[bag.range(example)]).collect();
        let ends: Vec<[u32; 2]> = ids.iter().map(|ids| [0, ids.len() as u32]).collect();
        let bags: Vec<Bag<'_>> = (ids.iter().zip(&ends).zip(fields))
            .map(|((ids, ends), of)| Bag {
                ids,
                offsets: if of.offsets.is_empty() { &[] } else { ends },
            })
            .collect();
        let of = &sample.dense[example * dense..][..dense];
        let start = Instant::now();
        reader.score(&bags, of, &mut logits)?;
        latencies.push(start.elapsed().as_nanos() as f64 - clock);
    }
    Ok(percentiles(latencies))
}

/// Latencies of calls.
fn calls<E: Into<anyhow::Error>>(
    n: usize,
    mut call: impl FnMut(usize) -> Result<(), E>,
) -> Result<Latency> {
    let clock = clock();
    let mut latencies = Vec::with_capacity(n);
    for i in 0..n {
        let start = Instant::now();
        call(i).map_err(Into::into)?;
        latencies.push(start.elapsed().as_nanos() as f64 - clock);
    }
    Ok(percentiles(latencies))
}

/// Nanoseconds between two looks at the clock.
fn clock() -> f64 {
    let mut all: Vec<f64> = (0..1000).map(|_| Instant::now().elapsed().as_nanos() as f64).collect();
    all.sort_unstable_by(f64::total_cmp);
    all[all.len() / 2]
}

fn percentiles(mut ns: Vec<f64>) -> Latency {
    ns.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = ((ns.len() as f64 * share) as usize).min(ns.len().saturating_sub(1));
        ns.get(place).copied().unwrap_or_default().max(0.0) / 1e3
    };
    Latency { p50: at(0.5), p95: at(0.95), p99: at(0.99), p999: at(0.999) }
}

/// By how much a file's scores of the sample differ, and both AUCs.
pub fn quality(reader: &mut Reader, sample: &Sample) -> Result<(f64, Option<[f64; 2]>)> {
    let outputs = reader.model().outputs();
    if outputs == 0 {
        return Ok((0.0, None));
    }
    let mut scores = vec![0.0; sample.size * outputs];
    let bags = bags(sample, reader.model().header().inputs.len());
    reader.score(&bags, &sample.dense, &mut scores)?;
    let auc = |scores: &[f32]| {
        let mut metrics = RowMetrics::default();
        metrics.add(scores, &sample.labels);
        metrics.value(Metric::Auc(Bucket::All))
    };
    let by_row = outputs == 1 && !sample.labels.is_empty();
    let both = by_row.then(|| [auc(&sample.scores), auc(&scores)]);
    // Of one class there is none.
    let both = both.filter(|both| both.iter().all(|auc| auc.is_finite()));
    Ok((worst(&sample.scores, &scores), both))
}

/// Drops a file's pages from the page cache.
#[cfg(target_os = "linux")]
fn drop_pages(path: &Path) -> Result<()> {
    let drop = || -> std::io::Result<()> {
        let file = File::open(path)?;
        file.sync_all()?;
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    };
    drop().with_context(|| path.display().to_string())
}

/// Not on this system: its cold figures are those of a first opening.
#[cfg(not(target_os = "linux"))]
fn drop_pages(_: &Path) -> Result<()> {
    Ok(())
}

impl Usage {
    /// Of this process; none where the system has no /proc.
    fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let kib = |key: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        };
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // After the name in brackets: minor faults are the 8th, major ones the 10th.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            anonymous: 1024 * kib("RssAnon:")?,
            file: 1024 * kib("RssFile:")?,
            minor_faults: fields.get(7)?.parse().ok()?,
            major_faults: fields.get(9)?.parse().ok()?,
        })
    }
}

fn since(before: Option<Usage>, after: Option<Usage>) -> Option<Usage> {
    let (before, after) = (before?, after?);
    Some(Usage {
        anonymous: after.anonymous.saturating_sub(before.anonymous),
        file: after.file.saturating_sub(before.file),
        minor_faults: after.minor_faults - before.minor_faults,
        major_faults: after.major_faults - before.major_faults,
    })
}
