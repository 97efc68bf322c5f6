//! Who runs trials. Workers pull them from a desk, so that an executor only has to start workers.

use crate::bench::{Bench, Ended, Planned, Running};
use crate::checkpoint::Claim;
use crate::desk::{Answer, Desk};
use crate::memory::Memory;
use crate::order::Order;
use crate::parent::{Families, Parent};
use crate::record::{Record, Status};
use crate::watch::{Audience, Watcher};
use anyhow::Result;
use embc_core::cancel::Cancel;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long to wait for other processes' trials before looking again: at first, and after a while.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(3)];

/// Orders that nobody of this process runs.
struct Queue {
    /// The orders, and how many trials have ended.
    orders: Mutex<(VecDeque<Order>, u64)>,
    families: Families,
}

impl Queue {
    fn new(orders: Vec<Order>, desk: &Desk) -> Self {
        let families = Families::of(&orders, desk);
        Self { orders: Mutex::new((orders.into(), 0)), families }
    }

    fn lock(&self) -> MutexGuard<'_, (VecDeque<Order>, u64)> {
        self.orders.lock().expect("never held for long")
    }

    /// The next order, how many are left, and how many trials have ended.
    fn next(&self) -> Option<(Order, usize, u64)> {
        let mut held = self.lock();
        Some((held.0.pop_front()?, held.0.len(), held.1))
    }

    /// Puts an order off.
    fn later(&self, order: Order) {
        self.lock().0.push_back(order);
    }

    /// Waits until another trial has ended here since `ended` had, or for a pause. By short sleeps: they
    /// last as long as they say, whatever clock a machine has.
    fn wait(&self, ended: u64, pause: Duration) {
        for _ in 0..pause.as_millis() / GLANCE.as_millis() {
            if self.lock().1 != ended {
                break;
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// A trial is over: those of its family come next, so that its parent can go.
    fn ended(&self, order: &Order, desk: &Desk) {
        let waited_for = self.families.leaves(order, desk);
        let mut held = self.lock();
        if waited_for {
            let parent = order.spec.parent();
            held.0.make_contiguous().sort_by_key(|order| order.spec.parent() != parent);
        }
        held.1 += 1;
    }
}

/// How long who waits for a trial of this process sleeps at once.
const GLANCE: Duration = Duration::from_millis(10);

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
        let queue = Queue::new(orders, desk);
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
    fn work(&self, queue: &Queue, desk: &Desk, jobs: usize, threads: usize) -> Result<()> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        let mut watcher = self.audience.watcher();
        // Trials in a row that others run.
        let (mut busy, mut pause) = (0, LOOK_AGAIN[0]);
        while !self.cancel.is_set() {
            let Some((order, left, ended)) = queue.next() else { break };
            let Some((answer, parent)) = self.ask(&order, queue, desk)? else {
                queue.later(order);
                busy += 1;
                if busy > left {
                    if !queue.families.trains() {
                        self.audience.waits(left + 1);
                    }
                    queue.wait(ended, pause);
                    // Hundreds may wait for the last trial of a round.
                    (busy, pause) = (0, (2 * pause).min(LOOK_AGAIN[1]));
                }
                continue;
            };
            (busy, pause) = (0, LOOK_AGAIN[0]);
            let (claim, metrics) = match answer {
                Answer::Run(claim, metrics) => (claim, metrics),
                Answer::Shared(record) => {
                    watcher.next(&order.name());
                    let owner = desk.owner(&record.trial).unwrap_or_default();
                    watcher.end(&format!("trained already, in {owner}"), false);
                    self.audience.recorded(&record);
                    queue.ended(&order, desk);
                    continue;
                }
                Answer::Done | Answer::Busy => {
                    self.audience.passed();
                    queue.ended(&order, desk);
                    continue;
                }
            };
            watcher.next(&order.name());
            let running = Running {
                memory: self.memory,
                claim: &claim,
                parent: parent.as_ref(),
                every: self.checkpoint_every,
                cancel: claim.cancel(),
            };
            let run = || self.bench.run(&order, &metrics, &running, &mut *watcher);
            let ended = pool.install(run);
            queue.families.ends(parent);
            let kept = match ended {
                Ended::Cancelled if !claim.is_lost() => break,
                Ended::Cancelled => false,
                // The net is dropped: its memory is another trial's already.
                Ended::Recorded(record, _) => {
                    let record = Record { jobs, ..*record };
                    self.end(&order, record, *claim, desk, &mut *watcher)?
                }
            };
            match kept {
                true => queue.ended(&order, desk),
                false => {
                    watcher.end("lost: another process has taken it over", false);
                    queue.later(order);
                }
            }
        }
        Ok(())
    }

    /// Asks the desk for a trial, and for its parent; none where either is busy.
    fn ask(
        &self,
        order: &Order,
        queue: &Queue,
        desk: &Desk,
    ) -> Result<Option<(Answer, Option<Parent>)>> {
        if queue.families.trains_parent_of(order) {
            return Ok(None);
        }
        let answer = desk.ask(order, self.bench.scores.is_none(), &self.cancel)?;
        Ok(match answer {
            Answer::Busy => None,
            // What cannot be planned has no training to wait for.
            Answer::Run(..)
                if matches!(self.bench.size_of(&order.spec), Planned::Infeasible(_)) =>
            {
                Some((answer, None))
            }
            Answer::Run(..) => {
                queue.families.parent(order, desk, &self.cancel)?.map(|parent| (answer, parent))
            }
            _ => Some((answer, None)),
        })
    }

    fn end(
        &self,
        order: &Order,
        mut record: Record,
        claim: Claim,
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
        self.audience.recorded(&record);
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
