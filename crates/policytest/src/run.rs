//! Asking everything that a test file asks.

use sluice_model::{Cluster, Flow, FlowPort, Side, Trace, Word};
use sluice_policy::PolicyRef;
use sluice_types::Direction;

use crate::{
    case::{Wrong, end, shown_port},
    coverage::{Origins, bare, names, shown},
    format::{Case, Expected, Matrix, Side as SideName},
    report::{Detail, Got, Outcome, Report, TestResult, Want},
    scene::unknown,
    suite::{Mistake, Source, Suite},
};

/// One question, ready to be asked.
struct Question {
    name: String,
    /// Where it stands in the file.
    path: String,
    flow: Flow,
    want: Want,
}

impl Suite {
    /// Asks everything whose name is wanted. `sources` are the files that `policies` names.
    ///
    /// What is wrong with the file is part of the report; then nothing of the file is asked.
    #[must_use]
    pub fn run(&self, sources: &[Source], is_wanted: &dyn Fn(&str) -> bool) -> Report {
        let mut report = Report::default();
        let mut origins = Origins::default();
        let prepared = self.scene_with(sources, &mut origins).and_then(|mut cluster| {
            let questions = self.questions(&mut cluster)?;
            Ok((cluster, questions))
        });
        let (mut cluster, questions) = match prepared {
            Ok(prepared) => prepared,
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| report.mistake(mistake));
                return report;
            }
        };
        report.counter.expect(&cluster, &origins);
        for question in questions.into_iter().filter(|question| is_wanted(&question.name)) {
            self.ask(&mut cluster, question, &origins, &mut report);
        }
        for result in self.refusals().into_iter().filter(|result| is_wanted(&result.name)) {
            report.push(result);
        }
        report
    }

    fn questions(&self, cluster: &mut Cluster) -> Result<Vec<Question>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut questions = Vec::new();
        let policies = policies(cluster);
        for (nth, case) in self.format.tests.iter().enumerate() {
            let path = format!("tests[{nth}]");
            match question(cluster, case, &policies) {
                Ok((name, flow, want)) => questions.push(Question { name, path, flow, want }),
                Err(wrong) => mistakes.push(self.wrong(&path, &wrong)),
            }
        }
        for (nth, matrix) in self.format.matrix.iter().enumerate() {
            let path = format!("matrix[{nth}]");
            match cells(cluster, matrix, &path) {
                Ok(cells) => questions.extend(cells),
                Err(wrongs) => mistakes.extend(wrongs.iter().map(|wrong| self.wrong(&path, wrong))),
            }
        }
        // Names of ports are looked up when the flow is followed; a name that is missing is the file's mistake.
        for question in &questions {
            if let Err(error) = cluster.trace(&question.flow) {
                let field = if question.path.starts_with("tests") { "port" } else { "" };
                mistakes.push(self.wrong(&question.path, &(field.to_owned(), error.to_string())));
            }
        }
        if mistakes.is_empty() { Ok(questions) } else { Err(mistakes) }
    }

    fn wrong(&self, path: &str, (field, reason): &Wrong) -> Mistake {
        let dot = if field.is_empty() { "" } else { "." };
        self.mistake(&format!("{path}{dot}{field}"), reason)
    }

    fn ask(&self, cluster: &mut Cluster, question: Question, origins: &Origins, report: &mut Report) {
        let trace = match cluster.trace(&question.flow) {
            Ok(trace) => trace,
            Err(error) => return report.mistake(&self.mistake(&question.path, &error.to_string())),
        };
        for part in cluster.hits(&trace) {
            report.counter.hit(&part, origins);
        }
        let policies = policies(cluster);
        let outcome = if is_as_wanted(&question.want, &trace) { Outcome::Passed } else { Outcome::Failed };
        let mut detail = Detail { line: self.line(&question.path), column: 1, ..Detail::default() };
        if outcome == Outcome::Failed {
            explain(&trace, &mut detail);
            detail.trace = self.trace_arguments(&question.flow);
        }
        report.push(TestResult {
            file: self.file.clone(),
            name: question.name,
            outcome,
            want: question.want,
            got: got(&trace, &policies),
            error: None,
            detail,
        });
    }

    /// The documents that must be refused.
    fn refusals(&self) -> Vec<TestResult> {
        let documents = self.invalid();
        let config = crate::scene::config(&self.format.config);
        let listed = self.format.invalid.iter().zip(documents).enumerate();
        listed
            .map(|(nth, (invalid, manifests))| {
                let mut messages = Vec::new();
                for manifest in &manifests {
                    match &manifest.content {
                        Err(error) => messages.push(Mistake::of_document(&self.file, error).message),
                        Ok(object) => {
                            let refused = Cluster::new(config.clone()).apply(object).err();
                            messages.extend(refused.iter().flatten().map(ToString::to_string));
                        }
                    }
                }
                let message = messages.join("; ");
                let is_meant = message.to_lowercase().contains(&invalid.error.to_lowercase());
                let passed = !messages.is_empty() && is_meant;
                TestResult {
                    file: self.file.clone(),
                    name: invalid.name.clone(),
                    outcome: if passed { Outcome::Passed } else { Outcome::Failed },
                    want: Want { error: Some(invalid.error.clone()), ..Want::default() },
                    got: Got { error: (!messages.is_empty()).then_some(message), ..Got::default() },
                    error: None,
                    detail: Detail {
                        line: self.line(&format!("invalid[{nth}]")),
                        column: 1,
                        ..Detail::default()
                    },
                }
            })
            .collect()
    }
}

