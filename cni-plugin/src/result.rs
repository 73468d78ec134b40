//! Results: what an attachment consists of, in the form of every version of the specification.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::json::Node;
use crate::version::SpecVersion;

/// Most interfaces, addresses or routes of one result.
const LIST_LEN_MAX: usize = 256;

/// The result of ADD.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct CniResult {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ips: Vec<IpConfig>,
    pub(crate) routes: Vec<RouteConfig>,
    /// As it came or is configured; an object.
    pub(crate) dns: Option<Value>,
}

/// An interface, on the node or in a container.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mac: Option<String>,
    /// Absent for an interface of the node.
    pub(crate) sandbox: Option<String>,
    /// From 1.1.0 on.
    pub(crate) mtu: Option<u32>,
}

/// An address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct IpConfig {
    pub(crate) address: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    /// Index into the interfaces.
    pub(crate) interface: Option<usize>,
}

/// A route of the container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RouteConfig {
    pub(crate) destination: IpNet,
    pub(crate) gateway: Option<IpAddr>,
}

impl CniResult {
    /// Reads a result of any version: they differ in what they may leave away.
    pub(crate) fn from_json(node: &Node<'_>) -> Result<Self, Error> {
        node.object()?;
        let interfaces = node.list("interfaces", LIST_LEN_MAX)?;
        let ips = node.list("ips", LIST_LEN_MAX)?;
        let routes = node.list("routes", LIST_LEN_MAX)?;
        let dns = node.member("dns")?;
        if let Some(dns) = &dns {
            dns.object()?;
        }
        Ok(Self {
            interfaces: interfaces.iter().map(interface).collect::<Result<_, _>>()?,
            ips: ips.iter().map(ip_config).collect::<Result<_, _>>()?,
            routes: routes.iter().map(route).collect::<Result<_, _>>()?,
            dns: dns.map(|dns| dns.value().clone()),
        })
    }

    /// Refuses addresses that name an interface which is not listed.
    pub(crate) fn check_indices(&self) -> Result<(), Error> {
        for (nth, ip) in self.ips.iter().enumerate() {
            if let Some(index) = ip.interface.filter(|index| *index >= self.interfaces.len()) {
                let reason = format!("interface {index} is not in the list of {}", self.interfaces.len());
                return Err(Error::Decode { what: format!("prevResult.ips[{nth}]"), reason });
            }
        }
        Ok(())
    }

    /// The interface `name` inside the container, and its index.
    pub(crate) fn container_interface(&self, name: &str) -> Option<(usize, &Interface)> {
        let mut all = self.interfaces.iter().enumerate();
        all.find(|(_, interface)| interface.sandbox.is_some() && interface.name == name)
    }

    /// The addresses of the container's interface `name`: those that say so, and those that name none.
    pub(crate) fn ips_of_container(&self, name: &str) -> Vec<&IpConfig> {
        let index = self.container_interface(name).map(|(index, _)| index);
        self.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == index).collect()
    }

    /// Writes the result as `version` wants it.
    pub(crate) fn to_json(&self, version: SpecVersion) -> Value {
        let interfaces: Vec<_> =
            self.interfaces.iter().map(|interface| interface_json(interface, version)).collect();
        let ips: Vec<_> = self.ips.iter().map(|ip| ip_json(ip, version)).collect();
        let routes: Vec<_> = self.routes.iter().map(route_json).collect();
        json!({
            "cniVersion": version.as_str(),
            "interfaces": interfaces,
            "ips": ips,
            "routes": routes,
            "dns": self.dns.clone().unwrap_or_else(|| json!({})),
        })
    }
}

fn interface(node: &Node<'_>) -> Result<Interface, Error> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(Interface {
        name: owned(node.text_at("name")?).ok_or_else(|| node.invalid("name is missing"))?,
        mac: owned(node.text_at("mac")?),
        sandbox: owned(node.text_at("sandbox")?),
        mtu: node.number_at("mtu")?,
    })
}

fn ip_config(node: &Node<'_>) -> Result<IpConfig, Error> {
    let address = node.net_at("address")?;
    let family = if address.addr().is_ipv4() { "4" } else { "6" };
    if let Some(version) = node.text_at("version")?.filter(|version| *version != family) {
        return Err(node.invalid(&format!("version is {version}, the address {address}")));
    }
    let interface = node.number_at("interface")?.map(usize::try_from).transpose();
    Ok(IpConfig {
        address,
        gateway: node.ip_at("gateway")?,
        interface: interface.map_err(|error| node.invalid(&error.to_string()))?,
    })
}

fn route(node: &Node<'_>) -> Result<RouteConfig, Error> {
    Ok(RouteConfig { destination: node.net_at("dst")?, gateway: node.ip_at("gw")? })
}

fn interface_json(interface: &Interface, version: SpecVersion) -> Value {
    let mut object = Map::new();
    object.insert("name".to_owned(), interface.name.clone().into());
    let mut put = |key: &str, value: Option<Value>| value.map(|value| object.insert(key.to_owned(), value));
    put("mac", interface.mac.clone().map(Value::from));
    put("mtu", interface.mtu.filter(|_| version >= SpecVersion::V1_1_0).map(Value::from));
    // Empty, not absent, for an interface of the node: there are readers that insist on it.
    put("sandbox", Some(interface.sandbox.clone().unwrap_or_default().into()));
    object.into()
}

