//! `sluice monitor`: follows what the kernel decides, one sentence per packet.

use std::io::Write;

use sluice_client::{Client, path};
use sluice_flow::{Flow, FlowEnd, FlowVerdict};

use crate::args::{MonitorArgs, MonitorFormat, MonitorType};
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn run(client: &Client, arguments: &MonitorArgs, output: &mut Output) -> Result<(), Failure> {
    let query = match arguments.kind {
        MonitorType::Drop => path::MONITOR.to_owned(),
        MonitorType::PolicyVerdict => format!("{}?verdicts=true", path::MONITOR),
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

fn is_wanted(flow: &Flow, arguments: &MonitorArgs) -> bool {
    let kind = match arguments.kind {
        MonitorType::Drop => matches!(flow.verdict, FlowVerdict::Dropped | FlowVerdict::Audit),
        MonitorType::PolicyVerdict => true,
    };
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
    fn time_of_day() {
        assert_eq!(clock(0), "00:00:00.000Z");
        assert_eq!(clock(1_700_000_000_123_456_789), "22:13:20.123Z");
    }
}
