//! The JSON Schema of a workflow file, for editors: completion, hints and red lines while typing.
//!
//! It is made from the tables that the checker itself uses, and says less than the checker: names, expressions and
//! everything that needs another part of the file are beyond it. The copy in `schemas/json` is compared by a test.

use serde_json::{Map, Value, json};

use crate::keys::{Shape, Table, WORKFLOW};

/// The schema, JSON Schema draft 2020-12.
pub fn workflow_schema() -> Value {
    let mut schema = table(&WORKFLOW);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("Kickwheel workflow");
    schema
}

fn table(table: &Table) -> Value {
    let properties: Map<String, Value> = table
        .keys
        .iter()
        .map(|key| {
            let mut property = shape(key.shape);
            property["description"] = json!(key.about);
            (key.name.to_owned(), property)
        })
        .collect();
    let required: Vec<&str> = table.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    let mut schema = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn shape(of: Shape) -> Value {
    match of {
        Shape::Any => json!({}),
        Shape::Text => json!({"type": "string"}),
        Shape::Texts => json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
        Shape::List => json!({"type": "array"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Count => json!({"type": "integer", "minimum": 0}),
        Shape::Number => json!({"type": "number"}),
        Shape::Quantity => json!({"type": ["number", "string"]}),
        Shape::Duration => json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}),
        Shape::Exactly(number) => json!({"const": number}),
        Shape::OneOf(texts) => json!({"enum": texts}),
        Shape::Map(keys) => table(keys),
        Shape::MapOrNothing(keys) => json!({"oneOf": [table(keys), {"type": "null"}]}),
        Shape::Maps(keys) => json!({
            "oneOf": [table(keys), {"type": "array", "minItems": 1, "items": table(keys)}]
        }),
        Shape::Named(value) => json!({"type": "object", "additionalProperties": shape(*value)}),
        Shape::Either(shapes) => json!({"oneOf": shapes.iter().map(|one| shape(*one)).collect::<Vec<_>>()}),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Run with `UPDATE_SCHEMAS=1` to write the file anew.
    #[test]
    fn the_committed_schema_is_the_one_of_the_tables() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/json/workflow.schema.json");
        let mut fresh = serde_json::to_string_pretty(&workflow_schema()).expect("a schema has string keys only");
        fresh.push('\n');
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            std::fs::write(&path, &fresh).expect("the schema's folder is there and can be written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, fresh, "run the test again with UPDATE_SCHEMAS=1 and commit the file");
    }
}
