//! `sluice policy convert`: NetworkPolicy and CiliumNetworkPolicy in each other's words.

use std::collections::BTreeSet;
use std::io::Write;

use sluice_api::{Manifest, Object};
use sluice_model::{Cluster, Inexpressible, to_cilium, to_kubernetes};
use sluice_policy::Config;

use crate::args::{Color, ConvertArgs, Language};
use crate::documents::{self, Document};
use crate::failure::Failure;
use crate::output::Output;

/// Converts everything, or says all that cannot be.
pub(super) fn run(arguments: &ConvertArgs, output: &mut Output) -> Result<(), Failure> {
    let documents = documents::read(&arguments.files)?;
    // What the engine refuses has no meaning that could stay the same.
    documents::apply_all(&documents, &mut Cluster::new(Config::complete()))?;
    let (mut converted, mut mistakes, mut others) = (Vec::new(), Vec::new(), BTreeSet::new());
    for document in &documents {
        let Ok(object) = &document.manifest.content else { continue };
        match convert(object, arguments.to) {
            Some(Ok(object)) => converted.push(object),
            Some(Err(error)) => mistakes.push(shown(document, &error)),
            None => {
                others.insert(document.manifest.kind.clone());
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(Failure::invalid(mistakes.join("\n")).hint("Nothing was converted."));
    }
    if converted.is_empty() {
        return Err(Failure::not_found("there is no policy to convert"));
    }
    check(&converted)?;
    write!(output, "{}", text(&converted)?)?;
    tell_others(&others);
    Ok(())
}

/// What is printed must be taken as it stands.
fn check(policies: &[Object]) -> Result<(), Failure> {
    let mut cluster = Cluster::new(Config::complete());
    for policy in policies {
        cluster.apply(policy).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let (written, errors) = (policy.to_value(), errors.join("; "));
            let name = written.pointer("/metadata/name").unwrap_or(&written);
            Failure::error(format!("{name} would be refused after the conversion: {errors}"))
        })?;
    }
    Ok(())
}

/// Says which kinds of objects have no part in what is printed.
fn tell_others(kinds: &BTreeSet<String>) {
    if kinds.is_empty() {
        return;
    }
    let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
    let mut stderr = Output::stderr(Color::Auto);
    let note = stderr.warn("note:");
    // A note that cannot be printed changes no answer.
    let _unprinted =
        writeln!(stderr, "{note} only policies are printed, and not the {} beside them", kinds.join(", "));
}

/// The policies in the layout that `sluice policy fmt` gives them.
fn text(policies: &[Object]) -> Result<String, Failure> {
    let written =
        |error: &dyn std::fmt::Display| Failure::error(format!("cannot write this as YAML: {error}"));
    let documents = policies.iter().map(|object| serde_saphyr::to_string(&object.to_value()));
    let documents: Vec<String> = documents.collect::<Result<_, _>>().map_err(|error| written(&error))?;
    sluice_format::format(&documents.join("---\n")).map_err(|error| written(&error))
}

/// None if the object is no policy.
fn convert(object: &Object, to: Option<Language>) -> Option<Result<Object, Inexpressible>> {
    match (object, to) {
        (Object::NetworkPolicy(_), Some(Language::Kubernetes))
        | (
            Object::CiliumNetworkPolicy(_) | Object::CiliumClusterwideNetworkPolicy(_),
            Some(Language::Cilium),
        ) => Some(Ok(object.clone())),
        (Object::NetworkPolicy(policy), Some(Language::Cilium) | None) => {
            Some(to_cilium(policy).map(|policy| Object::CiliumNetworkPolicy(Box::new(policy))))
        }
        (Object::CiliumNetworkPolicy(policy), Some(Language::Kubernetes) | None) => {
            Some(to_kubernetes(policy).map(|policy| Object::NetworkPolicy(Box::new(policy))))
        }
        (Object::CiliumClusterwideNetworkPolicy(_), Some(Language::Kubernetes) | None) => {
            Some(Err(impossible("a NetworkPolicy belongs to one namespace")))
        }
        (Object::ClusterNetworkPolicy(_), _) => {
            Some(Err(impossible("no other policy is judged before or after all others")))
        }
        (
            Object::CiliumCidrGroup(_)
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

/// The whole kind has no counterpart.
fn impossible(reason: &str) -> Inexpressible {
    Inexpressible { path: "kind".to_owned(), reason: reason.to_owned() }
}

fn shown(document: &Document, error: &Inexpressible) -> String {
    let Manifest { kind, name, .. } = &document.manifest;
    let place = document.manifest.place(&error.path);
    format!("{}:{}:{}: {kind} {name}: {error}", document.file, place.line, place.column)
}
