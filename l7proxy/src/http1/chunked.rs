//! Chunked bodies (RFC 9112, section 7.1), followed byte by byte without being copied.
//!
//! What was checked may be forwarded as it came. Only the trailer is held back until it is whole, because a field in it
//! may be one that no trailer may have.

/// How many digits a size may have; more are zeros or too much.
const DIGITS_MAX: u32 = 16;
/// How many bytes a chunk's extensions may have.
const EXTENSION_MAX: usize = 256;
/// How many bytes a trailer may have.
const TRAILER_MAX: usize = 8 * 1024;
/// How many fields a trailer may have.
const FIELDS_MAX: usize = 32;
/// Fields that say how a message is framed, routed or who sent it: they count in heads only (RFC 9110, section 6.5.1).
const NEVER_IN_TRAILERS: [&str; 14] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a chunked body is not read further. Its connection ends with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChunkError {
    /// No hexadecimal number, or one of 2⁶⁴ and more.
    #[error("a chunk without a size")]
    Size,
    /// Extensions that are too long, or with characters that they cannot have.
    #[error("an extension of a chunk")]
    Extension,
    /// CR or LF by itself, or not where the chunk ends.
    #[error("a chunk that does not end in CRLF")]
    LineEnd,
    /// A trailer that is too long, or no list of fields.
    #[error("a malformed trailer")]
    Trailer,
    /// A field that no trailer may have.
    #[error("a field that may not be in a trailer")]
    Forbidden,
}

/// What became of some bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// So many of them belong to the body.
    pub consumed: usize,
    /// So many of those may be forwarded; the others are the trailer's.
    pub forward: usize,
}

/// A chunked body while it comes.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    digits: u32,
    extension: usize,
    trailer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Start,
    /// Behind a digit.
    Size(u64),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataEndLf,
    Trailer,
    Done,
}

