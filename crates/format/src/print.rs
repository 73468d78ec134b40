//! A document in its canonical layout.

use crate::scalar::{self, Written};
use crate::tree::{Child, Collection, Comment, Document, Value};

/// How far each level is indented. Lists are not, below their field.
const INDENT: usize = 2;

/// Prints a document.
pub(crate) fn print(document: &Document) -> String {
    let mut printer = Printer { text: String::new(), begins: true };
    printer.comments(&document.header, 0);
    if document.gap_after_header {
        printer.gap();
    }
    match &document.root.value {
        Value::Map(map) => printer.collection(map, 0, None),
        // No policy looks like this.
        Value::List(_) | Value::Scalar(_) => {}
    }
    printer.text
}

struct Printer {
    text: String,
    /// Whether a collection begins here, where no empty line belongs.
    begins: bool,
}

impl Printer {
    fn line(&mut self, indent: usize, text: &str) {
        if !text.is_empty() {
            self.text.extend(std::iter::repeat_n(' ', indent));
        }
        self.text.push_str(text);
        self.text.push('\n');
        self.begins = false;
    }

    fn gap(&mut self) {
        if !self.begins && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn comments(&mut self, comments: &[Comment], indent: usize) {
        for comment in comments {
            if comment.blank_before {
                self.gap();
            }
            self.line(indent, &comment.text);
        }
    }

    /// Prints the children one below the other. What goes before the first one on its line may be given.
    fn collection(&mut self, collection: &Collection, indent: usize, mut before: Option<String>) {
        self.begins = true;
        for child in &collection.children {
            let before = before.take().unwrap_or_else(|| {
                self.comments(&child.leading, indent);
                if child.blank_before {
                    self.gap();
                }
                self.comments_behind_dash(child, indent);
                " ".repeat(indent)
            });
            self.child(child, indent, before);
        }
        self.comments(&collection.closing, indent);
    }

    /// What stands above the first field of an element has no place behind the dash: it goes above the element.
    fn comments_behind_dash(&mut self, child: &Child, indent: usize) {
        let (Value::List(collection) | Value::Map(collection)) = &child.node.value else { return };
        if let (None, Some(first)) = (&child.key, collection.children.first()) {
            self.comments(&first.leading, indent);
            self.comments_behind_dash(first, indent);
        }
    }

    fn child(&mut self, child: &Child, indent: usize, mut line: String) {
        match &child.key {
            Some(key) => line.extend([scalar::inline(key).as_str(), ":"]),
            None => line.push('-'),
        }
        match &child.node.value {
            Value::Scalar(scalar) => match scalar::write(scalar) {
                Written::Inline(text) => self.first_line(child, &[&line, " ", &text]),
                Written::Block { header, lines } => {
                    self.first_line(child, &[&line, " ", header]);
                    lines.iter().for_each(|text| self.line(indent + INDENT, text));
                }
            },
            Value::List(list) if list.children.is_empty() => self.first_line(child, &[&line, " []"]),
            Value::Map(map) if map.children.is_empty() => self.first_line(child, &[&line, " {}"]),
            Value::List(inner) | Value::Map(inner) if child.key.is_none() => {
                line.push(' ');
                self.collection(inner, indent + INDENT, Some(line));
            }
            Value::List(list) => {
                self.first_line(child, &[&line]);
                self.collection(list, indent, None);
            }
            Value::Map(map) => {
                self.first_line(child, &[&line]);
                self.collection(map, indent + INDENT, None);
            }
        }
    }

    fn first_line(&mut self, child: &Child, parts: &[&str]) {
        let mut line = parts.concat();
        if let Some(comment) = &child.beside {
            line.extend([" ", comment.text.as_str()]);
        }
        self.line(0, &line);
    }
}
