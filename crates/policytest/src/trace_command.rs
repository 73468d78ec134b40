//! A question as `sluice policy trace` is asked it.

use sluice_model::{Flow, FlowPort, FlowRequest};
use sluice_policy::l7::kafka;
use sluice_types::Protocol;

use crate::{case::shown_port, format::Enforcement, suite::Suite};

impl Suite {
    /// The arguments that ask for this flow, without `-f` and its files.
    pub(crate) fn trace_arguments(&self, flow: &Flow) -> Vec<String> {
        let mut arguments = self.options();
        let (from, to) = (self.known_as(&flow.from), self.known_as(&flow.to));
        arguments.extend(["--src".to_owned(), from, "--dst".to_owned(), to]);
        arguments.extend(of_flow(flow));
        arguments
    }

    /// The options under which the file is asked, where they are not the usual ones.
    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        match self.format.config.policy_enforcement {
            None | Some(Enforcement::Default) => {}
            Some(Enforcement::Always) => options.extend(["--enforcement".to_owned(), "always".to_owned()]),
            Some(Enforcement::Never) => options.extend(["--enforcement".to_owned(), "never".to_owned()]),
        }
        if self.format.config.audit {
            options.push("--audit".to_owned());
        }
        options
    }
}

fn of_flow(flow: &Flow) -> Vec<String> {
    let mut arguments = Vec::new();
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
            let kind = kafka::api_name(call.api_key).map_or_else(|| call.api_key.to_string(), str::to_owned);
            let topics = call.topics.join(",");
            let colon = if topics.is_empty() { "" } else { ":" };
            vec!["--kafka".to_owned(), format!("{kind}{colon}{topics}")]
        }
        FlowRequest::Dns(name) => vec!["--dns".to_owned(), name.clone()],
        FlowRequest::Tls(name) => vec!["--sni".to_owned(), name.clone().unwrap_or_default()],
    }
}
