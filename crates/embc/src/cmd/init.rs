//! `embc init`: a registry entry and an experiment from files as they are.

use super::{Outcome, write};
use crate::cli::{Global, Init as Args, TextOrJson};
use crate::progress::DataProgress;
use crate::table::text_table;
use anyhow::{Context, Result, bail};
use embc_data::init::{Asked, Column, Draft, Use, init, role_name};
use embc_data::registry::{Columns, Decimal, Encoding, Entry, OnError, Quote, Side, Weights};
use embc_data::split::SplitRule;
use embc_lab::units::{bytes, count};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Rows below which hardly anything can be told apart.
const FEW: u64 = 2_000;

/// Width of the embedding that the experiment begins with.
const DIM: u64 = 16;

pub fn run(args: &Args, global: &Global) -> Result<Outcome> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.files[0]),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        bail!("--name {name:?}: a name is made of letters, digits, - and _");
    }
    let output = args.output.strip_prefix(".").unwrap_or(&args.output);
    let registry = output.join(format!("{name}.data.toml"));
    let experiment = output.join(format!("{name}.toml"));
    for path in [&registry, &experiment] {
        if path.exists() {
            bail!(
                "{} is there already: remove it, or choose another --name or --output",
                path.display()
            );
        }
    }
    if let Some(known) = super::registry(global, &[])?.get(&name) {
        bail!(
            "--name {name}: there is a data set called so, {:?}: choose another --name",
            known.title
        );
    }
    let asked = Asked {
        files: &args.files,
        name: name.clone(),
        label: args.label.as_deref(),
        data_dir: &global.data_dir,
        memory: args.memory.0,
    };
    let mut progress = DataProgress::new(&name, global.quiet);
    let draft = init(&asked, &mut |at| progress.watch(at))?;
    drop(progress);
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("{}: cannot be made", args.output.display()))?;
    let text = registry_text(&draft)?;
    draft
        .is_said_by(&text)
        .with_context(|| format!("embc wrote what it does not read:\n{text}"))?;
    write(&registry, &text)?;
    write(&experiment, &experiment_text(&draft)?)?;
    let understood = Understood::new(&draft)?;
    super::print(&match args.json.format {
        TextOrJson::Json => serde_json::to_string_pretty(&understood)? + "\n",
        TextOrJson::Text => understood.text(),
    })?;
    eprintln!(
        "\n{name}: {} says what was understood, {} asks a first question.",
        registry.display(),
        experiment.display()
    );
    let stem = experiment.with_extension("");
    eprintln!(
        "{name}: edit them, or go on:  embc choose {} --budget-bytes SIZE  or  embc sweep --config {}",
        stem.display(),
        experiment.display()
    );
    Ok(Outcome::Fine)
}

/// A name after that of a file, without its extensions, or of its folder.
fn name_of(path: &Path) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '-' };
    let absolute = std::path::absolute(path).unwrap_or(path.into());
    let names = absolute.ancestors().filter_map(|part| part.file_name());
    let stems = names.map(|name| {
        let stem = name.to_string_lossy().split('.').next().unwrap_or_default().to_lowercase();
        stem.chars().map(plain).collect::<String>().trim_matches('-').to_string()
    });
    stems.into_iter().find(|stem| !stem.is_empty()).unwrap_or("data".into())
}

/// What was understood: the first table.
#[derive(Serialize)]
struct Understood {
    name: String,
    rows: u64,
    /// How the files are read.
    kind: String,
    beside: Vec<String>,
    /// What was done to values so that they could be read, and how often.
    notes: BTreeMap<String, u64>,
    columns: Vec<Line>,
    /// Of all columns that have an embedding.
    values: u64,
    full_bytes: u64,
}

/// A column.
#[derive(Serialize)]
struct Line {
    name: String,
    is: &'static str,
    /// Values that are not missing.
    distinct: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    /// Bytes of an uncompressed table.
    #[serde(skip_serializing_if = "Option::is_none")]
    full_bytes: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    because: String,
}

