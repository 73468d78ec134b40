//! The agent's binary on a node of its own: a network namespace, a bpffs and directories that the test makes. Needs
//! root. The API is spoken through `sluice-client`, as the plugin and the command speak it.
#![cfg(test)]

mod node {
    pub(crate) mod rig;
}

mod lifecycle {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use sluice_client::model::{PolicyDocument, PolicyInfo, Status};
    use sluice_client::path;

    use crate::node::rig::{Rig, policy, until};

    #[test]
    fn starts_serves_and_stops_and_cleans_up() {
        let mut rig = Rig::start();
        let status: Status = rig.fetch(path::STATUS);
        assert_eq!((status.state.as_str(), status.ipam.len()), ("ok", 2), "{:?}", status.problems);
        let mode = fs::metadata(rig.path("agent.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only root may talk to it");
        assert!(rig.ip("address show dev lo").contains("10.9.0.1/32"), "the router's address");
        assert!(rig.in_netns("nft", "list table inet sluice").contains("masquerade"));
        assert_eq!(rig.in_netns("cat", "/proc/sys/net/ipv4/ip_forward").trim(), "1");

        assert!(rig.terminate().success(), "a signal is no failure");
        assert!(rig.pins().join("prog_from_container").exists(), "the kernel goes on");
        rig.cleanup();
        assert!(!rig.pins().exists());
        assert!(!rig.ip("address show dev lo").contains("10.9.0.1"));
        assert_eq!(rig.in_netns("nft", "list tables"), "");
        rig.cleanup();
    }

    #[test]
    fn a_second_agent_is_refused() {
        let rig = Rig::start();
        let second = rig.run_to_end(&[]);
        assert!(!second.status.success());
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(said.contains("another agent is running"), "{said}");
        let other_state = rig.run_to_end(&["--state-dir", rig.path("other").to_str().unwrap()]);
        assert!(
            String::from_utf8_lossy(&other_state.stderr).contains("another agent is running"),
            "same pins"
        );
        assert_eq!(rig.fetch::<Status>(path::STATUS).state, "ok", "the first does not care");
    }

    #[test]
    fn policies_come_from_files_and_from_the_api() {
        let mut rig = Rig::start();
        fs::write(rig.path("manifests/a.yaml"), policy("from-file", "80")).unwrap();
        until("the file is read", || rig.fetch::<Vec<PolicyInfo>>(path::POLICIES).len() == 1);
        let document = PolicyDocument { text: policy("from-api", "81"), name: "x.yaml".into() };
        let applied: sluice_client::model::PolicyApplied =
            rig.client().send("POST", path::POLICY_APPLY, &document).unwrap();
        assert_eq!(applied.results, ["CiliumNetworkPolicy/shop/from-api created"]);
        assert_eq!(rig.fetch::<Status>(path::STATUS).revision, applied.revision);

        let bad = PolicyDocument { text: policy("from-api", "99999"), name: "x.yaml".into() };
        let refused = rig.client().send::<_, ()>("POST", path::POLICY_APPLY, &bad).unwrap_err();
        assert!(refused.to_string().starts_with("x.yaml:1: line 6 column 40: spec.ingress[0]"), "{refused}");
        let in_file = path::fill(path::POLICY, &["cnp", "shop", "from-file"]);
        let refused = rig.client().delete(&in_file).unwrap_err();
        assert!(refused.to_string().contains("manifests/a.yaml"), "{refused}");

        fs::write(rig.path("manifests/a.yaml"), policy("from-file", "80").replace("spec:", "spce:")).unwrap();
        until("the refusal is shown", || rig.fetch::<Status>(path::STATUS).state == "degraded");
        let policies: Vec<PolicyInfo> = rig.fetch(path::POLICIES);
        let broken = policies.iter().find(|policy| policy.name == "from-file").unwrap();
        assert!(broken.error.as_ref().unwrap().contains("did you mean \"spec\""), "{broken:?}");
        assert_eq!(broken.rules, 1, "the last good version is in force");

        rig.restart();
        let policies: Vec<PolicyInfo> = rig.fetch(path::POLICIES);
        assert_eq!(policies.len(), 2, "both survive, also the one whose file is broken: {policies:?}");
        rig.client().delete(&path::fill(path::POLICY, &["cnp", "shop", "from-api"])).unwrap();
        assert_eq!(rig.fetch::<Vec<PolicyInfo>>(path::POLICIES).len(), 1);
        std::thread::sleep(Duration::from_millis(1));
    }

    #[test]
    fn the_network_configuration_comes_last() {
        let rig = Rig::start_with(&["--cni-conf-dir", "CNI"]);
        let file = rig.path("CNI/05-sluice.conflist");
        until("it is written", || file.exists());
        let text = fs::read_to_string(file).unwrap();
        let conflist: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(conflist["plugins"][0]["agentSocket"], rig.path("agent.sock").display().to_string());
    }
}

mod endpoints {
    use std::fs;
    use std::time::Duration;

