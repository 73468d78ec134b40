//! How text is written: plain where nobody can misread it, in quotes where somebody could.

use serde_saphyr::granit_parser::ScalarStyle;

use crate::tree::Scalar;

/// What some reader of YAML takes for something else than text, in lower case.
const WORDS: &[&str] = &["~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "=", "<<"];

/// A scalar on one line, or a header with lines below.
#[derive(Debug)]
pub(crate) enum Written {
    Inline(String),
    Block { header: &'static str, lines: Vec<String> },
}

/// How a value is written.
pub(crate) fn write(scalar: &Scalar) -> Written {
    match scalar.style {
        ScalarStyle::Literal | ScalarStyle::Folded => block(scalar),
        ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
            Written::Inline(inline(scalar))
        }
    }
}

/// How a key is written.
pub(crate) fn inline(scalar: &Scalar) -> String {
    let text = &scalar.text;
    let plain = scalar.style == ScalarStyle::Plain;
    match () {
        // All that means nothing has one spelling.
        () if plain && ["~", ""].contains(&text.as_str()) => "null".to_owned(),
        // A number, or what readers disagree about: as it was written it is read as before.
        () if is_ambiguous(text) && plain => text.clone(),
        () if !is_ambiguous(text) && is_plain(text) => text.clone(),
        () => quoted(text),
    }
}

/// Whether a text block is one that `|`, `|-`, `>` or `>-` stand for without more signs.
///
/// The others, with blanks at their begin or their end, mean what cannot be seen, and are nobody's to lay out.
pub(crate) fn is_simple_block(text: &str) -> bool {
    let kept = text.strip_suffix('\n').unwrap_or(text);
    text.is_empty()
        || !kept.starts_with(char::is_whitespace)
            && !kept.ends_with(char::is_whitespace)
            && kept.chars().all(|character| character == '\n' || is_printable(character))
}

fn block(scalar: &Scalar) -> Written {
    let text = &scalar.text;
    if text.is_empty() || !is_simple_block(text) {
        return Written::Inline(quoted(text));
    }
    let kept = text.strip_suffix('\n').unwrap_or(text);
    let ends = kept.len() < text.len();
    if scalar.style == ScalarStyle::Folded {
        return Written::Block { header: if ends { ">" } else { ">-" }, lines: scalar.folded.clone() };
    }
    let lines = kept.split('\n').map(str::to_owned).collect();
    Written::Block { header: if ends { "|" } else { "|-" }, lines }
}

/// Whether some reader could take the text for a number, a date, a truth value or nothing at all.
fn is_ambiguous(text: &str) -> bool {
    let numeric = |c: char| c.is_ascii_hexdigit() || "xXoOtTzZ_+-.:, infINFaA".contains(c);
    let begins_numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    text.is_empty()
        || WORDS.contains(&text.to_ascii_lowercase().as_str())
        || (begins_numeric && text.chars().all(numeric))
}

/// Whether the text can stand without quotes: a strict choice of what YAML allows.
fn is_plain(text: &str) -> bool {
    let begins = |c: char| c.is_alphanumeric() || "/_.^$(+".contains(c);
    let inside = |c: char| c.is_alphanumeric() || " -_./:=+@()^$*?~;,'&!<>|%".contains(c);
    text.starts_with(begins)
        && text.chars().all(inside)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
}

/// In double quotes; in single quotes where that saves escapes.
fn quoted(text: &str) -> String {
    if text.contains(['\\', '"']) && text.chars().all(is_printable) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            _ if is_printable(character) => quoted.push(character),
            '\0'..='\u{ff}' => quoted.push_str(&format!("\\x{:02X}", u32::from(character))),
            _ => quoted.push_str(&format!("\\U{:08X}", u32::from(character))),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character can be seen for what it is. Others, and those that turn the direction of text, are escaped.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        && !matches!(character, '\u{feff}' | '\u{fff0}'..='\u{ffff}')
        && (character == ' ' || !character.is_whitespace())
}
