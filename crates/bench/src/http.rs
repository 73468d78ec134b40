//! The proxy for HTTP beside the proxies that people run: the same rules, the same load, CPU time of the proxy's process
//! for each request.
//!
//! All of it on the loopback of a namespace of its own: `wrk` or `h2load`, the proxy, and `nginx` as the server. The
//! proxy is measured, not the way to it; the datapath's redirect has a row of its own. Each proxy has one thread.

mod differential;
mod own;
mod peers;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Netns;
use crate::report::{Aim, Row, warn_if_noisy};
use crate::rounds::interleave;

pub(crate) use differential::run as differential;
pub(crate) use own::serve;

const ROUNDS: usize = 9;
const SECONDS: u32 = 1;
/// The port of the server, and with HTTP/2.
const SERVER: u16 = 9_000;
const SERVER_2: u16 = 9_002;

/// A proxy, with as many rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Proxy {
    Sluice { rules: usize, records: bool },
    Envoy { rules: usize },
    Haproxy,
    Nginx,
}

impl Proxy {
    fn name(self) -> String {
        match self {
            Self::Sluice { rules: 1, records: false } => "sluice".to_owned(),
            Self::Sluice { rules: 1, records: true } => "sluice, records".to_owned(),
            Self::Sluice { rules, .. } => format!("sluice, {rules} rules"),
            Self::Envoy { rules: 1 } => "Envoy".to_owned(),
            Self::Envoy { rules } => format!("Envoy, {rules} rules"),
            Self::Haproxy => "HAProxy".to_owned(),
            Self::Nginx => "nginx".to_owned(),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
struct Load {
    id: &'static str,
    what: &'static str,
    path: &'static str,
    /// The arguments of `wrk`, or of `h2load` for HTTP/2.
    arguments: &'static [&'static str],
    http2: bool,
}

const KEPT: Load = Load {
    id: "keep-alive",
    what: "HTTP/1 keep-alive, small",
    path: "/a/small",
    arguments: &["-c32"],
    http2: false,
};
const LOADS: [Load; 6] = [
    KEPT,
    Load { id: "16k", what: "HTTP/1, 16 KiB bodies", path: "/a/16k", ..KEPT },
    Load { id: "1m", what: "HTTP/1, 1 MiB bodies", path: "/a/1m", arguments: &["-c8"], ..KEPT },
    Load {
        id: "connection",
        what: "a connection for each request",
        arguments: &["-c32", "-HConnection: close"],
        ..KEPT
    },
    Load { id: "denied", what: "denied", path: "/b", ..KEPT },
    Load {
        id: "http2",
        what: "HTTP/2, 10 streams",
        arguments: &["-c8", "-m10", "-n200000"],
        http2: true,
        ..KEPT
    },
];

/// Every row of the group.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let lab = Lab::new()?;
    let mut rows = Vec::new();
    let one = [Proxy::Sluice { rules: 1, records: true }, Proxy::Envoy { rules: 1 }, Proxy::Haproxy];
    for load in LOADS {
        let aim = |proxy| match (load.id, proxy) {
            ("keep-alive", Proxy::Envoy { .. }) => Aim::AtMost(0.22),
            ("keep-alive", Proxy::Haproxy) => Aim::AtMost(0.95),
            ("1m", Proxy::Envoy { .. }) => Aim::AtMost(0.45),
            ("connection", Proxy::Envoy { .. }) => Aim::AtMost(0.65),
            ("denied", Proxy::Envoy { .. }) => Aim::AtMost(0.27),
            ("http2", Proxy::Envoy { .. }) => Aim::AtMost(0.32),
            _ => Aim::None,
        };
        rows.extend(lab.compare(load, &one, aim)?);
    }
    let many = [
        Proxy::Sluice { rules: 500, records: true },
        Proxy::Envoy { rules: 500 },
        Proxy::Sluice { rules: 1, records: true },
    ];
    let load = Load { id: "500-rules", what: "HTTP/1 keep-alive, 500 rules", ..KEPT };
    rows.extend(lab.compare(load, &many, |proxy| match proxy {
        Proxy::Envoy { .. } => Aim::AtMost(0.12),
        Proxy::Sluice { .. } | Proxy::Haproxy | Proxy::Nginx => Aim::AtMost(1.15),
    })?);
    let recorded = [Proxy::Sluice { rules: 1, records: true }, Proxy::Sluice { rules: 1, records: false }];
    let load = Load { id: "records", what: "HTTP/1 keep-alive, records on", ..KEPT };
    rows.extend(lab.compare(load, &recorded, |_| Aim::AtMost(1.10))?);
    rows.push(lab.idle_memory()?);
    Ok(rows)
}

/// The namespace, the server, and where files are.
struct Lab {
    netns: Netns,
    directory: tempfile::TempDir,
    _server: Process,
}

/// A process that ends with the lab.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Neither can fail for a child that was not waited for.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Lab {
    fn new() -> Result<Self> {
        let netns = Netns::new("http")?;
        let directory = tempfile::tempdir()?;
        let root = directory.path().join("www/a");
        fs::create_dir_all(&root)?;
        for (name, length) in [("small", 16), ("16k", 16 << 10), ("1m", 1 << 20)] {
            fs::write(root.join(name), vec![b'x'; length])?;
        }
        let config = peers::nginx(directory.path(), SERVER, SERVER_2);
        let file = directory.path().join("nginx.conf");
        fs::write(&file, config)?;
        let mut command = netns.command("nginx");
        command.arg("-c").arg(&file).arg("-e").arg(directory.path().join("nginx.log"));
        let server = start(&mut command, "nginx")?;
        let lab = Self { netns, directory, _server: server };
        lab.wait_for(SERVER)?;
        Ok(lab)
    }

