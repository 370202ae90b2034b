//! Expressions: CEL inside `${{ }}`, in `if:` and in `where:`.
//!
//! An [`Expr`] is its source text (that is what is stored) and, lazily, its compiled program. A [`Template`] is a YAML
//! value in which texts may hold expressions. Evaluation knows nothing of runs: what may be read comes in as a [`Scope`],
//! or as [`Bindings`] where many expressions read the same.
//!
//! Types are not checked here (`kickwheel-spec` does, on the syntax tree that [`Expr::ast`] gives).

mod bindings;
mod explain;
mod functions;
mod program;
mod references;
mod scan;
mod template;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

pub use bindings::Bindings;
pub use cel;
pub use explain::ParseFault;
pub use functions::{ALWAYS, FAILED, Function, functions};
use program::Compiled;
pub use program::{MAX_BRACKETS, MAX_COMPREHENSIONS, MAX_DEPTH, MAX_SOURCE_BYTES};
pub use references::Members;
use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use template::{Segment, Template, TemplateError, TextPart, segments};

/// A CEL expression. Serialises as its source; compiled at most once per instance.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Expr {
    source: String,
    #[serde(skip)]
    compiled: OnceLock<Result<Arc<Compiled>, ParseFault>>,
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({:?})", self.source)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Variables that an expression may read: `event`, `inputs`, `matrix`, `steps`, `datasets`, `run`.
pub type Scope = BTreeMap<String, Value>;

/// Why an expression gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// It does not parse.
    #[error("parse the expression `{source_text}`: {message}")]
    Parse {
        /// The expression.
        source_text: String,
        /// What the parser says.
        message: String,
        /// Byte offset into the expression, when the mistake lies at one place.
        offset: Option<usize>,
    },
    /// It parses, but these values give no result.
    #[error("evaluate `{source_text}`: {message}")]
    Evaluate {
        /// The expression.
        source_text: String,
        /// What is wrong.
        message: String,
    },
    /// It gives null, which is never a value here.
    #[error("use `{source_text}`: it is null; give a default, for example `has(x.y) ? x.y : 0`")]
    Null {
        /// The expression.
        source_text: String,
    },
    /// It gives a value of the wrong type.
    #[error("use `{source_text}`: it gives {found}, but {wanted} is needed")]
    Type {
        /// The expression.
        source_text: String,
        /// What is needed, with its article.
        wanted: &'static str,
        /// What it gives.
        found: String,
    },
}

impl Expr {
    /// An expression from its source; it is not parsed yet.
    pub fn new(source: impl Into<String>) -> Self {
        Self { source: source.into(), compiled: OnceLock::new() }
    }

    /// Its source text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Parses it (once).
    pub fn check(&self) -> Result<&cel::Program, ExprError> {
        self.compiled().map(|compiled| &compiled.program)
    }

    /// Its syntax tree. Ids of nodes lead to places in the source by `check()?.source_info()`.
    pub fn ast(&self) -> Result<&cel::IdedExpr, ExprError> {
        self.check().map(cel::Program::expression)
    }

    /// Its value in a scope. Numbers keep whether they are whole.
    pub fn evaluate(&self, scope: &Scope) -> Result<Value, ExprError> {
        let mut bindings = Bindings::default();
        for name in &self.compiled()?.variables {
            if let Some(value) = scope.get(name) {
                bindings.bind(name, value);
            }
        }
        self.evaluate_in(&bindings)
    }

    /// Its value with these variables.
    pub fn evaluate_in(&self, bindings: &Bindings) -> Result<Value, ExprError> {
        let compiled = self.compiled()?;
        let fault = |message| ExprError::Evaluate { source_text: self.source.clone(), message };
        let value = compiled.execute(bindings).map_err(|error| fault(explain::execution(&error)))?;
        match bindings::to_json(&value) {
            Ok(Value::Null) => Err(ExprError::Null { source_text: self.source.clone() }),
            Ok(value) => Ok(value),
            Err(found) => {
                Err(ExprError::Type { source_text: self.source.clone(), wanted: "a value that JSON can hold", found })
            }
        }
    }

    /// Its value, which must be a boolean.
    pub fn evaluate_bool(&self, scope: &Scope) -> Result<bool, ExprError> {
        self.boolean(self.evaluate(scope)?)
    }

    /// Its value with these variables, which must be a boolean.
    pub fn evaluate_bool_in(&self, bindings: &Bindings) -> Result<bool, ExprError> {
        self.boolean(self.evaluate_in(bindings)?)
    }

    fn boolean(&self, value: Value) -> Result<bool, ExprError> {
        value.as_bool().ok_or_else(|| ExprError::Type {
            source_text: self.source.clone(),
            wanted: "a boolean",
            found: type_name(&value).to_owned(),
        })
    }

    /// Names of the scope's variables that it reads; none if it does not parse.
    pub fn variables(&self) -> Vec<String> {
        self.compiled().map(|compiled| compiled.variables.clone()).unwrap_or_default()
    }

    /// Names `X` in `steps.X…` and `steps["X"]…` that it reads, for inferred needs.
    pub fn step_references(&self) -> Vec<String> {
        self.members("steps").names
    }

    /// Names `X` in `datasets["X"]` that it reads, for pinning.
    pub fn dataset_references(&self) -> Vec<String> {
        self.members("datasets").names
    }

    /// Which members of a variable it reads; none if it does not parse.
    pub fn members(&self, variable: &str) -> Members {
        self.ast().map(|ast| references::members(ast, variable)).unwrap_or_default()
    }

    /// The longest paths of members of a variable that it reads: `["data", "branch"]` for `event.data.branch`.
    pub fn paths(&self, variable: &str) -> Vec<Vec<String>> {
        self.ast().map(|ast| references::paths(ast, variable)).unwrap_or_default()
    }

    /// Whether it calls `always()` or `failed()`, see [`crate::plan::Condition::handles_failure`].
    pub fn handles_failure(&self) -> bool {
        self.ast().is_ok_and(|ast| references::calls(ast, ALWAYS) || references::calls(ast, FAILED))
    }

    fn compiled(&self) -> Result<&Compiled, ExprError> {
        match self.compiled.get_or_init(|| program::compile(&self.source).map(Arc::new)) {
            Ok(compiled) => Ok(compiled),
            Err(ParseFault { message, offset }) => {
                Err(ExprError::Parse { source_text: self.source.clone(), message: message.clone(), offset: *offset })
            }
        }
    }
}

/// The name of a value's type for people, with its article.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
