//! Findings that compare policies with pods, namespaces, nodes and Services.

use super::{ccnp, check, check_help, check_with, cnp, knp, pod};
use crate::Options;

fn cluster() -> String {
    let namespace = |name: &str, labels: &str| {
        format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n")
    };
    [
        namespace("shop", "{team: a}"),
        namespace("monitoring", "{team: ops}"),
        pod(
            "shop/web",
            "{app: frontend, tier: web}",
            "{containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}",
        ),
        pod("shop/db", "{app: db}", "{}"),
        pod("monitoring/prometheus", "{app: prometheus}", "{}"),
        pod("shop/proxy", "{app: proxy}", "{hostNetwork: true}"),
    ]
    .concat()
}

fn with_cluster(policy: &str) -> String {
    format!("{}{policy}", cluster())
}

fn subject(selector: &str) -> String {
    with_cluster(&cnp(
        "p",
        &format!("{{endpointSelector: {selector}, ingress: [{{fromEntities: [cluster]}}]}}"),
    ))
}

fn peer(selector: &str) -> String {
    let spec = format!("{{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{selector}]}}]}}");
    with_cluster(&cnp("p", &spec))
}

#[test]
fn subjects_that_select_nobody() {
    let other_namespace =
        subject("{matchLabels: {app: x}}").replace("name: p, namespace: shop", "name: p, namespace: pay");
    let cases = [
        ("value", subject("{matchLabels: {app: fronted}}"), "no pod of shop has app=fronted"),
        ("key", subject("{matchLabels: {ap: db}}"), "no pod of shop has ap=db"),
        (
            "exists",
            subject("{matchExpressions: [{key: role, operator: Exists}]}"),
            "no pod of shop has the label role",
        ),
        (
            "on different pods",
            subject("{matchLabels: {app: db, tier: web}}"),
            "no pod of shop has all of these labels at once",
        ),
        ("on the node's network", subject("{matchLabels: {app: proxy}}"), "no pod of shop has app=proxy"),
        ("somebody", subject("{matchLabels: {app: db}}"), ""),
        ("everybody", subject("{}"), ""),
        ("nothing is known about the namespace", other_namespace, ""),
        (
            "no pods at all",
            cnp("p", "{endpointSelector: {matchLabels: {app: x}}, ingress: [{fromEntities: [all]}]}"),
            "",
        ),
        (
            "a NetworkPolicy",
            with_cluster(&knp("p", "{podSelector: {matchLabels: {app: dbb}}}")),
            "no pod of shop has app=dbb",
        ),
        (
            "clusterwide",
            with_cluster(&ccnp(
                "p",
                "{endpointSelector: {matchLabels: {app: x}}, ingress: [{fromEntities: [all]}]}",
            )),
            "no pod has app=x",
        ),
    ];
    check("SL010", &cases);
    check_help(
        "SL010",
        &[
            ("value", subject("{matchLabels: {app: fronted}}"), "Did you mean `app: frontend`?"),
            ("far off", subject("{matchLabels: {app: zzzzzz}}"), "The values of app are `db`, `frontend`."),
            ("key", subject("{matchLabels: {teir: web}}"), "Did you mean the label `tier`?"),
        ],
    );
}

