//! Laws that hold for all policies.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};
use sluice_api::{
    CiliumClusterwideNetworkPolicy, IntOrString, LabelSelector,
    cilium::{DefaultDeny, IngressRule, L7Rules, PolicyRule, Port, PortRule},
};
use sluice_arbitrary::{GROUPS, PODS, Policy, SERVICES, ingress, metadata, policies};
use sluice_types::{Identity, Protocol};

use super::{Setting, add_everybody, answers, compare, config, put, read, scene_of};
use crate::{
    Config, Query,
    tests::scene::{Outcome, Scene},
};

fn run(config: &Config, policies: &[Policy]) -> Vec<Outcome> {
    answers(&scene_of(&Setting { config, policies, services: SERVICES, groups: GROUPS }))
}

/// What a deny rule requires narrows other deny rules: the law about them holds without.
fn drop_requirements(policy: &mut Policy) {
    let rule = match policy {
        Policy::Cnp(policy) => &mut policy.spec,
        Policy::Ccnp(policy) => &mut policy.spec,
        Policy::Knp(_) | Policy::Kcnp(_) => return,
    };
    if let Some(rule) = rule {
        rule.ingress.iter_mut().flatten().for_each(|entry| entry.from_requires = None);
        rule.ingress_deny.iter_mut().flatten().for_each(|entry| entry.from_requires = None);
        rule.egress.iter_mut().flatten().for_each(|entry| entry.to_requires = None);
        rule.egress_deny.iter_mut().flatten().for_each(|entry| entry.to_requires = None);
    }
}

/// A clusterwide policy for everybody with this one entry.
fn clusterwide(nth: usize, entry: IngressRule, deny: bool, default_deny: bool) -> Policy {
    let list = Some(vec![IngressRule { from_requires: None, ..entry }]);
    Policy::Ccnp(CiliumClusterwideNetworkPolicy {
        metadata: metadata(nth, None),
        spec: Some(PolicyRule {
            endpoint_selector: Some(LabelSelector::default()),
            ingress: if deny { None } else { list.clone() },
            ingress_deny: if deny { list } else { None },
            enable_default_deny: Some(DefaultDeny { ingress: Some(default_deny), egress: None }),
            ..PolicyRule::default()
        }),
        ..Default::default()
    })
}

/// The same policy with every list of entries, peers and ports the other way round.
fn reversed(mut policy: Policy) -> Policy {
    fn ports(rules: &mut Option<Vec<PortRule>>) {
        for rule in rules.iter_mut().flatten() {
            rule.ports.iter_mut().for_each(|list| list.reverse());
            if let Some(L7Rules { http, grpc, kafka, dns, .. }) = &mut rule.rules {
                list(http);
                list(grpc);
                list(kafka);
                list(dns);
            }
        }
        rules.iter_mut().for_each(|list| list.reverse());
    }
    fn list<T>(list: &mut Option<Vec<T>>) {
        list.iter_mut().for_each(|list| list.reverse());
    }
    fn spec(rule: &mut PolicyRule) {
        for entries in [&mut rule.ingress, &mut rule.ingress_deny] {
            for entry in entries.iter_mut().flatten() {
                list(&mut entry.from_endpoints);
                list(&mut entry.from_cidr);
                list(&mut entry.from_cidr_set);
                list(&mut entry.from_entities);
                list(&mut entry.from_nodes);
                ports(&mut entry.to_ports);
            }
            list(entries);
        }
        for entries in [&mut rule.egress, &mut rule.egress_deny] {
            for entry in entries.iter_mut().flatten() {
                list(&mut entry.to_endpoints);
                list(&mut entry.to_cidr);
                list(&mut entry.to_cidr_set);
                list(&mut entry.to_entities);
                list(&mut entry.to_nodes);
                list(&mut entry.to_services);
                list(&mut entry.to_fqdns);
                ports(&mut entry.to_ports);
            }
            list(entries);
        }
    }
    match &mut policy {
        Policy::Cnp(policy) => policy.spec.iter_mut().for_each(spec),
        Policy::Ccnp(policy) => policy.spec.iter_mut().for_each(spec),
        Policy::Knp(policy) => {
            if let Some(spec) = &mut policy.spec {
                for rule in spec.ingress.iter_mut().flatten() {
                    list(&mut rule.from);
                    list(&mut rule.ports);
                }
                list(&mut spec.ingress);
                for rule in spec.egress.iter_mut().flatten() {
                    list(&mut rule.to);
                    list(&mut rule.ports);
                }
                list(&mut spec.egress);
            }
        }
        Policy::Kcnp(policy) => {
            // The order of rules is what they mean here; that of peers and protocols is not.
            for rule in policy.spec.ingress.iter_mut().flatten() {
                rule.from.reverse();
                list(&mut rule.protocols);
            }
            for rule in policy.spec.egress.iter_mut().flatten() {
                rule.to.reverse();
                list(&mut rule.protocols);
            }
        }
    }
    policy
}

