//! Running again whenever something that was read changes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inotify::{Inotify, WatchMask};

use super::{Run, once, print};
use crate::args::TestArgs;
use crate::failure::{Failure, io};
use crate::output::Output;

/// Editors write in several steps; what comes within this time belongs together.
const SETTLE: Duration = Duration::from_millis(100);
const BUFFER_BYTES: usize = 16 << 10;

/// Runs until it is interrupted.
pub(super) fn run(arguments: &TestArgs, output: &mut Output) -> Result<(), Failure> {
    loop {
        let (run, mut watch) = watched(arguments)?;
        print(&run.report, arguments, output)?;
        writeln!(output, "{}", output.dim("waiting for a change; Ctrl-C ends it"))?;
        output.flush()?;
        wait(&mut watch)?;
        writeln!(output)?;
    }
}

/// A run, and a watch that was set before anything was read: no change in between is missed.
fn watched(arguments: &TestArgs) -> Result<(Run, Inotify), Failure> {
    let before: BTreeSet<PathBuf> = once(arguments).read.iter().filter_map(|path| directory(path)).collect();
    let watch = Inotify::init().map_err(io("watching files"))?;
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::CREATE | WatchMask::DELETE;
    for directory in &before {
        // A directory that is not there is part of the report; it comes back with a change of another one.
        if directory.is_dir() {
            let doing = io(format!("watching {}", directory.display()));
            watch.watches().add(directory, mask).map_err(doing)?;
        }
    }
    Ok((once(arguments), watch))
}

/// Directories are watched, because editors put new files in the place of old ones.
fn directory(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}

/// Returns when a manifest, or a directory, has changed and nothing more comes.
fn wait(watch: &mut Inotify) -> Result<(), Failure> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let events = watch.read_events_blocking(&mut buffer).map_err(io("watching files"))?;
        let mut names = events.map(|event| event.name.map(OsStr::to_os_string));
        if names.any(|name| name.as_deref().is_none_or(is_manifest)) {
            break;
        }
    }
    std::thread::sleep(SETTLE);
    Ok(())
}

/// Whether a change of this name matters. One without an ending may be a directory.
fn is_manifest(name: &OsStr) -> bool {
    let path = Path::new(name);
    let hidden = name.to_string_lossy().starts_with('.');
    !hidden && path.extension().is_none_or(|end| end == "yaml" || end == "yml" || end == "json")
}
