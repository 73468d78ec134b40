//! Real interfaces and real traffic: attaching, taking over after a restart, and that nothing passes unjudged
//! meanwhile. Everything lives in namespaces of the test's own thread, and goes with it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{ALICE, BOB, FAMILIES, Pod, allow, allow_all, node, small, table};
use sluice_ebpf_loader::common::{EndpointFlags, EndpointInfo, IpcacheEntry, IpcacheFlags};
use sluice_ebpf_loader::{Datapath, Settings, attach, bpffs};
use sluice_policy::map_state::{L4Match, MapState};
use sluice_types::{Direction, DropReason, Identity, Protocol};

/// A node in namespaces of its own: network, and mounts for pins and the pods' namespaces.
pub(crate) struct Node {
    pub(crate) pins: PathBuf,
    pub(crate) datapath: Datapath,
    _directory: tempfile::TempDir,
}

pub(crate) fn run(words: &[&str]) {
    let (command, arguments) = words.split_first().unwrap();
    let output = Command::new(command).args(arguments).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn ip(line: &str) {
    let words: Vec<_> = std::iter::once("ip").chain(line.split_whitespace()).collect();
    run(&words);
}

pub(crate) fn interface(pod: &Pod) -> String {
    format!("slutest{}", pod.id)
}

pub(crate) fn namespace(pod: &Pod) -> String {
    format!("sluice-test-{}", pod.id)
}

impl Node {
    pub(crate) fn new() -> Self {
        // SAFETY: only this thread changes its namespaces.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
        assert_eq!(result, 0, "unshare: {} (the tests need root)", std::io::Error::last_os_error());
        run(&["mount", "--make-rprivate", "/"]);
        run(&["mount", "-t", "tmpfs", "tmpfs", "/run"]);
        ip("link set lo up");
        for family in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            run(&["sysctl", "-qw", &format!("{family}=1")]);
        }
        let directory = tempfile::tempdir().unwrap();
        bpffs::ensure(directory.path()).unwrap();
        let pins = directory.path().join("sluice/v1");
        let datapath = Datapath::load_or_adopt(&pins, &small()).unwrap();
        let settings = Settings { events_per_second: 1_000, ..Settings::default() };
        datapath.settings.write(&settings).unwrap();
        for family in FAMILIES {
            let entry = IpcacheEntry {
                identity: Identity::HOST.as_u32(),
                flags: IpcacheFlags::NODE_LOCAL,
                ..IpcacheEntry::default()
            };
            datapath.ipcache.upsert(node(family).into(), &entry).unwrap();
            ip(&format!("addr add {} dev lo", node(family)));
        }
        Self { pins, datapath, _directory: directory }
    }

    /// A pod's namespace, wired as the CNI plugin does it: routes through the link, fixed neighbours.
    fn wire(&self, pod: &Pod) -> u32 {
        let (host, space) = (interface(pod), namespace(pod));
        let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("netns add {space}"));
        ip(&format!(
            "link add {host} address {} type veth peer name eth0 address {} netns {space}",
            mac(pod.host_mac),
            mac(pod.mac)
        ));
        ip(&format!("link set {host} up"));
        for line in [
            "link set lo up".to_owned(),
            "link set eth0 up".to_owned(),
            format!("addr add {}/32 dev eth0", pod.ipv4),
            format!("addr add {}/128 dev eth0 nodad", pod.ipv6),
            format!("neigh add 169.254.1.1 lladdr {} dev eth0 nud permanent", mac(pod.host_mac)),
            format!("neigh add fe80::1 lladdr {} dev eth0 nud permanent", mac(pod.host_mac)),
            "route add 169.254.1.1 dev eth0".to_owned(),
            "route add default via 169.254.1.1 dev eth0".to_owned(),
            "-6 route add default via fe80::1 dev eth0".to_owned(),
        ] {
            ip(&format!("-n {space} {line}"));
        }
        for family in FAMILIES {
            ip(&format!(
                "-{family} neigh add {} lladdr {} dev {host} nud permanent",
                pod.ip(family),
                mac(pod.mac)
            ));
            ip(&format!("-{family} route add {} dev {host}", pod.ip(family)));
        }
        attach::ifindex(&host).unwrap()
    }

    /// Wires a pod, makes it known with a policy, and attaches its programs.
    pub(crate) fn pod(&self, pod: &Pod, state: &MapState) {
        let ifindex = self.wire(pod);
        self.datapath.policies.install(&[pod.endpoint()], state).map(drop).unwrap();
        let info = EndpointInfo {
            id: pod.id,
            flags: EndpointFlags::READY,
            ifindex,
            identity: pod.identity,
            revision: crate::support::next_revision(),
            generation: crate::support::next_revision(),
            mac: pod.mac,
            host_mac: pod.host_mac,
            ipv4_be: pod.ipv4.octets(),
            ipv6_be: pod.ipv6.octets(),
            ..EndpointInfo::default()
        };
        self.datapath.endpoints.insert(&info).unwrap();
        for family in FAMILIES {
            let entry = IpcacheEntry { identity: pod.identity, endpoint: pod.id, ..IpcacheEntry::default() };
            self.datapath.ipcache.upsert(pod.ip(family).into(), &entry).unwrap();
        }
        attach::attach_container(&self.pins, &interface(pod), ifindex).unwrap();
        assert!(attach::is_attached(&self.pins, &interface(pod), ifindex).unwrap());
    }
}

