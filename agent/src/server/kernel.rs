//! What the kernel's maps hold, read on blocking threads.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use serde::Deserialize;
use sluice_client::model::{
    ConntrackRow, Endpoint, EndpointCounter, IpcacheRow, MapPlane, MapStatus, PolicyMapEntry,
};
use sluice_ebpf_common::{ConntrackFlags, CounterKey, Counters, map_name};
use sluice_ebpf_loader::conntrack::{self as ct, Connection};
use sluice_ebpf_loader::{LoaderError, Sizes};
use sluice_policy::map_state::{Entry, EntryVerdict, Key, L4Match, Plane};
use sluice_types::{Direction, DropReason, EndpointId, Identity, Protocol, RuleId};

use super::endpoint_id;
use super::error::{ApiError, Json, unexpected};
use crate::app::{Agent, Readers};
use crate::event::{Answer, Refusal, RefusalCode, Request};
use crate::observe::Names;

#[derive(Debug, Deserialize)]
pub(super) struct WhichEndpoint {
    endpoint: Option<u16>,
}

/// Runs `read` where it may block.
async fn read<T: Send + 'static>(
    agent: &Agent,
    read: impl FnOnce(&Readers) -> Result<T, LoaderError> + Send + 'static,
) -> Result<T, ApiError> {
    let readers = agent.readers.clone();
    let joined = tokio::task::spawn_blocking(move || read(&readers)).await;
    joined.map_err(|_panicked| unexpected())?.map_err(ApiError::from)
}

/// Fills in the counters of endpoints.
pub(super) async fn add_counters(agent: &Agent, endpoints: &mut [Endpoint]) -> Result<(), ApiError> {
    let all = read(agent, |readers| readers.counters.dump()).await?;
    let mut by_endpoint: HashMap<u16, Vec<(CounterKey, Counters)>> = HashMap::new();
    for (key, counters) in all {
        by_endpoint.entry(key.endpoint).or_default().push((key, counters));
    }
    for endpoint in endpoints {
        let mut own = by_endpoint.remove(&endpoint.id.as_u16()).unwrap_or_default();
        own.sort_by_key(|(key, _)| (key.direction, key.reason));
        endpoint.counters = own.iter().map(|(key, counters)| counter(key, counters)).collect();
    }
    Ok(())
}

fn counter(key: &CounterKey, counters: &Counters) -> EndpointCounter {
    let is_egress = key.direction == Direction::Egress as u8;
    let outcome = match key.reason {
        0 => "FORWARDED".to_owned(),
        number => {
            DropReason::from_number(number).map_or_else(|| number.to_string(), |reason| reason.to_string())
        }
    };
    EndpointCounter {
        direction: if is_egress { Direction::Egress } else { Direction::Ingress },
        outcome,
        packets: counters.packets,
        bytes: counters.bytes,
    }
}

/// The maps that can run full. Counting means walking, so only the cheap ones are counted.
pub(super) async fn map_levels(agent: &Agent) -> Result<Vec<MapStatus>, ApiError> {
    let counts = agent.ask(Request::MapLevels).await?;
    let Answer::MapLevels { addresses4, addresses6, prefixes4, prefixes6 } = counts else {
        return Err(unexpected());
    };
    let sizes = Sizes::default();
    let map = |name: &str, used: Option<usize>, capacity: u32| MapStatus {
        name: name.to_owned(),
        used: used.map(|used| used as u64),
        capacity: u64::from(capacity),
    };
    Ok(vec![
        map(map_name::IPCACHE4, Some(addresses4), sizes.addresses),
        map(map_name::IPCACHE6, Some(addresses6), sizes.addresses),
        map(map_name::CIDR4, Some(prefixes4), sizes.prefixes),
        map(map_name::CIDR6, Some(prefixes6), sizes.prefixes),
        map(map_name::CONNTRACK4, None, sizes.conntrack),
        map(map_name::CONNTRACK6, None, sizes.conntrack),
        map(map_name::FRAGMENT, None, sizes.fragments),
        map(map_name::COUNTER, None, sizes.counters),
    ])
}

