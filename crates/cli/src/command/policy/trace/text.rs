//! The answer as people read it: what happens, on which rules it rests, what would allow it, what to do next.

use std::io::Write;

use serde_json::Value;
use sluice_model::{Change, Flow, Side, Step, Trace, Word};
use sluice_policy::{NearMiss, RuleOrigin};
use sluice_types::{Direction, Protocol};

use super::report::{Answer, Report, reason, request_text};
use super::source::{Sources, Spot};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

/// How many connections are named that a change opens besides.
const OPENS_MAX: usize = 5;

/// Prints everything.
pub(super) fn print(
    report: &Report,
    answers: &[Answer],
    sources: &Sources<'_>,
    output: &mut Output,
) -> Result<(), Failure> {
    if let Report::Service(service) = report {
        let ends = if answers.len() == 1 { "one end".to_owned() } else { format!("{} ends", answers.len()) };
        writeln!(output, "The Service {} leads to {ends}.\n", service.service)?;
    }
    for (nth, answer) in answers.iter().enumerate() {
        if nth > 0 {
            writeln!(output)?;
        }
        one(answer, sources, output)?;
    }
    writeln!(output)?;
    next(answers, output)
}

fn one(answer: &Answer, sources: &Sources<'_>, output: &mut Output) -> Result<(), Failure> {
    let Answer { flow, trace, changes, .. } = answer;
    let headline = output.bold(&headline(flow, trace.port));
    writeln!(output, "{headline}\n")?;
    let mut table = Table::new(&["SIDE", "SUBJECT", "VERDICT", "WHY"]);
    for direction in [Direction::Egress, Direction::Ingress] {
        table.row(side_row(trace, flow, direction, output));
    }
    write!(output, "{table}")?;
    writeln!(output, "\n{}", verdict(trace, output))?;
    for side in trace.sides() {
        rules(side, sources, output)?;
    }
    for change in changes {
        proposal(change, sources, output)?;
    }
    Ok(())
}

/// `shop/web -> shop/db   5432/TCP   GET /`.
fn headline(flow: &Flow, port: u16) -> String {
    let traffic = match flow.protocol {
        Protocol::Icmp | Protocol::Icmpv6 => format!("{} type {port}", flow.protocol),
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp | Protocol::Other(_) => {
            format!("{port}/{}", flow.protocol)
        }
    };
    let request = flow.request.as_ref().map(|request| format!("   {}", request_text(request)));
    format!("{} -> {}   {traffic}{}", flow.from, flow.to, request.unwrap_or_default())
}

fn side_row(trace: &Trace, flow: &Flow, direction: Direction, output: &Output) -> [String; 4] {
    let (side, name) = match direction {
        Direction::Egress => (&trace.egress, &flow.from),
        Direction::Ingress => (&trace.ingress, &flow.to),
    };
    let (word, why) = match side {
        Some(side) => (painted(side.word, output), reason(side)),
        None if flow.from == flow.to => (output.dim("-"), "traffic to oneself is not judged".to_owned()),
        None => (output.dim("-"), "no policy is enforced at this end".to_owned()),
    };
    [direction.to_string(), name.clone(), word, why]
}

fn painted(word: Word, output: &Output) -> String {
    match word {
        Word::Allow => output.good(word.as_str()),
        Word::Audit => output.warn(word.as_str()),
        Word::Deny | Word::L7Deny | Word::DnsRefused => output.bad(word.as_str()),
    }
}

fn verdict(trace: &Trace, output: &Output) -> String {
    let what = match trace.word() {
        Word::Allow
            if trace.sides().any(|side| side.explanation.outcome == sluice_policy::Outcome::Depends) =>
        {
            "The connection is allowed; a proxy judges each request in it"
        }
        Word::Allow => "It is allowed",
        Word::Audit => "It passes because of audit mode; without, it would be denied",
        Word::Deny => "The packet is dropped",
        Word::L7Deny => "The request is refused by the proxy",
        Word::DnsRefused => "The query is refused by the DNS proxy",
    };
    let at = trace.at().map(|at| format!(" at {at}")).unwrap_or_default();
    let by: Vec<String> = trace.by().iter().map(ToString::to_string).collect();
    let by = if by.is_empty() { String::new() } else { format!(", by {}", by.join(" and ")) };
    format!("{}: {what}{at}{by}.", painted(trace.word(), output))
}

/// The rule that decides, or the one that came nearest.
fn rules(side: &Side, sources: &Sources<'_>, output: &mut Output) -> Result<(), Failure> {
    let direction = side.explanation.direction;
    if let Some(rule) = &side.explanation.rule {
        let title = format!("The rule at {direction}: {rule}");
        return excerpt(&title, &[], sources.rule(&rule.policy, &rule.path), output);
    }
    if side.word == Word::Allow {
        return Ok(());
    }
    let Some(NearMiss { rule, obstacles, .. }) = side.explanation.nearest.first() else { return Ok(()) };
    let title = format!("The nearest rule at {direction}: {rule}");
    let obstacles: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
    excerpt(&title, &obstacles, sources.rule(&rule.policy, &rule.path), output)
}

