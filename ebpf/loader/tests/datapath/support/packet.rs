//! Frames, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Pod;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const ARP: u16 = 0x0806;

/// The number of the family's ICMP.
pub(crate) const fn icmp_number(family: u8) -> u8 {
    if family == 4 { 1 } else { 58 }
}

pub(crate) const fn echo_request_type(family: u8) -> u8 {
    if family == 4 { 8 } else { 128 }
}

pub(crate) const fn echo_reply_type(family: u8) -> u8 {
    if family == 4 { 0 } else { 129 }
}

pub(crate) fn frame(source: [u8; 6], destination: [u8; 6], ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame
}

/// An IP packet to be changed before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) hop_limit: u8,
    pub(crate) id: u32,
    /// Offset in bytes, and whether more fragments follow.
    pub(crate) fragment: Option<(usize, bool)>,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers before the fragment header: number, and body from the second byte on.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
}

impl Ip {
    pub(crate) fn new(source: IpAddr, destination: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol,
            payload,
            hop_limit: 64,
            id: 4711,
            fragment: None,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    pub(crate) fn hop_limit(self, hop_limit: u8) -> Self {
        Self { hop_limit, ..self }
    }

    pub(crate) fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    pub(crate) fn extension(mut self, number: u8, body: &[u8]) -> Self {
        self.extensions.push((number, body.to_vec()));
        self
    }

    /// The part of this packet's payload from `offset` on, `length` bytes of it.
    pub(crate) fn part(&self, offset: usize, length: usize) -> Self {
        let end = (offset + length).min(self.payload.len());
        let mut part = self.clone();
        part.payload = self.payload[offset..end].to_vec();
        part.fragment = Some((offset, end < self.payload.len()));
        part
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            _ => panic!("two families in one packet"),
        }
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let header = 20 + self.options.len();
        let (offset, more) = self.fragment.unwrap_or_default();
        let mut bytes = vec![0x40 | (header / 4) as u8, 0];
        bytes.extend(((header + self.payload.len()) as u16).to_be_bytes());
        bytes.extend((self.id as u16).to_be_bytes());
        bytes.extend((((offset / 8) as u16) | if more { 0x2000 } else { 0 }).to_be_bytes());
        bytes.extend([self.hop_limit, self.protocol, 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        bytes
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut headers = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let mut body = vec![0];
            body.extend(((offset as u16) | u16::from(more)).to_be_bytes());
            body.extend(self.id.to_be_bytes());
            headers.push((44, body));
        }
        let mut chain = Vec::new();
        for (nth, (_, body)) in headers.iter().enumerate() {
            chain.push(headers.get(nth + 1).map_or(self.protocol, |(number, _)| *number));
            chain.extend(body);
        }
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(((chain.len() + self.payload.len()) as u16).to_be_bytes());
        bytes.extend([headers.first().map_or(self.protocol, |(number, _)| *number), self.hop_limit]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(chain);
        bytes.extend(&self.payload);
        bytes
    }

    fn ethertype(&self) -> u16 {
        if self.source.is_ipv4() { IPV4 } else { IPV6 }
    }

    /// As the pod sends it to its gateway.
    pub(crate) fn sent_by(&self, pod: &Pod) -> Vec<u8> {
        frame(pod.mac, pod.host_mac, self.ethertype(), &self.bytes())
    }

    /// As the node delivers it to the pod.
    pub(crate) fn brought_to(&self, pod: &Pod) -> Vec<u8> {
        frame(pod.host_mac, pod.mac, self.ethertype(), &self.bytes())
    }

    /// The same the other way.
    pub(crate) fn reversed(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        self
    }
}

pub(crate) fn tcp_header(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

pub(crate) fn udp_header(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

pub(crate) fn sctp_header(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
    bytes.extend([0; 8]);
    // An INIT chunk's beginning.
    bytes.extend([1, 0, 0, 20]);
    bytes
}

pub(crate) fn icmp_message(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(body);
    bytes
}

pub(crate) fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> Ip {
    Ip::new(source.0, destination.0, TCP, tcp_header(source.1, destination.1, flags))
}

pub(crate) fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Ip {
    Ip::new(source.0, destination.0, UDP, udp_header(source.1, destination.1, b"hello"))
}

pub(crate) fn sctp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Ip {
    Ip::new(source.0, destination.0, SCTP, sctp_header(source.1, destination.1))
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

pub(crate) fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Ip {
    let message = icmp_message(kind, code, [0; 4], b"body");
    Ip::new(source, destination, icmp_number(family(source)), message)
}

pub(crate) fn echo_request(source: IpAddr, destination: IpAddr, id: u16) -> Ip {
    echo(source, destination, echo_request_type(family(source)), id)
}

pub(crate) fn echo_reply(source: IpAddr, destination: IpAddr, id: u16) -> Ip {
    echo(source, destination, echo_reply_type(family(source)), id)
}

fn echo(source: IpAddr, destination: IpAddr, kind: u8, id: u16) -> Ip {
    let [a, b] = id.to_be_bytes();
    Ip::new(source, destination, icmp_number(family(source)), icmp_message(kind, 0, [a, b, 0, 1], b"ping"))
}

/// An ICMP error of this type and code about `quoted`, of which it shows the header and eight bytes more.
pub(crate) fn icmp_error(source: IpAddr, destination: IpAddr, kind: u8, code: u8, quoted: &Ip) -> Ip {
    let bytes = quoted.bytes();
    let shown = bytes.len() - quoted.payload.len() + 8;
    let message = icmp_message(kind, code, [0; 4], &bytes[..shown.min(bytes.len())]);
    Ip::new(source, destination, icmp_number(family(source)), message)
}

/// "Port unreachable" in either family.
pub(crate) fn unreachable(source: IpAddr, destination: IpAddr, quoted: &Ip) -> Ip {
    let (kind, code) = if source.is_ipv4() { (3, 3) } else { (1, 4) };
    icmp_error(source, destination, kind, code, quoted)
}

/// "Fragmentation needed", "packet too big".
pub(crate) fn too_big(source: IpAddr, destination: IpAddr, quoted: &Ip) -> Ip {
    let (kind, code) = if source.is_ipv4() { (3, 4) } else { (2, 0) };
    icmp_error(source, destination, kind, code, quoted)
}

pub(crate) fn arp(sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr, operation: u8) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, operation];
    bytes.extend(sender_mac);
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes
}

/// A neighbour solicitation (135) or advertisement (136) about `target`, with a link-layer option if given.
pub(crate) fn neighbour(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    kind: u8,
    target: Ipv6Addr,
    option: Option<(u8, [u8; 6])>,
) -> Ip {
    let mut body = target.octets().to_vec();
    if let Some((option, mac)) = option {
        body.extend([option, 1]);
        body.extend(mac);
    }
    let message = icmp_message(kind, 0, [0; 4], &body);
    Ip::new(source.into(), destination.into(), 58, message).hop_limit(255)
}
