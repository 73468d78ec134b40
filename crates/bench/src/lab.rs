//! The peers: two pods on one node, connected in different ways.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::netns::Netns;
use crate::traffic::Path;

/// How the two pods of a lab are connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Two veths and two routes: no policy at all.
    Routed,
    /// The reference plugin `bridge` with `host-local`: no policy at all.
    BridgePlugin,
    /// Routed, with nftables: established connections accepted first, then so many rules, the last one matches.
    Nftables(u32),
    /// Routed, with our programs, policy on both pods, connection tracking on.
    Sluice,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Routed => "plain routed veth".to_owned(),
            Self::BridgePlugin => "bridge CNI plugin".to_owned(),
            Self::Nftables(rules) => format!("nftables, {rules} rules, conntrack"),
            Self::Sluice => "sluice".to_owned(),
        }
    }
}

/// Addresses of the two pods in the labs we route ourselves.
pub(crate) const POD_IPS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2)];

/// A node with two pods.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) node: Netns,
    pub(crate) pods: [Netns; 2],
    server_ip: IpAddr,
}

impl Lab {
    /// Makes the namespaces and connects them. For [`Kind::Sluice`] only the veths and routes are made; the
    /// programs come from [`crate::datapath`].
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        let node = Netns::new("node")?;
        let pods = [Netns::new("pod1")?, Netns::new("pod2")?];
        let mut lab = Self { node, pods, server_ip: POD_IPS[1].into() };
        lab.node.sysctl("ipv4/ip_forward", "1")?;
        match kind {
            Kind::BridgePlugin => lab.connect_by_plugin()?,
            Kind::Routed | Kind::Sluice => lab.connect_by_routes()?,
            Kind::Nftables(rules) => {
                lab.connect_by_routes()?;
                lab.add_rules(rules)?;
            }
        }
        Ok(lab)
    }

    /// From the first pod to the second.
    pub(crate) fn path(&self) -> Path<'_> {
        let [client, server] = &self.pods;
        Path { client, server, server_ip: self.server_ip }
    }

    fn connect_by_routes(&self) -> Result<()> {
        for (nth, (pod, ip)) in self.pods.iter().zip(POD_IPS).enumerate() {
            let (host_mac, pod_mac) = macs(nth);
            let veth = format!("hv{nth}");
            self.node.ip(&format!("link add {veth} type veth peer name eth0 netns {}", pod.name))?;
            self.node.ip(&format!("link set {veth} address {host_mac} up"))?;
            pod.ip(&format!("link set eth0 address {pod_mac} up"))?;
            pod.ip(&format!("addr add {ip}/32 dev eth0"))?;
            pod.ip(&format!("neigh add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent"))?;
            pod.ip("route add 169.254.1.1 dev eth0")?;
            pod.ip("route add default via 169.254.1.1 dev eth0")?;
            self.node.ip(&format!("neigh add {ip} lladdr {pod_mac} dev {veth} nud permanent"))?;
            self.node.ip(&format!("route add {ip}/32 dev {veth}"))?;
        }
        Ok(())
    }

    fn connect_by_plugin(&mut self) -> Result<()> {
        let config = json!({
            "cniVersion": "1.0.0", "name": self.node.name, "type": "bridge", "bridge": "br0", "isGateway": true,
            "ipam": {"type": "host-local", "subnet": "10.2.0.0/24",
                     "dataDir": format!("/tmp/{}", self.node.name), "routes": [{"dst": "0.0.0.0/0"}]},
        });
        for pod in &self.pods {
            let result = plugin(&self.node, "bridge", "ADD", &config, &pod.name, &pod.path())?;
            let address = result.pointer("/ips/0/address").and_then(|ip| ip.as_str()).unwrap_or_default();
            let ip = address.split('/').next().unwrap_or_default();
            self.server_ip = ip.parse().with_context(|| format!("the bridge plugin gave {address:?}"))?;
        }
        Ok(())
    }

    fn add_rules(&self, count: u32) -> Result<()> {
        let mut text = String::from(
            "table ip bench { chain forward { type filter hook forward priority 0; policy drop;\n\
             ct state established,related accept\n",
        );
        for number in 1..count {
            text.push_str(&format!("ip saddr 10.9.{}.{} tcp dport 80 accept\n", number / 250, number % 250));
        }
        text.push_str("ip saddr 10.1.0.1 accept\n}\n}\n");
        let mut nft =
            self.node.command("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("nft")?;
        nft.stdin.take().context("nft has no input")?.write_all(text.as_bytes())?;
        ensure!(nft.wait()?.success(), "nft refused the rules");
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // host-local's records of the bridge lab; absent in the others.
        drop(std::fs::remove_dir_all(format!("/tmp/{}", self.node.name)));
    }
}

/// MAC addresses of the nth pod's veth: host side, pod side.
pub(crate) fn macs(nth: usize) -> (String, String) {
    (format!("02:00:00:00:01:0{}", nth + 1), format!("02:00:00:00:02:0{}", nth + 1))
}

/// Calls a CNI plugin inside `node` and returns its result.
pub(crate) fn plugin(
    node: &Netns,
    program: &str,
    verb: &str,
    config: &serde_json::Value,
    container: &str,
    netns: &str,
) -> Result<serde_json::Value> {
    let binary =
        if program.starts_with('/') { program.to_owned() } else { format!("/usr/lib/cni/{program}") };
    let mut child = node
        .command(&binary)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/usr/lib/cni")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| binary.clone())?;
    child.stdin.take().context("the plugin has no input")?.write_all(config.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{program} {verb}: {}", String::from_utf8_lossy(&output.stdout));
    if output.stdout.is_empty() {
        return Ok(serde_json::Value::Null);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