fn ip_json(ip: &IpConfig, version: SpecVersion) -> Value {
    let mut object = Map::new();
    if version < SpecVersion::V1_0_0 {
        object.insert("version".to_owned(), if ip.address.addr().is_ipv4() { "4" } else { "6" }.into());
    }
    object.insert("address".to_owned(), ip.address.to_string().into());
    let mut put = |key: &str, value: Option<Value>| value.map(|value| object.insert(key.to_owned(), value));
    put("gateway", ip.gateway.map(|gateway| gateway.to_string().into()));
    put("interface", ip.interface.map(Value::from));
    object.into()
}

fn route_json(route: &RouteConfig) -> Value {
    let mut object = Map::new();
    object.insert("dst".to_owned(), route.destination.to_string().into());
    if let Some(gateway) = route.gateway {
        object.insert("gw".to_owned(), gateway.to_string().into());
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(document: &Value) -> Result<CniResult, Error> {
        let result = CniResult::from_json(&Node::new("prevResult", document))?;
        result.check_indices()?;
        Ok(result)
    }

    fn sample() -> CniResult {
        let interface = |name: &str, sandbox: Option<&str>| Interface {
            name: name.to_owned(),
            mac: Some("02:00:00:00:00:01".to_owned()),
            sandbox: sandbox.map(str::to_owned),
            mtu: Some(1400),
        };
        let ip = |address: &str, gateway: &str| IpConfig {
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
            interface: Some(1),
        };
        CniResult {
            interfaces: vec![interface("slu0", None), interface("eth0", Some("/run/netns/x"))],
            ips: vec![ip("10.0.0.5/32", "169.254.1.1"), ip("fd00::5/128", "fe80::1")],
            routes: vec![RouteConfig {
                destination: "0.0.0.0/0".parse().unwrap(),
                gateway: "169.254.1.1".parse().ok(),
            }],
            dns: Some(json!({ "nameservers": ["10.0.0.10"] })),
        }
    }

    #[test]
    fn every_version_there_and_back() {
        for version in SpecVersion::ALL {
            let written = sample().to_json(version);
            let mut expected = sample();
            if version < SpecVersion::V1_1_0 {
                expected.interfaces.iter_mut().for_each(|interface| interface.mtu = None);
            }
            assert_eq!(decode(&written).unwrap(), expected, "{version}");
            assert_eq!(written["cniVersion"], version.as_str());
            let says_family = version < SpecVersion::V1_0_0;
            assert_eq!(written["ips"][0].get("version").is_some(), says_family, "{version}");
            assert_eq!(written["ips"][1].get("version").is_some_and(|family| family == "6"), says_family);
            assert_eq!(written["interfaces"][1].get("mtu").is_some(), version == SpecVersion::V1_1_0);
        }
    }

    #[test]
    fn the_reference_plugins_results() {
        // As `ptp` and `bridge` with `host-local` print them, shortened.
        let bridge = json!({
            "cniVersion": "0.3.1",
            "interfaces": [
                { "name": "cni0", "mac": "6e:0c:00:00:00:01" },
                { "name": "veth7c0", "mac": "02:0c:00:00:00:02" },
                { "name": "eth0", "mac": "02:0c:00:00:00:03", "sandbox": "/run/netns/x" },
            ],
            "ips": [{ "version": "4", "interface": 2, "address": "10.1.0.2/16", "gateway": "10.1.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0" }],
            "dns": {},
        });
        let result = decode(&bridge).unwrap();
        let (index, interface) = result.container_interface("eth0").unwrap();
        assert_eq!((index, interface.mac.as_deref()), (2, Some("02:0c:00:00:00:03")));
        assert_eq!(result.ips_of_container("eth0").len(), 1);
        assert!(result.ips_of_container("eth1").is_empty());

        let host_local = json!({ "cniVersion": "1.0.0", "ips": [{ "address": "10.1.0.2/16" }], "dns": {} });
        assert_eq!(decode(&host_local).unwrap().ips_of_container("eth0").len(), 1);
        assert_eq!(decode(&json!({ "ips": null, "interfaces": null })).unwrap(), CniResult::default());
    }

    #[test]
    fn refused() {
        let many: Vec<_> = (0..257).map(|_| json!({ "name": "a" })).collect();
        let cases = [
            json!({ "interfaces": {} }),
            json!({ "interfaces": [{}] }),
            json!({ "interfaces": [{ "name": 1 }] }),
            json!({ "interfaces": ["eth0"] }),
            json!({ "interfaces": many }),
            json!({ "interfaces": [{ "name": "a", "mtu": "x" }] }),
            json!({ "ips": [{}] }),
            json!({ "ips": [{ "address": "10.0.0.1" }] }),
            json!({ "ips": [{ "address": "10.0.0.1/33" }] }),
            json!({ "ips": [{ "address": "010.0.0.1/8" }] }),
            json!({ "ips": [{ "address": 10 }] }),
            json!({ "ips": [{ "address": "10.0.0.1/8", "version": "6" }] }),
            json!({ "ips": [{ "address": "10.0.0.1/8", "version": 4 }] }),
            json!({ "ips": [{ "address": "10.0.0.1/8", "gateway": "x" }] }),
            json!({ "ips": [{ "address": "10.0.0.1/8", "interface": 0 }] }),
            json!({ "ips": [{ "address": "10.0.0.1/8", "interface": -1 }] }),
            json!({ "ips": [{ "address": "10.0.0.1/8", "interface": 1e30 }] }),
            json!({ "routes": [{ "gw": "10.0.0.1" }] }),
            json!({ "routes": [{ "dst": "default" }] }),
            json!({ "dns": "10.0.0.1" }),
        ];
        for case in cases {
            assert_eq!(decode(&case).map_err(|error| error.code()), Err(6), "{case}");
        }
    }
}
