//! Cases as data: what a file may say. `conformance/README.md` is the reader's guide.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::node::NodeConfig;
use crate::probe::Protocol;
use crate::request::Request;
use crate::topology::{Labels, PodSpec, Subject, Topology};

/// Length of a datagram unless the probe says `size`.
pub(crate) const DATAGRAM_LEN: usize = 64;

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// `CHAPTER/NAME`.
    pub name: String,
    /// The sentence it holds us to.
    pub holds: String,
    /// What the agent is told.
    pub config: NodeConfig,
    /// Who there is at the start.
    pub topology: Topology,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    holds: String,
    #[serde(default)]
    config: NodeConfig,
    #[serde(default)]
    topology: TopologyChoice,
    #[serde(default)]
    steps: Vec<StepFile>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TopologyChoice {
    Named(String),
    Own(Topology),
}

impl Default for TopologyChoice {
    fn default() -> Self {
        Self::Own(Topology::default())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StepFile {
    /// Policies, as documents of one YAML text.
    policies: Option<String>,
    /// Files of `docs/examples/seeds`, by name.
    seeds: Vec<String>,
    /// Policies to take away, `cnp/NAMESPACE/NAME`, or `seeds/FILE`.
    delete: Vec<String>,
    /// Namespaces that get other labels.
    namespaces: BTreeMap<String, Labels>,
    /// Pods that come to life, or get other labels.
    pods: BTreeMap<String, PodSpec>,
    /// Pods that end.
    remove: Vec<String>,
    /// Options of endpoints.
    endpoints: BTreeMap<String, BTreeMap<String, String>>,
    /// `kill`: SIGKILL and a new agent.
    agent: Option<String>,
    /// Policies that must be refused, and what the message must name.
    refused: BTreeMap<String, String>,
    /// `INGRESS EGRESS` as the endpoint list shows them: `Enabled`, `Disabled`, `Audit`.
    enforcement: BTreeMap<String, String>,
    /// Connections to open and keep: name to `FROM -> TO PORT`.
    open: BTreeMap<String, String>,
    /// Kept connections that speak or do not: name to verdict.
    speak: BTreeMap<String, String>,
    /// `FROM -> TO WHAT` to verdict.
    probes: BTreeMap<String, String>,
    /// Many probes at once.
    matrix: Vec<MatrixFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatrixFile {
    /// What is asked, `80/TCP, 81/UDP`.
    ask: String,
    /// Targets, in the order of a row's cells.
    columns: Vec<String>,
    /// Askers; `X` allow, `.` deny, `-` not asked, spaces for the eye.
    rows: BTreeMap<String, String>,
}

/// One step: changes, then what must hold.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// Policies to write, by file name.
    pub apply: BTreeMap<String, ManifestFile>,
    /// Files to delete.
    pub delete: Vec<String>,
    /// Namespaces that get other labels.
    pub namespaces: BTreeMap<String, Labels>,
    /// Pods that come to life, or get other labels.
    pub pods: BTreeMap<String, PodSpec>,
    /// Pods that end.
    pub remove: Vec<String>,
    /// Options of endpoints.
    pub endpoints: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether the agent is killed and started again.
    pub kills_agent: bool,
    /// Policies that must be refused, and what the message must name.
    pub refused: BTreeMap<String, String>,
    /// Ingress and egress enforcement as listed.
    pub enforcement: BTreeMap<String, (String, String)>,
    /// Connections to open.
    pub open: BTreeMap<String, Ask>,
    /// Connections that speak or do not.
    pub speak: BTreeMap<String, Expect>,
    /// What is asked.
    pub asks: Vec<Ask>,
}

/// A file of policies.
#[derive(Clone, Debug)]
pub struct ManifestFile {
    /// Its text.
    pub text: String,
    /// What it holds.
    pub policies: Vec<Policy>,
}

/// One policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `cnp/NAMESPACE/NAME`, `ccnp/NAME` or `knp/NAMESPACE/NAME`.
    pub name: String,
    /// The whole object.
    pub object: Value,
}

/// One question and what must come of it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who asks.
    pub from: Subject,
    /// Who is asked.
    pub to: Subject,
    /// Over what.
    pub protocol: Protocol,
    /// Port, or ICMP type.
    pub port: u16,
    /// Length of a datagram, or of all that is said over a connection.
    pub len: usize,
    /// The request that it is asked in, over TCP.
    pub request: Option<Request>,
    /// Whether somebody may look for a request in it: who finds none answers as well as the target does.
    pub is_looked_into: bool,
    /// What must come of it.
    pub expect: Expect,
    /// Whether it is one of many, whose drops are counted and not looked up one by one.
    pub is_cell: bool,
}

