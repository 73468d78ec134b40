//! From a policy change to its enforcement, on a node with 1,000 endpoints and 10,000 identities.

use std::time::Instant;

use anyhow::{Context, Result};
use sluice_ebpf_loader::bench::Lookups;
use sluice_ebpf_loader::common::{EndpointFlags, EndpointInfo};
use sluice_ebpf_loader::{Datapath, Settings, Sizes};
use sluice_policy::{Config, PolicyKind, PolicyRef, Repository, Rule, Subject, parse};
use sluice_types::{EndpointId, Identity, Label, Labels};

use crate::report::{Aim, Row};
use crate::rounds::quantile;

const ENDPOINTS: u16 = 1_000;
/// Endpoints come in so many kinds; each kind shares labels, and so identity and policy.
const KINDS: u16 = 50;
const IDENTITIES: u32 = 10_000;
const CHANGES: usize = 200;

/// Every row of the group.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut node = Node::new()?;
    let peer = Lookups::load(&crate::program::object()).context("the measurement programs")?;
    let mut entries = 0;
    let (mut ours, mut raw) = (Vec::with_capacity(CHANGES), Vec::with_capacity(CHANGES));
    for round in 0..CHANGES {
        let (seconds, state) = node.change(round)?;
        ours.push(seconds);
        entries = state.map_state.entries.len();
        #[expect(clippy::disallowed_methods, reason = "measuring is this program's purpose")]
        let start = Instant::now();
        peer.fill_hash(&state.map_state)?;
        raw.push(start.elapsed().as_secs_f64());
    }
    let ratios: Vec<f64> = ours.iter().zip(&raw).map(|(ours, raw)| ours / raw).collect();
    let (p50, p99) = (quantile(&ours, 0.5), quantile(&ours, 0.99));
    let note = format!(
        "p50 {:.1} ms, p99 {:.1} ms to {:.1} ms; {} endpoints change, {} entries",
        p50 * 1e3,
        p99 * 1e3,
        quantile(&raw, 0.99) * 1e3,
        ENDPOINTS / KINDS,
        entries
    );
    let spread = (quantile(&ratios, 0.25), quantile(&ratios, 0.75));
    let row = |id: &str, what: &str, against: &str, ratio, spread, aim| Row {
        id: id.to_owned(),
        what: what.to_owned(),
        against: against.to_owned(),
        ratio,
        spread,
        aim,
        note: note.clone(),
    };
    let share = (quantile(&ours, 0.25) / 0.010, quantile(&ours, 0.75) / 0.010);
    Ok(vec![
        row(
            "policy-change-p99",
            "policy change to enforced, p99",
            "raw batched writes",
            p99 / quantile(&raw, 0.99),
            spread,
            Aim::AtMost(2.0),
        ),
        row(
            "policy-change-10ms",
            "policy change to enforced, p99",
            "10 ms",
            p99 / 0.010,
            share,
            Aim::AtMost(1.0),
        ),
    ])
}

struct Node {
    repository: Repository,
    datapath: Datapath,
    revision: u32,
}

impl Node {
    fn new() -> Result<Self> {
        let mut repository = Repository::new(Config::default());
        for number in 0..IDENTITIES {
            let labels = labels(&[("app", &format!("peer-{number}")), ("tier", "client")]);
            drop(repository.set_identity(Identity::new(1_000 + number), labels));
        }
        for kind in 0..KINDS {
            drop(repository.set_identity(Identity::new(256 + u32::from(kind)), subject_labels(kind)));
        }
        let datapath = Datapath::load_unpinned(&Sizes { addresses: 1024, prefixes: 64, ..Sizes::default() })?;
        datapath.settings.write(&Settings::default())?;
        let mut node = Self { repository, datapath, revision: 0 };
        for kind in 0..KINDS {
            node.enforce(kind)?;
        }
        Ok(node)
    }

    /// Changes the policy of one kind of endpoint and returns how long it took to be in force for all of them.
    fn change(&mut self, round: usize) -> Result<(f64, std::sync::Arc<sluice_policy::EndpointPolicy>)> {
        let kind = u16::try_from(round % usize::from(KINDS))?;
        // A few ports in turn: every change differs from the last one of its kind, and the bare hash does not fill up.
        let rules = rules(kind, 1024 + u16::try_from(round % 8)?)?;
        let policy =
            PolicyRef { kind: PolicyKind::Cnp, namespace: "bench".to_owned(), name: format!("kind-{kind}") };
        #[expect(clippy::disallowed_methods, reason = "measuring is this program's purpose")]
        let start = Instant::now();
        drop(self.repository.upsert(policy, rules));
        let state = self.enforce(kind)?;
        Ok((start.elapsed().as_secs_f64(), state))
    }

    fn enforce(&mut self, kind: u16) -> Result<std::sync::Arc<sluice_policy::EndpointPolicy>> {
        let identity = Identity::new(256 + u32::from(kind));
        let subject = Subject {
            identity,
            labels: subject_labels(kind),
            named_ports: Vec::new(),
            services: Vec::new(),
            audit: false,
        };
        let state = self.repository.resolve(&subject);
        let endpoints: Vec<EndpointId> =
            (1..=ENDPOINTS).filter(|id| id % KINDS == kind).filter_map(EndpointId::new).collect();
        self.datapath.policies.install(&endpoints, &state.map_state)?;
        self.revision += 1;
        for id in endpoints {
            self.datapath.endpoints.insert(&EndpointInfo {
                id: id.as_u16(),
                flags: EndpointFlags::READY,
                ifindex: 10_000 + u32::from(id.as_u16()),
                identity: identity.as_u32(),
                revision: self.revision,
                generation: 1,
                ..EndpointInfo::default()
            })?;
        }
        Ok(state)
    }
}

fn subject_labels(kind: u16) -> Labels {
    labels(&[("kind", &format!("k{kind}"))])
}

fn labels(own: &[(&str, &str)]) -> Labels {
    let given = [("io.kubernetes.pod.namespace", "bench"), ("io.cilium.k8s.policy.cluster", "default")];
    own.iter().chain(&given).map(|(key, value)| Label::k8s(*key, *value)).collect()
}

/// A policy that lets every client identity reach one port of the endpoints of a kind.
fn rules(kind: u16, port: u16) -> Result<Vec<Rule>> {
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: kind-{kind}, namespace: bench}}\n\
         spec:\n  endpointSelector: {{matchLabels: {{kind: k{kind}}}}}\n  ingress:\n  - fromEndpoints:\n    - \
         matchLabels: {{tier: client}}\n    toPorts:\n    - ports: [{{port: \"{port}\", protocol: TCP}}]\n"
    );
    let document = sluice_api::read_manifests(&text).into_iter().next().context("one document")?;
    let Ok(sluice_api::Object::CiliumNetworkPolicy(policy)) = document.content else {
        anyhow::bail!("the policy does not parse");
    };
    parse::cilium_network_policy(&policy, &Config::default()).map_err(|errors| anyhow::anyhow!("{errors:?}"))
}
