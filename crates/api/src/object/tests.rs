use super::*;
use crate::{read_manifests, service::ServiceSpec};

/// One object of every kind, all of whose fields are kept.
const OBJECTS: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: a, namespace: n}
spec:
  endpointSelector: {}
  ingress: [{fromEndpoints: [], toPorts: [{ports: [{port: 80}, {port: '443', endPort: 444}]}]}]
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: a}
specs: [{nodeSelector: {}, egressDeny: [{toEntities: [world]}]}]
---
apiVersion: cilium.io/v2alpha1
kind: CiliumCIDRGroup
metadata: {name: a, labels: {k: v}}
spec: {externalCIDRs: [10.0.0.0/8]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: n}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: []}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: a}
spec:
  tier: Admin
  priority: 7
  subject: {pods: {podSelector: {matchLabels: {k: v}}}}
  ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]
  egress:
  - {name: e, action: Accept, to: [{nodes: {}}, {networks: [10.0.0.0/8]}, {domainNames: ['*.a.b']}]}
  - {action: Deny, to: [{pods: {namespaceSelector: {}, podSelector: {}}}], protocols: [{destinationNamedPort: web}]}
  - {action: Deny, to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: {start: 1, end: 9}}}}, {sctp: {}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: n, uid: u, labels: {k: v}, annotations: {x: y}}
spec:
  serviceAccountName: s
  hostNetwork: false
  nodeName: one
  containers: [{name: c, ports: [{name: web, containerPort: 80, protocol: TCP}]}]
  initContainers: [{name: i}]
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: n, labels: {k: v}}
---
apiVersion: v1
kind: Node
metadata: {name: one}
spec: {podCIDRs: [10.1.0.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: n}
spec:
  type: NodePort
  selector: {k: v}
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1]
  externalIPs: [192.0.2.9]
  ports: [{name: web, port: 80, protocol: TCP, targetPort: http, nodePort: 30080}, {port: 81, targetPort: 8081}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: n, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
  conditions: {ready: true, serving: true, terminating: false}
  targetRef: {kind: Pod, namespace: n, name: a}
  nodeName: one
ports: [{name: web, port: 8080, protocol: TCP}]
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: n}
type: Opaque
data: {a: YQ==}
stringData: {b: b}
";

#[test]
fn every_kind_survives_a_round_trip() {
    let manifests = read_manifests(OBJECTS);
    assert_eq!(manifests.len(), Kind::ALL.len());
    for (manifest, kind) in manifests.iter().zip(Kind::ALL) {
        let object = manifest.content.as_ref().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(object.kind(), Some(*kind));
        let value = object.to_value();
        assert_eq!(Kind::find(kind.group(), &manifest.kind), Some(*kind));
        let head: Vec<&str> = value.as_object().unwrap().keys().take(3).map(String::as_str).collect();
        assert_eq!(head, ["apiVersion", "kind", "metadata"]);
        let again = read_manifests(&value.to_string()).remove(0);
        assert_eq!((&again.api_version, &again.content), (&manifest.api_version, &manifest.content));
    }
}

#[test]
fn what_is_written_is_what_was_read() {
    for chunk in document::split(OBJECTS) {
        let root = document::read(chunk).unwrap();
        let object = read_manifests(chunk.text).remove(0).content.unwrap();
        assert_eq!(object.to_value(), root.to_json());
    }
}

#[test]
fn kinds_are_found_by_group_and_name() {
    assert_eq!(Kind::find("", "Pod"), Some(Kind::Pod));
    assert_eq!(Kind::find("cilium.io", "CiliumCIDRGroup"), Some(Kind::CiliumCidrGroup));
    for (group, name) in
        [("", "NetworkPolicy"), ("crd.projectcalico.org", "NetworkPolicy"), ("", "pod"), ("apps", "Pod")]
    {
        assert_eq!(Kind::find(group, name), None, "{group}/{name}");
    }
    let versions = |kind: Kind| kind.api_versions().collect::<Vec<_>>();
    assert_eq!(versions(Kind::Pod), ["v1"]);
    assert_eq!(versions(Kind::CiliumCidrGroup), ["cilium.io/v2", "cilium.io/v2alpha1"]);
}

#[test]
fn versions_of_known_kinds_are_checked() {
    let text =
        "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: ClusterNetworkPolicy\nmetadata: {name: a}\n";
    let error = read_manifests(text).remove(0).content.unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1 column 13: apiVersion: ClusterNetworkPolicy of version \"v1alpha1\" is not known; use v1alpha2"
    );
    assert_eq!(Object::Ignored.to_value(), Value::Null);
    assert_eq!(Object::Ignored.kind(), None);
}

#[test]
fn null_is_absent_for_built_in_objects_and_an_error_in_policies() {
    let read = |text: &str| read_manifests(text).remove(0).content;
    let service =
        read("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: null, ports: ~}\n");
    let Ok(Object::Service(service)) = service else { panic!("{service:?}") };
    assert_eq!(service.spec, ServiceSpec::default());
    let group =
        "apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: a}\nspec: {externalCIDRs: }\n";
    let error = read(group).unwrap_err();
    assert_eq!(error.to_string(), "line 4 column 21: spec.externalCIDRs: must be of type array: null");
}
