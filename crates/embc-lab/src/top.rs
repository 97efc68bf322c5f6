//! The best items of each user, by a model of histories: files of events become histories as in
//! training, and what a user has is not offered again.

use crate::artefact::{Ids, Model};
use anyhow::{Context, Result, bail};
use embc_core::batch::{Bag, Batch, Examples, Items};
use embc_data::block::BlockColumn;
use embc_data::ingest::Watch;
use embc_data::raw::{self, Role};
use embc_data::rows::stream;
use embc_data::view::HadRule;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Logits at a time.
const LOGITS: usize = 1 << 22;

/// An item of a user's.
struct Event {
    time: (i64, u32),
    item: u32,
    positive: bool,
}

/// What was left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Left {
    /// Users in the files, and those without an item that the model knows.
    pub users: u64,
    /// See `users`.
    pub blank: u64,
    /// Events, and those of items that the model does not know.
    pub events: u64,
    /// See `events`.
    pub unknown: u64,
}

/// A user's best items, with their logits, the best first.
pub type Best<'a> = &'a mut dyn FnMut(&str, &[(&str, f32)]) -> Result<()>;

/// Ranks all items that the model knows for each user of the files, in the order of their first
/// events, and hands out the best `n`.
pub fn top(
    model: &mut Model,
    files: &[PathBuf],
    data_dir: &Path,
    memory: u64,
    n: usize,
    watch: Watch<'_>,
    each: Best<'_>,
) -> Result<Left> {
    let by = model.examples()?;
    if by == Examples::Rows {
        bail!(
            "--top is of models of histories; this one scores rows: list the candidates as rows, and sort their scores"
        );
    }
    let Read { users, events, mut left, rated } = read(model, files, data_dir, memory, watch)?;
    let names = model.values(0)?;
    let name = |item: u32| names[item as usize].as_deref().unwrap_or_default();
    let items = model.shape.items.context("a model of items")?;
    let view = &model.spec.data.view;
    let most = view.history.map_or(usize::MAX, |n| n as usize);
    // As in training: what a user rated low is had, too.
    let all_rows = view.had.map_or(rated, |had| had == HadRule::Rows);
    let mut queries = Vec::new();
    for (user, mut events) in users.iter().zip(events) {
        events.sort_by_key(|event| event.time);
        let (mut history, mut had) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for event in events.into_iter().filter(|event| event.item < items.known) {
            if event.positive && seen.insert(event.item) {
                history.push(event.item);
            }
            if event.positive || all_rows {
                had.push(event.item);
            }
        }
        had.sort_unstable();
        if history.is_empty() {
            left.blank += 1;
        } else {
            let start = history.len().saturating_sub(most);
            queries.push((user, history.split_off(start), had));
        }
    }
    let at_once = (LOGITS / items.known.max(1) as usize).max(1);
    for queries in queries.chunks(at_once) {
        let histories: Vec<&[u32]> = queries.iter().map(|(_, history, _)| &history[..]).collect();
        let logits = logits(model, by, &histories, items);
        let logits = logits.chunks_exact(items.known as usize);
        for ((user, _, had), logits) in queries.iter().zip(logits) {
            let best = best(logits, had, n);
            let best: Vec<(&str, f32)> =
                best.into_iter().map(|(item, score)| (name(item), score)).collect();
            each(user, &best)?;
        }
    }
    Ok(left)
}

/// The best `n` of the items that a user does not have; of equal ones the more frequent first.
fn best(logits: &[f32], had: &[u32], n: usize) -> Vec<(u32, f32)> {
    let all = (0..).zip(logits.iter().copied());
    let mut all: Vec<(u32, f32)> =
        all.filter(|(item, _)| had.binary_search(item).is_err()).collect();
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if n < all.len() {
        all.select_nth_unstable_by(n, order);
        all.truncate(n);
    }
    all.sort_unstable_by(order);
    all
}

