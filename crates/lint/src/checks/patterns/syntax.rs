//! The structure of a pattern, as far as habits can be seen in it.

use regex_syntax::{
    ast::{self, Ast},
    hir::{Hir, HirKind, Look, literal::Extractor},
};

/// A pattern that was read.
#[derive(Debug)]
pub(super) struct Read<'a> {
    text: &'a str,
    ast: Ast,
    hir: Hir,
}

impl<'a> Read<'a> {
    /// The pattern; `None` if it is none, which is reported elsewhere.
    pub(super) fn new(text: &'a str) -> Option<Self> {
        let ast = ast::parse::Parser::new().parse(text).ok()?;
        let hir = regex_syntax::parse(text).ok()?;
        Some(Self { text, ast, hir })
    }

    /// Whether every text that matches begins with a byte that is wanted.
    pub(super) fn all_begin_with(&self, wanted: impl Fn(u8) -> bool) -> bool {
        let prefixes = Extractor::new().extract(&self.hir);
        prefixes.literals().is_some_and(|literals| {
            let begins = |literal: &regex_syntax::hir::literal::Literal| {
                literal.as_bytes().first().is_some_and(|byte| wanted(*byte))
            };
            !literals.is_empty() && literals.iter().all(begins)
        })
    }

    /// The only text that matches, if there is just one.
    pub(super) fn literal(&self) -> Option<String> {
        match self.hir.kind() {
            HirKind::Literal(literal) => String::from_utf8(literal.0.to_vec()).ok(),
            HirKind::Empty
            | HirKind::Class(_)
            | HirKind::Look(_)
            | HirKind::Repetition(_)
            | HirKind::Capture(_)
            | HirKind::Concat(_)
            | HirKind::Alternation(_) => None,
        }
    }

    /// Whether it begins or ends with an anchor.
    pub(super) fn is_anchored(&self) -> bool {
        let HirKind::Concat(parts) = self.hir.kind() else { return false };
        let is = |part: Option<&Hir>, look| part.is_some_and(|part| *part.kind() == HirKind::Look(look));
        is(parts.first(), Look::Start) || is(parts.last(), Look::End)
    }

    /// A star behind a plain character at the end or before a slash, as in file names: `/*`.
    pub(super) fn glob(&self) -> Option<&'a str> {
        let mut parts = parts(&self.ast).into_iter().peekable();
        while let Some(part) = parts.next() {
            let Ast::Repetition(repetition) = part else { continue };
            let is_star = matches!(repetition.op.kind, ast::RepetitionKind::ZeroOrMore);
            let plain =
                matches!(&*repetition.ast, Ast::Literal(literal) if is_word(literal.c) || literal.c == '/');
            let ends = match parts.peek() {
                None => true,
                Some(next) => matches!(next, Ast::Literal(literal) if literal.c == '/'),
            };
            if is_star && plain && ends {
                return self.text.get(repetition.span.start.offset..repetition.span.end.offset);
            }
        }
        None
    }

    /// Where a single dot stands between two letters or digits.
    fn dots(&self) -> Vec<usize> {
        let parts = parts(&self.ast);
        let mut found = Vec::new();
        for three in parts.windows(3) {
            let [Ast::Literal(before), Ast::Dot(dot), Ast::Literal(after)] = three else { continue };
            if is_word(before.c) && is_word(after.c) {
                found.push(dot.start.offset);
            }
        }
        found
    }

    /// The pattern with such dots escaped; `None` if there is none.
    pub(super) fn with_escaped_dots(&self) -> Option<String> {
        let dots = self.dots();
        (!dots.is_empty()).then(|| self.replace(&dots, "\\."))
    }

    /// A text that matches because of such a dot, if the rest is taken as it stands.
    pub(super) fn confused_with(&self) -> String {
        self.replace(&self.dots(), "-")
    }

    fn replace(&self, places: &[usize], by: &str) -> String {
        let characters = self
            .text
            .char_indices()
            .map(|(place, c)| if places.contains(&place) { by.to_owned() } else { c.to_string() });
        characters.collect()
    }
}

/// The parts one after the other, those of groups among them.
fn parts(ast: &Ast) -> Vec<&Ast> {
    match ast {
        Ast::Concat(concat) => concat.asts.iter().flat_map(parts).collect(),
        Ast::Group(group) => parts(&group.ast),
        Ast::Empty(_)
        | Ast::Flags(_)
        | Ast::Literal(_)
        | Ast::Dot(_)
        | Ast::Assertion(_)
        | Ast::ClassUnicode(_)
        | Ast::ClassPerl(_)
        | Ast::ClassBracketed(_)
        | Ast::Repetition(_)
        | Ast::Alternation(_) => vec![ast],
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}