impl Understood {
    fn new(draft: &Draft) -> Result<Self> {
        let looked_up = draft.looked_up()?;
        let full = |distinct: u32| 4 * DIM * u64::from(distinct);
        let known = |name: &str| looked_up.iter().find(|(other, _)| other == name).map(|of| of.1);
        let line = |column: &Column| {
            let (profile, rows) = (&column.profile, known(&column.profile.name));
            // A missing id is a row of the table, and no value.
            let none =
                matches!(column.role, Use::User | Use::Item | Use::Id) && profile.missing() > 0;
            Line {
                name: profile.name.clone(),
                is: role_name(column.role),
                distinct: rows.map_or(profile.distinct, |rows| u64::from(rows) - u64::from(none)),
                missing: Some(profile.missing()),
                full_bytes: rows.map(full),
                because: column.reason.clone(),
            }
        };
        let mut columns: Vec<Line> = draft.columns.iter().map(line).collect();
        for (name, distinct) in &looked_up {
            if !columns.iter().any(|line| line.name == *name) {
                columns.push(Line {
                    name: name.clone(),
                    is: if draft.columns.is_empty() { "ids" } else { "beside" },
                    distinct: u64::from(*distinct),
                    missing: None,
                    full_bytes: Some(full(*distinct)),
                    because: String::new(),
                });
            }
        }
        Ok(Self {
            name: draft.entry.name.clone(),
            rows: draft.meta.rows,
            kind: draft.kind.clone(),
            beside: draft.beside.clone(),
            notes: draft.meta.notes.clone(),
            columns,
            values: looked_up.iter().map(|(_, distinct)| u64::from(*distinct)).sum(),
            full_bytes: looked_up.iter().map(|(_, distinct)| full(*distinct)).sum(),
        })
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {} rows, {}\n", self.name, count(self.rows), self.kind);
        for beside in &self.beside {
            let _ = writeln!(text, "beside the rows: {beside}");
        }
        for (what, n) in &self.notes {
            let _ = writeln!(text, "read as: {} {what}", count(*n));
        }
        let row = |line: &Line| {
            vec![
                line.name.replace(char::is_control, " "),
                line.is.into(),
                count(line.distinct),
                line.missing.map_or(String::new(), count),
                line.full_bytes.map_or(String::new(), bytes),
                line.because.clone(),
            ]
        };
        let header =
            ["column", "is", "distinct", "missing", &format!("table of {DIM} dim"), "because"];
        text.push('\n');
        text += &text_table(&header, self.columns.iter().map(row));
        let (values, full) = (count(self.values), bytes(self.full_bytes));
        let _ = writeln!(
            text,
            "\nall tables: {values} values, {full} uncompressed ({DIM} dimensions of float32)"
        );
        if self.rows < FEW {
            text += "few rows: most differences between schemes will be chance\n";
        }
        text
    }
}

/// Text that no line ends in.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The entry, with a reason beside each column.
fn registry_text(draft: &Draft) -> Result<String> {
    let Entry { name, title, format, split, files, columns, side, .. } = &draft.entry;
    let mut text = format!(
        "# What embc understood of {} rows: {}.\n# Edit it where that is wrong; the files are read anew when it changes.\n\n[{name}]\ntitle  = {}\nformat = {}\n",
        count(draft.meta.rows),
        draft.kind,
        quoted(title),
        quoted(format)
    );
    if let Some(split) = split {
        let (rule, why) = split_text(split);
        let _ = writeln!(text, "split  = {rule}  # {why}");
    }
    for (name, file) in files {
        let _ = writeln!(
            text,
            "files.{name} = {{ path = {} }}",
            quoted(&file.path.display().to_string())
        );
    }
    if let Some(columns) = columns {
        let _ = writeln!(text, "\n[{name}.columns]");
        dialect_text(&mut text, columns);
        columns_text(&mut text, draft, columns);
    }
    for side in side {
        let _ = writeln!(text, "\n[[{name}.side]]");
        side_text(&mut text, side);
    }
    Ok(text)
}

