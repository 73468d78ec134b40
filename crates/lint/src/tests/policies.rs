//! Findings in what policies say, whatever the cluster is.

use super::{ccnp, check, check_with, cnp, knp};
use crate::Options;

#[test]
fn deny_rules_alone() {
    let want = "ingress has deny rules only, which close it: with nothing allowed, everything is denied";
    let deny = |more: &str| {
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{matchLabels: {{app: web}}}}, ingressDeny: [{{fromCIDR: [198.51.100.0/24]}}]{more}}}"
            ),
        )
    };
    let other = |selector: &str, list: &str| cnp("q", &format!("{{endpointSelector: {selector}, {list}}}"));
    let pod = |name: &str, tier: &str| super::pod(name, &format!("{{app: web, tier: {tier}}}"), "{}");
    let narrow = other("{matchLabels: {tier: a}}", "ingress: [{fromEntities: [cluster]}]");
    let cases = [
        ("alone", deny(""), want),
        ("with an allow list", deny(", ingress: [{fromEntities: [cluster]}]"), ""),
        ("with an empty list", deny(", ingress: [{fromEndpoints: []}]"), ""),
        ("default deny off", deny(", enableDefaultDeny: {ingress: false}"), ""),
        (
            "allowed by another policy",
            format!("{}{}", deny(""), other("{}", "ingress: [{fromEntities: [cluster]}]")),
            "",
        ),
        (
            "allowed in the other direction",
            format!("{}{}", deny(""), other("{}", "egress: [{toEntities: [all]}]")),
            want,
        ),
        ("allowed for some", format!("{}{narrow}", deny("")), want),
        ("allowed for every pod there is", format!("{}{narrow}{}", deny(""), pod("shop/a", "a")), ""),
        (
            "not for one of the pods",
            format!("{}{narrow}{}{}", deny(""), pod("shop/a", "a"), pod("shop/b", "b")),
            want,
        ),
    ];
    check("SL020", &cases);
}

#[test]
fn lists_without_elements() {
    let ingress = |rule: &str| cnp("p", &format!("{{endpointSelector: {{}}, ingress: [{rule}]}}"));
    let requests = "the list of requests is empty, which is no restriction: all of them pass, unseen";
    let cases = [
        (
            "ports",
            ingress("{fromEntities: [all], toPorts: []}"),
            "an empty toPorts is no restriction: every port and protocol is allowed, ICMP too",
        ),
        ("ports of nobody", ingress("{fromEndpoints: [], toPorts: []}"), ""),
        (
            "requests",
            ingress(
                "{fromEntities: [all], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: []}}]}",
            ),
            requests,
        ),
        (
            "no kind of requests",
            ingress("{fromEntities: [all], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {}}]}"),
            requests,
        ),
        (
            "peers of Kubernetes",
            knp("k", "{podSelector: {}, ingress: [{from: []}]}"),
            "an empty `from` is no restriction: it means everybody, inside and outside of the cluster",
        ),
        ("absent", knp("k", "{podSelector: {}, ingress: [{}]}"), ""),
    ];
    check("SL022", &cases);
    let cases = [
        (
            "peers with ports",
            ingress("{fromCIDR: [], toPorts: [{ports: [{port: '80'}]}]}"),
            "fromCIDR is empty, which is nobody, so the rest of the rule means nothing",
        ),
        ("peers alone", ingress("{fromEndpoints: []}"), ""),
        (
            "peers of a deny rule",
            cnp("p", "{endpointSelector: {}, ingressDeny: [{fromEndpoints: []}]}"),
            "fromEndpoints is empty, which is nobody, so the rest of the rule means nothing",
        ),
        (
            "no ports in an element",
            ingress("{fromEntities: [all], toPorts: [{}]}"),
            "no port is named, so the element means nothing",
        ),
        ("an empty list beside another", ingress("{fromEndpoints: [], fromEntities: [all]}"), ""),
    ];
    check("SL023", &cases);
    check(
        "SL021",
        &[
            (
                "empty",
                ingress("{}"),
                "an empty rule allows nothing here; in a NetworkPolicy it would allow everything",
            ),
            ("no peers", ingress("{toPorts: [{ports: [{port: '80'}]}]}"), ""),
        ],
    );
}

