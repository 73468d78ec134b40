//! `sluice endpoint`: the pods of this node as the datapath knows them.

use std::io::Write;

use sluice_client::model::{Endpoint, EndpointLogEntry, EndpointOptions, EndpointState, Toggle};
use sluice_client::{Client, path};
use sluice_types::EndpointId;

use crate::args::{EndpointCommand, Format};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

pub(super) fn run(client: &Client, command: &EndpointCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        EndpointCommand::List(out) => {
            let endpoints = fetch_all(client)?;
            output.print(out.format, &endpoints, |output| list(&endpoints, output))
        }
        EndpointCommand::Get { endpoint, out } => {
            let endpoint = find(client, endpoint)?;
            show(&endpoint, out.format, output)
        }
        EndpointCommand::Config { endpoint, options, out } => {
            configure(client, endpoint, options, out.format, output)
        }
        EndpointCommand::Log { endpoint, out } => {
            let endpoint = find(client, endpoint)?;
            let log: Vec<EndpointLogEntry> =
                client.fetch(&path::fill(path::ENDPOINT_LOG, &[&endpoint.id.to_string()]))?;
            output.print(out.format, &log, |_| log_table(&log))
        }
    }
}

/// Every endpoint, in order of number.
pub(super) fn fetch_all(client: &Client) -> Result<Vec<Endpoint>, Failure> {
    let mut endpoints: Vec<Endpoint> = client.fetch(path::ENDPOINTS)?;
    endpoints.sort_by_key(|endpoint| endpoint.id);
    Ok(endpoints)
}

/// The endpoint that a number or `NAMESPACE/POD` names.
pub(super) fn find(client: &Client, wanted: &str) -> Result<Endpoint, Failure> {
    if let Ok(number) = wanted.parse::<u16>() {
        let id = EndpointId::try_from(number).map_err(|error| Failure::usage(error.to_string()))?;
        return Ok(client.fetch(&path::fill(path::ENDPOINT, &[&id.to_string()]))?);
    }
    if !wanted.contains('/') {
        return Err(Failure::usage(format!("{wanted:?} is neither an endpoint's number nor NAMESPACE/POD")));
    }
    let found = fetch_all(client)?.into_iter().find(|endpoint| pod_of(endpoint).as_deref() == Some(wanted));
    found.ok_or_else(|| {
        Failure::not_found(format!("there is no endpoint of the pod {wanted}"))
            .hint("`sluice endpoint list` shows those that exist.")
    })
}

/// `NAMESPACE/POD` of an endpoint, if it is a pod's.
pub(super) fn pod_of(endpoint: &Endpoint) -> Option<String> {
    let attachment = &endpoint.attachment;
    Some(format!("{}/{}", attachment.pod_namespace.as_ref()?, attachment.pod_name.as_ref()?))
}

fn list(endpoints: &[Endpoint], output: &Output) -> Table {
    let mut table = Table::new(&[
        "ENDPOINT",
        "POLICY (ingress)\nENFORCEMENT",
        "POLICY (egress)\nENFORCEMENT",
        "IDENTITY",
        "LABELS (source:key[=value])",
        "IPv6",
        "IPv4",
        "STATUS",
    ]);
    for endpoint in endpoints {
        let state = endpoint.state.to_string();
        let address = |address: Option<String>| address.unwrap_or_default();
        table.row([
            endpoint.id.to_string(),
            endpoint.ingress.to_string(),
            endpoint.egress.to_string(),
            endpoint.identity.to_string(),
            endpoint.labels.to_strings().join("\n"),
            address(endpoint.attachment.ipv6.map(|ip| ip.to_string())),
            address(endpoint.attachment.ipv4.map(|ip| ip.to_string())),
            if endpoint.state == EndpointState::Ready { output.good(&state) } else { output.warn(&state) },
        ]);
    }
    table
}

fn show(endpoint: &Endpoint, format: Format, output: &mut Output) -> Result<(), Failure> {
    if format != Format::Table {
        return output.print_value(format, endpoint);
    }
    let mut table = Table::pairs();
    for (title, value) in facts(endpoint) {
        table.row([output.dim(title), value]);
    }
    write!(output, "{table}")?;
    if !endpoint.counters.is_empty() {
        let mut counters = Table::new(&["DIRECTION", "OUTCOME", "PACKETS", "BYTES"]);
        for counter in &endpoint.counters {
            counters.row([
                counter.direction.to_string(),
                counter.outcome.clone(),
                counter.packets.to_string(),
                counter.bytes.to_string(),
            ]);
        }
        write!(output, "\n{counters}")?;
    }
    Ok(())
}

