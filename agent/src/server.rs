//! The local API over a unix socket: HTTP/1 with JSON, paths and bodies of `sluice-client`.
//!
//! Handlers ask the state, read the kernel's maps on blocking threads, or stream flows. A slow caller holds up
//! nobody: each connection is its own task, and the state answers into a one-shot channel.

mod error;
mod kernel;
mod metrics;
mod monitor;
mod policies;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::{delete, get, patch, post};
use sluice_client::model::{
    CniGcRequest, CniGcResult, Endpoint, EndpointLogEntry, EndpointOptions, EndpointRequest, IdentityInfo,
    IpamLease, IpamRequest, Status,
};
use sluice_client::path;
use sluice_types::EndpointId;
use tokio::net::{TcpListener, UnixListener};

use crate::app::Agent;
use crate::event::{Answer, Refusal, RefusalCode, Request};
use crate::ipam::Owner;

use error::{ApiError, Body, Json, unexpected};

/// Largest body: a `policy apply` of many documents.
const BODY_BYTES_MAX: usize = 32 << 20;
/// Longest container id or interface name that is looked at.
const WORD_BYTES_MAX: usize = 256;

pub(crate) use metrics::Sources;

/// Serves until the process ends.
pub(crate) async fn serve(listener: UnixListener, sources: Sources) {
    let router = router(sources.agent.clone()).merge(metrics::router(sources));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the API has stopped");
    }
}

