use std::time::Duration;

use sluice_client::model::{EndpointOptions, EndpointState, Toggle};
use sluice_types::{Identity, Verdict};

use super::rig::*;
use crate::event::{Answer, Event, RefusalCode, Request};

#[test]
fn a_pod_is_answered_when_its_policy_and_address_are_in_the_kernel() {
    let mut rig = Rig::new();
    let endpoint = rig.running("web", "web");
    assert_eq!(endpoint.identity, Identity::new(256));
    assert_eq!(endpoint.state, EndpointState::Ready);
    assert_eq!(endpoint.realized_revision, endpoint.wanted_revision);
    let order =
        ["store 1", "install 1", "ipcache 10.0.0.2/32=256", "answer 2"].map(|what| rig.world.at(what));
    assert!(order.is_sorted(), "{:#?}", rig.world.log);
    assert_eq!(rig.world.ingress(endpoint.id, "10.0.0.9", 80), Verdict::Allow, "no policy isolates it");
    assert_eq!(rig.world.identities.len(), 1);
}

#[test]
fn the_same_labels_share_an_identity_and_a_policy() {
    let mut rig = Rig::new();
    let (a, b) = (rig.running("a", "web"), rig.running("b", "web"));
    let c = rig.running("c", "other");
    assert_eq!(a.identity, b.identity);
    assert_ne!(a.identity, c.identity);
    let installed = rig.world.batches;
    rig.manifests(&allow("p", "web", &from_pods("other")));
    assert_eq!(rig.world.batches, installed + 1, "one batch for both");
    assert_eq!(rig.world.ingress(b.id, "10.0.0.4", 80), Verdict::Allow);
    assert_ne!(rig.world.ingress(b.id, "10.0.0.2", 80), Verdict::Allow);
}

#[test]
fn repeating_a_request_changes_nothing() {
    let mut rig = Rig::new();
    rig.pod("web", "web");
    let request = rig.attachment("web");
    let first = endpoint(rig.ask(Request::CreateEndpoint(Box::new(request.clone()))));
    let batches = rig.world.batches;
    let again = endpoint(rig.ask(Request::CreateEndpoint(Box::new(request.clone()))));
    assert_eq!((first.id, batches), (again.id, rig.world.batches));

    // The same container with another interface is a new attachment in the place of the old one.
    let mut anew = request;
    anew.host_ifindex += 50;
    let anew = endpoint(rig.ask(Request::CreateEndpoint(Box::new(anew))));
    assert_ne!(anew.id, first.id);
    assert_eq!(rig.world.entries.len(), 1);
    assert_eq!(rig.world.ipcache[&"10.0.0.2/32".parse().unwrap()].endpoint, anew.id.as_u16());
}

#[test]
fn an_unknown_pod_is_closed_until_it_is_known() {
    let mut rig = Rig::new();
    let request = rig.attachment("late");
    let ticket = rig.request(Request::CreateEndpoint(Box::new(request)));
    assert_eq!(rig.rescans, 1);
    rig.wait(Duration::from_millis(1900));
    assert!(!rig.answers.contains_key(&ticket), "it still waits for the manifest");
    rig.wait(Duration::from_millis(200));
    let made = endpoint(rig.answers.remove(&ticket).unwrap());
    assert_eq!(made.identity, Identity::INIT);
    assert_ne!(rig.world.ingress(made.id, "8.8.8.8", 80), Verdict::Allow, "closed by default");

    rig.pod("late", "web");
    let known = rig.endpoint(made.id);
    assert_eq!(known.identity, Identity::new(256));
    assert_eq!(rig.world.ingress(made.id, "8.8.8.8", 80), Verdict::Allow);
    assert_eq!(rig.world.entries[&made.id.as_u16()].identity, 256);
}

#[test]
fn a_manifest_that_comes_in_time_is_used() {
    let mut rig = Rig::new();
    let request = rig.attachment("soon");
    let ticket = rig.request(Request::CreateEndpoint(Box::new(request)));
    rig.wait(Duration::from_millis(100));
    rig.pod("soon", "web");
    let made = endpoint(rig.answers.remove(&ticket).unwrap());
    assert_eq!(made.identity, Identity::new(256));
}

#[test]
fn another_pod_of_the_same_name_is_refused() {
    let mut rig = Rig::new();
    rig.pod("web", "web");
    let mut request = rig.attachment("web");
    request.pod_uid = Some("another".into());
    let ticket = rig.request(Request::CreateEndpoint(Box::new(request)));
    rig.wait(Duration::from_secs(3));
    let refusal = rig.answers.remove(&ticket).unwrap().unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Conflict);
    assert!(refusal.message.contains("uid-web") && refusal.message.contains("another"), "{refusal}");
    assert!(rig.world.entries.is_empty());
}

