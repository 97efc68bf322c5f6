//! Files that are written whole or not at all.

use crate::error::{At, Error, Result};
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes `path` through a temporary file beside it, which `write` fills: synced, renamed, and
/// readable by whom the user's umask lets.
pub fn write<T>(path: &Path, write: impl FnOnce(&mut NamedTempFile) -> Result<T>) -> Result<T> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).at(folder)?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder).at(folder)?;
    let value = write(&mut file)?;
    file.as_file().sync_all().at(path)?;
    file.persist(path).map_err(|error| Error::io(path, &error.error))?;
    sync_folder(folder)?;
    Ok(value)
}

/// Makes sure that what was renamed into a folder is there after a crash.
pub fn sync_folder(folder: &Path) -> Result<()> {
    // Other systems cannot open folders, and do not need to.
    #[cfg(unix)]
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).at(folder)?;
    Ok(())
}
