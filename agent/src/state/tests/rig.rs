//! The state with a remembering kernel and disk around it, and words to drive it.

use std::collections::{BTreeMap, BTreeSet};

use std::time::{Duration, Instant};

use ipnet::IpNet;
use sluice_client::model::{Endpoint, EndpointRequest};
use sluice_ebpf_common::{EndpointFlags, EndpointInfo, IpcacheEntry};
use sluice_policy::map_state::Key;
use sluice_policy::{MapState, Query};
use sluice_proxy_rules::EndpointRules;
use sluice_types::{Direction, EndpointId, Identity, Protocol, Verdict};

use super::super::{Restored, Settings, State};
use crate::datapath::Forget;
use crate::effect::{Batch, Effect, EndpointRecord, Failed, Failure, NumbersRecord, Record, Report, Step};
use crate::event::{Answer, Event, Now, Refusal, Request, Ticket};
use crate::identity::IdentityRecord;
use crate::ipam::{IpamRecord, Owner};
use crate::source::{Object, SourceChanges};

pub(super) type Reply = Result<Answer, Refusal>;

/// What the kernel and the disk hold.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) entries: BTreeMap<u16, EndpointInfo>,
    pub(super) policies: BTreeMap<u16, MapState>,
    pub(super) ipcache: BTreeMap<IpNet, IpcacheEntry>,
    pub(super) records: BTreeMap<EndpointId, EndpointRecord>,
    pub(super) rules: BTreeMap<EndpointId, EndpointRules>,
    pub(super) identities: Vec<IdentityRecord>,
    pub(super) numbers: NumbersRecord,
    pub(super) ipam: IpamRecord,
    /// What happened, in order.
    pub(super) log: Vec<String>,
    /// What is to fail.
    pub(super) broken: BTreeSet<Failed>,
    pub(super) batches: usize,
}

pub(super) struct Rig {
    pub(super) state: State,
    pub(super) world: World,
    pub(super) now: Now,
    pub(super) answers: BTreeMap<Ticket, Reply>,
    pub(super) rescans: usize,
    pub(super) forgotten: Vec<Forget>,
    /// Batches wait here while `is_slow`.
    pub(super) held: Option<Batch>,
    pub(super) is_slow: bool,
    tickets: u64,
}

pub(super) fn settings() -> Settings {
    Settings {
        policy: sluice_policy::Config {
            referents: true,
            admin_tiers: true,
            proxies: sluice_policy::Proxies {
                http: Some(sluice_types::ProxyPort(10_001)),
                kafka: Some(sluice_types::ProxyPort(10_002)),
                ..sluice_policy::Proxies::default()
            },
            ..sluice_policy::Config::default()
        },
        audit: false,
        enforcement: "default",
        source: "test".into(),
        pools: vec!["10.0.0.0/24".parse().unwrap()],
        release_rest: Duration::from_secs(60),
        mtu: 1500,
    }
}

pub(super) fn start() -> Now {
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    let instant = Instant::now();
    Now { instant, unix_ns: 1 }
}

impl Rig {
    /// A state that has read an empty source.
    pub(super) fn new() -> Self {
        let mut rig = Self::of(State::new(settings(), start()), World::default());
        rig.event(Event::NodeAddresses(BTreeSet::from(["192.168.0.1".parse().unwrap()])));
        rig.event(Event::Source(Box::default()));
        rig
    }

    pub(super) fn of(state: State, world: World) -> Self {
        Self {
            state,
            world,
            now: start(),
            answers: BTreeMap::new(),
            rescans: 0,
            forgotten: Vec::new(),
            held: None,
            is_slow: false,
            tickets: 0,
        }
    }

    /// The next agent on the same kernel and disk, before it has read anything.
    pub(super) fn restart(self, links: &[(u32, &str)]) -> Self {
        let world = World { log: Vec::new(), ..self.world };
        let bound = world.entries.values().map(|info| (info.ifindex, info.id)).collect();
        let restored = Restored {
            endpoints: world.records.values().cloned().collect(),
            identities: world.identities.clone(),
            numbers: world.numbers,
            ipam: world.ipam.clone(),
            kernel: world.entries.values().copied().collect(),
            bound,
            ipcache: world.ipcache.iter().map(|(prefix, entry)| (*prefix, *entry)).collect(),
            links: links.iter().map(|(index, name)| (*index, (*name).to_owned())).collect(),
            problems: Vec::new(),
        };
        Self::of(State::restore(settings(), restored, self.now), world)
    }

    pub(super) fn event(&mut self, event: Event) {
        let effects = self.state.apply(event, self.now);
        let mut next = Vec::new();
        for effect in effects {
            match effect {
                Effect::Execute(batch) if self.is_slow => {
                    assert!(self.held.replace(batch).is_none(), "two batches at once");
                }
                Effect::Execute(batch) => next.push(self.world.execute(batch)),
                Effect::Answer(ticket, reply) => {
                    self.world.log.push(format!("answer {}", ticket.0));
                    assert!(self.answers.insert(ticket, reply).is_none(), "answered twice");
                }
                Effect::Rescan => self.rescans += 1,
                Effect::Forget(forget) => self.forgotten.push(forget),
                Effect::Publish(_) => {}
            }
        }
        for report in next {
            self.event(Event::Executed(report));
        }
    }

