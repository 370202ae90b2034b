//! The inputs of a run: what was given, what `with:` takes from the event, and the defaults; checked against their
//! declarations.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use kickwheel_schemas::CloudEvent;
use serde_json::Value;

use super::event_scope;
use crate::{
    expr::{Bindings, ExprError, Template, type_name},
    plan::{InputDecl, InputType},
};

/// Why a value cannot be an input.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InputError {
    /// No such input is declared.
    #[error("take the input {name:?}: the workflow declares none of that name{}", nearest.as_ref().map(|n| format!("; did you mean {n:?}?")).unwrap_or_default())]
    Unknown {
        /// As given.
        name: String,
        /// The declared name most like it, when one is like it.
        nearest: Option<String>,
    },
    /// It has no default and nobody gave a value.
    #[error("start without the input {name:?}: it has no default, so give it a value")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A value of another type.
    #[error("take {value} as the input {name:?}: it is {found}, but {wanted} is needed")]
    Type {
        /// The input's name.
        name: String,
        /// As given.
        value: Value,
        /// Its type with the article.
        found: &'static str,
        /// The declared type with the article.
        wanted: &'static str,
    },
    /// A number outside of its bounds.
    #[error("take {value} as the input {name:?}: it must be {bound}")]
    Range {
        /// The input's name.
        name: String,
        /// As given.
        value: Value,
        /// For example `at least 1`.
        bound: String,
    },
    /// None of the allowed values.
    #[error("take {value} as the input {name:?}: it must be one of {}", Value::from(choices.clone()))]
    Choice {
        /// The input's name.
        name: String,
        /// As given.
        value: Value,
        /// What is allowed.
        choices: Vec<Value>,
    },
    /// `with:` could not be evaluated for this event.
    #[error("take the input {name:?} from the event: {error}")]
    Expression {
        /// The input's name.
        name: String,
        /// Why not.
        error: ExprError,
    },
}

/// A value for every declared input, or everything that is wrong. What a person has `given` counts before what `with`
/// takes from the event, and that before the default.
pub fn inputs_for(
    declared: &IndexMap<String, InputDecl>,
    with: &IndexMap<String, Template>,
    event: &CloudEvent,
    given: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Value>, Vec<InputError>> {
    let unknown = with.keys().chain(given.keys()).filter(|name| !declared.contains_key(*name));
    let mut errors: Vec<InputError> =
        unknown.map(|name| InputError::Unknown { name: name.clone(), nearest: nearest(name, declared) }).collect();
    let bindings = Bindings::of(&event_scope(event));
    let mut inputs = BTreeMap::new();
    for (name, declaration) in declared {
        let value = match (given.get(name), with.get(name)) {
            (Some(value), _) => Ok(Some(value.clone())),
            (None, Some(template)) => template
                .evaluate_in(&bindings)
                .map(Some)
                .map_err(|error| InputError::Expression { name: name.clone(), error }),
            (None, None) => Ok(declaration.default.clone()),
        };
        let value = value.and_then(|value| value.ok_or_else(|| InputError::Missing { name: name.clone() }));
        match value.and_then(|value| check_input(name, declaration, value)) {
            Ok(value) => {
                inputs.insert(name.clone(), value);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(inputs) } else { Err(errors) }
}

/// Checks one value against its declaration. A whole number may be written as `5.0`: many JSON writers know no other.
pub fn check_input(name: &str, declaration: &InputDecl, value: Value) -> Result<Value, InputError> {
    let value = of_type(declaration.ty, value).map_err(|(value, wanted)| InputError::Type {
        name: name.to_owned(),
        found: type_name(&value),
        value,
        wanted,
    })?;
    if let Some(number) = value.as_f64() {
        let bounds = [
            declaration.minimum.filter(|minimum| number < *minimum).map(|minimum| format!("at least {minimum}")),
            declaration.maximum.filter(|maximum| number > *maximum).map(|maximum| format!("at most {maximum}")),
        ];
        if let Some(bound) = bounds.into_iter().flatten().next() {
            return Err(InputError::Range { name: name.to_owned(), value, bound });
        }
    }
    if !declaration.choices.is_empty() && !declaration.choices.iter().any(|choice| same(choice, &value)) {
        return Err(InputError::Choice { name: name.to_owned(), value, choices: declaration.choices.clone() });
    }
    Ok(value)
}

/// The value in the form of its type, or the type that was wanted.
fn of_type(ty: InputType, value: Value) -> Result<Value, (Value, &'static str)> {
    match (ty, value) {
        (InputType::String, value @ Value::String(_))
        | (InputType::Number, value @ Value::Number(_))
        | (InputType::Boolean, value @ Value::Bool(_))
        | (InputType::List, value @ Value::Array(_)) => Ok(value),
        (InputType::Integer, value) => match whole(&value) {
            Some(whole) => Ok(Value::from(whole)),
            None => Err((value, "a whole number")),
        },
        (InputType::String, value) => Err((value, "a text")),
        (InputType::Number, value) => Err((value, "a number")),
        (InputType::Boolean, value) => Err((value, "a boolean")),
        (InputType::List, value) => Err((value, "a list")),
    }
}

fn whole(value: &Value) -> Option<i64> {
    /// Beyond this, not every whole number has a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let from_double = |double: f64| (double.fract() == 0.0 && double.abs() <= EXACT).then_some(double as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(from_double))
}

/// Equal, numbers by their value: 1 is 1.0.
fn same(left: &Value, right: &Value) -> bool {
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => left.total_cmp(&right).is_eq(),
        _ => left == right,
    }
}

/// Least similarity, from 0 to 1, at which a name is offered instead of an unknown one.
const SIMILAR: f64 = 0.7;

fn nearest(name: &str, declared: &IndexMap<String, InputDecl>) -> Option<String> {
    let similarity = |candidate: &String| strsim::jaro_winkler(name, candidate);
    let best = declared.keys().max_by(|left, right| similarity(left).total_cmp(&similarity(right)))?;
    (similarity(best) >= SIMILAR).then(|| best.clone())
}
