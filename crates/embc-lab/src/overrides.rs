//! `--set key=value`: overrides of a config.

use anyhow::{Result, anyhow, bail};

/// Applies `a.b=value` to a parsed config. `scheme.kind` picks schemes, other `scheme.` keys are set
/// on all of them.
pub fn apply(table: &mut toml::Table, set: &str) -> Result<()> {
    let (path, text) = set
        .split_once('=')
        .ok_or_else(|| anyhow!("--set {set}: write it as key=value, such as train.epochs=2"))?;
    let value: toml::Value = format!("v = {text}").parse::<toml::Table>().map_or_else(
        |_| toml::Value::String(text.into()),
        |mut t| t.remove("v").expect("just set"),
    );
    let keys: Vec<&str> = path.trim().split('.').collect();
    if keys[0] == "scheme" && keys.len() == 2 {
        let Some(toml::Value::Array(schemes)) = table.get_mut("scheme") else {
            bail!("--set {set}: the config has no [[scheme]]");
        };
        if keys[1] == "kind" {
            let is = |scheme: &toml::Value| {
                scheme.get("kind") == Some(&value) || scheme.get("label") == Some(&value)
            };
            match schemes.iter().any(is) {
                true => schemes.retain(is),
                false => *schemes = vec![toml::Table::from_iter([("kind".into(), value)]).into()],
            }
        } else {
            for scheme in schemes.iter_mut().filter_map(|s| s.as_table_mut()) {
                scheme.insert(keys[1].into(), value.clone());
            }
        }
        return Ok(());
    }
    let (last, folders) = keys.split_last().expect("split gives one");
    let mut at = table;
    for key in folders {
        let entry = at.entry(*key).or_insert_with(|| toml::Table::new().into());
        at = entry.as_table_mut().ok_or_else(|| anyhow!("--set {set}: {key} is not a table"))?;
    }
    let axes = ["compression", "params", "bytes", "rows", "cap"];
    if folders == ["budget"] && axes.contains(last) {
        axes.iter().for_each(|axis| drop(at.remove(*axis)));
    }
    at.insert((*last).into(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(set: &str, expect: &str) {
        let text = "[train]\nepochs = 1\n[budget]\nrows = [4]\n[[scheme]]\nkind = \"full\"\n[[scheme]]\nkind = \"qr\"\n";
        let mut table: toml::Table = text.parse().unwrap();
        let result = apply(&mut table, set).map(|()| toml::to_string(&table).unwrap());
        let flat =
            result.map_or_else(|e| e.to_string(), |t| t.replace("\n\n", "\n").replace('\n', " "));
        assert!(flat.contains(expect), "{flat}");
    }

    #[test]
    fn overrides() {
        check("train.epochs=2", "epochs = 2");
        check("title=some words", "title = \"some words\"");
        check("budget.compression=[16]", "[budget] compression = [16] [[scheme]]");
        check("scheme.kind=qr", "[[scheme]] kind = \"qr\" [train]");
        check("scheme.kind=memcom", "[[scheme]] kind = \"memcom\" [train]");
        check("scheme.dim=8", "dim = 8 kind = \"qr\"");
        check("train", "write it as key=value");
    }
}
