use sluice_policy::Config;
use sluice_types::Protocol;

use super::{PROTOCOLS, Passage, Reach};
use crate::{Cluster, Flow, FlowPort, Word, tests::apply};

const SCENE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: shop, labels: {app: other}}
---
";

fn cluster(specs: &[&str]) -> Cluster {
    let mut text = SCENE.to_owned();
    for (nth, spec) in specs.iter().enumerate() {
        text += &format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{nth}, namespace: shop}}\nspec: {spec}\n---\n"
        );
    }
    let mut cluster = Cluster::new(Config::complete());
    apply(&mut cluster, &text);
    cluster
}

fn words(reach: &Reach) -> Vec<String> {
    reach
        .passing()
        .map(|span| match &span.passage {
            Passage::Requests(requests) => format!("{span}: {}", requests.words().join(", ")),
            Passage::Audited => format!("{span} audited"),
            Passage::Open | Passage::Closed => span.to_string(),
        })
        .collect()
}

#[test]
fn spans_say_what_passes() {
    let mut cluster = cluster(&[
        "{endpointSelector: {matchLabels: {app: db}}, ingress: [\
           {fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '1000', endPort: 2000, protocol: TCP}, {port: sql}, {port: '53', protocol: UDP}]}]},\
           {fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET, path: /a}, {path: /b}]}}]},\
           {fromEndpoints: [{matchLabels: {app: web}}], icmps: [{fields: [{type: 8, family: IPv4}]}]}],\
         ingressDeny: [{toPorts: [{ports: [{port: '1500', protocol: TCP}]}]}]}",
        "{endpointSelector: {matchLabels: {app: web}}, egress: [{toEndpoints: [{matchLabels: {app: other}}]}]}",
        "{endpointSelector: {matchLabels: {app: web}}, egress: [{toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: '0', protocol: TCP}]}]}]}",
    ]);
    let judges = cluster.judges();
    let reach = judges.reach("shop/web", "shop/db").unwrap();
    assert_eq!(words(&reach), ["80/TCP: GET /a, any /b", "1000-1499/TCP", "1501-2000/TCP", "5432/TCP"]);
    assert!(judges.reach("shop/web", "shop/other").unwrap().is_open());
    assert!(judges.reach("shop/other", "shop/db").unwrap().is_closed());
    assert!(judges.reach("shop/db", "shop/db").unwrap().is_open());
    assert!(judges.reach("shop/db", "shop/nobody").is_err());
    // Every protocol is covered from its first port to its last.
    for protocol in PROTOCOLS {
        let spans: Vec<_> = reach.spans().iter().filter(|span| span.protocol == protocol).collect();
        assert!(spans.windows(2).all(|pair| pair[0].last + 1 == pair[1].first));
        assert_eq!((spans[0].first, spans.last().unwrap().last), super::bounds(protocol));
    }
}

/// One question per span stands for all of its ports: asked one by one, every port says the same.
#[test]
fn spans_are_what_traces_say() {
    let mut cluster = cluster(&[
        "{endpointSelector: {matchLabels: {app: db}}, ingress: [\
           {fromEndpoints: [{}], toPorts: [{ports: [{port: '1000', endPort: 2047, protocol: TCP}, {port: sql}]}]},\
           {fromEndpoints: [{matchLabels: {app: web}}]}],\
         ingressDeny: [{fromEndpoints: [{matchLabels: {app: web}}], toPorts: [{ports: [{port: '1023', endPort: 1025}]}]}]}",
        "{endpointSelector: {matchLabels: {app: other}}, egressDeny: [{toPorts: [{ports: [{port: '5432', protocol: TCP}]}]}], enableDefaultDeny: {egress: false}}",
    ]);
    let ends = ["shop/web", "shop/db", "shop/other"];
    let ports = [1, 999, 1000, 1001, 1022, 1023, 1024, 1025, 1026, 2047, 2048, 5431, 5432, 5433, 65535];
    let mut questions = Vec::new();
    let judges = cluster.judges();
    for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (*from, *to))) {
        let reach = judges.reach(from, to).unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            questions.extend(ports.map(|port| {
                let passes = *reach.at(protocol, port) == Passage::Open;
                let (from, to) = (from.to_owned(), to.to_owned());
                (Flow { from, to, protocol, port: FlowPort::Number(port), request: None }, passes)
            }));
        }
    }
    let mut denied = 0;
    for (flow, passes) in questions {
        assert_eq!(cluster.trace(&flow).unwrap().word() == Word::Allow, passes, "{flow:?}");
        denied += usize::from(!passes);
    }
    assert!(denied > 20, "{denied}");
}
