//! Names of hosts, and patterns of such names, as DNS rules, `toFQDNs` and `serverNames` write them.
//!
//! A pattern is kept as text in one canonical form: lower case, no dot at the end, `*` instead of longer runs of
//! stars. `*` is any number of letters, digits, `-` and `_`, and never a dot; `**.` in front is one or more whole
//! labels; `*` alone is every name.

/// The longest name or pattern.
const NAME_MAX: usize = 255;
/// The longest part of a name between two dots.
const LABEL_MAX: usize = 63;

/// The pattern of every name.
const EVERY_NAME: &str = "*";
/// The name of the root of all names.
const ROOT: &str = ".";

/// Why a text is no name or no pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// Nothing is written.
    #[error("a name must not be empty")]
    Empty,
    /// Too many characters.
    #[error("a name has at most {NAME_MAX} characters")]
    TooLong,
    /// Too many characters between two dots.
    #[error("a name has at most {LABEL_MAX} characters between two dots")]
    LabelTooLong,
    /// Nothing between two dots, or before the first.
    #[error("a name has something before and between its dots")]
    EmptyLabel,
    /// A character that is not allowed.
    #[error(
        "invalid character {0:?}: a name is made of letters, digits, - _ and dots, a pattern of * as well"
    )]
    Character(char),
}

/// The canonical form of a name.
pub(super) fn name(written: &str) -> Result<String, NameError> {
    match written.chars().find(|c| *c == '*') {
        Some(star) => Err(NameError::Character(star)),
        None => pattern(written),
    }
}

/// The canonical form of a pattern.
pub(super) fn pattern(written: &str) -> Result<String, NameError> {
    check_characters(written)?;
    let text = without_last_dot(written).to_ascii_lowercase();
    if text.is_empty() {
        return Ok(ROOT.to_owned());
    }
    if text.bytes().all(|byte| byte == b'*') {
        return Ok(EVERY_NAME.to_owned());
    }
    let (labels, prefix) = match text.split_once('.') {
        Some((stars, rest)) if stars.len() > 1 && stars.bytes().all(|byte| byte == b'*') => (rest, "**."),
        Some(_) | None => (text.as_str(), ""),
    };
    for label in labels.split('.') {
        if label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        if label.bytes().filter(|byte| *byte != b'*').count() > LABEL_MAX {
            return Err(NameError::LabelTooLong);
        }
    }
    let mut canonical = prefix.to_owned();
    for c in labels.chars() {
        if c != '*' || !canonical.ends_with('*') {
            canonical.push(c);
        }
    }
    Ok(canonical)
}

fn check_characters(written: &str) -> Result<(), NameError> {
    if written.is_empty() {
        return Err(NameError::Empty);
    }
    if written.len() > NAME_MAX {
        return Err(NameError::TooLong);
    }
    let known = |c: char| u8::try_from(c).is_ok_and(|byte| is_of_label(byte) || matches!(byte, b'.' | b'*'));
    let foreign = written.chars().find(|c| !known(*c));
    foreign.map_or(Ok(()), |c| Err(NameError::Character(c)))
}

/// Whether a name, of either case and with or without a dot at its end, is meant by a canonical pattern.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let name = without_last_dot(name);
    if pattern == EVERY_NAME {
        return name.is_empty() || is_host_name(name);
    }
    if pattern == ROOT || name.is_empty() {
        return pattern == ROOT && name.is_empty();
    }
    let Some(labels) = pattern.strip_prefix("**.") else { return labels_match(pattern, name) };
    let wanted = labels.split('.').count();
    let found = name.split('.').count();
    let Some((at, _)) = name.match_indices('.').nth((found - 1).saturating_sub(wanted)) else { return false };
    let Some((front, rest)) = name.split_at_checked(at) else { return false };
    found > wanted && is_host_name(front) && labels_match(labels, without_first_dot(rest))
}

/// Whether every label is there and can be in a name.
pub(super) fn is_host_name(name: &str) -> bool {
    name.split('.').all(|label| !label.is_empty() && label.bytes().all(is_of_label))
}

pub(super) fn without_last_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn without_first_dot(name: &str) -> &str {
    name.strip_prefix('.').unwrap_or(name)
}

const fn is_of_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn labels_match(pattern: &str, name: &str) -> bool {
    let mut names = name.split('.');
    let all = pattern.split('.').all(|label| names.next().is_some_and(|name| label_matches(label, name)));
    all && names.next().is_none()
}

