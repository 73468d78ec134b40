//! Flows that policy hands to a proxy, with real sockets on both sides of it: every place a client can be at, both
//! families and protocols; that nothing passes where the proxy is missing; that nobody can pretend.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::proxy::{Proxy, Seen, connected_as, transparent};
use crate::support::{ALICE, BOB, FAMILIES, MIDDLE, Pod, allow, allow_all, node, outside, row, table, world};
use crate::wire::{Node, inside, interface, ip, run};
use sluice_ebpf_loader::attach;
use sluice_ebpf_loader::common::{ConfigFlags, EventAction, EventKind, Mark, redirect_route};
use sluice_policy::map_state::{Entry, EntryVerdict, Key, L4Match, MapState};
use sluice_types::{Direction, DropReason, Identity, Protocol, ProxyPort, RuleId};

const PORT: u16 = 15_001;
const SERVER: u16 = 8_080;
const SOON: Duration = Duration::from_millis(900);
const RULE: u32 = 77;

/// Where a party is.
#[derive(Clone, Copy, Debug)]
enum At {
    Pod(&'static Pod),
    Node,
    Outside,
}

impl At {
    fn ip(self, family: u8) -> IpAddr {
        match self {
            Self::Pod(pod) => pod.ip(family),
            Self::Node => node(family),
            Self::Outside => outside(family),
        }
    }

    fn identity(self, family: u8) -> u32 {
        match self {
            Self::Pod(pod) => pod.identity,
            Self::Node => Identity::HOST.as_u32(),
            Self::Outside => world(family),
        }
    }

    fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Self::Pod(pod) => inside(pod, work),
            Self::Node => std::thread::spawn(work),
            Self::Outside => in_namespace("sluice-outside", work),
        }
    }
}

fn in_namespace<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let space = std::fs::File::open(Path::new("/run/netns").join(name)).unwrap();
    std::thread::spawn(move || {
        // SAFETY: only this thread changes its namespace.
        let result = unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
        work()
    })
}

/// The routing that the proxy needs.
fn route_to_proxy(verb: &str) {
    let (mark, kind) = (Mark::TO_PROXY.0, Mark::KIND);
    let (table, priority) = (redirect_route::TABLE, redirect_route::RULE_PRIORITY);
    for family in FAMILIES {
        ip(&format!("-{family} rule {verb} fwmark {mark:#x}/{kind:#x} lookup {table} pref {priority}"));
        ip(&format!("-{family} route {verb} local default dev lo table {table}"));
    }
}

/// A node with two pods and somebody outside, set up for a proxy.
fn rig(alice: &MapState, bob: &MapState) -> Node {
    let node_ = Node::new();
    for name in ["all", "default"] {
        run(&["sysctl", "-qw", &format!("net.ipv4.conf.{name}.rp_filter=0")]);
    }
    route_to_proxy("add");
    node_.pod(&ALICE, alice);
    node_.pod(&BOB, bob);
    for pod in [&ALICE, &BOB] {
        for setting in ["accept_local=1", "rp_filter=0"] {
            run(&["sysctl", "-qw", &format!("net.ipv4.conf.{}.{setting}", interface(pod))]);
        }
    }
    ip("netns add sluice-outside");
    // Neighbours are solicited from link-local addresses, which are to be of use at once.
    let no_dad = ["sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"];
    run(&no_dad);
    run(&[&["ip", "netns", "exec", "sluice-outside"], &no_dad[..]].concat());
    ip("link add up0 type veth peer name eth0 netns sluice-outside");
    ip("link set up0 up");
    ip("addr add 192.0.2.1/24 dev up0");
    ip("addr add 2001:db8::1/64 dev up0 nodad");
    for line in [
        "link set lo up",
        "link set eth0 up",
        "addr add 192.0.2.77/24 dev eth0",
        "addr add 2001:db8::77/64 dev eth0 nodad",
        "route add default via 192.0.2.1",
        "-6 route add default via 2001:db8::1",
    ] {
        ip(&format!("-n sluice-outside {line}"));
    }
    attach::attach_netdev(&node_.pins, "up0", attach::ifindex("up0").unwrap()).unwrap();
    node_
}

/// Answers every question of five bytes with the address of whoever asks, 64 bytes long.
struct Server {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<()>>,
}

