//! Processes by number and start time: a number alone may belong to somebody else by now.

use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use sluice_netlink::{Netns, NetnsId};

/// How often a process that should end is looked at.
const STEP: Duration = Duration::from_millis(10);

/// One process, for as long as the machine runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks since the machine started.
    start_time: u64,
}

impl ProcessId {
    /// This process.
    pub(crate) fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_time: Stat::read(pid)?.start_time })
    }

    /// Whether it still runs; a process that ended but was not waited for does not.
    pub(crate) fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start_time == self.start_time && stat.state != "Z")
    }

    /// Sends a signal, unless the process is gone.
    pub(crate) fn signal(self, signal: Signal) {
        signal_if(self.pid, signal, |_| self.is_alive());
    }

    /// Ends it: politely, and after `patience` without asking.
    pub(crate) fn end(self, patience: Duration) {
        self.signal(Signal::TERM);
        if !wait_until(patience, || !self.is_alive()) {
            self.signal(Signal::KILL);
            wait_until(Duration::from_secs(2), || !self.is_alive());
        }
    }
}

/// Ends every process of the group `group` that lives in the network namespace `netns`: the number of a group may
/// have passed to others, but those are not in there.
pub(crate) fn end_group(group: u32, netns: NetnsId, patience: Duration) {
    let members = || members(group, netns);
    for pid in members() {
        signal_if(pid, Signal::TERM, |pid| is_member(pid, group, netns));
    }
    if wait_until(patience, || members().is_empty()) {
        return;
    }
    for pid in members() {
        signal_if(pid, Signal::KILL, |pid| is_member(pid, group, netns));
    }
    wait_until(Duration::from_secs(2), || members().is_empty());
}

fn members(group: u32, netns: NetnsId) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_member(*pid, group, netns)).collect()
}

fn is_member(pid: u32, group: u32, netns: NetnsId) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.group == group && stat.state != "Z")
        && Netns::open(format!("/proc/{pid}/ns/net")).is_ok_and(|own| own.id() == netns)
}

/// The descriptor is opened before the question is asked, so that the answer is about the process that gets it.
fn signal_if(pid: u32, signal: Signal, is_right: impl Fn(u32) -> bool) {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return };
    if is_right(pid) {
        // It may have ended by itself in between, which is what is wanted.
        let _gone = pidfd_send_signal(process, signal);
    }
}

/// Asks `is_done` until it says so, or `patience` is used up.
pub(crate) fn wait_until(patience: Duration, is_done: impl Fn() -> bool) -> bool {
    let tries = patience.as_millis() / STEP.as_millis();
    for _ in 0..tries {
        if is_done() {
            return true;
        }
        std::thread::sleep(STEP);
    }
    is_done()
}

struct Stat {
    state: String,
    group: u32,
    start_time: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat` (`proc(5)`); the name in it may hold anything, so fields count from its last bracket.
    fn read(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            state: (*fields.first()?).to_owned(),
            group: fields.get(2)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_itself_and_ends_others() {
        let own = ProcessId::current().unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start_time: own.start_time + 1, ..own }.is_alive());

        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        assert!(id.is_alive());
        ProcessId { start_time: id.start_time + 1, ..id }.signal(Signal::KILL);
        assert!(id.is_alive(), "another process with this number was meant");
        id.end(Duration::from_secs(5));
        child.wait().unwrap();
        assert!(!id.is_alive());
    }
}
