//! Stage 1: the shared parser over the kernel's packet pointers.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_pull_data;
use sluice_ebpf_common::packet::{Bytes, ETHERNET_LENGTH, Packet, ParseError};

use crate::family::Family;

/// How many bytes of a frame are made linear when a header is not: all headers the parser follows lie within, or
/// the packet is refused.
const PULL_LENGTH: u32 = 512;

/// The packet's linear bytes.
pub(crate) struct Frame {
    data: usize,
    end: usize,
    length: usize,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff) -> Self {
        // SAFETY: fields of the context.
        unsafe {
            Self { data: (*skb).data as usize, end: (*skb).data_end as usize, length: (*skb).len as usize }
        }
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // The mask tells the verifier that no offset leaves the packet's possible range; real ones are smaller.
        let start = self.data + (offset & 0x3fff);
        if start + N > self.end {
            return None;
        }
        // SAFETY: start..start + N lies within the packet, as just compared.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.length
    }
}

/// Makes the frame's headers linear.
#[inline(always)]
pub(crate) fn pull(skb: *mut __sk_buff) {
    // SAFETY: a helper on the context. If it fails the bytes stay where they are and parsing fails again.
    unsafe {
        let length = (*skb).len;
        bpf_skb_pull_data(skb, if length < PULL_LENGTH { length } else { PULL_LENGTH });
    }
}

/// Reads the frame's IP packet into `packet`.
#[inline(always)]
pub(crate) fn ip<A: Family>(skb: *mut __sk_buff, packet: &mut Packet<A>) -> Result<(), ParseError> {
    let mut result = read(skb, packet);
    if result == Err(ParseError::Truncated) {
        pull(skb);
        result = read(skb, packet);
    }
    result
}

#[inline(never)]
fn read<A: Family>(skb: *mut __sk_buff, packet: &mut Packet<A>) -> Result<(), ParseError> {
    *packet = A::parse::<Frame, false>(&Frame::new(skb), ETHERNET_LENGTH)?;
    Ok(())
}

/// Reads the packet that an ICMP error quotes.
#[inline(never)]
pub(crate) fn quoted<A: Family>(
    skb: *mut __sk_buff,
    transport: u32,
    packet: &mut Packet<A>,
) -> Result<(), ParseError> {
    let at = (transport & 0x3fff) as usize + 8;
    *packet = A::parse::<Frame, true>(&Frame::new(skb), at)?;
    Ok(())
}
