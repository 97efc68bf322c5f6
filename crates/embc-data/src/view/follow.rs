//! What changes with a row's item, where negatives and candidates replace it, and what stays.

use super::{HadRule, View, ViewField, bag};
use crate::error::{Error, Result};
use crate::negative::{Had, Upto};
use crate::raw::{Field, Role};
use embc_core::batch::FieldShape;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Whom a column follows when a row's item is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// The row: it stays, as a user's attributes do.
    Row,
    /// The item: it is another then.
    Item,
}

impl View {
    /// What users had, by the columns of users and items and the field of items.
    pub(crate) fn had_of(&self, columns: [usize; 2], part: &[u8], item: usize) -> Had {
        let rated = self.cache.fields.iter().any(|field| field.role == Role::Rating);
        let rows = self.resolved.had.map_or(rated, |had| had == HadRule::Rows);
        let ViewField { remap, known, .. } = &self.fields[item];
        let counts = |row| rows || self.label(row) > 0.5;
        Had::new(&self.cache, columns, part, remap, *known, counts)
    }

    /// Finds whom each column follows, by all rows: a column that is a function of the item is the
    /// item's, wherever the item goes; one that is also a function of the user is of whom more rows
    /// attest it.
    pub(super) fn follow(&mut self, user: usize, item: usize) -> Result<()> {
        let (mut fields, mut dense) = (Vec::new(), Vec::new());
        let (users, items) = (self.first_rows(user), self.first_rows(item));
        let mut of_row = Vec::new();
        // Rows beyond the first of each user, and of each item: what can tell whose a column is.
        let repeats = |first: &[u32]| {
            let present = first.iter().filter(|&&row| row != u32::MAX).count();
            self.cache.meta.rows - present as u64
        };
        let (of_users, of_items) = (repeats(&users), repeats(&items));
        let mut judge = |name: &str, same: &dyn Fn(u32, u32) -> bool| {
            let context = self.resolved.context.iter().any(|column| column == name);
            let constant = (0..self.cache.meta.rows as u32).all(|row| same(row, 0));
            let is_users = of_users > 0 && self.is_function_of(user, &users, same);
            let is_items = of_items > 0 && self.is_function_of(item, &items, same);
            let follows = match (constant, is_users, is_items) {
                (true, ..) => Some(Follows::Row),
                // Of one that could be either's, as where each user has one row: the better attested.
                (_, true, true) if of_users > of_items => Some(Follows::Row),
                (_, _, true) => Some(Follows::Item),
                (_, true, _) => Some(Follows::Row),
                _ => None,
            };
            if context && follows.is_some() {
                let whose = if follows == Some(Follows::Row) { "user" } else { "item" };
                return Err(Error::Data(format!(
                    "[data] context names {name}, which is the {whose}'s wherever that goes; remove it"
                )));
            }
            if follows.is_none() && !context {
                of_row.push(name.to_string());
            }
            Ok(follows.unwrap_or(Follows::Row))
        };
        for (i, field) in self.fields.iter().enumerate() {
            let coded = &self.cache.coded[&field.column];
            let same = |a: u32, b: u32| match coded.offsets.is_empty() {
                true => coded.ids.id(a.into()) == coded.ids.id(b.into()),
                false => {
                    let ids = |row: u32| {
                        let row = row as usize;
                        (coded.offsets[row]..coded.offsets[row + 1]).map(|at| coded.ids.id(at))
                    };
                    ids(a).eq(ids(b))
                }
            };
            let name = &self.cache.fields[field.column].name;
            fields.push(match () {
                () if i == user || i == item => Follows::Row,
                () => judge(name, &same)?,
            });
        }
        let names = self.cache.fields.iter().filter(|field| field.role == Role::Dense);
        for (column, field) in self.cache.dense.iter().zip(names) {
            let bits = |row: u32| column.float(row.into()).to_bits();
            dense.push(judge(&field.name, &|a, b| bits(a) == bits(b))?);
        }
        let mut row_of_item = vec![0; self.fields[item].known as usize];
        for (cached, &view) in self.fields[item].remap.iter().enumerate() {
            if let Some(row) = row_of_item.get_mut(view as usize) {
                *row = items[cached];
            }
        }
        (self.follows, self.row_of_item, self.of_row) = ((fields, dense), row_of_item, of_row);
        match self.resolved.negatives > 0 {
            true => self.ranks_items().map_err(Error::Data),
            false => Ok(()),
        }
    }

