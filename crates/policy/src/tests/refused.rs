//! What is refused, and how it is said.

use super::scene::errors;

/// Asserts that exactly this is wrong with a policy of each kind.
fn check(kind: &str, cases: &[(&str, &str)]) {
    for (spec, want) in cases {
        let found = errors(kind, spec);
        assert_eq!(found.len(), 1, "{spec}: {found:?}");
        assert!(found[0].ends_with(want), "{spec}: {}", found[0]);
    }
}

/// The errors of an ingress entry.
fn entry(cases: &[(&str, &str)]) {
    for (entry, want) in cases {
        check("CiliumNetworkPolicy", &[(&format!("{{endpointSelector: {{}}, ingress: [{entry}]}}"), want)]);
    }
}

fn egress(cases: &[(&str, &str)]) {
    for (entry, want) in cases {
        check("CiliumNetworkPolicy", &[(&format!("{{endpointSelector: {{}}, egress: [{entry}]}}"), want)]);
    }
}

#[test]
fn whole_rules() {
    let no_entries = "spec: rule must have at least one of ingress, ingressDeny, egress, egressDeny, and the list must not be empty";
    check(
        "CiliumNetworkPolicy",
        &[
            ("{ingress: [{}]}", "spec: rule must have one of endpointSelector or nodeSelector"),
            (
                "{endpointSelector: {}, nodeSelector: {}, ingress: [{}]}",
                "spec: rule cannot have both endpointSelector and nodeSelector",
            ),
            (
                "{nodeSelector: {}, ingress: [{}]}",
                "spec.nodeSelector: rule cannot have nodeSelector: only a clusterwide policy selects nodes",
            ),
            ("{endpointSelector: {}}", no_entries),
            ("{endpointSelector: {}, ingress: []}", no_entries),
            ("{endpointSelector: {}, ingress: [], egressDeny: []}", no_entries),
            ("{endpointSelector: {}, enableDefaultDeny: {ingress: true}}", no_entries),
            (
                "{endpointSelector: {}, ingress: [{}], log: {value: 'a long text that nobody wants to see'}}",
                "spec.log.value: must be at most 32 printable characters",
            ),
            (
                "{endpointSelector: {}, ingress: [{requiresV2: []}]}",
                "spec.ingress[0]: unknown field \"requiresV2\"; known are fromEndpoints, fromRequires, fromCIDR, fromCIDRSet, fromEntities, fromGroups, fromNodes, toPorts, icmps, authentication",
            ),
        ],
    );
    check(
        "CiliumClusterwideNetworkPolicy",
        &[
            ("{nodeSelector: {}, ingress: [{}]}", "spec.nodeSelector: not supported yet by this version"),
            ("{ingress: [{}]}", "spec: rule must have one of endpointSelector or nodeSelector"),
            (
                "{endpointSelector: {}, egress: [{toPorts: [{ports: [{port: 80}], service: api}]}]}",
                "toPorts[0].service: \"api\" needs a namespace here: write NAMESPACE/api",
            ),
        ],
    );
    let empty = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\nspecs: []\n";
    let manifest = sluice_api::read_manifests(empty).remove(0);
    let (_, parsed) = super::scene::parse_object(manifest.content.unwrap(), &crate::Config::default());
    assert_eq!(parsed.unwrap_err()[0].to_string(), "spec: empty policy: spec or specs is required");
}

