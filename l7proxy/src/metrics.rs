//! What this process counts. Who counts never waits; who reads sees each number as it is at some moment.

mod histogram;
mod serve;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_client::exposition::{Exposition, Kind};
use sluice_flow::FlowVerdict;
use sluice_l7proxy::http1::{Broken, ChunkError, HeadError};
use sluice_l7proxy::relay::End;
use sluice_types::Direction;

use histogram::Histogram;

pub(crate) use serve::serve;

/// All numbers.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By direction, verdict and first digit of the status.
    requests: Box<[AtomicU64]>,
    broken: AtomicU64,
    replies: Histogram,
    connections: AtomicU64,
    open: AtomicU64,
    limits: [AtomicU64; Limit::ALL.len()],
    records: [AtomicU64; Fate::ALL.len()],
    handovers: AtomicU64,
}

/// As the field's flows name who saw a request.
const REPORTERS: [(Direction, &str); 2] = [(Direction::Ingress, "server"), (Direction::Egress, "client")];
const VERDICTS: [(FlowVerdict, &str); 4] = [
    (FlowVerdict::Forwarded, "forwarded"),
    (FlowVerdict::Dropped, "dropped"),
    (FlowVerdict::Audit, "audit"),
    (FlowVerdict::Error, "error"),
];
const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// A limit that was reached. The documents have a table of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Limit {
    /// Bytes or headers of a head.
    Head,
    /// Time for a head.
    HeadTime,
    /// Time in which nothing came or went.
    IdleTime,
    /// Time for a connection to the server.
    ConnectTime,
    /// Interim responses.
    Interim,
    /// Extensions of chunks, and trailers.
    Chunks,
    /// Connections of an endpoint.
    Connections,
    /// What clients of HTTP/2 may ask for without waiting for it.
    Http2Calm,
}

impl Limit {
    const ALL: [(Self, &str); 8] = [
        (Self::Head, "head"),
        (Self::HeadTime, "head-time"),
        (Self::IdleTime, "idle-time"),
        (Self::ConnectTime, "connect-time"),
        (Self::Interim, "interim-responses"),
        (Self::Chunks, "chunks"),
        (Self::Connections, "connections"),
        (Self::Http2Calm, "http2-calm"),
    ];

    /// The one because of which a connection ended, if it was one.
    fn of(end: End) -> Option<Self> {
        match end {
            End::Request(broken) | End::Answer(broken) => Self::of_broken(broken),
            End::HeadTimeout => Some(Self::HeadTime),
            End::IdleTimeout => Some(Self::IdleTime),
            End::NoServerInTime => Some(Self::ConnectTime),
            End::BrokenHttp2(h2::Reason::ENHANCE_YOUR_CALM) => Some(Self::Http2Calm),
            End::BrokenHttp2(_)
            | End::Closed
            | End::ClientGone
            | End::ServerGone
            | End::NoServer
            | End::BadEffect
            | End::Revoked => None,
        }
    }

    fn of_broken(broken: Broken) -> Option<Self> {
        match broken {
            Broken::Head(HeadError::TooLarge) => Some(Self::Head),
            Broken::Chunk(ChunkError::Extension | ChunkError::Trailer) => Some(Self::Chunks),
            Broken::Interim => Some(Self::Interim),
            Broken::Head(_) | Broken::Chunk(_) | Broken::Unasked | Broken::TooNew => None,
        }
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// The agent has it.
    Sent,
    /// There were too many in too short a time.
    OverRate,
    /// Too many wait.
    QueueFull,
    /// The agent did not take it.
    NotTaken,
}

impl Fate {
    const ALL: [(Self, &str); 4] = [
        (Self::Sent, "sent"),
        (Self::OverRate, "over-rate"),
        (Self::QueueFull, "queue-full"),
        (Self::NotTaken, "not-taken"),
    ];
}

impl Metrics {
    /// Nothing was counted yet.
    pub(crate) fn new() -> Self {
        let requests = REPORTERS.len() * VERDICTS.len() * STATUSES.len();
        Self {
            requests: (0..requests).map(|_| AtomicU64::new(0)).collect(),
            broken: AtomicU64::new(0),
            replies: Histogram::default(),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            limits: Default::default(),
            records: Default::default(),
            handovers: AtomicU64::new(0),
        }
    }

    /// How often a proxy had taken over when this one began.
    pub(crate) fn began_after(&self, handovers: u64) {
        self.handovers.store(handovers, Ordering::Relaxed);
    }

