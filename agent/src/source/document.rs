//! The text of one file becomes objects, each good as a whole or refused with a reason.

use sluice_api as api;
use sluice_policy::{ParseError, PolicyKind, PolicyRef, Rule, ServiceName, parse};

use super::{
    GroupObject, NamespaceObject, Object, ObjectKey, PodObject, PolicyObject, SecretObject, ServiceObject,
    SliceObject,
};

const DEFAULT: &str = "default";
/// How many errors of one document are shown.
const ERRORS_SHOWN_MAX: usize = 5;

/// One document that means something to us.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    /// Where it begins, from 1.
    pub(super) line: u32,
    /// Which object it is; none if even that cannot be read.
    pub(super) key: Option<ObjectKey>,
    /// The object and its text form, or what is wrong.
    pub(super) content: Result<Good, String>,
}

/// An object with what is stored of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Good {
    pub(super) object: Object,
    /// As users write it, with version and kind.
    pub(super) json: serde_json::Value,
    pub(super) line: u32,
}

/// Reads all documents. Kinds that mean nothing to us are left out.
pub(super) fn read(text: &str, origin: &str, config: &sluice_policy::Config) -> Vec<Document> {
    api::read_manifests(text).into_iter().filter_map(|manifest| document(manifest, origin, config)).collect()
}

fn document(manifest: api::Manifest, origin: &str, config: &sluice_policy::Config) -> Option<Document> {
    if is_for_others(&manifest) {
        return None;
    }
    let line = manifest.line;
    let named = key_of(&manifest);
    let content = match &manifest.content {
        Err(error) => Err(error.to_string()),
        Ok(object) => {
            let json = object.to_value();
            let read = meaning(object, &json, &format!("{origin}:{line}"), config).transpose()?;
            read.map(|object| Good { object, json, line }).map_err(|errors| all(&errors, &manifest))
        }
    };
    let key = content.as_ref().ok().map(|good| good.object.key()).or(named);
    Some(Document { line, key, content })
}

/// What an object comes to; `None` if it is of a kind that means nothing to us.
fn meaning(
    object: &api::Object,
    json: &serde_json::Value,
    origin: &str,
    config: &sluice_policy::Config,
) -> Result<Option<Object>, Vec<ParseError>> {
    let policy = |reference: PolicyRef, rules: Vec<Rule>| {
        Object::Policy(PolicyObject { reference, rules, object: json.clone(), origin: origin.to_owned() })
    };
    Ok(Some(match object {
        api::Object::Pod(pod) => Object::Pod(pod_object(pod, json.clone())),
        api::Object::Namespace(namespace) => {
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            let audit = parse::namespace_audit(namespace)?;
            let (name, object) = (namespace.metadata.name.clone(), json.clone());
            Object::Namespace(NamespaceObject { name, labels, audit, object })
        }
        api::Object::CiliumNetworkPolicy(own) => {
            policy((&**own).into(), parse::cilium_network_policy(own, config)?)
        }
        api::Object::CiliumClusterwideNetworkPolicy(own) => {
            policy((&**own).into(), parse::cilium_clusterwide_network_policy(own, config)?)
        }
        api::Object::NetworkPolicy(own) => policy((&**own).into(), parse::network_policy(own, config)?),
        api::Object::ClusterNetworkPolicy(own) => {
            policy((&**own).into(), parse::cluster_network_policy(own, config)?)
        }
        api::Object::Service(service) => {
            Object::Service(ServiceObject { declared: parse::service(service)?, object: json.clone() })
        }
        api::Object::EndpointSlice(own) => {
            let (slice, name) = (parse::endpoint_slice(own)?, own.metadata.name.clone());
            let name = (namespace_of(&own.metadata), name);
            Object::EndpointSlice(SliceObject { name, slice, object: json.clone() })
        }
        api::Object::CiliumCidrGroup(own) => {
            let (group, name) = (parse::cidr_group(own)?, own.metadata.name.clone());
            Object::CidrGroup(GroupObject { name, group, object: json.clone() })
        }
        api::Object::Secret(secret) => {
            let name = (namespace_of(&secret.metadata), secret.metadata.name.clone());
            Object::Secret(SecretObject { name, secret: (**secret).clone() })
        }
        api::Object::Node(_) | api::Object::Ignored => return Ok(None),
    }))
}