    /// Carries out the batch that was held back.
    pub(super) fn release(&mut self) {
        let batch = self.held.take().expect("a batch is on its way");
        let report = self.world.execute(batch);
        self.event(Event::Executed(report));
    }

    pub(super) fn request(&mut self, request: Request) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.event(Event::Request(request, ticket));
        ticket
    }

    pub(super) fn ask(&mut self, request: Request) -> Reply {
        let ticket = self.request(request);
        self.answers.remove(&ticket).expect("answered at once")
    }

    /// Time passes, and what is due happens.
    pub(super) fn wait(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(at) = self.state.deadline().filter(|at| *at <= end) {
            self.now.instant = at.max(self.now.instant);
            self.event(Event::Tick);
            self.now.instant += Duration::from_millis(1);
        }
        self.now.instant = end;
    }

    /// New versions of the objects in these manifests.
    pub(super) fn manifests(&mut self, text: &str) {
        self.event(Event::Source(Box::new(changes(text))));
    }

    pub(super) fn remove(&mut self, text: &str) {
        let set = changes(text).set;
        let removed = set.iter().map(Object::key).collect();
        self.event(Event::Source(Box::new(SourceChanges { removed, ..SourceChanges::default() })));
    }

    pub(super) fn pod(&mut self, name: &str, label: &str) {
        self.manifests(&pod(name, label));
    }

    /// A pod with a lease and an endpoint.
    pub(super) fn running(&mut self, name: &str, label: &str) -> Endpoint {
        self.pod(name, label);
        let request = self.attachment(name);
        endpoint(self.ask(Request::CreateEndpoint(Box::new(request))))
    }

    pub(super) fn attachment(&mut self, name: &str) -> EndpointRequest {
        let Ok(Answer::Lease(lease)) = self.ask(Request::Lease(owner(name))) else { panic!("no lease") };
        let index = u32::from(lease.ipv4.unwrap().octets()[3]);
        EndpointRequest {
            container_id: name.into(),
            ifname: "eth0".into(),
            netns: "/proc/1/ns/net".into(),
            pod_namespace: Some("shop".into()),
            pod_name: Some(name.into()),
            pod_uid: None,
            host_ifname: format!("slu{index}"),
            host_ifindex: 100 + index,
            mac: format!("02:00:00:00:00:{index:02x}"),
            host_mac: format!("02:00:00:00:01:{index:02x}"),
            ipv4: lease.ipv4,
            ipv6: None,
            chained: false,
            own_ipam: true,
        }
    }

    pub(super) fn endpoint(&mut self, id: EndpointId) -> Endpoint {
        endpoint(self.ask(Request::Endpoint(id)))
    }

    pub(super) fn problems(&mut self) -> Vec<String> {
        let Ok(Answer::Status(status)) = self.ask(Request::Status) else { panic!("no status") };
        status
            .problems
            .into_iter()
            .map(|problem| format!("{}: {}", problem.object, problem.message))
            .collect()
    }
}

impl World {
    fn execute(&mut self, batch: Batch) -> Report {
        self.batches += 1;
        let mut failures = Vec::new();
        for step in batch.steps {
            match step {
                Step::Store(record) => self.store(record, &mut failures),
                Step::Install(installations) => {
                    for installation in installations {
                        for info in installation.endpoints {
                            if self.fails(Failed::Install(id(info.id)), &mut failures) {
                                self.entries
                                    .insert(info.id, EndpointInfo { flags: EndpointFlags(0), ..info });
                                continue;
                            }
                            self.policies.insert(info.id, (*installation.policy.map_state).clone());
                            self.entries.insert(info.id, info);
                            self.log.push(format!("install {}", info.id));
                        }
                    }
                }
                Step::Amend(amendments) => {
                    for amendment in amendments {
                        for endpoint in &amendment.endpoints {
                            let raw = endpoint.as_u16();
                            let table = self.policies.get_mut(&raw).unwrap();
                            table.entries.extend(amendment.add.iter().copied());
                            table.entries.retain(|key: &Key, _| !amendment.remove.contains(key));
                            assert_eq!(
                                *table, *amendment.policy.map_state,
                                "the amendment leads to the policy"
                            );
                            self.log.push(format!("amend {raw}"));
                        }
                    }
                }
                Step::Endpoint(infos) => {
                    for info in infos {
                        self.entries.insert(info.id, info);
                        self.log.push(format!("entry {}", info.id));
                    }
                }
                Step::Unbind(ifindex) => self.log.push(format!("unbind {ifindex}")),
                Step::Ipcache { set, remove } => self.write_ipcache(set, remove, &mut failures),
                Step::Remove(id) => {
                    if !self.fails(Failed::Remove(id), &mut failures) {
                        self.entries.remove(&id.as_u16());
                        self.policies.remove(&id.as_u16());
                        self.log.push(format!("remove {id}"));
                    }
                }
            }
        }
        Report { failures }
    }

