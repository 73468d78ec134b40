//! Buffers that no connection needs at the moment, kept by each thread for the next one that does.
//!
//! A connection has some only while something is under way on it. Making and freeing as many for each request would cost
//! more than reading it.

use std::cell::RefCell;

use bytes::BytesMut;

/// The room of a buffer, and so the most that is read at once.
pub(super) const BYTES: usize = 16 * 1024;
/// How many each thread keeps.
const SPARE_MAX: usize = 16;
/// What is as short as this, and waits, is moved to where it takes no more room than it needs.
const SHORT_BYTES: usize = 2 * 1024;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty one.
pub(super) fn take() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(BYTES))
}

/// Takes back one that is not needed any more, whatever is in it.
pub(super) fn give(mut buffer: BytesMut) {
    buffer.clear();
    // Not those that were made for something short, or grew.
    if !buffer.try_reclaim(BYTES) || buffer.capacity() >= 2 * BYTES {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// What `buffer` is to become when it is left alone for now: nothing if it is empty, and no more than it needs if that is
/// little. A client that sends a byte a minute holds no buffer.
pub(super) fn settle(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        if buffer.capacity() > 0 {
            give(std::mem::take(buffer));
        }
    } else if buffer.len() <= SHORT_BYTES && buffer.capacity() > 2 * SHORT_BYTES {
        let short = BytesMut::from(&**buffer);
        give(std::mem::replace(buffer, short));
    }
}

/// Makes room in `buffer` for a good read, behind what is in it.
pub(super) fn make_room(buffer: &mut BytesMut) {
    if buffer.capacity() - buffer.len() >= BYTES / 4 {
        return;
    }
    let mut roomy = take();
    roomy.extend_from_slice(buffer);
    roomy.reserve(BYTES / 4);
    give(std::mem::replace(buffer, roomy));
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    #[test]
    fn buffers_come_back_whole() {
        let mut buffer = take();
        buffer.extend_from_slice(&[b'x'; BYTES]);
        buffer.advance(BYTES - 1);
        give(buffer);
        assert_eq!(spare(), 1);
        let again = take();
        assert!(again.is_empty() && again.capacity() >= BYTES);
        assert_eq!(spare(), 0);
        give(BytesMut::from(&b"made for something short"[..]));
        give(BytesMut::with_capacity(4 * BYTES));
        assert_eq!(spare(), 0);
        (0..2 * SPARE_MAX).for_each(|_| give(BytesMut::with_capacity(BYTES)));
        assert_eq!(spare(), SPARE_MAX);
    }

    #[test]
    fn what_waits_takes_little() {
        let mut buffer = take();
        buffer.extend_from_slice(b"GET / HT");
        settle(&mut buffer);
        assert_eq!((&buffer[..], spare()), (&b"GET / HT"[..], 1));
        assert!(buffer.capacity() <= SHORT_BYTES);
        make_room(&mut buffer);
        assert_eq!((&buffer[..], spare()), (&b"GET / HT"[..], 0));
        assert!(buffer.capacity() - buffer.len() >= BYTES / 4);
        buffer.clear();
        settle(&mut buffer);
        assert_eq!((buffer.capacity(), spare()), (0, 1));
        // What is long stays where it is.
        let mut long = take();
        long.extend_from_slice(&[b'x'; SHORT_BYTES + 1]);
        settle(&mut long);
        assert!(long.capacity() >= BYTES);
    }
}
