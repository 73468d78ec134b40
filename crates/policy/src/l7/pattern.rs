//! Patterns of HTTP rules: RE2's syntax, matched against the whole text, in linear time.
//!
//! The engine underneath knows a slightly different language. What means something else there is rewritten where
//! that is possible and refused where it is not, so a pattern never means more than its author said.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use regex::{Regex, RegexBuilder};
use regex_syntax::{
    ast::{self, Ast},
    hir::{Hir, HirKind, Look},
};

/// How long a pattern may be.
pub const PATTERN_BYTES_MAX: usize = 2048;
/// How much memory the program of one pattern may take.
pub const PATTERN_PROGRAM_BYTES_MAX: usize = 1 << 20;

/// Why a text is no pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// Longer than patterns may be.
    #[error("the regex is longer than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    /// Its program would take too much memory.
    #[error("the regex needs more than {PATTERN_PROGRAM_BYTES_MAX} bytes when it is compiled")]
    TooBig,
    /// A raw control character, which no request holds.
    #[error("the regex holds a control character")]
    ControlCharacter,
    /// Not in the language.
    #[error("invalid regex: {what}, at byte {at}")]
    Syntax {
        /// What is wrong.
        what: String,
        /// Where, counted from 0.
        at: usize,
    },
}

/// A regular expression that a whole text must match.
#[derive(Clone)]
pub struct Pattern(Arc<Compiled>);

struct Compiled {
    text: String,
    matcher: Matcher,
}

enum Matcher {
    /// Only this text matches.
    Literal(String),
    /// Compiled when it is first used: most patterns are only ever used through a set. The source is anchored and
    /// has been compiled once to see that it can be.
    Regex { source: String, program: OnceLock<Option<Regex>> },
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is too long, not in RE2's syntax, or too big when compiled.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::ControlCharacter);
        }
        let ours = in_our_syntax(text)?;
        let hir = regex_syntax::parse(&ours).map_err(|error| syntax_error(&error))?;
        let matcher = match literal(&hir) {
            Some(literal) => Matcher::Literal(literal),
            None => {
                let source = format!(r"\A(?:{ours})\z");
                compile(&source).ok_or(PatternError::TooBig)?;
                Matcher::Regex { source, program: OnceLock::new() }
            }
        };
        Ok(Self(Arc::new(Compiled { text: text.to_owned(), matcher })))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The only text that matches, if there is just one.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match &self.0.matcher {
            Matcher::Literal(text) => Some(text),
            Matcher::Regex { .. } => None,
        }
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match &self.0.matcher {
            Matcher::Literal(literal) => literal == text,
            Matcher::Regex { source, program } => {
                // It compiled before. Should it not now, it matches nothing.
                program.get_or_init(|| compile(source)).as_ref().is_some_and(|regex| regex.is_match(text))
            }
        }
    }
}

impl Pattern {
    /// What stands for the pattern in a set of them, anchored at both ends. A literal needs none.
    pub(super) fn source(&self) -> Option<&str> {
        match &self.0.matcher {
            Matcher::Literal(_) => None,
            Matcher::Regex { source, .. } => Some(source),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.0.text).finish()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.literal().unwrap_or(&self.0.text))
    }
}

fn compile(source: &str) -> Option<Regex> {
    RegexBuilder::new(source).size_limit(PATTERN_PROGRAM_BYTES_MAX).build().ok()
}

/// The same language in the syntax of the engine.
fn in_our_syntax(text: &str) -> Result<String, PatternError> {
    let parsed = ast::parse::Parser::new().parse(text).map_err(|error| PatternError::Syntax {
        what: error.kind().to_string(),
        at: error.span().start.offset,
    })?;
    let edits = ast::visit(&parsed, Translator::default())?;
    let mut rest = text;
    let mut parts = Vec::new();
    // From the last edit to the first, so that places stay valid.
    for (start, end, replacement) in edits.into_iter().rev() {
        let Some((before, after)) = rest.split_at_checked(start) else { continue };
        parts.push(after.get(end - start..).unwrap_or_default());
        parts.push(replacement);
        rest = before;
    }
    parts.push(rest);
    parts.reverse();
    Ok(parts.concat())
}

