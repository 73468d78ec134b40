//! How long the body of a message is (RFC 9112, section 6.3).

/// How a body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyLength {
    /// After this many bytes; most requests have none.
    Exactly(u64),
    /// With a chunk of length 0.
    Chunked,
}

/// Why nobody can say how long the body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FramingError {
    /// Both lengths: one recipient would take the one, another the other.
    #[error("both Content-Length and Transfer-Encoding")]
    Both,
    /// More than one `Content-Length`, equal or not, or a list of them.
    #[error("more than one Content-Length")]
    SeveralLengths,
    /// A `Content-Length` that is not one decimal number below 2⁶³, which is where others stop counting.
    #[error("Content-Length is no number")]
    BadLength,
    /// Anything but the one word `chunked`.
    #[error("a Transfer-Encoding other than chunked")]
    OtherEncoding,
    /// `Transfer-Encoding` in a message of HTTP/1.0, which does not know it.
    #[error("Transfer-Encoding in HTTP/1.0")]
    TooOld,
    /// A length in a response that has no body (1xx).
    #[error("an interim response with a body")]
    Unexpected,
}

/// The length that the headers of a request say; without any there is no body.
pub(super) fn request_length<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    minor: u8,
) -> Result<BodyLength, FramingError> {
    Ok(message_length(headers, minor)?.unwrap_or(BodyLength::Exactly(0)))
}

/// The length that the headers of a message of HTTP/1.`minor` say, if they do. Names and values are without spaces
/// around them.
pub(super) fn message_length<'h>(
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
    minor: u8,
) -> Result<Option<BodyLength>, FramingError> {
    let (mut length, mut is_chunked) = (None, false);
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-length") {
            if length.is_some() || value.contains(&b',') {
                return Err(FramingError::SeveralLengths);
            }
            length = Some(number(value).ok_or(FramingError::BadLength)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if minor == 0 {
                return Err(FramingError::TooOld);
            }
            if is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(FramingError::OtherEncoding);
            }
            is_chunked = true;
        }
    }
    match (length, is_chunked) {
        (Some(_), true) => Err(FramingError::Both),
        (None, true) => Ok(Some(BodyLength::Chunked)),
        (length, false) => Ok(length.map(BodyLength::Exactly)),
    }
}

/// Digits alone: no sign, no space, not empty.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    u64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        const CL: &str = "Content-Length";
        const TE: &str = "transfer-encoding";
        type Case<'a> = (&'a [(&'a str, &'a str)], u8, Result<BodyLength, FramingError>);
        let cases: &[Case<'_>] = &[
            (&[], 1, Ok(BodyLength::Exactly(0))),
            (&[(CL, "0")], 1, Ok(BodyLength::Exactly(0))),
            (&[(CL, "5")], 0, Ok(BodyLength::Exactly(5))),
            (&[(CL, "9223372036854775807")], 1, Ok(BodyLength::Exactly(i64::MAX.unsigned_abs()))),
            (&[(CL, "9223372036854775808")], 1, Err(FramingError::BadLength)),
            (&[(CL, "18446744073709551618")], 1, Err(FramingError::BadLength)),
            (&[(CL, "+5")], 1, Err(FramingError::BadLength)),
            (&[(CL, "-1")], 1, Err(FramingError::BadLength)),
            (&[(CL, "0x5")], 1, Err(FramingError::BadLength)),
            (&[(CL, "5 ")], 1, Err(FramingError::BadLength)),
            (&[(CL, "")], 1, Err(FramingError::BadLength)),
            (&[(CL, "2"), (CL, "2")], 1, Err(FramingError::SeveralLengths)),
            (&[(CL, "2, 2")], 1, Err(FramingError::SeveralLengths)),
            (&[(TE, "chunked")], 1, Ok(BodyLength::Chunked)),
            (&[(TE, "Chunked")], 1, Ok(BodyLength::Chunked)),
            (&[(TE, "chunked"), (TE, "chunked")], 1, Err(FramingError::OtherEncoding)),
            (&[(TE, "identity, chunked")], 1, Err(FramingError::OtherEncoding)),
            (&[(TE, "identity")], 1, Err(FramingError::OtherEncoding)),
            (&[(TE, "gzip, chunked")], 1, Err(FramingError::OtherEncoding)),
            (&[(TE, "xchunked")], 1, Err(FramingError::OtherEncoding)),
            (&[(TE, "")], 1, Err(FramingError::OtherEncoding)),
            (&[(TE, "chunked")], 0, Err(FramingError::TooOld)),
            (&[(CL, "5"), (TE, "chunked")], 1, Err(FramingError::Both)),
            (&[(TE, "chunked"), (CL, "5")], 1, Err(FramingError::Both)),
        ];
        for (headers, minor, wanted) in cases {
            let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
            assert_eq!(request_length(headers.clone(), *minor), *wanted, "{:?}", headers.collect::<Vec<_>>());
        }
    }
}