    use sluice_client::model::{
        DeleteRecord, Endpoint, EndpointState, IpcacheRow, PolicyDocument, PolicyMapEntry, Status,
    };
    use sluice_client::path;

    use crate::node::rig::{Rig, pod, policy, until};

    #[test]
    fn a_pod_is_enforced_from_the_answer_on_and_forgotten_on_demand() {
        let rig = Rig::start();
        rig.manifest("web", &pod("web", "web"));
        let made = rig.add_pod("web");
        assert_eq!((made.state, made.identity.as_u32()), (EndpointState::Ready, 256));
        let query = format!("{}?endpoint={}", path::BPF_POLICY, made.id);
        assert_eq!(rig.fetch::<Vec<PolicyMapEntry>>(&query).len(), 2, "open in both directions");
        let ipcache: Vec<IpcacheRow> = rig.fetch(path::BPF_IPCACHE);
        let own: Vec<_> = ipcache.iter().filter(|row| row.endpoint == made.id.as_u16()).collect();
        assert_eq!(own.len(), 2, "both families");

        let document = PolicyDocument { text: policy("p", "80"), name: String::new() };
        let _: sluice_client::model::PolicyApplied =
            rig.client().send("POST", path::POLICY_APPLY, &document).unwrap();
        until("the policy is realized", || {
            let now: Endpoint = rig.fetch(&path::fill(path::ENDPOINT, &[&made.id.to_string()]));
            now.realized_revision == now.wanted_revision && now.isolated_by["ingress"] == ["cnp/shop/p"]
        });
        let entries: Vec<PolicyMapEntry> = rig.fetch(&query);
        assert!(
            entries.iter().any(|entry| entry.port == "80/TCP" && entry.origin == "cnp/shop/p ingress[0]")
        );

        rig.client().delete(&path::fill(path::ATTACHMENT, &["web", "eth0"])).unwrap();
        rig.client().delete(&path::fill(path::ATTACHMENT, &["web", "eth0"])).unwrap();
        let refused = rig.client().fetch::<Vec<PolicyMapEntry>>(&query).unwrap_err();
        assert!(refused.to_string().contains("has no policy"), "{refused}");
        assert!(rig.fetch::<Vec<IpcacheRow>>(path::BPF_IPCACHE).iter().all(|row| row.endpoint == 0));
    }

    #[test]
    fn a_restart_takes_over_what_the_kernel_enforces() {
        let mut rig = Rig::start();
        rig.manifest("web", &pod("web", "web"));
        rig.manifest("p", &policy("p", "80"));
        let before = rig.add_pod("web");
        let ipcache: Vec<IpcacheRow> = rig.fetch(path::BPF_IPCACHE);
        for _ in 0..3 {
            rig.restart();
            let after: Vec<Endpoint> = rig.fetch(path::ENDPOINTS);
            assert_eq!(after.len(), 1);
            assert_eq!((after[0].id, after[0].identity), (before.id, before.identity));
            assert_eq!(after[0].attachment, before.attachment);
            assert_eq!(after[0].state, EndpointState::Ready, "{:?}", after[0].problem);
            assert_eq!(rig.fetch::<Vec<IpcacheRow>>(path::BPF_IPCACHE), ipcache);
        }
    }

    #[test]
    fn damaged_files_are_reported_and_rebuilt() {
        let mut rig = Rig::start();
        rig.manifest("web", &pod("web", "web"));
        let before = rig.add_pod("web");
        rig.kill();
        let record = rig.path(&format!("state/endpoints/{}.json", before.id));
        let bytes = fs::read(&record).unwrap();
        fs::write(&record, &bytes[..bytes.len() / 2]).unwrap();
        fs::write(rig.path("state/ipam.json"), "").unwrap();
        fs::write(rig.path("state/numbers.json"), [0xff; 100]).unwrap();
        rig.start_again();
        let status: Status = rig.fetch(path::STATUS);
        assert_eq!(status.state, "degraded");
        let objects: Vec<&str> = status.problems.iter().map(|problem| problem.object.as_str()).collect();
        assert!(objects.iter().any(|object| object.contains("ipam.json")), "{objects:?}");
        let after: Vec<Endpoint> = rig.fetch(path::ENDPOINTS);
        assert_eq!((after.len(), after[0].identity), (1, before.identity), "its identity's labels are known");
        assert_eq!(after[0].state, EndpointState::Ready);
        assert_ne!(rig.lease("new").ipv4, before.attachment.ipv4, "its address is not leased again");
        rig.restart();
        let left: Status = rig.fetch(path::STATUS);
        assert!(left.problems.iter().all(|problem| !problem.object.contains("json")), "{:?}", left.problems);
    }