impl Node {
    /// Puts another policy of a pod in force.
    pub(crate) fn change_policy(&self, pod: &Pod, state: &MapState) {
        self.datapath.policies.install(&[pod.endpoint()], state).map(drop).unwrap();
        let mut info = self.datapath.endpoints.read(pod.endpoint()).unwrap().unwrap();
        info.revision = crate::support::next_revision();
        self.datapath.endpoints.insert(&info).unwrap();
    }
}

/// Runs in a thread inside the pod's namespace.
pub(crate) fn inside<T: Send + 'static>(
    pod: &Pod,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let path = Path::new("/run/netns").join(namespace(pod));
    let space = File::open(&path).unwrap();
    std::thread::spawn(move || {
        // SAFETY: only this thread changes its namespace.
        let result = unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
        work()
    })
}

pub(crate) const SOON: Duration = Duration::from_millis(400);

/// Accepts connections and sends back what comes, until told to stop.
fn serve(pod: &Pod, address: SocketAddr, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    let (ready, wait) = std::sync::mpsc::channel();
    let server = inside(pod, move || {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        ready.send(()).unwrap();
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(SOON)).unwrap();
                    let mut bytes = [0; 5];
                    // A client that went away is the client's matter.
                    drop(stream.read_exact(&mut bytes).and_then(|()| stream.write_all(&bytes)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    wait.recv().unwrap();
    server
}

fn talk(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, SOON) else { return false };
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut bytes = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut bytes).is_ok() && &bytes == b"hello"
}

#[test]
fn traffic_between_pods_and_with_the_node() {
    let node_ = Node::new();
    node_.pod(&ALICE, &allow_all());
    let port = |port| L4Match::port(Protocol::Tcp, port);
    node_.pod(
        &BOB,
        &table([
            allow(Direction::Ingress, ALICE.peer(), port(8080), 1),
            allow(Direction::Ingress, Some(Identity::HOST), port(9090), 2),
        ]),
    );
    for family in FAMILIES {
        for (server_port, from_alice, from_node) in
            [(8080, true, false), (9090, false, true), (7070, false, false)]
        {
            let stop = Arc::new(AtomicBool::new(false));
            let address = SocketAddr::new(BOB.ip(family), server_port);
            let server = serve(&BOB, address, &stop);
            let alice = inside(&ALICE, move || talk(address)).join().unwrap();
            assert_eq!(alice, from_alice, "alice to {address}");
            assert_eq!(talk(address), from_node, "node to {address}");
            stop.store(true, Ordering::Relaxed);
            server.join().unwrap();
        }
    }
    // Each packet counts for both pods, the denied ones for the pod that refused.
    let count = |pod: &Pod, direction, reason| {
        node_.datapath.counters.read(Some(pod.endpoint()), direction, reason).unwrap().packets
    };
    assert!(count(&ALICE, Direction::Egress, None) > 0);
    assert!(count(&BOB, Direction::Ingress, None) >= count(&ALICE, Direction::Egress, None));
    assert!(count(&BOB, Direction::Ingress, Some(DropReason::PolicyDenied)) >= 4);
}

/// Sends a frame from inside the pod as it is.
fn send_raw(pod: &Pod, frame: Vec<u8>) {
    let sent = inside(pod, move || {
        let index = attach::ifindex("eth0").unwrap();
        // SAFETY: a socket of our own; address and frame outlive the call.
        unsafe {
            let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_ifindex = i32::try_from(index).unwrap();
            let sent = libc::sendto(
                socket,
                frame.as_ptr().cast(),
                frame.len(),
                0,
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            );
            assert_eq!(libc::close(socket), 0);
            usize::try_from(sent).is_ok_and(|sent| sent == frame.len())
        }
    });
    assert!(sent.join().unwrap(), "{}", std::io::Error::last_os_error());
}

/// What a pod with raw sockets puts on the wire, as the kernel really hands it to the program: tags are taken off the
/// frame before.
#[test]
fn forged_frames_are_dropped_and_counted() {
    use crate::support::packet::{ACK, Ip, frame, tcp};
    let node = Node::new();
    node.pod(&ALICE, &allow_all());
    node.pod(&BOB, &allow_all());
    let packet = tcp((ALICE.ip(4), 40_000), (BOB.ip(4), 80), ACK);
    let tagged = |ethertype: u16| {
        let mut body = vec![0, 5, 0x08, 0x00];
        body.extend(packet.bytes());
        frame(ALICE.mac, ALICE.host_mac, ethertype, &body)
    };
    let mut other_mac = packet.sent_by(&ALICE);
    other_mac[6..12].copy_from_slice(&BOB.mac);
    let as_bob = Ip { source: BOB.ip(4), ..packet.clone() };
    for (name, frame, reason) in [
        ("VLAN", tagged(0x8100), DropReason::VlanFiltered),
        ("service VLAN", tagged(0x88a8), DropReason::VlanFiltered),
        ("unknown", frame(ALICE.mac, ALICE.host_mac, 0x88b5, &[0; 50]), DropReason::UnsupportedL2Protocol),
        ("MAC", other_mac, DropReason::InvalidSourceMac),
        ("address", as_bob.sent_by(&ALICE), DropReason::InvalidSourceIp),
    ] {
        let dropped = || {
            let endpoint = Some(ALICE.endpoint());
            node.datapath.counters.read(endpoint, Direction::Egress, Some(reason)).unwrap().packets
        };
        let before = dropped();
        send_raw(&ALICE, frame);
        assert_eq!(dropped(), before + 1, "{name}");
    }
}

#[test]
fn attaching_is_idempotent_and_checked() {
    let node = Node::new();
    let pins = &node.pins;
    assert!(attach::is_ready(pins));
    let ifindex = node.wire(&ALICE);
    let name = interface(&ALICE);
    assert!(!attach::is_attached(pins, &name, ifindex).unwrap());
    for _ in 0..3 {
        attach::attach_container(pins, &name, ifindex).unwrap();
        assert!(attach::is_attached(pins, &name, ifindex).unwrap());
    }
    assert_eq!(attach::pinned_interfaces(pins).unwrap(), std::slice::from_ref(&name));
    // The wrong index is not where it is attached.
    assert!(!attach::is_attached(pins, &name, 1).unwrap());
    attach::detach(pins, &name).unwrap();
    assert!(!attach::is_attached(pins, &name, ifindex).unwrap());
    attach::detach(pins, &name).unwrap();
    // A pin that is left of an interface that is gone.
    attach::attach_container(pins, &name, ifindex).unwrap();
    ip(&format!("link del {name}"));
    ip(&format!("netns del {}", namespace(&ALICE)));
    assert_eq!(attach::pinned_interfaces(pins).unwrap(), std::slice::from_ref(&name));
    let ifindex = node.wire(&ALICE);
    assert!(!attach::is_attached(pins, &name, ifindex).unwrap());
    attach::attach_container(pins, &name, ifindex).unwrap();
    assert!(attach::is_attached(pins, &name, ifindex).unwrap());
    // A node's device, with a dot in its name.
    ip("link add dev0.5 type veth peer name dev1.5");
    let device = attach::ifindex("dev0.5").unwrap();
    attach::attach_netdev(pins, "dev0.5", device).unwrap();
    attach::attach_netdev(pins, "dev0.5", device).unwrap();
    assert!(attach::is_netdev_attached(pins, "dev0.5", device).unwrap());
    assert!(attach::pinned_interfaces(pins).unwrap().contains(&"dev0.5".to_owned()));
    assert!(attach::ifindex("nosuch").is_err());
}

#[test]
fn attaching_without_an_agent_fails() {
    let node = Node::new();
    let ifindex = node.wire(&ALICE);
    let empty = node.pins.parent().unwrap().join("v0");
    std::fs::create_dir(&empty).unwrap();
    assert!(!attach::is_ready(&empty));
    let error = attach::attach_container(&empty, &interface(&ALICE), ifindex).unwrap_err();
    assert!(error.to_string().contains("prog_"), "{error}");
}

#[test]
fn a_restart_takes_over_maps_and_links() {
    let mut node = Node::new();
    node.pod(&ALICE, &table([allow(Direction::Egress, BOB.peer(), L4Match::Any, 7)]));
    let before = node.datapath.policies.dump(ALICE.endpoint()).unwrap();
    let epoch = node.datapath.settings.bump_epoch().unwrap();
    let ifindex = attach::ifindex(&interface(&ALICE)).unwrap();
    node.datapath = Datapath::load_or_adopt(&node.pins, &small()).unwrap();
    assert!(attach::is_attached(&node.pins, &interface(&ALICE), ifindex).unwrap(), "by the new program");
    assert_eq!(node.datapath.policies.dump(ALICE.endpoint()).unwrap(), before);
    assert_eq!(node.datapath.settings.read().unwrap().ipcache_epoch, epoch);
    assert_eq!(node.datapath.endpoints.read(ALICE.endpoint()).unwrap().unwrap().ifindex, ifindex);
    assert_eq!(node.datapath.endpoints.behind(ifindex).unwrap(), Some(ALICE.endpoint()));
    assert_eq!(node.datapath.ipcache.get(ALICE.ip(4).into()).unwrap().unwrap().identity, ALICE.identity);
    // Pins of an interface that went away meanwhile are cleared.
    ip(&format!("link del {}", interface(&ALICE)));
    node.datapath = Datapath::load_or_adopt(&node.pins, &small()).unwrap();
    assert!(attach::pinned_interfaces(&node.pins).unwrap().is_empty());
}

/// Packets of a connection that is allowed, and of one that is denied, while the programs are replaced again and
/// again, and while nobody holds the datapath: none of the first is lost, none of the second gets through.
#[test]
fn replacing_the_programs_neither_loses_nor_leaks() {
    const ROUNDS: usize = 8;
    let node = Node::new();
    node.pod(&ALICE, &allow_all());
    let rule = allow(Direction::Ingress, ALICE.peer(), L4Match::port(Protocol::Udp, 53), 1);
    node.pod(&BOB, &table([rule]));
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    let counts: [Arc<AtomicU64>; 4] = std::array::from_fn(|_| Arc::new(AtomicU64::new(0)));
    let [sent, answered, tried, leaked] = &counts;
    for family in FAMILIES {
        for (port, received) in [(53, None), (54, Some(Arc::clone(leaked)))] {
            workers.push(echo_server(&BOB, SocketAddr::new(BOB.ip(family), port), received, &stop));
        }
        workers.push(client(&ALICE, BOB.ip(family), 53, sent, answered, &stop));
        workers.push(flood(&ALICE, BOB.ip(family), 54, tried, &stop));
    }
    let Node { pins, datapath, _directory } = node;
    drop(datapath);
    for _ in 0..ROUNDS {
        std::thread::sleep(Duration::from_millis(50));
        drop(Datapath::load_or_adopt(&pins, &small()).unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().unwrap();
    }
    let [sent, answered, tried, leaked] = counts.map(|count| count.load(Ordering::Relaxed));
    println!("{sent} sent, {answered} answered; {tried} tried, {leaked} leaked");
    assert!(sent > 100 && tried > 100);
    assert_eq!(answered, sent, "lost");
    assert_eq!(leaked, 0);
}

fn echo_server(
    pod: &Pod,
    address: SocketAddr,
    received: Option<Arc<AtomicU64>>,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    let (ready, wait) = std::sync::mpsc::channel();
    let server = inside(pod, move || {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        ready.send(()).unwrap();
        let mut bytes = [0; 64];
        // A little longer than the clients, so that the last request is answered.
        let mut rounds_left = 5;
        while rounds_left > 0 {
            if stop.load(Ordering::Relaxed) {
                rounds_left -= 1;
            }
            if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                if let Some(count) = &received {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                drop(socket.send_to(&bytes[..length], from));
            }
        }
    });
    wait.recv().unwrap();
    server
}

/// Sends one request after the other and waits for each answer.
fn client(
    pod: &Pod,
    to: IpAddr,
    port: u16,
    sent: &Arc<AtomicU64>,
    answered: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (sent, answered, stop) = (Arc::clone(sent), Arc::clone(answered), Arc::clone(stop));
    let own = pod.ip(if to.is_ipv4() { 4 } else { 6 });
    inside(pod, move || {
        let socket = UdpSocket::bind((own, 0)).unwrap();
        socket.connect((to, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut bytes = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            sent.fetch_add(1, Ordering::Relaxed);
            socket.send(b"question").unwrap();
            if socket.recv(&mut bytes).is_ok() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    })
}

/// Sends without waiting, from a new port each time.
fn flood(pod: &Pod, to: IpAddr, port: u16, tried: &Arc<AtomicU64>, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (tried, stop) = (Arc::clone(tried), Arc::clone(stop));
    let own = pod.ip(if to.is_ipv4() { 4 } else { 6 });
    inside(pod, move || {
        while !stop.load(Ordering::Relaxed) {
            let socket = UdpSocket::bind((own, 0)).unwrap();
            socket.send_to(b"let me in", (to, port)).unwrap();
            tried.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(300));
        }
    })
}
