//! Nearest names for mistyped ones.

/// "; did you mean x?" if a known name is near.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> String {
    let score = |name: &str| strsim::jaro_winkler(wrong, name);
    let best = known.max_by(|a, b| score(a).total_cmp(&score(b)));
    match best.filter(|name| score(name) > 0.75) {
        Some(name) => format!("; did you mean {name:?}?"),
        None => String::new(),
    }
}

/// Turns serde's "unknown field `x`, expected one of `a`, `b`" into a suggestion.
pub fn key(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown field"), quoted.next()) {
        (true, Some(wrong)) => {
            let known: Vec<&str> = quoted.collect();
            let hint = nearest(wrong, known.iter().copied());
            let known = if known.is_empty() { "none here".into() } else { known.join(", ") };
            format!("unknown key {wrong:?}{hint}; the keys are {known}")
        }
        _ => message.replace('\n', " "),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn unknown_keys_suggest_the_nearest() {
        assert_eq!(
            super::key("unknown field `epoch`, expected one of `epochs`, `batch`"),
            "unknown key \"epoch\"; did you mean \"epochs\"?; the keys are epochs, batch"
        );
        assert_eq!(super::key("missing field `dim`"), "missing field `dim`");
    }
}
