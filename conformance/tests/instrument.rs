//! The instrument itself: on a plain cable, without any policy, probes must see what is there.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use sluice_conformance::echo::{Arrivals, Echo};
    use sluice_conformance::netns::{Netns, hide_mounts};
    use sluice_conformance::node::ip;
    use sluice_conformance::probe::{Answer, Conversation, Protocol, Question, ask};

    const CLIENT: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
    const SERVER: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
    const OPEN: u16 = 8080;
    const CLOSED: u16 = 8081;

    struct Cable {
        client: Netns,
        server: Netns,
        _dir: tempfile::TempDir,
    }

    impl Cable {
        /// The first packets on a new link may be lost while it comes up.
        fn warm_up(&self) {
            for target in addresses(SERVER) {
                let asked =
                    Question { patience: Duration::from_secs(5), ..question(Protocol::Icmp, target, 8) };
                assert_eq!(ask(&self.client, &[asked]).unwrap()[0].answer, Answer::Echoed(None), "{target}");
            }
        }
    }

    fn cable() -> Cable {
        hide_mounts().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let client = Netns::create(dir.path().join("client")).unwrap();
        let server = Netns::create(dir.path().join("server")).unwrap();
        ip(&client, &format!("link add c type veth peer name s netns {}\n", server.path().display()))
            .unwrap();
        for (netns, device, [ipv4, ipv6]) in [(&client, "c", CLIENT), (&server, "s", SERVER)] {
            ip(
                netns,
                &format!(
                    "addr add {ipv4}/24 dev {device}\naddr add {ipv6}/64 dev {device} nodad\nlink set {device} up\n"
                ),
            )
            .unwrap();
        }
        let cable = Cable { client, server, _dir: dir };
        cable.warm_up();
        cable
    }

    fn addresses(texts: [&str; 2]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn question(protocol: Protocol, target: IpAddr, port: u16) -> Question {
        Question { protocol, source: None, target, port, len: 64, patience: Duration::from_millis(500) }
    }

    #[test]
    fn sees_open_closed_and_silent() {
        let cable = cable();
        let ports = BTreeSet::from([(Protocol::Tcp, OPEN), (Protocol::Udp, OPEN), (Protocol::Sctp, OPEN)]);
        let arrivals = Arrivals::default();
        let servers = addresses(SERVER);
        let _echo = Echo::start(&cable.server, &servers, &ports, &arrivals).unwrap();
        let mut rows = Vec::new();
        for (own, server) in addresses(CLIENT).into_iter().zip(servers) {
            let nobody = if server.is_ipv4() { "192.0.2.9" } else { "2001:db8::9" }.parse().unwrap();
            let seen = Answer::Echoed(Some(own));
            rows.push((question(Protocol::Tcp, server, OPEN), seen.clone()));
            rows.push((question(Protocol::Udp, server, OPEN), seen.clone()));
            rows.push((Question { len: 9000, ..question(Protocol::Udp, server, OPEN) }, seen.clone()));
            rows.push((question(Protocol::Sctp, server, OPEN), Answer::Echoed(None)));
            rows.push((question(Protocol::Icmp, server, 8), Answer::Echoed(None)));
            rows.push((question(Protocol::Tcp, server, CLOSED), Answer::Refused));
            rows.push((question(Protocol::Udp, server, CLOSED), Answer::Refused));
            rows.push((question(Protocol::Sctp, server, CLOSED), Answer::Silent));
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp] {
                rows.push((question(protocol, nobody, OPEN), Answer::Silent));
            }
            if server.is_ipv4() {
                rows.push((question(Protocol::Icmp, server, 13), Answer::Echoed(None)));
            }
        }
        let questions: Vec<Question> = rows.iter().map(|(question, _)| question.clone()).collect();
        let outcomes = ask(&cable.client, &questions).unwrap();
        for ((question, wanted), outcome) in rows.iter().zip(outcomes) {
            assert_eq!(outcome.answer, *wanted, "{question:?}");
            let is_heard = matches!(wanted, Answer::Echoed(_)) && question.protocol != Protocol::Icmp;
            assert_eq!(arrivals.contains(outcome.token), is_heard, "{question:?}");
        }
    }

    #[test]
    fn a_kept_connection_notices_a_cut_cable() {
        let cable = cable();
        let servers = addresses(SERVER);
        let arrivals = Arrivals::default();
        let _echo = Echo::start(&cable.server, &servers, &BTreeSet::from([(Protocol::Tcp, OPEN)]), &arrivals)
            .unwrap();
        let patience = Duration::from_millis(500);
        let mut kept =
            Conversation::open(&cable.client, SocketAddr::new(servers[0], OPEN), patience).unwrap();
        assert!(matches!(kept.speak(patience).unwrap().answer, Answer::Echoed(_)));
        ip(&cable.server, "link set s down\n").unwrap();
        let cut = kept.speak(patience).unwrap();
        assert_eq!(cut.answer, Answer::Silent);
        assert!(!arrivals.contains(cut.token));
    }

    #[test]
    fn namespaces_leave_nothing() {
        hide_mounts().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone");
        drop(Netns::create(&path).unwrap());
        assert!(!path.exists());
    }
}