/// Serves metrics, and nothing else, to whoever can reach the address.
pub(crate) async fn serve_metrics(listener: TcpListener, sources: Sources) {
    if let Err(error) = axum::serve(listener, metrics::public(sources)).await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

fn router(agent: Agent) -> Router {
    Router::new()
        .route(path::STATUS, get(status))
        .route(path::IPAM, post(lease))
        .route(path::IPAM_OWNER, delete(release))
        .route(path::ENDPOINTS, get(endpoints).post(create))
        .route(path::ENDPOINT, get(endpoint))
        .route(path::ENDPOINT_CONFIG, patch(configure))
        .route(path::ENDPOINT_LOG, get(log))
        .route(path::ATTACHMENT, delete(detach))
        .route(path::CNI_GC, post(collect))
        .route(path::IDENTITIES, get(identities))
        .route(path::OBJECTS, get(objects))
        .route(path::POLICIES, get(policies::list))
        .route(path::POLICY_APPLY, post(policies::apply))
        .route(path::POLICY, delete(policies::remove))
        .route(path::BPF_POLICY, get(kernel::policy))
        .route(path::BPF_CT, get(kernel::conntrack))
        .route(path::BPF_IPCACHE, get(kernel::ipcache))
        .route(path::PROXY_RECORDS, post(monitor::requests))
        .route(path::MONITOR, get(monitor::monitor))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(agent)
}

async fn objects(State(agent): State<Agent>) -> Result<Json<Vec<serde_json::Value>>, ApiError> {
    let Answer::Objects(objects) = agent.ask(Request::Objects).await? else { return Err(unexpected()) };
    Ok(Json(objects))
}

async fn status(State(agent): State<Agent>) -> Result<Json<Status>, ApiError> {
    let Answer::Status(mut status) = agent.ask(Request::Status).await? else { return Err(unexpected()) };
    status.maps = kernel::map_levels(&agent).await?;
    Ok(Json(*status))
}

async fn lease(
    State(agent): State<Agent>,
    Body(request): Body<IpamRequest>,
) -> Result<Json<IpamLease>, ApiError> {
    let Answer::Lease(lease) =
        agent.ask(Request::Lease(owner(request.container_id, request.ifname)?)).await?
    else {
        return Err(unexpected());
    };
    Ok(Json(lease))
}

async fn release(
    State(agent): State<Agent>,
    Path((container_id, ifname)): Path<(String, String)>,
) -> Result<Json<()>, ApiError> {
    agent.ask(Request::Release(owner(container_id, ifname)?)).await?;
    Ok(Json(()))
}

async fn endpoints(State(agent): State<Agent>) -> Result<Json<Vec<Endpoint>>, ApiError> {
    let Answer::Endpoints(mut endpoints) = agent.ask(Request::Endpoints).await? else {
        return Err(unexpected());
    };
    kernel::add_counters(&agent, &mut endpoints).await?;
    Ok(Json(endpoints))
}

async fn create(
    State(agent): State<Agent>,
    Body(request): Body<EndpointRequest>,
) -> Result<Json<Endpoint>, ApiError> {
    owner(request.container_id.clone(), request.ifname.clone())?;
    let Answer::Endpoint(endpoint) = agent.ask(Request::CreateEndpoint(Box::new(request))).await? else {
        return Err(unexpected());
    };
    Ok(Json(*endpoint))
}

async fn endpoint(State(agent): State<Agent>, Path(id): Path<u16>) -> Result<Json<Endpoint>, ApiError> {
    let Answer::Endpoint(endpoint) = agent.ask(Request::Endpoint(endpoint_id(id)?)).await? else {
        return Err(unexpected());
    };
    let mut one = vec![*endpoint];
    kernel::add_counters(&agent, &mut one).await?;
    one.pop().map(Json).ok_or_else(unexpected)
}

async fn configure(
    State(agent): State<Agent>,
    Path(id): Path<u16>,
    Body(options): Body<EndpointOptions>,
) -> Result<Json<Endpoint>, ApiError> {
    let Answer::Endpoint(endpoint) = agent.ask(Request::Configure(endpoint_id(id)?, options)).await? else {
        return Err(unexpected());
    };
    Ok(Json(*endpoint))
}

async fn log(
    State(agent): State<Agent>,
    Path(id): Path<u16>,
) -> Result<Json<Vec<EndpointLogEntry>>, ApiError> {
    let Answer::EndpointLog(log) = agent.ask(Request::EndpointLog(endpoint_id(id)?)).await? else {
        return Err(unexpected());
    };
    Ok(Json(log))
}

async fn detach(
    State(agent): State<Agent>,
    Path((container_id, ifname)): Path<(String, String)>,
) -> Result<Json<()>, ApiError> {
    agent.ask(Request::DeleteAttachment(owner(container_id, ifname)?)).await?;
    Ok(Json(()))
}

async fn collect(
    State(agent): State<Agent>,
    Body(request): Body<CniGcRequest>,
) -> Result<Json<CniGcResult>, ApiError> {
    let valid = request.valid.into_iter().map(|known| owner(known.container_id, known.ifname));
    let Answer::Gc(result) = agent.ask(Request::Gc(valid.collect::<Result<_, _>>()?)).await? else {
        return Err(unexpected());
    };
    Ok(Json(result))
}

async fn identities(State(agent): State<Agent>) -> Result<Json<Vec<IdentityInfo>>, ApiError> {
    let Answer::Identities(identities) = agent.ask(Request::Identities).await? else {
        return Err(unexpected());
    };
    Ok(Json(identities))
}

fn owner(container_id: String, ifname: String) -> Result<Owner, ApiError> {
    let is_word = |word: &str| {
        (1..=WORD_BYTES_MAX).contains(&word.len())
            && !word.contains('/')
            && word.chars().all(|c| c.is_ascii_graphic())
    };
    if is_word(&container_id) && is_word(&ifname) {
        Ok(Owner { container_id, ifname })
    } else {
        let message = format!("{container_id:?}, {ifname:?} name no attachment");
        Err(Refusal::new(RefusalCode::Invalid, message).into())
    }
}

fn endpoint_id(raw: u16) -> Result<EndpointId, ApiError> {
    EndpointId::new(raw)
        .ok_or_else(|| Refusal::new(RefusalCode::NotFound, format!("there is no endpoint {raw}")).into())
}