#[test]
fn peers_that_select_nobody() {
    let cases = [
        (
            "in another namespace",
            peer("{matchLabels: {app: prometheus}}"),
            "no pod of shop has app=prometheus",
        ),
        (
            "with the namespace",
            peer("{matchLabels: {app: prometheus, k8s:io.kubernetes.pod.namespace: monitoring}}"),
            "",
        ),
        (
            "namespace label",
            peer("{matchLabels: {k8s:io.cilium.k8s.namespace.labels.team: dev}}"),
            "no pod has team=dev on its namespace",
        ),
        (
            "namespace label of somebody",
            peer("{matchLabels: {k8s:io.cilium.k8s.namespace.labels.team: ops}}"),
            "",
        ),
        ("unknown namespace", peer("{matchLabels: {k8s:io.kubernetes.pod.namespace: payments}}"), ""),
        (
            "slip in a namespace",
            peer("{matchLabels: {k8s:io.kubernetes.pod.namespace: monitorin}}"),
            "there is no namespace monitorin",
        ),
        ("reserved", peer("{matchLabels: {reserved:host: ''}}"), ""),
        ("another cluster", peer("{matchLabels: {app: x, io.cilium.k8s.policy.cluster: far}}"), ""),
        (
            "not in",
            peer("{matchExpressions: [{key: app, operator: NotIn, values: [db, frontend]}]}"),
            "no pod of shop has app other than db or frontend",
        ),
    ];
    check("SL011", &cases);
    let knp_peer = with_cluster(&knp(
        "p",
        "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: prometheus}}}]}]}",
    ));
    check_help(
        "SL011",
        &[
            (
                "cnp",
                peer("{matchLabels: {app: prometheus}}"),
                "add `k8s:io.kubernetes.pod.namespace: monitoring`",
            ),
            ("knp", knp_peer, "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}"),
            (
                "slip",
                peer("{matchLabels: {k8s:io.kubernetes.pod.namespace: monitorin}}"),
                "Did you mean `monitoring`?",
            ),
        ],
    );
}

#[test]
fn selectors_that_cannot_match() {
    let own = |expressions: &str| subject(&format!("{{matchExpressions: [{expressions}]}}"));
    let cases = [
        (
            "values",
            own("{key: app, operator: In, values: [db]}, {key: 'k8s:app', operator: NotIn, values: [db]}"),
            "no pod can ever match: what is asked of app cannot all hold",
        ),
        (
            "there and not there",
            own("{key: app, operator: Exists}, {key: app, operator: DoesNotExist}"),
            "no pod can ever match: what is asked of app cannot all hold",
        ),
        (
            "not in its own namespace",
            own("{key: io.kubernetes.pod.namespace, operator: NotIn, values: [shop]}"),
            "no pod can ever match: what is asked of io.kubernetes.pod.namespace cannot all hold",
        ),
        (
            "one value of several",
            own("{key: app, operator: In, values: [db, x]}, {key: app, operator: NotIn, values: [x]}"),
            "",
        ),
        (
            "two sources",
            own("{key: app, operator: Exists}, {key: 'container:app', operator: DoesNotExist}"),
            "",
        ),
    ];
    check("SL012", &cases);
    let cases = [
        (
            "another source",
            subject("{matchLabels: {'container:app': db}}"),
            "container:app is no part of what pods are told apart by, so it is never there",
        ),
        (
            "left out",
            subject("{matchLabels: {pod-template-hash: x}}"),
            "pod-template-hash is no part of what pods are told apart by, so it is never there",
        ),
        ("ours", subject("{matchLabels: {io.cilium.k8s.policy.serviceaccount: default}}"), ""),
        ("kept", subject("{matchLabels: {app.kubernetes.io/name: x}}"), ""),
    ];
    check("SL014", &cases);
}

