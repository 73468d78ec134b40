//! Flows as a stream of JSON lines.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Deserialize;
use sluice_flow::{Flow, FlowVerdict, ProxyRecord};
use tokio::sync::{broadcast, mpsc};

use super::error::{ApiError, Body as ApiBody, Json};
use crate::app::Agent;
use crate::event::{Refusal, RefusalCode};

/// Lines on their way to one listener. Beyond these it lags behind, and then loses.
const LINES_MAX: usize = 256;

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// Also verdicts that allow.
    #[serde(default)]
    verdicts: bool,
    /// How many of the last flows come first.
    #[serde(default)]
    last: usize,
    /// Whether those that are still to come follow.
    #[serde(default = "yes")]
    follow: bool,
}

const fn yes() -> bool {
    true
}

pub(super) async fn monitor(
    State(agent): State<Agent>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(wanted) = wanted.map_err(|error| Refusal::new(RefusalCode::Invalid, error.to_string()))?;
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    tokio::spawn(pass_on(agent, wanted, sender));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(Lines(receiver))).into_response())
}

/// What a proxy saw, to be handed out with everything else.
pub(super) async fn requests(
    State(agent): State<Agent>,
    ApiBody(records): ApiBody<Vec<ProxyRecord>>,
) -> Json<()> {
    let names = agent.names();
    for record in records {
        agent.hub.publish(crate::observe::requests::flow(record, &names));
    }
    Json(())
}

/// Runs until the listener is gone.
async fn pass_on(agent: Agent, wanted: Wanted, sender: mpsc::Sender<Bytes>) {
    let guard = wanted.verdicts.then(|| agent.want_verdicts());
    let subscription = agent.hub.subscribe(wanted.last);
    let mut receiver = subscription.receiver;
    let mut missed = 0;
    for flow in subscription.before {
        if send(&sender, &flow, wanted.verdicts, &mut missed).await.is_err() {
            return;
        }
    }
    if !wanted.follow {
        return;
    }
    loop {
        let received = tokio::select! {
            received = receiver.recv() => received,
            () = sender.closed() => break,
        };
        match received {
            Ok(flow) => {
                if send(&sender, &flow, wanted.verdicts, &mut missed).await.is_err() {
                    break;
                }
            }
            Err(broadcast::error::RecvError::Lagged(count)) => {
                missed += u32::try_from(count).unwrap_or(u32::MAX);
            }
            Err(broadcast::error::RecvError::Closed) => break,
        }
    }
    drop(guard);
}

async fn send(
    sender: &mpsc::Sender<Bytes>,
    flow: &Arc<Flow>,
    with_verdicts: bool,
    missed: &mut u32,
) -> Result<(), mpsc::error::SendError<Bytes>> {
    if !with_verdicts && flow.verdict == FlowVerdict::Forwarded {
        return Ok(());
    }
    let line = if *missed == 0 {
        serde_json::to_vec(&**flow)
    } else {
        let lost = flow.lost.saturating_add(std::mem::take(missed));
        serde_json::to_vec(&Flow { lost, ..(**flow).clone() })
    };
    match line {
        Ok(mut line) => {
            line.push(b'\n');
            sender.send(line.into()).await
        }
        Err(error) => {
            tracing::error!(%error, "flow not encoded");
            Ok(())
        }
    }
}

struct Lines(mpsc::Receiver<Bytes>);

impl Stream for Lines {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|line| line.map(Ok))
    }
}
