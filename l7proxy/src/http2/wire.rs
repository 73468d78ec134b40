//! The bytes under one of the two connections: what was read before HTTP/2 was known to be spoken, and when something
//! last came or went.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::relay::Stream;

/// When something last came or went, on either connection; or on one stream of both.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    begin: Instant,
    /// Milliseconds since the begin.
    last: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { begin: Instant::now(), last: Arc::default() }
    }

    pub(super) const fn begin(&self) -> Instant {
        self.begin
    }

    pub(super) fn last(&self) -> Instant {
        self.begin + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Something comes or goes.
    pub(super) fn beat(&self) {
        let now = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Waits until nothing has come or gone for so long.
    pub(super) async fn stops(&self, timeout: Duration) {
        loop {
            let deadline = self.last() + timeout;
            if Instant::now() >= deadline {
                return;
            }
            sleep_until(deadline).await;
        }
    }
}

/// A stream of bytes whose first ones are known already.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    already_read: BytesMut,
    pulse: Pulse,
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(mut stream: S, already_read: BytesMut, pulse: Pulse) -> Self {
        stream.hurry();
        Self { stream, already_read, pulse }
    }
}

impl<S: Stream> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        if !own.already_read.is_empty() {
            let length = own.already_read.len().min(out.remaining());
            out.put_slice(own.already_read.get(..length).unwrap_or_default());
            own.already_read.advance(length);
            if own.already_read.is_empty() {
                own.already_read = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = out.filled().len();
        let result = Pin::new(&mut own.stream).poll_read(cx, out);
        if out.filled().len() > before {
            own.pulse.beat();
        }
        result
    }
}

impl<S: Stream> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        let result = Pin::new(&mut own.stream).poll_write(cx, bytes);
        own.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        let result = Pin::new(&mut own.stream).poll_write_vectored(cx, parts);
        own.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S> Wire<S> {
    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(result, Poll::Ready(Ok(1..))) {
            self.pulse.beat();
        }
        result
    }
}