fn split_text(split: &SplitRule) -> (String, &'static str) {
    match split {
        SplitRule::Tail { .. } => (
            "{ rule = \"tail\", valid = 0.1, test = 0.1 }".into(),
            "the last tenth in time tests, or of the file where there is no time",
        ),
        SplitRule::LastPerUser { .. } => (
            "{ rule = \"last-per-user\", valid = 1, test = 1 }".into(),
            "each user's last row tests, the one before it validates",
        ),
        SplitRule::RandomPerUser { .. } => (
            "{ rule = \"random-per-user\", valid = 0.1, test = 0.1, seed = 1 }".into(),
            "a tenth of each user's rows tests: there is no time",
        ),
        _ => (
            "{ rule = \"random\", valid = 0.1, test = 0.1, seed = 1 }".into(),
            "a tenth of the rows tests: there is no time",
        ),
    }
}

fn dialect_text(text: &mut String, columns: &Columns) {
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key} = {value}");
    };
    if columns.delimiter != "," {
        line("delimiter", &quoted(&columns.delimiter));
    }
    if !columns.header {
        line("header", "false");
    }
    if columns.quote == Quote::None {
        line("quote", "\"none\"");
    }
    if let Some(escape) = columns.escape {
        line("escape", &quoted(&escape.to_string()));
    }
    if columns.encoding == Encoding::Latin1 {
        line("encoding", "\"latin-1\"");
    }
    if columns.decimal == Decimal::Comma {
        line("decimal", "\",\"");
    }
}

fn columns_text(text: &mut String, draft: &Draft, columns: &Columns) {
    let reason = |name: &str| {
        let column = draft.columns.iter().find(|column| column.profile.name == name);
        column.map_or(String::new(), |column| format!("  # {}", one_line(&column.reason)))
    };
    let _ = writeln!(text, "label = {}{}", quoted(&columns.label), reason(&columns.label));
    if columns.label == "all-positive" {
        text.truncate(text.trim_end().len());
        text.push_str("  # each row is something that happened\n");
    }
    if let Some(positive) = &columns.positive {
        let _ = writeln!(text, "positive = {}", quoted(positive));
    }
    if columns.rating {
        text.push_str("rating = true\n");
    }
    if columns.classes {
        text.push_str("classes = true\n");
    }
    let single = [
        ("user", &columns.user),
        ("item", &columns.item),
        ("weight", &columns.weight),
        ("time", &columns.time),
    ];
    for (key, name) in single {
        if let Some(name) = name {
            let _ = writeln!(text, "{key} = {}{}", quoted(name), reason(name));
        }
    }
    if columns.on_error == OnError::Skip {
        text.push_str(
            "on_error = \"skip\"  # rows that cannot be read are left out, and counted\n",
        );
    }
    for (key, names) in [("dense", &columns.dense), ("categorical", &columns.categorical)] {
        if !names.is_empty() {
            let _ = writeln!(text, "{key} = [");
            for name in names {
                let _ = writeln!(text, "  {},{}", quoted(name), reason(name));
            }
            text.push_str("]\n");
        }
    }
    if !columns.multi.is_empty() {
        text.push_str("multi = [\n");
        for multi in &columns.multi {
            let weights = match multi.weights {
                Some(Weights::Drop) => ", weights = \"drop\"",
                Some(Weights::Keep) => ", weights = \"keep\"",
                None => "",
            };
            let (name, separator) = (quoted(&multi.name), quoted(&multi.separator));
            let pad =
                multi.pad.as_ref().map_or(String::new(), |pad| format!(", pad = {}", quoted(pad)));
            let _ = writeln!(
                text,
                "  {{ name = {name}, separator = {separator}{weights}{pad} }},{}",
                reason(&multi.name)
            );
        }
        text.push_str("]\n");
    }
    for column in draft.columns.iter().filter(|column| column.role == Use::Out) {
        let (name, reason) = (one_line(&column.profile.name), one_line(&column.reason));
        let _ = writeln!(text, "# left out: {name}: {reason}");
    }
}

