//! JSON Schema (draft 2020-12) of the test file, for editors.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::format::{API_VERSION, KIND, TestFile};

/// The schema of a policy test.
///
/// ```
/// assert_eq!(sluice_policytest::schema()["properties"]["kind"]["const"], "PolicyTest");
/// ```
#[must_use]
pub fn schema() -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = generator.into_root_schema_for::<TestFile>().to_value();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("apiVersion".to_owned(), json!({"const": API_VERSION}));
        properties.insert("kind".to_owned(), json!({"const": KIND}));
    }
    schema
}
