//! The sockets of a proxy: what the datapath demands of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::{LISTENER_MARK, RedirectFacts};
use crate::sys;

/// How many accepted connections may wait.
const BACKLOG: i32 = 4_096;

/// A listener on the loopback that redirected flows are given to, not blocking. `family` is that of the flows.
///
/// # Errors
/// The port is taken, or the process may not make transparent sockets (`CAP_NET_ADMIN`).
pub fn listener(family: Family, port: u16) -> io::Result<TcpListener> {
    let socket = transparent(family, LISTENER_MARK)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if family == Family::V6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    net::bind(&socket, &SocketAddr::new(family.loopback(), port))?;
    net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A socket for the connection to the server of a redirected flow, not blocking and not connected. It is the client's
/// own address, unless `own` is `None`: then it is the node's, and the mark says who it is.
///
/// # Errors
/// The kernel refuses.
pub fn leg(facts: &RedirectFacts, own: Option<IpAddr>, destination: SocketAddr) -> io::Result<OwnedFd> {
    let family = if destination.is_ipv4() { Family::V4 } else { Family::V6 };
    let socket = transparent(family, facts.upstream_mark())?;
    if let Some(own) = own {
        // The port is chosen when the destination is known: many clients may then use the same one.
        sys::set_socket_option(&socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
        net::bind(&socket, &SocketAddr::new(own, 0))?;
    }
    Ok(socket)
}

/// The version of IP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    const fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        }
    }
}

fn transparent(family: Family, mark: u32) -> io::Result<OwnedFd> {
    let (own, level, option) = match family {
        Family::V4 => (AddressFamily::INET, libc::SOL_IP, libc::IP_TRANSPARENT),
        Family::V6 => (AddressFamily::INET6, libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(own, SocketType::STREAM, flags, None)?;
    sys::set_socket_option(&socket, level, option, 1)?;
    sys::set_socket_option(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark)?;
    Ok(socket)
}
