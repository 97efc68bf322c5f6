//! Data sets small enough to check by hand.

use embc_core::batch::Examples;
use embc_data::dataset::{DEFAULT_MEMORY, open};
use embc_data::registry::Registry;
use embc_data::view::{View, ViewSpec};

/// A data set of one or more files, as `spec` and a model see it.
pub fn view(
    format: &str,
    files: &[(&str, &str)],
    more: &str,
    spec: &str,
    examples: Examples,
) -> Result<View, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!("[it]\ntitle = \"t\"\nformat = \"{format}\"\n{more}\n");
    for (name, rows) in files {
        std::fs::write(folder.path().join(name), rows).unwrap();
        text += &format!("files.{name} = {{ path = \"{name}\" }}\n");
    }
    let path = folder.path().join("datasets.toml");
    std::fs::write(&path, text).unwrap();
    let registry = Registry::load(&[path]).map_err(|e| e.to_string())?;
    let spec: ViewSpec = toml::from_str(spec).map_err(|e| e.to_string())?;
    let entry = registry.get("it").unwrap();
    open(entry, &folder.path().join("data-dir"), DEFAULT_MEMORY, spec, examples, &mut |_| Ok(()))
        .map_err(|e| e.to_string())
}
