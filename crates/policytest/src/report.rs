//! What a run found, and its forms for other programs.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::coverage::{Counter, Coverage};
use crate::suite::Mistake;

pub(crate) mod junit;
pub(crate) mod sarif;
pub(crate) mod tap;

/// How one question ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Otherwise.
    Failed,
    /// It could not be asked: the file or a manifest it uses is not valid.
    Error,
}

/// What was expected.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Want {
    /// The word of a verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// Any verdict but this one: what `.` in a matrix means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<&'static str>,
    /// The side that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<&'static str>,
    /// Policies that decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// Part of the message with which a document is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What came.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Got {
    /// The word of a verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<&'static str>,
    /// The side that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<&'static str>,
    /// The policies that decided, or that isolate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Vec<String>>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// With what a document was refused; none if it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What helps people with a failed test; no part of the JSON.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Detail {
    /// Where the question stands; 0 if unknown.
    pub line: u32,
    /// From 1; 0 if unknown.
    pub column: u32,
    /// Why, of each side that was asked, the decisive one first.
    pub sides: Vec<String>,
    /// The rules that came nearest to allowing it.
    pub nearest: Vec<String>,
    /// What `sluice policy trace` is asked after its manifests, to look closer.
    pub trace: Vec<String>,
}

/// How one question ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TestResult {
    /// The file as it was named.
    pub file: String,
    /// Of the question.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was expected; empty for an error.
    #[serde(skip_serializing_if = "is_default")]
    pub want: Want,
    /// What came; empty for an error.
    #[serde(skip_serializing_if = "is_default")]
    pub got: Got,
    /// What is wrong with the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// For people.
    #[serde(skip)]
    pub detail: Detail,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Everything that a run found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// How many questions ended as expected.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
    /// How many things are wrong with files.
    pub errors: usize,
    /// In the order of the files.
    pub results: Vec<TestResult>,
    #[serde(rename = "coverage", serialize_with = "rows")]
    pub(crate) counter: Counter,
}

fn rows<S: Serializer>(counter: &Counter, serializer: S) -> Result<S::Ok, S::Error> {
    counter.rows().serialize(serializer)
}

impl Report {
    pub(crate) fn push(&mut self, result: TestResult) {
        match result.outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Error => self.errors += 1,
        }
        self.results.push(result);
    }

    /// Adds what is wrong with a file.
    pub fn mistake(&mut self, mistake: &Mistake) {
        self.push(TestResult {
            file: mistake.file.clone(),
            name: String::new(),
            outcome: Outcome::Error,
            want: Want::default(),
            got: Got::default(),
            error: Some(mistake.message.clone()),
            detail: Detail { line: mistake.line, column: mistake.column, ..Detail::default() },
        });
    }

    /// Adds another run's findings.
    pub fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.errors += other.errors;
        self.results.extend(other.results);
        self.counter.merge(other.counter);
    }

    /// How often each part of each policy was met.
    #[must_use]
    pub fn coverage(&self) -> Vec<Coverage> {
        self.counter.rows()
    }

    /// The results of each file, in the order of the files.
    #[must_use]
    pub fn by_file(&self) -> Vec<(&str, Vec<&TestResult>)> {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut files: Vec<(&str, Vec<&TestResult>)> = Vec::new();
        for result in &self.results {
            let place = *places.entry(&result.file).or_insert(files.len());
            match files.get_mut(place) {
                Some((_, results)) => results.push(result),
                None => files.push((&result.file, vec![result])),
            }
        }
        files
    }
}

impl TestResult {
    /// What people read when it did not pass: one line.
    #[must_use]
    pub fn summary(&self) -> String {
        if let Some(error) = &self.error {
            return error.clone();
        }
        format!("want {}, got {}", self.want, self.got)
    }
}

impl std::fmt::Display for Want {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.verdict, self.not, &self.error) {
            (Some(verdict), ..) => f.write_str(verdict)?,
            (None, Some(not), _) => write!(f, "anything but {not}")?,
            (None, None, Some(error)) if error.is_empty() => f.write_str("refused")?,
            (None, None, Some(error)) => write!(f, "refused with {error:?}")?,
            (None, None, None) => f.write_str("nothing")?,
        }
        write_side(f, self.at, &self.by)
    }
}

impl std::fmt::Display for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.verdict, &self.error) {
            (Some(verdict), _) => f.write_str(verdict)?,
            (None, Some(error)) => write!(f, "refused with {error:?}")?,
            (None, None) => f.write_str("a document that is valid")?,
        }
        write_side(f, self.at, self.by.as_deref().unwrap_or_default())
    }
}

fn write_side(f: &mut std::fmt::Formatter<'_>, at: Option<&str>, by: &[String]) -> std::fmt::Result {
    if let Some(at) = at {
        write!(f, " at {at}")?;
    }
    if !by.is_empty() {
        write!(f, " by {}", by.join(", "))?;
    }
    Ok(())
}
