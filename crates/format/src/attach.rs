//! Which comment is about what.
//!
//! A comment on a line of its own is about what follows, unless it is indented like something that ends there. A
//! comment behind something is about what its line began.

use std::collections::VecDeque;

use crate::tree::{Child, Collection, Comment, Document, Value};

/// Moves the comments of a document to the values they are about.
pub(crate) fn attach(document: &mut Document) {
    let mut comments = Comments { rest: std::mem::take(&mut document.comments).into() };
    let end = document.root.end.offset;
    let start = document.root.start;
    let (Value::List(root) | Value::Map(root)) = &mut document.root.value else {
        document.header = comments.rest.into();
        return;
    };
    let first = root.children.first().map_or(end, |child| child.start.offset);
    document.header = comments.before(first);
    // An indented last comment is inside of what ends there; others end the document.
    let limit = if root.flow { end.saturating_sub(1) } else { usize::MAX };
    comments.collection(root, start.column, Ahead { limit, column: Some(start.column) });
    root.closing.extend(comments.rest);
    // What begins the document stays there, whichever field comes first.
    if let Some(first) = root.children.first_mut() {
        document.gap_after_header = std::mem::take(&mut first.blank_before);
    }
}

/// What follows something in the text.
#[derive(Clone, Copy)]
struct Ahead {
    /// The offset at which it begins.
    limit: usize,
    /// The column at which it stands.
    column: Option<usize>,
}

struct Comments {
    rest: VecDeque<Comment>,
}

impl Comments {
    fn next_if(&mut self, wanted: impl Fn(&Comment) -> bool) -> Option<Comment> {
        if self.rest.front().is_some_and(wanted) { self.rest.pop_front() } else { None }
    }

    fn before(&mut self, offset: usize) -> Vec<Comment> {
        std::iter::from_fn(|| self.next_if(|comment| comment.at.offset < offset)).collect()
    }

    /// Those on the lines of other things.
    fn beside(&mut self, offset: usize) -> Vec<Comment> {
        std::iter::from_fn(|| self.next_if(|comment| !comment.own_line && comment.at.offset < offset))
            .collect()
    }

    fn collection(&mut self, collection: &mut Collection, column: usize, ahead: Ahead) {
        let starts: Vec<usize> = collection.children.iter().skip(1).map(|child| child.start.offset).collect();
        for (nth, child) in collection.children.iter_mut().enumerate() {
            child.leading.extend(self.before(child.start.offset));
            let ahead = starts.get(nth).map_or(ahead, |&limit| Ahead { limit, column: Some(column) });
            self.child(child, ahead);
        }
        if collection.flow {
            collection.closing.extend(self.before(ahead.limit));
            return;
        }
        let inside = |comment: &Comment| {
            comment.own_line
                && comment.at.offset < ahead.limit
                && comment.at.column >= column
                && ahead.column.is_none_or(|next| comment.at.column > next)
        };
        while let Some(comment) = self.next_if(inside) {
            collection.closing.push(comment);
        }
    }

    fn child(&mut self, child: &mut Child, ahead: Ahead) {
        let (start, end) = (child.node.start, child.node.end.offset);
        let is_entry = child.key.is_some();
        let (Value::List(collection) | Value::Map(collection)) = &mut child.node.value else {
            let within = self.before(start.offset);
            child.note(within);
            let beside = self.beside(ahead.limit);
            child.note(beside);
            return;
        };
        let Some(first) = collection.children.first().map(|first| first.start.offset) else {
            let within = self.before(end);
            child.note(within);
            let beside = self.beside(ahead.limit);
            child.note(beside);
            return;
        };
        let mut beside = self.beside(first);
        if collection.flow {
            let inner = Ahead { limit: end.saturating_sub(1), column: None };
            self.collection(collection, start.column, inner);
            beside.extend(self.beside(ahead.limit));
        } else {
            self.collection(collection, start.column, ahead);
        }
        if is_entry {
            child.note(beside);
        } else {
            child.leading.extend(beside);
        }
    }
}

impl Child {
    /// Takes comments in: the last one of its lines beside it, all others above.
    fn note(&mut self, comments: Vec<Comment>) {
        for comment in comments {
            if comment.own_line {
                self.leading.push(comment);
            } else if let Some(earlier) = self.beside.replace(comment) {
                self.leading.push(earlier);
            }
        }
    }
}
