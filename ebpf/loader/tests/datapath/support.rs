//! A datapath of its own for each test, packets to put in, and what must come out: verdict, counters and events.

pub(crate) mod packet;
pub(crate) mod proxy;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use sluice_ebpf_loader::common::{
    ConfigFlags, CounterKey, EndpointFlags, EndpointInfo, Event, EventAction, EventKind, IpcacheEntry,
    IpcacheFlags,
};
use sluice_ebpf_loader::conntrack::Connection;
use sluice_ebpf_loader::{Datapath, EventReader, Settings, Sizes, TestRun};
use sluice_policy::map_state::{Entry, EntryVerdict, Key, L4Match, MapState};
use sluice_types::{Direction, DropReason, EndpointId, Identity, RuleId};

/// Both families, by the version number.
pub(crate) const FAMILIES: [u8; 2] = [4, 6];

/// The interface at which all programs are run: the loopback of the test's own network namespace.
const HOOK: u32 = 1;

/// A pod of the test's node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    pub(crate) id: u16,
    pub(crate) identity: u32,
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) host_mac: [u8; 6],
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
}

impl Pod {
    const fn new(nth: u8, identity: u32) -> Self {
        Self {
            id: nth as u16,
            identity,
            ifindex: 100 + nth as u32,
            mac: [2, 0, 0, 0, 2, nth],
            host_mac: [2, 0, 0, 0, 1, nth],
            ipv4: Ipv4Addr::new(10, 200, 0, nth),
            ipv6: Ipv6Addr::new(0xfd00, 200, 0, 0, 0, 0, 0, nth as u16),
        }
    }

    pub(crate) const fn ip(&self, family: u8) -> IpAddr {
        if family == 4 { IpAddr::V4(self.ipv4) } else { IpAddr::V6(self.ipv6) }
    }

    pub(crate) fn endpoint(&self) -> EndpointId {
        EndpointId::new(self.id).unwrap()
    }

    pub(crate) fn peer(&self) -> Option<Identity> {
        Some(Identity::new(self.identity))
    }

    /// The link-local address made from its MAC address.
    pub(crate) fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac;
        let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        Ipv6Addr::from(octets)
    }
}

pub(crate) const ALICE: Pod = Pod::new(1, 1001);
pub(crate) const BOB: Pod = Pod::new(2, 1002);
pub(crate) const CAROL: Pod = Pod::new(3, 1003);

/// An address that nobody knows.
pub(crate) fn outside(family: u8) -> IpAddr {
    if family == 4 {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77))
    }
}

/// An address of the node.
pub(crate) fn node(family: u8) -> IpAddr {
    if family == 4 {
        IpAddr::V4(Ipv4Addr::new(10, 200, 255, 1))
    } else {
        IpAddr::V6(Ipv6Addr::new(0xfd0a, 0, 0, 0, 0, 0, 0, 1))
    }
}

/// The identity of an unknown address.
pub(crate) fn world(family: u8) -> u32 {
    if family == 4 { Identity::WORLD_IPV4 } else { Identity::WORLD_IPV6 }.as_u32()
}

/// Through which interface a packet for a pod came to the node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From<'a> {
    Node,
    Device,
    Pod(&'a Pod),
}

/// The datapath with its pods.
pub(crate) struct Lab {
    pub(crate) datapath: Datapath,
    events: EventReader,
    infos: BTreeMap<u16, EndpointInfo>,
}

/// Keeps the calling thread on one CPU.
pub(crate) fn stay_on_this_cpu() {
    // SAFETY: a set of our own, of the size that is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set), 0);
    }
}

static REVISION: AtomicU32 = AtomicU32::new(1);

