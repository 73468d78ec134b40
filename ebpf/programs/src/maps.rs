//! The maps, under the names that user space opens them by. Sizes are defaults; the loader overrides them.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf,
};
use aya_ebpf::macros::btf_map;
use sluice_ebpf_common::{
    Config, ConntrackEntry, ConntrackKey4, ConntrackKey6, CounterKey, Counters, EndpointInfo, Event,
    EventLimit, FragmentKey, FragmentPorts, INTERFACE_SLOTS, IpcacheEntry, PolicyEntry, PolicyKey,
};

use crate::scene::Scratch;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// The inner map of [`POLICY`]; each real one has its own size.
pub(crate) type PolicyMap = HashMap<PolicyKey, PolicyEntry, 1, NO_PREALLOC>;

#[btf_map(name = "sluice_ifindex")]
pub(crate) static IFINDEX: HashMap<u32, u32, 4096> = HashMap::new();

#[btf_map(name = "sluice_ifslot")]
pub(crate) static IFSLOT: Array<u32, { INTERFACE_SLOTS as usize }> = Array::new();

#[btf_map(name = "sluice_endpoint")]
pub(crate) static ENDPOINT: Array<EndpointInfo, 4096> = Array::new();

#[btf_map(name = "sluice_ipc4")]
pub(crate) static IPCACHE4: HashMap<[u8; 4], IpcacheEntry, 524288, NO_PREALLOC> = HashMap::new();

#[btf_map(name = "sluice_ipc6")]
pub(crate) static IPCACHE6: HashMap<[u8; 16], IpcacheEntry, 524288, NO_PREALLOC> = HashMap::new();

#[btf_map(name = "sluice_cidr4")]
pub(crate) static CIDR4: LpmTrie<[u8; 4], IpcacheEntry, 65536> = LpmTrie::new();

#[btf_map(name = "sluice_cidr6")]
pub(crate) static CIDR6: LpmTrie<[u8; 16], IpcacheEntry, 65536> = LpmTrie::new();

#[btf_map(name = "sluice_policy")]
pub(crate) static POLICY: ArrayOfMaps<PolicyMap, 4096> = ArrayOfMaps::new();

#[btf_map(name = "sluice_ct4")]
pub(crate) static CONNTRACK4: LruHashMap<ConntrackKey4, ConntrackEntry, 262144> = LruHashMap::new();

#[btf_map(name = "sluice_ct6")]
pub(crate) static CONNTRACK6: LruHashMap<ConntrackKey6, ConntrackEntry, 262144> = LruHashMap::new();

#[btf_map(name = "sluice_frag")]
pub(crate) static FRAGMENT: LruHashMap<FragmentKey, FragmentPorts, 8192> = LruHashMap::new();

#[btf_map(name = "sluice_forward")]
pub(crate) static FORWARD: PerCpuArray<Counters, 8192> = PerCpuArray::new();

#[btf_map(name = "sluice_counter")]
pub(crate) static COUNTER: PerCpuHashMap<CounterKey, Counters, 65536, NO_PREALLOC> = PerCpuHashMap::new();

#[btf_map(name = "sluice_quota")]
pub(crate) static QUOTA: Array<u64, 4096> = Array::new();

#[btf_map(name = "sluice_limit")]
pub(crate) static LIMIT: PerCpuArray<EventLimit, 256> = PerCpuArray::new();

#[btf_map(name = "sluice_events")]
pub(crate) static EVENTS: RingBuf<Event, 1048576> = RingBuf::new();

/// Working memory of the programs; of no interest to user space.
#[btf_map(name = "sluice_scratch")]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

#[btf_map(name = "sluice_config")]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();