/// The same policy with every short range of ports written as single ports.
fn without_ranges(mut policy: Policy) -> Policy {
    fn ports(rules: &mut Option<Vec<PortRule>>) {
        let Some(list) = rules else { return };
        let mut more = Vec::new();
        for rule in list.iter_mut() {
            let (ranges, others): (Vec<Port>, Vec<Port>) =
                rule.ports.iter().flatten().cloned().partition(is_range);
            if ranges.is_empty() {
                continue;
            }
            rule.ports = Some(others);
            // Each in a port rule of its own: one may hold 40 ports.
            more.extend(ranges.into_iter().map(|range| {
                let all = first(&range)..=range.end_port.unwrap();
                let single =
                    |number| Port { port: Some(IntOrString::Int(number)), end_port: None, ..range.clone() };
                PortRule { ports: Some(all.map(single).collect()), ..rule.clone() }
            }));
        }
        list.extend(more);
    }
    fn is_range(port: &Port) -> bool {
        first(port) > 1 && port.end_port.is_some_and(|last| last > first(port) && last <= 100)
    }
    fn first(port: &Port) -> i64 {
        match port.port.as_ref().unwrap() {
            IntOrString::Int(number) => *number,
            IntOrString::String(text) => text.parse().unwrap_or_default(),
        }
    }
    let rule = match &mut policy {
        Policy::Cnp(policy) => &mut policy.spec,
        Policy::Ccnp(policy) => &mut policy.spec,
        Policy::Knp(_) | Policy::Kcnp(_) => return policy,
    };
    if let Some(rule) = rule {
        rule.ingress.iter_mut().flatten().for_each(|entry| ports(&mut entry.to_ports));
        rule.ingress_deny.iter_mut().flatten().for_each(|entry| ports(&mut entry.to_ports));
        rule.egress.iter_mut().flatten().for_each(|entry| ports(&mut entry.to_ports));
        rule.egress_deny.iter_mut().flatten().for_each(|entry| ports(&mut entry.to_ports));
    }
    policy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Pods first or policies first, policies in another order, some replaced, some removed again, and everything
    /// resolved in between so that what is resolved later is patched: the outcome is the same.
    #[test]
    fn neither_order_nor_history_matters(
        config in config(),
        policies in policies(),
        others in policies(),
        rotation in 0..6usize,
    ) {
        let mut scene = Scene::new(config.clone());
        for policy in &others {
            put(&mut scene, policy);
        }
        scene.namespace("a", &[]);
        scene.pod("a/web", &[("app", "db")], &[("http", Protocol::Tcp, 81)]);
        let early = scene.repository.resolve(scene.subject("a/web"));
        add_everybody(&mut scene, SERVICES, GROUPS);
        let mut held = vec![early];
        for nth in 0..policies.len() {
            put(&mut scene, &policies[(nth + rotation) % policies.len()]);
            held.extend(PODS.iter().map(|pod| scene.repository.resolve(scene.subject(pod.name))));
            if nth % 2 == 0 {
                scene.sync_prefixes();
                held.extend(PODS.iter().map(|pod| scene.repository.resolve(scene.subject(pod.name))));
            }
        }
        let wanted: Vec<_> = policies.iter().map(|policy| read(policy, &config).0).collect();
        for policy in &others {
            let (name, _) = read(policy, &config);
            if !wanted.contains(&name) {
                drop(scene.repository.remove(&name));
            }
        }
        scene.sync_prefixes();
        let setting = Setting { config: &config, policies: &policies, services: SERVICES, groups: GROUPS };
        compare(&scene, &setting);

        // A repository that never saw anything else says the same.
        let fresh = scene_of(&setting);
        prop_assert_eq!(fresh.repository.selectors().count(), scene.repository.selectors().count());
        for pod in PODS {
            let old = scene.repository.resolve(scene.subject(pod.name));
            let new = fresh.repository.resolve(fresh.subject(pod.name));
            prop_assert_eq!(old.map_state.entries.len(), new.map_state.entries.len());
            prop_assert_eq!(old.map_state.admin.len(), new.map_state.admin.len());
            prop_assert_eq!(&old.ingress, &new.ingress);
            prop_assert_eq!(&old.egress, &new.egress);
        }
        drop(held);
    }

    #[test]
    fn policies_in_audit_mode_change_nothing_that_passes(config in config(), policies in policies()) {
        let enforced: Vec<Policy> = policies.iter().filter(|policy| !policy.is_staged()).cloned().collect();
        let without = |outcome| if outcome == Outcome::Audit { Outcome::Allow } else { outcome };
        let told: Vec<Outcome> = run(&config, &policies).into_iter().map(without).collect();
        // Without their prefixes, addresses have other identities, but no other fate.
        prop_assert_eq!(told, run(&config, &enforced));
    }

    #[test]
    fn the_order_of_lists_does_not_matter(config in config(), policies in policies()) {
        let other: Vec<Policy> = policies.iter().cloned().map(reversed).collect();
        prop_assert_eq!(run(&config, &policies), run(&config, &other));
    }

    #[test]
    fn a_range_is_its_ports(config in config(), policies in policies()) {
        let other: Vec<Policy> = policies.iter().cloned().map(without_ranges).collect();
        prop_assert_eq!(run(&config, &policies), run(&config, &other));
    }

    /// One more deny rule never lets anything pass that was denied by a rule, and denies whatever it matches unless
    /// administrators have decided already.
    #[test]
    fn a_deny_rule_never_opens(
        mut policies in policies(),
        entry in ingress(false),
        default_deny in any::<bool>(),
    ) {
        policies.iter_mut().for_each(drop_requirements);
        let config = Config::complete();
        let deny = clusterwide(99, entry, true, default_deny);
        let alone = run(&config, std::slice::from_ref(&deny));
        let before = run(&config, &policies);
        let plain: Vec<Policy> =
            policies.iter().filter(|policy| !matches!(policy, Policy::Kcnp(_))).cloned().collect();
        let by_admins = plain.len() < policies.len();
        policies.push(deny);
        let after = run(&config, &policies);
        // A policy that isolates hides the baseline, and what that denied may be denied without a rule now.
        let closed = |outcome| matches!(outcome, Outcome::Deny | Outcome::Default);
        for ((alone, before), after) in alone.into_iter().zip(before).zip(after) {
            if alone == Outcome::Deny && !by_admins {
                prop_assert_eq!(after, Outcome::Deny);
            }
            if before == Outcome::Deny && (!by_admins || default_deny) {
                prop_assert!(closed(after), "{:?}", after);
            }
            if !closed(after) && !by_admins {
                prop_assert!(!closed(before), "{:?}", before);
            }
        }
    }

    /// One more allow rule for endpoints that are isolated already closes nothing: what passed, passes. Two rules
    /// that want one connection read as two protocols are left out, they close it.
    #[test]
    fn an_allow_rule_never_closes(mut policies in policies(), entry in ingress(false)) {
        policies.iter_mut().for_each(drop_requirements);
        let config = Config::complete();
        policies.push(clusterwide(98, IngressRule::default(), true, true));
        let before = run(&config, &policies);
        policies.push(clusterwide(99, entry, false, true));
        let after = run(&config, &policies);
        for (before, after) in before.into_iter().zip(after) {
            if matches!(before, Outcome::Allow | Outcome::Proxied) {
                prop_assert_eq!(after, before);
            }
        }
    }

    /// Whatever is asked, there is an answer; also for identities and protocols that nobody knows.
    #[test]
    fn every_question_has_an_answer(
        config in config(),
        policies in policies(),
        asked in vec((any::<u32>(), any::<u8>(), proptest::option::of(any::<u16>()), any::<bool>()), 200),
    ) {
        let scene = scene_of(&Setting { config: &config, policies: &policies, services: SERVICES, groups: GROUPS });
        let policy: Arc<_> = scene.repository.resolve(scene.subject("a/web"));
        for (identity, protocol, port, ingress) in asked {
            let direction =
                if ingress { sluice_types::Direction::Ingress } else { sluice_types::Direction::Egress };
            let protocol = Protocol::from_number(protocol);
            let query = Query { direction, peer: Identity::new(identity), protocol, port };
            let decision = policy.map_state.decide(&query);
            prop_assert_eq!(decision, policy.map_state.decide(&query));
        }
    }
}
