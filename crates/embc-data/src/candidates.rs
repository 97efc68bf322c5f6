//! Candidates that a data set brings: a held-out item of each user and its negatives, in the two
//! files of the leave-one-out protocol (He et al. 2017), whose ids count first appearances.

use crate::cache::{Cache, Mapped};
use crate::error::{At, Error, Result};
use crate::registry::Entry;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The held-out item and the negatives of each user, by cache ids.
pub(crate) struct Given {
    /// By user; `None` for users that the files do not name.
    pub users: Vec<Option<(u32, Vec<u32>)>>,
    /// SHA-256 of both files.
    pub hash: String,
}

/// The cache id of each id that counts first appearances.
fn first_appearances(ids: &Mapped, rows: u64, distinct: usize) -> Vec<u32> {
    let (mut seen, mut order) = (vec![false; distinct], Vec::new());
    for id in (0..rows).map(|row| ids.id(row)) {
        if !std::mem::replace(&mut seen[id as usize], true) {
            order.push(id);
        }
    }
    order
}

/// Reads the files called `loo_rating` and `loo_negative`.
pub(crate) fn read(
    cache: &Cache,
    [user, item]: [usize; 2],
    entry: &Entry,
    data_dir: &Path,
) -> Result<Given> {
    let file = |name: &str| -> Result<PathBuf> {
        let file = entry.files.get(name).ok_or_else(|| {
            Error::Data(format!(
                "[data] candidates = \"files\" needs a file called {name}, which {} does not name; use candidates = 99",
                entry.name
            ))
        })?;
        entry.locate(file, data_dir)
    };
    let (ratings, negatives) = (file("loo_rating")?, file("loo_negative")?);
    let order = |column: usize| {
        let distinct = cache.meta.columns[column].distinct as usize;
        first_appearances(&cache.coded[&column].ids, cache.meta.rows, distinct)
    };
    let (users, items) = (order(user), order(item));
    let mut sha256 = Sha256::new();
    for path in [&ratings, &negatives] {
        sha256.update(std::fs::read(path).at(path)?);
    }
    let hash = crate::hex(&sha256.finalize());
    let mut given = Given { users: vec![None; users.len()], hash };
    lines(&ratings, &mut |number, line| {
        let mut words = line.split('\t');
        let [user, item] = [&users, &items].map(|ids| words.next().and_then(|w| find(ids, w)));
        let (Some(user), Some(item)) = (user, item) else {
            let what = "does not begin with a user and an item that the data set has";
            return Err(Error::line(&ratings, number, what));
        };
        given.users[user as usize] = Some((item, Vec::new()));
        Ok(())
    })?;
    lines(&negatives, &mut |number, line| {
        let mut words = line.split('\t');
        let pair = words.next().and_then(|w| w.strip_prefix('(')?.strip_suffix(')'));
        let (user, item) = pair.and_then(|pair| pair.split_once(',')).unwrap_or_default();
        let held = find(&users, user).and_then(|user| given.users[user as usize].as_mut());
        let Some((_, list)) = held.filter(|held| find(&items, item) == Some(held.0)) else {
            let what = format!("does not begin with a (user,item) pair of {}", ratings.display());
            return Err(Error::line(&negatives, number, what));
        };
        for word in words.filter(|word| !word.is_empty()) {
            list.push(find(&items, word).ok_or_else(|| {
                let what = format!("{word:?} is no item of the data set");
                Error::line(&negatives, number, what)
            })?);
        }
        Ok(())
    })?;
    Ok(given)
}

fn find(ids: &[u32], word: &str) -> Option<u32> {
    ids.get(word.parse::<usize>().ok()?).copied()
}

fn lines(path: &Path, take: &mut dyn FnMut(u64, &str) -> Result<()>) -> Result<()> {
    let file = BufReader::new(std::fs::File::open(path).at(path)?);
    for (i, line) in file.lines().enumerate() {
        let line = line.at(path)?;
        if !line.is_empty() {
            take(i as u64 + 1, &line)?;
        }
    }
    Ok(())
}