/// The namespace an object is in: `default` when it names none.
fn namespace_of(metadata: &api::Metadata) -> String {
    let named = metadata.namespace.clone().filter(|name| !name.is_empty());
    named.unwrap_or_else(|| DEFAULT.to_owned())
}

/// Whether a document is of a kind that means nothing to us, whatever is in it. One whose kind cannot be read may
/// mean something.
fn is_for_others(manifest: &api::Manifest) -> bool {
    let (group, _) = manifest.api_version.rsplit_once('/').unwrap_or_default();
    match api::Kind::find(group, &manifest.kind) {
        None => !manifest.kind.is_empty(),
        Some(
            api::Kind::CiliumNetworkPolicy
            | api::Kind::CiliumClusterwideNetworkPolicy
            | api::Kind::CiliumCidrGroup
            | api::Kind::NetworkPolicy
            | api::Kind::ClusterNetworkPolicy
            | api::Kind::Pod
            | api::Kind::Namespace
            | api::Kind::Service
            | api::Kind::EndpointSlice
            | api::Kind::Secret,
        ) => false,
        Some(api::Kind::Node) => true,
    }
}

/// Which object a manifest is about, as far as its head can be read.
fn key_of(manifest: &api::Manifest) -> Option<ObjectKey> {
    if manifest.name.is_empty() {
        return None;
    }
    let name = manifest.name.clone();
    let namespace =
        manifest.namespace.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| DEFAULT.to_owned());
    let group = manifest.api_version.split('/').next().unwrap_or_default();
    Some(match (group, manifest.kind.as_str()) {
        ("v1", "Pod") => ObjectKey::Pod(namespace, name),
        ("v1", "Namespace") => ObjectKey::Namespace(name),
        ("cilium.io", "CiliumNetworkPolicy") => policy_key(PolicyKind::Cnp, namespace, name),
        ("cilium.io", "CiliumClusterwideNetworkPolicy") => policy_key(PolicyKind::Ccnp, String::new(), name),
        ("networking.k8s.io", "NetworkPolicy") => policy_key(PolicyKind::Knp, namespace, name),
        ("policy.networking.k8s.io", "ClusterNetworkPolicy") => {
            policy_key(PolicyKind::Kcnp, String::new(), name)
        }
        ("v1", "Secret") => ObjectKey::Secret((namespace, name)),
        ("v1", "Service") => ObjectKey::Service(ServiceName { namespace, name }),
        ("discovery.k8s.io", "EndpointSlice") => ObjectKey::EndpointSlice((namespace, name)),
        ("cilium.io", "CiliumCIDRGroup") => ObjectKey::CidrGroup(name),
        _ => return None,
    })
}

fn policy_key(kind: PolicyKind, namespace: String, name: String) -> ObjectKey {
    ObjectKey::Policy(PolicyRef { kind, namespace, name })
}

/// What is wrong with the meaning of an object, in the form of what is wrong with its shape.
fn all(errors: &[ParseError], manifest: &api::Manifest) -> String {
    let text = |error: &ParseError| {
        let api::Place { line, column } = manifest.place(&error.path);
        let (path, reason) = (error.path.clone(), error.reason.to_string());
        api::DocumentError { line, column, path, reason }.to_string()
    };
    let mut texts: Vec<String> = errors.iter().take(ERRORS_SHOWN_MAX).map(text).collect();
    if errors.len() > ERRORS_SHOWN_MAX {
        texts.push(format!("and {} more", errors.len() - ERRORS_SHOWN_MAX));
    }
    texts.join("; ")
}

