//! What rows are called: lists of words, one a line, a tokenizer's vocabulary, or a column of Parquet.

use anyhow::{Context, Result, bail};
use embc_data::raw::vectors;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Reads the words of a table's rows, in their order. A text has a word a line, and what follows a
/// tab there is not of it.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let at = || path.display().to_string();
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match ending {
        "json" => of_tokenizer(&std::fs::read_to_string(path).with_context(at)?).with_context(at),
        "parquet" => {
            let columns = vectors::columns(path)?;
            let text = columns.iter().find(|of| of.text);
            let text = text.with_context(|| format!("{}: no column of texts", path.display()))?;
            Ok(vectors::texts(path, &text.name)?)
        }
        _ => {
            let text = std::fs::read(path).with_context(at)?;
            let text = String::from_utf8_lossy(&text);
            let word = |line: &str| line.split('\t').next().unwrap_or_default().to_string();
            Ok(text.lines().map(word).collect())
        }
    }
}

/// Reads how often each of `rows` rows is read: the last number of each line.
pub fn counts(path: &Path, rows: usize) -> Result<Vec<u32>> {
    let at = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(at)?;
    let count = |(i, line): (usize, &str)| {
        let number = line.split_whitespace().last().and_then(|n| n.parse::<f64>().ok());
        match number.filter(|n| *n >= 0.0 && n.is_finite()) {
            Some(n) => Ok(n as u32),
            None => bail!("{}:{}: no number of reads", path.display(), i + 1),
        }
    };
    let counts: Vec<u32> = text.lines().enumerate().map(count).collect::<Result<_>>()?;
    if counts.len() != rows {
        bail!("{}: {} counts for a table of {rows} rows", path.display(), counts.len());
    }
    if counts.iter().all(|count| *count == 0) {
        bail!("{}: no row is read at all", path.display());
    }
    Ok(counts)
}

/// The tokens of a `tokenizer.json` (WordPiece, BPE, Unigram), or of a map of tokens to numbers.
fn of_tokenizer(text: &str) -> Result<Vec<String>> {
    let json: Value = serde_json::from_str(text)?;
    let vocab = json.pointer("/model/vocab").unwrap_or(&json);
    let mut words: Vec<(u64, String)> = match vocab {
        Value::Object(map) => {
            map.iter().filter_map(|(word, id)| Some((id.as_u64()?, word.clone()))).collect()
        }
        Value::Array(list) => {
            let word = |(id, of): (usize, &Value)| Some((id as u64, of.get(0)?.as_str()?.into()));
            list.iter().enumerate().filter_map(word).collect()
        }
        _ => bail!("it holds no vocabulary"),
    };
    if let Some(Value::Array(added)) = json.get("added_tokens") {
        let token = |of: &Value| Some((of["id"].as_u64()?, of["content"].as_str()?.to_string()));
        words.extend(added.iter().filter_map(token));
    }
    let last = words.iter().map(|(id, _)| *id).max().context("it holds no token")?;
    if last > u64::from(u32::MAX) || last as usize > 4 * words.len() + 1024 {
        bail!("its tokens reach to {last}, and there are {}", words.len());
    }
    let mut all = vec![String::new(); last as usize + 1];
    words.into_iter().for_each(|(id, word)| all[id as usize] = word);
    Ok(all)
}

/// Words to rows, as people write them.
///
/// A word is looked up as it is, then in lower case; where tokens mark the beginnings of words (`▁`,
/// `Ġ`), as one of these, since the others are pieces of words.
pub struct Index {
    rows: HashMap<String, u32>,
    mark: Option<char>,
}

impl Index {
    /// Of the words of rows; of equal ones, the first.
    pub fn new(words: &[String]) -> Self {
        let marked = |mark: char| words.iter().filter(|word| word.starts_with(mark)).count();
        let mark = ['▁', 'Ġ'].into_iter().find(|&mark| 5 * marked(mark) > words.len());
        let mut rows = HashMap::with_capacity(words.len());
        for (row, word) in words.iter().enumerate() {
            if !word.is_empty() {
                rows.entry(word.clone()).or_insert(row as u32);
            }
        }
        Self { rows, mark }
    }

    /// The row of a word.
    pub fn row(&self, word: &str) -> Option<u32> {
        let find = |word: &str| match self.mark {
            Some(mark) => self.rows.get(&format!("{mark}{word}")),
            None => self.rows.get(word),
        };
        find(word).or_else(|| find(&word.to_lowercase())).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokenizers_of_three_kinds_and_marks_of_words() {
        let bpe = r#"{"model": {"vocab": {"▁the": 1, "▁The": 3, "he": 0}}, "added_tokens": [{"id": 2, "content": "<s>"}]}"#;
        assert_eq!(of_tokenizer(bpe).unwrap(), ["he", "▁the", "<s>", "▁The"]);
        let unigram = r#"{"model": {"vocab": [["a", -1.5], ["b", 0]]}}"#;
        assert_eq!(of_tokenizer(unigram).unwrap(), ["a", "b"]);
        assert_eq!(of_tokenizer(r#"{"x": 1, "y": 0}"#).unwrap(), ["y", "x"]);
        assert!(of_tokenizer(r#"{"x": 99999999}"#).is_err());

        let index = Index::new(&of_tokenizer(bpe).unwrap());
        assert_eq!([index.row("The"), index.row("THE"), index.row("he")], [Some(3), Some(1), None]);
        assert_eq!(Index::new(&["a".into(), "b".into()]).row("B"), Some(1));
    }
}