#[test]
fn what_rules_refer_to() {
    let service = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{clusterIP: 10.96.0.7, ports: []}}\n"
        )
    };
    let behind = |name: &str| {
        let ports = format!("[{{ports: [{{port: '80', protocol: TCP}}], service: {name}}}]");
        cnp(
            "p",
            &format!("{{endpointSelector: {{}}, ingress: [{{fromEntities: [cluster], toPorts: {ports}}}]}}"),
        )
    };
    let cases = [
        ("known", format!("{}{}", service("api"), behind("api")), ""),
        (
            "slip",
            format!("{}{}", service("api"), behind("apo")),
            "there is no Service shop/apo, so this matches nothing",
        ),
        (
            "elsewhere",
            format!("{}{}", service("api"), behind("pay/api")),
            "there is no Service pay/api, so this matches nothing",
        ),
        ("nothing is known", format!("{}{}", service("api"), behind("pay/other")), ""),
        ("no Services", behind("api"), ""),
    ];
    check("SL015", &cases);
    let named = |name: &str, protocol: &str| {
        let ports = format!("[{{ports: [{{port: {name}, protocol: {protocol}}}]}}]");
        let spec = format!(
            "{{endpointSelector: {{matchLabels: {{app: frontend}}}}, ingress: [{{fromEntities: [cluster], toPorts: {ports}}}]}}"
        );
        with_cluster(&cnp("p", &spec))
    };
    let cases = [
        ("known", named("http", "TCP"), ""),
        ("any protocol", named("http", "ANY"), ""),
        (
            "another protocol",
            named("http", "UDP"),
            "none of the receiving pods has a port named http, so this matches nothing",
        ),
        (
            "unknown",
            named("https", "TCP"),
            "none of the receiving pods has a port named https, so this matches nothing",
        ),
    ];
    check("SL017", &cases);
    let to =
        |prefix: &str| cnp("p", &format!("{{endpointSelector: {{}}, egress: [{{toCIDR: [{prefix}]}}]}}"));
    let address = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\nspec: {}\nstatus: {podIP: 10.0.0.9}\n";
    let cases = [
        (
            "a Service",
            format!("{}{}", service("api"), to("10.96.0.7/32")),
            "10.96.0.7/32 is the address of the Service shop/api: prefixes never select pods",
        ),
        (
            "a pod",
            format!("{address}{}", to("10.0.0.9")),
            "10.0.0.9/32 is the address of the pod shop/a: prefixes never select pods",
        ),
        ("wider than the cluster", format!("{address}{}", to("10.0.0.0/8")), ""),
    ];
    check("SL027", &cases);
}

#[test]
fn policies_for_nodes() {
    let node =
        |spec: &str| ccnp("n", &format!("{{nodeSelector: {{matchLabels: {{role: worker}}}}, {spec}}}"));
    let ssh = "nobody can reach the node by SSH (22/TCP) any more";
    let kubelet = "the API server cannot reach the kubelet (10250/TCP): no logs, no exec, no metrics";
    let all = |spec: &str| ccnp("n", &format!("{{nodeSelector: {{}}, {spec}}}"));
    let cases = [
        ("everything closed", node("ingress: [{fromEntities: [none]}]"), format!("{ssh}|{kubelet}")),
        ("the cluster may", node("ingress: [{fromEntities: [cluster]}]"), String::new()),
        (
            "all but SSH",
            node(
                "ingress: [{fromEntities: [cluster, world]}], ingressDeny: [{toPorts: [{ports: [{port: '22', protocol: TCP}]}]}]",
            ),
            ssh.to_owned(),
        ),
        (
            "a prefix may use SSH",
            node("ingress: [{fromCIDR: [198.51.100.0/24]}, {fromEntities: [kube-apiserver]}]"),
            String::new(),
        ),
        (
            "every node",
            all(
                "ingress: [{fromEntities: [world]}, {fromEntities: [remote-node], toPorts: [{ports: [{port: '10250', protocol: TCP}]}]}]",
            ),
            "other nodes cannot reach the API server on this node (6443/TCP)".to_owned(),
        ),
        (
            "egress",
            node("egress: [{toEntities: [world]}]"),
            "the node cannot reach the API server: its kubelet, and this agent, lose it".to_owned(),
        ),
        ("egress with the API server", node("egress: [{toEntities: [kube-apiserver]}]"), String::new()),
        (
            "default deny off",
            node("enableDefaultDeny: {ingress: false}, ingress: [{fromEntities: [world]}]"),
            String::new(),
        ),
    ];
    for (name, text, want) in cases {
        check("SL053", &[(name, text, &want)]);
    }
}

#[test]
fn nodes_of_the_documents_count() {
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {role: worker, node-role.kubernetes.io/control-plane: ''}}\n";
    let rules = "[{fromEntities: [world]}, {fromEntities: [kube-apiserver], toPorts: [{ports: [{port: '10250', protocol: TCP}]}]}]";
    let policy = ccnp("n", &format!("{{nodeSelector: {{matchLabels: {{role: worker}}}}, ingress: {rules}}}"));
    let want = "other nodes cannot reach the API server on this node (6443/TCP)";
    check("SL053", &[("a control plane", format!("{node}{policy}"), want), ("unknown", policy, "")]);
}

