//! The CNI plugin: connects a container to the node and puts it under policy before it can send a packet.
//!
//! Started by the container runtime for each verb, lives for milliseconds: parameters come in the environment, the
//! network configuration on standard input, and the result goes to standard output, where nothing else is ever
//! written. Addresses and policy are the agent's; this crate makes interfaces, attaches the pinned programs and
//! asks. It never allocates, decides, walks directories or parses the programs' object file.

mod addresses;
mod agent;
mod args;
mod attachment;
mod config;
mod delete_record;
mod environment;
mod error;
mod host_link;
mod ipam;
mod json;
mod lock;
mod pod_link;
mod programs;
mod report;
mod result;
mod step;
mod undo;
mod verb;
mod version;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use serde_json::Value;

use crate::attachment::Attachment;
use crate::config::Config;
use crate::environment::{Environment, Verb};
use crate::error::Error;
use crate::undo::Undo;
use crate::version::SpecVersion;

/// Longest network configuration, previous result included, that is read.
const CONFIGURATION_BYTES_MAX: u64 = 1 << 20;

/// One call of the plugin.
#[derive(Debug)]
struct Request {
    environment: Environment,
    config: Config,
    /// The container's interface; without names for verbs that are not about one.
    attachment: Attachment,
    /// The configuration as it came, for delegated plugins.
    configuration: Vec<u8>,
}

/// Carries one verb out: parameters from `environment`, the network configuration from `input`, the result or the
/// error object to `output`. The exit code is success or failure, as the specification asks.
pub fn run(
    environment: &dyn Fn(&str) -> Option<OsString>,
    input: &mut dyn Read,
    output: &mut dyn Write,
) -> ExitCode {
    let mut version = SpecVersion::NEWEST;
    let done =
        std::panic::catch_unwind(AssertUnwindSafe(|| carry_out(environment, input, output, &mut version)));
    let error = match done {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => error,
        Err(_) => Error::Bug,
    };
    report::warn(&error);
    // Nobody can be told when even this fails; the exit code still says it.
    write_json(output, &error.to_json(version)).ok();
    ExitCode::FAILURE
}

fn carry_out(
    environment: &dyn Fn(&str) -> Option<OsString>,
    input: &mut dyn Read,
    output: &mut dyn Write,
    version: &mut SpecVersion,
) -> Result<(), Error> {
    let verb = Verb::from_environment(environment)?;
    let configuration = read_configuration(input)?;
    if verb == Verb::Version {
        return write_json(output, &verb::version(&configuration)?);
    }
    let document = json::parse("the network configuration", &configuration)?;
    *version = config::spec_version(&document)?;
    version.check_has(verb)?;
    let environment = Environment::from_environment(verb, environment)?;
    let config = Config::from_json(&document, *version)?;
    let attachment = Attachment::new(&config.name, &environment.container_id, &environment.ifname);
    let request = Request { environment, config, attachment, configuration };
    match verb {
        Verb::Add => {
            let (result, undo) = verb::add(&request)?;
            hand_over(output, &result, undo)
        }
        Verb::Del => verb::del(&request),
        Verb::Check => verb::check(&request),
        Verb::Gc => verb::gc(&request),
        Verb::Status => verb::status(&request),
        Verb::Version => Ok(()),
    }
}

/// A result that the runtime does not get is no success: everything is taken back.
fn hand_over(output: &mut dyn Write, result: &Value, undo: Undo<'_>) -> Result<(), Error> {
    match write_json(output, result) {
        Ok(()) => {
            undo.keep();
            Ok(())
        }
        Err(error) => {
            undo.unwind();
            Err(error)
        }
    }
}

fn read_configuration(input: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    input.take(CONFIGURATION_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|source| Error::Io {
        operation: "read",
        object: "the network configuration".to_owned(),
        source,
    })?;
    if bytes.len() as u64 > CONFIGURATION_BYTES_MAX {
        return Err(Error::Decode {
            what: "the network configuration".to_owned(),
            reason: format!("it is longer than {CONFIGURATION_BYTES_MAX} bytes"),
        });
    }
    Ok(bytes)
}

fn write_json(output: &mut dyn Write, value: &Value) -> Result<(), Error> {
    let failed = |source| Error::Io { operation: "write", object: "the result".to_owned(), source };
    writeln!(output, "{value:#}").map_err(failed)?;
    output.flush().map_err(failed)
}
