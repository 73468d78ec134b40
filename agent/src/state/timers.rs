//! What happens only because time passes.

use std::time::Instant;

use sluice_ebpf_common::IpcacheEntry;
use sluice_types::{EndpointId, Identity};

use super::{IDENTITY_GRACE, LEASE_OPEN_MAX, State};
use crate::effect::Effect;
use crate::event::Now;

impl State {
    /// When the next [`crate::event::Event::Tick`] is due; none if nothing waits for time.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waiting = self.waiting_for_pod.iter().map(|waiting| waiting.deadline);
        if !self.is_ready() || self.in_flight.is_some() {
            // Whatever else is due happens after the batch.
            return waiting.min();
        }
        waiting
            .chain(self.identities.next_expiry(IDENTITY_GRACE))
            .chain(self.prefixes.next_expiry(IDENTITY_GRACE))
            .chain(self.ipcache_retry)
            .chain(self.unstored.retry_at)
            .chain(self.removals.iter().filter_map(|removal| removal.retry_at))
            .chain(self.endpoints.values().filter_map(|endpoint| endpoint.retry_at))
            .min()
    }

    /// A deadline has come. What failed is tried again by the next batch by itself.
    pub(super) fn tick(&mut self, now: Now) -> Vec<Effect> {
        self.expire_identities(now);
        self.expire_prefixes(now);
        for owner in self.ipam.abandoned(now.instant, LEASE_OPEN_MAX) {
            tracing::warn!(owner = %owner, "lease ended: no endpoint came for it");
            self.unstored.ipam |= self.ipam.release(&owner, now.instant);
        }
        self.retry_waiting_for_pod(now)
    }

    /// Forgets identities that no endpoint has had for a while and that nothing in the kernel maps to.
    fn expire_identities(&mut self, now: Now) {
        let mut is_room_made = false;
        for identity in self.identities.expired(now.instant, IDENTITY_GRACE) {
            let is_realized =
                self.endpoints.values().any(|known| known.realized.info.identity == identity.as_u32());
            if self.ipcache.uses(identity) > 0 || is_realized {
                continue;
            }
            let changed = self.repository.remove_identity(identity);
            self.changed.merge(changed);
            self.identities.retire(identity);
            self.names.identity(identity, None);
            is_room_made = true;
        }
        if is_room_made {
            let closed: Vec<EndpointId> = self
                .endpoints
                .values()
                .filter(|known| known.identity.is_none())
                .map(|known| known.id)
                .collect();
            for id in closed {
                self.refresh_identity(id, now);
            }
        }
    }

    /// Numbers that only the kernel held are free once every policy and every address has been written anew.
    pub(super) fn unblock_identities(&mut self) {
        if self.endpoints.values().all(|known| known.realized.policy.is_some()) && !self.ipcache.is_dirty() {
            self.identities.unblock_all();
        }
    }

    /// Numbers in the kernel's ipcache that no table explains must not be given to other labels.
    pub(super) fn block_unexplained(&mut self, entry: &IpcacheEntry) {
        self.identities.block(Identity::new(entry.identity));
    }
}