/// What must come of a question.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expect {
    /// The verdict.
    pub verdict: Verdict,
    /// Which side decides.
    pub at: Option<String>,
    /// The drop reason.
    pub reason: Option<String>,
    /// Policies that decide, or isolate.
    pub by: Vec<String>,
    /// Whom the target sees.
    pub seen_as: Option<Subject>,
    /// Only this family, 4 or 6.
    pub family: Option<u8>,
}

/// The verdicts of cases.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Verdict {
    /// The target answers.
    #[default]
    Allow,
    /// Nothing comes back, the target hears nothing, and the drop is reported.
    Deny,
    /// The request is refused in the target's stead, the target hears nothing, and the refusal is reported.
    L7Deny,
    /// It passes, and the target's system says that nobody listens.
    Refused,
    /// It passes, and is reported as what would be dropped.
    Audit,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, to, protocol, port, request, .. } = self;
        match (protocol, port) {
            (Protocol::Icmp, 8) => write!(f, "{from} -> {to} ping"),
            (Protocol::Icmp, 13) => write!(f, "{from} -> {to} timestamp"),
            _ => write!(f, "{from} -> {to} {port}/{}", protocol.as_str()),
        }?;
        request.iter().try_for_each(|request| write!(f, " {request}"))
    }
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::L7Deny => "l7-deny",
            Verdict::Refused => "refused",
            Verdict::Audit => "audit",
        })?;
        if let Some(side) = &self.at {
            write!(f, " at {side}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, " {reason}")?;
        }
        self.by.iter().try_for_each(|policy| write!(f, " by {policy}"))?;
        self.seen_as.iter().try_for_each(|subject| write!(f, " as {subject}"))?;
        self.family.iter().try_for_each(|family| write!(f, " v{family}"))
    }
}

/// Reads every case below `root` whose name contains one of `filters` (all without filters).
///
/// # Errors
/// A file that is not a case: a typo must not skip what it should test.
pub fn load_all(root: &Path, filters: &[String]) -> Result<Vec<Case>> {
    let topologies = load_topologies(&root.join("topologies"))?;
    let mut cases = Vec::new();
    for chapter in folders(root)?.into_iter().filter(|path| !path.ends_with("topologies")) {
        for file in files(&chapter)? {
            let case = load(&file, &topologies).with_context(|| format!("the case {}", file.display()))?;
            if filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter.as_str())) {
                cases.push(case);
            }
        }
    }
    Ok(cases)
}

fn load_topologies(folder: &Path) -> Result<BTreeMap<String, Topology>> {
    let mut topologies = BTreeMap::new();
    for file in files(folder)? {
        let topology = read_yaml(&file).with_context(|| file.display().to_string())?;
        topologies.insert(stem(&file), topology);
    }
    Ok(topologies)
}

fn load(file: &Path, topologies: &BTreeMap<String, Topology>) -> Result<Case> {
    let chapter = file.parent().map(stem).unwrap_or_default();
    let (case, first) = split_first_step(read_yaml(file)?);
    let CaseFile { holds, config, topology, steps } = serde_json::from_value(case)?;
    let first: StepFile = serde_json::from_value(first)?;
    let topology = match topology {
        TopologyChoice::Own(topology) => topology,
        TopologyChoice::Named(name) => {
            topologies.get(&name).with_context(|| format!("there is no topology {name}"))?.clone()
        }
    };
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/seeds");
    let mut all = Vec::new();
    if first.is_something() {
        all.push(first.build(&seeds)?);
    }
    for (nth, step) in steps.into_iter().enumerate() {
        all.push(step.build(&seeds).with_context(|| format!("step {}", nth + 1))?);
    }
    ensure!(all.iter().any(Step::asks_something), "nothing is asked: a case that cannot fail");
    let case = Case { name: format!("{chapter}/{}", stem(file)), holds, config, topology, steps: all };
    case.check()?;
    Ok(case)
}

/// Divides a file into what is about the case and what is its first step, which may stand beside it.
fn split_first_step(mut file: Value) -> (Value, Value) {
    let mut case = serde_json::Map::new();
    if let Some(keys) = file.as_object_mut() {
        for key in ["holds", "config", "topology", "steps"] {
            case.extend(keys.remove(key).map(|value| (key.to_owned(), value)));
        }
    }
    (Value::Object(case), file)
}

