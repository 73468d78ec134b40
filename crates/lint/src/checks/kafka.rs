//! Kafka rules that name requests by their kind and forget those that every client sends first.

use sluice_policy::{
    l7::{KafkaRequest, KafkaRule, L7Rules, kafka},
    rule::Action,
};

use crate::{
    cover::{PortSet, peers_cover},
    report::Report,
    rules::KAFKA_WITHOUT_METADATA,
    scene::{Placed, Scene, rule_path},
};

/// What every client asks before anything else, by number and name.
const FIRST: [(i16, &str); 2] = [(18, "ApiVersions"), (3, "Metadata")];

pub(super) fn check(scene: &Scene<'_>, report: &mut Report) {
    for placed in scene.rules() {
        for ports in placed.rule.ports.rules() {
            let Some(L7Rules::Kafka(own)) = ports.l7.as_deref() else { continue };
            let rules = rules_with(scene, placed, &PortSet::of_traffic(&ports.traffic));
            let missing: Vec<&str> = FIRST
                .into_iter()
                .filter(|(key, _)| !own.iter().all(|rule| passes(&rules, *key, rule)))
                .map(|(_, name)| name)
                .collect();
            if missing.is_empty() {
                continue;
            }
            let message = format!(
                "no rule lets {} pass, which clients send before anything else",
                missing.join(" and ")
            );
            let help = "Use `role: produce` or `role: consume`: they stand for all requests that such a client sends.";
            let at = placed.policy.at(format!("{}.{}.rules.kafka", rule_path(placed.rule), ports.path));
            report.add(&KAFKA_WITHOUT_METADATA, &at, message, help);
        }
    }
}

/// All Kafka rules that are certain to hold for the same pods, peers and ports.
fn rules_with<'s>(scene: &'s Scene<'_>, placed: Placed<'_, '_>, ports: &PortSet) -> Vec<&'s KafkaRule> {
    let rule = placed.rule;
    let mut found = Vec::new();
    for other in scene.rules_near(&placed).filter(|other| other.rule.direction == rule.direction) {
        let holds = other.rule.action == Action::Allow
            && other.holds_for_all_of(&placed)
            && peers_cover(&other.rule.peers, &rule.peers);
        for element in other.rule.ports.rules().filter(|_| holds) {
            if let Some(L7Rules::Kafka(rules)) = element.l7.as_deref()
                && PortSet::of_traffic(&element.traffic).covers(ports)
            {
                found.extend(rules);
            }
        }
    }
    found
}

/// Whether a client that a rule is for may send this kind of request, about the rule's topic.
fn passes(rules: &[&KafkaRule], api_key: i16, client: &KafkaRule) -> bool {
    let topics: Vec<&str> = client.topic.as_deref().into_iter().filter(|_| api_key == 3).collect();
    let request = KafkaRequest {
        api_key,
        api_version: client.api_version.unwrap_or_default(),
        client_id: client.client_id.as_deref(),
        topics: &topics,
        unknown_topics: 0,
    };
    matches!(kafka::check(rules, &request), kafka::Finding::Named(_))
}
