use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use sluice_api::{Object, read_manifests};
use sluice_arbitrary::{PODS, Policy, manifests, policies};
use sluice_model::Cluster;
use sluice_policy::{Config, Query};
use sluice_types::Protocol;

use super::*;

/// The policies of all pods of the random cluster.
fn policies_of(written: &[Policy]) -> Vec<EndpointPolicy> {
    let mut cluster = Cluster::new(Config::complete());
    for manifest in manifests(|_| IpAddr::V4(Ipv4Addr::new(10, 1, 1, 1))) {
        cluster.apply(&read_manifests(&manifest.to_string()).remove(0).content.unwrap()).unwrap();
    }
    for policy in written {
        cluster.apply(&Object::from(policy.clone())).unwrap();
    }
    let pods = PODS.iter().filter_map(|pod| cluster.subject(pod.name).cloned()).collect::<Vec<_>>();
    pods.iter().map(|subject| (*cluster.repository().resolve(subject)).clone()).collect()
}

fn written(policy: &EndpointPolicy) -> EndpointRules {
    let id = EndpointId::new(17).unwrap();
    EndpointRules::new(id, 70, Identity::new(1_001), "shop/web".to_owned(), policy, &())
}

/// What is about HTTP comes back as it was; of the rest that it is there.
fn check(policy: &EndpointPolicy) -> usize {
    let rules = written(policy);
    let text = serde_json::to_string(&rules).unwrap();
    let read: EndpointRules = serde_json::from_str(&text).unwrap();
    assert_eq!(read, rules);
    let (enforced, staged) = read.tables().unwrap();
    let staged = staged.unwrap_or_else(|| enforced.clone());
    let mut compared = 0;
    for (table, own) in [(&policy.requests, &enforced), (&policy.staged_requests, &staged)] {
        assert_eq!(table.iter().count(), own.iter().count());
        for ((key, slot), (its_key, its)) in table.iter().zip(own.iter()) {
            assert_eq!(key, its_key);
            assert_eq!((slot.precedence, slot.rule, slot.exact), (its.precedence, its.rule, its.exact));
            use sluice_policy::requests::Says;
            match (&slot.says, &its.says) {
                (Says::Requests { rules, at }, Says::Requests { rules: its, at: its_at }) => {
                    assert_eq!((at, rules.parser()), (its_at, its.parser()));
                    if matches!(**rules, sluice_policy::l7::L7Rules::Http(_)) {
                        assert_eq!(rules, its);
                        compared += 1;
                    }
                }
                (one, other) => assert_eq!(one, other),
            }
        }
        let query = Query {
            direction: Direction::Ingress,
            peer: Identity::WORLD,
            protocol: Protocol::Tcp,
            port: Some(80),
        };
        assert_eq!(table.slots(&query).len(), own.slots(&query).len());
    }
    compared
}

/// The comparison would show nothing if no policy had rules about requests.
#[test]
fn random_policies_are_worth_comparing() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut compared = 0;
    for _ in 0..20 {
        let policies = policies().new_tree(&mut runner).unwrap().current();
        compared += policies_of(&policies).iter().map(check).sum::<usize>();
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn what_is_damaged_is_not_read() {
    let rules = written(&EndpointPolicy::default());
    assert!(rules.tables().is_ok());
    let other = EndpointRules { form: 2, ..rules.clone() };
    assert_eq!(other.tables().unwrap_err(), RulesError::Form(2));
    let slot = Slot {
        direction: Direction::Ingress,
        peer: None,
        protocol: Some(6),
        port: Some((80, 16)),
        precedence: 1,
        rule: sluice_types::RuleId(7),
        exact: true,
        says: Says::Requests(0),
        at: None,
    };
    let with = |slot: Slot, rules_list: Vec<Rules>| EndpointRules {
        enforced: Table { rules: rules_list, slots: vec![slot] },
        ..rules.clone()
    };
    let rule = |path: &str| Rule {
        part: "http[0]".to_owned(),
        method: None,
        path: Some(path.to_owned()),
        host: None,
        grpc: false,
        headers: Vec::new(),
    };
    assert!(with(slot.clone(), vec![Rules::Http(vec![rule("/a")])]).tables().is_ok());
    assert_eq!(with(slot.clone(), Vec::new()).tables().unwrap_err(), RulesError::Slot(0));
    let portless = Slot { protocol: None, ..slot.clone() };
    assert_eq!(with(portless, vec![Rules::Tls]).tables().unwrap_err(), RulesError::Slot(0));
    let wide = Slot { port: Some((80, 17)), ..slot.clone() };
    assert_eq!(with(wide, vec![Rules::Tls]).tables().unwrap_err(), RulesError::Slot(0));
    let broken = with(slot, vec![Rules::Http(vec![rule("(")])]);
    assert!(matches!(broken.tables().unwrap_err(), RulesError::Pattern(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_come_back_as_they_were(policies in policies()) {
        policies_of(&policies).iter().for_each(|policy| { check(policy); });
    }
}

/// A secret goes along with the rules that name it, no other does, and no message shows it.
#[test]
fn secrets_that_rules_name_go_along() {
    let text = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, namespace: a}
spec:
  endpointSelector: {}
  ingress:
  - toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        http:
        - headerMatches: [{name: X-Token, secret: {namespace: a, name: token}}]
        - headerMatches: [{name: X-Other, secret: {name: missing}}]
";
    struct Values;
    impl Secrets for Values {
        fn value(&self, namespace: Option<&str>, name: &str) -> Option<Vec<u8>> {
            (name != "missing").then(|| format!("{}/{name}", namespace.unwrap_or("-")).into_bytes())
        }
    }
    let Object::CiliumNetworkPolicy(cnp) = read_manifests(text).remove(0).content.unwrap() else { panic!() };
    let policy = policies_of(&[Policy::Cnp(*cnp)]).remove(0);
    let id = EndpointId::new(17).unwrap();
    let rules = EndpointRules::new(id, 70, Identity::new(1_001), "a/web".to_owned(), &policy, &Values);
    let read: EndpointRules = serde_json::from_str(&serde_json::to_string(&rules).unwrap()).unwrap();
    assert_eq!(read.secrets.value(Some("a"), "token").as_deref(), Some(b"a/token".as_slice()));
    assert_eq!(read.secrets.value(None, "missing"), None);
    assert_eq!(read.secrets.value(Some("a"), "unnamed"), None);
    assert_eq!(format!("{:?}", read.secrets), "NamedSecrets([a/token])");
    let without = written(&policy);
    assert!(without.secrets.is_empty() && !serde_json::to_string(&without).unwrap().contains("secrets"));
}
