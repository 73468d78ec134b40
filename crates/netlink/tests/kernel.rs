//! Against the kernel, in namespaces of the test's own. Needs root.

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use sluice_netlink::{
        LocalDelivery, MacAddr, Neighbour, Netlink, Netns, NetnsError, Route, VethSpec, netns, sysctl,
    };

    /// A namespace that goes away with the test.
    struct Lab {
        netns: Netns,
        _dir: tempfile::TempDir,
    }

    impl Lab {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let dir = tempfile::tempdir().unwrap();
            let name = format!("ns-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let netns = Netns::create(dir.path().join(name)).unwrap();
            Self { netns, _dir: dir }
        }

        fn netlink(&self) -> Netlink {
            Netlink::open_in(&self.netns).unwrap()
        }
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            netns::remove(self.netns.path()).unwrap();
        }
    }

    fn net(text: &str) -> ipnet::IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn marked_packets_are_delivered_locally() {
        let lab = Lab::new();
        let mut netlink = lab.netlink();
        let loopback = netlink.link("lo").unwrap();
        netlink.set_up(loopback.index).unwrap();
        let delivery = LocalDelivery { mark: 0x200, mask: 0xf00, priority: 90, table: 7_740 };
        let show = |family: &'static str, what: &'static str| {
            let output = lab.netns.run(move || {
                let words = [family, what, "show"];
                let mut command = std::process::Command::new("ip");
                let table: &[&str] = if what == "route" { &["table", "7740"] } else { &[] };
                command.args(words).args(table).output()
            });
            String::from_utf8(output.unwrap().unwrap().stdout).unwrap()
        };
        for round in 0..2 {
            netlink.ensure_local_delivery(&delivery).unwrap();
            for family in ["-4", "-6"] {
                let rules = show(family, "rule");
                let ours =
                    rules.lines().filter(|line| line.contains("fwmark 0x200/0xf00 lookup 7740")).count();
                assert_eq!(ours, 1, "round {round}: {rules}");
                assert!(rules.contains("90:"), "{rules}");
                let routes = show(family, "route");
                assert!(routes.starts_with("local default dev lo"), "{routes}");
            }
        }
        // The rest of the namespace is as it was, and removing is idempotent too.
        for _ in 0..2 {
            netlink.remove_local_delivery(&delivery).unwrap();
            for family in ["-4", "-6"] {
                assert!(!show(family, "rule").contains("0x200"), "{family}");
                assert_eq!(show(family, "route"), "", "{family}");
            }
        }
    }

    #[test]
    fn which_addresses_are_local() {
        let lab = Lab::new();
        let mut netlink = lab.netlink();
        let loopback = netlink.link("lo").unwrap();
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert!(!netlink.is_local(ip(address)).unwrap(), "{address} before it is there");
        }
        netlink.set_up(loopback.index).unwrap();
        netlink.add_address(loopback.index, net("192.0.2.1/32")).unwrap();
        netlink.add_address(loopback.index, net("2001:db8::1/128")).unwrap();
        for address in ["192.0.2.1", "2001:db8::1"] {
            let found = (0..200).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                netlink.is_local(ip(address)).unwrap()
            });
            assert!(found, "{address}");
        }
        assert!(!netlink.is_local(ip("192.0.2.2")).unwrap());
        assert!(!netlink.is_local(ip("2001:db8::2")).unwrap());
    }

    #[test]
    fn veth_across_namespaces() {
        let (host, pod) = (Lab::new(), Lab::new());
        let (mut host_netlink, mut pod_netlink) = (host.netlink(), pod.netlink());
        let spec = VethSpec {
            name: "slu0",
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            peer_name: "eth0",
            peer_mac: Some(MacAddr([2, 0, 0, 0, 0, 2])),
            peer_netns: Some(pod.netns.as_fd()),
            mtu: Some(1400),
        };
        host_netlink.create_veth(&spec).unwrap();
        assert!(host_netlink.create_veth(&spec).unwrap_err().is_exists());

        let outer = host_netlink.link("slu0").unwrap();
        let inner = pod_netlink.link("eth0").unwrap();
        assert_eq!((outer.mac, inner.mac), (spec.mac, spec.peer_mac));
        assert_eq!((outer.mtu, inner.mtu), (1400, 1400));
        assert_eq!((outer.kind.as_deref(), inner.is_up), (Some("veth"), false));
        assert_eq!((outer.peer_index, inner.peer_index), (Some(inner.index), Some(outer.index)));
        assert!(outer.peer_netns_id.is_some());
        assert_eq!(host_netlink.netns_id(pod.netns.as_fd()).unwrap(), outer.peer_netns_id);
        assert_eq!(host_netlink.link_by_index(outer.index).unwrap(), outer);

        host_netlink.set_alias(outer.index, "sluice:a/eth0").unwrap();
        host_netlink.set_up(outer.index).unwrap();
        pod_netlink.set_up(inner.index).unwrap();
        let outer = host_netlink.link("slu0").unwrap();
        assert!(outer.is_up);
        assert_eq!(outer.alias.as_deref(), Some("sluice:a/eth0"));
        assert_eq!(host_netlink.links().unwrap().len(), 2);

        host_netlink.delete_link(outer.index).unwrap();
        assert!(host_netlink.delete_link(outer.index).unwrap_err().is_not_found());
        assert_eq!(host_netlink.find_link("slu0").unwrap(), None);
        assert_eq!(pod_netlink.find_link("eth0").unwrap(), None);
    }

    #[test]
    fn addresses_routes_neighbours() {
        let lab = Lab::new();
        let mut netlink = lab.netlink();
        netlink.create_veth(&VethSpec { name: "a", peer_name: "b", ..VethSpec::default() }).unwrap();
        let (a, b) = (netlink.link("a").unwrap().index, netlink.link("b").unwrap().index);
        for (index, own) in [(a, "10.1.2.3/32"), (a, "fd00::3/128"), (b, "10.9.0.1/24")] {
            netlink.add_address(index, net(own)).unwrap();
        }
        assert!(netlink.add_address(a, net("fd00::3/128")).unwrap_err().is_exists());
        netlink.set_up(a).unwrap();
        netlink.set_up(b).unwrap();
        let of_a = netlink.addresses(Some(a)).unwrap();
        let nets: Vec<_> = of_a.iter().filter(|address| !address.is_link_local).map(|own| own.net).collect();
        assert_eq!(nets, [net("10.1.2.3/32"), net("fd00::3/128")]);
        assert!(of_a.iter().filter(|address| !address.is_link_local).all(|own| !own.is_tentative));
        assert!(netlink.addresses(None).unwrap().iter().any(|own| own.net == net("10.9.0.1/24")));

        let routes = [
            Route::on_link(net("10.1.2.9/32"), a),
            Route::on_link(net("fd00::9/128"), a),
            Route::default_via(ip("169.254.1.1"), a),
            Route::default_via(ip("fe80::1"), a),
        ];
        for route in &routes {
            netlink.add_route(route).unwrap();
            assert!(netlink.add_route(route).unwrap_err().is_exists(), "{route:?}");
            netlink.replace_route(route).unwrap();
        }
        let seen = netlink.routes().unwrap();
        for route in &routes {
            let found = |other: &&Route| {
                (other.destination, other.gateway, other.ifindex)
                    == (route.destination, route.gateway, route.ifindex)
            };
            assert_eq!(seen.iter().filter(found).count(), 1, "{route:?} in {seen:?}");
        }
        assert_eq!(netlink.default_route_links().unwrap(), [a]);
        for route in &routes {
            netlink.delete_route(route).unwrap();
            assert!(netlink.delete_route(route).unwrap_err().is_not_found(), "{route:?}");
        }
        assert!(netlink.default_route_links().unwrap().is_empty());

        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        for gateway in [ip("169.254.1.1"), ip("fe80::1")] {
            netlink.set_neighbour(a, gateway, mac).unwrap();
            let expected = Neighbour { ifindex: a, ip: gateway, mac: Some(mac), is_permanent: true };
            assert!(netlink.neighbours(Some(a)).unwrap().contains(&expected));
            netlink.delete_neighbour(a, gateway).unwrap();
            assert!(!netlink.neighbours(Some(a)).unwrap().contains(&expected));
        }
        netlink.delete_address(a, net("10.1.2.3/32")).unwrap();
        assert!(netlink.delete_address(a, net("10.1.2.3/32")).unwrap_err().is_not_found());
        let error = netlink.add_address(4_000_000, net("10.0.0.1/32")).unwrap_err();
        assert!(error.to_string().starts_with("cannot add address 10.0.0.1/32 to link"), "{error}");
    }

    #[test]
    fn a_listing_while_links_come_and_go() {
        let lab = Lab::new();
        let mut changes = lab.netlink();
        let churn = std::thread::spawn(move || {
            for nth in 0..60 {
                let (name, peer) = (format!("x{nth}"), format!("y{nth}"));
                changes
                    .create_veth(&VethSpec { name: &name, peer_name: &peer, ..VethSpec::default() })
                    .unwrap();
            }
        });
        let mut netlink = lab.netlink();
        while !churn.is_finished() {
            // An end is never seen without the other.
            let links = netlink.links().unwrap();
            assert_eq!(links.len() % 2, 1, "loopback and pairs: {links:?}");
        }
        churn.join().unwrap();
        assert_eq!(netlink.links().unwrap().len(), 121);
    }

    #[test]
    fn paths_that_are_no_namespace() {
        let lab = Lab::new();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        std::fs::create_dir(at("dir")).unwrap();
        symlink(lab.netns.path(), at("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let cases = [
            (at("file"), "an ordinary file (a namespace that was unmounted?)"),
            (at("dir"), "a directory"),
            (at("link"), "a symbolic link"),
            (at("fifo"), "a FIFO"),
            (PathBuf::from("/dev/null"), "a device"),
            (PathBuf::from("/proc/self/ns/uts"), "a namespace of another kind"),
            (PathBuf::from("/proc/self/exe"), "an ordinary file (a namespace that was unmounted?)"),
        ];
        for (path, expected) in cases {
            match Netns::open(&path) {
                Err(NetnsError::NotNetns { what, .. }) => assert_eq!(what, expected, "{path:?}"),
                other => panic!("{path:?}: {other:?}"),
            }
        }
        for missing in [at("none"), at("file").join("below"), PathBuf::from("/proc/self/ns/none")] {
            assert!(matches!(Netns::open(&missing), Err(NetnsError::Missing(_))), "{missing:?}");
        }
        assert!(Netns::open("").is_err());
    }

    #[test]
    fn inside_and_outside() {
        let lab = Lab::new();
        let here = Netns::current().unwrap();
        assert_ne!(here.id(), lab.netns.id());
        assert_eq!(Netns::open("/proc/self/ns/net").unwrap().id(), here.id());
        let inside = lab.netns.run(|| Netns::current().unwrap().id()).unwrap();
        assert_eq!(inside, lab.netns.id());
        assert_eq!(Netns::current().unwrap().id(), here.id(), "the caller has not moved");
        let forwarding = lab.netns.run(|| {
            sysctl::write(&["net", "ipv4", "ip_forward"], "1").unwrap();
            sysctl::read(&["net", "ipv4", "ip_forward"]).unwrap()
        });
        assert_eq!(forwarding.unwrap(), "1");
        let error = Netns::create(lab.netns.path()).unwrap_err();
        assert!(error.to_string().starts_with("cannot create"), "{error}");
        assert_eq!(
            Netns::open(lab.netns.path()).unwrap().id(),
            lab.netns.id(),
            "a refused creation changes nothing"
        );
    }
}
