//! Where keys stand in a config, for errors about what they mean.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The line of a key such as "scheme.2.dim", from 1; of the deepest part of it that is there.
pub fn line_of(text: &str, path: &str) -> usize {
    let Ok(root) = DeTable::parse(text) else { return 1 };
    let mut at = 0;
    let mut here = Step::Table(root.get_ref());
    for part in path.split('.') {
        let found = match here {
            Step::Table(table) => table
                .iter()
                .find(|(key, _)| key.get_ref().as_ref() == part)
                .map(|(key, value)| (key.span().start, value)),
            Step::List(list) => part
                .parse::<usize>()
                .ok()
                .and_then(|i| list.get(i))
                .map(|value| (value.span().start, value)),
            Step::Leaf => None,
        };
        let Some((start, value)) = found else { break };
        at = start;
        here = match value.get_ref() {
            DeValue::Table(table) => Step::Table(table),
            DeValue::Array(list) => Step::List(list),
            _ => Step::Leaf,
        };
    }
    line_at(text, at)
}

enum Step<'a> {
    Table(&'a DeTable<'a>),
    List(&'a [Spanned<DeValue<'a>>]),
    Leaf,
}

/// The line of an offset, from 1.
pub fn line_at(text: &str, offset: usize) -> usize {
    1 + text[..offset.min(text.len())].matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn keys_have_their_own_lines() {
        let text = "title = \"dim\"\n[embedding]\ndim = 4\n[train]\noptimizer = { kind = \"sgd\",\n  lr = 1 }\n[[scheme]]\nkind = \"full\"\n[[scheme]]\nkind = \"hash\"\ndim = 0\n";
        for (path, line) in [
            ("embedding.dim", 3),
            ("scheme.1.dim", 11),
            ("scheme.0.dim", 7),
            ("train.optimizer", 5),
            ("train.batch", 4),
            ("nothing", 1),
            ("title.x", 1),
        ] {
            assert_eq!(line_of(text, path), line, "{path}");
        }
        assert_eq!(line_of("not = [toml", "not"), 1);
    }
}
