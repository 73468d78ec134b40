//! Policy tests (`sluice policy test`) as cases: what they expect of the engine is expected of real packets too.
//!
//! A file is taken whole or not at all, because every policy of it may matter for every test; single tests are left
//! out where one of their ends cannot be made or asked here. Whatever is left out is told with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::case::{
    Ask, Case, DATAGRAM_LEN, Expect, ManifestFile, Policy, Step, Verdict, entries, file_name, policies_of,
    yaml,
};
use crate::node::NodeConfig;
use crate::probe::Protocol;
use crate::request::Request;
use crate::topology::{Labels, NODE_ADDRESSES, PodSpec, Subject, Topology};

/// The broadcast address of the node's cable to the world.
const CABLE_BROADCAST: &str = "192.0.2.255";
/// Fields of policies that need what this node has not: names learnt, node labels, a host firewall, other proxies than
/// that for [`REQUESTS`].
const NEEDS: [&str; 10] = [
    "serverNames",
    "listener",
    "terminatingTLS",
    "originatingTLS",
    "toFQDNs",
    "fromNodes",
    "toNodes",
    "nodeSelector",
    "authentication",
    "toGroups",
];
/// The rules about requests that can be asked here.
const REQUESTS: [&str; 2] = ["http", "grpc"];
/// Kinds of objects that take part.
const POLICIES: [&str; 4] =
    ["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "NetworkPolicy", "ClusterNetworkPolicy"];

/// A file as a case, and what of it is left out.
#[derive(Debug, Default)]
pub struct Taken {
    /// None if nothing of it can be asked here.
    pub case: Option<Case>,
    /// How many tests are left out, by reason.
    pub left_out: BTreeMap<String, usize>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
struct TestFile {
    metadata: Metadata,
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    namespaces: BTreeMap<String, Labels>,
    #[serde(default)]
    endpoints: BTreeMap<String, EndpointFile>,
    #[serde(default)]
    tests: Vec<Map<String, Value>>,
    #[serde(default)]
    matrix: Vec<MatrixFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EndpointFile {
    labels: Labels,
    service_account: Option<String>,
    ports: BTreeMap<String, Value>,
    ip: Option<IpAddr>,
    names: Vec<String>,
    reserved: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct MatrixFile {
    port: u16,
    #[serde(default)]
    protocol: Option<String>,
    columns: Vec<String>,
    rows: BTreeMap<String, String>,
}

/// Reads one file, whose documents are tests of their own.
///
/// # Errors
/// One is no policy test, or a file that it names cannot be read.
pub fn read(path: &Path) -> Result<Vec<Taken>> {
    let text = std::fs::read_to_string(path).context("reading")?;
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(&text, yaml()).context("reading YAML")?;
    documents.into_iter().map(|document| take(document, path)).collect()
}

fn take(document: Value, path: &Path) -> Result<Taken> {
    let file: TestFile = serde_json::from_value(document).context("understanding it")?;
    let asked = file.tests.len() + file.matrix.iter().map(MatrixFile::len).sum::<usize>();
    let mut taken = Taken::default();
    match Builder::new(file, path) {
        Ok(builder) => builder.build(path, &mut taken)?,
        Err(Refusal::Reason(reason)) => taken.leave_out(&reason, asked),
        Err(Refusal::Broken(error)) => return Err(error),
    }
    Ok(taken)
}

impl Taken {
    fn leave_out(&mut self, reason: &str, tests: usize) {
        if tests > 0 {
            *self.left_out.entry(reason.to_owned()).or_default() += tests;
        }
    }
}

impl MatrixFile {
    fn len(&self) -> usize {
        self.rows.values().flat_map(|row| row.chars()).filter(|cell| matches!(cell, 'X' | '.')).count()
    }
}

/// Why a file is not taken.
enum Refusal {
    /// It asks for something that is not here.
    Reason(String),
    /// It cannot be read.
    Broken(anyhow::Error),
}

/// Protocol, port or type, and the family if only one can be meant.
type What = (Protocol, u16, Option<u8>);

struct Builder {
    file: TestFile,
    config: NodeConfig,
    policies: Vec<Policy>,
    /// Services, groups and the like, by file name.
    others: BTreeMap<String, String>,
    topology: Topology,
    /// Who is who, or why nobody is.
    subjects: BTreeMap<String, Result<Subject, String>>,
}

impl Builder {
    fn new(file: TestFile, path: &Path) -> Result<Self, Refusal> {
        let config = config(&file.config).map_err(Refusal::Reason)?;
        let objects = objects(&file, path).map_err(Refusal::Broken)?;
        let mut builder = Self {
            file,
            config,
            policies: Vec::new(),
            others: BTreeMap::new(),
            topology: Topology::default(),
            subjects: BTreeMap::new(),
        };
        for object in objects {
            builder.object(object).map_err(Refusal::Reason)?;
        }
        builder.ends();
        Ok(builder)
    }

    fn object(&mut self, object: Value) -> Result<(), String> {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let namespace = Some(text("/metadata/namespace")).filter(|text| !text.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let labels = || -> Labels {
            let labels = object.pointer("/metadata/labels").cloned().unwrap_or_default();
            serde_json::from_value(labels).unwrap_or_default()
        };
        match kind.as_str() {
            kind if POLICIES.contains(&kind) => {
                if let Some(field) = needs(&object) {
                    return Err(format!("a policy has {field}"));
                }
                self.config.l7 |= has_requests(&object);
                let found = policies_of(&object.to_string()).map_err(|error| format!("{error:#}"))?;
                self.policies.extend(found);
            }
            "Namespace" => self.topology.namespaces.entry(name).or_default().extend(labels()),
            "Service" | "CiliumCIDRGroup" => {
                self.others.insert(format!("policy_{kind}_{namespace}_{name}.json"), object.to_string());
            }
            other => return Err(format!("an object is a {other}")),
        }
        Ok(())
    }

    /// Pods, hosts of the world, and the node.
    fn ends(&mut self) {
        for (name, labels) in &self.file.namespaces {
            self.topology.namespaces.entry(name.clone()).or_default().extend(labels.clone());
        }
        let endpoints = self.file.endpoints.clone();
        for (name, endpoint) in endpoints {
            let subject = self.end(&name, &endpoint);
            self.subjects.insert(name, subject);
        }
        // Addresses and entities need no introduction.
        let written = self.file.tests.iter().flat_map(|test| [test.get("from"), test.get("to")]);
        let names: BTreeSet<String> =
            written.flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        for name in names {
            if self.subjects.contains_key(&name) {
                continue;
            }
            let subject = match name.parse() {
                Ok(address) => {
                    self.end(&name, &EndpointFile { ip: Some(address), ..EndpointFile::default() })
                }
                Err(_) => Err(format!("an end is {name}")),
            };
            self.subjects.insert(name, subject);
        }
    }

    fn end(&mut self, name: &str, endpoint: &EndpointFile) -> Result<Subject, String> {
        if !endpoint.names.is_empty() {
            return Err("an end is known by a DNS name".to_owned());
        }
        match endpoint.reserved.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [] => {}
            ["world"] if endpoint.ip.is_none() => return Ok(Subject::World("a".to_owned())),
            ["host"] if endpoint.labels.is_empty() => return Ok(Subject::Node),
            reserved => return Err(format!("an end is {}", reserved.join(" and "))),
        }
        if name.contains('/') {
            if endpoint.service_account.as_deref().is_some_and(|account| account != "default") {
                return Err("an end has a service account of its own".to_owned());
            }
            let ports = endpoint.ports.iter().map(|(name, port)| (name.clone(), port_text(port))).collect();
            self.topology.pods.insert(name.to_owned(), PodSpec { labels: endpoint.labels.clone(), ports });
            return Ok(Subject::Pod(name.to_owned()));
        }
        let address = endpoint.ip.ok_or("an end has no address")?;
        // Nobody else on the node's cable can have these.
        if address.to_string() == CABLE_BROADCAST || NODE_ADDRESSES.contains(&address.to_string().as_str()) {
            return Err("an end has an address of the node's cable".to_owned());
        }
        self.topology.world.insert(name.to_owned(), vec![address]);
        Ok(Subject::World(name.to_owned()))
    }

    fn build(self, path: &Path, taken: &mut Taken) -> Result<()> {
        let mut asks = Vec::new();
        for test in &self.file.tests {
            match self.test(test)? {
                Ok(ask) => asks.push(ask),
                Err(reason) => taken.leave_out(&reason, 1),
            }
        }
        for matrix in &self.file.matrix {
            self.matrix(matrix, &mut asks, taken)?;
        }
        if asks.is_empty() {
            return Ok(());
        }
        let name = self.file.metadata.name.clone();
        let mut step = Step { asks, ..Step::default() };
        for (file, text) in self.others {
            step.apply.insert(file, ManifestFile { text, policies: Vec::new() });
        }
        for policy in self.policies {
            let text = policy.object.to_string();
            let file = file_name(&policy.name);
            ensure!(
                step.apply.insert(file, ManifestFile { text, policies: vec![policy.clone()] }).is_none(),
                "{} is there twice",
                policy.name
            );
        }
        taken.case = Some(Case {
            name: format!("policy-tests/{name}"),
            holds: format!("What {} says of the engine, the datapath does.", path.display()),
            config: self.config,
            topology: self.topology,
            steps: vec![step],
        });
        Ok(())
    }

    fn test(&self, test: &Map<String, Value>) -> Result<Result<Ask, String>> {
        let text = |key: &str| test.get(key).and_then(Value::as_str);
        for request in ["kafka", "dns", "sni"] {
            if test.contains_key(request) {
                return Ok(Err(format!("it is about a request of {request}")));
            }
        }
        let request = request(test).context("a request")?;
        let (from, to) = match (self.subject(text("from"))?, self.subject(text("to"))?) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(reason), _) | (_, Err(reason)) => return Ok(Err(reason)),
        };
        let (protocol, port, family) = match self.asked(test)? {
            Ok(asked) => asked,
            Err(reason) => return Ok(Err(reason)),
        };
        let verdict = match text("expect") {
            Some("allow") => Verdict::Allow,
            Some("deny") => Verdict::Deny,
            Some("audit") => Verdict::Audit,
            Some("l7-deny") => Verdict::L7Deny,
            other => bail!("{other:?} cannot be seen in packets"),
        };
        let by = test.get("by").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let expect = Expect {
            verdict,
            at: text("at").map(str::to_owned).filter(|_| verdict != Verdict::Allow),
            by: by.map(|policy| self.full_name(policy)).collect::<Result<_>>()?,
            family,
            ..Expect::default()
        };
        let (len, is_looked_into) = (DATAGRAM_LEN, self.config.l7);
        let is_cell = false;
        Ok(self.possible(Ask { from, to, protocol, port, len, request, is_looked_into, expect, is_cell }))
    }

    /// Leaves out what cannot be asked between these two.
    fn possible(&self, ask: Ask) -> Result<Ask, String> {
        let is_outside = |subject: &Subject| !matches!(subject, Subject::Pod(_));
        if is_outside(&ask.from) && is_outside(&ask.to) {
            return Err("neither end is a pod".to_owned());
        }
        if ask.from == ask.to {
            return Err("both ends are the same".to_owned());
        }
        let families = |subject: &Subject| match subject {
            Subject::World(host) => self.topology.world_host(host).unwrap_or_default(),
            Subject::Pod(_) | Subject::Node | Subject::Router => Vec::new(),
        };
        let all = [families(&ask.from), families(&ask.to)].concat();
        let fits =
            |address: &IpAddr| ask.expect.family.is_none_or(|wanted| (wanted == 4) == address.is_ipv4());
        if !all.is_empty() && !all.iter().any(fits) {
            return Err("the ends share no address family".to_owned());
        }
        Ok(ask)
    }

    fn matrix(&self, matrix: &MatrixFile, asks: &mut Vec<Ask>, taken: &mut Taken) -> Result<()> {
        let protocol = match protocol(matrix.protocol.as_deref().unwrap_or("TCP")) {
            Ok(protocol) => protocol,
            Err(reason) => {
                taken.leave_out(&reason, matrix.len());
                return Ok(());
            }
        };
        for (row, cells) in &matrix.rows {
            let cells = cells.chars().filter(|cell| !cell.is_whitespace());
            for (column, cell) in matrix.columns.iter().zip(cells) {
                let verdict = match cell {
                    'X' => Verdict::Allow,
                    '.' => Verdict::Deny,
                    _ => continue,
                };
                let ends = (self.subject(Some(row))?, self.subject(Some(column))?);
                let ask = match ends {
                    (Ok(from), Ok(to)) => self.possible(Ask {
                        from,
                        to,
                        protocol,
                        port: matrix.port,
                        len: DATAGRAM_LEN,
                        request: None,
                        is_looked_into: self.config.l7,
                        expect: Expect { verdict, ..Expect::default() },
                        is_cell: true,
                    }),
                    (Err(reason), _) | (_, Err(reason)) => Err(reason),
                };
                match ask {
                    Ok(ask) => asks.push(ask),
                    Err(reason) => taken.leave_out(&reason, 1),
                }
            }
        }
        Ok(())
    }

    fn subject(&self, name: Option<&str>) -> Result<Result<Subject, String>> {
        let name = name.context("a test without from or to")?;
        self.subjects.get(name).cloned().with_context(|| format!("there is no endpoint {name}"))
    }

    /// Protocol, port and family.
    fn asked(&self, test: &Map<String, Value>) -> Result<Result<What, String>> {
        let text = |key: &str| test.get(key).and_then(Value::as_str);
        let word = text("protocol").unwrap_or("TCP");
        let kind = test.get("icmpType").and_then(Value::as_u64);
        match (word, kind) {
            ("ICMP", None | Some(8)) => return Ok(Ok((Protocol::Icmp, 8, Some(4)))),
            ("ICMP", Some(13)) => return Ok(Ok((Protocol::Icmp, 13, Some(4)))),
            ("ICMPv6", None | Some(128)) => return Ok(Ok((Protocol::Icmp, 8, Some(6)))),
            ("ICMP" | "ICMPv6", Some(_)) => return Ok(Err("no program asks with this ICMP type".to_owned())),
            _ => {}
        }
        let protocol = match protocol(word) {
            Ok(protocol) => protocol,
            Err(reason) => return Ok(Err(reason)),
        };
        let port = match test.get("port") {
            Some(Value::Number(number)) => number.as_u64().and_then(|port| u16::try_from(port).ok()),
            Some(Value::String(name)) => name.parse().ok().or_else(|| {
                let target = self.file.endpoints.get(text("to")?)?;
                let port = port_text(target.ports.get(name)?);
                port.split_once('/').and_then(|(number, _)| number.parse().ok())
            }),
            _ => None,
        };
        match port {
            Some(0) => Ok(Err("nobody serves port 0".to_owned())),
            Some(port) => Ok(Ok((protocol, port, None))),
            None => Ok(Err("it names no port".to_owned())),
        }
    }

    /// `cnp/NAMESPACE/NAME` of what may be written without its kind and without its namespace.
    fn full_name(&self, written: &str) -> Result<String> {
        let is_meant =
            |policy: &&Policy| policy.name == written || policy.name.ends_with(&format!("/{written}"));
        let found = self.policies.iter().find(is_meant);
        found.map(|policy| policy.name.clone()).with_context(|| format!("there is no policy {written}"))
    }
}

fn protocol(word: &str) -> Result<Protocol, String> {
    match word {
        "TCP" => Ok(Protocol::Tcp),
        "UDP" => Ok(Protocol::Udp),
        "SCTP" => Ok(Protocol::Sctp),
        other => Err(format!("no program speaks {other} here")),
    }
}

/// `8080`, `53/UDP`: with the protocol.
fn port_text(port: &Value) -> String {
    match port {
        Value::String(text) if text.contains('/') => text.clone(),
        Value::String(text) => format!("{text}/TCP"),
        Value::Number(number) => format!("{number}/TCP"),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

fn config(written: &Map<String, Value>) -> Result<NodeConfig, String> {
    let mut config = NodeConfig::default();
    for (key, value) in written {
        match (key.as_str(), value) {
            ("policyEnforcement", Value::String(mode)) => config.enforcement = Some(mode.clone()),
            ("audit", Value::Bool(audit)) => config.audit = *audit,
            ("allowLocalhost", Value::String(word)) => config.allow_localhost = Some(word.clone()),
            // Policies that would need them are left out.
            ("hostFirewall" | "nodeSelectorLabels", Value::Bool(_)) => {}
            (key, _) => return Err(format!("the option {key} is set")),
        }
    }
    Ok(config)
}

/// All objects of a file, those of the files that it names included.
fn objects(file: &TestFile, path: &Path) -> Result<Vec<Value>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut all = Vec::new();
    for name in &file.policies {
        let text = std::fs::read_to_string(folder.join(name)).with_context(|| format!("reading {name}"))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple_with_options(&text, yaml()).with_context(|| name.clone())?;
        all.extend(documents.into_iter().filter(|document| !document.is_null()));
    }
    all.extend(file.objects.iter().cloned());
    Ok(all)
}

/// A field of a policy that needs what is not here.
fn needs(object: &Value) -> Option<String> {
    match object {
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            // Without an element `rules` asks for nothing; labels may be called anything.
            let is_labels = ["matchLabels", "labels", "annotations"].contains(&key.as_str());
            let asks = NEEDS.contains(&key.as_str()) && *value != Value::Null;
            if asks {
                Some(key.clone())
            } else if is_labels {
                None
            } else if key == "rules" {
                kinds(value).find(|kind| !REQUESTS.contains(kind)).map(|kind| format!("rules of {kind}"))
            } else {
                needs(value)
            }
        }),
        Value::Array(items) => items.iter().find_map(needs),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// What rules are about. Without an element they ask for nothing.
fn kinds(rules: &Value) -> impl Iterator<Item = &str> {
    let fields = rules.as_object().into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null()).map(|(kind, _)| kind.as_str())
}

/// Whether there is a rule about requests that can be asked here.
fn has_requests(object: &Value) -> bool {
    match object {
        Value::Object(fields) => fields.iter().any(|(key, value)| match key.as_str() {
            "matchLabels" | "labels" | "annotations" => false,
            "rules" => kinds(value).any(|kind| REQUESTS.contains(&kind)),
            _ => has_requests(value),
        }),
        Value::Array(items) => items.iter().any(has_requests),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The request of a test, with the defaults of policy tests.
fn request(test: &Map<String, Value>) -> Result<Option<Request>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Http {
        #[serde(default = "get")]
        method: String,
        #[serde(default = "root")]
        path: String,
        host: Option<String>,
        #[serde(default)]
        headers: BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Grpc {
        service: String,
        method: String,
    }
    fn get() -> String {
        "GET".to_owned()
    }
    fn root() -> String {
        "/".to_owned()
    }
    if let Some(http) = test.get("http") {
        let Http { method, path, host, headers } = serde_json::from_value(http.clone())?;
        return Ok(Some(Request::Http { method, path, host, headers: headers.into_iter().collect() }));
    }
    let grpc = test.get("grpc").map(|grpc| serde_json::from_value(grpc.clone())).transpose()?;
    Ok(grpc.map(|Grpc { service, method }| Request::Grpc { service, method }))
}

/// The files below a folder, in order.
///
/// # Errors
/// The file system's.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|end| end == "yaml") {
            found.push(path);
        }
    }
    Ok(found)
}
