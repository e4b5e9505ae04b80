//! Comments and documents keep to their width, and documentation begins like a sentence.

mod tracked;

use tracked::{read, tracked};

/// Most columns of a line.
const COLUMNS: usize = 120;

#[test]
fn comments_keep_to_the_width_of_code() {
    let mut wide = Vec::new();
    for path in tracked("*.rs") {
        for (number, line) in read(&path).lines().enumerate() {
            if line.trim_start().starts_with("//") && line.chars().count() > COLUMNS {
                wide.push(format!("{path}:{}", number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{} comments are wider than {COLUMNS} columns: {wide:#?}", wide.len());
}

/// The text of a line of documentation.
fn documentation(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim_start)
}

/// Whether a first line begins like a sentence: with a capital letter or a number, perhaps in a code span, a link or a
/// heading, or with a code span that is a name.
fn begins_like_a_sentence(text: &str) -> bool {
    let first = text.trim_start_matches(['#', ' ', '[', '*', '|', '"', '(']).chars().next();
    first.is_none_or(|first| first.is_uppercase() || first.is_ascii_digit() || first == '`')
}

#[test]
fn documentation_begins_with_a_capital_letter() {
    let mut small = Vec::new();
    for path in tracked("*.rs") {
        let (mut before, text) = (None, read(&path));
        for (number, line) in text.lines().enumerate() {
            let found = documentation(line);
            if let (None, Some(found)) = (before, found)
                && !begins_like_a_sentence(found)
            {
                small.push(format!("{path}:{}: {found}", number + 1));
            }
            before = found;
        }
    }
    assert!(small.is_empty(), "{} comments do not begin like sentences: {small:#?}", small.len());
}

#[test]
fn documents_keep_to_the_width_outside_of_tables_and_code() {
    let mut wide = Vec::new();
    for path in tracked("*.md") {
        let mut in_code = false;
        for (number, line) in read(&path).lines().enumerate() {
            in_code ^= line.trim_start().starts_with("```");
            let is_exempt = in_code || line.trim_start().starts_with('|') || line.starts_with("![");
            if !is_exempt && line.chars().count() > COLUMNS {
                wide.push(format!("{path}:{}", number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{} lines are wider than {COLUMNS} columns: {wide:#?}", wide.len());
}
