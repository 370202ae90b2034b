//! Declared inputs, and values for them.

use indexmap::IndexMap;
use kickwheel_core::plan::{InputDecl, InputType};
use serde_json::Value;

use super::{Input, reader::Reader};
use crate::{
    diagnostic::Code,
    keys::{INPUT, INPUT_TYPES},
    raw::{Entry, Kind, Node},
    values,
};

pub(super) fn read<'n>(entry: &'n Entry, reader: &mut Reader<'_, '_>) -> IndexMap<&'n str, Input> {
    let mut inputs = IndexMap::new();
    for input in reader.named(entry, "a map of names to inputs") {
        let before = reader.report.count();
        if !values::is_identifier(&input.key) {
            reader
                .report
                .error(Code::BadName, input.key_span.clone(), format!("`{}` cannot be the name of an input", input.key))
                .help("letters, digits and `_`, so that `inputs.NAME` can read it");
        }
        let decl = read_one(input, reader);
        let broken = reader.report.count() > before;
        inputs.insert(input.key.as_str(), Input { decl, span: input.key_span.clone(), broken });
    }
    inputs
}

fn read_one(entry: &Entry, reader: &mut Reader<'_, '_>) -> InputDecl {
    let mut decl =
        InputDecl { ty: InputType::String, default: None, minimum: None, maximum: None, choices: Vec::new() };
    let Some(fields) = reader.fields(&entry.value, &INPUT, &entry.key_span) else { return decl };
    if let Some(description) = fields.get("description") {
        reader.text(description);
    }
    // Without its type nothing else can be judged.
    let Some(ty) = fields.get("type").and_then(|entry| read_type(entry, reader)) else { return decl };
    decl.ty = ty;
    for (key, limit) in [("minimum", &mut decl.minimum), ("maximum", &mut decl.maximum)] {
        let Some(entry) = fields.get(key) else { continue };
        if !matches!(ty, InputType::Integer | InputType::Number) {
            reader
                .report
                .error(Code::MisplacedKey, entry.key_span.clone(), format!("`{key}` has no meaning for this type"))
                .help("it limits `integer` and `number`");
            continue;
        }
        *limit = reader.number(entry);
    }
    if let (Some(minimum), Some(maximum), Some(entry)) = (decl.minimum, decl.maximum, fields.get("maximum"))
        && minimum > maximum
    {
        let message = format!("`maximum` is {maximum}, less than `minimum`, which is {minimum}");
        reader.report.error(Code::BadValue, entry.value.span.clone(), message);
    }
    if let Some(entry) = fields.get("choices") {
        match &entry.value.kind {
            Kind::List(items) if !items.is_empty() => {
                for item in items {
                    check_value(&decl, item, "a choice", reader);
                }
                decl.choices = items.iter().map(Node::to_json).collect();
            }
            _ => reader.wrong_type(entry, "a list of values"),
        }
    }
    if let Some(entry) = fields.get("default") {
        check_value(&decl, &entry.value, "the default", reader);
        decl.default = Some(entry.value.to_json());
    }
    decl
}

fn read_type(entry: &Entry, reader: &mut Reader<'_, '_>) -> Option<InputType> {
    let text = reader.text(entry)?;
    Some(match text {
        "string" => InputType::String,
        "integer" => InputType::Integer,
        "number" => InputType::Number,
        "boolean" => InputType::Boolean,
        "list" => InputType::List,
        _ => {
            let help = reader.report.suggest(text, "types", INPUT_TYPES.iter().copied());
            let message = format!("there is no type `{text}`");
            reader.report.error(Code::BadValue, entry.value.span.clone(), message).help(help);
            return None;
        }
    })
}

/// Reports why a literal value cannot be an input's value.
pub(super) fn check_value(decl: &InputDecl, node: &Node, what: &str, reader: &mut Reader<'_, '_>) {
    if let Some(text) = node.text()
        && reader.holds_expression(node, text, what, "write the value itself")
    {
        return;
    }
    let wanted = match (decl.ty, &node.kind) {
        (InputType::String, Kind::Text(_))
        | (InputType::Integer, Kind::Int(_))
        | (InputType::Number, Kind::Int(_) | Kind::Float(_))
        | (InputType::Boolean, Kind::Bool(_))
        | (InputType::List, Kind::List(_)) => None,
        (InputType::String, _) => Some("a text"),
        (InputType::Integer, _) => Some("a whole number"),
        (InputType::Number, _) => Some("a number"),
        (InputType::Boolean, _) => Some("true or false"),
        (InputType::List, _) => Some("a list"),
    };
    if let Some(wanted) = wanted {
        let message = format!("{what} must be {wanted}, but is {}", node.describe());
        reader.report.error(Code::WrongType, node.span.clone(), message).help(format!("write {wanted}"));
        return;
    }
    let number = match node.kind {
        Kind::Int(value) => Some(value as f64),
        Kind::Float(value) => Some(value),
        Kind::Null | Kind::Bool(_) | Kind::Text(_) | Kind::List(_) | Kind::Map(_) => None,
    };
    let outside = match (number, decl.minimum, decl.maximum) {
        (Some(value), Some(minimum), _) if value < minimum => Some(format!("less than `minimum`, which is {minimum}")),
        (Some(value), _, Some(maximum)) if value > maximum => Some(format!("more than `maximum`, which is {maximum}")),
        _ => None,
    };
    if let Some(outside) = outside {
        let message = format!("{what} is {}, {outside}", node.to_json());
        reader.report.error(Code::BadValue, node.span.clone(), message);
    }
    if !decl.choices.is_empty() && !decl.choices.contains(&node.to_json()) {
        let choices = Value::Array(decl.choices.clone());
        let message = format!("{what} is {}, which is none of the choices {choices}", node.to_json());
        reader.report.error(Code::BadValue, node.span.clone(), message);
    }
}
