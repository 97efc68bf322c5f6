//! Synthetic data with planted structure, so that a test can know the answer.
//!
//! `gmf`: users and items are normal vectors; each user draws items by a softmax and labels them by
//! a logistic model (the CCE reference's generator). `criteo`: rows of Criteo's layout with its
//! cardinalities, log-uniform ranks and a stream of new values, labels from a planted logistic model over
//! all features. `shop`: who bought what, in sessions, with clusters and popularity as real logs have them.

use crate::atomic;
use crate::error::{At, Error, Result};
use crate::ingest::{Progress, Watch};
use crate::input::{Input, digest};
use crate::raw::{Field, Format, Role, Row, Sink};
use crate::registry::Entry;
use embc_core::hash::mix64;
use embc_core::loss::{bce, sigmoid};
use embc_core::metric::auc;
use embc_core::rng::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

mod shop;

/// Takes rows.
type Each<'a> = &'a mut dyn FnMut(&Row) -> Result<()>;

/// What to generate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Synth {
    /// Users × items with a planted inner product.
    Gmf {
        /// Training rows.
        rows: u64,
        /// Number of users, and of items.
        vocab: u32,
        /// Seed.
        seed: u64,
    },
    /// Criteo's layout.
    Criteo {
        /// Rows.
        rows: u64,
        /// Seed.
        seed: u64,
    },
    /// Purchases in sessions: clusters of items, tastes of users, popularity by Zipf's law.
    Shop {
        /// Rows, up to the last user's.
        rows: u64,
        /// Number of items.
        vocab: u32,
        /// Seed.
        seed: u64,
    },
}

/// Width of the planted vectors of `gmf`.
const DIM: usize = 8;
/// Validation rows, and test rows, of each user of `gmf`.
const HELD_OUT: usize = 2;

/// Rows of Criteo-Kaggle.
const CRITEO_ROWS: u64 = 45_840_617;
/// Values of Criteo-Kaggle's 26 fields.
const CARDINALITIES: [u64; 26] = [
    1460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5683, 8_351_593, 3194, 27,
    14_992, 5_461_306, 10, 5652, 2173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572,
];

/// Facts that a generator knows, by name.
pub type Facts = BTreeMap<String, f64>;

impl Synth {
    /// What identifies the rows: the settings, and a version of each generator that changed.
    pub fn identity(&self) -> String {
        match self {
            Synth::Gmf { .. } | Synth::Shop { .. } => format!("{self:?}"),
            Synth::Criteo { .. } => format!("{self:?}, version 2"),
        }
    }

    /// The generator called `kind` with its usual sizes.
    pub fn new(kind: &str, rows: u64, vocab: u32, seed: u64) -> Result<Self> {
        match kind {
            "gmf" => Ok(Synth::Gmf { rows, vocab, seed }),
            "criteo" => Ok(Synth::Criteo { rows, seed }),
            "shop" => Ok(Synth::Shop { rows, vocab, seed }),
            _ => Err(Error::Data(format!("unknown kind {kind:?}, expected gmf, criteo or shop"))),
        }
    }

    fn fields(&self) -> Vec<Field> {
        match self {
            Synth::Gmf { .. } => vec![
                Field::new("label", Role::Label),
                Field::new("user", Role::Categorical),
                Field::new("item", Role::Categorical),
                Field::new("split", Role::Tag),
            ],
            Synth::Criteo { .. } => {
                let mut fields = vec![Field::new("label", Role::Label)];
                fields.extend((1..=13).map(|i| Field::new(format!("I{i}"), Role::Dense)));
                fields.extend((1..=26).map(|i| Field::new(format!("C{i}"), Role::Hex)));
                fields
            }
            Synth::Shop { .. } => vec![
                Field::new("user", Role::Categorical),
                Field::new("item", Role::Categorical),
                Field::new("time", Role::Time),
            ],
        }
    }

    /// Streams all rows; returns what is known about them, such as the planted model's own AUC.
    pub fn generate(&self, each: Each<'_>, watch: Watch<'_>) -> Result<Facts> {
        match *self {
            Synth::Gmf { rows, vocab, seed } => gmf(rows, vocab, seed, each, watch),
            Synth::Criteo { rows, seed } => criteo(rows, seed, each, watch),
            Synth::Shop { rows, vocab, seed } => {
                shop::shop(rows, vocab, seed, each, watch).map(|()| Facts::new())
            }
        }
    }

