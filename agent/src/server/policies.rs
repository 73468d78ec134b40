//! Policies: listed, applied, removed.

use axum::extract::{Path, State};
use sluice_client::model::{PolicyApplied, PolicyDocument, PolicyInfo};
use sluice_policy::{PolicyKind, PolicyRef};

use super::error::{ApiError, Body, Json, unexpected};
use crate::app::Agent;
use crate::event::{Answer, Refusal, RefusalCode, Request};
use crate::source::directory::SourceRequest;

pub(super) async fn list(State(agent): State<Agent>) -> Result<Json<Vec<PolicyInfo>>, ApiError> {
    let Answer::Policies(policies) = agent.ask(Request::Policies).await? else {
        return Err(unexpected());
    };
    Ok(Json(policies))
}

pub(super) async fn apply(
    State(agent): State<Agent>,
    Body(document): Body<PolicyDocument>,
) -> Result<Json<PolicyApplied>, ApiError> {
    let Answer::Applied(applied) = agent.ask_source(|ticket| SourceRequest::Apply(document, ticket)).await?
    else {
        return Err(unexpected());
    };
    Ok(Json(applied))
}

pub(super) async fn remove(
    State(agent): State<Agent>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Result<Json<PolicyApplied>, ApiError> {
    let reference = reference(&kind, &namespace, &name)?;
    let Answer::Applied(applied) =
        agent.ask_source(|ticket| SourceRequest::Delete(reference, ticket)).await?
    else {
        return Err(unexpected());
    };
    Ok(Json(applied))
}

fn reference(kind: &str, namespace: &str, name: &str) -> Result<PolicyRef, ApiError> {
    let kind = match kind.to_ascii_lowercase().as_str() {
        "ciliumnetworkpolicy" | "cnp" => PolicyKind::Cnp,
        "ciliumclusterwidenetworkpolicy" | "ccnp" => PolicyKind::Ccnp,
        "networkpolicy" | "knp" | "netpol" => PolicyKind::Knp,
        "clusternetworkpolicy" | "kcnp" => PolicyKind::Kcnp,
        _ => {
            let message = format!("{kind:?} is no kind of policy");
            return Err(Refusal::new(RefusalCode::Invalid, message).into());
        }
    };
    let is_clusterwide = matches!(kind, PolicyKind::Ccnp | PolicyKind::Kcnp);
    let namespace = if is_clusterwide || namespace == "-" { "" } else { namespace };
    Ok(PolicyRef::new(kind, namespace, name))
}
