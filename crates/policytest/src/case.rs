//! A question of the file as the engine is asked it.

use sluice_model::{Cluster, Flow, FlowPort, FlowRequest, HttpCall, KafkaCall};
use sluice_policy::l7::kafka;
use sluice_types::Protocol;

use crate::{
    format::{Case, HeaderValue, Http, Kafka, KafkaKey, Matrix, PortNumber, ProtocolName},
    scene::unknown,
};

/// Types of the question that `ping` asks.
const ECHO_V4: u8 = 8;
const ECHO_V6: u8 = 128;

/// The field that is wrong and why.
pub(crate) type Wrong = (String, String);

fn wrong<T>(field: &str, reason: impl Into<String>) -> Result<T, Wrong> {
    Err((field.to_owned(), reason.into()))
}

impl ProtocolName {
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::Sctp => Protocol::Sctp,
            Self::Icmp => Protocol::Icmp,
            Self::Icmpv6 => Protocol::Icmpv6,
        }
    }
}

/// Port and protocol as people write them: `8080/TCP`.
pub(crate) fn shown_port(port: &FlowPort, protocol: Protocol) -> String {
    match port {
        FlowPort::Number(number) => format!("{number}/{protocol}"),
        FlowPort::Named(name) => format!("{name}/{protocol}"),
    }
}

impl Case {
    /// The flow it is about, its ends by the names they have in the cluster.
    pub(crate) fn flow(&self, cluster: &mut Cluster) -> Result<Flow, Wrong> {
        Ok(Flow {
            from: end(cluster, &self.from).map_err(|reason| ("from".to_owned(), reason))?,
            to: end(cluster, &self.to).map_err(|reason| ("to".to_owned(), reason))?,
            protocol: self.protocol.protocol(),
            port: port(self.port.as_ref(), self.protocol, self.icmp_type)?,
            request: self.request()?,
        })
    }

    fn request(&self) -> Result<Option<FlowRequest>, Wrong> {
        let mut requests = Vec::new();
        requests.extend(self.http.as_ref().map(|http| FlowRequest::Http(call(http))));
        requests.extend(
            self.grpc.as_ref().map(|grpc| FlowRequest::Http(HttpCall::grpc(&grpc.service, &grpc.method))),
        );
        if let Some(kafka) = &self.kafka {
            requests.push(FlowRequest::Kafka(kafka_call(kafka)?));
        }
        requests.extend(self.dns.clone().map(FlowRequest::Dns));
        requests.extend(self.sni.clone().map(|name| FlowRequest::Tls(Some(name))));
        let request = requests.pop();
        if !requests.is_empty() {
            return wrong("", "one test asks one thing: write one of http, grpc, kafka, dns, sni");
        }
        let (tcp_only, datagram) =
            (request.is_some() && self.dns.is_none(), self.protocol != ProtocolName::Tcp);
        if tcp_only && datagram {
            return wrong("protocol", "http, grpc, kafka and sni go over TCP");
        }
        if request.is_some() && !matches!(self.protocol, ProtocolName::Tcp | ProtocolName::Udp) {
            return wrong("protocol", "dns goes over UDP or TCP");
        }
        Ok(request)
    }
}

impl Matrix {
    pub(crate) fn flow_port(&self) -> Result<FlowPort, Wrong> {
        port(self.port.as_ref(), self.protocol, self.icmp_type)
    }
}

/// The name of the participant that is meant; a slip of the pen is told from somebody unknown.
pub(crate) fn end(cluster: &mut Cluster, text: &str) -> Result<String, String> {
    cluster.end(text).map_err(|error| {
        let names: Vec<&str> = cluster.participants().map(|known| known.name.as_str()).collect();
        match sluice_api::nearest(text, &names) {
            Some(meant) if error.known.len() != 1 => {
                format!("nobody is called {text:?}; did you mean {meant}?")
            }
            _ => error.to_string(),
        }
    })
}

fn port(port: Option<&PortNumber>, protocol: ProtocolName, icmp: Option<u8>) -> Result<FlowPort, Wrong> {
    let echo = match protocol {
        ProtocolName::Icmp => ECHO_V4,
        ProtocolName::Icmpv6 => ECHO_V6,
        ProtocolName::Tcp | ProtocolName::Udp | ProtocolName::Sctp => {
            if icmp.is_some() {
                return wrong("icmpType", "only ICMP and ICMPv6 have types");
            }
            return match port {
                None => wrong("port", "a port is required"),
                Some(PortNumber::Number(number)) => Ok(FlowPort::Number(*number)),
                Some(PortNumber::Text(text)) => named(text),
            };
        }
    };
    if port.is_some() {
        return wrong("port", "ICMP has no ports; write icmpType");
    }
    Ok(FlowPort::Number(icmp.unwrap_or(echo).into()))
}

fn named(text: &str) -> Result<FlowPort, Wrong> {
    if let Ok(number) = text.parse() {
        return Ok(FlowPort::Number(number));
    }
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if !is_name {
        return wrong(
            "port",
            "write a number, or a name of the receiver's ports; the protocol has its own field",
        );
    }
    Ok(FlowPort::Named(text.to_owned()))
}

fn call(written: &Http) -> HttpCall {
    let mut headers = Vec::new();
    for (name, value) in &written.headers {
        match value {
            HeaderValue::One(value) => headers.push((name.clone(), value.clone())),
            HeaderValue::Several(values) => {
                headers.extend(values.iter().map(|value| (name.clone(), value.clone())))
            }
        }
    }
    HttpCall {
        method: written.method.clone().unwrap_or_else(|| "GET".to_owned()),
        path: written.path.clone().unwrap_or_else(|| "/".to_owned()),
        authority: written.host.clone().unwrap_or_default(),
        headers,
    }
}

fn kafka_call(written: &Kafka) -> Result<KafkaCall, Wrong> {
    let api_key = match &written.api_key {
        None => return wrong("kafka.apiKey", "it is required: produce, fetch, ..., or its number"),
        Some(KafkaKey::Number(number)) => *number,
        Some(KafkaKey::Name(name)) => match kafka::api_key(name) {
            Some(key) => key,
            None => {
                let known: Vec<&str> = (0..128).filter_map(kafka::api_name).collect();
                return wrong("kafka.apiKey", unknown(name, &known));
            }
        },
    };
    Ok(KafkaCall {
        api_key,
        api_version: written.api_version.unwrap_or_default(),
        client_id: written.client_id.clone(),
        topics: written.topics.clone(),
    })
}
