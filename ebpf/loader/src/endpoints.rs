//! Endpoints as the kernel knows them.

use std::os::fd::OwnedFd;

use sluice_ebpf_common::{EndpointInfo, INTERFACE_SLOTS, map_name};
use sluice_types::EndpointId;

use crate::error::LoaderError;
use crate::map::Map;

/// The endpoint table, and which interface leads to which endpoint.
#[derive(Clone, Debug)]
pub struct Endpoints {
    table: Map<u32, EndpointInfo>,
    interfaces: Map<u32, u32>,
    slots: Map<u32, u32>,
    quota: Map<u32, u64>,
}

impl Endpoints {
    pub(crate) fn new(table: OwnedFd, interfaces: OwnedFd, slots: OwnedFd, quota: OwnedFd) -> Self {
        Self {
            table: Map::new(table, map_name::ENDPOINT),
            interfaces: Map::new(interfaces, map_name::IFINDEX),
            slots: Map::new(slots, map_name::IFSLOT),
            quota: Map::new(quota, map_name::QUOTA),
        }
    }

    /// Writes an endpoint and the way to it from its interface. Also changes one that is there. A new policy must
    /// be installed before its revision is written here: verdicts are remembered under the revision that was in
    /// force when they were looked up.
    ///
    /// # Errors
    /// The kernel refuses; then nothing leads to the endpoint that did not before.
    pub fn insert(&self, info: &EndpointInfo) -> Result<(), LoaderError> {
        let id = u32::from(info.id);
        self.table.set(&id, info)?;
        if info.ifindex != 0 {
            self.interfaces.set(&info.ifindex, &id)?;
            // Whoever came last has the slot; the others are found the long way.
            self.slots.set(&(info.ifindex % INTERFACE_SLOTS), &id)?;
        }
        Ok(())
    }

    /// What the kernel knows of an endpoint.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&self, id: EndpointId) -> Result<Option<EndpointInfo>, LoaderError> {
        let info = self.table.get(&u32::from(id.as_u16()))?;
        Ok(info.filter(|info| info.id == id.as_u16()))
    }

    /// All endpoints.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn list(&self) -> Result<Vec<EndpointInfo>, LoaderError> {
        let all = self.table.dump()?;
        Ok(all.into_iter().map(|(_, info)| info).filter(|info| info.id != 0).collect())
    }

    /// Forgets an endpoint: from now on everything from and to it is dropped. Its policy map and its addresses in
    /// the ipcache are the caller's to remove. One that is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self, id: EndpointId) -> Result<(), LoaderError> {
        let key = u32::from(id.as_u16());
        if let Some(info) = self.read(id)? {
            self.table.set(&key, &EndpointInfo::default())?;
            // The index may lead to another endpoint by now.
            if self.interfaces.get(&info.ifindex)? == Some(key) {
                self.interfaces.remove(&info.ifindex)?;
            }
            let slot = info.ifindex % INTERFACE_SLOTS;
            if self.slots.get(&slot)? == Some(key) {
                self.slots.set(&slot, &0)?;
            }
        }
        self.quota.set(&key, &0)
    }

    /// The endpoint behind an interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn behind(&self, ifindex: u32) -> Result<Option<EndpointId>, LoaderError> {
        let id = self.interfaces.get(&ifindex)?;
        Ok(id.and_then(|id| EndpointId::new(u16::try_from(id).ok()?)))
    }

    /// Every way from an interface to an endpoint.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn interfaces(&self) -> Result<Vec<(u32, u32)>, LoaderError> {
        self.interfaces.dump()
    }

    /// Removes the way from an interface, for one that is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_interface(&self, ifindex: u32) -> Result<bool, LoaderError> {
        self.interfaces.remove(&ifindex)
    }
}
