//! The packet parser: the same code runs in the kernel programs and in tests and fuzzers.
//!
//! It reads from any [`Bytes`], finds addresses, protocol, ports and fragment state, and refuses what it cannot
//! follow to the end: a packet whose transport header is not where the receiver will look for it must not be
//! judged by a guess. It never decides whether a packet may pass.

use sluice_types::DropReason;

/// Length of the Ethernet header: where the IP header of a frame begins.
pub const ETHERNET_LENGTH: usize = 14;

/// How many IPv6 extension headers are followed before the packet is refused.
pub const EXTENSION_HEADERS_MAX: usize = 6;

/// How many IPv4 options (padding included) are read before the packet is refused.
pub const OPTIONS_MAX: usize = 8;

/// IANA numbers the parser looks at.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Bits of the TCP header's flag byte.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Aborts a connection.
    pub const RST: u8 = 0x04;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// Where a packet's bytes come from: the kernel's packet pointers, or a slice.
pub trait Bytes {
    /// The `N` bytes at `offset`, or `None` if they are not all there (or, in the kernel, not in linear memory).
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// `N` numbers of 32 bits in network order from `offset` on. One comparison, and wide loads in the kernel.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
    /// `N` numbers of 64 bits in network order from `offset` on.
    fn longs<const N: usize>(&self, offset: usize) -> Option<[u64; N]>;
    /// Length of the whole frame.
    fn len(&self) -> usize;
    /// Whether the frame has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0; N];
        for (nth, word) in words.iter_mut().enumerate() {
            *word = u32::from_be_bytes(self.load(offset.checked_add(nth * 4)?)?);
        }
        Some(words)
    }

    fn longs<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        let mut longs = [0; N];
        for (nth, long) in longs.iter_mut().enumerate() {
            *long = u64::from_be_bytes(self.load(offset.checked_add(nth * 8)?)?);
        }
        Some(longs)
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// An IPv4 address as a number.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct Ipv4(u32);

impl Ipv4 {
    /// The address with these octets.
    #[inline(always)]
    #[must_use]
    pub const fn new(octets: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(octets))
    }

    /// The octets in network order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

/// An IPv6 address as a number.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub struct Ipv6 {
    high: u64,
    low: u64,
}

impl Ipv6 {
    /// The address with these octets.
    #[inline(always)]
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self {
            high: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_be_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// The octets in network order.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.high.to_be_bytes();
        let [i, j, k, l, m, n, o, p] = self.low.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }
}

/// What differs between the two families.
pub trait Address: Copy + Default + PartialEq + PartialOrd {
    /// 4 or 6.
    const FAMILY: u8;
    /// The family's ICMP.
    const ICMP: u8;
    /// The ICMP type of an echo request.
    const ECHO_REQUEST: u8;
    /// The ICMP type of an echo reply.
    const ECHO_REPLY: u8;

    /// The octets in network order, IPv4 in the first four.
    fn to_bytes(self) -> [u8; 16];

    /// Reads the headers from `offset` on. With `QUOTED` the packet stands inside an ICMP error, cut short after
    /// eight bytes of payload.
    ///
    /// # Errors
    /// See [`ParseError`].
    fn parse<B: Bytes + ?Sized, const QUOTED: bool>(
        bytes: &B,
        offset: usize,
    ) -> Result<Packet<Self>, ParseError>;
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole = 0,
    /// The first fragment: it carries the ports.
    First = 1,
    /// A later fragment: it carries none.
    Later = 2,
}

/// What the headers say.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Packet<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port; the identifier for ICMP echo; else zero.
    pub source_port: u16,
    /// Destination port; the identifier for ICMP echo; else zero.
    pub destination_port: u16,
    /// IANA number of the transport protocol.
    pub protocol: u8,
    /// TCP flags, or the ICMP type.
    pub tcp_flags_or_icmp_type: u8,
    /// The ICMP code.
    pub icmp_code: u8,
    /// Which part of a datagram this is.
    pub fragment: Fragment,
    /// Identification of the datagram, for fragments.
    pub fragment_id: u32,
    /// Where the transport header begins, from the start of the frame.
    pub transport: u16,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Unused, zero.
    pub reserved: u8,
    /// Where the packet ends, from the start of the frame; what follows is padding.
    pub end: u32,
}

