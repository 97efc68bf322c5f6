//! Files that are written whole or not at all.

use crate::error::{At, Error, Result};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes `path` through a temporary file beside it, which `write` fills: synced, renamed, and
/// readable by whom the user's umask lets.
pub fn write<T>(path: &Path, write: impl FnOnce(&mut NamedTempFile) -> Result<T>) -> Result<T> {
    let (folder, prefix) = (folder(path), prefix(path));
    std::fs::create_dir_all(folder).at(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).at(folder)?;
    let value = write(&mut file)?;
    file.as_file().sync_all().at(path)?;
    file.persist(path).map_err(|error| Error::io(path, &error.error))?;
    sync_folder(folder)?;
    Ok(value)
}

/// What killed writers of `path` left beside it: to be removed by who alone may write it.
pub fn left_of(path: &Path) -> Vec<PathBuf> {
    let prefix = prefix(path);
    let files = std::fs::read_dir(folder(path)).into_iter().flatten().flatten();
    let of_it = |name: &str| name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('.'));
    let of_it = files.filter(|file| of_it(&file.file_name().to_string_lossy()));
    of_it.map(|file| file.path()).collect()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Of the names of its temporary files.
fn prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.")
}

/// Makes sure that what was renamed into a folder is there after a crash.
pub fn sync_folder(folder: &Path) -> Result<()> {
    // Other systems cannot open folders, and do not need to.
    #[cfg(unix)]
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).at(folder)?;
    Ok(())
}
