//! The demo's node, pods and outside world, and the ear at the agent's monitor.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_client::model::{Endpoint, EndpointOptions, PolicyApplied, PolicyDocument, Toggle};
use sluice_client::{Client, path};
use sluice_flow::Flow;
use sluice_netlink::Netns;

use super::attempt::{Attempt, Target, Try, Want, Who};
use super::narrator::Narrator;
use crate::args::UpArgs;
use crate::failure::{Failure, io};
use crate::node::layout::Layout;
use crate::node::pod::{self, PodSpec};
use crate::node::record::{NodeRecord, PodRecord};
use crate::node::signal::Interrupt;
use crate::node::up::{Claim, Node};
use crate::policy_name::PolicyName;
use crate::traffic::{self, Outcome};

/// How long an answer may take; longer is silence.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a report may take to arrive after the packet.
const REPORT_WITHIN: Duration = Duration::from_millis(800);
/// How long the endpoints may take to take a policy up.
const REALIZED_WITHIN: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(5);

/// Pods: name, labels, ports they serve on.
const PODS: [(&str, &str, &[u16]); 6] = [
    ("shop/frontend", "app=frontend", &[8080]),
    ("shop/backend", "app=backend", &[8080, 9090]),
    ("shop/other", "app=other", &[8080]),
    ("shop/order-api", "app=order-api", &[8080]),
    ("payments/gateway", "app=gateway", &[8080]),
    ("payments/ledger", "app=ledger", &[5432]),
];
/// Ports that are served outside.
const WORLD_PORTS: [u16; 2] = [80, 443];

type Flows = Arc<Mutex<Vec<Flow>>>;

