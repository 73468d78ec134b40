//! CNI ADD and DEL: our plugin with its agent against the reference `bridge` with `host-local`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::lab::plugin;
use crate::netns::Netns;
use crate::report::{Aim, Row};
use crate::rounds::quantile;

/// How many ADD/DEL pairs one after the other, and how many at once.
const SERIAL: usize = 40;
const AT_ONCE: usize = 50;
const ROUNDS: usize = 5;

/// Every row of the group.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let subjects = [Subject::sluice()?, Subject::bridge()?];
    let mut rows = Vec::new();
    for (at_once, word) in [(1, "1 at once"), (AT_ONCE, "50 at once")] {
        let mut times: [Times; 2] = [Times::default(), Times::default()];
        for round in 0..ROUNDS {
            for offset in 0..subjects.len() {
                let nth = (round + offset) % subjects.len();
                if let (Some(subject), Some(times)) = (subjects.get(nth), times.get_mut(nth)) {
                    subject.round(at_once, times)?;
                }
            }
        }
        let [ours, peer] = &times;
        for (verb, ours, peer) in [("ADD", &ours.add, &peer.add), ("DEL", &ours.del, &peer.del)] {
            for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
                rows.push(row(verb, word, name, share, ours, peer));
            }
        }
    }
    Ok(rows)
}

fn row(verb: &str, word: &str, name: &str, share: f64, ours: &[Vec<f64>], peer: &[Vec<f64>]) -> Row {
    let all = |rounds: &[Vec<f64>]| rounds.iter().flatten().copied().collect::<Vec<_>>();
    let per_round: Vec<f64> =
        ours.iter().zip(peer).map(|(a, b)| quantile(a, share) / quantile(b, share)).collect();
    let (ours, peer) = (quantile(&all(ours), share), quantile(&all(peer), share));
    Row {
        id: format!("cni-{}-{name}-{}", verb.to_lowercase(), word.replace(' ', "-")),
        what: format!("CNI {verb}, {word}, {name}"),
        against: "bridge + host-local".to_owned(),
        ratio: ours / peer,
        spread: (quantile(&per_round, 0.25), quantile(&per_round, 0.75)),
        aim: Aim::AtMost(1.0),
        note: format!("{:.1} ms to {:.1} ms", ours * 1e3, peer * 1e3),
    }
}

/// Seconds of each call, by round.
#[derive(Debug, Default)]
struct Times {
    add: Vec<Vec<f64>>,
    del: Vec<Vec<f64>>,
}

/// A node with one plugin.
#[derive(Debug)]
struct Subject {
    // Declared first: the agent ends before its namespace goes.
    agent: Option<Agent>,
    node: Netns,
    program: String,
    config: Value,
}

impl Subject {
    fn bridge() -> Result<Self> {
        let node = Netns::new("bridge")?;
        let config = json!({
            "cniVersion": "1.0.0", "name": node.name, "type": "bridge", "bridge": "br0", "isGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.2.0.0/16", "dataDir": format!("/tmp/{}", node.name),
                     "routes": [{"dst": "0.0.0.0/0"}]},
        });
        Ok(Self { agent: None, node, program: "bridge".to_owned(), config })
    }

    fn sluice() -> Result<Self> {
        let node = Netns::new("sluice")?;
        let agent = Agent::start(&node)?;
        let config = agent.config.clone();
        Ok(Self { program: beside("sluice-cni")?.display().to_string(), agent: Some(agent), node, config })
    }

    fn round(&self, at_once: usize, times: &mut Times) -> Result<()> {
        let pods = if at_once == 1 { SERIAL } else { at_once };
        let namespaces: Vec<Netns> = (0..pods).map(|_| Netns::new("pod")).collect::<Result<_>>()?;
        times.add.push(self.calls("ADD", at_once, &namespaces)?);
        times.del.push(self.calls("DEL", at_once, &namespaces)?);
        Ok(())
    }

    fn calls(&self, verb: &str, at_once: usize, pods: &[Netns]) -> Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(pods.len());
        for batch in pods.chunks(at_once) {
            let batch: Vec<Result<f64>> = std::thread::scope(|scope| {
                let threads: Vec<_> = batch.iter().map(|pod| scope.spawn(|| self.call(verb, pod))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|_| bail!("a caller panicked")))
                    .collect()
            });
            for call in batch {
                seconds.push(call?);
            }
        }
        Ok(seconds)
    }

    fn call(&self, verb: &str, pod: &Netns) -> Result<f64> {
        #[expect(clippy::disallowed_methods, reason = "measuring is this program's purpose")]
        let start = Instant::now();
        plugin(&self.node, &self.program, verb, &self.config, &pod.name, &pod.path())?;
        Ok(start.elapsed().as_secs_f64())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        drop(self.agent.take());
        // host-local's records; absent in ours.
        drop(std::fs::remove_dir_all(format!("/tmp/{}", self.node.name)));
    }
}

/// A running agent with its directories.
#[derive(Debug)]
struct Agent {
    child: Child,
    directory: tempfile::TempDir,
    config: Value,
}

impl Agent {
    fn start(node: &Netns) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let at = |name: &str| directory.path().join(name);
        for name in ["manifests", "state", "bpf"] {
            std::fs::create_dir(at(name))?;
        }
        let child = node
            .command(&beside("sluice-agent")?.display().to_string())
            .arg("--manifests")
            .arg(at("manifests"))
            .arg("--state-dir")
            .arg(at("state"))
            .arg("--bpffs")
            .arg(at("bpf"))
            .arg("--socket")
            .arg(at("agent.sock"))
            .args(["--pool4", "10.3.0.0/16", "--pool6", "", "--log", "warn", "--release-rest", "1"])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start sluice-agent")?;
        let config = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "sluice-cni", "agentSocket": at("agent.sock"),
            "stateDir": at("state"), "pinDir": at("bpf").join("sluice/v1"),
        });
        let mut agent = Self { child, directory, config };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        for _ in 0..200 {
            if let Some(status) = self.child.try_wait()? {
                bail!("sluice-agent ended: {status}");
            }
            if self.directory.path().join("agent.sock").exists() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("sluice-agent does not become ready")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ends only what was started here; errors mean that it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(Command::new("umount").arg("-l").arg(self.directory.path().join("bpf")).output());
    }
}

fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not built", path.display());
    Ok(path)
}