fn answer_to(peer: SocketAddr) -> [u8; 64] {
    let mut bytes = [b' '; 64];
    let text = peer.to_string();
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

impl Server {
    fn start(at: At) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut workers = Vec::new();
        for family in FAMILIES {
            let address = SocketAddr::new(at.ip(family), SERVER);
            let (ready, wait) = std::sync::mpsc::channel();
            let (over, count, done) = (Arc::clone(&stop), Arc::clone(&asked), ready.clone());
            workers.push(at.run(move || {
                let listener = TcpListener::bind(address).unwrap();
                done.send(()).unwrap();
                accept(&listener, &over, &count);
            }));
            let (over, count) = (Arc::clone(&stop), Arc::clone(&asked));
            workers.push(at.run(move || {
                // A proxy answers from the same address.
                let socket = UdpSocket::from(transparent(libc::SOCK_DGRAM, address, 0).unwrap());
                socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                ready.send(()).unwrap();
                while !over.load(Ordering::Relaxed) {
                    let mut question = [0; 5];
                    if let Ok((_, peer)) = socket.recv_from(&mut question) {
                        count.fetch_add(1, Ordering::Relaxed);
                        drop(socket.send_to(&answer_to(peer), peer));
                    }
                }
            }));
            for _ in 0..2 {
                wait.recv().unwrap();
            }
        }
        Self { stop, asked, workers }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().unwrap();
        }
    }
}

