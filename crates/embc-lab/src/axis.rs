//! `[budget]`: one axis and its values.

use anyhow::{Context, Result, bail};
use embc_core::budget::{Allocation, Budget, Of};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use std::borrow::Cow;

/// A number of bytes: 1048576, "1MiB", "1.5 GB".
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub struct Bytes(pub u64);

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"] })
    }
}

impl TryFrom<serde_json::Value> for Bytes {
    type Error = String;
    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        match &value {
            serde_json::Value::String(text) => text.parse(),
            other => other.as_u64().map(Bytes).ok_or_else(|| format!("{other} is not a size")),
        }
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
        let scale = match text[digits.len()..].trim() {
            "" | "B" => 1.0,
            "kB" | "KB" => 1e3,
            "MB" => 1e6,
            "GB" => 1e9,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "TB" => 1e12,
            "GiB" => 1024.0 * 1024.0 * 1024.0,
            "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            unit => {
                return Err(format!(
                    "unknown unit {unit:?} in {text:?}; use kB, MB, GB, TB, KiB, MiB, GiB or TiB"
                ));
            }
        };
        match digits.parse::<f64>() {
            Ok(n) if n >= 0.0 && n * scale < 1e18 => Ok(Bytes((n * scale) as u64)),
            _ => Err(format!("{text:?} is not a size such as 50MiB")),
        }
    }
}

/// `[budget]`: exactly one axis.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// Times fewer trained parameters than the uncompressed embedding.
    pub compression: Option<Vec<f64>>,
    /// Trained parameters of all tables.
    pub params: Option<Vec<u64>>,
    /// Bytes of all tables, pointers and codes included, such as "50MiB".
    pub bytes: Option<Vec<Bytes>>,
    /// Parameters over dim, of every table, even beyond its full size.
    pub rows: Option<Vec<u64>>,
    /// Parameters of the largest table; smaller tables stay full.
    pub cap: Option<Vec<u64>>,
    /// What `compression` is a ratio of.
    #[serde(default)]
    pub of: Of,
    /// How `compression`, `params` and `bytes` are divided among tables.
    #[serde(default)]
    pub allocation: Allocation,
}

impl BudgetConfig {
    /// True where it is one for all tables, to be divided among them.
    pub fn is_divided(&self) -> bool {
        self.rows.is_none() && self.cap.is_none()
    }
}

/// A value of the budget axis as it stands in records and tables.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetPoint {
    /// The axis: compression, params, bytes, rows or cap.
    pub axis: &'static str,
    /// The value on it.
    pub value: serde_json::Number,
    /// What it bounds.
    pub budget: Budget,
}

/// The budget of a value on an axis.
pub fn budget(axis: &str, value: &serde_json::Number) -> Result<Budget> {
    let whole = || value.as_u64().filter(|&n| n > 0);
    Ok(match (axis, whole(), value.as_f64()) {
        ("compression", _, Some(ratio)) if ratio >= 1.0 && ratio.is_finite() => {
            Budget::Compression(ratio)
        }
        ("compression", ..) => bail!("[budget] compression = {value} must be at least 1"),
        ("params", Some(n), _) => Budget::Params(n),
        ("bytes", Some(n), _) => Budget::Bytes(n),
        ("rows", Some(n), _) => Budget::Rows(n),
        ("cap", Some(n), _) => Budget::Cap(n),
        ("params" | "bytes" | "rows" | "cap", ..) => bail!("[budget] {axis} needs values above 0"),
        _ => {
            bail!("[budget] has no axis {axis:?}; there are compression, params, bytes, rows, cap")
        }
    })
}

impl BudgetConfig {
    /// The axis and its values.
    pub fn points(&self) -> Result<Vec<BudgetPoint>> {
        let (c, given) = (self, |some: bool, name| some.then_some(name));
        let axes: Vec<&'static str> = [
            given(c.compression.is_some(), "compression"),
            given(c.params.is_some(), "params"),
            given(c.bytes.is_some(), "bytes"),
            given(c.rows.is_some(), "rows"),
            given(c.cap.is_some(), "cap"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [axis] = axes[..] else {
            bail!(
                "[budget] needs exactly one of compression, params, bytes, rows, cap; it has {}",
                axes.len()
            );
        };
        let whole = [&c.params, &c.rows, &c.cap].into_iter().flatten().flatten().copied();
        let bytes = c.bytes.iter().flatten().map(|bytes| bytes.0);
        let mut values: Vec<serde_json::Number> = whole.chain(bytes).map(Into::into).collect();
        for &ratio in c.compression.iter().flatten() {
            let whole = ratio.fract() == 0.0 && (0.0..1e15).contains(&ratio);
            values.push(match whole {
                true => (ratio as u64).into(),
                false => serde_json::Number::from_f64(ratio).with_context(|| {
                    format!("[budget] compression = {ratio} must be at least 1")
                })?,
            });
        }
        if values.is_empty() {
            bail!("[budget] {axis} needs values above 0");
        }
        let point = |value: serde_json::Number| {
            Ok(BudgetPoint { axis, budget: budget(axis, &value)?, value })
        };
        values.into_iter().map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("12", 12), ("1kB", 1000), ("50MiB", 50 << 20), ("1.5 GiB", 3 << 29)]
        {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes);
        }
        for text in ["", "MiB", "-1MB", "5 parsecs"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
