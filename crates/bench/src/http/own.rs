//! Our proxy without the datapath: the same connections, rules and records, and a server that is always the same.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use anyhow::{Context, Result};
use sluice_flow::{FlowVerdict, HttpRecord, ProxyRecord};
use sluice_l7proxy::answer::DeniedBy;
use sluice_l7proxy::budget::{Budget, Weight};
use sluice_l7proxy::relay::{Host, Judgement, Outcome, Record, Settings, Signals, relay};
use sluice_policy::l7::{HttpRequest, HttpRule, L7Rules, Pattern};
use sluice_policy::requests::{RequestJudge, Says, Slot};
use sluice_policy::{Key, L4Match, Query, RequestTable};
use sluice_types::{Direction, EndpointId, Identity, Protocol, RuleId};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::peers::paths;

/// How many records the agent takes in a second, as the proxy's flag has it where nobody says otherwise.
const RECORDS: u32 = 2_000;

/// `http-proxy PORT SERVER RULES records|quiet`: runs until it is killed.
pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let [port, server, rules, records] = arguments else {
        anyhow::bail!("usage: http-proxy PORT SERVER RULES records|quiet")
    };
    let host = Arc::new(Own {
        judge: judge(rules.parse()?)?,
        server: SocketAddr::from(([127, 0, 0, 1], server.parse()?)),
        records: (records == "records").then(|| (Budget::new(RECORDS), record_thread())),
        begin: tokio::time::Instant::now(),
    });
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.context("listen")?;
        // Nothing changes, and nobody leaves.
        let (changes, leaving) = (watch::Sender::new(0), watch::Sender::new(()));
        let settings = Settings::default();
        for id in 0.. {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let host = Arc::clone(&host);
            let signals = Signals { changes: changes.subscribe(), leaving: leaving.subscribe() };
            tokio::spawn(async move { relay(stream, &*host, &settings, signals, id).await });
        }
        Ok(())
    })
}

struct Own {
    judge: RequestJudge,
    server: SocketAddr,
    records: Option<(Budget, SyncSender<ProxyRecord>)>,
    begin: tokio::time::Instant,
}

/// Writes records as the proxy does for the agent, to nowhere.
fn record_thread() -> SyncSender<ProxyRecord> {
    let (sender, receiver) = sync_channel::<ProxyRecord>(8_192);
    std::thread::spawn(move || {
        while let Ok(first) = receiver.recv() {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let batch: Vec<ProxyRecord> = std::iter::once(first).chain(receiver.try_iter()).collect();
            // A sink takes everything.
            drop(serde_json::to_writer(io::sink(), &batch));
        }
    });
    sender
}

fn judge(rules: usize) -> Result<RequestJudge> {
    let rule = |(nth, path): (usize, String)| -> Result<HttpRule> {
        Ok(HttpRule {
            part: format!("http[{nth}]"),
            method: Some(Pattern::new("GET")?),
            path: Some(Pattern::new(&path)?),
            host: None,
            grpc: false,
            headers: Vec::new(),
        })
    };
    let rules: Vec<HttpRule> = paths(rules).into_iter().enumerate().map(rule).collect::<Result<_>>()?;
    let says = Says::Requests { rules: Arc::new(L7Rules::Http(rules)), at: Some("toPorts[0]".to_owned()) };
    let key = Key { direction: Direction::Ingress, peer: None, l4: L4Match::port(Protocol::Tcp, 80) };
    let slot = Slot { precedence: 1, rule: RuleId(7), exact: true, says };
    let table: RequestTable = [(key, slot)].into_iter().collect();
    let query = Query {
        direction: Direction::Ingress,
        peer: Identity::WORLD,
        protocol: Protocol::Tcp,
        port: Some(80),
    };
    Ok(RequestJudge::new(&table, None, false, &query))
}

impl Host for Own {
    type Server = TcpStream;
    type Note = (RuleId, Option<String>);

    async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.server).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn judge(&self, request: &HttpRequest<'_>) -> (Judgement, Self::Note) {
        let (outcome, admitted) = self.judge.judge(request, &());
        let judgement = match outcome {
            sluice_policy::Outcome::Allow | sluice_policy::Outcome::Audit => {
                Judgement::Pass(admitted.effects)
            }
            sluice_policy::Outcome::Refuse
            | sluice_policy::Outcome::Deny(_)
            | sluice_policy::Outcome::Depends => Judgement::Deny,
        };
        (judgement, (admitted.rule, admitted.part))
    }

    fn denied_by<'n>(&self, _: &'n Self::Note) -> Option<DeniedBy<'n>> {
        None
    }

    fn record(&self, record: Record<'_, Self::Note>) {
        let (Some((budget, records)), Some(endpoint)) = (&self.records, EndpointId::new(7)) else { return };
        let (rule, part) = record.note;
        let verdict = match record.outcome {
            Outcome::Forwarded => FlowVerdict::Forwarded,
            Outcome::Denied | Outcome::Revoked => FlowVerdict::Dropped,
            Outcome::Failed => FlowVerdict::Error,
        };
        let weight = if record.outcome == Outcome::Forwarded { Weight::Common } else { Weight::Telling };
        if !budget.take(u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX), weight) {
            return;
        }
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        // What does not fit is lost, as in the proxy.
        drop(records.try_send(ProxyRecord {
            time_unix_ns: u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX),
            verdict,
            direction: Direction::Ingress,
            endpoint,
            source: self.server,
            source_identity: Identity::WORLD,
            destination: self.server,
            destination_identity: Identity::HOST,
            rule: *rule,
            part: part.clone(),
            revision: 1,
            lost: 0,
            http: HttpRecord::from(&record),
        }));
    }
}