fn side_text(text: &mut String, side: &Side) {
    let list = |names: &[String]| {
        format!("[{}]", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
    };
    let path = quoted(&side.file.path.display().to_string());
    let _ = writeln!(text, "of = {}\nfile = {{ path = {path} }}", quoted(&side.of));
    if side.format != "csv" {
        let _ = writeln!(text, "format = {}", quoted(&side.format));
    }
    let dialect = Columns {
        delimiter: side.delimiter.clone(),
        header: side.header,
        quote: side.quote,
        encoding: side.encoding,
        ..Columns::default()
    };
    dialect_text(text, &dialect);
    let _ =
        writeln!(text, "dense = {}\ncategorical = {}", list(&side.dense), list(&side.categorical));
    let multi = side.multi.iter().map(|multi| {
        format!("{{ name = {}, separator = {} }}", quoted(&multi.name), quoted(&multi.separator))
    });
    let _ = writeln!(text, "multi = [{}]", multi.collect::<Vec<_>>().join(", "));
}

/// What fits the task: how the model is called, with its widths; and what it is picked by.
fn model(draft: &Draft) -> Result<(String, &'static str)> {
    let columns = draft.entry.columns.as_ref();
    let (classes, rating) = columns.map_or((false, false), |c| (c.classes, c.rating));
    let positive = columns.is_some_and(|c| c.label == "all-positive");
    let (fields, numbers) = (draft.looked_up()?.len(), draft.has_numbers()?);
    Ok(match () {
        () if positive => ("kind = \"pointwise\"".into(), "ndcg@10"),
        () if classes && fields == 1 && !numbers => ("kind = \"classifier\"".into(), "accuracy"),
        () if classes => ("kind = \"mlp\"\nhidden = [64]".into(), "accuracy"),
        () if fields + usize::from(numbers) < 2 => ("kind = \"mlp\"\nhidden = [64]".into(), "auc"),
        () if rating && fields == 2 && !numbers => ("kind = \"gmf\"".into(), "auc"),
        () => {
            ("kind = \"dlrm\"\nbottom = [64]\ntop = [64, 32]\nbottom_linear = true".into(), "auc")
        }
    })
}

/// A first experiment.
fn experiment_text(draft: &Draft) -> Result<String> {
    let name = &draft.entry.name;
    let (model, select) = model(draft)?;
    let batch = match draft.meta.rows {
        0..100_000 => 128,
        100_000..1_000_000 => 512,
        _ => 4096,
    };
    let mut data = String::new();
    if let Some(rule) = &draft.rule {
        let _ = writeln!(
            data,
            "label = {{ positive_min = {:?} }}  # ratings from here on are 1: at most six in ten",
            rule.positive_min
        );
    }
    // The inner product of small numbers has no slope to begin with.
    let init = if model.contains("gmf") { "\ninit = { normal = 0.1 }" } else { "" };
    let data = if data.is_empty() { data } else { format!("[data]\n{data}\n") };
    let title =
        quoted(&format!("{}: which embedding compression, at which size", draft.entry.title));
    let schemes = ["full", "hash", "qr", "memcom", "cce"]
        .map(|kind| format!("[[scheme]]\nkind = {kind:?}\n"));
    Ok(format!(
        r#"title   = {title}
dataset = "{name}"

{data}[model]
{model}

[embedding]
dim = {DIM}{init}

[train]
optimizer  = {{ kind = "adagrad", lr = 0.05 }}
batch      = {batch}
epochs     = 20
select     = "{select}"
early_stop = {{ patience = 2 }}
seeds      = [1, 2, 3]

[budget]
compression = [4, 16, 64]  # of the full table

{}
[table]
relative_to = "full"
"#,
        schemes.join("\n")
    ))
}
