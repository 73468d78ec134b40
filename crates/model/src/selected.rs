//! What each selector of each policy matches now.

use sluice_policy::{
    PolicyRef, Rule,
    l7::FqdnSelector,
    labels::CLUSTER,
    rule::{Peers, RuleSubject},
    selector::{LabelSelector, Selector, most_specific_prefixes},
};
use sluice_types::{Direction, Identity, Labels};

use crate::cluster::Cluster;

/// What a selector is there for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Whom the rule applies to.
    Subject,
    /// Who may send, or may not.
    From,
    /// Who may receive, or may not.
    To,
    /// What peers that are selected otherwise must fulfil as well.
    Requires,
}

impl Role {
    /// The word for reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "applies to",
            Self::From => "from",
            Self::To => "to",
            Self::Requires => "requires",
        }
    }
}

/// A selector of a policy with what it matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Selected {
    /// The policy.
    pub policy: PolicyRef,
    /// The rules it stands in, `ingress[0]`.
    pub rules: Vec<String>,
    /// What it is there for.
    pub role: Role,
    /// The selector in words, without the label of the cluster that all pods have.
    pub text: String,
    /// It selects addresses by DNS names: whom it matches is learnt from answers.
    pub is_learnt: bool,
    /// Everybody it matches, by name: participants, entities, prefixes of rules. `None` is everybody, known or not.
    pub members: Option<Vec<String>>,
}

/// A selector of one rule.
struct Told {
    role: Role,
    text: String,
    is_learnt: bool,
    members: Option<Vec<String>>,
}

impl Told {
    fn new(role: Role, text: String, members: Option<Vec<String>>) -> Self {
        Self { role, text, is_learnt: false, members }
    }
}

/// Somebody whom a selector can match.
struct Candidate {
    name: String,
    labels: Labels,
    is_judged: bool,
}

impl Cluster {
    /// Every selector, by policy and role; the same one of several rules is told once.
    pub fn selected(&mut self) -> Vec<Selected> {
        self.settle();
        let candidates = self.candidates();
        let mut found: Vec<Selected> = Vec::new();
        for (policy, rules) in self.rules() {
            let first = found.len();
            for rule in &rules {
                for told in self.of_rule(rule, &candidates) {
                    let own = found.get_mut(first..).unwrap_or_default();
                    let is_told = |known: &&mut Selected| known.role == told.role && known.text == told.text;
                    match own.iter_mut().find(is_told) {
                        Some(known) if known.rules.contains(&rule.path) => {}
                        Some(known) => known.rules.push(rule.path.clone()),
                        None => {
                            let Told { role, text, is_learnt, members } = told;
                            let (policy, rules) = (policy.clone(), vec![rule.path.clone()]);
                            found.push(Selected { policy, rules, role, text, is_learnt, members });
                        }
                    }
                }
            }
        }
        found
    }

    fn candidates(&self) -> Vec<Candidate> {
        let participants = self.known.values().map(|known| Candidate {
            name: known.participant.name.clone(),
            labels: known.labels.clone(),
            is_judged: known.subject.is_some(),
        });
        let reserved = Identity::reserved().filter_map(|(identity, name)| {
            let labels = self.repository.labels(identity)?.clone();
            Some(Candidate { name: name.to_owned(), labels, is_judged: false })
        });
        let prefixes = self.prefixes.iter().filter_map(|(prefix, identity)| {
            let labels = self.repository.labels(*identity)?.clone();
            Some(Candidate { name: prefix.to_string(), labels, is_judged: false })
        });
        participants.chain(reserved).chain(prefixes).collect()
    }

    fn of_rule(&self, rule: &Rule, candidates: &[Candidate]) -> Vec<Told> {
        let role = match rule.direction {
            Direction::Ingress => Role::From,
            Direction::Egress => Role::To,
        };
        let labelled = |selector: &LabelSelector| {
            Some(names(candidates, |candidate| selector.matches(&candidate.labels)))
        };
        let selected = |selector: &Selector| match selector {
            Selector::Labels(selector) => labelled(selector),
            Selector::Cidr(selector) => Some(names(candidates, |candidate| {
                most_specific_prefixes(&candidate.labels).iter().any(|own| selector.covers(own))
            })),
        };
        let by_labels = |role, own: &LabelSelector| Told::new(role, words(own), labelled(own));
        let peer = |own: &Selector| match (FqdnSelector::of_selector(own), own) {
            (Some(name), _) => {
                let text = format!("DNS name {}", name.as_str());
                Told { is_learnt: true, ..Told::new(role, text, selected(own)) }
            }
            (None, Selector::Labels(own)) => by_labels(role, own),
            (None, Selector::Cidr(cidr)) => Told::new(role, cidr.to_string(), selected(own)),
        };
        let (RuleSubject::Endpoints(subject) | RuleSubject::Node(subject)) = &rule.subject;
        let applies = names(candidates, |own| own.is_judged && rule.subject.matches(&own.labels));
        let mut found = vec![Told::new(Role::Subject, words(subject), Some(applies))];
        match &rule.peers {
            Peers::Any => found.push(Told::new(role, "everybody".to_owned(), None)),
            Peers::Select(selectors) => found.extend(selectors.iter().map(peer)),
            Peers::Endpoints(selectors) => found.extend(selectors.iter().map(|own| by_labels(role, own))),
            Peers::Prefixes(_) => {
                found.extend(self.repository.expand(&rule.peers).unwrap_or_default().iter().map(peer));
            }
            Peers::Services(services) => {
                for service in services {
                    let one = Peers::Services(vec![service.clone()]);
                    let expanded = self.repository.expand(&one).unwrap_or_default();
                    let mut members: Vec<String> = expanded.iter().filter_map(selected).flatten().collect();
                    members.sort();
                    members.dedup();
                    found.push(Told::new(role, format!("Service {service}"), Some(members)));
                }
            }
        }
        found.extend(rule.requires.iter().map(|own| by_labels(Role::Requires, own)));
        found
    }
}

fn words(selector: &LabelSelector) -> String {
    let told = selector.requirements().filter(|requirement| requirement.key().key != CLUSTER);
    told.cloned().collect::<LabelSelector>().to_string()
}

fn names(candidates: &[Candidate], wanted: impl Fn(&Candidate) -> bool) -> Vec<String> {
    let mut names: Vec<String> =
        candidates.iter().filter(|own| wanted(own)).map(|own| own.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}