/// Everything the story is played on. Dropping it removes all of it.
pub(super) struct Stage {
    node: Node,
    pods: Vec<PodRecord>,
    flows: Flows,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Stage {
    /// Starts the node and makes the pods.
    pub(super) fn build(narrator: &mut Narrator<'_>, interrupt: &Interrupt) -> Result<Self, Failure> {
        let (layout, claim) = free_name()?;
        let manifests = prepare_manifests(&layout)?;
        let arguments = UpArgs {
            manifests,
            name: layout.name().to_owned(),
            host: false,
            pool4: "10.244.0.0/24".to_owned(),
            pool6: "fd00:10:244::/112".to_owned(),
            enforcement: "default".to_owned(),
            audit: false,
            agent_flags: Vec::new(),
        };
        let start = narrator.clock();
        let node = Node::start(claim, &arguments, Some(&layout.agent_log()), interrupt)?;
        narrator.node_is_up(layout.name(), start)?;
        let mut stage = Self { node, pods: Vec::new(), flows: Flows::default() };
        stage.make_pods(narrator, interrupt)?;
        let world = Netns::open(layout.world_netns()).map_err(io("entering the outside world"))?;
        traffic::serve_in(&world, "the outside world", &WORLD_PORTS)?;
        stage.listen()?;
        Ok(stage)
    }

    fn make_pods(&mut self, narrator: &mut Narrator<'_>, interrupt: &Interrupt) -> Result<(), Failure> {
        let node = NodeRecord::load(&self.node.layout)?;
        let own = std::env::current_exe().map_err(io("finding this program"))?;
        for (name, labels, ports) in PODS {
            interrupt.check()?;
            let start = narrator.clock();
            let mut spec = PodSpec::parse(&[labels.to_owned()], &[])?;
            spec.command = vec![own.display().to_string(), "serve".into(), "--name".into(), name.into()];
            spec.command.extend(ports.iter().map(ToString::to_string));
            let name = name.parse().map_err(Failure::error)?;
            let record = pod::run(&self.node.layout, &node, &name, &spec)?;
            narrator.pod_is_up(&record, labels, start)?;
            self.pods.push(record);
        }
        self.wait_for_servers(interrupt)
    }

    /// A server needs a moment to listen, which must not look like a verdict.
    fn wait_for_servers(&self, interrupt: &Interrupt) -> Result<(), Failure> {
        for ((name, _, ports), record) in PODS.iter().zip(&self.pods) {
            let netns = Netns::open(&record.netns).map_err(io(format!("entering the pod {name}")))?;
            for port in *ports {
                let local = SocketAddr::new([127, 0, 0, 1].into(), *port);
                let is_up = || {
                    netns
                        .run(|| traffic::ask_tcp(local, PATIENCE))
                        .is_ok_and(|got| matches!(got, Outcome::Answered { .. }))
                };
                let mut tries = 0;
                while !is_up() {
                    interrupt.check()?;
                    tries += 1;
                    if tries > 400 {
                        return Err(Failure::error(format!(
                            "the server of the pod {name} does not listen on port {port}"
                        )));
                    }
                    std::thread::sleep(STEP);
                }
            }
        }
        Ok(())
    }

    /// Collects what the agent reports, until the agent ends.
    fn listen(&self) -> Result<(), Failure> {
        let stream = self.client().stream::<Flow>(&format!("{}?verdicts=true", path::MONITOR))?;
        let flows = Arc::clone(&self.flows);
        std::thread::spawn(move || {
            for flow in stream.map_while(Result::ok) {
                flows.lock().unwrap_or_else(PoisonError::into_inner).push(flow);
            }
        });
        Ok(())
    }

    fn client(&self) -> Client {
        self.node.client()
    }

    /// Where it runs.
    pub(super) fn layout(&self) -> &Layout {
        &self.node.layout
    }

    /// How many reports came in.
    pub(super) fn flows_seen(&self) -> usize {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A pod's address.
    pub(super) fn address_of(&self, pod: &str) -> Vec<IpAddr> {
        let record = self.pods.iter().find(|record| record.pod().to_string() == pod);
        let v4 = record.and_then(|record| record.ipv4).map(IpAddr::V4);
        let v6 = record.and_then(|record| record.ipv6).map(IpAddr::V6);
        v4.into_iter().chain(v6).collect()
    }

    /// Applies a manifest and waits until the kernel enforces it everywhere.
    pub(super) fn apply(&self, name: &str, text: &str) -> Result<(), Failure> {
        let document = PolicyDocument { name: name.to_owned(), text: text.to_owned() };
        let applied: PolicyApplied = self.client().send("POST", path::POLICY_APPLY, &document)?;
        self.wait_until_realized(applied.revision)
    }

    /// Deletes a policy.
    pub(super) fn delete(&self, policy: &str) -> Result<(), Failure> {
        let name: PolicyName = policy.parse().map_err(Failure::error)?;
        self.client().delete(&path::fill(path::POLICY, &[name.kind, &name.namespace, &name.name]))?;
        let status: sluice_client::model::Status = self.client().fetch(path::STATUS)?;
        self.wait_until_realized(status.revision)
    }

    fn wait_until_realized(&self, revision: u64) -> Result<(), Failure> {
        for _ in 0..REALIZED_WITHIN.as_millis() / STEP.as_millis() {
            let endpoints: Vec<Endpoint> = self.client().fetch(path::ENDPOINTS)?;
            if endpoints.iter().all(|endpoint| endpoint.realized_revision >= revision) {
                return Ok(());
            }
            std::thread::sleep(STEP);
        }
        Err(Failure::error("the endpoints do not take the policy up")
            .hint("`sluice endpoint list` says why."))
    }

    /// Switches a pod's audit mode.
    pub(super) fn audit(&self, pod: &str, toggle: Toggle) -> Result<(), Failure> {
        let endpoints: Vec<Endpoint> = self.client().fetch(path::ENDPOINTS)?;
        let is_it = |endpoint: &&Endpoint| {
            let own = &endpoint.attachment;
            pod.split_once('/') == own.pod_namespace.as_deref().zip(own.pod_name.as_deref())
        };
        let endpoint = endpoints.iter().find(is_it);
        let endpoint =
            endpoint.ok_or_else(|| Failure::not_found(format!("there is no endpoint of {pod}")))?;
        let options = EndpointOptions { policy_audit_mode: Some(toggle) };
        let answer: Endpoint = self.client().send(
            "PATCH",
            &path::fill(path::ENDPOINT_CONFIG, &[&endpoint.id.to_string()]),
            &options,
        )?;
        self.wait_until_realized(answer.wanted_revision)
    }

    fn netns_of(&self, who: Who) -> Result<Netns, Failure> {
        let path: PathBuf = match who {
            Who::Node => self.node.layout.netns(),
            Who::Pod(name) => {
                let record = self.pods.iter().find(|record| record.pod().to_string() == name);
                record.ok_or_else(|| Failure::not_found(format!("there is no pod {name}")))?.netns.clone()
            }
        };
        Netns::open(path).map_err(io("entering a namespace"))
    }

    fn targets(&self, attempt: &Attempt) -> Vec<SocketAddr> {
        let addresses = match attempt.target {
            Target::Pod(name) => self.address_of(name),
            Target::World(_, addresses) => {
                addresses.iter().filter_map(|address| address.parse().ok()).collect()
            }
        };
        addresses.into_iter().map(|ip| SocketAddr::new(ip, attempt.port)).collect()
    }

    /// Tries it over every address family at once, and hears what the kernel says about it.
    pub(super) fn attempt(&self, attempt: &Attempt) -> Result<Vec<Try>, Failure> {
        let before = self.flows_seen();
        let netns = self.netns_of(attempt.who)?;
        let targets = self.targets(attempt);
        let question = |target| match attempt.request {
            Some(request) => traffic::ask_http(target, request, PATIENCE),
            None => traffic::ask_tcp(target, PATIENCE),
        };
        let ask = |target: SocketAddr| match netns.run(|| question(target)) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let running: Vec<_> = targets.iter().map(|target| scope.spawn(|| ask(*target))).collect();
            let finish = |end: std::thread::Result<Outcome>| {
                end.unwrap_or_else(|_| Outcome::Failed("the attempt panicked".to_owned()))
            };
            running.into_iter().map(|handle| finish(handle.join())).collect()
        });
        let tries = targets.into_iter().zip(outcomes).map(|(target, outcome)| {
            let flow = self.report(before, target, attempt.want);
            Try { target, outcome, flow }
        });
        Ok(tries.collect())
    }

