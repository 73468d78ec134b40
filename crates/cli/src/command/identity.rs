//! `sluice identity`: the numbers that stand for label sets.

use sluice_client::model::IdentityInfo;
use sluice_client::{Client, path};
use sluice_types::Identity;

use crate::args::IdentityCommand;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

pub(super) fn run(client: &Client, command: &IdentityCommand, output: &mut Output) -> Result<(), Failure> {
    let mut identities: Vec<IdentityInfo> = client.fetch(path::IDENTITIES)?;
    identities.sort_by_key(|identity| identity.id);
    match command {
        IdentityCommand::List(out) => output.print(out.format, &identities, |_| list(&identities)),
        IdentityCommand::Get { identity, out } => {
            let wanted = parse(identity)?;
            let Some(found) = identities.into_iter().find(|identity| identity.id == wanted) else {
                return Err(Failure::not_found(format!("nobody has the identity {wanted}"))
                    .hint("`sluice identity list` shows those in use."));
            };
            output.print(out.format, &found, |_| list(std::slice::from_ref(&found)))
        }
    }
}

fn parse(text: &str) -> Result<Identity, Failure> {
    if let Ok(number) = text.parse::<u32>() {
        return Ok(Identity::new(number));
    }
    let name = text.strip_prefix("reserved:").unwrap_or(text);
    Identity::reserved()
        .find(|(_, reserved)| *reserved == name)
        .map(|(identity, _)| identity)
        .ok_or_else(|| Failure::usage(format!("{text:?} is neither a number nor a reserved name")))
}

fn list(identities: &[IdentityInfo]) -> Table {
    let mut table = Table::new(&["ID", "LABELS", "REFCOUNT"]);
    for identity in identities {
        table.row([
            identity.id.to_string(),
            identity.labels.to_strings().join("\n"),
            identity.references.to_string(),
        ]);
    }
    table
}
