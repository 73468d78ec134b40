//! JSON Schema (draft 2020-12) of every kind, for editors and for checks long before an object is applied.
//!
//! The shape comes from the types and the descriptions from their documentation. What a single field may hold (words,
//! numbers, lengths, patterns) is said in `schema/limits.json`, which is laid over the types by name. A schema refuses
//! nothing that both the API server and the policy engine accept, but it cannot see everything that the engine refuses:
//! names that lead nowhere, prefixes outside of others, peers that cannot be combined.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{decode::Nulls, object::Kind};

/// The kinds that have a schema: all that are read.
pub const KINDS: &[Kind] = Kind::ALL;

const LIMITS: &str = include_str!("schema/limits.json");

/// The schema of one kind.
///
/// ```
/// use sluice_api::{Kind, schema};
/// let schema = schema::json_schema(Kind::NetworkPolicy);
/// assert_eq!(schema["properties"]["kind"]["const"], "NetworkPolicy");
/// ```
#[must_use]
pub fn json_schema(kind: Kind) -> Value {
    let generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let Value::Object(mut schema) = kind.shape(generator).to_value() else { return Value::Null };
    tidy(&mut schema, kind.nulls());
    lay_over(&mut schema, kind);
    if kind.nulls() == Nulls::Absent {
        let mut whole = Value::Object(schema);
        each_schema(&mut whole, &mut |schema| allow_null_word(schema));
        return whole;
    }
    Value::Object(schema)
}

/// Takes out what is said about Rust, and nulls where the reader refuses them.
fn tidy(schema: &mut Map<String, Value>, nulls: Nulls) {
    let mut whole = Value::Object(std::mem::take(schema));
    each_schema(&mut whole, &mut |schema| {
        // Defaults are the engine's, and the sizes of our integers nobody's limit.
        for keyword in ["default", "format", "writeOnly"] {
            schema.remove(keyword);
        }
        if nulls == Nulls::Refuse {
            refuse_null(schema);
        }
    });
    if let Value::Object(tidied) = whole {
        *schema = tidied;
    }
}

/// Visits a schema and all schemas inside it. Names of fields are no keywords.
fn each_schema(schema: &mut Value, visit: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Value::Object(keywords) = schema else { return };
    visit(keywords);
    for (keyword, value) in keywords.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties" | "$defs", Value::Object(named)) => {
                named.values_mut().for_each(|schema| each_schema(schema, visit));
            }
            ("anyOf", Value::Array(listed)) => {
                listed.iter_mut().for_each(|schema| each_schema(schema, visit))
            }
            ("items" | "additionalProperties", schema) => each_schema(schema, visit),
            _ => {}
        }
    }
}

fn refuse_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice != &json!({"type": "null"}));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            schema.extend(only);
        }
    }
}

/// Words that a field may hold do not forbid the null that its type allows.
fn allow_null_word(schema: &mut Map<String, Value>) {
    let nullable =
        schema.get("type").and_then(Value::as_array).is_some_and(|types| types.contains(&"null".into()));
    if let Some(Value::Array(words)) = schema.get_mut("enum")
        && nullable
    {
        words.push(Value::Null);
    }
}

/// Adds the head that every object has, the limits of the types, and the words that these use.
fn lay_over(schema: &mut Map<String, Value>, kind: Kind) {
    let title = schema.get("title").and_then(Value::as_str).unwrap_or_default().to_owned();
    merge(schema, &head(kind));
    // A test reads the text, so it is never empty.
    let limits: Value = serde_json::from_str(LIMITS).unwrap_or_default();
    let section = |name: &str| limits.get(name).and_then(Value::as_object).into_iter().flatten();
    for (name, limit) in section("types").filter_map(|(name, limit)| Some((name, limit.as_object()?))) {
        if *name == title {
            merge(schema, limit);
        } else if let Some(Value::Object(definition)) =
            schema.get_mut("$defs").and_then(|definitions| definitions.get_mut(name))
        {
            merge(definition, limit);
        }
    }
    let text = Value::Object(schema.clone()).to_string();
    let used = section("words").filter(|(name, _)| text.contains(&format!("\"#/$defs/{name}\"")));
    let words = Map::from_iter([(
        "$defs".to_owned(),
        Value::Object(used.map(|(k, v)| (k.clone(), v.clone())).collect()),
    )]);
    merge(schema, &words);
}

fn head(kind: Kind) -> Map<String, Value> {
    let versions: Vec<String> = kind.api_versions().collect();
    let api_version =
        if let [only] = versions.as_slice() { json!({"const": only}) } else { json!({"enum": versions}) };
    let head = json!({
        "title": kind.name(),
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {"apiVersion": api_version, "kind": {"const": kind.name()}},
    });
    if let Value::Object(head) = head { head } else { Map::new() }
}

/// Objects are joined key by key and lists of required fields are added up; everything else is replaced.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) if key == "required" => {
                let missing: Vec<Value> = new.iter().filter(|field| !old.contains(field)).cloned().collect();
                old.extend(missing);
            }
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
