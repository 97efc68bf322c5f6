//! What compressing a table came to, for people: an answer, pictures, then all that was tried.

use crate::plot::{self, Axis, Curve, Point};
use crate::report::html;
use crate::table::markdown;
use anyhow::Result;
use embc_lab::units::count;
use embc_table::choose::{Answer, Tried};
use embc_table::form::megabytes;
use embc_table::table::Table;
use embc_table::task::Task;
use std::io::Write;
use std::path::Path;

/// A table, and what was found.
pub struct Found<'a> {
    /// The table's name.
    pub name: String,
    pub table: &'a Table,
    pub tasks: &'a [Box<dyn Task>],
    /// The budgets, the smallest first.
    pub budgets: Vec<u64>,
    pub answer: Answer,
}

/// Writes report.md, report.html, a picture a measure, and tried.jsonl.
pub fn write(found: &Found<'_>, folder: &Path) -> Result<()> {
    let (words, plots) = (found.markdown()?, found.plots()?);
    let mut files = vec![("report.md".to_string(), words.clone())];
    files.push(("report.html".into(), html::document(&found.name, &words, &plots)));
    for (name, plot) in found.measures().into_iter().zip(plots) {
        files.push((file(&name), plot));
    }
    let mut lines = String::new();
    for tried in &found.answer.tried {
        lines += &(serde_json::to_string(tried)? + "\n");
    }
    files.push(("tried.jsonl".into(), lines));
    for (name, text) in files {
        let path = folder.join(name);
        embc_data::atomic::write(&path, |out| {
            out.write_all(text.as_bytes()).map_err(|error| embc_data::Error::io(&path, &error))
        })?;
    }
    Ok(())
}

/// The file of a measure's picture.
fn file(measure: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("{}.svg", measure.chars().map(plain).collect::<String>())
}

/// The curve that a form is of: its method; of what another program made, its name without the last
/// word, where that is a size.
fn curve_of(tried: &Tried) -> &str {
    match tried.method.rsplit_once(' ') {
        Some((name, size)) if tried.beside && size.starts_with(|c: char| c.is_ascii_digit()) => {
            name
        }
        _ => &tried.method,
    }
}