    fn compare(&self, load: Load, proxies: &[Proxy], aim: impl Fn(Proxy) -> Aim) -> Result<Vec<Row>> {
        let mut running = Vec::new();
        for (nth, proxy) in (0_u16..).zip(proxies) {
            let port = 10_000 + nth;
            running.push((self.start(*proxy, port, load.http2)?, port));
        }
        let scores = interleave(proxies.len(), ROUNDS, |nth| {
            let (process, port) = running.get(nth).context("no such proxy")?;
            self.cost(load, process, *port)
        })?;
        let mut rows = Vec::new();
        for (nth, proxy) in proxies.iter().enumerate().skip(1) {
            let (ratio, spread) = scores.ratio(0, nth);
            rows.push(Row {
                id: format!("http-{}/{}", load.id, proxy.name().replace([' ', ','], "-")),
                what: load.what.to_owned(),
                against: proxy.name(),
                ratio,
                spread,
                aim: aim(*proxy),
                note: format!("{:.1} to {:.1} µs of CPU", scores.median(0) / 1e3, scores.median(nth) / 1e3),
            });
        }
        warn_if_noisy(load.what, &scores);
        Ok(rows)
    }

    /// Nanoseconds of CPU for each request.
    fn cost(&self, load: Load, process: &Process, port: u16) -> Result<f64> {
        let before = cpu(process.0.id())?;
        let requests = if load.http2 { self.h2load(load, port)? } else { self.wrk(load, port)? };
        let spent = cpu(process.0.id())? - before;
        Ok(spent / requests)
    }

