//! Policies that come through the API: kept as files of their own, after everything was checked.

use std::path::{Path, PathBuf};

use sluice_client::model::PolicyDocument;
use sluice_policy::PolicyRef;

use super::USER;
use super::catalog::Catalog;
use crate::event::{Refusal, RefusalCode};
use crate::source::document::{self, Good};
use crate::source::{Object, ObjectKey};
use crate::store;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// One line for each object.
    pub(super) results: Vec<String>,
    /// Files that were written.
    pub(super) written: Vec<PathBuf>,
    /// Files that were removed.
    pub(super) removed: Vec<PathBuf>,
}

/// Checks all documents, then writes each policy to its file. Nothing is written if anything is refused.
pub(super) fn apply(catalog: &Catalog, directory: &Path, text: &PolicyDocument) -> Result<Done, Refusal> {
    let policies = check(catalog, text)?;
    let mut done = Done::default();
    let mut files = Vec::new();
    for (reference, good) in policies {
        let in_force = catalog.lookup(&ObjectKey::Policy(reference.clone()));
        let outcome = match &in_force {
            Some(known) if known.good.json == good.json => "unchanged",
            Some(known) if known.file.root == USER => {
                let file = known.file.path.display();
                let message = format!("{reference} comes from {file}: change it there");
                return Err(Refusal::new(RefusalCode::Conflict, message));
            }
            Some(_) => "configured",
            None => "created",
        };
        done.results.push(format!("{} {outcome}", full_name(&reference)));
        if outcome != "unchanged" {
            files.push((directory.join(file_name(&reference)), good));
        }
    }
    store::make_dir(directory).map_err(|error| internal(&error))?;
    for (path, good) in files {
        let body = serde_json::to_vec_pretty(&good.json).map_err(|error| internal(&error))?;
        store::write_atomically(&path, &body, 0o600).map_err(|error| internal(&error))?;
        done.written.push(path);
    }
    Ok(done)
}

fn check(catalog: &Catalog, text: &PolicyDocument) -> Result<Vec<(PolicyRef, Good)>, Refusal> {
    let name = if text.name.is_empty() { "input" } else { &text.name };
    let mut errors = Vec::new();
    let mut policies: Vec<(PolicyRef, Good)> = Vec::new();
    for document in document::read(&text.text, name, catalog.config()) {
        let line = document.line;
        let good = match document.content {
            Ok(good) => good,
            Err(reason) => {
                errors.push(format!("{name}:{line}: {reason}"));
                continue;
            }
        };
        let Object::Policy(policy) = &good.object else {
            errors.push(format!(
                "{name}:{line}: {} is no policy; put it into the directory",
                good.object.key()
            ));
            continue;
        };
        let reference = policy.reference.clone();
        if !is_file_name(&reference) {
            errors.push(format!("{name}:{line}: {reference} is no valid name"));
        } else if policies.iter().any(|(known, _)| *known == reference) {
            errors.push(format!("{name}:{line}: {reference} comes twice"));
        } else {
            policies.push((reference, good));
        }
    }
    if policies.is_empty() && errors.is_empty() {
        errors.push(format!("{name}: there is no policy in it"));
    }
    if errors.is_empty() { Ok(policies) } else { Err(Refusal::new(RefusalCode::Invalid, errors.join("\n"))) }
}

/// Removes the file of an applied policy.
pub(super) fn delete(catalog: &Catalog, directory: &Path, reference: &PolicyRef) -> Result<Done, Refusal> {
    let path = directory.join(file_name(reference));
    let in_force = catalog.lookup(&ObjectKey::Policy(reference.clone()));
    if let Some(known) = in_force.filter(|known| known.file.path != path) {
        let message = format!("{reference} comes from {}: remove it there", known.file.path.display());
        return Err(Refusal::new(RefusalCode::Conflict, message));
    }
    if !is_file_name(reference) || !path.exists() {
        return Err(Refusal::new(RefusalCode::NotFound, format!("there is no policy {reference}")));
    }
    store::remove_file(&path).map_err(|error| internal(&error))?;
    let results = vec![format!("{} deleted", full_name(reference))];
    Ok(Done { results, written: Vec::new(), removed: vec![path] })
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal::new(RefusalCode::Internal, crate::report::chain(error))
}

/// `CiliumNetworkPolicy/shop/allow`; without namespace for clusterwide ones.
fn full_name(reference: &PolicyRef) -> String {
    let kind = crate::state::kind_of(reference.kind);
    if reference.namespace.is_empty() {
        format!("{kind}/{}", reference.name)
    } else {
        format!("{kind}/{}/{}", reference.namespace, reference.name)
    }
}

fn file_name(reference: &PolicyRef) -> String {
    format!("{}_{}_{}.yaml", reference.kind.as_str(), reference.namespace, reference.name)
}

/// Kubernetes' names are made of these; anything else could leave the directory.
fn is_file_name(reference: &PolicyRef) -> bool {
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    let is_short = file_name(reference).len() <= 255;
    !reference.name.is_empty() && is_plain(&reference.name) && is_plain(&reference.namespace) && is_short
}
