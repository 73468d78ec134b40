//! The scenes. Policies are those of the examples, word for word, but for two that the story adds.

use sluice_client::model::Toggle;
use sluice_types::{Direction, DropReason};

use super::attempt::{Attempt, DENIED, Target, Want, Who};
use super::narrator::Narrator;
use super::stage::Stage;
use crate::failure::Failure;

const ALLOW_FRONTEND: &str = include_str!("../../../../docs/examples/seeds/allow-frontend-to-backend.yaml");
const NS_ISOLATION: &str = include_str!("../../../../docs/examples/seeds/ns-isolation.yaml");
const DENY_METADATA: &str = include_str!("../../../../docs/examples/seeds/deny-metadata-endpoint.yaml");
const API_L7_ALLOW: &str = include_str!("../../../../docs/examples/seeds/api-l7-allow.yaml");
const DEFAULT_DENY: &str = include_str!("../../../../docs/examples/seeds/default-deny.yaml");

const EGRESS_OPEN: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: egress-open
  namespace: shop
spec:
  endpointSelector: {}
  egress:
    - toEntities:
        - all
";
/// A policy that is tried out before it is enforced.
const TRIED: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: no-more-frontend
  namespace: shop
  annotations:
    sluice.dev/audit: \"true\"
spec:
  endpointSelector:
    matchLabels:
      app: backend
  ingressDeny:
    - fromEndpoints:
        - matchLabels:
            app: frontend
";
const QUARANTINE: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: quarantine-frontend
  namespace: shop
spec:
  endpointSelector:
    matchLabels:
      app: backend
  ingressDeny:
    - fromEndpoints:
        - matchLabels:
            app: frontend
";

const FRONTEND: Who = Who::Pod("shop/frontend");
const OTHER: Who = Who::Pod("shop/other");
const GATEWAY: Who = Who::Pod("payments/gateway");
const BACKEND_POD: Target = Target::Pod("shop/backend");
const ORDER_API: Target = Target::Pod("shop/order-api");
const LEDGER: Target = Target::Pod("payments/ledger");
const METADATA: Target = Target::World("169.254.169.254", &["169.254.169.254"]);
const METADATA_6: Target = Target::World("[fd00:ec2::254]", &["fd00:ec2::254"]);
const INTERNET: Target = Target::World("198.51.100.1", &["198.51.100.1", "2001:db8:51::1"]);

const fn answer(who: Who, target: Target, port: u16) -> Attempt {
    Attempt { who, target, port, request: None, want: Want::Answer { by: None } }
}

const fn allowed(who: Who, target: Target, port: u16, by: &'static str) -> Attempt {
    Attempt { who, target, port, request: None, want: Want::Answer { by: Some(by) } }
}

const fn isolated(who: Who, target: Target, port: u16, at: Direction, by: &'static str) -> Attempt {
    Attempt {
        who,
        target,
        port,
        request: None,
        want: Want::Drop { at, reason: DropReason::PolicyDenied, by },
    }
}

const fn denied(who: Who, target: Target, port: u16, at: Direction, by: &'static str) -> Attempt {
    Attempt { who, target, port, request: None, want: Want::Drop { at, reason: DropReason::PolicyDeny, by } }
}

const fn request(request: &'static str, status: u16, by: &'static str) -> Attempt {
    let want = Want::Status { status, by };
    Attempt { who: FRONTEND, target: ORDER_API, port: 8080, request: Some(request), want }
}

/// Plays all scenes.
pub(super) fn tell(stage: &mut Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    no_policy(stage, narrator)?;
    allow_by_label(stage, narrator)?;
    isolation(stage, narrator)?;
    deny_wins(stage, narrator)?;
    default_deny(stage, narrator)?;
    live_change(stage, narrator)?;
    requests(stage, narrator)?;
    audit(stage, narrator)
}

fn play(stage: &Stage, narrator: &mut Narrator<'_>, attempts: &[Attempt]) -> Result<(), Failure> {
    for attempt in attempts {
        let tries = stage.attempt(attempt)?;
        narrator.attempt(attempt, &tries)?;
    }
    Ok(())
}

fn apply(stage: &Stage, narrator: &mut Narrator<'_>, name: &str, yaml: &str) -> Result<(), Failure> {
    narrator.command(&format!("policy apply -f {name}.yaml"))?;
    narrator.policy(yaml)?;
    stage.apply(name, yaml)
}

