//! Values that an expression reads, in CEL's form, and its result in ours.
//!
//! Converting a large value costs more than evaluating most expressions, so [`Bindings`] are made once and used for many:
//! all templates of a step, all tasks of an array.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env,
    common::{
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use serde_json::{Map, Number, Value};

use super::{
    Scope,
    functions::{ALWAYS, FAILED},
};

/// CEL's standard functions, built once: it is the expensive part of a context.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Variables with their values, ready to be read by many expressions.
#[derive(Debug, Default)]
pub struct Bindings {
    values: BTreeMap<String, Box<dyn Val>>,
    failed: Option<bool>,
}

impl Bindings {
    /// All variables of a scope.
    pub fn of(scope: &Scope) -> Self {
        let mut bindings = Self::default();
        for (name, value) in scope {
            bindings.bind(name, value);
        }
        bindings
    }

    /// Adds or replaces a variable.
    pub fn bind(&mut self, name: &str, value: &Value) {
        self.values.insert(name.to_owned(), to_cel(value));
    }

    /// Makes `always()` and `failed()` callable; `failed` is what the latter gives.
    pub fn allow_failure_functions(&mut self, failed: bool) {
        self.failed = Some(failed);
    }

    /// A context that borrows these values.
    pub(super) fn context(&self) -> Context<'_, '_> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(self);
        if let Some(failed) = self.failed {
            let added =
                context.add_function(ALWAYS, || true).and_then(|()| context.add_function(FAILED, move || failed));
            added.expect("the standard environment declares neither name");
        }
        context
    }
}

impl VariableResolver for Bindings {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let name = variable.strip_prefix('.').unwrap_or(variable);
        self.values.get(name).map(|value| CowVal::Borrowed(value.as_ref()))
    }
}

/// Whole numbers become int (uint beyond its range), all others double, even `1.0`.
fn to_cel(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Box::new(CelInt::from(int)),
            (None, Some(uint)) => Box::new(CelUInt::from(uint)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(items) => Box::new(CelList::from(items.iter().map(to_cel).collect::<Vec<_>>())),
        Value::Object(fields) => {
            let entries = fields.iter().map(|(name, value)| (CelMapKey::from(name.clone()), to_cel(value)));
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}

/// The JSON form of a result, or what in it has none.
pub(super) fn to_json(value: &cel::Value) -> Result<Value, String> {
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(value) => Value::Bool(*value),
        cel::Value::Int(int) => Value::from(*int),
        cel::Value::UInt(uint) => Value::from(*uint),
        cel::Value::Float(float) => {
            Value::Number(Number::from_f64(*float).ok_or_else(|| format!("a double that is {float}"))?)
        }
        cel::Value::String(text) => Value::String(text.to_string()),
        cel::Value::Timestamp(time) => Value::String(time.to_rfc3339()),
        cel::Value::List(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        cel::Value::Map(entries) => {
            let mut fields = Map::new();
            for (key, value) in entries.map.iter() {
                fields.insert(key.to_string(), to_json(value)?);
            }
            Value::Object(fields)
        }
        cel::Value::Bytes(_)
        | cel::Value::Duration(_)
        | cel::Value::Function(..)
        | cel::Value::Opaque(_)
        | cel::Value::Struct(_) => return Err(format!("a {}", value.type_of())),
    })
}
