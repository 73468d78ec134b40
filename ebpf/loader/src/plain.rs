//! Which types may be copied to and from the kernel byte for byte.

use sluice_ebpf_common::{
    Config, ConntrackEntry, ConntrackKey4, ConntrackKey6, CounterKey, Counters, EndpointInfo, EventLimit,
    IpcacheEntry, PolicyEntry, PolicyKey,
};

/// A type without padding for which every bit pattern is a value.
///
/// # Safety
/// Both properties must hold: the kernel reads all bytes and may return any.
pub(crate) unsafe trait Plain: Copy + 'static {
    /// The value of all zero bytes.
    fn zero() -> Self {
        // SAFETY: every bit pattern is a value.
        unsafe { std::mem::zeroed() }
    }
}

macro_rules! plain {
    ($($name:ty),+ $(,)?) => {
        // SAFETY: numbers, or `repr(C)` structs of numbers and byte arrays whose size without holes is asserted
        // where they are defined.
        $(unsafe impl Plain for $name {})+
    };
}

plain!(
    u32,
    u64,
    [u8; 4],
    [u8; 16],
    Config,
    ConntrackEntry,
    ConntrackKey4,
    ConntrackKey6,
    CounterKey,
    Counters,
    EndpointInfo,
    EventLimit,
    IpcacheEntry,
    PolicyEntry,
    PolicyKey,
);

/// Key of a prefix map: length in bits, then the address.
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefixKey<T> {
    pub(crate) length: u32,
    pub(crate) address: T,
}

// SAFETY: packed, so without padding; both fields are plain.
unsafe impl<T: Plain> Plain for PrefixKey<T> {}
