//! One redirected flow: whose it is, what may pass on it, and how its server is reached.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sluice_ebpf_loader::proxy::{self, ProxyView, RedirectFacts};
use sluice_flow::{FlowVerdict, HttpRecord, ProxyRecord};
use sluice_l7proxy::answer::DeniedBy;
use sluice_l7proxy::budget::Weight;
use sluice_l7proxy::relay::{Host, Judgement, Outcome, Record};
use sluice_policy::l7::HttpRequest;
use sluice_policy::requests::{Admitted, RequestJudge};
use sluice_policy::{Outcome as Verdict, Query};
use sluice_types::{Direction, Protocol, RuleId};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::records::Records;
use crate::rules::{Loaded, RulesDirectory};

/// What all flows share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) view: ProxyView,
    pub(crate) rules: RulesDirectory,
    pub(crate) records: Records,
    pub(crate) metrics: Arc<Metrics>,
    /// Networks in which clients keep their address towards the server: nobody translates it on the way.
    pub(crate) pod_networks: Vec<ipnet::IpNet>,
    /// Whether who is denied is told which policies closed the way.
    pub(crate) names_policies: bool,
}

/// One flow.
#[derive(Debug)]
pub(crate) struct Flow {
    shared: Arc<Shared>,
    facts: RedirectFacts,
    client: SocketAddr,
    destination: SocketAddr,
    changes: watch::Receiver<u64>,
    current: Mutex<Option<Current>>,
}

/// The rules that were in force when `version` was the last change.
#[derive(Clone, Debug)]
struct Current {
    version: u64,
    /// None if there are no rules that could be used: then nothing passes.
    rules: Option<(Arc<Loaded>, Arc<RequestJudge>)>,
}

/// What is kept of a judgement.
#[derive(Debug)]
pub(crate) struct Note {
    verdict: Verdict,
    rule: RuleId,
    part: Option<String>,
    rules: Option<Arc<Loaded>>,
}

impl Flow {
    pub(crate) fn new(
        shared: Arc<Shared>,
        facts: RedirectFacts,
        client: SocketAddr,
        destination: SocketAddr,
        changes: watch::Receiver<u64>,
    ) -> Self {
        Self { shared, facts, client, destination, changes, current: Mutex::default() }
    }

    /// The rules as they are; looked up again after a change.
    fn rules(&self) -> Option<(Arc<Loaded>, Arc<RequestJudge>)> {
        let version = *self.changes.borrow();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = current.as_ref().filter(|known| known.version == version) {
            return known.rules.clone();
        }
        let rules = match self.shared.rules.of(self.facts.endpoint, self.facts.generation) {
            Ok(loaded) => {
                let judge = loaded.judge(&self.query());
                Some((loaded, judge))
            }
            Err(error) => {
                tracing::warn!(endpoint = %self.facts.endpoint, error = format!("{error:#}"), "no rules, all is denied");
                None
            }
        };
        *current = Some(Current { version, rules: rules.clone() });
        rules
    }

    const fn query(&self) -> Query {
        Query {
            direction: self.facts.direction,
            peer: self.facts.peer_identity,
            protocol: Protocol::Tcp,
            port: Some(self.destination.port()),
        }
    }

    /// The address that the server sees. The node's own where the client's would be translated on the way, or where
    /// the server is the node, which answers only to addresses of its own.
    fn own_address(&self) -> Option<IpAddr> {
        let is_inside =
            self.shared.pod_networks.iter().any(|network| network.contains(&self.destination.ip()));
        let is_kept = self.facts.direction == Direction::Ingress || is_inside;
        (is_kept && !self.facts.destination_is_node).then(|| self.client.ip())
    }
}

impl Host for Flow {
    type Server = TcpStream;
    type Note = Note;

    async fn connect(&self) -> io::Result<TcpStream> {
        let is_current = self.shared.view.is_current(&self.facts).map_err(io::Error::other)?;
        if !is_current {
            return Err(io::Error::other("the endpoint is gone"));
        }
        let socket = proxy::leg(&self.facts, self.own_address(), self.destination)?;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(self.destination).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn judge(&self, request: &HttpRequest<'_>) -> (Judgement, Note) {
        let Some((rules, judge)) = self.rules() else {
            let note = Note { verdict: Verdict::Refuse, rule: RuleId::NONE, part: None, rules: None };
            return (Judgement::Deny, note);
        };
        let (verdict, admitted) = judge.judge(request, rules.secrets());
        let Admitted { rule, part, effects, .. } = admitted;
        let judgement = match verdict {
            Verdict::Allow | Verdict::Audit => Judgement::Pass(effects),
            Verdict::Refuse | Verdict::Deny(_) | Verdict::Depends => Judgement::Deny,
        };
        (judgement, Note { verdict, rule, part, rules: Some(rules) })
    }

    fn denied_by<'n>(&self, note: &'n Note) -> Option<DeniedBy<'n>> {
        if !self.shared.names_policies {
            return None;
        }
        let rules = note.rules.as_ref();
        let policy = rules.and_then(|rules| rules.mode(self.facts.direction).isolated_by.first());
        Some(DeniedBy { policy: policy.map(String::as_str), rule: note.part.as_deref() })
    }

    fn record(&self, record: Record<'_, Note>) {
        let verdict = match (record.outcome, record.note.verdict) {
            (Outcome::Denied | Outcome::Revoked, _) => FlowVerdict::Dropped,
            (Outcome::Failed, _) => FlowVerdict::Error,
            (Outcome::Forwarded, Verdict::Audit) => FlowVerdict::Audit,
            (Outcome::Forwarded, _) => FlowVerdict::Forwarded,
        };
        // Of a tunnel that is closed later, the request was counted when it passed.
        if record.outcome != Outcome::Revoked {
            self.shared.metrics.request(self.facts.direction, verdict, record.status, record.latency);
        }
        let weight = if verdict == FlowVerdict::Forwarded { Weight::Common } else { Weight::Telling };
        self.shared.records.send(weight, || self.proxy_record(record, verdict));
    }
}

impl Flow {
    fn proxy_record(&self, record: Record<'_, Note>, verdict: FlowVerdict) -> ProxyRecord {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (source_identity, destination_identity) = self.facts.identities();
        ProxyRecord {
            time_unix_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            verdict,
            direction: self.facts.direction,
            endpoint: self.facts.endpoint,
            source: self.client,
            source_identity,
            destination: self.destination,
            destination_identity,
            rule: record.note.rule,
            part: record.note.part.clone(),
            revision: self.facts.revision,
            lost: 0,
            http: HttpRecord::from(&record),
        }
    }
}
