//! `sluice schema`: JSON Schema of everything that is read, for editors and for checks before a commit.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sluice_api::{Kind, nearest, schema};

use crate::args::SchemaArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

/// The file whose schema picks that of the kind.
const ALL: &str = "all.json";

/// A document that has a schema.
struct Entry {
    name: &'static str,
    /// The names that `kubectl` knows, and ours where it knows none.
    short: &'static [&'static str],
    api_versions: Vec<String>,
    /// None is a policy test.
    kind: Option<Kind>,
}

impl Entry {
    fn schema(&self) -> Value {
        self.kind.map_or_else(sluice_policytest::schema, schema::json_schema)
    }

    fn file_name(&self) -> String {
        format!("{}.json", self.name)
    }
}

pub(super) fn run(arguments: &SchemaArgs, output: &mut Output) -> Result<(), Failure> {
    let entries = entries();
    if let Some(directory) = &arguments.dir {
        return write_all(&entries, directory, output);
    }
    let Some(name) = &arguments.kind else { return list(&entries, output) };
    let entry = find(&entries, name)?;
    writeln!(output, "{:#}", entry.schema())?;
    Ok(())
}

fn entries() -> Vec<Entry> {
    let of_kind = |kind: &Kind| Entry {
        name: kind.name(),
        short: short(*kind),
        api_versions: kind.api_versions().collect(),
        kind: Some(*kind),
    };
    let policy_test = Entry {
        name: sluice_policytest::KIND,
        short: &[],
        api_versions: vec![sluice_policytest::API_VERSION.to_owned()],
        kind: None,
    };
    schema::KINDS.iter().map(of_kind).chain([policy_test]).collect()
}

const fn short(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::CiliumNetworkPolicy => &["cnp"],
        Kind::CiliumClusterwideNetworkPolicy => &["ccnp"],
        Kind::NetworkPolicy => &["netpol", "knp"],
        Kind::ClusterNetworkPolicy => &["cnetpol"],
        Kind::CiliumCidrGroup => &["ccg"],
        Kind::Pod => &["po"],
        Kind::Namespace => &["ns"],
        Kind::Node => &["no"],
        Kind::Service => &["svc"],
        Kind::EndpointSlice | Kind::Secret => &[],
    }
}

fn find<'e>(entries: &'e [Entry], name: &str) -> Result<&'e Entry, Failure> {
    let is_it = |own: &str| own.eq_ignore_ascii_case(name);
    let found = entries.iter().find(|entry| is_it(entry.name) || entry.short.iter().any(|own| is_it(own)));
    found.ok_or_else(|| {
        let kinds: Vec<&str> = entries.iter().map(|entry| entry.name).collect();
        let meant = nearest(name, &kinds).map(|kind| format!(" Did you mean {kind}?")).unwrap_or_default();
        Failure::not_found(format!("nothing is read whose kind is {name:?}.{meant}"))
            .hint("`sluice schema` lists the kinds.")
    })
}

fn list(entries: &[Entry], output: &mut Output) -> Result<(), Failure> {
    let mut table = Table::new(&["KIND", "SHORT", "API VERSION"]);
    for entry in entries {
        table.row([entry.name, &entry.short.join(","), &entry.api_versions.join("\n")]);
    }
    write!(output, "{table}")?;
    let next = output.dim("sluice schema KIND prints one; sluice schema --dir DIR writes all, for an editor");
    writeln!(output, "\n{next}")?;
    Ok(())
}

fn write_all(entries: &[Entry], directory: &Path, output: &mut Output) -> Result<(), Failure> {
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::error(format!("cannot write {}: {error}", path.display()))
    };
    fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    let own = entries.iter().map(|entry| (entry.file_name(), entry.schema()));
    for (name, schema) in own.chain([(ALL.to_owned(), all(entries))]) {
        let path = directory.join(name);
        fs::write(&path, format!("{schema:#}\n")).map_err(|error| failed(&path, &error))?;
    }
    let all = directory.join(ALL);
    writeln!(output, "wrote {} schemas and {}", entries.len(), all.display())?;
    let next = format!("# yaml-language-server: $schema={}", all.display());
    writeln!(output, "{}", output.dim(&format!("first line of a manifest: {next}")))?;
    Ok(())
}

/// A schema for any document: that of its kind. What has another kind is nobody's business here.
fn all(entries: &[Entry]) -> Value {
    let choice = |entry: &Entry| {
        json!({
            "if": {
                "properties": {"apiVersion": {"enum": entry.api_versions}, "kind": {"const": entry.name}},
                "required": ["apiVersion", "kind"],
            },
            "then": {"$ref": entry.file_name()},
        })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Everything that sluice reads",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "allOf": entries.iter().map(choice).collect::<Vec<Value>>(),
    })
}
