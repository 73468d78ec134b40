//! The kinds of objects that are read, and from which versions.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    cilium::{CiliumCidrGroup, CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy},
    cluster_network_policy::ClusterNetworkPolicy,
    decode::{Nulls, decode},
    document,
    manifest::DocumentError,
    network_policy::NetworkPolicy,
    secret::Secret,
    service::{EndpointSlice, Service},
    workload::{Namespace, Node, Pod},
};

/// Makes [`Kind`] and [`Object`] from one table of `TYPE: "group", "kind", [versions], what a null stands for`.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $group:literal, $name:literal, [$($version:literal),+], $nulls:expr;)*) => {
        /// A kind of objects that is read.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// As it stands in `kind`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What stands in `apiVersion` before the slash; empty for Kubernetes' core group.
            #[must_use]
            pub const fn group(self) -> &'static str {
                match self { $(Self::$kind => $group,)* }
            }

            /// The versions that are read, the preferred one first.
            #[must_use]
            pub const fn versions(self) -> &'static [&'static str] {
                match self { $(Self::$kind => &[$($version),+],)* }
            }

            pub(crate) const fn nulls(self) -> Nulls {
                match self { $(Self::$kind => $nulls,)* }
            }

            /// The schema of its type.
            #[cfg(feature = "schema")]
            pub(crate) fn shape(self, generator: schemars::SchemaGenerator) -> schemars::Schema {
                match self { $(Self::$kind => generator.into_root_schema_for::<$kind>(),)* }
            }
        }

        /// An object of a kind that is read.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $($(#[$doc])* $kind(Box<$kind>),)*
            /// A kind that means nothing to us; it was not looked at.
            Ignored,
        }

        impl Object {
            /// Its kind; none if it is ignored.
            #[must_use]
            pub const fn kind(&self) -> Option<Kind> {
                match self { $(Self::$kind(_) => Some(Kind::$kind),)* Self::Ignored => None }
            }

            pub(crate) fn read(root: &document::Node, kind: Kind) -> Result<Self, DocumentError> {
                match kind { $(Kind::$kind => read_as(root, kind).map(Self::$kind),)* }
            }

            fn fields(&self) -> Value {
                // Text keys and plain values: this cannot fail; null would be noticed when it is read again.
                let value = match self {
                    $(Self::$kind(object) => serde_json::to_value(object),)*
                    Self::Ignored => return Value::Null,
                };
                value.unwrap_or_default()
            }
        }
    };
}

kinds! {
    /// Rules for the pods of a namespace, `cilium.io/v2`.
    CiliumNetworkPolicy: "cilium.io", "CiliumNetworkPolicy", ["v2"], Nulls::Refuse;
    /// Rules for pods of all namespaces, or for nodes, `cilium.io/v2`.
    CiliumClusterwideNetworkPolicy: "cilium.io", "CiliumClusterwideNetworkPolicy", ["v2"], Nulls::Refuse;
    /// Prefixes under one name, `cilium.io/v2` and `v2alpha1`.
    CiliumCidrGroup: "cilium.io", "CiliumCIDRGroup", ["v2", "v2alpha1"], Nulls::Refuse;
    // The API server takes a null list of this built-in kind for an absent one, which is the wider meaning.
    /// Rules for the pods of a namespace, `networking.k8s.io/v1`.
    NetworkPolicy: "networking.k8s.io", "NetworkPolicy", ["v1"], Nulls::Refuse;
    /// An administrator's rules, `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy: "policy.networking.k8s.io", "ClusterNetworkPolicy", ["v1alpha2"], Nulls::Refuse;
    /// Containers with an address, `v1`.
    Pod: "", "Pod", ["v1"], Nulls::Absent;
    /// Where names are unique, `v1`.
    Namespace: "", "Namespace", ["v1"], Nulls::Absent;
    /// A machine, `v1`.
    Node: "", "Node", ["v1"], Nulls::Absent;
    /// A name for many pods, `v1`.
    Service: "", "Service", ["v1"], Nulls::Absent;
    /// Some addresses behind a Service, `discovery.k8s.io/v1`.
    EndpointSlice: "discovery.k8s.io", "EndpointSlice", ["v1"], Nulls::Absent;
    /// Certificates and values nobody should see, `v1`.
    Secret: "", "Secret", ["v1"], Nulls::Absent;
}

impl Kind {
    /// The kind with this name in this group, if it is read.
    #[must_use]
    pub fn find(group: &str, name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.group() == group && kind.name() == name)
    }

    /// `apiVersion` as it is written for each version that is read, the preferred one first.
    pub fn api_versions(self) -> impl Iterator<Item = String> {
        let group = self.group();
        let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
        self.versions().iter().map(move |version| format!("{prefix}{version}"))
    }
}

impl Object {
    /// The object as it is written to a file: version and kind first, then its fields. A [`Secret`] shows its values.
    ///
    /// Fields that were ignored when it was read are lost. Null for [`Object::Ignored`], of which nothing was kept.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let Some(kind) = self.kind() else { return Value::Null };
        let Value::Object(fields) = self.fields() else { return Value::Null };
        let written = fields.get("apiVersion").and_then(Value::as_str).filter(|text| !text.is_empty());
        let api_version = written.map(str::to_owned).or_else(|| kind.api_versions().next());
        let mut object = Map::new();
        object.insert("apiVersion".to_owned(), api_version.unwrap_or_default().into());
        object.insert("kind".to_owned(), kind.name().into());
        object.extend(fields.into_iter().filter(|(key, _)| key != "apiVersion" && key != "kind"));
        Value::Object(object)
    }
}

fn read_as<'de, T: Deserialize<'de>>(root: &'de document::Node, kind: Kind) -> Result<Box<T>, DocumentError> {
    decode(root, kind.nulls()).map(Box::new)
}

#[cfg(test)]
mod tests;
