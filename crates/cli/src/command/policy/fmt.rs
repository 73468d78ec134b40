//! `sluice policy fmt`: the canonical layout of policies. The layout is in the crate `sluice-format`.

mod lines;
mod replace;

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::args::FmtArgs;
use crate::failure::{Exit, Failure};
use crate::manifest::{self, Manifest};
use crate::output::Output;

/// What became of the files.
#[derive(Debug, Default)]
struct Outcome {
    changed: usize,
    unchanged: usize,
    refused: Vec<Failure>,
}

/// One refused file does not hold up the others; it is told about at the end.
pub(super) fn run(arguments: &FmtArgs, output: &mut Output) -> Result<(), Failure> {
    let mut outcome = Outcome::default();
    for path in files(&arguments.files)? {
        match one(&path, arguments, output) {
            Ok(true) => outcome.changed += 1,
            Ok(false) => outcome.unchanged += 1,
            Err(failure) if failure.is_closed_pipe() => return Err(failure),
            Err(failure) => outcome.refused.push(failure),
        }
    }
    output.flush()?;
    verdict(outcome, arguments.check)
}

/// Directories stand for their YAML files; JSON has a layout of its own.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = manifest::files_of(path)?;
        found.retain(|file| !is_json(file));
        if found.is_empty() {
            return Err(Failure::not_found(format!("{} holds no .yaml or .yml file", path.display())));
        }
        files.extend(found);
    }
    Ok(files)
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json")
}

/// Whether the file was not formatted.
fn one(path: &Path, arguments: &FmtArgs, output: &mut Output) -> Result<bool, Failure> {
    if is_json(path) {
        return Err(Failure::invalid(format!("{} is JSON; only YAML is formatted", path.display())));
    }
    let is_stdin = path.as_os_str() == "-";
    let manifest = if is_stdin { manifest::read_stdin()? } else { manifest::read_file(path)? };
    let formatted = format(&manifest)?;
    let changes = formatted != manifest.text;
    if arguments.diff {
        lines::print(&manifest.name, &manifest.text, &formatted, output)?;
    } else if arguments.check {
        if changes {
            writeln!(output, "{}", manifest.name)?;
        }
    } else if is_stdin {
        write!(output, "{formatted}")?;
    } else if changes {
        replace::replace(path, &formatted)?;
        writeln!(output, "{} formatted", manifest.name)?;
    }
    Ok(changes)
}

fn format(manifest: &Manifest) -> Result<String, Failure> {
    sluice_format::format(&manifest.text).map_err(|error| {
        Failure::invalid(format!("{}:{}:{}: {}", manifest.name, error.line, error.column, error.reason))
    })
}

fn verdict(outcome: Outcome, check: bool) -> Result<(), Failure> {
    let mut refused = outcome.refused.into_iter();
    if let Some(mut first) = refused.next() {
        for failure in refused {
            first.message.push_str(&format!("\n{}", failure.message));
        }
        return Err(first.hint("Files that are named here are as they were."));
    }
    if check && outcome.changed > 0 {
        let all = outcome.changed + outcome.unchanged;
        return Err(Failure::new(
            Exit::Error,
            format!("{} of {all} files are not formatted", outcome.changed),
        )
        .hint("`sluice policy fmt` on them does it; with --diff it shows what."));
    }
    Ok(())
}