    fn wrk(&self, load: Load, port: u16) -> Result<f64> {
        let mut command = self.netns.command("wrk");
        command.args(["-t1", &format!("-d{SECONDS}s")]).args(load.arguments);
        let text = output(command.arg(format!("http://127.0.0.1:{port}{}", load.path)))?;
        let is_wrong = text.contains("Socket errors") && load.id != "connection";
        let refused = text.contains("Non-2xx");
        ensure!(!is_wrong && refused == (load.id == "denied"), "wrk says of port {port}: {text}");
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.windows(2).position(|pair| pair == ["requests", "in"]);
        let count = at.and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok());
        count.with_context(|| format!("no count of requests in {text}"))
    }

    fn h2load(&self, load: Load, port: u16) -> Result<f64> {
        let mut command = self.netns.command("h2load");
        command.args(["-t1", "-p", "h2c"]).args(load.arguments);
        let text = output(command.arg(format!("http://127.0.0.1:{port}{}", load.path)))?;
        let line = text.lines().find(|line| line.starts_with("status codes:")).unwrap_or_default();
        let count = line.split_whitespace().nth(2).and_then(|count| count.parse::<f64>().ok());
        let count = count.filter(|count| *count > 0.0);
        count.with_context(|| format!("no answers with 2xx in {text}"))
    }

    fn start(&self, proxy: Proxy, port: u16, http2: bool) -> Result<Process> {
        self.start_before(proxy, port, if http2 { SERVER_2 } else { SERVER }, http2)
    }

    /// Starts a proxy that sends what passes to the port `server`.
    fn start_before(&self, proxy: Proxy, port: u16, server: u16, http2: bool) -> Result<Process> {
        let mut command = match proxy {
            Proxy::Sluice { rules, records } => {
                let own = std::env::current_exe()?;
                let mut command = self.netns.command(&own.display().to_string());
                command.args(["http-proxy", &port.to_string(), &server.to_string(), &rules.to_string()]);
                command.arg(if records { "records" } else { "quiet" });
                command
            }
            Proxy::Envoy { rules } => {
                let file = self.directory.path().join(format!("envoy-{port}-{http2}.json"));
                fs::write(&file, peers::envoy(port, server, rules, http2).to_string())?;
                let program = peers::envoy_program()?;
                let mut command = self.netns.command(&program.display().to_string());
                command.args(["--concurrency", "1", "--base-id", &port.to_string(), "-l", "error", "-c"]);
                command.arg(&file);
                command
            }
            Proxy::Haproxy => {
                let file = self.directory.path().join(format!("haproxy-{port}-{http2}.cfg"));
                fs::write(&file, peers::haproxy(port, server, http2))?;
                let mut command = self.netns.command("haproxy");
                command.arg("-q").arg("-f").arg(&file);
                command
            }
            Proxy::Nginx => {
                let root = self.directory.path();
                let file = root.join(format!("nginx-{port}.conf"));
                fs::write(&file, peers::nginx_proxy(root, port, server))?;
                let mut command = self.netns.command("nginx");
                command.arg("-c").arg(&file).arg("-e").arg(root.join("nginx.log"));
                command
            }
        };
        let process = start(&mut command, &proxy.name())?;
        self.wait_for(port)?;
        Ok(process)
    }

    fn wait_for(&self, port: u16) -> Result<()> {
        for _ in 0..400 {
            let connected = self.netns.enter(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
            if connected {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        bail!("nobody listens on port {port}")
    }

    /// Bytes of the proxy for each pair of connections that does nothing.
    fn idle_memory(&self) -> Result<Row> {
        const PAIRS: usize = 2_000;
        let port = 10_010;
        let process = self.start(Proxy::Sluice { rules: 1, records: true }, port, false)?;
        let open = |count: usize| {
            self.netns.enter(|| -> Result<Vec<std::net::TcpStream>> {
                use std::io::{Read, Write};
                let mut streams = Vec::new();
                for _ in 0..count {
                    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
                    stream.write_all(b"GET /a/small HTTP/1.1\r\nHost: a\r\n\r\n")?;
                    let mut answer = [0; 1024];
                    ensure!(stream.read(&mut answer)? > 0, "no answer");
                    streams.push(stream);
                }
                Ok(streams)
            })?
        };
        let _warm = open(50)?;
        let before = resident(process.0.id())?;
        let _idle = open(PAIRS)?;
        let each = (resident(process.0.id())? - before) / PAIRS as f64;
        Ok(Row {
            id: "http-idle-memory".to_owned(),
            what: "memory of an idle pair of connections".to_owned(),
            against: "4 KiB".to_owned(),
            ratio: each / 4096.0,
            spread: (each / 4096.0, each / 4096.0),
            aim: Aim::AtMost(1.0),
            note: format!("{each:.0} bytes, of {PAIRS} pairs"),
        })
    }
}

fn start(command: &mut Command, name: &str) -> Result<Process> {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Process(quiet.spawn().with_context(|| format!("start {name}"))?))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("start the load")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Nanoseconds on a CPU of all threads of a process (`/proc/PID/task/*/schedstat`).
fn cpu(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).context("schedstat")?;
    }
    Ok(sum)
}

/// Bytes of memory that a process uses.
fn resident(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).context("statm")?;
    Ok(pages * 4096.0)
}