fn read_yaml<T: for<'de> Deserialize<'de>>(file: &Path) -> Result<T> {
    let text = std::fs::read_to_string(file).context("reading")?;
    let value: Value = serde_saphyr::from_str_with_options(&text, yaml()).context("reading YAML")?;
    serde_json::from_value(value).context("understanding it")
}

/// YAML 1.2: a namespace may be called `y` or `no`.
pub(crate) fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(root)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect())
}

pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

impl Case {
    /// Every subject must be known at some time, so that a typo is found before anything is made.
    fn check(&self) -> Result<()> {
        let mut pods: BTreeSet<&String> = self.topology.pods.keys().collect();
        pods.extend(self.steps.iter().flat_map(|step| step.pods.keys()));
        for ask in self.steps.iter().flat_map(|step| step.asks.iter().chain(step.open.values())) {
            for subject in [&ask.from, &ask.to] {
                match subject {
                    Subject::Pod(name) => ensure!(pods.contains(name), "{ask}: there is no pod {name}"),
                    Subject::World(host) => drop(self.topology.world_host(host)?),
                    Subject::Node | Subject::Router => {}
                }
            }
        }
        Ok(())
    }

    /// The ports on which each subject must serve.
    #[must_use]
    pub fn served(&self) -> BTreeMap<Subject, BTreeSet<(Protocol, u16)>> {
        let mut served: BTreeMap<Subject, BTreeSet<(Protocol, u16)>> = BTreeMap::new();
        for ask in self.steps.iter().flat_map(|step| step.asks.iter().chain(step.open.values())) {
            if ask.expect.verdict != Verdict::Refused && ask.protocol != Protocol::Icmp {
                served.entry(ask.to.clone()).or_default().insert((ask.protocol, ask.port));
            }
        }
        served
    }

    /// Whether its pods are the same at the end as at the start.
    #[must_use]
    pub fn keeps_topology(&self) -> bool {
        self.steps.iter().all(|step| {
            step.pods.is_empty()
                && step.remove.is_empty()
                && step.namespaces.is_empty()
                && step.endpoints.is_empty()
                && !step.kills_agent
        })
    }
}

impl Step {
    fn asks_something(&self) -> bool {
        !(self.asks.is_empty() && self.speak.is_empty())
    }
}

impl StepFile {
    fn is_something(&self) -> bool {
        self.policies.is_some()
            || !self.seeds.is_empty()
            || !self.probes.is_empty()
            || !self.matrix.is_empty()
            || !self.open.is_empty()
            || !self.enforcement.is_empty()
            || !self.refused.is_empty()
    }

    fn build(self, seeds: &Path) -> Result<Step> {
        let mut step = Step {
            namespaces: self.namespaces,
            pods: self.pods,
            remove: self.remove,
            endpoints: self.endpoints,
            refused: self.refused,
            delete: self.delete.iter().map(|name| file_name(name)).collect(),
            ..Step::default()
        };
        if let Some(text) = &self.policies {
            for policy in policies_of(text)? {
                let text = serde_json::to_string_pretty(&policy.object).context("writing JSON")?;
                step.apply.insert(file_name(&policy.name), ManifestFile { text, policies: vec![policy] });
            }
        }
        for seed in self.seeds {
            let text = std::fs::read_to_string(seeds.join(&seed))
                .with_context(|| format!("reading the seed {seed}"))?;
            let policies = policies_of(&text).with_context(|| format!("the seed {seed}"))?;
            step.apply.insert(file_name(&format!("seeds/{seed}")), ManifestFile { text, policies });
        }
        step.kills_agent = match self.agent.as_deref() {
            None => false,
            Some("kill") => true,
            Some(other) => bail!("agent: {other}: only kill is known"),
        };
        for (pod, words) in self.enforcement {
            let (ingress, egress) =
                words.split_once(' ').with_context(|| format!("enforcement of {pod}: two words"))?;
            step.enforcement.insert(pod, (enforcement(ingress)?, enforcement(egress)?));
        }
        for (name, asked) in self.open {
            let [ask] = <[Ask; 1]>::try_from(parse_ask(&asked, &Expect::default())?)
                .ok()
                .with_context(|| format!("open: {asked}: one port"))?;
            ensure!(ask.protocol == Protocol::Tcp, "open: {asked}: only TCP connections are kept");
            step.open.insert(name, ask);
        }
        for (name, verdict) in self.speak {
            step.speak.insert(name, verdict.parse()?);
        }
        for (asked, verdict) in &self.probes {
            step.asks.extend(parse_ask(asked, &verdict.parse().with_context(|| asked.clone())?)?);
        }
        for matrix in self.matrix {
            step.asks.extend(matrix.cells()?);
        }
        Ok(step)
    }
}

