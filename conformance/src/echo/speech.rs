//! What a stream speaks: bare messages, or as much of HTTP/1 and HTTP/2 as it takes to echo the body of a request.

use super::MESSAGE_LEN;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, which stands in the table that everybody has (RFC 7541, appendix A).
const STATUS_200: [u8; 1] = [0x88];

/// What a stream speaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speech {
    Messages,
    Http1,
    Http2,
}

impl Speech {
    /// Understood from the first bytes: a message begins with zeros, for tokens are small. None if there are too few.
    pub(super) fn recognise(read: &[u8]) -> Option<Self> {
        match read {
            [] => None,
            [0, ..] => Some(Self::Messages),
            read if read.starts_with(PREFACE) => Some(Self::Http2),
            read if PREFACE.starts_with(read) => None,
            _ => Some(Self::Http1),
        }
    }

    /// What must be said before anything is asked.
    pub(super) fn greeting(self) -> Vec<u8> {
        match self {
            Self::Messages | Self::Http1 => Vec::new(),
            Self::Http2 => frame(SETTINGS, 0, &[0; 4], &[]),
        }
    }

    /// The length of the next whole thing that was said, and the answer; `echo` knows what is in answer to a question.
    pub(super) fn answer(self, read: &[u8], echo: impl FnOnce(&[u8]) -> Vec<u8>) -> Option<(usize, Vec<u8>)> {
        match self {
            Self::Messages => Some((MESSAGE_LEN, echo(read.get(..MESSAGE_LEN)?))),
            Self::Http1 => http1(read, echo),
            Self::Http2 if read.starts_with(PREFACE) => Some((PREFACE.len(), Vec::new())),
            Self::Http2 => http2(read, echo),
        }
    }
}

/// A request of HTTP/1: its length and the answer.
fn http1(read: &[u8], echo: impl FnOnce(&[u8]) -> Vec<u8>) -> Option<(usize, Vec<u8>)> {
    let head_len = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(read.get(..head_len)?).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let end = head_len + length.unwrap_or(0);
    let body = echo(read.get(head_len..end)?);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    Some((end, [head.as_bytes(), &body].concat()))
}

/// A frame of HTTP/2: its length and the answer. A question is whole in one frame; what else is in a request is not
/// looked at.
fn http2(read: &[u8], echo: impl FnOnce(&[u8]) -> Vec<u8>) -> Option<(usize, Vec<u8>)> {
    let ([high, middle, low, kind, flags, stream @ ..], rest) = read.split_first_chunk::<9>()?;
    let length = usize::try_from(u32::from_be_bytes([0, *high, *middle, *low])).ok()?;
    let payload = rest.get(..length)?;
    let answer = match *kind {
        SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, stream, &[]),
        PING if flags & ACK == 0 => frame(PING, ACK, stream, payload),
        DATA if length == MESSAGE_LEN => {
            let head = frame(HEADERS, END_HEADERS, stream, &STATUS_200);
            [head, frame(DATA, END_STREAM, stream, &echo(payload))].concat()
        }
        _ => Vec::new(),
    };
    Some((9 + length, answer))
}

fn frame(kind: u8, flags: u8, stream: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    [length.get(1..).unwrap_or_default(), &[kind, flags], stream, payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(said: &[&[u8]]) -> Vec<u8> {
        let (mut read, mut told, mut speech) = (Vec::new(), Vec::new(), None);
        for said in said {
            read.extend(*said);
            if speech.is_none() {
                speech = Speech::recognise(&read);
                told.extend(speech.map(Speech::greeting).unwrap_or_default());
            }
            let Some(speech) = speech else { continue };
            while let Some((length, answer)) = speech.answer(&read, |body| body.to_ascii_uppercase()) {
                drop(read.drain(..length));
                told.extend(answer);
            }
        }
        told
    }

    #[test]
    fn requests_are_echoed_however_they_come() {
        let question = [&[0; 8], b"abcdefghijklmnopqrstuvwx".as_slice()].concat();
        let echoed = question.to_ascii_uppercase();
        assert_eq!(conversation(&[&question[..5], &question[5..], &question]), echoed.repeat(2));

        let request = [b"PUT /a HTTP/1.1\r\nContent-length: 32\r\n\r\n".as_slice(), &question].concat();
        let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n".as_slice(), &echoed].concat();
        assert_eq!(
            conversation(&[&request[..9], &request[9..60], &request[60..], &request]),
            answer.repeat(2)
        );

        let asked =
            [PREFACE, &frame(SETTINGS, 0, &[0; 4], &[]), &frame(DATA, END_STREAM, &[0, 0, 0, 1], &question)];
        let answers = [
            frame(SETTINGS, 0, &[0; 4], &[]),
            frame(SETTINGS, ACK, &[0; 4], &[]),
            frame(HEADERS, END_HEADERS, &[0, 0, 0, 1], &STATUS_200),
            frame(DATA, END_STREAM, &[0, 0, 0, 1], &echoed),
        ];
        assert_eq!(conversation(&[&asked.concat()]), answers.concat());
        let pieces: Vec<[u8; 1]> = asked.concat().iter().map(|byte| [*byte]).collect();
        let pieces: Vec<&[u8]> = pieces.iter().map(<[u8; 1]>::as_slice).collect();
        assert_eq!(conversation(&pieces), answers.concat());
    }
}
