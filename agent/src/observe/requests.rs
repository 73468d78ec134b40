//! A request that a proxy judged becomes a flow: numbers get their names.

use std::net::SocketAddr;

use sluice_flow::{Flow, FlowEnd, FlowVerdict, L4, PolicyOrigin, ProxyRecord};
use sluice_types::{DropReason, Identity, RuleId};

use super::Names;

/// The flow of a record.
#[must_use]
pub(crate) fn flow(record: ProxyRecord, names: &Names) -> Flow {
    let is_denied = matches!(record.verdict, FlowVerdict::Dropped | FlowVerdict::Audit);
    Flow {
        time_unix_ns: record.time_unix_ns,
        verdict: record.verdict,
        drop_reason: is_denied.then_some(DropReason::PolicyDenied),
        direction: record.direction,
        endpoint: record.endpoint.as_u16(),
        source: end(record.source, record.source_identity, names),
        destination: end(record.destination, record.destination_identity, names),
        l4: L4 { protocol: "TCP".to_owned(), tcp_flags: String::new(), icmp_type: None },
        is_reply: false,
        policies: policies(&record, names),
        revision: record.revision,
        length: 0,
        lost: record.lost,
        ifindex: 0,
        http: Some(record.http),
    }
}

fn end(address: SocketAddr, identity: Identity, names: &Names) -> FlowEnd {
    let name = names.endpoints.values().find(|name| name.addresses.contains(&address.ip()));
    FlowEnd {
        ip: address.ip().to_string(),
        port: address.port(),
        identity,
        labels: names.identities.get(&identity).map(|labels| (**labels).clone()).unwrap_or_default(),
        namespace: name.map(|name| name.namespace.clone()).unwrap_or_default(),
        pod: name.map(|name| name.pod.clone()).unwrap_or_default(),
    }
}

/// The rule that decided, with the place in it; where none did, the policies that isolate the endpoint.
fn policies(record: &ProxyRecord, names: &Names) -> Vec<PolicyOrigin> {
    if record.rule == RuleId::NONE {
        let name = names.endpoints.get(&record.endpoint.as_u16());
        let is_audited = record.verdict == FlowVerdict::Audit;
        return name.map(|name| name.closed_by(record.direction, is_audited).to_vec()).unwrap_or_default();
    }
    let origin = names.rules.get(&record.rule).map(|origin| match &record.part {
        Some(part) => PolicyOrigin { policy: origin.policy.clone(), rule: format!("{}.{part}", origin.rule) },
        None => origin.clone(),
    });
    origin.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use sluice_flow::HttpRecord;
    use sluice_policy::{DirectionState, EndpointPolicy, PolicyKind, PolicyRef};
    use sluice_types::{Direction, EndpointId};

    use super::super::EndpointName;
    use super::*;

    fn names() -> Names {
        let policy = EndpointPolicy {
            ingress: DirectionState {
                enforced: true,
                isolated_by: vec![PolicyRef::new(PolicyKind::Cnp, "shop", "web")],
                ..DirectionState::default()
            },
            ..EndpointPolicy::default()
        };
        let pod = |name: &str, address: &str| {
            let attachment = sluice_client::model::EndpointRequest {
                pod_namespace: Some("shop".into()),
                pod_name: Some(name.into()),
                ipv4: Some(address.parse().unwrap()),
                ..crate::endpoint::tests::request()
            };
            Arc::new(EndpointName::new(&attachment, &policy))
        };
        let origin = PolicyOrigin { policy: "cnp/shop/web".into(), rule: "ingress[0]".into() };
        Names {
            endpoints: Arc::new(HashMap::from([(7, pod("web", "10.0.0.7")), (8, pod("client", "10.0.0.8"))])),
            rules: Arc::new(HashMap::from([(RuleId(5), origin)])),
            ..Names::default()
        }
    }

    fn record(verdict: FlowVerdict, rule: u32, part: Option<&str>) -> ProxyRecord {
        ProxyRecord {
            time_unix_ns: 5,
            verdict,
            direction: Direction::Ingress,
            endpoint: EndpointId::new(7).unwrap(),
            source: "10.0.0.8:40000".parse().unwrap(),
            source_identity: Identity::new(300),
            destination: "10.0.0.7:80".parse().unwrap(),
            destination_identity: Identity::new(301),
            rule: RuleId(rule),
            part: part.map(str::to_owned),
            revision: 3,
            lost: 0,
            http: HttpRecord {
                flow: "1-1".into(),
                method: "GET".into(),
                path: "/a".into(),
                authority: "web".into(),
                status: Some(200),
                latency_ns: 2_000_000,
            },
        }
    }

    #[test]
    fn both_pods_and_the_rule_are_named() {
        let passed = flow(record(FlowVerdict::Forwarded, 5, Some("toPorts[0].http[1]")), &names());
        assert_eq!(
            passed.to_string(),
            "FORWARDED shop/client:40000 -> shop/web:80 GET web/a 200 in 2.0 ms (ingress, by cnp/shop/web \
             ingress[0].toPorts[0].http[1])"
        );
        let denied = flow(record(FlowVerdict::Dropped, 0, None), &names());
        assert_eq!(
            denied.to_string(),
            "DROPPED shop/client:40000 -> shop/web:80 GET web/a 200 in 2.0 ms (ingress, POLICY_DENIED: no rule allows \
             it (default deny), by cnp/shop/web)"
        );
    }
}