    fn store(&mut self, record: Record, failures: &mut Vec<Failure>) {
        let what = match &record {
            Record::Ipam(_) => Failed::StoreIpam,
            Record::Identities(_) | Record::Numbers(_) | Record::EndpointGone(_) => Failed::StoreTables,
            Record::Endpoint(endpoint) => Failed::StoreEndpoint(endpoint.id),
            Record::Rules(rules) => Failed::StoreRules(rules.endpoint),
            Record::RulesGone(id) => Failed::StoreRules(*id),
        };
        if self.fails(what, failures) {
            return;
        }
        match record {
            Record::Ipam(record) => self.ipam = record,
            Record::Identities(rows) => self.identities = rows,
            Record::Numbers(numbers) => self.numbers = numbers,
            Record::Endpoint(endpoint) => {
                self.log.push(format!("store {}", endpoint.id));
                self.records.insert(endpoint.id, *endpoint);
            }
            Record::EndpointGone(id) => {
                self.log.push(format!("unstore {id}"));
                self.records.remove(&id);
            }
            Record::Rules(rules) => {
                self.log.push(format!("rules {}", rules.endpoint));
                self.rules.insert(rules.endpoint, *rules);
            }
            Record::RulesGone(id) => {
                if self.rules.remove(&id).is_some() {
                    self.log.push(format!("no rules {id}"));
                }
            }
        }
    }

    fn write_ipcache(
        &mut self,
        set: Vec<(IpNet, IpcacheEntry)>,
        remove: Vec<IpNet>,
        failures: &mut Vec<Failure>,
    ) {
        for (prefix, entry) in set {
            if !self.fails(Failed::Ipcache(prefix), failures) {
                self.log.push(format!("ipcache {prefix}={}", entry.identity));
                self.ipcache.insert(prefix, entry);
            }
        }
        for prefix in remove {
            if !self.fails(Failed::Ipcache(prefix), failures) {
                self.log.push(format!("ipcache {prefix} gone"));
                self.ipcache.remove(&prefix);
            }
        }
    }

    fn fails(&self, what: Failed, failures: &mut Vec<Failure>) -> bool {
        let is_broken = self.broken.contains(&what);
        if is_broken {
            failures.push(Failure { what, reason: "no room".into() });
        }
        is_broken
    }

    /// What the kernel would do with a TCP packet from `source` to port `port` of an endpoint.
    pub(super) fn ingress(&self, endpoint: EndpointId, source: &str, port: u16) -> Verdict {
        let raw = endpoint.as_u16();
        let is_ready = self.entries.get(&raw).is_some_and(|info| info.flags.contains(EndpointFlags::READY));
        if !is_ready {
            return Verdict::Deny(sluice_types::DropReason::EndpointNotReady);
        }
        let source: std::net::IpAddr = source.parse().unwrap();
        let entry = (0..=32).rev().find_map(|length| {
            let net = IpNet::new(source, length).unwrap().trunc();
            self.ipcache.get(&net)
        });
        let peer = entry.map_or(Identity::WORLD_IPV4, |entry| Identity::new(entry.identity));
        let query = Query { direction: Direction::Ingress, peer, protocol: Protocol::Tcp, port: Some(port) };
        self.policies[&raw].decide(&query).verdict
    }

    /// Where in the log `what` happened.
    pub(super) fn at(&self, what: &str) -> usize {
        self.log
            .iter()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("{what:?} did not happen: {:#?}", self.log))
    }
}

fn id(raw: u16) -> EndpointId {
    EndpointId::new(raw).unwrap()
}

pub(super) fn endpoint(reply: Reply) -> Endpoint {
    match reply {
        Ok(Answer::Endpoint(endpoint)) => *endpoint,
        other => panic!("no endpoint: {other:?}"),
    }
}

pub(super) fn owner(name: &str) -> Owner {
    Owner { container_id: name.into(), ifname: "eth0".into() }
}

pub(super) fn pod(name: &str, label: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, uid: uid-{name}, labels: {{app: {label}}}}}\n"
    )
}

/// Allows `from` to reach `to`.
pub(super) fn allow(name: &str, to: &str, from: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: {to}}}}}\n  ingress:\n  - {from}\n"
    )
}

pub(super) fn from_pods(label: &str) -> String {
    format!("fromEndpoints: [{{matchLabels: {{app: {label}}}}}]")
}

fn changes(text: &str) -> SourceChanges {
    let documents = crate::source::read_documents(text, &settings().policy);
    SourceChanges { set: documents, ..SourceChanges::default() }
}