fn syntax_error(error: &regex_syntax::Error) -> PatternError {
    let (what, at) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span().start.offset),
        other => (other.to_string().replace('\n', " "), 0),
    };
    PatternError::Syntax { what, at }
}

/// The one text that is in the language, anchors aside.
fn literal(hir: &Hir) -> Option<String> {
    let parts =
        if let HirKind::Concat(parts) = hir.kind() { parts.as_slice() } else { std::slice::from_ref(hir) };
    let is = |hir: &Hir, look: Look| matches!(hir.kind(), HirKind::Look(found) if *found == look);
    let begin = parts.iter().take_while(|part| is(part, Look::Start)).count();
    let end = parts.iter().rev().take_while(|part| is(part, Look::End)).count();
    let inner = parts.get(begin..parts.len().saturating_sub(end)).unwrap_or_default();
    match inner {
        [] => Some(String::new()),
        [only] => match only.kind() {
            HirKind::Empty => Some(String::new()),
            HirKind::Literal(literal) => String::from_utf8(literal.0.to_vec()).ok(),
            HirKind::Class(_)
            | HirKind::Look(_)
            | HirKind::Repetition(_)
            | HirKind::Capture(_)
            | HirKind::Concat(_)
            | HirKind::Alternation(_) => None,
        },
        [_, ..] => None,
    }
}

/// Finds what the two syntaxes read differently: (first byte, byte after the last, what to write instead).
#[derive(Default)]
struct Translator {
    edits: Vec<(usize, usize, &'static str)>,
}

impl Translator {
    fn replace(&mut self, span: &ast::Span, by: &'static str) {
        self.edits.push((span.start.offset, span.end.offset, by));
    }

