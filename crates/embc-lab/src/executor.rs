//! Who runs trials. Workers pull them from a desk, so that an executor only has to start workers.

use crate::bench::{Bench, Ended, Running};
use crate::desk::{Answer, Desk};
use crate::memory::Memory;
use crate::order::Order;
use crate::record::{Record, Status};
use crate::watch::{Audience, Watcher};
use anyhow::Result;
use embc_core::cancel::Cancel;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Duration;

/// How long to wait for other processes' trials before looking again: at first, and after a while.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(3)];

/// Runs trials somewhere.
pub trait Executor {
    /// Runs the orders; their records are on the desk when it returns. Breaks where it was stopped
    /// before the last one. A trial that fails is a record; an error is of the desk.
    fn run(&self, orders: Vec<Order>, desk: &Desk) -> Result<ControlFlow<()>>;
}

/// Threads of this process, several trials at once.
pub struct Threads<'a> {
    /// The data of the trials.
    pub bench: &'a Bench<'a>,
    /// Who has which part of the memory.
    pub memory: &'a Memory,
    /// Trials at once; by default as many as cores and memory allow.
    pub jobs: Option<usize>,
    /// Threads of a trial; by default one, or all cores where there is one trial alone.
    pub threads: Option<usize>,
    /// Between checkpoints inside an epoch.
    pub checkpoint_every: Duration,
    /// Stop at the first trial that fails.
    pub fail_fast: bool,
    /// Who watches.
    pub audience: &'a dyn Audience,
    /// Ends all of them, with checkpoints; set where the rest would be in vain.
    pub cancel: Cancel,
}

impl Executor for Threads<'_> {
    fn run(&self, orders: Vec<Order>, desk: &Desk) -> Result<ControlFlow<()>> {
        // So many that they need not wait for each other's memory.
        let largest = self.bench.largest(&orders, self.memory);
        let fit = self.memory.free() / largest.map_or(1, |need| need.total().max(1));
        let (jobs, threads) = self.jobs_and_threads(orders.len().min(fit as usize));
        self.audience.round(orders.len(), jobs);
        let queue = Mutex::new(VecDeque::from(orders));
        std::thread::scope(|scope| {
            let work = || {
                // One that cannot go on stops the others, so that its error is seen.
                let end = self.work(&queue, desk, jobs, threads);
                end.inspect_err(|_| self.cancel.set())
            };
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let ends = workers.into_iter().map(|worker| worker.join().expect("it catches panics"));
            // All of them, and then the first error.
            ends.collect::<Vec<Result<()>>>().into_iter().collect::<Result<()>>()
        })?;
        Ok(match self.cancel.is_set() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }
}

impl<'a> Threads<'a> {
    /// All cores, one thread a trial, a checkpoint every five minutes; goes on after a failure.
    pub fn new(
        bench: &'a Bench<'a>,
        memory: &'a Memory,
        audience: &'a dyn Audience,
        cancel: Cancel,
    ) -> Self {
        let (jobs, threads, fail_fast) = (None, None, false);
        let checkpoint_every = Duration::from_secs(300);
        Self { bench, memory, jobs, threads, checkpoint_every, fail_fast, audience, cancel }
    }

    /// Takes orders from the queue until it is empty.
    fn work(
        &self,
        queue: &Mutex<VecDeque<Order>>,
        desk: &Desk,
        jobs: usize,
        threads: usize,
    ) -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let mut watcher = self.audience.watcher();
        // Trials in a row that another process runs.
        let (mut busy, mut pause) = (0, LOOK_AGAIN[0]);
        while !self.cancel.is_set() {
            let next = |queue: &mut VecDeque<Order>| (queue.pop_front(), queue.len());
            let (Some(order), left) = next(&mut queue.lock().expect("never held for long")) else {
                break;
            };
            let answer = desk.ask(&order, self.bench.scores.is_none(), &self.cancel)?;
            if !matches!(answer, Answer::Busy) {
                (busy, pause) = (0, LOOK_AGAIN[0]);
            }
            match answer {
                Answer::Busy => {
                    queue.lock().expect("never held for long").push_back(order);
                    busy += 1;
                    if busy > left {
                        self.audience.waits(left + 1);
                        std::thread::sleep(pause);
                        // Hundreds may wait for the last trial of a round.
                        (busy, pause) = (0, (2 * pause).min(LOOK_AGAIN[1]));
                    }
                }
                Answer::Done => self.audience.passed(),
                Answer::Shared(record) => {
                    watcher.next(&order.name());
                    let owner = desk.owner(&record.trial).unwrap_or_default();
                    watcher.end(&format!("trained already, in {owner}"), false);
                }
                Answer::Run(claim, metrics) => {
                    watcher.next(&order.name());
                    let running = Running {
                        memory: self.memory,
                        claim: &claim,
                        every: self.checkpoint_every,
                        cancel: claim.cancel(),
                    };
                    let run = || self.bench.run(&order, &metrics, &running, &mut *watcher);
                    let kept = match pool.install(run) {
                        Ended::Cancelled if !claim.is_lost() => break,
                        Ended::Cancelled => false,
                        // The net is dropped: its memory is another trial's already.
                        Ended::Recorded(record, _) => {
                            let record = Record { jobs, ..*record };
                            self.end(&order, record, *claim, desk, &mut *watcher)?
                        }
                    };
                    if !kept {
                        watcher.end("lost: another process has taken it over", false);
                        queue.lock().expect("never held for long").push_back(order);
                    }
                }
            }
        }
        Ok(())
    }

    fn end(
        &self,
        order: &Order,
        mut record: Record,
        claim: crate::checkpoint::Claim,
        desk: &Desk,
        watcher: &mut dyn Watcher,
    ) -> Result<bool> {
        if record.jobs > 1 {
            // The process's peak is that of all its trials.
            record.peak_rss_bytes = 0;
        }
        // Where a record cannot be kept, the other trials would be lost too.
        if !desk.keep(&record, claim)? {
            return Ok(false);
        }
        let failed = record.status == Status::Error;
        watcher.end(&record.summary(&order.spec.schedule.select), failed);
        if failed && self.fail_fast {
            self.cancel.set();
        }
        Ok(true)
    }

    /// Trials at once, and the threads of each. Many trials on one thread each make the most of a
    /// machine; one alone gets all of it.
    fn jobs_and_threads(&self, trials: usize) -> (usize, usize) {
        let cores = crate::machine::cores();
        let threads = self.threads;
        let jobs = self.jobs.unwrap_or(cores / threads.unwrap_or(1));
        let jobs = jobs.clamp(1, trials.max(1));
        (jobs, threads.unwrap_or((cores / jobs).max(1)))
    }
}
