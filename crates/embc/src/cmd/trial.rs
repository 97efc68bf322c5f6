//! `embc trial`: one order, here.

use super::{Outcome, one};
use crate::INTERRUPT;
use crate::cli::{Global, Trial};
use crate::progress::Terminal;
use anyhow::{Result, bail};
use embc_lab::bench::Bench;
use embc_lab::desk::{Again, Answer, Desk};
use embc_lab::order::Order;
use embc_lab::record::Status;

pub fn run(args: &Trial, global: &Global) -> Result<Outcome> {
    super::set_threads(args.threads)?;
    let order = Order::read(&args.order)?;
    let at = |error: anyhow::Error| error.context(args.order.display().to_string());
    order.check().map_err(at)?;
    let registry = super::registry(global, &[])?;
    let entry = super::entry(&registry, &order.dataset)?;
    let data = super::open(
        entry,
        order.spec.data.view.asked(order.examples()?),
        order.examples()?,
        global,
    )?;
    let bench = Bench::new(entry, &data, global.overcommit);
    bench.check_order(&order).map_err(at)?;
    let again = Again { done: args.rerun, failed: true };
    let desk = Desk::open(&global.results, &order.experiment, again)?.lasting(*args.keep.lease);
    let terminal = Terminal::new(global.quiet);
    let every = *args.keep.checkpoint_every;
    let record = match desk.ask_once(&order, true, &INTERRUPT)? {
        Answer::Busy => {
            bail!("another process runs this trial; wait for it, or choose another --results")
        }
        Answer::Shared(record) => *record,
        Answer::Done => desk.book().get(&order.id()).expect("it is done").clone(),
        Answer::Run(claim, metrics) => {
            let Some((record, _)) =
                one(&bench, &order, &metrics, *claim, (&desk, every), &terminal)?
            else {
                return Ok(Outcome::Interrupted);
            };
            record
        }
    };
    super::print(&(serde_json::to_string(&record)? + "\n"))?;
    Ok(if record.status == Status::Error { Outcome::Failed } else { Outcome::Fine })
}
