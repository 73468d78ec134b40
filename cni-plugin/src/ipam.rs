//! Delegated IPAM: running the plugin that the configuration names, as a runtime would.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::Request;
use crate::addresses::Addresses;
use crate::environment::Verb;
use crate::error::Error;
use crate::json::{self, Node};
use crate::report;
use crate::result::CniResult;
use crate::version::SpecVersion;

/// How long the plugin may take; `dhcp` waits for its server.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to exit once it has closed its output.
const EXIT_WAIT: Duration = Duration::from_secs(2);
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Longest output that is read.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Asks `plugin` for addresses. What a failed attempt left behind is deleted, as the specification asks, and if it
/// failed because an ADD that was killed had left something, the second attempt succeeds.
pub(crate) fn add(request: &Request, plugin: &str) -> Result<Addresses, Error> {
    let answer = match run(request, plugin, Verb::Add) {
        Err(Error::IpamFailed { .. }) => {
            delete_quietly(request, plugin);
            run(request, plugin, Verb::Add).inspect_err(|_| delete_quietly(request, plugin))?
        }
        answer => answer.inspect_err(|_| delete_quietly(request, plugin))?,
    };
    let what = format!("the result of the IPAM plugin {plugin}");
    let addresses = json::parse(&what, &answer)
        .and_then(|document| CniResult::from_json(&Node::new(&what, &document)))
        .and_then(|result| {
            let unusable = |reason| Error::IpamResult { plugin: plugin.to_owned(), reason };
            Addresses::from_ipam(&result).map_err(unusable)
        });
    addresses.inspect_err(|_| delete_quietly(request, plugin))
}

/// Runs `plugin` for a verb that came later than the others, if the plugin has it.
pub(crate) fn run_if_able(request: &Request, plugin: &str, verb: Verb) -> Result<(), Error> {
    let able = run(request, plugin, Verb::Version)
        .and_then(|answer| json::parse("the versions of the IPAM plugin", &answer))
        .is_ok_and(|document| supports(&document, request.config.version));
    if able { run(request, plugin, verb).map(drop) } else { Ok(()) }
}

/// Runs `plugin` for one verb with the configuration as it came, and returns its output.
pub(crate) fn run(request: &Request, plugin: &str, verb: Verb) -> Result<Vec<u8>, Error> {
    let failed = |reason: &str, source| Error::IpamRun {
        plugin: plugin.to_owned(),
        verb,
        reason: reason.to_owned(),
        source,
    };
    let program = find(plugin, &request.environment.plugin_dirs)
        .ok_or_else(|| failed("it is in none of the directories of CNI_PATH", None))?;
    let mut child = Command::new(&program)
        .env("CNI_COMMAND", verb.as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| failed("it does not start", Some(source)))?;
    let Some(output) = converse(&mut child, &request.configuration) else {
        child.kill().ok();
        child.wait().ok();
        let reason = format!("it did not answer within {} s", PLUGIN_TIMEOUT.as_secs());
        return Err(failed(&reason, None));
    };
    if exits_well(&mut child) { Ok(output) } else { Err(refusal(plugin, verb, &output)) }
}

/// The program of a plugin. Its name was checked: it is a plain word, so it cannot lead out of the directories.
fn find(plugin: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    dirs.iter().map(|dir| dir.join(plugin)).find(|path| is_program(path))
}

/// Sends the configuration and reads all of the output, each in a thread of its own, because a plugin may read and
/// write in any order. None: it took too long. The threads end with the plugin's ends of the pipes.
fn converse(child: &mut Child, configuration: &[u8]) -> Option<Vec<u8>> {
    let (mut input, output) = (child.stdin.take()?, child.stdout.take()?);
    let configuration = configuration.to_owned();
    // A plugin that does not read its input is free to do so.
    std::thread::spawn(move || input.write_all(&configuration).ok());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).ok();
        sender.send(bytes).ok();
    });
    receiver.recv_timeout(PLUGIN_TIMEOUT).ok()
}

fn exits_well(child: &mut Child) -> bool {
    for _ in 0..EXIT_WAIT.as_millis() / EXIT_POLL_INTERVAL.as_millis() {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(EXIT_POLL_INTERVAL),
            Err(_) => return false,
        }
    }
    child.kill().ok();
    child.wait().ok();
    false
}

/// The plugin's own error object, passed on with its code.
fn refusal(plugin: &str, verb: Verb, output: &[u8]) -> Error {
    let plugin = plugin.to_owned();
    let object: Value = serde_json::from_slice(output).unwrap_or_default();
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match object.get("code").and_then(Value::as_u64) {
        Some(code) => Error::IpamFailed { plugin, code, message: text("msg"), details: text("details") },
        None => {
            let reason = "it failed and did not say why".to_owned();
            Error::IpamRun { plugin, verb, reason, source: None }
        }
    }
}

fn delete_quietly(request: &Request, plugin: &str) {
    if let Err(error) = run(request, plugin, Verb::Del) {
        report::warn_about("cannot take back what the IPAM plugin may have handed out", &error);
    }
}

fn supports(document: &Value, version: SpecVersion) -> bool {
    let versions = document.get("supportedVersions").and_then(Value::as_array);
    versions.is_some_and(|versions| versions.iter().any(|one| one.as_str() == Some(version.as_str())))
}
