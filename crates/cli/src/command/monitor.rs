//! `sluice monitor`: follows what the kernel decides, one sentence per packet.

use std::io::Write;

use sluice_client::{Client, path};
use sluice_flow::{Flow, FlowEnd, FlowVerdict};

use crate::args::{MonitorArgs, MonitorFormat, MonitorProtocol, MonitorType};
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn run(client: &Client, arguments: &MonitorArgs, output: &mut Output) -> Result<(), Failure> {
    let query = if shows_all(arguments) {
        format!("{}?verdicts=true", path::MONITOR)
    } else {
        path::MONITOR.to_owned()
    };
    let mut left = arguments.count.unwrap_or(u64::MAX);
    for flow in client.stream::<Flow>(&query)? {
        let flow = flow?;
        if !is_wanted(&flow, arguments) {
            continue;
        }
        print(&flow, arguments.format, output)?;
        output.flush()?;
        left -= 1;
        if left == 0 {
            return Ok(());
        }
    }
    Err(Failure::error("the agent closed the stream").hint("`sluice status` says whether it is still there."))
}

/// Whether what passes is wanted too: who asks for requests wants all of them.
fn shows_all(arguments: &MonitorArgs) -> bool {
    arguments.kind == MonitorType::PolicyVerdict || arguments.protocol == Some(MonitorProtocol::Http)
}

fn is_protocol(flow: &Flow, wanted: MonitorProtocol) -> bool {
    let l4 = flow.l4.protocol.as_str();
    match wanted {
        MonitorProtocol::Http => flow.http.is_some(),
        MonitorProtocol::Tcp => l4 == "TCP" && flow.http.is_none(),
        MonitorProtocol::Udp => l4 == "UDP",
        MonitorProtocol::Sctp => l4 == "SCTP",
        MonitorProtocol::Icmp => l4.starts_with("ICMP"),
    }
}

fn is_wanted(flow: &Flow, arguments: &MonitorArgs) -> bool {
    let is_reported = matches!(flow.verdict, FlowVerdict::Dropped | FlowVerdict::Audit | FlowVerdict::Error);
    let kind = (is_reported || shows_all(arguments))
        && arguments.protocol.is_none_or(|wanted| is_protocol(flow, wanted));
    let is = |end: &FlowEnd, wanted: &Option<String>| {
        wanted.as_ref().is_none_or(|wanted| matches_peer(end, wanted))
    };
    kind && is(&flow.source, &arguments.from)
        && is(&flow.destination, &arguments.to)
        && (is(&flow.source, &arguments.pod) || is(&flow.destination, &arguments.pod))
}

/// Whether `end` is what `wanted` names: `NAMESPACE/POD`, `NAMESPACE/`, an address, or a reserved name.
pub(super) fn matches_peer(end: &FlowEnd, wanted: &str) -> bool {
    if let Some((namespace, pod)) = wanted.split_once('/') {
        return end.namespace == namespace && !end.pod.is_empty() && (pod.is_empty() || end.pod == pod);
    }
    end.ip == wanted || end.identity.reserved_name() == Some(wanted) || end.labels.has_reserved(wanted)
}

fn print(flow: &Flow, format: MonitorFormat, output: &mut Output) -> Result<(), Failure> {
    if format == MonitorFormat::Json {
        let line = serde_json::to_string(flow)
            .map_err(|error| Failure::error(format!("cannot write this as JSON: {error}")))?;
        writeln!(output, "{line}")?;
        return Ok(());
    }
    let sentence = flow.to_string();
    let verdict = flow.verdict.to_string();
    let painted = match flow.verdict {
        FlowVerdict::Dropped => output.bad(&verdict),
        FlowVerdict::Audit | FlowVerdict::Error => output.warn(&verdict),
        FlowVerdict::Forwarded | FlowVerdict::Redirected => output.good(&verdict),
    };
    let rest = sentence.strip_prefix(&verdict).unwrap_or(&sentence);
    let time = output.dim(&clock(flow.time_unix_ns));
    if flow.lost > 0 {
        let note = output.warn(&format!("({} more were not reported)", flow.lost));
        writeln!(output, "{time} {note}")?;
    }
    let id = output.dim(&format!("id={}", flow.id()));
    writeln!(output, "{time} {painted}{rest} {id}")?;
    Ok(())
}

/// Time of day in UTC, to the millisecond.
pub(super) fn clock(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000 % 86_400;
    let milliseconds = unix_ns / 1_000_000 % 1_000;
    format!("{:02}:{:02}:{:02}.{milliseconds:03}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_types::Identity;

    #[test]
    fn peers() {
        let pod = FlowEnd {
            namespace: "shop".into(),
            pod: "web".into(),
            ip: "10.0.0.1".into(),
            ..Default::default()
        };
        let world = FlowEnd { ip: "192.0.2.1".into(), identity: Identity::WORLD_IPV4, ..Default::default() };
        let cases = [
            (&pod, "shop/web", true),
            (&pod, "shop/", true),
            (&pod, "shop/we", false),
            (&pod, "other/", false),
            (&pod, "10.0.0.1", true),
            (&pod, "world", false),
            (&world, "shop/", false),
            (&world, "world-ipv4", true),
            (&world, "192.0.2.1", true),
        ];
        for (end, wanted, want) in cases {
            assert_eq!(matches_peer(end, wanted), want, "{wanted}");
        }
    }

    #[test]
    fn protocols() {
        let packet = |protocol: &str| Flow {
            time_unix_ns: 0,
            verdict: FlowVerdict::Forwarded,
            drop_reason: None,
            direction: sluice_types::Direction::Ingress,
            endpoint: 1,
            source: FlowEnd::default(),
            destination: FlowEnd::default(),
            l4: sluice_flow::L4 { protocol: protocol.to_owned(), ..Default::default() },
            is_reply: false,
            policies: Vec::new(),
            revision: 1,
            length: 60,
            lost: 0,
            ifindex: 1,
            http: None,
        };
        let http = sluice_flow::HttpRecord {
            flow: "1-1".to_owned(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            authority: "a".to_owned(),
            status: Some(200),
            latency_ns: 1,
        };
        let request = Flow { http: Some(http), ..packet("TCP") };
        for (flow, wanted, is_it) in [
            (&request, MonitorProtocol::Http, true),
            (&request, MonitorProtocol::Tcp, false),
            (&packet("TCP"), MonitorProtocol::Http, false),
            (&packet("TCP"), MonitorProtocol::Tcp, true),
            (&packet("UDP"), MonitorProtocol::Tcp, false),
            (&packet("ICMPv6"), MonitorProtocol::Icmp, true),
        ] {
            assert_eq!(is_protocol(flow, wanted), is_it, "{flow} {wanted:?}");
        }
        let all = |kind, protocol| {
            let (from, to, pod) = Default::default();
            let format = MonitorFormat::Line;
            is_wanted(&request, &MonitorArgs { kind, protocol, from, to, pod, count: None, format })
        };
        assert!(all(MonitorType::Drop, Some(MonitorProtocol::Http)), "requests that pass are wanted");
        assert!(!all(MonitorType::Drop, None) && all(MonitorType::PolicyVerdict, None));
    }

    #[test]
    fn time_of_day() {
        assert_eq!(clock(0), "00:00:00.000Z");
        assert_eq!(clock(1_700_000_000_123_456_789), "22:13:20.123Z");
    }
}
