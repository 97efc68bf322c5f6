//! Tables for people.

use comfy_table::{ContentArrangement, Table, TableStyle, presets};

/// A plain table for a terminal.
pub fn text_table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let header = header.iter().map(|name| name.to_string()).collect();
    render(presets::NOTHING, header, rows)
}

/// A Markdown table, aligned so that it also reads well as it is.
pub fn markdown(header: &[String], rows: &[Vec<String>]) -> String {
    let escaped = |row: &[String]| row.iter().map(|cell| cell.replace('|', "\\|")).collect();
    render(presets::ASCII_MARKDOWN, escaped(header), rows.iter().map(|row| escaped(row)))
}

fn render(
    style: TableStyle,
    header: Vec<String>,
    rows: impl Iterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    table.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_no_new_column() {
        let table = markdown(&["a".into()], &[vec!["x | y".into()]]);
        assert_eq!(table, "| a      |\n|--------|\n| x \\| y |\n");
    }
}