fn no_policy(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    narrator.scene("No policy yet: everybody talks to everybody", &[])?;
    play(
        stage,
        narrator,
        &[
            answer(FRONTEND, BACKEND_POD, 8080),
            answer(OTHER, BACKEND_POD, 8080),
            answer(GATEWAY, BACKEND_POD, 9090),
            answer(FRONTEND, LEDGER, 5432),
            answer(FRONTEND, METADATA, 80),
            answer(FRONTEND, INTERNET, 443),
        ],
    )
}

fn allow_by_label(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    const POLICY: &str = "cnp/shop/allow-frontend-to-backend";
    narrator.scene(
        "Only the frontend may reach the backend, on one port",
        &[
            "The first ingress rule that selects a pod turns its ingress into default deny.",
            "Its egress stays open.",
        ],
    )?;
    apply(stage, narrator, "allow-frontend-to-backend", ALLOW_FRONTEND)?;
    play(
        stage,
        narrator,
        &[
            allowed(FRONTEND, BACKEND_POD, 8080, POLICY),
            isolated(FRONTEND, BACKEND_POD, 9090, Direction::Ingress, POLICY),
            isolated(OTHER, BACKEND_POD, 8080, Direction::Ingress, POLICY),
            isolated(GATEWAY, BACKEND_POD, 8080, Direction::Ingress, POLICY),
            answer(Who::Pod("shop/backend"), Target::Pod("shop/other"), 8080),
            answer(Who::Node, BACKEND_POD, 8080),
        ],
    )?;
    narrator.text("The node always reaches its own pods: health probes need no rule.")
}

fn isolation(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    const POLICY: &str = "cnp/payments/ns-isolation";
    narrator.scene(
        "A namespace of its own",
        &["In a namespaced policy `{}` means: every pod of this namespace."],
    )?;
    apply(stage, narrator, "ns-isolation", NS_ISOLATION)?;
    play(
        stage,
        narrator,
        &[
            allowed(GATEWAY, LEDGER, 5432, POLICY),
            isolated(FRONTEND, LEDGER, 5432, Direction::Ingress, POLICY),
            isolated(OTHER, Target::Pod("payments/gateway"), 8080, Direction::Ingress, POLICY),
        ],
    )
}

fn deny_wins(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    const DENY: &str = "cnp/shop/deny-metadata-endpoint";
    const OPEN: &str = "cnp/shop/egress-open";
    narrator.scene(
        "Nobody in the shop reads the cloud's metadata",
        &["A deny rule alone isolates too: with it, egress of the shop is default deny."],
    )?;
    apply(stage, narrator, "deny-metadata-endpoint", DENY_METADATA)?;
    play(
        stage,
        narrator,
        &[
            denied(FRONTEND, METADATA, 80, Direction::Egress, DENY),
            isolated(FRONTEND, INTERNET, 443, Direction::Egress, DENY),
            isolated(FRONTEND, BACKEND_POD, 8080, Direction::Egress, DENY),
        ],
    )?;
    narrator.gap()?;
    narrator
        .text("So the shop needs a rule for the rest. Deny wins over allow, however wide the allow is.")?;
    apply(stage, narrator, "egress-open", EGRESS_OPEN)?;
    play(
        stage,
        narrator,
        &[
            denied(FRONTEND, METADATA, 80, Direction::Egress, DENY),
            allowed(FRONTEND, METADATA_6, 80, OPEN),
            allowed(FRONTEND, INTERNET, 443, OPEN),
            answer(FRONTEND, BACKEND_POD, 8080),
            answer(GATEWAY, METADATA, 80),
        ],
    )?;
    narrator.text("The rule names an IPv4 address: its IPv6 twin is another address and stays open.")
}

fn default_deny(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    const POLICY: &str = "cnp/payments/default-deny";
    narrator.scene(
        "Default deny, each direction for itself",
        &["An empty list selects nobody. What other policies allow on ingress still holds; on egress there is nothing."],
    )?;
    apply(stage, narrator, "default-deny", DEFAULT_DENY)?;
    play(
        stage,
        narrator,
        &[
            isolated(GATEWAY, LEDGER, 5432, Direction::Egress, POLICY),
            isolated(GATEWAY, INTERNET, 443, Direction::Egress, POLICY),
            isolated(FRONTEND, LEDGER, 5432, Direction::Ingress, POLICY),
            answer(Who::Node, LEDGER, 5432),
        ],
    )
}

