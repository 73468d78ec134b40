//! HTTP/2 with prior knowledge, and gRPC: one client's connection, of which every stream is judged alone.
//!
//! Framing, header compression and flow control are the `h2` crate's, on both sides; here is what a request is, whether it
//! goes on, and how the two connections follow each other. The connection to the server is opened for the first stream
//! that passes. What waits between the two is bounded by their windows: who sent something gets its window back when it
//! is the other side's turn to take it.
//!
//! A tunnel with a protocol (`:protocol`, RFC 8441) is judged as the CONNECT that it is, with its path. The client learns
//! that it may ask for one as soon as the server has said so, which is not before its first other request has passed.
//! Interim responses (1xx) are passed on, so many for a request; servers may not push.

mod body;
mod connection;
mod flow;
mod forward;
mod link;
mod refusal;
mod stream;
mod wire;

use bytes::BytesMut;
use h2::{client, server};

use crate::relay::{End, Host, Settings, Signals, Stream};

/// What the connections of HTTP/2 may take, beside what [`Settings`] says of all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Http2Settings {
    /// How many streams one connection may have open at once.
    pub streams_max: u32,
    /// How large the headers of one message may be, 32 bytes more for each of them (RFC 9113, section 6.5.2).
    pub header_list_bytes: u32,
    /// How much one side may send of a stream before the other took any of it.
    pub stream_window_bytes: u32,
    /// How much one side may send of all streams together before the other took any of it. That of all streams: those
    /// that nobody takes must not hold back the others.
    pub connection_window_bytes: u32,
    /// The longest frame.
    pub frame_bytes: u32,
    /// How much may wait to be sent, for each stream.
    pub send_buffer_bytes: usize,
    /// How many requests more than were answered a client may reset before it has an answer.
    pub resets_max: usize,
    /// How many streams may have been reset before they were looked at.
    pub pending_resets_max: usize,
    /// How many streams the other side may make us reset by what it does wrong.
    pub error_resets_max: usize,
}

impl Default for Http2Settings {
    /// As servers and proxies of the field have it.
    fn default() -> Self {
        Self {
            streams_max: 100,
            header_list_bytes: 64 * 1024,
            stream_window_bytes: 64 * 1024,
            connection_window_bytes: 100 * 64 * 1024,
            frame_bytes: 16 * 1024,
            send_buffer_bytes: 64 * 1024,
            resets_max: 500,
            pending_resets_max: 20,
            error_resets_max: 100,
        }
    }
}

/// The largest window that there is (RFC 9113, section 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// How long frames may be (RFC 9113, section 4.2).
const FRAME_BYTES: std::ops::RangeInclusive<u32> = 16_384..=16_777_215;

impl Http2Settings {
    /// The same, as far as HTTP/2 has numbers for it.
    fn possible(self) -> Self {
        Self {
            stream_window_bytes: self.stream_window_bytes.min(WINDOW_MAX),
            connection_window_bytes: self.connection_window_bytes.min(WINDOW_MAX),
            frame_bytes: self.frame_bytes.clamp(*FRAME_BYTES.start(), *FRAME_BYTES.end()),
            send_buffer_bytes: self.send_buffer_bytes.min(WINDOW_MAX as usize),
            ..self
        }
    }

    fn server(self) -> server::Builder {
        let own = self.possible();
        let mut builder = server::Builder::new();
        builder
            .max_concurrent_streams(own.streams_max)
            .max_header_list_size(own.header_list_bytes)
            .initial_window_size(own.stream_window_bytes)
            .initial_connection_window_size(own.connection_window_bytes)
            .max_frame_size(own.frame_bytes)
            .max_send_buffer_size(own.send_buffer_bytes)
            .max_pending_accept_reset_streams(own.pending_resets_max)
            .max_local_error_reset_streams(Some(own.error_resets_max));
        builder
    }

    fn client(self) -> client::Builder {
        let own = self.possible();
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(own.header_list_bytes)
            .initial_window_size(own.stream_window_bytes)
            .initial_connection_window_size(own.connection_window_bytes)
            .max_frame_size(own.frame_bytes)
            .max_send_buffer_size(own.send_buffer_bytes)
            .max_local_error_reset_streams(Some(own.error_resets_max));
        builder
    }
}

/// Carries one connection to its end, of which `already_read` came so far: the client's preface, and what followed it.
///
/// `id` is the first half of the flows' ids. From here on the client has [`Settings::head_timeout`] for its first request.
/// Later ones are bounded by [`Settings::idle_timeout`] alone, which holds for the connection, and for each stream.
pub async fn relay<C: Stream, H: Host>(
    client: C,
    already_read: BytesMut,
    host: &H,
    settings: &Settings,
    signals: Signals,
    id: u64,
) -> End {
    connection::run(client, already_read, host, settings, signals, id).await
}

#[cfg(test)]
mod tests;