#[test]
fn audit_of_one_policy_is_what_its_annotation_says_or_refused() {
    let read = |kind: &str, value: &str, spec: &str| {
        let group =
            if kind == "ClusterNetworkPolicy" { "policy.networking.k8s.io/v1alpha2" } else { "cilium.io/v2" };
        let text = format!(
            "{{apiVersion: {group}, kind: {kind}, metadata: {{name: p, annotations: {{sluice.dev/audit: '{value}'}}}}, \
             spec: {spec}}}"
        );
        let manifest = sluice_api::read_manifests(&text).remove(0);
        super::scene::parse_object(manifest.content.unwrap(), &crate::Config::complete()).1
    };
    let plain = "{endpointSelector: {}, ingress: [{}]}";
    for (value, audit) in [("true", true), ("false", false)] {
        let rules = read("CiliumNetworkPolicy", value, plain).unwrap();
        assert!(rules.iter().all(|rule| rule.audit == audit), "{rules:?}");
    }
    let tier = "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}";
    for (kind, value, spec, reason) in [
        ("CiliumNetworkPolicy", "yes", plain, "\"yes\" is none of"),
        ("CiliumNetworkPolicy", "", plain, "\"\" is none of"),
        ("ClusterNetworkPolicy", "true", tier, "a ClusterNetworkPolicy cannot be in audit mode"),
    ] {
        let refused = read(kind, value, spec).unwrap_err();
        assert_eq!(refused[0].path, "metadata.annotations[sluice.dev/audit]");
        assert!(refused[0].to_string().contains(reason), "{}", refused[0]);
    }
}

#[test]
fn every_error_is_reported_and_nothing_else() {
    let found = errors(
        "CiliumNetworkPolicy",
        "{endpointSelector: {matchLabels: {'a b': c}}, ingress: [{fromCIDR: [x]}, {fromEntities: [world, wold]}], egress: [{toPorts: [{ports: [{port: 70000}]}]}]}",
    );
    assert_eq!(
        found,
        [
            "spec.endpointSelector.matchLabels[a b]: \"a b\" is no label key",
            "spec.ingress[0].fromCIDR[0]: \"x\" is no IP address",
            "spec.ingress[1].fromEntities[1]: unsupported entity: wold",
            "spec.egress[0].toPorts[0].ports[0].port: port 70000 is not in 0 to 65535",
        ]
    );
}

#[test]
fn combinations() {
    entry(&[
        (
            "{fromEndpoints: [{}], fromEntities: [host]}",
            "spec.ingress[0]: combining fromEndpoints and fromEntities is not supported: use two entries",
        ),
        (
            "{fromCIDR: [10.0.0.0/8], fromCIDRSet: [{cidr: 10.0.0.0/8}]}",
            "spec.ingress[0]: combining fromCIDR and fromCIDRSet is not supported: use two entries",
        ),
        (
            "{toPorts: [{ports: [{port: 80}]}], icmps: [{fields: [{type: 8}]}]}",
            "spec.ingress[0].icmps: the icmps block may only be present without toPorts: use two entries",
        ),
    ]);
    // An empty list of another kind adds nobody.
    assert_eq!(
        errors(
            "CiliumNetworkPolicy",
            "{endpointSelector: {}, ingress: [{fromEndpoints: [{}], fromCIDR: [], fromEntities: []}]}"
        ),
        [""; 0]
    );
}

