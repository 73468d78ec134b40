//! A small transparent proxy: what a real one does with its sockets, and a record of what it was told.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sluice_ebpf_loader::proxy::{LISTENER_MARK, ProxyView, RedirectFacts};
use sluice_types::Protocol;

/// How long a proxy waits for a server.
const PATIENCE: Duration = Duration::from_millis(300);

/// One flow that came to the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) client: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) facts: RedirectFacts,
}

#[derive(Debug, Default)]
struct Record {
    flows: Mutex<Vec<Seen>>,
    refused: AtomicUsize,
    stop: AtomicBool,
}

/// Listens on both families, TCP and UDP, until dropped.
pub(crate) struct Proxy {
    record: Arc<Record>,
    workers: Vec<JoinHandle<()>>,
}

fn set(fd: &impl AsRawFd, level: i32, option: i32, value: i32) {
    // SAFETY: an open socket, and a number that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>() as u32,
        )
    };
    assert_eq!(result, 0, "option {level}/{option}: {}", std::io::Error::last_os_error());
}

/// `struct sockaddr_in` or `sockaddr_in6`, and its length.
fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, u32) {
    // SAFETY: plain numbers; the structures fit into the storage.
    unsafe {
        let mut storage: libc::sockaddr_storage = std::mem::zeroed();
        let length = match address {
            SocketAddr::V4(address) => {
                let raw = &mut *std::ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>();
                raw.sin_family = libc::AF_INET as u16;
                raw.sin_port = address.port().to_be();
                raw.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(address) => {
                let raw = &mut *std::ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>();
                raw.sin6_family = libc::AF_INET6 as u16;
                raw.sin6_port = address.port().to_be();
                raw.sin6_addr.s6_addr = address.ip().octets();
                size_of::<libc::sockaddr_in6>()
            }
        };
        (storage, length as u32)
    }
}

/// A transparent socket with a mark, bound to an address.
pub(crate) fn transparent(kind: i32, bound: SocketAddr, mark: u32) -> std::io::Result<OwnedFd> {
    let family = if bound.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a new descriptor that nobody else owns; addresses outlive the calls.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let fd = OwnedFd::from_raw_fd(fd);
        set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        if bound.is_ipv4() {
            set(&fd, libc::SOL_IP, libc::IP_TRANSPARENT, 1);
            set(&fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
        } else {
            set(&fd, libc::SOL_IPV6, libc::IPV6_TRANSPARENT, 1);
            set(&fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
            set(&fd, libc::SOL_IPV6, libc::IPV6_V6ONLY, 1);
        }
        set(&fd, libc::SOL_SOCKET, libc::SO_MARK, mark as i32);
        let (storage, length) = raw_address(bound);
        if libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&storage).cast(), length) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(fd)
    }
}

/// A TCP connection from an address that need not be ours.
pub(crate) fn connected_as(own: SocketAddr, mark: u32, to: SocketAddr) -> std::io::Result<OwnedFd> {
    connected(transparent(libc::SOCK_STREAM, own, mark)?, to)
}

/// The proxy's connection to the server.
fn leg(kind: i32, seen: &Seen) -> std::io::Result<OwnedFd> {
    let own = if seen.facts.destination_is_node { unspecified(seen.client) } else { seen.client.ip() };
    connected(transparent(kind, SocketAddr::new(own, 0), seen.facts.upstream_mark())?, seen.destination)
}

fn connected(fd: OwnedFd, to: SocketAddr) -> std::io::Result<OwnedFd> {
    let (seconds, micros) = (0, PATIENCE.as_micros() as i64);
    let time = libc::timeval { tv_sec: seconds, tv_usec: micros };
    let (storage, length) = raw_address(to);
    // SAFETY: an open socket; the structures outlive the calls.
    let result = unsafe {
        for option in [libc::SO_SNDTIMEO, libc::SO_RCVTIMEO] {
            let time = std::ptr::from_ref(&time).cast();
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                time,
                size_of::<libc::timeval>() as u32,
            );
        }
        libc::connect(fd.as_raw_fd(), std::ptr::from_ref(&storage).cast(), length)
    };
    if result == 0 { Ok(fd) } else { Err(std::io::Error::last_os_error()) }
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

