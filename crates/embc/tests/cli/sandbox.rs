//! A folder of its own for each test, and the program run inside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub struct Sandbox {
    folder: TempDir,
}

/// What a run printed, and its exit code.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Checks the exit code and that stderr holds `text`.
    #[track_caller]
    pub fn expect(self, code: i32, text: &str) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(text), "no {text:?} in: {}", self.stderr);
        self
    }

    /// Checks for exit code 2 and one line of error that holds `text`.
    #[track_caller]
    pub fn refuses(self, text: &str) -> Self {
        let ran = self.expect(2, text);
        let errors: Vec<&str> =
            ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one line of error: {}", ran.stderr);
        assert!(errors[0].contains(text), "{}", ran.stderr);
        ran
    }

    /// Checks for success.
    #[track_caller]
    pub fn fine(self) -> Self {
        self.expect(0, "")
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

impl Sandbox {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The text of a file.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The program with its arguments, in this folder, with this folder's registry if there is one.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_embc"));
        command.current_dir(self.folder.path()).args(args);
        command.env_remove("EMBC_DATASETS").env_remove("EMBC_DATA_DIR");
        if self.path("datasets.toml").exists() {
            command.env("EMBC_DATASETS", self.path("datasets.toml"));
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// A registry of one data set called `it`.
    pub fn registry(&self, format: &str, file: &str, more: &str) {
        let text = format!(
            "[it]\ntitle = \"a test\"\nformat = \"{format}\"\nsplit = {{ rule = \"tail\", valid = 0.2, test = 0.2 }}\nfiles.data = {{ path = \"{file}\" }}\n{more}"
        );
        self.write("datasets.toml", text);
    }

    /// `embc data info it` over one file in a format.
    pub fn info(&self, format: &str, bytes: impl AsRef<[u8]>, more: &str) -> Ran {
        self.write("raw.txt", bytes);
        self.registry(format, "raw.txt", more);
        self.run(&["data", "info", "it", "--format", "json"])
    }

    /// True if a cache folder, whole or not, is left.
    pub fn has_cache(&self) -> bool {
        let folder = self.path("data/cache");
        folder.exists() && caches(&folder) > 0
    }
}

/// Entries of a folder of caches but for its locks.
pub fn caches(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with(".lock")).count()
}

/// `rows` lines in Criteo's layout.
pub fn criteo_rows(rows: usize) -> String {
    let line = |i: usize| {
        let dense: Vec<String> = (0..13).map(|j| (i * j % 7).to_string()).collect();
        let ids: Vec<String> = (0..26).map(|j| format!("{:08x}", (i + j) % 50)).collect();
        format!("{}\t{}\t{}\n", i % 4 / 3, dense.join("\t"), ids.join("\t"))
    };
    (0..rows).map(line).collect()
}
