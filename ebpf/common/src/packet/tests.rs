//! The parser over slices: what it finds, what it refuses, and that it holds what it promises on any input.

#![expect(clippy::cast_possible_truncation, reason = "packets are made of small numbers")]

extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;

/// A small generator (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }
}

fn ipv4(protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0, 0x45, 0]);
    frame.extend(((20 + payload.len()) as u16).to_be_bytes());
    frame.extend([0x12, 0x34]);
    frame.extend(flags.to_be_bytes());
    frame.extend([64, protocol, 0, 0, 10, 1, 0, 1, 10, 1, 0, 2]);
    frame.extend(payload);
    frame
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend([next, 64]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    frame.extend(payload);
    frame
}

fn tcp() -> Vec<u8> {
    let mut header = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, tcp_flag::SYN, 1, 0, 0, 0, 0, 0];
    header.extend(b"data");
    header
}

fn parse4(frame: &[u8]) -> Result<Packet<Ipv4>, ParseError> {
    Ipv4::parse::<[u8], false>(frame, ETHERNET_LENGTH)
}

fn parse6(frame: &[u8]) -> Result<Packet<Ipv6>, ParseError> {
    Ipv6::parse::<[u8], false>(frame, ETHERNET_LENGTH)
}

#[test]
fn a_plain_packet_of_either_family() {
    let packet = parse4(&ipv4(protocol::TCP, 0, &tcp())).unwrap();
    assert_eq!(packet.source.octets(), [10, 1, 0, 1]);
    assert_eq!(packet.destination.octets(), [10, 1, 0, 2]);
    assert_eq!((packet.source_port, packet.destination_port), (40_000, 80));
    assert_eq!(packet.fragment, Fragment::Whole);
    assert_eq!((packet.transport, packet.end), (34, 58));
    assert!(packet.is_bare_syn());
    let packet = parse6(&ipv6(protocol::TCP, &tcp())).unwrap();
    assert_eq!(packet.source.octets()[15], 1);
    assert_eq!((packet.source_port, packet.destination_port), (40_000, 80));
    assert_eq!((packet.transport, packet.end, packet.hop_limit), (54, 78, 64));
}

