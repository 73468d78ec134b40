//! Makes the kernel forget connections of clients that the proxy closed first.
//!
//! The kernel remembers such a connection for a minute (TIME_WAIT), and since 6.10 a socket does not take a SYN for which
//! there is one. The client remembers nothing, and may use its port again at once: it would get no answer. Elsewhere the
//! kernel gives way by itself, but only to sockets that listen on the connection's own port, which a proxy's do not.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::sys;

/// `SOCK_DESTROY`
const SOCK_DESTROY: u16 = 21;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
const MESSAGE_BYTES: u32 = 16 + 56;
/// `TCP_CLOSE`: the socket has nothing to do with the connection any more.
const TCP_CLOSE: u8 = 7;

/// A way to the kernel's table of sockets.
#[derive(Debug)]
pub struct TimeWaits(OwnedFd);

impl TimeWaits {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel has no such way (`CONFIG_INET_DIAG`).
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::SOCK_DIAG);
        Ok(Self(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?))
    }

    /// Has the kernel forget a connection, if it has ended in order. Its socket is still open; `cookie` is from when the
    /// connection was too ([`cookie`]): with the same addresses there may be another one by now.
    ///
    /// # Errors
    /// The kernel refuses (`CAP_NET_ADMIN`, `CONFIG_INET_DIAG_DESTROY`).
    pub fn forget(
        &self,
        socket: impl AsFd,
        own: SocketAddr,
        peer: SocketAddr,
        cookie: u64,
    ) -> io::Result<()> {
        if sys::tcp_state(&socket)? != TCP_CLOSE {
            return Ok(());
        }
        let message = message(own, peer, cookie);
        rustix::net::sendto(&self.0, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        self.answers()
    }

    /// What the kernel said. It answers before the message has been sent, and only if something was wrong.
    fn answers(&self) -> io::Result<()> {
        let mut answer = [0; 256];
        loop {
            match rustix::net::recv(&self.0, &mut answer, RecvFlags::empty()) {
                Ok(_) => match code(&answer) {
                    // There is none: the client closed it first.
                    Some(code) if code == -libc::ENOENT || code == -libc::ESTALE => {}
                    Some(code) if code < 0 => {
                        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                    }
                    Some(_) | None => {}
                },
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The number of a connection, which none after it has. To be asked for while it is open.
///
/// # Errors
/// The kernel refuses.
pub fn cookie(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::net::sockopt::socket_cookie(socket)?)
}

fn message(own: SocketAddr, peer: SocketAddr, cookie: u64) -> Vec<u8> {
    let family = if own.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let protocol = libc::IPPROTO_TCP;
    // The kernel has it in two halves, the lower one first.
    let [lower, upper] =
        [cookie & u64::from(u32::MAX), cookie >> 32].map(|half| u32::try_from(half).unwrap_or_default());
    let parts: [&[u8]; 12] = [
        &MESSAGE_BYTES.to_ne_bytes(),
        &SOCK_DESTROY.to_ne_bytes(),
        &REQUEST.to_ne_bytes(),
        // Sequence and sender; behind family and protocol extensions, padding, and all states.
        &[0; 8],
        &[u8::try_from(family).unwrap_or_default(), u8::try_from(protocol).unwrap_or_default(), 0, 0],
        &[0xff; 4],
        &own.port().to_be_bytes(),
        &peer.port().to_be_bytes(),
        &[address(own.ip()), address(peer.ip())].concat(),
        // Any interface.
        &[0; 4],
        &lower.to_ne_bytes(),
        &upper.to_ne_bytes(),
    ];
    parts.concat()
}

/// As the kernel has addresses of either family.
fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes.iter_mut().zip(address.octets()).for_each(|(to, from)| *to = from);
            bytes
        }
    }
}

/// The error's number of `struct nlmsgerr`, which stands behind the header.
fn code(answer: &[u8]) -> Option<i32> {
    answer.get(16..20)?.first_chunk().map(|code| i32::from_ne_bytes(*code))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A connection of which the first is `first` to close, with the side that was accepted.
    fn closed(place: &str, is_accepted_first: bool) -> (TcpStream, SocketAddr, SocketAddr, u64) {
        let listener = TcpListener::bind(place).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let (own, cookie) = (accepted.local_addr().unwrap(), cookie(&accepted).unwrap());
        let mut ends = if is_accepted_first { [&accepted, &client] } else { [&client, &accepted] };
        for end in &ends {
            end.shutdown(std::net::Shutdown::Write).unwrap();
        }
        for end in &mut ends {
            assert_eq!(end.read(&mut [0]).unwrap(), 0);
        }
        (accepted, own, peer, cookie)
    }

    /// Whether the kernel remembers `own` as closed and waiting.
    fn is_remembered(own: SocketAddr, peer: SocketAddr) -> bool {
        let file = if own.is_ipv4() { "/proc/thread-self/net/tcp" } else { "/proc/thread-self/net/tcp6" };
        let text = std::fs::read_to_string(file).unwrap();
        let port = |field: Option<&str>| {
            u16::from_str_radix(field.unwrap_or_default().rsplit(':').next().unwrap_or_default(), 16)
        };
        text.lines().skip(1).any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            port(fields.get(1).copied()) == Ok(own.port())
                && port(fields.get(2).copied()) == Ok(peer.port())
                && fields.get(3) == Some(&"06")
        })
    }

    #[test]
    fn what_was_closed_first_is_forgotten() {
        let waits = TimeWaits::open().unwrap();
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let (accepted, own, peer, cookie) = closed(place, true);
            assert!(is_remembered(own, peer), "{place}");
            waits.forget(&accepted, own, peer, cookie + 1).unwrap();
            assert!(is_remembered(own, peer), "another connection's");
            waits.forget(&accepted, own, peer, cookie).unwrap();
            assert!(!is_remembered(own, peer), "{place}");
            waits.forget(&accepted, own, peer, cookie).unwrap();
        }
    }

    /// Connections that go on, or that the other end remembers, are none of its business.
    #[test]
    fn nothing_else_is_touched() {
        let waits = TimeWaits::open().unwrap();
        let (accepted, own, peer, number) = closed("127.0.0.1:0", false);
        waits.forget(&accepted, own, peer, number).unwrap();
        assert!(is_remembered(peer, own), "the client's end");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let own = accepted.local_addr().unwrap();
        waits.forget(&accepted, own, peer, cookie(&accepted).unwrap()).unwrap();
        drop(accepted);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "it was not cut");
    }
}
