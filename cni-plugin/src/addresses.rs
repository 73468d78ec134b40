//! The addresses of a pod, whoever handed them out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::Value;
use sluice_client::model::IpamLease;

use crate::result::{CniResult, IpConfig};

/// Where a pod's IPv4 default route leads: link-local, no host has it, the veth's other end answers for it.
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Where a pod's IPv6 default route leads.
const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// At most one address of each family, and what comes with them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Addresses {
    pub(crate) ipv4: Option<PodAddress<Ipv4Addr>>,
    pub(crate) ipv6: Option<PodAddress<Ipv6Addr>>,
    /// MTU that goes with them.
    pub(crate) mtu: Option<u32>,
    /// `dns` that goes with them.
    pub(crate) dns: Option<Value>,
}

/// An address and the gateway of its default route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PodAddress<T> {
    pub(crate) ip: T,
    pub(crate) gateway: T,
}

impl Addresses {
    /// What the agent leased. The error says what is wrong with it.
    pub(crate) fn from_lease(lease: &IpamLease) -> Result<Self, String> {
        let mut addresses = Self { mtu: Some(lease.mtu), ..Self::default() };
        let all = [lease.ipv4.map(IpAddr::V4), lease.ipv6.map(IpAddr::V6)];
        addresses.take(all.into_iter().flatten())?;
        if let (Some(address), Some(gateway)) = (&mut addresses.ipv4, lease.gateway4) {
            address.gateway = gateway;
        }
        if let (Some(address), Some(gateway)) = (&mut addresses.ipv6, lease.gateway6) {
            address.gateway = gateway;
        }
        Ok(addresses)
    }

    /// What another plugin handed out. Its gateways and prefix lengths do not matter: the pod has host routes.
    pub(crate) fn from_ips<'a>(ips: impl IntoIterator<Item = &'a IpConfig>) -> Result<Self, String> {
        let mut addresses = Self::default();
        addresses.take(ips.into_iter().map(|ip| ip.address.addr()))?;
        Ok(addresses)
    }

    /// What the result of an IPAM plugin says.
    pub(crate) fn from_ipam(result: &CniResult) -> Result<Self, String> {
        let addresses = Self::from_ips(&result.ips)?;
        Ok(Self { dns: result.dns.clone(), ..addresses })
    }

    /// All addresses with their gateways, IPv4 first.
    pub(crate) fn each(&self) -> impl Iterator<Item = PodAddress<IpAddr>> + use<> {
        let ipv4 = self.ipv4.map(|own| PodAddress { ip: own.ip.into(), gateway: own.gateway.into() });
        let ipv6 = self.ipv6.map(|own| PodAddress { ip: own.ip.into(), gateway: own.gateway.into() });
        ipv4.into_iter().chain(ipv6)
    }

    fn take(&mut self, ips: impl IntoIterator<Item = IpAddr>) -> Result<(), String> {
        for ip in ips {
            check_usable(ip)?;
            let has_one = match ip {
                IpAddr::V4(ip) => self.ipv4.replace(PodAddress { ip, gateway: GATEWAY4 }).is_some(),
                IpAddr::V6(ip) => self.ipv6.replace(PodAddress { ip, gateway: GATEWAY6 }).is_some(),
            };
            if has_one {
                return Err(format!("{ip} is a second address of its family, and a pod has one of each"));
            }
        }
        if self.ipv4.is_none() && self.ipv6.is_none() {
            return Err("it holds no address".to_owned());
        }
        Ok(())
    }
}

/// The address as the prefix that holds nothing else.
pub(crate) fn host_net(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

fn check_usable(ip: IpAddr) -> Result<(), String> {
    let is_special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    let is_wrong = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    if is_special || is_wrong { Err(format!("{ip} cannot be a pod's address")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(texts: &[&str]) -> Result<Addresses, String> {
        let ip = |text: &&str| IpConfig { address: text.parse().unwrap(), gateway: None, interface: None };
        Addresses::from_ips(&texts.iter().map(ip).collect::<Vec<_>>())
    }

    #[test]
    fn one_of_each_family() {
        let both = from(&["fd00::5/64", "10.1.0.5/16"]).unwrap();
        let each: Vec<_> = both.each().map(|own| (own.ip.to_string(), own.gateway.to_string())).collect();
        let expected = [("10.1.0.5", "169.254.1.1"), ("fd00::5", "fe80::1")];
        assert_eq!(each, expected.map(|(ip, gateway)| (ip.to_owned(), gateway.to_owned())));
        assert_eq!(from(&["10.1.0.5/16"]).unwrap().each().count(), 1);
        let refused: [&[&str]; 10] = [
            &[],
            &["10.1.0.5/16", "10.1.0.6/16"],
            &["fd00::5/64", "fd00::6/64"],
            &["127.0.0.1/8"],
            &["0.0.0.0/0"],
            &["224.0.0.1/4"],
            &["169.254.7.7/16"],
            &["::1/128"],
            &["fe80::5/64"],
            &["::ffff:10.0.0.1/128"],
        ];
        for texts in refused {
            assert!(from(texts).is_err(), "{texts:?}");
        }
    }

    #[test]
    fn a_lease() {
        let lease = IpamLease {
            ipv4: Some(Ipv4Addr::new(10, 244, 0, 5)),
            ipv6: None,
            gateway4: Some(Ipv4Addr::new(169, 254, 7, 7)),
            gateway6: None,
            mtu: 1400,
        };
        let addresses = Addresses::from_lease(&lease).unwrap();
        assert_eq!(addresses.ipv4.unwrap().gateway, Ipv4Addr::new(169, 254, 7, 7));
        assert_eq!((addresses.ipv6, addresses.mtu), (None, Some(1400)));
        assert!(Addresses::from_lease(&IpamLease { ipv4: None, ..lease }).is_err());
    }
}
