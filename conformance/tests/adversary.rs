//! A pod with raw sockets: nothing leaves it under another name, and every attempt is counted with its reason.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use sluice_conformance::agent::{Endpoint, PATIENCE, drops};
    use sluice_conformance::clock::wait_for;
    use sluice_conformance::echo::{Arrivals, Echo, message};
    use sluice_conformance::link::{FrameSocket, parse_mac};
    use sluice_conformance::netns::hide_mounts;
    use sluice_conformance::node::{Node, NodeConfig};
    use sluice_conformance::probe::Protocol;
    use sluice_conformance::topology::{NODE_ADDRESSES, PodSpec};
    use sluice_conformance::wire::{self, Mac};

    const PORT: u16 = 80;
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    const UDP: u8 = 17;
    const ICMPV6: u8 = 58;
    const SHORT: Duration = Duration::from_millis(300);

    struct Scene {
        node: Node,
        endpoints: BTreeMap<String, Endpoint>,
        arrivals: Arrivals,
        _echo: Echo,
    }

    /// `shop/victim` serves, `shop/friend` is somebody else, `shop/evil` has raw sockets.
    fn scene() -> Scene {
        hide_mounts().unwrap();
        let mut node = Node::start(&NodeConfig::default()).unwrap();
        let pods = ["shop/victim", "shop/friend", "shop/evil"];
        node.write_namespace("shop", &BTreeMap::new()).unwrap();
        for pod in pods {
            node.write_pod(pod, &PodSpec::default()).unwrap();
        }
        node.add_pods(pods).unwrap();
        let arrivals = Arrivals::default();
        let ports = BTreeSet::from([(Protocol::Udp, PORT)]);
        let victim = node.pod("shop/victim").unwrap();
        let echo = Echo::start(&victim.netns, &victim.addresses, &ports, &arrivals).unwrap();
        let endpoints =
            node.agent.endpoints().unwrap().into_iter().map(|endpoint| (endpoint.pod(), endpoint)).collect();
        Scene { node, endpoints, arrivals, _echo: echo }
    }

    impl Scene {
        fn ipv4(&self, pod: &str) -> Ipv4Addr {
            match self.node.pod(pod).unwrap().addresses[0] {
                IpAddr::V4(address) => address,
                IpAddr::V6(_) => panic!("{pod} has no IPv4 address"),
            }
        }

        fn ipv6(&self, pod: &str) -> Ipv6Addr {
            match self.node.pod(pod).unwrap().addresses[1] {
                IpAddr::V6(address) => address,
                IpAddr::V4(_) => panic!("{pod} has no IPv6 address"),
            }
        }

        fn mac(&self, pod: &str) -> Mac {
            parse_mac(&self.endpoints[pod].attachment.mac).unwrap()
        }

        fn gateway(&self) -> Mac {
            parse_mac(&self.endpoints["shop/evil"].attachment.host_mac).unwrap()
        }

        fn drops_of_evil(&self, reason: &str) -> u64 {
            self.drops_of("shop/evil", reason)
        }

        fn drops_of_victim(&self, reason: &str) -> u64 {
            self.drops_of("shop/victim", reason)
        }

        fn drops_of(&self, pod: &str, reason: &str) -> u64 {
            let all = drops(&self.node.agent.endpoints().unwrap());
            all.iter().filter(|((own, _, why), _)| own == pod && why == reason).map(|(_, n)| *n).sum()
        }
    }

    fn udp4(from: Ipv4Addr, to: Ipv4Addr, token: u64) -> Vec<u8> {
        wire::ipv4(from, to, UDP, &wire::udp4(4444, PORT, &message(token, 32)))
    }

    fn udp6(from: Ipv6Addr, to: Ipv6Addr, token: u64) -> Vec<u8> {
        let datagram = wire::checked6(from, to, UDP, wire::udp4(4444, PORT, &message(token, 32)), 6);
        wire::ipv6(from, to, UDP, &datagram)
    }

    fn icmp6(from: Ipv6Addr, to: Ipv6Addr, message: Vec<u8>) -> Vec<u8> {
        wire::ipv6(from, to, ICMPV6, &wire::checked6(from, to, ICMPV6, message, 2))
    }

    fn link_local(mac: Mac) -> Ipv6Addr {
        let [a, b, c, d, e, f] = mac;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// A lifetime of 1800 s and a prefix option.
    fn router_advertisement() -> Vec<u8> {
        let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
        message.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
        message.extend("2001:db8:bad::".parse::<Ipv6Addr>().unwrap().octets());
        message
    }

    fn neighbour_advertisement(target: Ipv6Addr, mac: Mac) -> Vec<u8> {
        let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
        message.extend(target.octets());
        message.extend([2, 1]);
        message.extend(mac);
        message
    }

    /// What is claimed, the frame, and the reason to drop it. Datagrams carry the token `(place + 3) << 40`.
    fn lies(scene: &Scene) -> Vec<(&'static str, Vec<u8>, &'static str)> {
        let (mac, gateway) = (scene.mac("shop/evil"), scene.gateway());
        let (own4, own6) = (scene.ipv4("shop/evil"), scene.ipv6("shop/evil"));
        let (victim4, victim6) = (scene.ipv4("shop/victim"), scene.ipv6("shop/victim"));
        let frame4 = |source: Mac, from: Ipv4Addr, token| {
            wire::ethernet(gateway, source, IPV4, &udp4(from, victim4, token))
        };
        let frame6 = |from: Ipv6Addr, token| wire::ethernet(gateway, mac, IPV6, &udp6(from, victim6, token));
        let node4: Ipv4Addr = NODE_ADDRESSES[0].parse().unwrap();
        let node6: Ipv6Addr = NODE_ADDRESSES[1].parse().unwrap();
        let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
        let multicast: Mac = [0x33, 0x33, 0, 0, 0, 1];
        vec![
            ("another MAC", frame4([2, 1, 2, 3, 4, 5], own4, 3 << 40), "INVALID_SOURCE_MAC"),
            ("a friend's IPv4", frame4(mac, scene.ipv4("shop/friend"), 4 << 40), "INVALID_SOURCE_IP"),
            ("a friend's IPv6", frame6(scene.ipv6("shop/friend"), 5 << 40), "INVALID_SOURCE_IP"),
            ("the node's IPv4", frame4(mac, node4, 6 << 40), "INVALID_SOURCE_IP"),
            ("the node's IPv6", frame6(node6, 7 << 40), "INVALID_SOURCE_IP"),
            ("the world's IPv4", frame4(mac, Ipv4Addr::new(198, 51, 100, 1), 8 << 40), "INVALID_SOURCE_IP"),
            ("the world's IPv6", frame6("2001:db8:51::1".parse().unwrap(), 9 << 40), "INVALID_SOURCE_IP"),
            ("loopback", frame4(mac, Ipv4Addr::LOCALHOST, 10 << 40), "INVALID_SOURCE_IP"),
            ("the victim's own", frame4(mac, victim4, 11 << 40), "INVALID_SOURCE_IP"),
            (
                "ARP: a friend's address is here",
                wire::ethernet(
                    gateway,
                    mac,
                    0x0806,
                    &wire::arp_reply(mac, scene.ipv4("shop/friend"), gateway, own4),
                ),
                "INVALID_SOURCE_IP",
            ),
            (
                "ARP: another MAC",
                wire::ethernet(
                    gateway,
                    mac,
                    0x0806,
                    &wire::arp_reply([2, 9, 9, 9, 9, 9], own4, gateway, own4),
                ),
                "INVALID_SOURCE_MAC",
            ),
            (
                "a router advertisement",
                wire::ethernet(
                    multicast,
                    mac,
                    IPV6,
                    &icmp6(link_local(mac), all_nodes, router_advertisement()),
                ),
                "FORBIDDEN_ICMPV6_MESSAGE",
            ),
            (
                "a neighbour advertisement for a friend",
                wire::ethernet(
                    gateway,
                    mac,
                    IPV6,
                    &icmp6(own6, all_nodes, neighbour_advertisement(scene.ipv6("shop/friend"), mac)),
                ),
                "FORBIDDEN_ICMPV6_MESSAGE",
            ),
        ]
    }

    #[test]
    fn nothing_leaves_under_another_name() {
        let scene = scene();
        let socket = FrameSocket::open(&scene.node.pod("shop/evil").unwrap().netns, "eth0").unwrap();
        let (mac, gateway) = (scene.mac("shop/evil"), scene.gateway());
        let (own4, own6) = (scene.ipv4("shop/evil"), scene.ipv6("shop/evil"));
        let (victim4, victim6) = (scene.ipv4("shop/victim"), scene.ipv6("shop/victim"));
        let frame4 = |source: Mac, from: Ipv4Addr, token| {
            wire::ethernet(gateway, source, IPV4, &udp4(from, victim4, token))
        };
        let frame6 = |from: Ipv6Addr, token| wire::ethernet(gateway, mac, IPV6, &udp6(from, victim6, token));

        // The frames are good: under its own name the pod is heard.
        for (token, frame) in [(1 << 40, frame4(mac, own4, 1 << 40)), (2 << 40, frame6(own6, 2 << 40))] {
            socket.send(&frame).unwrap();
            wait_for("the honest frame", PATIENCE, || {
                if scene.arrivals.contains(token) { Ok(()) } else { Err("not heard".to_owned()) }
            })
            .unwrap();
        }

        let lies = lies(&scene);
        for (nth, (what, frame, reason)) in lies.iter().enumerate() {
            let before = scene.drops_of_evil(reason);
            socket.send(frame).unwrap();
            wait_for(what, Duration::from_secs(3), || match scene.drops_of_evil(reason) {
                now if now > before => Ok(()),
                _ => Err(format!("no drop {reason} was counted")),
            })
            .unwrap();
            assert!(!scene.arrivals.contains((nth as u64 + 3) << 40), "{what}: the victim heard it");
        }
    }

    #[test]
    fn neighbours_hear_no_advertisements() {
        let scene = scene();
        let evil = FrameSocket::open(&scene.node.pod("shop/evil").unwrap().netns, "eth0").unwrap();
        let victim = FrameSocket::open(&scene.node.pod("shop/victim").unwrap().netns, "eth0").unwrap();
        let (mac, gateway) = (scene.mac("shop/evil"), scene.gateway());
        let victim6 = scene.ipv6("shop/victim");
        for target in ["ff02::1".parse().unwrap(), victim6] {
            let message = icmp6(link_local(mac), target, router_advertisement());
            evil.send(&wire::ethernet(gateway, mac, IPV6, &message)).unwrap();
        }
        // Type 134 behind the two headers.
        let is_advertisement = |frame: &[u8]| frame.get(20) == Some(&ICMPV6) && frame.get(54) == Some(&134);
        assert!(!victim.sees(SHORT, is_advertisement));
    }

    /// TCP without a connection: the flags are SYN 2, RST 4, ACK 16.
    fn tcp4(from: Ipv4Addr, to: Ipv4Addr, flags: u8) -> Vec<u8> {
        let mut segment =
            vec![0x1f, 0x90, 0x11, 0x5c, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
        let mut pseudo = [from.octets(), to.octets()].concat();
        pseudo.extend([0, 6, 0, 20]);
        pseudo.extend(&segment);
        segment[16..18].copy_from_slice(&wire::checksum(&pseudo).to_be_bytes());
        wire::ipv4(from, to, 6, &segment)
    }

    /// An isolated pod hears no answer to what it never asked, and no error about what it never sent.
    #[test]
    fn answers_to_nothing_do_not_pass() {
        let scene = scene();
        let closed = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: closed, namespace: shop}\n\
                      spec: {endpointSelector: {}, ingress: [{}]}\n";
        scene.node.write_manifest("closed.yaml", closed).unwrap();
        wait_for("isolation", PATIENCE, || {
            let endpoints = scene.node.agent.endpoints().map_err(|error| format!("{error:#}"))?;
            let is_closed = |endpoint: &Endpoint| {
                endpoint.ingress == "Enabled" && endpoint.realized_revision == endpoint.wanted_revision
            };
            if endpoints.iter().all(is_closed) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .unwrap();
        let evil = FrameSocket::open(&scene.node.pod("shop/evil").unwrap().netns, "eth0").unwrap();
        let victim = FrameSocket::open(&scene.node.pod("shop/victim").unwrap().netns, "eth0").unwrap();
        let (mac, gateway) = (scene.mac("shop/evil"), scene.gateway());
        let (own4, victim4) = (scene.ipv4("shop/evil"), scene.ipv4("shop/victim"));
        let (own6, victim6) = (scene.ipv6("shop/evil"), scene.ipv6("shop/victim"));
        let quoted4 = wire::ipv4(victim4, own4, UDP, &wire::udp4(PORT, 4444, &[0; 8]));
        let quoted6 = wire::ipv6(victim6, own6, UDP, &wire::udp4(PORT, 4444, &[0; 8]));
        let echo_reply6 = vec![129, 0, 0, 0, 0, 1, 0, 1];
        let unreachable6 = [&[1, 4, 0, 0, 0, 0, 0, 0], &quoted6[..]].concat();
        let answers: Vec<(&str, u16, Vec<u8>)> = vec![
            ("SYN,ACK", IPV4, tcp4(own4, victim4, 0x12)),
            ("ACK", IPV4, tcp4(own4, victim4, 0x10)),
            ("RST", IPV4, tcp4(own4, victim4, 0x04)),
            ("RST,ACK", IPV4, tcp4(own4, victim4, 0x14)),
            ("echo reply", IPV4, wire::ipv4(own4, victim4, 1, &wire::icmp(0, 1, 1, &[0; 8]))),
            ("unreachable", IPV4, wire::ipv4(own4, victim4, 1, &wire::icmp(3, 0, 0, &quoted4))),
            ("time exceeded", IPV4, wire::ipv4(own4, victim4, 1, &wire::icmp(11, 0, 0, &quoted4))),
            ("echo reply, IPv6", IPV6, icmp6(own6, victim6, echo_reply6)),
            ("unreachable, IPv6", IPV6, icmp6(own6, victim6, unreachable6)),
        ];
        for (what, ethertype, packet) in answers {
            let before = scene.drops_of_victim("POLICY_DENIED");
            evil.send(&wire::ethernet(gateway, mac, ethertype, &packet)).unwrap();
            wait_for(what, Duration::from_secs(3), || match scene.drops_of_victim("POLICY_DENIED") {
                now if now > before => Ok(()),
                _ => Err("no drop was counted".to_owned()),
            })
            .unwrap();
            let from_evil = |frame: &[u8]| {
                frame.get(26..30) == Some(&own4.octets()) || frame.get(22..38) == Some(&own6.octets())
            };
            assert!(!victim.sees(Duration::from_millis(50), from_evil), "{what}: the victim saw it");
        }
    }

    #[test]
    fn tags_and_strange_frames_do_not_pass() {
        let scene = scene();
        let evil = FrameSocket::open(&scene.node.pod("shop/evil").unwrap().netns, "eth0").unwrap();
        let victim = FrameSocket::open(&scene.node.pod("shop/victim").unwrap().netns, "eth0").unwrap();
        let (mac, gateway) = (scene.mac("shop/evil"), scene.gateway());
        let (own4, victim4) = (scene.ipv4("shop/evil"), scene.ipv4("shop/victim"));
        let mark = 0xfeed_beef_u64 << 8;
        let honest = udp4(own4, victim4, mark);
        let tag = |payload: &[u8]| [&[0, 42, 0x08, 0x00], payload].concat();
        let strange: Vec<(&str, Vec<u8>)> = vec![
            ("VLAN", wire::ethernet(gateway, mac, 0x8100, &tag(&honest))),
            ("QinQ", wire::ethernet(gateway, mac, 0x88a8, &tag(&tag(&honest)))),
            ("MPLS", wire::ethernet(gateway, mac, 0x8847, &honest)),
            ("an LLC length", wire::ethernet(gateway, mac, 60, &honest)),
            ("cut off", wire::ethernet(gateway, mac, IPV4, &honest[..22])),
            ("a header length of 16", wire::ethernet(gateway, mac, IPV4, &[&[0x44], &honest[1..]].concat())),
            ("a DHCP server", {
                let offer = wire::ipv4(own4, victim4, UDP, &wire::udp4(67, PORT, &message(mark, 32)));
                wire::ethernet(gateway, mac, IPV4, &offer)
            }),
        ];
        for (what, frame) in &strange {
            evil.send(frame).unwrap();
            let seen = victim.sees(Duration::from_millis(100), |frame| {
                frame.windows(8).any(|window| window == mark.to_be_bytes())
            });
            assert!(!seen, "{what}: the victim saw it");
            assert!(!scene.arrivals.contains(mark), "{what}: the victim heard it");
        }
        evil.send(&wire::ethernet(gateway, mac, IPV4, &honest)).unwrap();
        wait_for("the honest frame", PATIENCE, || {
            if scene.arrivals.contains(mark) { Ok(()) } else { Err("not heard".to_owned()) }
        })
        .unwrap();
    }
}
