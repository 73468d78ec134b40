//! `sluice policy convert`: NetworkPolicy and CiliumNetworkPolicy in each other's words.

use std::io::Write;

use sluice_api::{Manifest, Object};
use sluice_model::{Cluster, Inexpressible, to_cilium, to_kubernetes};
use sluice_policy::Config;

use crate::args::{ConvertArgs, Language};
use crate::documents::{self, Document};
use crate::failure::Failure;
use crate::output::Output;

/// Converts everything, or says all that cannot be.
pub(super) fn run(arguments: &ConvertArgs, output: &mut Output) -> Result<(), Failure> {
    let documents = documents::read(&arguments.files)?;
    // What the engine refuses has no meaning that could stay the same.
    documents::apply_all(&documents, &mut Cluster::new(Config::complete()))?;
    let (mut converted, mut mistakes) = (Vec::new(), Vec::new());
    for document in &documents {
        let Ok(object) = &document.manifest.content else { continue };
        match convert(object, arguments.to) {
            Some(Ok(object)) => converted.push(object),
            Some(Err(error)) => mistakes.push(shown(document, &error)),
            None => {}
        }
    }
    if !mistakes.is_empty() {
        return Err(Failure::invalid(mistakes.join("\n")).hint("Nothing was converted."));
    }
    if converted.is_empty() {
        return Err(Failure::not_found("there is no NetworkPolicy or CiliumNetworkPolicy to convert"));
    }
    write!(output, "{}", text(&converted)?)?;
    Ok(())
}

/// The policies in the layout that `sluice policy fmt` gives them.
fn text(policies: &[Object]) -> Result<String, Failure> {
    let written =
        |error: &dyn std::fmt::Display| Failure::error(format!("cannot write this as YAML: {error}"));
    let documents = policies.iter().map(|object| serde_saphyr::to_string(&object.to_value()));
    let documents: Vec<String> = documents.collect::<Result<_, _>>().map_err(|error| written(&error))?;
    sluice_format::format(&documents.join("---\n")).map_err(|error| written(&error))
}

/// None if the object is of another kind, or only to be left as it is.
fn convert(object: &Object, to: Option<Language>) -> Option<Result<Object, Inexpressible>> {
    match (object, to) {
        (Object::NetworkPolicy(_), Some(Language::Kubernetes))
        | (Object::CiliumNetworkPolicy(_), Some(Language::Cilium)) => Some(Ok(object.clone())),
        (Object::NetworkPolicy(policy), _) => {
            Some(to_cilium(policy).map(|policy| Object::CiliumNetworkPolicy(Box::new(policy))))
        }
        (Object::CiliumNetworkPolicy(policy), _) => {
            Some(to_kubernetes(policy).map(|policy| Object::NetworkPolicy(Box::new(policy))))
        }
        (Object::CiliumClusterwideNetworkPolicy(_), Some(Language::Kubernetes) | None) => {
            Some(Err(Inexpressible {
                path: "kind".to_owned(),
                reason: "a NetworkPolicy belongs to one namespace".to_owned(),
            }))
        }
        (
            Object::CiliumClusterwideNetworkPolicy(_)
            | Object::ClusterNetworkPolicy(_)
            | Object::CiliumCidrGroup(_)
            | Object::Pod(_)
            | Object::Namespace(_)
            | Object::Node(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::Secret(_)
            | Object::Ignored,
            _,
        ) => None,
    }
}

fn shown(document: &Document, error: &Inexpressible) -> String {
    let Manifest { kind, name, .. } = &document.manifest;
    let place = document.manifest.place(&error.path);
    format!("{}:{}:{}: {kind} {name}: {error}", document.file, place.line, place.column)
}