fn live_change(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    const POLICY: &str = "cnp/shop/quarantine-frontend";
    narrator.scene(
        "A change reaches open connections at the next packet",
        &["The frontend holds a connection to the backend while it is put into quarantine."],
    )?;
    let mut stream = stage.connect(FRONTEND, "shop/backend", 8080)?;
    let open = Want::Answer { by: None };
    let first = stage.say(&mut stream, open)?;
    narrator.line("shop/frontend ⇄ shop/backend:8080, open", open, &[first])?;
    apply(stage, narrator, "quarantine-frontend", QUARANTINE)?;
    let cut = Want::Drop { at: Direction::Ingress, reason: DropReason::PolicyDeny, by: POLICY };
    let second = stage.say(&mut stream, cut)?;
    narrator.line("shop/frontend ⇄ shop/backend:8080, the same", cut, &[second])?;
    drop(stream);
    narrator.command(&format!("policy delete {POLICY}"))?;
    stage.delete(POLICY)?;
    play(stage, narrator, &[allowed(FRONTEND, BACKEND_POD, 8080, "cnp/shop/allow-frontend-to-backend")])
}

fn requests(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    const POLICY: &str = "cnp/shop/api-l7-allow";
    const DENIED_REQUEST: &str = "DELETE /api/v1/orders/7";
    narrator.scene(
        "Inside the connection: which requests pass",
        &[
            "Only flows that a rule about requests covers go through a proxy on the node; each request is judged alone.",
            "The server still sees its client's own address.",
        ],
    )?;
    apply(stage, narrator, "api-l7-allow", API_L7_ALLOW)?;
    play(
        stage,
        narrator,
        &[
            request("GET /api/v1/orders/7", 200, POLICY),
            request("POST /api/v1/orders", 200, POLICY),
            request(DENIED_REQUEST, DENIED, POLICY),
            request("GET /api/v1/orders/../../admin", DENIED, POLICY),
            isolated(OTHER, ORDER_API, 8080, Direction::Ingress, POLICY),
        ],
    )?;
    narrator.gap()?;
    narrator.text("Which rule came nearest to the denied request, and what would allow it:")?;
    let trace = ["policy", "trace", "--src", "shop/frontend", "--dst", "shop/order-api", "--dport", "8080"];
    let trace = [&trace[..], &["--http", DENIED_REQUEST]].concat();
    narrator.answer(&trace, &stage.command(&trace)?)
}

fn audit(stage: &Stage, narrator: &mut Narrator<'_>) -> Result<(), Failure> {
    const POLICY: &str = "cnp/shop/allow-frontend-to-backend";
    const NEW_POLICY: &str = "cnp/shop/no-more-frontend";
    narrator.scene(
        "Audit first, enforce later",
        &[
            "A new policy is tried beside those in force: it changes nothing, and what it would drop is reported.",
            "Then a whole pod is put into audit mode: nothing is dropped, and what would be is reported.",
        ],
    )?;
    apply(stage, narrator, "no-more-frontend", TRIED)?;
    let tried = Want::Audit { at: Direction::Ingress, by: NEW_POLICY };
    let attempts = [
        Attempt { who: FRONTEND, target: BACKEND_POD, port: 8080, request: None, want: tried },
        isolated(OTHER, BACKEND_POD, 8080, Direction::Ingress, POLICY),
    ];
    play(stage, narrator, &attempts)?;
    narrator.command(&format!("policy delete {NEW_POLICY}"))?;
    stage.delete(NEW_POLICY)?;
    let audited = Want::Audit { at: Direction::Ingress, by: POLICY };
    narrator.command("endpoint config shop/backend PolicyAuditMode=Enabled")?;
    stage.audit("shop/backend", Toggle::Enabled)?;
    play(
        stage,
        narrator,
        &[Attempt { who: OTHER, target: BACKEND_POD, port: 8080, request: None, want: audited }],
    )?;
    narrator.command("endpoint config shop/backend PolicyAuditMode=Disabled")?;
    stage.audit("shop/backend", Toggle::Disabled)?;
    play(stage, narrator, &[isolated(OTHER, BACKEND_POD, 8080, Direction::Ingress, POLICY)])
}
