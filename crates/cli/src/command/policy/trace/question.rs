//! The flow that is asked about, from the words of the command line.

use sluice_model::{Cluster, Flow, FlowPort, FlowRequest, HttpCall, KafkaCall};
use sluice_policy::{ServiceName, l7::kafka::api_key};
use sluice_types::Protocol;

use crate::args::TraceArgs;
use crate::failure::Failure;

/// The version that a Kafka request has; rules about versions are rare.
const KAFKA_VERSION: i16 = 9;

/// What is asked.
#[derive(Debug)]
pub(super) struct Question {
    /// The Service that was named as receiver.
    pub(super) service: Option<String>,
    /// One flow, or one for each end that the Service leads to.
    pub(super) flows: Vec<Flow>,
}

impl Question {
    /// Reads the arguments; makes ends known that need no introduction.
    pub(super) fn new(arguments: &TraceArgs, cluster: &mut Cluster) -> Result<Self, Failure> {
        let (port, protocol) = port(arguments)?;
        let request = request(arguments)?;
        let from = end(cluster, &arguments.src)?;
        let Some(service) = service(&arguments.dst)? else {
            let to = end(cluster, &arguments.dst)?;
            let flows = vec![Flow { from, to, protocol, port, request }];
            return Ok(Self { service: None, flows });
        };
        let backends = cluster
            .backends(&service, protocol, &port)
            .map_err(|error| Failure::not_found(error.to_string()))?;
        if backends.is_empty() {
            return Err(Failure::not_found(format!("the Service {service} leads to nobody"))
                .hint("Give its pods, or its EndpointSlices, with -f as well."));
        }
        let flow = |(to, port): (String, u16)| Flow {
            from: from.clone(),
            to,
            protocol,
            port: FlowPort::Number(port),
            request: request.clone(),
        };
        let flows = backends.into_iter().map(flow).collect();
        Ok(Self { service: Some(service.to_string()), flows })
    }
}

fn end(cluster: &mut Cluster, text: &str) -> Result<String, Failure> {
    cluster.end(text).map_err(|error| {
        Failure::not_found(error.to_string())
            .hint("An end is NAMESPACE/POD, labels (app=web,…), an address, a DNS name, or an entity (world, host, …).")
    })
}

/// `svc:shop/orders` or `service/shop/orders`.
fn service(text: &str) -> Result<Option<ServiceName>, Failure> {
    let prefixes = ["svc:", "service:", "svc/", "service/"];
    let Some(name) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) else { return Ok(None) };
    let name = name.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
    let Some((namespace, name)) = name else {
        return Err(Failure::invalid(format!("{text}: a Service is written svc:NAMESPACE/NAME")));
    };
    Ok(Some(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() }))
}

fn port(arguments: &TraceArgs) -> Result<(FlowPort, Protocol), Failure> {
    if let Some(icmp) = &arguments.icmp {
        let is_ipv6 =
            [&arguments.src, &arguments.dst].iter().any(|end| end.parse::<std::net::Ipv6Addr>().is_ok());
        return icmp_type(icmp, is_ipv6);
    }
    let text = arguments.dport.as_deref().unwrap_or("53/UDP");
    let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let protocol = with_ports(protocol)
        .ok_or_else(|| Failure::invalid(format!("--dport {text}: the protocol is TCP, UDP or SCTP")))?;
    if port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = port.parse().ok().filter(|port| *port != 0);
        let number = number.ok_or_else(|| {
            Failure::invalid(format!("--dport {text}: a port is a name or from 1 to 65535"))
        })?;
        return Ok((FlowPort::Number(number), protocol));
    }
    Ok((FlowPort::Named(port.to_owned()), protocol))
}

/// The protocol of this name, in either case, if it has ports.
pub(in crate::command::policy) fn with_ports(word: &str) -> Option<Protocol> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    protocols.into_iter().find(|protocol| protocol.to_string().eq_ignore_ascii_case(word))
}

fn icmp_type(text: &str, is_ipv6: bool) -> Result<(FlowPort, Protocol), Failure> {
    let wrong =
        || Failure::invalid(format!("--icmp {text}: a type is from 0 to 255, for example 8 or 128/ICMPv6"));
    let (kind, protocol) = match text.split_once('/') {
        None if is_ipv6 => (text, Protocol::Icmpv6),
        None => (text, Protocol::Icmp),
        Some((kind, word)) if word.eq_ignore_ascii_case("ICMP") => (kind, Protocol::Icmp),
        Some((kind, word)) if word.eq_ignore_ascii_case("ICMPv6") => (kind, Protocol::Icmpv6),
        Some(_) => return Err(wrong()),
    };
    let kind: u8 = kind.parse().ok().ok_or_else(wrong)?;
    Ok((FlowPort::Number(kind.into()), protocol))
}

fn request(arguments: &TraceArgs) -> Result<Option<FlowRequest>, Failure> {
    let is_http = arguments.http.is_some() || arguments.grpc.is_some();
    if !is_http && (!arguments.headers.is_empty() || arguments.host.is_some()) {
        return Err(Failure::usage("--header and --host belong to --http or --grpc"));
    }
    if let Some(text) = &arguments.http {
        let (method, path) = text.trim().split_once(' ').ok_or_else(|| {
            Failure::invalid(format!("--http {text:?}: a request is written 'METHOD /PATH'"))
        })?;
        let call =
            HttpCall { method: method.to_owned(), path: path.trim().to_owned(), ..HttpCall::default() };
        return with_headers(call, arguments);
    }
    if let Some(text) = &arguments.grpc {
        let (service, method) = text.trim_start_matches('/').split_once('/').ok_or_else(|| {
            Failure::invalid(format!("--grpc {text}: a call is written package.Service/Method"))
        })?;
        return with_headers(HttpCall::grpc(service, method), arguments);
    }
    if let Some(text) = &arguments.kafka {
        return kafka(text).map(Some);
    }
    let dns = arguments.dns.clone().map(FlowRequest::Dns);
    Ok(dns.or_else(|| arguments.sni.clone().map(|name| FlowRequest::Tls(Some(name)))))
}

fn with_headers(mut call: HttpCall, arguments: &TraceArgs) -> Result<Option<FlowRequest>, Failure> {
    call.authority = arguments.host.clone().unwrap_or_default();
    for header in &arguments.headers {
        let (name, value) = header.split_once(':').ok_or_else(|| {
            Failure::invalid(format!("--header {header:?}: a header is written 'Name: value'"))
        })?;
        call.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(Some(FlowRequest::Http(call)))
}

fn kafka(text: &str) -> Result<FlowRequest, Failure> {
    let (kind, topics) = text.split_once(':').unwrap_or((text, ""));
    // People say consume for what clients call fetch.
    let kind = if kind.eq_ignore_ascii_case("consume") { "fetch" } else { kind };
    let api_key = api_key(kind).ok_or_else(|| {
        Failure::invalid(format!(
            "--kafka {text}: {kind:?} is no kind of request; try produce, fetch, metadata"
        ))
    })?;
    let topics = topics.split(',').filter(|topic| !topic.is_empty()).map(str::to_owned).collect();
    Ok(FlowRequest::Kafka(KafkaCall { api_key, api_version: KAFKA_VERSION, client_id: None, topics }))
}
