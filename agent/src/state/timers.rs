//! What happens only because time passes.

use std::time::{Duration, Instant};

use sluice_types::EndpointId;

use super::{IDENTITY_GRACE, LEASE_OPEN_MAX, State};
use crate::effect::Effect;
use crate::event::Now;

/// The shortest time between two ticks.
const TICK_MIN: Duration = Duration::from_millis(20);

impl State {
    /// When the next [`crate::event::Event::Tick`] is due; none if nothing waits for time.
    #[must_use]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        // What cannot be done when it is due is tried again, but not in a tight loop.
        self.next_due().map(|at| self.last_tick.map_or(at, |last| at.max(last + TICK_MIN)))
    }

    fn next_due(&self) -> Option<Instant> {
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
            .chain(self.ipam.next_abandoned(LEASE_OPEN_MAX))
            .min()
    }

    /// A deadline has come. What failed is tried again by the next batch by itself.
    pub(super) fn tick(&mut self, now: Now) -> Vec<Effect> {
        self.last_tick = Some(now.instant);
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
            if !self.is_unused(identity) {
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
}
