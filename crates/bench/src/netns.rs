//! Network namespaces of this run: made with unique names, gone when dropped.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A named network namespace.
#[derive(Debug)]
pub(crate) struct Netns {
    pub(crate) name: String,
}

impl Netns {
    /// Makes an empty namespace with the loopback up.
    pub(crate) fn new(role: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let netns = Self { name: format!("slubench-{}-{number}-{role}", std::process::id()) };
        run("ip", &["netns", "add", &netns.name])?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The path that CNI plugins and `setns` take.
    pub(crate) fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// `ip -n NAMESPACE WORDS…`.
    pub(crate) fn ip(&self, words: &str) -> Result<()> {
        let mut arguments = vec!["-n", &self.name];
        arguments.extend(words.split_whitespace());
        run("ip", &arguments)
    }

    /// Writes a sysctl below `/proc/sys/net` of the namespace.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let file = format!("/proc/sys/net/{key}");
        self.enter(|| std::fs::write(&file, value).with_context(|| file.clone()))?
    }

    /// A command inside the namespace; `/sys` and mounts stay those of the host.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| self.path())?;
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(
                        std::os::fd::AsFd::as_fd(&file),
                        Some(LinkNameSpaceType::Network),
                    )
                    .with_context(|| format!("cannot enter {}", self.path()))?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|_| bail!("a measuring thread panicked"))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = run("ip", &["netns", "del", &self.name]) {
            eprintln!("leaving {} behind: {error:#}", self.name);
        }
    }
}

/// Runs a program to its end; its standard error becomes the message when it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}
