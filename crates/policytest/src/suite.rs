//! A test file: read, and the places in it that mistakes point to.

use std::fmt;

use sluice_api::{Manifest, Tree, read_manifests, read_trees};

use crate::format::{API_VERSION, KIND, TestFile};

/// One document of kind `PolicyTest`.
#[derive(Debug)]
pub struct Suite {
    pub(crate) file: String,
    pub(crate) format: TestFile,
    tree: Tree,
}

/// What is wrong with a test file or with a manifest it uses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// As it was named.
    pub file: String,
    /// From 1; 0 if the file as a whole is meant.
    pub line: u32,
    /// From 1; 0 if the file as a whole is meant.
    pub column: u32,
    /// The path in the document and the reason.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}: {}", self.file, self.message);
        }
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl std::error::Error for Mistake {}

impl Mistake {
    /// About a file as a whole.
    #[must_use]
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: message.into() }
    }

    pub(crate) fn of_document(file: &str, error: &sluice_api::DocumentError) -> Self {
        let path = if error.path.is_empty() { String::new() } else { format!("{}: ", error.path) };
        Self {
            file: file.to_owned(),
            line: error.line,
            column: error.column,
            message: format!("{path}{}", error.reason),
        }
    }

    pub(crate) fn of_object(file: &str, manifest: &Manifest, error: &sluice_policy::ParseError) -> Self {
        let at = manifest.place(&error.path);
        Self { file: file.to_owned(), line: at.line, column: at.column, message: error.to_string() }
    }
}

/// A file of manifests that tests use.
#[derive(Clone, Debug)]
pub struct Source {
    /// What mistakes call it.
    pub name: String,
    /// Its objects.
    pub manifests: Vec<Manifest>,
}

impl Source {
    /// Reads the text of a file.
    #[must_use]
    pub fn new(name: impl Into<String>, text: &str) -> Self {
        Self { name: name.into(), manifests: read_manifests(text) }
    }
}

/// Whether a text holds a policy test. One that cannot be read counts if it looks like one, so that a slip does not
/// take a test out of the run.
#[must_use]
pub fn is_policy_test(text: &str) -> bool {
    if !text.contains(KIND) {
        return false;
    }
    let looks_like_one = |line: &str| {
        let word = line.trim_start_matches(['{', ' ']).strip_prefix("kind:").unwrap_or_default();
        word.trim().trim_matches(['"', '\'']).starts_with(KIND)
    };
    read_trees(text).iter().any(|tree| match tree {
        Ok(tree) => tree.text("kind") == Some(KIND),
        Err(_) => text.lines().any(looks_like_one),
    })
}

/// Reads a test file; `file` is what mistakes call it.
///
/// # Errors
/// Everything that is wrong with its shape. One mistake is enough to ask nothing: a test that is left out is one that
/// seems to pass.
pub fn read(file: &str, text: &str) -> Result<Vec<Suite>, Vec<Mistake>> {
    let (mut suites, mut mistakes) = (Vec::new(), Vec::new());
    for tree in read_trees(text) {
        match tree.map_err(|error| Mistake::of_document(file, &error)).and_then(|tree| Suite::new(file, tree))
        {
            Ok(suite) => suites.push(suite),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if suites.is_empty() && mistakes.is_empty() {
        mistakes.push(Mistake::of_file(file, format!("there is no {KIND} in it")));
    }
    if mistakes.is_empty() { Ok(suites) } else { Err(mistakes) }
}

impl Suite {
    fn new(file: &str, tree: Tree) -> Result<Self, Mistake> {
        let wrong = |path: &str, reason: String| {
            let at = tree.place(path);
            Mistake { file: file.to_owned(), line: at.line, column: at.column, message: reason }
        };
        match tree.text("kind") {
            Some(KIND) => {}
            Some(other) => {
                let advice = "put objects under `objects` or in a file that `policies` names";
                return Err(wrong("kind", format!("a test file holds no {other}; {advice}")));
            }
            None => return Err(wrong("kind", "the kind is required".to_owned())),
        }
        if let Some(version) = tree.text("apiVersion").filter(|version| *version != API_VERSION) {
            let reason = format!("{KIND} of version {version:?} is not known; use {API_VERSION}");
            return Err(wrong("apiVersion", reason));
        }
        let format: TestFile = tree.decode().map_err(|error| Mistake::of_document(file, &error))?;
        if format.tests.is_empty() && format.matrix.is_empty() && format.invalid.is_empty() {
            return Err(wrong("", "it asks nothing: write tests, matrix or invalid".to_owned()));
        }
        Ok(Self { file: file.to_owned(), format, tree })
    }

    /// The file's name.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// What stands under `policies`: files or directories, relative to this file.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.format.policies.iter().map(String::as_str)
    }

    /// A mistake at a path of this file, `tests[0].from`.
    #[must_use]
    pub fn mistake(&self, path: &str, reason: &str) -> Mistake {
        let at = self.tree.place(path);
        Mistake {
            file: self.file.clone(),
            line: at.line,
            column: at.column,
            message: format!("{path}: {reason}"),
        }
    }

    /// The line a path of this file stands on.
    pub(crate) fn line(&self, path: &str) -> u32 {
        self.tree.place(path).line
    }

    /// The objects under `objects`.
    pub(crate) fn objects(&self) -> Vec<Manifest> {
        self.tree.objects("objects", None).into_iter().flatten().collect()
    }

    /// The documents under `invalid`, one list for each.
    pub(crate) fn invalid(&self) -> Vec<Vec<Manifest>> {
        self.tree.objects("invalid", Some("object"))
    }
}
