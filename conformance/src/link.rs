//! Whole frames, sent and watched at an interface: what an adversary in a pod can do with raw sockets.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice};

use crate::clock;
use crate::netns::Netns;
use crate::wire::Mac;

/// Every EtherType (`linux/if_ether.h`), in network order.
const ETH_P_ALL: u32 = (3_u16).to_be() as u32;
const LINK_ADDRESS_LEN: u32 = 20;

/// `sockaddr_ll` of `packet(7)`.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol_be: u16,
    ifindex: i32,
    hardware_type: u16,
    packet_type: u8,
    address_len: u8,
    address: [u8; 8],
}

const _: () = assert!(size_of::<LinkAddress>() == LINK_ADDRESS_LEN as usize);

// SAFETY: the pointer handed out is to a whole `sockaddr_ll`, which lives during the call, and the length is its own.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), LINK_ADDRESS_LEN)
    }
}

/// A socket that sends and sees whole frames at one interface.
#[derive(Debug)]
pub struct FrameSocket {
    fd: OwnedFd,
}

impl FrameSocket {
    /// Opens it at interface `name` of the namespace.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn open(netns: &Netns, name: &str) -> Result<Self> {
        netns.run(|| {
            let protocol = rustix::net::RawProtocol::new(ETH_P_ALL).map(rustix::net::Protocol::from_raw);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)
                .context("opening a packet socket")?;
            let ifindex = netdevice::name_to_index(&fd, name).with_context(|| format!("finding {name}"))?;
            let place = LinkAddress {
                family: AddressFamily::PACKET.as_raw(),
                protocol_be: 3_u16.to_be(),
                ifindex: i32::try_from(ifindex).context("an interface index")?,
                hardware_type: 0,
                packet_type: 0,
                address_len: 0,
                address: [0; 8],
            };
            rustix::net::bind(&fd, &place).with_context(|| format!("binding a packet socket to {name}"))?;
            Ok(Self { fd })
        })
    }

    /// Sends a frame, Ethernet header included.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        rustix::net::send(&self.fd, frame, SendFlags::empty()).context("sending a frame")?;
        Ok(())
    }

    /// Waits for a frame that satisfies `wanted`.
    #[must_use]
    pub fn sees(&self, patience: Duration, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let deadline = clock::now() + patience;
        let mut buffer = vec![0; 65_535];
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((_, len)) if buffer.get(..len).is_some_and(&wanted) => return true,
                Ok(_) => {}
                Err(_) if clock::now() >= deadline => return false,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

/// Reads `02:00:…`.
///
/// # Errors
/// It is no MAC address.
pub fn parse_mac(text: &str) -> Result<Mac> {
    let mut mac = Mac::default();
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().with_context(|| format!("{text:?} is no MAC address"))?;
        *byte = u8::from_str_radix(part, 16).with_context(|| format!("{text:?} is no MAC address"))?;
    }
    Ok(mac)
}
