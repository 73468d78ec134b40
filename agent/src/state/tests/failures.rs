use std::time::Duration;

use sluice_client::model::EndpointState;
use sluice_types::{EndpointId, Identity, Verdict};

use super::rig::*;
use crate::effect::Failed;
use crate::event::{RefusalCode, Request};
use crate::identity::ClusterIdentities;

fn id(raw: u16) -> EndpointId {
    EndpointId::new(raw).unwrap()
}

#[test]
fn a_pod_whose_policy_cannot_be_installed_is_refused_and_leaves_nothing() {
    let mut rig = Rig::new();
    rig.pod("web", "web");
    let request = rig.attachment("web");
    rig.world.broken.insert(Failed::Install(id(1)));
    let refusal = rig.ask(Request::CreateEndpoint(Box::new(request.clone()))).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Internal);
    assert!(refusal.message.contains("no room"), "{refusal}");
    assert!(rig.world.entries.is_empty() && rig.world.records.is_empty(), "{:#?}", rig.world);
    assert_eq!(rig.problems(), Vec::<String>::new());
    rig.world.broken.clear();
    endpoint(rig.ask(Request::CreateEndpoint(Box::new(request))));
}

#[test]
fn an_endpoint_whose_new_policy_does_not_fit_is_closed_and_comes_back() {
    let mut rig = Rig::new();
    let (web, other) = (rig.running("web", "web"), rig.running("other", "other"));
    rig.world.broken.insert(Failed::Install(web.id));
    rig.manifests(&allow("p", "web", &from_pods("other")));
    assert!(
        matches!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Deny(_)),
        "closed, not the old policy"
    );
    assert_eq!(rig.world.ingress(other.id, "10.0.0.2", 80), Verdict::Allow, "others are untouched");
    let view = rig.endpoint(web.id);
    assert_eq!(view.state, EndpointState::WaitingToRegenerate);
    assert!(view.problem.unwrap().contains("no room"));
    assert_eq!(rig.problems().len(), 1);
    let batches = rig.world.batches;
    rig.wait(Duration::from_secs(10));
    let tries = rig.world.batches - batches;
    assert!((3..=8).contains(&tries), "ever more slowly: {tries}");
    rig.world.broken.clear();
    rig.wait(Duration::from_secs(31));
    assert_eq!(rig.world.ingress(web.id, "10.0.0.3", 80), Verdict::Allow);
    assert_eq!(rig.problems(), Vec::<String>::new());
}

#[test]
fn an_address_that_cannot_be_written_is_tried_again() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    let prefix = "10.8.0.0/16".parse().unwrap();
    rig.world.broken.insert(Failed::Ipcache(prefix));
    rig.manifests(&allow("p", "web", "fromCIDR: [10.8.0.0/16]"));
    assert!(rig.problems()[0].starts_with("ipcache: "));
    assert_ne!(rig.world.ingress(web.id, "10.8.0.1", 80), Verdict::Allow);
    rig.world.broken.clear();
    rig.wait(Duration::from_secs(2));
    assert_eq!(rig.world.ingress(web.id, "10.8.0.1", 80), Verdict::Allow);
    assert_eq!(rig.problems(), Vec::<String>::new());
}

#[test]
fn a_full_disk_refuses_new_pods_and_keeps_enforcing() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.pod("new", "new");
    let request = rig.attachment("new");
    rig.world.broken.extend([Failed::StoreIpam, Failed::StoreTables, Failed::StoreEndpoint(id(2))]);
    let refusal = rig.ask(Request::CreateEndpoint(Box::new(request.clone()))).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Internal);
    let refusal = rig.ask(Request::Lease(owner("newer"))).unwrap_err();
    assert!(refusal.message.contains("cannot be stored"), "{refusal}");
    let refusal = rig.ask(Request::Lease(owner("newest"))).unwrap_err();
    assert!(
        refusal.message.contains("cannot be stored"),
        "the second is not answered from memory: {refusal}"
    );
    rig.manifests(&allow("p", "web", &from_pods("nobody")));
    assert_ne!(rig.world.ingress(web.id, "8.8.8.8", 80), Verdict::Allow, "policies go on");
    assert!(rig.problems()[0].starts_with("state directory: "));
    rig.world.broken.clear();
    rig.wait(Duration::from_secs(6));
    assert_eq!(rig.problems(), Vec::<String>::new());
    endpoint(rig.ask(Request::CreateEndpoint(Box::new(request))));
}

#[test]
fn a_removal_that_fails_is_tried_again_and_its_number_is_not_given_out() {
    let mut rig = Rig::new();
    let web = rig.running("web", "web");
    rig.world.broken.insert(Failed::Remove(web.id));
    let refusal = rig.ask(Request::DeleteAttachment(owner("web"))).unwrap_err();
    assert!(refusal.message.contains("cannot be removed yet"), "{refusal}");
    assert_eq!(rig.problems().len(), 1);
    rig.world.broken.clear();
    rig.wait(Duration::from_secs(2));
    assert!(rig.world.entries.is_empty());
    assert_eq!(rig.problems(), Vec::<String>::new());
}

#[test]
fn without_a_number_for_its_labels_a_pod_stays_closed() {
    let mut rig = Rig::new();
    rig.state.identities = ClusterIdentities::with_range(Identity::new(256), Identity::new(257));
    let (a, b) = (rig.running("a", "a"), rig.running("b", "b"));
    rig.pod("c", "c");
    let request = rig.attachment("c");
    let refusal = rig.ask(Request::CreateEndpoint(Box::new(request))).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Exhausted);
    assert!(refusal.message.contains("no security identity is left"), "{refusal}");

    rig.pod("b", "changed");
    assert_eq!(rig.endpoint(b.id).state, EndpointState::WaitingForIdentity);
    assert!(
        matches!(rig.world.ingress(b.id, "8.8.8.8", 80), Verdict::Deny(_)),
        "closed, not the old identity"
    );
    assert!(!rig.world.ipcache.contains_key(&"10.0.0.3/32".parse().unwrap()));
    assert_eq!(rig.world.ingress(a.id, "8.8.8.8", 80), Verdict::Allow, "others are untouched");
    assert_eq!(rig.problems().len(), 1);
    rig.wait(Duration::from_secs(10));
    assert_eq!(rig.endpoint(b.id).identity, Identity::new(257), "its own old number became free");
    assert_eq!(rig.world.ingress(b.id, "8.8.8.8", 80), Verdict::Allow);
    assert_eq!(rig.problems(), Vec::<String>::new());
}