#[test]
fn exceptions_and_denials() {
    let rules = |more: &str| {
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{matchLabels: {{app: web}}}}, egress: [{{toCIDRSet: [{{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}}]{more}}}"
            ),
        )
    };
    let want = "10.96.0.0/12 is left out here and allowed elsewhere: an exception does not deny";
    let cases = [
        ("alone", rules("}]"), ""),
        ("part of the hole", rules("}, {toCIDR: [10.100.0.0/16]}]"), want),
        ("around the hole", rules("}, {toEntities: [world]}]"), want),
        ("the neighbour in the list", rules("}]").replace("}]}]}", "}, {cidr: 10.96.1.0/24}]}]}"), want),
        ("somewhere else", rules("}, {toCIDR: [10.1.0.0/16]}]"), ""),
        (
            "of other pods",
            format!(
                "{}{}",
                rules("}]"),
                cnp("q", "{endpointSelector: {matchLabels: {app: db}}, egress: [{toEntities: [world]}]}")
            ),
            "",
        ),
        (
            "the same prefix with the same hole",
            rules("}, {toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.96.0.0/12]}]}]"),
            "",
        ),
        (
            "of Kubernetes",
            knp(
                "k",
                "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.96.0.0/12]}}, {ipBlock: {cidr: 10.97.0.0/16}}]}]}",
            ),
            want,
        ),
    ];
    check("SL026", &cases);
    let deny = |ports: &str| {
        cnp(
            "p",
            &format!(
                "{{endpointSelector: {{}}, egress: [{{toEntities: [all]}}], egressDeny: [{{toEntities: [world]{ports}}}]}}"
            ),
        )
    };
    let want = "every port of TCP is denied, and UDP and ICMP are not";
    let cases = [
        ("a range", deny(", toPorts: [{ports: [{port: '1', endPort: 65535, protocol: TCP}]}]"), want),
        ("port 0", deny(", toPorts: [{ports: [{port: '0', protocol: TCP}]}]"), want),
        ("every protocol with ports", deny(", toPorts: [{ports: [{port: '0'}]}]"), ""),
        ("one port", deny(", toPorts: [{ports: [{port: '443', protocol: TCP}]}]"), ""),
        ("everything", deny(""), ""),
    ];
    check("SL029", &cases);
}

#[test]
fn rules_against_rules() {
    let own = "{fromEndpoints: [{matchLabels: {app: a}}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}";
    let with = |rule: &str| {
        cnp("p", &format!("{{endpointSelector: {{matchLabels: {{app: web}}}}, ingress: [{own}, {rule}]}}"))
    };
    let also =
        |rule: &str| format!("this decides nothing that cnp/shop/p {rule} does not decide the same way");
    let both = cnp(
        "p",
        "{endpointSelector: {}, ingress: [{fromEntities: [all], toPorts: [{ports: [{port: '1', endPort: 99, protocol: TCP}]}]}, {fromEntities: [all], toPorts: [{ports: [{port: '100', endPort: 199, protocol: TCP}]}]}, {fromEndpoints: [{}], toPorts: [{ports: [{port: '90', endPort: 110, protocol: TCP}]}]}]}",
    );
    let cases = [
        ("twice the same", with(own), also("ingress[0]")),
        ("wider", with("{fromEntities: [cluster]}"), also("ingress[1]")),
        ("narrower peers", with(&own.replace("app: a}", "app: a, tier: b}")), also("ingress[0]")),
        ("other peers", with(&own.replace("app: a", "app: b")), String::new()),
        ("other ports", with(&own.replace("80", "81")), String::new()),
        ("another protocol", with(&own.replace("TCP", "UDP")), String::new()),
        ("two together", both, "this decides nothing that cnp/shop/p ingress[0] and cnp/shop/p ingress[1] do not decide the same way".to_owned()),
        ("shown with flows", format!("{}{}", with("{fromEntities: [cluster]}"), "").replace("endpointSelector", "log: {value: x}, endpointSelector"), also("ingress[1]")),
        ("requires", with(&own.replace("toPorts", "fromRequires: [{matchLabels: {x: y}}], toPorts")), String::new()),
    ];
    for (name, text, want) in cases {
        check("SL040", &[(name, text, &want)]);
    }
    let void = "this can never allow anything: rules that count first deny all of it";
    let deny = |rule: &str| {
        cnp("p", &format!("{{endpointSelector: {{}}, ingress: [{own}], ingressDeny: [{rule}]}}"))
    };
    let cases = [
        ("all of it", deny("{fromEntities: [cluster]}"), void),
        ("some peers", deny("{fromEndpoints: [{matchLabels: {app: a, tier: b}}]}"), ""),
        ("some ports", deny("{toPorts: [{ports: [{port: '80', protocol: UDP}]}]}"), ""),
        (
            "in two parts",
            deny(
                "{fromEntities: [all], toPorts: [{ports: [{port: '1', endPort: 80, protocol: TCP}]}]}, {fromEntities: [none]}",
            ),
            void,
        ),
        (
            "by an administrator",
            format!(
                "{}{}",
                cnp("p", &format!("{{endpointSelector: {{}}, ingress: [{own}]}}")),
                "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: k}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\n"
            ),
            void,
        ),
    ];
    check("SL041", &cases);
}

