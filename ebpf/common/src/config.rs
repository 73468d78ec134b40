//! Run-time settings of the datapath: one map entry, written by the agent, read by every program.

use core::mem::size_of;

crate::bit_set! {
    /// Switches of the datapath.
    ConfigFlags: u32 {
        /// Let "fragmentation needed" and "packet too big" pass even without a matching connection (upstream's
        /// `allow-icmp-frag-needed`, default on).
        ALLOW_FRAG_NEEDED = 1;
        /// Report a verdict event for each allowed new connection, not only for drops.
        VERDICT_EVENTS = 2;
        /// Fragments after the first are matched to it; off means that only port-blind policy passes them.
        TRACK_FRAGMENTS = 4;
        /// Policies may redirect flows: what comes from outside for a pod is looked up among the proxies'
        /// connections. Off, a redirected flow with a peer outside does not pass.
        REDIRECTS = 8;
    }
}

/// The single entry of `sluice_config`. All zero (the state before an agent wrote it) is the closed state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// Changes whenever an address changes its identity; cached verdicts of another epoch are judged again.
    pub ipcache_epoch: u32,
    /// Switches.
    pub flags: ConfigFlags,
    /// How many live connections one endpoint may have opened before new ones are dropped. 0: no limit.
    pub conntrack_quota: u32,
    /// How many events per second and drop reason are reported on one CPU; the rest is counted as lost.
    pub events_per_second: u32,
}

const _: () = assert!(size_of::<Config>() == 16);
