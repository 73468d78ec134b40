//! When a head that came in pieces is read again.

/// How much of a head was read before, without finding its end.
///
/// Reading from the start for each piece would cost the square of its length. So it is read again when an end came, a line
/// that ends wrongly, or as many bytes again: a head that comes byte by byte costs a few times its length.
#[derive(Debug, Default)]
pub(super) struct Tried(usize);

impl Tried {
    /// What is told apart by its first bytes is so at once.
    const FEW: usize = 64;

    /// Whether it is time to read `bytes`, all that came of the head, of which at most `limit` are read.
    pub(super) fn is_time(&self, bytes: &[u8], limit: usize) -> bool {
        let fresh = bytes.get(self.0.saturating_sub(2)..).unwrap_or_default();
        let ends = |three: &[u8]| matches!(three, [_, b'\n', b'\n'] | [b'\n', b'\r', b'\n']);
        let few_or_many = bytes.len() <= Self::FEW || bytes.len() >= self.0.saturating_mul(2).min(limit);
        !bytes.is_empty() && (few_or_many || fresh.windows(3).any(ends))
    }

    /// These were read.
    pub(super) const fn note(&mut self, bytes: &[u8]) {
        self.0 = bytes.len();
    }

    /// The next head comes.
    pub(super) const fn forget(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a text that comes byte by byte is read, and whether when it is whole.
    fn reads(text: &str, limit: usize) -> (usize, bool) {
        let (mut tried, mut reads, mut is_read) = (Tried::default(), 0, false);
        for end in 1..=text.len() {
            let came = text.split_at(end).0.as_bytes();
            is_read = tried.is_time(came, limit);
            if is_read {
                tried.note(came);
                reads += 1;
            }
        }
        (reads, is_read)
    }

    #[test]
    fn a_head_in_small_pieces_is_read_a_few_times() {
        let long = "y".repeat(8_000);
        for end in ["\r\n\r\n", "\n\n", "\n\r\n"] {
            let (reads, is_read) = reads(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}{end}"), 65_536);
            assert!((64..80).contains(&reads) && is_read, "{end:?}: {reads}");
        }
        assert!(!reads(&format!("GET / HTTP/1.1\r\nX: {long}"), 65_536).1);
        // What has no end is refused at the limit, not when twice as much has come.
        assert!(reads(&"y".repeat(100), 100).1);
    }
}
