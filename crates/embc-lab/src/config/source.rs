//! What a config says, and where: its own text, and with `base = "…"` that of the config it differs from.
//!
//! Keys of a `[table]` stand before the base's of the same name. All else is replaced whole: lists, such as
//! all `[[scheme]]`, what is in braces, and `[budget]`, whose keys exclude each other.

use super::file::read;
use crate::suggest;
use anyhow::{Result, anyhow, bail};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// The files of a config, itself first.
#[derive(Clone, Debug, Default)]
pub struct Source {
    files: Vec<File>,
}

/// Offsets count through all files, so that they say which file is meant: a text is led by as many
/// spaces as there are bytes before it.
#[derive(Clone, Debug)]
struct File {
    path: PathBuf,
    start: usize,
    padded: String,
}

impl Source {
    /// A text and no other.
    pub fn of(path: &Path, text: &str) -> Self {
        let mut source = Self { files: Vec::new() };
        source.push(path.into(), text);
        source
    }

    /// A config by its name, with its bases.
    ///
    /// # Errors
    ///
    /// Where one cannot be found or read, or is its own base.
    pub fn read(name: &Path) -> Result<Self> {
        let (path, text) = read(name)?;
        let mut source = Self::of(&path, &text);
        let mut said = text;
        while let Some(base) = base(&said) {
            let last = source.files.last().expect("itself");
            let key = last.start + Self::of(&last.path, &said).offset("base");
            let (path, text) = read(&last.path.with_file_name(&base))
                .or_else(|_| read(Path::new(&base)))
                .map_err(|error| source.error_at(key, format!("base: {error:#}")))?;
            if source.files.iter().any(|file| file.path == path) {
                bail!(source.error_at(key, format!("base {base:?} is based on this one")));
            }
            source.push(path, &text);
            said = text;
        }
        Ok(source)
    }

    fn push(&mut self, path: PathBuf, text: &str) {
        let start = self.files.last().map_or(0, |file| file.padded.len());
        let padded = " ".repeat(start) + text;
        self.files.push(File { path, start, padded });
    }

    /// The file of the config itself.
    pub fn path(&self) -> &Path {
        &self.files[0].path
    }

    /// What all files describe together; errors name file and line.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        self.tree().and_then(|tree| T::deserialize(Deserializer::from(tree))).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.error_at(at, suggest::key(error.message()))
        })
    }

    /// An error about a key such as "scheme.2.dim", with the file and line that give it, or the deepest
    /// part of it that is there.
    pub fn error(&self, key: &str, what: impl std::fmt::Display) -> anyhow::Error {
        self.error_at(self.offset(key), what)
    }

    /// The file that gives a key.
    pub fn file_of(&self, key: &str) -> &Path {
        &self.at(self.offset(key)).0.path
    }

    fn error_at(&self, offset: usize, what: impl std::fmt::Display) -> anyhow::Error {
        let (file, line) = self.at(offset);
        anyhow!("{}:{line}: {what}", file.path.display())
    }

    /// The file of an offset, and the line there, from 1.
    fn at(&self, offset: usize) -> (&File, usize) {
        let file = self.files.iter().rfind(|file| file.start <= offset).expect("one starts at 0");
        let text = &file.padded.as_bytes()[..offset.min(file.padded.len())];
        (file, 1 + text.iter().filter(|&&byte| byte == b'\n').count())
    }

    /// The keys of all files.
    fn tree(&self) -> Result<Spanned<DeTable<'_>>, toml::de::Error> {
        let mut files = self.files.iter().map(|file| DeTable::parse(&file.padded));
        let mut tree = files.next().expect("itself")?;
        for base in files {
            put_under(tree.get_mut(), base?.into_inner());
        }
        Ok(tree)
    }

    /// Where a key stands.
    fn offset(&self, key: &str) -> usize {
        let Ok(tree) = self.tree() else { return 0 };
        let (mut at, mut table, mut list) = (0, Some(tree.get_ref()), None::<&[Spanned<DeValue>]>);
        for part in key.split('.') {
            let named = table.and_then(|table| {
                let found = table.iter().find(|(key, _)| key.get_ref().as_ref() == part);
                found.map(|(key, value)| (key.span().start, value))
            });
            let numbered = || {
                let value = list?.get(part.parse::<usize>().ok()?)?;
                Some((value.span().start, value))
            };
            let Some((start, value)) = named.or_else(numbered) else { break };
            at = start;
            table = value.get_ref().as_table();
            list = value.get_ref().as_array().map(|array| &array[..]);
        }
        at
    }
}

