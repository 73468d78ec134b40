//! What was counted on this node, as Prometheus reads it: by the agent, the kernel, and the proxy.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sluice_client::exposition::{self, Exposition, Kind};
use sluice_client::model::Status;
use sluice_client::{Client, path};
use sluice_ebpf_common::Counters;
use sluice_ebpf_loader::LoaderError;
use sluice_types::Direction;

use super::error::{ApiError, unexpected};
use crate::app::Agent;
use crate::datapath::{Fate, Totals};
use crate::event::{Answer, Request};
use crate::report::chain;

/// How long the proxy may take to say what it counted.
const PROXY_WITHIN: Duration = Duration::from_secs(1);
/// Where other collectors look for metrics.
const USUAL_PATH: &str = "/metrics";

/// Where numbers come from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// The agent.
    pub agent: Agent,
    /// The kernel.
    pub totals: Arc<Totals>,
    /// The proxy's socket, if there is to be a proxy.
    pub proxy: Option<PathBuf>,
}

/// Answers at the API's path.
pub(super) fn router(sources: Sources) -> Router {
    Router::new().route(path::METRICS, get(metrics)).with_state(sources)
}

/// Answers at the usual path, and nothing else.
pub(super) fn public(sources: Sources) -> Router {
    Router::new().route(USUAL_PATH, get(metrics)).with_state(sources)
}

async fn metrics(State(sources): State<Sources>) -> Result<Response, ApiError> {
    let Answer::Status(status) = sources.agent.ask(Request::Status).await? else { return Err(unexpected()) };
    let Sources { totals, proxy, .. } = sources;
    let blocking = move || {
        let mut text = Exposition::default();
        write_state(&mut text, &status);
        write_packets(&mut text, &totals.read()?);
        let requests = proxy.map(|proxy| write_proxy(&mut text, proxy)).unwrap_or_default();
        Ok::<_, LoaderError>(text.into_text() + &requests)
    };
    let text = tokio::task::spawn_blocking(blocking).await.map_err(|_panicked| unexpected())??;
    Ok(([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response())
}

fn write_state(text: &mut Exposition, status: &Status) {
    let mut gauge = |name: &str, help: &str, value: u64| {
        text.begin(name, Kind::Gauge, help);
        text.number(name, &[], value);
    };
    gauge("cilium_policy", "Policies in force.", status.policies as u64);
    gauge("cilium_policy_max_revision", "Revision of the repository of policies.", status.revision);
    gauge("cilium_identity", "Identities in use.", status.identities as u64);
    gauge("sluice_problems", "What needs a look, as the status names it.", status.problems.len() as u64);
    let name = "cilium_endpoint_state";
    text.begin(name, Kind::Gauge, "Endpoints by state.");
    for (state, count) in &status.endpoints {
        text.number(name, &[("endpoint_state", state)], count);
    }
}

/// Directions and reasons are written as flows have them.
fn write_packets(text: &mut Exposition, sums: &BTreeMap<Fate, Counters>) {
    let packets = |counters: &Counters| counters.packets;
    let bytes = |counters: &Counters| counters.bytes;
    write_forwarded(text, "cilium_forward_count_total", "Packets forwarded.", sums, packets);
    write_forwarded(text, "cilium_forward_bytes_total", "Bytes forwarded.", sums, bytes);
    write_dropped(text, "cilium_drop_count_total", "Packets dropped.", sums, packets);
    write_dropped(text, "cilium_drop_bytes_total", "Bytes dropped.", sums, bytes);
}

fn write_forwarded(
    text: &mut Exposition,
    name: &str,
    help: &str,
    sums: &BTreeMap<Fate, Counters>,
    number: impl Fn(&Counters) -> u64,
) {
    text.begin(name, Kind::Counter, help);
    for ((reason, direction), counters) in sums {
        if reason.is_none() {
            text.number(name, &[("direction", word(*direction))], number(counters));
        }
    }
}

fn write_dropped(
    text: &mut Exposition,
    name: &str,
    help: &str,
    sums: &BTreeMap<Fate, Counters>,
    number: impl Fn(&Counters) -> u64,
) {
    text.begin(name, Kind::Counter, help);
    for ((reason, direction), counters) in sums {
        if let Some(reason) = reason {
            let reason = reason.to_string();
            text.number(name, &[("reason", &reason), ("direction", word(*direction))], number(counters));
        }
    }
}

const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "INGRESS",
        Direction::Egress => "EGRESS",
    }
}

/// Says whether the proxy answers, and returns what it does.
fn write_proxy(text: &mut Exposition, socket: PathBuf) -> String {
    let answer = Client::new(socket, PROXY_WITHIN).text(USUAL_PATH);
    let name = "sluice_proxy_up";
    text.begin(name, Kind::Gauge, "Whether the proxy for HTTP answers.");
    text.number(name, &[], u8::from(answer.is_ok()));
    answer.unwrap_or_else(|error| {
        tracing::debug!(error = chain(&error), "the proxy does not say what it counted");
        String::new()
    })
}

#[cfg(test)]
mod tests {
    use sluice_types::DropReason;

    use super::*;

    #[test]
    fn packets_by_what_became_of_them() {
        let counters = |packets| Counters { packets, bytes: packets * 10 };
        let sums = BTreeMap::from([
            ((None, Direction::Ingress), counters(1)),
            ((None, Direction::Egress), counters(2)),
            ((Some(DropReason::PolicyDenied), Direction::Egress), counters(3)),
        ]);
        let mut text = Exposition::default();
        write_packets(&mut text, &sums);
        let numbers: Vec<String> =
            text.into_text().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        let wanted = [
            "cilium_forward_count_total{direction=\"INGRESS\"} 1",
            "cilium_forward_count_total{direction=\"EGRESS\"} 2",
            "cilium_forward_bytes_total{direction=\"INGRESS\"} 10",
            "cilium_forward_bytes_total{direction=\"EGRESS\"} 20",
            "cilium_drop_count_total{reason=\"POLICY_DENIED\",direction=\"EGRESS\"} 3",
            "cilium_drop_bytes_total{reason=\"POLICY_DENIED\",direction=\"EGRESS\"} 30",
        ];
        assert_eq!(numbers, wanted);
    }

    #[test]
    fn a_proxy_that_is_not_there_is_said_to_be_down() {
        let directory = tempfile::tempdir().unwrap();
        let mut text = Exposition::default();
        assert_eq!(write_proxy(&mut text, directory.path().join("none")), "");
        assert!(text.into_text().ends_with("\nsluice_proxy_up 0\n"));
    }
}
