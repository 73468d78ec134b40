//! Secrets: certificates for TLS and values of headers. What is in them is never shown.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::meta::Metadata;

/// A `Secret` of Kubernetes' core group. `Debug` shows which keys it has, and nothing that could hold a value; even the
/// annotations may, as `kubectl apply` keeps the whole object there.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: Metadata,
    /// What the keys are, for example `kubernetes.io/tls`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Values in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<BTreeMap<String, SecretText>>,
    /// Values as they are; of a key that is in both, this one counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string_data: Option<BTreeMap<String, SecretText>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.metadata.name)
            .field("namespace", &self.metadata.namespace)
            .field("kind", &self.kind)
            .field("data", &self.data)
            .field("string_data", &self.string_data)
            .finish_non_exhaustive()
    }
}

/// Text that `Debug` does not show. There is no `Display`.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// The text itself. Whoever takes it out must not log it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use crate::{Object, read_manifests};

    const TEXT: &str = "
apiVersion: v1
kind: Secret
metadata:
  name: tls
  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{\"data\":{\"a\":\"canary\"}}'}
type: Opaque
data: {a: Y2FuYXJ5, b: ''}
stringData: {c: canary}
";

    #[test]
    fn values_are_kept_and_never_shown() {
        let manifest = read_manifests(TEXT).remove(0);
        let shown = format!("{manifest:?} {manifest:#?}");
        assert!(shown.contains("\"a\": (hidden)") && shown.contains("tls"), "{shown}");
        assert!(!shown.contains("canary") && !shown.contains("Y2FuYXJ5"), "{shown}");
        let Ok(Object::Secret(secret)) = &manifest.content else { panic!("{manifest:?}") };
        assert_eq!(secret.data.as_ref().unwrap()["a"].reveal(), "Y2FuYXJ5");
        assert_eq!(secret.data.as_ref().unwrap()["b"].reveal(), "");
        assert_eq!(secret.string_data.as_ref().unwrap()["c"].reveal(), "canary");
        let value = Object::to_value(manifest.content.as_ref().unwrap());
        assert_eq!(value["data"]["a"], "Y2FuYXJ5");
    }

    #[test]
    fn errors_name_the_place_and_not_the_value() {
        let cases = [
            ("data: {a: 4711}", "data.a: must be of type string: integer (put it in quotes)"),
            ("data: [canary]", "data: must be of type object: array"),
            ("data: canary", "data: must be of type object: string"),
            ("stringData: {a: {canary: b}}", "stringData.a: must be of type string: object"),
        ];
        for (data, want) in cases {
            let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{data}\n");
            let error = read_manifests(&text).remove(0).content.unwrap_err().to_string();
            assert!(error.ends_with(want), "{error}");
            assert!(!error.contains("canary") && !error.contains("4711"), "{error}");
        }
    }

    #[test]
    fn broken_yaml_does_not_repeat_the_value() {
        for data in [
            "{a: 'canary",
            "{a: canary, a: canary}",
            "{a: canary]",
            "\n  a: canary\n b: canary",
            "{a: !!int canary}",
            "{a: \"\\qcanary\"}",
        ] {
            let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {data}\n");
            let error = read_manifests(&text).remove(0).content.expect_err(data).to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