/// Adds what a base says and a config does not.
fn put_under<'a>(tree: &mut DeTable<'a>, base: DeTable<'a>) {
    for (key, value) in base {
        let Some(own) = tree.get_mut(&key) else {
            tree.insert(key, value);
            continue;
        };
        if let (DeValue::Table(own), DeValue::Table(base)) = (own.get_mut(), value.into_inner())
            && key.get_ref().as_ref() != "budget"
        {
            for (key, value) in base {
                own.entry(key).or_insert(value);
            }
        }
    }
}

/// The base that a text names.
fn base(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    table.get("base")?.as_str().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_own_lines() {
        let text = "title = \"dim\"\n[embedding]\ndim = 4\n[train]\noptimizer = { kind = \"sgd\",\n  lr = 1 }\n[[scheme]]\nkind = \"full\"\n[[scheme]]\nkind = \"hash\"\ndim = 0\n";
        for (key, line) in [
            ("embedding.dim", 3),
            ("scheme.1.dim", 11),
            ("scheme.0.dim", 7),
            ("train.optimizer", 5),
            ("train.batch", 4),
            ("nothing", 1),
            ("title.x", 1),
        ] {
            let source = Source::of(Path::new("a.toml"), text);
            assert_eq!(source.error(key, "no").to_string(), format!("a.toml:{line}: no"), "{key}");
        }
        let source = Source::of(Path::new("a.toml"), "not = [toml");
        assert_eq!(source.error("not", "no").to_string(), "a.toml:1: no");
    }

    /// A base in a folder of its own, and what differs from it.
    fn twins(name: &str, own: &str) -> (PathBuf, Result<Source>) {
        let folder = std::env::temp_dir().join(format!("embc-base-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let base = "title = \"a\"\n\n[train]\nbatch = 1\noptimizer = { kind = \"adam\", lr = 1 }\n[budget]\nrows = [1, 2]\nof = \"all\"\n[[scheme]]\nkind = \"full\"\n[[scheme]]\nkind = \"hash\"\n";
        std::fs::write(folder.join("a.toml"), base).unwrap();
        std::fs::write(folder.join("b.toml"), own).unwrap();
        let source = Source::read(&folder.join("b.toml"));
        (folder, source)
    }

    #[test]
    fn what_differs_stands_before_the_base() {
        let own = "base = \"a\"\ntitle = \"b\"\n[train]\noptimizer = { kind = \"sgd\" }\nepochs = 3\n[budget]\nbytes = [9]\n[[scheme]]\nkind = \"qr\"\n";
        let (folder, source) = twins("merge", own);
        let source = source.unwrap();
        let merged: toml::Table = source.parse().unwrap();
        let expect = "base = \"a\"\ntitle = \"b\"\n[train]\nbatch = 1\nepochs = 3\noptimizer = { kind = \"sgd\" }\n[budget]\nbytes = [9]\n[[scheme]]\nkind = \"qr\"\n";
        assert_eq!(merged, expect.parse().unwrap());
        let place = |key: &str| source.error(key, "").to_string().replace(": ", "");
        assert!(place("train.batch").ends_with("a.toml:4"), "{}", place("train.batch"));
        assert!(place("train.epochs").ends_with("b.toml:5"), "{}", place("train.epochs"));
        assert!(place("scheme.0.kind").ends_with("b.toml:9"), "{}", place("scheme.0.kind"));
        assert!(source.file_of("train.batch").ends_with("a.toml"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn bases_that_cannot_be() {
        for (name, own, expect) in [
            (
                "none",
                "title = \"b\"\nbase = \"nosuch\"\n",
                "b.toml:2: base: nosuch: no such config",
            ),
            ("itself", "base = \"b\"\n", "b.toml:1: base \"b\" is based on this one"),
        ] {
            let (folder, source) = twins(name, own);
            let error = source.unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
            std::fs::remove_dir_all(folder).unwrap();
        }
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Titled {
            #[allow(dead_code)]
            title: String,
        }
        let (folder, source) = twins("key", "title = \"b\"\n");
        source.unwrap().parse::<Titled>().unwrap();
        let (_, source) = twins("key", "base = \"a\"\n");
        let error = source.unwrap().parse::<Titled>().unwrap_err().to_string();
        assert!(error.contains("b.toml:1: unknown key \"base\""), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
