//! Prefixes under one name.

use serde::{Deserialize, Serialize};

use crate::meta::Metadata;

/// Prefixes that policies refer to by the group's name or labels. Version `v2alpha1` has the same fields as `v2`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CiliumCidrGroup {
    /// `cilium.io/v2` or `cilium.io/v2alpha1`.
    #[serde(default)]
    pub api_version: String,
    /// `CiliumCIDRGroup`.
    #[serde(default)]
    pub kind: String,
    /// Name and labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// The prefixes.
    pub spec: CiliumCidrGroupSpec,
}

/// The prefixes of a group.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CiliumCidrGroupSpec {
    /// Prefixes outside the cluster; an empty list selects nobody.
    #[serde(rename = "externalCIDRs")]
    pub external_cidrs: Vec<String>,
}
