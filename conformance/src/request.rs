//! Requests as questions: what is asked stands in the body, a real client asks, and the target echoes the body.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::agent::spawn_in;
use crate::clock;
use crate::echo::{MESSAGE_LEN, message, read_message};
use crate::netns::Netns;
use crate::probe::{Answer, Outcome, Question, new_token};

/// The first port of askers: below those that the kernel chooses, above those that are served.
const PORTS_START: u16 = 20_000;
/// What curl ends with when time is up, when nobody listens, and when there is no way to the target.
const CURL_TIMEOUT: i32 = 28;
const CURL_REFUSED: i32 = 7;

/// What is asked beside the question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// HTTP/1.1.
    Http {
        /// Method.
        method: String,
        /// Path, as it is sent.
        path: String,
        /// `Host`; the target's address if none.
        host: Option<String>,
        /// Headers.
        headers: Vec<(String, String)>,
    },
    /// A call of gRPC, over HTTP/2 with prior knowledge.
    Grpc {
        /// `package.Service`.
        service: String,
        /// Its method.
        method: String,
    },
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { method, path, host, headers } => {
                write!(f, "{method} {path}")?;
                host.iter().try_for_each(|host| write!(f, " Host: {host}"))?;
                headers.iter().try_for_each(|(name, value)| write!(f, " {name}: {value}"))
            }
            Self::Grpc { service, method } => write!(f, "call {service}/{method}"),
        }
    }
}

/// Asks all at once from the namespace; outcomes are in the order of the questions.
///
/// # Errors
/// There is no curl, or the namespace cannot be entered.
pub fn ask(netns: &Netns, questions: &[(&Question, &Request)]) -> Result<Vec<Outcome>> {
    let asked: Vec<Asked> = questions
        .iter()
        .map(|(question, request)| Asked::start(netns, question, request))
        .collect::<Result<_>>()?;
    asked.into_iter().map(Asked::finish).collect()
}

/// A question on its way.
struct Asked {
    curl: Child,
    token: u64,
    local: SocketAddr,
    is_call: bool,
    started: Instant,
}

impl Asked {
    fn start(netns: &Netns, question: &Question, request: &Request) -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let port = PORTS_START + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        let source = match question.source {
            Some(source) => source,
            None => netns.run(|| source_to(question.target))?,
        };
        let (token, local) = (new_token(), SocketAddr::new(source, port));
        let mut command = curl(question, request, local);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut curl = spawn_in(&mut command, netns, false)?;
        if let Some(mut stdin) = curl.stdin.take() {
            // It fits into the pipe; a program that does not read it says why by itself.
            let _unread = std::io::Write::write_all(&mut stdin, &message(token, MESSAGE_LEN));
        }
        let is_call = matches!(request, Request::Grpc { .. });
        Ok(Self { curl, token, local, is_call, started: clock::now() })
    }

    fn finish(self) -> Result<Outcome> {
        let output = self.curl.wait_with_output().context("waiting for curl")?;
        let took = clock::now().saturating_duration_since(self.started);
        let answer = answer(&output, self.token, self.is_call);
        Ok(Outcome { answer, token: self.token, local: Some(self.local), took })
    }
}

/// The address that the kernel chooses for this target.
fn source_to(target: IpAddr) -> Result<IpAddr> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("opening a socket")?;
    socket.connect((target, 1)).with_context(|| format!("no way to {target}"))?;
    Ok(socket.local_addr()?.ip())
}

/// The client, told to send nothing of its own accord that a rule could look at.
fn curl(question: &Question, request: &Request, local: SocketAddr) -> Command {
    let place = SocketAddr::new(question.target, question.port);
    let mut command = Command::new("curl");
    command
        .args(["--disable", "--silent", "--noproxy", "*", "--globoff", "--path-as-is", "--data-binary", "@-"])
        .args(["--header", "Accept:", "--header", "User-Agent:", "--header", "Expect:"])
        .args(["--write-out", "%{stderr}%{http_code} %header{grpc-status}"])
        .arg("--max-time")
        .arg(question.patience.as_secs_f64().to_string())
        .arg("--interface")
        .arg(local.ip().to_string())
        .arg("--local-port")
        .arg(local.port().to_string());
    match request {
        Request::Http { method, path, host, headers } => {
            command.args(["--http1.1", "--request", method, "--request-target", path]);
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                command.args(["--header", "Content-Type:"]);
            }
            let host = host.iter().map(|host| ("Host", host));
            for (name, value) in headers.iter().map(|(name, value)| (name.as_str(), value)).chain(host) {
                command.arg("--header").arg(format!("{name}: {value}"));
            }
            command.arg(format!("http://{place}/"));
        }
        Request::Grpc { service, method } => {
            command.args(["--http2-prior-knowledge", "--header", "Content-Type: application/grpc"]);
            command.args(["--header", "TE: trailers"]).arg(format!("http://{place}/{service}/{method}"));
        }
    }
    command
}

/// What came of it.
fn answer(output: &Output, token: u64, is_call: bool) -> Answer {
    let told = String::from_utf8_lossy(&output.stderr);
    let refusal = if is_call { "200 7" } else { "403" };
    match (output.status.code(), read_message(&output.stdout)) {
        (Some(0), Some((heard, seen))) if heard == token => Answer::Echoed(Some(seen)),
        (Some(0), _) if told.trim() == refusal => Answer::Forbidden,
        (Some(CURL_TIMEOUT), None) => Answer::Silent,
        (Some(CURL_REFUSED), None) => Answer::Refused,
        (code, _) => {
            let body = String::from_utf8_lossy(&output.stdout);
            Answer::Failed(format!("curl ended with {code:?}, status {told}, and read {body:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn answers() {
        let output = |code: i32, stdout: &[u8], stderr: &str| Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: stdout.to_vec(),
            stderr: stderr.as_bytes().to_vec(),
        };
        let echo = message(7, MESSAGE_LEN);
        let denied = output(0, b"Access denied\r\n", "403 ");
        assert!(matches!(answer(&output(0, &echo, "200 "), 7, false), Answer::Echoed(_)));
        assert!(matches!(answer(&output(0, &echo, "200 "), 8, false), Answer::Failed(_)), "another's");
        assert_eq!(answer(&denied, 7, false), Answer::Forbidden);
        assert!(matches!(answer(&denied, 7, true), Answer::Failed(_)), "a call is refused in its own manner");
        assert_eq!(answer(&output(0, b"", "200 7"), 7, true), Answer::Forbidden);
        assert!(matches!(answer(&output(0, b"", "200 14"), 7, true), Answer::Failed(_)));
        assert_eq!(answer(&output(28, b"", "000 "), 7, false), Answer::Silent);
        assert_eq!(answer(&output(7, b"", "000 "), 7, false), Answer::Refused);
        assert!(matches!(answer(&output(0, b"", "503 "), 7, false), Answer::Failed(_)));
    }
}
