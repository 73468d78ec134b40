//! `sluice bpf`: the kernel's tables, as the agent reads them.

use sluice_client::model::{ConntrackRow, IpcacheRow, MapPlane, PolicyMapEntry};
use sluice_client::{Client, path};
use sluice_types::Identity;

use super::endpoint;
use crate::args::{BpfCommand, BpfListCommand, BpfPolicyCommand, Format};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

pub(super) fn run(client: &Client, command: &BpfCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        BpfCommand::Policy(BpfPolicyCommand::Get { endpoint, numeric, out, .. }) => {
            policy(client, endpoint.as_deref(), *numeric, out.format, output)
        }
        BpfCommand::Policy(BpfPolicyCommand::List { numeric, out }) => {
            policy(client, None, *numeric, out.format, output)
        }
        BpfCommand::Ct(BpfListCommand::List(out)) => {
            let rows: Vec<ConntrackRow> = client.fetch(path::BPF_CT)?;
            output.print(out.format, &rows, |_| conntrack_table(&rows))
        }
        BpfCommand::Ipcache(BpfListCommand::List(out)) => {
            let rows: Vec<IpcacheRow> = client.fetch(path::BPF_IPCACHE)?;
            output.print(out.format, &rows, |_| ipcache_table(&rows))
        }
    }
}

fn policy(
    client: &Client,
    wanted: Option<&str>,
    numeric: bool,
    format: Format,
    output: &mut Output,
) -> Result<(), Failure> {
    let query = match wanted {
        Some(wanted) => format!("{}?endpoint={}", path::BPF_POLICY, endpoint::find(client, wanted)?.id),
        None => path::BPF_POLICY.to_owned(),
    };
    let mut entries: Vec<PolicyMapEntry> = client.fetch(&query)?;
    // What decides first stands first.
    entries.sort_by_key(|entry| {
        (entry.endpoint, entry.direction, entry.plane, std::cmp::Reverse(entry.precedence), entry.identity)
    });
    output.print(format, &entries, |output| policy_table(&entries, wanted.is_none(), numeric, output))
}

fn policy_table(entries: &[PolicyMapEntry], all: bool, numeric: bool, output: &Output) -> Table {
    let peer = if numeric { "IDENTITY" } else { "LABELS (source:key[=value])" };
    let mut header = vec!["POLICY", "DIRECTION", peer, "PORT/PROTO", "PROXY PORT", "RULE"];
    if all {
        header.insert(0, "ENDPOINT");
    }
    let mut table = Table::new(&header);
    for entry in entries {
        let verdict = match entry.plane {
            MapPlane::Normal => entry.verdict.clone(),
            MapPlane::Admin => format!("{} (admin)", entry.verdict),
            MapPlane::Audit => format!("{} (audit)", entry.verdict),
        };
        let is_bad = entry.verdict == "Deny" && entry.plane != MapPlane::Audit;
        let verdict = if is_bad { output.bad(&verdict) } else { output.good(&verdict) };
        let direction = match entry.direction {
            sluice_types::Direction::Ingress => "Ingress",
            sluice_types::Direction::Egress => "Egress",
        };
        let proxy = if entry.proxy_port == 0 { "NONE".to_owned() } else { entry.proxy_port.to_string() };
        let mut row = vec![
            verdict,
            direction.to_owned(),
            shown_peer(entry, numeric),
            entry.port.clone(),
            proxy,
            if entry.origin.is_empty() { "-".to_owned() } else { entry.origin.clone() },
        ];
        if all {
            row.insert(0, entry.endpoint.to_string());
        }
        table.row(row);
    }
    table
}

fn shown_peer(entry: &PolicyMapEntry, numeric: bool) -> String {
    if entry.identity == Identity::UNKNOWN {
        return "ANY".to_owned();
    }
    if numeric || entry.labels.is_empty() {
        return entry.identity.to_string();
    }
    entry.labels.to_strings().join("\n")
}

fn conntrack_table(rows: &[ConntrackRow]) -> Table {
    let mut table = Table::new(&[
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "IDENTITIES",
        "EXPIRES",
        "PACKETS",
        "BYTES",
        "FLAGS",
        "RULES",
    ]);
    for row in rows {
        let rules: Vec<&str> = row.rules.iter().map(String::as_str).filter(|rule| !rule.is_empty()).collect();
        table.row([
            row.protocol.clone(),
            row.source.clone(),
            row.destination.clone(),
            format!("{} -> {}", row.source_identity, row.destination_identity),
            format!("{} s", row.expires_s),
            format!("{} / {}", row.packets[0], row.packets[1]),
            format!("{} / {}", row.bytes[0], row.bytes[1]),
            row.flags.join(","),
            rules.join("\n"),
        ]);
    }
    table
}

fn ipcache_table(rows: &[IpcacheRow]) -> Table {
    let mut table = Table::new(&["IP PREFIX/ADDRESS", "IDENTITY", "ENDPOINT", "LABELS (source:key[=value])"]);
    for row in rows {
        table.row([
            row.prefix.clone(),
            row.identity.to_string(),
            if row.endpoint == 0 { "-".to_owned() } else { row.endpoint.to_string() },
            row.labels.to_strings().join("\n"),
        ]);
    }
    table
}