impl Chunked {
    /// Takes the next bytes of the connection, as many of them as belong to the body.
    ///
    /// # Errors
    /// It is no chunked body; nothing more of it may be forwarded.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Progress, ChunkError> {
        let mut progress = Progress::default();
        while let Some(rest) = bytes.get(progress.consumed..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Done {
                break;
            }
            let is_trailer = self.state == State::Trailer;
            let taken = self.step(rest)?;
            progress.consumed += taken;
            if !is_trailer {
                progress.forward = progress.consumed;
            }
        }
        Ok(progress)
    }

    /// Whether the body has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer with the empty line behind it, to be forwarded when the body has ended.
    #[must_use]
    pub fn trailer(&self) -> &[u8] {
        if self.is_done() { &self.trailer } else { &[] }
    }

    /// Takes one byte, or a whole run of data. Says how many.
    fn step(&mut self, rest: &[u8]) -> Result<usize, ChunkError> {
        let byte = rest.first().copied().unwrap_or_default();
        self.state = match self.state {
            State::Start => {
                self.digits = 1;
                State::Size(digit(byte).ok_or(ChunkError::Size)?)
            }
            State::Size(size) => self.size(size, byte)?,
            State::Extension(size) => self.in_extension(size, byte)?,
            State::SizeEnd(_) | State::DataEnd | State::DataEndLf => self.line_end(byte)?,
            State::Data(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let left = left.saturating_sub(taken as u64);
                self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                return Ok(taken);
            }
            State::Trailer => return self.in_trailer(byte),
            State::Done => return Ok(0),
        };
        Ok(1)
    }

    fn size(&mut self, size: u64, byte: u8) -> Result<State, ChunkError> {
        match byte {
            b'\r' => Ok(State::SizeEnd(size)),
            b';' => {
                self.extension = 0;
                Ok(State::Extension(size))
            }
            _ => {
                self.digits += 1;
                let digit = digit(byte).filter(|_| self.digits <= DIGITS_MAX).ok_or(ChunkError::Size)?;
                Ok(State::Size(size << 4 | digit))
            }
        }
    }

    /// Extensions are passed on unread: nobody decides by them.
    fn in_extension(&mut self, size: u64, byte: u8) -> Result<State, ChunkError> {
        self.extension += 1;
        match byte {
            b'\r' => Ok(State::SizeEnd(size)),
            b'\n' => Err(ChunkError::LineEnd),
            b'\t' | b' '..=b'~' if self.extension <= EXTENSION_MAX => Ok(State::Extension(size)),
            _ => Err(ChunkError::Extension),
        }
    }

    fn line_end(&self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::SizeEnd(0), b'\n') => Ok(State::Trailer),
            (State::SizeEnd(size), b'\n') => Ok(State::Data(size)),
            (State::DataEnd, b'\r') => Ok(State::DataEndLf),
            (State::DataEndLf, b'\n') => Ok(State::Start),
            _ => Err(ChunkError::LineEnd),
        }
    }

    fn in_trailer(&mut self, byte: u8) -> Result<usize, ChunkError> {
        let before = self.trailer.last().copied();
        if (byte == b'\n') != (before == Some(b'\r')) {
            return Err(ChunkError::LineEnd);
        }
        let starts_line = matches!(before, None | Some(b'\n'));
        if starts_line && matches!(byte, b' ' | b'\t') || self.trailer.len() >= TRAILER_MAX {
            return Err(ChunkError::Trailer);
        }
        self.trailer.push(byte);
        if self.trailer == b"\r\n" || self.trailer.ends_with(b"\r\n\r\n") {
            check_fields(&self.trailer)?;
            self.state = State::Done;
        }
        Ok(1)
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// Whether a field of this name counts in heads only.
pub(crate) fn is_never_in_trailers(name: &str) -> bool {
    NEVER_IN_TRAILERS.iter().any(|never| name.eq_ignore_ascii_case(never))
}

fn check_fields(trailer: &[u8]) -> Result<(), ChunkError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    match httparse::parse_headers(trailer, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => {
            let has_forbidden = fields.iter().any(|field| is_never_in_trailers(field.name));
            if has_forbidden { Err(ChunkError::Forbidden) } else { Ok(()) }
        }
        Ok(httparse::Status::Partial) | Err(_) => Err(ChunkError::Trailer),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that is forwarded of a body that comes in these pieces, and how many bytes belonged to it.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), ChunkError> {
        let (mut body, mut forwarded, mut consumed) = (Chunked::default(), Vec::new(), 0);
        for piece in pieces {
            let progress = body.advance(piece)?;
            forwarded.extend(&piece[..progress.forward]);
            consumed += progress.consumed;
        }
        forwarded.extend(body.trailer());
        Ok((forwarded, consumed, body.is_done()))
    }

    #[test]
    fn bodies_are_forwarded_as_they_came() {
        let bodies = [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "1\r\na\r\nA\r\n0123456789\r\n00\r\n\r\n",
            "5;name=value;x=\"y z\"\r\nhello\r\n0;last\r\n\r\n",
            "2\r\n\r\n\r\n0\r\nX-Checksum: 1\r\nOther:\r\n\r\n",
        ];
        for body in bodies {
            let with_more = format!("{body}GET / HTTP/1.1\r\n");
            let wanted = (body.as_bytes().to_vec(), body.len(), true);
            assert_eq!(read(&[with_more.as_bytes()]), Ok(wanted.clone()), "{body:?}");
            for at in 0..=body.len() {
                let (first, second) = with_more.as_bytes().split_at(at);
                assert_eq!(read(&[first, second]), Ok(wanted.clone()), "{body:?} split at {at}");
            }
            let bytes: Vec<&[u8]> = with_more.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes), Ok(wanted), "{body:?} byte by byte");
        }
    }

    fn start(text: &str) -> &str {
        text.get(..80).unwrap_or(text)
    }

    #[test]
    fn what_is_read_in_two_ways_is_refused() {
        let long = format!("1;{}\r\n", "x".repeat(300));
        let trailer = format!("0\r\nX: {}\r\n\r\n", "y".repeat(9_000));
        let cases = [
            ("\r\n", ChunkError::Size),
            ("x\r\n", ChunkError::Size),
            ("0x1\r\n", ChunkError::Size),
            ("-1\r\n", ChunkError::Size),
            (" 1\r\n", ChunkError::Size),
            ("1 \r\n", ChunkError::Size),
            ("1\na", ChunkError::Size),
            ("10000000000000000\r\n", ChunkError::Size),
            ("00000000000000001\r\n", ChunkError::Size),
            ("1\ra", ChunkError::LineEnd),
            ("1;x\ny\r\n", ChunkError::LineEnd),
            ("1;x\0\r\n", ChunkError::Extension),
            (&long, ChunkError::Extension),
            ("1\r\nab", ChunkError::LineEnd),
            ("1\r\na\n", ChunkError::LineEnd),
            ("1\r\na\rb", ChunkError::LineEnd),
            ("0\r\nX: y\n\r\n", ChunkError::LineEnd),
            ("0\r\nX: y\rz\r\n\r\n", ChunkError::LineEnd),
            ("0\r\n X: y\r\n\r\n", ChunkError::Trailer),
            ("0\r\nX y\r\n\r\n", ChunkError::Trailer),
            (&trailer, ChunkError::Trailer),
            ("0\r\nContent-Length: 5\r\n\r\n", ChunkError::Forbidden),
            ("0\r\nX: y\r\ntransfer-encoding: chunked\r\n\r\n", ChunkError::Forbidden),
            ("0\r\nHost: other\r\n\r\n", ChunkError::Forbidden),
        ];
        for (body, wanted) in cases {
            assert_eq!(read(&[body.as_bytes()]), Err(wanted), "{:?}", start(body));
            let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes), Err(wanted), "{:?} byte by byte", start(body));
        }
    }

    /// A trailer that is refused in the end has not been forwarded before.
    #[test]
    fn nothing_of_a_trailer_goes_on_before_it_is_whole() {
        let mut body = Chunked::default();
        let progress = body.advance(b"0\r\nX: y\r\nHost: o").unwrap();
        assert_eq!((progress.consumed, progress.forward), (16, 3));
        assert!(body.trailer().is_empty() && !body.is_done());
        assert_eq!(body.advance(b"ther\r\n\r\n"), Err(ChunkError::Forbidden));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            parts in proptest::collection::vec(
                prop::sample::select(vec!["0", "1", "2", "a", "\r\n", "\r", "\n", ";x", "X: y", "Host: a", " ", "\r\n\r\n"]),
                0..12,
            ),
            at in 0..30usize,
        ) {
            let text = parts.concat();
            let (first, second) = text.as_bytes().split_at(at.min(text.len()));
            prop_assert_eq!(read(&[text.as_bytes()]), read(&[first, second]));
        }
    }
}
