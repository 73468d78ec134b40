//! `sluice policy selectors`: what each selector of each policy matches now.

use std::io::Write;

use serde_json::{Value, json};
use sluice_client::Client;
use sluice_model::{Role, Selected};

use super::trace::Stage;
use crate::args::{Format, SelectorsArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Table};

/// How many names a row lists.
const LISTED_MAX: usize = 4;

pub(super) fn run(
    client: impl FnOnce() -> Result<Client, Failure>,
    arguments: &SelectorsArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut stage = Stage::build(&arguments.scene, client)?;
    let mut found = stage.cluster.selected();
    if arguments.empty {
        found.retain(is_empty);
    }
    if arguments.out.format != Format::Table {
        let shown: Vec<Value> = found.iter().map(as_json).collect();
        return output.print_value(arguments.out.format, &shown);
    }
    if found.is_empty() {
        let what =
            if arguments.empty { "Every selector matches somebody." } else { "There are no policies." };
        writeln!(output, "{what}")?;
        return Ok(());
    }
    let mut table = Table::new(&["POLICY", "RULE", "", "SELECTOR", "MATCHES"]);
    let mut before = None;
    for selected in &found {
        let policy = Some(&selected.policy);
        let name = if policy == before { String::new() } else { selected.policy.to_string() };
        before = policy;
        let rules = if selected.role == Role::Subject { String::new() } else { selected.rules.join(" ") };
        let role = selected.role.as_str().to_owned();
        table.row([name, rules, role, selected.text.clone(), matches(selected, output)]);
    }
    write!(output, "{table}")?;
    let nobody = found.iter().filter(|selected| is_empty(selected)).count();
    let next = match nobody {
        0 => "sluice policy matrix shows what follows from them".to_owned(),
        1 => "one matches nobody: sluice policy lint says what may have been meant".to_owned(),
        several => format!("{several} match nobody: sluice policy lint says what may have been meant"),
    };
    writeln!(output, "\n{}", output.dim(&next))?;
    Ok(())
}

fn is_empty(selected: &Selected) -> bool {
    !selected.is_learnt && selected.members.as_ref().is_some_and(Vec::is_empty)
}

fn matches(selected: &Selected, output: &Output) -> String {
    let Some(members) = &selected.members else { return "everybody".to_owned() };
    if members.is_empty() && selected.is_learnt {
        return output.dim("addresses that answers bring");
    }
    if members.is_empty() {
        return output.warn("nobody");
    }
    table::listed(members, LISTED_MAX)
}

fn as_json(selected: &Selected) -> Value {
    json!({
        "policy": selected.policy.to_string(),
        "rules": selected.rules,
        "role": selected.role.as_str(),
        "selector": selected.text,
        "matches": selected.members,
    })
}