    #[test]
    fn deletions_of_the_meantime_are_replayed() {
        let mut rig = Rig::start();
        rig.manifest("web", &pod("web", "web"));
        let made = rig.add_pod("web");
        rig.kill();
        fs::create_dir_all(rig.path("state/delete-queue")).unwrap();
        let record = DeleteRecord {
            container_id: "web".into(),
            ifname: "eth0".into(),
            network: "sluice".into(),
            host_ifname: made.attachment.host_ifname,
            addresses: Vec::new(),
        };
        let file = rig.path("state/delete-queue/web_eth0.json");
        fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
        fs::write(rig.path("state/delete-queue/bad.json"), "{").unwrap();
        for nth in 0..1000 {
            let record = DeleteRecord { container_id: format!("old-{nth}"), ..record.clone() };
            let file = rig.path(&format!("state/delete-queue/old-{nth}_eth0.json"));
            fs::write(file, serde_json::to_vec(&record).unwrap()).unwrap();
        }
        rig.start_again();
        until("the record is gone", || !file.exists() && !rig.path("state/delete-queue/bad.json").exists());
        assert_eq!(rig.fetch::<Vec<Endpoint>>(path::ENDPOINTS), []);
    }

    #[test]
    fn a_veth_that_vanishes_takes_its_endpoint_along() {
        let rig = Rig::start();
        rig.manifest("web", &pod("web", "web"));
        let made = rig.add_pod("web");
        rig.ip(&format!("link delete {}", made.attachment.host_ifname));
        until("the endpoint is gone", || rig.fetch::<Vec<Endpoint>>(path::ENDPOINTS).is_empty());
        let status: Status = rig.fetch(path::STATUS);
        assert_eq!((status.ipam[0].used, status.ipam[0].resting), (0, 1), "the address rests");
    }

    #[test]
    fn programs_that_somebody_takes_away_are_put_back() {
        let rig = Rig::start();
        rig.manifest("web", &pod("web", "web"));
        let made = rig.add_pod("web");
        let ifname = made.attachment.host_ifname;
        let pins = || rig.pins_of(&ifname);
        assert_eq!(pins(), 2);
        fs::remove_file(rig.pins().join(format!("link_{ifname}_ingress"))).unwrap();
        until("the programs are back", || rig.is_attached(&ifname));
        let shown = |status: Status| status.problems.iter().any(|problem| problem.object.contains(&ifname));
        until("it is reported", || shown(rig.fetch(path::STATUS)));

        // Everything at once, the file system under it too.
        fs::remove_file(rig.pins().join("sluice_policy")).unwrap();
        rustix::mount::unmount(rig.path("bpf"), rustix::mount::UnmountFlags::DETACH).unwrap();
        until("all pins are back", || rig.pins().join("sluice_policy").exists() && pins() == 2);
        until("the programs are back", || rig.is_attached(&ifname));

        rig.ip(&format!("link delete {ifname}"));
        until("its pins go with an interface", || pins() == 0);
    }

    #[test]
    fn killed_at_any_moment_the_next_agent_ends_up_with_the_same() {
        let mut rig = Rig::start();
        for name in ["a", "b", "c", "d"] {
            rig.manifest(name, &pod(name, name));
        }
        let stays = rig.add_pod("a");
        for round in 0..12_u64 {
            // Pods come and go and policies change while the agent is killed somewhere in between.
            let churn = rig.churn(round);
            std::thread::sleep(Duration::from_millis(3 + 17 * round % 90));
            rig.kill();
            churn.join().unwrap();
            rig.start_again();
            let endpoints: Vec<Endpoint> = rig.fetch(path::ENDPOINTS);
            let kept = endpoints.iter().find(|endpoint| endpoint.id == stays.id).expect("the pod stays");
            assert_eq!((kept.identity, kept.state), (stays.identity, EndpointState::Ready), "round {round}");
            for other in endpoints.iter().filter(|endpoint| endpoint.id != stays.id) {
                let owner = [other.attachment.container_id.as_str(), "eth0"];
                rig.client().delete(&path::fill(path::ATTACHMENT, &owner)).unwrap();
            }
            let rows: Vec<IpcacheRow> = rig.fetch(path::BPF_IPCACHE);
            let own: Vec<u16> = rows.iter().map(|row| row.endpoint).filter(|id| *id != 0).collect();
            assert_eq!(own, [stays.id.as_u16(); 2], "nothing is left of the others in round {round}");
            assert_eq!(
                rig.fetch::<Vec<PolicyMapEntry>>(path::BPF_POLICY)
                    .iter()
                    .filter(|entry| entry.endpoint != stays.id)
                    .count(),
                0
            );
        }
        let status: Status = rig.fetch(path::STATUS);
        assert_eq!(status.problems, [], "{:?}", status.problems);
    }
}
