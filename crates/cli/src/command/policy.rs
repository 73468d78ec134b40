//! `sluice policy`: list, show, apply, delete, and what can be said about manifests without an agent.

mod convert;
mod diff;
mod fmt;
mod lint;
mod matrix;
mod selectors;
mod test;
pub(super) mod trace;

use std::io::Write;
use std::path::PathBuf;

use sluice_client::model::{PolicyApplied, PolicyDocument, PolicyInfo};
use sluice_client::{Client, ClientError, path};
use sluice_policy::parse::AUDIT_ANNOTATION;

use crate::args::{Format, PolicyCommand};
use crate::failure::{Exit, Failure};
use crate::manifest;
use crate::output::Output;
use crate::policy_name::PolicyName;
use crate::table::Table;

/// Runs the command. Those that judge manifests on their own never ask for the agent.
pub(super) fn run(
    client: impl FnOnce() -> Result<Client, Failure>,
    command: &PolicyCommand,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        PolicyCommand::Get { policy: None, out } => list(&client()?, out.format, output),
        PolicyCommand::Get { policy: Some(name), out } => show(&client()?, name, out.format, output),
        PolicyCommand::Apply { files } => apply(&client()?, files, output),
        PolicyCommand::Delete { policies, files } => delete(&client()?, policies, files, output),
        PolicyCommand::Trace(arguments) => trace::run(client, arguments, output),
        PolicyCommand::Convert(arguments) => convert::run(arguments, output),
        PolicyCommand::Diff(arguments) => diff::run(client, arguments, output),
        PolicyCommand::Matrix(arguments) => matrix::run(client, arguments, output),
        PolicyCommand::Selectors(arguments) => selectors::run(client, arguments, output),
        PolicyCommand::Fmt(arguments) => fmt::run(arguments, output),
        PolicyCommand::Lint(arguments) => lint::run(arguments, output),
        PolicyCommand::Test(arguments) => test::run(arguments, output),
    }
}

fn list(client: &Client, format: Format, output: &mut Output) -> Result<(), Failure> {
    let mut policies: Vec<PolicyInfo> = client.fetch(path::POLICIES)?;
    policies.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    output.print(format, &policies, |output| policy_table(&policies, output))
}

fn policy_table(policies: &[PolicyInfo], output: &Output) -> Table {
    let mut table = Table::new(&["POLICY", "RULES", "ENDPOINTS", "ORIGIN", "STATUS"]);
    for policy in policies {
        let word = if is_audited(policy) { "in audit mode" } else { "in force" };
        let status = match &policy.error {
            None if policy.warnings.is_empty() => output.good(word),
            None => {
                format!("{}\n{}", output.warn(&format!("{word}, but")), policy.warnings.join("\n"))
            }
            Some(error) => format!("{}: {error}", output.bad("last good version in force")),
        };
        table.row([
            shown_name(policy),
            policy.rules.to_string(),
            policy.endpoints.len().to_string(),
            policy.origin.clone(),
            status,
        ]);
    }
    table
}

/// Whether it changes nothing and only reports.
fn is_audited(policy: &PolicyInfo) -> bool {
    let annotations = policy.object.pointer("/metadata/annotations");
    annotations.and_then(|all| all.get(AUDIT_ANNOTATION)).is_some_and(|value| value == "true")
}

fn shown_name(policy: &PolicyInfo) -> String {
    PolicyName::new(&policy.kind, &policy.namespace, &policy.name).map_or_else(
        |_| format!("{}/{}/{}", policy.kind, policy.namespace, policy.name),
        |name| name.to_string(),
    )
}

fn show(client: &Client, name: &PolicyName, format: Format, output: &mut Output) -> Result<(), Failure> {
    let policies: Vec<PolicyInfo> = client.fetch(path::POLICIES)?;
    let found = policies.into_iter().find(|policy| {
        policy.kind == name.kind && policy.namespace == name.namespace && policy.name == name.name
    });
    let Some(policy) = found else {
        return Err(Failure::not_found(format!("there is no policy {name}"))
            .hint("`sluice policy get` shows those that exist."));
    };
    if format != Format::Table {
        return output.print_value(format, &policy);
    }
    let endpoints: Vec<String> = policy.endpoints.iter().map(ToString::to_string).collect();
    let selects = if endpoints.is_empty() {
        "no endpoint".to_owned()
    } else {
        format!("endpoint {}", endpoints.join(", "))
    };
    writeln!(output, "# {name}, from {}, selects {selects}", policy.origin)?;
    if let Some(error) = &policy.error {
        writeln!(output, "# its newest version was refused: {error}")?;
    }
    for warning in &policy.warnings {
        writeln!(output, "# {warning}")?;
    }
    output.print_value(Format::Yaml, &policy.object)
}

fn apply(client: &Client, files: &[PathBuf], output: &mut Output) -> Result<(), Failure> {
    let mut refused: Option<Failure> = None;
    for manifest in manifest::read_all(files)? {
        let document = PolicyDocument { text: manifest.text, name: manifest.name };
        match client.send::<_, PolicyApplied>("POST", path::POLICY_APPLY, &document) {
            Ok(applied) => {
                for result in applied.results {
                    writeln!(output, "{result}")?;
                }
            }
            // One bad file does not hold up the others; it is told about at the end.
            Err(ClientError::Api(mut answer)) => {
                if !answer.message.contains(&document.name) {
                    answer.message = format!("{}: {}", document.name, answer.message);
                }
                match &mut refused {
                    None => refused = Some(ClientError::Api(answer).into()),
                    Some(failure) => failure.message.push_str(&format!("\n{}", answer.message)),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    output.flush()?;
    refused.map_or(Ok(()), |failure| Err(failure.hint("What was in force before still is.")))
}

fn delete(
    client: &Client,
    policies: &[PolicyName],
    files: &[PathBuf],
    output: &mut Output,
) -> Result<(), Failure> {
    let mut names = policies.to_vec();
    for manifest in manifest::read_all(files)? {
        names.extend(manifest.policy_names()?);
    }
    let mut missing = Vec::new();
    for name in names {
        let namespace = if name.namespace.is_empty() { "-" } else { &name.namespace };
        match client.delete(&path::fill(path::POLICY, &[name.kind, namespace, &name.name])) {
            Ok(()) => writeln!(output, "{name} deleted")?,
            Err(ClientError::Api(answer)) if answer.code == "not-found" => missing.push(name.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    output.flush()?;
    Err(Failure::new(Exit::NotFound, format!("there is no policy {}", missing.join(", ")))
        .hint("`sluice policy get` shows those that exist."))
}
