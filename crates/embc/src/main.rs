//! `embc`: which embedding compression should I use on my data, at what budget, at what cost?

mod cli;
mod cmd;
mod keys;
mod plot;
mod progress;
mod report;
mod table;

use clap::Parser;
use cli::{Cli, Color, Command};
use embc_core::cancel::Cancel;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Set by Ctrl-C.
static INTERRUPT: LazyLock<Cancel> = LazyLock::new(Cancel::default);

/// True once the user has pressed Ctrl-C.
fn interrupted() -> bool {
    INTERRUPT.is_set()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = ["warn", "info", "debug"][usize::from(cli.global.verbose.min(2))];
    let ansi = match cli.global.color {
        Color::Auto => std::io::stderr().is_terminal(),
        when => when == Color::Always,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .without_time()
        .with_target(false)
        .with_env_filter(if cli.global.quiet { "error" } else { level })
        .init();
    // The second Ctrl-C does not wait for the first one's clean end; schedulers may signal a job's
    // processes twice at once.
    let mut first: Option<Instant> = None;
    let _ = ctrlc::set_handler(move || {
        if first.get_or_insert_with(Instant::now).elapsed() > Duration::from_secs(1) {
            std::process::exit(130);
        }
        INTERRUPT.set();
    });
    let result = match &cli.command {
        Command::Init(args) => cmd::init::run(args, &cli.global),
        Command::Choose(args) => cmd::choose::run(args, &cli.global),
        Command::Train(args) => cmd::train::run(args, &cli.global),
        Command::Sweep(args) => cmd::sweep::run(args, &cli.global),
        Command::Trial(args) => cmd::trial::run(args, &cli.global),
        Command::Predict(args) => cmd::predict::run(args, &cli.global),
        Command::Bench(args) => cmd::bench::run(args),
        Command::Compress(args) => cmd::compress::run(args, &cli.global),
        Command::Decompress(args) => cmd::decompress::run(args),
        Command::Export(args) => cmd::export::run(args, &cli.global),
        Command::Completions(args) => cmd::completions::run(args),
        Command::Report(args) => cmd::report::run(args, &cli.global),
        Command::Compare(args) => cmd::compare::run(args, &cli.global),
        Command::Recommend(args) => cmd::recommend::run(args, &cli.global),
        Command::Data { command } => cmd::data::run(command, &cli.global),
        Command::List(args) => cmd::list::run(args, &cli.global),
        Command::Theory { command } => cmd::theory::run(command, &cli.global),
    };
    cmd::exit(result)
}