    /// Writes the rows as text into `folder`, with a `datasets.toml` that names them `name`.
    pub fn write(&self, name: &str, folder: &Path, watch: Watch<'_>) -> Result<Facts> {
        // The file, its format, its split, and how its columns are read.
        let (file_name, format, split, columns) = match self {
            Synth::Gmf { .. } => (
                "pairs.csv",
                "csv",
                "{ rule = \"column\", column = \"split\", train = [\"train\"], valid = [\"valid\"], test = [\"test\"] }",
                "columns = { label = \"label\", categorical = [\"user\", \"item\"] }\n",
            ),
            Synth::Criteo { .. } => {
                ("train.txt", "criteo", "{ rule = \"tail\", valid = 0.1, test = 0.1 }", "")
            }
            Synth::Shop { .. } => (
                "purchases.csv",
                "csv",
                "{ rule = \"last-per-user\", valid = 1, test = 1 }",
                "columns = { label = \"all-positive\", user = \"user\", item = \"item\", time = \"time\", categorical = [\"user\", \"item\"] }\n",
            ),
        };
        let path = folder.join(file_name);
        let facts = atomic::write(&path, |file| self.write_rows(&path, file, watch))?;
        let got = digest(&path, &mut |_| Ok(()))?;
        let known: Vec<String> = facts.iter().map(|(k, v)| format!("{k} {v:.4}")).collect();
        let text = format!(
            "[{name}]\ntitle = \"Synthetic: {self:?}\"\nformat = \"{}\"\nlicence = \"none needed\"\nnote = \"{}\"\nsplit = {split}\n{columns}files.data = {{ path = \"{file_name}\", bytes = {}, sha256 = \"{}\" }}\n",
            format,
            known.join(", "),
            got.bytes,
            got.sha256,
        );
        let registry = folder.join("datasets.toml");
        atomic::write(&registry, |file| file.write_all(text.as_bytes()).at(&registry))?;
        Ok(facts)
    }

    fn write_rows(&self, path: &Path, file: impl Write, watch: Watch<'_>) -> Result<Facts> {
        let mut out = BufWriter::with_capacity(1 << 18, file);
        let (header, separator): (&[u8], _) = match self {
            Synth::Gmf { .. } => (b"label,user,item,split\n", b","),
            Synth::Criteo { .. } => (b"", b"\t"),
            Synth::Shop { .. } => (b"time,user,item\n", b","),
        };
        let shop = matches!(self, Synth::Shop { .. });
        out.write_all(header).at(path)?;
        let coded = self.fields().iter().filter(|f| f.role.is_coded()).count();
        let mut line = Vec::new();
        let mut write = |row: &Row| {
            line.clear();
            match shop {
                true => write!(line, "{}", row.time.0)?,
                false => write!(line, "{}", row.label)?,
            }
            for x in &row.dense {
                line.extend_from_slice(separator);
                if !x.is_nan() {
                    write!(line, "{x}")?;
                }
            }
            for column in 0..coded {
                line.extend_from_slice(separator);
                row.values(column).for_each(|value| line.extend_from_slice(value));
            }
            line.push(b'\n');
            out.write_all(&line)
        };
        let facts = self.generate(&mut |row| write(row).at(path), watch)?;
        out.flush().at(path)?;
        Ok(facts)
    }
}

/// AUC and log loss of the planted logits.
fn oracle(logits: &[f32], labels: &[f32]) -> Facts {
    let loss: f64 = logits.iter().zip(labels).map(|(&x, &y)| bce(x, y)).sum();
    let positives: f64 = labels.iter().map(|&y| f64::from(y)).sum();
    Facts::from([
        ("oracle_auc".into(), auc(logits, labels)),
        ("oracle_logloss".into(), loss / labels.len() as f64),
        ("positive_rate".into(), positives / labels.len() as f64),
    ])
}

