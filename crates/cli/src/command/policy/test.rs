//! `sluice policy test`: what people expect of their policies, held against the engine.

mod discover;
mod show;
mod watch;

use std::io::Write;
use std::path::PathBuf;

use sluice_policytest::{Report, junit, sarif, tap};

use crate::args::{TestArgs, TestFormat};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// One run: its findings, and the files that would change them.
struct Run {
    report: Report,
    /// Everything that was read, and the directories that were searched.
    read: Vec<PathBuf>,
}

pub(super) fn run(arguments: &TestArgs, output: &mut Output) -> Result<(), Failure> {
    if arguments.watch {
        if arguments.format != TestFormat::Table {
            return Err(Failure::usage("--watch prints for people; leave out -o"));
        }
        return watch::run(arguments, output);
    }
    let run = once(arguments);
    print(&run.report, arguments, output)?;
    verdict(&run.report, arguments)
}

/// Finds and asks everything.
fn once(arguments: &TestArgs) -> Run {
    let mut run = Run { report: Report::default(), read: Vec::new() };
    let is_wanted = |name: &str| arguments.filter.as_ref().is_none_or(|filter| filter.is_match(name));
    let mut cache = discover::Sources::default();
    for file in discover::files(&arguments.paths, &mut run) {
        let suites = match sluice_policytest::read(&file.name, &file.text) {
            Ok(suites) => suites,
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| run.report.mistake(mistake));
                continue;
            }
        };
        for suite in suites {
            match cache.of(&suite, &mut run.read) {
                Ok(sources) => run.report.merge(suite.run(&sources, &is_wanted)),
                Err(mistakes) => mistakes.iter().for_each(|mistake| run.report.mistake(mistake)),
            }
        }
    }
    run
}

fn print(report: &Report, arguments: &TestArgs, output: &mut Output) -> Result<(), Failure> {
    let written = |error: serde_json::Error| Failure::error(format!("cannot write this as JSON: {error}"));
    match arguments.format {
        TestFormat::Table => return show::report(report, arguments.coverage, output),
        TestFormat::Json => writeln!(output, "{}", serde_json::to_string_pretty(report).map_err(written)?)?,
        TestFormat::Junit => write!(output, "{}", junit(report))?,
        TestFormat::Tap => write!(output, "{}", tap(report))?,
        TestFormat::Sarif => {
            writeln!(output, "{}", serde_json::to_string_pretty(&sarif(report)).map_err(written)?)?;
        }
    }
    Ok(())
}

/// Success, or the exit code for what was already said.
fn verdict(report: &Report, arguments: &TestArgs) -> Result<(), Failure> {
    if report.errors > 0 {
        return Err(Failure::invalid(""));
    }
    if report.results.is_empty() {
        // A run that asks nothing would always pass.
        return Err(Failure::invalid(match &arguments.filter {
            Some(filter) => format!("no test has a name that matches {filter}"),
            None => "there is no policy test in these paths".to_owned(),
        }));
    }
    if report.failed > 0 { Err(Failure::new(Exit::Error, "")) } else { Ok(()) }
}
