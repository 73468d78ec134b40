use proptest::{collection::vec, option, prelude::*, sample::select};
use sluice_types::Label;

use super::*;
use crate::selector::{CidrSelector, LabelKey};

fn labels(texts: &[&str]) -> Labels {
    texts.iter().map(|text| text.parse::<Label>().unwrap()).collect()
}

fn by_label(text: &str) -> Selector {
    let (key, value) = text.split_once('=').unwrap();
    Selector::Labels([Requirement::equals(LabelKey::parse(key), value)].into_iter().collect())
}

fn by_prefix(prefix: &str, except: &[&str]) -> Selector {
    Selector::Cidr(CidrSelector {
        prefix: prefix.parse().unwrap(),
        except: except.iter().map(|hole| hole.parse().unwrap()).collect(),
    })
}

#[test]
fn selectors_are_shared_and_counted() {
    let mut cache = SelectorCache::default();
    cache.set_identity(Identity::new(300), labels(&["k8s:app=web"]));
    let first = cache.acquire(&by_label("app=web"));
    assert_eq!(cache.acquire(&by_label("app=web")), first);
    assert_ne!(cache.acquire(&by_label("k8s:app=web")), first);
    cache.release(first);
    assert_eq!(cache.matches(first), Some(&IdentitySet::from_iter([Identity::new(300)])));
    cache.release(first);
    assert_eq!(cache.matches(first), None);
    assert_eq!(cache.iter().count(), 1);
}

#[test]
fn prefixes_are_counted_with_their_holes() {
    let mut cache = SelectorCache::default();
    let one = cache.acquire(&by_prefix("10.0.0.0/8", &["10.1.0.0/16"]));
    let two = cache.acquire(&by_prefix("10.1.0.0/16", &[]));
    let world = cache.acquire(&by_prefix("0.0.0.0/0", &[]));
    assert_eq!(cache.prefixes().len(), 2);
    cache.release(one);
    assert_eq!(cache.prefixes(), BTreeSet::from(["10.1.0.0/16".parse().unwrap()]));
    cache.release(two);
    cache.release(world);
    assert!(cache.prefixes().is_empty());
    assert!(cache.cidr_selectors.is_empty());
}

#[test]
fn an_identity_says_which_selectors_it_joined_and_left() {
    let mut cache = SelectorCache::default();
    let web = cache.acquire(&by_label("app=web"));
    let db = cache.acquire(&by_label("app=db"));
    let not_db = cache.acquire(&Selector::Labels(
        [Requirement::NotIn(LabelKey::parse("app"), BTreeSet::from(["db".to_owned()]))].into_iter().collect(),
    ));
    let identity = Identity::new(300);
    assert_eq!(cache.set_identity(identity, labels(&["k8s:app=web"])), BTreeSet::from([web, not_db]));
    assert_eq!(cache.set_identity(identity, labels(&["k8s:app=web", "k8s:x=y"])), BTreeSet::new());
    assert_eq!(cache.set_identity(identity, labels(&["k8s:app=db"])), BTreeSet::from([web, db, not_db]));
    assert_eq!(cache.remove_identity(identity), BTreeSet::from([db]));
    assert_eq!(cache.remove_identity(identity), BTreeSet::new());
    assert!(cache.owned.is_empty() && cache.labels.is_empty());
}

#[test]
fn an_identity_is_compared_with_few_selectors() {
    let mut cache = SelectorCache::default();
    for nth in 0..1_000 {
        let mut selector = LabelSelector::default();
        selector.require(Requirement::equals(LabelKey::parse("k8s:io.kubernetes.pod.namespace"), "shop"));
        selector.require(Requirement::equals(LabelKey::parse("k8s:io.cilium.k8s.policy.cluster"), "default"));
        selector.require(Requirement::equals(LabelKey::parse("app"), format!("app-{nth}")));
        cache.acquire(&Selector::Labels(selector));
    }
    assert!(cache.wanted.is_empty() && cache.unanchored.is_empty());
    let shop = &cache.confined["shop"];
    assert_eq!(shop.get(NAMESPACE, "shop"), [None, None]);
    let found: Vec<_> = shop.get("app", "app-7").into_iter().flatten().flatten().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(shop.get("app", "app-1000")[0], None);
}

