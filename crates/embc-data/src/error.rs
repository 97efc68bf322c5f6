//! Errors of files and registries: one line, what is wrong, where, and what to do.

use polars_error::PolarsError;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with data.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line of a raw file.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong and what to do.
        what: String,
    },
    /// A file or folder as a whole.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A data set's definition or its use.
    #[error("{0}")]
    Data(String),
    /// The user asked to stop.
    #[error("interrupted")]
    Cancelled,
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of line `line` of `path`.
    pub fn line(path: &Path, line: u64, what: impl Display) -> Self {
        Self::Line { path: path.into(), line, what: what.to_string() }
    }

    /// An error of `path` as a whole.
    pub fn file(path: &Path, what: impl Display) -> Self {
        Self::File { path: path.into(), what: what.to_string() }
    }

    /// What polars says of a file.
    pub(crate) fn polars(path: &Path, error: PolarsError) -> Self {
        match error {
            PolarsError::IO { error, .. } => Self::io(path, &error),
            other if other.to_string().contains("needs to be active") => Self::file(
                path,
                "is packed in a way that embc does not read, such as Brotli: write it with zstd or snappy",
            ),
            other => Self::file(path, other),
        }
    }

    /// An I/O error in the user's words.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        // What a reader of ours said inside another's.
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Error::Cancelled) => return Error::Cancelled,
            Some(Error::Line { path, line, what }) => return Error::line(path, *line, what),
            Some(Error::File { path, what }) => return Error::file(path, what),
            _ => {}
        }
        let what = match error.kind() {
            io::ErrorKind::NotFound => "no such file or folder".into(),
            io::ErrorKind::PermissionDenied => {
                "permission denied; check the rights or choose another folder with --data-dir or --results"
                    .into()
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "the file system is read-only; choose another folder with --data-dir or --results".into()
            }
            io::ErrorKind::StorageFull => {
                "the disk is full; free some space or choose another folder with --data-dir or --results".into()
            }
            io::ErrorKind::UnexpectedEof => "the file is cut off; get it again".into(),
            _ => error.to_string(),
        };
        Self::file(path, what)
    }
}

/// Adds the path to an I/O result.
pub trait At<T> {
    /// Names the file that the error is about.
    fn at(self, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|error| Error::io(path, &error))
    }
}
