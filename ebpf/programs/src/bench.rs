//! Programs for measurements only: the lookups of the datapath, and what they are compared with, on random keys.
//!
//! A run of `BPF_PROG_TEST_RUN` repeats one packet, whose lookups would all hit the cache; these programs draw a
//! key for each run instead. Loaded by the measurements, never attached.
#![no_std]
#![no_main]
#![expect(dead_code, reason = "the stages are the datapath's own; only their lookups are used here")]

mod conntrack;
mod deliver;
mod event;
mod family;
mod fragment;
mod ipcache;
mod judge;
mod maps;
mod once;
mod parse;
mod policy;
mod redirect;
mod scene;

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use sluice_ebpf_common::packet::Ipv4;
use sluice_ebpf_common::{IpcacheEntry, PolicyEntry, PolicyKey};

/// How many keys there are to draw from.
#[btf_map(name = "bench_range")]
static RANGE: Array<u32, 1> = Array::new();

/// A bare hash with the entries of a policy.
#[btf_map(name = "bench_plain")]
static HASH: HashMap<PolicyKey, PolicyEntry, 131072> = HashMap::new();

/// One trie with all addresses and prefixes.
#[btf_map(name = "bench_prefix")]
static TRIE: LpmTrie<[u8; 4], IpcacheEntry, 524288> = LpmTrie::new();

/// A number below the range.
#[inline(always)]
fn draw() -> u32 {
    // SAFETY: a helper without arguments.
    let random = unsafe { bpf_get_prandom_u32() };
    match RANGE.get(0) {
        Some(range) if *range != 0 => random % *range,
        _ => 0,
    }
}

/// The `number`th address: below 10.0.0.0/8, spread so that neighbours in number share no prefix of use.
#[inline(always)]
fn address(number: u32) -> [u8; 4] {
    (0x0a00_0000 | number.wrapping_mul(0x9e_3779) & 0x00ff_ffff).to_be_bytes()
}

/// The harness, and drawing a key: what all others have in common.
#[classifier]
pub(crate) fn bench_nothing(_: TcContext) -> i32 {
    draw() as i32 & 1
}

/// Who has a random address, as the datapath asks.
#[classifier]
pub(crate) fn bench_identity(_: TcContext) -> i32 {
    ipcache::lookup(&Ipv4::new(address(draw()))).identity as i32
}

/// Who has a random address, from one trie.
#[classifier]
pub(crate) fn bench_trie(_: TcContext) -> i32 {
    TRIE.get(&Key::new(32, address(draw()))).map_or(0, |entry| entry.identity as i32)
}

/// What policy says about a random identity, as the datapath asks.
#[classifier]
pub(crate) fn bench_policy(_: TcContext) -> i32 {
    let question = policy::Question::new(6, policy::Port::Number(80)).egress();
    policy::judge(1, 256 + draw(), question).rule() as i32
}

/// The entry of a random identity in a bare hash.
#[classifier]
pub(crate) fn bench_hash(_: TcContext) -> i32 {
    let key = PolicyKey::new(256 + draw(), 6, 80, 16, true);
    // SAFETY: a number is read from it at once.
    unsafe { HASH.get(&key) }.map_or(0, |entry| entry.rule as i32)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier accepts no program in which this remains.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