fn accept(listener: &TcpListener, stop: &Arc<AtomicBool>, asked: &Arc<AtomicUsize>) {
    listener.set_nonblocking(true).unwrap();
    let mut connections = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, peer)) => {
                let (stop, asked) = (Arc::clone(stop), Arc::clone(asked));
                connections.push(std::thread::spawn(move || serve(stream, peer, &stop, &asked)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    }
    for connection in connections {
        connection.join().unwrap();
    }
}

fn serve(mut stream: TcpStream, peer: SocketAddr, stop: &AtomicBool, asked: &AtomicUsize) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let mut question = [0; 5];
        match stream.read(&mut question) {
            Ok(0) => return,
            Ok(_) => {
                asked.fetch_add(1, Ordering::Relaxed);
                if stream.write_all(&answer_to(peer)).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// One question on a connection: the address the server sees.
fn ask(stream: &mut TcpStream) -> std::io::Result<SocketAddr> {
    let mut answer = [0; 64];
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(b"who?\n")?;
    stream.read_exact(&mut answer)?;
    Ok(std::str::from_utf8(&answer).unwrap().trim().parse().unwrap())
}

/// Own address, and the one the server sees.
type Talk = Option<(SocketAddr, SocketAddr)>;

fn talk_tcp(to: SocketAddr) -> Talk {
    let mut stream = TcpStream::connect_timeout(&to, SOON).ok()?;
    let own = stream.local_addr().unwrap();
    Some((own, ask(&mut stream).ok()?))
}

fn talk_udp(from: IpAddr, to: SocketAddr) -> Talk {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.send(b"who?\n").ok()?;
    let mut answer = [0; 64];
    socket.recv(&mut answer).ok()?;
    let seen = std::str::from_utf8(&answer).unwrap().trim().parse().unwrap();
    Some((socket.local_addr().unwrap(), seen))
}

fn talk(protocol: Protocol, from: At, to: At, family: u8) -> Talk {
    let (own, to) = (from.ip(family), SocketAddr::new(to.ip(family), SERVER));
    let work = move || if protocol == Protocol::Tcp { talk_tcp(to) } else { talk_udp(own, to) };
    from.run(work).join().unwrap()
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn redirect(direction: Direction, peer: Option<Identity>, protocol: Protocol) -> (Key, Entry) {
    let verdict = EntryVerdict::Redirect(ProxyPort(PORT));
    row(direction, peer, L4Match::port(protocol, SERVER), MIDDLE, verdict, RULE)
}

/// Redirects the server's port in one direction, whoever the peer is; everything else passes.
fn redirecting(direction: Direction) -> MapState {
    let mut state = allow_all();
    state.entries.extend(PROTOCOLS.map(|protocol| redirect(direction, None, protocol)));
    state
}

/// A flow as the proxy must have seen it.
#[track_caller]
fn assert_seen(seen: &Seen, direction: Direction, own: At, peer: At, family: u8) {
    let facts = &seen.facts;
    assert_eq!(facts.direction, direction, "{seen:?}");
    let At::Pod(pod) = own else { panic!("only pods have policies") };
    assert_eq!(facts.endpoint, pod.endpoint(), "{seen:?}");
    assert_eq!(facts.own_identity.as_u32(), pod.identity, "{seen:?}");
    assert_eq!(facts.peer_identity.as_u32(), peer.identity(family), "{seen:?}");
    assert_eq!((facts.rule, facts.proxy_port), (RuleId(RULE), ProxyPort(PORT)), "{seen:?}");
    assert_ne!(facts.revision, 0, "{seen:?}");
    let (client, server) = if direction == Direction::Egress { (own, peer) } else { (peer, own) };
    assert_eq!(seen.client.ip(), client.ip(family), "{seen:?}");
    assert_eq!(seen.destination, SocketAddr::new(server.ip(family), SERVER), "{seen:?}");
}

#[test]
fn egress_goes_by_the_proxy_wherever_the_server_is() {
    let node_ = rig(&redirecting(Direction::Egress), &allow_all());
    let proxy = Proxy::well(&node_.pins, PORT);
    let alice = At::Pod(&ALICE);
    for to in [At::Pod(&BOB), At::Outside, At::Node] {
        let server = Server::start(to);
        for (family, protocol) in FAMILIES.into_iter().flat_map(|f| PROTOCOLS.map(|p| (f, p))) {
            println!("{protocol} {family} to {to:?}");
            let (own, seen_by_server) = talk(protocol, alice, to, family).expect("an answer");
            let [seen] = proxy.take()[..] else { panic!("one flow") };
            assert_seen(&seen, Direction::Egress, alice, to, family);
            assert_eq!(seen.client, own);
            let expected = if matches!(to, At::Node) { node(family) } else { ALICE.ip(family) };
            assert_eq!(seen_by_server.ip(), expected, "the address that the server sees");
            assert_eq!(seen.facts.destination_is_node, matches!(to, At::Node));
        }
        assert_eq!(server.asked(), 4);
    }
    assert_eq!(proxy.refused(), 0);
}

#[test]
fn ingress_goes_by_the_proxy_wherever_the_client_is() {
    let node_ = rig(&allow_all(), &redirecting(Direction::Ingress));
    let proxy = Proxy::well(&node_.pins, PORT);
    let bob = At::Pod(&BOB);
    let server = Server::start(bob);
    for from in [At::Pod(&ALICE), At::Node, At::Outside] {
        for (family, protocol) in FAMILIES.into_iter().flat_map(|f| PROTOCOLS.map(|p| (f, p))) {
            println!("{protocol} {family} from {from:?}");
            let (own, seen_by_server) = talk(protocol, from, bob, family).expect("an answer");
            let [seen] = proxy.take()[..] else { panic!("one flow") };
            assert_seen(&seen, Direction::Ingress, bob, from, family);
            assert_eq!(seen.client, own);
            assert_eq!(seen_by_server.ip(), from.ip(family), "the address that the server sees");
        }
    }
    assert_eq!((server.asked(), proxy.refused()), (12, 0));
}

#[test]
fn both_sides_redirect_one_after_the_other() {
    let node_ = rig(&redirecting(Direction::Egress), &redirecting(Direction::Ingress));
    let proxy = Proxy::well(&node_.pins, PORT);
    let (alice, bob) = (At::Pod(&ALICE), At::Pod(&BOB));
    let server = Server::start(bob);
    for family in FAMILIES {
        // The one UDP socket of this proxy is busy with the first leg when the second comes.
        let (own, seen_by_server) = talk(Protocol::Tcp, alice, bob, family).expect("an answer");
        let [first, second] = proxy.take()[..] else { panic!("two flows") };
        assert_seen(&first, Direction::Egress, alice, bob, family);
        assert_seen(&second, Direction::Ingress, bob, alice, family);
        assert_eq!(first.client, own);
        assert_eq!(seen_by_server.ip(), ALICE.ip(family));
    }
    assert_eq!(server.asked(), 2);
}

/// What a same-node server's policy says counts behind the proxy too, and about the client.
#[test]
fn the_servers_ingress_policy_is_judged_after_an_egress_proxy() {
    let ported = PROTOCOLS.map(|protocol| L4Match::port(protocol, SERVER));
    for (peer, passes) in [(ALICE.peer(), true), (Some(Identity::HOST), false), (BOB.peer(), false)] {
        let bob = table(ported.map(|l4| allow(Direction::Ingress, peer, l4, 3)));
        let node_ = rig(&redirecting(Direction::Egress), &bob);
        let proxy = Proxy::well(&node_.pins, PORT);
        let server = Server::start(At::Pod(&BOB));
        for (family, protocol) in FAMILIES.into_iter().flat_map(|f| PROTOCOLS.map(|p| (f, p))) {
            let answer = talk(protocol, At::Pod(&ALICE), At::Pod(&BOB), family);
            assert_eq!(answer.is_some(), passes, "{protocol} {family}, {peer:?} may: {answer:?}");
        }
        assert_eq!(proxy.take().len(), 4);
        assert_eq!(server.asked(), if passes { 4 } else { 0 });
        let counters = &node_.datapath.counters;
        let reason = Some(DropReason::PolicyDenied);
        let denied = counters.read(Some(BOB.endpoint()), Direction::Ingress, reason).unwrap().packets;
        assert_eq!(denied >= 4, !passes, "{denied} denied");
    }
}

#[test]
fn flows_without_a_redirect_never_meet_the_proxy() {
    let node_ = rig(&redirecting(Direction::Egress), &allow_all());
    let proxy = Proxy::well(&node_.pins, PORT);
    let (alice, bob) = (Server::start(At::Pod(&ALICE)), Server::start(At::Pod(&BOB)));
    for (family, protocol) in FAMILIES.into_iter().flat_map(|f| PROTOCOLS.map(|p| (f, p))) {
        for (from, to) in [
            (At::Pod(&BOB), At::Pod(&ALICE)),
            (At::Node, At::Pod(&ALICE)),
            (At::Node, At::Pod(&BOB)),
            (At::Outside, At::Pod(&BOB)),
        ] {
            let (own, seen) = talk(protocol, from, to, family).expect("an answer");
            assert_eq!(own, seen, "{from:?} to {to:?}");
        }
    }
    assert_eq!(alice.asked() + bob.asked(), 16);
    assert_eq!((proxy.take().len(), proxy.refused()), (0, 0));
}

/// No proxy, one that may not be trusted, or no route to it: nothing gets through.
#[test]
fn without_a_proxy_nothing_passes() {
    let node_ = rig(&redirecting(Direction::Egress), &redirecting(Direction::Ingress));
    let (alice, bob) = (At::Pod(&ALICE), At::Pod(&BOB));
    let servers = [Server::start(bob), Server::start(At::Outside)];
    let ways = [(alice, bob), (alice, At::Outside), (At::Outside, bob), (At::Node, bob)];
    let lost = |pod: &Pod, direction| {
        let reason = Some(DropReason::SocketLookupFailed);
        node_.datapath.counters.read(Some(pod.endpoint()), direction, reason).unwrap().packets
    };
    let nothing_passes = |what: &str| {
        for (family, protocol) in FAMILIES.into_iter().flat_map(|f| PROTOCOLS.map(|p| (f, p))) {
            let ways = ways.map(|(from, to)| {
                std::thread::scope(|scope| {
                    scope.spawn(|| talk(protocol, from, to, family)).join().unwrap().is_some()
                })
            });
            assert_eq!(ways, [false; 4], "{what}, {protocol} {family}");
        }
        assert_eq!(servers.each_ref().map(Server::asked), [0, 0], "{what}");
    };
    nothing_passes("no listener");
    let (egress, ingress) = (lost(&ALICE, Direction::Egress), lost(&BOB, Direction::Ingress));
    assert!(egress >= 8 && ingress >= 8, "{egress} and {ingress} counted");
    {
        let somebody = Proxy::start(&node_.pins, PORT, 0);
        nothing_passes("a listener without the mark");
        assert_eq!((somebody.take().len(), somebody.refused()), (0, 0));
    }
    let proxy = Proxy::well(&node_.pins, PORT);
    route_to_proxy("del");
    nothing_passes("no route to the proxy");
    assert_eq!(proxy.take().len(), 0);
    route_to_proxy("add");
    assert!(talk(Protocol::Tcp, alice, bob, 4).is_some(), "all is well again");
}

/// A pod's marks do not leave its namespace, and the proxy's port is not to be reached.
#[test]
fn pods_can_pretend_nothing() {
    let bob = table([allow(Direction::Ingress, ALICE.peer(), L4Match::Any, 3)]);
    let mut alices = allow_all();
    alices.entries.extend(PROTOCOLS.map(|protocol| redirect(Direction::Egress, None, protocol)));
    let node_ = rig(&alices, &bob);
    let proxy = Proxy::well(&node_.pins, PORT);
    let server = Server::start(At::Pod(&BOB));
    let marks = [
        Mark::TO_PROXY,
        Mark::returning(0),
        Mark::returning(PORT),
        Mark::LISTENER,
        Mark::leg(Direction::Egress, ALICE.endpoint()),
        Mark::leg(Direction::Ingress, BOB.endpoint()),
    ];
    for family in FAMILIES {
        let to = SocketAddr::new(BOB.ip(family), SERVER);
        for mark in marks {
            let own = ALICE.ip(family);
            let answer = inside(&ALICE, move || marked(SocketAddr::new(own, 0), mark.0, to)).join().unwrap();
            assert!(answer.is_some(), "{mark:?}: it goes the way of all its flows");
            let [seen] = proxy.take()[..] else { panic!("one flow with {mark:?}") };
            assert_seen(&seen, Direction::Egress, At::Pod(&ALICE), At::Pod(&BOB), family);
        }
        // The node's processes are no client of Alice's, whatever they connect to.
        let loopback: IpAddr =
            if family == 4 { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
        assert!(talk_tcp(SocketAddr::new(loopback, PORT)).is_none());
        for to in [node(family), loopback, ALICE.ip(family)] {
            let to = SocketAddr::new(to, PORT);
            assert!(inside(&ALICE, move || talk_tcp(to)).join().unwrap().is_none(), "{to}");
        }
    }
    assert_eq!((proxy.take().len(), proxy.refused()), (0, 2), "only the node's own reached the port");
    assert_eq!(server.asked(), 2 * marks.len());
    // A leg for somebody else than its source address is nobody's.
    let invalid = || {
        let reason = Some(DropReason::InvalidIdentity);
        node_.datapath.counters.read(Some(BOB.endpoint()), Direction::Ingress, reason).unwrap().packets
    };
    for (source, mark) in [
        (outside(4), Mark::leg(Direction::Egress, ALICE.endpoint())),
        (ALICE.ip(4), Mark::leg(Direction::Ingress, ALICE.endpoint())),
        (ALICE.ip(4), Mark::leg(Direction::Egress, crate::support::CAROL.endpoint())),
    ] {
        let before = invalid();
        assert!(marked(SocketAddr::new(source, 0), mark.0, SocketAddr::new(BOB.ip(4), SERVER)).is_none());
        assert!(invalid() > before, "{source} {mark:?}");
    }
}

/// A question by a transparent socket with a mark.
fn marked(own: SocketAddr, mark: u32, to: SocketAddr) -> Option<SocketAddr> {
    let socket = connected_as(own, mark, to).ok()?;
    ask(&mut TcpStream::from(socket)).ok()
}

/// A connection that a change puts behind the proxy, or takes from there, is reset at its next segment: nobody read
/// its beginning. The next one goes the new way.
#[test]
fn a_connection_does_not_survive_a_change_of_its_way() {
    for (direction, from) in [
        (Direction::Egress, At::Pod(&ALICE)),
        (Direction::Ingress, At::Pod(&ALICE)),
        (Direction::Ingress, At::Outside),
        (Direction::Ingress, At::Node),
    ] {
        let subject = if direction == Direction::Egress { &ALICE } else { &BOB };
        for (family, first_by_proxy) in FAMILIES.into_iter().flat_map(|f| [(f, false), (f, true)]) {
            println!("{direction:?} from {from:?}, {family}, first by proxy {first_by_proxy}");
            let node_ = rig(&allow_all(), &allow_all());
            let proxy = Proxy::well(&node_.pins, PORT);
            let server = Server::start(At::Pod(&BOB));
            let put = |by_proxy| {
                let state = if by_proxy { redirecting(direction) } else { allow_all() };
                node_.change_policy(subject, &state);
            };
            put(first_by_proxy);
            let (to_client, orders) = std::sync::mpsc::channel::<()>();
            let (answers, from_client) = std::sync::mpsc::channel();
            let to = SocketAddr::new(BOB.ip(family), SERVER);
            let client = from.run(move || {
                let mut stream = TcpStream::connect_timeout(&to, SOON).unwrap();
                while orders.recv().is_ok() {
                    answers.send(ask(&mut stream).map_err(|error| error.kind())).unwrap();
                }
            });
            let ask_again = || {
                to_client.send(()).unwrap();
                from_client.recv().unwrap()
            };
            assert!(ask_again().is_ok());
            assert_eq!(proxy.take().len(), usize::from(first_by_proxy));
            put(first_by_proxy);
            assert!(ask_again().is_ok(), "a change that changes nothing for it");
            put(!first_by_proxy);
            assert_eq!(ask_again(), Err(ErrorKind::ConnectionReset), "at once, not for want of an answer");
            assert_eq!(server.asked(), 2, "the question got nowhere");
            assert!(talk(Protocol::Tcp, from, At::Pod(&BOB), family).is_some());
            assert_eq!(proxy.take().len(), usize::from(!first_by_proxy));
            drop(to_client);
            client.join().unwrap();
        }
    }
}

/// Datagrams are judged one by one: the next goes the new way.
#[test]
fn datagrams_change_their_way_at_once() {
    let node_ = rig(&allow_all(), &allow_all());
    let proxy = Proxy::well(&node_.pins, PORT);
    let server = Server::start(At::Pod(&BOB));
    let to = SocketAddr::new(BOB.ip(4), SERVER);
    for (round, by_proxy) in [false, true, true, false].into_iter().enumerate() {
        node_.change_policy(&ALICE, &if by_proxy { redirecting(Direction::Egress) } else { allow_all() });
        let own = SocketAddr::new(ALICE.ip(4), 40_000);
        let answer = inside(&ALICE, move || {
            let socket = UdpSocket::bind(own).unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket.send(b"who?\n").unwrap();
            socket.recv(&mut [0; 64])
        });
        assert!(answer.join().unwrap().is_ok(), "round {round}");
        assert_eq!(proxy.take().len(), usize::from(by_proxy), "round {round}");
    }
    assert_eq!(server.asked(), 4);
}

/// Audit mode does not lead around the proxy, and what only audit lets pass does not lead to it.
#[test]
fn audit_mode_goes_by_the_proxy_too_and_events_say_so() {
    let rows = [redirect(Direction::Egress, BOB.peer(), Protocol::Tcp)];
    let state = MapState { audit_egress: true, audit_ingress: true, ..table(rows) };
    let node_ = rig(&state, &allow_all());
    let now = node_.datapath.settings.read().unwrap();
    let settings = sluice_ebpf_loader::Settings {
        flags: now.flags.with(ConfigFlags::VERDICT_EVENTS),
        conntrack_quota: now.conntrack_quota,
        events_per_second: now.events_per_second,
    };
    node_.datapath.settings.write(&settings).unwrap();
    let mut events = node_.datapath.events().unwrap();
    let proxy = Proxy::well(&node_.pins, PORT);
    let servers = [Server::start(At::Pod(&BOB)), Server::start(At::Outside)];
    for (to, by_proxy) in [(At::Pod(&BOB), true), (At::Outside, false)] {
        assert!(talk(Protocol::Tcp, At::Pod(&ALICE), to, 4).is_some());
        assert_eq!(proxy.take().len(), usize::from(by_proxy));
        let told: Vec<_> = events
            .by_ref()
            .filter(|event| event.endpoint == ALICE.id && event.direction == Direction::Egress as u8)
            .collect();
        let action = if by_proxy { EventAction::Redirect } else { EventAction::Audit };
        let first = told.first().expect("an event");
        assert_eq!((first.kind, first.action), (EventKind::PolicyVerdict as u8, action as u8), "{told:?}");
        let (port, rule) = if by_proxy { (PORT, RULE) } else { (0, 0) };
        assert_eq!((u16::from_be_bytes(first.proxy_port_be), first.rule), (port, rule), "{first:?}");
    }
    drop(servers);
}
