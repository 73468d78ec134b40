//! Text with any number of objects, as people keep them in files.

use std::fmt;

use crate::{
    document::{self, Chunk, Node, Value},
    object::{Kind, Object},
    place::{Place, Places},
};

/// One object of a text, or what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The line on which its document begins, from 1.
    pub line: u32,
    /// As written; empty if it could not be read.
    pub api_version: String,
    /// As written; empty if it could not be read.
    pub kind: String,
    /// As written; objects of the namespace `default` may leave it out.
    pub namespace: Option<String>,
    /// As written; empty if it could not be read.
    pub name: String,
    /// The object.
    pub content: Result<Object, DocumentError>,
    places: Places,
}

impl Manifest {
    /// Where the value stands that a path names, such as `spec.ingress[0].toPorts[1].ports[0].port` or
    /// `spec.endpointSelector.matchLabels[app.kubernetes.io/name]`.
    ///
    /// A path may lead further than the text, as when a field is missed: the deepest value along it that exists is
    /// meant, and the start of the object if there is none.
    ///
    /// ```
    /// let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels: {app: web}\n";
    /// let pod = &sluice_api::read_manifests(text)[0];
    /// let place = pod.place("metadata.labels.app");
    /// assert_eq!((place.line, place.column), (5, 17));
    /// assert_eq!(pod.place("metadata.labels.tier"), pod.place("metadata.labels"));
    /// ```
    #[must_use]
    pub fn place(&self, path: &str) -> Place {
        self.places.find(path)
    }
}

/// Why a document is no object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DocumentError {
    /// From 1, counted from the start of the text.
    pub line: u32,
    /// From 1.
    pub column: u32,
    /// `spec.ingress[0].toPorts`; empty when the document as a whole is meant.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for DocumentError {}

/// Reads YAML or JSON with any number of documents; a `List` stands for its items.
///
/// Every document is read on its own: what is wrong with one does not touch the others.
///
/// ```
/// let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
/// let manifests = sluice_api::read_manifests(text);
/// assert_eq!(manifests[0].name, "shop");
/// assert!(matches!(manifests[0].content, Ok(sluice_api::Object::Namespace(_))));
/// ```
#[must_use]
pub fn read_manifests(text: &str) -> Vec<Manifest> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    document::split(text).into_iter().flat_map(read_document).collect()
}

fn read_document(chunk: Chunk<'_>) -> Vec<Manifest> {
    match document::read(chunk) {
        Ok(root) => read_node(&root),
        Err(error) => vec![Manifest {
            line: chunk.line,
            api_version: String::new(),
            kind: String::new(),
            namespace: None,
            name: String::new(),
            content: Err(error),
            places: Places::unknown(Place { line: chunk.line, column: 1 }),
        }],
    }
}

/// The objects that a value stands for: one, or those of a list.
pub(crate) fn read_node(root: &Node) -> Vec<Manifest> {
    if root.get("kind").and_then(Node::as_str) == Some("List")
        && let Some(Value::Array(items)) = root.get("items").map(|items| &items.value)
    {
        // A list inside a list is no object.
        return items.iter().map(read_object).collect();
    }
    vec![read_object(root)]
}

fn read_object(root: &Node) -> Manifest {
    let text = |node: Option<&Node>| node.and_then(Node::as_str).map(str::to_owned);
    let metadata = root.get("metadata");
    let field = |key| text(metadata.and_then(|metadata| metadata.get(key)));
    let api_version = text(root.get("apiVersion")).unwrap_or_default();
    let kind = text(root.get("kind")).unwrap_or_default();
    let name = field("name").unwrap_or_default();
    let content = read_content(root, &api_version, &kind).and_then(|object| {
        let nameless = name.is_empty() && object != Object::Ignored;
        if nameless { Err(wrong(root, "metadata.name", "a name is required")) } else { Ok(object) }
    });
    Manifest {
        line: root.at.line,
        api_version,
        kind,
        namespace: field("namespace"),
        name,
        content,
        places: Places::of(root),
    }
}

fn read_content(root: &Node, api_version: &str, kind: &str) -> Result<Object, DocumentError> {
    if !matches!(root.value, Value::Object(_)) {
        return Err(wrong(root, "", "the document is no object"));
    }
    if kind.is_empty() {
        return Err(wrong(root, "kind", "the kind is required"));
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let Some(known) = Kind::find(group, kind) else { return Ok(Object::Ignored) };
    if !known.versions().contains(&version) {
        let versions = known.versions().join(" or ");
        let reason = format!("{kind} of version {version:?} is not known; use {versions}");
        return Err(wrong(root, "apiVersion", &reason));
    }
    Object::read(root, known)
}

fn wrong(root: &Node, path: &str, reason: &str) -> DocumentError {
    let at = root.get(path).map_or(root.at, |node| node.at);
    DocumentError { line: at.line, column: at.column, path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
