//! One request against the rules that come into question.

use sluice_types::RuleId;

use crate::l7::{Effects, KafkaRule, L7Rules, Mismatch, Parser, Request, Secrets, kafka};

/// What the rules say.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// Those that name the request.
    pub(super) parts: Vec<(RuleId, String)>,
    /// What they do to it, all of them: a rule that changes headers does so although another one lets the request
    /// pass as it is.
    pub(super) effects: Effects,
    /// Why the others do not.
    pub(super) mismatches: Vec<(RuleId, String, Mismatch)>,
}

/// Rules with their number and where they stand in the rule, `toPorts[0]`.
pub(super) type Rules<'a> = (RuleId, Option<&'a str>, &'a L7Rules);

/// Looks at all rules. Rules about another protocol do not name the request.
pub(super) fn check(rules: &[Rules<'_>], request: &Request<'_>, secrets: &dyn Secrets) -> Finding {
    let mut finding = Finding::default();
    let mut kafka: Vec<(RuleId, String, &KafkaRule)> = Vec::new();
    for (id, at, rules) in rules {
        let part = |part: &str| at.map_or_else(|| part.to_owned(), |at| format!("{at}.{part}"));
        match (*rules, request) {
            (L7Rules::Http(rules), Request::Http(request)) => {
                for rule in rules {
                    finding.take(*id, part(&rule.part), rule.check(request, secrets));
                }
            }
            (L7Rules::Kafka(rules), Request::Kafka(_)) => {
                kafka.extend(rules.iter().map(|rule| (*id, part(&rule.part), rule)));
            }
            (L7Rules::Dns(rules), Request::Dns(name)) => {
                for rule in rules {
                    finding.take(*id, part(&rule.part), rule.check(name).map(|()| Effects::new()));
                }
            }
            (L7Rules::Tls(rules), Request::Tls(name)) => {
                for rule in rules {
                    finding.take(*id, part(&rule.part), rule.check(*name).map(|()| Effects::new()));
                }
            }
            (rules, request) => {
                let mismatch = other_protocol(rules.parser(), request.parser());
                let parts = rules.parts().into_iter().map(|own| (*id, part(own), mismatch.clone()));
                finding.mismatches.extend(parts);
            }
        }
    }
    if let Request::Kafka(request) = request {
        finding.take_kafka(kafka, request);
    }
    finding
}

fn other_protocol(wanted: Parser, got: Parser) -> Mismatch {
    Mismatch {
        field: "protocol".to_owned(),
        wanted: wanted.as_str().to_owned(),
        got: Some(got.as_str().to_owned()),
    }
}

impl Finding {
    fn take(&mut self, id: RuleId, part: String, result: Result<Effects, Mismatch>) {
        match result {
            Ok(effects) => {
                self.parts.push((id, part));
                self.effects.extend(effects);
            }
            Err(mismatch) => self.mismatches.push((id, part, mismatch)),
        }
    }

    /// Kafka's rules are looked at together: each covers some of the topics.
    fn take_kafka(&mut self, rules: Vec<(RuleId, String, &KafkaRule)>, request: &kafka::KafkaRequest<'_>) {
        let plain: Vec<&KafkaRule> = rules.iter().map(|(_, _, rule)| *rule).collect();
        let named = |nth: usize| rules.get(nth).map(|(id, part, _)| (*id, part.clone()));
        match kafka::check(&plain, request) {
            kafka::Finding::Named(used) => self.parts.extend(used.into_iter().filter_map(named)),
            kafka::Finding::Unnamed(differing) => {
                let misses = differing.into_iter();
                self.mismatches.extend(
                    misses.filter_map(|(nth, mismatch)| named(nth).map(|(id, part)| (id, part, mismatch))),
                );
            }
        }
    }
}
