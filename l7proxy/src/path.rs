//! The one form of a path that is judged and forwarded.
//!
//! Servers differ in what they make of `..`, `//`, `\` and `%2e`, so a rule about `/public/.*` is only as good as the
//! agreement between whoever judges and whoever serves. The path is brought into one form, that form is matched, and
//! that form goes on. It is the one that Envoy makes with `normalize_path`, `merge_slashes` and unescaped slashes
//! (`envoy.extensions.filters.network.http_connection_manager.v3`), whose redirect is left out:
//!
//! - `%XX` of an unreserved character (RFC 3986, section 2.3) is that character; of others the digits are upper case. It
//!   is decoded once: `%252e` stays.
//! - `\`, `%5C` and `%2F` are `/`.
//! - `.` and `..` are resolved (section 5.2.4); above the root there is nothing. Then several slashes in a row are one.
//!
//! What no form can be agreed on is refused: `%00`, `%` without two digits, `#`, bytes that are not printable ASCII,
//! and dots with a parameter (`..;x`), which some servers take for `..`.

use std::borrow::Cow;

/// Why a path has no form to agree on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`.
    #[error("the path does not begin with /")]
    NoSlash,
    /// `%` without two hexadecimal digits.
    #[error("% without two hexadecimal digits")]
    BadEscape,
    /// `%00`: where the path ends is not clear.
    #[error("an escaped NUL")]
    Nul,
    /// A byte that no path has: a fragment's `#`, a space, a control character, or one above 127.
    #[error("a character that no path has")]
    BadCharacter,
    /// A segment such as `..;x`.
    #[error("dots with a parameter")]
    DotsWithParameter,
}

/// The normal form of an origin-form target (RFC 9112, section 3.2.1): path and, if there is one, query.
///
/// The query is not changed, only checked for characters that it cannot have.
///
/// ```
/// use sluice_l7proxy::path::normal;
/// assert_eq!(normal("/public/%2e%2e//admin?x=%2e").unwrap(), "/admin?x=%2e");
/// assert_eq!(normal("/a/b?c").unwrap(), "/a/b?c");
/// assert!(normal("/a%00").is_err());
/// ```
///
/// # Errors
/// Servers could differ about what is meant.
pub fn normal(target: &str) -> Result<Cow<'_, str>, PathError> {
    if !target.starts_with('/') {
        return Err(PathError::NoSlash);
    }
    if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(PathError::BadCharacter);
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if is_normal(path) {
        return Ok(Cow::Borrowed(target));
    }
    let mut found = without_dots(&decoded(path)?)?;
    if let Some(query) = query {
        found.push('?');
        found.push_str(query);
    }
    Ok(Cow::Owned(found))
}

/// Whether nothing in the path could have another form. Most paths are like that.
fn is_normal(path: &str) -> bool {
    let has_dots = || path.contains("/.");
    !path.bytes().any(|byte| matches!(byte, b'%' | b'\\')) && !path.contains("//") && !has_dots()
}

/// The path with its escapes as they are written here, and with one kind of slash.
fn decoded(path: &str) -> Result<String, PathError> {
    let mut found = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        found.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let (Some(digits), Some(byte)) = (digits, byte) else { return Err(PathError::BadEscape) };
        match byte {
            0 => return Err(PathError::Nul),
            b'/' | b'\\' => found.push('/'),
            _ if is_unreserved(byte) => found.push(byte.into()),
            _ => {
                found.push('%');
                found.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = after.get(2..).unwrap_or_default();
    }
    found.push_str(rest);
    Ok(found.replace('\\', "/"))
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The path with every `.` and `..` resolved and without empty segments.
fn without_dots(path: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = true;
    for segment in path.split('/').skip(1) {
        let bare = segment.split(';').next().and_then(|bare| bare.split("%3B").next()).unwrap_or_default();
        if bare.len() < segment.len() && matches!(bare, "." | "..") {
            return Err(PathError::DotsWithParameter);
        }
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let mut found = String::with_capacity(path.len());
    for segment in kept.iter().filter(|segment| !segment.is_empty()) {
        found.push('/');
        found.push_str(segment);
    }
    if ends_in_slash || found.is_empty() {
        found.push('/');
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms() {
        let cases = [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a?b#".trim_end_matches('#'), "/a?b"),
            ("/public/../private", "/private"),
            ("/public/%2e%2e/private", "/private"),
            ("/public/%2E./private", "/private"),
            ("/public/..%2fprivate", "/private"),
            ("/public/..%5Cprivate", "/private"),
            ("/public\\..\\private", "/private"),
            ("/public;x/../private", "/private"),
            ("/public/%252e%252e/private", "/public/%252e%252e/private"),
            ("//public/x", "/public/x"),
            ("/%70ublic", "/public"),
            ("/a//b///c", "/a/b/c"),
            ("/a//../b", "/a/b"),
            ("/a//..//../b", "/a/b"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/../..", "/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
            ("/a%3fb", "/a%3Fb"),
            ("/a%3Fb?%3f", "/a%3Fb?%3f"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a?../b//c\\", "/a?../b//c\\"),
            ("/a;x=1", "/a;x=1"),
            ("/ADMIN", "/ADMIN"),
        ];
        for (target, wanted) in cases {
            assert_eq!(normal(target).unwrap(), wanted, "{target}");
        }
    }

    #[test]
    fn what_servers_could_differ_about_is_refused() {
        let cases = [
            ("", PathError::NoSlash),
            ("a", PathError::NoSlash),
            ("*", PathError::NoSlash),
            ("/%", PathError::BadEscape),
            ("/%2", PathError::BadEscape),
            ("/%zz", PathError::BadEscape),
            ("/%+1", PathError::BadEscape),
            ("/%%32e", PathError::BadEscape),
            ("/a%00b", PathError::Nul),
            ("/a#b", PathError::BadCharacter),
            ("/a b", PathError::BadCharacter),
            ("/a?b#c", PathError::BadCharacter),
            ("/a\tb", PathError::BadCharacter),
            ("/a\u{7f}", PathError::BadCharacter),
            ("/é", PathError::BadCharacter),
            ("/public/..;x/private", PathError::DotsWithParameter),
            ("/public/%2e%2e;/private", PathError::DotsWithParameter),
            ("/public/.;x/private", PathError::DotsWithParameter),
            ("/public/..%3bx/private", PathError::DotsWithParameter),
        ];
        for (target, wanted) in cases {
            assert_eq!(normal(target), Err(wanted), "{target}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_and_holds_nothing_ambiguous(
            parts in proptest::collection::vec(
                prop::sample::select(vec![
                    "/", "//", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", "a", "B", ";", "%25", "%41", "%c3", "?", "%",
                ]),
                0..12,
            ),
        ) {
            let target = format!("/{}", parts.concat());
            let Ok(form) = normal(&target) else { return Ok(()) };
            prop_assert_eq!(&normal(&form).unwrap(), &form);
            let path = form.split('?').next().unwrap();
            let lower = path.to_ascii_lowercase();
            for ambiguous in ["//", "/./", "/../", "\\", "%2e", "%2f", "%5c", "%41"] {
                prop_assert!(!lower.contains(ambiguous), "{} holds {}", form, ambiguous);
            }
            prop_assert!(!path.ends_with("/.") && !path.ends_with("/.."), "{}", form);
        }

        #[test]
        fn nothing_panics(target in ".*") {
            let _form = normal(&target);
        }
    }
}
