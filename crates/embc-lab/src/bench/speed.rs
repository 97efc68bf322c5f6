//! How fast training is here, before anything is trained.

use super::Bench;
use crate::blueprint;
use crate::spec::TrialSpec;
use embc_core::batch::Data;
use embc_core::cancel::Cancel;
use embc_core::scheme::Origin;
use embc_core::train::{self, Observer};
use std::time::{Duration, Instant};

/// Counts examples until the time is over.
struct Stopwatch {
    examples: u64,
    since: Option<Instant>,
    time: Duration,
    stop: Cancel,
}

impl Observer for Stopwatch {
    fn step(&mut self, _: u64, _: u32, _: f64, examples: usize) {
        // The first step grows buffers.
        let Some(since) = self.since else {
            self.since = Some(Instant::now());
            return;
        };
        self.examples += examples as u64;
        if since.elapsed() >= self.time {
            self.stop.set();
        }
    }
}

impl Bench<'_> {
    /// Training examples a second of one thread, evaluation included, measured for a while; none where
    /// it cannot be trained.
    pub fn examples_per_second(
        &self,
        spec: &TrialSpec,
        time: Duration,
        cancel: &Cancel,
    ) -> Option<f64> {
        let plan = self.plan(spec).ok()?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().ok()?;
        let stop = cancel.part();
        let settings = self.settings(spec, &[spec.schedule.select], &stop);
        let mut watch = Stopwatch { examples: 0, since: None, time, stop };
        let mut net =
            blueprint::build(self.data.shape(), spec, &plan, Origin::Data(self.data)).ok()?;
        // It ends by the stopwatch, or sooner where there is little to train.
        let _ = pool.install(|| train::run(&mut net, self.data, &settings, None, &mut watch));
        let seconds = watch.since?.elapsed().as_secs_f64();
        (watch.examples > 0).then(|| watch.examples as f64 / seconds)
    }

    /// Training examples of a trial, unless it stops early.
    pub fn examples(&self, spec: &TrialSpec) -> u64 {
        self.most_examples(&self.settings(spec, &[], &Cancel::default()))
    }
}