/// The logits of all known items for each history [histories × known].
fn logits(model: &mut Model, by: Examples, histories: &[&[u32]], items: Items) -> Vec<f32> {
    let known = items.known as usize;
    let mut batch = Batch::default();
    if by == Examples::Pairs {
        let mut all = Vec::with_capacity(histories.len() * known);
        for history in histories {
            // Each candidate comes with the history: so many at a time as fit.
            let at_once = (LOGITS / history.len().max(1)).max(1);
            for first in (0..known).step_by(at_once) {
                let ids: Vec<u32> = (first..known.min(first + at_once)).map(|i| i as u32).collect();
                let size = ids.len();
                let offsets = (0..=size).map(|i| (i * history.len()) as u32).collect();
                let of_each = Bag { ids: history.repeat(size), offsets };
                let one = Bag { ids, offsets: Vec::new() };
                batch = Batch { size, fields: vec![of_each, one.clone(), one], ..batch };
                all.extend_from_slice(model.score(&batch));
            }
        }
        return all;
    }
    let mut bag = Bag { ids: Vec::new(), offsets: vec![0] };
    for history in histories {
        bag.ids.extend_from_slice(history);
        bag.offsets.push(bag.ids.len() as u32);
    }
    batch = Batch { size: histories.len(), fields: vec![bag], ..batch };
    let logits = model.score(&batch);
    let outputs = logits.len() / histories.len();
    logits.chunks_exact(outputs).flat_map(|of| of[..known].iter().copied()).collect()
}

/// What the files hold.
struct Read {
    /// Users in the order in which they come, and their events in the order of the files.
    users: Vec<String>,
    events: Vec<Vec<Event>>,
    left: Left,
    /// True where events are ratings.
    rated: bool,
}

/// All events of the files, which are held in memory.
fn read(
    model: &Model,
    files: &[PathBuf],
    data_dir: &Path,
    memory: u64,
    watch: Watch<'_>,
) -> Result<Read> {
    let view = &model.spec.data.view;
    let (user, item) = view.pair.clone().context("a model of users and items")?;
    let entry = model.reads()?.events(files, &[&user, &item])?;
    let fields = raw::fields(&entry)?;
    let place = |wanted: &dyn Fn(&raw::Field) -> bool| fields.iter().position(wanted);
    let named = |name: &str| {
        place(&|field| field.role.is_feature() && field.name == name)
            .with_context(|| format!("the files' {} have no {name}", entry.format))
    };
    let (user, item) = (named(&user)?, named(&item)?);
    let time = place(&|field| field.role == Role::Time);
    let label = place(&|field| matches!(field.role, Role::Rating | Role::Label));
    let rated = fields.iter().any(|field| field.role == Role::Rating);
    let ids: Ids = model.ids(0)?;
    let known = model.shape.items.context("a model of items")?.known;
    let rule = view.label.clone();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let (mut users, mut events, mut left) = (Vec::new(), Vec::<Vec<Event>>::new(), Left::default());
    let mut take = |columns: &[BlockColumn], rows: usize| {
        for row in 0..rows {
            let stars = label.map_or(1.0, |label| columns[label].number_of(row));
            let (positive, dropped) = match &rule {
                Some(rule) => (stars >= rule.positive_min, rule.drop.contains(&stars)),
                None => (rated || stars > 0.5, false),
            };
            if dropped {
                continue;
            }
            let text = |column: usize| String::from_utf8_lossy(columns[column].of_row(row));
            let name = text(user);
            let number = *numbers.entry(name.to_string()).or_insert_with(|| {
                users.push(name.to_string());
                events.push(Vec::new());
                users.len() - 1
            });
            let item = ids.of(&text(item)).unwrap_or(u32::MAX);
            left.events += 1;
            left.unknown += u64::from(item >= known);
            let time = time.map_or((0, 0), |time| columns[time].time_of(row));
            events[number].push(Event { time, item, positive });
        }
        Ok(())
    };
    stream(&entry, data_dir, memory, watch, &mut take)?;
    left.users = users.len() as u64;
    Ok(Read { users, events, left, rated })
}