#[test]
fn clusterwide_policies() {
    let policy = |selector: &str, more: &str| {
        ccnp("p", &format!("{{endpointSelector: {selector}, {more} ingress: [{{fromEntities: [world]}}]}}"))
    };
    let want = "ingress of every pod of the cluster is closed, kube-system and ingress among them";
    let cases = [
        ("everybody", policy("{}", ""), want),
        (
            "every pod",
            policy("{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: Exists}]}", ""),
            want,
        ),
        (
            "not kube-system",
            policy(
                "{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: NotIn, values: [kube-system]}]}",
                "",
            ),
            "",
        ),
        ("some", policy("{matchLabels: {app: web}}", ""), ""),
        ("default deny off", policy("{}", "enableDefaultDeny: {ingress: false},"), ""),
    ];
    check("SL051", &cases);
}

#[test]
fn other_implementations() {
    let portable = Options { portable: true, ..Options::default() };
    let ingress = |rule: &str| cnp("p", &format!("{{endpointSelector: {{}}, ingress: [{rule}]}}"));
    let egress = |rule: &str| cnp("p", &format!("{{endpointSelector: {{}}, egress: [{rule}]}}"));
    let ports = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]";
    let cases = [
        (
            "names",
            egress(&format!("{{toFQDNs: [], {ports}}}")),
            "an empty toFQDNs is nobody here, and everybody for Cilium 1.20: the ports are open to all",
        ),
        ("without ports", egress("{toFQDNs: []}"), ""),
        (
            "Services",
            egress(&format!("{{toServices: [{{k8sService: {{serviceName: a, namespace: b}}}}], {ports}}}")),
            "while the Service does not exist this is nobody here, and everybody for Cilium 1.20",
        ),
        (
            "nodes",
            ingress("{fromNodes: [{}]}"),
            "Cilium refuses the policy unless the agent runs with `enable-node-selector-labels`",
        ),
        ("nothing", ingress(&format!("{{fromEntities: [all], {ports}}}")), ""),
    ];
    check_with("SL081", &portable, &cases);
    for (name, text, _) in &cases {
        check("SL081", &[(*name, text.clone(), "")]);
    }
    let cases = [
        (
            "requires",
            ingress("{fromEndpoints: [{}], fromRequires: [{matchLabels: {a: b}}]}"),
            "Cilium has no fromRequires since 1.19",
        ),
        (
            "families",
            ingress("{fromEntities: [world-ipv4]}"),
            "the schema of Cilium's policies does not have world-ipv4",
        ),
        (
            "numbers",
            ingress("{fromEntities: [all], toPorts: [{ports: [{port: 80}]}]}"),
            "Cilium's schema wants the port as text, and refuses a number",
        ),
        (
            "denied Services",
            cnp(
                "p",
                "{endpointSelector: {}, egressDeny: [{toServices: [{k8sService: {serviceName: a, namespace: b}}]}]}",
            ),
            "Cilium takes this and does not apply it: alone it denies nothing, with ports it denies everybody",
        ),
        ("of Kubernetes", knp("k", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}"), ""),
    ];
    check("SL080", &cases);
}