fn facts(endpoint: &Endpoint) -> Vec<(&'static str, String)> {
    let attachment = &endpoint.attachment;
    let by = |word: &str, policies: Option<&Vec<String>>| match policies {
        Some(policies) if !policies.is_empty() => format!(", {word} {}", policies.join(", ")),
        _ => String::new(),
    };
    let policies = |direction: &str| {
        by("by", endpoint.isolated_by.get(direction))
            + &by("in audit mode:", endpoint.audited_by.get(direction))
    };
    let addresses: Vec<String> = attachment
        .ipv4
        .iter()
        .map(ToString::to_string)
        .chain(attachment.ipv6.iter().map(ToString::to_string))
        .collect();
    let audit = match endpoint.options.policy_audit_mode {
        Some(Toggle::Enabled) => "Enabled",
        Some(Toggle::Disabled) | None => "Disabled",
    };
    let mut facts = vec![
        ("Endpoint", endpoint.id.to_string()),
        ("Pod", pod_of(endpoint).unwrap_or_default()),
        ("Status", endpoint.state.to_string()),
        ("Ingress", format!("{}{}", endpoint.ingress, policies("ingress"))),
        ("Egress", format!("{}{}", endpoint.egress, policies("egress"))),
        ("Identity", endpoint.identity.to_string()),
        ("Labels", endpoint.labels.to_strings().join("\n")),
        ("Addresses", addresses.join(", ")),
        (
            "Interface",
            format!(
                "{} (index {}), {} in the pod",
                attachment.host_ifname, attachment.host_ifindex, attachment.ifname
            ),
        ),
        ("MAC", attachment.mac.clone()),
        ("Network namespace", attachment.netns.clone()),
        ("Container", attachment.container_id.clone()),
        (
            "Policy",
            format!(
                "revision {} of {}, {} entries",
                endpoint.realized_revision, endpoint.wanted_revision, endpoint.policy_entries
            ),
        ),
        ("PolicyAuditMode", audit.to_owned()),
    ];
    if let Some(problem) = &endpoint.problem {
        facts.push(("Problem", problem.clone()));
    }
    facts
}

fn configure(
    client: &Client,
    endpoint: &str,
    options: &[String],
    format: Format,
    output: &mut Output,
) -> Result<(), Failure> {
    let wanted = parse_options(options)?;
    let endpoint = find(client, endpoint)?;
    let endpoint: Endpoint = if options.is_empty() {
        endpoint
    } else {
        client.send("PATCH", &path::fill(path::ENDPOINT_CONFIG, &[&endpoint.id.to_string()]), &wanted)?
    };
    output.print(format, &endpoint.options, |_| {
        let mut table = Table::new(&["OPTION", "VALUE"]);
        let audit = match endpoint.options.policy_audit_mode {
            Some(Toggle::Enabled) => "Enabled",
            Some(Toggle::Disabled) | None => "Disabled",
        };
        table.row(["PolicyAuditMode", audit]);
        table
    })
}

fn parse_options(options: &[String]) -> Result<EndpointOptions, Failure> {
    let mut wanted = EndpointOptions::default();
    for option in options {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("write OPTION=VALUE, not {option:?}")))?;
        if !name.eq_ignore_ascii_case("PolicyAuditMode") {
            return Err(
                Failure::invalid(format!("there is no option {name:?}")).hint("Options: PolicyAuditMode.")
            );
        }
        wanted.policy_audit_mode = Some(match value.to_ascii_lowercase().as_str() {
            "enabled" | "enable" | "true" | "on" => Toggle::Enabled,
            "disabled" | "disable" | "false" | "off" => Toggle::Disabled,
            _ => return Err(Failure::invalid(format!("{name} is Enabled or Disabled, not {value:?}"))),
        });
    }
    Ok(wanted)
}

fn log_table(log: &[EndpointLogEntry]) -> Table {
    let mut table = Table::new(&["TIME", "STATE", "MESSAGE"]);
    for entry in log {
        table.row([
            super::monitor::clock(entry.time_unix_ns),
            entry.state.to_string(),
            entry.message.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let check = |text: &str| parse_options(&[text.to_owned()]).map(|options| options.policy_audit_mode);
        assert_eq!(check("PolicyAuditMode=Enabled").unwrap(), Some(Toggle::Enabled));
        assert_eq!(check("policyauditmode=off").unwrap(), Some(Toggle::Disabled));
        assert_eq!(check("PolicyAuditMode").unwrap_err().exit.code(), 2);
        assert_eq!(check("PolicyAuditMode=maybe").unwrap_err().exit.code(), 4);
        assert_eq!(check("Debug=Enabled").unwrap_err().exit.code(), 4);
    }
}