#[test]
fn an_address_belongs_to_one_endpoint_and_needs_a_lease() {
    let mut rig = Rig::new();
    rig.running("web", "web");
    rig.pod("thief", "thief");
    let mut request = rig.attachment("thief");
    request.ipv4 = Some("10.0.0.2".parse().unwrap());
    let refusal = rig.ask(Request::CreateEndpoint(Box::new(request.clone()))).unwrap_err();
    assert!(refusal.message.contains("has no lease"), "{refusal}");
    request.own_ipam = false;
    let refusal = rig.ask(Request::CreateEndpoint(Box::new(request.clone()))).unwrap_err();
    assert!(refusal.message.contains("belongs to endpoint 1"), "{refusal}");
    request.ipv4 = Some("192.168.0.1".parse().unwrap());
    let refusal = rig.ask(Request::CreateEndpoint(Box::new(request))).unwrap_err();
    assert!(refusal.message.contains("address of the node"), "{refusal}");
}

#[test]
fn deleting_takes_everything_back_in_order() {
    let mut rig = Rig::new();
    let made = rig.running("web", "web");
    rig.world.log.clear();
    let ticket = rig.request(Request::DeleteAttachment(owner("web")));
    assert_eq!(rig.answers.remove(&ticket).unwrap(), Ok(Answer::Done));
    let answer = format!("answer {}", ticket.0);
    let order = ["remove 1", "ipcache 10.0.0.2/32 gone", "unstore 1", &answer].map(|what| rig.world.at(what));
    assert!(order.is_sorted(), "{:#?}", rig.world.log);
    assert!(rig.world.entries.is_empty() && rig.world.records.is_empty() && rig.world.ipam.leases.is_empty());
    assert_eq!(rig.world.ipam.resting, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(rig.forgotten[0].addresses, rig.world.ipam.resting, "its connections are forgotten");
    assert_eq!(rig.forgotten[0].endpoints, [made.id]);
    assert_eq!(rig.ask(Request::DeleteAttachment(owner("web"))), Ok(Answer::Done), "again is fine");
    let next = rig.running("next", "web");
    assert_ne!(next.attachment.ipv4, made.attachment.ipv4, "the address rests");
    assert_eq!(next.identity, made.identity, "the identity does not");
}

#[test]
fn gc_keeps_what_the_runtime_names() {
    let mut rig = Rig::new();
    rig.running("a", "web");
    rig.running("b", "web");
    rig.ask(Request::Lease(owner("lease-only"))).unwrap();
    let Ok(Answer::Gc(result)) = rig.ask(Request::Gc([owner("a")].into())) else { panic!("no result") };
    assert_eq!(result.removed, ["b/eth0", "lease-only/eth0"]);
    assert_eq!(result.host_ifnames, ["slu3"]);
    assert_eq!(rig.world.entries.len(), 1);
}

#[test]
fn an_endpoint_without_interface_goes() {
    let mut rig = Rig::new();
    let made = rig.running("web", "web");
    let links = |name: &str| Event::Links([(102, name.to_owned())].into());
    rig.event(links("slu2"));
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.world.entries.len(), 1);
    rig.event(links("another"));
    rig.wait(Duration::from_secs(5));
    rig.event(Event::Links([].into()));
    assert_eq!(rig.world.entries.len(), 1, "once may be a mistake");
    rig.wait(Duration::from_secs(6));
    rig.event(Event::Links([].into()));
    assert!(rig.world.entries.is_empty() && rig.world.ipam.leases.is_empty());
    assert_eq!(rig.ask(Request::Endpoint(made.id)).unwrap_err().code, RefusalCode::NotFound);
}

#[test]
fn leases_that_nobody_uses_end() {
    let mut rig = Rig::new();
    rig.ask(Request::Lease(owner("lost"))).unwrap();
    rig.running("web", "web");
    rig.wait(Duration::from_secs(500));
    assert_eq!(rig.world.ipam.leases.len(), 2);
    rig.wait(Duration::from_secs(200));
    assert_eq!(rig.world.ipam.leases.len(), 1);
}

#[test]
fn audit_mode_of_one_endpoint() {
    let mut rig = Rig::new();
    let made = rig.running("web", "web");
    rig.manifests(&allow("p", "web", &from_pods("nobody")));
    assert!(matches!(rig.world.ingress(made.id, "8.8.8.8", 80), Verdict::Deny(_)));
    let audit = |toggle| EndpointOptions { policy_audit_mode: Some(toggle) };
    let view = endpoint(rig.ask(Request::Configure(made.id, audit(Toggle::Enabled))));
    assert_eq!(view.options, audit(Toggle::Enabled));
    assert!(matches!(rig.world.ingress(made.id, "8.8.8.8", 80), Verdict::Audit(_)));
    rig.ask(Request::Configure(made.id, audit(Toggle::Disabled))).unwrap();
    assert!(matches!(rig.world.ingress(made.id, "8.8.8.8", 80), Verdict::Deny(_)));
}