/// One step in the life of a cache.
#[derive(Clone, Debug)]
enum Step {
    Acquire(Selector),
    /// Releases one of those acquired before.
    Release(usize),
    Set(u32, Labels),
    Remove(u32),
}

fn some_label() -> impl Strategy<Value = Label> {
    let plain = (select(vec!["k8s", "node"]), select(vec!["app", "tier"]), select(vec!["a", "b", ""]))
        .prop_map(|(source, key, value)| format!("{source}:{key}={value}"));
    let prefix = select(vec!["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "fd00::/8"])
        .prop_map(|prefix| format!("cidr:{prefix}"));
    let reserved = select(vec!["world", "world-ipv4", "world-ipv6", "remote-node"])
        .prop_map(|name| format!("reserved:{name}"));
    prop_oneof![3 => plain, 1 => prefix, 1 => reserved].prop_map(|text| text.parse().unwrap())
}

fn some_selector() -> impl Strategy<Value = Selector> {
    let key = select(vec!["app", "k8s:app", "tier", "node:tier"]).prop_map(LabelKey::parse);
    let values = proptest::sample::subsequence(vec!["a", "b", ""], 1..3)
        .prop_map(|values| values.into_iter().map(str::to_owned).collect::<BTreeSet<_>>());
    let requirement = (0..4, key, values).prop_map(|(kind, key, values)| match kind {
        0 => Requirement::In(key, values),
        1 => Requirement::NotIn(key, values),
        2 => Requirement::Exists(key),
        _ => Requirement::DoesNotExist(key),
    });
    let by_labels = vec(requirement, 0..3).prop_map(|list| Selector::Labels(list.into_iter().collect()));
    let prefixes = vec![
        ("0.0.0.0/0", "10.0.0.0/8"),
        ("10.0.0.0/8", "10.1.0.0/16"),
        ("10.1.0.0/16", "10.1.1.0/24"),
        ("::/0", "fd00::/8"),
    ];
    let by_prefix = (select(prefixes), any::<bool>()).prop_map(|((prefix, hole), holed)| {
        by_prefix(prefix, if holed { std::slice::from_ref(&hole) } else { &[] }).clone()
    });
    prop_oneof![2 => by_labels, 1 => by_prefix]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => some_selector().prop_map(Step::Acquire),
        1 => (0..8usize).prop_map(Step::Release),
        3 => (0..6u32, vec(some_label(), 0..4)).prop_map(|(identity, labels)| Step::Set(identity, labels.into_iter().collect())),
        1 => (0..6u32).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, the indices say what comparing everything with everything says.
    #[test]
    fn the_indices_forget_and_invent_nothing(steps in vec(step(), 1..40), nodes in option::of(Just(()))) {
        let config = Config { cidr_match_nodes: nodes.is_some(), ..Config::default() };
        let mut cache = SelectorCache::new(&config);
        let mut acquired: Vec<(SelectorId, Selector)> = Vec::new();
        let mut known: BTreeMap<u32, Labels> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Acquire(selector) => acquired.push((cache.acquire(&selector), selector)),
                Step::Release(nth) if nth < acquired.len() => cache.release(acquired.remove(nth).0),
                Step::Release(_) => {}
                Step::Set(identity, labels) => {
                    cache.set_identity(Identity::new(identity), labels.clone());
                    known.insert(identity, labels);
                }
                Step::Remove(identity) => {
                    cache.remove_identity(Identity::new(identity));
                    known.remove(&identity);
                }
            }
            for (id, selector) in &acquired {
                let want: IdentitySet = known
                    .iter()
                    .filter(|(_, labels)| match selector {
                        Selector::Labels(selector) => selector.matches(labels),
                        Selector::Cidr(selector) => {
                            cache.has_address(labels)
                                && most_specific_prefixes(labels).iter().any(|prefix| selector.covers(prefix))
                        }
                    })
                    .map(|(identity, _)| Identity::new(*identity))
                    .collect();
                prop_assert_eq!(cache.matches(*id), Some(&want), "{}", selector);
            }
        }
    }
}