fn gmf(rows: u64, vocab: u32, seed: u64, each: Each<'_>, watch: Watch<'_>) -> Result<Facts> {
    let per_user = (rows / u64::from(vocab.max(1))) as usize;
    let drawn = per_user + 2 * HELD_OUT;
    if per_user == 0 || drawn > vocab as usize {
        return Err(Error::Data(format!(
            "synth gmf: {rows} rows over {vocab} users make {per_user} items a user; choose {vocab} to {} rows",
            u64::from(vocab) * (u64::from(vocab) - 2 * HELD_OUT as u64)
        )));
    }
    let vectors = |name: &str| -> Vec<[f32; DIM]> {
        let mut rng = Rng::stream(seed, name);
        (0..vocab).map(|_| std::array::from_fn(|_| rng.normal() as f32)).collect()
    };
    let (users, items) = (vectors("synth/users"), vectors("synth/items"));
    let draws = Rng::stream(seed, "synth/draws");
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    let mut row = Row::default();
    for (u, user) in users.iter().enumerate() {
        if u % 64 == 0 {
            watch(Progress { phase: "generating", done: u as u64, total: vocab.into() })?;
        }
        let mut rng = draws.fork(u as u64);
        let dot = |item: &[f32; DIM]| user.iter().zip(item).map(|(a, b)| a * b).sum::<f32>();
        // The largest of logit + Gumbel noise are a draw from the softmax without replacement.
        let mut keyed: Vec<(f32, u32)> = items
            .iter()
            .zip(0..)
            .map(|(item, i)| {
                let gumbel = -(-(1.0 - rng.unit()).ln()).ln();
                (dot(item) / (DIM as f32).sqrt() + gumbel as f32, i)
            })
            .collect();
        let descending = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0);
        keyed.select_nth_unstable_by(drawn - 1, descending);
        keyed.truncate(drawn);
        keyed.sort_unstable_by(descending);
        for (place, &(_, i)) in keyed.iter().enumerate() {
            let logit = dot(&items[i as usize]);
            let split = match place {
                p if p < per_user => "train",
                p if p < per_user + HELD_OUT => "valid",
                _ => "test",
            };
            row.clear();
            row.label = f64::from(rng.unit() < f64::from(sigmoid(logit)));
            if split == "valid" {
                logits.push(logit);
                labels.push(row.label as f32);
            }
            for value in [u.to_string(), i.to_string(), split.into()] {
                row.value(value.as_bytes());
                row.end_column();
            }
            each(&row)?;
        }
    }
    Ok(oracle(&logits, &labels))
}

fn criteo(rows: u64, seed: u64, each: Each<'_>, watch: Watch<'_>) -> Result<Facts> {
    // The planted AUC is taken over so many rows at most.
    const SAMPLE: u64 = 200_000;
    let draws = Rng::stream(seed, "synth/criteo");
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    let mut row = Row::default();
    for number in 0..rows {
        if number % (1 << 14) == 0 {
            watch(Progress { phase: "generating", done: number, total: rows })?;
        }
        let mut rng = draws.fork(number);
        row.clear();
        let mut logit = -1.6f64;
        for feature in 0..13 {
            // A geometric count with a heavy tail; a tenth is missing.
            let count = (-(1.0 - rng.unit()).ln()).powi(3) * f64::from(1 + feature);
            let missing = rng.unit() < 0.1;
            let sign = if feature % 2 == 0 { 0.15 } else { -0.15 };
            logit += if missing { 0.0 } else { sign * (count.floor() + 1.0).ln() };
            row.dense.push(if missing { f64::NAN } else { count.floor() });
        }
        for (field, &values) in CARDINALITIES.iter().enumerate() {
            // Log-uniform ranks: the chance of rank r falls as 1/r. And as in the log itself, values
            // appear for the first time all along: each has a row of its own, and as many rows as
            // Criteo-Kaggle has see them all.
            let drawn = ((values as f64 + 1.0).powf(rng.unit()) as u64).clamp(1, values);
            let seen = |rows: u64| (rows * values / CRITEO_ROWS).min(values);
            let new = seen(number + 1) > seen(number);
            let rank = if new { seen(number + 1) } else { drawn };
            let key = mix64((field as u64) << 40 | rank);
            // The sum of four uniform numbers is near enough to a normal one.
            let uniform = |i: u32| f64::from((key >> (16 * i)) as u16) / 65_536.0 - 0.5;
            logit += 0.35 * (0..4).map(uniform).sum::<f64>();
            let missing = field % 5 == 4 && rng.unit() < 0.3 && !new;
            if !missing {
                row.value(format!("{:08x}", mix64(key) >> 32).as_bytes());
            } else {
                row.value(b"");
            }
            row.end_column();
        }
        row.label = f64::from(rng.unit() < f64::from(sigmoid(logit as f32)));
        if number < SAMPLE {
            logits.push(logit as f32);
            labels.push(row.label as f32);
        }
        each(&row)?;
    }
    Ok(oracle(&logits, &labels))
}

/// `format = "synth"`: rows are generated when the data set is ingested.
pub struct Generated;

impl Format for Generated {
    fn name(&self) -> &'static str {
        "synth"
    }
    fn doc(&self) -> &'static str {
        "generated when it is ingested: synth = { kind = \"gmf\" | \"criteo\" | \"shop\", rows, seed }"
    }
    fn fields(&self, entry: &Entry) -> Result<Vec<Field>> {
        entry.synth.as_ref().map(Synth::fields).ok_or_else(|| {
            let what = "format = \"synth\" needs synth = { kind = \"gmf\", rows = …, vocab = …, seed = … }";
            Error::Data(format!("data set {}: {what}", entry.name))
        })
    }
    fn dense(&self) -> crate::view::Dense {
        crate::view::Dense::Log1p
    }
    fn read(&self, entry: &Entry, _: Input<'_>, _: Sink<'_>) -> Result<()> {
        Err(Error::Data(format!("data set {}: format = \"synth\" has no files", entry.name)))
    }
}