pub(crate) fn next_revision() -> u32 {
    REVISION.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn small() -> Sizes {
    Sizes {
        conntrack: 4_096,
        addresses: 256,
        prefixes: 256,
        fragments: 64,
        counters: 4_096,
        event_bytes: 1 << 20,
    }
}

impl Lab {
    /// A fresh datapath, a namespace of its own for this thread, the node's addresses, and no pods.
    pub(crate) fn empty() -> Self {
        Self::with(&small())
    }

    pub(crate) fn with(sizes: &Sizes) -> Self {
        // SAFETY: only this thread changes its namespace.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "unshare: {} (the tests need root)", std::io::Error::last_os_error());
        let datapath = Datapath::load_unpinned(sizes).unwrap();
        let events = datapath.events().unwrap();
        let lab = Self { datapath, events, infos: BTreeMap::new() };
        lab.settings(Settings { conntrack_quota: 0, events_per_second: 1_000_000, ..Settings::default() });
        for family in FAMILIES {
            lab.address(node(family), Identity::HOST.as_u32(), 0, IpcacheFlags::NODE_LOCAL);
        }
        lab
    }

    /// Alice, Bob and Carol, each with a policy that allows everything.
    pub(crate) fn open() -> Self {
        let mut lab = Self::empty();
        for pod in [&ALICE, &BOB, &CAROL] {
            lab.pod(pod, EndpointFlags::READY);
            lab.policy(pod, &allow_all());
        }
        lab
    }

    pub(crate) fn settings(&self, settings: Settings) {
        self.datapath.settings.write(&settings).unwrap();
    }

    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        let now = self.datapath.settings.read().unwrap();
        let mut settings = Settings {
            flags: now.flags,
            conntrack_quota: now.conntrack_quota,
            events_per_second: now.events_per_second,
        };
        change(&mut settings);
        self.settings(settings);
    }

    pub(crate) fn flag(&self, flag: ConfigFlags, on: bool) {
        self.change_settings(|settings| {
            settings.flags.0 = if on { settings.flags.0 | flag.0 } else { settings.flags.0 & !flag.0 };
        });
    }

    pub(crate) fn address(&self, address: IpAddr, identity: u32, endpoint: u16, flags: IpcacheFlags) {
        self.prefix(IpNet::from(address), identity, endpoint, flags);
    }

    pub(crate) fn prefix(&self, prefix: IpNet, identity: u32, endpoint: u16, flags: IpcacheFlags) {
        let entry = IpcacheEntry { identity, endpoint, flags, tunnel_be: [0; 4] };
        self.datapath.ipcache.upsert(prefix, &entry).unwrap();
        self.datapath.settings.bump_epoch().unwrap();
    }

    /// Makes a pod known, in a new life.
    pub(crate) fn pod(&mut self, pod: &Pod, flags: EndpointFlags) {
        let info = EndpointInfo {
            id: pod.id,
            flags,
            ifindex: pod.ifindex,
            identity: pod.identity,
            revision: next_revision(),
            generation: next_revision(),
            mac: pod.mac,
            host_mac: pod.host_mac,
            ipv4_be: pod.ipv4.octets(),
            ipv6_be: pod.ipv6.octets(),
            ..EndpointInfo::default()
        };
        self.infos.insert(pod.id, info);
        self.datapath.endpoints.insert(&info).unwrap();
        for family in FAMILIES {
            self.address(pod.ip(family), pod.identity, pod.id, IpcacheFlags::default());
        }
    }

    pub(crate) fn change_pod(&mut self, pod: &Pod, change: impl FnOnce(&mut EndpointInfo)) {
        let info = self.infos.get_mut(&pod.id).unwrap();
        change(info);
        self.datapath.endpoints.insert(info).unwrap();
    }

    /// Installs a policy and puts its revision in force.
    pub(crate) fn policy(&mut self, pod: &Pod, state: &MapState) {
        drop(self.datapath.policies.install(&[pod.endpoint()], state).unwrap());
        self.change_pod(pod, |info| info.revision = next_revision());
    }

    /// The pod sends this frame.
    pub(crate) fn send(&mut self, pod: &Pod, frame: &[u8]) -> Outcome {
        self.run("from_container", pod, frame, 0)
    }

    /// The stack delivers this frame to the pod.
    pub(crate) fn receive(&mut self, pod: &Pod, frame: &[u8], from: From<'_>) -> Outcome {
        let came_in = match from {
            From::Node => 0,
            From::Device => 77,
            From::Pod(pod) => pod.ifindex,
        };
        self.run("to_container", pod, frame, came_in)
    }

    /// This frame comes from outside.
    pub(crate) fn arrive(&mut self, frame: &[u8]) -> Outcome {
        self.measured("from_netdev", frame, 0)
    }

    fn run(&mut self, program: &'static str, pod: &Pod, frame: &[u8], came_in: u32) -> Outcome {
        if let Some(info) = self.infos.get(&pod.id) {
            // The hook's interface leads to the pod; the pod's own stays what it is.
            self.datapath.endpoints.insert(&EndpointInfo { ifindex: HOOK, ..*info }).unwrap();
            self.datapath.endpoints.insert(info).unwrap();
        } else {
            self.datapath.endpoints.remove_interface(HOOK).unwrap();
        }
        self.measured(program, frame, came_in)
    }

    fn measured(&mut self, program: &'static str, frame: &[u8], came_in: u32) -> Outcome {
        let before = self.counters();
        let stale = self.events.by_ref().count();
        assert_eq!(stale, 0, "nobody read the events of an earlier packet");
        let run = self.datapath.run(program, frame, HOOK, came_in, 1).unwrap();
        let mut counted = self.counters();
        for (key, packets) in before {
            *counted.entry(key).or_default() -= packets;
        }
        counted.retain(|_, packets| *packets != 0);
        let events = self.events.by_ref().collect();
        Outcome { run, counted, events, sent: frame.to_vec() }
    }

    fn counters(&self) -> BTreeMap<(u16, u8, u8), u64> {
        let counters = &self.datapath.counters;
        let mut all: BTreeMap<_, _> = counters
            .drops()
            .unwrap()
            .into_iter()
            .map(|(CounterKey { endpoint, reason, direction }, counters)| {
                ((endpoint, reason, direction), counters.packets)
            })
            .collect();
        // The table of forwarded packets is large; only the pods' own slots can have changed.
        for pod in [None, Some(&ALICE), Some(&BOB), Some(&CAROL)] {
            for direction in Direction::ALL {
                let forwarded = counters.read(pod.map(Pod::endpoint), direction, None).unwrap();
                all.insert((pod.map_or(0, |pod| pod.id), 0, direction as u8), forwarded.packets);
            }
        }
        all
    }

    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.datapath.conntrack.dump().unwrap()
    }
}