/// Why a packet could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum ParseError {
    /// A header ends after the packet (or outside linear memory: pull and try again).
    Truncated,
    /// A field contradicts another, or a source route is asked for.
    Invalid,
    /// An IPv6 extension header is unknown in its place, or there are too many.
    ExtensionHeader,
    /// A fragment is so small that the transport header is split, or overlaps it.
    TinyFragment,
}

impl ParseError {
    /// The reason under which the packet is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> DropReason {
        match self {
            Self::Truncated => DropReason::CtTruncatedOrInvalidHeader,
            Self::Invalid | Self::TinyFragment => DropReason::InvalidPacketDropped,
            Self::ExtensionHeader => DropReason::InvalidIpv6ExtensionHeader,
        }
    }
}

impl<A: Address> Packet<A> {
    /// Whether it is an ICMP echo request.
    #[inline(always)]
    #[must_use]
    pub fn is_echo_request(&self) -> bool {
        self.protocol == A::ICMP && self.tcp_flags_or_icmp_type == A::ECHO_REQUEST
    }

    /// Whether it is an ICMP echo reply.
    #[inline(always)]
    #[must_use]
    pub fn is_echo_reply(&self) -> bool {
        self.protocol == A::ICMP && self.tcp_flags_or_icmp_type == A::ECHO_REPLY
    }

    /// Whether it is an ICMP error that quotes another packet.
    #[inline(always)]
    #[must_use]
    pub fn is_icmp_error(&self) -> bool {
        let kind = self.tcp_flags_or_icmp_type;
        self.protocol == A::ICMP
            && self.fragment as u8 != Fragment::Later as u8
            && if A::FAMILY == 4 { matches!(kind, 3 | 11 | 12) } else { matches!(kind, 1..=4) }
    }

    /// Whether it says "fragmentation needed" or "packet too big".
    #[inline(always)]
    #[must_use]
    pub fn is_packet_too_big(&self) -> bool {
        self.is_icmp_error()
            && if A::FAMILY == 4 {
                self.tcp_flags_or_icmp_type == 3 && self.icmp_code == 4
            } else {
                self.tcp_flags_or_icmp_type == 2
            }
    }

