//! `sluice policy diff`: what a change of policies changes, before it is applied.
//!
//! Two clusters on paper are asked about every pair and every port, and about recorded flows; decides nothing.

mod flows;
mod json;
mod rows;
mod text;

use std::io::Write;

use sluice_client::Client;
use sluice_model::{Cluster, Comparison, Met, compare, meet};
use sluice_policy::Config;

use super::trace::Stage;
use crate::args::{DiffArgs, DiffFormat, Format, Scene};
use crate::documents;
use crate::failure::{Exit, Failure};
use crate::output::Output;

use flows::FlowChanges;

/// Everything that is told.
#[derive(Debug)]
struct Difference {
    met: Met,
    comparison: Comparison,
    flows: Option<FlowChanges>,
}

impl Difference {
    fn is_empty(&self) -> bool {
        self.comparison.is_empty() && self.flows.as_ref().is_none_or(FlowChanges::is_empty)
    }
}

/// Exit codes are those of `diff`: whatever goes wrong is 2.
pub(super) fn run(
    client: impl FnOnce() -> Result<Client, Failure>,
    arguments: &DiffArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let result = compared(client, arguments).and_then(|difference| {
        match arguments.format {
            DiffFormat::Table => text::print(&difference, output)?,
            DiffFormat::Json => output.print_value(Format::Json, &json::of(&difference))?,
        }
        output.flush()?;
        Ok(difference)
    });
    match result {
        Ok(difference) if difference.is_empty() => Ok(()),
        Ok(_) => Err(Failure::new(Exit::Error, "")),
        Err(failure) => Err(failure.with_exit(Exit::Usage)),
    }
}

fn compared(
    client: impl FnOnce() -> Result<Client, Failure>,
    arguments: &DiffArgs,
) -> Result<Difference, Failure> {
    let (mut old, mut new) = match (arguments.sides.as_slice(), arguments.live) {
        ([old, new], false) => (read(old, arguments)?, read(new, arguments)?),
        ([new], true) => {
            let scene = Scene { files: Vec::new(), enforcement: None, audit: false };
            let old = Stage::build(&scene, client)?.cluster;
            let new = read_into(Cluster::new(old.config().clone()), new, arguments)?;
            (old, new)
        }
        ([_], false) => return Err(Failure::usage("OLD and NEW are needed, or --live and NEW")),
        (_, true) => return Err(Failure::usage("with --live only NEW is needed")),
        (_, false) => return Err(Failure::usage("OLD and NEW are needed")),
    };
    let met = meet(&mut old, &mut new);
    let unknown = |error: sluice_model::UnknownEnd| Failure::not_found(error.to_string());
    let comparison = compare(&old.judges(), &new.judges(), &met.names).map_err(unknown)?;
    let flows = arguments.against.as_ref().map(|file| flows::judge(file, &mut new)).transpose()?;
    Ok(Difference { met, comparison, flows })
}

fn read(side: &std::path::Path, arguments: &DiffArgs) -> Result<Cluster, Failure> {
    read_into(Cluster::new(Config::complete()), side, arguments)
}

/// What holds for both sides comes first: a side may say more of the same objects.
fn read_into(mut cluster: Cluster, side: &std::path::Path, arguments: &DiffArgs) -> Result<Cluster, Failure> {
    documents::apply_all(&documents::read(&arguments.files)?, &mut cluster)?;
    documents::apply_all(&documents::read(&[side.to_owned()])?, &mut cluster)?;
    Ok(cluster)
}
