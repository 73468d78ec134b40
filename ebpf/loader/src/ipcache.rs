//! Who has an address: single addresses in a hash, prefixes in a trie.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use sluice_ebpf_common::{IpcacheEntry, map_name};

use crate::error::LoaderError;
use crate::map::Map;
use crate::plain::PrefixKey;

/// The ipcache of both families. After a change of who has an address, the settings' epoch must be raised: verdicts
/// are remembered under the epoch in which they were looked up.
#[derive(Clone, Debug)]
pub struct Ipcache {
    exact4: Map<[u8; 4], IpcacheEntry>,
    exact6: Map<[u8; 16], IpcacheEntry>,
    prefix4: Map<PrefixKey<[u8; 4]>, IpcacheEntry>,
    prefix6: Map<PrefixKey<[u8; 16]>, IpcacheEntry>,
}

impl Ipcache {
    pub(crate) fn new(exact4: OwnedFd, exact6: OwnedFd, prefix4: OwnedFd, prefix6: OwnedFd) -> Self {
        Self {
            exact4: Map::new(exact4, map_name::IPCACHE4),
            exact6: Map::new(exact6, map_name::IPCACHE6),
            prefix4: Map::new(prefix4, map_name::CIDR4),
            prefix6: Map::new(prefix6, map_name::CIDR6),
        }
    }

    /// Sets the identity of a prefix; one of full length is a single address.
    ///
    /// # Errors
    /// The kernel refuses, for example because the map is full: the address then keeps what it had.
    pub fn upsert(&self, prefix: IpNet, entry: &IpcacheEntry) -> Result<(), LoaderError> {
        match Key::from(prefix) {
            Key::Exact4(key) => self.exact4.set(&key, entry),
            Key::Exact6(key) => self.exact6.set(&key, entry),
            Key::Prefix4(key) => self.prefix4.set(&key, entry),
            Key::Prefix6(key) => self.prefix6.set(&key, entry),
        }
    }

    /// Sets many, with as few system calls as possible.
    ///
    /// # Errors
    /// As [`Self::upsert`]; some may have been set.
    pub fn upsert_many(&self, entries: &[(IpNet, IpcacheEntry)]) -> Result<(), LoaderError> {
        let (mut keys4, mut values4) = (Vec::new(), Vec::new());
        let (mut keys6, mut values6) = (Vec::new(), Vec::new());
        for (prefix, entry) in entries {
            match Key::from(*prefix) {
                Key::Exact4(key) => {
                    keys4.push(key);
                    values4.push(*entry);
                }
                Key::Exact6(key) => {
                    keys6.push(key);
                    values6.push(*entry);
                }
                Key::Prefix4(key) => self.prefix4.set(&key, entry)?,
                Key::Prefix6(key) => self.prefix6.set(&key, entry)?,
            }
        }
        self.exact4.set_many(&keys4, &values4)?;
        self.exact6.set_many(&keys6, &values6)
    }

    /// Removes a prefix; false if it was not there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self, prefix: IpNet) -> Result<bool, LoaderError> {
        match Key::from(prefix) {
            Key::Exact4(key) => self.exact4.remove(&key),
            Key::Exact6(key) => self.exact6.remove(&key),
            Key::Prefix4(key) => self.prefix4.remove(&key),
            Key::Prefix6(key) => self.prefix6.remove(&key),
        }
    }

    /// The entry of exactly this prefix (not of one that covers it).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn get(&self, prefix: IpNet) -> Result<Option<IpcacheEntry>, LoaderError> {
        // The trie answers with the longest match, so the whole list is what tells.
        match Key::from(prefix) {
            Key::Exact4(key) => self.exact4.get(&key),
            Key::Exact6(key) => self.exact6.get(&key),
            Key::Prefix4(_) | Key::Prefix6(_) => {
                Ok(self.dump()?.into_iter().find(|(own, _)| *own == prefix).map(|(_, entry)| entry))
            }
        }
    }

    /// All entries, sorted by prefix.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn dump(&self) -> Result<Vec<(IpNet, IpcacheEntry)>, LoaderError> {
        let mut all = Vec::new();
        for (address, entry) in self.exact4.dump()? {
            all.push((IpNet::from(IpAddr::from(address)), entry));
        }
        for (address, entry) in self.exact6.dump()? {
            all.push((IpNet::from(IpAddr::from(address)), entry));
        }
        for (key, entry) in self.prefix4.walk()? {
            let PrefixKey { length, address } = key;
            all.extend(net(Ipv4Addr::from(address).into(), length).map(|net| (net, entry)));
        }
        for (key, entry) in self.prefix6.walk()? {
            let PrefixKey { length, address } = key;
            all.extend(net(Ipv6Addr::from(address).into(), length).map(|net| (net, entry)));
        }
        all.sort_by_key(|(prefix, _)| *prefix);
        Ok(all)
    }
}

fn net(address: IpAddr, length: u32) -> Option<IpNet> {
    IpNet::new(address, u8::try_from(length).ok()?).ok()
}

/// Where a prefix is kept.
enum Key {
    Exact4([u8; 4]),
    Exact6([u8; 16]),
    Prefix4(PrefixKey<[u8; 4]>),
    Prefix6(PrefixKey<[u8; 16]>),
}

impl From<IpNet> for Key {
    fn from(prefix: IpNet) -> Self {
        let length = u32::from(prefix.prefix_len());
        let exact = prefix.prefix_len() == prefix.max_prefix_len();
        match prefix.network() {
            IpAddr::V4(address) if exact => Self::Exact4(address.octets()),
            IpAddr::V6(address) if exact => Self::Exact6(address.octets()),
            IpAddr::V4(address) => Self::Prefix4(PrefixKey { length, address: address.octets() }),
            IpAddr::V6(address) => Self::Prefix6(PrefixKey { length, address: address.octets() }),
        }
    }
}
