//! A question as `sluice policy trace` is asked it.

use sluice_model::{Flow, FlowPort, FlowRequest};
use sluice_policy::l7::kafka;
use sluice_types::Protocol;

use crate::case::shown_port;

/// The arguments that ask for this flow, without the manifests.
pub(crate) fn arguments(flow: &Flow) -> Vec<String> {
    let mut arguments = vec!["--src".to_owned(), flow.from.clone(), "--dst".to_owned(), flow.to.clone()];
    match (flow.protocol, &flow.port) {
        (Protocol::Icmp | Protocol::Icmpv6, FlowPort::Number(kind)) => {
            let suffix = if flow.protocol == Protocol::Icmpv6 { "/ICMPv6" } else { "" };
            arguments.extend(["--icmp".to_owned(), format!("{kind}{suffix}")]);
        }
        _ => arguments.extend(["--dport".to_owned(), shown_port(&flow.port, flow.protocol)]),
    }
    if let Some(request) = &flow.request {
        arguments.extend(of_request(request));
    }
    arguments
}

fn of_request(request: &FlowRequest) -> Vec<String> {
    match request {
        FlowRequest::Http(call) => {
            let mut arguments = vec!["--http".to_owned(), format!("{} {}", call.method, call.path)];
            if !call.authority.is_empty() {
                arguments.extend(["--host".to_owned(), call.authority.clone()]);
            }
            for (name, value) in &call.headers {
                arguments.extend(["--header".to_owned(), format!("{name}: {value}")]);
            }
            arguments
        }
        FlowRequest::Kafka(call) => {
            let kind =
                kafka::api_name(call.api_key).map_or_else(|| call.api_key.to_string(), str::to_owned);
            let topics = call.topics.join(",");
            let colon = if topics.is_empty() { "" } else { ":" };
            vec!["--kafka".to_owned(), format!("{kind}{colon}{topics}")]
        }
        FlowRequest::Dns(name) => vec!["--dns".to_owned(), name.clone()],
        FlowRequest::Tls(name) => vec!["--sni".to_owned(), name.clone().unwrap_or_default()],
    }
}