fn pod_object(pod: &api::Pod, object: serde_json::Value) -> PodObject {
    let named = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    PodObject {
        namespace: namespace_of(&pod.metadata),
        name: pod.metadata.name.clone(),
        uid: named(&pod.metadata.uid),
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        service_account: named(&pod.spec.service_account_name).unwrap_or_else(|| DEFAULT.to_owned()),
        ports: parse::named_ports(&pod.spec),
        object,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> Vec<Document> {
        read(text, "f.yaml", &sluice_policy::Config::default())
    }

    #[test]
    fn a_pod_with_ports() {
        let text = "
apiVersion: v1
kind: Pod
metadata: {name: web, uid: u1, labels: {app: web}}
spec:
  containers:
  - name: c
    ports:
    - {name: HTTP, containerPort: 80}
    - {name: dns, containerPort: 53, protocol: UDP}
";
        let documents = documents(text);
        let Ok(Good { object: Object::Pod(pod), .. }) = &documents[0].content else {
            panic!("{documents:?}")
        };
        assert_eq!((pod.namespace.as_str(), pod.uid.as_deref()), ("default", Some("u1")));
        assert_eq!(pod.service_account, "default");
        let ports: Vec<_> = pod.ports.iter().map(|port| (port.name.as_str(), port.port)).collect();
        assert_eq!(ports, [("dns", 53), ("http", 80)]);
    }

    #[test]
    fn each_document_is_read_on_its_own() {
        let text = "
kind: ConfigMap
apiVersion: v1
metadata: {name: x}
---
kind: Namespace
apiVersion: v1
metadata: {name: a, labels: {team: x}}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: p, namespace: a}
spec: {podSelectr: {}}
---
{broken
";
        let documents = documents(text);
        assert_eq!(documents.len(), 3, "{documents:#?}");
        assert_eq!(documents[0].key, Some(ObjectKey::Namespace("a".into())));
        assert_eq!(documents[1].key, Some(policy_key(PolicyKind::Knp, "a".into(), "p".into())));
        let error = documents[1].content.as_ref().unwrap_err();
        assert!(error.contains("line 13") && error.contains("podSelector"), "{error}");
        assert_eq!(documents[2].key, None);
        assert!(documents[2].content.is_err());
    }

    #[test]
    fn what_is_wrong_is_shown_with_its_place() {
        let text = "
kind: CiliumNetworkPolicy
apiVersion: cilium.io/v2
metadata: {name: p, namespace: a}
spec:
  endpointSelector: {}
  ingress:
  - toPorts:
    - ports:
      - port: \"90\"
        endPort: 80
  egress:
  - toEntities: [wrold]
";
        let documents = documents(text);
        let error = documents[0].content.as_ref().unwrap_err();
        let errors: Vec<&str> = error.split("; ").collect();
        assert!(errors[0].starts_with("line 11 column 18: spec.ingress[0].toPorts[0].ports[0]"), "{error}");
        assert!(error.contains("line 13 column 18: spec.egress[0].toEntities[0]"), "{error}");
    }

    #[test]
    fn kinds_for_others_are_not_looked_at() {
        let cases = [
            ("v1", "Node", true),
            ("v1", "Secret", false),
            ("v1", "ConfigMap", true),
            ("v1", "Pod", false),
            ("v1", "Service", false),
            ("discovery.k8s.io/v1", "EndpointSlice", false),
            ("cilium.io/v2", "CiliumCIDRGroup", false),
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", false),
            ("cilium.io/v2", "CiliumNetworkPolicy", false),
        ];
        for (api_version, kind, ignored) in cases {
            // Nameless and of the wrong shape: a kind of ours would be reported.
            let text = format!("apiVersion: {api_version}\nkind: {kind}\nspec: 1\n");
            assert_eq!(documents(&text).is_empty(), ignored, "{kind}");
        }
    }

    #[test]
    fn what_is_stored_reads_back() {
        let text = "
kind: Pod
apiVersion: v1
metadata: {name: web, labels: {app: web}}
---
kind: CiliumNetworkPolicy
apiVersion: cilium.io/v2
metadata: {name: p, namespace: shop}
spec: {endpointSelector: {}, ingress: [{}]}
";
        for document in documents(text) {
            let good = document.content.unwrap();
            let again = documents(&good.json.to_string()).remove(0).content.unwrap();
            assert_eq!(again.json, good.json);
            assert_eq!(again.object.key(), good.object.key());
        }
    }
}