fn enforcement(word: &str) -> Result<String> {
    Ok(match word {
        "Enabled" | "Disabled" => word.to_owned(),
        "Audit" => "Disabled (Audit)".to_owned(),
        other => bail!("{other}: Enabled, Disabled or Audit"),
    })
}

/// The file in which a policy is written.
pub(crate) fn file_name(policy: &str) -> String {
    let name = policy.replace('/', "_");
    if name.starts_with("seeds_") { name } else { format!("policy_{name}.json") }
}

pub(crate) fn policies_of(text: &str) -> Result<Vec<Policy>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, yaml()).context("reading YAML")?;
    let mut policies = Vec::new();
    for object in documents.into_iter().filter(|document| !document.is_null()) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let name = match text("/kind") {
            "CiliumNetworkPolicy" => format!("cnp/{namespace}/{name}"),
            "NetworkPolicy" => format!("knp/{namespace}/{name}"),
            "CiliumClusterwideNetworkPolicy" => format!("ccnp/{name}"),
            "ClusterNetworkPolicy" => format!("kcnp/{name}"),
            // The examples show their Services too.
            "Service" => continue,
            other => bail!("{other:?} is no kind of policy"),
        };
        policies.push(Policy { name, object });
    }
    ensure!(!policies.is_empty(), "no policy in it");
    Ok(policies)
}

/// `FROM -> TO WHAT[, WHAT…] [size N]`, or `FROM -> TO PORT/TCP REQUEST`.
fn parse_ask(text: &str, expect: &Expect) -> Result<Vec<Ask>> {
    let doing = || format!("{text:?} is not FROM -> TO WHAT");
    let (from, rest) = text.split_once("->").with_context(doing)?;
    let (to, what) = rest.trim().split_once(' ').with_context(doing)?;
    let (what, len) = match what.split_once(" size ") {
        Some((what, len)) => (what, len.trim().parse().with_context(doing)?),
        None => (what, DATAGRAM_LEN),
    };
    let (from, to): (Subject, Subject) = (from.trim().parse()?, to.trim().parse()?);
    if let Some((port, asked)) = what.split_once("/TCP ") {
        let port = port.parse().with_context(doing)?;
        let request = Some(parse_request(asked).with_context(doing)?);
        let (protocol, expect) = (Protocol::Tcp, expect.clone());
        return Ok(vec![Ask {
            from,
            to,
            protocol,
            port,
            len,
            request,
            is_looked_into: true,
            expect,
            is_cell: false,
        }]);
    }
    let mut asks = Vec::new();
    for what in what.split(',').map(str::trim) {
        let (protocol, port) = parse_what(what)?;
        let mut expect = expect.clone();
        if (protocol, port) == (Protocol::Icmp, 13) {
            expect.family = Some(4);
        }
        let (from, to) = (from.clone(), to.clone());
        let (request, is_looked_into, is_cell) = (None, false, false);
        asks.push(Ask { from, to, protocol, port, len, request, is_looked_into, expect, is_cell });
    }
    Ok(asks)
}

/// `METHOD PATH` of HTTP/1.1, or `call SERVICE/METHOD` of gRPC.
fn parse_request(text: &str) -> Result<Request> {
    let (method, about) = text.split_once(' ').context("a request without a target")?;
    if method == "call" {
        let (service, method) = about.split_once('/').context("a call without a method")?;
        return Ok(Request::Grpc { service: service.to_owned(), method: method.to_owned() });
    }
    ensure!(about.starts_with('/'), "{about:?} is no path");
    let (method, path) = (method.to_owned(), about.to_owned());
    Ok(Request::Http { method, path, host: None, headers: Vec::new() })
}

fn parse_what(what: &str) -> Result<(Protocol, u16)> {
    if let Some(port) = match what {
        "ping" => Some(8),
        "timestamp" => Some(13),
        _ => None,
    } {
        return Ok((Protocol::Icmp, port));
    }
    let (port, protocol) =
        what.split_once('/').with_context(|| format!("{what:?} is not PORT/PROTOCOL, ping or timestamp"))?;
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        other => bail!("{other:?} is no protocol that can be asked"),
    };
    Ok((protocol, port.parse().with_context(|| format!("the port of {what:?}"))?))
}

impl std::str::FromStr for Expect {
    type Err = anyhow::Error;

