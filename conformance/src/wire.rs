//! Packets made by hand: what this kernel has no sockets for, and what no honest socket would send.

use std::net::{Ipv4Addr, Ipv6Addr};

/// IANA number of SCTP.
pub const IPPROTO_SCTP: u8 = 132;
const SCTP_INIT: u8 = 1;
const SCTP_INIT_ACK: u8 = 2;
/// A state cookie parameter, which an INIT ACK must carry.
const SCTP_COOKIE: [u8; 8] = [0, 7, 0, 8, b's', b'l', b'u', b'i'];

/// What an SCTP packet of ours says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sctp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Whether it is the answer.
    pub is_ack: bool,
    /// The opener's tag; the answer carries it in its header.
    pub tag: u32,
}

impl Sctp {
    /// The packet, from the SCTP header on, with the right checksum.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(40);
        packet.extend(self.source_port.to_be_bytes());
        packet.extend(self.destination_port.to_be_bytes());
        packet.extend(if self.is_ack { self.tag } else { 0 }.to_be_bytes());
        packet.extend([0; 4]);
        let (kind, len) = if self.is_ack { (SCTP_INIT_ACK, 28_u16) } else { (SCTP_INIT, 20) };
        packet.extend([kind, 0]);
        packet.extend(len.to_be_bytes());
        packet.extend(if self.is_ack { !self.tag } else { self.tag }.to_be_bytes());
        packet.extend(65_535_u32.to_be_bytes()); // receive window
        packet.extend(1_u16.to_be_bytes()); // streams out
        packet.extend(1_u16.to_be_bytes()); // streams in
        packet.extend(1_u32.to_be_bytes()); // first sequence number
        if self.is_ack {
            packet.extend(SCTP_COOKIE);
        }
        let sum = crc32c(&packet).to_le_bytes();
        if let Some(place) = packet.get_mut(8..12) {
            place.copy_from_slice(&sum);
        }
        packet
    }

    /// Reads a packet from the SCTP header on; nothing if it is not an INIT or INIT ACK with the right checksum.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let [s0, s1, d0, d1, v0, v1, v2, v3, c0, c1, c2, c3, kind, _, _, _, t0, t1, t2, t3] = *header;
        let mut blank = packet.to_vec();
        blank.get_mut(8..12)?.fill(0);
        if crc32c(&blank) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return None;
        }
        let is_ack = match kind {
            SCTP_INIT => false,
            SCTP_INIT_ACK => true,
            _ => return None,
        };
        let tag = if is_ack { [v0, v1, v2, v3] } else { [t0, t1, t2, t3] };
        Some(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            is_ack,
            tag: u32::from_be_bytes(tag),
        })
    }
}

/// What follows the IPv4 header, as a raw socket delivers it; IPv6 raw sockets deliver no header.
#[must_use]
pub fn after_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    let len = usize::from(packet.first()? & 0xf) * 4;
    packet.get(len..)
}

/// An ICMP message of four bytes of rest-of-header (`identifier`, `sequence`) and a payload.
#[must_use]
pub fn icmp(kind: u8, identifier: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(payload);
    let sum = checksum(&message).to_be_bytes();
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum);
    }
    message
}

/// A MAC address.
pub type Mac = [u8; 6];

/// An Ethernet frame.
#[must_use]
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet without options.
#[must_use]
pub fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = checksum(&packet).to_be_bytes();
    if let Some(place) = packet.get_mut(10..12) {
        place.copy_from_slice(&sum);
    }
    packet.extend(payload);
    packet
}

/// An IPv6 packet without extension headers.
#[must_use]
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([next_header, 255]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A UDP datagram whose checksum says "none" (IPv4 only).
#[must_use]
pub fn udp4(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(source_port.to_be_bytes());
    datagram.extend(destination_port.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// An upper-layer message for IPv6 whose checksum at `offset` is filled in.
#[must_use]
pub fn checked6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    mut message: Vec<u8>,
    offset: usize,
) -> Vec<u8> {
    let mut pseudo = Vec::new();
    pseudo.extend(source.octets());
    pseudo.extend(destination.octets());
    pseudo.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    pseudo.extend([0, 0, 0, next_header]);
    pseudo.extend(&message);
    let sum = checksum(&pseudo).to_be_bytes();
    if let Some(place) = message.get_mut(offset..offset + 2) {
        place.copy_from_slice(&sum);
    }
    message
}

/// An ARP reply: `sender` claims to be at `mac`.
#[must_use]
pub fn arp_reply(mac: Mac, sender: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, 2];
    message.extend(mac);
    message.extend(sender.octets());
    message.extend(target_mac);
    message.extend(target.octets());
    message
}

/// The sum of the Internet protocols.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let (high, low) = (pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0));
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The checksum of SCTP (RFC 9260, appendix A).
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_standards() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // The example of RFC 1071, section 3.
        assert_eq!(!checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn sctp_reads_back_and_a_flipped_bit_does_not() {
        for is_ack in [false, true] {
            let packet = Sctp { source_port: 4000, destination_port: 7777, is_ack, tag: 0x1234_5678 };
            let mut bytes = packet.bytes();
            assert_eq!(Sctp::read(&bytes), Some(packet));
            bytes[2] ^= 1;
            assert_eq!(Sctp::read(&bytes), None);
        }
    }
}
