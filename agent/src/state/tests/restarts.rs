use std::collections::BTreeSet;

use sluice_client::model::EndpointState;
use sluice_types::{Identity, Verdict};

use super::rig::*;
use crate::effect::NumbersRecord;
use crate::event::{Event, Request};

const POLICY_CIDR: &str = "fromCIDR: [10.8.0.0/16]";

fn before() -> (Rig, sluice_client::model::Endpoint, sluice_client::model::Endpoint) {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    let client = rig.running("client", "client");
    rig.manifests(&allow("p", "web", &from_pods("client")));
    rig.manifests(&allow("q", "web", POLICY_CIDR));
    (rig, web, client)
}

const LINKS: &[(u32, &str)] = &[(102, "slu2"), (103, "slu3")];

fn read_all(rig: &mut Rig) {
    rig.event(Event::NodeAddresses(BTreeSet::from(["192.168.0.1".parse().unwrap()])));
    let text = [
        pod("web", "web"),
        pod("client", "client"),
        allow("p", "web", &from_pods("client")),
        allow("q", "web", POLICY_CIDR),
    ]
    .join("---\n");
    rig.manifests(&text);
}

#[test]
fn nothing_is_written_before_the_sources_are_read_and_then_only_what_differs() {
    let (rig, web, client) = before();
    let (ipcache, identities) = (rig.world.ipcache.clone(), rig.world.identities.clone());
    let mut rig = rig.restart(LINKS);
    rig.event(Event::NodeAddresses(BTreeSet::from(["192.168.0.1".parse().unwrap()])));
    assert_eq!(rig.world.log, Vec::<String>::new());
    assert_eq!(rig.endpoint(web.id).state, EndpointState::Restoring);
    assert_eq!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Allow, "the last policy stays");

    read_all(&mut rig);
    let log: Vec<&str> =
        rig.world.log.iter().map(String::as_str).filter(|line| !line.starts_with("answer")).collect();
    assert_eq!(log, ["install 1", "install 2"], "no address changes, no identity changes");
    assert_eq!(rig.world.ipcache, ipcache);
    assert_eq!(rig.world.identities, identities);
    let after = rig.endpoint(web.id);
    assert_eq!((after.state, after.identity), (EndpointState::Ready, web.identity));
    assert_eq!(after.attachment, web.attachment);
    assert_eq!(rig.world.ingress(web.id, "10.8.0.1", 80), Verdict::Allow);
    assert_eq!(rig.endpoint(client.id).identity, client.identity);
}

#[test]
fn numbers_go_on_where_they_were() {
    let (rig, web, _) = before();
    let last = rig.world.entries.values().map(|info| info.revision).max().unwrap();
    let mut rig = rig.restart(LINKS);
    rig.world.numbers = NumbersRecord::default();
    read_all(&mut rig);
    let info = rig.world.entries[&web.id.as_u16()];
    assert!(info.revision > last);
    rig.pod("new", "new");
    let request = rig.attachment("new");
    let made = endpoint(rig.ask(Request::CreateEndpoint(Box::new(request))));
    assert!(!rig.world.entries.values().any(|other| {
        other.id != made.id.as_u16() && other.generation == rig.world.entries[&made.id.as_u16()].generation
    }));
}

#[test]
fn what_changed_meanwhile_is_corrected() {
    let (rig, web, client) = before();
    let mut rig = rig.restart(LINKS);
    rig.event(Event::NodeAddresses(BTreeSet::from(["192.168.0.7".parse().unwrap()])));
    let text =
        [pod("web", "web"), pod("client", "stranger"), allow("p", "web", &from_pods("client"))].join("---\n");
    rig.manifests(&text);
    assert_ne!(rig.endpoint(client.id).identity, client.identity);
    assert!(matches!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Deny(_)));
    assert!(!rig.world.ipcache.contains_key(&"192.168.0.1/32".parse().unwrap()), "the node's old address");
    rig.wait(std::time::Duration::from_secs(6));
    assert!(
        !rig.world.ipcache.contains_key(&"10.8.0.0/16".parse().unwrap()),
        "the policy that named it is gone"
    );
}

#[test]
fn an_endpoint_whose_file_is_lost_keeps_its_labels_and_lease() {
    let (mut rig, web, _) = before();
    rig.world.records.remove(&web.id);
    let mut rig = rig.restart(LINKS);
    assert_eq!(rig.problems().len(), 1);
    read_all(&mut rig);
    let after = rig.endpoint(web.id);
    assert_eq!((after.identity, after.state), (web.identity, EndpointState::Ready));
    assert_eq!(after.attachment.container_id, "web", "the lease knows");
    assert_eq!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Allow);
    assert!(matches!(rig.world.ingress(web.id, "8.8.8.8", 80), Verdict::Deny(_)));
    assert!(rig.world.records.contains_key(&web.id), "and it is stored again");
}

#[test]
fn with_all_files_lost_what_is_unknown_is_closed_and_no_number_changes_its_meaning() {
    let (mut rig, web, client) = before();
    rig.world.records.clear();
    rig.world.identities.clear();
    rig.world.ipam = crate::ipam::IpamRecord::default();
    rig.world.numbers = NumbersRecord::default();
    let mut rig = rig.restart(LINKS);
    read_all(&mut rig);
    assert_eq!(rig.endpoint(web.id).identity, Identity::INIT);
    assert!(matches!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Deny(_)));
    let request = rig.attachment("new");
    assert_ne!(request.ipv4, web.attachment.ipv4, "an address in use is not leased");
    assert_ne!(request.ipv4, client.attachment.ipv4);
    rig.pod("new", "new");
    endpoint(rig.ask(Request::CreateEndpoint(Box::new(request))));
    assert_eq!(rig.problems().len(), 2, "{:#?}", rig.problems());
}

#[test]
fn an_endpoint_that_lost_its_interface_and_file_goes() {
    let (mut rig, web, _) = before();
    rig.world.records.remove(&web.id);
    let mut rig = rig.restart(&[(103, "slu3")]);
    read_all(&mut rig);
    assert!(!rig.world.entries.contains_key(&web.id.as_u16()));
    assert!(!rig.world.ipcache.contains_key(&"10.0.0.2/32".parse().unwrap()));
}

#[test]
fn an_endpoint_that_was_stored_but_not_installed_is_completed() {
    let (mut rig, web, _) = before();
    rig.world.entries.remove(&web.id.as_u16());
    rig.world.policies.remove(&web.id.as_u16());
    rig.world.ipcache.remove(&"10.0.0.2/32".parse().unwrap());
    let mut rig = rig.restart(LINKS);
    read_all(&mut rig);
    assert_eq!(rig.endpoint(web.id).state, EndpointState::Ready);
    assert_eq!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Allow);
}

#[test]
fn an_empty_source_after_a_restart_is_believed_only_when_it_was_read() {
    let (rig, web, _) = before();
    let mut rig = rig.restart(LINKS);
    rig.event(Event::NodeAddresses(BTreeSet::new()));
    rig.event(Event::Links(LINKS.iter().map(|(index, name)| (*index, (*name).to_owned())).collect()));
    assert_eq!(
        rig.world.ingress(web.id, "8.8.8.8", 80),
        Verdict::Deny(sluice_types::DropReason::PolicyDenied)
    );
    rig.event(Event::Source(Box::default()));
    assert_eq!(rig.world.ingress(web.id, "8.8.8.8", 80), Verdict::Allow, "the policies are gone indeed");
    assert_eq!(rig.endpoint(web.id).identity, web.identity, "its manifest is gone, its labels stay");
}