#[test]
fn prefixes() {
    entry(&[
        ("{fromCIDR: ['']}", "fromCIDR[0]: \"\" is no IP address"),
        (
            "{fromCIDR: [10.0.0.0/33]}",
            "fromCIDR[0]: \"10.0.0.0/33\" is no prefix: an address, a slash and a length are needed",
        ),
        ("{fromCIDR: [010.0.0.1]}", "fromCIDR[0]: \"010.0.0.1\" is no IP address"),
        (
            "{fromCIDR: ['::ffff:10.0.0.1/104']}",
            "fromCIDR[0]: \"::ffff:10.0.0.1/104\" is an IPv4 address mapped to IPv6: write it as IPv4",
        ),
        ("{fromCIDR: ['fe80::1%eth0']}", "fromCIDR[0]: \"fe80::1%eth0\" is no IP address"),
        (
            "{fromCIDRSet: [{cidr: 10.0.0.1}]}",
            "fromCIDRSet[0].cidr: \"10.0.0.1\" is no prefix: an address, a slash and a length are needed",
        ),
        (
            "{fromCIDRSet: [{}]}",
            "fromCIDRSet[0]: one of cidr, cidrGroupRef, or cidrGroupSelector is required",
        ),
        ("{fromCIDRSet: [{cidrGroupRef: ''}]}", "fromCIDRSet[0].cidrGroupRef: is required"),
        (
            "{fromCIDRSet: [{cidrGroupSelector: {matchLabels: {'a b': c}}}]}",
            "fromCIDRSet[0].cidrGroupSelector.matchLabels[a b]: \"a b\" is no label key",
        ),
        (
            "{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/16]}]}",
            "fromCIDRSet[0].except[0]: allow CIDR prefix 10.0.0.0/8 does not contain exclude CIDR prefix 11.0.0.0/16",
        ),
        (
            "{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [0.0.0.0/0]}]}",
            "fromCIDRSet[0].except[0]: allow CIDR prefix 10.0.0.0/8 does not contain exclude CIDR prefix 0.0.0.0/0",
        ),
        (
            "{fromCIDRSet: [{cidr: 10.0.0.0/8, except: ['fd00::/16']}]}",
            "fromCIDRSet[0].except[0]: allow CIDR prefix 10.0.0.0/8 does not contain exclude CIDR prefix fd00::/16",
        ),
    ]);
    let both = errors(
        "CiliumNetworkPolicy",
        "{endpointSelector: {}, ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, cidrGroupRef: g}]}]}",
    );
    assert!(
        both[0].ends_with("more than one of cidr, cidrGroupRef, or cidrGroupSelector may not be set"),
        "{both:?}"
    );
}

#[test]
fn ports() {
    let port = |port: &str| format!("{{toPorts: [{{ports: [{port}]}}]}}");
    let no_name = "is neither a port number nor a port name (at most 15 lower-case letters, digits and single dashes, with a letter)";
    let cases = [
        ("{port: 65536}", "ports[0].port: port 65536 is not in 0 to 65535".to_owned()),
        ("{port: '65536'}", "ports[0].port: port 65536 is not in 0 to 65535".to_owned()),
        ("{port: -1}", "ports[0].port: port -1 is not in 0 to 65535".to_owned()),
        ("{port: '-1'}", format!("ports[0].port: \"-1\" {no_name}")),
        ("{port: '80.0'}", format!("ports[0].port: \"80.0\" {no_name}")),
        ("{port: 80.0}", "unlike any text".to_owned()),
        ("{port: ' 80'}", format!("ports[0].port: \" 80\" {no_name}")),
        ("{port: '080'}", format!("ports[0].port: \"080\" {no_name}")),
        ("{port: '99999999999999999999'}", format!("ports[0].port: \"99999999999999999999\" {no_name}")),
        ("{port: a-name-that-is-too-long}", format!("ports[0].port: \"a-name-that-is-too-long\" {no_name}")),
        ("{port: http_alt}", format!("ports[0].port: \"http_alt\" {no_name}")),
        ("{port: ''}", "ports[0].port: is required".to_owned()),
        ("{protocol: TCP}", "ports[0].port: is required".to_owned()),
        ("{port: 90, endPort: 80}", "ports[0].endPort: endPort 80 is below port 90".to_owned()),
        ("{port: 90, endPort: 65536}", "ports[0].endPort: port 65536 is not in 1 to 65535".to_owned()),
        ("{port: 90, endPort: -1}", "ports[0].endPort: port -1 is not in 1 to 65535".to_owned()),
        ("{port: 0, endPort: 100}", "ports[0].endPort: endPort needs a port number from 1 on".to_owned()),
        ("{port: 80, protocol: tcp}", "ports[0].protocol: \"tcp\" is none of TCP, UDP, SCTP, ANY".to_owned()),
        (
            "{port: 80, protocol: ICMP}",
            "ports[0].protocol: \"ICMP\" is none of TCP, UDP, SCTP, ANY".to_owned(),
        ),
        ("{port: 0, protocol: VRRP}", "ports[0].protocol: not supported yet by this version".to_owned()),
    ];
    for (text, want) in cases {
        if want == "unlike any text" {
            let found = errors(
                "CiliumNetworkPolicy",
                &format!("{{endpointSelector: {{}}, ingress: [{}]}}", port(text)),
            );
            assert_eq!(found.len(), 1, "{text}");
            continue;
        }
        entry(&[(&port(text), &want)]);
    }
    let many = vec!["{port: 80}"; 41].join(",");
    entry(&[(&port(&many), "toPorts[0].ports: too many ports, the max is 40")]);
    let forty = vec!["{port: 80}"; 40].join(",");
    let accepted = format!("{{endpointSelector: {{}}, ingress: [{}]}}", port(&forty));
    assert_eq!(errors("CiliumNetworkPolicy", &accepted), [""; 0]);
}

