//! One of the two sides of a connection: its stream, what came from it and what goes to it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use super::buffers;

/// A stream of bytes to a client or a server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Lets the other end see that the stream broke, and did not come to its end.
    fn abort(&mut self);

    /// Sends what is written at once, and does not wait for more of it: frames of HTTP/2 are small, and others wait for
    /// them.
    fn hurry(&mut self) {}
}

impl Stream for TcpStream {
    fn abort(&mut self) {
        // Without it the other end sees an orderly end: nothing more can be done about a socket that refuses even this.
        drop(self.set_zero_linger());
    }

    fn hurry(&mut self) {
        // A socket that refuses it is slow, or broken, which whoever reads it will see.
        drop(self.set_nodelay(true));
    }
}

/// A stream that is somebody else's, who has it back afterwards.
impl<S: Stream> Stream for &mut S {
    fn abort(&mut self) {
        S::abort(self);
    }

    fn hurry(&mut self) {
        S::hurry(self);
    }
}

/// A side. Its buffers take no memory while they are empty.
#[derive(Debug)]
pub(super) struct Side<S> {
    /// None until the server is needed.
    pub(super) stream: Option<S>,
    /// What came and was not consumed.
    pub(super) came: BytesMut,
    /// What is to be sent.
    pub(super) out: BytesMut,
    /// Nothing more comes.
    pub(super) has_ended: bool,
    /// Nothing more comes because the stream broke.
    pub(super) has_failed: bool,
    /// What is sent is lost: the other end has closed its half, or is gone.
    is_deaf: bool,
    /// Nothing more is sent when `out` is empty.
    pub(super) ends: bool,
    is_shut: bool,
}

impl<S: Stream> Side<S> {
    pub(super) fn new(stream: Option<S>) -> Self {
        Self {
            stream,
            came: BytesMut::new(),
            out: BytesMut::new(),
            has_ended: false,
            has_failed: false,
            is_deaf: false,
            ends: false,
            is_shut: false,
        }
    }

    /// Moves the first `consumed` bytes that came away, and the first `forward` of them to `to`.
    pub(super) fn pass<T: Stream>(&mut self, consumed: usize, forward: usize, to: &mut Side<T>) {
        let is_all = forward == self.came.len() && consumed == forward;
        if is_all && to.out.is_empty() && !to.is_deaf {
            std::mem::swap(&mut self.came, &mut to.out);
            return;
        }
        to.send(self.came.get(..forward).unwrap_or_default());
        self.came.advance(consumed.min(self.came.len()));
    }

    /// Puts bytes behind what is to be sent.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if !self.is_deaf && !bytes.is_empty() {
            self.writer().extend_from_slice(bytes);
        }
    }

    /// Where what is to be sent is written down.
    pub(super) fn writer(&mut self) -> &mut BytesMut {
        if self.out.capacity() == 0 {
            self.out = buffers::take();
        }
        &mut self.out
    }

    /// Whether all has been sent that was to be, the end included.
    pub(super) fn is_flushed(&self) -> bool {
        self.out.is_empty() && (!self.ends || self.is_shut || self.is_deaf)
    }

    /// Sends what can be sent. Says whether anything changed.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let mut changed = false;
        while !self.out.is_empty() {
            match Pin::new(&mut *stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(sent @ 1..)) => {
                    self.out.advance(sent);
                    changed = true;
                }
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.is_deaf = true;
                    self.out.clear();
                    changed = true;
                }
                Poll::Pending => break,
            }
        }
        buffers::settle(&mut self.out);
        if self.out.is_empty() && self.ends && !self.is_shut {
            self.is_shut = Pin::new(stream).poll_shutdown(cx).is_ready();
            changed |= self.is_shut;
        }
        changed
    }

    /// Receives what is there, once. Says whether anything changed.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.has_ended) else { return false };
        buffers::make_room(&mut self.came);
        let result = match pin!(stream.read_buf(&mut self.came)).poll(cx) {
            Poll::Ready(Ok(1..)) => return true,
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        };
        buffers::settle(&mut self.came);
        if let Some(result) = &result {
            self.has_ended = true;
            self.has_failed = result.is_err();
        }
        result.is_some()
    }

    /// Lets the other end see that the stream broke.
    pub(super) fn abort(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.abort();
        }
    }
}