    /// `\d`, `\s` and `\w` are about ASCII; brackets may stand inside of brackets.
    fn class(&mut self, class: &ast::ClassPerl) {
        let by = match (&class.kind, class.negated) {
            (ast::ClassPerlKind::Digit, false) => "[0-9]",
            (ast::ClassPerlKind::Digit, true) => "[^0-9]",
            (ast::ClassPerlKind::Space, false) => r"[\t\n\f\r ]",
            (ast::ClassPerlKind::Space, true) => r"[^\t\n\f\r ]",
            (ast::ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
            (ast::ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
        };
        self.replace(&class.span, by);
    }
}

fn refused(what: &str, span: &ast::Span) -> PatternError {
    PatternError::Syntax { what: format!("{what} not part of RE2's syntax"), at: span.start.offset }
}

fn check_flags(flags: &ast::Flags) -> Result<(), PatternError> {
    let foreign = flags.items.iter().find(|item| {
        matches!(
            item.kind,
            ast::FlagsItemKind::Flag(ast::Flag::Unicode | ast::Flag::CRLF | ast::Flag::IgnoreWhitespace)
        )
    });
    foreign.map_or(Ok(()), |item| Err(refused("this flag is", &item.span)))
}

impl ast::Visitor for Translator {
    type Output = Vec<(usize, usize, &'static str)>;
    type Err = PatternError;

    fn finish(self) -> Result<Self::Output, PatternError> {
        Ok(self.edits)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), PatternError> {
        match ast {
            Ast::ClassPerl(class) => self.class(class),
            Ast::Assertion(assertion) => match assertion.kind {
                ast::AssertionKind::WordBoundary => self.replace(&assertion.span, r"(?-u:\b)"),
                ast::AssertionKind::NotWordBoundary => self.replace(&assertion.span, r"(?-u:\B)"),
                ast::AssertionKind::StartLine
                | ast::AssertionKind::EndLine
                | ast::AssertionKind::StartText
                | ast::AssertionKind::EndText => {}
                ast::AssertionKind::WordBoundaryStart
                | ast::AssertionKind::WordBoundaryEnd
                | ast::AssertionKind::WordBoundaryStartAngle
                | ast::AssertionKind::WordBoundaryEndAngle
                | ast::AssertionKind::WordBoundaryStartHalf
                | ast::AssertionKind::WordBoundaryEndHalf => {
                    return Err(refused("this word boundary is", &assertion.span));
                }
            },
            Ast::Flags(set) => check_flags(&set.flags)?,
            Ast::Group(group) => {
                if let ast::GroupKind::NonCapturing(flags) = &group.kind {
                    check_flags(flags)?;
                }
            }
            Ast::Empty(_)
            | Ast::Literal(_)
            | Ast::Dot(_)
            | Ast::ClassUnicode(_)
            | Ast::ClassBracketed(_)
            | Ast::Repetition(_)
            | Ast::Alternation(_)
            | Ast::Concat(_) => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), PatternError> {
        match item {
            ast::ClassSetItem::Perl(class) => self.class(class),
            ast::ClassSetItem::Bracketed(inner) => {
                return Err(refused("brackets inside of brackets are", &inner.span));
            }
            ast::ClassSetItem::Empty(_)
            | ast::ClassSetItem::Literal(_)
            | ast::ClassSetItem::Range(_)
            | ast::ClassSetItem::Ascii(_)
            | ast::ClassSetItem::Unicode(_)
            | ast::ClassSetItem::Union(_) => {}
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, op: &ast::ClassSetBinaryOp) -> Result<(), PatternError> {
        Err(refused("arithmetic inside of brackets is", &op.span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_match() {
        for (pattern, matching, others) in [
            ("GET", "GET", "get GETT XGET"),
            ("GET|POST", "GET POST", "GETPOST GETX XPOST"),
            ("/api/.*", "/api/ /api/v1/orders?id=7 /api//", "/api /API/x x/api/"),
            ("/api", "/api", "/api/ /api?x /apix"),
            ("^/api$", "/api", "/api/ ^/api$"),
            ("^/api|/x$", "/api /x", "/apix /api/x"),
            (
                "/v1/payments/[0-9a-f-]+",
                "/v1/payments/0a-f",
                "/v1/payments/ /v1/payments/0A /v1/payments/0/x",
            ),
            ("/a.c", "/abc /a.c", "/ac /abbc"),
            (r"/a\.c", "/a.c", "/abc"),
            ("(?i)/admin", "/admin /ADMIN /aDmin", "/admins"),
            ("/a|/ab", "/a /ab", "/abc"),
            (r"/\d+", "/1 /123", "/ /x /\u{661}"),
            (r"/[\d.]+", "/1.2 /.", "/ /x /\u{661}"),
            (r"/\D", "/x /\u{661}", "/1"),
            (r"/[^\D]", "/1", "/x /\u{661}"),
            (r"/\w+", "/a_1", "/\u{e9} /-"),
            (r"/[\W]", "/- /\u{e9}", "/a"),
            (r"/x\b.*", "/x /x/y /x\u{e9}", "/xy /x_"),
            (r"/x\B.", "/xy", "/x- /x"),
            (r"/\S\S", "/ab", "/a"),
            (r"/[[:digit:]]", "/1", "/x"),
            (r"/\pL", "/a /\u{e9}", "/1"),
            (r"/[]x]", "/] /x", "/y"),
        ] {
            let compiled = Pattern::new(pattern).unwrap();
            for text in matching.split(' ') {
                assert!(compiled.matches(text), "{pattern} must match {text}");
            }
            for text in others.split(' ') {
                assert!(!compiled.matches(text), "{pattern} must not match {text}");
            }
        }
        // No request holds a line feed; if one did, a dot would not cover it, nor an end stand before it.
        assert!(!Pattern::new("/.*").unwrap().matches("/a\nb"));
        assert!(!Pattern::new("/a").unwrap().matches("/a\n"));
        assert!(!Pattern::new("(?m)^/a$").unwrap().matches("x\n/a\nx"));
    }

    #[test]
    fn one_text_is_compared_without_an_automaton() {
        for (pattern, want) in [
            ("GET", Some("GET")),
            ("^/public$", Some("/public")),
            (r"/a\.b\-c", Some("/a.b-c")),
            (r"\A/x\z", Some("/x")),
            ("/a{3}", None),
            ("", Some("")),
            ("^$", Some("")),
            ("/x.*", None),
            ("(?i)get", None),
            ("$a", None),
            ("a^", None),
        ] {
            let found = Pattern::new(pattern).unwrap();
            assert_eq!(found.literal(), want, "{pattern}");
            if let Some(text) = want {
                assert!(
                    Pattern::new(&format!("(?:{pattern}|[^\\x00-\\x{{10ffff}}])")).unwrap().matches(text)
                );
            }
        }
    }

    #[test]
    fn what_is_refused_and_how_it_is_said() {
        let error = |pattern: &str| Pattern::new(pattern).unwrap_err().to_string();
        for (pattern, want) in [
            ("(", "invalid regex: unclosed group, at byte 0"),
            ("a)|(b", "invalid regex: unopened group, at byte 1"),
            ("[a", "invalid regex: unclosed character class, at byte 0"),
            ("*a", "invalid regex: repetition operator missing expression, at byte 0"),
            ("(?=a)", "look-around"),
            ("(?!a)", "look-around"),
            ("(?<=a)b", "look-around"),
            (r"(a)\1", "invalid regex: backreferences are not supported, at byte 3"),
            (r"\p{Nonsense}", "invalid regex: Unicode property not found, at byte 0"),
            ("/{id}", "invalid regex: repetition quantifier expects a valid decimal, at byte 2"),
            ("[a&&b]", "invalid regex: arithmetic inside of brackets is not part of RE2's syntax, at byte 1"),
            ("[a--b]", "arithmetic inside of brackets is not part of RE2's syntax, at byte 1"),
            (
                "x[^a[b]]",
                "invalid regex: brackets inside of brackets are not part of RE2's syntax, at byte 4",
            ),
            ("(?x) a b", "invalid regex: this flag is not part of RE2's syntax, at byte 2"),
            ("(?-u:a)", "this flag is not part of RE2's syntax, at byte 3"),
            (r"\<a\>", "invalid regex: this word boundary is not part of RE2's syntax, at byte 0"),
            ("a\0b", "the regex holds a control character"),
            ("a\nb", "the regex holds a control character"),
        ] {
            let found = error(pattern);
            assert!(found.contains(want), "{pattern:?}: {found}");
            assert!(!found.contains('\n'), "{found}");
        }
    }

    #[test]
    fn size_is_bounded() {
        assert!(Pattern::new(&"a".repeat(PATTERN_BYTES_MAX)).is_ok());
        assert_eq!(Pattern::new(&"a".repeat(PATTERN_BYTES_MAX + 1)), Err(PatternError::TooLong));
        for bomb in [r"\pL{5000}", ".{1,1000}{1,1000}", "((((a{1,90}){1,90}){1,90}){1,90}){1,90}"] {
            assert_eq!(Pattern::new(bomb), Err(PatternError::TooBig), "{bomb}");
        }
        let nested = format!("{}{}", "(".repeat(1000), ")".repeat(1000));
        assert!(matches!(Pattern::new(&nested), Err(PatternError::Syntax { .. })));
        // Exponential elsewhere, linear here.
        let text = format!("{}!", "a".repeat(20_000));
        assert!(!Pattern::new("(a+)+$").unwrap().matches(&text));
        assert!(Pattern::new("/(a+)+").unwrap().matches("/aaaa"));
    }

    #[test]
    fn patterns_are_compared_by_text() {
        let pattern = |text| Pattern::new(text).unwrap();
        assert_eq!(pattern("/a.*"), pattern("/a.*"));
        assert_ne!(pattern("/a.*"), pattern("/a.*b"));
        assert_eq!(
            format!("{:?} {} {}", pattern("a+"), pattern("a+"), pattern(r"a\.b")),
            r#"Pattern("a+") a+ a.b"#
        );
    }
}
