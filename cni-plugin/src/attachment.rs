//! An attachment, one interface of one container, and the names that follow from it.
//!
//! Names are computed, not kept: whoever knows container and interface finds the host-side veth again, also after
//! a crash. The veth's alias says whose it is and whether ADD came to its end.

use std::fmt;

use sluice_netlink::MacAddr;

/// How names of our host-side veths begin; 12 hexadecimal digits follow.
pub(crate) const HOST_IFNAME_PREFIX: &str = "slu";

/// One interface of one container in one network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Attachment {
    /// Name of the network.
    pub(crate) network: String,
    /// `CNI_CONTAINERID`.
    pub(crate) container_id: String,
    /// `CNI_IFNAME`.
    pub(crate) ifname: String,
}

/// How far ADD came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Begun.
    Adding,
    /// Done.
    Added,
}

impl Attachment {
    /// The attachment with these names, which the caller has checked.
    pub(crate) fn new(network: &str, container_id: &str, ifname: &str) -> Self {
        Self { network: network.to_owned(), container_id: container_id.to_owned(), ifname: ifname.to_owned() }
    }

    /// Name of the host-side veth: `slu` and 48 bits of a hash.
    pub(crate) fn host_ifname(&self) -> String {
        format!("{HOST_IFNAME_PREFIX}{:012x}", self.hash("name") & 0xffff_ffff_ffff)
    }

    /// Ethernet address of the host-side veth.
    pub(crate) fn host_mac(&self) -> MacAddr {
        self.mac("host")
    }

    /// Ethernet address of the container's interface.
    pub(crate) fn pod_mac(&self) -> MacAddr {
        self.mac("pod")
    }

    /// The alias of the host-side veth. None of the parts can hold a colon.
    pub(crate) fn alias(&self, phase: Phase) -> String {
        format!("sluice:{phase}:{self}")
    }

    /// The attachment and phase that an alias names, if it is one of ours.
    pub(crate) fn from_alias(alias: &str) -> Option<(Self, Phase)> {
        let mut parts = alias.split(':');
        let (Some("sluice"), Some(phase)) = (parts.next(), parts.next()) else { return None };
        let phase = [Phase::Adding, Phase::Added].into_iter().find(|known| known.as_str() == phase)?;
        let attachment = Self::new(parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some((attachment, phase))
    }

    fn mac(&self, purpose: &str) -> MacAddr {
        let [_, _, bytes @ ..] = self.hash(purpose).to_be_bytes();
        MacAddr(bytes).local_unicast()
    }

    /// FNV-1a of 64 bits, then mixed so that all bits of the result depend on all bits of the input. Container ids
    /// are random already; a collision is noticed by the alias and refused.
    fn hash(&self, purpose: &str) -> u64 {
        let text = [self.container_id.as_str(), self.ifname.as_str(), purpose].join("/");
        let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.network, self.container_id, self.ifname)
    }
}

impl Phase {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Adding => "adding",
            Self::Added => "added",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_stable_and_differ() {
        let one = Attachment::new("pods", "abc", "eth0");
        assert_eq!(one.host_ifname(), Attachment::new("other", "abc", "eth0").host_ifname());
        assert_eq!(one.host_ifname(), "slu8ef7b5ca2644");
        let mut names = BTreeSet::new();
        for id in 0..5000 {
            let attachment = Attachment::new("pods", &format!("c{id}"), "eth0");
            assert_eq!(attachment.host_ifname().len(), 15);
            assert_ne!(attachment.host_mac(), attachment.pod_mac());
            assert_eq!(attachment.pod_mac().0[0] & 3, 2, "locally administered, unicast");
            assert!(names.insert(attachment.host_ifname()) && names.insert(attachment.pod_mac().to_string()));
        }
    }

    #[test]
    fn alias_there_and_back() {
        let long = Attachment::new(&"n".repeat(64), &"c".repeat(128), &"i".repeat(15));
        for attachment in [Attachment::new("pods", "a.b-c_d", "eth0"), long] {
            for phase in [Phase::Adding, Phase::Added] {
                let alias = attachment.alias(phase);
                assert!(alias.len() <= 255);
                assert_eq!(Attachment::from_alias(&alias), Some((attachment.clone(), phase)));
            }
        }
        for other in
            ["", "sluice", "sluice:added:a:b", "sluice:added:a:b:c:d", "sluice:x:a:b:c", "x:added:a:b:c"]
        {
            assert_eq!(Attachment::from_alias(other), None, "{other:?}");
        }
    }
}