fn excerpt(
    title: &str,
    notes: &[String],
    spot: Option<Spot<'_>>,
    output: &mut Output,
) -> Result<(), Failure> {
    let place = spot.as_ref().map(place).unwrap_or_default();
    writeln!(output, "\n{title}{place}")?;
    for note in notes {
        writeln!(output, "  {note}")?;
    }
    let Some(spot) = spot else { return Ok(()) };
    let (lines, more) = spot.lines();
    for (number, line) in lines {
        let line = output.dim(&format!("  {number:>4} | {line}"));
        writeln!(output, "{}", line.trim_end())?;
    }
    if more {
        let line = output.dim("       | …");
        writeln!(output, "{line}")?;
    }
    Ok(())
}

fn place(spot: &Spot<'_>) -> String {
    format!(" ({}:{})", spot.file, spot.line)
}

fn proposal(change: &Change, sources: &Sources<'_>, output: &mut Output) -> Result<(), Failure> {
    let direction = change.direction;
    match &change.step {
        Step::Extend { policy, list, element } => {
            let place = sources.field(policy, list).as_ref().map(place).unwrap_or_default();
            writeln!(output, "\nTo allow it at {direction}, add to {policy} {list}{place}:")?;
            yaml(&Value::Array(vec![element.clone()]), output)?;
            opens(change, output)?;
        }
        Step::Create { object, .. } => {
            writeln!(output, "\nTo allow it at {direction}, create this policy:")?;
            yaml(object, output)?;
            opens(change, output)?;
        }
        Step::Except(RuleOrigin { policy, path, .. }) => {
            writeln!(
                output,
                "\nTo allow it at {direction}, take {policy} {path} out, or let it leave this flow out:"
            )?;
            writeln!(output, "what a rule denies no other rule can allow.")?;
        }
        Step::Nothing => {
            writeln!(output, "\nNo policy was found that would allow it at {direction}.")?;
        }
    }
    Ok(())
}

fn opens(change: &Change, output: &mut Output) -> Result<(), Failure> {
    if change.is_filtered {
        writeln!(output, "A proxy then judges each request, by the rules about requests that are there.")?;
    }
    if let Step::Create { object, .. } = &change.step
        && object.pointer("/spec/egress/0/toFQDNs").is_some()
    {
        writeln!(
            output,
            "Addresses of a name are learnt from DNS answers: a rule with rules.dns must let the query pass."
        )?;
    }
    if change.opens.is_empty() {
        writeln!(output, "That opens nothing else between the pods that are known here.")?;
        return Ok(());
    }
    writeln!(output, "Its labels mean others too, so it also opens:")?;
    for opened in change.opens.iter().take(OPENS_MAX) {
        writeln!(output, "  {opened}")?;
    }
    let more = change.opens.len().saturating_sub(OPENS_MAX);
    if more > 0 {
        writeln!(output, "  and {more} more")?;
    }
    Ok(())
}

fn yaml(value: &Value, output: &mut Output) -> Result<(), Failure> {
    let text = serde_saphyr::to_string(value)
        .map_err(|error| Failure::error(format!("cannot write this as YAML: {error}")))?;
    for line in text.trim_end().lines() {
        writeln!(output, "  {line}")?;
    }
    Ok(())
}

/// The next useful command.
fn next(answers: &[Answer], output: &mut Output) -> Result<(), Failure> {
    let can_create = answers.iter().any(|answer| {
        let creates = |change: &Change| matches!(change.step, Step::Create { .. });
        !answer.policies.is_empty() && answer.policies.iter().all(creates)
    });
    let is_open = answers.iter().all(|answer| answer.changes.is_empty());
    let waits = answers.iter().any(|answer| answer.flow.request.is_none() && answer.trace.is_proxied());
    if can_create {
        writeln!(output, "Next: {} --suggest > allow.yaml", command())?;
    } else if is_open && waits {
        writeln!(output, "Next: {} --http 'GET /'", command())?;
    } else if let Some(Answer { flow, .. }) = answers.first() {
        writeln!(output, "Next: sluice monitor --from {} --to {}", quoted(&flow.from), quoted(&flow.to))?;
    }
    Ok(())
}

/// The command that was given, ready to be given again.
fn command() -> String {
    let words: Vec<String> = std::env::args().skip(1).map(|word| quoted(&word)).collect();
    format!("sluice {}", words.join(" "))
}

fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/.:,=_-@%+".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