    /// `VERDICT [at ingress|egress] [REASON] [by POLICY]… [as SUBJECT] [v4|v6]`.
    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let mut expect = Self {
            verdict: match words.next() {
                Some("allow") => Verdict::Allow,
                Some("deny") => Verdict::Deny,
                Some("l7-deny") => Verdict::L7Deny,
                Some("refused") => Verdict::Refused,
                Some("audit") => Verdict::Audit,
                other => bail!("{other:?} is no verdict"),
            },
            ..Self::default()
        };
        while let Some(word) = words.next() {
            let mut next = || words.next().with_context(|| format!("{text:?}: nothing follows {word}"));
            match word {
                "at" => {
                    let side = next()?;
                    ensure!(matches!(side, "ingress" | "egress"), "{text:?}: {side} is no direction");
                    expect.at = Some(side.to_owned());
                }
                "by" => expect.by.push(next()?.to_owned()),
                "as" => expect.seen_as = Some(next()?.parse()?),
                "v4" => expect.family = Some(4),
                "v6" => expect.family = Some(6),
                reason
                    if reason.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit()) =>
                {
                    expect.reason = Some(reason.to_owned());
                }
                other => bail!("{text:?}: {other:?} is not understood"),
            }
        }
        Ok(expect)
    }
}

impl MatrixFile {
    fn cells(&self) -> Result<Vec<Ask>> {
        let mut asks = Vec::new();
        for (row, cells) in &self.rows {
            let cells: Vec<char> = cells.chars().filter(|cell| !cell.is_whitespace()).collect();
            ensure!(
                cells.len() == self.columns.len(),
                "row {row} has {} cells, there are {} columns",
                cells.len(),
                self.columns.len()
            );
            for (column, cell) in self.columns.iter().zip(cells) {
                let verdict = match cell {
                    'X' => Verdict::Allow,
                    '.' => Verdict::Deny,
                    '-' => continue,
                    other => bail!("row {row}: {other:?} is not X, . or -"),
                };
                let expect = Expect { verdict, ..Expect::default() };
                let cell = parse_ask(&format!("{row} -> {column} {}", self.ask), &expect)?;
                asks.extend(cell.into_iter().map(|ask| Ask { is_cell: true, ..ask }));
            }
        }
        ensure!(!asks.is_empty(), "a matrix without cells");
        Ok(asks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_of_the_tree_is_understood() {
        let cases = load_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"), &[]).unwrap();
        assert!(cases.len() >= 80, "only {} cases", cases.len());
        for case in cases {
            assert!(case.holds.ends_with('.'), "{}: holds a sentence", case.name);
        }
    }

    #[test]
    fn expectations() {
        let text = "deny at ingress POLICY_DENY by cnp/a/b by ccnp/c v6";
        let expect: Expect = text.parse().unwrap();
        assert_eq!(expect.to_string(), text);
        assert_eq!(expect.verdict, Verdict::Deny);
        assert_eq!(expect.at.as_deref(), Some("ingress"));
        assert_eq!(expect.reason.as_deref(), Some("POLICY_DENY"));
        assert_eq!(expect.by, ["cnp/a/b", "ccnp/c"]);
        assert_eq!(expect.family, Some(6));
        for wrong in ["", "maybe", "deny at", "deny at home", "allow Reason"] {
            assert!(wrong.parse::<Expect>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn questions() {
        let asks = parse_ask("x/a -> world/b 80/TCP, 53/UDP, ping size 9000", &Expect::default()).unwrap();
        let shown: Vec<String> = asks.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["x/a -> world/b 80/TCP", "x/a -> world/b 53/UDP", "x/a -> world/b ping"]);
        assert_eq!(asks[0].len, 9000);
        for text in ["x/a -> y/b 80/TCP PUT /a,b?c=d", "x/a -> y/b 80/TCP call shop.Orders/Get"] {
            let asks = parse_ask(text, &Expect::default()).unwrap();
            assert_eq!(asks.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
        }
        for wrong in [
            "x/a",
            "x/a -> y/b",
            "x -> y/b 80/TCP",
            "x/a -> y/b 80",
            "x/a -> y/b 80/ICMP",
            "x/a -> y/b 70000/TCP",
            "x/a -> y/b 80/TCP GET",
            "x/a -> y/b 80/TCP GET a",
            "x/a -> y/b 80/TCP call shop.Orders",
            "x/a -> y/b 80/UDP GET /",
        ] {
            assert!(parse_ask(wrong, &Expect::default()).is_err(), "{wrong}");
        }
    }
}
