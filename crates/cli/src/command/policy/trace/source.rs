//! Where rules stand in the files, and the lines they are written on.

use std::collections::BTreeMap;

use sluice_policy::{Config, PolicyRef, parse};

use crate::documents::Document;

/// The most lines of a rule that are shown.
const LINES_MAX: usize = 14;

/// The files by what stands in them.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    documents: BTreeMap<PolicyRef, &'a Document>,
}

/// A place in a file.
#[derive(Clone, Debug)]
pub(super) struct Spot<'a> {
    /// The file as it was named.
    pub(super) file: &'a str,
    /// From 1.
    pub(super) line: u32,
    column: u32,
    text: &'a str,
}

impl<'a> Sources<'a> {
    /// Of policies that are there twice, the last one is in force.
    pub(super) fn new(documents: &'a [Document], config: &Config) -> Self {
        let policy = |document: &'a Document| {
            let object = document.manifest.content.as_ref().ok()?;
            parse::object(object, config).map(|(policy, _)| (policy, document))
        };
        Self { documents: documents.iter().filter_map(policy).collect() }
    }

    /// Where a rule stands, by the engine's path of it.
    pub(super) fn rule(&self, policy: &PolicyRef, path: &str) -> Option<Spot<'a>> {
        if path.starts_with("specs[") {
            self.field(policy, path)
        } else {
            self.field(policy, &format!("spec.{path}"))
        }
    }

    /// Where a field of a policy stands.
    pub(super) fn field(&self, policy: &PolicyRef, path: &str) -> Option<Spot<'a>> {
        let document = self.documents.get(policy)?;
        let place = document.manifest.place(path);
        Some(Spot { file: &document.file, line: place.line, column: place.column, text: &document.text })
    }
}

impl<'a> Spot<'a> {
    /// The lines of what begins here, by their indentation, with their numbers; and whether there are more.
    pub(super) fn lines(&self) -> (Vec<(u32, &'a str)>, bool) {
        let indentation = (self.column as usize).saturating_sub(1);
        let belongs =
            |line: &str| line.trim().is_empty() || line.len() - line.trim_start().len() >= indentation;
        let mut numbered = (1_u32..).zip(self.text.lines()).skip((self.line as usize).saturating_sub(1));
        let mut lines: Vec<(u32, &str)> = numbered.next().into_iter().collect();
        lines.extend(numbered.take_while(|(_, line)| belongs(line) && *line != "---"));
        while lines.last().is_some_and(|(_, line)| line.trim().is_empty()) {
            lines.pop();
        }
        let more = lines.len() > LINES_MAX;
        lines.truncate(LINES_MAX);
        (lines, more)
    }
}
