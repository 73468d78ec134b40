//! Stage 1: the shared parser over the kernel's packet pointers.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_pull_data;
use sluice_ebpf_common::packet::{Address, Bytes, ETHERNET_LENGTH, Packet, ParseError};

use crate::family::Family;
use crate::once::Once;

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

impl Frame {
    /// Where `size` bytes at `offset` begin, if they are all there.
    #[inline(always)]
    fn at(&self, offset: usize, size: usize) -> Option<usize> {
        // The mask tells the verifier that no offset leaves the packet's possible range; real ones are smaller.
        let start = self.data + (offset & 0x3fff);
        if start + size > self.end { None } else { Some(start) }
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.at(offset, N)?;
        // SAFETY: these bytes lie within the packet, as just compared.
        Some(unsafe { *(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let start = self.at(offset, N * 4)?;
        // SAFETY: within the packet. The address may be odd: the verifier refuses the program on machines that
        // cannot read there, and the compiler makes one load of it everywhere.
        Some(unsafe { *(start as *const [u32; N]) }.map(u32::from_be))
    }

    #[inline(always)]
    fn longs<const N: usize>(&self, offset: usize) -> Option<[u64; N]> {
        let start = self.at(offset, N * 8)?;
        // SAFETY: as for words.
        Some(unsafe { *(start as *const [u64; N]) }.map(u64::from_be))
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
///
/// # Errors
/// The number of the reason to drop it.
#[inline(always)]
pub(crate) fn ip<A: Family>(skb: *mut __sk_buff, packet: &mut Packet<A>) -> Result<(), u32> {
    let mut reason = <A as Once>::parse(skb, packet);
    if reason == ParseError::Truncated.reason().number() as u32 {
        pull(skb);
        reason = <A as Once>::parse(skb, packet);
    }
    if reason == 0 { Ok(()) } else { Err(reason) }
}

/// The same for linear bytes only; 0 or the number of the reason to drop it.
#[inline(always)]
pub(crate) fn read<A: Family>(skb: *mut __sk_buff, packet: &mut Packet<A>) -> u32 {
    finish(<A as Address>::parse::<Frame, false>(&Frame::new(skb), ETHERNET_LENGTH), packet)
}

/// Reads the packet that an ICMP error quotes.
#[inline(always)]
pub(crate) fn read_quoted<A: Family>(skb: *mut __sk_buff, transport: u32, packet: &mut Packet<A>) -> u32 {
    let at = (transport & 0x3fff) as usize + 8;
    finish(<A as Address>::parse::<Frame, true>(&Frame::new(skb), at), packet)
}

#[inline(always)]
fn finish<A: Family>(result: Result<Packet<A>, ParseError>, packet: &mut Packet<A>) -> u32 {
    match result {
        Ok(read) => {
            *packet = read;
            0
        }
        Err(error) => error.reason().number() as u32,
    }
}
