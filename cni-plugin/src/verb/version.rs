//! VERSION: which versions of the specification are spoken.

use serde_json::{Value, json};

use crate::error::Error;
use crate::json::{self, Node};
use crate::version::SpecVersion;

/// The answer, in the version that was asked in. Nothing on standard input is as good as the newest version, so
/// that a person can ask too.
pub(crate) fn version(configuration: &[u8]) -> Result<Value, Error> {
    let mut asked_in = SpecVersion::NEWEST.as_str().to_owned();
    if !configuration.trim_ascii().is_empty() {
        let document = json::parse("the request", configuration)?;
        let root = Node::new("the request", &document);
        if let Some(version) = root.text_at("cniVersion")? {
            version.clone_into(&mut asked_in);
        }
    }
    Ok(json!({ "cniVersion": asked_in, "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str) }))
}
