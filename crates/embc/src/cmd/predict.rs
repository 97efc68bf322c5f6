//! `embc predict`: what a saved model says of the rows of any file.

use super::Outcome;
use crate::cli::{Global, Predict as Args};
use crate::progress::DataProgress;
use anyhow::{Context, Result, bail};
use embc_lab::artefact::Model;
use embc_lab::predict::Predictor;
use embc_lab::units::count;
use std::io::Write;
use std::path::Path;
use tempfile::NamedTempFile;

pub fn run(args: &Args, global: &Global) -> Result<Outcome> {
    let mut predictor = Predictor::new(Model::load(&args.model)?)?;
    match &args.output {
        None => {
            score(args, global, &mut predictor, std::io::stdout())?;
        }
        Some(path) => {
            if path.extension().is_some_and(|extension| extension != "csv") {
                bail!("--output {}: scores are written as CSV; call it .csv", path.display());
            }
            let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            let wrong = || format!("{}: cannot be written", path.display());
            let file = NamedTempFile::new_in(folder).with_context(wrong)?;
            score(args, global, &mut predictor, file.as_file())?;
            file.as_file().sync_all().with_context(wrong)?;
            file.persist(path).with_context(wrong)?;
        }
    }
    for (name, all, unknown) in predictor.unknown().into_iter().filter(|(.., n)| *n > 0) {
        let share = 100.0 * unknown as f64 / all as f64;
        eprintln!(
            "{name}: {} of {} values are unknown to the model, {share:.1} %",
            count(unknown),
            count(all)
        );
    }
    Ok(Outcome::Fine)
}

/// Writes `row,score`, or `row,class,score`; rows count from 0.
fn score(
    args: &Args,
    global: &Global,
    predictor: &mut Predictor,
    out: impl Write + Send,
) -> Result<()> {
    let outputs = predictor.outputs();
    let mut out = csv::Writer::from_writer(out);
    let classes = outputs > 1;
    out.write_record(if classes { &["row", "class", "score"][..] } else { &["row", "score"] })?;
    let mut row = 0u64;
    let mut progress = DataProgress::new("predict", global.quiet);
    let memory = args.memory.0;
    predictor.files(
        &args.files,
        &global.data_dir,
        memory,
        &mut |at| progress.watch(at),
        &mut |scores, _| {
            for scores in scores.chunks_exact(outputs) {
                for (class, score) in scores.iter().enumerate() {
                    let (row, class, score) =
                        (row.to_string(), class.to_string(), score.to_string());
                    match classes {
                        true => out.write_record([&row, &class, &score])?,
                        false => out.write_record([&row, &score])?,
                    }
                }
                row += 1;
            }
            Ok(())
        },
    )?;
    Ok(out.flush()?)
}