#[test]
fn icmp() {
    let icmp = |field: &str| format!("{{icmps: [{{fields: [{field}]}}]}}");
    for (text, want) in [
        ("{type: 256}", "fields[0]: ICMP type 256 not found in IPv4"),
        ("{type: -1}", "fields[0]: ICMP type -1 not found in IPv4"),
        ("{type: '08'}", "fields[0]: ICMP type 08 not found in IPv4"),
        ("{type: echorequest}", "fields[0]: ICMP type echorequest not found in IPv4"),
        ("{type: PacketTooBig}", "fields[0]: ICMP type PacketTooBig not found in IPv4"),
        ("{type: Photuris, family: IPv6}", "fields[0]: ICMP type Photuris not found in IPv6"),
        ("{type: 8, family: ipv4}", "fields[0]: \"ipv4\" is none of IPv4, IPv6"),
        ("{family: IPv4}", "fields[0]: the field type is required"),
    ] {
        entry(&[(&icmp(text), want)]);
    }
    let many = vec!["{type: 8}"; 41].join(",");
    entry(&[(&icmp(&many), "icmps[0].fields: too many ICMP fields, the max is 40")]);
}

#[test]
fn selectors() {
    let expression = |text: &str| format!("{{fromEndpoints: [{{matchExpressions: [{text}]}}]}}");
    let long = "x".repeat(64);
    let huge = "x".repeat(64 * 1024);
    for (text, want) in [
        (
            "{key: app, operator: In}",
            "matchExpressions[0].values: must be given when operator is In or NotIn",
        ),
        (
            "{key: app, operator: In, values: []}",
            "matchExpressions[0].values: must be given when operator is In or NotIn",
        ),
        (
            "{key: app, operator: NotIn, values: []}",
            "matchExpressions[0].values: must be given when operator is In or NotIn",
        ),
        (
            "{key: app, operator: Exists, values: [x]}",
            "matchExpressions[0].values: must not be given when operator is Exists or DoesNotExist",
        ),
        (
            "{key: app, operator: DoesNotExist, values: [x]}",
            "matchExpressions[0].values: must not be given when operator is Exists or DoesNotExist",
        ),
        (
            "{key: app, operator: in, values: [x]}",
            "matchExpressions[0].operator: \"in\" is none of In, NotIn, Exists, DoesNotExist",
        ),
        ("{key: '', operator: Exists}", "matchExpressions[0].key: \"\" is no label key"),
        ("{key: 'k8s:', operator: Exists}", "matchExpressions[0].key: \"k8s:\" is no label key"),
        ("{key: '-a', operator: Exists}", "matchExpressions[0].key: \"-a\" is no label key"),
        ("{key: 'a/b/c', operator: Exists}", "matchExpressions[0].key: \"a/b/c\" is no label key"),
        ("{operator: Exists}", "matchExpressions[0]: the field key is required"),
    ] {
        entry(&[(&expression(text), want)]);
    }
    entry(&[
        (&format!("{{fromEndpoints: [{{matchLabels: {{app: {long}}}}}]}}"), "is no label value"),
        (&format!("{{fromEndpoints: [{{matchLabels: {{app: {huge}}}}}]}}"), "is no label value"),
        ("{fromEndpoints: [{matchLabels: {app: 'a b'}}]}", "matchLabels[app]: \"a b\" is no label value"),
    ]);
    let found = errors(
        "CiliumNetworkPolicy",
        &format!(
            "{{endpointSelector: {{}}, ingress: [{{fromEndpoints: [{{matchLabels: {{app: {huge}}}}}]}}]}}"
        ),
    );
    assert!(found[0].len() < 200, "a refused value is not repeated whole");
    let found = errors(
        "CiliumNetworkPolicy",
        "{endpointSelector: {}, ingress: [{fromEndpoints: [{matchLabels: {app: a, app: b}}]}]}",
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn what_is_still_to_come() {
    let later = "not supported yet by this version";
    let ports = |field: &str| format!("{{toPorts: [{{ports: [{{port: 80, protocol: TCP}}], {field}}}]}}");
    for (field, path) in [
        ("rules: {http: [{}]}", "toPorts[0].rules.http"),
        ("rules: {kafka: [{topic: a}]}", "toPorts[0].rules.kafka"),
        ("rules: {dns: [{matchName: a}]}", "toPorts[0].rules.dns"),
        ("rules: {grpc: [{}]}", "toPorts[0].rules.grpc"),
        ("rules: {l7proto: x}", "toPorts[0].rules.l7proto"),
        ("rules: {l7: [{a: b}]}", "toPorts[0].rules.l7"),
        ("serverNames: [a.example.com]", "toPorts[0].serverNames"),
        ("terminatingTLS: {secret: {name: a}}", "toPorts[0].terminatingTLS"),
        ("originatingTLS: {secret: {name: a}}", "toPorts[0].originatingTLS"),
        ("listener: {envoyConfig: {name: a}, name: b}", "toPorts[0].listener"),
    ] {
        egress(&[(&ports(field), &format!("spec.egress[0].{path}: {later}"))]);
    }
    egress(&[
        (
            "{toServices: [{k8sService: {namespace: a}}]}",
            "spec.egress[0].toServices[0].k8sService.serviceName: is required",
        ),
        (
            "{toServices: [{}]}",
            "spec.egress[0].toServices[0]: one of k8sService or k8sServiceSelector is required",
        ),
        ("{toGroups: [{aws: {region: a}}]}", "spec.egress[0].toGroups: not supported yet by this version"),
        (
            "{toNodes: [{}]}",
            "spec.egress[0].toNodes: needs the option enable-node-selector-labels, which is off",
        ),
        (
            &ports("service: a/b/c"),
            "toPorts[0].service: \"a/b/c\" is no Service: write NAME or NAMESPACE/NAME",
        ),
        (&ports("service: ''"), "toPorts[0].service: \"\" is no Service: write NAME or NAMESPACE/NAME"),
        (
            "{toEndpoints: [{}], authentication: {mode: required}}",
            "spec.egress[0].authentication.mode: not supported yet by this version",
        ),
        (
            "{toEndpoints: [{}], authentication: {mode: test-always-fail}}",
            "spec.egress[0].authentication.mode: not supported yet by this version",
        ),
        (
            "{toEndpoints: [{}], authentication: {mode: maybe}}",
            "spec.egress[0].authentication.mode: \"maybe\" is none of disabled, required, test-always-fail",
        ),
    ]);
    entry(&[
        ("{fromGroups: [{aws: {}}]}", "spec.ingress[0].fromGroups: not supported yet by this version"),
        (
            "{fromNodes: [{}]}",
            "spec.ingress[0].fromNodes: needs the option enable-node-selector-labels, which is off",
        ),
        (&ports("serverNames: []"), "toPorts[0].serverNames: must not be empty"),
    ]);
    // What asks for nothing is no use of a feature.
    for accepted in [
        ports("rules: {http: []}"),
        ports("rules: {}"),
        "{fromEndpoints: [{}], authentication: {mode: disabled}}".to_owned(),
    ] {
        let spec = format!("{{endpointSelector: {{}}, ingress: [{accepted}]}}");
        assert_eq!(errors("CiliumNetworkPolicy", &spec), [""; 0], "{spec}");
    }
}

#[test]
fn deny_rules() {
    let deny = |entry: &str, want: &str| {
        check(
            "CiliumNetworkPolicy",
            &[(&format!("{{endpointSelector: {{}}, egressDeny: [{entry}]}}"), want)],
        );
    };
    let cannot = "a deny rule cannot have this field";
    deny("{toFQDNs: []}", &format!("spec.egressDeny[0].toFQDNs: {cannot}"));
    deny("{toPorts: [{rules: {}}]}", &format!("spec.egressDeny[0].toPorts[0].rules: {cannot}"));
    deny("{toPorts: [{serverNames: [a]}]}", &format!("spec.egressDeny[0].toPorts[0].serverNames: {cannot}"));
    deny(
        "{toEndpoints: [{}], authentication: {mode: disabled}}",
        &format!("spec.egressDeny[0].authentication: {cannot}"),
    );
}

#[test]
fn kubernetes() {
    let ingress = |rule: &str| format!("{{podSelector: {{}}, ingress: [{rule}]}}");
    let cases = [
        (ingress("{from: [{}]}"), "spec.ingress[0].from[0]: must specify a peer"),
        (
            ingress("{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}"),
            "from[0]: may not be specified when ipBlock is specified",
        ),
        (
            ingress("{from: [{ipBlock: {cidr: 10.0.0.1}}]}"),
            "from[0].ipBlock.cidr: \"10.0.0.1\" is no prefix: an address, a slash and a length are needed",
        ),
        (
            ingress("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}"),
            "except[0]: allow CIDR prefix 10.0.0.0/8 does not contain exclude CIDR prefix 11.0.0.0/8",
        ),
        (
            ingress("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}"),
            "except[0]: exclude CIDR prefix 10.0.0.0/8 must be smaller than the prefix",
        ),
        (ingress("{ports: [{port: 0}]}"), "ports[0].port: port 0 is not in 1 to 65535"),
        (ingress("{ports: [{port: 65536}]}"), "ports[0].port: port 65536 is not in 0 to 65535"),
        (ingress("{ports: [{port: 90, endPort: 80}]}"), "ports[0].endPort: endPort 80 is below port 90"),
        (ingress("{ports: [{endPort: 80}]}"), "ports[0].endPort: endPort needs a port number from 1 on"),
        (
            ingress("{ports: [{port: http, endPort: 80}]}"),
            "ports[0].endPort: endPort needs a port number from 1 on",
        ),
        (
            ingress("{ports: [{port: 80, protocol: ANY}]}"),
            "ports[0].protocol: \"ANY\" is none of TCP, UDP, SCTP",
        ),
        (ingress("{from: [{podSelector: {matchLabels: {'k8s:app': a}}}]}"), "\"k8s:app\" is no label key"),
        (ingress("{form: []}"), "spec.ingress[0]: unknown field \"form\"; did you mean \"from\"?"),
        (
            "{podSelector: {}, policyTypes: [ingress]}".to_owned(),
            "spec.policyTypes[0]: \"ingress\" is none of Ingress, Egress",
        ),
        (
            "{podSelector: {}, policyTypes: [Egress], ingress: [{from: [{}]}]}".to_owned(),
            "from[0]: must specify a peer",
        ),
        ("{podSelector: {}, ingress: null}".to_owned(), "spec.ingress: must be of type array: null"),
    ];
    for (spec, want) in cases {
        check("NetworkPolicy", &[(&spec, want)]);
    }
}