/// What became of a packet.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) run: TestRun,
    /// How often each counter (endpoint, reason, direction) rose.
    pub(crate) counted: BTreeMap<(u16, u8, u8), u64>,
    pub(crate) events: Vec<Event>,
    sent: Vec<u8>,
}

const EGRESS: u8 = Direction::Egress as u8;
const INGRESS: u8 = Direction::Ingress as u8;

impl Outcome {
    fn counts(&self, want: &[(u16, u8, u8)]) {
        let want: BTreeMap<_, _> = want.iter().map(|key| (*key, 1)).collect();
        assert_eq!(self.counted, want, "counters (endpoint, reason, direction) of {self:?}");
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(self.run.packet, self.sent, "the frame was changed");
    }

    /// Left to the stack at the sending pod's hook, without an event.
    #[track_caller]
    pub(crate) fn passes_from(self, pod: &Pod) {
        assert!(self.events.is_empty(), "{self:?}");
        self.passes_with_events(pod, EGRESS);
    }

    /// Delivered to the pod by the stack, without an event.
    #[track_caller]
    pub(crate) fn passes_to(self, pod: &Pod) {
        assert!(self.events.is_empty(), "{self:?}");
        self.passes_with_events(pod, INGRESS);
    }

    #[track_caller]
    pub(crate) fn passes_with_events(&self, pod: &Pod, direction: u8) {
        assert_eq!(self.run.verdict, 0, "{self:?}");
        self.counts(&[(pod.id, 0, direction)]);
        self.untouched();
    }

