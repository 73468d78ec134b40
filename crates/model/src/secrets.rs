//! The values that rules compare headers with.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use sluice_api::Secret;
use sluice_policy::l7::Secrets;

/// Secrets by namespace and name. Of a Secret with one key that key's value counts; with several nobody can say which.
/// `Debug` shows their names alone.
#[derive(Default)]
pub struct SecretValues {
    values: BTreeMap<(String, String), Vec<u8>>,
}

impl std::fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretValues").field("names", &self.values.keys()).finish()
    }
}

impl SecretValues {
    /// Makes a Secret known. A value that is no base64 is left out.
    pub fn insert(&mut self, secret: &Secret) {
        let namespace = secret.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let mut texts: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for (key, value) in secret.data.iter().flatten() {
            let bytes = BASE64_STANDARD.decode(value.reveal().trim());
            texts.extend(bytes.ok().map(|bytes| (key.as_str(), bytes)));
        }
        for (key, value) in secret.string_data.iter().flatten() {
            texts.insert(key, value.reveal().as_bytes().to_vec());
        }
        let mut texts = texts.into_values();
        let place = (namespace, secret.metadata.name.clone());
        match (texts.next(), texts.next()) {
            (Some(only), None) => self.values.insert(place, only),
            _ => self.values.remove(&place),
        };
    }
}

impl SecretValues {
    /// There is no such Secret any more.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        self.values.remove(&(namespace.to_owned(), name.to_owned()));
    }
}

impl Secrets for SecretValues {
    fn value(&self, namespace: Option<&str>, name: &str) -> Option<Vec<u8>> {
        self.values.get(&(namespace.unwrap_or("default").to_owned(), name.to_owned())).cloned()
    }
}