/// Whether one label is meant by a pattern for it.
fn label_matches(pattern: &str, label: &str) -> bool {
    let mut pieces = pattern.split('*');
    let (Some(first), last) = (pieces.next(), pieces.next_back()) else { return false };
    let Some(last) = last else { return pattern.eq_ignore_ascii_case(label) };
    if !label.bytes().all(is_of_label) || label.len() < first.len() + last.len() {
        return false;
    }
    let label = label.to_ascii_lowercase();
    let inner = label.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    // The leftmost place of each piece leaves most for the next ones.
    inner.is_some_and(|inner| {
        let rest = pieces.try_fold(inner, |rest, piece| rest.split_once(piece).map(|(_, after)| after));
        rest.is_some()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms() {
        for (written, want) in [
            ("API.Example.COM.", Ok("api.example.com")),
            ("a_b-c.x", Ok("a_b-c.x")),
            (".", Ok(".")),
            ("*", Ok("*")),
            ("**", Ok("*")),
            ("****.", Ok("*")),
            ("*.", Ok("*")),
            ("*.com", Ok("*.com")),
            ("**.com", Ok("**.com")),
            ("****.com", Ok("**.com")),
            ("**x.com", Ok("*x.com")),
            ("a.**.com", Ok("a.*.com")),
            ("**.**.com", Ok("**.*.com")),
            ("a***b.x.", Ok("a*b.x")),
            ("", Err(NameError::Empty)),
            ("..", Err(NameError::EmptyLabel)),
            ("a..b", Err(NameError::EmptyLabel)),
            (".a", Err(NameError::EmptyLabel)),
            ("a.com..", Err(NameError::EmptyLabel)),
            ("**..com", Err(NameError::EmptyLabel)),
            ("b\u{fc}cher.example", Err(NameError::Character('\u{fc}'))),
            ("a b", Err(NameError::Character(' '))),
            ("a/b", Err(NameError::Character('/'))),
            ("a.com:80", Err(NameError::Character(':'))),
        ] {
            assert_eq!(pattern(written).as_deref(), want.as_ref().copied(), "{written:?}");
        }
        assert_eq!(name("*.com"), Err(NameError::Character('*')));
        assert_eq!(name("Example.com.").as_deref(), Ok("example.com"));
    }

    #[test]
    fn lengths() {
        let label = "a".repeat(LABEL_MAX);
        assert!(name(&format!("{label}.com")).is_ok());
        assert_eq!(name(&format!("{label}a.com")), Err(NameError::LabelTooLong));
        assert_eq!(pattern(&format!("{label}a*.com")), Err(NameError::LabelTooLong));
        assert!(pattern(&format!("{label}*.com")).is_ok(), "the star may stand for nothing");
        let long = format!("{label}.{label}.{label}.{label}");
        assert_eq!(long.len(), NAME_MAX);
        assert!(name(&long).is_ok());
        assert_eq!(name(&format!("{long}.")), Err(NameError::TooLong));
    }

    #[test]
    fn what_patterns_mean() {
        for (written, matching, others) in [
            ("api.x.io", "api.x.io API.X.io api.x.io.", "x.io a.api.x.io api.x.iox"),
            ("*.x.io", "a.x.io A.X.IO. a-b_1.x.io .x.io", "x.io a.b.x.io a.x.io.y"),
            ("*x.io", "x.io subx.io", "a.x.io xx.ioo"),
            ("**.x.io", "a.x.io a.b.x.io a.b.c.x.io.", "x.io .x.io a..x.io ax.io a.!.x.io"),
            ("****.x.io", "a.b.x.io", "x.io"),
            ("a.**.x.io", "a.b.x.io a..x.io", "a.b.c.x.io a.x.io"),
            ("*.com", "a.com", "com a.b.com"),
            ("a*b.x", "ab.x aXb.x aabb.x", "a.b.x a.x b.x aba.x"),
            ("a*b*c.x", "abc.x aXbYc.x abcbc.x", "acb.x ab.x"),
            ("*a*.x", "a.x bab.x", "b.x"),
            ("**.*.x", "a.b.x a.b.c.x", "a.x x"),
            ("*", "a a.b a.b.c. . x_y", "a..b a!b .a"),
            ("*.", "a.b.c", "a!b"),
            (".", ".", "a"),
        ] {
            let canonical = pattern(written).unwrap();
            for text in matching.split(' ') {
                assert!(matches(&canonical, text), "{written} means {text}");
            }
            for text in others.split(' ') {
                assert!(!matches(&canonical, text), "{written} does not mean {text}");
            }
        }
    }

    /// The meaning once more, as a regular expression.
    fn oracle(written: &str, name: &str) -> bool {
        let text = written.to_ascii_lowercase();
        let body = text.strip_suffix('.').unwrap_or(&text);
        let name = format!("{}.", name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
        let expression = if body.chars().all(|c| c == '*') {
            r"([-a-z0-9_]+[.])+|[.]".to_owned()
        } else {
            let leading = regex::Regex::new(r"^\*\*+\.").unwrap();
            let (front, rest) = match leading.find(body) {
                Some(found) => (r"[-a-z0-9_]+([.][-a-z0-9_]+)*[.]", body.split_at(found.end()).1),
                None => ("", body),
            };
            let rest = regex::Regex::new(r"\*+").unwrap().replace_all(rest, "@").replace('.', "[.]");
            format!("{front}{}[.]", rest.replace('@', "[-a-z0-9_]*"))
        };
        regex::Regex::new(&format!("^(?:{expression})$")).unwrap().is_match(&name)
    }

    proptest! {
        #[test]
        fn patterns_mean_the_same_as_expressions(
            written in "[*]{0,3}[.]?[ab*]{1,3}([.][ab*]{1,3}){0,2}[.]?",
            name in "[abA]{0,3}([.][ab]{1,3}){0,3}[.]?",
        ) {
            if let (Ok(canonical), false) = (pattern(&written), name.is_empty()) {
                prop_assert_eq!(matches(&canonical, &name), oracle(&written, &name), "{} {}", written, name);
                prop_assert_eq!(pattern(&canonical), Ok(canonical));
            }
        }
    }
}