    /// Passes at the hook of the node's device: neither counted nor told.
    #[track_caller]
    pub(crate) fn passes_by(self) {
        assert_eq!(self.run.verdict, 0, "{self:?}");
        assert!(self.events.is_empty(), "{self:?}");
        self.counts(&[]);
        self.untouched();
    }

    /// Delivered straight from one pod to the other, with the addresses of the last link, without an event.
    #[track_caller]
    pub(crate) fn delivered(self, from: &Pod, to: &Pod) {
        assert!(self.events.is_empty(), "{self:?}");
        self.delivered_with_events(from, to);
    }

    #[track_caller]
    pub(crate) fn delivered_with_events(&self, from: &Pod, to: &Pod) {
        assert_eq!(self.run.verdict, 7, "{self:?}");
        self.counts(&[(from.id, 0, EGRESS), (to.id, 0, INGRESS)]);
        assert_eq!(self.run.packet[..6], to.mac);
        assert_eq!(self.run.packet[6..12], to.host_mac);
        assert_eq!(self.run.packet[12..], self.sent[12..]);
    }

    /// Dropped at the pod that sends, for a reason of its own hook or policy; one event says so.
    #[track_caller]
    pub(crate) fn dropped_from(self, pod: &Pod, reason: DropReason) -> Event {
        self.dropped(pod.id, reason, EGRESS)
    }

    /// Dropped at the pod that receives.
    #[track_caller]
    pub(crate) fn dropped_to(self, pod: &Pod, reason: DropReason) -> Event {
        self.dropped(pod.id, reason, INGRESS)
    }

    #[track_caller]
    pub(crate) fn dropped(self, endpoint: u16, reason: DropReason, direction: u8) -> Event {
        assert_eq!(self.run.verdict, 2, "{self:?}");
        self.counts(&[(endpoint, reason.number(), direction)]);
        let [event] = self.events.as_slice() else { panic!("one event expected: {self:?}") };
        assert_eq!(event.kind, EventKind::Drop as u8, "{event:?}");
        assert_eq!(DropReason::from_number(event.reason), Some(reason), "{event:?}");
        assert_eq!(event.action, EventAction::Deny as u8, "{event:?}");
        assert_eq!((event.endpoint, event.direction), (endpoint, direction), "{event:?}");
        assert_eq!(event.length as usize, self.sent.len(), "{event:?}");
        assert_eq!(event.ifindex, HOOK, "{event:?}");
        assert!(event.time_ns > 0, "{event:?}");
        *event
    }
}

/// Precedences as the tests use them.
pub(crate) const LOW: u32 = 10;
pub(crate) const MIDDLE: u32 = 20;
pub(crate) const HIGH: u32 = 30;

/// One row of a decision table.
pub(crate) fn row(
    direction: Direction,
    peer: Option<Identity>,
    l4: L4Match,
    precedence: u32,
    verdict: EntryVerdict,
    rule: u32,
) -> (Key, Entry) {
    (Key { direction, peer, l4 }, Entry { precedence, verdict, rule: RuleId(rule) })
}

pub(crate) fn allow(direction: Direction, peer: Option<Identity>, l4: L4Match, rule: u32) -> (Key, Entry) {
    row(direction, peer, l4, LOW, EntryVerdict::Allow, rule)
}

pub(crate) fn deny(direction: Direction, peer: Option<Identity>, l4: L4Match, rule: u32) -> (Key, Entry) {
    row(direction, peer, l4, HIGH, EntryVerdict::Deny, rule)
}

pub(crate) fn table(rows: impl IntoIterator<Item = (Key, Entry)>) -> MapState {
    MapState { entries: rows.into_iter().collect(), ..MapState::default() }
}

/// What is not enforced: everything passes.
pub(crate) fn allow_all() -> MapState {
    table(Direction::ALL.map(|direction| allow(direction, None, L4Match::Any, 0)))
}

/// Nothing passes in this direction, everything in the other.
pub(crate) fn closed(direction: Direction) -> MapState {
    let other = if direction == Direction::Ingress { Direction::Egress } else { Direction::Ingress };
    table([allow(other, None, L4Match::Any, 0)])
}
