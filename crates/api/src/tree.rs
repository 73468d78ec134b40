//! Documents of other formats than Kubernetes' that are read just as strictly, and may hold objects.

use serde::de::DeserializeOwned;

use crate::{
    decode::{Nulls, decode},
    document::{self, Chunk, Node, Value},
    manifest::{DocumentError, Manifest, read_node},
    place::{Place, Places},
};

/// One document, not yet of any type.
#[derive(Debug)]
pub struct Tree {
    root: Node,
    places: Places,
}

/// Cuts YAML or JSON into its documents.
///
/// ```
/// let trees = sluice_api::read_trees("kind: Test\nobjects:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n");
/// let tree = trees[0].as_ref().unwrap();
/// assert_eq!(tree.text("kind"), Some("Test"));
/// assert_eq!(tree.objects("objects", None)[0][0].name, "a");
/// ```
#[must_use]
pub fn read_trees(text: &str) -> Vec<Result<Tree, DocumentError>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    document::split(text).into_iter().map(read).collect()
}

fn read(chunk: Chunk<'_>) -> Result<Tree, DocumentError> {
    let root = document::read(chunk)?;
    Ok(Tree { places: Places::of(&root), root })
}

impl Tree {
    /// The text that stands under a key of the document.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.root.get(key).and_then(Node::as_str)
    }

    /// Fills a type; a `null` stands for an absent field.
    ///
    /// # Errors
    /// The first thing that does not fit, with its place.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DocumentError> {
        decode(&self.root, Nulls::Absent)
    }

    /// Its value, without places.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.root.to_json()
    }

    /// Where the value stands that a path names, as [`Manifest::place`] finds it.
    #[must_use]
    pub fn place(&self, path: &str) -> Place {
        self.places.find(path)
    }

    /// The objects in each element of the list under `key`: the element itself, or what stands under `field` in it.
    /// A `List` stands for its items; their places are counted from the start of the text.
    #[must_use]
    pub fn objects(&self, key: &str, field: Option<&str>) -> Vec<Vec<Manifest>> {
        let Some(Value::Array(items)) = self.root.get(key).map(|list| &list.value) else { return Vec::new() };
        let object = |item| field.map_or(Some(item), |field| Node::get(item, field));
        items.iter().map(|item| object(item).map(read_node).unwrap_or_default()).collect()
    }
}