pub(super) async fn policy(
    State(agent): State<Agent>,
    which: Result<Query<WhichEndpoint>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<PolicyMapEntry>>, ApiError> {
    let Query(which) = which.map_err(|error| Refusal::new(RefusalCode::Invalid, error.to_string()))?;
    let ids: Vec<EndpointId> = match which.endpoint {
        Some(raw) => vec![endpoint_id(raw)?],
        None => {
            let Answer::Endpoints(all) = agent.ask(Request::Endpoints).await? else {
                return Err(unexpected());
            };
            all.iter().map(|endpoint| endpoint.id).collect()
        }
    };
    let names = agent.names();
    let tables = read(&agent, move |readers| {
        let mut tables = Vec::new();
        for id in ids {
            match readers.policies.dump(id) {
                Ok(state) => tables.push((id, state)),
                Err(LoaderError::NoPolicy(id)) if which.endpoint.is_some() => {
                    return Err(LoaderError::NoPolicy(id));
                }
                // It went away while the others were read.
                Err(LoaderError::NoPolicy(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tables)
    })
    .await?;
    let rows = tables.iter().flat_map(|(id, state)| state.iter().map(|entry| policy_row(*id, entry, &names)));
    Ok(Json(rows.collect()))
}

fn policy_row(
    endpoint: EndpointId,
    (plane, key, entry): (Plane, &Key, &Entry),
    names: &Names,
) -> PolicyMapEntry {
    let identity = key.peer.unwrap_or(Identity::UNKNOWN);
    let (verdict, proxy_port) = match entry.verdict {
        EntryVerdict::Allow => ("Allow", 0),
        EntryVerdict::Deny => ("Deny", 0),
        EntryVerdict::Redirect(port) => ("Redirect", port.0),
        EntryVerdict::Pass => ("Pass", 0),
    };
    PolicyMapEntry {
        endpoint,
        plane: match plane {
            Plane::Admin => MapPlane::Admin,
            Plane::Normal => MapPlane::Normal,
            Plane::Staged => MapPlane::Audit,
        },
        verdict: verdict.to_owned(),
        direction: key.direction,
        identity,
        labels: names.identities.get(&identity).map(|labels| (**labels).clone()).unwrap_or_default(),
        port: port_text(key.l4),
        proxy_port,
        precedence: entry.precedence,
        rule: entry.rule,
        origin: origin(names, entry.rule),
    }
}

/// `8080/TCP`, `1000-1007/UDP`, `8/ICMP`, `TCP`, or `ANY`.
fn port_text(l4: L4Match) -> String {
    match l4 {
        L4Match::Any => "ANY".to_owned(),
        L4Match::Protocol(protocol) => protocol.to_string(),
        L4Match::Port { protocol, port, prefix } if prefix >= 16 => format!("{port}/{protocol}"),
        L4Match::Port { protocol, port, prefix } => {
            let last = port | u16::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            format!("{port}-{last}/{protocol}")
        }
    }
}

fn origin(names: &Names, rule: RuleId) -> String {
    match names.rules.get(&rule) {
        Some(origin) => origin.to_string(),
        None if rule == RuleId::NONE => String::new(),
        None => rule.to_string(),
    }
}

pub(super) async fn conntrack(State(agent): State<Agent>) -> Result<Json<Vec<ConntrackRow>>, ApiError> {
    let names = agent.names();
    let rows = read(&agent, move |readers| {
        let now = ct::now();
        let live =
            readers.conntrack.dump()?.into_iter().filter(move |connection| connection.entry.expires > now);
        Ok(live.map(|connection| conntrack_row(&connection, now, &names)).collect())
    })
    .await?;
    Ok(Json(rows))
}

fn conntrack_row(connection: &Connection, now: u32, names: &Arc<Names>) -> ConntrackRow {
    let entry = &connection.entry;
    let rule = |raw: u32| origin(names, RuleId(raw));
    ConntrackRow {
        protocol: Protocol::from_number(connection.protocol).to_string(),
        source: connection.source.to_string(),
        destination: connection.destination.to_string(),
        source_identity: Identity::new(entry.source_identity),
        destination_identity: Identity::new(entry.destination_identity),
        flags: flag_words(entry.flags),
        // Units of 2^30 ns.
        expires_s: (u64::from(entry.expires.saturating_sub(now)) << 30) / 1_000_000_000,
        packets: entry.packets,
        bytes: entry.bytes,
        rules: [rule(entry.egress_rule), rule(entry.ingress_rule)],
    }
}

fn flag_words(flags: ConntrackFlags) -> Vec<String> {
    let fin = ConntrackFlags(ConntrackFlags::FIN_FROM_A.0 | ConntrackFlags::FIN_FROM_B.0);
    let words = [
        (flags.contains(ConntrackFlags::EGRESS_JUDGED), "egress-judged"),
        (flags.contains(ConntrackFlags::INGRESS_JUDGED), "ingress-judged"),
        (flags.contains(ConntrackFlags::REPLIED), "replied"),
        (flags.0 & fin.0 != 0, "fin"),
        (flags.contains(ConntrackFlags::RESET), "reset"),
        (flags.contains(ConntrackFlags::AUDITED), "audited"),
    ];
    words.into_iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word.to_owned()).collect()
}

pub(super) async fn ipcache(State(agent): State<Agent>) -> Result<Json<Vec<IpcacheRow>>, ApiError> {
    let names = agent.names();
    let entries = read(&agent, |readers| readers.ipcache.dump()).await?;
    let rows = entries.into_iter().map(|(prefix, entry)| {
        let identity = Identity::new(entry.identity);
        IpcacheRow {
            prefix: prefix.to_string(),
            identity,
            labels: names.identities.get(&identity).map(|labels| (**labels).clone()).unwrap_or_default(),
            endpoint: entry.endpoint,
        }
    });
    Ok(Json(rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_well() {
        let cases = [
            (L4Match::Any, "ANY"),
            (L4Match::Protocol(Protocol::Tcp), "TCP"),
            (L4Match::port(Protocol::Tcp, 8080), "8080/TCP"),
            (L4Match::port(Protocol::Icmp, 8), "8/ICMP"),
            (L4Match::Port { protocol: Protocol::Udp, port: 1000, prefix: 13 }, "1000-1007/UDP"),
            (L4Match::Port { protocol: Protocol::Udp, port: 0x8000, prefix: 1 }, "32768-65535/UDP"),
        ];
        for (l4, want) in cases {
            assert_eq!(port_text(l4), want);
        }
    }
}