#[test]
fn addresses_are_ordered_as_numbers() {
    assert!(Ipv4::new([10, 0, 0, 2]) > Ipv4::new([9, 255, 255, 255]));
    let mut high = [0; 16];
    high[0] = 1;
    assert!(Ipv6::new(high) > Ipv6::new([0, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(Ipv4::new([1, 2, 3, 4]).to_bytes()[..5], [1, 2, 3, 4, 0]);
}

#[test]
fn every_cut_is_an_error() {
    for (frame, family) in [(ipv4(protocol::TCP, 0, &tcp()), 4), (ipv6(protocol::TCP, &tcp()), 6)] {
        for length in 0..frame.len() {
            let cut = &frame[..length];
            let error = if family == 4 { parse4(cut).map(drop) } else { parse6(cut).map(drop) }.unwrap_err();
            assert_eq!(error, ParseError::Truncated, "family {family}, {length} bytes");
        }
    }
}

#[test]
fn a_quoted_packet_needs_only_eight_bytes_more() {
    let frame = ipv4(protocol::TCP, 0, &tcp());
    let quoted = Ipv4::parse::<[u8], true>(&frame[..42], ETHERNET_LENGTH).unwrap();
    assert_eq!((quoted.source_port, quoted.destination_port), (40_000, 80));
    let error = Ipv4::parse::<[u8], true>(&frame[..41], ETHERNET_LENGTH).unwrap_err();
    assert_eq!(error, ParseError::Truncated);
}

#[test]
fn segmentation_offload_may_exceed_the_length_field() {
    let mut payload = tcp();
    payload.resize(70_000, 0);
    let mut frame = ipv4(protocol::TCP, 0, &payload);
    frame[16..18].copy_from_slice(&[0, 0]);
    assert_eq!(parse4(&frame).unwrap().end as usize, frame.len());
    let mut frame = ipv6(protocol::TCP, &payload);
    frame[18..20].copy_from_slice(&[0, 0]);
    assert_eq!(parse6(&frame).unwrap().end as usize, frame.len());
    // Zero in a small frame is a lie.
    let mut frame = ipv4(protocol::TCP, 0, &tcp());
    frame[16..18].copy_from_slice(&[0, 0]);
    assert_eq!(parse4(&frame).unwrap_err(), ParseError::Truncated);
}

#[test]
fn fragments() {
    let later = parse4(&ipv4(protocol::TCP, 4, &[0; 40])).unwrap();
    assert_eq!((later.fragment, later.source_port, later.fragment_id), (Fragment::Later, 0, 0x1234));
    let first = parse4(&ipv4(protocol::TCP, 0x2000, &tcp())).unwrap();
    assert_eq!((first.fragment, first.source_port), (Fragment::First, 40_000));
    assert_eq!(parse4(&ipv4(protocol::TCP, 2, &[0; 40])).unwrap_err(), ParseError::TinyFragment);
    assert_eq!(parse4(&ipv4(protocol::TCP, 0x2000, &[0; 16])).unwrap_err(), ParseError::TinyFragment);
    // The last fragment of a datagram of which this is all.
    let whole = parse4(&ipv4(protocol::TCP, 0x4000, &tcp())).unwrap();
    assert_eq!(whole.fragment, Fragment::Whole);
}

#[test]
fn ports_exist_only_where_the_protocol_has_them() {
    for number in 0..=255_u8 {
        let result = parse4(&ipv4(number, 0, &tcp()));
        let packet = result.unwrap_or_else(|error| panic!("{number}: {error:?}"));
        let ported = matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP);
        assert_eq!(packet.destination_port == 80, ported, "{number}");
        assert_eq!(packet.has_ports(), ported, "{number}");
    }
}

/// What holds for every packet that is read, whatever it is.
fn check<A: Address>(frame: &[u8], packet: &Packet<A>) {
    let (transport, end) = (usize::from(packet.transport), packet.end as usize);
    assert!(end <= frame.len());
    assert!(transport <= end || packet.fragment == Fragment::Later);
    if packet.fragment != Fragment::Later && packet.has_ports() {
        let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        assert_eq!(packet.source_port, port(transport));
        assert_eq!(packet.destination_port, port(transport + 2));
        assert!(transport + 8 <= end);
    }
    if packet.fragment == Fragment::Later {
        assert_eq!((packet.source_port, packet.destination_port), (0, 0));
    }
    // Reading again finds the same: nothing else is looked at.
    let again = A::parse::<[u8], false>(&frame[..end], ETHERNET_LENGTH);
    assert!(again.is_ok_and(|again| again.transport == packet.transport && again.end == packet.end));
}

/// Valid packets with some bytes changed, and bytes that mean nothing.
#[test]
fn any_input_is_read_or_refused() {
    let mut random = Random(0x5eed);
    let mut chain = vec![60, 0, 1, 4, 0, 0, 0, 0, 44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    chain.extend([protocol::TCP, 0, 0, 1, 0, 0, 0, 7]);
    chain.extend(tcp());
    let mut options = ipv4(protocol::UDP, 0, &[0; 40]);
    options[14] = 0x4a;
    options[34..40].copy_from_slice(&[148, 4, 0, 0, 1, 1]);
    let seeds = [
        ipv4(protocol::TCP, 0, &tcp()),
        ipv4(protocol::ICMP, 0x2000, &[8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        options,
        ipv6(protocol::UDP, &tcp()),
        ipv6(0, &chain),
        vec![0; 120],
    ];
    let (mut read, mut refused) = (0, 0);
    for round in 0..300_000 {
        let mut frame = seeds[round % seeds.len()].clone();
        for _ in 0..random.below(6) {
            let at = random.below(frame.len());
            frame[at] = random.next() as u8;
        }
        if random.below(8) == 0 {
            frame.truncate(random.below(frame.len() + 1));
        }
        for result in [
            parse4(&frame).map(|packet| check(&frame, &packet)),
            parse6(&frame).map(|packet| check(&frame, &packet)),
            Ipv4::parse::<[u8], true>(&frame, ETHERNET_LENGTH).map(drop),
            Ipv6::parse::<[u8], true>(&frame, ETHERNET_LENGTH).map(drop),
        ] {
            if result.is_ok() { read += 1 } else { refused += 1 }
        }
    }
    assert!(read > 100_000 && refused > 100_000, "{read} read, {refused} refused");
}
