//! What can go wrong for a command, with its exit code and what to do next.

use sluice_client::ClientError;

/// The exit codes, as `--help` and `docs/cli.md` state them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// Something failed.
    Error,
    /// The command line makes no sense.
    Usage,
    /// Nobody listens on the agent's socket.
    NotRunning,
    /// A manifest or a value is not valid.
    Invalid,
    /// What was asked for does not exist.
    NotFound,
    /// The command that was run in a pod ended with this code.
    Command(u8),
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Error => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::Invalid => 4,
            Self::NotFound => 5,
            Self::Command(code) => code,
        }
    }
}

/// A command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What failed, on what, and why. Empty when everything was said already.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The exit code.
    pub(crate) exit: Exit,
    closed_pipe: bool,
}

impl Failure {
    /// A failure with this exit code.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit, closed_pipe: false }
    }

    /// Something failed.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, message)
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A manifest or value is not valid.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Exit::Invalid, message)
    }

    /// What was asked for does not exist.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    /// The same with advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub(crate) fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Whether the reader of our output has gone away, which is not worth a word.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.closed_pipe
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Writing our own output is the only input/output whose errors arrive without words; everything else uses [`io`].
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let closed_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { closed_pipe, ..Self::error(format!("writing the output failed: {error}")) }
    }
}

/// For `map_err`: says what was being done.
pub(crate) fn io<E: std::fmt::Display>(doing: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let doing = doing.into();
    move |error| Failure::error(format!("{doing} failed: {error}"))
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connect { socket, source } => unreachable_agent(&socket, &source),
            ClientError::Io { operation, source } => Self::error(format!(
                "talking to the agent failed: {operation}: {source}"
            ))
            .hint("Is the agent alive? `sluice status` tries again; its log says what it is busy with."),
            ClientError::Protocol(_) => Self::error(error.to_string())
                .hint("Do `sluice --version` and `sluice-agent --version` say the same?"),
            ClientError::Api(answer) => {
                let exit = match answer.code.as_str() {
                    "not-found" => Exit::NotFound,
                    "invalid" => Exit::Invalid,
                    _ => Exit::Error,
                };
                Self::new(exit, answer.message)
            }
        }
    }
}

fn unreachable_agent(socket: &std::path::Path, source: &std::io::Error) -> Failure {
    let socket = socket.display();
    if source.kind() == std::io::ErrorKind::PermissionDenied {
        return Failure::error(format!("you may not talk to the agent at {socket}"))
            .hint("Its socket belongs to root: run this as root.");
    }
    let message = if source.kind() == std::io::ErrorKind::NotFound {
        format!("the agent is not running: there is no socket {socket}")
    } else {
        format!("the agent is not running: cannot connect to {socket}: {source}")
    };
    Failure::new(Exit::NotRunning, message).hint(
        "Start a node with `sluice up DIR`, or say where the agent listens: --socket PATH or --node NAME.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_client::ApiError;

    #[test]
    fn exit_codes() {
        let connect =
            |kind: std::io::ErrorKind| ClientError::Connect { socket: "/s".into(), source: kind.into() };
        let api = |code: &str| {
            ClientError::from(ApiError { status: 400, code: code.to_owned(), message: "no".to_owned() })
        };
        let cases = [
            (connect(std::io::ErrorKind::NotFound), 3),
            (connect(std::io::ErrorKind::ConnectionRefused), 3),
            (connect(std::io::ErrorKind::PermissionDenied), 1),
            (api("not-found"), 5),
            (api("invalid"), 4),
            (api("conflict"), 1),
            (ClientError::Protocol("x".to_owned()), 1),
        ];
        for (error, want) in cases {
            let shown = error.to_string();
            assert_eq!(Failure::from(error).exit.code(), want, "{shown}");
        }
        assert!(Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).is_closed_pipe());
    }
}
