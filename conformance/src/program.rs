//! Programs of others, as clients and servers in a namespace.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::agent::spawn_in;
use crate::clock;
use crate::netns::Netns;

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client may take for all that it does.
const CLIENT_SECONDS: &str = "300";

/// A program that is kept as a Go module, installed if it is not there yet. `name` as `scripts/go-programs.sh` knows it.
///
/// # Errors
/// It cannot be installed; the script says why.
pub fn go_program(name: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/go-programs.sh");
    let output = Command::new("sh").arg(script).arg(name).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{name} could not be installed");
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// A server. It ends when dropped, or with the thread that started it.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Starts it in the namespace and waits until it listens at `places`.
    ///
    /// # Errors
    /// There is no such program, or it does not listen in time.
    pub fn start(command: &mut Command, netns: &Netns, places: &[SocketAddr]) -> Result<Self> {
        let server = Self(spawn_in(command.stdin(Stdio::null()), netns, true)?);
        for place in places {
            clock::wait_for(&format!("{command:?} at {place}"), PATIENCE, || {
                let connected = netns.run(|| Ok(TcpStream::connect(place)?));
                connected.map(drop).map_err(|error| format!("{error:#}"))
            })?;
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Runs a client in the namespace to its end, with `input` for it to read.
///
/// # Errors
/// There is no such program.
pub fn run(program: &Path, arguments: &[&str], netns: &Netns, input: &[u8]) -> Result<Output> {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", CLIENT_SECONDS]).arg(program).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn_in(&mut command, netns, true)?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        // A program that does not read all of it says why by itself.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        child.wait_with_output().with_context(|| format!("waiting for {}", program.display()))
    })
}
