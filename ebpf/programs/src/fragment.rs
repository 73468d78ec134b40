//! Fragments after the first carry no ports: they are matched to the first one, once that was allowed.

use sluice_ebpf_common::packet::{Fragment, Packet};
use sluice_ebpf_common::{FragmentKey, FragmentPorts};

use crate::family::{Aligned, Family};
use crate::maps::FRAGMENT;

#[inline(always)]
fn key<A: Family>(packet: &Packet<A>) -> Aligned<FragmentKey> {
    Aligned(FragmentKey {
        source_be: packet.source.to_bytes(),
        destination_be: packet.destination.to_bytes(),
        id: packet.fragment_id,
        protocol: packet.protocol,
        family: A::FAMILY,
        reserved: [0; 2],
    })
}

/// Remembers what the first fragment said. Call it only once the packet is allowed.
#[inline(never)]
pub(crate) fn remember<A: Family>(packet: &Packet<A>) {
    let destination_port_be = if packet.protocol == A::ICMP {
        [packet.icmp_code, packet.tcp_flags_or_icmp_type]
    } else {
        packet.destination_port.to_be_bytes()
    };
    let ports = FragmentPorts { source_port_be: packet.source_port.to_be_bytes(), destination_port_be };
    // If the map does not take it, the later fragments are dropped.
    let _ = FRAGMENT.insert(&key(packet).0, &ports, 0);
}

/// Gives a later fragment what its first one said. False if that was not seen or not allowed.
#[inline(never)]
pub(crate) fn recall<A: Family>(packet: &mut Packet<A>) -> bool {
    // SAFETY: copied at once; a plain value.
    let Some(ports) = (unsafe { FRAGMENT.get(&key(packet).0) }).copied() else { return false };
    packet.source_port = u16::from_be_bytes(ports.source_port_be);
    packet.destination_port = u16::from_be_bytes(ports.destination_port_be);
    if packet.protocol == A::ICMP {
        let [code, kind] = ports.destination_port_be;
        packet.icmp_code = code;
        packet.tcp_flags_or_icmp_type = kind;
        packet.destination_port = packet.source_port;
    }
    true
}

#[inline(always)]
pub(crate) fn is_first<A>(packet: &Packet<A>) -> bool {
    packet.fragment as u8 == Fragment::First as u8
}

#[inline(always)]
pub(crate) fn is_later<A>(packet: &Packet<A>) -> bool {
    packet.fragment as u8 == Fragment::Later as u8
}