impl Found<'_> {
    /// A sentence for each budget.
    pub fn answers(&self) -> Result<String> {
        let mut text = String::new();
        if self.answer.interrupted {
            text += "Interrupted: not all forms that fit were tried.\n";
        }
        for (budget, best) in self.budgets.iter().zip(&self.answer.best) {
            text += &match best {
                Some(best) => self.sentence(*budget, &self.answer.tried[*best]),
                None => format!("Nothing fits {}.\n", megabytes(*budget)),
            };
        }
        Ok(text)
    }

    fn sentence(&self, budget: u64, best: &Tried) -> String {
        let kept = &best.kept[0];
        let of_32 = 4 * (self.table.rows * self.table.dim) as u64;
        let in_32 = format!(", {:.1} times than at 32 bits", best.smaller);
        let mut text = format!(
            "Within {}: {}, {} ({}, {:.1} times smaller than the table{}; a file of {}).",
            megabytes(budget),
            best.method,
            best.sizes,
            megabytes(best.bytes),
            self.table.bytes as f64 / best.bytes as f64,
            if self.table.bytes == of_32 { String::new() } else { in_32 },
            megabytes(best.file_bytes)
        );
        for ((score, full), task) in best.scores.iter().zip(&self.answer.full).zip(self.tasks) {
            let difference = match score.half {
                Some(half) => {
                    format!("on items that did not choose {:+.3} ± {half:.3}", score.difference)
                }
                None => format!("{:+.3}", score.difference),
            };
            text += &format!(
                " {}, {}: {:.3}, the full table {full:.3} ({difference}).",
                score.task,
                task.metric(),
                score.value
            );
        }
        let close = self.answer.close(budget).len();
        if !self.tasks.is_empty() && close > 1 {
            let fit =
                self.answer.tried.iter().filter(|of| !of.beside && of.bytes <= budget).count();
            text += &format!(
                " {close} of the {fit} forms that fit score as well but for chance; of these it keeps most neighbours."
            );
        }
        text += &format!(
            " Of a row's ten neighbours it keeps {:.1} % ± {:.1}; the error is {:.3} of the table's norm.\n",
            100.0 * kept.neighbours,
            100.0 * kept.neighbours_half,
            kept.error
        );
        text
    }

    /// What is drawn against bytes.
    fn measures(&self) -> Vec<String> {
        let tasks = self.tasks.iter().map(|task| task.name());
        tasks.chain(["neighbours kept".to_string(), "error".into()]).collect()
    }

    /// The value of a measure of one form.
    fn value(tried: &Tried, measure: usize) -> f64 {
        let tasks = tried.scores.len();
        match measure {
            at if at < tasks => tried.scores[at].value,
            at if at == tasks => tried.kept[0].neighbours,
            _ => tried.kept[0].error,
        }
    }

    fn plots(&self) -> Result<Vec<String>> {
        let mut names: Vec<&str> = self.answer.tried.iter().map(curve_of).collect();
        names.sort_unstable();
        names.dedup();
        // The answer's curve stands out.
        let best = self.answer.best.iter().flatten().next_back();
        if let Some(best) = best.map(|best| curve_of(&self.answer.tried[*best])) {
            names.sort_by_key(|name| *name != best);
        }
        let draw = |(measure, what): (usize, String)| {
            let curve = |name: &&str| {
                let of = self.answer.tried.iter().filter(|of| curve_of(of) == *name);
                let point = |of: &Tried| Point {
                    x: of.bytes as f64 / 1e6,
                    y: Self::value(of, measure),
                    half: 0.0,
                };
                Curve { name: name.to_string(), points: of.map(point).collect(), beside: false }
            };
            let curves: Vec<Curve> = names.iter().map(curve).collect();
            let axes = [Axis { name: "MB", log: true }, Axis { name: &what, log: false }];
            plot::svg(&format!("{}: {what} against bytes", self.name), axes, &curves)
        };
        self.measures().into_iter().enumerate().map(draw).collect()
    }

    fn markdown(&self) -> Result<String> {
        let (rows, dim) = (count(self.table.rows as u64), self.table.dim);
        let mut text = format!("## {}: {rows} rows x {dim}, compressed\n\n", self.name);
        text += &self.answers()?.replace(".\nWithin", ".\n\nWithin");
        text += "\n";
        for measure in self.measures() {
            text += &format!("![{measure} against bytes]({})\n\n", file(&measure));
        }
        text += &self.table_of_all();
        text += &self.table_of_bands();
        text += "### What was measured\n\n";
        for (task, full) in self.tasks.iter().zip(&self.answer.full) {
            let (name, metric, about) = (task.name(), task.metric(), task.about());
            text += &format!("* {name}: {metric}; {about}. The full table: {full:.4}.\n");
        }
        text += "* A difference is to the full table, on half of a task's items, with a 95 % interval over items (of texts: over divisions); the other half chose among forms: of those that are within chance of the best share of the full scores (the interval of the best one, at least a hundredth) the one that keeps most neighbours. A command's one number chooses and judges. Intervals cover neither other tables nor other draws of codebooks.\n* Neighbours: the share of a row's ten nearest others, by cosine and among all rows, that stay among its ten nearest; rows within 10⁻⁵ of the tenth are as good. Of up to 250 rows of each band, exactly; over bands they count by rows. Without a task they choose.\n* Bytes are those of tensors: values, ranges, codes, pointers. A file has more, for its program and to begin tensors at pages.\n";
        if !self.table.counts.is_empty() {
            text += "* Error, cosine and neighbours of all rows count each row as often as it is read; those of bands count rows.\n";
        }
        if self.table.is_ranked() && self.table.counts.is_empty() {
            text += "* Rows are taken to come by frequency, as in the file: `--counts` says otherwise.\n";
        }
        Ok(text)
    }

    fn table_of_all(&self) -> String {
        let mut header: Vec<String> =
            ["method", "", "bytes", "of file", "smaller", "error", "cosine", "neighbours"]
                .map(String::from)
                .into();
        header.extend(self.tasks.iter().map(|task| task.name()));
        header.push("fitted in".into());
        let mut full = vec!["full table".to_string(), self.table.stored.clone()];
        let bytes = self.table.bytes;
        let smaller = (4 * self.table.rows * self.table.dim) as f64 / bytes.max(1) as f64;
        full.extend([bytes.to_string(), "-".into(), format!("{smaller:.1}")]);
        full.extend(["0", "1", "1"].map(String::from));
        full.extend(self.answer.full.iter().map(|x| format!("{x:.4}")));
        full.push(String::new());
        let row = |tried: &Tried| {
            let kept = &tried.kept[0];
            let mut row = vec![tried.method.clone(), tried.sizes.clone(), tried.bytes.to_string()];
            let file = if tried.beside { "-".into() } else { tried.file_bytes.to_string() };
            row.extend([file, format!("{:.1}", tried.smaller)]);
            row.push(format!("{:.3}", kept.error));
            row.push(format!("{:.4}", kept.cosine));
            row.push(format!("{:.3} ± {:.3}", kept.neighbours, kept.neighbours_half));
            row.extend(tried.scores.iter().map(|score| match score.half {
                Some(half) => format!("{:.4} ({:+.3} ± {half:.3})", score.value, score.difference),
                None => format!("{:.4} ({:+.3})", score.value, score.difference),
            }));
            row.push(if tried.beside { "-".into() } else { format!("{:.1} s", tried.fit_s) });
            row
        };
        let rows = std::iter::once(full).chain(self.answer.tried.iter().map(row));
        format!("### All that was tried\n\n{}\n", markdown(&header, &rows.collect::<Vec<_>>()))
    }

    /// By frequency, where there are bands.
    fn table_of_bands(&self) -> String {
        let bands = &self.answer.tried[0].kept[1..];
        if bands.is_empty() {
            return String::new();
        }
        let mut header: Vec<String> = ["method", "", "bytes"].map(String::from).into();
        header.extend(bands.iter().map(|band| format!("rows {}", band.rows)));
        let row = |tried: &Tried| {
            let mut row = vec![tried.method.clone(), tried.sizes.clone(), tried.bytes.to_string()];
            let cell = |kept: &embc_table::measure::Kept| {
                format!("{:.3}, {:.4}, {:.3}", kept.error, kept.cosine_low, kept.neighbours)
            };
            row.extend(tried.kept[1..].iter().map(cell));
            row
        };
        let rows: Vec<Vec<String>> = self.answer.tried.iter().map(row).collect();
        format!(
            "### By frequency\n\nError, the cosine that 1 % of rows stay below, and neighbours kept, of rows by rank:\n\n{}\n",
            markdown(&header, &rows)
        )
    }
}