fn policies(cluster: &Cluster) -> Vec<PolicyRef> {
    let mut policies: Vec<PolicyRef> = cluster.rule_parts().map(|part| part.policy).collect();
    policies.dedup();
    policies
}

fn question(
    cluster: &mut Cluster,
    case: &Case,
    policies: &[PolicyRef],
) -> Result<(String, Flow, Want), Wrong> {
    let flow = case.flow(cluster)?;
    for (nth, text) in case.by.iter().enumerate() {
        if !policies.iter().any(|policy| names(text, policy)) {
            let known: Vec<String> = policies.iter().map(bare).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            return Err((format!("by[{nth}]"), unknown(text, &known)));
        }
    }
    let name = if case.name.is_empty() { cell_name(&case.from, &case.to, &flow) } else { case.name.clone() };
    let want = Want {
        verdict: Some(case.expect.as_str()),
        at: case.at.map(SideName::as_str),
        by: case.by.clone(),
        ..Want::default()
    };
    Ok((name, flow, want))
}

fn cell_name(from: &str, to: &str, flow: &Flow) -> String {
    format!("{from} -> {to} {}", shown_port(&flow.port, flow.protocol))
}

/// The questions of a matrix, or everything that is wrong with it.
fn cells(cluster: &mut Cluster, matrix: &Matrix, path: &str) -> Result<Vec<Question>, Vec<Wrong>> {
    let mut wrongs = Vec::new();
    let port = matrix.flow_port().unwrap_or_else(|wrong| {
        wrongs.push(wrong);
        FlowPort::Number(0)
    });
    let mut columns = Vec::new();
    for (nth, column) in matrix.columns.iter().enumerate() {
        match end(cluster, column) {
            Ok(to) => columns.push((column, to)),
            Err(reason) => wrongs.push((format!("columns[{nth}]"), reason)),
        }
    }
    let mut questions = Vec::new();
    for (row, cells) in &matrix.rows {
        let field = format!("rows[{row}]");
        let from = end(cluster, row).unwrap_or_else(|reason| {
            wrongs.push((field.clone(), reason));
            String::new()
        });
        let (width, wanted) = (cells.chars().count(), matrix.columns.len());
        if width != wanted {
            wrongs.push((field.clone(), format!("it has {width} cells, and there are {wanted} columns")));
        }
        for (cell, (column, to)) in cells.chars().zip(&columns) {
            let want = match cell {
                '-' => continue,
                'X' => Want { verdict: Some(Expected::Allow.as_str()), ..Want::default() },
                '.' => Want { not: Some(Expected::Allow.as_str()), ..Want::default() },
                other => {
                    wrongs.push((
                        field.clone(),
                        format!("{other:?} is no cell: X allow, . anything else, - not asked"),
                    ));
                    break;
                }
            };
            let (from, to) = (from.clone(), to.clone());
            let flow =
                Flow { from, to, protocol: matrix.protocol.protocol(), port: port.clone(), request: None };
            let name = cell_name(row, column, &flow);
            questions.push(Question { name, path: format!("{path}.{field}"), flow, want });
        }
    }
    if wrongs.is_empty() { Ok(questions) } else { Err(wrongs) }
}

fn is_as_wanted(want: &Want, trace: &Trace) -> bool {
    let word = trace.word().as_str();
    let by = trace.by();
    want.verdict.is_none_or(|wanted| wanted == word)
        && want.not.is_none_or(|unwanted| unwanted != word)
        && want.at.is_none_or(|wanted| trace.at().map(side_name) == Some(wanted))
        && want.by.iter().all(|text| by.iter().any(|policy| names(text, policy)))
}

fn got(trace: &Trace, policies: &[PolicyRef]) -> Got {
    let reasons: Vec<String> = match trace.decisive() {
        Some(side) => vec![side.explanation.to_string()],
        None => trace.sides().map(reason).collect(),
    };
    Got {
        verdict: Some(trace.word().as_str()),
        at: trace.at().map(side_name),
        by: Some(trace.by().iter().map(|policy| shown(policy, policies.iter())).collect()),
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
        error: None,
    }
}

fn reason(side: &Side) -> String {
    format!("{} {}", side_name(side.explanation.direction), side.explanation)
}

const fn side_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

impl SideName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What people need to find the mistake.
fn explain(trace: &Trace, detail: &mut Detail) {
    let line = |side: &Side| {
        let isolation = match side.explanation.rule {
            None if side.word == Word::Allow && !side.explanation.enforced => " (no policy selects it)",
            _ => "",
        };
        format!(
            "{} of {}: {}{isolation}",
            side_name(side.explanation.direction),
            side.subject,
            side.explanation
        )
    };
    detail.sides = match trace.decisive() {
        Some(side) => vec![line(side)],
        None => trace.sides().map(line).collect(),
    };
    let near = trace.decisive().into_iter().flat_map(|side| &side.explanation.nearest);
    detail.nearest = near
        .map(|miss| {
            let obstacles: Vec<String> = miss.obstacles.iter().map(ToString::to_string).collect();
            format!("{}: {}", miss.rule, obstacles.join(" and "))
        })
        .collect();
}
