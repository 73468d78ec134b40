//! What is asked about: one connection or packet, and perhaps a request in it.

use sluice_policy::l7::{HttpRequest, KafkaRequest, Request};
use sluice_types::Protocol;

/// A question: may this pass?
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Who sends, by name.
    pub from: String,
    /// Who receives, by name.
    pub to: String,
    /// TCP, UDP, SCTP, ICMP or ICMPv6.
    pub protocol: Protocol,
    /// The destination port, or the type of ICMP.
    pub port: FlowPort,
    /// The request that a proxy would see.
    pub request: Option<FlowRequest>,
}

/// A destination port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FlowPort {
    /// The number, or the type of ICMP.
    Number(u16),
    /// The name that the receiver gives to it.
    Named(String),
}

/// A request as a proxy would have read it.
#[derive(Clone, Debug, PartialEq)]
pub enum FlowRequest {
    /// An HTTP request or a gRPC call.
    Http(HttpCall),
    /// A Kafka request.
    Kafka(KafkaCall),
    /// A query for a name.
    Dns(String),
    /// A TLS handshake that asks for this name, or for none.
    Tls(Option<String>),
}

/// An HTTP request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpCall {
    /// Case-sensitive, as sent.
    pub method: String,
    /// The normal form of the path, with the query.
    pub path: String,
    /// Host and perhaps port.
    pub authority: String,
    /// Names and values in order.
    pub headers: Vec<(String, String)>,
}

impl HttpCall {
    /// The request that a call of this gRPC method is.
    #[must_use]
    pub fn grpc(service: &str, method: &str) -> Self {
        Self {
            method: "POST".to_owned(),
            path: format!("/{service}/{method}"),
            authority: String::new(),
            headers: vec![("content-type".to_owned(), "application/grpc".to_owned())],
        }
    }
}

/// A Kafka request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KafkaCall {
    /// The kind.
    pub api_key: i16,
    /// The version of the kind.
    pub api_version: i16,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// The topics it is about.
    pub topics: Vec<String>,
}

impl FlowRequest {
    /// Hands the request to `judge` in the engine's form.
    pub(crate) fn with<T>(&self, judge: impl FnOnce(&Request<'_>) -> T) -> T {
        match self {
            Self::Http(call) => {
                let headers: Vec<(&str, &[u8])> =
                    call.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
                judge(&Request::Http(HttpRequest {
                    method: &call.method,
                    path: &call.path,
                    authority: &call.authority,
                    headers: &headers,
                }))
            }
            Self::Kafka(call) => {
                let topics: Vec<&str> = call.topics.iter().map(String::as_str).collect();
                judge(&Request::Kafka(KafkaRequest {
                    api_key: call.api_key,
                    api_version: call.api_version,
                    client_id: call.client_id.as_deref(),
                    topics: &topics,
                    unknown_topics: 0,
                }))
            }
            Self::Dns(name) => judge(&Request::Dns(name)),
            Self::Tls(name) => judge(&Request::Tls(name.as_deref())),
        }
    }
}