    /// A request that was judged, and what became of it.
    pub(crate) fn request(
        &self,
        direction: Direction,
        verdict: FlowVerdict,
        status: Option<u16>,
        latency: Duration,
    ) {
        let Some(nth) = VERDICTS.iter().position(|(own, _)| *own == verdict) else { return };
        let reporter = usize::from(direction != Direction::Ingress);
        let status = usize::from(status.unwrap_or(0) / 100).min(STATUSES.len() - 1);
        add(&self.requests, (reporter * VERDICTS.len() + nth) * STATUSES.len() + status, 1);
        if matches!(verdict, FlowVerdict::Forwarded | FlowVerdict::Audit) {
            self.replies.observe(latency);
        }
    }

    /// A connection that was accepted. It is open until what is returned is dropped.
    pub(crate) fn connection(&self) -> Open<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }

    /// How a connection ended.
    pub(crate) fn ended(&self, end: End) {
        if matches!(end, End::Request(_)) {
            self.broken.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(limit) = Limit::of(end) {
            self.reached(limit);
        }
    }

    /// A limit.
    pub(crate) fn reached(&self, limit: Limit) {
        if let Some(nth) = Limit::ALL.iter().position(|(own, _)| *own == limit) {
            add(&self.limits, nth, 1);
        }
    }

    /// What became of so many records.
    pub(crate) fn records(&self, fate: Fate, count: usize) {
        if let Some(nth) = Fate::ALL.iter().position(|(own, _)| *own == fate) {
            add(&self.records, nth, count as u64);
        }
    }

    /// All of it, as text.
    pub(crate) fn text(&self) -> String {
        let mut text = Exposition::default();
        self.write_requests(&mut text);
        self.replies.write(
            &mut text,
            "cilium_proxy_upstream_reply_seconds",
            "From the head of a request that passed to the head of its answer.",
            &[("error", ""), ("protocol_l7", "http"), ("scope", "upstreamTime")],
        );
        self.write_connections(&mut text);
        let name = "sluice_proxy_limit_reached_total";
        text.begin(name, Kind::Counter, "Connections that a limit refused or ended.");
        for ((_, limit), count) in Limit::ALL.iter().zip(&self.limits) {
            text.number(name, &[("limit", limit)], read(count));
        }
        let name = "sluice_proxy_records_total";
        text.begin(name, Kind::Counter, "Records of requests, by what became of them.");
        for ((_, fate), count) in Fate::ALL.iter().zip(&self.records) {
            text.number(name, &[("outcome", fate)], read(count));
        }
        let name = "sluice_proxy_handovers_total";
        text.begin(
            name,
            Kind::Counter,
            "How often a proxy took over from the one before, since one began anew.",
        );
        text.number(name, &[], read(&self.handovers));
        text.into_text()
    }

    fn write_requests(&self, text: &mut Exposition) {
        let mut sums = [0; VERDICTS.len()];
        let name = "hubble_http_requests_total";
        text.begin(name, Kind::Counter, "Requests that were judged, by the side whose policy did.");
        let reporters = REPORTERS.iter().zip(self.requests.chunks(VERDICTS.len() * STATUSES.len()));
        for ((_, reporter), own) in reporters {
            let verdicts = VERDICTS.iter().zip(own.chunks(STATUSES.len())).zip(&mut sums);
            for (((_, verdict), own), sum) in verdicts {
                for (status, count) in STATUSES.iter().zip(own).filter(|(_, count)| read(count) > 0) {
                    *sum += read(count);
                    let labels = [
                        ("protocol", "http"),
                        ("reporter", reporter),
                        ("status", status),
                        ("verdict", verdict),
                    ];
                    text.number(name, &labels, read(count));
                }
            }
        }
        let [forwarded, dropped, audit, error] = sums;
        let broken = read(&self.broken);
        let name = "cilium_policy_l7_total";
        text.begin(name, Kind::Counter, "Requests, by what policy said.");
        let passed = forwarded + audit + error;
        let rules = [
            ("received", passed + dropped + broken),
            ("forwarded", passed),
            ("denied", dropped),
            ("parse_errors", broken),
        ];
        for (rule, count) in rules {
            text.number(name, &[("rule", rule), ("proxy_type", "http")], count);
        }
    }

    fn write_connections(&self, text: &mut Exposition) {
        let name = "sluice_proxy_connections_total";
        text.begin(name, Kind::Counter, "Redirected connections that were accepted.");
        text.number(name, &[], read(&self.connections));
        let name = "sluice_proxy_open_connections";
        text.begin(name, Kind::Gauge, "Redirected connections that are open.");
        text.number(name, &[], read(&self.open));
    }
}

/// A connection that is counted as open.
#[derive(Debug)]
pub(crate) struct Open<'m>(&'m Metrics);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn add(counts: &[AtomicU64], nth: usize, more: u64) {
    if let Some(count) = counts.get(nth) {
        count.fetch_add(more, Ordering::Relaxed);
    }
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str, line: &str) -> Option<u64> {
        text.lines().find_map(|own| own.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn requests_are_counted_by_what_became_of_them() {
        let metrics = Metrics::new();
        metrics.began_after(3);
        let latency = Duration::from_millis(3);
        for (direction, verdict, status) in [
            (Direction::Ingress, FlowVerdict::Forwarded, Some(200)),
            (Direction::Ingress, FlowVerdict::Forwarded, Some(201)),
            (Direction::Ingress, FlowVerdict::Dropped, Some(403)),
            (Direction::Egress, FlowVerdict::Error, None),
            (Direction::Egress, FlowVerdict::Audit, Some(999)),
        ] {
            metrics.request(direction, verdict, status, latency);
        }
        metrics.ended(End::Request(Broken::Head(HeadError::Malformed)));
        let text = metrics.text();
        let request = |reporter: &str, status: &str, verdict: &str| {
            let labels = format!(
                "protocol=\"http\",reporter=\"{reporter}\",status=\"{status}\",verdict=\"{verdict}\""
            );
            number(&text, &format!("hubble_http_requests_total{{{labels}}}"))
        };
        assert_eq!(request("server", "2xx", "forwarded"), Some(2));
        assert_eq!(request("server", "4xx", "dropped"), Some(1));
        assert_eq!(request("client", "none", "error"), Some(1));
        assert_eq!(request("client", "5xx", "audit"), Some(1));
        assert_eq!(request("client", "2xx", "forwarded"), None, "what never was is not shown");
        for (rule, wanted) in [("received", 6), ("forwarded", 4), ("denied", 1), ("parse_errors", 1)] {
            let line = format!("cilium_policy_l7_total{{rule=\"{rule}\",proxy_type=\"http\"}}");
            assert_eq!(number(&text, &line), Some(wanted), "{rule}");
        }
        let count = "cilium_proxy_upstream_reply_seconds_count{error=\"\",protocol_l7=\"http\",scope=\"upstreamTime\"}";
        assert_eq!(number(&text, count), Some(3), "{text}");
        assert_eq!(number(&text, "sluice_proxy_handovers_total"), Some(3));
    }

    #[test]
    fn each_limit_has_its_number() {
        let cases = [
            (End::Request(Broken::Head(HeadError::TooLarge)), Some("head")),
            (End::Answer(Broken::Head(HeadError::TooLarge)), Some("head")),
            (End::HeadTimeout, Some("head-time")),
            (End::IdleTimeout, Some("idle-time")),
            (End::NoServerInTime, Some("connect-time")),
            (End::Answer(Broken::Interim), Some("interim-responses")),
            (End::Request(Broken::Chunk(ChunkError::Trailer)), Some("chunks")),
            (End::BrokenHttp2(h2::Reason::ENHANCE_YOUR_CALM), Some("http2-calm")),
            (End::BrokenHttp2(h2::Reason::PROTOCOL_ERROR), None),
            (End::Request(Broken::Head(HeadError::NoHost)), None),
            (End::Closed, None),
        ];
        for (end, wanted) in cases {
            let metrics = Metrics::new();
            metrics.ended(end);
            let text = metrics.text();
            for (_, limit) in Limit::ALL {
                let line = format!("sluice_proxy_limit_reached_total{{limit=\"{limit}\"}}");
                assert_eq!(number(&text, &line), Some(u64::from(wanted == Some(limit))), "{end:?} {limit}");
            }
        }
    }

    #[test]
    fn connections_are_open_until_they_end() {
        let metrics = Metrics::new();
        let (first, second) = (metrics.connection(), metrics.connection());
        drop(first);
        let text = metrics.text();
        assert_eq!(number(&text, "sluice_proxy_connections_total"), Some(2));
        assert_eq!(number(&text, "sluice_proxy_open_connections"), Some(1));
        drop(second);
        assert_eq!(number(&metrics.text(), "sluice_proxy_open_connections"), Some(0));
    }
}