impl Proxy {
    /// Starts in the calling thread's namespace. `mark` is that of the listeners.
    pub(crate) fn start(pins: &Path, port: u16, mark: u32) -> Self {
        let record = Arc::new(Record::default());
        let mut workers = Vec::new();
        for loopback in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let bound = SocketAddr::new(loopback, port);
            let fd = transparent(libc::SOCK_STREAM, bound, mark).unwrap();
            // SAFETY: an open, bound socket.
            assert_eq!(unsafe { libc::listen(fd.as_raw_fd(), 64) }, 0);
            let (own, view) = (Arc::clone(&record), ProxyView::open(pins).unwrap());
            workers.push(std::thread::spawn(move || accept(&own, &view, &TcpListener::from(fd))));
            let fd = transparent(libc::SOCK_DGRAM, bound, mark).unwrap();
            if bound.is_ipv4() {
                set(&fd, libc::SOL_IP, libc::IP_RECVORIGDSTADDR, 1);
            } else {
                set(&fd, libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR, 1);
            }
            let (own, view) = (Arc::clone(&record), ProxyView::open(pins).unwrap());
            workers.push(std::thread::spawn(move || datagrams(&own, &view, &UdpSocket::from(fd))));
        }
        Self { record, workers }
    }

    pub(crate) fn well(pins: &Path, port: u16) -> Self {
        Self::start(pins, port, LISTENER_MARK)
    }

    /// The flows since the last question.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.record.flows.lock().unwrap())
    }

    /// How many connections no facts were known of.
    pub(crate) fn refused(&self) -> usize {
        self.record.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.record.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().unwrap();
        }
    }
}

fn look_up(
    record: &Record,
    view: &ProxyView,
    protocol: Protocol,
    client: SocketAddr,
    destination: SocketAddr,
) -> Option<Seen> {
    let Some(facts) = view.facts(protocol, client, destination).unwrap() else {
        record.refused.fetch_add(1, Ordering::Relaxed);
        return None;
    };
    let seen = Seen { client, destination, facts };
    record.flows.lock().unwrap().push(seen);
    Some(seen)
}

fn accept(record: &Arc<Record>, view: &ProxyView, listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let mut relays = Vec::new();
    while !record.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, client)) => {
                stream.set_nonblocking(false).unwrap();
                // A client may be gone already.
                let Ok(destination) = stream.local_addr() else { continue };
                if let Some(seen) = look_up(record, view, Protocol::Tcp, client, destination) {
                    let record = Arc::clone(record);
                    relays.push(std::thread::spawn(move || relay(&record, stream, &seen)));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
    }
    for relay in relays {
        relay.join().unwrap();
    }
}

/// Question and answer, until either side has enough.
fn relay(record: &Record, mut client: TcpStream, seen: &Seen) {
    let Ok(server) = leg(libc::SOCK_STREAM, seen) else { return };
    let mut server = TcpStream::from(server);
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut bytes = [0; 64];
    while !record.stop.load(Ordering::Relaxed) {
        match client.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => {
                let asked = server.write_all(&bytes[..length]);
                if asked.and_then(|()| server.read_exact(&mut bytes)).is_err() {
                    return;
                }
                if client.write_all(&bytes).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn datagrams(record: &Record, view: &ProxyView, listener: &UdpSocket) {
    listener.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while !record.stop.load(Ordering::Relaxed) {
        let mut bytes = [0; 64];
        let Some((length, client, destination)) = receive(listener, &mut bytes) else { continue };
        let Some(seen) = look_up(record, view, Protocol::Udp, client, destination) else { continue };
        let Ok(server) = leg(libc::SOCK_DGRAM, &seen) else { continue };
        let server = UdpSocket::from(server);
        drop(server.send(&bytes[..length]));
        if let Ok(length) = server.recv(&mut bytes) {
            let answering = transparent(libc::SOCK_DGRAM, destination, LISTENER_MARK).unwrap();
            UdpSocket::from(answering).send_to(&bytes[..length], client).unwrap();
        }
    }
}

/// A datagram, who sent it, and to whom.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> Option<(usize, SocketAddr, SocketAddr)> {
    // SAFETY: all memory that the call writes to is ours and of the size that is told.
    unsafe {
        let mut from: libc::sockaddr_storage = std::mem::zeroed();
        let mut control = [0_u64; 32];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_name = std::ptr::from_mut(&mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let length = usize::try_from(libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0)).ok()?;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null(), "no original destination");
        let destination = libc::CMSG_DATA(header).cast::<libc::sockaddr_storage>();
        Some((length, read_address(&raw const from), read_address(destination)))
    }
}

/// # Safety
/// `address` points to a `sockaddr_in` or `sockaddr_in6`.
unsafe fn read_address(address: *const libc::sockaddr_storage) -> SocketAddr {
    // SAFETY: as promised.
    unsafe {
        if i32::from((&raw const (*address).ss_family).read_unaligned()) == libc::AF_INET {
            let raw = address.cast::<libc::sockaddr_in>().read_unaligned();
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            SocketAddr::new(ip.into(), u16::from_be(raw.sin_port))
        } else {
            let raw = address.cast::<libc::sockaddr_in6>().read_unaligned();
            SocketAddr::new(Ipv6Addr::from(raw.sin6_addr.s6_addr).into(), u16::from_be(raw.sin6_port))
        }
    }
}
