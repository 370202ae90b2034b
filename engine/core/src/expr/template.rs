//! YAML values with `${{ }}` in them.
//!
//! `$${{` stands for a literal `${{`. A text that is one expression and nothing else keeps the type of its value; any other
//! mixture gives a text.

use std::ops::Range;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Bindings, Expr, ExprError, Scope,
    scan::{self, Token},
    type_name,
};

/// A value with expressions in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "v", rename_all = "snake_case")]
pub enum Template {
    /// Without any expression.
    Literal(Value),
    /// The whole text was one `${{ }}`: keeps the type of its value. Null is an error.
    Expr(Expr),
    /// Text around expressions; gives a text. Null is an error.
    Text(Vec<TextPart>),
    /// A list whose items hold expressions.
    List(Vec<Template>),
    /// A map whose values hold expressions.
    Map(IndexMap<String, Template>),
}

/// A piece of a [`Template::Text`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "v", rename_all = "snake_case")]
pub enum TextPart {
    /// As it stands.
    Literal(String),
    /// Evaluated and written as text.
    Expr(Expr),
}

/// A piece of a text, still with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// As it stands, escapes resolved.
    Literal(String),
    /// The byte range of an expression's source, without `${{`, `}}` and the blanks inside them.
    Expr(Range<usize>),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read a `${{{{ }}}}`: {message}")]
pub struct TemplateError {
    /// Byte offset into the text.
    pub offset: usize,
    /// What is wrong there, and what to do.
    pub message: String,
}

const OPEN: &str = "${{";

/// Splits a text at its expressions. Adjacent literals are one.
pub fn segments(text: &str) -> Result<Vec<Segment>, TemplateError> {
    let mut segments = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(OPEN) {
        let open = at + found;
        if text[at..open].ends_with('$') {
            // The first dollar is the escape, the second belongs to what is meant literally.
            literal.push_str(&text[at..open - 1]);
            literal.push_str(OPEN);
            at = open + OPEN.len();
            continue;
        }
        literal.push_str(&text[at..open]);
        if !literal.is_empty() {
            segments.push(Segment::Literal(std::mem::take(&mut literal)));
        }
        let start = open + OPEN.len();
        let end = expression_end(text, open, start)?;
        let source = &text[start..end];
        let blank = source.len() - source.trim_start().len();
        let trimmed = source.trim();
        if trimmed.is_empty() {
            return Err(TemplateError {
                offset: open,
                message: "there is no expression in it; write one, or `$${{` for the characters themselves".into(),
            });
        }
        segments.push(Segment::Expr(start + blank..start + blank + trimmed.len()));
        at = end + 2;
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        segments.push(Segment::Literal(literal));
    }
    Ok(segments)
}

/// Where the `}}` stands that ends the expression which begins at `start`: not one in a string or in a map literal.
fn expression_end(text: &str, open: usize, start: usize) -> Result<usize, TemplateError> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        let (token, next) = scan::token(bytes, at);
        match token {
            Token::Close(b'}') if depth == 0 && bytes[at..].starts_with(b"}}") => return Ok(at),
            Token::Open => depth += 1,
            Token::Close(_) => depth = depth.saturating_sub(1),
            Token::Other => {}
        }
        at = next;
    }
    Err(TemplateError {
        offset: open,
        message: "it is not closed; end it with `}}`, or write `$${{` for the characters themselves".into(),
    })
}

impl Template {
    /// Reads a text. The expressions in it are not parsed yet.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts: Vec<TextPart> = segments(text)?
            .into_iter()
            .map(|segment| match segment {
                Segment::Literal(literal) => TextPart::Literal(literal),
                Segment::Expr(range) => TextPart::Expr(Expr::new(&text[range])),
            })
            .collect();
        Ok(match (parts.pop(), parts.is_empty()) {
            (None, _) => Self::Literal(Value::String(String::new())),
            (Some(TextPart::Literal(only)), true) => Self::Literal(Value::String(only)),
            (Some(TextPart::Expr(only)), true) => Self::Expr(only),
            (Some(last), false) => {
                parts.push(last);
                Self::Text(parts)
            }
        })
    }

    /// Its value in a scope.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, ExprError> {
        self.evaluate_in(&Bindings::of(scope))
    }

    /// Its value with these variables.
    pub fn evaluate_in(&self, bindings: &Bindings) -> Result<Value, ExprError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Expr(expr) => expr.evaluate_in(bindings),
            Self::Text(parts) => {
                parts.iter().map(|part| part.evaluate_in(bindings)).collect::<Result<_, _>>().map(Value::String)
            }
            Self::List(items) => {
                items.iter().map(|item| item.evaluate_in(bindings)).collect::<Result<_, _>>().map(Value::Array)
            }
            Self::Map(fields) => {
                let fields = fields.iter().map(|(name, field)| Ok((name.clone(), field.evaluate_in(bindings)?)));
                fields.collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
        }
    }

    /// Its value as text: numbers and booleans are written out, lists and maps are an error.
    pub fn evaluate_text(&self, bindings: &Bindings) -> Result<String, ExprError> {
        let value = self.evaluate_in(bindings)?;
        to_text(&value).ok_or_else(|| ExprError::Type {
            source_text: self.to_string(),
            wanted: "a text, number or boolean",
            found: type_name(&value).to_owned(),
        })
    }

    /// Every expression in it.
    pub fn expressions(&self) -> Vec<&Expr> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Expr(expr) => vec![expr],
            Self::Text(parts) => parts.iter().filter_map(TextPart::expression).collect(),
            Self::List(items) => items.iter().flat_map(Self::expressions).collect(),
            Self::Map(fields) => fields.values().flat_map(Self::expressions).collect(),
        }
    }
}

/// As it could be written in a workflow file; lists and maps as JSON.
impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(Value::String(text)) => f.write_str(text),
            Self::Literal(value) => write!(f, "{value}"),
            Self::Expr(expr) => f.write_str(expr.source()),
            Self::Text(parts) => parts.iter().try_for_each(|part| match part {
                TextPart::Literal(text) => f.write_str(text),
                TextPart::Expr(expr) => write!(f, "${{{{ {} }}}}", expr.source()),
            }),
            Self::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Map(fields) => {
                f.write_str("{")?;
                for (at, (name, field)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {field}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

impl TextPart {
    fn expression(&self) -> Option<&Expr> {
        match self {
            Self::Literal(_) => None,
            Self::Expr(expr) => Some(expr),
        }
    }

    fn evaluate_in(&self, bindings: &Bindings) -> Result<String, ExprError> {
        match self {
            Self::Literal(text) => Ok(text.clone()),
            Self::Expr(expr) => {
                let value = expr.evaluate_in(bindings)?;
                to_text(&value).ok_or_else(|| ExprError::Type {
                    source_text: expr.source().to_owned(),
                    wanted: "a text, number or boolean",
                    found: type_name(&value).to_owned(),
                })
            }
        }
    }
}

fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
