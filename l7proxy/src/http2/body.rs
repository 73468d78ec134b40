//! What follows a head, in one direction: data as far as the other side takes it, then trailers.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::wire::Pulse;
use crate::http1::is_never_in_trailers;

/// Why a body did not come to its end.
#[derive(Debug)]
pub(super) enum Broke {
    /// Nothing more comes.
    From(h2::Error),
    /// Nothing more is taken.
    To(Reason),
}

impl Broke {
    /// Of the side that takes.
    fn to(error: &h2::Error) -> Self {
        Self::To(error.reason().unwrap_or(Reason::CANCEL))
    }
}

/// Carries everything over. What came counts against the window of who sent it until it is the other side's turn to
/// take it, so no more than a window waits here. Each piece is a beat of the stream's pulse.
pub(super) async fn carry(
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    pulse: &Pulse,
) -> Result<(), Broke> {
    loop {
        let data = tokio::select! {
            biased;
            reason = poll_fn(|cx| to.poll_reset(cx)) => return Err(reset(reason)),
            data = from.data() => data,
        };
        pulse.beat();
        match data {
            Some(Ok(data)) => {
                let is_last = from.is_end_stream();
                carry_piece(data, is_last, from, to, pulse).await?;
                if is_last {
                    return Ok(());
                }
            }
            Some(Err(error)) => return Err(Broke::From(error)),
            None => break,
        }
    }
    let sent = match from.trailers().await.map_err(Broke::From)? {
        Some(trailers) => to.send_trailers(without_forbidden(trailers)),
        None => to.send_data(Bytes::new(), true),
    };
    sent.map_err(|error| Broke::to(&error))
}

/// Carries one piece over, in as many pieces as the other side takes it.
async fn carry_piece(
    mut data: Bytes,
    is_last: bool,
    from: &mut RecvStream,
    to: &mut SendStream<Bytes>,
    pulse: &Pulse,
) -> Result<(), Broke> {
    if data.is_empty() && is_last {
        return to.send_data(data, true).map_err(|error| Broke::to(&error));
    }
    while !data.is_empty() {
        let room = room(to, data.len()).await?;
        let piece = data.split_to(room.min(data.len()));
        let length = piece.len();
        to.send_data(piece, is_last && data.is_empty()).map_err(|error| Broke::to(&error))?;
        from.flow_control().release_capacity(length).map_err(Broke::From)?;
        pulse.beat();
    }
    Ok(())
}

/// Waits until some of so many bytes are taken. Says how many.
async fn room(to: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, Broke> {
    to.reserve_capacity(wanted);
    loop {
        // What is there already is not announced again.
        let room = to.capacity();
        if room > 0 {
            return Ok(room);
        }
        match poll_fn(|cx| to.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(Broke::to(&error)),
            None => return Err(poll_fn(|cx| Poll::Ready(why_closed(to.poll_reset(cx)))).await),
        }
    }
}

/// Why a stream takes nothing that did take something before.
fn why_closed(reason: Poll<Result<Reason, h2::Error>>) -> Broke {
    match reason {
        Poll::Ready(reason) => reset(reason),
        Poll::Pending => Broke::To(Reason::CANCEL),
    }
}

fn reset(reason: Result<Reason, h2::Error>) -> Broke {
    match reason {
        Ok(reason) => Broke::To(reason),
        Err(error) => Broke::to(&error),
    }
}

/// The trailers without fields that count in heads only: who puts trailers and headers together would take them for
/// those that were judged.
fn without_forbidden(trailers: HeaderMap) -> HeaderMap {
    if !trailers.keys().any(|name| is_never_in_trailers(name.as_str())) {
        return trailers;
    }
    let allowed = trailers.iter().filter(|(name, _)| !is_never_in_trailers(name.as_str()));
    allowed.map(|(name, value)| (name.clone(), value.clone())).collect()
}