#[test]
fn probes() {
    let deny = |rule: &str| {
        with_cluster(&cnp(
            "p",
            &format!("{{endpointSelector: {{}}, ingress: [{{fromEntities: [all]}}], ingressDeny: [{rule}]}}"),
        ))
    };
    let port = |number: u16| format!("toPorts: [{{ports: [{{port: '{number}', protocol: TCP}}]}}]");
    let every = "this also denies the node on every port: probes fail and the pods are restarted for ever";
    let one = "this also denies the node on 80, where the pods listen: probes fail and the pods are restarted for ever";
    let cases = [
        ("host", deny("{fromEntities: [host]}"), every),
        ("all", deny("{fromEntities: [all]}"), every),
        ("everybody, where pods listen", deny(&format!("{{{}}}", port(80))), one),
        ("everybody, where nobody listens", deny(&format!("{{{}}}", port(81))), ""),
        ("other nodes", deny("{fromEntities: [remote-node]}"), ""),
        ("pods", deny("{fromEndpoints: [{}]}"), ""),
        ("prefixes", deny("{fromCIDR: [0.0.0.0/0]}"), ""),
    ];
    check("SL055", &cases);
}

#[test]
fn system_namespaces() {
    let closed = |namespace: &str, selector: &str| {
        cnp("p", &format!("{{endpointSelector: {selector}, ingress: [{{fromEndpoints: []}}]}}"))
            .replace("namespace: shop", &format!("namespace: {namespace}"))
    };
    let want = "ingress of every pod of kube-system is closed, which the cluster depends on";
    let audited = closed("kube-system", "{}").replace(
        "namespace: kube-system}",
        "namespace: kube-system, annotations: {sluice.dev/audit: 'true'}}",
    );
    let cases = [
        ("kube-system", closed("kube-system", "{}"), want),
        ("one workload", closed("kube-system", "{matchLabels: {app: x}}"), ""),
        ("audit mode", audited.clone(), ""),
        ("another namespace", closed("shop", "{}"), ""),
    ];
    check("SL050", &cases);
    let server = "the cluster's name servers are closed for questions, so no pod can resolve a name";
    let open = cnp("q", "{endpointSelector: {matchLabels: {k8s-app: kube-dns}}, ingress: [{fromEntities: [cluster], toPorts: [{ports: [{port: dns, protocol: UDP}]}]}]}").replace("namespace: shop", "namespace: kube-system");
    let cases = [
        ("closed with the rest", closed("kube-system", "{}"), server),
        ("open by another policy", format!("{}{open}", closed("kube-system", "{}")), ""),
        ("audit mode", audited, ""),
        ("not among the selected", closed("kube-system", "{matchLabels: {app: x}}"), ""),
    ];
    check("SL052", &cases);
}

#[test]
fn sizes() {
    let prefixes: Vec<String> = (0..20).map(|nth| format!("198.51.100.{nth}/32")).collect();
    let large = cnp(
        "large",
        &format!("{{endpointSelector: {{}}, ingress: [{{fromCIDR: [{}]}}]}}", prefixes.join(", ")),
    );
    let small = cnp("small", "{endpointSelector: {}, ingress: [{fromCIDR: [203.0.113.1]}]}");
    let options = Options { map_budget: 20, ..Options::default() };
    // Twenty-one prefixes, the node, and everything that goes out.
    let want = "the policy of an endpoint that it selects needs 23 map entries, 20 of them for this; the budget is 20";
    check_with(
        "SL060",
        &options,
        &[("too many", format!("{small}{large}"), want), ("few", small.clone(), "")],
    );
    let of_pod = format!("{}{small}{large}", pod("shop/web", "{app: web}", "{}"));
    let want = "the policy of the pod shop/web needs 23 map entries, 20 of them for this; the budget is 20";
    check_with("SL060", &options, &[("a pod", of_pod, want)]);
    check("SL060", &[("the usual budget", format!("{small}{large}"), "")]);
}