    /// Whether its protocol has ports.
    #[inline(always)]
    #[must_use]
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
    }

    /// Whether its TCP flags, among SYN, ACK, FIN and RST, are SYN alone.
    #[inline(always)]
    #[must_use]
    pub fn is_bare_syn(&self) -> bool {
        let mask = tcp_flag::SYN | tcp_flag::ACK | tcp_flag::FIN | tcp_flag::RST;
        self.protocol == protocol::TCP && self.tcp_flags_or_icmp_type & mask == tcp_flag::SYN
    }

    /// The shortest transport header of its protocol.
    #[inline(always)]
    fn transport_length(&self) -> usize {
        match self.protocol {
            protocol::TCP => 20,
            protocol::UDP => 8,
            protocol::SCTP => 12,
            number if number == A::ICMP => 8,
            _ => 0,
        }
    }

    /// Reads what the transport header says. `fragment_offset` is the position in the datagram.
    #[inline(always)]
    fn read_transport<B: Bytes + ?Sized, const QUOTED: bool>(
        &mut self,
        bytes: &B,
        at: usize,
        fragment_offset: usize,
    ) -> Result<(), ParseError> {
        let length = if QUOTED { self.transport_length().min(8) } else { self.transport_length() };
        #[expect(clippy::cast_possible_truncation, reason = "headers end below 64 KiB, see the callers")]
        {
            self.transport = at as u16;
        }
        if fragment_offset != 0 {
            self.fragment = Fragment::Later;
            return if fragment_offset < length { Err(ParseError::TinyFragment) } else { Ok(()) };
        }
        if at + length > self.end as usize {
            let split = self.fragment as u8 == Fragment::First as u8;
            return Err(if split { ParseError::TinyFragment } else { ParseError::Truncated });
        }
        match self.protocol {
            protocol::TCP if !QUOTED => {
                let [ports, _, _, state] = bytes.words(at).ok_or(ParseError::Truncated)?;
                if state >> 28 < 5 {
                    return Err(ParseError::Invalid);
                }
                (self.source_port, self.destination_port) = halves(ports);
                [_, self.tcp_flags_or_icmp_type, _, _] = state.to_be_bytes();
            }
            protocol::TCP | protocol::UDP | protocol::SCTP => {
                let [ports] = bytes.words(at).ok_or(ParseError::Truncated)?;
                (self.source_port, self.destination_port) = halves(ports);
            }
            number if number == A::ICMP => {
                let [head, rest] = bytes.words(at).ok_or(ParseError::Truncated)?;
                [self.tcp_flags_or_icmp_type, self.icmp_code, _, _] = head.to_be_bytes();
                if self.is_echo_request() || self.is_echo_reply() {
                    (self.source_port, _) = halves(rest);
                    self.destination_port = self.source_port;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Address for Ipv4 {
    const FAMILY: u8 = 4;
    const ICMP: u8 = protocol::ICMP;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn to_bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.octets();
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    #[inline(always)]
    fn parse<B: Bytes + ?Sized, const QUOTED: bool>(
        bytes: &B,
        at: usize,
    ) -> Result<Packet<Self>, ParseError> {
        let [w0, w1, w2, source, destination] = bytes.words(at).ok_or(ParseError::Truncated)?;
        let [first, ..] = w0.to_be_bytes();
        let (_, total) = halves(w0);
        let (id, flags) = halves(w1);
        let [ttl, number, ..] = w2.to_be_bytes();
        let header_length = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header_length < 20 {
            return Err(ParseError::Invalid);
        }
        let mut packet = Packet {
            source: Self(source),
            destination: Self(destination),
            protocol: number,
            hop_limit: ttl,
            fragment_id: u32::from(id),
            fragment: if flags & 0x2000 != 0 { Fragment::First } else { Fragment::Whole },
            end: packet_end::<B, QUOTED>(bytes, at, usize::from(total), header_length)?,
            ..Packet::default()
        };
        if header_length > 20 && asks_for_source_route(bytes, at + 20, at + header_length)? {
            return Err(ParseError::Invalid);
        }
        let fragment_offset = usize::from(flags & 0x1fff) * 8;
        packet.read_transport::<B, QUOTED>(bytes, at + header_length, fragment_offset)?;
        Ok(packet)
    }
}

impl Address for Ipv6 {
    const FAMILY: u8 = 6;
    const ICMP: u8 = protocol::ICMPV6;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn to_bytes(self) -> [u8; 16] {
        self.octets()
    }

    #[inline(always)]
    fn parse<B: Bytes + ?Sized, const QUOTED: bool>(
        bytes: &B,
        at: usize,
    ) -> Result<Packet<Self>, ParseError> {
        let [first, second] = bytes.words(at).ok_or(ParseError::Truncated)?;
        let [s0, s1, d0, d1] = bytes.longs(at + 8).ok_or(ParseError::Truncated)?;
        let (payload, _) = halves(second);
        let [_, _, next, hop_limit] = second.to_be_bytes();
        let payload = usize::from(payload);
        if first >> 28 != 6 {
            return Err(ParseError::Invalid);
        }
        let total = if payload == 0 { 0 } else { payload + 40 };
        let mut packet = Packet {
            source: Self { high: s0, low: s1 },
            destination: Self { high: d0, low: d1 },
            protocol: next,
            hop_limit,
            end: packet_end::<B, QUOTED>(bytes, at, total, 40)?,
            ..Packet::default()
        };
        let (transport, fragment_offset) = skip_extension_headers(bytes, &mut packet, at + 40)?;
        packet.read_transport::<B, QUOTED>(bytes, transport, fragment_offset)?;
        Ok(packet)
    }
}

/// The two 16-bit numbers of a word.
#[inline(always)]
const fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_be_bytes();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Where a packet ends that says it is `total` bytes long. Zero stands for a segmentation-offload packet longer
/// than the field can say.
#[inline(always)]
fn packet_end<B: Bytes + ?Sized, const QUOTED: bool>(
    bytes: &B,
    at: usize,
    total: usize,
    header_length: usize,
) -> Result<u32, ParseError> {
    let frame = bytes.len();
    #[expect(clippy::cast_possible_truncation, reason = "a frame's length has 32 bits")]
    if QUOTED || (total == 0 && frame > 65_535) {
        return Ok(frame as u32);
    }
    // Zero in IPv6 is a bare header, which no protocol of ours can use.
    let total = if total == 0 { header_length } else { total };
    if total < header_length {
        return Err(ParseError::Invalid);
    }
    if at + total > frame {
        return Err(ParseError::Truncated);
    }
    #[expect(clippy::cast_possible_truncation, reason = "not above the frame's length")]
    Ok((at + total) as u32)
}

/// Whether the IPv4 options between `at` and `end` hold a loose or strict source route: the destination in the
/// header would not be the one that the packet finally reaches.
#[inline(always)]
fn asks_for_source_route<B: Bytes + ?Sized>(bytes: &B, at: usize, end: usize) -> Result<bool, ParseError> {
    let mut at = at;
    for _ in 0..OPTIONS_MAX {
        if at >= end {
            return Ok(false);
        }
        // Two bytes at once: the verifier does not follow the comparison for a single one.
        let [kind, length] = bytes.load(at).ok_or(ParseError::Truncated)?;
        match kind {
            0 => return Ok(false),
            1 => at = after(at, 1),
            131 | 137 => return Ok(true),
            _ => {
                if length < 2 {
                    return Err(ParseError::Invalid);
                }
                at = after(at, usize::from(length));
            }
        }
    }
    if at >= end { Ok(false) } else { Err(ParseError::Invalid) }
}

/// Follows IPv6 extension headers from `at`; returns where the transport header begins and the fragment offset.
#[inline(always)]
fn skip_extension_headers<B: Bytes + ?Sized>(
    bytes: &B,
    packet: &mut Packet<Ipv6>,
    at: usize,
) -> Result<(usize, usize), ParseError> {
    let mut at = at;
    for nth in 0..=EXTENSION_HEADERS_MAX {
        if !is_extension_header(packet.protocol) {
            return Ok((at, 0));
        }
        if nth == EXTENSION_HEADERS_MAX {
            break;
        }
        // No header is shorter, and what lies behind the packet's end is padding.
        if at + 8 > packet.end as usize {
            return Err(ParseError::Truncated);
        }
        let [next, length, w0, segments_left] = bytes.load(at).ok_or(ParseError::Truncated)?;
        match packet.protocol {
            // Hop-by-hop options come first or not at all.
            0 if nth == 0 => at = after(at, (usize::from(length) + 1) * 8),
            60 => at = after(at, (usize::from(length) + 1) * 8),
            // A routing header with work left sends the packet elsewhere than its destination says.
            43 if segments_left == 0 => at = after(at, (usize::from(length) + 1) * 8),
            51 => at = after(at, (usize::from(length) + 2) * 4),
            44 if packet.fragment as u8 == Fragment::Whole as u8 => {
                let [i0, i1, i2, i3] = bytes.load(at + 4).ok_or(ParseError::Truncated)?;
                let field = u16::from_be_bytes([w0, segments_left]);
                packet.fragment_id = u32::from_be_bytes([i0, i1, i2, i3]);
                if field & 0xfff8 != 0 {
                    packet.protocol = next;
                    // The rest of the header chain is in the first fragment, out of reach.
                    let reachable = !is_extension_header(next);
                    let offset = usize::from(field & 0xfff8);
                    return if reachable {
                        Ok((after(at, 8), offset))
                    } else {
                        Err(ParseError::ExtensionHeader)
                    };
                }
                if field & 1 != 0 {
                    packet.fragment = Fragment::First;
                }
                at = after(at, 8);
            }
            _ => return Err(ParseError::ExtensionHeader),
        }
        packet.protocol = next;
        if at > packet.end as usize {
            return Err(ParseError::Truncated);
        }
    }
    Err(ParseError::ExtensionHeader)
}

/// The place `length` bytes after `at`. The mask changes nothing (headers end far below it), but with it every way
/// through the headers looks alike to the verifier, which then follows only one.
#[inline(always)]
const fn after(at: usize, length: usize) -> usize {
    (at + length) & 0x3fff
}

#[inline(always)]
const fn is_extension_header(number: u8) -> bool {
    matches!(number, 0 | 43 | 44 | 51 | 60)
}

#[cfg(test)]
mod tests;
