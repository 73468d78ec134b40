//! One request per connection over the unix socket.
//!
//! Requests are HTTP/1.0, so the server never answers in chunks and an answer ends where the connection does.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::model::ErrorBody;
use crate::{ApiError, ClientError};

/// Longest answer that is read into memory.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 32;

/// A blocking client of one agent. Cheap to make: it connects for each call.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the agent behind `socket`; each read and write waits at most `timeout`.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self { socket: socket.into(), timeout }
    }

    /// The socket it connects to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`, the answer decoded from JSON.
    ///
    /// # Errors
    /// [`ClientError`]: unreachable, refused, or not understood.
    pub fn fetch<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call("GET", path, None)
    }

    /// `GET path`, the answer as it is.
    ///
    /// # Errors
    /// [`ClientError`]: unreachable, refused, or no text.
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.body("GET", path, None)?;
        String::from_utf8(body).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// `method path` with `body` as JSON, the answer decoded from JSON.
    ///
    /// # Errors
    /// [`ClientError`]: unreachable, refused, or not understood.
    pub fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.call(method, path, Some(&body))
    }

    /// `DELETE path`. The answer's body does not matter.
    ///
    /// # Errors
    /// [`ClientError`]: unreachable or refused.
    pub fn delete(&self, path: &str) -> Result<(), ClientError> {
        let answer = self.request("DELETE", path, None)?;
        let mut body = answer.body;
        read_all(&mut body).and_then(|body| check(answer.status, &body))
    }

    /// `GET path`, the answer as a stream of JSON lines that ends when the agent or the reader stops.
    ///
    /// # Errors
    /// [`ClientError`]: unreachable or refused.
    pub fn stream<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let mut answer = self.request("GET", path, None)?;
        if answer.status >= 300 {
            let body = read_all(&mut answer.body)?;
            check(answer.status, &body)?;
        }
        answer.body.get_ref().set_read_timeout(None).map_err(|source| io("waiting for events", source))?;
        Ok(Lines { reader: answer.body, line: String::new(), decode: std::marker::PhantomData })
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<T, ClientError> {
        let body = self.body(method, path, body)?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    fn body(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Vec<u8>, ClientError> {
        let mut answer = self.request(method, path, body)?;
        let body = read_all(&mut answer.body)?;
        check(answer.status, &body)?;
        Ok(body)
    }

    fn request(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, ClientError> {
        let mut stream = self.connect()?;
        let body = body.unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: sluice\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).map_err(|source| io("sending the request", source))?;
        stream.write_all(body).map_err(|source| io("sending the request's body", source))?;
        let mut reader = BufReader::new(stream);
        let status = read_head(&mut reader)?;
        Ok(Answer { status, body: reader })
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        stream.set_read_timeout(Some(self.timeout)).map_err(|source| io("setting a time limit", source))?;
        stream.set_write_timeout(Some(self.timeout)).map_err(|source| io("setting a time limit", source))?;
        Ok(stream)
    }
}

struct Answer {
    status: u16,
    body: BufReader<UnixStream>,
}

fn io(operation: &'static str, source: std::io::Error) -> ClientError {
    ClientError::Io { operation, source }
}

fn read_head(reader: &mut BufReader<UnixStream>) -> Result<u16, ClientError> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        reader
            .by_ref()
            .take((HEAD_BYTES_MAX - before) as u64)
            .read_until(b'\n', &mut head)
            .map_err(|source| io("reading the answer", source))?;
        if head.len() == before {
            return Err(ClientError::Protocol("the answer ends before its head does".to_owned()));
        }
        if head.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&head) {
        Ok(httparse::Status::Complete(_)) => {
            response.code.ok_or_else(|| ClientError::Protocol("no status".to_owned()))
        }
        Ok(httparse::Status::Partial) => Err(ClientError::Protocol("the head is cut off".to_owned())),
        Err(error) => Err(ClientError::Protocol(error.to_string())),
    }
}

fn read_all(reader: &mut BufReader<UnixStream>) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    reader
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut body)
        .map_err(|source| io("reading the answer", source))?;
    Ok(body)
}

fn check(status: u16, body: &[u8]) -> Result<(), ClientError> {
    if status < 300 {
        return Ok(());
    }
    let error = serde_json::from_slice::<ErrorBody>(body).unwrap_or_else(|_| ErrorBody {
        message: format!("the agent answered {status}: {}", String::from_utf8_lossy(body).trim()),
        code: "internal".to_owned(),
    });
    Err(ApiError { status, code: error.code, message: error.message }.into())
}

/// JSON lines as they come.
#[derive(Debug)]
pub struct Lines<T> {
    reader: BufReader<UnixStream>,
    line: String,
    decode: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for Lines<T> {
    type Item = Result<T, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line.clear();
        match self.reader.read_line(&mut self.line) {
            Ok(0) => None,
            Ok(_) => Some(
                serde_json::from_str(&self.line).map_err(|error| ClientError::Protocol(error.to_string())),
            ),
            Err(source) => Some(Err(io("waiting for events", source))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Answers one connection with `answer` and returns what the client makes of it.
    fn check_answer(answer: &'static str) -> Result<serde_json::Value, ClientError> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let result = Client::new(&socket, Duration::from_secs(5)).fetch("/v1/status");
        server.join().unwrap();
        result
    }

    #[test]
    fn answers() {
        let ok = check_answer("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"a\": 1}").unwrap();
        assert_eq!(ok["a"], 1);

        let refused = check_answer(
            "HTTP/1.1 409 Conflict\r\n\r\n{\"message\": \"the address is taken\", \"code\": \"conflict\"}",
        );
        assert!(
            matches!(refused, Err(ClientError::Api(error)) if error.status == 409 && error.code == "conflict")
        );

        let plain = check_answer("HTTP/1.1 500 Internal Server Error\r\n\r\nboom");
        assert_eq!(plain.unwrap_err().to_string(), "the agent answered 500: boom");

        for broken in ["", "HTTP/1.1 200", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nnot json"] {
            assert!(matches!(check_answer(broken), Err(ClientError::Protocol(_))), "{broken:?}");
        }
    }

    #[test]
    fn nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let error = Client::new(dir.path().join("none"), Duration::from_secs(1)).delete("/").unwrap_err();
        assert!(error.is_unreachable());
    }
}