    /// The first row of each value of a one-id field, by its number in the cache.
    fn first_rows(&self, field: usize) -> Vec<u32> {
        let column = self.fields[field].column;
        let mut first = vec![u32::MAX; self.cache.meta.columns[column].distinct as usize];
        for row in 0..self.cache.meta.rows as u32 {
            let first = &mut first[self.cache.coded[&column].ids.id(row.into()) as usize];
            *first = (*first).min(row);
        }
        first
    }

    fn is_function_of(&self, field: usize, first: &[u32], same: &dyn Fn(u32, u32) -> bool) -> bool {
        let ids = &self.cache.coded[&self.fields[field].column].ids;
        (0..self.cache.meta.rows as u32).all(|row| same(row, first[ids.id(row.into()) as usize]))
    }

    /// Why items other than a row's own cannot be scored in its place, if they cannot.
    pub fn ranks_items(&self) -> std::result::Result<(), String> {
        if self.pair.is_none() {
            return Err(no_pair("a ranking", &self.cache.fields));
        }
        match &self.of_row[..] {
            [] => Ok(()),
            columns => Err(format!(
                "{} belong to the row: with sampled negatives, or ranked among other items, these would have the positive's values. If that is the situation before any item is chosen, such as the hour, say [data] context = {:?}; else leave them out of the columns",
                columns.join(", "),
                columns
            )),
        }
    }

    /// Counts the examples that negatives add, and positives that get fewer.
    pub(super) fn count_negatives(&mut self) {
        let (wanted, (user, _)) = (self.resolved.negatives, self.pair.expect("checked"));
        if wanted == 0 {
            return;
        }
        let mut free: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut added, mut short) = (0, 0);
        let rows = (0..self.parts[0].len()).map(|i| self.parts[0].get(i));
        for row in rows.filter(|&row| self.label(row) > 0.5) {
            let user = self.raw(user, row);
            let free = free.entry(user).or_insert_with(|| self.had.free(Upto::Train, user));
            added += u64::from(wanted.min(*free));
            short += u64::from(*free < wanted);
        }
        self.shape.train_rows += added;
        if short > 0 {
            let what = format!(
                "training positives whose users have fewer than {wanted} items left for negatives"
            );
            self.left_out.insert(what, short);
        }
    }

    /// Finds the share of test lookups that are of ids without a training row.
    pub(super) fn count_unknown(&mut self) {
        let of = |(field, shape): (&ViewField, &FieldShape)| {
            let (mut unknown, mut all) = (0u64, 0u64);
            let coded = &self.cache.coded[&field.column];
            for row in (0..self.parts[2].len()).map(|i| self.parts[2].get(i)) {
                for at in bag(coded, row, self.resolved.history) {
                    let id = field.remap[coded.ids.id(at) as usize] as usize;
                    all += 1;
                    unknown += u64::from(shape.counts[id] == 0);
                }
            }
            (unknown, all)
        };
        let fields = self.fields.par_iter().zip(&self.shape.fields).map(of);
        let (unknown, all) = fields.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        self.unknown_lookups = unknown as f64 / all.max(1) as f64;
    }
}

/// Says that there are no users and items, and how to name them.
pub(super) fn no_pair(who: &str, fields: &[Field]) -> String {
    let single = fields.iter().filter(|f| matches!(f.role, Role::Categorical | Role::Hex));
    let names: Vec<&str> = single.map(|field| &field.name[..]).collect();
    format!(
        "{who} needs a user and an item column of one id each, called user and item; here are {}: name them with [data] user = … and item = …",
        if names.is_empty() { "none".into() } else { names.join(", ") }
    )
}