    /// What a command of this program prints about the node.
    pub(super) fn command(&self, arguments: &[&str]) -> Result<String, Failure> {
        let own = std::env::current_exe().map_err(io("finding this program"))?;
        let mut command = Command::new(own);
        command.args(arguments).env("SLUICE_NODE", self.node.layout.name()).stdin(Stdio::null());
        let output = command.output().map_err(io("running this program"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Opens a connection that stays.
    pub(super) fn connect(&self, who: Who, pod: &str, port: u16) -> Result<std::net::TcpStream, Failure> {
        let ip = self.address_of(pod).into_iter().next();
        let target =
            SocketAddr::new(ip.ok_or_else(|| Failure::error(format!("{pod} has no address")))?, port);
        let connect = || std::net::TcpStream::connect_timeout(&target, PATIENCE);
        self.netns_of(who)?
            .run(connect)
            .map_err(io("entering a pod"))?
            .map_err(io(format!("connecting to {target}")))
    }

    /// Says something on an open connection, and hears what the kernel says about it.
    pub(super) fn say(&self, stream: &mut std::net::TcpStream, want: Want) -> Result<Try, Failure> {
        let before = self.flows_seen();
        let target = stream.peer_addr().map_err(io("asking who the peer is"))?;
        let outcome = traffic::ask_again(stream, PATIENCE);
        let flow = self.report(before, target, want);
        Ok(Try { target, outcome, flow })
    }

    /// What was reported about `target` after the first `before` reports, if it is what is wanted; else anything that
    /// was reported about it.
    fn report(&self, before: usize, target: SocketAddr, want: Want) -> Option<Flow> {
        let find = |is_it: &dyn Fn(&Flow) -> bool| {
            let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            flows.iter().skip(before).find(|flow| is_it(flow)).cloned()
        };
        // An open direction needs no rule, and nothing is reported about it.
        let patience = if matches!(want, Want::Answer { by: None }) { STEP } else { REPORT_WITHIN };
        for _ in 0..patience.as_millis() / STEP.as_millis() {
            if let Some(flow) = find(&|flow| want.is_told_by(flow, target)) {
                return Some(flow);
            }
            std::thread::sleep(STEP);
        }
        find(&|flow| flow.destination.ip.parse() == Ok(target.ip()) && flow.destination.port == target.port())
    }
}

/// `demo`, or the first of `demo-2`, `demo-3` … that nobody runs.
fn free_name() -> Result<(Layout, Claim), Failure> {
    let names = std::iter::once("demo".to_owned()).chain((2..100).map(|nth| format!("demo-{nth}")));
    for name in names {
        let layout = Layout::of(&name)?;
        if let Some(claim) = Claim::take(&layout)? {
            return Ok((layout, claim));
        }
    }
    Err(Failure::error("too many demos run here").hint("Ctrl-C ends those that were started with --keep."))
}

fn prepare_manifests(layout: &Layout) -> Result<PathBuf, Failure> {
    let dir = layout.dir().join("manifests");
    std::fs::create_dir_all(&dir).map_err(io(format!("making {}", dir.display())))?;
    for namespace in ["shop", "payments"] {
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
        let file = dir.join(format!("namespace-{namespace}.yaml"));
        std::fs::write(&file, text).map_err(io(format!("writing {}", file.display())))?;
    }
    Ok(dir)
}
